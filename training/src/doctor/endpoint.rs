//! The endpoint, asked for the score of one row as the function asks.

use std::sync::Arc;
use std::time::Duration;

use ndarray::Array2;
use sawlog_lambda::Config;
use sawlog_lambda::app::Aws;
use sawlog_lambda::config::RowKind;
use sawlog_lambda::deadline::Until;
use sawlog_lambda::endpoint::{Endpoint, EndpointFault, value_features};
use sawlog_lambda::handler::chain;
use sawlog_model::{Model, ValidSpec};

use super::Finding;
use crate::aws::{self, Service};

/// Longest that it is waited for: three tries of the usual length.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Asks for the score of a row of zeros.
pub(super) async fn check(
    aws: &Aws,
    config: &Config,
    models: &[Arc<Model>],
    spec: Option<&ValidSpec>,
    findings: &mut Vec<Finding>,
) {
    let what = "ENDPOINT_NAME";
    let Some(settings) = &config.endpoint else { return };
    let name = &settings.name;
    let features = models.first().map(|model| model.features());
    let width = match settings.rows {
        RowKind::Points => features.map(|features| features.dimensions()),
        RowKind::Values => {
            let of_model =
                features.and_then(|it| value_features(it.spec(), Some(it.fitted())).ok());
            let of_spec = || value_features(spec?, None).ok();
            of_model.or_else(of_spec).map(|features| features.dimensions())
        }
    };
    let Some(width) = width else {
        let said = format!(
            "endpoint {name} was not asked: without a model or FEATURES_URI there is no row to send"
        );
        return findings.push(Finding::warn(what, said, "mend the model first"));
    };
    let endpoint = Endpoint::new(aws.config().await, settings.clone());
    let row = Array2::<f32>::zeros((1, width));
    let mut scores = endpoint.scores(row.view(), NAME, Until::FOREVER.within(TIMEOUT)).await;
    findings.push(match scores.pop() {
        Some(Ok(_)) => {
            Finding::ok(what, format!("endpoint {name} scored a row of {width} numbers"))
        }
        Some(Err(fault)) => Finding::fail(what, said(name, &fault), mend_of(&fault)),
        None => Finding::fail(what, format!("endpoint {name} gave no score"), "look at its log"),
    });
}

/// What the call is known by.
const NAME: &str = "doctor";

fn said(name: &str, fault: &EndpointFault) -> String {
    let unreached = match fault {
        EndpointFault::Unanswered(error) => aws::unreached(Service::SageMaker, error),
        _ => None,
    };
    match unreached {
        Some(unreached) => format!("endpoint {name} gave no answer: {unreached}"),
        None => format!("endpoint {name}: {}", chain(fault)),
    }
}

fn mend_of(fault: &EndpointFault) -> &'static str {
    let text = chain(fault);
    match fault {
        EndpointFault::Answer(_) => {
            "the endpoint must answer one finite score a row, as SageMaker's RCF does; ENDPOINT_FORMAT and \
             ENDPOINT_ROWS say what it is sent"
        }
        EndpointFault::Unanswered(_) | EndpointFault::OutOfTime => {
            "see that it can be reached from here (VPC, AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME), and \
             ENDPOINT_TIMEOUT_MS"
        }
        EndpointFault::Refused(_) if text.contains("403") || text.contains("AccessDenied") => {
            "grant sagemaker:InvokeEndpoint on it to the function's role"
        }
        EndpointFault::Refused(_) => {
            "see that it exists and is InService (aws sagemaker describe-endpoint), and that ENDPOINT_ROWS \
             and ENDPOINT_FORMAT are what it was trained on"
        }
        _ => "raise ENDPOINT_MAX_BYTES",
    }
}
