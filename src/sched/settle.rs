//! Inside a group: what one unit's end means to those it shares queues with; who is stopped, and whose result is final.

use crate::event::{Cause, Failure, Outcome};
use crate::plan::{GroupId, QueueKind, Role, Sink, UnitId};
use crate::sched::machine::{FirstFailure, Scheduler};
use crate::sched::order::Fact;
use crate::sched::state::{From, Own, Phase, Restart, Side, State, Why, derived, root};
use crate::sched::{Action, Event};
use crate::spec::OnFailure;

impl Scheduler<'_> {
    /// Looks at a unit whose surroundings have changed.
    pub(super) fn settle(&mut self, unit: UnitId) {
        self.pass_taint(unit);
        match &self.units[unit.index()].state {
            State::Starting { stop: None } | State::Running => {
                if let Some(cause) = self.reason_to_stop(unit) {
                    self.stop(unit, Why::Cancel(cause));
                }
            }
            State::Torn(_) => self.decide_torn(unit),
            State::Settled(_) => self.make_final(unit),
            State::Done(_) => self.pass_clear(unit),
            State::Waiting
            | State::Asked { .. }
            | State::Starting { stop: Some(_) }
            | State::Stopping(_)
            | State::Committing { .. }
            | State::Backoff => {}
        }
    }

    /// A unit has an own result. The first failure of a try that may be repeated begins a restart instead, and what ends
    /// after that in the same try is taken back with it: its failure may be no more than that one's echo.
    pub(super) fn decide(&mut self, unit: UnitId, own: Own) {
        let group = self.plan.units[unit.index()].group;
        if self.groups[group.index()].restart.is_some() {
            self.set(unit, State::Settled(Own::TakenBack));
            return;
        }
        if let Own::Ill(Outcome::Failed(failure)) = &own
            && self.may_retry(unit, failure)
        {
            let restart = Restart {
                unit,
                failure: failure.clone(),
            };
            self.begin_restart(group, restart);
            return;
        }
        self.set(unit, State::Settled(own));
        match self.side(unit) {
            // Readers must see the end of data for the group to end, which its members' results wait for.
            Side::Well if !self.groups[group.index()].last_try => self.release(unit),
            Side::Well => {}
            Side::Ill => {
                self.release(unit);
                self.is_last_try(group);
            }
            Side::Open => panic!(
                "BUG: {unit:?} is open with {:?}",
                self.units[unit.index()].state
            ),
        }
        self.touch(unit);
    }

    pub(super) fn side(&self, unit: UnitId) -> Side {
        self.units[unit.index()]
            .state
            .side(self.plan.nodes[self.node_of(unit).index()].allow_failure)
    }

    /// This try is not taken back any more: its results count, and may be final.
    pub(super) fn is_last_try(&mut self, group: GroupId) {
        if !std::mem::replace(&mut self.groups[group.index()].last_try, true) {
            self.touch_group(group);
        }
    }

    pub(super) fn touch_group(&mut self, group: GroupId) {
        let plan = self.plan;
        plan.groups[group.index()]
            .units
            .iter()
            .for_each(|unit| self.touch(*unit));
    }

    /// All of a group was started.
    pub(super) fn group_has_started(&mut self, group: GroupId) {
        if self.groups[group.index()].attempt == 1 {
            self.tell_started(group);
        }
        self.touch_group(group);
    }

    /// A unit could not be started: what of its group runs is killed at once, for nothing of it may count, and what would have
    /// come after it is not started.
    pub(super) fn spawn_failed(&mut self, failed: UnitId, failure: Failure) {
        if !self.units[failed.index()].state.is_starting() {
            panic!(
                "BUG: {:?} in {:?}",
                Event::SpawnFailed(failed, failure),
                self.units[failed.index()].state
            );
        }
        let group = self.plan.units[failed.index()].group;
        self.units[failed.index()].file_open = self.units[failed.index()].has_file;
        // Who would see the end of data is killed, too: what is held goes with the group.
        for unit in &self.plan.groups[group.index()].units {
            self.units[unit.index()].released = true;
        }
        let restart = self.groups[group.index()].restart.take();
        let outcome = match self.halted {
            // procflow starts nothing any more: that says nothing of the unit.
            Some(Cause::Broken) if self.groups[group.index()].attempt == 1 => {
                Outcome::Skipped(Cause::Broken)
            }
            Some(Cause::Broken) => Outcome::Cancelled(Cause::Broken),
            _ => Outcome::Failed(failure),
        };
        let causes = self.causes(group, failed, &outcome);
        self.decide(failed, Own::Ill(outcome));
        for (unit, cause) in causes {
            match &self.units[unit.index()].state {
                State::Starting { .. } if self.groups[group.index()].attempt == 1 => {
                    self.decide(unit, Own::Ill(Outcome::Skipped(cause)));
                }
                State::Starting { .. } => self.decide(unit, Own::Ill(Outcome::Cancelled(cause))),
                State::Running => {
                    self.set(unit, State::Stopping(Why::Cancel(cause)));
                    self.kill(unit);
                }
                State::Stopping(why) => {
                    let why = if *why == Why::Retry {
                        Why::Cancel(cause)
                    } else {
                        why.clone()
                    };
                    self.set(unit, State::Stopping(why));
                    self.kill(unit);
                }
                State::Settled(Own::TakenBack) => {
                    let outcome = match &restart {
                        Some(restart) if restart.unit == unit => {
                            Outcome::Failed(restart.failure.clone())
                        }
                        _ => Outcome::Cancelled(cause),
                    };
                    self.decide(unit, Own::Ill(outcome));
                }
                State::Torn(_) | State::Settled(Own::Well { .. }) => {
                    self.disarm(unit);
                    self.decide(unit, Own::Ill(Outcome::Cancelled(cause)));
                }
                State::Settled(Own::Ill(_))
                | State::Done(Outcome::Skipped(Cause::ByUser | Cause::When(_))) => {}
                other @ (State::Waiting
                | State::Asked { .. }
                | State::Committing { .. }
                | State::Backoff
                | State::Done(_)) => {
                    panic!("BUG: {unit:?} is in {other:?} while its group is being started")
                }
            }
        }
        self.touch_group(group);
    }

    /// For every other unit of a group: why the end `outcome` of `first` ends it, too. Each gets the neighbour it hangs on.
    /// Breadth first, so that neighbours are the nearest.
    pub(super) fn causes(
        &self,
        group: GroupId,
        first: UnitId,
        outcome: &Outcome,
    ) -> Vec<(UnitId, Cause)> {
        let plan = self.plan;
        let mut causes: Vec<(UnitId, Cause)> = Vec::new();
        let mut seen = std::collections::BTreeSet::from([first]);
        let mut next = 0;
        let (mut at, mut at_outcome) = (first, outcome.clone());
        loop {
            let node = self.node_of(at);
            let (reads, writes) = (self.reads.of(at.index()), self.writes.of(at.index()));
            let readers = writes
                .iter()
                .flat_map(|queue| &plan.queues[queue.index()].readers);
            let writers = reads
                .iter()
                .flat_map(|queue| &plan.queues[queue.index()].writers);
            let pool = plan.nodes[node.index()].units.clone().map(UnitId);
            let found = pool
                .map(|unit| (unit, From::Pool))
                .chain(readers.map(|unit| (*unit, From::Writer)))
                .chain(writers.map(|unit| (*unit, From::Reader)));
            for (unit, from) in found {
                // A stored queue leads to other groups.
                if plan.units[unit.index()].group == group && seen.insert(unit) {
                    causes.push((unit, derived(from, node, &at_outcome)));
                }
            }
            let Some((unit, cause)) = causes.get(next) else {
                break;
            };
            (at, at_outcome) = (*unit, Outcome::Cancelled(cause.clone()));
            next += 1;
        }
        // A group is what queues join; this is for one that something else joined.
        for unit in &self.plan.groups[group.index()].units {
            if seen.insert(*unit) {
                causes.push((*unit, derived(From::Writer, self.node_of(first), outcome)));
            }
        }
        causes.sort_by_key(|(unit, _)| *unit);
        causes
    }

    /// Why a unit that runs cannot go on.
    fn reason_to_stop(&self, unit: UnitId) -> Option<Cause> {
        self.worker_lost(unit)
            .or_else(|| self.ill_upstream(unit))
            .or_else(|| self.readers_lost(unit))
    }

    /// A unit has ended ill: where it is one of a pool's workers, nobody can know how much of its share it had done, and so
    /// the others' work is for nothing.
    pub(super) fn worker_is_lost(&mut self, unit: UnitId) {
        let node = self.node_of(unit);
        if self.nodes[node.index()].ill_unit.is_none() {
            self.nodes[node.index()].ill_unit = Some(unit);
            self.touch_pool(unit);
        }
    }

    /// Its node's units, if there are others.
    fn touch_pool(&mut self, unit: UnitId) {
        let plan = self.plan;
        let units = &plan.nodes[self.node_of(unit).index()].units;
        if units.len() > 1 {
            units.clone().for_each(|unit| self.touch(UnitId(unit)));
        }
    }

    /// Another worker of its pool ended ill.
    fn worker_lost(&self, unit: UnitId) -> Option<Cause> {
        let lost = self.nodes[self.node_of(unit).index()].ill_unit?;
        Some(self.cause_from(From::Pool, lost))
    }

    /// Its pool has not succeeded, and so its file is not to appear. Other than in [`Scheduler::worker_lost`] a failure counts
    /// that the pool may have: what it lets go on is queues.
    fn pool_lost(&self, unit: UnitId) -> Option<Cause> {
        let node = self.node_of(unit);
        let outcome = self.nodes[node.index()].ill.as_ref();
        self.worker_lost(unit)
            .or_else(|| Some(derived(From::Pool, node, outcome?)))
    }

    /// A writer of one of its queues ended ill; for a unit with a file any unit upstream of it counts: that file is lost.
    fn ill_upstream(&self, unit: UnitId) -> Option<Cause> {
        let has_file = self.units[unit.index()].has_file;
        let mut queues = self
            .reads
            .of(unit.index())
            .iter()
            .filter(|queue| self.cancels_readers(**queue));
        let ill = queues.find_map(|queue| {
            let queue = &self.queues[queue.index()];
            queue
                .ill_writer
                .or(if has_file { queue.taint } else { None })
        })?;
        Some(self.cause_for(unit, From::Writer, ill))
    }

    /// Nobody is left that wants one of its outputs, and of those who did one ended ill. Where all ended well, it will find out
    /// by itself when it next writes, if ever.
    fn readers_lost(&self, unit: UnitId) -> Option<Cause> {
        self.plan.units[unit.index()]
            .ends
            .outputs
            .iter()
            .find_map(|output| {
                let mut lost = None;
                for sink in &output.to {
                    match sink {
                        // A copy goes on for those that are left.
                        Sink::Log
                        | Sink::Inherit
                        | Sink::Value
                        | Sink::File { .. }
                        | Sink::Stdout => return None,
                        Sink::Null => {}
                        Sink::Queue(queue)
                            if self.plan.queues[queue.index()].kind == QueueKind::Stored =>
                        {
                            return None;
                        }
                        Sink::Queue(queue) => {
                            let queue = &self.queues[queue.index()];
                            if queue.readers_open > 0 {
                                return None;
                            }
                            lost = lost.or(queue.ill_reader);
                        }
                    }
                }
                Some(self.cause_for(unit, From::Reader, lost?))
            })
    }

    /// Why `unit` can't go on, when another unit of its group is `from` it and ended ill. A pool is not its own neighbour.
    fn cause_for(&self, unit: UnitId, from: From, ill: UnitId) -> Cause {
        let from = if self.node_of(unit) == self.node_of(ill) {
            From::Pool
        } else {
            from
        };
        self.cause_from(from, ill)
    }

    fn cause_from(&self, from: From, unit: UnitId) -> Cause {
        match self.units[unit.index()].state.ill() {
            Some(outcome) => derived(from, self.node_of(unit), outcome),
            None => panic!(
                "BUG: {unit:?} is to blame in {:?}",
                self.units[unit.index()].state
            ),
        }
    }

    /// Its queue broke under it: the first of its readers to have a result decides, or the last of them if all ended well.
    fn decide_torn(&mut self, unit: UnitId) {
        let State::Torn(torn) = &self.units[unit.index()].state else {
            return;
        };
        let mut queues = torn.broken.iter().map(|queue| &self.queues[queue.index()]);
        let own = if queues
            .clone()
            .any(|queue| queue.readers_open == 0 && queue.ill_reader.is_none())
        {
            Own::Well { early_close: true }
        } else if let Some(reader) = queues.find_map(|queue| queue.ill_reader) {
            Own::Ill(Outcome::Cancelled(self.cause_for(
                unit,
                From::Reader,
                reader,
            )))
        } else {
            return;
        };
        self.disarm(unit);
        self.decide(unit, own);
    }

    /// Makes a unit's own result final, if nothing can change it any more.
    fn make_final(&mut self, unit: UnitId) {
        let group = &self.groups[self.plan.units[unit.index()].group.index()];
        if group.starting > 0 || !group.last_try {
            return;
        }
        let State::Settled(own) = &self.units[unit.index()].state else {
            return;
        };
        match own {
            Own::TakenBack => panic!("BUG: {unit:?} is taken back in the last try"),
            Own::Ill(outcome) => {
                let outcome = outcome.clone();
                self.done(unit, outcome);
            }
            Own::Well { early_close } if self.units[unit.index()].has_file => {
                let early_close = *early_close;
                let lost = self.pool_lost(unit);
                if let Some(cause) = lost.or_else(|| self.ill_upstream(unit)) {
                    self.decide(unit, Own::Ill(Outcome::Cancelled(cause)));
                } else if self.upstream_is_clear(unit) {
                    self.is_sure(unit);
                    if self.nodes[self.node_of(unit).index()].unsure == 0 {
                        self.set(unit, State::Committing { early_close });
                        self.out.push(Action::Commit(unit));
                    }
                }
            }
            Own::Well { early_close } => {
                let early_close = *early_close;
                self.is_sure(unit);
                self.done(unit, Outcome::Succeeded { early_close });
            }
        }
    }

    /// What a unit is and has upstream is well. The files of a pool appear when that holds for all who share its work.
    fn is_sure(&mut self, unit: UnitId) {
        let gathers = self.plan.units[unit.index()].role == Role::Gather;
        if gathers || std::mem::replace(&mut self.units[unit.index()].sure, true) {
            return;
        }
        let id = self.node_of(unit);
        let node = &mut self.nodes[id.index()];
        node.unsure -= 1;
        if node.unsure == 0 {
            self.touch_pool(unit);
        }
    }

    fn upstream_is_clear(&self, unit: UnitId) -> bool {
        let mut queues = self
            .reads
            .of(unit.index())
            .iter()
            .filter(|queue| self.cancels_readers(**queue));
        queues.all(|queue| self.queues[queue.index()].unclear == 0)
    }

    /// What is ill upstream of a file keeps it from its place, however many units that ended well lie between.
    fn pass_taint(&mut self, unit: UnitId) {
        if self.units[unit.index()].taint.is_some() || self.is_left_out(unit) {
            return;
        }
        let taint = match self.side(unit) {
            Side::Ill => Some(unit),
            Side::Open | Side::Well => {
                let mut queues = self
                    .reads
                    .of(unit.index())
                    .iter()
                    .filter(|queue| self.cancels_readers(**queue));
                queues.find_map(|queue| self.queues[queue.index()].taint)
            }
        };
        let Some(taint) = taint else { return };
        self.units[unit.index()].taint = Some(taint);
        let plan = self.plan;
        for at in self.writes.range(unit.index()) {
            let queue = self.writes.at(at);
            if self.cancels_readers(queue) && self.queues[queue.index()].taint.is_none() {
                self.queues[queue.index()].taint = Some(taint);
                plan.queues[queue.index()]
                    .readers
                    .iter()
                    .for_each(|reader| self.touch(*reader));
            }
        }
    }

    /// A unit that is done and well, with nothing left upstream that could fail, says so downstream.
    fn pass_clear(&mut self, unit: UnitId) {
        if self.units[unit.index()].clear
            || self.is_left_out(unit)
            || self.side(unit) != Side::Well
            || !self.upstream_is_clear(unit)
        {
            return;
        }
        self.units[unit.index()].clear = true;
        let plan = self.plan;
        for at in self.writes.range(unit.index()) {
            let queue = self.writes.at(at);
            if self.back.contains(&(queue, unit)) {
                continue;
            }
            self.queues[queue.index()].unclear -= 1;
            if self.queues[queue.index()].unclear == 0 {
                plan.queues[queue.index()]
                    .readers
                    .iter()
                    .for_each(|reader| self.touch(*reader));
            }
        }
    }

    /// By `--skip` or `when`: nothing passes through it, good or ill.
    pub(super) fn is_left_out(&self, unit: UnitId) -> bool {
        self.nodes[self.node_of(unit).index()].left_out
    }

    /// Lets go of the ends held for a writer, as far as its end allows: all where it ended well; those of queues that are
    /// closed on failure in any case.
    fn release(&mut self, unit: UnitId) {
        // Nothing was started, so nothing is held.
        if self.groups[self.plan.units[unit.index()].group.index()].phase != Phase::Running
            || matches!(
                self.units[unit.index()].state.ill(),
                Some(Outcome::Skipped(_))
            )
            || std::mem::replace(&mut self.units[unit.index()].released, true)
        {
            return;
        }
        let well = self.side(unit) == Side::Well;
        let succeeded = !matches!(
            self.units[unit.index()].state.ill(),
            Some(Outcome::Failed(_) | Outcome::Cancelled(_) | Outcome::Skipped(_))
        );
        for at in self.writes.range(unit.index()) {
            let queue = self.writes.at(at);
            let close = !self.cancels_readers(queue);
            if well || close {
                self.out.push(Action::Release {
                    queue,
                    writer: unit,
                    torn: close && !succeeded,
                });
            }
        }
    }

    /// A unit has ended.
    pub(super) fn done(&mut self, unit: UnitId, outcome: Outcome) {
        self.set(unit, State::Done(outcome.clone()));
        self.discard(unit);
        self.release(unit);
        self.out.push(Action::Ended(unit, outcome.clone()));
        self.touch(unit);

        let id = self.node_of(unit);
        let may_fail = self.plan.nodes[id.index()].allow_failure;
        let node = &mut self.nodes[id.index()];
        node.open -= 1;
        let node_open = node.open;
        if !matches!(outcome, Outcome::Succeeded { .. } | Outcome::Reused) && node.ill.is_none() {
            node.ill = Some(outcome.clone());
            self.facts.push_back((id, Fact::Ill));
            self.touch_pool(unit);
        }
        if node_open == 0 {
            self.facts.push_back((id, Fact::Ended));
            self.needs_no_more(id);
        }
        if !may_fail {
            self.count_failure(id, &outcome);
        }
    }

    fn count_failure(&mut self, node: crate::plan::NodeId, outcome: &Outcome) {
        let to_blame = match outcome {
            Outcome::Succeeded { .. }
            | Outcome::Reused
            | Outcome::Skipped(
                Cause::ByUser | Cause::When(_) | Cause::NeverFailed(_) | Cause::NotNeeded,
            ) => return,
            Outcome::Failed(_) => Some(node),
            Outcome::Cancelled(cause) | Outcome::Skipped(cause) => root(cause),
        };
        self.failed = true;
        if let Some(root) = to_blame
            && self.on_failure != OnFailure::Continue
            && self.halted.is_none()
            && self.first_failure == FirstFailure::None
        {
            self.first_failure = FirstFailure::Pending(root);
        }
    }

    /// Takes back a unit's files, if it began any.
    pub(super) fn discard(&mut self, unit: UnitId) {
        if std::mem::take(&mut self.units[unit.index()].file_open) {
            self.out.push(Action::Discard(unit));
        }
    }

    /// No unit of a group's try is undecided any more, or none of the group open.
    pub(super) fn group_is_quiet(&mut self, id: GroupId) {
        let group = &self.groups[id.index()];
        match group.phase {
            Phase::Running if group.open == 0 => {
                self.out.push(Action::GroupEnded(id));
                self.groups[id.index()].phase = Phase::Over;
                self.give_back(id);
            }
            Phase::Running if group.undecided > 0 => {}
            Phase::Running if group.restart.is_some() => self.take_back(id),
            Phase::Running => self.is_last_try(id),
            // All left out by `--skip`, or reused.
            Phase::Waiting if group.open == 0 => self.groups[id.index()].phase = Phase::Over,
            Phase::Waiting
            | Phase::Ready
            | Phase::Asking
            | Phase::Backoff
            | Phase::ReadyAgain
            | Phase::Over => {}
        }
    }
}
