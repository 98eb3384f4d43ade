//! What these tests share: a folder to run `sawlog` in, the specification of most of them, and numbers by chance.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

/// Requests: how long each took, and where it went.
pub const SPEC: &str = r#"format = "json"
[[feature]]
name = "duration"
field = "/duration"
missing = "reject"
[[feature]]
name = "path"
field = "/path"
encode = "frequency"
"#;

/// A temporary folder, and `sawlog` as a process that runs in it.
pub struct Folder(TempDir);

/// A command's arguments: the words of a line, or one by one.
pub trait Arguments {
    fn words(&self) -> Vec<&str>;
}

impl Arguments for str {
    fn words(&self) -> Vec<&str> {
        self.split_whitespace().collect()
    }
}

impl Arguments for String {
    fn words(&self) -> Vec<&str> {
        self.as_str().words()
    }
}

impl<const N: usize> Arguments for [&str; N] {
    fn words(&self) -> Vec<&str> {
        self.to_vec()
    }
}

impl Arguments for Vec<&str> {
    fn words(&self) -> Vec<&str> {
        self.clone()
    }
}

impl Folder {
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    pub fn root(&self) -> &Path {
        self.0.path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    /// Writes a file, and makes the folders that it is in.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("created");
        std::fs::write(path, bytes).expect("written");
    }

    pub fn bytes(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub fn text(&self, name: &str) -> String {
        String::from_utf8(self.bytes(name)).expect("text")
    }

    pub fn command(&self, arguments: &(impl Arguments + ?Sized)) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sawlog"));
        command.current_dir(self.root()).args(arguments.words());
        command
    }

    pub fn run(&self, arguments: &(impl Arguments + ?Sized)) -> Output {
        self.command(arguments).output().expect("it starts")
    }

    fn succeed(&self, arguments: &(impl Arguments + ?Sized)) -> Output {
        let run = self.run(arguments);
        let said = String::from_utf8_lossy(&run.stderr);
        assert!(run.status.success(), "{:?} failed: {said}", arguments.words());
        run
    }

    /// Standard output of a command that must succeed.
    pub fn ok(&self, arguments: &(impl Arguments + ?Sized)) -> String {
        String::from_utf8(self.succeed(arguments).stdout).expect("text")
    }

    /// Standard output and standard error of a command that must succeed.
    pub fn said(&self, arguments: &(impl Arguments + ?Sized)) -> String {
        let run = self.succeed(arguments);
        String::from_utf8([run.stdout, run.stderr].concat()).expect("text")
    }

    /// What a command that must succeed prints as JSON.
    pub fn json(&self, arguments: &(impl Arguments + ?Sized)) -> Value {
        serde_json::from_str(&self.ok(arguments)).expect("json")
    }

    /// Standard error of a command that must fail cleanly, and leave nothing of the name `out`.
    pub fn fails(&self, arguments: &(impl Arguments + ?Sized)) -> String {
        let run = self.run(arguments);
        let said = String::from_utf8(run.stderr).expect("text");
        assert_eq!(run.status.code(), Some(1), "{:?} said: {said}", arguments.words());
        assert!(!said.contains("panicked"), "{said}");
        assert!(!self.path("out").exists(), "{:?}: something is written", arguments.words());
        said
    }
}

/// A file of the shipped examples.
pub fn example(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(path)
}

/// A number between 0 and 1 that looks drawn by chance.
pub fn noise(seed: u64) -> f64 {
    let mixed = seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    (mixed >> 40) as f64 / (1_u64 << 24) as f64
}
