//! The guard, and what a process was started with: by a program that becomes guard and runner, looked at from outside.
//!
//! That program is this file, too: with `PROBE` in its environment it is the program, without it runs the tests. So it has
//! no test harness, whose threads do not go with fork.

#![allow(unsafe_code, reason = "hostile parents are made by hand")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may stop")]
#![allow(
    clippy::print_stdout,
    reason = "it is the harness, and the program whose output is read"
)]

use std::ffi::CString;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{self, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use procflow::sys::guard::{self, Notice};
use procflow::sys::process::{Child, Image, NextEnded, Origin, Spawner, next_ended, reap_orphan};
use procflow::sys::signals::{Signals, die_by, stop_self};

fn main() {
    if std::env::var_os("PROBE").is_some() {
        probe();
    }
    let filter = std::env::args()
        .nth(1)
        .filter(|arg| !arg.starts_with('-'))
        .unwrap_or_default();
    let tests: &[(&str, fn())] = &[
        (
            "the_guard_ends_as_the_runner_did",
            the_guard_ends_as_the_runner_did,
        ),
        ("signals_are_passed_on", signals_are_passed_on),
        (
            "what_was_ignored_stays_ignored",
            what_was_ignored_stays_ignored,
        ),
        (
            "kill_9_of_the_guard_leaves_nothing",
            kill_9_of_the_guard_leaves_nothing,
        ),
        (
            "kill_9_of_the_runner_leaves_nothing",
            kill_9_of_the_runner_leaves_nothing,
        ),
        (
            "kill_9_of_a_stopped_guard_and_runner",
            kill_9_of_a_stopped_guard_and_runner,
        ),
        (
            "kill_9_of_both_ends_the_nodes",
            kill_9_of_both_ends_the_nodes,
        ),
        (
            "an_end_of_the_runner_with_nodes_left",
            an_end_of_the_runner_with_nodes_left,
        ),
        ("others_children_are_spared", others_children_are_spared),
        (
            "ctrl_z_stops_and_fg_continues",
            ctrl_z_stops_and_fg_continues,
        ),
        (
            "ctrl_z_without_a_shell_stops_nothing",
            ctrl_z_without_a_shell_stops_nothing,
        ),
        (
            "children_get_what_we_were_started_with",
            children_get_what_we_were_started_with,
        ),
        (
            "closed_standard_descriptors_are_noted",
            closed_standard_descriptors_are_noted,
        ),
        ("adopted_processes_are_reaped", adopted_processes_are_reaped),
    ];
    for (name, test) in tests.iter().filter(|(name, _)| name.contains(&filter)) {
        test();
        println!("test {name} ... ok");
    }
}

// The program under test

/// Runs the scripts that its arguments are, as nodes; says what comes over the control pipe; ends with code `PROBE` when all have
/// ended, or by that signal where it is negative.
fn probe() -> ! {
    let origin = Origin::capture().unwrap();
    for fd in 0..3 {
        if origin.was_closed(fd) {
            println!("{fd} was closed");
        }
    }
    let link = guard::start(&origin, None).unwrap();
    println!("runner {}", process::id());
    let signals = Signals::new(&[libc::SIGCHLD]).unwrap();
    let mut spawner = Spawner::new(origin).unwrap();
    let env: Vec<CString> = std::env::vars()
        .map(|(name, value)| CString::new(format!("{name}={value}")).unwrap())
        .collect();
    let env: Vec<_> = env.iter().map(CString::as_c_str).collect();
    let mut nodes: Vec<Child> = Vec::new();
    for script in std::env::args().skip(1) {
        let script = CString::new(script).unwrap();
        let argv = [c"sh", c"-c", script.as_c_str()];
        let image = Image {
            program: c"/bin/sh",
            argv: &argv,
            env: &env,
            cwd: None,
            fds: &[],
            limits: &[],
            nice: 0,
        };
        nodes.push(spawner.spawn(&image).unwrap());
    }
    loop {
        if nodes.is_empty() && std::env::var_os("STAY").is_none() {
            let code: i32 = std::env::var("PROBE").unwrap().parse().unwrap();
            if code < 0 {
                die_by(-code);
            }
            process::exit(code);
        }
        // SIGCHLD tells of the nodes.
        let mut polled =
            [link.as_fd(), signals.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        poll(&mut polled, PollTimeout::NONE).unwrap();
        while let Some(notice) = link.read_signal().unwrap() {
            match notice {
                Notice::GuardGone => {
                    assert!(guard::sweep());
                    process::exit(3);
                }
                Notice::Signal(libc::SIGTSTP) => {
                    println!("stopping");
                    stop_self();
                    println!("continued");
                }
                Notice::Signal(libc::SIGTERM) => {
                    println!("signal {}", libc::SIGTERM);
                    assert!(guard::sweep());
                    process::exit(0);
                }
                Notice::Signal(signal) => println!("signal {signal}"),
            }
        }
        while signals.read().unwrap().is_some() {}
        nodes.retain_mut(|node| match node.try_wait().unwrap() {
            None => true,
            Some((status, _)) => {
                println!("node ended: {status}, leaked: {}", node.had_leftovers());
                false
            }
        });
        let pids: Vec<i32> = nodes.iter().map(Child::pid).collect();
        while let NextEnded::Process(pid) = next_ended()
            && !pids.contains(&pid)
        {
            reap_orphan(pid);
        }
    }
}

// How it is looked at

/// The program, running. All that descends from it has `mark` in its environment.
struct Probe {
    child: process::Child,
    out: BufReader<process::ChildStdout>,
    mark: String,
    runner: i32,
}

impl Probe {
    fn command(code: &str, scripts: &[&str]) -> (Command, String) {
        let mark = fs::read_to_string("/proc/sys/kernel/random/uuid")
            .unwrap()
            .trim()
            .to_owned();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(scripts)
            .env("PROBE", code)
            .env("MARK", &mark)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        // A group of its own in our session, as a job of a shell.
        command.process_group(0);
        (command, mark)
    }

    fn start((mut command, mark): (Command, String)) -> Self {
        let mut child = command.spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        let runner = line
            .trim()
            .strip_prefix("runner ")
            .unwrap_or_else(|| panic!("{line}"))
            .parse()
            .unwrap();
        Probe {
            child,
            out,
            mark,
            runner,
        }
    }

    fn guard(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// The next line that it, or a node, prints.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Waits until `count` nodes have said that they are up.
    fn up(&mut self, count: usize) {
        for _ in 0..count {
            assert_eq!(self.line(), "up");
        }
    }

    /// All that it prints until nobody holds its output any more, and how it ended.
    fn end(mut self) -> (String, ExitStatus) {
        let mut text = String::new();
        self.out.read_to_string(&mut text).unwrap();
        let status = self.child.wait().unwrap();
        self.nothing_is_left();
        (text, status)
    }

    /// Waits until no process with the mark is left.
    fn nothing_is_left(&self) {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let left = marked(&self.mark);
            if left.is_empty() {
                return;
            }
            if Instant::now() > deadline {
                for &pid in &left {
                    kill(pid, libc::SIGKILL);
                }
                panic!("left: {left:?}");
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn marked(mark: &str) -> Vec<i32> {
    let entry = format!("MARK={mark}");
    let pids = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|dir| dir.ok()?.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        fs::read(format!("/proc/{pid}/environ"))
            .is_ok_and(|env| env.split(|b| *b == 0).any(|var| var == entry.as_bytes()))
    })
    .collect()
}

fn kill(pid: i32, signal: i32) {
    // SAFETY: no memory is touched.
    let killed = unsafe { libc::kill(pid, signal) };
    assert_eq!(killed, 0, "kill({pid}, {signal})");
}

/// Nodes of every kind that likes to stay.
const STUBBORN: [&str; 5] = [
    "echo up; exec sleep 1000",
    "trap '' TERM INT HUP; echo up; while :; do sleep 1000; done",
    "(setsid sleep 1000 &); (trap '' TERM; setsid sh -c 'sleep 1000; :' &); echo up; wait; sleep 1000",
    "(setsid sh -c '(cd /; exec sleep 1000 <&- >&- 2>&- &)' &); echo up; sleep 1000",
    "(sleep 1000 & sleep 1000 &); echo up; kill -STOP $$",
];

fn rounds() -> usize {
    std::env::var("ROUNDS")
        .ok()
        .and_then(|rounds| rounds.parse().ok())
        .unwrap_or(5)
}

fn stubborn() -> Probe {
    let nodes: Vec<&str> = STUBBORN.into_iter().cycle().take(20).collect();
    let mut probe = Probe::start(Probe::command("0", &nodes));
    probe.up(nodes.len());
    assert!(marked(&probe.mark).len() > 20);
    probe
}

// The tests

fn the_guard_ends_as_the_runner_did() {
    for code in ["0", "3", "77", "255"] {
        let (_, status) = Probe::start(Probe::command(code, &["exit 9"])).end();
        assert_eq!(status.code(), Some(code.parse().unwrap()));
    }
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGSEGV] {
        let (_, status) = Probe::start(Probe::command(&(-signal).to_string(), &[":"])).end();
        assert_eq!(
            (status.signal(), status.core_dumped()),
            (Some(signal), false)
        );
    }
}

fn signals_are_passed_on() {
    let mut probe = Probe::start(Probe::command("0", &["sleep 1000"]));
    for signal in [
        libc::SIGINT,
        libc::SIGHUP,
        libc::SIGQUIT,
        libc::SIGWINCH,
        libc::SIGUSR1,
        libc::SIGUSR2,
    ] {
        kill(probe.guard(), signal);
        assert_eq!(probe.line(), format!("signal {signal}"));
    }
    kill(probe.guard(), libc::SIGTERM);
    let (out, status) = probe.end();
    assert_eq!((out.as_str(), status.code()), ("signal 15\n", Some(0)));
}

fn what_was_ignored_stays_ignored() {
    let (mut command, mark) = Probe::command("0", &["sleep 1000"]);
    let ignore = || {
        // SAFETY: async-signal-safe, and no code of ours runs by it.
        unsafe { libc::signal(libc::SIGHUP, libc::SIG_IGN) };
        Ok(())
    };
    // SAFETY: it only makes a call that may be made there.
    unsafe { command.pre_exec(ignore) };
    let mut probe = Probe::start((command, mark));
    kill(probe.guard(), libc::SIGHUP);
    kill(probe.guard(), libc::SIGINT);
    assert_eq!(probe.line(), "signal 2", "and no hang-up before it");
    kill(probe.guard(), libc::SIGTERM);
    probe.end();
}

fn kill_9_of_the_guard_leaves_nothing() {
    for _ in 0..rounds() {
        let probe = stubborn();
        kill(probe.guard(), libc::SIGKILL);
        assert_eq!(probe.end().1.signal(), Some(libc::SIGKILL));
    }
}

fn kill_9_of_the_runner_leaves_nothing() {
    for _ in 0..rounds() {
        let probe = stubborn();
        kill(probe.runner, libc::SIGKILL);
        assert_eq!(probe.end().1.signal(), Some(libc::SIGKILL));
    }
}

fn kill_9_of_a_stopped_guard_and_runner() {
    let probe = stubborn();
    kill(probe.runner, libc::SIGSTOP);
    kill(probe.guard(), libc::SIGSTOP);
    kill(probe.guard(), libc::SIGKILL);
    probe.end();
}

fn kill_9_of_both_ends_the_nodes() {
    let mut probe = Probe::start(Probe::command(
        "0",
        &["trap '' TERM; echo up; kill -STOP $$"],
    ));
    probe.up(1);
    // Neither can run in between.
    kill(probe.guard(), libc::SIGSTOP);
    kill(probe.runner, libc::SIGKILL);
    kill(probe.guard(), libc::SIGKILL);
    probe.end();
}

fn an_end_of_the_runner_with_nodes_left() {
    let script =
        "(setsid sh -c 'trap \"\" TERM; echo up; exec sleep 1000' &) | { read up; echo $up; }";
    let mut probe = Probe::start(Probe::command("5", &[script]));
    probe.up(1);
    // One with a session of its own is no leak of the node; it may outlive it, but not us.
    assert_eq!(probe.line(), "node ended: exit status: 0, leaked: false");
    assert_eq!(probe.end().1.code(), Some(5));
}

fn others_children_are_spared() {
    let (probe, mark) = Probe::command("0", &[":"]);
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "sleep 1000 >/dev/null & echo $!; exec \"$0\" :"])
        .arg(probe.get_program());
    shell
        .env("PROBE", "0")
        .stdout(Stdio::piped())
        .process_group(0);
    let mut child = shell.spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut sleep = String::new();
    out.read_line(&mut sleep).unwrap();
    assert!(child.wait().unwrap().success());
    let sleep = sleep.trim().parse().unwrap();
    // It lives.
    kill(sleep, 0);
    kill(sleep, libc::SIGKILL);
    assert_eq!(marked(&mark), [] as [i32; 0]);
}

/// Waits until a child of ours stops.
fn stopped(pid: i32) -> bool {
    let mut status = 0;
    // SAFETY: only the local variable is written.
    let waited = unsafe { libc::waitpid(pid, &raw mut status, libc::WUNTRACED) };
    waited == pid && libc::WIFSTOPPED(status)
}

fn ctrl_z_stops_and_fg_continues() {
    let mut probe = Probe::start(Probe::command("0", &["sleep 1000"]));
    for _ in 0..3 {
        kill(probe.guard(), libc::SIGTSTP);
        assert_eq!(probe.line(), "stopping");
        assert!(stopped(probe.guard()));
        let state = fs::read_to_string(format!("/proc/{}/stat", probe.runner)).unwrap();
        assert_eq!(
            state.split(' ').nth(2),
            Some("T"),
            "the runner has stopped before the guard"
        );
        kill(probe.guard(), libc::SIGCONT);
        assert_eq!(probe.line(), "continued");
        assert_eq!(probe.line(), "signal 18", "once");
    }
    kill(probe.guard(), libc::SIGTERM);
    assert_eq!(probe.end().0, "signal 15\n");
}

fn ctrl_z_without_a_shell_stops_nothing() {
    let (mut command, mark) = Probe::command("0", &["sleep 1000"]);
    let own_session = || {
        // SAFETY: async-signal-safe.
        unsafe { libc::setsid() };
        Ok(())
    };
    // Not a group leader, or setsid would fail.
    let mut plain = Command::new(command.get_program());
    plain
        .args(command.get_args())
        .envs(
            command
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    command = plain;
    // SAFETY: it only makes a call that may be made there.
    unsafe { command.pre_exec(own_session) };
    let mut probe = Probe::start((command, mark));
    kill(probe.guard(), libc::SIGTSTP);
    assert_eq!([probe.line(), probe.line()], ["stopping", "continued"]);
    kill(probe.guard(), libc::SIGTERM);
    probe.end();
}

fn children_get_what_we_were_started_with() {
    // cat, for grep sets signals up for itself.
    let script = "cat /proc/self/status | grep -E '^Sig(Blk|Ign|Cgt)'; ulimit -Sn; ls /proc/self/fd; kill -0 $PPID && echo parent";
    let (mut command, mark) = Probe::command("0", &[script]);
    let hostile = || {
        // SAFETY: async-signal-safe calls; zeroes are a valid set.
        unsafe {
            libc::signal(libc::SIGCHLD, libc::SIG_IGN);
            libc::signal(libc::SIGINT, libc::SIG_IGN);
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigaddset(&raw mut set, libc::SIGUSR1);
            libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
            let limit = libc::rlimit {
                rlim_cur: 64,
                rlim_max: 4096,
            };
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
            // Not close-on-exec.
            libc::dup2(0, 9);
            libc::dup2(0, 50);
        }
        Ok(())
    };
    // SAFETY: it only makes calls that may be made there.
    unsafe { command.pre_exec(hostile) };
    let (out, status) = Probe::start((command, mark)).end();
    assert!(status.success());
    let usr1 = 1_u64 << (libc::SIGUSR1 - 1);
    let expected = format!(
        "SigBlk:\t{usr1:016x}\nSigIgn:\t{:016x}\nSigCgt:\t{:016x}\n64\n0\n1\n2\n3\nparent\nnode ended: exit status: 0, leaked: false\n",
        0, 0
    );
    assert_eq!(out, expected);
}

fn closed_standard_descriptors_are_noted() {
    let exe = std::env::current_exe().unwrap();
    let out = |script: &str| {
        let output = Command::new("sh")
            .args(["-c", script])
            .arg(&exe)
            .env("PROBE", "0")
            .output()
            .unwrap();
        String::from_utf8(output.stdout)
            .unwrap()
            .lines()
            .filter(|line| !line.starts_with("runner") && !line.starts_with("node"))
            .collect::<Vec<_>>()
            .join("\n")
    };
    assert_eq!(out("exec \"$0\" : <&- 2>&-"), "0 was closed\n2 was closed");
    // Open on purpose, in the way that the runtime does it.
    assert_eq!(out("exec \"$0\" : <>/dev/null 2<>/dev/null"), "");
    // A node sees /dev/null, not a file that happened to be opened first.
    assert_eq!(
        out("exec \"$0\" 'readlink /proc/self/fd/0' <&-"),
        "0 was closed\n/dev/null"
    );
}

fn adopted_processes_are_reaped() {
    // Each inner one loses its parent, so it comes to us; some are in the node's group, some not. The node looks at its
    // parent's children until it is the only one, but not for ever.
    let script = "
        i=0
        while [ $i -lt 50 ]; do (sh -c 'exit 1' & setsid sh -c 'exit 2' &); i=$((i+1)); done
        i=0
        until [ $(wc -w </proc/$PPID/task/$PPID/children) = 1 ]; do
            i=$((i+1))
            [ $i -lt 3000 ] || exit 1
        done";
    let (out, _) = Probe::start(Probe::command("0", &[script])).end();
    assert_eq!(out, "node ended: exit status: 0, leaked: false\n");
}
