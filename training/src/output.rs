//! Output files: written beside their place and renamed into it, so that an interrupted run leaves
//! the old file whole. And standard output, where a command ends with what it found.

use std::io::{self, BufWriter, StdoutLock, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use serde::Serialize;
use tempfile::NamedTempFile;

/// A file on its way: it appears under its name when [`Output::finish`] is called, or not at all.
/// Without a path it is standard output.
pub(crate) enum Output {
    /// A file.
    File {
        /// Where it will stand.
        path: PathBuf,
        /// What is written so far.
        file: BufWriter<NamedTempFile>,
    },
    /// Standard output.
    Standard(BufWriter<io::Stdout>),
}

/// Refuses an output that is also read, or that is another output: it would replace what the user
/// still needs.
///
/// # Errors
/// Names the path.
pub(crate) fn refuse_overlap(outputs: &[Option<&Path>], inputs: &[&Path]) -> anyhow::Result<()> {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let inputs: Vec<PathBuf> = inputs.iter().map(|path| real(path)).collect();
    let mut seen: Vec<PathBuf> = Vec::new();
    for path in outputs.iter().flatten() {
        let name = real(path);
        ensure!(!inputs.contains(&name), "output {} is also an input", path.display());
        ensure!(!seen.contains(&name), "{} is named for two outputs", path.display());
        seen.push(name);
    }
    Ok(())
}

/// Prints what a command found: as JSON, or as `text` says it to a person.
///
/// # Errors
/// If standard output can't be written to.
pub(crate) fn print(
    is_json: bool,
    found: &impl Serialize,
    text: impl FnOnce(&mut StdoutLock<'static>) -> io::Result<()>,
) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    if is_json {
        serde_json::to_writer_pretty(&mut out, found)?;
        writeln!(out)?;
    } else {
        text(&mut out)?;
    }
    Ok(())
}

impl Output {
    /// Starts a file in the folder of `path`, or writes to standard output.
    ///
    /// # Errors
    /// If the folder isn't there or can't be written to; named.
    pub(crate) fn create(path: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = path else {
            return Ok(Self::Standard(BufWriter::new(io::stdout())));
        };
        let folder = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let file = new_in(folder)
            .with_context(|| format!("output {}: can't write into its folder", path.display()))?;
        Ok(Self::File { path: path.to_owned(), file: BufWriter::new(file) })
    }

    /// Puts the file in its place.
    ///
    /// # Errors
    /// If writing or renaming fails; the old file is as it was then.
    pub(crate) fn finish(self) -> anyhow::Result<()> {
        match self {
            Self::Standard(mut out) => Ok(out.flush()?),
            Self::File { path, file } => {
                let name = || format!("output {}", path.display());
                let file =
                    file.into_inner().map_err(io::IntoInnerError::into_error).with_context(name)?;
                file.as_file().sync_all().with_context(name)?;
                file.persist(&path).map_err(|error| error.error).with_context(name)?;
                Ok(())
            }
        }
    }
}

/// A temporary file is its owner's alone by default; an output is as readable as any new file is
/// under the user's mask.
fn new_in(folder: &Path) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    builder.tempfile_in(folder)
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File { file, .. } => file.write(bytes),
            Self::Standard(out) => out.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::File { file, .. } => file.flush(),
            Self::Standard(out) => out.flush(),
        }
    }
}
