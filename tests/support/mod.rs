//! A strict builder for tests of the whole program: it writes a pipeline into a directory of its own, runs the real
//! binary on it, and looks at everything that came out.
//!
//! What a test doesn't mention must not have happened: standard output is then empty, the exit 0, and every node has
//! succeeded. After each run no process may be left that came from it: each run puts a variable of its own, `PF_MARK`,
//! into the environment, and `/proc/*/environ` is searched for it.
//!
//! Nothing here waits for a time to pass. Tests wait for a line in a fifo, for a process to be gone, for the end; a limit
//! turns what would hang into a failure.

#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// What would take longer has hung.
pub const LIMIT: Duration = Duration::from_secs(60);

/// The binary under test.
pub const PROCFLOW: &str = env!("CARGO_BIN_EXE_procflow");

/// A mark for the environment that no other run has.
fn new_mark() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!(
        "{}-{}",
        std::process::id(),
        COUNT.fetch_add(1, Ordering::Relaxed)
    )
}

/// The processes whose environment holds this mark, with their command lines.
pub fn marked(mark: &str) -> Vec<(i32, String)> {
    let entry = format!("PF_MARK={mark}");
    let mut found = Vec::new();
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = process
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<i32>().ok())
        else {
            continue;
        };
        let Ok(environ) = fs::read(process.path().join("environ")) else {
            continue;
        };
        if environ
            .split(|byte| *byte == 0)
            .any(|variable| variable == entry.as_bytes())
        {
            let command = fs::read(process.path().join("cmdline")).unwrap_or_default();
            found.push((pid, String::from_utf8_lossy(&command).replace('\0', " ")));
        }
    }
    found
}

/// Looks until `condition` gives something, and fails after [`LIMIT`].
pub fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(
            start.elapsed() < LIMIT,
            "{what}: has not come to pass in {LIMIT:?}"
        );
        thread::sleep(Duration::from_millis(2));
    }
}

/// The letter of a process's state in `/proc/PID/stat` (`R`, `S`, `T`, `Z` ...), or nothing where it is gone.
pub fn process_state(pid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

/// The child processes of a process.
pub fn children(pid: i32) -> Vec<i32> {
    fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
        .unwrap_or_default()
        .split_whitespace()
        .map(|pid| pid.parse().unwrap())
        .collect()
}

/// A pipeline and everything around it, in a directory of its own.
pub struct Pipeline {
    directory: tempfile::TempDir,
    mark: String,
    environment: Vec<(OsString, OsString)>,
    before: Vec<OsString>,
    subcommand: String,
    arguments: Vec<OsString>,
    stdin: Vec<u8>,
    file: String,
    report: bool,
    job: bool,
}

impl Pipeline {
    /// A pipeline with this text.
    pub fn new(text: &str) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("procflow-test-")
            .tempdir()
            .unwrap();
        fs::write(directory.path().join("pipeline.toml"), text).unwrap();
        Pipeline {
            directory,
            mark: new_mark(),
            environment: Vec::new(),
            before: Vec::new(),
            subcommand: "run".to_owned(),
            arguments: Vec::new(),
            stdin: Vec::new(),
            file: "pipeline.toml".to_owned(),
            report: true,
            job: false,
        }
    }

    /// A path in the pipeline's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A file beside the pipeline.
    pub fn with_file(self, name: &str, text: impl AsRef<[u8]>) -> Self {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    /// An executable file beside the pipeline.
    pub fn with_program(self, name: &str, text: &str) -> Self {
        let this = self.with_file(name, text);
        fs::set_permissions(this.path(name), fs::Permissions::from_mode(0o755)).unwrap();
        this
    }

    /// A fifo beside the pipeline.
    pub fn with_fifo(self, name: &str) -> Self {
        nix::unistd::mkfifo(
            &self.path(name),
            nix::sys::stat::Mode::from_bits_truncate(0o600),
        )
        .unwrap();
        self
    }

    /// A variable of procflow's environment.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment
            .push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Options of `procflow run`.
    pub fn args<const N: usize>(mut self, arguments: [&str; N]) -> Self {
        self.arguments.extend(arguments.iter().map(OsString::from));
        self
    }

    /// These options of `procflow run`, and no others.
    pub fn only_args<const N: usize>(mut self, arguments: [&str; N]) -> Self {
        self.arguments = arguments.iter().map(OsString::from).collect();
        self
    }

    /// What stands on procflow's standard input. Without it: nothing.
    pub fn input(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.stdin = bytes.as_ref().to_vec();
        self
    }

    /// Another file than `pipeline.toml`; `-` is standard input.
    pub fn with_name(mut self, file: &str) -> Self {
        file.clone_into(&mut self.file);
        self
    }

    /// Another subcommand than `run`, whose arguments are the file's name and [`Pipeline::args`]. It gives no report.
    pub fn subcommand(mut self, name: &str) -> Self {
        name.clone_into(&mut self.subcommand);
        self.report = false;
        self
    }

    /// No `--json`, where the test says itself where the report goes, or where none can come.
    pub fn without_report(mut self) -> Self {
        self.report = false;
        self
    }

    /// A program, with its first arguments, that starts procflow: its command line is appended.
    pub fn under<const N: usize>(mut self, before: [&str; N]) -> Self {
        self.before = before.iter().map(OsString::from).collect();
        self
    }

    /// The command line that runs it.
    pub fn command_line(&self) -> Vec<OsString> {
        let mut line = self.before.clone();
        line.push(PROCFLOW.into());
        line.push(self.subcommand.clone().into());
        line.push(self.file.clone().into());
        if self.report {
            line.push("--json".into());
            line.push("report.json".into());
        }
        line.extend(self.arguments.iter().cloned());
        line
    }

    /// Its command, in its directory and environment, its output not yet directed anywhere.
    pub fn command(&self) -> Command {
        let line = self.command_line();
        let mut command = Command::new(&line[0]);
        command.args(&line[1..]).current_dir(self.directory.path());
        // What the environment of the test run says about output must not change what is tested.
        for name in [
            "CI",
            "GITHUB_ACTIONS",
            "GITHUB_STEP_SUMMARY",
            "GITHUB_WORKSPACE",
            "GITLAB_CI",
            "NO_COLOR",
            "CLICOLOR_FORCE",
            "CLICOLOR",
            "MAKEFLAGS",
            "FORCE_COLOR",
        ] {
            command.env_remove(name);
        }
        command
            .env("PF_MARK", &self.mark)
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Starts it in a process group of its own, as a shell starts a job. Where the tests' group is an orphaned one, as in a
    /// container or under setsid(1), the kernel stops nobody of it at Ctrl-Z; who has its parent in another group is stopped.
    pub fn in_its_own_group(mut self) -> Self {
        self.job = true;
        self
    }

    /// Starts it, for tests that look at it while it runs.
    pub fn start(self) -> Live {
        fs::write(self.path("stdin"), &self.stdin).unwrap();
        let mut command = self.command();
        command
            .stdin(File::open(self.path("stdin")).unwrap())
            .stdout(File::create(self.path("stdout")).unwrap())
            .stderr(File::create(self.path("stderr")).unwrap());
        if self.job {
            command.process_group(0);
        }
        let child = command.spawn().unwrap();
        Live {
            pipeline: self,
            child: Some(child),
        }
    }

    /// Runs it to its end.
    pub fn run(self) -> Ran {
        self.start().finish()
    }

    /// Runs it to its end, with what procflow's standard streams are to be.
    pub fn run_with(self, stdin: Stdio, stdout: Stdio, stderr: Stdio) -> Ran {
        let mut command = self.command();
        command.stdin(stdin).stdout(stdout).stderr(stderr);
        let child = command.spawn().unwrap();
        for name in ["stdout", "stderr"] {
            fs::write(self.path(name), "").unwrap();
        }
        Live {
            pipeline: self,
            child: Some(child),
        }
        .finish()
    }
}

/// A run that goes on.
pub struct Live {
    pub pipeline: Pipeline,
    child: Option<Child>,
}

impl Live {
    /// The process id that the user sees.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.as_ref().unwrap().id()).unwrap()
    }

    /// Sends procflow a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).unwrap();
    }

    /// Does this with it on the way.
    pub fn tap(self, look: impl FnOnce(&Self)) -> Self {
        look(&self);
        self
    }

    /// Waits for so many lines in a fifo of the pipeline's directory.
    pub fn lines(&self, fifo: &str, count: usize) -> Vec<String> {
        read_fifo(&self.pipeline.path(fifo), count)
    }

    /// Lets whoever reads this fifo go on.
    pub fn release(&self, fifo: &str, text: &str) {
        release_fifo(&self.pipeline.path(fifo), text);
    }

    /// The processes of this run: procflow's own and the nodes'.
    pub fn processes(&self) -> Vec<(i32, String)> {
        marked(&self.pipeline.mark)
    }

    /// Kills procflow as kill -9 does, and gives back how long it took until nothing of the run was left.
    pub fn kill_and_time(mut self, victim: i32) -> Duration {
        let mut child = self.child.take().unwrap();
        let start = Instant::now();
        kill(Pid::from_raw(victim), Signal::SIGKILL).unwrap();
        let reaper = thread::spawn(move || child.wait().unwrap());
        wait_for("every process of the run to be gone", || {
            self.processes().is_empty().then_some(())
        });
        let took = start.elapsed();
        reaper.join().unwrap();
        took
    }

    /// Kills one of procflow's own processes as kill -9 does, waits until nothing of the run is left, and gives back its directory.
    pub fn kill_for_good(mut self, victim: i32) -> Pipeline {
        let mut child = self.child.take().unwrap();
        // It may have ended by itself a moment ago.
        let _ = kill(Pid::from_raw(victim), Signal::SIGKILL);
        child.wait().unwrap();
        wait_for("every process of the run to be gone", || {
            self.processes().is_empty().then_some(())
        });
        std::mem::replace(&mut self.pipeline, Pipeline::new(""))
    }

    /// Waits for its end.
    pub fn finish(mut self) -> Ran {
        let mut child = self.child.take().unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        let mark = self.pipeline.mark.clone();
        let start = Instant::now();
        let (sender, receiver) = std::sync::mpsc::channel();
        let waiter = thread::spawn(move || {
            let status = child.wait().unwrap();
            let _ = sender.send(());
            status
        });
        let hung = receiver.recv_timeout(LIMIT).is_err();
        // No time is given here: what is left at the moment that procflow has ended was left behind.
        let survivors = marked(&mark);
        if hung {
            let _ = kill(pid, Signal::SIGKILL);
        }
        for (pid, _) in &survivors {
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        let status = waiter.join().unwrap();
        let read = |name: &str| fs::read(self.pipeline.path(name)).unwrap_or_default();
        let (stdout, stderr) = (
            read("stdout"),
            String::from_utf8_lossy(&read("stderr")).into_owned(),
        );
        assert!(
            !hung,
            "procflow has not ended in {LIMIT:?}; still there: {survivors:#?}\nstderr:\n{stderr}"
        );
        assert!(
            survivors.is_empty(),
            "left behind: {survivors:#?}\nstderr:\n{stderr}"
        );
        let report = self
            .pipeline
            .report
            .then(|| fs::read(self.pipeline.path("report.json")).ok())
            .flatten()
            .map(|bytes| serde_json::from_slice(&bytes).expect("the report is JSON"));
        let pipeline = std::mem::replace(&mut self.pipeline, Pipeline::new(""));
        Ran {
            pipeline,
            status,
            stdout,
            stderr,
            report,
            took: start.elapsed(),
            looked: Looked::default(),
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        // A test that failed midway leaves nothing behind either.
        if let Some(mut child) = self.child.take() {
            for (pid, _) in marked(&self.pipeline.mark) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Writes this to a fifo, and waits until somebody has read it.
pub fn release_fifo(fifo: &Path, text: &str) {
    // Opened for both, so that it doesn't wait for the reader; the reader may be gone.
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(fifo)
        .unwrap();
    file.write_all(text.as_bytes()).unwrap();
    // It must not be closed before somebody has read it: a fifo that nobody holds loses what is in it.
    wait_for(&format!("somebody to read {}", fifo.display()), || {
        let mut ends = [PollFd::new(file.as_fd(), PollFlags::POLLIN)];
        (poll(&mut ends, PollTimeout::ZERO).unwrap() == 0).then_some(())
    });
}

/// So many lines of a fifo, waited for.
pub fn read_fifo(path: &Path, count: usize) -> Vec<String> {
    // Opened for both, so that neither the opening waits nor the end of the first writer is taken for the end.
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(nix::libc::O_NONBLOCK)
        .open(path)
        .unwrap();
    let mut text = Vec::new();
    let start = Instant::now();
    while text.iter().filter(|byte| **byte == b'\n').count() < count {
        let left = LIMIT.checked_sub(start.elapsed());
        let left = left.unwrap_or_else(|| {
            panic!(
                "{} has only: {}",
                path.display(),
                String::from_utf8_lossy(&text)
            )
        });
        let mut ends = [PollFd::new(file.as_fd(), PollFlags::POLLIN)];
        poll(&mut ends, PollTimeout::try_from(left).unwrap()).unwrap();
        let mut buffer = [0; 4096];
        match file.read(&mut buffer) {
            Ok(length) => text.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => panic!("{}: {error}", path.display()),
        }
    }
    String::from_utf8(text)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect()
}

/// What a test has looked at itself.
#[derive(Default)]
struct Looked {
    stdout: bool,
    status: bool,
    nodes: bool,
}

/// A run that has ended. What the test doesn't look at must be as in a run where all went well; see the module.
pub struct Ran {
    pub pipeline: Pipeline,
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: String,
    pub report: Option<serde_json::Value>,
    pub took: Duration,
    looked: Looked,
}

impl Ran {
    /// Standard output is exactly this.
    #[track_caller]
    pub fn stdout(mut self, expected: impl AsRef<[u8]>) -> Self {
        self.looked.stdout = true;
        let expected = expected.as_ref();
        assert!(
            self.stdout == expected,
            "standard output is\n{}\nand not\n{}\nstderr:\n{}",
            shown(&self.stdout),
            shown(expected),
            self.stderr
        );
        self
    }

    /// Standard output is this, its lines in any order.
    #[track_caller]
    pub fn stdout_sorted(mut self, expected: &str) -> Self {
        self.looked.stdout = true;
        let mut lines: Vec<_> = self
            .stdout
            .split_inclusive(|byte| *byte == b'\n')
            .map(OsStr::from_bytes)
            .collect();
        lines.sort();
        let lines: Vec<_> = lines.iter().map(|line| line.to_string_lossy()).collect();
        assert_eq!(lines.concat(), expected, "stderr:\n{}", self.stderr);
        self
    }

    /// The test looks at standard output by itself.
    pub fn any_stdout(mut self) -> Self {
        self.looked.stdout = true;
        self
    }

    /// procflow exited with this code.
    #[track_caller]
    pub fn exit(mut self, code: i32) -> Self {
        self.looked.status = true;
        assert_eq!(
            self.status.code(),
            Some(code),
            "{}, stderr:\n{}",
            self.status,
            self.stderr
        );
        self
    }

    /// procflow was ended by this signal.
    #[track_caller]
    pub fn signal(mut self, signal: Signal) -> Self {
        self.looked.status = true;
        assert_eq!(
            self.status.signal(),
            Some(signal as i32),
            "{}, stderr:\n{}",
            self.status,
            self.stderr
        );
        self
    }

    /// Standard error has this somewhere.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert!(
            self.stderr.contains(text),
            "standard error does not say {text:?}:\n{}",
            self.stderr
        );
        self
    }

    /// Neither stream has this anywhere.
    #[track_caller]
    pub fn never_says(self, text: &str) -> Self {
        assert!(
            !self.stderr.contains(text),
            "standard error says {text:?}:\n{}",
            self.stderr
        );
        assert!(
            !String::from_utf8_lossy(&self.stdout).contains(text),
            "standard output says {text:?}"
        );
        self
    }

    /// Every node and how it ended, in the file's order: `("sort", "failed: exit 2")`.
    #[track_caller]
    pub fn nodes<const N: usize>(mut self, expected: [(&str, &str); N]) -> Self {
        self.looked.nodes = true;
        let found = self.ends();
        let found: Vec<_> = found
            .iter()
            .map(|(name, end)| (name.as_str(), end.as_str()))
            .collect();
        assert_eq!(found, expected, "stderr:\n{}", self.stderr);
        self
    }

    /// One node and how it ended. The others are then the test's own business.
    #[track_caller]
    pub fn node(mut self, name: &str, expected: &str) -> Self {
        self.looked.nodes = true;
        let found = self.ends();
        let end = found
            .iter()
            .find(|(node, _)| node == name)
            .map(|(_, end)| end.as_str());
        assert_eq!(
            end,
            Some(expected),
            "of {found:#?}\nstderr:\n{}",
            self.stderr
        );
        self
    }

    /// How nodes ended is looked at elsewhere.
    pub fn any_nodes(mut self) -> Self {
        self.looked.nodes = true;
        self
    }

    /// Nothing was run, so there is no report, or an empty one.
    pub fn no_nodes(mut self) -> Self {
        self.looked.nodes = true;
        assert!(
            self.report.is_none(),
            "there is a report: {:#?}",
            self.report
        );
        self
    }

    /// A field of a node in the report.
    #[track_caller]
    pub fn field(&self, node: &str, field: &str) -> serde_json::Value {
        let report = self.report.as_ref().expect("the run left a report");
        let nodes = report["nodes"].as_array().expect("the report has nodes");
        let node = nodes
            .iter()
            .find(|value| value["name"] == node)
            .unwrap_or_else(|| panic!("no node {node}"));
        node[field].clone()
    }

    /// A file in the pipeline's directory has exactly this text.
    #[track_caller]
    pub fn file(self, name: &str, expected: impl AsRef<[u8]>) -> Self {
        let found =
            fs::read(self.pipeline.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let expected = expected.as_ref();
        assert!(
            found == expected,
            "{name} is\n{}\nand not\n{}",
            shown(&found),
            shown(expected)
        );
        self
    }

    /// A file is not there.
    #[track_caller]
    pub fn no_file(self, name: &str) -> Self {
        assert!(!self.pipeline.path(name).exists(), "{name} is there");
        self
    }

    /// The pipeline's directory holds nothing but these names, what the test itself put there, and `.procflow`.
    #[track_caller]
    pub fn only_files<const N: usize>(self, expected: [&str; N]) -> Self {
        let own = [
            "pipeline.toml",
            "stdin",
            "stdout",
            "stderr",
            "report.json",
            ".procflow",
        ];
        let mut names: Vec<_> = fs::read_dir(self.pipeline.directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !own.contains(&name.as_str()))
            .collect();
        names.sort();
        assert_eq!(names, expected);
        self
    }

    /// Every node of the report and how it ended, as `succeeded` or `state: reason`.
    pub fn ends(&self) -> Vec<(String, String)> {
        let Some(report) = &self.report else {
            return Vec::new();
        };
        let nodes = report["nodes"].as_array().expect("the report has nodes");
        let text = |value: &serde_json::Value| value.as_str().expect("a text").to_owned();
        nodes
            .iter()
            .map(|node| match (text(&node["state"]), &node["reason"]) {
                // Whether a writer was ended by its reader's end, or was done just before, may be a race.
                (state, _) if state == "succeeded" => (text(&node["name"]), state),
                (state, serde_json::Value::Null) => (text(&node["name"]), state),
                (state, reason) => (text(&node["name"]), format!("{state}: {}", text(reason))),
            })
            .collect()
    }
}

impl Ran {
    /// The directory and the pipeline in it, for another run there.
    pub fn again(mut self) -> Pipeline {
        std::mem::replace(&mut self.pipeline, Pipeline::new(""))
    }
}

impl Drop for Ran {
    fn drop(&mut self) {
        if thread::panicking() {
            return;
        }
        if !self.looked.status {
            assert_eq!(
                self.status.code(),
                Some(0),
                "{}, stderr:\n{}",
                self.status,
                self.stderr
            );
        }
        if !self.looked.stdout {
            assert!(
                self.stdout.is_empty(),
                "standard output is\n{}",
                shown(&self.stdout)
            );
        }
        if !self.looked.nodes && self.pipeline.report {
            for (name, end) in self.ends() {
                assert_eq!(end, "succeeded", "node {name}; stderr:\n{}", self.stderr);
            }
        }
    }
}

/// Bytes for people, cut where they are many.
fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    match text.char_indices().nth(4000) {
        Some((cut, _)) => format!("{}... ({} bytes)", &text[..cut], bytes.len()),
        None => text.into_owned(),
    }
}
