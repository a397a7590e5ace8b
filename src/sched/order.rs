//! Between nodes: conditions, and starting groups when theirs hold and there is room.

use std::collections::BTreeSet;

use crate::event::{Cause, Outcome};
use crate::plan::{After, GroupId, NodeId, Plan, Source, UnitId};
use crate::sched::Action;
use crate::sched::machine::Scheduler;
use crate::sched::ready::Claim;
use crate::sched::state::{From, Phase, State, derived};
use crate::spec::{AfterState, OnWriterFailure};

/// What a node's waiters wait to hear. Each is told once, in this order, those that come about (but for `Ready`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fact {
    /// All its processes were started.
    Started,
    /// It is a service, and ready. Told again when it was restarted.
    Ready,
    /// A unit of it has not succeeded; others may still run.
    Ill,
    /// All its units have ended.
    Ended,
}

/// What a node needs of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Need {
    pub state: AfterState,
    /// It reads what the other stored, and that must be whole: a writer that was cancelled has not written all, whatever its
    /// own failure may be.
    pub data: bool,
}

/// What a fact means for a condition.
enum Meaning {
    Nothing,
    Met,
    /// It never will be.
    Never(Cause),
}

/// What a node waits for: what it says, and what those of them waited for that are left out before the run. Order and failure pass
/// through these; else a node would start beside what it comes after in the file.
pub(super) fn waits(plan: &Plan, id: NodeId) -> Vec<After> {
    let own = &plan.nodes[id.index()].after;
    let is_out = |wait: &After| plan.nodes[wait.node.index()].is_left_out();
    if !own.iter().any(is_out) {
        return own.clone();
    }
    let group = |node: NodeId| {
        let unit = plan.nodes[node.index()].units.start;
        plan.units[unit as usize].group
    };
    // Who waits for an end, however that is, does so of all before it.
    let any_end = |wait: &After| matches!(wait.state, AfterState::Finished | AfterState::Failed);
    let out = own.iter().filter(|wait| is_out(wait));
    let mut todo: Vec<(NodeId, bool)> = out.map(|wait| (wait.node, any_end(wait))).collect();
    let mut all = own.clone();
    let mut seen = BTreeSet::new();
    while let Some((out, any)) = todo.pop() {
        if !seen.insert((out, any)) {
            continue;
        }
        for mut wait in before(plan, out) {
            if any {
                wait.state = AfterState::Finished;
            }
            if is_out(&wait) {
                todo.push((wait.node, any_end(&wait)));
            } else if group(wait.node) != group(id) && !all.contains(&wait) {
                all.push(wait);
            }
        }
    }
    all
}

/// What a node that is left out came after: those it waited for, and the writers of its queues. Services it needs no more.
fn before(plan: &Plan, out: NodeId) -> Vec<After> {
    let node = &plan.nodes[out.index()];
    let said = node.after.iter().filter_map(|wait| {
        let is_service = plan.nodes[wait.node.index()].service.is_some();
        match wait.state {
            _ if is_service => None,
            // That it did not fail would have been no failure of this one.
            AfterState::Failed => Some(AfterState::Finished),
            state => Some(state),
        }
        .map(|state| After { state, ..*wait })
    });
    let ids = node.units.clone().map(|unit| &plan.units[unit as usize]);
    let sources = ids
        .flat_map(|unit| &unit.ends.inputs)
        .flat_map(|input| &input.from);
    let queues = sources.filter_map(|(_, source)| match source {
        Source::Queue(queue) => Some(&plan.queues[queue.index()]),
        Source::Null | Source::Inherit | Source::File(_) | Source::Text(_) => None,
    });
    let read = queues.flat_map(|queue| {
        let state = match queue.on_writer_failure {
            OnWriterFailure::Cancel => AfterState::Succeeded,
            OnWriterFailure::Close => AfterState::Finished,
        };
        let nodes = queue
            .writers
            .iter()
            .map(|unit| plan.units[unit.index()].node);
        nodes.map(move |node| After { node, state })
    });
    said.chain(read.filter(|wait| wait.node != out)).collect()
}

impl Scheduler<'_> {
    /// A group was started as a whole, for the first time.
    pub(super) fn tell_started(&mut self, group: GroupId) {
        let plan = self.plan;
        for unit in &plan.groups[group.index()].units {
            let id = self.node_of(*unit);
            if self.nodes[id.index()].left_out {
                continue;
            }
            let node = &mut self.nodes[id.index()];
            node.started += 1;
            if node.started as usize == plan.nodes[id.index()].units.len() {
                self.facts.push_back((id, Fact::Started));
            }
        }
    }

    pub(super) fn tell_waiters(&mut self, node: NodeId, fact: Fact) {
        let plan = self.plan;
        let is_service = plan.nodes[node.index()].service.is_some();
        let lost =
            (is_service && fact == Fact::Ended && !self.passes(node)).then(|| self.why_not(node));
        for at in self.waiters.range(node.index()) {
            let (waiter, need) = self.waiters.at(at);
            if self.nodes[waiter.index()].left_out {
                continue;
            }
            if let Some(cause) = &lost
                && !need.state.is_end()
            {
                self.service_is_lost(waiter, cause);
                continue;
            }
            let meaning = if need.data
                && fact == Fact::Ended
                && self.nodes[node.index()].ill_unit.is_some()
            {
                Meaning::Never(self.why_not(node))
            } else {
                match self.meaning(node, fact, need.state) {
                    Meaning::Never(_)
                        if need.state == AfterState::Failed && self.another_may(waiter, node) =>
                    {
                        Meaning::Met
                    }
                    meaning => meaning,
                }
            };
            match meaning {
                Meaning::Nothing => {}
                Meaning::Met => {
                    for unit in plan.nodes[waiter.index()].units.clone() {
                        self.condition_met(plan.units[unit as usize].group);
                    }
                }
                Meaning::Never(cause) => {
                    for unit in plan.nodes[waiter.index()].units.clone() {
                        self.skip_because_of(UnitId(unit), &cause);
                    }
                }
            }
        }
    }

    fn meaning(&self, id: NodeId, fact: Fact, state: AfterState) -> Meaning {
        let node = &self.nodes[id.index()];
        let declared = &self.plan.nodes[id.index()];
        let started = node.started as usize == declared.units.len() && !node.left_out;
        let passes = self.passes(id);
        match (state, fact) {
            (AfterState::Ready, Fact::Ready) => Meaning::Met,
            (AfterState::Ready, Fact::Ended) if passes => Meaning::Met,
            (AfterState::Ready, Fact::Ended) => Meaning::Never(self.why_not(id)),
            (AfterState::Ready, Fact::Started | Fact::Ill) | (_, Fact::Ready) => Meaning::Nothing,
            (AfterState::Started, Fact::Started) => Meaning::Met,
            (AfterState::Started, Fact::Ended) if started => Meaning::Nothing,
            (AfterState::Started, Fact::Ended) if passes => Meaning::Met,
            (AfterState::Started, Fact::Ended) => Meaning::Never(self.why_not(id)),
            (AfterState::Started, Fact::Ill) => Meaning::Nothing,
            (AfterState::Succeeded, Fact::Ill) if !passes => Meaning::Never(self.why_not(id)),
            (AfterState::Succeeded, Fact::Ended) if passes => Meaning::Met,
            (AfterState::Succeeded, Fact::Started | Fact::Ill | Fact::Ended) => Meaning::Nothing,
            (AfterState::Failed, Fact::Ended) => match &node.ill {
                Some(Outcome::Failed(_) | Outcome::Cancelled(_)) => Meaning::Met,
                // Why it was skipped does not matter: for the waiter all is as if it had gone well.
                Some(Outcome::Skipped(_) | Outcome::Succeeded { .. } | Outcome::Reused) | None => {
                    Meaning::Never(Cause::NeverFailed(id))
                }
            },
            (AfterState::Finished, Fact::Ended) => Meaning::Met,
            (AfterState::Failed | AfterState::Finished, Fact::Started | Fact::Ill) => {
                Meaning::Nothing
            }
        }
    }

    /// What comes after a node that has ended takes it for a success.
    fn passes(&self, id: NodeId) -> bool {
        match &self.nodes[id.index()].ill {
            None
            | Some(
                Outcome::Succeeded { .. }
                | Outcome::Reused
                | Outcome::Skipped(Cause::ByUser | Cause::When(_) | Cause::NotNeeded),
            ) => true,
            Some(Outcome::Failed(_) | Outcome::Cancelled(_)) => {
                self.plan.nodes[id.index()].allow_failure
            }
            Some(Outcome::Skipped(_)) => false,
        }
    }

    /// A matrix has failed when one of its combinations has, and all have ended: whether another than this one, which the same
    /// node waits for, has failed or still may.
    fn another_may(&self, waiter: NodeId, node: NodeId) -> bool {
        let own = &self.plan.nodes[node.index()];
        if own.matrix.is_empty() {
            return false;
        }
        // The last ones are the likeliest to be open.
        let mut waits = self.plan.nodes[waiter.index()].after.iter().rev();
        waits.any(|wait| {
            let other = &self.nodes[wait.node.index()];
            wait.state == AfterState::Failed
                && wait.node != node
                && self.plan.nodes[wait.node.index()].base == own.base
                && (other.open > 0
                    || matches!(other.ill, Some(Outcome::Failed(_) | Outcome::Cancelled(_))))
        })
    }

    /// The cause for those who need more of a node than it gave.
    fn why_not(&self, node: NodeId) -> Cause {
        match &self.nodes[node.index()].ill {
            Some(outcome) => derived(From::Condition, node, outcome),
            None => panic!("BUG: {node:?} ended well, and yet not"),
        }
    }

    fn condition_met(&mut self, id: GroupId) {
        let group = &mut self.groups[id.index()];
        match group.phase {
            Phase::Waiting | Phase::Backoff => group.unmet -= 1,
            // A service was restarted beside it, or this is too late.
            Phase::Asking | Phase::Running | Phase::Over => return,
            Phase::Ready | Phase::ReadyAgain => {
                panic!("BUG: a condition of {id:?} is met, and all were")
            }
        }
        let waits = group.phase == Phase::Waiting || group.delay_over;
        if group.unmet == 0 && waits {
            self.becomes_ready(id);
        }
    }

    /// A unit's condition never holds: it is skipped, and with it all that it would have run with.
    pub(super) fn skip_because_of(&mut self, unit: UnitId, cause: &Cause) {
        let group = self.plan.units[unit.index()].group;
        let phase = self.groups[group.index()].phase;
        if !matches!(phase, Phase::Waiting | Phase::Ready | Phase::Asking) {
            return;
        }
        let outcome = Outcome::Skipped(cause.clone());
        let mut causes = self.causes(group, unit, &outcome);
        causes.push((unit, cause.clone()));
        match phase {
            Phase::Asking => self.give_up(group, causes),
            _ => self.skip(group, causes),
        }
    }

    /// Skips a whole group that was never started.
    pub(super) fn skip(&mut self, group: GroupId, causes: Vec<(UnitId, Cause)>) {
        match self.groups[group.index()].phase {
            Phase::Waiting => {}
            Phase::Ready => self.ready.remove(&self.claim(group), group),
            Phase::Asking => self.give_back(group),
            other => panic!("BUG: {group:?} is skipped in {other:?}"),
        }
        self.groups[group.index()].phase = Phase::Over;
        for (unit, cause) in causes {
            match &self.units[unit.index()].state {
                State::Waiting => self.done(unit, Outcome::Skipped(cause)),
                State::Done(Outcome::Skipped(Cause::ByUser | Cause::When(_))) => {}
                other => panic!("BUG: {unit:?} is skipped in {other:?}"),
            }
        }
    }

    fn claim(&self, group: GroupId) -> Claim {
        Claim::of(&self.plan.groups[group.index()])
    }

    /// Nothing but room is missing for a group's try.
    pub(super) fn becomes_ready(&mut self, id: GroupId) {
        let group = &mut self.groups[id.index()];
        group.phase = match group.phase {
            Phase::Waiting => Phase::Ready,
            Phase::Backoff => {
                group.delay_over = false;
                Phase::ReadyAgain
            }
            other => panic!("BUG: {id:?} becomes ready in {other:?}"),
        };
        self.ready.insert(self.claim(id), id);
    }

    /// Takes a group that waits for its next try out of the line.
    pub(super) fn leave_line(&mut self, group: GroupId) {
        self.ready.remove(&self.claim(group), group);
    }

    /// Starts the first group that there is room for.
    pub(super) fn start_next(&mut self) -> bool {
        if self.ready.is_empty() {
            return false;
        }
        let Some(id) = self.ready.take_first(&self.free()) else {
            return false;
        };
        self.running += u32::from(!self.is_service_group(id));
        self.used.take(&self.claim(id));
        self.ask_or_start(id);
        true
    }

    /// Starts a group that has got what it claims.
    pub(super) fn start(&mut self, id: GroupId) {
        let group = &mut self.groups[id.index()];
        group.phase = Phase::Running;
        group.attempt += 1;
        group.restart = None;
        group.last_try = !group.restartable;
        let attempt = group.attempt;
        let plan = self.plan;
        for unit in &plan.groups[id.index()].units {
            match self.units[unit.index()].state {
                State::Waiting | State::Backoff => self.set(*unit, State::Starting { stop: None }),
                State::Done(Outcome::Skipped(Cause::ByUser | Cause::When(_))) => {}
                ref other => panic!("BUG: {unit:?} is started in {other:?}"),
            }
        }
        self.out.push(Action::Spawn { group: id, attempt });
    }

    /// A group's try is over: what it held is free.
    pub(super) fn give_back(&mut self, group: GroupId) {
        let claim = self.claim(group);
        self.running -= u32::from(!self.is_service_group(group));
        self.used.give_back(&claim);
    }
}
