//! The `request` and `task` pools that run: their threads, and the workers that the loop starts, stops and reaps for them.
//!
//! A pool's thread knows records, the loop knows processes. The thread asks for a worker and hands over the ends that it made for
//! it; the loop adds what all workers of the pool have, starts it, and says how it ended.

use std::collections::HashMap;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use crate::event::{Exit, Failure, PoolCounts, Printer, Stream, Usage, What};
use crate::exec::crew::{Job, Worker as JobWorker};
use crate::exec::deadlines::Due;
use crate::exec::ending::reap_child;
use crate::exec::error::Error;
use crate::exec::inbox::Inbox;
use crate::exec::launch::{For, StartError};
use crate::exec::pool_wiring::{PoolWiring, WorkerErr, WorkerWiring};
use crate::exec::runner::{Body, Owner, Reaped, Runner};
use crate::exec::wiring::{Captured, Descriptor, LogEnds, UnitWiring, numbers};
use crate::plan::settings::MAX_RECORD;
use crate::plan::{Feed, UnitId};
use crate::pool::{self, Ended, PoolCall, PoolEvent, PoolHandle, PoolSpec, Start, Ticket};
use crate::sys::process::Child;

/// A pool that runs.
#[derive(Debug)]
pub(super) struct Running {
    handle: PoolHandle,
    unit: UnitId,
    wiring: WorkerWiring,
    workers: HashMap<Ticket, Worker>,
    /// Of the workers that have ended.
    usage: Usage,
    /// It is being stopped: nothing more is started for it.
    stopping: bool,
    leaked: bool,
    /// How the worker ended that has failed last.
    failed: Option<Exit>,
}

impl Running {
    /// A worker that was asked for is not started. The pool waits for an answer all the same.
    fn refuse(&self, ticket: Ticket) {
        let why = "the pool is being stopped".to_owned();
        let failure = Failure::CannotStart { code: 126, why };
        self.handle.call(PoolCall::CannotStart(ticket, failure));
    }
}

/// A worker that runs.
#[derive(Debug)]
struct Worker {
    child: Child,
    number: u32,
    started: Duration,
    /// Its standard error, where it has a log of its own.
    capture: Option<u64>,
    /// procflow has signalled it.
    signalled: bool,
}

/// All pools that run.
#[derive(Debug)]
pub struct Pools {
    running: HashMap<u64, Running>,
    inbox: Inbox<PoolEvent>,
    /// Workers that pools have asked for, by pool.
    asked: Vec<(u64, Start)>,
}

/// A worker on its way: what the crew is given, and what is kept of it.
#[derive(Debug)]
pub(super) struct Prepared {
    pool: u64,
    ticket: Ticket,
    number: u32,
    /// Closed when it is started.
    fds: Vec<(Descriptor, u32)>,
    log: Option<LogEnds>,
}

impl Pools {
    /// None yet.
    ///
    /// # Errors
    /// Where there are no descriptors left.
    pub fn new() -> io::Result<Self> {
        Ok(Pools {
            running: HashMap::new(),
            inbox: Inbox::new()?,
            asked: Vec::new(),
        })
    }

    /// Readable when one has something to say.
    pub fn wake(&self) -> BorrowedFd<'_> {
        self.inbox.wake()
    }

    /// Whether one runs.
    pub fn is_any(&self) -> bool {
        !self.running.is_empty()
    }

    /// Whether a worker is to be started.
    pub fn has_asked(&self) -> bool {
        !self.asked.is_empty()
    }

    /// The workers of a pool.
    pub fn pids(&self, pool: u64) -> Vec<i32> {
        let running = self.running.get(&pool).into_iter();
        running
            .flat_map(|running| running.workers.values())
            .map(|worker| worker.child.pid())
            .collect()
    }

    /// Whose a pool is.
    pub fn unit(&self, pool: u64) -> Option<UnitId> {
        self.running.get(&pool).map(|running| running.unit)
    }

    /// What each has done so far.
    pub fn counts(&self) -> impl Iterator<Item = (UnitId, PoolCounts)> {
        let running = self.running.values();
        running.map(|pool| (pool.unit, pool.handle.counts()))
    }

    /// The run is about to stand still.
    pub fn suspend(&self) {
        self.running.values().for_each(|pool| pool.handle.suspend());
    }

    /// It goes on.
    pub fn resume(&self) {
        self.running.values().for_each(|pool| pool.handle.resume());
    }

    /// Forgets a worker that was asked for and is not wanted any more; whether there was one.
    fn is_not_wanted(&mut self, pool: u64, ticket: Ticket) -> bool {
        let is_it = |asked: &(u64, Start)| asked.0 == pool && asked.1.ticket == ticket;
        let Some(at) = self.asked.iter().position(is_it) else {
            return false;
        };
        self.asked.swap_remove(at);
        if let Some(running) = self.running.get(&pool) {
            running.refuse(ticket);
        }
        true
    }
}

/// Starting: a pool, and its workers.
impl Runner<'_> {
    /// Starts the thread of a pool whose ends are wired.
    ///
    /// # Errors
    /// No thread, no `tasks.jsonl`: procflow can't go on.
    pub(super) fn start_pool(
        &mut self,
        unit: UnitId,
        attempt: u32,
        mut wiring: UnitWiring,
    ) -> Result<(), Error> {
        let Some(ends) = wiring.pool.take() else {
            panic!("BUG: {unit:?} is a pool, and not wired as one");
        };
        match self.pool_thread(unit, *ends) {
            Ok(number) => {
                self.pool_started(unit, attempt, wiring, number);
                Ok(())
            }
            Err(e) => Err(Error::new("start a pool", e)),
        }
    }

    fn pool_thread(&mut self, unit: UnitId, ends: PoolWiring) -> io::Result<u64> {
        let planned = self.plan.unit(unit);
        let node = self.plan.node(planned.node);
        let Some(settings) = &node.pool else {
            panic!("BUG: {unit:?} is a pool's, and its node none");
        };
        let spec = PoolSpec {
            name: node.name.to_string(),
            settings: Arc::clone(settings),
            success_codes: planned.settings.success_codes.clone(),
            on_failure: self.on_failure,
            work: ends.work,
            records: ends.records,
            max_record: ends.max_record.unwrap_or(MAX_RECORD),
            header: ends.header,
            results: ends.results,
            held: ends.held,
            dead_letter: ends.dead_letter,
            log: (self.tasks_log)(&node.name)?,
            spill_dir: self.spill_dir.clone(),
        };
        let events = self.pools.inbox.events();
        let number = events.id;
        let running = Running {
            handle: pool::start(spec, events)?,
            unit,
            wiring: ends.workers,
            workers: HashMap::new(),
            usage: Usage::default(),
            stopping: false,
            leaked: false,
            failed: None,
        };
        self.pools.running.insert(number, running);
        Ok(number)
    }

    fn pool_started(&mut self, unit: UnitId, attempt: u32, wiring: UnitWiring, number: u64) {
        self.cycles.begin(unit);
        self.begin_progress();
        self.works(unit, attempt, wiring, Body::Pool(number));
    }

    /// The workers that pools have asked for: jobs for the crew, and what is to be done with what comes of them.
    pub(super) fn prepare_workers(&mut self) -> Vec<(Job, Prepared)> {
        let asked = std::mem::take(&mut self.pools.asked);
        asked
            .into_iter()
            .filter_map(|(pool, start)| self.prepare_worker(pool, start))
            .collect()
    }

    fn prepare_worker(&mut self, pool: u64, start: Start) -> Option<(Job, Prepared)> {
        let running = self.pools.running.get(&pool)?;
        let ticket = start.ticket;
        if running.stopping {
            running.refuse(ticket);
            return None;
        }
        let mut fds: Vec<(Descriptor, u32)> = start
            .fds
            .into_iter()
            .map(|(fd, number)| (Descriptor::own(fd), number))
            .collect();
        let mut log = None;
        match &running.wiring.stderr {
            WorkerErr::Held => {}
            WorkerErr::Shared(end) => fds.push((end.clone(), 2)),
            WorkerErr::Stdout => match fds.iter().find(|(_, number)| *number == 1) {
                Some((stdout, _)) => fds.push((stdout.clone(), 2)),
                None => panic!("BUG: a worker of {:?} has no standard output", running.unit),
            },
            WorkerErr::Log => match self.log_pipes.take() {
                Ok(pipe) => {
                    let write = Arc::new(pipe.write);
                    fds.push((Descriptor::Own(write), 2));
                    log = Some(LogEnds {
                        read: pipe.read,
                        write: None,
                    });
                }
                Err(e) => {
                    self.worker_broken(pool, ticket, Error::new("make a pipe for a log", e));
                    return None;
                }
            },
        }
        for (number, input) in &running.wiring.inputs {
            match input.open() {
                Ok(end) => fds.push((end, *number)),
                Err(why) => {
                    let failure = Failure::CannotStart { code: 1, why };
                    running.handle.call(PoolCall::CannotStart(ticket, failure));
                    return None;
                }
            }
        }
        let job = Job {
            attempt: start.attempt,
            units: vec![(running.unit, numbers(&fds))],
            worker: Some(JobWorker {
                number: start.worker,
                task: start.task,
            }),
            purpose: For::Itself,
        };
        let prepared = Prepared {
            pool,
            ticket,
            number: start.worker,
            fds,
            log,
        };
        Some((job, prepared))
    }

    /// A worker has been made, or could not be.
    pub(super) fn worker_started(
        &mut self,
        prepared: Prepared,
        started: Option<Result<Child, StartError>>,
    ) {
        let Prepared {
            pool,
            ticket,
            number,
            fds,
            log,
        } = prepared;
        drop(fds);
        let child = match started {
            Some(Ok(child)) => child,
            Some(Err(StartError::Unit(failure))) => {
                if let Some(running) = self.pools.running.get(&pool) {
                    running.handle.call(PoolCall::CannotStart(ticket, failure));
                }
                return;
            }
            Some(Err(StartError::Task(why))) => {
                // As a shell would: 126, and why on its standard error. It is this record's fault, and no other's.
                if let Some(running) = self.pools.running.get(&pool) {
                    let exited = PoolCall::Exited(ticket, Exit::Code(126), Usage::default());
                    running.handle.call(exited);
                    let worker = Printer {
                        unit: running.unit,
                        worker: Some(number),
                    };
                    self.say_for_worker(worker, &why);
                }
                return;
            }
            Some(Err(StartError::Broken(e))) => {
                return self.worker_broken(pool, ticket, Error::new("start a process", e));
            }
            None => panic!("BUG: nothing came of {ticket:?}"),
        };
        let now = self.clock.now();
        let Some(unit) = self.pools.unit(pool) else {
            panic!("BUG: a pool ended while {ticket:?} was being started");
        };
        let pid = child.pid();
        let printer = Printer {
            unit,
            worker: Some(number),
        };
        let capture = log.map(|ends| self.begin_capture(now, printer, Captured::Err, ends));
        let Some(running) = self.pools.running.get_mut(&pool) else {
            panic!("BUG: a pool ended while {ticket:?} was being started");
        };
        self.pids.insert(pid, Owner::Worker(pool, ticket));
        running.handle.call(PoolCall::Started(ticket, pid));
        let worker = Worker {
            child,
            number,
            started: now,
            capture,
            signalled: false,
        };
        running.workers.insert(ticket, worker);
        if self.is_request(unit) {
            self.tell(What::WorkerStarted {
                unit,
                worker: number,
                pid,
            });
        }
    }

    fn is_request(&self, unit: UnitId) -> bool {
        let node = self.plan.node(self.plan.unit(unit).node);
        let feed = node.pool.as_ref().map(|pool| pool.feed);
        feed == Some(Feed::Request)
    }

    /// Nothing is wrong with the worker, but procflow cannot start it. The pool waits for an answer all the same.
    fn worker_broken(&mut self, pool: u64, ticket: Ticket, error: Error) {
        if let Some(running) = self.pools.running.get(&pool) {
            let why = error.to_string();
            let failure = Failure::CannotStart { code: 126, why };
            running.handle.call(PoolCall::CannotStart(ticket, failure));
        }
        self.fail(error);
    }
}

/// What pools say, and how they and their workers end.
impl Runner<'_> {
    pub(super) fn read_pools(&mut self) {
        while let Some((pool, event)) = self.pools.inbox.next() {
            match event {
                PoolEvent::Start(start) => self.pools.asked.push((pool, start)),
                // A pool that ends may have asked for it in the same breath, and nobody would end it later.
                PoolEvent::Stop(ticket) | PoolEvent::Kill(ticket)
                    if self.pools.is_not_wanted(pool, ticket) => {}
                PoolEvent::Stop(ticket) => self.stop_worker(pool, ticket),
                PoolEvent::Kill(ticket) => self.signal_worker(pool, ticket, libc::SIGKILL),
                PoolEvent::Idle(idle) => {
                    if let Some(unit) = self.pools.unit(pool) {
                        self.pool_is_idle(unit, idle);
                    }
                }
                PoolEvent::Ended(ended) => self.pool_ended(pool, ended),
            }
        }
    }

    /// A pool wants to be rid of a worker: its `stop_signal`, and SIGKILL when its grace is over.
    fn stop_worker(&mut self, pool: u64, ticket: Ticket) {
        let Some(running) = self.pools.running.get(&pool) else {
            return;
        };
        let settings = &self.plan.unit(running.unit).settings;
        let (signal, grace) = (settings.stop_signal, settings.stop_grace);
        self.signal_worker(pool, ticket, signal);
        self.signal_worker(pool, ticket, libc::SIGCONT);
        let due = Due::Worker(pool, ticket);
        self.deadlines.arm(due, self.clock.now() + grace);
    }

    /// Sends a signal to a worker's process group. One that has ended gets none.
    pub(super) fn signal_worker(&mut self, pool: u64, ticket: Ticket, signal: i32) {
        let worker = self
            .pools
            .running
            .get_mut(&pool)
            .and_then(|running| running.workers.get_mut(&ticket));
        let Some(worker) = worker else { return };
        let ends_it = !matches!(signal, libc::SIGSTOP | libc::SIGCONT);
        worker.signalled |= ends_it;
        if let Err(e) = worker.child.signal_group(signal)
            && ends_it
        {
            self.fail(Error::new(format!("send signal {signal} to a worker"), e));
        }
    }

    /// Sends a signal to all workers of a pool; one that ends them ends the pool as well.
    pub(super) fn signal_pool(&mut self, pool: u64, signal: i32) {
        let Some(running) = self.pools.running.get_mut(&pool) else {
            return;
        };
        if !matches!(signal, libc::SIGSTOP | libc::SIGCONT) && !running.stopping {
            running.stopping = true;
            running.handle.call(PoolCall::Stop);
        }
        let workers: Vec<Ticket> = running.workers.keys().copied().collect();
        for ticket in workers {
            self.signal_worker(pool, ticket, signal);
        }
    }

    /// Reaps a worker that has ended, with what is left of its process group.
    pub(super) fn reap_worker(&mut self, pool: u64, ticket: Ticket) {
        let worker = self
            .pools
            .running
            .get_mut(&pool)
            .and_then(|running| running.workers.remove(&ticket));
        let Some(mut worker) = worker else {
            panic!("BUG: {ticket:?} of pool {pool} ended, and does not run");
        };
        self.deadlines.disarm(Due::Worker(pool, ticket));
        let wall = self.clock.now().saturating_sub(worker.started);
        let reaped = match reap_child(&mut worker.child, worker.signalled, wall) {
            Ok(reaped) => reaped,
            Err(error) => return self.fail(error),
        };
        let Reaped {
            exit,
            usage,
            leaked,
        } = reaped;
        if let Some(capture) = worker.capture {
            self.read_rest(capture);
            self.captures.remove(&capture);
        }
        let Some(running) = self.pools.running.get_mut(&pool) else {
            panic!("BUG: {ticket:?} outlives its pool");
        };
        running.leaked |= leaked;
        if !exit.is_success(&self.plan.unit(running.unit).settings.success_codes) {
            running.failed = Some(exit);
        }
        running.usage.user += usage.user;
        running.usage.system += usage.system;
        running.usage.max_rss = running.usage.max_rss.max(usage.max_rss);
        running.handle.call(PoolCall::Exited(ticket, exit, usage));
        let unit = running.unit;
        if self.is_request(unit) {
            self.tell(What::WorkerEnded {
                unit,
                worker: worker.number,
                exit,
                usage,
            });
        } else {
            let printer = Printer {
                unit,
                worker: Some(worker.number),
            };
            self.watch.output_ended(printer, exit);
        }
    }

    /// All is done, or will not be. What it wrote is in its queues' pipes, and its ends are closed.
    fn pool_ended(&mut self, pool: u64, ended: Ended) {
        let Some(running) = self.pools.running.remove(&pool) else {
            return;
        };
        let unit = running.unit;
        let counts = running.handle.counts();
        running.handle.join();
        self.tell(What::PoolProgress { unit, counts });
        let settings = &self.plan.unit(unit).settings;
        let well = Exit::Code(settings.success_codes.first().copied().unwrap_or(0));
        let killed = |number| Exit::Signal {
            number,
            core: false,
        };
        let (exit, fault) = match ended {
            Ended::Well => (well, None),
            // As a process that writes to a pipe which nobody reads.
            Ended::Broken => (killed(libc::SIGPIPE), None),
            Ended::Stopped => (killed(settings.stop_signal), None),
            // As its worker: who asks for its exit code is not told that all is well.
            Ended::Failed(why) => (running.failed.unwrap_or(Exit::Code(1)), Some(why)),
            Ended::CannotStart(why, code) => (Exit::Code(code), Some(why)),
            Ended::Unable(why) => {
                self.fail(Error::new("feed a pool", io::Error::other(why.clone())));
                (well, Some(why))
            }
        };
        let Some(live) = self.live.get_mut(&unit) else {
            panic!("BUG: the pool of {unit:?} ended, and does not run");
        };
        let usage = Usage {
            wall: self.clock.now().saturating_sub(live.started),
            ..running.usage
        };
        live.fault = fault;
        live.reaped = Some(Reaped {
            exit,
            usage,
            leaked: running.leaked,
        });
        self.settle_outputs(unit);
    }

    /// Says on a worker's log what it could not say itself.
    fn say_for_worker(&mut self, worker: Printer, text: &str) {
        self.watch.output(
            worker,
            Stream::Err,
            format!("procflow: {text}\n").as_bytes(),
        );
    }
}
