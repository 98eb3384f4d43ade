//! The binary that Lambda runs: logs, configuration, cold start, then one invocation after the other.

use std::{error::Error, process::ExitCode, sync::Arc};

use lambda_runtime::{LambdaEvent, service_fn};
use sawlog_lambda::{App, Config, Metrics, deadline, handler};
use serde_json::value::RawValue;
use tracing::Level;
use tracing_subscriber::filter::{EnvFilter, FilterExt as _, filter_fn};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

#[tokio::main]
async fn main() -> ExitCode {
    start_logs();
    let Err(error) = run().await else { return ExitCode::SUCCESS };
    tracing::error!(reason = handler::chain(&*error), "the function can't run");
    ExitCode::FAILURE
}

async fn run() -> Result<(), Box<dyn Error + Send + Sync>> {
    let app = Arc::new(App::start(Config::from_env()?).await?);
    let metrics = Arc::new(Metrics::from_env());
    let handle = service_fn(move |invocation: LambdaEvent<Box<RawValue>>| {
        let (app, metrics) = (Arc::clone(&app), Arc::clone(&metrics));
        async move {
            let deadline = deadline::from_epoch_ms(invocation.context.deadline);
            let result = app.handle(&invocation.payload, deadline).await;
            metrics.write(&invocation.context.request_id, &result);
            result.map(|handled| handled.response)
        }
    });
    lambda_runtime::run_concurrent(handle).await
}

fn start_logs() {
    let var = |name| std::env::var(name).unwrap_or_default();
    let level = [var("AWS_LAMBDA_LOG_LEVEL"), var("RUST_LOG")].into_iter().find(|l| !l.is_empty());
    let level = EnvFilter::builder()
        .with_default_directive(Level::INFO.into())
        .parse_lossy(level.unwrap_or_default().replace("FATAL", "error"));
    let with_fields = var("LOG_FIELDS") == "true";
    // Below INFO the runtime logs events and the SDK its requests, and with them what is in records.
    let may_log = filter_fn(move |about| {
        let own = ["sawlog", "bootstrap"].iter().any(|own| about.target().starts_with(own));
        own || with_fields || *about.level() <= Level::INFO
    });
    // The span of an invocation has its id. It is one of INFO, but warnings are in it too.
    let invocation = filter_fn(|about| about.is_span() && about.target().starts_with("lambda_"));
    let logs = tracing_subscriber::fmt::layer().with_ansi(false);
    let logs = match var("AWS_LAMBDA_LOG_FORMAT").as_str() {
        "JSON" => logs.json().flatten_event(true).with_span_list(false).boxed(),
        _ => logs.boxed(),
    };
    let filter = level.and(may_log).or(invocation);
    tracing_subscriber::registry().with(logs.with_filter(filter)).init();
}
