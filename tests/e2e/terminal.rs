//! Nodes that read the terminal themselves, and the screen at Ctrl-Z, `fg` and `bg`: as with a job of a shell.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::signals::{Terminal, mark};
use crate::support::{PROCFLOW, Pipeline, marked, process_state, read_fifo, wait_for};

/// A node that asks, and one that runs beside it.
fn asking() -> Pipeline {
    Pipeline::new(
        r#"
        [process.ask]
        script = "echo $$ > ready; read answer; echo \"got $answer\" > out"
        stdin = "inherit"
        [process.beside]
        script = "read go < go"
        "#,
    )
    .with_fifo("ready")
    .with_fifo("go")
    .with_fifo("stopped")
}

fn read(pipeline: &Pipeline, name: &str) -> String {
    std::fs::read_to_string(pipeline.path(name)).unwrap()
}

/// Lets the node go on that waits at `go`.
fn release(pipeline: &Pipeline) {
    release_at(pipeline, "go");
}

/// Lets the node go on that waits at this fifo, when one does.
fn release_at(pipeline: &Pipeline, name: &str) {
    let mut go = wait_for("a node that waits at a fifo", || {
        // Without a reader it fails, and does not wait.
        OpenOptions::new()
            .write(true)
            .custom_flags(nix::libc::O_NONBLOCK)
            .open(pipeline.path(name))
            .ok()
    });
    go.write_all(b"go\n").unwrap();
}

/// The pid of the node that asks, when it does.
fn asked(pipeline: &Pipeline) -> i32 {
    read_fifo(&pipeline.path("ready"), 1)[0].parse().unwrap()
}

fn goes_on(node: i32) {
    wait_for("the node to go on", || {
        (process_state(node) != Some('T')).then_some(())
    });
}

fn parent(pid: i32) -> i32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    fields.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn stands_still(node: i32) {
    wait_for("the node to stand still", || {
        (process_state(node) == Some('T')).then_some(())
    });
}

/// And the shell that started it reads it after: it has got it back.
#[test]
fn a_node_reads_the_terminal() {
    let pipeline = asking();
    let script =
        "\"$PROCFLOW\" run pipeline.toml; echo ended=$?; read line; echo \"shell got $line\"";
    let mut terminal = Terminal::start(&pipeline, &["sh", "-c", script]);
    asked(&pipeline);
    terminal.type_keys(b"me\n");
    wait_for("the answer", || {
        std::fs::read(pipeline.path("out"))
            .is_ok_and(|text| text == b"got me\n")
            .then_some(())
    });
    release(&pipeline);
    terminal.until("ended=0");
    terminal.type_keys(b"this\n");
    let (shown, _) = terminal.finish();
    assert!(shown.contains("shell got this"), "{shown}");
}

/// The terminal sends it to that node alone. It was meant for the run.
#[test]
fn ctrl_c_at_a_node_that_reads_the_terminal_ends_the_run() {
    for (key, signal) in [(b"\x03", Signal::SIGINT), (b"\x1c", Signal::SIGQUIT)] {
        let pipeline = asking();
        let mut terminal = Terminal::start(
            &pipeline,
            &[PROCFLOW, "run", "pipeline.toml", "--json", "report.json"],
        );
        asked(&pipeline);
        terminal.type_keys(key);
        let (shown, status) = terminal.finish();
        assert_eq!(status.signal(), Some(signal as i32), "{shown}");
        let report: serde_json::Value =
            serde_json::from_str(&read(&pipeline, "report.json")).unwrap();
        for node in 0..2 {
            assert_eq!(
                report["nodes"][node]["reason"],
                format!("interrupted by {signal}"),
                "{shown}"
            );
        }
        assert_eq!(marked(&mark(&pipeline)), vec![]);
    }
}

/// Then the guard takes it back.
#[test]
fn the_terminal_comes_back_from_a_runner_that_was_killed() {
    let pipeline = asking();
    let script =
        "\"$PROCFLOW\" run pipeline.toml; echo ended=$?; read line; echo \"shell got $line\"";
    let mut terminal = Terminal::start(&pipeline, &["sh", "-c", script]);
    let node = asked(&pipeline);
    let runner = parent(node);
    kill(Pid::from_raw(runner), Signal::SIGKILL).unwrap();
    terminal.until("ended=137");
    terminal.type_keys(b"this\n");
    let (shown, _) = terminal.finish();
    assert!(shown.contains("shell got this"), "{shown}");
}

/// A signal that procflow sends is not the user's.
#[test]
fn a_reader_that_times_out_by_sigint_interrupts_nobody() {
    let pipeline = Pipeline::new(
        r#"
        [process.ask]
        script = "read answer"
        stdin = "inherit"
        timeout = "50ms"
        stop_signal = "SIGINT"
        allow_failure = true
        [process.next]
        after = [{ node = "ask", state = "finished" }]
        script = "echo went on > out"
        "#,
    );
    let (shown, status) = Terminal::start(&pipeline, &[PROCFLOW, "run", "pipeline.toml"]).finish();
    assert_eq!(status.code(), Some(0), "{shown}");
    assert_eq!(read(&pipeline, "out"), "went on\n");
}

/// Ctrl-Z at the node stops all; `fg` continues all, and the node has the terminal again.
#[test]
fn ctrl_z_at_a_node_that_reads_the_terminal_stops_the_run() {
    let pipeline = asking();
    let script = "set -m; \"$PROCFLOW\" run pipeline.toml; echo $? > stopped; read line; fg > /dev/null; echo ended=$?";
    let mut terminal = Terminal::start(&pipeline, &["sh", "-c", script]);
    let node = asked(&pipeline);
    terminal.type_keys(b"\x1a");
    let said = read_fifo(&pipeline.path("stopped"), 1);
    assert_eq!(said, [(128 + Signal::SIGTSTP as i32).to_string()]);
    stands_still(node);
    terminal.type_keys(b"for the shell\n");
    goes_on(node);
    terminal.type_keys(b"me\n");
    release(&pipeline);
    terminal.until("ended=0");
    assert_eq!(read(&pipeline, "out"), "got me\n");
}

/// procflow itself is stopped, and stops the node: `fg` continues both, once and for all.
#[test]
fn a_run_that_is_stopped_while_a_node_reads_goes_on_at_fg() {
    let pipeline = asking();
    let script = "set -m; \"$PROCFLOW\" run pipeline.toml; echo $? > stopped; read line; fg > /dev/null; echo ended=$?";
    let mut terminal = Terminal::start(&pipeline, &["sh", "-c", script]);
    let node = asked(&pipeline);
    let guard = parent(parent(node));
    kill(Pid::from_raw(guard), Signal::SIGTSTP).unwrap();
    let said = read_fifo(&pipeline.path("stopped"), 1);
    assert_eq!(said, [(128 + Signal::SIGTSTP as i32).to_string()]);
    stands_still(node);
    terminal.type_keys(b"for the shell\n");
    goes_on(node);
    terminal.type_keys(b"me\n");
    release(&pipeline);
    terminal.until("ended=0");
    assert_eq!(read(&pipeline, "out"), "got me\n");
}

/// A run that was started in the background stops when a node wants to read, as every job does, and does not wait for ever unseen.
#[test]
fn a_reader_in_the_background_stops_the_run_until_fg() {
    let pipeline = asking();
    let script = "set -m; \"$PROCFLOW\" run pipeline.toml & echo $! > stopped; read line; fg > /dev/null; echo ended=$?";
    let mut terminal = Terminal::start(&pipeline, &["sh", "-c", script]);
    let guard: i32 = read_fifo(&pipeline.path("stopped"), 1)[0].parse().unwrap();
    let node = asked(&pipeline);
    wait_for("the run to stop", || {
        (process_state(guard) == Some('T')).then_some(())
    });
    stands_still(node);
    terminal.type_keys(b"for the shell\n");
    goes_on(node);
    terminal.type_keys(b"me\n");
    release(&pipeline);
    terminal.until("ended=0");
    assert_eq!(read(&pipeline, "out"), "got me\n");
}

#[test]
fn two_readers_take_turns() {
    let pipeline = Pipeline::new(
        r#"
        [process.one]
        script = "echo $$ > ready; read answer; echo \"got $answer\" > ready"
        stdin = "inherit"
        [process.two]
        script = "read go < go; read answer; echo \"got $answer\" > ready"
        stdin = "inherit"
        "#,
    )
    .with_fifo("ready")
    .with_fifo("go");
    let mut terminal = Terminal::start(&pipeline, &[PROCFLOW, "run", "pipeline.toml", "-j2"]);
    asked(&pipeline);
    release(&pipeline);
    terminal.type_keys(b"first\n");
    assert_eq!(read_fifo(&pipeline.path("ready"), 1), ["got first"]);
    terminal.type_keys(b"second\n");
    assert_eq!(read_fifo(&pipeline.path("ready"), 1), ["got second"]);
    let (shown, status) = terminal.finish();
    assert_eq!(status.code(), Some(0), "{shown}");
}

/// Bars are gone before the shell speaks, and there again after `fg`.
#[test]
fn ctrl_z_leaves_a_clean_screen() {
    let pipeline = Pipeline::new("[process.a]\nscript = \"read go < go\"\n").with_fifo("go");
    let script =
        "set -m; \"$PROCFLOW\" run pipeline.toml; echo prompt; read line; fg; echo ended=$?";
    let mut terminal = Terminal::start(&pipeline, &["sh", "-c", script]);
    terminal.until("1 running");
    terminal.type_keys(b"\x1a");
    let shown = terminal.until("prompt");
    // Two lines are drawn; nothing is drawn after they are taken off.
    let (_, after) = shown
        .rsplit_once("\r\x1b[1A\x1b[J")
        .expect("bars are taken off");
    assert!(!after.contains('\x1b'), "{shown:?}");
    terminal.type_keys(b"go on\n");
    terminal.until("1 running");
    release(&pipeline);
    terminal.until("ended=0");
}

/// A user types at the shell meanwhile.
#[test]
fn no_bars_are_drawn_in_the_background() {
    let pipeline = Pipeline::new(
        "[process.a]\nscript = \"echo begun; read go < first; echo more; read go < go\"\n",
    )
    .with_fifo("first")
    .with_fifo("go");
    let script = "set -m; \"$PROCFLOW\" run pipeline.toml & read line; fg; echo ended=$?";
    let mut terminal = Terminal::start(&pipeline, &["sh", "-c", script]);
    let mut shown = terminal.until("begun");
    release_at(&pipeline, "first");
    // Bars would stand between the two.
    shown += &terminal.until("more");
    assert!(!shown.contains("running"), "{shown:?}");
    terminal.type_keys(b"go on\n");
    terminal.until("1 running");
    release(&pipeline);
    terminal.until("ended=0");
}

/// Where a node writes to the terminal itself nothing moves, so that nothing is drawn over what it writes; and what we say after
/// begins a line of its own.
#[test]
fn bars_keep_off_what_a_node_writes_itself() {
    let pipeline = Pipeline::new(
        "[process.a]\nscript = \"printf half; read go < go\"\nstdout = \"inherit\"\n",
    )
    .with_fifo("go");
    let mut terminal = Terminal::start(&pipeline, &[PROCFLOW, "run", "pipeline.toml"]);
    let before = terminal.until("half");
    assert!(!before.contains("running"), "{before:?}");
    release(&pipeline);
    let (shown, _) = terminal.finish();
    let fresh = format!("{}\r\x1b[K", " ".repeat(80));
    assert!(shown.starts_with(&fresh), "{shown:?}");
}

/// What is a terminal in continuous integration is kept as a log.
#[test]
fn no_control_sequences_in_continuous_integration() {
    let pipeline = Pipeline::new(
        "[process.a]\nscript = \"echo seen; exit 3\"\n[process.b]\ncommand = [\"echo\", \"x\"]\nstdout = \"inherit\"\n",
    );
    let script = "CI=true \"$PROCFLOW\" run pipeline.toml; echo ended=$?";
    let (shown, _) = Terminal::start(&pipeline, &["sh", "-c", script]).finish();
    assert!(
        shown.contains("| seen") && shown.contains("ended=1"),
        "{shown}"
    );
    assert!(!shown.contains('\x1b'), "{shown:?}");
}
