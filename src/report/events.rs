//! [`EventLog`]: events as JSON lines (`events.jsonl`, `--events`), and their schema.
//!
//! A line is flat, and names nodes and queues instead of numbering them.

use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use indexmap::IndexMap;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use crate::event::{Exit, Failure, Outcome, PoolCounts, RunEvent, VERSION, Waiting, WaitsOn, What};
use crate::plan::{Plan, QueueKind, Role, UnitId};
use crate::report::redact::Redactor;
use crate::report::terminal::write_patiently;
use crate::report::units::{Label, signal};
use crate::report::words;

/// One line of `events.jsonl`. `t` is in seconds since the run's start.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
#[schemars(title = "procflow event", deny_unknown_fields)]
enum Line<'a> {
    /// The first line.
    RunStarted {
        t: f64,
        /// Of this form. It changes when a reader of the old form would be misled.
        version: u32,
        run: &'a str,
        pipeline: &'a str,
        /// The pipeline's file, as an absolute path; missing where it came from standard input.
        #[serde(skip_serializing_if = "Option::is_none")]
        file: Option<&'a str>,
        /// Wall clock, RFC 3339, UTC.
        time: String,
        /// Of the procflow process that is the parent of every node.
        pid: i32,
        /// Job slots.
        jobs: u32,
    },
    /// A process was started.
    Started {
        t: f64,
        node: &'a str,
        /// Its values, where it is one of the combinations of a matrix.
        #[serde(skip_serializing_if = "IndexMap::is_empty")]
        matrix: IndexMap<&'a str, &'a str>,
        /// Which worker of a pool, from 0.
        #[serde(skip_serializing_if = "Option::is_none")]
        worker: Option<u32>,
        /// It is no process: procflow puts together what the workers of a pool write to one file.
        #[serde(skip_serializing_if = "is_false")]
        gathers: bool,
        /// From 1.
        attempt: u32,
        /// Missing where procflow does the work itself: a pool that it feeds.
        #[serde(skip_serializing_if = "Option::is_none")]
        pid: Option<i32>,
    },
    /// A worker of a `request` pool was started.
    WorkerStarted {
        t: f64,
        node: &'a str,
        /// From 0.
        worker: u32,
        pid: i32,
    },
    /// A worker of a `request` pool has ended.
    WorkerEnded {
        t: f64,
        node: &'a str,
        /// From 0.
        worker: u32,
        /// Its exit code, where it ended by one.
        #[serde(skip_serializing_if = "Option::is_none")]
        exit: Option<u8>,
        /// The signal that ended it, by name.
        #[serde(skip_serializing_if = "Option::is_none")]
        signal: Option<String>,
        /// Seconds that it lived.
        wall: f64,
        /// Seconds of CPU time in user mode.
        user: f64,
        /// Seconds of CPU time in the kernel.
        system: f64,
        /// Peak resident memory in bytes; never below procflow's own.
        max_rss: u64,
    },
    /// What a `request` or `task` pool has done so far.
    PoolProgress {
        t: f64,
        node: &'a str,
        #[serde(flatten)]
        counts: PoolLine,
    },
    /// What has passed through a queue so far.
    QueueProgress {
        t: f64,
        queue: &'a str,
        /// Bytes that came from its writers.
        bytes: u64,
        /// Records, where procflow looked for them.
        #[serde(skip_serializing_if = "Option::is_none")]
        records: Option<u64>,
        /// That number is an estimate: some records went by without a look at them.
        #[serde(skip_serializing_if = "is_false")]
        estimated: bool,
        /// Bytes that it holds.
        held: u64,
        /// Records that were dropped, since it was full, or since those that may have them had gone.
        #[serde(skip_serializing_if = "is_zero")]
        dropped: u64,
    },
    /// A service is ready.
    Ready { t: f64, node: &'a str },
    /// A process is being stopped.
    Stopping {
        t: f64,
        node: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        worker: Option<u32>,
        #[serde(skip_serializing_if = "is_false")]
        gathers: bool,
        /// What it was sent, by name.
        signal: String,
    },
    /// A try has failed and there will be another.
    Retrying {
        t: f64,
        node: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        worker: Option<u32>,
        #[serde(skip_serializing_if = "is_false")]
        gathers: bool,
        /// The try that failed, from 1.
        attempt: u32,
        /// Why it failed, in words.
        reason: Cow<'a, str>,
        /// Seconds until the next.
        delay: f64,
    },
    /// A process, or what would have been one, has ended for good.
    Ended {
        t: f64,
        node: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        worker: Option<u32>,
        #[serde(skip_serializing_if = "is_false")]
        gathers: bool,
        state: State,
        /// In words; missing where it simply succeeded.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<Cow<'a, str>>,
        /// Its exit code, where it ended by one; 126 or 127 where it could not be started.
        #[serde(skip_serializing_if = "Option::is_none")]
        exit: Option<u8>,
        /// The signal that ended it, by name.
        #[serde(skip_serializing_if = "Option::is_none")]
        signal: Option<String>,
        /// A writer that its readers did not need to the end.
        #[serde(skip_serializing_if = "is_false")]
        early_close: bool,
        /// Processes of its group were left and have been killed.
        #[serde(skip_serializing_if = "is_false")]
        leaked: bool,
        /// Tries; 0 where it was never started.
        attempts: u32,
        /// Seconds that the last try took.
        wall: f64,
        /// Seconds of CPU time in user mode.
        user: f64,
        /// Seconds of CPU time in the kernel.
        system: f64,
        /// Peak resident memory in bytes; never below procflow's own.
        max_rss: u64,
    },
    /// A queue has ended.
    QueueEnded {
        t: f64,
        queue: &'a str,
        /// Bytes that came from its writers, where procflow carried them.
        #[serde(skip_serializing_if = "Option::is_none")]
        bytes: Option<u64>,
        /// Records, where procflow counted them.
        #[serde(skip_serializing_if = "Option::is_none")]
        records: Option<u64>,
        /// That number is an estimate: some records went by without a look at them.
        #[serde(skip_serializing_if = "is_false")]
        estimated: bool,
        /// Records that were dropped, since it was full, or since those that may have them had gone.
        #[serde(skip_serializing_if = "is_zero")]
        dropped: u64,
        /// Seconds that it held records which no reader took, where procflow carried it.
        #[serde(skip_serializing_if = "Option::is_none")]
        full: Option<f64>,
        /// Seconds that there was nothing in it to hand on, where procflow carried it.
        #[serde(skip_serializing_if = "Option::is_none")]
        empty: Option<f64>,
    },
    /// Nothing moves in a group: no process of it runs, and each waits on a pipe.
    Stalled {
        t: f64,
        /// For so many seconds nothing has moved.
        time: f64,
        /// Who waits for what. Those that wait for each other in a circle come first, in its order.
        waits: Vec<WaitLine<'a>>,
    },
    /// The run begins to stop.
    RunStopping {
        t: f64,
        /// In words.
        reason: String,
    },
    /// The last line.
    RunEnded {
        t: f64,
        /// What procflow exits with, as a shell shows it.
        exit: u8,
    },
}

/// What a process waits for.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
struct WaitLine<'a> {
    node: &'a str,
    /// Of a pool: which worker, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    worker: Option<u32>,
    /// `data` or `room` of a queue, its `turn` in one, or a `pipe` that the group's processes have made themselves.
    on: WaitKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    queue: Option<&'a str>,
    /// The nodes whose it would be to write, to read, or to end.
    of: Vec<&'a str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum WaitKind {
    Data,
    Room,
    Turn,
    Pipe,
}

/// How a node ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It did its work.
    Succeeded,
    /// It did not.
    Failed,
    /// procflow ended it, or did not let its result count.
    Cancelled,
    /// It was never started.
    Skipped,
    /// It was never started, since what an earlier run made of it still holds.
    Reused,
}

impl State {
    /// As it is shown.
    pub fn word(self) -> &'static str {
        match self {
            State::Succeeded => "succeeded",
            State::Failed => "failed",
            State::Cancelled => "cancelled",
            State::Skipped => "skipped",
            State::Reused => "reused",
        }
    }
}

impl From<&Outcome> for State {
    fn from(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Succeeded { .. } => State::Succeeded,
            Outcome::Failed(_) => State::Failed,
            Outcome::Cancelled(_) => State::Cancelled,
            Outcome::Skipped(_) => State::Skipped,
            Outcome::Reused => State::Reused,
        }
    }
}

/// What a pool has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct PoolLine {
    /// Records that came.
    taken: u64,
    /// Their bytes.
    taken_bytes: u64,
    /// Records answered, each counted once.
    answered: u64,
    /// Bytes of results.
    result_bytes: u64,
    /// Records that failed every try and went to the dead letters.
    dead: u64,
    /// Tries after the first.
    retried: u64,
    /// Records being worked on.
    in_flight: u64,
    /// Workers started.
    workers_started: u64,
    /// Records in all, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<u64>,
}

impl PoolLine {
    pub(super) fn of(counts: &PoolCounts) -> Self {
        PoolLine {
            taken: counts.taken,
            taken_bytes: counts.taken_bytes,
            answered: counts.answered,
            result_bytes: counts.result_bytes,
            dead: counts.dead,
            retried: counts.retried,
            in_flight: counts.in_flight,
            workers_started: counts.started,
            total: counts.total,
        }
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands over references"
)]
pub(super) fn is_zero(value: &u64) -> bool {
    *value == 0
}

pub(super) fn is_false(value: &bool) -> bool {
    !*value
}

/// Seconds with microseconds, which is what the events are worth.
pub(super) fn seconds(time: std::time::Duration) -> f64 {
    time.as_micros() as f64 / 1e6
}

/// A time since 1970 as RFC 3339, UTC, with milliseconds.
pub(super) fn rfc3339(since_1970: std::time::Duration) -> String {
    humantime::format_rfc3339_millis(std::time::UNIX_EPOCH + since_1970).to_string()
}

/// The exit code of a unit, or what a shell would say where it could not be started.
pub(super) fn exit_code(outcome: &Outcome, exit: Option<Exit>) -> Option<u8> {
    match (outcome, exit) {
        (_, Some(Exit::Code(code))) => Some(code),
        (Outcome::Failed(Failure::CannotStart { code, .. }), None) => Some(*code),
        _ => None,
    }
}

fn signal_name(exit: Option<Exit>) -> Option<String> {
    match exit {
        Some(Exit::Signal { number, .. }) => Some(signal(number)),
        Some(Exit::Code(_)) | None => None,
    }
}

/// Redacts a text that procflow put together.
pub(super) fn redacted<'a>(secrets: &Redactor, text: String) -> Cow<'a, str> {
    if secrets.is_idle() {
        Cow::Owned(text)
    } else {
        Cow::Owned(secrets.text(&text).into_owned())
    }
}

/// The values of a unit's node, where it is one of a matrix.
fn values(plan: &Plan, unit: UnitId) -> IndexMap<&str, &str> {
    let values = plan.node(plan.unit(unit).node).matrix.iter();
    values.map(|(key, value)| (&**key, &**value)).collect()
}

fn line<'a>(plan: &'a Plan, secrets: &Redactor, event: &'a RunEvent) -> Line<'a> {
    let t = seconds(event.at);
    let label = |unit: UnitId| {
        let gathers = plan.unit(unit).role == Role::Gather;
        let Label { node, worker } = Label::of(plan, unit);
        (node, worker, gathers)
    };
    match &event.what {
        What::RunStarted {
            id,
            pipeline,
            file,
            time,
            pid,
            jobs,
        } => Line::RunStarted {
            t,
            version: VERSION,
            run: id,
            pipeline,
            file: file.as_deref(),
            time: rfc3339(*time),
            pid: *pid,
            jobs: *jobs,
        },
        What::Started { unit, attempt, pid } => {
            let (node, worker, gathers) = label(*unit);
            Line::Started {
                t,
                node,
                matrix: values(plan, *unit),
                worker,
                gathers,
                attempt: *attempt,
                pid: *pid,
            }
        }
        What::Ready { unit } => Line::Ready {
            t,
            node: label(*unit).0,
        },
        What::Stopping {
            unit,
            signal: number,
        } => {
            let (node, worker, gathers) = label(*unit);
            Line::Stopping {
                t,
                node,
                worker,
                gathers,
                signal: signal(*number),
            }
        }
        What::Retrying {
            unit: id,
            attempt,
            failure,
            delay,
            stderr_tail: _,
        } => {
            let (node, worker, gathers) = label(*id);
            let reason = redacted(secrets, words::failure(plan, *id, failure));
            Line::Retrying {
                t,
                node,
                worker,
                gathers,
                attempt: *attempt,
                reason,
                delay: seconds(*delay),
            }
        }
        What::Ended {
            unit: id,
            outcome,
            exit,
            attempts,
            usage,
            leaked,
            stderr_tail: _,
        } => {
            let (node, worker, gathers) = label(*id);
            Line::Ended {
                t,
                node,
                worker,
                gathers,
                state: outcome.into(),
                reason: words::end_reason(plan, *id, outcome, *exit)
                    .map(|reason| redacted(secrets, reason)),
                exit: exit_code(outcome, *exit),
                signal: signal_name(*exit),
                early_close: matches!(outcome, Outcome::Succeeded { early_close: true }),
                leaked: *leaked,
                attempts: *attempts,
                wall: seconds(usage.wall),
                user: seconds(usage.user),
                system: seconds(usage.system),
                max_rss: usage.max_rss,
            }
        }
        What::WorkerStarted { unit, worker, pid } => Line::WorkerStarted {
            t,
            node: label(*unit).0,
            worker: *worker,
            pid: *pid,
        },
        What::WorkerEnded {
            unit,
            worker,
            exit,
            usage,
        } => {
            let (exit, signal) = match exit {
                Exit::Code(code) => (Some(*code), None),
                Exit::Signal { number, .. } => (None, Some(crate::report::units::signal(*number))),
            };
            Line::WorkerEnded {
                t,
                node: label(*unit).0,
                worker: *worker,
                exit,
                signal,
                wall: seconds(usage.wall),
                user: seconds(usage.user),
                system: seconds(usage.system),
                max_rss: usage.max_rss,
            }
        }
        What::PoolProgress { unit, counts } => Line::PoolProgress {
            t,
            node: label(*unit).0,
            counts: PoolLine::of(counts),
        },
        What::QueueProgress {
            queue,
            bytes,
            records,
            is_estimate,
            held,
            dropped,
        } => Line::QueueProgress {
            t,
            queue: &plan.queue(*queue).name,
            bytes: *bytes,
            records: *records,
            estimated: *is_estimate,
            held: *held,
            dropped: *dropped,
        },
        What::QueueEnded {
            queue,
            bytes,
            records,
            is_estimate,
            dropped,
            full,
            empty,
            ends: _,
        } => {
            let planned = plan.queue(*queue);
            let carried = planned.kind == QueueKind::Relayed && bytes.is_some();
            Line::QueueEnded {
                t,
                queue: &planned.name,
                bytes: *bytes,
                records: *records,
                estimated: *is_estimate,
                dropped: *dropped,
                full: carried.then(|| seconds(*full)),
                empty: carried.then(|| seconds(*empty)),
            }
        }
        What::Stalled { time, waits } => Line::Stalled {
            t,
            time: seconds(*time),
            waits: waits.iter().map(|wait| wait_line(plan, wait)).collect(),
        },
        What::RunStopping { cause } => Line::RunStopping {
            t,
            reason: words::cause(plan, cause),
        },
        What::RunEnded { exit } => Line::RunEnded {
            t,
            exit: exit.code(),
        },
    }
}

fn wait_line<'a>(plan: &'a Plan, wait: &Waiting) -> WaitLine<'a> {
    let Label { node, worker } = Label::of(plan, wait.unit);
    let (on, queue) = match wait.on {
        WaitsOn::Data(queue) => (WaitKind::Data, Some(queue)),
        WaitsOn::Room(queue) => (WaitKind::Room, Some(queue)),
        WaitsOn::Turn(queue) => (WaitKind::Turn, Some(queue)),
        WaitsOn::OwnPipe => (WaitKind::Pipe, None),
    };
    // Units of a node stand together.
    let mut of: Vec<&str> = wait
        .of
        .iter()
        .map(|&unit| Label::of(plan, unit).node)
        .collect();
    of.dedup();
    WaitLine {
        node,
        worker,
        on,
        queue: queue.map(|queue| &*plan.queue(queue).name),
        of,
    }
}

/// Appends an event as a JSON line, newline included.
pub fn write_line(out: &mut Vec<u8>, plan: &Plan, secrets: &Redactor, event: &RunEvent) {
    if let Err(e) = serde_json::to_writer(&mut *out, &line(plan, secrets, event)) {
        panic!("BUG: {event:?} is no JSON: {e}");
    }
    out.push(b'\n');
}

/// Where event lines go, buffered until [`EventLog::flush`].
#[derive(Debug)]
pub struct EventLog {
    name: String,
    out: File,
    buffer: Vec<u8>,
}

impl EventLog {
    /// Writes to `out`, which messages call `name`.
    pub fn new(name: impl Into<String>, out: File) -> Self {
        EventLog {
            name: name.into(),
            out,
            buffer: Vec::new(),
        }
    }

    /// Writes to the file of this name, made anew, or to standard output for `-` (`--events F`).
    ///
    /// # Errors
    /// Where it cannot be opened.
    pub fn open(target: &Path) -> io::Result<Self> {
        if target == Path::new("-") {
            let stdout = io::stdout().as_fd().try_clone_to_owned()?;
            return Ok(EventLog::new("standard output", File::from(stdout)));
        }
        Ok(EventLog::new(
            target.display().to_string(),
            File::create(target)?,
        ))
    }

    /// What messages call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Adds a line that [`write_line`] has made.
    pub fn push(&mut self, line: &[u8]) {
        self.buffer.extend_from_slice(line);
    }

    /// Writes what is buffered, in one write(2) where the file takes it.
    ///
    /// # Errors
    /// Where it cannot be written; what was buffered is then lost.
    pub fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let result = write_patiently(&mut self.out, &self.buffer);
        self.buffer.clear();
        result
    }
}

/// The JSON Schema of one line of `events.jsonl`.
pub fn schema_events() -> Schema {
    schema_generator().into_root_schema_for::<Line<'static>>()
}

/// Draft 7, which most tools know; for what is written, not for what is read.
pub(super) fn schema_generator() -> SchemaGenerator {
    schemars::generate::SchemaSettings::draft07()
        .for_serialize()
        .into_generator()
}
