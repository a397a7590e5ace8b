//! Pools as people and programs see them: a node of several processes, and one whose workers procflow feeds.

use std::sync::Arc;
use std::time::Duration;

use super::{Shown, Story, ms, on_a_pty, plan};
use crate::event::{
    Cause, Exit, Failure, Outcome, PoolCounts, Printer, RunEvent, Stream, Usage, What,
};
use crate::exit::ExitCode;
use crate::plan::{Deliver, Feed, NodeId, Order, Plan, Queue, QueueId, Retry, Role, UnitId};
use crate::report::{EventLog, Observers, Output, Progress, schema_events, schema_report};

const READ: u32 = 0;
const COUNT: [u32; 2] = [1, 2];
const GATHER: u32 = 3;
const FETCH: u32 = 4;

/// `read` writes `lines`, which two workers of `count` share; what they write is gathered. `fetch` is fed by procflow: three
/// workers and a list of tasks.
fn pools(feed: Feed) -> Plan {
    let mut plan = plan(
        &["read", "count-0", "count-1", "gather", "fetch"],
        &[("lines", READ, 1), ("count.stdout", 1, GATHER)],
    );
    let pool = |feed, workers| {
        Some(Arc::new(plan::Pool {
            workers,
            feed,
            tasks: (feed != Feed::Stream).then_some(plan::Tasks::Range(0, 50_000)),
            order: Order::Completion,
            batch: None,
            max_in_flight: None,
            recycle_after: None,
            task_timeout: None,
            retry: Retry {
                max: 3,
                delay: Duration::ZERO,
                backoff: 1.0,
                max_delay: Duration::ZERO,
                jitter: false,
                on_codes: vec![],
            },
            record_on_stdin: false,
            dead_letter: true,
        }))
    };
    let mut nodes = std::mem::take(&mut plan.nodes);
    nodes.drain(2..4);
    nodes[1].name = "count".into();
    nodes[1].units = 1..4;
    nodes[1].pool = pool(Feed::Stream, 2);
    nodes[2].pool = pool(feed, 3);
    plan.nodes = nodes;
    let roles = [
        (0, Role::Process),
        (1, Role::Worker(0)),
        (1, Role::Worker(1)),
        (1, Role::Gather),
        (2, Role::Pool),
    ];
    for (unit, (node, role)) in plan.units.iter_mut().zip(roles) {
        (unit.node, unit.role) = (NodeId(node), role);
    }
    plan.units[2].ends = plan.units[1].ends.clone();
    let share = |queue: &mut Queue, readers: &[u32], writers: &[u32]| {
        queue.deliver = Deliver::Share;
        queue.readers = readers.iter().copied().map(UnitId).collect();
        queue.writers = writers.iter().copied().map(UnitId).collect();
    };
    share(&mut plan.queues[0], &COUNT, &[READ]);
    share(&mut plan.queues[1], &[GATHER], &COUNT);
    plan
}

impl Story<'_> {
    fn say(&mut self, worker: Option<u32>, unit: u32, text: &str) {
        let unit = UnitId(unit);
        let printer = Printer { unit, worker };
        self.observers.output(printer, Stream::Err, text.as_bytes());
        self.observers.flush().unwrap();
    }

    /// Procflow's own part of a pool, which is no process.
    fn start_inside(&mut self, unit: u32) {
        self.event(What::Started {
            unit: UnitId(unit),
            attempt: 1,
            pid: None,
        });
    }

    fn end_inside(&mut self, unit: u32, outcome: Outcome) {
        let usage = Usage {
            wall: self.now,
            ..Usage::default()
        };
        self.event(What::Ended {
            unit: UnitId(unit),
            // As a run says it of a pool that procflow feeds: it is no process, so no status is its own.
            exit: (unit == FETCH).then_some(Exit::Code(0)),
            outcome,
            attempts: 1,
            usage,
            leaked: false,
            stderr_tail: vec![],
        });
    }

    fn worker_starts(&mut self, worker: u32, pid: i32) {
        self.event(What::WorkerStarted {
            unit: UnitId(FETCH),
            worker,
            pid,
        });
    }

    fn worker_ends(&mut self, worker: u32, exit: Exit, max_rss: u64) {
        self.event(What::WorkerEnded {
            unit: UnitId(FETCH),
            worker,
            exit,
            usage: Usage {
                wall: ms(100),
                user: ms(30),
                system: ms(10),
                max_rss,
            },
        });
    }

    fn tick(&mut self) {
        self.observers.tick(self.now);
        self.observers.flush().unwrap();
    }
}

fn counts(answered: u64) -> PoolCounts {
    PoolCounts {
        taken: answered + 3,
        taken_bytes: answered * 6,
        answered,
        result_bytes: answered * 100,
        in_flight: 3,
        started: 3,
        total: Some(50_000),
        ..PoolCounts::default()
    }
}

const SUCCEEDED: Outcome = Outcome::Succeeded { early_close: false };

const KILLED: Exit = Exit::Signal {
    number: libc::SIGKILL,
    core: false,
};

const STOPPED: Exit = Exit::Signal {
    number: libc::SIGTERM,
    core: false,
};

/// The second worker of `count` is killed; then what is left of its group is stopped, and with it the first.
fn a_worker_fails(plan: &Plan, progress: Progress, output: Output) -> (String, Observers<'_>) {
    let mut story = Story::new(plan, progress, output);
    for unit in [READ, COUNT[0], COUNT[1]] {
        story.at(1).start(unit);
    }
    story.start_inside(GATHER);
    story.say(None, COUNT[0], "first here\nhalf a ");
    story.say(None, COUNT[1], "second here\n");
    story.say(None, COUNT[0], "line\n");
    let by_reader = Cause::Reader {
        node: NodeId(1),
        root: NodeId(1),
    };
    let by_worker = Cause::Pool(NodeId(1));
    story.at(200).end(
        COUNT[1],
        Outcome::Failed(Failure::Exit(KILLED)),
        Some(KILLED),
    );
    story
        .at(250)
        .end(READ, Outcome::Cancelled(by_reader), Some(STOPPED));
    story.end(
        COUNT[0],
        Outcome::Cancelled(by_worker.clone()),
        Some(STOPPED),
    );
    story.end_inside(GATHER, Outcome::Cancelled(by_worker));
    story.event(What::QueueEnded {
        queue: QueueId(0),
        bytes: Some(9000),
        records: Some(1234),
        is_estimate: false,
        ends: vec![
            (UnitId(READ), 9000),
            (UnitId(COUNT[0]), 4500),
            (UnitId(COUNT[1]), 3000),
        ],
        dropped: 0,
        full: ms(0),
        empty: ms(0),
    });
    story.end(FETCH, Outcome::Skipped(Cause::RunFailed(NodeId(1))), None);
    story.at(260);
    story.finish(ExitCode::NodeFailed)
}

const FAILED_TABLE: &str = "\
node   state         exit   time    cpu    memory     in → out    records
read   cancelled  SIGTERM  0.25s  0.09s  12.0 MiB  - → 8.8 KiB  - → 1,234
count  failed     SIGKILL  0.25s  0.17s  12.0 MiB  7.3 KiB → -
fetch  skipped
failed: 3 nodes: 1 failed, 1 cancelled, 1 skipped in 0.26s
its files: .procflow/runs/R
";

#[test]
fn a_pool_is_one_node_and_fails_by_its_worker() {
    let plan = pools(Feed::Request);
    let (said, _) = a_worker_fails(&plan, Progress::Plain, Output::Grouped);
    let expected = "\
words: 3 nodes, 4 jobs, run R
[1/3] cancelled  read     0.25s  reader count failed
[2/3] failed     count    0.25s  worker 1: killed by SIGKILL
  0 | first here
  1 | second here
  0 | half a line
[3/3] skipped    fetch        -  the run stopped after count failed
"
    .to_owned()
        + FAILED_TABLE;
    assert_eq!(said, expected);
}

#[test]
fn lines_of_workers_have_their_numbers() {
    let plan = pools(Feed::Request);
    let (said, _) = a_worker_fails(&plan, Progress::Plain, Output::Prefixed);
    let expected = "\
words: 3 nodes, 4 jobs, run R
count.0 | first here
count.1 | second here
count.0 | half a line
[1/3] cancelled  read     0.25s  reader count failed
[2/3] failed     count    0.25s  worker 1: killed by SIGKILL
  1 | second here
[3/3] skipped    fetch        -  the run stopped after count failed
"
    .to_owned()
        + FAILED_TABLE;
    assert_eq!(said, expected);
}

fn valid(schema: &schemars::Schema, value: &serde_json::Value) {
    let schema = serde_json::to_value(schema).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let faults: Vec<_> = validator
        .iter_errors(value)
        .map(|e| format!("{e} at {}", e.instance_path()))
        .collect();
    assert_eq!(faults, Vec::<String>::new(), "{value}");
}

fn report(observers: &Observers<'_>) -> serde_json::Value {
    let report = serde_json::from_slice(&observers.report().to_json()).unwrap();
    valid(&schema_report(), &report);
    report
}

#[test]
fn the_report_has_a_node_for_a_pool_and_its_workers_in_it() {
    let plan = pools(Feed::Request);
    let (_, observers) = a_worker_fails(&plan, Progress::None, Output::None);
    let report = report(&observers);
    let sigkill = serde_json::json!({ "name": "SIGKILL", "number": 9, "core": false });
    let sigterm = serde_json::json!({ "name": "SIGTERM", "number": 15, "core": false });
    assert_eq!(
        report["nodes"][1],
        serde_json::json!({
            "name": "count", "state": "failed", "reason": "worker 1: killed by SIGKILL", "exit": null,
            "signal": sigkill, "early_close": false, "leaked": false, "allow_failure": false, "attempts": 1, "pid": null,
            "start": 0.001, "end": 0.25, "wall": 0.25, "user": 0.1125, "system": 0.05625, "max_rss": 12 << 20, "bytes_in": 7500, "group": 0,
            "stderr": "second here",
            "workers": [{
                "worker": 0, "state": "cancelled", "reason": "another worker of count failed", "exit": null, "signal": sigterm,
                "processes": 1, "pid": 102, "start": 0.001, "end": 0.25, "wall": 0.25, "user": 0.0625, "system": 0.03125,
                "max_rss": 12 << 20,
            }, {
                "worker": 1, "state": "failed", "reason": "killed by SIGKILL", "exit": null, "signal": sigkill,
                "processes": 1, "pid": 103, "start": 0.001, "end": 0.2, "wall": 0.2, "user": 0.05, "system": 0.025,
                "max_rss": 12 << 20,
            }],
        })
    );
    assert_eq!(
        report["queues"][0],
        serde_json::json!({
            "name": "lines", "kind": "relayed", "writers": ["read"], "readers": ["count"], "bytes": 9000, "records": 1234,
            "rate": 36145.0, "full": 0.0, "empty": 0.0, "written": [{ "node": "read", "bytes": 9000 }],
            "read": [{ "node": "count", "worker": 0, "bytes": 4500 }, { "node": "count", "worker": 1, "bytes": 3000 }],
        })
    );
    assert_eq!(report["totals"]["nodes"], 3);
}

/// A pool has succeeded only when all of its units have; which ends first does not matter.
#[test]
fn a_pool_ends_with_its_last_unit() {
    let plan = pools(Feed::Request);
    let mut story = Story::new(&plan, Progress::Plain, Output::None);
    story.at(1).start(COUNT[0]);
    story.start(COUNT[1]);
    story.start_inside(GATHER);
    assert_eq!(story.observers.tally().counts.running, 1);
    story.at(30).ok(COUNT[1]);
    story.at(40).ok(COUNT[0]);
    assert_eq!(story.observers.tally().counts.ended(), 0);
    assert_eq!(story.observers.tally().counts.running, 1);
    story.at(50).end_inside(GATHER, SUCCEEDED);
    assert_eq!(story.observers.tally().counts.running, 0);
    let (said, _) = story.finish(ExitCode::Success);
    let expected = "\
words: 3 nodes, 4 jobs, run R
[1/3] succeeded  count    0.05s
node   state      exit   time    cpu    memory
read   -
count  succeeded     0  0.05s  0.03s  12.0 MiB
fetch  -
succeeded: 3 nodes: 1 succeeded in 0.05s
";
    assert_eq!(said, expected);
}

/// The reason of a pool is that of the worker that was cancelled first, not that the others were because of it.
#[test]
fn a_pool_that_was_cancelled_says_why() {
    let plan = pools(Feed::Request);
    let mut story = Story::new(&plan, Progress::Plain, Output::None);
    for unit in COUNT {
        story.at(1).start(unit);
    }
    let by_writer = Cause::Writer {
        node: NodeId(0),
        root: NodeId(0),
    };
    let by_worker = Cause::Pool(NodeId(1));
    story.at(20).end(
        COUNT[0],
        Outcome::Cancelled(by_worker.clone()),
        Some(STOPPED),
    );
    story.end(COUNT[1], Outcome::Cancelled(by_writer), Some(STOPPED));
    story.end(GATHER, Outcome::Cancelled(by_worker), None);
    let said = story.terminal.said();
    let expected = "[1/3] cancelled  count    0.02s  writer read failed\n";
    assert!(said.ends_with(expected), "{said}");
}

/// A file that could not be put in place is no worker's fault.
#[test]
fn a_pool_fails_by_its_gathering() {
    let plan = pools(Feed::Request);
    let mut story = Story::new(&plan, Progress::None, Output::None);
    story.at(0).start_inside(GATHER);
    for unit in COUNT {
        story.at(1).start(unit);
        story.at(30).ok(unit);
    }
    let why = "cannot put counts.txt in place: no space left on device".to_owned();
    story
        .at(40)
        .end_inside(GATHER, Outcome::Failed(Failure::Result(why)));
    let (said, observers) = story.finish(ExitCode::NodeFailed);
    let expected = "\
[1/3] failed     count    0.04s  cannot put counts.txt in place: no space left on device
failed: 3 nodes: 1 failed in 0.04s
its files: .procflow/runs/R
";
    assert_eq!(said, expected);
    assert_eq!(
        report(&observers)["nodes"][1]["exit"],
        serde_json::Value::Null
    );
}

/// What all of a failed try have printed stands apart from what they print in the next.
#[test]
fn a_pool_is_tried_again_as_a_whole() {
    let plan = pools(Feed::Request);
    let mut story = Story::new(&plan, Progress::Plain, Output::Grouped);
    story.at(1).start(COUNT[0]);
    story.start(COUNT[1]);
    story.say(None, COUNT[0], "not a whole line");
    story.at(20).event(What::Retrying {
        unit: UnitId(COUNT[1]),
        attempt: 1,
        failure: Failure::Exit(Exit::Code(3)),
        delay: ms(100),
        stderr_tail: vec![],
    });
    assert_eq!(story.observers.tally().counts.running, 0);
    story.at(120).start(COUNT[0]);
    story.start(COUNT[1]);
    assert_eq!(story.observers.tally().counts.running, 1);
    story.say(None, COUNT[0], "again\n");
    for unit in COUNT {
        story.at(150).ok(unit);
    }
    story.end(GATHER, SUCCEEDED, None);
    let (said, _) = story.finish(ExitCode::Success);
    let said = said.split_once("node ").unwrap().0;
    let expected = "\
words: 3 nodes, 4 jobs, run R
[0/3] retrying   count           worker 1: exit 3; next try in 100ms
  0 | not a whole line
[1/3] succeeded  count    0.15s
  0 | again
";
    assert_eq!(said, expected);
}

/// A worker of `fetch` dies and is replaced, one is recycled; in the end a record fails every try.
fn a_fed_pool_fails(plan: &Plan, progress: Progress, output: Output) -> (String, Observers<'_>) {
    let mut story = Story::new(plan, progress, output);
    story.at(1).start_inside(FETCH);
    story.worker_starts(0, 201);
    story.worker_starts(2, 203);
    story.say(Some(0), FETCH, "hello from 0\n");
    story.say(Some(2), FETCH, "about to die\n");
    story.at(50).worker_ends(2, KILLED, 40 << 20);
    story.at(60).worker_starts(2, 204);
    story.say(Some(2), FETCH, "bad record\n");
    story.at(90).worker_ends(2, Exit::Code(7), 12 << 20);
    // Stopped by procflow, which is no failure of its own.
    story.say(Some(0), FETCH, "interrupted\n");
    story.at(100).worker_ends(0, STOPPED, 12 << 20);
    story.event(What::PoolProgress {
        unit: UnitId(FETCH),
        counts: PoolCounts {
            taken: 1240,
            taken_bytes: 7440,
            answered: 1200,
            result_bytes: 120_000,
            dead: 2,
            retried: 5,
            in_flight: 0,
            started: 3,
            total: Some(50_000),
        },
    });
    let why = "record 1,201 failed 4 times, the last time with exit 7".to_owned();
    story.end_inside(FETCH, Outcome::Failed(Failure::Result(why)));
    story.finish(ExitCode::NodeFailed)
}

#[test]
fn a_fed_pool_says_what_became_of_its_records() {
    let plan = pools(Feed::Request);
    let (said, observers) = a_fed_pool_fails(&plan, Progress::Plain, Output::Prefixed);
    let expected = "\
words: 3 nodes, 4 jobs, run R
fetch.0 | hello from 0
fetch.2 | about to die
fetch.2 | bad record
fetch.0 | interrupted
[1/3] failed     fetch    0.10s  record 1,201 failed 4 times, the last time with exit 7; 1,240 records, 38 not done, 5 tried again, 2 dead letters
  | bad record
node   state   exit   time    cpu    memory             in → out        records
read   -
count  -
fetch  failed     7  0.10s  0.12s  40.0 MiB  7.3 KiB → 117.2 KiB  1,240 → 1,200
failed: 3 nodes: 1 failed in 0.10s
its files: .procflow/runs/R
";
    assert_eq!(said, expected);
    let report = report(&observers);
    assert_eq!(
        report["nodes"][2],
        serde_json::json!({
            "name": "fetch", "state": "failed", "reason": "record 1,201 failed 4 times, the last time with exit 7", "exit": null,
            "signal": null, "early_close": false, "leaked": false, "allow_failure": false, "attempts": 1, "pid": null,
            "start": 0.001, "end": 0.1, "wall": 0.1, "user": 0.09, "system": 0.03, "max_rss": 40 << 20, "group": 0,
            "exit": 7, "stderr": "bad record",
            "bytes_in": 7440, "bytes_out": 120_000, "records_in": 1240, "records_out": 1200,
            "pool": {
                "taken": 1240, "taken_bytes": 7440, "answered": 1200, "result_bytes": 120_000, "dead": 2, "retried": 5,
                "in_flight": 0, "workers_started": 3, "total": 50_000,
            },
            "workers": [{
                "worker": 0, "exit": null, "signal": { "name": "SIGTERM", "number": 15, "core": false }, "processes": 1,
                "pid": 201, "start": 0.001, "end": 0.1, "wall": 0.1, "user": 0.03, "system": 0.01, "max_rss": 12 << 20,
            }, {
                "worker": 2, "exit": 7, "signal": null, "processes": 2, "pid": 204, "start": 0.001, "end": 0.09, "wall": 0.2,
                "user": 0.06, "system": 0.02, "max_rss": 40 << 20,
            }],
        })
    );
    assert_eq!(report["totals"]["user"], 0.09);
}

/// Of a `task` pool each process is told of by itself, and none is an event. Its worker's log goes on.
#[test]
fn tasks_print_one_after_the_other_into_their_workers_log() {
    let plan = pools(Feed::Task);
    let dir = tempfile::tempdir().unwrap();
    let run = crate::store::RunDir::create(None, dir.path(), b"", Duration::ZERO).unwrap();
    let mut story = Story::new(&plan, Progress::Plain, Output::Grouped);
    let journal = crate::report::EventLog::new("events.jsonl", run.create_events().unwrap());
    story.observers.keep(run.logs().unwrap(), journal);
    story.at(1).start_inside(FETCH);
    let worker = |worker| Printer {
        unit: UnitId(FETCH),
        worker: Some(worker),
    };
    for (number, text, code) in [
        (0, "task 1", 0),
        (1, "task 2\n", 1),
        (0, "task 3\n", 0),
        (1, "", 1),
    ] {
        story.say(Some(number), FETCH, text);
        story
            .observers
            .output_ended(worker(number), Exit::Code(code));
    }
    story.at(10).end_inside(
        FETCH,
        Outcome::Failed(Failure::Result("task 4: exit 1".to_owned())),
    );
    let (said, observers) = story.finish(ExitCode::NodeFailed);
    let expected = "\
[1/3] failed     fetch    0.01s  task 4: exit 1; 0 records
  0 | task 1
  1 | task 2
  0 | task 3
";
    assert!(said.contains(expected), "{said}");
    // The one that failed last has said nothing.
    assert_eq!(
        report(&observers)["nodes"][2]["stderr"],
        serde_json::Value::Null
    );
    let log = |name: &str| std::fs::read_to_string(run.path().join("logs").join(name)).unwrap();
    assert_eq!(
        (log("fetch.0.err"), log("fetch.1.err")),
        ("task 1task 3\n".to_owned(), "task 2\n".to_owned())
    );
}

#[test]
fn a_plain_log_says_now_and_then_how_far_a_pool_has_come() {
    let plan = pools(Feed::Request);
    let mut story = Story::new(&plan, Progress::Plain, Output::None);
    story.at(0).start_inside(FETCH);
    for second in 1..=1000 {
        story.at(second * 1000);
        // From the 40th to the 200th second it stands still.
        let moving = if second < 200 {
            second.min(40)
        } else {
            second - 160
        };
        story.event(What::PoolProgress {
            unit: UnitId(FETCH),
            counts: counts(moving * 50),
        });
        story.tick();
    }
    let said = story.terminal.said();
    let lines: Vec<&str> = said.lines().skip(1).collect();
    let expected = [
        "[0/3] running    fetch    10.0s  500 of 50,000 records, 50/s, 16m 30s left",
        "[0/3] running    fetch    20.0s  1,000 of 50,000 records, 50/s, 16m 20s left",
        "[0/3] running    fetch    30.0s  1,500 of 50,000 records, 50/s, 16m 10s left",
        "[0/3] running    fetch    40.0s  2,000 of 50,000 records, 50/s, 16m 00s left",
        // As of any node that runs long.
        "[0/3] running    fetch   1m 20s  2,000 of 50,000 records, 1.2/s, 32m 00s left",
        "[0/3] running    fetch   2m 40s  2,000 of 50,000 records, 0.4/s, 1h 04m left",
        "[0/3] running    fetch   3m 21s  2,050 of 50,000 records, 0.3/s, 1h 18m left",
        "[0/3] running    fetch   3m 32s  2,600 of 50,000 records, 50/s, 1h 04m left",
        "[0/3] running    fetch   3m 43s  3,150 of 50,000 records, 50/s, 55m 16s left",
    ];
    assert_eq!(lines[..9], expected, "{said}");
    // Ever more seldom.
    assert_eq!(lines.len(), 39, "{said}");
}

/// `read` and `count` move what a queue carries, `fetch` counts by itself.
fn all_run(observers: &mut Observers<'_>) {
    let mut event = |at, what| observers.event(RunEvent { at: ms(at), what });
    for (unit, pid) in [
        (READ, Some(1)),
        (COUNT[0], Some(2)),
        (COUNT[1], Some(3)),
        (GATHER, None),
        (FETCH, None),
    ] {
        let unit = UnitId(unit);
        event(
            0,
            What::Started {
                unit,
                attempt: 1,
                pid,
            },
        );
    }
    event(
        100,
        What::QueueProgress {
            queue: QueueId(0),
            bytes: 5 << 20,
            records: Some(61_234),
            is_estimate: false,
            held: 1000,
            dropped: 0,
        },
    );
    event(
        100,
        What::PoolProgress {
            unit: UnitId(FETCH),
            counts: PoolCounts {
                dead: 2,
                ..counts(12_398)
            },
        },
    );
}

fn drawn(width: u16) -> String {
    let plan = pools(Feed::Request);
    let said = on_a_pty(width, 24, &[all_run], &plan, Output::Prefixed);
    let mut screen = Shown::new(width.into(), 24);
    screen.take(&said[0]);
    screen.text()
}

#[test]
fn bars_say_what_moves() {
    let wide = "\
⠙ read    0.10s  61,234 records, 612,340/s, 50.0 MiB/s
⠙ count   0.10s  61,234 records, 612,340/s, 50.0 MiB/s
⠙ fetch   0.10s  ━━━━╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌ 12,400 of 50,000 records, 124,000/s, 0.30s left, 2 dead letters
╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌ 0/3, 3 running, 0.10s";
    assert_eq!(drawn(120), wide);
    let narrow = "\
⠙ read    0.10s  61,234 records
⠙ count   0.10s  61,234 records
⠙ fetch   0.10s  25%
╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌ 0/3, 3 running, 0.10s";
    assert_eq!(drawn(40), narrow);
    for width in 20..=200 {
        for line in drawn(width).lines() {
            assert!(
                line.chars().count() <= usize::from(width),
                "{width}: {line}"
            );
        }
    }
}

/// One that drops says so where people look; the rest of what it did is in the report.
#[test]
fn what_a_queue_drops_is_told() {
    let plan = pools(Feed::Request);
    let mut story = Story::new(&plan, Progress::Plain, Output::None);
    story.at(0).start(READ);
    story.start(COUNT[0]);
    let queue = QueueId(0);
    story.at(100).event(What::QueueEnded {
        queue,
        bytes: Some(400_000),
        records: Some(50_000),
        is_estimate: false,
        ends: vec![(UnitId(READ), 400_000), (UnitId(COUNT[0]), 390_000)],
        dropped: 1234,
        full: ms(90),
        empty: ms(0),
    });
    let (said, observers) = story.finish(ExitCode::Success);
    let expected = "\
words: 3 nodes, 4 jobs, run R
queue lines: 1,234 of 50,000 records dropped, since it was full
node   state       in → out     records
read   -      - → 390.6 KiB  - → 50,000
count  -      380.9 KiB → -  48,766 → -
fetch  -
succeeded: 3 nodes in 0.10s
";
    assert_eq!(said, expected);
    let queue = &report(&observers)["queues"][0];
    assert_eq!(
        (&queue["dropped"], &queue["full"]),
        (&1234.into(), &0.9.into())
    );
}

/// A queue may lead back to its own writer: then one unit has two ends of it.
#[test]
fn a_queue_that_leads_back_is_told_by_its_sides() {
    let mut plan = plan(&["walk", "seed"], &[("dirs", 0, 0), ("dirs", 1, 0)]);
    plan.queues[0].writers = vec![UnitId(0), UnitId(1)];
    let mut story = Story::new(&plan, Progress::None, Output::None);
    story.start(0);
    story.at(10).event(What::QueueEnded {
        queue: QueueId(0),
        bytes: Some(110),
        records: Some(11),
        is_estimate: false,
        ends: vec![(UnitId(0), 100), (UnitId(1), 10), (UnitId(0), 110)],
        dropped: 0,
        full: ms(0),
        empty: ms(0),
    });
    let (_, observers) = story.finish(ExitCode::Success);
    let flow = observers.tally().bytes(&plan, NodeId(0));
    assert_eq!((flow.input, flow.output), (Some(110), Some(100)));
    let queue = &report(&observers)["queues"][0];
    let expected =
        serde_json::json!([{ "node": "walk", "bytes": 100 }, { "node": "seed", "bytes": 10 }]);
    assert_eq!(queue["written"], expected);
    assert_eq!(
        queue["read"],
        serde_json::json!([{ "node": "walk", "bytes": 110 }])
    );
}

#[test]
fn events_of_pools() {
    let plan = pools(Feed::Request);
    let mut story = Story::new(&plan, Progress::None, Output::None);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events");
    story
        .observers
        .add_event_file(EventLog::open(&path).unwrap());
    story.at(1).start(COUNT[1]);
    story.start_inside(GATHER);
    story.start_inside(FETCH);
    story.worker_starts(2, 203);
    story.at(50).worker_ends(2, KILLED, 40 << 20);
    story.event(What::PoolProgress {
        unit: UnitId(FETCH),
        counts: counts(100),
    });
    story.event(What::QueueProgress {
        queue: QueueId(0),
        bytes: 9,
        records: Some(2),
        is_estimate: false,
        held: 4,
        dropped: 1,
    });
    story.event(What::Stopping {
        unit: UnitId(COUNT[1]),
        signal: libc::SIGTERM,
    });
    story.end_inside(GATHER, SUCCEEDED);
    let (_, _) = story.finish(ExitCode::Success);
    let lines = std::fs::read_to_string(&path).unwrap();
    let expected = r#"{"event":"started","t":0.001,"node":"count","worker":1,"attempt":1,"pid":103}
{"event":"started","t":0.001,"node":"count","gathers":true,"attempt":1}
{"event":"started","t":0.001,"node":"fetch","attempt":1}
{"event":"worker_started","t":0.001,"node":"fetch","worker":2,"pid":203}
{"event":"worker_ended","t":0.05,"node":"fetch","worker":2,"signal":"SIGKILL","wall":0.1,"user":0.03,"system":0.01,"max_rss":41943040}
{"event":"pool_progress","t":0.05,"node":"fetch","taken":103,"taken_bytes":600,"answered":100,"result_bytes":10000,"dead":0,"retried":0,"in_flight":3,"workers_started":3,"total":50000}
{"event":"queue_progress","t":0.05,"queue":"lines","bytes":9,"records":2,"held":4,"dropped":1}
{"event":"stopping","t":0.05,"node":"count","worker":1,"signal":"SIGTERM"}
{"event":"ended","t":0.05,"node":"count","gathers":true,"state":"succeeded","attempts":1,"wall":0.05,"user":0.0,"system":0.0,"max_rss":0}
{"event":"run_ended","t":0.05,"exit":0}
"#;
    assert_eq!(lines, expected);
    for line in lines.lines() {
        valid(&schema_events(), &serde_json::from_str(line).unwrap());
    }
}

/// `head` has read only the first of what was copied to it: of how many records those bytes were, nobody knows.
#[test]
fn what_left_before_the_end_has_no_count_of_records() {
    let mut plan = plan(&["seq", "head", "wc"], &[("lines", 0, 1)]);
    plan.queues[0].readers = vec![UnitId(1), UnitId(2)];
    plan.units[2].ends = plan.units[1].ends.clone();
    let mut story = Story::new(&plan, Progress::None, Output::None);
    story.event(What::QueueEnded {
        queue: QueueId(0),
        bytes: Some(8000),
        records: Some(1000),
        is_estimate: false,
        ends: vec![(UnitId(0), 8000), (UnitId(1), 80), (UnitId(2), 8000)],
        dropped: 0,
        full: ms(0),
        empty: ms(0),
    });
    let tally = story.observers.tally();
    let flows = [0, 1, 2].map(|node| {
        let (bytes, records) = (
            tally.bytes(&plan, NodeId(node)),
            tally.records(&plan, NodeId(node)),
        );
        (bytes.input, records.input, bytes.output, records.output)
    });
    let expected = [
        (None, None, Some(8000), Some(1000)),
        (Some(80), None, None, None),
        (Some(8000), Some(1000), None, None),
    ];
    assert_eq!(flows, expected);
}
