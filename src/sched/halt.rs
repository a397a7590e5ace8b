//! The end of the run before its end: a failure under `on_failure`, the run's timeout, a signal, procflow's own trouble.

use crate::event::Cause;
use crate::plan::{GroupId, NodeId};
use crate::sched::Action;
use crate::sched::machine::Scheduler;
use crate::sched::state::{Phase, State, Why};
use crate::spec::OnFailure;

impl Scheduler<'_> {
    /// The first failure, once what depends on it is skipped: nothing new starts but clean-up. A group that waits for its next
    /// try has started, so under `stop` it has its tries. Clean-up that runs already is not killed: it would start even now.
    pub(super) fn run_has_failed(&mut self, node: NodeId) {
        if self.halted.is_some() {
            return;
        }
        let cause = Cause::RunFailed(node);
        self.out.push(Action::Stopping(cause.clone()));
        self.services_alone_go();
        for id in 0..self.groups.len() {
            // Services go with those that need them, which may be clean-up.
            if !self.groups[id].cleanup && !self.is_service_group(GroupId::from(id)) {
                self.stop_group(
                    GroupId::from(id),
                    &cause,
                    self.on_failure == OnFailure::Kill,
                );
            }
        }
    }

    pub(super) fn shutdown(&mut self, signal: i32) {
        // The first stops, the second kills. A run that was being stopped by its own timeout has its grace from the first.
        let again = matches!(self.halted, Some(Cause::Interrupted(_) | Cause::Broken));
        self.halt(Cause::Interrupted(signal), again);
    }

    /// Everything is stopped, or killed, and nothing starts any more.
    pub(super) fn halt(&mut self, cause: Cause, kill: bool) {
        if self
            .halted
            .as_ref()
            .is_none_or(|halted| weight(&cause) > weight(halted))
        {
            if std::mem::take(&mut self.run_timer) {
                self.out.push(Action::Disarm(crate::sched::Timer::Run));
            }
            self.out.push(Action::Stopping(cause.clone()));
            self.halted = Some(cause.clone());
        }
        self.kill_all |= kill;
        if self.phase == crate::sched::machine::RunPhase::Going {
            self.stop_all(&cause);
        }
    }

    pub(super) fn stop_all(&mut self, cause: &Cause) {
        for id in 0..self.groups.len() {
            let id = GroupId::from(id);
            if self.is_kept(id) {
                self.is_last_try(id);
            } else {
                self.stop_group(id, cause, true);
            }
        }
        if self.kill_all {
            for id in 0..self.units.len() {
                if matches!(
                    self.units[id].state,
                    State::Stopping(_) | State::Asked { stop: Some(_) }
                ) {
                    self.kill(id.into());
                }
            }
        }
    }

    /// A service that runs outlives those who need it, unless all are killed.
    fn is_kept(&self, id: GroupId) -> bool {
        let group = &self.groups[id.index()];
        if self.kill_all || group.phase != Phase::Running || group.restart.is_some() {
            return false;
        }
        let mut units = self.plan.groups[id.index()].units.iter();
        units.any(|unit| {
            let service = self.services.get(self.node_of(*unit));
            service.is_some_and(|service| service.users > 0)
        })
    }

    /// Skips a group that was not started; with `running`, also stops one that was.
    fn stop_group(&mut self, id: GroupId, cause: &Cause, running: bool) {
        let plan = self.plan;
        let units = &plan.groups[id.index()].units;
        match self.groups[id.index()].phase {
            Phase::Waiting | Phase::Ready => {
                self.skip(
                    id,
                    units.iter().map(|unit| (*unit, cause.clone())).collect(),
                );
            }
            Phase::Asking => {
                self.give_up(
                    id,
                    units.iter().map(|unit| (*unit, cause.clone())).collect(),
                );
            }
            Phase::Running if running => {
                self.abandon(id, cause);
                for unit in units {
                    if matches!(
                        self.units[unit.index()].state,
                        State::Starting { stop: None } | State::Running
                    ) {
                        self.stop(*unit, Why::Cancel(cause.clone()));
                    }
                }
            }
            Phase::Backoff | Phase::ReadyAgain if running => self.abandon(id, cause),
            Phase::Running | Phase::Backoff | Phase::ReadyAgain | Phase::Over => {}
        }
    }
}

/// Which verdict wins where there are several reasons.
fn weight(cause: &Cause) -> u32 {
    match cause {
        Cause::RunTimeout => 1,
        Cause::Interrupted(_) => 2,
        Cause::Broken => 3,
        other => panic!("BUG: {other:?} halts no run"),
    }
}
