//! Starting groups: their queues, then their units in order, all or none.

use std::collections::HashSet;
use std::os::fd::AsFd;

use crate::event::{Failure, What};
use crate::exec::crew::Job;
use crate::exec::error::Error;
use crate::exec::launch::StartError;
use crate::exec::relays::Carries;
use crate::exec::runner::{Capture, LastTry, Live, Runner};
use crate::exec::wiring::{Context, UnitWiring, WireError, starts, wire};
use crate::plan::template::{Part, Template};
use crate::plan::{GroupId, UnitId};
use crate::queue::RelaySpec;
use crate::sched::Event;
use crate::sys::process::Child;

impl Runner<'_> {
    /// Starts what the scheduler has said since the last time: makes the queues of each group, then lets the crew make the
    /// processes.
    pub(super) fn spawn(&mut self) {
        let mut jobs = Vec::with_capacity(self.to_spawn.len());
        let mut wirings = Vec::with_capacity(self.to_spawn.len());
        for (group, attempt) in std::mem::take(&mut self.to_spawn) {
            if let Some(units) = self.prepare(group, attempt) {
                let job = units
                    .iter()
                    .map(|(unit, wiring)| (*unit, wiring.numbers()))
                    .collect();
                jobs.push(Job {
                    attempt,
                    units: job,
                });
                wirings.push((attempt, units));
            }
        }
        if jobs.is_empty() {
            return;
        }
        let done = self.crew.start(jobs, &self.values);
        for ((attempt, units), done) in wirings.into_iter().zip(done) {
            let mut done = done.into_iter();
            for (unit, wiring) in units {
                match done.next() {
                    Some(started) => self.started(unit, attempt, wiring, started),
                    // One before it could not be started.
                    None => self.leave_terminal(unit, None),
                }
            }
        }
    }

    /// Makes the queues of a group and its units' descriptors, or answers why that cannot be.
    fn prepare(&mut self, group: GroupId, attempt: u32) -> Option<Vec<(UnitId, UnitWiring)>> {
        match self.wire(group) {
            Ok(units) => {
                for (unit, _) in &units {
                    self.enter_terminal(*unit);
                }
                Some(units)
            }
            Err(WireError::Unit(unit, why)) => {
                self.spawn_failed(unit, attempt, Failure::CannotStart { code: 1, why });
                None
            }
            Err(WireError::Broken(error)) => {
                let first = starts(self.plan, &self.plan.group(group).units)
                    .first()
                    .copied();
                if let Some(first) = first {
                    self.spawn_broken(first, attempt, error);
                }
                None
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
            log_pipes,
            appended,
            spill_dir,
            ..
        } = self;
        let mut relay = |spec: RelaySpec, carries: Carries| relays.start(spec, group, carries);
        let path = |template: &Template| {
            plan.dir.join(template.resolve(&|part| match part {
                Part::Text(text) => text.to_string(),
                Part::RunId => run_id.clone(),
                Part::Task | Part::TaskField(_) | Part::TaskIndex | Part::Worker => {
                    panic!("BUG: a path with a task in it")
                }
                Part::Value(node) => values.get(node).cloned().unwrap_or_default(),
                Part::In(_) | Part::Out(_) => panic!("BUG: a path with a descriptor in it"),
            }))
        };
        let mut cx = Context {
            plan,
            null: null.as_fd(),
            log_pipes,
            appended,
            spill_dir,
            run_id,
            path: &path,
            relay: &mut relay,
        };
        let (wiring, units) = wire(&mut cx, group)?;
        self.groups.insert(group, wiring);
        Ok(units)
    }

    /// A unit's process has been made, or could not be.
    fn started(
        &mut self,
        unit: UnitId,
        attempt: u32,
        wiring: UnitWiring,
        started: Result<Child, StartError>,
    ) {
        let child = match started {
            Ok(child) => child,
            Err(error) => {
                self.leave_terminal(unit, None);
                return match error {
                    StartError::Unit(failure) => self.spawn_failed(unit, attempt, failure),
                    StartError::Broken(error) => {
                        self.spawn_broken(unit, attempt, Error::new("start a process", error));
                    }
                };
            }
        };
        let pid = child.pid();
        self.pids.insert(pid, unit);
        let started = self.clock.now();
        let mut captures = Vec::with_capacity(wiring.captures.len());
        for (what, ends) in wiring.captures {
            self.next_capture += 1;
            self.unwatched.push_back((started, self.next_capture));
            captures.push(self.next_capture);
            self.captures.insert(
                self.next_capture,
                Capture {
                    unit,
                    what,
                    ends,
                    watched: false,
                },
            );
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
        self.tell(What::Started {
            unit,
            attempt,
            pid: Some(pid),
        });
        self.inbox.push_back(Event::Spawned(unit));
    }
}
