//! Pools with real processes. A small loop plays procflow's: it starts what it is asked for, and tells how it ended. Nothing here
//! waits for time: a run ends when its pool says so.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use nix::sys::eventfd::EventFd;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use crate::event::{Exit, Failure, PoolCounts, Usage};
use crate::plan::{self, Feed, Order, Retry};
use crate::pool::{
    Ended, PoolCall, PoolEvent, PoolEvents, PoolHandle, PoolOutput, PoolSpec, Start, Task, Ticket,
    Work, start,
};
use crate::spec::{OnFailure, Records};

/// What the loop hears.
enum Heard {
    Pool(PoolEvent),
    Exited(Ticket),
}

type OnStart = Box<dyn FnMut(&mut Playing, &Start)>;
type OnIdle = Box<dyn FnMut(&mut Playing)>;

/// How a pool is to be, and what came of it.
struct Story {
    settings: plan::Pool,
    records: Records,
    on_failure: OnFailure,
    work: Option<Work>,
    header: u32,
    has_dead_letter: bool,
    held: Vec<u32>,
    always_terminated: bool,
    /// Reads the results only up to so many bytes, and goes.
    reads: Option<u64>,
    on_start: OnStart,
    on_idle: OnIdle,
}

/// The loop while it runs.
struct Playing {
    pids: BTreeMap<u32, Pid>,
    /// Dropping it ends the input.
    input: Option<File>,
    handle: Option<PoolHandle>,
}

struct Came {
    ended: Ended,
    results: String,
    held: Vec<String>,
    dead: String,
    log: String,
    counts: PoolCounts,
    tasks: Vec<(Task, u32)>,
}

fn retry(max: u32) -> Retry {
    Retry {
        max,
        delay: Duration::ZERO,
        backoff: 1.0,
        max_delay: Duration::from_secs(1),
        jitter: false,
        on_codes: Vec::new(),
    }
}

fn story(feed: Feed, workers: u32) -> Story {
    Story {
        settings: plan::Pool {
            workers,
            feed,
            tasks: None,
            order: Order::Completion,
            batch: None,
            max_in_flight: None,
            recycle_after: None,
            task_timeout: None,
            retry: retry(0),
            record_on_stdin: feed == Feed::Task,
            dead_letter: false,
        },
        records: Records::Lines,
        on_failure: OnFailure::Stop,
        work: None,
        header: 0,
        has_dead_letter: false,
        held: Vec::new(),
        always_terminated: false,
        reads: None,
        on_start: Box::new(|_, _| {}),
        on_idle: Box::new(|playing| playing.input = None),
    }
}

fn request(workers: u32) -> Story {
    story(Feed::Request, workers)
}

fn task(workers: u32) -> Story {
    story(Feed::Task, workers)
}

/// A reader of a pipe, in a thread of its own.
fn gather(limit: Option<u64>) -> (OwnedFd, thread::JoinHandle<String>) {
    let (mut read, write) = std::io::pipe().unwrap();
    let thread = thread::spawn(move || {
        let mut text = Vec::new();
        match limit {
            Some(limit) => read.take(limit).read_to_end(&mut text).unwrap(),
            None => read.read_to_end(&mut text).unwrap(),
        };
        String::from_utf8(text).unwrap()
    });
    (write.into(), thread)
}

/// `sh -c SCRIPT`.
fn sh(script: &str) -> impl FnMut(&Start) -> Command + use<> {
    let script = script.to_owned();
    move |start| {
        let mut command = Command::new("sh");
        command.arg("-c").arg(&script);
        if let Some(task) = &start.task {
            let field = task.records.first().and_then(|fields| fields.first());
            let field = String::from_utf8_lossy(field.unwrap()).into_owned();
            command.env("TASK", field);
        }
        command
            .env("TRY", start.attempt.to_string())
            .env("WORKER", start.worker.to_string());
        command
    }
}

impl Story {
    /// Runs it on this input, with processes made by `command`.
    fn run(self, input: &[u8], command: impl FnMut(&Start) -> Command) -> Came {
        let (read, write) = std::io::pipe().unwrap();
        let mut file = File::from(OwnedFd::from(write));
        let input = input.to_owned();
        let kept = file.try_clone().unwrap();
        let feeder = thread::spawn(move || {
            // The pool may end before it has read all.
            let _ = file.write_all(&input);
        });
        let came = self.play(read.into(), Some(kept), command);
        feeder.join().unwrap();
        came
    }

    fn play(
        mut self,
        input: OwnedFd,
        kept: Option<File>,
        mut command: impl FnMut(&Start) -> Command,
    ) -> Came {
        let (sender, events) = mpsc::channel();
        let (say, hear) = mpsc::channel();
        let wake: Arc<OwnedFd> = Arc::new(EventFd::new().unwrap().into());
        let (results, read_results) = gather(self.reads);
        let output = |fd| PoolOutput {
            fd,
            records: Records::Lines,
            always_terminated: false,
        };
        let mut held = Vec::new();
        let mut read_held = Vec::new();
        for number in &self.held {
            let (fd, reader) = gather(None);
            held.push((*number, output(fd)));
            read_held.push(reader);
        }
        let (dead, read_dead) = gather(None);
        let dead = self.has_dead_letter.then(|| output(dead));
        let mut log = tempfile::tempfile().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let spec = PoolSpec {
            name: "p".into(),
            settings: Arc::new(self.settings),
            on_failure: self.on_failure,
            work: self.work.take().unwrap_or(Work::Stream(input)),
            records: self.records,
            max_record: 1 << 20,
            header: self.header,
            results: PoolOutput {
                always_terminated: self.always_terminated,
                ..output(results)
            },
            held,
            dead_letter: dead,
            success_codes: vec![0],
            log: log.try_clone().unwrap(),
            spill_dir: dir.path().to_owned(),
        };
        let events_of = PoolEvents {
            id: 7,
            sender,
            wake,
        };
        let handle = start(spec, events_of).unwrap();
        let forward = say.clone();
        let forwarder = thread::spawn(move || {
            for (id, event) in events {
                assert_eq!(id, 7);
                if forward.send(Heard::Pool(event)).is_err() {
                    break;
                }
            }
        });
        let mut playing = Playing {
            pids: BTreeMap::new(),
            input: kept,
            handle: Some(handle),
        };
        let mut children: BTreeMap<Ticket, (Child, u32)> = BTreeMap::new();
        // What a shell opens through our own table must stay until then.
        let mut kept_ends = BTreeMap::new();
        let mut tasks = Vec::new();
        let ended = loop {
            match hear
                .recv_timeout(Duration::from_secs(60))
                .expect("the pool hangs")
            {
                Heard::Pool(PoolEvent::Start(start)) => {
                    if let Some(task) = &start.task {
                        tasks.push((task.clone(), start.attempt));
                    }
                    match spawn(command(&start), &start) {
                        Ok(child) => {
                            let pid = Pid::from_raw(child.id().cast_signed());
                            playing.pids.insert(start.worker, pid);
                            children.insert(start.ticket, (child, start.worker));
                            let (say, ticket) = (say.clone(), start.ticket);
                            thread::spawn(move || {
                                let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
                                waitid(Id::Pid(pid), flags).unwrap();
                                // The story may be over.
                                let _ = say.send(Heard::Exited(ticket));
                            });
                            playing.call(PoolCall::Started(start.ticket, pid.as_raw()));
                            (self.on_start)(&mut playing, &start);
                            if start.fds.iter().any(|(_, number)| *number > 1) {
                                kept_ends.insert(start.ticket, start.fds);
                            }
                        }
                        Err(error) => {
                            let failure = Failure::CannotStart {
                                code: 127,
                                why: error.to_string(),
                            };
                            playing.call(PoolCall::CannotStart(start.ticket, failure));
                        }
                    }
                }
                Heard::Pool(PoolEvent::Stop(ticket)) => signal(&children, ticket, Signal::SIGTERM),
                Heard::Pool(PoolEvent::Kill(ticket)) => signal(&children, ticket, Signal::SIGKILL),
                Heard::Pool(PoolEvent::Idle(_)) => (self.on_idle)(&mut playing),
                Heard::Pool(PoolEvent::Ended(ended)) => break ended,
                Heard::Exited(ticket) => {
                    kept_ends.remove(&ticket);
                    let (mut child, worker) = children.remove(&ticket).unwrap();
                    // What is left of its group is killed, as procflow does.
                    signal_group(&child, Signal::SIGKILL);
                    let status = child.wait().unwrap();
                    if playing.pids.get(&worker) == Some(&Pid::from_raw(child.id().cast_signed())) {
                        playing.pids.remove(&worker);
                    }
                    let exit = match (status.code(), status.signal()) {
                        (Some(code), _) => Exit::Code(code as u8),
                        (None, number) => Exit::Signal {
                            number: number.unwrap(),
                            core: false,
                        },
                    };
                    playing.call(PoolCall::Exited(ticket, exit, Usage::default()));
                }
            }
        };
        assert!(children.is_empty(), "it ended before its processes");
        let handle = playing.handle.take().unwrap();
        let counts = handle.counts();
        handle.join();
        drop(playing);
        forwarder.join().unwrap();
        let mut text = String::new();
        log.seek(SeekFrom::Start(0)).unwrap();
        log.read_to_string(&mut text).unwrap();
        Came {
            ended,
            results: read_results.join().unwrap(),
            held: read_held
                .into_iter()
                .map(|reader| reader.join().unwrap())
                .collect(),
            dead: read_dead.join().unwrap(),
            log: text,
            counts,
            tasks,
        }
    }
}

impl Playing {
    fn call(&self, call: PoolCall) {
        self.handle.as_ref().unwrap().call(call);
    }
}

/// Starts it with the ends it is given. Those above 1 are opened by a shell, through our own table.
fn spawn(mut command: Command, start: &Start) -> std::io::Result<Child> {
    let own = |fd: &OwnedFd| Stdio::from(fd.try_clone().unwrap());
    command.stdin(Stdio::null()).process_group(0);
    let mut opened = String::new();
    for (fd, number) in &start.fds {
        match number {
            0 => drop(command.stdin(own(fd))),
            1 => drop(command.stdout(own(fd))),
            number => {
                let (pid, fd) = (std::process::id(), fd.as_raw_fd());
                opened += &format!("exec {number}>/proc/{pid}/fd/{fd}; ");
            }
        }
    }
    let mut shell;
    let command = if opened.is_empty() {
        &mut command
    } else {
        let script = command.get_args().nth(1).unwrap().to_str().unwrap();
        shell = Command::new("sh");
        shell.arg("-c").arg(opened + script).process_group(0);
        shell.stdin(Stdio::null());
        for (fd, number) in &start.fds {
            match number {
                0 => drop(shell.stdin(own(fd))),
                1 => drop(shell.stdout(own(fd))),
                _ => {}
            }
        }
        for (name, value) in command.get_envs() {
            shell.env(name, value.unwrap());
        }
        // Until it has opened them, ours stay.
        shell.arg("sh");
        return shell.spawn();
    };
    command.spawn()
}

fn signal(children: &BTreeMap<Ticket, (Child, u32)>, ticket: Ticket, signal: Signal) {
    // It may have ended, and been told so, meanwhile.
    if let Some((child, _)) = children.get(&ticket) {
        signal_group(child, signal);
    }
}

fn signal_group(child: &Child, signal: Signal) {
    let _ = kill(Pid::from_raw(-child.id().cast_signed()), signal);
}

fn numbers(count: u32) -> String {
    (0..count).map(|number| format!("{number}\n")).collect()
}

fn sorted(text: &str) -> String {
    let mut lines: Vec<&str> = text.split_inclusive('\n').collect();
    lines.sort_unstable();
    lines.concat()
}

#[test]
fn each_record_is_answered_once() {
    let input = numbers(50_000);
    let came = request(3).run(input.as_bytes(), sh("exec cat"));
    assert_eq!(came.ended, Ended::Well);
    assert_eq!(sorted(&came.results), sorted(&input));
    let counts = came.counts;
    assert_eq!(
        (counts.taken, counts.answered, counts.dead),
        (50_000, 50_000, 0)
    );
    assert_eq!((counts.in_flight, counts.started), (0, 3));
    assert_eq!(counts.result_bytes, input.len() as u64);
}

#[test]
fn in_the_order_of_the_records() {
    let input = numbers(200_000);
    let mut story = request(3);
    story.settings.order = Order::Input;
    let came = story.run(input.as_bytes(), sh("exec cat"));
    assert_eq!(came.ended, Ended::Well);
    assert!(came.results == input);
}

#[test]
fn a_process_for_each_record() {
    let came = task(2).run(b"a\nb\nc\nd\ne\n", sh("printf '%s:' $TASK; cat"));
    assert_eq!(came.ended, Ended::Well);
    assert_eq!(sorted(&came.results), "a:a\nb:b\nc:c\nd:d\ne:e\n");
    assert_eq!(came.tasks.len(), 5);
    assert_eq!(came.log.lines().count(), 5);
}

#[test]
fn tasks_in_order() {
    let mut story = task(3);
    story.settings.order = Order::Input;
    let input = numbers(40);
    let came = story.run(
        input.as_bytes(),
        sh("[ $((TASK % 3)) = 0 ] && sleep 0.01; cat"),
    );
    assert_eq!(came.ended, Ended::Well);
    assert_eq!(came.results, input);
}

#[test]
fn given_work() {
    let given = |work| {
        let mut story = task(2);
        story.settings.order = Order::Input;
        story.work = Some(work);
        story.run(b"", sh("printf '%s;' \"$TASK\"; cat"))
    };
    let came = given(Work::Range(-1, 3));
    assert_eq!(
        (came.ended, came.results.as_str()),
        (Ended::Well, "-1;-1\n0;0\n1;1\n2;2\n")
    );
    assert_eq!(came.counts.total, Some(4));

    let fields = |fields: &[&str]| fields.iter().map(|field| (*field).into()).collect();
    let came = given(Work::List(vec![fields(&["a", "x\ny"]), fields(&[""])]));
    assert_eq!(
        (came.ended, came.results.as_str()),
        (Ended::Well, "a;a\tx\ny\n;\n")
    );
    assert_eq!(came.tasks[0].0.records, [[b"a".to_vec(), b"x\ny".to_vec()]]);

    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"1:2\n\nlast").unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    let came = given(Work::Lines(file, Some(":".into())));
    assert_eq!(
        (came.ended, came.results.as_str()),
        (Ended::Well, "1;1:2\n;\nlast;last")
    );
    assert_eq!(came.tasks[0].0.records, [[b"1".to_vec(), b"2".to_vec()]]);
}

#[test]
fn a_failed_try_leaves_no_trace() {
    let mut story = task(2);
    story.settings.retry = retry(2);
    story.settings.order = Order::Input;
    story.held = vec![3];
    let script = r#"echo "out $TASK"; echo "more $TASK" >&3; [ $TRY = 3 ] || [ $TASK != b ]"#;
    let came = story.run(b"a\nb\nc\n", sh(script));
    assert_eq!(came.ended, Ended::Well);
    assert_eq!(came.results, "out a\nout b\nout c\n");
    assert_eq!(came.held, ["more a\nmore b\nmore c\n"]);
    assert_eq!((came.counts.retried, came.counts.started), (2, 5));
}

#[test]
fn what_fails_every_try() {
    let make = || {
        let mut story = task(1);
        story.settings.retry = retry(1);
        story
    };
    let script = "cat; [ $TASK != b ] || exit 3";
    let came = make().run(b"a\nb\nc\n", sh(script));
    let why = "record 1 failed all of its 2 tries: exit code 3";
    assert_eq!(came.ended, Ended::Failed(why.into()));
    assert_eq!(came.results, "a\n");

    let mut story = make();
    story.on_failure = OnFailure::Continue;
    let came = story.run(b"a\nb\nc\nb\n", sh(script));
    assert_eq!(came.ended, Ended::Failed(format!("{why}; so did 1 more")));
    assert_eq!(came.results, "a\nc\n");

    let mut story = make();
    story.has_dead_letter = true;
    let came = story.run(b"a\nb\nc\nb", sh(script));
    assert_eq!(came.ended, Ended::Well);
    assert_eq!(
        (came.results.as_str(), came.dead.as_str()),
        ("a\nc\n", "b\nb")
    );
    let states: Vec<bool> = came
        .log
        .lines()
        .map(|line| line.contains(r#""exit":3,"#))
        .collect();
    assert_eq!(states, [false, true, false, true]);
}
