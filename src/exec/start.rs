//! Starting a group: its queues, then its units in order, all or none.

use std::collections::HashSet;
use std::os::fd::AsFd;

use crate::event::{Failure, What};
use crate::exec::error::Error;
use crate::exec::launch::StartError;
use crate::exec::relays::Carries;
use crate::exec::runner::{Capture, LastTry, Live, Runner};
use crate::exec::wiring::{Context, UnitWiring, WireError, wire};
use crate::plan::template::{Part, Template};
use crate::plan::{GroupId, UnitId};
use crate::queue::RelaySpec;
use crate::sched::Event;

impl Runner<'_> {
    pub(super) fn spawn(&mut self, group: GroupId, attempt: u32) {
        let units = match self.wire(group) {
            Ok(units) => units,
            Err(WireError::Unit(unit, why)) => {
                return self.spawn_failed(unit, attempt, Failure::CannotStart { code: 1, why });
            }
            Err(WireError::Broken(error)) => {
                let plan = self.plan;
                let skipped = |unit: &&UnitId| plan.node(plan.unit(**unit).node).skip;
                let mut units = plan.group(group).units.iter();
                if let Some(&first) = units.find(|unit| !skipped(unit)) {
                    self.spawn_broken(first, attempt, error);
                }
                return;
            }
        };
        for (unit, wiring) in units {
            if !self.start(unit, attempt, wiring) {
                return;
            }
        }
    }

    fn spawn_failed(&mut self, unit: UnitId, attempt: u32, failure: Failure) {
        let last = LastTry {
            attempt,
            reaped: None,
        };
        self.last.insert(unit, last);
        self.inbox.push_back(Event::SpawnFailed(unit, failure));
    }

    /// Nothing is wrong with the unit, but procflow cannot start it, nor any other. The scheduler waits for an answer all the
    /// same.
    fn spawn_broken(&mut self, unit: UnitId, attempt: u32, error: Error) {
        let why = error.to_string();
        self.fail(error);
        self.spawn_failed(unit, attempt, Failure::CannotStart { code: 126, why });
    }

    /// Makes the group's queues and each unit's descriptors.
    fn wire(&mut self, group: GroupId) -> Result<Vec<(UnitId, UnitWiring)>, WireError> {
        let Runner {
            plan,
            relays,
            values,
            run_id,
            null,
            spill_dir,
            ..
        } = self;
        let mut relay = |spec: RelaySpec, carries: Carries| relays.start(spec, group, carries);
        let path = |template: &Template| {
            plan.dir.join(template.resolve(&|part| match part {
                Part::Text(text) => text.to_string(),
                Part::RunId => run_id.clone(),
                Part::Value(node) => values.get(node).cloned().unwrap_or_default(),
                Part::In(_) | Part::Out(_) => panic!("BUG: a path with a descriptor in it"),
            }))
        };
        let mut cx = Context {
            plan,
            null: null.as_fd(),
            spill_dir,
            run_id,
            path: &path,
            relay: &mut relay,
        };
        let (wiring, units) = wire(&mut cx, group)?;
        self.groups.insert(group, wiring);
        Ok(units)
    }

    /// Starts one unit; false where that failed, so that no later one of its group is tried.
    fn start(&mut self, unit: UnitId, attempt: u32, wiring: UnitWiring) -> bool {
        let fds: Vec<_> = wiring
            .fds
            .iter()
            .map(|(fd, target)| (fd.raw(), *target))
            .collect();
        self.enter_terminal(unit);
        let values = &self.values;
        let value = |node| values.get(&node).map(String::as_str);
        let child = match self.launcher.start(unit, attempt, &fds, &value) {
            Ok(child) => child,
            Err(StartError::Unit(failure)) => {
                self.leave_terminal(unit, None);
                self.spawn_failed(unit, attempt, failure);
                return false;
            }
            Err(StartError::Broken(error)) => {
                self.leave_terminal(unit, None);
                self.spawn_broken(unit, attempt, Error::new("start a process", error));
                return false;
            }
        };
        let pid = child.pid();
        self.pids.insert(pid, unit);
        let started = self.clock.now();
        let mut captures = Vec::with_capacity(wiring.captures.len());
        for (what, end) in wiring.captures {
            self.next_capture += 1;
            self.unwatched.push_back((started, self.next_capture));
            captures.push(self.next_capture);
            self.captures
                .insert(self.next_capture, Capture { unit, what, end });
        }
        if !wiring.files.is_empty() {
            self.files.insert(unit, wiring.files);
        }
        let live = Live {
            child,
            attempt,
            started,
            captures,
            tee_holds: wiring.tee_holds,
            signalled: false,
            reaped: None,
            unsettled: HashSet::new(),
        };
        self.live.insert(unit, live);
        self.give_terminal(unit);
        self.tell(What::Started { unit, attempt, pid });
        self.inbox.push_back(Event::Spawned(unit));
        true
    }
}
