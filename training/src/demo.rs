//! `sawlog demo`: the whole way on real logs in one command, without AWS.

use std::io::{Read, Write};
use std::path::PathBuf;

use anyhow::Context;

use sawlog_model::ThresholdRule;

use crate::output::Output;
use crate::replay::Replay;
use crate::train;

/// Requests of a web shop under injected faults: see examples/nezha.
const SAMPLE: &[u8] = include_bytes!("../../examples/nezha/requests.jsonl.gz");
const SPEC: &str = include_str!("../../examples/nezha/spec.toml");
/// Share of the sample that is history: what comes after it is replayed.
const HISTORY_PERCENT: usize = 60;
/// Five in a thousand, so that there is something to look at; training's default is one.
const THRESHOLD: ThresholdRule = ThresholdRule::Quantile(0.995);

/// Trains on a shipped sample of real logs and replays later ones as Kafka batches.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folder for logs, model and results; what an earlier demo left in it is replaced
    #[arg(long, default_value = "sawlog-demo", value_name = "FOLDER")]
    output: PathBuf,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let folder = &args.output;
    std::fs::create_dir_all(folder).with_context(|| format!("folder {}", folder.display()))?;
    let path = |name: &str| folder.join(name);
    let text = |name: &str| path(name).display().to_string();

    let mut sample = String::new();
    flate2::read::MultiGzDecoder::new(SAMPLE).read_to_string(&mut sample)?;
    let lines: Vec<&str> = sample.lines().collect();
    let (history, later) = lines.split_at(lines.len() * HISTORY_PERCENT / 100);
    for (name, lines) in [("history.jsonl", history), ("later.jsonl", later)] {
        write(path(name), &(lines.join("\n") + "\n"))?;
    }
    write(path("spec.toml"), SPEC)?;
    for name in ["results.jsonl", "dead-letters.jsonl"] {
        match std::fs::remove_file(path(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| text(name));
            }
            _ => {}
        }
    }

    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "Request logs of a web shop under test ({} records, two days; examples/nezha). The first {HISTORY_PERCENT} % is\n\
         history to train on; what came later is replayed as Kafka batches.\n",
        lines.len()
    )?;
    let (spec, history, later, model) =
        (text("spec.toml"), text("history.jsonl"), text("later.jsonl"), text("model.sawlog"));
    writeln!(
        out,
        "$ sawlog train --spec {spec} --input {history} --output {model} --threshold {THRESHOLD}\n"
    )?;
    train::train_to_file(&train::Args::new(&spec, &history, &model, THRESHOLD), &mut out)?;
    let shown = folder.display();
    writeln!(out, "\n$ sawlog replay --model {model} --input {later} --output {shown}\n")?;
    let replay =
        Replay { model: &path("model.sawlog"), input: &[later], output: folder, batch: 500 };
    replay.run(&mut out)?;
    writeln!(
        out,
        "\nNext: write a specification for your own logs (examples/ has some to start from), then\n  \
         sawlog train --spec SPEC.toml --input LOGS... --output model.sawlog\n  \
         sawlog score --model model.sawlog --input MORE_LOGS... --output scores.jsonl\n\
         and deploy template.yaml with the model in S3: see README.md."
    )?;
    Ok(())
}

fn write(path: PathBuf, text: &str) -> anyhow::Result<()> {
    let mut output = Output::create(Some(&path))?;
    output.write_all(text.as_bytes())?;
    output.finish()
}
