//! Tries of a group: what is restarted is the group, from the start, so that each member has the same input again.

use std::time::Duration;

use crate::event::{Cause, Exit, Failure, Outcome};
use crate::plan::{GroupId, Retry, UnitId};
use crate::sched::machine::Scheduler;
use crate::sched::state::{Own, Phase, Restart, State, Why};
use crate::sched::{Action, Timer};

impl Scheduler<'_> {
    /// A unit's own failure leads to another try. (A command that cannot be started does not: it will not appear by itself,
    /// and what passes by itself, such as a full process table, is the spawning's to wait out.)
    pub(super) fn may_retry(&self, unit: UnitId, failure: &Failure) -> bool {
        let retry = &self.plan.units[unit.index()].settings.retry;
        let code_counts = match failure {
            Failure::CannotStart { .. } | Failure::Condition(_) => false,
            Failure::Exit(Exit::Code(code)) => {
                retry.on_codes.is_empty() || retry.on_codes.contains(code)
            }
            Failure::Exit(Exit::Signal { .. })
            | Failure::TimedOut(_)
            | Failure::Result(_)
            | Failure::NotReady(_)
            | Failure::Ended { .. } => retry.on_codes.is_empty(),
        };
        let group = &self.groups[self.plan.units[unit.index()].group.index()];
        code_counts
            && !group.last_try
            && self.nodes[self.node_of(unit).index()].failures < retry.max
    }

    /// The first failure of a try: the rest of the group is stopped, and nothing of this try counts.
    pub(super) fn begin_restart(&mut self, group: GroupId, restart: Restart) {
        let node = self.node_of(restart.unit);
        self.nodes[node.index()].failures += 1;
        self.set(restart.unit, State::Settled(Own::TakenBack));
        self.groups[group.index()].restart = Some(restart);
        let plan = self.plan;
        for unit in &plan.groups[group.index()].units {
            match &self.units[unit.index()].state {
                State::Starting { stop: None } | State::Running => self.stop(*unit, Why::Retry),
                State::Torn(_) => {
                    self.disarm(*unit);
                    self.set(*unit, State::Settled(Own::TakenBack));
                }
                State::Starting { stop: Some(_) }
                | State::Stopping(_)
                | State::Settled(_)
                | State::Done(_) => {}
                other @ (State::Waiting
                | State::Asked { .. }
                | State::Committing { .. }
                | State::Backoff) => {
                    panic!("BUG: {unit:?} is in {other:?} in a try that failed")
                }
            }
        }
    }

    /// Nothing of a failed try runs any more: all of it is taken back, and the next is timed.
    pub(super) fn take_back(&mut self, group: GroupId) {
        let Some(restart) = self.groups[group.index()].restart.clone() else {
            panic!("BUG: {group:?} is taken back without a reason");
        };
        let plan = self.plan;
        for unit in &plan.groups[group.index()].units {
            if self.is_left_out(*unit) {
                continue;
            }
            self.discard(*unit);
            self.set(*unit, State::Backoff);
            let state = &mut self.units[unit.index()];
            (state.released, state.killed) = (false, false);
        }
        // What is known of its queues is as before the try: nobody in it ended ill, or it would have been the last, and
        // nothing was final.
        self.out.push(Action::GroupEnded(group));
        self.groups[group.index()].phase = Phase::Backoff;
        self.groups[group.index()].unmet = self.unready_needs(group);
        self.groups[group.index()].delay_over = false;
        self.give_back(group);

        let unit = restart.unit;
        let failures = self.nodes[self.node_of(unit).index()].failures;
        let delay = self.delay(&plan.units[unit.index()].settings.retry, failures);
        let attempt = self.groups[group.index()].attempt;
        self.out.push(Action::Retrying {
            unit,
            attempt,
            failure: restart.failure,
            delay,
        });
        self.out.push(Action::Arm(Timer::Backoff(group), delay));
    }

    /// Before the try after a unit's failure number `failures`, from 1.
    fn delay(&mut self, retry: &Retry, failures: u32) -> Duration {
        if retry.delay.is_zero() {
            return Duration::ZERO;
        }
        let exponent = i32::try_from(failures - 1).unwrap_or(i32::MAX);
        let seconds = retry.delay.as_secs_f64() * retry.backoff.powi(exponent);
        // Also where the product is too large for a number.
        let delay = Duration::try_from_secs_f64(seconds)
            .unwrap_or(retry.max_delay)
            .min(retry.max_delay);
        if retry.jitter {
            delay.mul_f64(0.5 + self.random.f64() / 2.0)
        } else {
            delay
        }
    }

    /// A group does not wait for its next try any more.
    pub(super) fn leave_backoff(&mut self, group: GroupId) {
        match self.groups[group.index()].phase {
            Phase::Backoff if self.groups[group.index()].delay_over => {}
            Phase::Backoff => self.out.push(Action::Disarm(Timer::Backoff(group))),
            Phase::ReadyAgain => self.leave_line(group),
            phase => panic!("BUG: {group:?} leaves its backoff in {phase:?}"),
        }
    }

    /// There will be no other try: the failure that made one necessary stands, and the rest of the group ends by `cause`.
    pub(super) fn abandon(&mut self, group: GroupId, cause: &Cause) {
        self.abandon_for(group, &|_| cause.clone());
    }

    /// As [`Scheduler::abandon`], with a cause for each unit.
    pub(super) fn abandon_for(&mut self, group: GroupId, cause: &dyn Fn(UnitId) -> Cause) {
        let restart = self.groups[group.index()].restart.take();
        let phase = self.groups[group.index()].phase;
        match phase {
            Phase::Backoff | Phase::ReadyAgain => self.leave_backoff(group),
            Phase::Running => self.is_last_try(group),
            Phase::Waiting | Phase::Ready | Phase::Asking | Phase::Over => {
                panic!("BUG: {group:?} is abandoned in {phase:?}")
            }
        }
        if phase != Phase::Running {
            self.groups[group.index()].phase = Phase::Over;
        }
        let plan = self.plan;
        for unit in &plan.groups[group.index()].units {
            let outcome = match &restart {
                Some(restart) if restart.unit == *unit => Outcome::Failed(restart.failure.clone()),
                _ => Outcome::Cancelled(cause(*unit)),
            };
            match &self.units[unit.index()].state {
                State::Backoff => self.done(*unit, outcome),
                State::Settled(Own::TakenBack) => self.decide(*unit, Own::Ill(outcome)),
                State::Stopping(Why::Retry) => {
                    self.set(*unit, State::Stopping(Why::Cancel(cause(*unit))))
                }
                State::Starting {
                    stop: Some(Why::Retry),
                } => {
                    self.set(
                        *unit,
                        State::Starting {
                            stop: Some(Why::Cancel(cause(*unit))),
                        },
                    );
                }
                State::Waiting
                | State::Asked { .. }
                | State::Starting { .. }
                | State::Running
                | State::Stopping(_)
                | State::Torn(_)
                | State::Settled(_)
                | State::Committing { .. }
                | State::Done(_) => {}
            }
        }
    }
}
