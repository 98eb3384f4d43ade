//! The variables, by the Lambda's own parser, and what AWS's clients need.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_s3::config::ProvideCredentials as _;
use sawlog_lambda::Config;
use sawlog_lambda::app::Aws;
use sawlog_lambda::config::{
    AlertsUri, CaptureUri, DeadLettersUri, ModelUri, ModelUris, ResultsUri,
};
use sawlog_lambda::handler::chain;

use super::Finding;
use crate::aws::ENDPOINT_URL;

/// Names the region, which Lambda sets by itself.
pub(super) const REGION: &str = "AWS_REGION";

/// What stands in for a place that is missing or malformed, so that the others can be read.
const STAND_IN: &str = "file:///dev/null";
/// The variables without which nothing is read.
const REQUIRED: [&str; 3] = ["MODEL_URI", "RESULTS_URI", "DEAD_LETTERS_URI"];
/// Read by the binary and by what tells CloudWatch of it, not by the configuration.
const OTHERS: [&str; 5] =
    ["POWERTOOLS_METRICS_NAMESPACE", "POWERTOOLS_SERVICE_NAME", "RUST_LOG", "RUST_BACKTRACE", "TZ"];

/// The configuration as far as it can be read.
pub(super) struct Read {
    /// None if it can't be read at all.
    pub config: Option<Config>,
    /// The variables that are not what they must be.
    pub unsound: BTreeSet<&'static str>,
    /// What was found of them.
    pub findings: Vec<Finding>,
}

/// Reads all variables, beyond the first that is not sound.
pub(super) fn read(get: &dyn Fn(&str) -> Option<String>) -> Read {
    let mut unsound: BTreeSet<&'static str> = BTreeSet::new();
    let mut findings = Vec::new();
    loop {
        let stood_in = |name: &str| match unsound.contains(name) {
            true => REQUIRED.contains(&name).then(|| STAND_IN.to_owned()),
            false => get(name),
        };
        let error = match Config::from_vars(stood_in) {
            Ok(config) => {
                if findings.is_empty() {
                    findings.push(Finding::ok("variables", "all are well-formed"));
                }
                return Read { config: Some(config), unsound, findings };
            }
            Err(error) => error,
        };
        let (name, said) = (error.name(), error.to_string());
        let (said, mend) = match said.rsplit_once("; expected ") {
            Some((said, expected)) => (said.to_owned(), format!("set it to {expected}")),
            None => match said.rsplit_once(", which needs ") {
                Some((said, needs)) => {
                    (said.to_owned(), format!("set {needs} too, or unset {name}"))
                }
                None => (said, "see the table of variables in README.md".to_owned()),
            },
        };
        let said = said.strip_prefix("environment variable ").unwrap_or(&said).to_owned();
        findings.push(Finding::fail(name, said, mend));
        if !unsound.insert(name) {
            return Read { config: None, unsound, findings };
        }
    }
}

/// Every name that the configuration asks for.
pub(super) fn known() -> BTreeSet<String> {
    let asked = RefCell::new(BTreeSet::new());
    // Sound, so that the parser goes to its end; the result is of no interest.
    let _ = Config::from_vars(|name| {
        asked.borrow_mut().insert(name.to_owned());
        match name {
            "MODEL_URI" | "RESULTS_URI" | "DEAD_LETTERS_URI" => Some(STAND_IN.to_owned()),
            "ENDPOINT_NAME" => Some("any".to_owned()),
            _ => None,
        }
    });
    asked.into_inner()
}

/// True for a name that something reads.
pub(super) fn is_read(known: &BTreeSet<String>, name: &str) -> bool {
    known.contains(name)
        || OTHERS.contains(&name)
        || ["AWS_", "_X_AMZN", "LAMBDA_", "LC_", "LANG"].iter().any(|begin| name.starts_with(begin))
}

/// What a variable of the process's environment is beside those of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It leads AWS's clients somewhere, and the file has nothing to say of that.
    Outside,
    /// The file says something else that it would go before.
    Overruled,
    /// It leads nowhere, or stands in the file too, which goes before.
    Other,
}

/// How a variable of the process stands beside those of a file.
pub(super) fn standing(file: &BTreeMap<String, String>, name: &str) -> Standing {
    if file.contains_key(name) {
        return Standing::Other;
    }
    let has = |name: &str| file.contains_key(name);
    match name {
        // Clients ask for the first before the second.
        REGION | "AWS_DEFAULT_REGION" if has(REGION) || has("AWS_DEFAULT_REGION") => {
            Standing::Overruled
        }
        REGION => Standing::Outside,
        // The address of one service goes before the one of all.
        _ if name.starts_with(ENDPOINT_URL) && has(ENDPOINT_URL) => Standing::Overruled,
        _ if name.starts_with(ENDPOINT_URL) => Standing::Outside,
        _ => Standing::Other,
    }
}

/// What is said of a variable that leads AWS's clients elsewhere without the file's knowing; nothing of the region,
/// which is told with the credentials.
pub(super) fn outside(name: &str) -> Option<Finding> {
    let value = std::env::var(name).ok().filter(|_| name.starts_with(ENDPOINT_URL))?;
    Some(Finding::warn(
        name,
        format!("{value}, of this environment and not of the file, is asked by these checks"),
        "put it into the file if the function has it too; unset it to ask AWS",
    ))
}

/// True if anything of the configuration is in AWS.
pub(super) fn needs_aws(config: &Config) -> bool {
    let ModelUris { by_topic, otherwise } = &config.models;
    let in_s3 = |uri: &ModelUri| matches!(uri, ModelUri::S3 { .. });
    by_topic.values().chain(otherwise).chain(&config.features).any(in_s3)
        || matches!(config.results, ResultsUri::DynamoDb { .. })
        || matches!(config.dead_letters, DeadLettersUri::Sqs { .. })
        || matches!(config.alerts, Some(AlertsUri::Sns { .. }))
        || matches!(config.validation.capture, Some(CaptureUri::S3(_)))
        || config.dead_letters_s3.is_some()
        || config.endpoint.is_some()
}

/// Are there a region and credentials?
pub(super) async fn credentials(aws: &Aws, is_region_outside: bool) -> Finding {
    let sdk = aws.config().await;
    let Some(region) = sdk.region() else {
        return Finding::fail("credentials", "there is no region", "set AWS_REGION");
    };
    let mend = "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; in Lambda, give the \
                function a role";
    let Some(provider) = sdk.credentials_provider() else {
        return Finding::fail("credentials", "there are none", mend);
    };
    match provider.provide_credentials().await {
        Ok(_) => {
            let from =
                if is_region_outside { ", of this environment and not of the file" } else { "" };
            Finding::ok("credentials", format!("there are some; the region is {region}{from}"))
        }
        Err(error) => {
            Finding::fail("credentials", format!("there are none: {}", chain(&error)), mend)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;

    fn read_of(vars: &[(&str, &str)]) -> Read {
        read(&|name| {
            vars.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn every_unsound_variable_is_found_and_not_only_the_first() {
        let found = read_of(&[
            ("MODEL_URI", "models/web"),
            ("RESULTS_URI", "file:///tmp/x"),
            ("MODEL_REFRESH_SECS", "5m"),
            ("RESULTS_TTL_DAYS", "-1"),
            ("FEATURES_URI", "file:///tmp/spec.toml"),
        ]);
        assert!(found.config.is_some());
        let names: Vec<&str> = found.findings.iter().map(|it| it.what.as_str()).collect();
        let mut sorted = names.clone();
        sorted.sort_unstable();
        let expected = [
            "DEAD_LETTERS_URI",
            "FEATURES_URI",
            "MODEL_REFRESH_SECS",
            "MODEL_URI",
            "RESULTS_TTL_DAYS",
        ];
        assert_eq!(sorted, expected);
        assert!(found.findings.iter().all(|it| it.state == State::Fail && it.mend.is_some()));
        let refresh =
            &found.findings[names.iter().position(|it| *it == "MODEL_REFRESH_SECS").expect("it")];
        assert_eq!(refresh.said, "MODEL_REFRESH_SECS is `5m`");
        assert_eq!(refresh.mend.as_deref(), Some("set it to 0 to 86400 seconds"));
    }

    #[test]
    fn sound_variables_give_the_configuration_alone() {
        let found = read_of(&[
            ("MODEL_URI", "file:///tmp/m"),
            ("RESULTS", "none"),
            ("DEAD_LETTERS_URI", "file:///tmp/d"),
        ]);
        assert_eq!(found.findings, [Finding::ok("variables", "all are well-formed")]);
        assert!(!needs_aws(&found.config.expect("read")));
    }

    #[test]
    fn the_file_goes_before_the_process_also_where_clients_would_not() {
        let file = |names: &[&str]| -> BTreeMap<String, String> {
            names.iter().map(|name| ((*name).to_owned(), "x".to_owned())).collect()
        };
        let (all, s3) = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3");
        for (names, name, want) in [
            (&[][..], all, Standing::Outside),
            (&[], s3, Standing::Outside),
            (&[s3], s3, Standing::Other),
            (&[s3], all, Standing::Outside),
            (&[all], s3, Standing::Overruled),
            (&[all], all, Standing::Other),
            (&[], "AWS_REGION", Standing::Outside),
            (&["AWS_DEFAULT_REGION"], "AWS_REGION", Standing::Overruled),
            (&["AWS_REGION"], "AWS_REGION", Standing::Other),
            (&[], "AWS_ACCESS_KEY_ID", Standing::Other),
            (&[], "MODEL_URI", Standing::Other),
        ] {
            assert_eq!(standing(&file(names), name), want, "{name} beside {names:?}");
        }
    }

    #[test]
    fn every_variable_of_the_readme_is_known() {
        let known = known();
        let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
        let readme = std::fs::read_to_string(readme).expect("README.md");
        let table = readme.split("## The Lambda's environment").nth(1).expect("the table");
        let table = table.split("\n## ").next().expect("its end");
        let mut count = 0;
        for row in table.lines().filter(|line| line.starts_with("| `")) {
            let cell = row.split('|').nth(1).expect("a cell");
            for name in cell.split('`').skip(1).step_by(2) {
                assert!(is_read(&known, name), "{name} is in README.md and not known");
                count += 1;
            }
        }
        assert!(count > 25, "{count}");
        assert!(!is_read(&known, "MODEL_REFRESH_SEC"));
    }
}
