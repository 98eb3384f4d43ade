//! `sawlog completions` and `sawlog man`: what shells and `man` want to know of the commands, made of the same
//! definitions that read the arguments.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Command;
use clap_complete::Shell;

/// Prints the completions of a shell.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  source <(sawlog completions bash)       # for this shell alone
  sawlog completions bash > ~/.local/share/bash-completion/completions/sawlog
  sawlog completions zsh > ~/.zfunc/_sawlog     # a folder of $fpath
  sawlog completions fish > ~/.config/fish/completions/sawlog.fish")]
pub(crate) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// Writes the manual: sawlog.1, and a page for each command.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  sawlog man ~/.local/share/man/man1 && man sawlog-publish")]
pub(crate) struct ManArgs {
    /// The folder for the pages, which must be there
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// Prints completions.
pub(crate) fn run_completions(args: &CompletionsArgs, mut command: Command) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "sawlog", &mut script);
    std::io::Write::write_all(&mut std::io::stdout().lock(), &script)?;
    Ok(())
}

/// Writes the pages.
pub(crate) fn run_man(args: &ManArgs, command: Command) -> anyhow::Result<()> {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    write_pages(command, &args.folder).with_context(|| format!("folder {}", args.folder.display()))
}

/// Writes the page of a command, and those of its own commands.
fn write_pages(command: Command, folder: &Path) -> std::io::Result<()> {
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()).cloned() {
        write_pages(below, folder)?;
    }
    let page = clap_mangen::Man::new(command);
    let mut text = Vec::new();
    page.render(&mut text)?;
    let text = String::from_utf8_lossy(&text);
    // What follows the options is examples, under the heading that manuals have for them; the library has
    // another one, and joins lines that are too long.
    let text = match text.split_once("\n.SH EXTRA\n") {
        Some((before, examples)) => {
            let examples = ["Examples:\n", "Example:\n"]
                .into_iter()
                .find_map(|title| examples.strip_prefix(title))
                .unwrap_or(examples);
            format!("{before}\n.SH EXAMPLES\n.nf\n{examples}")
        }
        None => text.into_owned(),
    };
    std::fs::write(folder.join(page.get_filename()), text)
}
