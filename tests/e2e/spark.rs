//! Training on Apache Spark: the job of deploy/spark on a cluster of two workers, whose executors are processes
//! of their own, gives the bytes of `sawlog train` on one machine; also when one is killed in the middle of a
//! task, and when one stands still and a copy of its task overtakes it. What can't be read ends the job, and it
//! says what and why.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::function::{binary, repository};
use crate::process::{Process, free_port};
use crate::servers::{ACCESS_KEY, REGION, S3, SECRET_KEY, SHORT_LIVED_JVM, installed};

/// More than one task merges, so that sketches are merged in two steps.
const LOGS: usize = 40;
/// Lines of a log.
const LINES: usize = 60;
/// Two workers of one core, and 1024 MiB for the executor of each.
const CLUSTER: &str = "local-cluster[2,1,1024]";
/// In one process: where it makes no difference on how many.
const ONE_PROCESS: &str = "local[2]";
/// A job of a few seconds may take minutes on a machine that does much else.
const JOB_TIMEOUT: Duration = Duration::from_secs(600);
/// Holds the logs in S3.
const BUCKET: &str = "archive";
const POLL: Duration = Duration::from_millis(20);
/// Options that the job passes on.
const OPTIONS: [&str; 4] = ["--trees", "40", "--seed", "7"];
/// In the place of `sawlog`: the first task stands still in its program, whose id is noted in `first/id`.
const STALLED: &str = r#"case "$*" in
    *--input-list*) if mkdir "$SAWLOG_FIRST" 2>/dev/null; then
        echo $$ > "$SAWLOG_FIRST/new" && mv "$SAWLOG_FIRST/new" "$SAWLOG_FIRST/id"
        exec sleep 3600
    fi ;;
    esac
    exec "$SAWLOG" "$@""#;
/// A task is slow, and started again, if it takes longer than most: as soon as Spark can know it.
const SPECULATION: [&str; 8] = [
    "--conf",
    "spark.speculation=true",
    "--conf",
    "spark.speculation.quantile=0.5",
    "--conf",
    "spark.speculation.multiplier=1.1",
    "--conf",
    "spark.speculation.interval=50ms",
];

/// A web shop's logs, a specification, and the program in an archive as the job is given it.
struct Work {
    folder: TempDir,
    /// Where the logs are, if not in the folder.
    s3: Option<S3>,
}

impl Work {
    /// With what is to run in the place of `sawlog`: a shell script that may run `$SAWLOG "$@"`.
    fn new(script: &str) -> Self {
        let work = Self { folder: tempfile::tempdir().expect("a folder"), s3: None };
        std::fs::create_dir(work.path("logs")).expect("a folder");
        for (at, lines) in crate::batch::lines(LOGS * LINES).chunks(LINES).enumerate() {
            let text = [lines.join(&b"\n"[..]), b"\n".to_vec()].concat();
            match at % 2 {
                0 => std::fs::write(work.path(&format!("logs/{at:02}.jsonl")), text),
                _ => std::fs::write(work.path(&format!("logs/{at:02}.jsonl.gz")), gzip(&text)),
            }
            .expect("written");
        }
        std::fs::create_dir(work.path("archive")).expect("a folder");
        let spec = repository("examples/nezha/spec.toml");
        std::fs::copy(spec, work.path("archive/spec.toml")).expect("copied");
        let program = work.path("archive/sawlog");
        let native = binary("SAWLOG_CLI", "sawlog");
        let native = native.canonicalize().expect("it is there");
        let text = format!(
            "#!/bin/sh\nSAWLOG={}\nSAWLOG_FIRST={}\n{script}\n",
            native.display(),
            work.path("first").display()
        );
        std::fs::write(&program, text).expect("written");
        let all = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&program, all).expect("permissions");
        let mut tar = Command::new("tar");
        tar.arg("-czf").arg(work.path("sawlog.tar.gz")).arg("-C").arg(work.path("archive"));
        let made = tar.args(["sawlog", "spec.toml"]).status().expect("tar runs");
        assert!(made.success(), "tar: {made}");
        work
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// With the logs in S3 in place of the folder.
    fn in_s3(self) -> Self {
        let s3 = S3::start();
        s3.create_bucket(BUCKET);
        for entry in self.path("logs").read_dir().expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("a name").to_string_lossy();
            s3.put(BUCKET, &format!("logs/{name}"), std::fs::read(&path).expect("there"));
        }
        std::fs::remove_dir_all(self.path("logs")).expect("removed");
        Self { s3: Some(s3), ..self }
    }

    /// Adds what both the job and one machine are told: where the logs are, and how they get there.
    fn reading<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.arg("--input");
        match &self.s3 {
            None => command.arg(self.path("logs")),
            Some(s3) => command
                .arg(format!("s3://{BUCKET}/logs/"))
                .env("AWS_ENDPOINT_URL_S3", &s3.url)
                .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
                .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
                .env("AWS_REGION", REGION)
                .env("AWS_EC2_METADATA_DISABLED", "true"),
        }
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// The model of one machine.
    fn trained(&self) -> Vec<u8> {
        let mut command = Command::new(binary("SAWLOG_CLI", "sawlog"));
        command.arg("train").args([Path::new("--spec"), &self.path("archive/spec.toml")]);
        command.args([Path::new("--output"), &self.path("one.model")]).args(OPTIONS);
        let run = self.reading(&mut command).output().expect("it starts");
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        self.bytes("one.model")
    }

    /// Starts the job on a cluster of its own, which ends with it.
    fn submit(&self, master: &str) -> Process {
        self.submit_with(master, &[])
    }

    /// The same with more of Spark's options.
    fn submit_with(&self, master: &str, options: &[&str]) -> Process {
        let spark = installed().join("spark");
        let submit = spark.join("bin/spark-submit");
        Process::start("spark-submit", &submit, |command, folder| {
            // Workers write beside what they run: not into the installed Spark.
            let home = spark_home(&spark, folder);
            command
                .args(["--master", master])
                .args(["--conf", "spark.driver.host=127.0.0.1"])
                .args(["--conf", "spark.driver.bindAddress=127.0.0.1"])
                .args(["--conf", "spark.ui.enabled=false"])
                .args(options)
                .arg("--archives")
                .arg(format!("{}#sawlog", self.path("sawlog.tar.gz").display()))
                .arg(repository("deploy/spark/sawlog_train.py"))
                .args(["--spec", "sawlog/spec.toml"])
                .args([Path::new("--output"), &self.path("spark.model")])
                .args([Path::new("--sketch"), &self.path("spark.sketch")])
                .args(OPTIONS);
            self.reading(command)
                .env("SPARK_HOME", home)
                .env("PYSPARK_PYTHON", spark.join("bin/python"))
                .env("SPARK_LOCAL_IP", "127.0.0.1")
                .env("SPARK_LOCAL_DIRS", folder);
        })
    }

    /// Fails unless the job ends well, with the model of one machine.
    fn assert_trains(&self, job: &mut Process) {
        let status = job.wait_until_ended_within(JOB_TIMEOUT);
        assert!(status.success(), "the job ended with {status}");
        assert!(self.bytes("spark.model") == self.trained(), "another model than one machine's");
    }

    /// Fails unless the job fails without a model; what it printed.
    fn assert_fails(&self, job: &mut Process) -> String {
        let status = job.wait_until_ended_within(JOB_TIMEOUT);
        assert_eq!(status.code(), Some(1), "the job ended with {status}");
        assert!(!self.path("spark.model").exists() && !self.path("spark.sketch").exists());
        job.output()
    }
}

/// A master and two workers of one core. Other than those of a `local-cluster`, the workers are two hosts, as
/// far as Spark knows: it starts no copy of a task on the host that has the task already.
struct Cluster {
    url: String,
    _processes: [Process; 3],
}

impl Cluster {
    fn start() -> Self {
        let port = free_port();
        let url = format!("spark://127.0.0.1:{port}");
        let part = |name, class, host: &str, more: &[&str]| {
            let spark = installed().join("spark");
            let program = spark.join("bin/spark-class");
            Process::start(name, &program, |command, folder| {
                let home = spark_home(&spark, folder);
                command
                    .arg(format!("org.apache.spark.deploy.{class}"))
                    .args(["--host", host, "--webui-port", "0"])
                    .args(more)
                    .env_clear()
                    .env("PATH", std::env::var_os("PATH").unwrap_or_default())
                    .env("SPARK_HOME", home)
                    .env("SPARK_LOCAL_IP", host)
                    .env("SPARK_LOCAL_DIRS", folder)
                    .env("SPARK_DAEMON_MEMORY", "256m")
                    .env("SPARK_DAEMON_JAVA_OPTS", SHORT_LIVED_JVM.join(" "));
            })
        };
        let at = ["--port", &port.to_string()];
        let mut master = part("spark master", "master.Master", "127.0.0.1", &at);
        master.wait_until_listening(port);
        let worker = |host| {
            let more = ["--cores", "1", "--memory", "1g", "--work-dir", "work", &url];
            part("spark worker", "worker.Worker", host, &more)
        };
        let workers = [worker("127.0.0.1"), worker("127.0.0.2")];
        let [one, other] = workers;
        Self { url, _processes: [one, other, master] }
    }
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text).expect("compressed");
    encoder.finish().expect("compressed")
}

/// A folder that looks like the installed Spark's.
fn spark_home(spark: &Path, folder: &Path) -> PathBuf {
    let home = folder.join("spark");
    std::fs::create_dir(&home).expect("a folder");
    let find = "import os, pyspark; print(os.path.dirname(pyspark.__file__))";
    let found = Command::new(spark.join("bin/python")).args(["-c", find]).output();
    let found = String::from_utf8(found.expect("python runs").stdout).expect("a path");
    for entry in Path::new(found.trim()).read_dir().expect("a folder") {
        let entry = entry.expect("an entry");
        let link = home.join(entry.file_name());
        std::os::unix::fs::symlink(entry.path(), link).expect("a link");
    }
    home
}

#[test]
fn a_cluster_that_reads_from_s3_gives_the_bytes_of_one_machine() {
    let work = Work::new(r#"exec "$SAWLOG" "$@""#).in_s3();
    let mut job = work.submit(CLUSTER);
    work.assert_trains(&mut job);
    let said = job.output();
    assert!(said.contains(&format!("in {LOGS} tasks")), "{said}");
    // The sketch is what `train --base` would go on from.
    let again = Command::new(binary("SAWLOG_CLI", "sawlog"))
        .args([Path::new("train"), Path::new("--from-sketch"), &work.path("spark.sketch")])
        .args([Path::new("--output"), &work.path("again.model")])
        .output();
    let Output { status, stderr, .. } = again.expect("it starts");
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    assert!(work.bytes("again.model") == work.bytes("spark.model"));
}

/// The parent of a process, and what it runs; none if it has ended.
fn parent(id: u32) -> Option<(u32, String)> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    let line = std::fs::read(format!("/proc/{id}/cmdline")).ok()?;
    Some((parent.trim().parse().ok()?, String::from_utf8_lossy(&line).replace('\0', " ")))
}

/// Waits until a process whose id was noted has ended: who killed it doesn't wait for that.
fn assert_ends(id: &str) {
    let id = id.trim().parse().expect("an id");
    let deadline = Instant::now() + JOB_TIMEOUT;
    // One that has ended and isn't called for by its parent runs nothing.
    while parent(id).is_some_and(|(_, runs)| !runs.is_empty()) {
        assert!(Instant::now() < deadline, "the task's program runs on");
        std::thread::sleep(POLL);
    }
}

#[test]
fn an_executor_that_is_killed_in_the_middle_of_a_task_changes_nothing() {
    let work = Work::new(STALLED);
    let mut job = work.submit(CLUSTER);
    let noted = work.path("first/id");
    let deadline = Instant::now() + JOB_TIMEOUT;
    while !noted.exists() {
        assert!(!job.has_ended(), "the job ended before its first task began");
        assert!(Instant::now() < deadline, "no task began within {JOB_TIMEOUT:?}");
        std::thread::sleep(POLL);
    }
    let program = std::fs::read_to_string(noted).expect("its id");
    let mut id: u32 = program.trim().parse().expect("an id");
    let mut executor = None;
    while id != job.id() {
        let (of, runs) = parent(id).expect("it leads back to the job, which this test has started");
        if runs.contains("CoarseGrainedExecutorBackend") {
            executor.get_or_insert(id);
        }
        id = of;
    }
    let executor = executor.expect("an executor between the program and the job").to_string();
    let killed = Command::new("kill").args(["-KILL", &executor]).status().expect("kill runs");
    assert!(killed.success(), "no signal sent: {killed}");
    work.assert_trains(&mut job);
    let said = job.output();
    assert!(said.contains("Lost executor"), "{said}");
    assert_ends(&program);
}

#[test]
fn a_task_that_stands_still_is_overtaken_by_its_copy_and_changes_nothing() {
    let work = Work::new(STALLED);
    let cluster = Cluster::start();
    let mut job = work.submit_with(&cluster.url, &SPECULATION);
    // The first one ends only if it is killed.
    work.assert_trains(&mut job);
    assert_ends(&String::from_utf8(work.bytes("first/id")).expect("its id"));
}

#[test]
fn an_object_that_cannot_be_read_is_named_and_no_model_is_made() {
    let work = Work::new(r#"exec "$SAWLOG" "$@""#);
    let path = work.path("logs/17.jsonl.gz");
    let whole = std::fs::read(&path).expect("there");
    std::fs::write(&path, &whole[..whole.len() / 2]).expect("cut");
    let said = work.assert_fails(&mut work.submit(CLUSTER));
    let message = said.lines().find(|line| line.starts_with("sawlog_train: no model is written: "));
    let message = message.unwrap_or_else(|| panic!("no message in: {said}"));
    let want = "sawlog/sawlog sketch ended with exit code 1: ";
    let place = format!("input {}: at byte ", path.display());
    assert!(message.contains(want) && message.contains(&place), "{message}");
}

#[test]
fn too_many_rejected_records_are_shown_and_make_no_model() {
    let work = Work::new(r#"exec "$SAWLOG" "$@""#);
    std::fs::write(work.path("logs/bad.jsonl"), "bad\n".repeat(LOGS * LINES)).expect("written");
    let said = work.assert_fails(&mut work.submit(ONE_PROCESS));
    assert!(said.contains("2400 of 4800 records were rejected"), "{said}");
    assert!(
        said.contains(&format!("{}:1 (byte 0)", work.path("logs/bad.jsonl").display())),
        "{said}"
    );
}

#[test]
fn a_program_that_is_killed_is_told_of_by_its_signal() {
    let work =
        Work::new(r#"case "$*" in *--input-list*) kill -KILL $$ ;; esac; exec "$SAWLOG" "$@""#);
    let said = work.assert_fails(&mut work.submit(ONE_PROCESS));
    assert!(said.contains("sawlog/sawlog sketch ended with SIGKILL: it said nothing"), "{said}");
}

#[test]
fn tasks_are_bounded_and_have_every_object_once() {
    let check = r#"
import random, sys
sys.path.insert(0, sys.argv[1])
from sawlog_train import OBJECT_BYTES, packed
some = random.Random(1)
for count in [1, 2, 50, 1000]:
    for most in [OBJECT_BYTES, 10 * OBJECT_BYTES, 1000 * OBJECT_BYTES]:
        sources = [(int(some.paretovariate(0.5) * 1000), f"{at}") for at in range(count)]
        tasks = packed(sources, most)
        assert sorted(sum(tasks, [])) == sorted(line for _, line in sources), (count, most)
        sizes = {line: max(size, OBJECT_BYTES) for size, line in sources}
        loads = [sum(sizes[line] for line in lines) for lines in tasks]
        for lines, load in zip(tasks, loads):
            assert len(lines) == 1 or load <= most, (lines, most)
        for load, following in zip(loads, loads[1:]):
            assert load + following > most, (count, most)
print("checked")
"#;
    let run = Command::new(installed().join("spark/bin/python"))
        .args(["-B", "-c", check])
        .arg(repository("deploy/spark"))
        .output()
        .expect("python runs");
    assert_eq!(
        String::from_utf8_lossy(&run.stdout),
        "checked\n",
        "{}",
        String::from_utf8_lossy(&run.stderr)
    );
}
