//! [`Report`]: a run as one JSON document (`report.json`, `--json`), and its schema.

use schemars::{JsonSchema, Schema};
use serde::Serialize;

use crate::event::{Exit, Outcome, VERSION};
use crate::plan::{Plan, QueueKind, UnitId};
use crate::report::events::{State, exit_code, redacted, rfc3339, schema_generator, seconds};
use crate::report::redact::Redactor;
use crate::report::rows::Rows;
use crate::report::tally::{End, Tally, Unit};
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
    /// In the file's order; a node of several processes has an entry for each.
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
    /// CPU time in user mode.
    pub user: f64,
    /// CPU time in the kernel.
    pub system: f64,
}

/// One process, or what would have been one.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Which process of the node, from 0, where it has several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<u32>,
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
    /// Of the last try.
    pub pid: Option<i32>,
    /// When its first try began.
    pub start: Option<f64>,
    /// When it had ended for good.
    pub end: Option<f64>,
    /// How long the last try took.
    pub wall: Option<f64>,
    /// CPU time of the last try in user mode.
    pub user: Option<f64>,
    /// CPU time of the last try in the kernel.
    pub system: Option<f64>,
    /// Peak resident memory of the last try; null where it is not above procflow's own, which then hides it.
    pub max_rss: Option<u64>,
    /// Which nodes it ran with, joined by queues: an equal number says together.
    pub group: u32,
    /// The last lines of its standard error, where it failed. Bytes that are no UTF-8 stand as U+FFFD; `stderr_lossy` then.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stderr: String,
    /// Some of `stderr` was no UTF-8; the log has it as it was.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub stderr_lossy: bool,
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

/// What carried data between nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Queue {
    /// Its name.
    pub name: String,
    /// How procflow carried it.
    pub kind: Kind,
    /// Who wrote it.
    pub writers: Vec<String>,
    /// Who read it.
    pub readers: Vec<String>,
    /// Bytes that readers took; null where nobody counted them (a bare pipe).
    pub bytes: Option<u64>,
    /// Records that readers took; null where nobody counted them.
    pub records: Option<u64>,
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
        let ends = || tally.units.iter().filter_map(|unit| unit.end.as_ref());
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
                user: seconds(ends().map(|end| end.usage.user).sum()),
                system: seconds(ends().map(|end| end.usage.system).sum()),
            },
            procflow: Own {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                pid: tally.run.pid,
                max_rss: tally.own_peak,
            },
            nodes: tally
                .units
                .iter()
                .enumerate()
                .map(|(i, unit)| Node::new(plan, tally, secrets, i.into(), unit))
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
    fn new(plan: &Plan, tally: &Tally, secrets: &Redactor, id: UnitId, unit: &Unit) -> Self {
        let label = Label::of(plan, id);
        let Some(planned) = plan.units.get(id.index()) else {
            panic!("BUG: {id:?} is not in the plan")
        };
        let end: Option<&End> = unit.end.as_deref();
        // What was measured means something only where a process ran.
        let measured = end.filter(|_| unit.pid.is_some());
        let (stderr, stderr_lossy) =
            end.map_or_else(Default::default, |end| text(secrets, &end.stderr_tail));
        Node {
            name: label.node.to_owned(),
            unit: label.unit,
            state: end.map(|end| State::from(&end.outcome)),
            reason: end
                .and_then(|end| words::reason(plan, id, &end.outcome))
                .map(|reason| redacted(secrets, reason).into_owned()),
            exit: end.and_then(|end| exit_code(&end.outcome, end.exit)),
            signal: end.and_then(|end| end.exit).and_then(Signal::new),
            early_close: end
                .is_some_and(|end| matches!(end.outcome, Outcome::Succeeded { early_close: true })),
            leaked: end.is_some_and(|end| end.leaked),
            allow_failure: plan
                .nodes
                .get(planned.node.index())
                .is_some_and(|node| node.allow_failure),
            attempts: end.map_or(unit.attempt, |end| end.attempts),
            pid: unit.pid,
            start: unit.first_started.map(seconds),
            end: end.map(|end| seconds(end.at)),
            wall: measured.map(|end| seconds(end.usage.wall)),
            user: measured.map(|end| seconds(end.usage.user)),
            system: measured.map(|end| seconds(end.usage.system)),
            max_rss: measured.and_then(|end| tally.peak(end)),
            group: planned.group.0,
            stderr,
            stderr_lossy,
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
    fn new(plan: &Plan, queue: &crate::plan::Queue, counted: &crate::report::tally::Queue) -> Self {
        let names = |units: &[UnitId]| {
            units
                .iter()
                .map(|unit| Label::of(plan, *unit).to_string())
                .collect()
        };
        Queue {
            name: queue.name.to_string(),
            kind: match queue.kind {
                QueueKind::Direct => Kind::Direct,
                QueueKind::Relayed => Kind::Relayed,
                QueueKind::Stored => Kind::Stored,
            },
            writers: names(&queue.writers),
            readers: names(&queue.readers),
            bytes: counted.bytes,
            records: counted.records,
        }
    }
}

/// The JSON Schema of the report.
pub fn schema_report() -> Schema {
    schema_generator().into_root_schema_for::<Report>()
}
