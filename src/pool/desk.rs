//! What `request` and `task` have in common: records come in, results go out, the ledger is kept, and there is an end.
//!
//! It doesn't know what a worker is: the crews do ([`crate::pool::request`], [`crate::pool::task`]).

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

use crate::diagnostic::reason;
use crate::event::Exit;
use crate::plan::{self, Feed, Order};
use crate::pool::delivery::Delivery;
use crate::pool::handle::{Counters, Inbox, PoolEvents};
use crate::pool::intake::{Intake, IntakeError};
use crate::pool::journal::{Journal, Line};
use crate::pool::ledger::{Ledger, Rules, Run, State};
use crate::pool::outlet::Outlet;
use crate::pool::request::OWN_FAULT;
use crate::pool::shelf::Shelf;
use crate::pool::store::Store;
use crate::pool::{Ended, Idle, PoolCall, PoolEvent, PoolSpec, Work};
use crate::queue::framer::Framer;
use crate::spec::{OnFailure, Records};

/// No more is read while so many bytes are held, unless there is nothing to hand out.
const AHEAD: usize = 2 * 1024 * 1024;

/// Results that wait for their turn are held in memory up to so many bytes.
const HELD: usize = 16 * 1024 * 1024;

/// Why procflow can't go on, in words for people.
#[derive(Debug)]
pub(crate) struct Unable(pub String);

/// An end of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// It takes records.
    Input,
    /// This one of its outputs.
    Output(usize),
}

/// What poll(2) told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Polled {
    Inbox,
    Intake,
    Outlet(usize),
    Dead,
    Worker(u32, End),
}

/// What the crews do.
pub(crate) trait Workers {
    /// Ends to wait on.
    fn waits<'a>(&'a self, desk: &Desk, add: &mut dyn FnMut(BorrowedFd<'a>, PollFlags, u32, End));
    /// When something is to be looked at although nothing has come.
    fn deadline(&self, desk: &Desk) -> Option<Duration>;
    /// The loop says something of a worker.
    fn hear(&mut self, desk: &mut Desk, call: PoolCall) -> Result<(), Unable>;
    /// An end is ready.
    fn ready(&mut self, desk: &mut Desk, worker: u32, end: End) -> Result<(), Unable>;
    /// After all that: hands out, asks for workers, looks at the time.
    fn turn(&mut self, desk: &mut Desk) -> Result<(), Unable>;
    /// Ends all that are left: nobody wants their answers.
    fn end_all(&mut self, desk: &mut Desk, how: Ending);
    /// No worker lives, and none was asked for.
    fn are_gone(&self) -> bool;
}

/// How workers are ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// By `stop_signal`.
    Stop,
    /// By SIGKILL.
    Kill,
    /// By the loop.
    Loop,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Desk {
    pub settings: Arc<plan::Pool>,
    pub success_codes: Vec<u8>,
    pub max_record: u64,
    /// The descriptors of a worker that lead to [`Delivery::outlets`].
    pub outputs: Vec<u32>,
    pub ledger: Ledger,
    pub store: Store,
    pub intake: Intake,
    pub delivery: Delivery,
    pub events: PoolEvents,
    /// Workers that were asked for.
    pub started: u64,
    on_failure: OnFailure,
    dead_letter: Option<Outlet>,
    journal: Journal,
    inbox: Inbox,
    counters: Arc<Counters>,
    /// How it will end, once that is certain before everything is done.
    verdict: Option<Ended>,
    /// The crew has been told of that.
    is_ending: bool,
    /// Why the first record without a dead letter failed.
    culprit: String,
    was_idle: bool,
    has_begun: bool,
    has_said: bool,
}

impl Desk {
    pub fn new(
        spec: PoolSpec,
        inbox: Inbox,
        events: PoolEvents,
        counters: Arc<Counters>,
    ) -> io::Result<Desk> {
        let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, what.to_owned());
        let settings = spec.settings;
        let is_task = settings.feed == Feed::Task;
        let records = match &spec.work {
            Work::Stream(_) => spec.records,
            Work::List(_) | Work::Range(..) | Work::Lines(..) => Records::Lines,
        };
        let framer = Framer::new(&records, spec.max_record).map_err(wrong)?;
        if framer.is_bytes() {
            return Err(wrong("bytes without records can't be handed out"));
        }
        let header = if is_task { spec.header } else { 0 };
        let intake = Intake::new(spec.work, framer, spec.max_record, header, !is_task);
        let mut outlets = vec![Outlet::new(spec.results)?];
        let mut outputs = vec![1];
        for (number, output) in spec.held {
            outputs.push(number);
            outlets.push(Outlet::new(output)?);
        }
        let rules = Rules {
            retry: settings.retry.clone(),
            batch: settings.batch.map(|batch| u64::from(batch.max(1))),
            max_in_flight: settings
                .max_in_flight
                .map_or(u64::MAX, |most| u64::from(most.max(1))),
            recycle_after: if is_task {
                u64::MAX
            } else {
                settings.recycle_after.unwrap_or(u64::MAX).max(1)
            },
            on_failure: spec.on_failure,
            dead_letter: spec.dead_letter.is_some(),
            barren: settings.workers.saturating_add(5).saturating_mul(OWN_FAULT),
        };
        let shelf = Shelf::new(spec.spill_dir, HELD);
        let is_ordered = settings.order == Order::Input;
        counters
            .total
            .store(intake.total.unwrap_or(u64::MAX), Ordering::Relaxed);
        Ok(Desk {
            success_codes: spec.success_codes,
            max_record: spec.max_record,
            outputs,
            ledger: Ledger::new(rules, settings.workers, fastrand::u64(..)),
            store: Store::new(intake.framer().clone()),
            delivery: Delivery::new(outlets, shelf, is_ordered),
            intake,
            events,
            started: 0,
            on_failure: spec.on_failure,
            dead_letter: spec.dead_letter.map(Outlet::new).transpose()?,
            journal: Journal::new(spec.log),
            inbox,
            counters,
            verdict: None,
            is_ending: false,
            culprit: String::new(),
            was_idle: false,
            has_begun: false,
            has_said: false,
            settings,
        })
    }

    /// Since the pool's start, without the time that the run stood still.
    pub fn now(&self) -> Duration {
        self.inbox.now()
    }

    /// Asks the loop for something.
    pub fn say(&mut self, event: PoolEvent) {
        self.events.post(event);
        self.has_said = true;
    }

    /// It can't end well any more. The first reason counts.
    pub fn fail(&mut self, ended: Ended) {
        self.verdict.get_or_insert(ended);
        self.ledger.halt();
    }

    /// What is being done is not wanted any more.
    pub fn is_failing(&self) -> bool {
        self.verdict.is_some()
    }

    /// Results, or dead letters, have nowhere to go for now.
    pub fn is_full(&self) -> bool {
        self.delivery.is_full() || self.dead_letter.as_ref().is_some_and(Outlet::is_full)
    }

    /// Adds a line to `tasks.jsonl`.
    pub fn note(&mut self, line: &Line) -> Result<(), Unable> {
        self.journal
            .add(line)
            .map_err(|error| Unable(format!("can't write tasks.jsonl: {}", reason(&error))))
    }

    /// Records that have failed every try: to the dead letters, and into the log. `why`: of the last try.
    pub fn bury(
        &mut self,
        worker: u32,
        exit: Option<Exit>,
        start: Duration,
        why: &str,
    ) -> Result<(), Unable> {
        while let Some(run) = self.ledger.next_dead() {
            self.note(&Line {
                task: run.first,
                count: run.count,
                worker,
                tries: run.failures,
                exit,
                start,
                duration: self.now().saturating_sub(start),
                is_dead: true,
            })?;
            if self.ledger.culprit().is_some() && self.culprit.is_empty() {
                why.clone_into(&mut self.culprit);
            }
            for place in run.first..run.end() {
                self.bury_one(place)?;
            }
            self.delivery
                .pass_held(run.first, run.count, Vec::new())
                .map_err(unwritable)?;
            self.store.done(run.first, run.count);
        }
        Ok(())
    }

    fn bury_one(&mut self, place: u64) -> Result<(), Unable> {
        let Some(outlet) = &mut self.dead_letter else {
            return Ok(());
        };
        let record = self.intake.as_it_came(self.store.record(place));
        let missing = if self.store.added(place) > 0 {
            outlet.framer().missing_terminator(&record)
        } else {
            Vec::new()
        };
        outlet
            .put(&record, missing, &mut self.delivery.shelf)
            .map_err(unwritable)?;
        if outlet.is_closed() {
            self.fail(Ended::Broken);
        }
        Ok(())
    }

    /// Runs until the end; `None` where it was told to stop without a word.
    pub fn run(&mut self, workers: &mut dyn Workers) -> Option<Ended> {
        loop {
            match self.step(workers) {
                Ok(Some(Step::Stopped)) => return None,
                Ok(Some(Step::Over)) => break,
                Ok(None) => {}
                Err(Unable(why)) => {
                    // Whatever else has happened: this is what the user must know.
                    self.ledger.halt();
                    if !matches!(self.verdict, Some(Ended::Unable(_))) {
                        self.verdict = Some(Ended::Unable(why));
                        self.is_ending = true;
                        workers.end_all(self, Ending::Kill);
                    }
                    // The step has not come to it.
                    self.wake();
                }
            }
            // Nothing is waited for but the workers: what can't be written is not tried again and again, and what was on its way
            // to a worker that could not be asked for is nobody's.
            if matches!(self.verdict, Some(Ended::Unable(_))) && workers.are_gone() {
                break;
            }
        }
        let flushed = self.journal.flush();
        self.count();
        if let Err(error) = flushed
            && !self.is_failing()
        {
            self.fail(Ended::Unable(format!(
                "can't write tasks.jsonl: {}",
                reason(&error)
            )));
        }
        Some(self.verdict.take().unwrap_or_else(|| self.result()))
    }

    /// How it ended where nothing cut it short.
    fn result(&self) -> Ended {
        let Some(culprit) = self.ledger.culprit() else {
            return Ended::Well;
        };
        let (record, tries) = (culprit.record, culprit.tries);
        let why = &self.culprit;
        let tries = if tries == 1 {
            "its only try".to_owned()
        } else {
            format!("all of its {tries} tries")
        };
        let others = match self.ledger.buried() - 1 {
            0 => String::new(),
            others => format!("; so did {others} more"),
        };
        Ended::Failed(format!("record {record} failed {tries}: {why}{others}"))
    }

    /// Waits, and does what there is to do.
    fn step(&mut self, workers: &mut dyn Workers) -> Result<Option<Step>, Unable> {
        // The first workers are asked for whether there is work or not.
        let polled = if std::mem::replace(&mut self.has_begun, true) {
            self.wait(workers)?
        } else {
            Vec::new()
        };
        if polled.iter().any(|(what, _)| *what == Polled::Inbox) {
            if self.inbox.is_stop() {
                return Ok(Some(Step::Stopped));
            }
            // All of it, whatever comes of the first: nobody says it again.
            let mut heard = Ok(());
            while let Some(call) = self.inbox.next() {
                match call {
                    PoolCall::Stop => {
                        self.fail(Ended::Stopped);
                        self.is_ending = true;
                        workers.end_all(self, Ending::Loop);
                    }
                    other => heard = heard.and(workers.hear(self, other)),
                }
            }
            heard?;
        }
        for (what, events) in polled {
            match what {
                Polled::Inbox => {}
                Polled::Intake => self.take_in()?,
                Polled::Outlet(at) => {
                    let shelf = &mut self.delivery.shelf;
                    self.delivery.outlets[at]
                        .polled(events, shelf)
                        .map_err(unwritable)?;
                }
                Polled::Dead => {
                    if let Some(outlet) = &mut self.dead_letter {
                        outlet
                            .polled(events, &mut self.delivery.shelf)
                            .map_err(unwritable)?;
                    }
                }
                Polled::Worker(worker, end) => workers.ready(self, worker, end)?,
            }
        }
        if self.intake.is_given() && self.wants_input() {
            self.take_in()?;
        }
        // Who goes when all is done has had what it wanted.
        let is_over = self.ledger.state() == State::Over;
        if !is_over && self.delivery.outlets.iter().any(Outlet::is_broken) {
            self.fail(Ended::Broken);
        }
        self.judge(workers);
        self.ledger.wake(self.now());
        workers.turn(self)?;
        self.judge(workers);
        self.tell();
        let is_done = self.ledger.state() == State::Over && workers.are_gone();
        let has_left =
            self.delivery.is_empty() && self.dead_letter.as_ref().is_none_or(Outlet::is_empty);
        let is_cut_short = self.is_failing();
        Ok((is_done && (has_left || is_cut_short)).then_some(Step::Over))
    }

    /// Ends the workers once nothing they do is wanted.
    fn judge(&mut self, workers: &mut dyn Workers) {
        if self.is_ending {
            return;
        }
        if self.verdict.is_some() {
            self.is_ending = true;
            let how = match self.verdict {
                Some(Ended::Broken) => Ending::Stop,
                _ => Ending::Kill,
            };
            workers.end_all(self, how);
        } else if self.ledger.culprit().is_some() && self.on_failure == OnFailure::Kill {
            self.is_ending = true;
            let result = self.result();
            self.fail(result);
            workers.end_all(self, Ending::Stop);
        }
    }

    /// Counts for who looks, and the loop's wake-up for what was said.
    fn tell(&mut self) {
        let is_idle = self.ledger.is_idle()
            && !self.intake.is_ended()
            && !self.intake.is_given()
            && self.delivery.is_empty()
            && self.dead_letter.as_ref().is_none_or(Outlet::is_empty)
            && !self.has_input();
        if is_idle && !self.was_idle && !self.is_failing() {
            self.count();
            self.say(PoolEvent::Idle(self.idle()));
        }
        self.was_idle = is_idle;
        self.wake();
    }

    /// Lets the loop hear what was said.
    fn wake(&mut self) {
        if self.has_said {
            self.has_said = false;
            self.count();
            self.events.wake();
        }
    }

    /// What has been taken and written, while nothing is in hand.
    fn idle(&self) -> Idle {
        let bytes = |outlet: &Outlet| outlet.bytes;
        let (results, held) = match &self.delivery.outlets[..] {
            [results, held @ ..] => (results.bytes, held),
            [] => panic!("BUG: a pool without an output"),
        };
        let numbers = self.outputs.iter().skip(1).copied();
        Idle {
            taken_bytes: self.intake.bytes + self.intake.header().len() as u64,
            result_bytes: results,
            held_bytes: numbers.zip(held.iter().map(bytes)).collect(),
            dead_bytes: self.dead_letter.as_ref().map_or(0, bytes),
        }
    }

    /// The input has something, or its end, right now.
    fn has_input(&self) -> bool {
        let Some(fd) = self.intake.fd() else {
            return false;
        };
        let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
        !matches!(poll(&mut fds, PollTimeout::ZERO), Ok(0))
    }

    fn count(&self) {
        let set = |counter: &std::sync::atomic::AtomicU64, value| {
            counter.store(value, Ordering::Relaxed);
        };
        let counters = &*self.counters;
        set(&counters.taken, self.ledger.arrived());
        set(&counters.taken_bytes, self.intake.bytes);
        set(&counters.answered, self.ledger.answered());
        let bytes = self.delivery.outlets.first().map_or(0, |first| first.bytes);
        set(&counters.result_bytes, bytes);
        set(&counters.dead, self.ledger.buried());
        set(&counters.retried, self.ledger.retried());
        set(&counters.in_flight, self.ledger.in_flight());
        set(&counters.started, self.started);
    }

    fn wants_input(&self) -> bool {
        !self.intake.is_ended()
            && !self.is_failing()
            && (self.ledger.wants_more() || self.store.held() < AHEAD)
    }

    /// The input has something.
    fn take_in(&mut self) -> Result<(), Unable> {
        match self.intake.fill(&mut self.store) {
            Ok(0) => {}
            Ok(records) => self.ledger.arrive(records),
            Err(IntakeError::Rule(why)) => self.fail(Ended::Failed(why)),
            Err(IntakeError::Read(error)) => {
                return Err(Unable(format!("can't read its input: {}", reason(&error))));
            }
        }
        if self.intake.is_ended() {
            self.ledger.end();
        }
        Ok(())
    }

    /// Waits until something can be done.
    fn wait(&mut self, workers: &mut dyn Workers) -> Result<Vec<(Polled, PollFlags)>, Unable> {
        self.count();
        let mut fds = vec![PollFd::new(self.inbox.fd(), PollFlags::POLLIN)];
        let mut whose = vec![Polled::Inbox];
        let wants_input = self.wants_input();
        if wants_input && let Some(fd) = self.intake.fd() {
            fds.push(PollFd::new(fd, PollFlags::POLLIN));
            whose.push(Polled::Intake);
        }
        // After an error they would be ready again and again.
        let is_writing = !matches!(self.verdict, Some(Ended::Unable(_)));
        for (at, outlet) in self.delivery.outlets.iter().enumerate() {
            if is_writing && let Some((fd, events)) = outlet.waits() {
                fds.push(PollFd::new(fd, events));
                whose.push(Polled::Outlet(at));
            }
        }
        if is_writing && let Some((fd, events)) = self.dead_letter.as_ref().and_then(Outlet::waits)
        {
            fds.push(PollFd::new(fd, events));
            whose.push(Polled::Dead);
        }
        workers.waits(self, &mut |fd, events, worker, end| {
            fds.push(PollFd::new(fd, events));
            whose.push(Polled::Worker(worker, end));
        });
        let timeout = if wants_input && self.intake.is_given() {
            PollTimeout::ZERO
        } else {
            self.timeout(workers)
        };
        while let Err(error) = poll(&mut fds, timeout) {
            if error != Errno::EINTR {
                return Err(Unable(format!(
                    "can't wait for its workers: {}",
                    reason(&error.into())
                )));
            }
        }
        let said = fds
            .iter()
            .map(|fd| fd.revents().unwrap_or(PollFlags::POLLERR));
        Ok(whose
            .into_iter()
            .zip(said)
            .filter(|(_, events)| !events.is_empty())
            .collect())
    }

    fn timeout(&self, workers: &dyn Workers) -> PollTimeout {
        let deadlines = [workers.deadline(self), self.ledger.next_wake()];
        let Some(deadline) = deadlines.into_iter().flatten().min() else {
            return PollTimeout::NONE;
        };
        // Rounded up: a wait that ends too early would be one for nothing.
        let left = deadline.saturating_sub(self.now()).as_nanos();
        let millis = i32::try_from(left.div_ceil(1_000_000)).unwrap_or(i32::MAX);
        PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)
    }

    /// Whether a process has succeeded.
    pub fn is_success(&self, exit: Exit) -> bool {
        exit.is_success(&self.success_codes)
    }

    /// About so many of the records to be handed out next have this many bytes; at least 1.
    pub fn fitting(&self, bytes: usize) -> u64 {
        let next = self.ledger.next_untouched();
        next.map_or(1, |place| self.store.fitting(place, bytes))
    }

    /// These records are done.
    pub fn settle(&mut self, run: Run) {
        self.store.done(run.first, run.count);
    }
}

/// What a step came to.
enum Step {
    Stopped,
    Over,
}

/// A failed write, in words for people.
pub(crate) fn unwritable(error: io::Error) -> Unable {
    Unable(format!("can't write its results: {}", reason(&error)))
}

/// How a process ended, in words for people.
pub(crate) fn words(exit: Exit) -> String {
    match exit {
        Exit::Code(code) => format!("exit code {code}"),
        Exit::Signal { number, .. } => match Signal::try_from(number) {
            Ok(signal) => format!("killed by {}", signal.as_str()),
            Err(_) => format!("killed by signal {number}"),
        },
    }
}
