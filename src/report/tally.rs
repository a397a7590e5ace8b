//! [`Tally`]: what has happened so far, by node, unit and queue: the one place where events are added up. Lines, bars, the
//! table and the report all read it.
//!
//! Events tell of units; people think in nodes. A node is what its units are: see [`NodeEnd`].

use std::time::Duration;

use crate::event::{Cause, Exit, Failure, Outcome, RunEvent, Usage, What};
use crate::exit::ExitCode;
use crate::plan::{NodeId, Plan, QueueId, QueueKind, Role, UnitId};
use crate::report::fed::{Fed, ended_ill, together};
use crate::report::meter::{Meter, Moved};

/// What has happened so far.
#[derive(Debug, Clone)]
pub struct Tally {
    /// The run as its first event names it.
    pub run: Run,
    /// One for each node of the plan.
    pub nodes: Vec<Node>,
    /// One for each unit of the plan.
    pub units: Vec<Unit>,
    /// One for each queue of the plan: bytes and records, where known.
    pub queues: Vec<Queue>,
    /// Nodes by state.
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

/// What has happened to a node.
#[derive(Debug, Clone, Copy, Default)]
pub struct Node {
    /// Since when it runs, or ran last.
    pub started: Option<Duration>,
    /// Its units that run.
    running: u32,
    /// Its units that have ended for good.
    ended: u32,
    /// The first of its units that failed.
    failed_first: Option<UnitId>,
}

impl Node {
    /// Something of it runs.
    pub fn runs(&self) -> bool {
        self.running > 0
    }
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
    /// How long its last try took until it was ready, where it is a service and has been.
    pub ready_after: Option<Duration>,
    /// Boxed: a plan of 100,000 units has a tally before the first has ended.
    pub end: Option<Box<End>>,
    /// What its last try has done, where it is a pool that procflow feeds.
    pub fed: Option<Box<Fed>>,
    /// Its tries that failed and were followed by another. Tries that ended because of another of their group are not among them.
    pub failed_tries: Vec<FailedTry>,
}

/// See [`What::Retrying`].
#[derive(Debug, Clone)]
pub struct FailedTry {
    /// From 1.
    pub attempt: u32,
    /// Its start.
    pub started: Duration,
    /// When nothing of its group ran any more.
    pub ended: Duration,
    /// Why.
    pub failure: Failure,
    /// The end of its standard error.
    pub stderr_tail: Vec<u8>,
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

/// What has happened to a queue. Boxed: of most, bare pipes, nobody ever counts anything.
#[derive(Debug, Clone, Default)]
pub struct Queue {
    /// While it lives.
    pub passing: Option<Box<Passing>>,
    /// When it has ended.
    pub passed: Option<Box<Passed>>,
}

/// What passes through a queue that lives: see [`What::QueueProgress`].
#[derive(Debug, Clone)]
pub struct Passing {
    /// Records so far.
    pub records: Option<u64>,
    /// That number is an estimate.
    pub is_estimate: bool,
    /// What has passed lately.
    pub meter: Meter,
}

/// What passed through a queue: see [`What::QueueEnded`].
#[derive(Debug, Clone, Default)]
pub struct Passed {
    /// Bytes that came from its writers.
    pub bytes: Option<u64>,
    /// Records.
    pub records: Option<u64>,
    /// That number is an estimate.
    pub is_estimate: bool,
    /// Bytes from each writer and to each reader.
    pub ends: Vec<QueueEnd>,
    /// Records that were dropped.
    pub dropped: u64,
    /// From the start of the first that has an end of it to its own end.
    pub life: Duration,
    /// How long it was full, and how long empty; only where procflow carried it.
    pub waited: Option<Waited>,
}

/// A unit's end of a queue, and the bytes that passed it.
pub type QueueEnd = (UnitId, u64);

/// What a queue kept waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waited {
    /// For so long its writers: it held records that no reader took.
    pub full: Duration,
    /// For so long its readers: there was nothing to hand on.
    pub empty: Duration,
}

/// How a node ended: the ends of its units in one.
///
/// It has failed where one of them has, cancelled where one was, and succeeded where all of them did. What there is only one
/// of (outcome, status, the end of standard error) is that of the unit that decides: the first that failed, or was cancelled.
#[derive(Debug, Clone, Copy)]
pub struct NodeEnd<'t> {
    /// The unit that decides.
    pub unit: UnitId,
    /// When the last ended.
    pub at: Duration,
    /// How.
    pub outcome: &'t Outcome,
    /// Something of it was started.
    pub ran: bool,
    /// The status of the process that decides.
    pub exit: Option<Exit>,
    /// The most tries that one of them had.
    pub attempts: u32,
    /// From the first start to the last end; CPU time summed; the largest peak.
    pub usage: Usage,
    /// Processes were left.
    pub leaked: bool,
    /// The end of its standard error.
    pub stderr_tail: &'t [u8],
}

/// How many nodes are in which state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// All of the plan.
    pub total: usize,
    /// Something of them runs.
    pub running: usize,
    /// See [`Outcome`].
    pub succeeded: usize,
    /// See [`Outcome`]; those that may fail are among them.
    pub failed: usize,
    /// See [`Outcome`].
    pub cancelled: usize,
    /// See [`Outcome`].
    pub skipped: usize,
    /// See [`Outcome`].
    pub reused: usize,
}

impl Counts {
    /// Those that have ended for good.
    pub fn ended(&self) -> usize {
        self.succeeded + self.failed + self.cancelled + self.skipped + self.reused
    }

    /// `: 10 succeeded, 1 failed`: how many are in each state that some are in, numbers as `number` writes them. Nothing where all
    /// have succeeded.
    pub fn by_state(&self, number: impl Fn(usize) -> String) -> String {
        if self.succeeded == self.total {
            return String::new();
        }
        let states = [
            (self.succeeded, "succeeded"),
            (self.failed, "failed"),
            (self.cancelled, "cancelled"),
            (self.skipped, "skipped"),
            (self.reused, "reused"),
            (self.running, "running"),
        ];
        let mut text = String::new();
        for (count, state) in states.into_iter().filter(|(count, _)| *count > 0) {
            text += if text.is_empty() { ": " } else { ", " };
            text += &number(count);
            text.push(' ');
            text += state;
        }
        text
    }
}

impl Tally {
    /// Nothing has happened yet.
    pub fn new(plan: &Plan) -> Self {
        Tally {
            run: Run::default(),
            nodes: vec![Node::default(); plan.nodes.len()],
            units: vec![Unit::default(); plan.units.len()],
            queues: vec![Queue::default(); plan.queues.len()],
            counts: Counts {
                total: plan.nodes.len(),
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

    /// What is known of a node.
    ///
    /// # Panics
    /// Where it is not in the plan.
    pub fn node(&self, node: NodeId) -> &Node {
        match self.nodes.get(node.index()) {
            Some(node) => node,
            None => panic!("BUG: {node:?} is not in the plan"),
        }
    }

    fn unit_mut(&mut self, unit: UnitId) -> &mut Unit {
        match self.units.get_mut(unit.index()) {
            Some(unit) => unit,
            None => panic!("BUG: {unit:?} is not in the plan"),
        }
    }

    fn node_mut(&mut self, node: NodeId) -> &mut Node {
        match self.nodes.get_mut(node.index()) {
            Some(node) => node,
            None => panic!("BUG: {node:?} is not in the plan"),
        }
    }

    /// What is known of a queue.
    ///
    /// # Panics
    /// Where it is not in the plan.
    pub fn queue(&self, queue: QueueId) -> &Queue {
        match self.queues.get(queue.index()) {
            Some(queue) => queue,
            None => panic!("BUG: {queue:?} is not in the plan"),
        }
    }

    fn queue_mut(&mut self, queue: QueueId) -> &mut Queue {
        match self.queues.get_mut(queue.index()) {
            Some(queue) => queue,
            None => panic!("BUG: {queue:?} is not in the plan"),
        }
    }

    /// Adds a fact.
    pub fn add(&mut self, plan: &Plan, event: &RunEvent) {
        match &event.what {
            What::RunStarted {
                id,
                pipeline: _,
                file: _,
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
                self.started(plan, event.at, *unit, *attempt, *pid);
            }
            What::Ready { unit } => {
                let unit = self.unit_mut(*unit);
                unit.ready_after = unit.started.map(|started| event.at.saturating_sub(started));
            }
            What::Stopping { .. } | What::Stalled { .. } => {}
            What::WorkerStarted { unit, worker, pid } => {
                if let Some(fed) = &mut self.unit_mut(*unit).fed {
                    fed.worker_started(event.at, *worker, *pid);
                }
            }
            What::WorkerEnded {
                unit,
                worker,
                exit,
                usage,
            } => {
                if let Some(fed) = &mut self.unit_mut(*unit).fed {
                    fed.worker_ended(event.at, *worker, *exit, usage);
                    if ended_ill(&plan.unit(*unit).settings, *exit) {
                        fed.failed_last = Some(*exit);
                    }
                }
            }
            What::PoolProgress { unit, counts } => {
                if let Some(fed) = &mut self.unit_mut(*unit).fed {
                    fed.progress(event.at, *counts);
                }
            }
            What::QueueProgress {
                queue,
                bytes,
                records,
                is_estimate,
                ..
            } => {
                let moved = Moved {
                    bytes: *bytes,
                    records: records.unwrap_or(0),
                };
                let passing = self.queue_moved(plan, event.at, *queue, moved);
                (passing.records, passing.is_estimate) = (*records, *is_estimate);
            }
            What::Retrying {
                unit,
                attempt,
                failure,
                delay: _,
                stderr_tail,
            } => {
                let started = self.unit(*unit).started.unwrap_or(event.at);
                self.unit_mut(*unit).failed_tries.push(FailedTry {
                    attempt: *attempt,
                    started,
                    ended: event.at,
                    failure: failure.clone(),
                    stderr_tail: stderr_tail.clone(),
                });
                // Told when nothing of its group runs any more.
                for unit in &plan.group(plan.unit(*unit).group).units {
                    self.stopped_running(plan, *unit);
                    self.unit_mut(*unit).started = None;
                }
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
                let end = End {
                    at: event.at,
                    outcome: outcome.clone(),
                    exit: *exit,
                    attempts: *attempts,
                    usage: *usage,
                    leaked: *leaked,
                    stderr_tail: stderr_tail.clone(),
                };
                self.unit_ended(plan, *unit, end);
            }
            What::QueueEnded {
                queue,
                bytes,
                records,
                is_estimate,
                ends,
                dropped,
                full,
                empty,
            } => {
                let planned = plan.queue(*queue);
                let carried = planned.kind == QueueKind::Relayed && bytes.is_some();
                let life = event.at.saturating_sub(self.began(plan, *queue));
                let passed = bytes.is_some().then(|| {
                    Box::new(Passed {
                        bytes: *bytes,
                        records: *records,
                        is_estimate: *is_estimate,
                        ends: ends.clone(),
                        dropped: *dropped,
                        life,
                        waited: carried.then_some(Waited {
                            full: *full,
                            empty: *empty,
                        }),
                    })
                });
                *self.queue_mut(*queue) = Queue {
                    passing: None,
                    passed,
                };
            }
            What::RunStopping { cause } => {
                self.stopping.get_or_insert_with(|| cause.clone());
            }
            What::RunEnded { exit } => self.ended = Some((event.at, *exit)),
        }
    }

    fn started(&mut self, plan: &Plan, at: Duration, id: UnitId, attempt: u32, pid: Option<i32>) {
        let planned = plan.unit(id);
        let unit = self.unit_mut(id);
        let was_running = unit.running_since().is_some();
        unit.first_started.get_or_insert(at);
        unit.started = Some(at);
        unit.pid = pid;
        unit.attempt = attempt;
        unit.ready_after = None;
        if planned.role == Role::Pool {
            unit.fed = Some(Box::new(Fed::since(at)));
        }
        if was_running {
            return;
        }
        let node = self.node_mut(planned.node);
        node.running += 1;
        if node.running == 1 {
            node.started = Some(at);
            self.counts.running += 1;
        }
    }

    /// Takes a unit out of those that run, if it does.
    fn stopped_running(&mut self, plan: &Plan, unit: UnitId) {
        if self.unit(unit).running_since().is_none() {
            return;
        }
        let node = self.node_mut(plan.unit(unit).node);
        node.running -= 1;
        if node.running == 0 {
            self.counts.running -= 1;
        }
    }

    fn unit_ended(&mut self, plan: &Plan, id: UnitId, end: End) {
        self.stopped_running(plan, id);
        let failed = matches!(end.outcome, Outcome::Failed(_));
        self.unit_mut(id).end = Some(Box::new(end));
        let node_id = plan.unit(id).node;
        let node = self.node_mut(node_id);
        node.ended += 1;
        if failed {
            node.failed_first.get_or_insert(id);
        }
        let Some(end) = self.node_end(plan, node_id) else {
            return;
        };
        let count = match end.outcome {
            Outcome::Succeeded { .. } => &mut self.counts.succeeded,
            Outcome::Failed(_) => &mut self.counts.failed,
            Outcome::Cancelled(_) => &mut self.counts.cancelled,
            Outcome::Skipped(_) => &mut self.counts.skipped,
            Outcome::Reused => &mut self.counts.reused,
        };
        *count += 1;
    }

    /// When the first of those that have an end of a queue was started.
    fn began(&self, plan: &Plan, queue: QueueId) -> Duration {
        let queue = plan.queue(queue);
        let ends = queue.writers.iter().chain(&queue.readers);
        ends.filter_map(|unit| self.unit(*unit).started)
            .min()
            .unwrap_or_default()
    }

    fn queue_moved(
        &mut self,
        plan: &Plan,
        at: Duration,
        id: QueueId,
        moved: Moved,
    ) -> &mut Passing {
        let began = self.began(plan, id);
        let passing = self.queue_mut(id).passing.get_or_insert_with(|| {
            Box::new(Passing {
                records: None,
                is_estimate: false,
                meter: Meter::since(began),
            })
        });
        passing.meter.add(at, moved);
        passing
    }

    /// How a node ended; `None` before all of its units have.
    pub fn node_end(&self, plan: &Plan, id: NodeId) -> Option<NodeEnd<'_>> {
        let (node, units) = (self.node(id), &plan.node(id).units);
        if node.ended < units.end - units.start {
            return None;
        }
        let ends = || {
            units
                .clone()
                .map(UnitId)
                .filter_map(|unit| self.ended(unit))
        };
        let (unit, end) = match node.failed_first {
            Some(unit) => self.ended(unit)?,
            // The one that decides stands for all; of equals, the first.
            None => ends().min_by_key(|(_, end)| match end.outcome {
                Outcome::Failed(_) => 0,
                // That of another worker is the pool's.
                Outcome::Cancelled(Cause::Pool(_)) => 2,
                Outcome::Cancelled(_) => 1,
                Outcome::Skipped(_) => 3,
                Outcome::Succeeded { early_close: true } => 4,
                Outcome::Succeeded { early_close: false } => 5,
                Outcome::Reused => 6,
            })?,
        };
        let fed = self.unit(unit).fed.as_deref();
        Some(NodeEnd {
            unit,
            at: ends().map(|(_, end)| end.at).max()?,
            outcome: &end.outcome,
            ran: ends().any(|(unit, _)| self.unit(unit).first_started.is_some()),
            // A pool that procflow feeds is no process: where it failed, the worker that failed last has a status to show, if any
            // did; else what a shell would exit with.
            exit: match (fed, &end.outcome) {
                (Some(fed), Outcome::Failed(_)) => fed.failed_last.or(end.exit),
                _ => end.exit,
            },
            attempts: ends().map(|(_, end)| end.attempts).max()?,
            usage: self.node_usage(ends())?,
            leaked: ends().any(|(_, end)| end.leaked),
            stderr_tail: &end.stderr_tail,
        })
    }

    /// How a unit ended; `None` before it has.
    fn ended(&self, unit: UnitId) -> Option<(UnitId, &End)> {
        Some((unit, self.unit(unit).end.as_deref()?))
    }

    fn node_usage<'t>(&self, ends: impl Iterator<Item = (UnitId, &'t End)>) -> Option<Usage> {
        // With the moment of its start, for the time from the first start to the last end.
        let used = ends.map(|(unit, end)| {
            let start = self.unit(unit).started.unwrap_or(end.at);
            (start, start + end.usage.wall, self.usage(unit, end))
        });
        let (start, end, usage) = used.reduce(|(start, end, usage), other| {
            (
                start.min(other.0),
                end.max(other.1),
                together(&usage, &other.2),
            )
        })?;
        Some(Usage {
            wall: end - start,
            ..usage
        })
    }

    /// What a unit has used. A pool that procflow feeds is told of as a whole; where it is not, its workers are.
    pub fn usage(&self, unit: UnitId, end: &End) -> Usage {
        let told = end.usage;
        match &self.unit(unit).fed {
            Some(fed) if told.user + told.system == Duration::ZERO => {
                let workers = fed.workers.values().map(|worker| &worker.usage);
                Usage {
                    wall: told.wall,
                    ..workers.fold(told, |sum, usage| together(&sum, usage))
                }
            }
            _ => told,
        }
    }

    /// A peak of memory, unless it is no more than procflow's own, which hides it.
    pub fn peak(&self, usage: &Usage) -> Option<u64> {
        (usage.max_rss > self.own_peak).then_some(usage.max_rss)
    }

    /// A node's tries that failed and were followed by another, by when they ended.
    pub fn failed_tries(&self, plan: &Plan, node: NodeId) -> Vec<(UnitId, &FailedTry)> {
        let units = plan.node(node).units.clone().map(UnitId);
        let mut tries: Vec<_> = units
            .flat_map(|unit| self.unit(unit).failed_tries.iter().map(move |t| (unit, t)))
            .collect();
        tries.sort_by_key(|(_, failed)| failed.ended);
        tries
    }

    /// It has succeeded after it had failed: by chance, perhaps. A service, which may be restarted for that, is not meant.
    pub fn is_flaky(&self, plan: &Plan, node: NodeId, end: &NodeEnd<'_>) -> bool {
        matches!(end.outcome, Outcome::Succeeded { .. })
            && plan.node(node).service.is_none()
            && plan
                .node(node)
                .units
                .clone()
                .any(|unit| !self.unit(UnitId(unit)).failed_tries.is_empty())
    }

    /// What a pool that procflow feeds has done.
    pub fn fed(&self, plan: &Plan, node: NodeId) -> Option<&Fed> {
        let first = UnitId(plan.node(node).units.start);
        self.unit(first).fed.as_deref()
    }
}
