//! Completions and manual: every command and option that `--help` shows is in them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::folder::Folder;

/// What a run prints.
fn sawlog(arguments: &[&str]) -> String {
    Folder::new().ok(&arguments.to_vec())
}

/// Every command with its long options, as the short help has them.
fn commands() -> BTreeMap<String, BTreeSet<String>> {
    let help = sawlog(&["-h"]);
    let list = help.split("Commands:").nth(1).and_then(|rest| rest.split("\nOptions:").next());
    let names = list.expect("a list of commands").lines();
    // A continued line is indented further.
    let names = names.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names =
        names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help");
    let commands: BTreeMap<String, BTreeSet<String>> = names
        .map(|name| {
            let help = sawlog(&[name, "-h"]);
            let options = help.split("Options:").nth(1).unwrap_or_default();
            let options = options.lines().filter_map(|line| {
                // A description that is continued is indented further, and may begin with an option.
                let option = line.strip_prefix("      ").or_else(|| line.strip_prefix("  -h, "))?;
                let name = option.strip_prefix("--")?.split([' ', '=', '[']).next()?;
                Some(format!("--{name}"))
            });
            (name.to_owned(), options.collect())
        })
        .collect();
    for name in ["train", "publish", "rollback", "doctor", "man"] {
        assert!(commands.contains_key(name), "{name} is not in {:?}", commands.keys());
    }
    assert!(commands["publish"].contains("--candidate"), "{:?}", commands["publish"]);
    commands
}

#[test]
fn completions_know_every_command_and_option() {
    let commands = commands();
    for shell in ["bash", "zsh", "fish"] {
        let script = sawlog(&["completions", shell]);
        for (name, options) in &commands {
            assert!(script.contains(name.as_str()), "{shell}: {name}");
            for option in options {
                // fish has options without their hyphens.
                let option = if shell == "fish" { option.trim_start_matches('-') } else { option };
                assert!(script.contains(option), "{shell}: {name} {option}");
            }
        }
    }
}

#[test]
fn bash_completes_a_command_and_its_options() {
    let script = sawlog(&["completions", "bash"]);
    let complete = |words: &[&str]| -> BTreeSet<String> {
        let last = words.len() - 1;
        let words: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
        let more = format!(
            "\nCOMP_WORDS=({}); COMP_CWORD={last}; _sawlog sawlog {} {}; printf '%s\\n' \"${{COMPREPLY[@]}}\"\n",
            words.join(" "),
            words[last],
            words[last - 1]
        );
        let mut bash = Command::new("bash")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("bash runs");
        let mut input = bash.stdin.take().expect("its input");
        input.write_all(format!("{script}{more}").as_bytes()).expect("written");
        drop(input);
        let run = bash.wait_with_output().expect("ended");
        let said = String::from_utf8_lossy(&run.stderr);
        assert!(run.status.success() && said.is_empty(), "{said}");
        String::from_utf8_lossy(&run.stdout).lines().map(str::to_owned).collect()
    };
    assert_eq!(complete(&["sawlog", "roll"]), ["rollback".to_owned()].into());
    assert_eq!(complete(&["sawlog", "publish", "--ca"]), ["--candidate".to_owned()].into());
    assert!(complete(&["sawlog", "completions", ""]).contains("fish"));
}

#[test]
fn the_manual_has_a_page_for_every_command() {
    let folder = Folder::new();
    assert_eq!(folder.ok("man ."), "");
    // Roff writes a hyphen as \-.
    let page = |name: &str| folder.text(name).replace("\\-", "-");
    let main = page("sawlog.1");
    for (name, options) in commands() {
        assert!(main.contains(&format!("sawlog-{name}(1)")), "{name} is not in sawlog.1");
        let page = page(&format!("sawlog-{name}.1"));
        for section in [".TH", ".SH NAME", ".SH SYNOPSIS", ".SH DESCRIPTION"] {
            assert!(page.contains(section), "{name}: no {section}");
        }
        for option in options {
            assert!(page.contains(&option), "{name}: {option}");
        }
        // Examples as they are written, one a line, under the title that manuals have.
        let help = sawlog(&[&name, "--help"]);
        let is_example = |line: &&str| line.starts_with(&format!("  sawlog {name}"));
        let examples: Vec<&str> = help.lines().filter(is_example).collect();
        let titled = page.split_once(".SH EXAMPLES\n.nf\n").map(|(_, rest)| rest);
        assert_eq!(titled.is_some(), help.contains("\nExample"), "{name}: a section of examples");
        // Help for a terminal breaks long lines.
        for example in examples {
            let example = example.replace('\'', "\\*(Aq");
            let found =
                titled.is_some_and(|rest| rest.lines().any(|line| line.starts_with(&example)));
            assert!(found, "{name}: no line {example:?} in {titled:?}");
        }
        assert!(!page.contains("EXTRA") && !page.contains("\nExample"), "{name}: {page}");
    }
    let said = folder.fails("man /no/such/folder");
    assert!(said.contains("/no/such/folder"), "{said}");
}
