//! A server or function as a child process: in a process group of its own, its output in a file that
//! is shown when the test fails, ended with the test.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A JVM on a loaded machine takes seconds; after this long it won't.
pub(crate) const START_TIMEOUT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);
/// Enough to see why, without the log of 10,000 records.
const SHOWN_LINES: usize = 80;

/// A running child process.
pub(crate) struct Process {
    name: &'static str,
    child: Child,
    log: PathBuf,
    /// Where it runs; removed with it.
    _folder: TempDir,
}

impl Process {
    /// Starts `program` in an empty folder of its own, which `prepare` may fill and add arguments for.
    pub(crate) fn start(
        name: &'static str,
        program: &Path,
        prepare: impl FnOnce(&mut Command, &Path),
    ) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let log = folder.path().join("log");
        let file = File::create(&log).expect("a log file");
        // A test runner that is itself killed drops nothing; the kernel then ends what it started.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program);
        prepare(&mut command, folder.path());
        command
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a second handle"))
            .stderr(file)
            .process_group(0);
        let child = command.spawn().unwrap_or_else(|error| panic!("{name}: can't start: {error}"));
        Self { name, child, log, _folder: folder }
    }

    /// Returns once something listens on the port; fails if the process ends first.
    pub(crate) fn wait_until_listening(&mut self, port: u16) {
        let deadline = Instant::now() + START_TIMEOUT;
        while TcpStream::connect(local(port)).is_err() {
            if let Some(status) = self.child.try_wait().expect("a child") {
                panic!("{}: ended with {status} before it listened", self.name);
            }
            assert!(
                Instant::now() < deadline,
                "{}: not listening after {START_TIMEOUT:?}",
                self.name
            );
            std::thread::sleep(POLL);
        }
    }

    /// Returns how the process ended; fails if it still runs after a while.
    pub(crate) fn wait_until_ended(&mut self) -> ExitStatus {
        self.wait_until_ended_within(START_TIMEOUT)
    }

    /// The same of one that works for longer.
    pub(crate) fn wait_until_ended_within(&mut self, longest: Duration) -> ExitStatus {
        let deadline = Instant::now() + longest;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status;
            }
            assert!(Instant::now() < deadline, "{}: still runs after {longest:?}", self.name);
            std::thread::sleep(POLL);
        }
    }

    /// Its id, which its descendants' lead back to.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_some()
    }

    /// Kills the process at once, as a machine that fails does. Does nothing if it has ended.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("a signal sent");
    }

    /// Asks the process to end, as whoever runs it does.
    pub(crate) fn terminate(&self) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &id]).status().expect("kill runs");
        assert!(sent.success(), "{}: no signal sent: {sent}", self.name);
    }

    /// The most memory that the process has had so far, in bytes.
    pub(crate) fn peak_memory(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).expect("a running process");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = peak.and_then(|peak| peak.trim().strip_suffix(" kB")).expect("its peak");
        kib.parse::<u64>().expect("a number") << 10
    }

    /// What the process has printed.
    pub(crate) fn output(&self) -> String {
        let bytes = std::fs::read(&self.log).expect("the log");
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // By the id of the group, which is the child's own: only what this test started.
        let group = format!("kill -KILL -- -{}", self.child.id());
        let _ = Command::new("sh").args(["-c", &group]).stderr(Stdio::null()).status();
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let output = self.output();
            let lines: Vec<&str> = output.lines().collect();
            let shown = &lines[lines.len().saturating_sub(SHOWN_LINES)..];
            eprintln!("--- {} printed (the last of {} lines):", self.name, lines.len());
            eprintln!("{}", shown.join("\n"));
        }
    }
}

/// A loopback port that nothing listens on and that no other test of this run is given.
pub(crate) fn free_port() -> u16 {
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    // Below the ports that the kernel hands to clients, which would otherwise take one in between;
    // apart from those of another run on this machine, as a rule.
    let first = 20_000 + u16::try_from(std::process::id() % 100).expect("less than 100") * 120;
    loop {
        let port = first + TAKEN.fetch_add(1, Ordering::Relaxed);
        if TcpListener::bind(local(port)).is_ok() {
            return port;
        }
    }
}

pub(crate) fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}
