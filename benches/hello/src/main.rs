//! The least function there is, on the runtime that the Lambda has: what benches/cold_start measures
//! beside it.

use lambda_runtime::{Error, LambdaEvent, run_concurrent, service_fn};
use serde_json::{Value, value::RawValue};

#[tokio::main]
async fn main() -> Result<(), Error> {
    run_concurrent(service_fn(async |_: LambdaEvent<Box<RawValue>>| Ok::<_, Error>(Value::Null)))
        .await
}
