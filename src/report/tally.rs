//! [`Tally`]: what has happened so far, by unit and queue: the one place where events are added up. Lines, bars, the table and
//! the report all read it.

use std::time::Duration;

use crate::event::{Cause, Exit, Outcome, RunEvent, Usage, What};
use crate::exit::ExitCode;
use crate::plan::{Plan, UnitId};

/// What has happened so far.
#[derive(Debug, Clone)]
pub struct Tally {
    /// The run as its first event names it.
    pub run: Run,
    /// One for each unit of the plan.
    pub units: Vec<Unit>,
    /// One for each queue of the plan: bytes and records, where known.
    pub queues: Vec<Queue>,
    /// Units by state.
    pub counts: Counts,
    /// Why the run stops, where it does.
    pub stopping: Option<Cause>,
    /// When and how it ended.
    pub ended: Option<(Duration, ExitCode)>,
    /// procflow's own peak of resident memory in bytes, told at the end; a child's peak is never below it (see
    /// [`Usage::max_rss`]).
    pub own_peak: u64,
}

/// See [`What::RunStarted`].
#[derive(Debug, Clone, Default)]
pub struct Run {
    /// Its id.
    pub id: String,
    /// Since 1970.
    pub time: Duration,
    /// procflow's.
    pub pid: i32,
    /// Job slots.
    pub jobs: u32,
}

/// What has happened to a unit.
#[derive(Debug, Clone, Default)]
pub struct Unit {
    /// Start of its first try.
    pub first_started: Option<Duration>,
    /// Start of its last try.
    pub started: Option<Duration>,
    /// Its last try's process.
    pub pid: Option<i32>,
    /// Its last try, from 1.
    pub attempt: u32,
    /// Boxed: a plan of 100,000 units has a tally before the first has ended.
    pub end: Option<Box<End>>,
}

impl Unit {
    /// A process of it runs, since then.
    pub fn running_since(&self) -> Option<Duration> {
        if self.end.is_some() {
            None
        } else {
            self.started
        }
    }
}

/// See [`What::Ended`].
#[derive(Debug, Clone)]
pub struct End {
    /// When.
    pub at: Duration,
    /// How.
    pub outcome: Outcome,
    /// Its process's status.
    pub exit: Option<Exit>,
    /// Tries.
    pub attempts: u32,
    /// Of the last try.
    pub usage: Usage,
    /// Processes were left.
    pub leaked: bool,
    /// The end of its standard error.
    pub stderr_tail: Vec<u8>,
}

/// See [`What::QueueEnded`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Queue {
    /// Bytes that came from its writers.
    pub bytes: Option<u64>,
    /// Records.
    pub records: Option<u64>,
    /// Bytes from each writer and to each reader.
    pub ends: Vec<(UnitId, u64)>,
}

/// How many units are in which state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// All of the plan.
    pub total: usize,
    /// With a process.
    pub running: usize,
    /// See [`Outcome`].
    pub succeeded: usize,
    /// See [`Outcome`]; those that may fail are among them.
    pub failed: usize,
    /// See [`Outcome`].
    pub cancelled: usize,
    /// See [`Outcome`].
    pub skipped: usize,
}

impl Counts {
    /// Those that have ended for good.
    pub fn ended(&self) -> usize {
        self.succeeded + self.failed + self.cancelled + self.skipped
    }
}

impl Tally {
    /// Nothing has happened yet.
    pub fn new(plan: &Plan) -> Self {
        Tally {
            run: Run::default(),
            units: vec![Unit::default(); plan.units.len()],
            queues: vec![Queue::default(); plan.queues.len()],
            counts: Counts {
                total: plan.units.len(),
                ..Counts::default()
            },
            stopping: None,
            ended: None,
            own_peak: 0,
        }
    }

    /// What is known of a unit.
    ///
    /// # Panics
    /// Where it is not in the plan.
    pub fn unit(&self, unit: UnitId) -> &Unit {
        match self.units.get(unit.index()) {
            Some(unit) => unit,
            None => panic!("BUG: {unit:?} is not in the plan"),
        }
    }

    fn unit_mut(&mut self, unit: UnitId) -> &mut Unit {
        match self.units.get_mut(unit.index()) {
            Some(unit) => unit,
            None => panic!("BUG: {unit:?} is not in the plan"),
        }
    }

    /// Adds a fact.
    pub fn add(&mut self, event: &RunEvent) {
        match &event.what {
            What::RunStarted {
                id,
                pipeline: _,
                time,
                pid,
                jobs,
            } => {
                self.run = Run {
                    id: id.clone(),
                    time: *time,
                    pid: *pid,
                    jobs: *jobs,
                };
            }
            What::Started { unit, attempt, pid } => {
                let unit = self.unit_mut(*unit);
                let was_running = unit.running_since().is_some();
                unit.first_started.get_or_insert(event.at);
                unit.started = Some(event.at);
                unit.pid = *pid;
                unit.attempt = *attempt;
                self.counts.running += usize::from(!was_running);
            }
            What::Stopping { .. }
            | What::WorkerStarted { .. }
            | What::WorkerEnded { .. }
            | What::PoolProgress { .. }
            | What::QueueProgress { .. }
            | What::Stalled { .. } => {}
            What::Retrying { unit, .. } => {
                let unit = self.unit_mut(*unit);
                let was_running = unit.running_since().is_some();
                unit.started = None;
                self.counts.running -= usize::from(was_running);
            }
            What::Ended {
                unit,
                outcome,
                exit,
                attempts,
                usage,
                leaked,
                stderr_tail,
            } => {
                let record = self.unit_mut(*unit);
                let was_running = record.running_since().is_some();
                record.end = Some(Box::new(End {
                    at: event.at,
                    outcome: outcome.clone(),
                    exit: *exit,
                    attempts: *attempts,
                    usage: *usage,
                    leaked: *leaked,
                    stderr_tail: stderr_tail.clone(),
                }));
                self.counts.running -= usize::from(was_running);
                let count = match outcome {
                    Outcome::Succeeded { .. } => &mut self.counts.succeeded,
                    Outcome::Failed(_) => &mut self.counts.failed,
                    Outcome::Cancelled(_) => &mut self.counts.cancelled,
                    Outcome::Skipped(_) => &mut self.counts.skipped,
                };
                *count += 1;
            }
            What::QueueEnded {
                queue,
                bytes,
                records,
                ends,
                ..
            } => {
                if let Some(queue) = self.queues.get_mut(queue.index()) {
                    *queue = Queue {
                        bytes: *bytes,
                        records: *records,
                        ends: ends.clone(),
                    };
                }
            }
            What::RunStopping { cause } => {
                self.stopping.get_or_insert_with(|| cause.clone());
            }
            What::RunEnded { exit } => self.ended = Some((event.at, *exit)),
        }
    }

    /// A unit's peak memory, unless it is no more than procflow's own, which hides it.
    pub fn peak(&self, end: &End) -> Option<u64> {
        (end.usage.max_rss > self.own_peak).then_some(end.usage.max_rss)
    }

    /// Bytes that went into a unit and came out of it by queues: the sum over those that are known, nothing where none is.
    pub fn flow(&self, plan: &Plan, unit: UnitId) -> (Option<u64>, Option<u64>) {
        let sum = |ends: fn(&crate::plan::Queue) -> &[UnitId]| {
            let group = plan
                .units
                .get(unit.index())
                .and_then(|u| plan.groups.get(u.group.index()))?;
            let queues = group.queues.iter().filter(|q| {
                plan.queues
                    .get(q.index())
                    .is_some_and(|queue| ends(queue).contains(&unit))
            });
            queues
                .filter_map(|q| {
                    let ends = &self.queues.get(q.index())?.ends;
                    ends.iter()
                        .find(|(end, _)| *end == unit)
                        .map(|&(_, bytes)| bytes)
                })
                .reduce(u64::saturating_add)
        };
        (sum(|queue| &queue.readers), sum(|queue| &queue.writers))
    }
}
