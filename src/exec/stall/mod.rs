//! Says when a group has come to stand still, and who waits for whom (spec 2.4).
//!
//! No queue of procflow's makes a deadlock (`plan` sees to it). Two programs that talk to each other can, and a script with
//! pipes of its own; then nothing happens, for ever, and nobody says why. So groups with queues are looked at every few
//! seconds: `watch` knows whether anything has moved, `judge` makes of what the processes sleep on who waits for whom. It is said
//! and nothing is done about it: `timeout` is for that.
//!
//! Nothing is said where any process of the group waits for something that may come by itself, or can't be looked at (it is
//! another user's, say). A process that waits for several things at once, as by poll(2), is taken for such a one.

mod judge;
mod watch;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use nix::unistd::getpid;

use crate::event::{Waiting, What};
use crate::exec::deadlines::Due;
use crate::exec::runner::{Body, Runner};
use crate::exec::stall::judge::{Sleeps, Way, judge};
use crate::exec::stall::watch::{Snapshot, Watch};
use crate::exec::wiring::{TeeHold, Wiring, output_queues};
use crate::plan::{GroupId, Plan, QueueId, Source, UnitId};
use crate::sys::pipe::is_full;
use crate::sys::process::sleep::{self, Activity, PipeEnd, PipeId, Sleep, Thread};

/// After so long something is said (spec 2.4).
pub const STALLED_AFTER: Duration = Duration::from_secs(30);

/// So many looks in that time.
const LOOKS: u32 = 6;

/// The groups that are watched.
#[derive(Debug)]
pub(super) struct Stalls {
    after: Duration,
    groups: HashMap<GroupId, Watch<UnitId>>,
}

impl Stalls {
    /// None yet. After `after` something is said.
    pub(super) fn new(after: Duration) -> Self {
        Stalls {
            // Never without a pause between two looks.
            after: after.max(Duration::from_millis(1) * LOOKS),
            groups: HashMap::new(),
        }
    }
}

impl Runner<'_> {
    /// A try of this group begins. It is looked at only when it has lived for some time, as most don't.
    pub(super) fn watch_for_stall(&mut self, group: GroupId) {
        if !self.plan.group(group).queues.is_empty() {
            self.stalls.groups.insert(group, Watch::Moving(None));
            self.look_later(group);
        }
    }

    /// It has ended.
    pub(super) fn forget_stall(&mut self, group: GroupId) {
        if self.stalls.groups.remove(&group).is_some() {
            self.deadlines.disarm(Due::Stall(group));
        }
    }

    fn look_later(&mut self, group: GroupId) {
        let at = self.clock.now() + self.stalls.after / LOOKS;
        self.deadlines.arm(Due::Stall(group), at);
    }

    /// Looks whether anything has moved.
    pub(super) fn look_for_stall(&mut self, group: GroupId) {
        let Some(mut watch) = self.stalls.groups.remove(&group) else {
            return;
        };
        let (now, after) = (self.clock.now(), self.stalls.after);
        let all = || self.snapshot(group);
        if let Some(time) = watch.look(now, after, sleep::progress, all)
            && let Watch::Still { snapshot, .. } = &watch
        {
            let told = match self.judge_stall(group, snapshot) {
                Some(waits) => {
                    self.tell(What::Stalled { time, waits });
                    None
                }
                None => Some(now + after),
            };
            watch.judged(told);
        }
        self.stalls.groups.insert(group, watch);
        self.look_later(group);
    }

    /// The leaders of the group's units that run: of a pool that procflow feeds, its workers.
    fn leaders(&self, group: GroupId) -> impl Iterator<Item = (UnitId, i32)> {
        let units = self.plan.group(group).units.iter();
        units.flat_map(|&unit| {
            let live = self.live.get(&unit).filter(|live| live.reaped.is_none());
            let pids = match live.map(|live| &live.body) {
                Some(Body::Process(child)) => vec![child.pid()],
                Some(Body::Pool(pool)) => self.pools.pids(*pool),
                Some(Body::Gather) | None => Vec::new(),
            };
            pids.into_iter().map(move |pid| (unit, pid))
        })
    }

    /// Looks at every thread of the group.
    fn snapshot(&self, group: GroupId) -> Snapshot<UnitId> {
        let mut processes: Vec<(UnitId, i32)> = self.leaders(group).collect();
        // Those that lost their parent came to us, and are in their unit's process group still.
        for (orphan, leader) in self.orphans() {
            if let Some(unit) = leader
                && self.plan.unit(unit).group == group
            {
                processes.push((unit, orphan));
            }
        }
        let mut seen: HashSet<i32> = processes.iter().map(|(_, process)| *process).collect();
        let mut threads = Vec::new();
        while let Some((unit, process)) = processes.pop() {
            let children = sleep::children(process).into_iter();
            processes.extend(
                children
                    .filter(|&child| seen.insert(child))
                    .map(|child| (unit, child)),
            );
            let all = sleep::threads(process).into_iter();
            threads.extend(all.filter_map(|thread| Some((unit, thread, sleep::progress(thread)?))));
        }
        Snapshot {
            moved: self.relays.moved(group),
            threads,
        }
    }

    /// Our children that are no units' first processes, with the unit in whose process group they are.
    fn orphans(&self) -> Vec<(i32, Option<UnitId>)> {
        sleep::children(getpid().as_raw())
            .into_iter()
            .filter(|child| !self.pids.contains_key(child))
            .map(|child| {
                let leader = sleep::group(child).and_then(|group| self.pids.get(&group));
                (child, leader.and_then(|owner| self.unit_of(*owner)))
            })
            .collect()
    }

    /// Who waits for whom; nothing where it is no stall.
    fn judge_stall(&self, group: GroupId, snapshot: &Snapshot<UnitId>) -> Option<Vec<Waiting>> {
        // What is being stopped ends soon enough. And where one of our own threads waits for a disk, it may be a relay that
        // spills to a slow one: who waits for it waits for nobody else.
        let is_signalled = |unit: &UnitId| self.live.get(unit).is_some_and(|live| live.signalled);
        let mut own_threads = sleep::threads(getpid().as_raw()).into_iter();
        let is_on_disk = |thread| {
            sleep::progress(thread).is_some_and(|progress| progress.activity == Activity::OnDisk)
        };
        if self.plan.group(group).units.iter().any(is_signalled) || own_threads.any(is_on_disk) {
            return None;
        }
        let leaders: Vec<(UnitId, i32)> = self.leaders(group).collect();
        let wiring = self.groups.get(&group)?;
        let tees = leaders
            .iter()
            .filter_map(|(unit, _)| self.live.get(unit))
            .flat_map(|live| &live.tee_holds);
        let known = Known::new(self.plan, wiring, tees);
        let holders = self.holders(snapshot);
        let mut units: Vec<(UnitId, Vec<Sleeps>)> = leaders
            .iter()
            .map(|(unit, _)| (*unit, Vec::new()))
            .collect();
        units.dedup_by_key(|(unit, _)| *unit);
        for (unit, thread, _) in &snapshot.threads {
            let sleeps = known.sleeps(*unit, *thread, &holders);
            if let Some((_, all)) = units.iter_mut().find(|(other, _)| other == unit) {
                all.push(sleeps);
            }
        }
        judge(&units, |queue| {
            let queue = self.plan.queue(queue);
            (&queue.writers, &queue.readers)
        })
    }

    /// The pipes that the group's processes hold, and those that daemons hold, which are nobody's.
    fn holders(&self, snapshot: &Snapshot<UnitId>) -> Vec<(Option<UnitId>, i32, PipeEnd)> {
        let processes: BTreeSet<(UnitId, i32)> = snapshot
            .threads
            .iter()
            .map(|(unit, thread, _)| (*unit, thread.process))
            .collect();
        let of_units = processes
            .into_iter()
            .map(|(unit, process)| (Some(unit), process));
        let daemons = self.orphans().into_iter();
        let daemons =
            daemons.filter_map(|(process, unit)| unit.is_none().then_some((None, process)));
        of_units
            .chain(daemons)
            .flat_map(|(unit, process)| {
                let ends = sleep::pipe_ends(process).into_iter();
                ends.map(move |end| (unit, process, end))
            })
            .collect()
    }
}

/// Which pipes are which queues'.
struct Known<'a> {
    plan: &'a Plan,
    wiring: &'a Wiring,
    /// Of a pipe before a tee they are several.
    queues: BTreeMap<(PipeId, Way), Vec<QueueId>>,
}

impl<'a> Known<'a> {
    fn new(plan: &'a Plan, wiring: &'a Wiring, tees: impl Iterator<Item = &'a TeeHold>) -> Self {
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
        Known {
            plan,
            wiring,
            queues,
        }
    }

    /// What a thread sleeps on.
    fn sleeps(
        &self,
        unit: UnitId,
        thread: Thread,
        holders: &[(Option<UnitId>, i32, PipeEnd)],
    ) -> Sleeps {
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
        own_pipe(thread.process, pipe, way, holders)
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
fn own_pipe(
    process: i32,
    pipe: PipeId,
    way: Way,
    holders: &[(Option<UnitId>, i32, PipeEnd)],
) -> Sleeps {
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
