//! Says when a group has come to stand still, and who waits for whom (spec 2.4).
//!
//! No queue of procflow's makes a deadlock (`plan` sees to it). Two programs that talk to each other can, and a script with
//! pipes of its own; then nothing happens, for ever, and nobody says why. So groups with queues are looked at every few
//! seconds: `watch` knows whether anything has moved, `pipes` on which queue a process sleeps, `judge` who waits for whom. It is said
//! and nothing is done about it: `timeout` is for that.
//!
//! Nothing is said where any process of the group waits for something that may come by itself, or can't be looked at (it is
//! another user's, say). A process that waits for several things at once, as by poll(2), is taken for such a one.

mod judge;
mod pipes;
mod watch;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use nix::unistd::getpid;

use crate::event::{Waiting, What};
use crate::exec::deadlines::Due;
use crate::exec::runner::{Body, Runner};
use crate::exec::stall::judge::{Sleeps, judge};
use crate::exec::stall::pipes::{Holder, Pipes};
use crate::exec::stall::watch::{Snapshot, Watch};
use crate::plan::{GroupId, UnitId};
use crate::sys::process::sleep::{self, Activity};

/// After so long something is said (spec 2.4).
pub const STALLED_AFTER: Duration = Duration::from_secs(30);

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
            after: after.max(Duration::from_millis(10)),
            groups: HashMap::new(),
        }
    }
}

impl Runner<'_> {
    /// A try of this group begins. It is looked at only when it has lived for some time, as most don't.
    pub(super) fn watch_for_stall(&mut self, group: GroupId) {
        if !self.plan.group(group).queues.is_empty() {
            self.look_later(group, Watch::Moving(None));
        }
    }

    /// It has ended.
    pub(super) fn forget_stall(&mut self, group: GroupId) {
        if self.stalls.groups.remove(&group).is_some() {
            self.deadlines.disarm(Due::Stall(group));
        }
    }

    fn look_later(&mut self, group: GroupId, watch: Watch<UnitId>) {
        let at = self.clock.now() + watch.pause(self.stalls.after);
        self.deadlines.arm(Due::Stall(group), at);
        self.stalls.groups.insert(group, watch);
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
        self.look_later(group, watch);
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
        // Those that lost their parent came to us, and are in their unit's process group still.
        let orphans = self.orphans().into_iter();
        let orphans = orphans.filter_map(|(orphan, unit)| Some((unit?, orphan)));
        let orphans = orphans.filter(|(unit, _)| self.plan.unit(*unit).group == group);
        let processes = with_descendants(self.leaders(group).chain(orphans)).into_iter();
        let threads = processes.flat_map(|(unit, process)| {
            let threads = sleep::threads(process).into_iter();
            threads.filter_map(move |thread| Some((unit, thread, sleep::progress(thread)?)))
        });
        let threads = threads.collect();
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
        let pipes = Pipes::new(self.plan, wiring, tees, self.holders(snapshot));
        if pipes.has_strangers() {
            return None;
        }
        let mut units: Vec<(UnitId, Vec<Sleeps>)> = leaders
            .iter()
            .map(|(unit, _)| (*unit, Vec::new()))
            .collect();
        units.dedup_by_key(|(unit, _)| *unit);
        for (unit, thread, _) in &snapshot.threads {
            let sleeps = pipes.sleeps(*unit, *thread);
            if let Some((_, all)) = units.iter_mut().find(|(other, _)| other == unit) {
                all.push(sleeps);
            }
        }
        judge(&units, |queue| {
            let queue = self.plan.queue(queue);
            (&queue.writers, &queue.readers)
        })
    }

    /// The pipes that the group's processes hold, and those that daemons hold.
    fn holders(&self, snapshot: &Snapshot<UnitId>) -> Vec<Holder> {
        let of_units: BTreeSet<(UnitId, i32)> = snapshot
            .threads
            .iter()
            .map(|(unit, thread, _)| (*unit, thread.process))
            .collect();
        let of_units = of_units
            .into_iter()
            .map(|(unit, process)| (Some(unit), process));
        let daemons = self.orphans().into_iter();
        let daemons = daemons
            .filter(|(_, unit)| unit.is_none())
            .map(|(daemon, _)| (None, daemon));
        of_units
            .chain(with_descendants(daemons))
            .flat_map(|(unit, process)| {
                let ends = sleep::pipe_ends(process).into_iter();
                ends.map(move |end| (unit, process, end))
            })
            .collect()
    }
}

/// These processes and all that they have started, which are whose they are.
fn with_descendants<T: Copy>(processes: impl Iterator<Item = (T, i32)>) -> Vec<(T, i32)> {
    let mut all: Vec<(T, i32)> = processes.collect();
    let mut seen: HashSet<i32> = all.iter().map(|(_, process)| *process).collect();
    let mut next = 0;
    while let Some(&(whose, process)) = all.get(next) {
        let children = sleep::children(process).into_iter();
        all.extend(
            children
                .filter(|&child| seen.insert(child))
                .map(|child| (whose, child)),
        );
        next += 1;
    }
    all
}
