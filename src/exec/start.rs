//! Starting groups: their queues, then their units in order, all or none.

use std::collections::HashSet;
use std::os::fd::AsFd;
use std::time::Duration;

use crate::event::{Failure, Printer, What};
use crate::exec::crew::{Done, Job};
use crate::exec::error::Error;
use crate::exec::launch::{For, StartError};
use crate::exec::relays::Carries;
use crate::exec::runner::{Body, Capture, LastTry, Live, Owner, Runner};
use crate::exec::wiring::{Captured, Context, LogEnds, UnitWiring, WireError, wire};
use crate::plan::template::{Part, Template};
use crate::plan::{GroupId, Role, UnitId};
use crate::queue::RelaySpec;
use crate::sched::Event;
use crate::sys::process::Child;

impl Runner<'_> {
    /// Starts what the scheduler has said since the last time: makes the queues of each group, then lets the crew make the
    /// processes.
    pub(super) fn spawn(&mut self) {
        self.level_slots();
        let (mut worker_jobs, workers): (Vec<_>, Vec<_>) =
            self.prepare_workers().into_iter().unzip();
        let mut jobs = Vec::with_capacity(self.to_spawn.len());
        let mut wirings = Vec::with_capacity(self.to_spawn.len());
        for (group, attempt) in std::mem::take(&mut self.to_spawn) {
            if self.broken.is_some() {
                self.refuse(group, attempt);
            } else if let Some(units) = self.prepare(group, attempt) {
                let processes = units.iter().filter(|(unit, _)| self.is_process(*unit));
                let job = processes.map(|(unit, wiring)| (*unit, wiring.numbers()));
                jobs.push(Job {
                    attempt,
                    units: job.collect(),
                    worker: None,
                    purpose: For::Itself,
                });
                wirings.push((attempt, units));
            }
        }
        jobs.append(&mut worker_jobs);
        if jobs.is_empty() {
            return;
        }
        let mut done = self.crew.start(jobs, &self.values).into_iter();
        for (attempt, units) in wirings {
            self.group_started(attempt, units, done.next().unwrap_or_default());
        }
        for (worker, done) in workers.into_iter().zip(done) {
            self.worker_started(worker, done.into_iter().next());
        }
    }

    /// The processes of a group have been made, up to the first that could not be. What of it is no process follows now, in its
    /// place: its thread ends by itself when nobody is there to read or write.
    fn group_started(&mut self, attempt: u32, units: Vec<(UnitId, UnitWiring)>, done: Done) {
        let mut done = done.into_iter();
        let mut failed = false;
        let mut broken = None;
        for (unit, wiring) in units {
            match self.plan.unit(unit).role {
                _ if failed => self.leave_terminal(unit, None),
                Role::Pool if broken.is_some() => self.leave_terminal(unit, None),
                Role::Pool => {
                    broken = self
                        .start_pool(unit, attempt, wiring)
                        .err()
                        .map(|error| (unit, error));
                }
                // The relay of its queue has begun already.
                Role::Gather => self.works(unit, attempt, wiring, Body::Gather),
                Role::Process | Role::Worker(_) => match done.next() {
                    Some(started) => {
                        failed = started.is_err();
                        self.started(unit, attempt, wiring, started);
                    }
                    None => panic!("BUG: nothing came of {unit:?}"),
                },
            }
        }
        // Not before it is known what else of the group runs, and so is to be killed for it.
        if let Some((unit, error)) = broken {
            if failed {
                self.fail(error);
            } else {
                self.spawn_broken(unit, attempt, error);
            }
        }
    }

    fn is_process(&self, unit: UnitId) -> bool {
        match self.plan.unit(unit).role {
            Role::Process | Role::Worker(_) => true,
            Role::Pool | Role::Gather => false,
        }
    }

    /// A thread of ours does this unit's work, and has begun.
    pub(super) fn works(&mut self, unit: UnitId, attempt: u32, wiring: UnitWiring, body: Body) {
        self.is_live(unit, attempt, wiring, body);
        self.tell(What::Started {
            unit,
            attempt,
            pid: None,
        });
        self.inbox.push_back(Event::Spawned(unit));
    }

    /// procflow can't go on, and has not come to tell the scheduler yet. What a group would read may not be whole.
    fn refuse(&mut self, group: GroupId, attempt: u32) {
        let first = self
            .left_out
            .starts(self.plan, &self.plan.group(group).units)
            .first()
            .copied();
        if let (Some(first), Some(error)) = (first, &self.broken) {
            let why = error.to_string();
            self.spawn_failed(first, attempt, Failure::CannotStart { code: 126, why });
        }
    }

    /// Makes the queues of a group and its units' descriptors, or answers why that cannot be.
    fn prepare(&mut self, group: GroupId, attempt: u32) -> Option<Vec<(UnitId, UnitWiring)>> {
        self.journal.keeper.begins(group, &self.values);
        match self.wire(group) {
            Ok(units) => {
                self.look_before(group);
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
                let first = self
                    .left_out
                    .starts(self.plan, &self.plan.group(group).units)
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
    pub(super) fn spawn_broken(&mut self, unit: UnitId, attempt: u32, error: Error) {
        let why = error.to_string();
        self.fail(error);
        self.spawn_failed(unit, attempt, Failure::CannotStart { code: 126, why });
    }

    /// Makes the group's queues and each unit's descriptors.
    fn wire(&mut self, group: GroupId) -> Result<Vec<(UnitId, UnitWiring)>, WireError> {
        let Runner {
            plan,
            left_out,
            relays,
            values,
            run_id,
            null,
            log_pipes,
            appended,
            spill_dir,
            taps,
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
            left_out,
            null: null.as_fd(),
            log_pipes,
            appended,
            taps: taps.as_ref(),
            spill_dir,
            run_id,
            path: &path,
            relay: &mut relay,
        };
        let (wiring, units) = wire(&mut cx, group)?;
        self.groups.insert(group, wiring);
        self.begin_progress();
        self.watch_for_stall(group);
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
                    StartError::Task(why) => panic!("BUG: {unit:?} is no task's: {why}"),
                    StartError::Broken(error) => {
                        self.spawn_broken(unit, attempt, Error::new("start a process", error));
                    }
                };
            }
        };
        let pid = child.pid();
        self.pids.insert(pid, Owner::Unit(unit));
        self.is_live(unit, attempt, wiring, Body::Process(child));
        self.give_terminal(unit);
        self.tell(What::Started {
            unit,
            attempt,
            pid: Some(pid),
        });
        self.inbox.push_back(Event::Spawned(unit));
    }

    /// A unit is at work: what is kept of its wiring.
    fn is_live(&mut self, unit: UnitId, attempt: u32, wiring: UnitWiring, body: Body) {
        let started = self.clock.now();
        let captures = wiring
            .captures
            .into_iter()
            .map(|(what, ends)| self.begin_capture(started, unit.into(), what, ends))
            .collect();
        if !wiring.files.is_empty() {
            self.files.insert(unit, wiring.files);
        }
        let live = Live {
            body,
            attempt,
            started,
            captures,
            tee_holds: wiring.tee_holds,
            signalled: false,
            share: wiring.share,
            fault: None,
            reaped: None,
            unsettled: HashSet::new(),
        };
        self.live.insert(unit, live);
    }

    /// Something is to be read, by the number that is returned; not watched before it has been there for a while.
    pub(super) fn begin_capture(
        &mut self,
        since: Duration,
        printer: Printer,
        what: Captured,
        ends: LogEnds,
    ) -> u64 {
        self.next_capture += 1;
        self.unwatched.push_back((since, self.next_capture));
        let capture = Capture {
            printer,
            what,
            ends,
            watched: false,
        };
        self.captures.insert(self.next_capture, capture);
        self.next_capture
    }
}
