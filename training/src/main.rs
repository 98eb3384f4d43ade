//! `sawlog`: trains, inspects and applies Random Cut Forest models.
//!
//! Each command is a module with its arguments and a `run`. Data goes to standard output or a named
//! file, what a person reads about the run beside it, progress to a terminal only.
#![forbid(unsafe_code)]

use clap::{CommandFactory as _, Parser, Subcommand};

mod aws;
mod bench_endpoint;
mod calibrate;
mod compare;
mod demo;
mod describe;
mod diff;
mod doctor;
mod dry_run;
mod evaluate;
mod history;
mod import;
mod input;
mod inspect;
mod manual;
mod output;
mod progress;
mod publish;
mod ranges;
mod replay;
mod score;
mod scoring;
mod serve;
mod sketch;
mod tally;
mod threshold;
mod train;
mod tune;

/// Finds unusual log records with a Random Cut Forest.
///
/// Train a model on historical logs, look at it, score files with it; the Lambda scores live
/// batches with the same code.
#[derive(Debug, Parser)]
#[command(name = "sawlog", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Train(train::Args),
    Sketch(sketch::SketchArgs),
    Merge(sketch::MergeArgs),
    Import(import::Args),
    Calibrate(calibrate::Args),
    Compare(compare::Args),
    Inspect(inspect::Args),
    Score(score::Args),
    Evaluate(evaluate::Args),
    Diff(diff::Args),
    Tune(tune::Args),
    Replay(replay::Args),
    Publish(publish::PublishArgs),
    Promote(publish::PromoteArgs),
    Rollback(history::RollbackArgs),
    History(history::HistoryArgs),
    Serve(serve::Args),
    BenchEndpoint(bench_endpoint::Args),
    Demo(demo::Args),
    Doctor(doctor::Args),
    Completions(manual::CompletionsArgs),
    Man(manual::ManArgs),
}

fn main() -> std::process::ExitCode {
    let cli = Cli::parse();
    let result = match &cli.command {
        Command::Train(args) => train::run(args),
        Command::Sketch(args) => sketch::run(args),
        Command::Merge(args) => sketch::run_merge(args),
        Command::Import(args) => import::run(args),
        Command::Calibrate(args) => calibrate::run(args),
        Command::Compare(args) => compare::run(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Score(args) => score::run(args),
        Command::Evaluate(args) => evaluate::run(args),
        Command::Diff(args) => diff::run(args),
        Command::Tune(args) => tune::run(args),
        Command::Replay(args) => replay::run(args),
        Command::Publish(args) => publish::run(args),
        Command::Promote(args) => publish::run_promote(args),
        Command::Rollback(args) => history::run_rollback(args),
        Command::History(args) => history::run(args),
        Command::Serve(args) => serve::run(args),
        Command::BenchEndpoint(args) => bench_endpoint::run(args),
        Command::Demo(args) => demo::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Completions(args) => manual::run_completions(args, Cli::command()),
        Command::Man(args) => manual::run_man(args, Cli::command()),
    };
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        // A reader that has seen enough, such as `head`, is no failure.
        Err(error) if is_broken_pipe(&error) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sawlog: {}", message(&error));
            std::process::ExitCode::FAILURE
        }
    }
}

/// The error and its causes, each said once: most errors here already quote their cause.
fn message(error: &anyhow::Error) -> String {
    let mut said = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if said.is_empty() {
            said = cause;
        } else if !said.contains(&cause) {
            said = format!("{said}: {cause}");
        }
    }
    said
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let kind = cause
            .downcast_ref::<std::io::Error>()
            .map(std::io::Error::kind)
            .or_else(|| cause.downcast_ref::<serde_json::Error>()?.io_error_kind());
        kind == Some(std::io::ErrorKind::BrokenPipe)
    })
}
