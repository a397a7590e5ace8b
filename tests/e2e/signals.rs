//! Ctrl-C, Ctrl-Z and the signals that ask procflow to end: everything is stopped, the report is written, and procflow ends
//! by the same signal.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::signal::Signal;

use crate::support::{LIMIT, PROCFLOW, Pipeline, process_state, read_fifo, release_fifo, wait_for};

#[test]
fn a_signal_stops_everything_and_ends_procflow_by_the_same() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let live = Pipeline::new(
            r#"
            [process.running]
            script = "echo ready > ready; sleep 1000"
            [process.next]
            after = ["running"]
            command = ["true"]
            [process.clean-up]
            after = [{ node = "running", state = "finished" }]
            command = ["echo", "cleaned up"]
            stdout = "inherit"
            "#,
        )
        .with_fifo("ready")
        .start();
        live.lines("ready", 1);
        live.signal(signal);
        let ran = live.finish().any_stdout().signal(signal);
        let ran = ran.node("running", &format!("cancelled: interrupted by {signal}"));
        assert_eq!(ran.field("next", "state"), "skipped");
    }
}

/// The grace is far longer than the test's limit: only the second signal can have ended it.
#[test]
fn a_second_signal_kills_at_once() {
    let live = Pipeline::new(
        r#"
        [process.stubborn]
        script = "trap 'echo asked > ready' TERM; echo ready > ready; while :; do sleep 0.01; done"
        stop_grace = "1000s"
        "#,
    )
    .with_fifo("ready")
    .start();
    live.lines("ready", 1);
    live.signal(Signal::SIGINT);
    live.lines("ready", 1);
    live.signal(Signal::SIGINT);
    live.finish()
        .node("stubborn", "cancelled: interrupted by SIGINT")
        .signal(Signal::SIGINT);
}

#[test]
fn a_node_that_ignores_the_signal_is_killed_after_its_grace() {
    let live = Pipeline::new(
        r#"
        [process.stubborn]
        script = "trap '' TERM; echo ready > ready; sleep 1000"
        stop_grace = "50ms"
        "#,
    )
    .with_fifo("ready")
    .start();
    live.lines("ready", 1);
    live.signal(Signal::SIGTERM);
    live.finish()
        .node("stubborn", "cancelled: interrupted by SIGTERM")
        .signal(Signal::SIGTERM);
}

/// nohup(1) ignores SIGHUP for what it starts, and a hangup then doesn't end the run. The nodes have the default all the
/// same: a hangup of the terminal is for its foreground, where they never are.
#[test]
fn a_hangup_that_was_ignored_stays_ignored() {
    let live = Pipeline::new(
        r#"
        [process.running]
        script = "echo ready > ready; read go < go; grep SigIgn /proc/self/status"
        stdout = "inherit"
        "#,
    )
    .with_fifo("ready")
    .with_fifo("go")
    .under(["sh", "-c", "trap '' HUP; exec \"$@\"", "sh"])
    .start();
    live.lines("ready", 1);
    live.signal(Signal::SIGHUP);
    live.release("go", "go\n");
    live.finish().stdout("SigIgn:\t0000000000000000\n");
}

/// A terminal of its own, with a shell (or procflow itself) as the leader of the session in it.
pub struct Terminal {
    master: File,
    child: Child,
    /// What [`Terminal::until`] has read.
    seen: String,
}

impl Terminal {
    /// Starts a command as the leader of a new session, with a new terminal as its standard streams.
    pub fn start(pipeline: &Pipeline, line: &[&str]) -> Self {
        // Not by openpty, whose descriptors the programs of other tests would inherit: then a terminal never hangs up.
        let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let terminal = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(nix::libc::O_NOCTTY)
            .open(ptsname_r(&master).unwrap())
            .unwrap();
        let slave = || Stdio::from(terminal.try_clone().unwrap());
        // Without a size a terminal gets no bars.
        let size = ["rows", "24", "columns", "80"];
        let sized = Command::new("stty").args(size).stdin(slave()).status();
        assert!(sized.unwrap().success());
        let mut command = Command::new("setsid");
        command
            .args(["--ctty", "--wait"])
            .args(line)
            .current_dir(pipeline.path("."));
        let ours = pipeline.command();
        for (name, value) in ours.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.env("TERM", "xterm").env("PROCFLOW", PROCFLOW);
        command.stdin(slave()).stdout(slave()).stderr(slave());
        let child = command.spawn().unwrap();
        Terminal {
            master: File::from(master.as_fd().try_clone_to_owned().unwrap()),
            child,
            seen: String::new(),
        }
    }

    /// Types.
    pub fn type_keys(&mut self, keys: &[u8]) {
        self.master.write_all(keys).unwrap();
    }

    /// Waits until this is shown, after what has been waited for before; gives what was shown on the way.
    pub fn until(&mut self, text: &str) -> String {
        let start = std::time::Instant::now();
        loop {
            if let Some(at) = self.seen.find(text) {
                let rest = self.seen.split_off(at + text.len());
                return std::mem::replace(&mut self.seen, rest);
            }
            let left = LIMIT.saturating_sub(start.elapsed());
            let mut ends = [PollFd::new(self.master.as_fd(), PollFlags::POLLIN)];
            let ready = poll(&mut ends, PollTimeout::try_from(left).unwrap()).unwrap();
            let from = self
                .seen
                .floor_char_boundary(self.seen.len().saturating_sub(400));
            let last = &self.seen[from..];
            assert!(ready > 0, "{text:?} does not come; the last was {last:?}");
            let mut buffer = [0; 4096];
            let length = self.master.read(&mut buffer).unwrap_or(0);
            assert!(length > 0, "{text:?} does not come; the last was {last:?}");
            self.seen
                .push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
    }

    /// Everything that was shown until the last process left the terminal, after what has been waited for before.
    pub fn finish(mut self) -> (String, std::process::ExitStatus) {
        let mut reader = self.master.try_clone().unwrap();
        let seen = std::mem::take(&mut self.seen);
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut shown = seen.into_bytes();
            let mut buffer = [0; 4096];
            // When nobody has the other side any more, reading it is an error (EIO).
            while let Ok(length) = reader.read(&mut buffer) {
                if length == 0 {
                    break;
                }
                shown.extend_from_slice(&buffer[..length]);
            }
            let _ = sender.send(String::from_utf8_lossy(&shown).into_owned());
        });
        let shown = receiver
            .recv_timeout(LIMIT)
            .expect("everything in the terminal ends");
        (shown, self.child.wait().unwrap())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn ctrl_c_in_a_terminal_ends_the_run() {
    let pipeline = Pipeline::new("[process.a]\nscript = \"echo ready > ready; sleep 1000\"\n")
        .with_fifo("ready");
    let mut terminal = Terminal::start(
        &pipeline,
        &[PROCFLOW, "run", "pipeline.toml", "--json", "report.json"],
    );
    read_fifo(&pipeline.path("ready"), 1);
    terminal.type_keys(b"\x03");
    let (shown, status) = terminal.finish();
    assert_eq!(status.signal(), Some(Signal::SIGINT as i32), "{shown}");
    let report = std::fs::read(pipeline.path("report.json")).unwrap();
    let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
    assert_eq!(report["nodes"][0]["state"], "cancelled");
    assert_eq!(report["nodes"][0]["reason"], "interrupted by SIGINT");
    assert_eq!(crate::support::marked(&mark(&pipeline)), vec![]);
}

/// With `stty tostop` whoever writes to the terminal from the background is stopped. The runner does, all the time.
#[test]
fn bars_are_drawn_where_background_output_is_not_welcome() {
    let pipeline = Pipeline::new("[process.a]\nscript = \"echo shown\"\n");
    let terminal = Terminal::start(
        &pipeline,
        &[
            "sh",
            "-c",
            "stty tostop; \"$PROCFLOW\" run pipeline.toml; echo ended=$?",
        ],
    );
    let (shown, _) = terminal.finish();
    assert!(
        shown.contains("shown") && shown.contains("ended=0"),
        "{shown}"
    );
}

/// What a node prints can neither clear the screen nor name the window.
#[test]
fn control_sequences_of_a_node_do_nothing_to_the_terminal() {
    let pipeline = Pipeline::new(
        r#"
        [process.a]
        script = 'printf "be\033[2Jfore\033]0;title\007 \033[10Aafter\n"'
        "#,
    );
    let (shown, status) = Terminal::start(&pipeline, &[PROCFLOW, "run", "pipeline.toml"]).finish();
    assert!(status.success(), "{shown}");
    for sequence in ["\x1b[2J", "\x1b]0;", "\x1b[10A", "\x07"] {
        assert!(!shown.contains(sequence), "{sequence:?} in {shown:?}");
    }
    assert!(shown.contains("be") && shown.contains("after"), "{shown:?}");
}

/// The delay is far longer than the test's limit.
#[test]
fn a_signal_ends_the_wait_for_a_retry() {
    let live = Pipeline::new(
        r#"
        [process.flaky]
        script = "exit 1"
        retries = { max = 1, delay = "1000s" }
        "#,
    )
    .args(["--events", "events"])
    .start();
    let events = live.pipeline.path("events");
    wait_for("the retry", || {
        std::fs::read_to_string(&events)
            .is_ok_and(|text| text.contains("retrying"))
            .then_some(())
    });
    live.signal(Signal::SIGTERM);
    let ran = live.finish().signal(Signal::SIGTERM);
    let (_, end) = ran.ends()[0].clone();
    drop(ran.node("flaky", &end));
}

/// procflow inside procflow: the inner one has its own guard, and none of the outer one's.
#[test]
fn a_signal_goes_through_a_procflow_within_a_procflow() {
    let live = Pipeline::new(
        r#"
        [process.outer]
        command = ["${{ env.PROCFLOW_PROGRAM }}", "run", "inner.toml"]
        "#,
    )
    .env("PROCFLOW_PROGRAM", PROCFLOW)
    .with_file(
        "inner.toml",
        "[process.inner]\nscript = \"echo ready > ready; sleep 1000\"\n",
    )
    .with_fifo("ready")
    .start();
    live.lines("ready", 1);
    live.signal(Signal::SIGTERM);
    live.finish()
        .node("outer", "cancelled: interrupted by SIGTERM")
        .signal(Signal::SIGTERM);
}

#[test]
fn a_second_ctrl_c_kills_at_once() {
    let pipeline = Pipeline::new(
        r#"
        [process.stubborn]
        script = "trap 'echo asked > ready' TERM; echo ready > ready; while :; do sleep 0.01; done"
        stop_grace = "1000s"
        "#,
    )
    .with_fifo("ready");
    let mut terminal = Terminal::start(
        &pipeline,
        &[PROCFLOW, "run", "pipeline.toml", "--json", "report.json"],
    );
    read_fifo(&pipeline.path("ready"), 1);
    terminal.type_keys(b"\x03");
    read_fifo(&pipeline.path("ready"), 1);
    terminal.type_keys(b"\x03");
    let (_, status) = terminal.finish();
    assert_eq!(status.signal(), Some(Signal::SIGINT as i32));
    assert_eq!(crate::support::marked(&mark(&pipeline)), vec![]);
}

/// Ctrl-Z stops the nodes too, `fg` continues them, and no timeout counts the time between.
#[test]
fn ctrl_z_and_fg_stop_and_continue_everything() {
    let pipeline = Pipeline::new(
        r#"
        [process.a]
        script = "echo $$ > ready; read go < go; echo went on"
        timeout = "60s"
        stdout = { file = "out" }
        "#,
    )
    .with_fifo("ready")
    .with_fifo("go")
    .with_fifo("stopped");
    // An interactive shell's job control, without its prompts.
    let script = "set -m; \"$PROCFLOW\" run pipeline.toml --progress none; echo $? > stopped; read line; fg > /dev/null; echo ended=$?";
    let mut terminal = Terminal::start(&pipeline, &["sh", "-c", script]);
    let node: i32 = read_fifo(&pipeline.path("ready"), 1)[0].parse().unwrap();
    terminal.type_keys(b"\x1a");
    let said = read_fifo(&pipeline.path("stopped"), 1);
    assert_eq!(
        said,
        [(128 + Signal::SIGTSTP as i32).to_string()],
        "what the shell says of a stopped job"
    );
    wait_for("the node to stand still", || {
        (process_state(node) == Some('T')).then_some(())
    });
    terminal.type_keys(b"go on\n");
    wait_for("the node to go on", || {
        (process_state(node) != Some('T')).then_some(())
    });
    release_fifo(&pipeline.path("go"), "go\n");
    let (shown, _) = terminal.finish();
    assert!(shown.contains("ended=0"), "{shown}");
    assert_eq!(
        std::fs::read_to_string(pipeline.path("out")).unwrap(),
        "went on\n"
    );
}

#[test]
fn no_timeout_counts_the_time_that_a_run_stood_still() {
    let live = Pipeline::new(
        r#"
        [process.a]
        script = "echo $$ > ready; read go < go"
        timeout = "3s"
        "#,
    )
    .with_fifo("ready")
    .with_fifo("go")
    .in_its_own_group()
    .start();
    let node: i32 = live.lines("ready", 1)[0].parse().unwrap();
    live.signal(Signal::SIGTSTP);
    wait_for("the node to stand still", || {
        (process_state(node) == Some('T')).then_some(())
    });
    wait_for("procflow to stand still", || {
        (process_state(live.pid()) == Some('T')).then_some(())
    });
    // The one place where time itself is what is tested.
    std::thread::sleep(Duration::from_millis(3500));
    live.signal(Signal::SIGCONT);
    live.release("go", "go\n");
    live.finish();
}

/// The mark in the environment of a pipeline's run.
pub fn mark(pipeline: &Pipeline) -> String {
    let command = pipeline.command();
    let mark = command
        .get_envs()
        .find(|(name, _)| *name == "PF_MARK")
        .and_then(|(_, value)| value);
    mark.unwrap().to_str().unwrap().to_owned()
}
