//! Whole outputs of made-up runs: what the console says, the lines of the event log, the report.
#![expect(clippy::unwrap_used, reason = "a test that fails may panic")]

mod junit;
mod pools;
mod summary;

use std::sync::Arc;
use std::time::Duration;

use crate::event::{
    Cause, Exit, Failure, Outcome, RunEvent, Stream, Usage, Waiting, WaitsOn, What,
};
use crate::exit::ExitCode;
use crate::plan::template::Template;
use crate::plan::{
    self, Arg, Deliver, Ends, Group, Input, Node, NodeId, Overflow, Plan, Queue, QueueId,
    QueueKind, Retry, Role, Settings, Sink, Source, Unit, UnitId,
};
use crate::report::terminal::Look;
use crate::report::{Console, Observers, Output, Progress, Terminal, schema_events, schema_report};

/// A plan of these nodes, each alone in its group, with queues between (writer, reader) pairs in one.
pub(in crate::report) fn plan(names: &[&str], queues: &[(&str, u32, u32)]) -> Plan {
    let literal = |text: &str| Template::Literal(text.into());
    let settings = Arc::new(Settings {
        cwd: literal("."),
        clear_env: false,
        timeout: None,
        stop_signal: libc::SIGTERM,
        stop_grace: Duration::from_secs(5),
        retry: Retry {
            max: 0,
            delay: Duration::ZERO,
            backoff: 2.0,
            max_delay: Duration::ZERO,
            jitter: false,
            on_codes: vec![],
        },
        success_codes: vec![0],
        epipe_codes: vec![],
        limits: vec![],
        nice: 0,
    });
    // What each reads and writes, so that it can be told how much.
    let ends = |id: u32| {
        let of = |end: fn(&(&str, u32, u32)) -> u32| {
            let ids = queues.iter().enumerate();
            ids.filter(move |(_, queue)| end(queue) == id)
                .map(|(i, _)| QueueId::from(i))
        };
        let input = of(|queue| queue.2).map(|queue| Input {
            name: "stdin".into(),
            from: vec![(0, Source::Queue(queue))],
        });
        let output = of(|queue| queue.1).map(|queue| plan::Output {
            name: "stdout".into(),
            fd: 1,
            to: vec![Sink::Queue(queue)],
        });
        Arc::new(Ends {
            inputs: input.collect(),
            outputs: output.collect(),
        })
    };
    let ids = 0..u32::try_from(names.len()).unwrap();
    Plan {
        name: "words".to_owned(),
        description: None,
        dir: "/p".into(),
        jobs: None,
        on_failure: crate::spec::OnFailure::Stop,
        timeout: None,
        jobserver: Default::default(),
        resources: vec![],
        env: vec![],
        secrets: vec![],
        nodes: names
            .iter()
            .zip(ids.clone())
            .map(|(name, id)| Node {
                name: (*name).into(),
                base: (*name).into(),
                matrix: vec![],
                units: id..id + 1,
                after: vec![],
                allow_failure: false,
                pool: None,
                service: None,
                skip: None,
                asks: None,
                description: None,
                tags: vec![],
            })
            .collect(),
        units: ids
            .clone()
            .map(|id| Unit {
                node: NodeId(id),
                group: crate::plan::GroupId(0),
                role: Role::Process,
                argv: vec![Arg::One(literal("sh"))],
                env: vec![],
                settings: settings.clone(),
                ends: ends(id),
                reads: vec![],
                writes: vec![],
            })
            .collect(),
        queues: queues
            .iter()
            .map(|(name, writer, reader)| Queue {
                name: (*name).into(),
                writers: vec![UnitId(*writer)],
                readers: vec![UnitId(*reader)],
                kind: QueueKind::Relayed,
                records: crate::spec::Records::Lines,
                max_record: None,
                capacity: 1 << 18,
                merge: crate::spec::Merge::Arrive,
                on_writer_failure: crate::spec::OnWriterFailure::Cancel,
                file: None,
                max_records: None,
                overflow: Overflow::Block,
                deliver: Deliver::Copy,
                header: 0,
                feedback: false,
            })
            .collect(),
        groups: vec![Group {
            units: ids.map(UnitId).collect(),
            queues: (0..queues.len()).map(QueueId::from).collect(),
            slots: 1,
            memory: 0,
            resources: Default::default(),
        }],
    }
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub(super) const PLAIN: Look = Look {
    columns: None,
    size: None,
    colour: false,
    unicode: true,
};

/// A run that is told step by step.
pub(super) struct Story<'p> {
    pub observers: Observers<'p>,
    terminal: Terminal,
    now: Duration,
}

impl<'p> Story<'p> {
    pub fn new(plan: &'p Plan, progress: Progress, output: Output) -> Self {
        Story::looking(PLAIN, plan, progress, output)
    }

    pub fn looking(look: Look, plan: &'p Plan, progress: Progress, output: Output) -> Self {
        let terminal = Terminal::kept(look);
        let mut observers = Observers::new(plan);
        let run_dir = Some(".procflow/runs/R".into());
        observers.add_reporter(Box::new(Console::new(
            terminal.clone(),
            progress,
            output,
            run_dir,
        )));
        let mut story = Story {
            observers,
            terminal,
            now: Duration::ZERO,
        };
        story.event(What::RunStarted {
            id: "R".to_owned(),
            pipeline: "words".to_owned(),
            file: Some("/p/words.toml".to_owned()),
            time: Duration::from_secs(1_795_531_989),
            pid: 100,
            jobs: 4,
        });
        story
    }

    pub fn event(&mut self, what: What) {
        self.observers.event(RunEvent { at: self.now, what });
        self.observers.flush().unwrap();
    }

    pub fn at(&mut self, now: u64) -> &mut Self {
        self.now = ms(now);
        self
    }

    pub fn start(&mut self, unit: u32) {
        self.event(What::Started {
            unit: UnitId(unit),
            attempt: 1,
            pid: Some(101 + i32::try_from(unit).unwrap()),
        });
    }

    pub fn print(&mut self, unit: u32, stream: Stream, text: &str) {
        self.observers.output(UnitId(unit), stream, text.as_bytes());
        self.observers.flush().unwrap();
    }

    pub fn end(&mut self, unit: u32, outcome: Outcome, exit: Option<Exit>) {
        let wall = self.now;
        let ran = exit.is_some();
        let usage = Usage {
            wall,
            user: wall / 4,
            system: wall / 8,
            max_rss: 12 << 20,
        };
        self.event(What::Ended {
            unit: UnitId(unit),
            outcome,
            exit,
            attempts: u32::from(ran),
            usage: if ran { usage } else { Usage::default() },
            leaked: false,
            stderr_tail: vec![],
        });
    }

    pub fn ok(&mut self, unit: u32) {
        self.end(
            unit,
            Outcome::Succeeded { early_close: false },
            Some(Exit::Code(0)),
        );
    }

    pub fn fail(&mut self, unit: u32, exit: Exit) {
        self.end(unit, Outcome::Failed(Failure::Exit(exit)), Some(exit));
    }

    pub fn finish(mut self, exit: ExitCode) -> (String, Observers<'p>) {
        self.event(What::RunEnded { exit });
        let faults = self.observers.finish(4 << 20).unwrap();
        assert!(faults.is_empty(), "{faults:?}");
        (self.terminal.said(), self.observers)
    }
}

/// read → split → count; a reader fails, the rest follows; one is skipped.
fn mixed(plan: &Plan, progress: Progress, output: Output) -> (String, Observers<'_>) {
    let mut story = Story::new(plan, progress, output);
    for unit in 0..3 {
        story.at(1).start(unit);
    }
    story.at(100).print(0, Stream::Out, "reading\nhalf a ");
    story.print(1, Stream::Err, "\x1b[31mwarning\x1b[0m: odd\x1b[2J\n");
    story.print(0, Stream::Out, "line\n");
    story.at(310).print(2, Stream::Err, "one\ntwo\nno newline");
    story.fail(
        2,
        Exit::Signal {
            number: libc::SIGSEGV,
            core: true,
        },
    );
    story.event(What::RunStopping {
        cause: Cause::RunFailed(NodeId(2)),
    });
    story.at(320).ok(0);
    let by_reader = Cause::Reader {
        node: NodeId(2),
        root: NodeId(2),
    };
    story.end(
        1,
        Outcome::Cancelled(by_reader),
        Some(Exit::Signal {
            number: libc::SIGTERM,
            core: false,
        }),
    );
    let after = Cause::After {
        node: NodeId(2),
        root: NodeId(2),
    };
    story.end(3, Outcome::Skipped(after), None);
    story.event(What::QueueEnded {
        queue: QueueId(0),
        bytes: Some(3_250_586),
        records: Some(1000),
        is_estimate: false,
        ends: vec![(UnitId(0), 3_250_586), (UnitId(1), 3_250_586)],
        dropped: 0,
        // Of the 319 ms that it lived.
        full: Duration::from_micros(79_750),
        empty: Duration::from_micros(159_500),
    });
    story.at(330);
    story.finish(ExitCode::NodeFailed)
}

fn mixed_plan() -> Plan {
    plan(
        &["read", "split", "count", "publish"],
        &[("lines", 0, 1), ("words", 1, 2)],
    )
}

const TABLE: &str = "\
node     state         exit   time    cpu    memory     in → out    records
read     succeeded        0  0.32s  0.12s  12.0 MiB  - → 3.1 MiB  - → 1,000
split    cancelled  SIGTERM  0.32s  0.12s  12.0 MiB  3.1 MiB → -  1,000 → -
count    failed     SIGSEGV  0.31s  0.12s  12.0 MiB
publish  skipped
failed: 4 nodes: 1 succeeded, 1 failed, 1 cancelled, 1 skipped in 0.33s
its files: .procflow/runs/R
";

#[test]
fn plain_and_grouped() {
    let plan = mixed_plan();
    let (said, _) = mixed(&plan, Progress::Plain, Output::Grouped);
    let expected = "\
words: 4 nodes, 4 jobs, run R
[1/4] failed     count      0.31s  killed by SIGSEGV (core dumped)
  | one
  | two
  | no newline
[2/4] succeeded  read       0.32s
  | reading
  | half a line
[3/4] cancelled  split      0.32s  reader count failed
  | warning: odd
[4/4] skipped    publish        -  count failed
"
    .to_owned()
        + TABLE;
    assert_eq!(said, expected);
}

#[test]
fn plain_and_prefixed() {
    let plan = mixed_plan();
    let (said, _) = mixed(&plan, Progress::Plain, Output::Prefixed);
    let expected = "\
words: 4 nodes, 4 jobs, run R
read    | reading
split   | warning: odd
read    | half a line
count   | one
count   | two
count   | no newline
[1/4] failed     count      0.31s  killed by SIGSEGV (core dumped)
  | one
  | two
  | no newline
[2/4] succeeded  read       0.32s
[3/4] cancelled  split      0.32s  reader count failed
[4/4] skipped    publish        -  count failed
"
    .to_owned()
        + TABLE;
    assert_eq!(said, expected);
}

#[test]
fn without_progress_only_failures_are_told() {
    let plan = mixed_plan();
    for output in [Output::Failed, Output::None] {
        let (said, _) = mixed(&plan, Progress::None, output);
        let expected = "\
[1/4] failed     count      0.31s  killed by SIGSEGV (core dumped)
  | one
  | two
  | no newline
failed: 4 nodes: 1 succeeded, 1 failed, 1 cancelled, 1 skipped in 0.33s
its files: .procflow/runs/R
";
        assert_eq!(said, expected, "{output:?}");
    }
}

#[test]
fn without_progress_success_is_silent() {
    let plan = plan(&["a"], &[]);
    let mut story = Story::new(&plan, Progress::None, Output::None);
    story.start(0);
    story.print(0, Stream::Err, "chatter\n");
    story.at(5).ok(0);
    assert_eq!(story.finish(ExitCode::Success).0, "");
}

#[test]
fn the_report_says_the_same() {
    let plan = mixed_plan();
    let (_, observers) = mixed(&plan, Progress::None, Output::None);
    let report: serde_json::Value = serde_json::from_slice(&observers.report().to_json()).unwrap();
    let schema = serde_json::to_value(schema_report()).unwrap();
    let faults: Vec<_> = jsonschema::validator_for(&schema)
        .unwrap()
        .iter_errors(&report)
        .map(|e| e.to_string())
        .collect();
    assert_eq!(faults, Vec::<String>::new());
    let count = &report["nodes"][2];
    let expected = serde_json::json!({
        "name": "count", "state": "failed", "reason": "killed by SIGSEGV (core dumped)", "exit": null,
        "signal": { "name": "SIGSEGV", "number": 11, "core": true }, "early_close": false, "leaked": false,
        "allow_failure": false, "attempts": 1, "pid": 103, "start": 0.001, "end": 0.31, "wall": 0.31, "user": 0.0775,
        "system": 0.03875, "max_rss": 12 << 20, "group": 0, "stderr": "one\ntwo\nno newline",
    });
    assert_eq!(count, &expected);
    assert_eq!(report["started"], "2026-11-24T14:53:09.000Z");
    assert_eq!(
        report["queues"][0],
        serde_json::json!({
            "name": "lines", "kind": "relayed", "writers": ["read"], "readers": ["split"], "bytes": 3_250_586, "records": 1000,
            "rate": 10_189_925.0, "full": 0.25, "empty": 0.5, "written": [{ "node": "read", "bytes": 3_250_586 }],
            "read": [{ "node": "split", "bytes": 3_250_586 }],
        })
    );
    assert_eq!(report["queues"][1]["bytes"], serde_json::Value::Null);
    assert_eq!(report["nodes"][3]["state"], "skipped");
    assert_eq!(report["nodes"][3]["wall"], serde_json::Value::Null);
}

/// One event of each kind, and ends of each kind.
fn every_event() -> Vec<RunEvent> {
    let unit = UnitId(0);
    let outcomes = [
        (
            Outcome::Succeeded { early_close: true },
            Some(Exit::Signal {
                number: libc::SIGPIPE,
                core: false,
            }),
        ),
        (
            Outcome::Failed(Failure::TimedOut(ms(30_000))),
            Some(Exit::Signal {
                number: libc::SIGKILL,
                core: false,
            }),
        ),
        (
            Outcome::Failed(Failure::CannotStart {
                code: 127,
                why: "no such file: \"sotr\"".to_owned(),
            }),
            None,
        ),
        (
            Outcome::Failed(Failure::Exit(Exit::Code(127))),
            Some(Exit::Code(127)),
        ),
        (Outcome::Skipped(Cause::ByUser), None),
        (
            Outcome::Cancelled(Cause::Interrupted(libc::SIGINT)),
            Some(Exit::Code(3)),
        ),
    ];
    let ends = outcomes.into_iter().map(|(outcome, exit)| What::Ended {
        unit,
        outcome,
        exit,
        attempts: u32::from(exit.is_some()),
        usage: Usage {
            wall: Duration::from_micros(1234),
            ..Usage::default()
        },
        leaked: true,
        stderr_tail: vec![],
    });
    let first = [
        What::RunStarted {
            id: "R".to_owned(),
            pipeline: "words".to_owned(),
            file: Some("/p/words.toml".to_owned()),
            time: Duration::from_secs(1_795_531_989),
            pid: 100,
            jobs: 4,
        },
        What::Started {
            unit,
            attempt: 1,
            pid: Some(101),
        },
        What::Ready { unit },
        What::Stopping {
            unit,
            signal: libc::SIGTERM,
        },
        What::Retrying {
            unit,
            attempt: 1,
            failure: Failure::Exit(Exit::Code(3)),
            delay: ms(1500),
            stderr_tail: vec![],
        },
        What::QueueEnded {
            queue: QueueId(0),
            bytes: Some(1),
            records: None,
            is_estimate: false,
            ends: Vec::new(),
            dropped: 0,
            full: Duration::ZERO,
            empty: Duration::ZERO,
        },
        What::Stalled {
            time: ms(30_250),
            waits: [
                (WaitsOn::Room(QueueId(0)), vec![unit, unit]),
                (WaitsOn::Data(QueueId(0)), Vec::new()),
                (WaitsOn::Turn(QueueId(0)), vec![unit]),
                (WaitsOn::OwnPipe, vec![unit]),
            ]
            .map(|(on, of)| Waiting { unit, on, of })
            .to_vec(),
        },
    ];
    let last = [
        What::RunStopping {
            cause: Cause::RunTimeout,
        },
        What::RunEnded {
            exit: ExitCode::Signal(2),
        },
    ];
    first
        .into_iter()
        .chain(ends)
        .chain(last)
        .map(|what| RunEvent {
            at: Duration::from_micros(1_001_234),
            what,
        })
        .collect()
}

#[test]
fn event_lines() {
    let plan = mixed_plan();
    let mut lines = Vec::new();
    for event in every_event() {
        super::events::write_line(&mut lines, &plan, &super::Redactor::default(), &event);
    }
    let expected = r#"{"event":"run_started","t":1.001234,"version":1,"run":"R","pipeline":"words","file":"/p/words.toml","time":"2026-11-24T14:53:09.000Z","pid":100,"jobs":4}
{"event":"started","t":1.001234,"node":"read","attempt":1,"pid":101}
{"event":"ready","t":1.001234,"node":"read"}
{"event":"stopping","t":1.001234,"node":"read","signal":"SIGTERM"}
{"event":"retrying","t":1.001234,"node":"read","attempt":1,"reason":"exit 3","delay":1.5}
{"event":"queue_ended","t":1.001234,"queue":"lines","bytes":1,"full":0.0,"empty":0.0}
{"event":"stalled","t":1.001234,"time":30.25,"waits":[{"node":"read","on":"room","queue":"lines","of":["read"]},{"node":"read","on":"data","queue":"lines","of":[]},{"node":"read","on":"turn","queue":"lines","of":["read"]},{"node":"read","on":"pipe","of":["read"]}]}
{"event":"ended","t":1.001234,"node":"read","state":"succeeded","reason":"its readers had all they needed","signal":"SIGPIPE","early_close":true,"leaked":true,"attempts":1,"wall":0.001234,"user":0.0,"system":0.0,"max_rss":0}
{"event":"ended","t":1.001234,"node":"read","state":"failed","reason":"timed out after 30s","signal":"SIGKILL","leaked":true,"attempts":1,"wall":0.001234,"user":0.0,"system":0.0,"max_rss":0}
{"event":"ended","t":1.001234,"node":"read","state":"failed","reason":"cannot start: no such file: \"sotr\"","exit":127,"leaked":true,"attempts":0,"wall":0.001234,"user":0.0,"system":0.0,"max_rss":0}
{"event":"ended","t":1.001234,"node":"read","state":"failed","reason":"exit 127 (sh did not find a command)","exit":127,"leaked":true,"attempts":1,"wall":0.001234,"user":0.0,"system":0.0,"max_rss":0}
{"event":"ended","t":1.001234,"node":"read","state":"skipped","reason":"--skip","leaked":true,"attempts":0,"wall":0.001234,"user":0.0,"system":0.0,"max_rss":0}
{"event":"ended","t":1.001234,"node":"read","state":"cancelled","reason":"interrupted by SIGINT","exit":3,"leaked":true,"attempts":1,"wall":0.001234,"user":0.0,"system":0.0,"max_rss":0}
{"event":"run_stopping","t":1.001234,"reason":"the run timed out"}
{"event":"run_ended","t":1.001234,"exit":130}
"#;
    let lines = String::from_utf8(lines).unwrap();
    assert_eq!(lines, expected);

    let schema = serde_json::to_value(schema_events()).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    for line in lines.lines() {
        let faults: Vec<_> = validator
            .iter_errors(&serde_json::from_str(line).unwrap())
            .map(|e| e.to_string())
            .collect();
        assert_eq!(faults, Vec::<String>::new(), "{line}");
    }
    // The schema can say no.
    for wrong in [
        r#"{"event":"started","t":1}"#,
        r#"{"event":"run_ended","t":1,"exit":0,"more":1}"#,
        r#"{"event":"x","t":1}"#,
    ] {
        assert!(
            !validator.is_valid(&serde_json::from_str(wrong).unwrap()),
            "{wrong}"
        );
    }
}

/// The schemas that are checked in are those of the types. With `UPDATE_EXPECT=1` in the environment they are written anew.
#[test]
fn schemas_are_up_to_date() {
    for (name, schema) in [("events", schema_events()), ("report", schema_report())] {
        let path = format!("{}/schemas/{name}.schema.json", env!("CARGO_MANIFEST_DIR"));
        let generated = serde_json::to_string_pretty(&schema).unwrap() + "\n";
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(&path, &generated).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        if let Some((number, found, generated)) = first_difference(&found, &generated) {
            panic!(
                "{path}:{number} is {found:?} and should be {generated:?}: \
                 UPDATE_EXPECT=1 cargo test --lib schemas_are_up_to_date writes it anew"
            );
        }
    }
}

/// The first line, counted from 1, in which two texts differ; `None` for a line that one of them does not have. Of two whole
/// schemas nobody sees what is different.
fn first_difference<'a>(
    one: &'a str,
    other: &'a str,
) -> Option<(usize, Option<&'a str>, Option<&'a str>)> {
    // Not `lines`: it takes "a" and "a\n" for the same.
    let (mut one, mut other) = (one.split('\n'), other.split('\n'));
    for number in 1.. {
        match (one.next(), other.next()) {
            (None, None) => break,
            (left, right) if left != right => return Some((number, left, right)),
            _ => {}
        }
    }
    None
}

#[test]
fn colours_are_ours_and_end_with_the_line() {
    let mut plan = plan(&["a"], &[]);
    plan.nodes[0].allow_failure = true;
    let mut story = Story::looking(
        Look {
            colour: true,
            ..PLAIN
        },
        &plan,
        Progress::Plain,
        Output::Prefixed,
    );
    story.start(0);
    story.print(0, Stream::Err, "\x1b[31mred\n");
    story.at(20).fail(0, Exit::Code(3));
    let (said, _) = story.finish(ExitCode::Success);
    let expected = "\
words: 1 node, 4 jobs, run R
\x1b[36ma\x1b[0m | \x1b[31mred\x1b[0m
[1/1] \x1b[31mfailed   \x1b[0m  a    0.02s  exit 3; it may fail
  | \x1b[31mred\x1b[0m
\x1b[1mnode\x1b[0m  \x1b[1mstate \x1b[0m  \x1b[1mexit\x1b[0m  \x1b[1m time\x1b[0m  \x1b[1m  cpu\x1b[0m  \x1b[1m  memory\x1b[0m
a     \x1b[31mfailed\x1b[0m     3  0.02s  0.01s  12.0 MiB
\x1b[1m\x1b[32msucceeded\x1b[0m: 1 node: 1 failed in 0.02s
";
    assert_eq!(said, expected);
}

#[test]
fn a_try_that_failed_is_told_with_what_it_printed() {
    let plan = plan(&["fetch"], &[]);
    let mut story = Story::new(&plan, Progress::Plain, Output::Grouped);
    story.start(0);
    story.print(0, Stream::Err, "no route\nto ho");
    let failure = Failure::Exit(Exit::Code(7));
    story.at(100).event(What::Retrying {
        unit: UnitId(0),
        attempt: 1,
        failure,
        delay: Duration::from_micros(1_500_400),
        stderr_tail: vec![],
    });
    story.at(1600).event(What::Started {
        unit: UnitId(0),
        attempt: 2,
        pid: Some(102),
    });
    story.print(0, Stream::Out, "got it\n");
    story.at(1700).event(What::Ended {
        unit: UnitId(0),
        outcome: Outcome::Succeeded { early_close: false },
        exit: Some(Exit::Code(0)),
        attempts: 2,
        usage: Usage {
            wall: ms(100),
            ..Usage::default()
        },
        leaked: true,
        stderr_tail: vec![],
    });
    let (said, observers) = story.finish(ExitCode::Success);
    let expected = "\
words: 1 node, 4 jobs, run R
[0/1] retrying   fetch           exit 7; next try in 1s 500ms
  | no route
  | to ho
[1/1] succeeded  fetch    0.10s  flaky: 2 tries; left processes behind, which were killed
  | got it
node   state      exit   time    cpu    memory     tries
fetch  succeeded     0  0.10s  0.00s  <4.0 MiB  flaky, 2
succeeded: 1 node in 1.70s
";
    assert_eq!(said, expected);
    let node = serde_json::to_value(&observers.report().nodes[0]).unwrap();
    assert_eq!(
        (&node["start"], &node["end"], &node["attempts"]),
        (&0.0.into(), &1.7.into(), &2.into())
    );
    assert_eq!(node["max_rss"], serde_json::Value::Null);
}

/// It is the explanation of a run that hangs, so it is said even where progress is not.
/// A plan whose first node is a service.
fn plan_with_service(names: &[&str]) -> Plan {
    let mut plan = plan(names, &[]);
    plan.nodes[0].service = Some(Arc::new(plan::Service { ready: None }));
    plan
}

#[test]
fn services_are_told_of() {
    let plan = plan_with_service(&["db", "test"]);
    let mut story = Story::new(&plan, Progress::Plain, Output::Grouped);
    story.start(0);
    story.at(1230).event(What::Ready { unit: UnitId(0) });
    story.at(1240).start(1);
    story.at(2000).ok(1);
    let killed = Exit::Signal {
        number: libc::SIGKILL,
        core: false,
    };
    let well = Outcome::Succeeded { early_close: false };
    story.at(7000).end(0, well, Some(killed));
    let (said, observers) = story.finish(ExitCode::Success);
    let expected = "\
words: 2 nodes, 4 jobs, run R
[0/2] ready      db      1.23s
[1/2] succeeded  test    2.00s
[2/2] succeeded  db      7.00s  no longer needed; killed, since SIGTERM had not stopped it in 5s; ready after 1.23s
node  state         exit   time    cpu    memory
db    succeeded  SIGKILL  7.00s  2.62s  12.0 MiB
test  succeeded        0  2.00s  0.75s  12.0 MiB
succeeded: 2 nodes in 7.00s
";
    assert_eq!(said, expected);
    let report = serde_json::to_value(observers.report()).unwrap();
    assert_eq!(report["nodes"][0]["ready"], 1.23);
    assert!(report["nodes"][1].get("ready").is_none());
}

/// What a service says on its standard output counts, too.
#[test]
fn a_service_that_failed_has_its_log_at_hand() {
    let plan = plan_with_service(&["db", "test"]);
    let mut story = Story::new(&plan, Progress::None, Output::None);
    story.start(0);
    story.print(0, Stream::Out, "starting\n");
    story.print(0, Stream::Err, "no disk\n");
    let exit = Exit::Code(1);
    let failure = Failure::Ended { exit, ready: false };
    story.at(100).end(0, Outcome::Failed(failure), Some(exit));
    let (db, root) = (NodeId(0), NodeId(0));
    let skipped = Outcome::Skipped(Cause::After { node: db, root });
    story.end(1, skipped, None);
    let (said, _) = story.finish(ExitCode::NodeFailed);
    let expected = "\
[1/2] failed     db      0.10s  ended before it was ready: exit 1
  | starting
  | no disk
failed: 2 nodes: 1 failed, 1 skipped in 0.10s
its files: .procflow/runs/R
";
    assert_eq!(said, expected);
}

#[test]
fn a_stall_is_told_with_the_way_out() {
    for progress in [Progress::Plain, Progress::None] {
        let plan = plan(&["a", "b"], &[("x", 0, 1)]);
        let mut story = Story::new(&plan, progress, Output::Grouped);
        story.start(0);
        story.start(1);
        let waits = [(0, WaitsOn::Room(QueueId(0)), 1), (1, WaitsOn::OwnPipe, 0)];
        story.at(31_000).event(What::Stalled {
            time: ms(30_900),
            waits: waits
                .map(|(unit, on, of)| Waiting {
                    unit: UnitId(unit),
                    on,
                    of: vec![UnitId(of)],
                })
                .to_vec(),
        });
        let (said, _) = story.finish(ExitCode::Success);
        let expected = "\
stalled: nothing has moved in 30s: `a` waits for room in queue `x`, which `b` does not read; \
`b` waits for `a` on a pipe of their own
help: `overflow = \"spill\"` under [queue.x] lets who writes it go on
";
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn an_interrupted_run_says_how_to_end_it_at_once() {
    let plan = plan(&["a"], &[]);
    let mut story = Story::new(&plan, Progress::None, Output::None);
    story.start(0);
    let cause = Cause::Interrupted(libc::SIGINT);
    story.at(50).event(What::RunStopping {
        cause: cause.clone(),
    });
    story.end(
        0,
        Outcome::Cancelled(cause),
        Some(Exit::Signal {
            number: libc::SIGTERM,
            core: false,
        }),
    );
    let (said, observers) = story.finish(ExitCode::Signal(libc::SIGINT));
    let expected = "\
stopping: interrupted by SIGINT; once more kills at once
interrupted by SIGINT: 1 node: 1 cancelled in 0.05s
its files: .procflow/runs/R
";
    assert_eq!(said, expected);
    let report = observers.report();
    assert_eq!(
        (report.exit, report.verdict.as_str()),
        (130, "interrupted by SIGINT")
    );
    assert_eq!(report.stopped.as_deref(), Some("interrupted by SIGINT"));
}

#[test]
fn a_big_run_shows_what_went_wrong() {
    let names: Vec<String> = (0..2000).map(|i| format!("n{i}")).collect();
    let plan = plan(&names.iter().map(String::as_str).collect::<Vec<_>>(), &[]);
    let mut story = Story::new(&plan, Progress::None, Output::None);
    story.at(310);
    for unit in 0..1998 {
        story.start(unit);
        story.ok(unit);
    }
    story.start(1998);
    story.fail(1998, Exit::Code(3));
    story.end(1999, Outcome::Skipped(Cause::RunFailed(NodeId(1998))), None);
    let (said, observers) = story.finish(ExitCode::NodeFailed);
    let verdict = "failed: 2,000 nodes: 1,998 succeeded, 1 failed, 1 skipped in 0.31s\nits files: .procflow/runs/R\n";
    assert_eq!(
        said,
        format!("[1,999/2,000] failed     n1998    0.31s  exit 3\n{verdict}")
    );

    let mut table = String::new();
    let secrets = super::Redactor::default();
    let view = super::View {
        plan: &plan,
        tally: observers.tally(),
        secrets: &secrets,
    };
    super::table::table(&mut table, &view, super::terminal::Paint(false), None, true);
    let expected = "\
node   state    exit   time    cpu    memory
n1998  failed      3  0.31s  0.12s  12.0 MiB
n1999  skipped
";
    assert_eq!(table, expected);
}

#[test]
fn a_secret_is_nowhere() {
    let mut plan = plan(&["a"], &[]);
    plan.secrets = vec!["hunter2".to_owned()];
    let dir = tempfile::tempdir().unwrap();
    let run = crate::store::RunDir::create(None, dir.path(), b"", Duration::ZERO).unwrap();
    for output in [Output::Grouped, Output::Prefixed, Output::None] {
        let mut story = Story::new(&plan, Progress::Plain, output);
        if output == Output::Grouped {
            let journal = super::EventLog::new("events.jsonl", run.create_events().unwrap());
            story.observers.keep(run.logs().unwrap(), journal);
        }
        story.start(0);
        for piece in ["with hun", "ter", "2 in it\nand hunter2", "\nhunt"] {
            story.print(0, Stream::Out, piece);
            story.print(0, Stream::Err, piece);
        }
        let why = "no such file: \"hunter2\"".to_owned();
        story.end(
            0,
            Outcome::Failed(Failure::CannotStart { code: 127, why }),
            Some(Exit::Code(127)),
        );
        let (said, observers) = story.finish(ExitCode::NodeFailed);
        assert!(
            said.contains("  | with *** in it\n")
                && said.contains("  | and ***\n")
                && said.contains("  | hunt\n"),
            "{said}"
        );
        assert!(!said.contains("hunter2"), "{said}");
        let report = String::from_utf8(observers.report().to_json()).unwrap();
        assert!(
            report.contains(r#""stderr": "with *** in it\nand ***\nhunt""#),
            "{report}"
        );
        assert!(!report.contains("hunter2"), "{report}");
    }
    for (file, whole) in [
        ("logs/a.out", true),
        ("logs/a.err", true),
        ("events.jsonl", false),
    ] {
        let text = std::fs::read_to_string(run.path().join(file)).unwrap();
        assert!(!text.contains("hunter2") && text.contains("***"), "{text}");
        assert!(!whole || text == "with *** in it\nand ***\nhunt", "{text}");
    }
}

#[test]
fn one_sink_does_not_hurt_another() {
    let plan = plan(&["a"], &[]);
    let dir = tempfile::tempdir().unwrap();
    let full = || {
        std::fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .unwrap()
    };
    let good = dir.path().join("good");
    let mut story = Story::new(&plan, Progress::Plain, Output::None);
    story
        .observers
        .add_event_file(super::EventLog::new("full", full()));
    story.observers.add_event_file(super::EventLog::new(
        "good",
        std::fs::File::create(&good).unwrap(),
    ));
    story.start(0);
    story.at(10).ok(0);
    story.event(What::RunEnded {
        exit: ExitCode::Success,
    });
    assert!(story.observers.has_faults());
    let faults: Vec<_> = story
        .observers
        .finish(0)
        .unwrap()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(faults, ["cannot write full: no space left on device"]);
    assert_eq!(std::fs::read_to_string(good).unwrap().lines().count(), 3);
    assert!(
        story
            .terminal
            .said()
            .ends_with("succeeded: 1 node in 0.01s\n")
    );

    // The run's own log is another matter: without it the run cannot go on.
    let run = crate::store::RunDir::create(None, dir.path(), b"", Duration::ZERO).unwrap();
    let mut observers = Observers::new(&plan);
    observers.keep(
        run.logs().unwrap(),
        super::EventLog::new("events.jsonl", full()),
    );
    observers.event(RunEvent {
        at: ms(0),
        what: What::Started {
            unit: UnitId(0),
            attempt: 1,
            pid: Some(1),
        },
    });
    let error = observers.flush().unwrap_err().to_string();
    assert!(
        error.starts_with("cannot write events.jsonl: no space left on device"),
        "{error}"
    );
    observers.flush().unwrap();
}

#[test]
fn a_reader_of_ours_that_has_gone_is_no_fault() {
    let (reader, writer) = nix::unistd::pipe().unwrap();
    let terminal = Terminal::new(&writer, &super::terminal::Wishes::default()).unwrap();
    drop((reader, writer));
    terminal.say("nobody hears this\n");
    terminal.say("nor this\n");
}

#[test]
fn a_slow_reader_of_a_non_blocking_pipe_gets_everything() {
    use std::io::Read;
    let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_NONBLOCK).unwrap();
    // Only the write end shall not block.
    nix::fcntl::fcntl(
        &reader,
        nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::empty()),
    )
    .unwrap();
    let terminal = Terminal::new(&writer, &super::terminal::Wishes::default()).unwrap();
    drop(writer);
    let text = "0123456789abcdef".repeat(65_536);
    let read = std::thread::spawn(move || {
        let mut got = String::new();
        std::fs::File::from(reader)
            .read_to_string(&mut got)
            .unwrap();
        got
    });
    terminal.say(&text);
    drop(terminal);
    assert!(read.join().unwrap() == text);
}

#[test]
fn long_runners_are_told_of_ever_more_seldom() {
    let plan = plan(&["train"], &[]);
    let mut story = Story::new(&plan, Progress::Plain, Output::None);
    assert_eq!(story.observers.tick_every(), Some(Duration::from_secs(10)));
    story.start(0);
    for second in (10..300).step_by(10) {
        story.observers.tick(Duration::from_secs(second));
        story.observers.flush().unwrap();
    }
    story.at(300_000).ok(0);
    let said = story.terminal.said();
    let expected = "\
words: 1 node, 4 jobs, run R
[0/1] running    train   1m 00s
[0/1] running    train   2m 00s
[0/1] running    train   4m 00s
[1/1] succeeded  train   5m 00s
";
    assert_eq!(said, expected);
}

/// What a terminal of this size shows after it got these bytes: the few controls that we write, and no others.
struct Shown {
    rows: Vec<Vec<char>>,
    row: usize,
    column: usize,
    size: (usize, usize),
}

impl Shown {
    fn new(width: usize, height: usize) -> Self {
        Shown {
            rows: vec![vec![]],
            row: 0,
            column: 0,
            size: (width, height),
        }
    }

    fn take(&mut self, text: &str) {
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            match c {
                '\r' => self.column = 0,
                // As the line discipline has it, which is off so that the test sees what was written.
                '\n' => (self.row, self.column) = (self.row + 1, 0),
                '\x1b' => {
                    assert_eq!(chars.next(), Some('['), "{text:?}");
                    let mut digits = String::new();
                    let command = loop {
                        match chars.next() {
                            Some(c) if c.is_ascii_digit() => digits.push(c),
                            other => break other,
                        }
                    };
                    let n: usize = digits.parse().unwrap_or(1);
                    match command {
                        Some('A') => {
                            // Above the screen nothing can be reached.
                            assert!(
                                n <= self.row && n < self.size.1,
                                "{n} up from row {}",
                                self.row
                            );
                            self.row -= n;
                        }
                        Some('B') => self.row += n,
                        Some('K') if digits == "2" => self.rows[self.row].clear(),
                        Some('K') => self.rows[self.row].truncate(self.column),
                        Some('J') => {
                            self.rows.truncate(self.row + 1);
                            self.rows[self.row].truncate(self.column);
                        }
                        other => panic!("an escape leaks: {digits}{other:?} of {text:?}"),
                    }
                }
                c => {
                    // A full row wraps with the character after it.
                    if self.column == self.size.0 {
                        self.row += 1;
                        self.column = 0;
                        self.rows.resize(self.rows.len().max(self.row + 1), vec![]);
                    }
                    let row = &mut self.rows[self.row];
                    row.resize(row.len().max(self.column + 1), ' ');
                    row[self.column] = c;
                    self.column += 1;
                }
            }
            self.rows.resize(self.rows.len().max(self.row + 1), vec![]);
        }
    }

    fn text(&self) -> String {
        let rows: Vec<_> = self
            .rows
            .iter()
            .map(|row| row.iter().collect::<String>().trim_end().to_owned())
            .collect();
        rows.join("\n").trim_end().to_owned()
    }
}

/// Runs a story on a pty of this size; gives what it wrote, tick by tick, and at the end.
fn on_a_pty(
    width: u16,
    height: u16,
    ticks: &[fn(&mut Observers<'_>)],
    plan: &Plan,
    output: Output,
) -> Vec<String> {
    use std::io::Read;
    let size = nix::pty::Winsize {
        ws_row: height,
        ws_col: width,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let pty = nix::pty::openpty(Some(&size), None).unwrap();
    // As it is written: the line discipline would make \r\n of \n.
    let mut raw = nix::sys::termios::tcgetattr(&pty.slave).unwrap();
    nix::sys::termios::cfmakeraw(&mut raw);
    nix::sys::termios::tcsetattr(&pty.slave, nix::sys::termios::SetArg::TCSANOW, &raw).unwrap();
    nix::fcntl::fcntl(
        &pty.master,
        nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK),
    )
    .unwrap();
    let wishes = super::terminal::Wishes {
        no_color: true,
        utf8: true,
        ..Default::default()
    };
    let terminal = Terminal::new(&pty.slave, &wishes).unwrap();
    let mut master = std::fs::File::from(pty.master);
    let mut read = || {
        let mut bytes = vec![0; 1 << 16];
        let mut got = Vec::new();
        while let Ok(n @ 1..) = master.read(&mut bytes) {
            got.extend_from_slice(&bytes[..n]);
        }
        String::from_utf8(got).unwrap()
    };
    let mut observers = Observers::new(plan);
    observers.add_reporter(Box::new(Console::new(
        terminal,
        Progress::Bars,
        output,
        None,
    )));
    assert_eq!(observers.tick_every(), Some(ms(100)));
    let mut said = Vec::new();
    for (i, tick) in ticks.iter().enumerate() {
        tick(&mut observers);
        observers.flush().unwrap();
        observers.tick(ms(100 * (i as u64 + 1)));
        said.push(read());
    }
    observers.event(RunEvent {
        at: ms(1000),
        what: What::RunEnded {
            exit: ExitCode::NodeFailed,
        },
    });
    observers.finish(0).unwrap();
    said.push(read());
    said
}

fn start(observers: &mut Observers<'_>, unit: u32) {
    observers.event(RunEvent {
        at: ms(0),
        what: What::Started {
            unit: UnitId(unit),
            attempt: 1,
            pid: Some(1),
        },
    });
}

fn end(observers: &mut Observers<'_>, unit: u32, code: u8) {
    let exit = Exit::Code(code);
    let outcome = if code == 0 {
        Outcome::Succeeded { early_close: false }
    } else {
        Outcome::Failed(Failure::Exit(exit))
    };
    observers.event(RunEvent {
        at: ms(200),
        what: What::Ended {
            unit: UnitId(unit),
            outcome,
            exit: Some(exit),
            attempts: 1,
            usage: Usage {
                wall: ms(200),
                ..Usage::default()
            },
            leaked: false,
            stderr_tail: vec![],
        },
    });
}

#[test]
fn bars_stand_below_what_is_said() {
    let plan = plan(&["read", "sort", "fetch"], &[]);
    let ticks: [fn(&mut Observers<'_>); 3] = [
        |o| {
            start(o, 0);
            start(o, 1);
        },
        |o| {
            o.output(
                UnitId(0),
                Stream::Out,
                b"hello\x1b[2J\x1b[1;1Hworld\nnot yet",
            );
            end(o, 1, 3);
        },
        |o| start(o, 2),
    ];
    let said = on_a_pty(60, 24, &ticks, &plan, Output::Prefixed);
    let mut screen = Shown::new(60, 24);
    let mut shots = Vec::new();
    for text in said {
        screen.take(&text);
        shots.push(screen.text());
    }
    let bar = |filled: usize| "━".repeat(filled);
    let expected = [
        format!(
            "⠙ read   0.10s\n⠙ sort   0.10s\n{}{} 0/3, 2 running, 0.10s",
            bar(0),
            "╌".repeat(35)
        ),
        format!(
            "read  | helloworld\n[1/3] failed     sort     0.20s  exit 3\n⠹ read   0.20s\n{}{} 1/3, 1 running, 1 failed, 0.20s",
            bar(8),
            "╌".repeat(17)
        ),
    ];
    assert_eq!(shots[0], expected[0]);
    assert_eq!(shots[1], expected[1]);
    let last = "\
read  | helloworld
[1/3] failed     sort     0.20s  exit 3
node   state   exit   time    cpu
read   -
sort   failed     3  0.20s  0.00s
fetch  -
failed: 3 nodes: 1 failed in 1.00s";
    assert_eq!(shots[3], last);
}

#[test]
fn bars_say_whether_a_service_is_ready() {
    let plan = plan_with_service(&["db", "test"]);
    let ticks: [fn(&mut Observers<'_>); 2] = [
        |o| start(o, 0),
        |o| {
            o.event(RunEvent {
                at: ms(150),
                what: What::Ready { unit: UnitId(0) },
            });
        },
    ];
    let mut screen = Shown::new(60, 24);
    let mut shots = Vec::new();
    for text in on_a_pty(60, 24, &ticks, &plan, Output::Prefixed) {
        screen.take(&text);
        shots.push(screen.text());
    }
    let first = |shot: &String| shot.lines().next().unwrap().to_owned();
    assert_eq!(first(&shots[0]), "⠙ db   0.10s  not ready yet");
    assert_eq!(first(&shots[1]), "⠹ db   0.20s  ready");
}

#[test]
fn bars_fit_every_screen() {
    let names: Vec<String> = (0..30)
        .map(|i| format!("a-node-with-a-long-name-{i}-{}", "x".repeat(i * 3)))
        .collect();
    let plan = plan(&names.iter().map(String::as_str).collect::<Vec<_>>(), &[]);
    let ticks: [fn(&mut Observers<'_>); 3] = [
        |o| (0..20).for_each(|unit| start(o, unit)),
        |o| (0..5).for_each(|unit| end(o, unit, 0)),
        |o| (20..30).for_each(|unit| start(o, unit)),
    ];
    for (width, height) in [(10, 3), (20, 2), (40, 5), (80, 24), (200, 50)] {
        let said = on_a_pty(width, height, &ticks, &plan, Output::None);
        let mut screen = Shown::new(width.into(), height.into());
        for text in &said[..3] {
            screen.take(text);
            let lines = screen.text().lines().count();
            assert!(
                lines <= 9.min(usize::from(height).saturating_sub(2).max(1)),
                "{lines} lines on {width}x{height}"
            );
        }
    }
}

/// A terminal that becomes narrower breaks the lines that do not fit any more. Nothing of the picture may stay: the whole
/// of it is on the rows that are cleared, and no line is longer than its text.
#[test]
fn a_picture_leaves_nothing_on_a_screen_that_has_become_narrower() {
    let size = nix::pty::Winsize {
        ws_row: 24,
        ws_col: 60,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let pty = nix::pty::openpty(Some(&size), None).unwrap();
    let plan = plan(&["read", "sort"], &[]);
    let terminal = Terminal::new(
        &pty.slave,
        &super::terminal::Wishes {
            no_color: true,
            ..Default::default()
        },
    )
    .unwrap();
    let mut observers = Observers::new(&plan);
    observers.add_reporter(Box::new(Console::new(
        terminal,
        Progress::Bars,
        Output::None,
        None,
    )));
    let said = || {
        let mut bytes = vec![0; 1 << 16];
        let length = nix::unistd::read(&pty.master, &mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    };
    start(&mut observers, 0);
    start(&mut observers, 1);
    observers.tick(ms(100));
    let picture = said();
    assert!(
        !picture.contains("  \r") && picture.ends_with("0.10s\x1b[K"),
        "{picture:?}"
    );
    // The line for the run is 57 columns wide: three rows of 20.
    let narrower = std::process::Command::new("stty")
        .args(["columns", "20"])
        .stdin(pty.slave.try_clone().unwrap())
        .status();
    assert!(narrower.unwrap().success());
    observers.tick(ms(200));
    let picture = said();
    assert!(picture.starts_with("\r\x1b[4A\x1b[J"), "{picture:?}");
    observers.suspend();
    observers.suspend();
    assert_eq!(said(), "\r\x1b[2A\x1b[J");
    observers.tick(ms(300));
    assert!(observers.tick_every() > Some(ms(100)), "nothing moves");
    observers.resume();
    observers.resume();
    observers.tick(ms(300));
    let picture = said();
    let fresh = format!("{}\r\x1b[K", " ".repeat(20));
    assert_eq!(picture.matches(&fresh).count(), 1, "{picture:?}");
    assert!(picture.starts_with(&fresh), "{picture:?}");
}

/// No row is wider than the screen, and what says how a node ended is there on every one.
#[test]
fn the_table_fits_every_screen() {
    let long = format!("a-name-{}-end", "x".repeat(60));
    let plan = plan(&["read", &long], &[]);
    let mut tally = super::Tally::new(&plan);
    let outcome = Outcome::Failed(Failure::Exit(Exit::Code(3)));
    for unit in 0..2 {
        tally.add(
            &plan,
            &RunEvent {
                at: ms(1),
                what: What::Started {
                    unit: UnitId(unit),
                    attempt: 1,
                    pid: Some(1),
                },
            },
        );
        tally.add(
            &plan,
            &RunEvent {
                at: ms(1),
                what: What::Ended {
                    unit: UnitId(unit),
                    outcome: outcome.clone(),
                    exit: Some(Exit::Code(3)),
                    attempts: 2,
                    usage: Usage {
                        max_rss: 1 << 30,
                        ..Usage::default()
                    },
                    leaked: false,
                    stderr_tail: vec![],
                },
            },
        );
    }
    let secrets = super::Redactor::new(&[]);
    let view = super::View {
        plan: &plan,
        tally: &tally,
        secrets: &secrets,
    };
    for width in 20..=200 {
        let mut table = String::new();
        super::table::table(
            &mut table,
            &view,
            super::terminal::Paint(false),
            Some(width),
            true,
        );
        for line in table.lines() {
            assert!(line.chars().count() <= width, "{width}: {table}");
        }
        assert_eq!(table.matches("failed").count(), 2, "{width}: {table}");
        assert_eq!(table.contains(&long), width >= 115, "{width}: {table}");
    }
}

/// Not a check: prints what a node costs. `cargo test --release -- --ignored cost_of --nocapture`
#[test]
#[ignore = "a measurement"]
#[expect(clippy::print_stderr, reason = "a measurement is to be read")]
fn cost_of_a_node() {
    let names: Vec<String> = (0..2000).map(|i| format!("n{i}")).collect();
    let plan = plan(&names.iter().map(String::as_str).collect::<Vec<_>>(), &[]);
    let dir = tempfile::tempdir().unwrap();
    for progress in [Progress::None, Progress::Plain] {
        let mut best = [Duration::MAX; 5];
        for _ in 0..50 {
            let begin = std::time::Instant::now();
            let run = crate::store::RunDir::create(
                None,
                dir.path(),
                b"",
                Duration::from_secs(1_795_531_989),
            )
            .unwrap();
            let journal = super::EventLog::new("events.jsonl", run.create_events().unwrap());
            let made = begin.elapsed();
            let null = std::fs::OpenOptions::new()
                .write(true)
                .open("/dev/null")
                .unwrap();
            let terminal = Terminal::new(&null, &super::terminal::Wishes::default()).unwrap();
            let mut observers = Observers::new(&plan);
            observers.keep(run.logs().unwrap(), journal);
            observers.add_reporter(Box::new(Console::new(
                terminal,
                progress,
                Output::Grouped,
                None,
            )));
            let mut story = Story {
                observers,
                terminal: Terminal::gone(),
                now: ms(5),
            };
            let begin = std::time::Instant::now();
            for unit in 0..2000 {
                story.start(unit);
                story.ok(unit);
            }
            let told = begin.elapsed() / 2000;
            let begin = std::time::Instant::now();
            story.event(What::RunEnded {
                exit: ExitCode::Success,
            });
            story.observers.finish(0).unwrap();
            let finished = begin.elapsed();
            let begin = std::time::Instant::now();
            let json = story.observers.report().to_json();
            run.write_report(&json).unwrap();
            let reported = begin.elapsed();
            drop(story);
            let begin = std::time::Instant::now();
            run.prune();
            for (best, time) in
                best.iter_mut()
                    .zip([made, told, finished, reported, begin.elapsed()])
            {
                *best = time.min(*best);
            }
        }
        let [made, told, finished, reported, pruned] = best;
        eprintln!(
            "{progress:?}: make {made:?}, node {told:?}, finish {finished:?}, report {reported:?}, prune {pruned:?}"
        );
    }
}
