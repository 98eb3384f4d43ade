//! The binary that Lambda runs: logs, configuration, cold start, then one invocation after the other.

use std::{error::Error, process::ExitCode, sync::Arc};

use lambda_runtime::{LambdaEvent, service_fn};
use sawlog_lambda::{App, Config, deadline, handler};
use serde_json::value::RawValue;

#[tokio::main]
async fn main() -> ExitCode {
    start_logs();
    let Err(error) = run().await else { return ExitCode::SUCCESS };
    tracing::error!(reason = handler::chain(&*error), "the function can't run");
    ExitCode::FAILURE
}

async fn run() -> Result<(), Box<dyn Error + Send + Sync>> {
    let app = Arc::new(App::start(Config::from_env()?).await?);
    let handle = service_fn(move |invocation: LambdaEvent<Box<RawValue>>| {
        let app = Arc::clone(&app);
        async move {
            let deadline = deadline::from_epoch_ms(invocation.context.deadline);
            app.handle(&invocation.payload, deadline).await.map(|handled| handled.response)
        }
    });
    lambda_runtime::run_concurrent(handle).await
}

fn start_logs() {
    let var = |name| std::env::var(name).unwrap_or_default();
    let level = [var("AWS_LAMBDA_LOG_LEVEL"), var("RUST_LOG")].into_iter().find(|l| !l.is_empty());
    let filter = tracing_subscriber::EnvFilter::builder()
        .with_default_directive(tracing::Level::INFO.into())
        .parse_lossy(level.unwrap_or_default().replace("FATAL", "error"));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false);
    match var("AWS_LAMBDA_LOG_FORMAT").as_str() {
        "JSON" => logs.json().flatten_event(true).with_span_list(false).init(),
        _ => logs.init(),
    }
}
