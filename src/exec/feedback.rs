//! Ends cycles of pools: a queue that leads back to its own writers never ends by itself (spec 2.6).
//!
//! A cycle is over when its other writers have ended, its queues are empty, and no pool on it has anything in hand. Each of these
//! is seen by another thread, and none at the same moment. But all of them count, and no count ever falls:
//!
//! ```text
//!        written                in     passed                out              taken
//!   pool ───────▶ writer's pipe ──▶ relay ──▶ reader's pipe ─────▶ pool (idle) ─────▶
//! ```
//!
//! A pool says what it has taken and written at a moment at which it has nothing in hand. Where these are the same numbers as
//! the relays' along the whole cycle, nothing is between the two; and nothing can come up, since whatever does comes from a
//! pool that has taken something, which it then would have to count.

use std::collections::HashMap;
use std::time::Duration;

use petgraph::algo::tarjan_scc;
use petgraph::graph::DiGraph;

use crate::exec::deadlines::Due;
use crate::exec::questions::LeftOut;
use crate::exec::relays::Carries;
use crate::exec::runner::Runner;
use crate::exec::wiring::Wiring;
use crate::plan::{DEAD_LETTER, Deliver, Plan, QueueId, Role, Sink, UnitId};
use crate::pool::Idle;
use crate::queue::Count;

/// How soon it is looked again where all pools of a cycle have been idle and it is not over: a relay is about to hand something
/// on, or a writer's last bytes are about to be seen. (Who counts last has nobody to tell; so it is looked.)
const SOON: Duration = Duration::from_millis(5);

/// How late at most: a pool may have got something to do for hours, and will say when it is idle again.
const LATE: Duration = Duration::from_millis(500);

/// The cycles of a plan.
#[derive(Debug, Default)]
pub(super) struct Cycles {
    all: Vec<Cycle>,
    /// What each pool on a cycle said when it last had nothing in hand.
    idle: HashMap<UnitId, Idle>,
    /// How long to wait until the next look.
    pause: Duration,
}

/// Pools and queues, each of which leads to each other.
#[derive(Debug)]
struct Cycle {
    /// It was over, in this try of its group.
    ended: bool,
    pools: Vec<UnitId>,
    queues: Vec<QueueId>,
}

impl Cycles {
    /// Those on which nothing but pools are that procflow feeds. (Where processes converse, their queues end as they do.)
    pub(super) fn of(plan: &Plan, left_out: &LeftOut) -> Self {
        if !plan.queues.iter().any(|queue| queue.feedback) {
            return Cycles::default();
        }
        let mut graph = DiGraph::<Vertex, ()>::new();
        let units: Vec<_> = (0..plan.units.len())
            .map(|unit| graph.add_node(Vertex::Unit(UnitId::from(unit))))
            .collect();
        for (id, queue) in plan.queues.iter().enumerate() {
            let vertex = graph.add_node(Vertex::Queue(QueueId::from(id)));
            for writer in left_out.starts(plan, &queue.writers) {
                graph.add_edge(units[writer.index()], vertex, ());
            }
            for reader in left_out.starts(plan, &queue.readers) {
                graph.add_edge(vertex, units[reader.index()], ());
            }
        }
        let mut all = Vec::new();
        for component in tarjan_scc(&graph) {
            let mut cycle = Cycle {
                ended: false,
                pools: Vec::new(),
                queues: Vec::new(),
            };
            for vertex in component {
                match graph[vertex] {
                    Vertex::Unit(unit) => cycle.pools.push(unit),
                    Vertex::Queue(queue) => cycle.queues.push(queue),
                }
            }
            let is_fed = |unit: &UnitId| plan.unit(*unit).role == Role::Pool;
            if !cycle.queues.is_empty() && !cycle.pools.is_empty() && cycle.pools.iter().all(is_fed)
            {
                all.push(cycle);
            }
        }
        Cycles {
            all,
            idle: HashMap::new(),
            pause: SOON,
        }
    }

    /// One more node is left out: cycles that it was on are none, or smaller.
    pub(super) fn without(&mut self, plan: &Plan, left_out: &LeftOut) {
        if self.all.is_empty() {
            return;
        }
        let old = std::mem::replace(&mut self.all, Cycles::of(plan, left_out).all);
        for cycle in &mut self.all {
            let same = |old: &Cycle| old.pools.contains(&cycle.pools[0]);
            cycle.ended = old.iter().any(|old| same(old) && old.ended);
        }
    }

    /// A pool begins: what it said in an earlier try means nothing.
    pub(super) fn begin(&mut self, pool: UnitId) {
        self.idle.remove(&pool);
        let of_pool = |cycle: &&mut Cycle| cycle.pools.contains(&pool);
        for cycle in self.all.iter_mut().filter(of_pool) {
            cycle.ended = false;
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Vertex {
    Unit(UnitId),
    Queue(QueueId),
}

impl Runner<'_> {
    /// A pool has nothing in hand: perhaps nothing is in hand anywhere on its cycle.
    pub(super) fn pool_is_idle(&mut self, pool: UnitId, idle: Idle) {
        if self.cycles.all.is_empty() {
            return;
        }
        self.cycles.idle.insert(pool, idle);
        self.cycles.pause = SOON;
        self.look_at_cycles();
    }

    /// Ends the cycles that are over.
    pub(super) fn look_at_cycles(&mut self) {
        let mut again = false;
        for at in 0..self.cycles.all.len() {
            let cycle = &self.cycles.all[at];
            let group = cycle.pools.first().map(|pool| self.plan.unit(*pool).group);
            let wiring = group.and_then(|group| self.groups.get(&group));
            let Some(wiring) = wiring.filter(|_| !cycle.ended) else {
                continue;
            };
            match self.how_far(cycle, wiring) {
                HowFar::Busy => {}
                HowFar::Waits => again = true,
                HowFar::Over => self.end_cycle(at),
            }
        }
        if again {
            let pause = self.cycles.pause;
            self.deadlines.arm(Due::Cycles, self.clock.now() + pause);
            self.cycles.pause = (pause * 2).min(LATE);
        }
    }

    fn how_far(&self, cycle: &Cycle, wiring: &Wiring) -> HowFar {
        let Cycles { idle, .. } = &self.cycles;
        if !cycle.pools.iter().all(|pool| idle.contains_key(pool)) {
            return HowFar::Busy;
        }
        let mut others = HowFar::Over;
        for &queue in &cycle.queues {
            let writers = self
                .left_out
                .starts(self.plan, &self.plan.queue(queue).writers);
            // One that works may work for hours: its end will be told.
            let open =
                |writer: &UnitId| !cycle.pools.contains(writer) && wiring.holds_for(queue, *writer);
            if writers.iter().any(open) {
                return HowFar::Busy;
            }
            if !self.is_even(cycle, queue) {
                others = HowFar::Waits;
            }
        }
        others
    }

    /// What pools of the cycle have written to a queue is what they have taken from it, and nobody else has anything left for it.
    fn is_even(&self, cycle: &Cycle, queue: QueueId) -> bool {
        let planned = self.plan.queue(queue);
        let idle = |unit: &UnitId| {
            let known = cycle.pools.contains(unit);
            known.then(|| self.cycles.idle.get(unit)).flatten()
        };
        let readers = self.left_out.starts(self.plan, &planned.readers);
        let Some((carries, counts)) = self.relays.carrying(queue) else {
            // A bare pipe from one to the other.
            let written = planned.writers.first().and_then(|writer| {
                let written = idle(writer)?;
                written_to(self.plan, *writer, queue, written)
            });
            let taken = readers.first().and_then(idle).map(|idle| idle.taken_bytes);
            return written == taken;
        };
        let Carries::Queue(_, writers) = carries else {
            return false;
        };
        let mut inputs = writers.iter().zip(&counts.inputs);
        let mut outputs = readers.iter().zip(&counts.outputs);
        // A terminator that was missing may have been added, so more may have come out than went in.
        let brought: u64 = counts.inputs.iter().map(|count| count.bytes).sum();
        let wanted = brought.saturating_sub(counts.dropped.bytes + counts.lost.bytes);
        let given = |output: &(&UnitId, &Count)| output.1.bytes;
        let has_left = match planned.deliver {
            // One that is not on the cycle may have gone early.
            Deliver::Copy => outputs
                .clone()
                .filter(|(reader, _)| cycle.pools.contains(reader))
                .all(|output| given(&output) >= wanted),
            _ => outputs.clone().map(|output| given(&output)).sum::<u64>() >= wanted,
        };
        has_left
            && counts.held == 0
            && inputs.all(|(writer, count)| match idle(writer) {
                Some(idle) => {
                    written_to(self.plan, *writer, queue, idle) == Some(count.bytes)
                        && count.passed == count.bytes
                }
                None => count.done,
            })
            && outputs.all(|(reader, count)| {
                idle(reader).is_none_or(|idle| idle.taken_bytes == count.bytes)
            })
    }

    fn end_cycle(&mut self, at: usize) {
        self.cycles.all[at].ended = true;
        let Cycle { pools, queues, .. } = &self.cycles.all[at];
        for &queue in queues
            .iter()
            .filter(|queue| self.plan.queue(**queue).feedback)
        {
            for &pool in pools {
                let group = self.plan.unit(pool).group;
                if let Some(wiring) = self.groups.get_mut(&group) {
                    wiring.release(queue, pool, false);
                }
            }
            self.relays
                .look(|carries| matches!(carries, Carries::Queue(id, _) if *id == queue));
        }
    }
}

/// Where a cycle is.
enum HowFar {
    /// Somebody works, and will be heard of.
    Busy,
    /// Nobody works, and something is on its way nevertheless.
    Waits,
    Over,
}

/// Bytes that a pool has written to this queue.
fn written_to(plan: &Plan, pool: UnitId, queue: QueueId, idle: &Idle) -> Option<u64> {
    let mut outputs = plan.unit(pool).ends.outputs.iter();
    let output = outputs.find(|output| output.to.contains(&Sink::Queue(queue)))?;
    match &*output.name {
        "stdout" => Some(idle.result_bytes),
        DEAD_LETTER => Some(idle.dead_bytes),
        _ => {
            let of = |(fd, bytes): &(u32, u64)| (*fd == output.fd).then_some(*bytes);
            idle.held_bytes.iter().find_map(of)
        }
    }
}
