//! Conditions that are commands: asked when a group has all else it needs, one after the other, and each once.

use crate::event::{Cause, Exit, Failure, Outcome};
use crate::plan::{GroupId, UnitId, Unmet};
use crate::sched::machine::Scheduler;
use crate::sched::state::{Phase, State, Why};
use crate::sched::{Action, Timer};

impl Scheduler<'_> {
    /// A group has got what it claims: asks its next question, or starts what is left of it.
    pub(super) fn ask_or_start(&mut self, id: GroupId) {
        if self.groups[id.index()].questions == 0 {
            return self.start(id);
        }
        let plan = self.plan;
        let next = plan.groups[id.index()].units.iter().copied().find(|unit| {
            let node = self.node_of(*unit);
            plan.nodes[node.index()].asks.is_some() && !self.nodes[node.index()].asked
        });
        let Some(unit) = next else {
            panic!("BUG: {id:?} has questions, and no node that has one");
        };
        self.groups[id.index()].phase = Phase::Asking;
        self.set(unit, State::Asked { stop: None });
        self.out.push(Action::Ask(unit));
        if let Some(timeout) = plan.units[unit.index()].settings.timeout {
            self.units[unit.index()].timeout = true;
            self.out.push(Action::Arm(Timer::Timeout(unit), timeout));
        }
    }

    /// A command has ended, or could not be started.
    pub(super) fn answered(&mut self, unit: UnitId, answer: Result<Exit, Failure>) {
        let State::Asked { stop } = self.units[unit.index()].state.clone() else {
            panic!(
                "BUG: Answered({unit:?}, {answer:?}) in {:?}",
                self.units[unit.index()].state
            );
        };
        self.disarm(unit);
        let group = self.plan.units[unit.index()].group;
        let node = self.node_of(unit);
        self.nodes[node.index()].asked = true;
        self.groups[group.index()].questions -= 1;
        self.set(unit, State::Waiting);
        if let Some(causes) = self.groups[group.index()].given_up.take() {
            return self.skip(group, causes);
        }
        let failure = match (stop, answer) {
            (None, Ok(Exit::Code(0))) => return self.go_on(group),
            (None, Ok(Exit::Code(1))) => {
                self.leave_out(unit);
                return self.go_on(group);
            }
            (None, Ok(exit)) => Failure::Exit(exit),
            (None, Err(failure)) => failure,
            (Some(Why::TimedOut), _) => {
                let timeout = self.plan.units[unit.index()].settings.timeout;
                Failure::TimedOut(timeout.unwrap_or_default())
            }
            (Some(why), _) => panic!("BUG: {unit:?} is asked no more, for {why:?}"),
        };
        // What would have run with it can't do so without it.
        let outcome = Outcome::Failed(Failure::Condition(Box::new(failure)));
        let causes = self.causes(group, unit, &outcome);
        self.done(unit, outcome);
        self.skip(group, causes);
    }

    fn go_on(&mut self, id: GroupId) {
        if self.groups[id.index()].open == 0 {
            self.groups[id.index()].phase = Phase::Over;
            return self.give_back(id);
        }
        // A service may be gone that was ready when the first question was asked.
        let unmet = self.unready_needs(id);
        if unmet > 0 {
            self.groups[id.index()].phase = Phase::Waiting;
            self.groups[id.index()].unmet = unmet;
            return self.give_back(id);
        }
        self.ask_or_start(id);
    }

    /// Takes a node out of its group, as if it had been out from the start: it is in no count of its queues any more.
    fn leave_out(&mut self, unit: UnitId) {
        let plan = self.plan;
        let node = self.node_of(unit);
        for unit in plan.nodes[node.index()].units.clone().map(UnitId) {
            for at in self.reads.range(unit.index()) {
                let queue = self.reads.at(at);
                self.queues[queue.index()].readers_open -= 1;
            }
            for at in self.writes.range(unit.index()) {
                let queue = self.writes.at(at);
                let counts = !self.back.contains(&(queue, unit));
                self.queues[queue.index()].unclear -= u32::from(counts);
            }
        }
        self.nodes[node.index()].left_out = true;
        for unit in plan.nodes[node.index()].units.clone().map(UnitId) {
            self.done(unit, Outcome::Skipped(Cause::When(Unmet::Command)));
        }
    }

    /// A group of which a question is asked will not start: that is ended first. What was the first to give it up stands.
    pub(super) fn give_up(&mut self, id: GroupId, causes: Vec<(UnitId, Cause)>) {
        let plan = self.plan;
        let units = plan.groups[id.index()].units.iter().copied();
        let asked = |unit: &UnitId| matches!(self.units[unit.index()].state, State::Asked { .. });
        let Some(unit) = units.into_iter().find(asked) else {
            panic!("BUG: no unit of {id:?} is asked");
        };
        if self.units[unit.index()].state != (State::Asked { stop: None }) {
            return;
        }
        let cause = causes.iter().find(|(of, _)| *of == unit);
        let Some((_, cause)) = cause.cloned() else {
            panic!("BUG: {id:?} is given up, and not {unit:?}");
        };
        self.groups[id.index()].given_up = Some(causes);
        self.stop(unit, Why::Cancel(cause));
    }
}
