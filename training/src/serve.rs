//! `sawlog serve`: a model behind the contract of SageMaker's containers.
//!
//! - GET `/ping`: 200.
//! - POST `/invocations`: scores of the rows in the body, by its `Content-Type` and `Accept`; an error is
//!   `{"error": "…"}` with its status.
//! - POST `/endpoints/NAME/invocations`: the same as SageMaker's service answers it, for clients with
//!   `AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME`: what the container refuses is a ModelError (424) that has the
//!   container's own status in it.
//!
//! Whoever can reach it can call it: in SageMaker that is SageMaker alone, which also checks who may
//! invoke an endpoint. Memory is bounded whatever is sent: see [`service`] for requests and [`connections`]
//! for connections.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use sawlog_lambda::content::RowKind;
use tokio::net::TcpListener;

use crate::inspect;

mod answer;
mod connections;
mod service;

use service::Service;

/// Scores rows of numbers over HTTP, as a SageMaker endpoint does.
///
/// GET /ping, POST /invocations and POST /endpoints/NAME/invocations; text/csv, application/json,
/// application/jsonlines and application/x-recordio-protobuf. Ends on SIGTERM or ctrl-c, after the
/// requests that it has begun.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  sawlog serve --model model.sawlog --host 127.0.0.1 &
  curl -H 'Content-Type: text/csv' --data-binary '0.5,1.2' http://127.0.0.1:8080/invocations")]
pub(crate) struct Args {
    /// The model, or a folder with one *.sawlog in it
    #[arg(long, value_name = "PATH", default_value = "/opt/ml/model")]
    model: PathBuf,
    /// What a row is. points: what the forest sees, after encoding, transforms and shingling;
    /// values: the numeric features as they are read
    #[arg(long, default_value = "points", env = "ENDPOINT_ROWS", value_parser = row_kind, value_name = "KIND")]
    rows: RowKind,
    /// 0 for any that is free
    #[arg(long, default_value_t = 8080, env = "SAGEMAKER_BIND_TO_PORT")]
    port: u16,
    /// The address to listen on
    #[arg(long, default_value = "0.0.0.0", value_name = "ADDRESS")]
    host: IpAddr,
    /// Most connections at once; others wait
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u16).range(1..), value_name = "N")]
    connections: u16,
    /// Most seconds that a request may take to arrive, and an answer to be taken
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u16).range(1..), value_name = "SECONDS")]
    timeout_secs: u16,
    /// How long an answer is held back: a network's stand-in in benchmarks
    #[arg(long, default_value_t = 0, hide = true)]
    delay_ms: u32,
}

/// Reads what a row is.
pub(crate) fn row_kind(text: &str) -> Result<RowKind, &'static str> {
    text.parse().map_err(|_| "not points or values")
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let path = model_in(&args.model)?;
    let model = inspect::load(&path)?;
    let width = args.rows.width(model.features());
    let width = width.with_context(|| format!("model {}", path.display()))?;
    let numbers = match args.rows {
        RowKind::Points => "coordinates",
        RowKind::Values => "values",
    };
    let about = format!("rows of {width} {numbers}; model {}", model.id());
    let timeout = Duration::from_secs(args.timeout_secs.into());
    let delay = Duration::from_millis(args.delay_ms.into());
    let service = Arc::new(Service::new(model, args.rows, timeout, delay));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let stop = connections::Stop::listen()?;
        let address = SocketAddr::new(args.host, args.port);
        let listener = TcpListener::bind(address).await.with_context(|| format!("{address}"))?;
        eprintln!("listening on http://{}: {about}", listener.local_addr()?);
        connections::serve(listener, &service, args.connections.into(), timeout, stop).await;
        eprintln!("stopped: {}", service.counts());
        Ok(())
    })
}

/// The file itself, or the only model in the folder: SageMaker unpacks `model.tar.gz` into one, with
/// whatever name the file has.
fn model_in(path: &Path) -> anyhow::Result<PathBuf> {
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    let mut models = Vec::new();
    for entry in path.read_dir().with_context(|| format!("folder {}", path.display()))? {
        let file = entry?.path();
        if file.extension().is_some_and(|extension| extension == "sawlog") {
            models.push(file);
        }
    }
    match (models.pop(), models.len()) {
        (Some(model), 0) => Ok(model),
        (None, _) => {
            bail!("folder {} has no *.sawlog: name the model with --model", path.display())
        }
        (Some(_), others) => {
            bail!("folder {} has {} models: name one with --model", path.display(), others + 1)
        }
    }
}
