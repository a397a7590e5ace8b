//! What flows through a node: how far it has come and how fast ([`Pace`]), and what went in and came out ([`Flow`]), told from
//! the queues that it reads and writes, or from what a pool counts by itself.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::plan::{self, Deliver, Feed, NodeId, Plan, QueueId, Role, Sink, Source, UnitId};
use crate::report::fed::Fed;
use crate::report::tally::{Passed, Passing, QueueEnd, Tally};

/// How far something that runs has come, and how fast.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Pace {
    /// Records so far.
    pub done: Option<u64>,
    /// That number is an estimate.
    pub is_estimate: bool,
    /// Records in all.
    pub total: Option<u64>,
    /// Records in a second, lately.
    pub records: Option<f64>,
    /// Bytes in a second, lately.
    pub bytes: Option<f64>,
    /// Records that failed every try.
    pub dead: u64,
    /// What is left will take so long if it goes on as so far.
    pub left: Option<Duration>,
}

/// What came in and what went out, where known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flow {
    /// In.
    pub input: Option<u64>,
    /// Out.
    pub output: Option<u64>,
    /// These numbers are estimates, or one of them is.
    pub is_estimate: bool,
}

impl Flow {
    /// Nothing is known.
    pub fn is_empty(&self) -> bool {
        self.input.is_none() && self.output.is_none()
    }
}

impl Tally {
    /// How far a node that runs has come; `None` where nobody counts. A pool that procflow feeds tells by itself; of all others
    /// it is known what passes through the queues that they read or, where they read none, write.
    pub fn pace(&self, plan: &Plan, node: NodeId, now: Duration) -> Option<Pace> {
        if let Some(fed) = self.fed(plan, node) {
            return self.fed_pace(plan, node, fed, now);
        }
        let sum = |side| {
            let mut paces = queues_of(plan, node, side)
                .into_iter()
                .filter_map(|id| Some(self.queue(id).passing.as_deref()?.pace(now)));
            let first = paces.next()?;
            Some(paces.fold(first, |one, other| Pace {
                done: sum_of_known(one.done, other.done),
                is_estimate: one.is_estimate || other.is_estimate,
                records: sum_of_known(one.records, other.records),
                bytes: sum_of_known(one.bytes, other.bytes),
                ..one
            }))
        };
        sum(Side::Reads).or_else(|| sum(Side::Writes))
    }

    fn fed_pace(&self, plan: &Plan, node: NodeId, fed: &Fed, now: Duration) -> Option<Pace> {
        let done = fed.done();
        let speed = fed.meter.speed(now)?;
        let has_input = plan
            .node(node)
            .pool
            .as_ref()
            .is_some_and(|pool| pool.tasks.is_none());
        let left = || {
            let time = now.saturating_sub(self.node(node).started?).as_secs_f64();
            let more = fed.counts.total?.checked_sub(done)?;
            // Before the first is done there is nothing to go by, and while nothing moves it would be a lie.
            (done > 0 && speed.records > 0.0).then_some(())?;
            Duration::try_from_secs_f64(time / done as f64 * more as f64).ok()
        };
        Some(Pace {
            done: Some(done),
            is_estimate: false,
            total: fed.counts.total,
            records: Some(speed.records),
            bytes: has_input.then_some(speed.bytes),
            dead: fed.counts.dead,
            left: left(),
        })
    }

    /// Bytes that went into a node and came out of it: what a pool counted, and what passed through queues. The sum over those
    /// that are known, nothing where none is.
    pub fn bytes(&self, plan: &Plan, node: NodeId) -> Flow {
        if let Some(fed) = self.fed(plan, node) {
            return Flow {
                input: Some(fed.counts.taken_bytes),
                output: Some(fed.counts.result_bytes),
                is_estimate: false,
            };
        }
        self.flow(plan, node, |planned, passed, side| {
            passed.bytes_of(plan, planned, node, side)
        })
    }

    /// As [`Tally::bytes`], in records: where all of a queue are this node's, or copied to it, and it has taken all of them.
    pub fn records(&self, plan: &Plan, node: NodeId) -> Flow {
        if let Some(fed) = self.fed(plan, node) {
            let feed = plan.node(node).pool.as_ref().map(|pool| pool.feed);
            return Flow {
                input: Some(fed.counts.taken),
                // What a task prints may be any number of records, an answer is one.
                output: (feed == Some(Feed::Request)).then_some(fed.counts.answered),
                is_estimate: false,
            };
        }
        let sides = [Side::Reads, Side::Writes];
        let mut queues = sides
            .into_iter()
            .flat_map(|side| queues_of(plan, node, side));
        let is_estimate = queues.any(|id| {
            let passed = self.queue(id).passed.as_deref();
            passed.is_some_and(|passed| passed.is_estimate)
        });
        let flow = self.flow(plan, node, |planned, passed, side| {
            passed.records_of(plan, planned, node, side)
        });
        Flow {
            is_estimate,
            ..flow
        }
    }

    /// Sums what `count` knows of each queue that the node has an end of.
    fn flow(
        &self,
        plan: &Plan,
        node: NodeId,
        count: impl Fn(&plan::Queue, &Passed, Side) -> Option<u64>,
    ) -> Flow {
        let sum = |side| {
            queues_of(plan, node, side)
                .into_iter()
                .filter_map(|id| count(plan.queue(id), self.queue(id).passed.as_deref()?, side))
                .reduce(u64::saturating_add)
        };
        Flow {
            input: sum(Side::Reads),
            output: sum(Side::Writes),
            is_estimate: false,
        }
    }
}

impl Passed {
    /// Its ends: those of its writers, those of its readers. One that reads what it writes is among both.
    pub fn sides(&self, planned: &plan::Queue) -> (&[QueueEnd], &[QueueEnd]) {
        let mut seen = BTreeSet::new();
        let writers = self
            .ends
            .iter()
            .take_while(|(unit, _)| planned.writers.contains(unit) && seen.insert(*unit))
            .count();
        self.ends.split_at(writers)
    }

    /// Bytes that passed the ends of this node.
    fn bytes_of(
        &self,
        plan: &Plan,
        planned: &plan::Queue,
        node: NodeId,
        side: Side,
    ) -> Option<u64> {
        let (writers, readers) = self.sides(planned);
        let ends = match side {
            Side::Reads => readers,
            Side::Writes => writers,
        };
        let units = &plan.node(node).units;
        ends.iter()
            .filter(|(unit, _)| units.contains(&unit.0))
            .map(|&(_, bytes)| bytes)
            .reduce(u64::saturating_add)
    }

    /// Records that passed the ends of this node, where that follows from what passed all of them.
    fn records_of(
        &self,
        plan: &Plan,
        planned: &plan::Queue,
        node: NodeId,
        side: Side,
    ) -> Option<u64> {
        let records = self.records?;
        let ends = match side {
            Side::Reads => &planned.readers,
            Side::Writes => &planned.writers,
        };
        let units = &plan.node(node).units;
        let own = ends.iter().filter(|unit| units.contains(&unit.0)).count();
        if side == Side::Writes {
            return (own == ends.len()).then_some(records);
        }
        let copies = match planned.deliver {
            Deliver::Copy => own as u64,
            _ if own == ends.len() => 1,
            _ => return None,
        };
        // One that left before the end has not taken all; of how many records its bytes were is not known.
        let all = self.bytes?.saturating_mul(copies);
        let took_all = self.dropped > 0 || self.bytes_of(plan, planned, node, side)? >= all;
        took_all.then(|| (records - self.dropped.min(records)).saturating_mul(copies))
    }
}

impl Passing {
    fn pace(&self, now: Duration) -> Pace {
        let speed = self.meter.speed(now);
        Pace {
            done: self.records,
            is_estimate: self.is_estimate,
            records: speed
                .filter(|_| self.records.is_some())
                .map(|speed| speed.records),
            bytes: speed.map(|speed| speed.bytes),
            ..Pace::default()
        }
    }
}

/// Which ends of queues are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Reads,
    Writes,
}

/// The queues that a node has such an end of; each once. What the workers of a pool hand to its gathering is what the pool
/// writes, and nothing that it reads.
fn queues_of(plan: &Plan, node: NodeId, side: Side) -> Vec<QueueId> {
    let units = plan
        .node(node)
        .units
        .clone()
        .map(|id| plan.unit(UnitId(id)));
    let mut queues = Vec::new();
    for unit in units.filter(|unit| unit.role != Role::Gather) {
        match side {
            Side::Reads => {
                let sources = unit.ends.inputs.iter().flat_map(|input| &input.from);
                queues.extend(sources.filter_map(|(_, source)| match source {
                    Source::Queue(queue) => Some(*queue),
                    _ => None,
                }));
            }
            Side::Writes => {
                let sinks = unit.ends.outputs.iter().flat_map(|output| &output.to);
                queues.extend(sinks.filter_map(|sink| match sink {
                    Sink::Queue(queue) => Some(*queue),
                    _ => None,
                }));
            }
        }
    }
    queues.sort_unstable();
    queues.dedup();
    queues
}

fn sum_of_known<T: std::ops::Add<Output = T>>(one: Option<T>, other: Option<T>) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one + other),
        (one, other) => one.or(other),
    }
}
