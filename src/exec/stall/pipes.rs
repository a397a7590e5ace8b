//! Which queue a process sleeps on, or which pipe of the group's own: from what the kernel says of the process and of who holds
//! which pipe.

use std::collections::BTreeMap;

use crate::exec::stall::judge::{Sleeps, Way};
use crate::exec::wiring::{TeeHold, Wiring, output_queues};
use crate::plan::{Plan, QueueId, Source, UnitId};
use crate::sys::pipe::is_full;
use crate::sys::process::sleep::{self, PipeEnd, PipeId, Sleep, Thread};

/// An end of a pipe that a process holds, and whose process that is: nobody's, where it is a daemon.
pub(super) type Holder = (Option<UnitId>, i32, PipeEnd);

/// The pipes of a group.
pub(super) struct Pipes<'a> {
    plan: &'a Plan,
    wiring: &'a Wiring,
    holders: Vec<Holder>,
    /// Which queue's a pipe is, for who reads from it and who writes to it.
    /// Of a pipe before a tee they are several.
    queues: BTreeMap<(PipeId, Way), Vec<QueueId>>,
}

impl<'a> Pipes<'a> {
    /// `tees`: what stands behind its units' outputs with several ends. `holders`: who holds a pipe, be it a queue's or not.
    pub(super) fn new(
        plan: &'a Plan,
        wiring: &'a Wiring,
        tees: impl Iterator<Item = &'a TeeHold>,
        holders: Vec<Holder>,
    ) -> Self {
        let mut queues: BTreeMap<(PipeId, Way), Vec<QueueId>> = BTreeMap::new();
        for (queue, pipe) in wiring.read_pipes() {
            queues.insert((pipe, Way::In), vec![queue]);
        }
        let holds = wiring.holds().map(|(queue, _, hold)| (hold, vec![queue]));
        let tees = tees.map(|tee| (tee.end(), tee.queues.clone()));
        for (hold, to) in holds.chain(tees).filter(|(_, to)| !to.is_empty()) {
            if let Some(pipe) = sleep::pipe_behind(hold) {
                queues.insert((pipe, Way::Out), to);
            }
        }
        Pipes {
            plan,
            wiring,
            holders,
            queues,
        }
    }

    /// A daemon holds an end of a queue: something may come from it, or be read by it.
    pub(super) fn has_strangers(&self) -> bool {
        let is_queue = |pipe| [Way::In, Way::Out].map(|way| self.queues.contains_key(&(pipe, way)));
        self.holders
            .iter()
            .any(|(unit, _, end)| unit.is_none() && is_queue(end.pipe).contains(&true))
    }

    /// What a thread of a unit sleeps on.
    pub(super) fn sleeps(&self, unit: UnitId, thread: Thread) -> Sleeps {
        let (way, fd) = match sleep::sleep(thread) {
            Sleep::Read(fd) => (Way::In, fd),
            Sleep::Write(fd) => (Way::Out, fd),
            Sleep::Own => return Sleeps::OnItsOwn,
            Sleep::Other => return Sleeps::Elsewhere,
        };
        let Some(fd) = fd else {
            return self.guess(unit, way);
        };
        let Some(pipe) = sleep::pipe(thread.process, fd) else {
            return Sleeps::Elsewhere;
        };
        if let Some(queues) = self.queues.get(&(pipe, way)) {
            return self.one_of(unit, way, queues.iter().copied());
        }
        own_pipe(thread.process, pipe, way, &self.holders)
    }

    /// A process sleeps on a pipe, and it may not be seen on which: on one of its queues, where it has any.
    fn guess(&self, unit: UnitId, way: Way) -> Sleeps {
        let unit_ends = self.plan.unit(unit);
        match way {
            Way::Out => self.one_of(unit, way, output_queues(unit_ends)),
            Way::In => {
                let inputs = unit_ends.ends.inputs.iter().flat_map(|input| &input.from);
                let queues = inputs.filter_map(|(_, source)| match source {
                    Source::Queue(queue) => Some(*queue),
                    _ => None,
                });
                self.one_of(unit, way, queues)
            }
        }
    }

    /// Of several queues that one which is full: the others would take more.
    fn one_of(&self, unit: UnitId, way: Way, queues: impl Iterator<Item = QueueId>) -> Sleeps {
        let queues: Vec<QueueId> = queues.collect();
        let full = |queue: &&QueueId| {
            let mut holds = self.wiring.holds();
            holds.any(|(held, writer, hold)| (held, writer) == (**queue, unit) && is_full(hold))
        };
        let full = (way == Way::Out)
            .then(|| queues.iter().find(full))
            .flatten();
        match full.or(queues.first()) {
            Some(&queue) => Sleeps::On(queue, way),
            None => Sleeps::Elsewhere,
        }
    }
}

/// A process sleeps on a pipe that is no queue's: whose the other end is. Where that isn't the group's alone, something may
/// come through it.
fn own_pipe(process: i32, pipe: PipeId, way: Way, holders: &[Holder]) -> Sleeps {
    let other_end: Vec<(Option<UnitId>, i32)> = holders
        .iter()
        .filter(|(_, _, end)| {
            end.pipe == pipe
                && match way {
                    Way::In => end.writes,
                    Way::Out => end.reads,
                }
        })
        .map(|(unit, holder, _)| (*unit, *holder))
        .collect();
    let units: Option<Vec<UnitId>> = other_end.iter().map(|(unit, _)| *unit).collect();
    let Some(mut units) = units.filter(|units| !units.is_empty()) else {
        return Sleeps::Elsewhere;
    };
    // Its own copy of that end is of no use to it, while it sleeps.
    if other_end.iter().any(|(_, holder)| *holder != process) {
        let others = other_end.iter().filter(|(_, holder)| *holder != process);
        units = others.filter_map(|(unit, _)| *unit).collect();
    }
    units.sort_unstable();
    units.dedup();
    Sleeps::OnOwnPipe(units)
}
