use super::*;

const SOUND: [(&str, &str); 3] = [
    ("MODEL_URI", "s3://models/prod/requests.model"),
    ("RESULTS_URI", "dynamodb://results"),
    ("DEAD_LETTERS_URI", "https://sqs.eu-west-1.amazonaws.com/123456789012/dead"),
];

/// The sound variables with some set to other values; "" stands for not set.
fn with(changes: &[(&str, &str)]) -> Result<Config, ConfigError> {
    Config::from_vars(|name| {
        let found = changes.iter().chain(&SOUND).find(|(known, _)| *known == name);
        found.map(|(_, value)| (*value).to_owned())
    })
}

fn s3(key: &str) -> ModelUri {
    ModelUri::S3 { bucket: "models".into(), key: key.into() }
}

#[test]
fn models_are_read_by_topic() {
    let map = r#" {"orders": "s3://models/a", "*": "s3://models/b", "web": "file:///c"}"#;
    let config = with(&[("MODEL_URI", map)]).expect("sound");
    let by_topic = [("orders", s3("a")), ("web", ModelUri::File("/c".into()))];
    let by_topic = by_topic.map(|(topic, uri)| (topic.to_owned(), uri)).into();
    assert_eq!(config.models, ModelUris { by_topic, otherwise: Some(s3("b")) });
    let config = with(&[("MODEL_URI", r#"{"orders": "s3://models/a"}"#)]).expect("sound");
    assert_eq!(config.models.otherwise, None);
}

#[test]
fn the_least_environment_gives_the_defaults() {
    let config = with(&[]).expect("sound");
    assert_eq!(
        config,
        Config {
            models: s3("prod/requests.model").into(),
            model_refresh_secs: 300,
            results: ResultsUri::DynamoDb { table: "results".into() },
            results_kept: Kept::Anomalies,
            results_ttl_days: 30,
            dead_letters: DeadLettersUri::Sqs { queue_url: SOUND[2].1.into() },
            dead_letters_s3: None,
            alerts: None,
            alert_max_anomalies: 10,
            alert_cooldown_secs: 300,
            endpoint: None,
            fallback: Policy::default(),
            model_max_age_secs: None,
            features: None,
            validation: ValidationConfig::default(),
            partial_batch: false,
            log_fields: false,
            deadline_reserve_ms: 1000,
            s3_path_style: false,
        }
    );
}

#[test]
fn files_flags_and_local_endpoints_are_read() {
    let config = with(&[
        ("MODEL_URI", "file:///m.model"),
        ("RESULTS_URI", "file:///tmp/r.jsonl"),
        ("DEAD_LETTERS_URI", "file:///tmp/d.jsonl"),
        ("MODEL_REFRESH_SECS", "0"),
        ("PARTIAL_BATCH", "true"),
        ("LOG_FIELDS", "true"),
        ("DEADLINE_RESERVE_MS", "250"),
        ("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9000"),
    ])
    .expect("sound");
    assert_eq!(config.models, ModelUri::File("/m.model".into()).into());
    assert_eq!(config.results, ResultsUri::File("/tmp/r.jsonl".into()));
    assert_eq!(config.dead_letters, DeadLettersUri::File("/tmp/d.jsonl".into()));
    assert!(config.partial_batch && config.s3_path_style && config.log_fields);
    assert_eq!((config.deadline_reserve_ms, config.model_refresh_secs), (250, 0));
}

#[test]
fn alerts_go_to_a_topic_in_its_region_or_to_a_file() {
    let arn = "arn:aws-cn:sns:cn-north-1:123456789012:on-call.fifo";
    let config = with(&[("ALERTS_URI", arn), ("ALERT_COOLDOWN_SECS", "0")]).expect("sound");
    let topic = AlertsUri::Sns { topic_arn: arn.into(), region: "cn-north-1".into() };
    assert_eq!((config.alerts, config.alert_cooldown_secs), (Some(topic), 0));
    let config = with(&[("ALERTS_URI", "file:///a.jsonl"), ("ALERT_MAX_ANOMALIES", "100")]);
    let config = config.expect("sound");
    let file = AlertsUri::File("/a.jsonl".into());
    assert_eq!((config.alerts, config.alert_max_anomalies), (Some(file), 100));
}

#[test]
fn without_results_no_place_for_them_is_needed() {
    for (value, kept) in [("all", Kept::All), ("anomalies", Kept::Anomalies)] {
        assert_eq!(with(&[("RESULTS", value)]).expect("sound").results_kept, kept);
        let error = with(&[("RESULTS", value), ("RESULTS_URI", "")]).expect_err("required");
        assert!(error.to_string().contains("RESULTS_URI"), "{error}");
    }
    let table = ResultsUri::DynamoDb { table: "results".into() };
    for (uri, results) in [("", ResultsUri::Nowhere), ("dynamodb://results", table)] {
        let config = with(&[("RESULTS", "none"), ("RESULTS_URI", uri)]).expect("sound");
        assert_eq!((config.results_kept, config.results), (Kept::Nothing, results));
    }
    assert!(with(&[("RESULTS", "none"), ("RESULTS_URI", "results")]).is_err());
    let days = with(&[("RESULTS_TTL_DAYS", "0")]).expect("sound").results_ttl_days;
    assert_eq!(days, 0);
}

#[test]
fn a_prefix_in_s3_ends_with_a_slash_or_is_empty() {
    for (uri, prefix) in
        [("s3://dead", ""), ("s3://dead/", ""), ("s3://dead/a/b", "a/b/"), ("s3://dead/a/", "a/")]
    {
        let place = with(&[("DEAD_LETTERS_S3_URI", uri)]).expect("sound").dead_letters_s3;
        let expected = S3Prefix { bucket: "dead".into(), prefix: prefix.into() };
        assert_eq!(place, Some(expected), "{uri}");
    }
}

#[test]
fn a_specification_for_missing_models_needs_an_endpoint_of_values_and_a_threshold() {
    let all = [
        ("FEATURES_URI", "s3://models/spec.toml"),
        ("ENDPOINT_NAME", "rcf"),
        ("ENDPOINT_ROWS", "values"),
        ("ENDPOINT_THRESHOLD", "1.5"),
    ];
    for (set, needs) in [(1, "ENDPOINT_NAME"), (2, "ENDPOINT_ROWS"), (3, "ENDPOINT_THRESHOLD")] {
        let error = with(&all[..set]).expect_err("incomplete").to_string();
        assert!(error.contains("FEATURES_URI") && error.contains(needs), "{error}");
    }
    assert_eq!(with(&all).expect("sound").features, Some(s3("spec.toml")));
}

#[test]
fn a_missing_variable_is_named() {
    for (name, _) in SOUND {
        let error = with(&[(name, "")]).expect_err("required");
        assert!(matches!(&error, ConfigError::Missing { name: got, .. } if *got == name));
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test]
fn a_malformed_variable_is_named_with_its_value() {
    for (name, value) in [
        ("MODEL_URI", "s3://bucket"),
        ("MODEL_URI", "s3://bucket/"),
        ("MODEL_URI", "s3:///key"),
        ("MODEL_URI", "file://relative/path"),
        ("MODEL_URI", "file:///folder/"),
        ("MODEL_URI", "model.bin"),
        ("MODEL_URI", "{}"),
        ("MODEL_URI", r#"{"a": "s3://models/a""#),
        ("MODEL_URI", r#"{"a": "s3://models"}"#),
        ("MODEL_URI", r#"{"a": 7}"#),
        ("MODEL_URI", r#"{"a": "s3://models/a", "a": "s3://models/b"}"#),
        ("MODEL_URI", r#"["s3://models/a"]"#),
        ("MODEL_REFRESH_SECS", "-1"),
        ("MODEL_REFRESH_SECS", "86401"),
        ("LOG_FIELDS", "yes"),
        ("RESULTS_URI", "dynamodb://a"),
        ("RESULTS_URI", "dynamodb://a table"),
        ("RESULTS_URI", "s3://bucket/key"),
        ("RESULTS", "some"),
        ("RESULTS", "ALL"),
        ("RESULTS_TTL_DAYS", "36501"),
        ("RESULTS_TTL_DAYS", "-1"),
        ("RESULTS_TTL_DAYS", "a week"),
        ("DEAD_LETTERS_URI", "https://host"),
        ("DEAD_LETTERS_URI", "https://host/1/queue.fifo"),
        ("DEAD_LETTERS_URI", "sqs://queue"),
        ("DEAD_LETTERS_S3_URI", "dead-letters"),
        ("DEAD_LETTERS_S3_URI", "s3://"),
        ("DEAD_LETTERS_S3_URI", "s3://no bucket/x"),
        ("DEAD_LETTERS_S3_URI", "s3://bucket//x"),
        ("DEAD_LETTERS_S3_URI", "s3://bucket/a b"),
        ("ALERTS_URI", "on-call"),
        ("ALERTS_URI", "arn:aws:sqs:eu-west-1:123456789012:queue"),
        ("ALERTS_URI", "arn:aws:sns:eu-west-1:123456789012"),
        ("ALERTS_URI", "arn:aws:sns::123456789012:on-call"),
        ("ALERTS_URI", "arn:aws:sns:eu-west-1:123456789012:on-call:0f3c2b1a"),
        ("ALERT_MAX_ANOMALIES", "0"),
        ("ALERT_MAX_ANOMALIES", "101"),
        ("ALERT_COOLDOWN_SECS", "86401"),
        ("ALERT_COOLDOWN_SECS", "5m"),
        ("MODEL_MAX_AGE_SECS", "0"),
        ("MODEL_MAX_AGE_SECS", "7d"),
        ("FALLBACK", "remote"),
        ("FALLBACK", "missing=local"),
        ("FEATURES_URI", "spec.toml"),
        ("ENDPOINT_NAME", "a b"),
        ("PARTIAL_BATCH", "yes"),
        ("PARTIAL_BATCH", "TRUE"),
        ("DEADLINE_RESERVE_MS", "99"),
        ("DEADLINE_RESERVE_MS", "60001"),
        ("DEADLINE_RESERVE_MS", "1s"),
        ("DEADLINE_RESERVE_MS", "-1"),
    ] {
        let error = with(&[(name, value)]).expect_err(value);
        let ConfigError::Malformed { name: got, value: shown, .. } = &error else {
            panic!("{name}={value}: {error:?}");
        };
        assert_eq!((*got, shown.as_str()), (name, value));
        assert!(error.to_string().contains(value), "{error}");
    }
}
