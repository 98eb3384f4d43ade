//! `sawlog doctor` on a deployment of local servers: all green, and each of many broken set-ups named rightly,
//! with nothing else named beside it.

use std::collections::BTreeMap;
use std::io::Write as _;

use serde_json::Value;

use crate::function::model;
use crate::http::{self, Message};
use crate::process::{free_port, local};
use crate::publish::{BUCKET, PLACE, Run, command, run, small_model, variant, write};
use crate::serve::Server;
use crate::servers::{ACCESS_KEY, DynamoDb, READER_KEY, REGION, S3, SECRET_KEY, Sns, Sqs};

/// What the shipped log has, as an endpoint takes it without a model.
const SPEC: &str = "format = \"json\"
[[feature]]
name = \"duration_us\"
field = \"/duration_us\"
missing = \"reject\"
[[feature]]
name = \"n_spans\"
field = \"/n_spans\"
missing = \"zero\"
";

type Variables = BTreeMap<&'static str, String>;

/// A variable, its value (none: it is left out), and the checks that fail then, with words of each.
type Broken<'a> = (&'static str, Option<&'a str>, &'a [(&'a str, &'a str)]);

/// Everything that a function may need.
struct Deployment {
    s3: S3,
    dynamodb: DynamoDb,
    _sqs: Sqs,
    _sns: Sns,
    _endpoint: Server,
    folder: tempfile::TempDir,
    variables: Variables,
}

impl Deployment {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let s3 = S3::start_atomic();
        for bucket in [BUCKET, "letters", "captures"] {
            s3.create_bucket(bucket);
        }
        let (file, _) = write(folder.path(), small_model());
        let file = file.to_str().expect("text");
        run(command(&s3.url, &["publish", file, "--to", PLACE])).done(&["number 1"]);
        s3.put(BUCKET, "spec.toml", SPEC.into());
        let dynamodb = DynamoDb::start();
        dynamodb.create_table("results");
        dynamodb.expire_by("results", "expires_at");
        let sqs = Sqs::start();
        let queue = sqs.create_queue("dead");
        let sns = Sns::start();
        let (topic, _) = sns.create_topic("alerts");
        let endpoint = Server::start(model(), &["--rows=values"]);
        let variables = [
            ("MODEL_URI", "s3://models/web/current.json".to_owned()),
            ("RESULTS_URI", "dynamodb://results".into()),
            ("DEAD_LETTERS_URI", queue),
            ("DEAD_LETTERS_S3_URI", "s3://letters/payloads".into()),
            ("ALERTS_URI", topic),
            ("FEATURES_URI", "s3://models/spec.toml".into()),
            ("ENDPOINT_NAME", "rcf".into()),
            ("ENDPOINT_ROWS", "values".into()),
            ("ENDPOINT_THRESHOLD", "1.5".into()),
            ("VALIDATE_SHARE", "0.1".into()),
            ("CAPTURE_URI", "s3://captures/pairs".into()),
            ("AWS_REGION", REGION.into()),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.into()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.into()),
            ("AWS_EC2_METADATA_DISABLED", "true".into()),
            ("AWS_ENDPOINT_URL_S3", s3.url.clone()),
            ("AWS_ENDPOINT_URL_DYNAMODB", dynamodb.url.clone()),
            ("AWS_ENDPOINT_URL_SQS", sqs.url.clone()),
            ("AWS_ENDPOINT_URL_SNS", sns.url.clone()),
            ("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", format!("http://127.0.0.1:{}", endpoint.port)),
        ];
        let variables = variables.into();
        Self { s3, dynamodb, _sqs: sqs, _sns: sns, _endpoint: endpoint, folder, variables }
    }

    /// Runs the doctor with these variables in a file.
    fn doctor(&self, variables: &Variables, arguments: &[&str]) -> Run {
        self.doctor_beside(&[], variables, arguments)
    }

    /// The same with others in the process's environment.
    fn doctor_beside(
        &self,
        process: &[(&str, &str)],
        variables: &Variables,
        arguments: &[&str],
    ) -> Run {
        let path = self.folder.path().join("production.env");
        let mut file = std::fs::File::create(&path).expect("a file");
        writeln!(file, "# what the function has").expect("written");
        for (name, value) in variables {
            writeln!(file, "{name}={value}").expect("written");
        }
        let path = path.to_str().expect("text");
        // Nothing of the process's own environment is to count: no keys, and a variable that would break.
        let mut command = command("", &[&["doctor", "--env", path], arguments].concat());
        command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
        command.env_remove("AWS_REGION").env_remove("AWS_ENDPOINT_URL_S3");
        command.env("DEADLINE_RESERVE_MS", "nonsense").envs(process.iter().copied());
        run(command)
    }
}

/// The checks of a report in JSON: what was looked at, how it ended, what was said.
fn checks(run: &Run) -> Vec<(String, String, String)> {
    // The last line is the error of a run that failed.
    let json = run.text.rsplit_once('}').map_or("", |(json, _)| json);
    let report: Value = serde_json::from_str(&format!("{json}}}"))
        .unwrap_or_else(|error| panic!("expected json, got {error}: {}", run.text));
    let text = |check: &Value, name: &str| check[name].as_str().expect("text").to_owned();
    let checks = report["checks"].as_array().expect("a list");
    for check in checks {
        assert_eq!(check["state"] == "ok", check.get("mend").is_none(), "{check}");
    }
    let check = |it: &Value| (text(it, "what"), text(it, "state"), text(it, "said"));
    checks.iter().map(check).collect()
}

#[test]
fn a_sound_deployment_is_green_and_each_broken_one_is_named() {
    let sound = Deployment::start();
    let run = sound.doctor(&sound.variables, &[]).done(&["ok    MODEL_URI", "ok    ENDPOINT_NAME"]);
    assert!(!run.text.contains("FAIL") && !run.text.contains("warn"), "{}", run.text);
    assert!(!run.text.contains('\x1b'), "colours are for terminals: {:?}", run.text);
    let run = sound.doctor(&sound.variables, &["--json"]).done(&["\"ok\": true"]);
    let whats: Vec<String> = checks(&run).into_iter().map(|(what, ..)| what).collect();
    let expected = [
        "variables",
        "credentials",
        "MODEL_URI",
        "FEATURES_URI",
        "RESULTS_URI",
        "RESULTS_TTL_DAYS",
        "DEAD_LETTERS_URI",
        "DEAD_LETTERS_S3_URI",
        "CAPTURE_URI",
        "ALERTS_URI",
        "ENDPOINT_NAME",
    ];
    assert_eq!(whats, expected);
    assert!(sound.dynamodb.ids("results").is_empty(), "nothing was written");
    for bucket in ["letters", "captures"] {
        assert!(sound.s3.objects(bucket).is_empty(), "nothing was written to {bucket}");
    }

    // What the broken set-ups point to.
    let mut damaged = small_model().encode();
    damaged[80] ^= 1;
    sound.s3.put(BUCKET, "damaged", damaged);
    let pointer = sound.s3.get(BUCKET, "web/current.json").expect("a pointer");
    sound.s3.put(BUCKET, "lost/current.json", pointer);
    sound.s3.put(BUCKET, "garbage/current.json", b"{}".to_vec());
    sound.s3.put(BUCKET, "uncalibrated", variant(1.0).with_calibration(None).encode());
    sound.s3.put(BUCKET, "other.toml", SPEC.replace("/n_spans", "/spans").into_bytes());
    sound.s3.put(BUCKET, "no.toml", b"format = \"yaml\"".to_vec());
    sound.dynamodb.create_table("eternal");
    sound.dynamodb.create_table_with_key("other-key", "pk");
    let odd = http::serve(|mut stream| {
        while Message::read(&mut stream)?.is_some() {
            let answer = Message::answer(200, "{\"predictions\": [1]}");
            let answer = answer.with("Content-Type", "application/json");
            stream.get_mut().write_all(&answer.bytes())?;
        }
        Ok(())
    });
    let nowhere = format!("http://{}", local(free_port()));
    let no_s3 = format!("S3 at {nowhere} can't be reached: ");
    let dead = sound.variables["DEAD_LETTERS_URI"].replace("dead", "gone");
    let topic = sound.variables["ALERTS_URI"].replace("alerts", "gone");
    let endpoint = "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME";

    let broken: &[Broken<'_>] = &[
        ("MODEL_REFRESH_SECS", Some("5m"), &[("MODEL_REFRESH_SECS", "is `5m`")]),
        ("DEAD_LETTERS_URI", None, &[("DEAD_LETTERS_URI", "is not set")]),
        ("ENDPOINT_THRESHOLD", None, &[("FEATURES_URI", "is set")]),
        ("AWS_ACCESS_KEY_ID", None, &[("credentials", "")]),
        ("AWS_REGION", None, &[("credentials", "no region")]),
        (
            "MODEL_URI",
            Some("s3://no-such-bucket/m"),
            &[("MODEL_URI", "there is no bucket no-such-bucket")],
        ),
        ("MODEL_URI", Some("s3://models/none"), &[("MODEL_URI", "NoSuchKey")]),
        ("MODEL_URI", Some("s3://models/web"), &[("MODEL_URI", "there is a pointer below it")]),
        ("MODEL_URI", Some("s3://models/web/"), &[("MODEL_URI", "there is a pointer below it")]),
        ("MODEL_URI", Some("s3://models/damaged"), &[("MODEL_URI", "checksum")]),
        (
            "MODEL_URI",
            Some("s3://models/lost/current.json"),
            &[("MODEL_URI", "points to s3://models/lost/")],
        ),
        (
            "MODEL_URI",
            Some("s3://models/garbage/current.json"),
            &[("MODEL_URI", "neither a model nor")],
        ),
        ("FEATURES_URI", Some("s3://models/none.toml"), &[("FEATURES_URI", "NoSuchKey")]),
        ("FEATURES_URI", Some("s3://models/no.toml"), &[("FEATURES_URI", "no.toml")]),
        (
            "FEATURES_URI",
            Some("s3://models/other.toml"),
            &[("FEATURES_URI", "reads /spans instead of /n_spans")],
        ),
        ("RESULTS_URI", Some("dynamodb://nowhere"), &[("RESULTS_URI", "no table nowhere")]),
        (
            "RESULTS_URI",
            Some("dynamodb://other-key"),
            &[("RESULTS_URI", "has the key pk (HASH, S)")],
        ),
        ("RESULTS_URI", Some("dynamodb://eternal"), &[("RESULTS_TTL_DAYS", "never expire")]),
        ("RESULTS_URI", Some("file:///no/such/folder/r"), &[("RESULTS_URI", "takes no files")]),
        ("DEAD_LETTERS_URI", Some(&dead), &[("DEAD_LETTERS_URI", "there is no queue")]),
        ("ALERTS_URI", Some(&topic), &[("ALERTS_URI", "there is no topic")]),
        (
            "CAPTURE_URI",
            Some("s3://nowhere-at-all/p"),
            &[("CAPTURE_URI", "no bucket nowhere-at-all")],
        ),
        (
            "AWS_ACCESS_KEY_ID",
            Some(READER_KEY),
            &[("DEAD_LETTERS_S3_URI", "takes no writes"), ("CAPTURE_URI", "takes no writes")],
        ),
        // Nobody listens: the address that was tried is said.
        (
            endpoint,
            Some(&nowhere),
            &[(
                "ENDPOINT_NAME",
                &format!("gave no answer: SageMaker at {nowhere} can't be reached"),
            )],
        ),
        (
            "AWS_ENDPOINT_URL_S3",
            Some(&nowhere),
            &[
                ("MODEL_URI", &no_s3),
                ("FEATURES_URI", &no_s3),
                ("DEAD_LETTERS_S3_URI", &no_s3),
                ("CAPTURE_URI", &no_s3),
            ],
        ),
        (
            "AWS_ENDPOINT_URL_DYNAMODB",
            Some(&nowhere),
            &[("RESULTS_URI", &format!("DynamoDB at {nowhere} can't be reached: "))],
        ),
        (
            "AWS_ENDPOINT_URL_SQS",
            Some("http://no-such-host.invalid:9"),
            &[(
                "DEAD_LETTERS_URI",
                "SQS at http://no-such-host.invalid:9 can't be reached: dns error",
            )],
        ),
        (
            "AWS_ENDPOINT_URL_SNS",
            Some(&nowhere),
            &[("ALERTS_URI", &format!("SNS at {nowhere} can't be reached: "))],
        ),
        (endpoint, Some(&format!("http://127.0.0.1:{odd}")), &[("ENDPOINT_NAME", "can't be used")]),
    ];
    let mut rows = Vec::new();
    for (name, value, expected) in broken {
        let mut variables = sound.variables.clone();
        variables.remove(name);
        if let Some(value) = value {
            variables.insert(name, (*value).to_owned());
        }
        let what = format!("{name}={}", value.unwrap_or_default());
        let run =
            sound.doctor(&variables, &["--json"]).refused(&["\"ok\": false", "checks failed"]);
        let checks = checks(&run);
        let failed: Vec<_> = checks.iter().filter(|(_, state, _)| state == "fail").collect();
        let names: Vec<&str> = failed.iter().map(|(what, ..)| what.as_str()).collect();
        let wanted: Vec<&str> = expected.iter().map(|(what, _)| *what).collect();
        assert_eq!(names, wanted, "{what}: {}", run.text);
        for ((_, _, said), (_, words)) in failed.iter().zip(*expected) {
            assert!(said.contains(words), "{what}: expected {words:?}, got {said}");
            rows.push(format!("{what}: {said}"));
        }
    }
    println!("{}", rows.join("\n"));

    // Not broken, but perhaps not what is meant.
    for (name, value, what, words) in [
        ("MODEL_REFRESH_SEC", "60", "MODEL_REFRESH_SEC", "nothing reads"),
        ("MODEL_URI", "s3://models/uncalibrated", "MODEL_URI", "flags nothing"),
        (
            "MODEL_URI",
            r#"{"orders": "s3://models/web/current.json", "web": "s3://models/web/current.json"}"#,
            "MODEL_URI",
            "models for orders, web alone: records of all other topics are dead-lettered",
        ),
    ] {
        let mut variables = sound.variables.clone();
        variables.insert(name, value.to_owned());
        let run = sound.doctor(&variables, &["--json"]).done(&["\"ok\": true"]);
        let checks = checks(&run);
        let warned: Vec<_> = checks.iter().filter(|(_, state, _)| state == "warn").collect();
        assert!(
            warned.len() == 1 && warned[0].0 == what && warned[0].2.contains(words),
            "expected {words:?} of {what}, got {warned:?}"
        );
    }
    // A folder is not what is meant.
    let mut variables = sound.variables.clone();
    variables.insert("MODEL_URI", "s3://models/web".into());
    let words = "Mend: set it to s3://models/web/current.json";
    sound.doctor(&variables, &[]).refused(&[words]);

    // What leads AWS's clients elsewhere counts where the file has nothing of it, and is told.
    let mut variables = sound.variables.clone();
    let dynamodb = variables.remove("AWS_ENDPOINT_URL_DYNAMODB").expect("one");
    variables.remove("AWS_REGION");
    let elsewhere = [
        ("AWS_ENDPOINT_URL_DYNAMODB", dynamodb.as_str()),
        ("AWS_ENDPOINT_URL_S3", &nowhere),
        ("AWS_REGION", REGION),
    ];
    let run = sound.doctor_beside(&elsewhere, &variables, &[]).done(&[
        &format!("{dynamodb}, of this environment and not of the file, is asked by these checks"),
        &format!("the region is {REGION}, of this environment and not of the file"),
        "items of results expire",
    ]);
    assert!(!run.text.contains("AWS_ENDPOINT_URL_S3"), "the file has it: {}", run.text);
    // One address for all in the file goes before one for a service beside it.
    variables.insert("AWS_ENDPOINT_URL", nowhere.clone());
    let run = sound.doctor_beside(&elsewhere, &variables, &[]);
    let run = run.refused(&[&format!("DynamoDB at {nowhere} can't be reached")]);
    assert!(!run.text.contains(&dynamodb), "{}", run.text);

    // Several at once are all named.
    let mut variables = sound.variables.clone();
    variables.insert("MODEL_REFRESH_SECS", "5m".into());
    variables.insert("RESULTS_URI", "dynamodb://nowhere".into());
    variables.remove("DEAD_LETTERS_URI");
    sound.doctor(&variables, &[]).refused(&[
        "FAIL  MODEL_REFRESH_SECS",
        "FAIL  RESULTS_URI",
        "FAIL  DEAD_LETTERS_URI",
        "Mend: ",
        "sawlog: 3 of ",
    ]);
    // A file that is none.
    let path = sound.folder.path().join("odd.env");
    std::fs::write(&path, "MODEL_URI=s3://a/b\nnonsense\n").expect("a file");
    let path = path.to_str().expect("text");
    crate::publish::run(command("", &["doctor", "--env", path])).refused(&["odd.env", "line 2"]);
}
