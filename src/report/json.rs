//! [`Report`]: a run as one JSON document (`report.json`, `--json`), and its schema.

use std::time::Duration;

use indexmap::IndexMap;
use schemars::{JsonSchema, Schema};
use serde::Serialize;

use crate::event::{Exit, Outcome, VERSION};
use crate::plan::{self, NodeId, Plan, QueueKind, Role, UnitId};
use crate::report::events::{
    PoolLine, State, exit_code, is_false, is_zero, redacted, rfc3339, schema_generator, seconds,
};
use crate::report::fed;
use crate::report::redact::Redactor;
use crate::report::rows::Rows;
use crate::report::tally::{self, Tally};
use crate::report::units::{Label, signal};
use crate::report::words;

/// What a run did. Times are in seconds, sizes in bytes; `start` and `end` count from the run's start.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(title = "procflow report", deny_unknown_fields)]
pub struct Report {
    /// Of this form. It changes when a reader of the old form would be misled.
    pub version: u32,
    /// The run's id.
    pub run: String,
    /// The pipeline's name.
    pub pipeline: String,
    /// When the run began: wall clock, RFC 3339, UTC.
    pub started: String,
    /// How long it took.
    pub wall: f64,
    /// In words: `succeeded`, `failed`, `timed out`, `interrupted by SIGINT`, `broken off`.
    pub verdict: String,
    /// Why it stopped before everything had run, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped: Option<String>,
    /// What procflow exits with, as a shell shows it.
    pub exit: u8,
    /// Job slots.
    pub jobs: u32,
    /// Sums over the nodes.
    pub totals: Totals,
    /// procflow itself.
    pub procflow: Own,
    /// In the file's order. A pool is one node.
    pub nodes: Vec<Node>,
    /// In the order of their first mention.
    pub queues: Vec<Queue>,
}

/// procflow's own process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Own {
    /// The version of the program.
    pub version: String,
    /// Its process id: the parent of every node.
    pub pid: i32,
    /// Its peak resident memory. A node's own cannot be told where it is not above this.
    pub max_rss: u64,
}

/// Sums over the nodes.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Totals {
    /// All of the plan.
    pub nodes: usize,
    /// By state.
    pub succeeded: usize,
    /// By state; those that may fail are among them.
    pub failed: usize,
    /// By state.
    pub cancelled: usize,
    /// By state.
    pub skipped: usize,
    /// By state.
    pub reused: usize,
    /// CPU time in user mode.
    pub user: f64,
    /// CPU time in the kernel.
    pub system: f64,
}

/// A process or a pool, or what would have been one. Of a pool, what there is only one of (reason, exit, signal, stderr) is that
/// of the worker that failed first (where procflow feeds it: last).
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its values, where it is one of the combinations of a matrix.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub matrix: IndexMap<String, String>,
    /// Null where the run broke off before it was known.
    pub state: Option<State>,
    /// Why, in words; null where it simply succeeded.
    pub reason: Option<String>,
    /// Its exit code, where it ended by one; 126 or 127 where it could not be started.
    pub exit: Option<u8>,
    /// The signal that ended it.
    pub signal: Option<Signal>,
    /// A writer that its readers, all of which succeeded, did not need to the end.
    pub early_close: bool,
    /// Processes of its group were left when it ended, and were killed.
    pub leaked: bool,
    /// Its failure fails neither the run nor what comes after it.
    pub allow_failure: bool,
    /// Tries; 0 where it was never started.
    pub attempts: u32,
    /// It has succeeded after a try of its own that failed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub flaky: bool,
    /// Of the last try; null for a pool.
    pub pid: Option<i32>,
    /// When its first try began.
    pub start: Option<f64>,
    /// When it had ended for good.
    pub end: Option<f64>,
    /// How long its last try took until it was ready, where it is a service and has been.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready: Option<f64>,
    /// How long the last try took.
    pub wall: Option<f64>,
    /// CPU time of the last try in user mode; of all workers together.
    pub user: Option<f64>,
    /// CPU time of the last try in the kernel; of all workers together.
    pub system: Option<f64>,
    /// Peak resident memory of the last try, of a pool that of its largest process; null where it is not above procflow's own,
    /// which then hides it.
    pub max_rss: Option<u64>,
    /// Bytes that came in, where they are known: what procflow carried, or a pool counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_in: Option<u64>,
    /// Bytes that went out, likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_out: Option<u64>,
    /// Records that came in, likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub records_in: Option<u64>,
    /// Records that went out, likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub records_out: Option<u64>,
    /// Some of these four were not counted but estimated.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub flow_estimated: bool,
    /// Which nodes it ran with, joined by queues: an equal number says together.
    pub group: u32,
    /// The last lines of its standard error (of a service, of both its outputs), where it failed. Bytes that are no UTF-8 stand as U+FFFD; `stderr_lossy` then.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stderr: String,
    /// Some of `stderr` was no UTF-8; the log has it as it was.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub stderr_lossy: bool,
    /// What a `request` or `task` pool has done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolLine>,
    /// The workers of a `stream` or `request` pool. (The processes of a `task` pool are in its `tasks.jsonl`.)
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub workers: Vec<Worker>,
}

/// A worker of a pool. Where several processes have had its number, they stand here as one.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Worker {
    /// Its number, from 0.
    pub worker: u32,
    /// How it ended; missing in a pool that procflow feeds, where only the pool has a state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    /// Why, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The exit code of the last process, where it ended by one.
    pub exit: Option<u8>,
    /// The signal that ended the last process.
    pub signal: Option<Signal>,
    /// How many processes it has had: its tries; in a pool that procflow feeds, those that were replaced.
    pub processes: u32,
    /// Of the last one.
    pub pid: Option<i32>,
    /// When its first process was started.
    pub start: Option<f64>,
    /// When its last process had ended.
    pub end: Option<f64>,
    /// How long its processes lived, those of the last try.
    pub wall: Option<f64>,
    /// CPU time in user mode, likewise.
    pub user: Option<f64>,
    /// CPU time in the kernel, likewise.
    pub system: Option<f64>,
    /// Peak resident memory; null where it is not above procflow's own.
    pub max_rss: Option<u64>,
}

/// A signal that ended a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Signal {
    /// `SIGSEGV`
    pub name: String,
    /// Its number on this machine.
    pub number: i32,
    /// It left a core dump.
    pub core: bool,
}

/// What carried data between nodes. What nobody counted (a bare pipe's bytes) is null.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Queue {
    /// Its name.
    pub name: String,
    /// How procflow carried it.
    pub kind: Kind,
    /// The nodes that wrote it.
    pub writers: Vec<String>,
    /// The nodes that read it.
    pub readers: Vec<String>,
    /// Bytes that came from its writers.
    pub bytes: Option<u64>,
    /// Records, where procflow looked for them.
    pub records: Option<u64>,
    /// That number is an estimate: some records went by without a look at them.
    #[serde(skip_serializing_if = "is_false")]
    pub estimated: bool,
    /// Bytes in a second, from the start of its first reader or writer to its end.
    pub rate: Option<f64>,
    /// Records that were dropped, since it was full, or since those that may have them had gone.
    #[serde(skip_serializing_if = "is_zero")]
    pub dropped: u64,
    /// The share of that time in which it held what no reader took, from 0 to 1: its readers held it back.
    pub full: Option<f64>,
    /// The share of that time in which there was nothing to hand on: its writers held it back.
    pub empty: Option<f64>,
    /// Bytes from each writer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub written: Vec<QueueEnd>,
    /// Bytes to each reader.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub read: Vec<QueueEnd>,
}

/// One end of a queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct QueueEnd {
    /// Whose.
    pub node: String,
    /// Which worker of a `stream` pool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker: Option<u32>,
    /// What passed it.
    pub bytes: u64,
}

/// How procflow carries a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A pipe of the kernel between the two.
    Direct,
    /// By procflow.
    Relayed,
    /// On disk, as a whole, before its readers start.
    Stored,
}

impl Report {
    /// The report of a run, as far as it has come.
    pub fn new(plan: &Plan, tally: &Tally, secrets: &Redactor) -> Self {
        let counts = &tally.counts;
        let (wall, exit) = tally.ended.map_or(
            (std::time::Duration::ZERO, crate::exit::ExitCode::Broken),
            |ended| ended,
        );
        let used = || {
            let units = tally.units.iter().enumerate();
            units.filter_map(|(i, unit)| Some(tally.usage(i.into(), unit.end.as_ref()?)))
        };
        Report {
            version: VERSION,
            run: tally.run.id.clone(),
            pipeline: plan.name.clone(),
            started: rfc3339(tally.run.time),
            wall: seconds(wall),
            verdict: words::verdict(exit, counts.failed + counts.cancelled > 0),
            stopped: tally
                .stopping
                .as_ref()
                .map(|cause| words::cause(plan, cause)),
            exit: exit.code(),
            jobs: tally.run.jobs,
            totals: Totals {
                nodes: counts.total,
                succeeded: counts.succeeded,
                failed: counts.failed,
                cancelled: counts.cancelled,
                skipped: counts.skipped,
                reused: counts.reused,
                user: seconds(used().map(|usage| usage.user).sum()),
                system: seconds(used().map(|usage| usage.system).sum()),
            },
            procflow: Own {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                pid: tally.run.pid,
                max_rss: tally.own_peak,
            },
            nodes: (0..plan.nodes.len())
                .map(|i| Node::new(plan, tally, secrets, i.into()))
                .collect(),
            queues: plan
                .queues
                .iter()
                .zip(&tally.queues)
                .map(|(queue, counted)| Queue::new(plan, queue, counted))
                .collect(),
        }
    }

    /// As it is written: a line for each node and queue, with a newline at the end.
    pub fn to_json(&self) -> Vec<u8> {
        // About what a node takes, so that a big report is not moved about while it grows.
        let mut json = Vec::with_capacity(1024 + 512 * (self.nodes.len() + self.queues.len()));
        let mut serializer = serde_json::Serializer::with_formatter(&mut json, Rows::default());
        if let Err(e) = self.serialize(&mut serializer) {
            panic!("BUG: the report is no JSON: {e}");
        }
        json.push(b'\n');
        json
    }
}

impl Node {
    fn new(plan: &Plan, tally: &Tally, secrets: &Redactor, id: NodeId) -> Self {
        let planned = plan.node(id);
        let end = tally.node_end(plan, id);
        let end = end.as_ref();
        // What was measured means something only where a process ran.
        let measured = end.filter(|end| end.ran).map(|end| &end.usage);
        let (stderr, stderr_lossy) =
            end.map_or_else(Default::default, |end| text(secrets, end.stderr_tail));
        let units = || planned.units.clone().map(UnitId);
        let (bytes, records) = (tally.bytes(plan, id), tally.records(plan, id));
        Node {
            name: planned.name.to_string(),
            matrix: planned
                .matrix
                .iter()
                .map(|(key, value)| (key.to_string(), value.to_string()))
                .collect(),
            state: end.map(|end| State::from(end.outcome)),
            reason: end
                .and_then(|end| words::node_reason(plan, end))
                .map(|reason| redacted(secrets, reason).into_owned()),
            exit: end.and_then(|end| exit_code(end.outcome, end.exit)),
            signal: end.and_then(|end| end.exit).and_then(Signal::new),
            early_close: end
                .is_some_and(|end| matches!(end.outcome, Outcome::Succeeded { early_close: true })),
            leaked: end.is_some_and(|end| end.leaked),
            allow_failure: planned.allow_failure,
            attempts: match end {
                Some(end) => end.attempts,
                None => units()
                    .map(|unit| tally.unit(unit).attempt)
                    .max()
                    .unwrap_or(0),
            },
            flaky: end.is_some_and(|end| tally.is_flaky(plan, id, end)),
            pid: match planned.pool {
                None => tally.unit(UnitId(planned.units.start)).pid,
                Some(_) => None,
            },
            start: units()
                .filter_map(|unit| tally.unit(unit).first_started)
                .min()
                .map(seconds),
            end: end.map(|end| seconds(end.at)),
            ready: tally
                .unit(UnitId(planned.units.start))
                .ready_after
                .map(seconds),
            wall: measured.map(|usage| seconds(usage.wall)),
            user: measured.map(|usage| seconds(usage.user)),
            system: measured.map(|usage| seconds(usage.system)),
            max_rss: measured.and_then(|usage| tally.peak(usage)),
            bytes_in: bytes.input,
            bytes_out: bytes.output,
            records_in: records.input,
            records_out: records.output,
            flow_estimated: bytes.is_estimate || records.is_estimate,
            group: plan.unit(UnitId(planned.units.start)).group.0,
            stderr,
            stderr_lossy,
            pool: tally.fed(plan, id).map(|fed| PoolLine::of(&fed.counts)),
            workers: workers(plan, tally, secrets, id),
        }
    }
}

/// Those of a pool, in their order.
fn workers(plan: &Plan, tally: &Tally, secrets: &Redactor, node: NodeId) -> Vec<Worker> {
    if let Some(fed) = tally.fed(plan, node) {
        let workers = fed.workers.iter();
        return workers
            .map(|(number, worker)| Worker::of_fed(tally, *number, worker))
            .collect();
    }
    let units = plan.node(node).units.clone().map(UnitId);
    units
        .filter_map(|unit| match plan.unit(unit).role {
            Role::Worker(number) => Some(Worker::of_unit(plan, tally, secrets, unit, number)),
            Role::Process | Role::Pool | Role::Gather => None,
        })
        .collect()
}

impl Worker {
    fn of_unit(plan: &Plan, tally: &Tally, secrets: &Redactor, id: UnitId, worker: u32) -> Self {
        let unit = tally.unit(id);
        let end = unit.end.as_deref();
        let usage = end.filter(|_| unit.pid.is_some()).map(|end| &end.usage);
        Worker {
            worker,
            state: end.map(|end| State::from(&end.outcome)),
            reason: end
                .and_then(|end| words::reason(plan, id, &end.outcome))
                .map(|reason| redacted(secrets, reason).into_owned()),
            exit: end.and_then(|end| exit_code(&end.outcome, end.exit)),
            signal: end.and_then(|end| end.exit).and_then(Signal::new),
            processes: end.map_or(unit.attempt, |end| end.attempts),
            pid: unit.pid,
            start: unit.first_started.map(seconds),
            end: end.map(|end| seconds(end.at)),
            wall: usage.map(|usage| seconds(usage.wall)),
            user: usage.map(|usage| seconds(usage.user)),
            system: usage.map(|usage| seconds(usage.system)),
            max_rss: usage.and_then(|usage| tally.peak(usage)),
        }
    }

    fn of_fed(tally: &Tally, number: u32, worker: &fed::Worker) -> Self {
        let usage = &worker.usage;
        let exit = worker.ended.map(|(_, exit)| exit);
        Worker {
            worker: number,
            state: None,
            reason: None,
            exit: match exit {
                Some(Exit::Code(code)) => Some(code),
                _ => None,
            },
            signal: exit.and_then(Signal::new),
            processes: worker.processes,
            pid: Some(worker.pid),
            start: Some(seconds(worker.started)),
            end: worker.ended.map(|(at, _)| seconds(at)),
            wall: Some(seconds(usage.wall)),
            user: Some(seconds(usage.user)),
            system: Some(seconds(usage.system)),
            max_rss: tally.peak(usage),
        }
    }
}

/// Bytes as text without secrets, and whether that lost something.
fn text(secrets: &Redactor, bytes: &[u8]) -> (String, bool) {
    let bytes = secrets.bytes(bytes);
    let text = String::from_utf8_lossy(&bytes);
    let lossy = matches!(text, std::borrow::Cow::Owned(_));
    (text.into_owned(), lossy)
}

impl Signal {
    fn new(exit: Exit) -> Option<Self> {
        match exit {
            Exit::Code(_) => None,
            Exit::Signal { number, core } => Some(Signal {
                name: signal(number),
                number,
                core,
            }),
        }
    }
}

impl Queue {
    fn new(plan: &Plan, queue: &plan::Queue, counted: &tally::Queue) -> Self {
        // Units of a node stand together.
        let names = |units: &[UnitId]| {
            let mut nodes: Vec<NodeId> = units.iter().map(|unit| plan.unit(*unit).node).collect();
            nodes.dedup();
            nodes
                .into_iter()
                .map(|node| plan.node(node).name.to_string())
                .collect()
        };
        let ends = |ends: &[tally::QueueEnd]| {
            ends.iter()
                .map(|&(unit, bytes)| QueueEnd::new(plan, unit, bytes))
                .collect()
        };
        let passed = counted.passed.as_deref();
        let life = passed.map_or(0.0, |passed| passed.life.as_secs_f64());
        // To a thousandth, which is more than can be told from it.
        let share = |time: Duration| {
            (life > 0.0).then(|| (time.as_secs_f64() / life * 1000.0).round().min(1000.0) / 1000.0)
        };
        let waited = passed.and_then(|passed| passed.waited);
        let bytes = passed.and_then(|passed| passed.bytes);
        let (written, read) = passed.map_or((&[][..], &[][..]), |passed| passed.sides(queue));
        Queue {
            name: queue.name.to_string(),
            kind: match queue.kind {
                QueueKind::Direct => Kind::Direct,
                QueueKind::Relayed => Kind::Relayed,
                QueueKind::Stored => Kind::Stored,
            },
            writers: names(&queue.writers),
            readers: names(&queue.readers),
            bytes,
            records: passed.and_then(|passed| passed.records),
            estimated: passed.is_some_and(|passed| passed.is_estimate),
            rate: bytes
                .filter(|_| life > 0.0)
                .map(|bytes| (bytes as f64 / life).round()),
            dropped: passed.map_or(0, |passed| passed.dropped),
            full: waited.and_then(|waited| share(waited.full)),
            empty: waited.and_then(|waited| share(waited.empty)),
            written: ends(written),
            read: ends(read),
        }
    }
}

impl QueueEnd {
    fn new(plan: &Plan, unit: UnitId, bytes: u64) -> Self {
        let Label { node, worker } = Label::of(plan, unit);
        QueueEnd {
            node: node.to_owned(),
            worker,
            bytes,
        }
    }
}

/// The JSON Schema of the report.
pub fn schema_report() -> Schema {
    schema_generator().into_root_schema_for::<Report>()
}
