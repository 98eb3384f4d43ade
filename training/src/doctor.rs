//! `sawlog doctor`: is everything there that a function needs, and as it needs it?
//!
//! The variables are read by the Lambda's own parser, and what they name is asked by the clients that the
//! Lambda has. Nothing is changed: what can only be tested by writing is tested by a write that can't come
//! about, and what can't be tested so is not. A check says what is wrong and how to mend it, in a line each.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use serde::Serialize;

mod endpoint;
mod models;
mod sinks;
mod variables;

use variables::Standing;

/// Checks a deployment: variables, credentials, models, features, table, queue, topic, buckets, endpoint.
///
/// Reads the function's variables from a file or from the process's own environment, and asks AWS with the
/// credentials at hand: run it with the function's role to see what the function may do. It changes nothing;
/// the endpoint, if there is one, is asked for one score. Fails if a check does; warnings don't count.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sawlog doctor --env production.env
  aws lambda get-function-configuration --function-name sawlog --query Environment.Variables \\
    | jq -r 'to_entries[] | \"\\(.key)=\\(.value)\"' | sawlog doctor --env -")]
pub(crate) struct Args {
    /// A file of NAME=value lines, in place of the function's variables in the process's environment. AWS_*
    /// variables that it has take the place of the process's; the others stay. - for standard input
    #[arg(long, value_name = "FILE")]
    env: Option<PathBuf>,
    /// As one JSON object, for programs
    #[arg(long)]
    json: bool,
    /// A name in the file that nothing reads
    #[arg(long, hide = true)]
    unread: Vec<String>,
    /// A variable of AWS's clients that is not in the file but in the process's environment
    #[arg(long, hide = true)]
    outside: Vec<String>,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// As it should be.
    Ok,
    /// The function works, but perhaps not as it is meant to; or it could not be seen whether it does.
    Warn,
    /// The function won't start, or won't do what it is configured for.
    Fail,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// The variable, or what else was looked at.
    pub what: String,
    /// How it ended.
    pub state: State,
    /// What is the case.
    pub said: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

impl Finding {
    pub(crate) fn ok(what: &str, said: impl Into<String>) -> Self {
        // One line, whatever a library says in several.
        let said: String = said.into();
        let said: Vec<&str> = said.split_whitespace().collect();
        Self { what: what.to_owned(), state: State::Ok, said: said.join(" "), mend: None }
    }

    pub(crate) fn warn(what: &str, said: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { state: State::Warn, mend: Some(mend.into()), ..Self::ok(what, said) }
    }

    pub(crate) fn fail(what: &str, said: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { state: State::Fail, mend: Some(mend.into()), ..Self::ok(what, said) }
    }
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    if let Some(path) = &args.env {
        return run_under(path, args.json);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let findings = runtime.block_on(check(&args.unread, &args.outside));
    let failed = findings.iter().filter(|finding| finding.state == State::Fail).count();
    let mut out = std::io::stdout().lock();
    if args.json {
        let report = serde_json::json!({"ok": failed == 0, "checks": findings});
        serde_json::to_writer_pretty(&mut out, &report)?;
        writeln!(out)?;
    } else {
        let colour = out.is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let width = findings.iter().map(|finding| finding.what.len()).max().unwrap_or_default();
        for finding in &findings {
            print(&mut out, finding, width, colour)?;
        }
    }
    out.flush()?;
    ensure!(failed == 0, "{failed} of {} checks failed", findings.len());
    Ok(())
}

fn print(
    out: &mut impl Write,
    finding: &Finding,
    width: usize,
    colour: bool,
) -> std::io::Result<()> {
    let (word, code) = match finding.state {
        State::Ok => ("ok  ", "32"),
        State::Warn => ("warn", "33"),
        State::Fail => ("FAIL", "31"),
    };
    let (begin, end) =
        if colour { (format!("\x1b[{code}m"), "\x1b[0m") } else { (String::new(), "") };
    write!(out, "{begin}{word}{end}  {:width$}  {}", finding.what, finding.said)?;
    if let Some(mend) = &finding.mend {
        write!(out, ". Mend: {mend}")?;
    }
    writeln!(out)
}

/// All checks, in the order of the variables' table.
async fn check(unread: &[String], outside: &[String]) -> Vec<Finding> {
    let read = variables::read(&|name| {
        std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
    });
    let mut findings = read.findings;
    for name in unread {
        findings.push(Finding::warn(
            name,
            "nothing reads a variable of this name",
            "see the table of variables in README.md; a slip of the hand leaves the default in force",
        ));
    }
    findings.extend(outside.iter().filter_map(|name| variables::outside(name)));
    let Some(config) = read.config else { return findings };
    let is_sound = |name: &str| !read.unsound.contains(name);
    let aws = sawlog_lambda::app::Aws::new(config.s3_path_style);
    if variables::needs_aws(&config) {
        let is_outside = outside.iter().any(|name| name == variables::REGION);
        let credentials = variables::credentials(&aws, is_outside).await;
        let is_usable = credentials.state != State::Fail;
        findings.push(credentials);
        if !is_usable {
            // All that follows would say the same.
            return findings;
        }
    }
    let mut models = Vec::new();
    if is_sound("MODEL_URI") {
        models = models::check(&aws, &config, &mut findings).await;
    }
    let spec = models::features(&aws, &config, &models, &mut findings).await;
    if is_sound("RESULTS_URI") {
        sinks::results(&aws, &config, &mut findings).await;
    }
    if is_sound("DEAD_LETTERS_URI") {
        sinks::dead_letters(&aws, &config, &mut findings).await;
    }
    sinks::buckets(&aws, &config, &mut findings).await;
    sinks::alerts(&aws, &config, &mut findings).await;
    endpoint::check(&aws, &config, &models, spec.as_ref(), &mut findings).await;
    findings
}

/// Runs the same command with the variables of a file: AWS's clients read the process's environment, and
/// only a new process has another.
fn run_under(path: &Path, json: bool) -> anyhow::Result<()> {
    let name = || format!("--env {}", path.display());
    let text = if path == Path::new("-") {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(path)
    };
    let given = parse(&text.with_context(name)?).with_context(name)?;
    let known = variables::known();
    let mut command =
        std::process::Command::new(std::env::current_exe().context("the path of this program")?);
    command.arg("doctor").args(json.then_some("--json"));
    for name in given.keys().filter(|name| !variables::is_read(&known, name)) {
        command.args(["--unread", name]);
    }
    for name in known.iter().filter(|name| !name.starts_with("AWS_")) {
        command.env_remove(name);
    }
    // What the process says to AWS's clients counts where the file says nothing, and is told.
    let process = std::env::vars_os().filter(|(_, value)| !value.is_empty());
    for name in process.filter_map(|(name, _)| name.into_string().ok()) {
        match variables::standing(&given, &name) {
            Standing::Outside => _ = command.args(["--outside", &name]),
            Standing::Overruled => _ = command.env_remove(&name),
            Standing::Other => {}
        }
    }
    command.envs(&given);
    #[cfg(unix)]
    {
        use std::os::unix::process::CommandExt as _;
        // Comes back only if it fails.
        Err(command.exec()).context("the doctor can't be started")
    }
    #[cfg(not(unix))]
    {
        let status = command.status().context("the doctor can't be started")?;
        std::process::exit(status.code().unwrap_or(1))
    }
}

/// Reads NAME=value lines: blank lines and those that begin with # are passed over, a value may stand in
/// quotes, and `export` before a name is no part of it.
fn parse(text: &str) -> anyhow::Result<BTreeMap<String, String>> {
    let mut given = BTreeMap::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let number = at + 1;
        let line = line.strip_prefix("export ").unwrap_or(line);
        let Some((name, value)) = line.split_once('=') else {
            bail!("line {number} is not NAME=value");
        };
        let name = name.trim();
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        ensure!(
            !name.is_empty() && name.bytes().all(is_name),
            "line {number} does not begin with a variable's name"
        );
        let value = value.trim();
        let quoted = ['"', '\''].into_iter().find_map(|quote| {
            let inner = value.strip_prefix(quote)?.strip_suffix(quote)?;
            Some(inner)
        });
        let value = quoted.unwrap_or(value);
        ensure!(!value.contains('\0'), "line {number} has a zero byte");
        let before = given.insert(name.to_owned(), value.to_owned());
        ensure!(before.is_none(), "line {number} sets {name} a second time");
    }
    Ok(given)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_variables_is_read_line_by_line() {
        let text =
            "# production\n\nA=1\nexport B_2 = \"x y\"\nC='{\"*\": \"s3://b/k\"}'\nD=\n  E=a=b\n";
        let given = parse(text).expect("sound");
        let expected =
            [("A", "1"), ("B_2", "x y"), ("C", "{\"*\": \"s3://b/k\"}"), ("D", ""), ("E", "a=b")];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(given, BTreeMap::from(expected));
        for (text, words) in [
            ("A=1\nnonsense", "line 2 is not NAME=value"),
            ("=1", "line 1 does not begin with a variable's name"),
            ("a b=1", "line 1 does not begin"),
            ("A=1\nA=2", "line 2 sets A a second time"),
        ] {
            let error = parse(text).expect_err(words).to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
