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
use std::sync::{Arc, Mutex, mpsc};
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
    /// The input stays open until `on_idle` says otherwise.
    stays_open: bool,
    /// Where the results go instead.
    results: Option<OwnedFd>,
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
        results: None,
        stays_open: false,
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
        let kept = self.stays_open.then(|| file.try_clone().unwrap());
        let feeder = thread::spawn(move || {
            // The pool may end before it has read all.
            let _ = file.write_all(&input);
        });
        let came = self.play(read.into(), kept, command);
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
        let results = self.results.take().unwrap_or(results);
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

/// A worker that answers by the line, and writes only when its buffer is full, or at the end of its input.
const LATE: &str = "import sys\nfor line in sys.stdin: print(line, end='')";

fn python(script: &str) -> impl FnMut(&Start) -> Command + use<> {
    let script = script.to_owned();
    move |_| {
        let mut command = Command::new("python3");
        command.env_remove("PYTHONUNBUFFERED");
        command.arg("-c").arg(&script);
        command
    }
}

#[test]
fn a_worker_that_holds_its_answers_back() {
    let input = numbers(20_000);
    let mut story = request(2);
    story.settings.order = Order::Input;
    let came = story.run(input.as_bytes(), python(LATE));
    assert_eq!(came.ended, Ended::Well);
    assert!(came.results == input);
}

/// The same where the input doesn't end before the answers have come: its input is closed, and another takes its place.
#[test]
fn answers_that_are_needed_for_the_end_of_the_input() {
    let (mut idles, mut first) = (0, true);
    let mut story = request(1);
    story.stays_open = true;
    story.on_idle = Box::new(move |playing| {
        // The first time nothing has come at all.
        idles += 1;
        let input = playing.input.as_mut().unwrap();
        if std::mem::take(&mut first) {
            input.write_all(b"a\nb\n").unwrap();
        } else if idles == 2 {
            input.write_all(b"c\n").unwrap();
        } else {
            playing.input = None;
        }
    });
    let came = story.run(b"", python(LATE));
    assert_eq!(came.ended, Ended::Well);
    assert_eq!(
        (came.results.as_str(), came.counts.started),
        ("a\nb\nc\n", 2)
    );
}

/// One record takes until all others are answered: those behind it go to another worker.
#[test]
fn a_slow_record_holds_nobody_up() {
    let dir = tempfile::tempdir().unwrap();
    let gate = dir.path().join("gate");
    nix::unistd::mkfifo(&gate, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let script = format!(
        "while read -r line; do [ $line != 700 ] || read -r open <{}; echo $line; done",
        gate.display()
    );
    let (read, write) = std::io::pipe().unwrap();
    let mut file = File::from(OwnedFd::from(write));
    file.write_all(numbers(1000).as_bytes()).unwrap();
    let mut story = request(2);
    // The worker that waits is let go when a thousand but one have come out.
    let (results, out) = std::io::pipe().unwrap();
    story.results = Some(out.into());
    let reader = thread::spawn(move || {
        use std::io::BufRead;
        let mut lines = std::io::BufReader::new(results).lines();
        let mut seen: Vec<String> = lines.by_ref().take(999).map(Result::unwrap).collect();
        assert!(!seen.contains(&"700".to_owned()));
        std::fs::write(&gate, "go\n").unwrap();
        seen.extend(lines.map(Result::unwrap));
        seen
    });
    drop(file);
    let came = story.play(read.into(), None, sh(&script));
    assert_eq!(came.ended, Ended::Well);
    let mut seen: Vec<u32> = reader
        .join()
        .unwrap()
        .iter()
        .map(|line| line.parse().unwrap())
        .collect();
    assert_eq!(seen.pop(), Some(700));
    seen.sort_unstable();
    assert!(
        seen.into_iter()
            .eq((0..1000).filter(|number| *number != 700))
    );
}

/// Whoever works on this record dies.
#[test]
fn a_poison_record_is_found_among_many() {
    let script = "while read -r line; do [ $line != 300 ] || kill -9 $$; echo $line; done";
    let input = numbers(1000);
    let mut story = request(2);
    story.settings.order = Order::Input;
    story.has_dead_letter = true;
    story.settings.retry = retry(1);
    let came = story.run(input.as_bytes(), sh(script));
    assert_eq!(came.ended, Ended::Well);
    assert!(came.results == input.replace("\n300\n", "\n"));
    assert_eq!(came.dead, "300\n");
    let dead = came.log.lines().find(|line| line.contains("dead")).unwrap();
    assert!(dead.starts_with(r#"{"task":300,"count":1,"#), "{dead}");
    assert!(dead.contains(r#""tries":2,"signal":9,"#), "{dead}");

    let came = request(1).run(b"1\n300\n2\n", sh(script));
    let why =
        "record 1 failed its only try: its worker ended without an answer (killed by SIGKILL)";
    assert_eq!(came.ended, Ended::Failed(why.into()));
    assert_eq!(came.results, "1\n");
}

#[test]
fn workers_that_end_at_once() {
    for script in ["exit 1", "exit 0"] {
        let came = request(2).run(b"a\nb\n", sh(script));
        let code = &script[5..];
        let why = format!(
            "its workers end again and again without having answered anything, the last with exit code {code}"
        );
        assert_eq!(came.ended, Ended::Failed(why));
        assert!(came.counts.started <= 10, "{:?}", came.counts);
    }
}

#[test]
fn rules_of_an_answer() {
    let failed =
        |script: &str, input: &str| match request(1).run(input.as_bytes(), sh(script)).ended {
            Ended::Failed(why) => why,
            other => panic!("{script} ended {other:?}"),
        };
    assert_eq!(
        failed("while read -r l; do echo $l; echo $l; done", "a\n"),
        "worker 0 answered more records than it was given: a worker answers each with exactly one"
    );
    assert_eq!(
        failed("exec grep -v b", "a\nb\nc\n"),
        "worker 0 ended well, but left 1 of its records without an answer: a worker answers each with exactly one"
    );
    assert_eq!(
        failed("cat; exit 3", "a\n"),
        "worker 0 answered all its records, but ended with exit code 3"
    );
}

/// A last record without a terminator is a record, and so is such an answer.
#[test]
fn terminators() {
    let came = request(1).run(b"a\nb", sh("exec cat"));
    assert_eq!((came.ended, came.results.as_str()), (Ended::Well, "a\nb\n"));
    let came = request(1).run(b"a\n", sh("read -r line; printf $line; cat"));
    assert_eq!((came.ended, came.results.as_str()), (Ended::Well, "a"));
    let mut story = task(1);
    story.always_terminated = true;
    let came = story.run(b"a\nb", sh("cat"));
    assert_eq!((came.ended, came.results.as_str()), (Ended::Well, "a\nb\n"));
}

#[test]
fn a_worker_is_replaced_after_so_many() {
    let mut story = request(1);
    story.settings.recycle_after = Some(10);
    let input = numbers(95);
    let came = story.run(input.as_bytes(), sh("exec cat"));
    assert_eq!((came.ended, came.results), (Ended::Well, input));
    assert_eq!(came.counts.started, 10);
}

#[test]
fn a_record_that_takes_too_long() {
    let mut story = request(2);
    story.settings.task_timeout = Some(Duration::from_millis(50));
    story.has_dead_letter = true;
    let script = "while read -r line; do [ $line != 30 ] || sleep 1000; echo $line; done";
    let came = story.run(numbers(100).as_bytes(), sh(script));
    assert_eq!(came.ended, Ended::Well);
    assert_eq!(
        sorted(&came.results),
        sorted(&numbers(100).replace("\n30\n", "\n"))
    );
    assert_eq!(came.dead, "30\n");

    let mut story = task(1);
    story.settings.task_timeout = Some(Duration::from_millis(50));
    let came = story.run(b"a\n", sh("exec sleep 1000"));
    let why = "record 0 failed its only try: timed out after 50ms";
    assert_eq!(came.ended, Ended::Failed(why.into()));
}

#[test]
fn a_reader_that_goes() {
    for feed in [Feed::Request, Feed::Task] {
        let mut story = story(feed, 2);
        story.reads = Some(4);
        // There is always more.
        story.work = Some(Work::Range(0, i64::MAX));
        let came = story.run(b"", sh("exec cat"));
        assert_eq!(came.ended, Ended::Broken);
    }
}

#[test]
fn a_command_that_cannot_be_started() {
    let came = request(1).run(b"a\n", |_| Command::new("/no/such/program"));
    let why = "cannot start: No such file or directory (os error 2)";
    assert_eq!(came.ended, Ended::CannotStart(why.into(), 127));
}

#[test]
fn header_records_go_to_each_task() {
    let mut story = task(2);
    story.header = 1;
    story.settings.order = Order::Input;
    story.settings.batch = Some(2);
    let came = story.run(b"head\n1\n2\n3\n", sh("tr '\\n' ' '; echo"));
    assert_eq!(
        (came.ended, came.results.as_str()),
        (Ended::Well, "head 1 2 \nhead 3 \n")
    );
    assert_eq!(came.tasks[1].0.index, 2);
}

/// More than a pipe and more than memory for what is held back.
#[test]
fn a_task_that_prints_much() {
    let mut story = task(3);
    story.settings.order = Order::Input;
    story.work = Some(Work::Range(0, 4));
    let came = story.run(b"", sh("head -c 9000000 /dev/zero | tr '\\0' $TASK; echo"));
    assert_eq!(came.ended, Ended::Well);
    let expected: String = (0..4)
        .map(|task| task.to_string().repeat(9_000_000) + "\n")
        .collect();
    assert!(came.results == expected);
}

#[test]
fn told_to_stop() {
    for feed in [Feed::Request, Feed::Task] {
        let mut story = story(feed, 2);
        let mut started = 0;
        story.on_start = Box::new(move |playing, _| {
            started += 1;
            if started == 2 {
                playing.call(PoolCall::Stop);
                for pid in playing.pids.values() {
                    kill(*pid, Signal::SIGKILL).unwrap();
                }
            }
        });
        let came = story.run(numbers(100).as_bytes(), sh("exec sleep 1000"));
        assert_eq!((came.ended, came.counts.started), (Ended::Stopped, 2));
    }
}

/// The next try waits for its delay, and nobody else does.
#[test]
fn a_delay_before_the_next_try() {
    for feed in [Feed::Task, Feed::Request] {
        let mut story = story(feed, 1);
        story.settings.retry = Retry {
            delay: Duration::from_millis(20),
            ..retry(2)
        };
        story.has_dead_letter = true;
        let script = match feed {
            Feed::Task => "cat; [ $TASK != b ]",
            _ => "while read -r l; do [ $l != b ] || exit 1; echo $l; done",
        };
        let came = story.run(b"a\nb\nc\n", sh(script));
        assert_eq!(came.ended, Ended::Well);
        assert_eq!(
            (came.results.as_str(), came.dead.as_str()),
            ("a\nc\n", "b\n")
        );
        let dead = came.log.lines().find(|line| line.contains("dead")).unwrap();
        assert!(dead.contains(r#""tries":3,"#), "{dead}");
        let start: f64 = dead
            .split(r#""start":"#)
            .nth(1)
            .unwrap()
            .split(',')
            .next()
            .unwrap()
            .parse()
            .unwrap();
        assert!(start >= 0.04, "{dead}");
    }
}

/// A worker that is killed while it has nothing to do is replaced when there is something.
#[test]
fn an_idle_worker_is_killed() {
    let mut idles = 0;
    let mut story = request(1);
    story.stays_open = true;
    story.on_idle = Box::new(move |playing| {
        idles += 1;
        match idles {
            1 => {
                let pid = playing.pids[&0];
                kill(pid, Signal::SIGKILL).unwrap();
                // Until it is dead it might read once more.
                let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
                waitid(Id::Pid(pid), flags).unwrap();
                playing.input.as_mut().unwrap().write_all(b"a\n").unwrap();
            }
            _ => playing.input = None,
        }
    });
    let came = story.run(b"", sh("exec cat"));
    assert_eq!(came.ended, Ended::Well);
    assert_eq!(came.results, "a\n");
}

/// The output of an undisturbed run, whatever is killed, as long as tries are left.
#[test]
fn random_kills_change_nothing() {
    let count = std::env::var("KILL_RECORDS").map_or(30_000, |count| count.parse().unwrap());
    let input = numbers(count);
    for (order, workers) in [(Order::Input, 4), (Order::Completion, 3)] {
        let mut story = request(workers);
        story.settings.order = order;
        story.settings.retry = retry(1000);
        let pids: Arc<Mutex<Vec<i32>>> = Arc::default();
        let alive = Arc::clone(&pids);
        story.on_start = Box::new(move |playing, start| {
            alive
                .lock()
                .unwrap()
                .push(playing.pids[&start.worker].as_raw());
        });
        let (mut results, out) = std::io::pipe().unwrap();
        // So few bytes that its reader sees what happens, not what happened.
        crate::sys::pipe::resize(&out, 4096);
        story.results = Some(out.into());
        // Each time that some results have come, one who has not been killed before is.
        let reader = thread::spawn(move || {
            let mut random = fastrand::Rng::with_seed(1);
            let (mut text, mut kills) = (Vec::new(), 0);
            while results.by_ref().take(600).read_to_end(&mut text).unwrap() > 0 {
                let mut alive = pids.lock().unwrap();
                if !alive.is_empty() {
                    let at = random.usize(..alive.len());
                    let victim = alive.swap_remove(at);
                    // It is a child of ours: it lives, or has just ended and is not reaped.
                    kills += u32::from(kill(Pid::from_raw(victim), Signal::SIGKILL).is_ok());
                }
            }
            (String::from_utf8(text).unwrap(), kills)
        });
        // Slow enough that something is in its hands.
        let came = story.run(input.as_bytes(), sh("while read -r l; do echo $l; done"));
        let (results, kills) = reader.join().unwrap();
        assert_eq!(came.ended, Ended::Well);
        // How many there are hangs on how soon a killed worker's place is taken; on a busy machine they are fewer.
        assert!(kills > 10, "only {kills} kills");
        match order {
            Order::Input => assert!(results == input),
            Order::Completion => assert!(sorted(&results) == sorted(&input)),
        }
    }
}

/// `POOL_RECORDS=8000000 cargo test --release --lib pool::tests::measure -- --ignored --nocapture` says what a record costs.
#[test]
#[ignore = "a measurement"]
fn measure() {
    let count: u32 =
        std::env::var("POOL_RECORDS").map_or(1_000_000, |count| count.parse().unwrap());
    let program = std::env::var("POOL_PROGRAM").unwrap_or_else(|_| "exec cat".to_owned());
    let mut say = String::new();
    for (feed, workers, order, count) in [
        (Feed::Request, 1, Order::Input, count),
        (Feed::Request, 2, Order::Input, count),
        (Feed::Request, 4, Order::Input, count),
        (Feed::Request, 4, Order::Completion, count),
        (Feed::Task, 4, Order::Input, count / 1000),
    ] {
        let mut story = story(feed, workers);
        story.settings.order = order;
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(numbers(count).as_bytes()).unwrap();
        file.seek(SeekFrom::Start(0)).unwrap();
        story.work = Some(Work::Stream(file.into()));
        story.results = Some(
            File::options()
                .write(true)
                .open("/dev/null")
                .unwrap()
                .into(),
        );
        let begin = std::time::Instant::now();
        let came = story.run(b"", sh(&program));
        let time = begin.elapsed();
        assert_eq!(
            (came.ended, came.counts.answered),
            (Ended::Well, u64::from(count))
        );
        let rate = f64::from(count) / time.as_secs_f64();
        say += &format!(
            "{feed:?} {workers} {order:?}: {rate:.0} records/s, {time:?}, {} lines\n",
            came.log.lines().count()
        );
    }
    std::io::stderr().lock().write_all(say.as_bytes()).unwrap();
}
