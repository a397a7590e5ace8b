//! `request`: long-lived workers that answer each record with exactly one, in the order they got them.
//!
//! How many records a worker holds adapts itself: about [`WORK`] of work, so quick records travel in bulk and slow ones one at a
//! time. Three things can go wrong with that, and what is done about them:
//!
//! - A record turns out slow, and others lie behind it. What lies unread in the worker's pipe is taken back when another worker has
//!   nothing to do: a duplicate of the pipe's read end is read empty, and what the worker has begun to read is written again.
//! - A worker answers late, since it holds its answers back until a buffer of 4 KiB is full (stdio, on a pipe). One that has read
//!   everything and does not answer gets more; when no more is to be had its standard input is closed, so that it writes
//!   what it has. Such a worker ends, and another takes its place when there is more.
//! - Nobody can tell a late worker from a slow one. A slow one has not come back to read what it was given on top, and that can be
//!   taken back; and whose answer came long after the close was slow: the next time patience is longer.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::uio::writev;
use nix::unistd::read;

use crate::diagnostic::reason;
use crate::event::Exit;
use crate::pool::desk::{Desk, End, Ending, Unable, Workers, unwritable, words};
use crate::pool::journal::Line;
use crate::pool::ledger::{Failed, Run};
use crate::pool::task::cannot_start;
use crate::pool::{Ended, PoolCall, PoolEvent, Start, Ticket};
use crate::queue::BLOCK;
use crate::queue::framer::Rest;
use crate::sys::pipe::{Pipe, reopen_read, set_nonblocking, unread};

/// A worker holds about so much work.
const WORK: Duration = Duration::from_millis(1);

/// And at most so many records.
const MOST: u64 = 4096;

/// Of at most so many bytes (one record may be longer).
const BYTES: usize = 64 * 1024;

/// Pieces of records that one call writes.
const PIECES: usize = 64;

/// A worker that doesn't answer is looked at after so long, and then after twice as long, up to the second.
const LOOK: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(64)];

/// A worker is started for what another has not read when that has not answered for so long.
const VACANT: Duration = Duration::from_millis(10);

/// How long a worker that has read everything may keep its answers, at first. Afterwards what was learnt counts.
const PATIENCE: Duration = Duration::from_millis(200);

/// The same, where workers are known to hold answers back.
const LATE: Duration = Duration::from_millis(20);

/// Answers that come so soon after the close of standard input had been held back.
const PROMPT: Duration = Duration::from_millis(50);

/// The workers of a `request` pool.
#[derive(Debug)]
pub(crate) struct Crew {
    /// By number.
    workers: Vec<Option<Worker>>,
    /// Workers that are asked for or live.
    live: usize,
    next_ticket: u64,
    buffer: Vec<u8>,
    done: Vec<Run>,
    /// See [`PATIENCE`].
    patience: Duration,
    has_begun: bool,
    is_ending: bool,
}

/// Some records that a worker has.
#[derive(Debug)]
struct Given {
    run: Run,
    /// Where its bytes are in the store.
    at: u64,
    bytes: usize,
    start: Duration,
}

/// Why a worker is about to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaving {
    /// It isn't.
    No,
    /// Its input is closed: it answers what it has, and ends.
    Closed,
    /// The same, since then, only so that it does answer.
    Flushing(Duration),
    /// The first record that it has took too long, and this is the record.
    TimedOut(u64),
    /// Nobody wants its answers.
    Unwanted,
}

#[derive(Debug)]
struct Worker {
    ticket: Ticket,
    is_started: bool,
    leaving: Leaving,
    /// Its standard input; `None`: closed.
    input: Option<OwnedFd>,
    /// A read end of the same pipe that doesn't wait.
    input_read: OwnedFd,
    /// Its standard output.
    output: OwnedFd,
    /// It has closed its standard output; its end will follow.
    is_mute: bool,
    /// Unanswered runs, the first perhaps in part.
    given: VecDeque<Given>,
    /// So many of the first run's records are answered.
    answered: u64,
    /// So many of these runs are wholly written.
    sent: usize,
    /// So many bytes of the next one are.
    sent_bytes: usize,
    /// The pipe is full.
    is_full: bool,
    /// The beginning of an answer.
    rest: Vec<u8>,
    /// So many bytes of it have been looked at.
    seen: usize,
    /// Time for one record, in nanoseconds.
    pace: f64,
    /// How many records it is to hold.
    window: u64,
    /// It has been seen to answer only when it held more than this.
    floor: u64,
    /// How many it gets on top when it has read everything and doesn't answer.
    extra: u64,
    /// When it last answered, or got something while it had nothing.
    active: Duration,
    /// When it is to be looked at, and how long after the last look.
    look: Option<(Duration, Duration)>,
}

impl Crew {
    /// Nothing is started yet.
    pub fn new(desk: &Desk) -> Crew {
        Crew {
            workers: (0..desk.settings.workers).map(|_| None).collect(),
            live: 0,
            next_ticket: 0,
            buffer: vec![0; BLOCK],
            done: Vec::new(),
            patience: PATIENCE,
            has_begun: false,
            is_ending: false,
        }
    }

    /// The thread.
    pub fn live(&mut self, desk: &mut Desk) -> Option<Ended> {
        desk.run(self)
    }

    fn find(&mut self, ticket: Ticket) -> usize {
        let is_it = |worker: &Option<Worker>| {
            worker
                .as_ref()
                .is_some_and(|worker| worker.ticket == ticket)
        };
        self.workers
            .iter()
            .position(is_it)
            .unwrap_or_else(|| panic!("BUG: {ticket:?} is no process of this pool"))
    }

    /// Asks for a worker.
    fn ask(&mut self, desk: &mut Desk, number: u32) -> Result<(), Unable> {
        let worker = Worker::new(Ticket(self.next_ticket), desk.now());
        let (worker, fds) = worker.map_err(|error| {
            Unable(format!(
                "can't make a pipe for a worker: {}",
                reason(&error)
            ))
        })?;
        self.next_ticket += 1;
        self.live += 1;
        desk.started += 1;
        desk.say(PoolEvent::Start(Start {
            ticket: worker.ticket,
            worker: number,
            fds,
            task: None,
            attempt: 1,
        }));
        self.workers[number as usize] = Some(worker);
        Ok(())
    }

    /// Takes answers, until there is no more for now. `is_last`: the worker has ended.
    fn read(&mut self, desk: &mut Desk, number: u32, is_last: bool) -> Result<(), Unable> {
        loop {
            let Some(worker) = &mut self.workers[number as usize] else {
                return Ok(());
            };
            let count = match read(&worker.output, &mut self.buffer) {
                Ok(0) => {
                    worker.is_mute = true;
                    return Ok(());
                }
                Err(Errno::EAGAIN) => return Ok(()),
                Ok(count) => count,
                Err(Errno::EINTR) => continue,
                Err(error) => {
                    return Err(Unable(format!(
                        "can't read from a worker: {}",
                        reason(&error.into())
                    )));
                }
            };
            self.take_in(desk, number, count)?;
            // One read a turn, so that all are served; of one that has ended there is no other turn.
            if !is_last {
                return Ok(());
            }
        }
    }

    /// So many bytes of a worker are in the buffer.
    fn take_in(&mut self, desk: &mut Desk, number: u32, count: usize) -> Result<(), Unable> {
        let Some(worker) = &mut self.workers[number as usize] else {
            return Ok(());
        };
        let framer = desk.delivery.outlets[0].framer().clone();
        let mut rest = std::mem::take(&mut worker.rest);
        let seen = std::mem::take(&mut worker.seen);
        let taken = if rest.is_empty() {
            // The usual case: nothing is copied but the beginning of the next answer.
            let buffer = std::mem::take(&mut self.buffer);
            let whole = framer.whole(&buffer[..count], 0);
            rest.extend_from_slice(&buffer[whole.end..count]);
            let taken = self.take(
                desk,
                number,
                whole.records,
                &buffer[..whole.end],
                Vec::new(),
            );
            self.buffer = buffer;
            taken
        } else {
            rest.extend_from_slice(&self.buffer[..count]);
            let whole = framer.whole(&rest, seen);
            let taken = self.take(desk, number, whole.records, &rest[..whole.end], Vec::new());
            rest.drain(..whole.end);
            taken
        };
        let is_too_long = rest.len() as u64 > desk.max_record;
        if let Some(worker) = &mut self.workers[number as usize] {
            worker.seen = rest.len();
            worker.rest = rest;
        }
        if is_too_long && !desk.is_failing() {
            let most = bytesize::ByteSize(desk.max_record)
                .to_string()
                .replace(".0 ", " ");
            desk.fail(Ended::Failed(format!(
                "an answer of worker {number} is longer than max_record ({most})"
            )));
        }
        taken
    }

    /// A worker has answered so many records with these bytes, the last of which lacks `missing`.
    fn take(
        &mut self,
        desk: &mut Desk,
        number: u32,
        count: u64,
        data: &[u8],
        missing: Vec<u8>,
    ) -> Result<(), Unable> {
        if count == 0 || desk.is_failing() {
            return Ok(());
        }
        let now = desk.now();
        let Some(worker) = &mut self.workers[number as usize] else {
            return Ok(());
        };
        if count > worker.answerable(desk) {
            desk.fail(Ended::Failed(format!(
                "worker {number} answered more records than it was given: a worker answers each with exactly one"
            )));
            return Ok(());
        }
        let held = desk.ledger.held(number);
        if let Leaving::Flushing(since) = worker.leaving {
            self.patience = if now.saturating_sub(since) < PROMPT {
                LATE
            } else {
                // It was slow. Next time it is not to be disturbed.
                self.patience.max(now.saturating_sub(worker.active) * 4)
            };
        }
        worker.learn(held, count, now);
        let done = &mut self.done;
        done.clear();
        if desk
            .ledger
            .answer(number, count, |run| done.push(run))
            .is_err()
        {
            panic!("BUG: worker {number} holds {held} records, not {count}");
        }
        deliver(desk, done, data, missing)?;
        for run in self.done.drain(..) {
            worker.answered += run.count;
            let Some(front) = worker.given.front() else {
                panic!("BUG: {run:?} was not given to worker {number}");
            };
            if worker.answered == front.run.count {
                let line = front.line(number, None, now);
                desk.settle(front.run);
                worker.given.pop_front();
                worker.answered = 0;
                worker.sent = worker.sent.saturating_sub(1);
                desk.note(&line)?;
            }
        }
        Ok(())
    }

    /// Writes what a worker has not been sent, as far as its pipe takes it.
    fn write(&mut self, desk: &mut Desk, number: u32) -> Result<(), Unable> {
        let Some(worker) = &mut self.workers[number as usize] else {
            return Ok(());
        };
        worker.write(desk).map_err(|error| {
            Unable(format!(
                "can't write to a worker: {}",
                reason(&error.into())
            ))
        })
    }

    /// A worker has been reaped.
    fn exited(&mut self, desk: &mut Desk, ticket: Ticket, exit: Exit) -> Result<(), Unable> {
        let number = self.find(ticket) as u32;
        let read = self
            .read(desk, number, true)
            .and_then(|()| self.take_rest(desk, number, exit));
        let Some(mut worker) = self.workers[number as usize].take() else {
            panic!("BUG: {ticket:?} has ended twice");
        };
        self.live -= 1;
        // It has gone, whatever became of its answers.
        read?;
        let now = desk.now();
        let unread = worker.drain().map_err(|error| {
            Unable(format!(
                "can't read a worker's pipe: {}",
                reason(&error.into())
            ))
        })?;
        let (touched, _) = worker.touched(desk, unread);
        let held = desk.ledger.held(number);
        let start = worker.given.front().map_or(now, |front| front.start);
        let is_well = desk.is_success(exit);
        let mut counts = touched == 0;
        worker.note_partly(desk, number, now)?;
        let leaving = if desk.is_failing() {
            Leaving::Unwanted
        } else {
            worker.leaving
        };
        match leaving {
            Leaving::Unwanted => {
                desk.ledger.give_back(number, 0);
                counts = false;
            }
            Leaving::TimedOut(record) => {
                counts = false;
                if worker.head() == Some(record) {
                    desk.ledger.time_out(number, now);
                    let limit = desk.settings.task_timeout.unwrap_or_default();
                    let why = format!("timed out after {}", humantime::format_duration(limit));
                    desk.bury(number, Some(exit), start, &why)?;
                } else {
                    desk.ledger.give_back(number, 0);
                }
            }
            Leaving::Closed | Leaving::Flushing(_) if is_well && touched > 0 && touched == held => {
                desk.ledger.give_back(number, 0);
                desk.fail(Ended::Failed(format!(
                    "worker {number} ended well, but left {held} of its records without an answer: a worker answers each with exactly one"
                )));
            }
            Leaving::Closed | Leaving::Flushing(_) if held == 0 => {
                counts = false;
                if let (Exit::Code(code), false) = (exit, is_well) {
                    desk.fail(Ended::Failed(format!(
                        "worker {number} answered all its records, but ended with exit code {code}"
                    )));
                }
            }
            Leaving::No | Leaving::Closed | Leaving::Flushing(_) => {
                let failed = match exit {
                    Exit::Code(code) if !is_well => Failed::Code(code),
                    _ => Failed::Otherwise,
                };
                desk.ledger.fail(number, touched, failed, now);
                let why = format!("its worker ended without an answer ({})", words(exit));
                desk.bury(number, Some(exit), start, &why)?;
            }
        }
        let weight = match exit {
            _ if !counts => 0,
            // Somebody else's will, or the kernel's for want of memory. A program's own fault looks otherwise.
            Exit::Signal { number, .. } if [libc::SIGKILL, libc::SIGTERM].contains(&number) => 1,
            Exit::Code(_) | Exit::Signal { .. } => OWN_FAULT,
        };
        if desk.ledger.renew(number, weight) {
            desk.fail(Ended::Failed(format!(
                "its workers end again and again without having answered anything, the last with {}",
                words(exit)
            )));
        }
        Ok(())
    }

    /// What a worker that has ended left behind its last whole answer.
    fn take_rest(&mut self, desk: &mut Desk, number: u32, exit: Exit) -> Result<(), Unable> {
        let Some(worker) = &mut self.workers[number as usize] else {
            return Ok(());
        };
        let rest = std::mem::take(&mut worker.rest);
        // Of one that ended ill it may be half an answer.
        if rest.is_empty() || desk.is_failing() || !desk.is_success(exit) {
            return Ok(());
        }
        let framer = desk.delivery.outlets[0].framer();
        match framer.rest() {
            Rest::Unterminated => {
                let missing = framer.missing_terminator(&rest);
                self.take(desk, number, 1, &rest, missing)
            }
            Rest::Torn => {
                desk.fail(Ended::Failed(format!(
                    "worker {number} ended within an answer, after {} bytes of it",
                    rest.len()
                )));
                Ok(())
            }
        }
    }

    /// Hands records to those that have the least.
    fn hand_out(&mut self, desk: &mut Desk, now: Duration) -> Result<(), Unable> {
        let is_idle = |worker: &Worker| worker.is_started && worker.given.is_empty();
        for idle_only in [true, false] {
            for number in 0..self.workers.len() as u32 {
                if !desk.ledger.has_work() || desk.is_full() {
                    return Ok(());
                }
                let Some(worker) = &mut self.workers[number as usize] else {
                    continue;
                };
                if worker.input.is_none() || !worker.is_started || worker.leaving != Leaving::No {
                    continue;
                }
                if idle_only != is_idle(worker) {
                    continue;
                }
                let held = desk.ledger.held(number);
                let window = worker.window.max(worker.floor).max(1);
                if held > 0 && held > window / 2 {
                    continue;
                }
                // What there is, is shared; what is tried apart, as much of it as the worker has been seen to bear.
                let share = if idle_only && desk.ledger.has_suspected() {
                    window
                } else {
                    desk.ledger.untouched().div_ceil(self.live.max(1) as u64)
                };
                self.give(
                    desk,
                    number,
                    (window - held.min(window)).min(share.max(1)),
                    now,
                )?;
            }
        }
        Ok(())
    }

    /// Hands up to so many records to a worker.
    fn give(
        &mut self,
        desk: &mut Desk,
        number: u32,
        most: u64,
        now: Duration,
    ) -> Result<(), Unable> {
        let Some(worker) = &mut self.workers[number as usize] else {
            return Ok(());
        };
        let most = if desk.ledger.has_suspected() {
            most
        } else {
            most.min(desk.fitting(BYTES))
        };
        let is_idle = worker.given.is_empty();
        let Some(run) = desk.ledger.hand_out(number, most) else {
            return Ok(());
        };
        let (at, bytes) = desk.store.extent(run.first, run.count);
        worker.given.push_back(Given {
            run,
            at,
            bytes,
            start: now,
        });
        if is_idle {
            worker.active = now;
        }
        if worker.look.is_none() || is_idle {
            worker.look = Some((now + LOOK[0], LOOK[0]));
        }
        self.write(desk, number)
    }

    /// Closes the input of workers that will get nothing more.
    fn dismiss(&mut self, desk: &Desk) {
        let is_dry = desk.ledger.is_dry();
        // What one of them has not read may still be another's.
        let may_share = (0..self.workers.len() as u32).any(|number| desk.ledger.held(number) > 1);
        for (number, worker) in self.workers.iter_mut().enumerate() {
            let number = number as u32;
            let Some(worker) = worker else { continue };
            if worker.leaving != Leaving::No || worker.sent < worker.given.len() {
                continue;
            }
            let has_all = is_dry
                && match desk.ledger.held(number) {
                    0 => !may_share || desk.ledger.is_halted(),
                    1 => true,
                    _ => unread(&worker.input_read) == Some(0),
                };
            if has_all || desk.ledger.is_spent(number) {
                worker.close(Leaving::Closed);
            }
        }
    }

    /// Looks at workers that have not answered for a while.
    fn look(&mut self, desk: &mut Desk, now: Duration) -> Result<(), Unable> {
        if desk.is_full() {
            // It is not read, so it may well have answered.
            for worker in self.workers.iter_mut().flatten() {
                worker.active = now;
                worker.look = worker.look.map(|_| (now + LOOK[1], LOOK[0]));
            }
            return Ok(());
        }
        for number in 0..self.workers.len() as u32 {
            let Some(worker) = &mut self.workers[number as usize] else {
                continue;
            };
            if let Some(limit) = desk.settings.task_timeout
                && worker.is_timed()
                && let Some(head) = worker.head()
                && worker.active + limit <= now
            {
                worker.leaving = Leaving::TimedOut(head);
                desk.say(PoolEvent::Kill(worker.ticket));
                continue;
            }
            match worker.look {
                Some((when, _)) if when <= now => self.look_at(desk, number, now)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn look_at(&mut self, desk: &mut Desk, number: u32, now: Duration) -> Result<(), Unable> {
        let has_idle = self.workers.iter().flatten().any(|other| {
            other.is_started && other.given.is_empty() && other.leaving == Leaving::No
        });
        let Some(worker) = &mut self.workers[number as usize] else {
            return Ok(());
        };
        let held = desk.ledger.held(number);
        if held == 0 || worker.leaving != Leaving::No {
            worker.look = None;
            return Ok(());
        }
        let since = worker.active;
        let gap = worker.look.map_or(LOOK[0], |(_, gap)| gap);
        worker.look = Some((now + gap, (gap * 2).min(LOOK[1])));
        let has_read_all =
            worker.sent == worker.given.len() && unread(&worker.input_read) == Some(0);
        if !has_read_all {
            // Or nobody is there who could have it, but could be started.
            let may_start = self.live < self.workers.len() && since + VACANT <= now;
            if (has_idle || may_start) && held > 1 && !desk.ledger.has_work() {
                self.take_back(desk, number)?;
            }
            return Ok(());
        }
        let may_more = desk.store.held() < MOST_HELD
            && !desk.ledger.has_suspects(number)
            && desk.ledger.has_work();
        if may_more && !has_idle {
            let extra = worker.extra;
            worker.extra = (extra * 2).min(MOST);
            worker.look = Some((now + LOOK[0], LOOK[0]));
            return self.give(desk, number, extra, now);
        }
        if !may_more && worker.active + self.patience <= now {
            worker.close(Leaving::Flushing(now));
        }
        Ok(())
    }

    /// Takes what a worker has not read.
    fn take_back(&mut self, desk: &mut Desk, number: u32) -> Result<(), Unable> {
        let Some(worker) = &mut self.workers[number as usize] else {
            return Ok(());
        };
        let unread = worker.drain().map_err(|error| {
            Unable(format!(
                "can't read a worker's pipe: {}",
                reason(&error.into())
            ))
        })?;
        let (keep, runs) = worker.touched(desk, unread);
        // At least what it works on.
        worker.keep(desk, keep.max(1), runs);
        desk.ledger.give_back(number, keep.max(1));
        self.write(desk, number)
    }
}

/// The end of a worker that has not begun with any record weighs so much, where it ended by itself and was not killed.
pub(crate) const OWN_FAULT: u32 = 10;

/// With so many bytes held, no worker gets more only because it doesn't answer.
const MOST_HELD: usize = 64 * 1024 * 1024;

/// Passes answers on: each run's own, where they must be put in order.
fn deliver(desk: &mut Desk, done: &[Run], data: &[u8], missing: Vec<u8>) -> Result<(), Unable> {
    let Some(first) = done.first() else {
        return Ok(());
    };
    if !desk.delivery.is_ordered() {
        return desk
            .delivery
            .pass(first.first, first.count, data, missing)
            .map_err(unwritable);
    }
    let framer = desk.delivery.outlets[0].framer().clone();
    let mut rest = data;
    let mut at = 0;
    while let Some(run) = done.get(at) {
        // Neighbours go together.
        let (first, mut count) = (run.first, run.count);
        at += 1;
        while let Some(next) = done.get(at)
            && next.first == first + count
        {
            count += next.count;
            at += 1;
        }
        let is_last = at == done.len();
        let end = if is_last {
            rest.len()
        } else {
            framer.end_of(rest, count)
        };
        let (own, others) = rest.split_at(end);
        rest = others;
        let missing = if is_last { missing.clone() } else { Vec::new() };
        desk.delivery
            .pass(first, count, own, missing)
            .map_err(unwritable)?;
    }
    Ok(())
}

impl Given {
    fn line(&self, worker: u32, exit: Option<Exit>, now: Duration) -> Line {
        Line {
            task: self.run.first,
            count: self.run.count,
            worker,
            tries: self.run.failures + 1,
            exit,
            start: self.start,
            duration: now.saturating_sub(self.start),
            is_dead: false,
        }
    }
}

impl Worker {
    /// A worker that is not started, and the ends that are to be its own.
    fn new(ticket: Ticket, now: Duration) -> std::io::Result<(Worker, Vec<(OwnedFd, u32)>)> {
        let input = Pipe::new(BYTES)?;
        set_nonblocking(&input.write)?;
        let output = Pipe::to_here()?;
        let worker = Worker {
            ticket,
            is_started: false,
            leaving: Leaving::No,
            input: Some(input.write),
            input_read: reopen_read(&input.read)?,
            output: output.read,
            is_mute: false,
            given: VecDeque::new(),
            answered: 0,
            sent: 0,
            sent_bytes: 0,
            is_full: false,
            rest: Vec::new(),
            seen: 0,
            pace: 0.0,
            window: 1,
            floor: 0,
            extra: 1,
            active: now,
            look: None,
        };
        Ok((worker, vec![(input.read, 0), (output.write, 1)]))
    }

    /// The first record that it has not answered.
    fn head(&self) -> Option<u64> {
        let front = self.given.front()?;
        Some(front.run.first + self.answered)
    }

    /// How many records it has been sent whole and has not answered: it can't answer more.
    fn answerable(&self, desk: &Desk) -> u64 {
        let sent: u64 = self
            .given
            .iter()
            .take(self.sent)
            .map(|given| given.run.count)
            .sum();
        let partly = match self.given.get(self.sent) {
            Some(given) if self.sent_bytes > 0 => desk.store.within(given.at, self.sent_bytes).0,
            _ => 0,
        };
        sent + partly - self.answered
    }

    /// It has answered `count` of the `held` records that it had.
    fn learn(&mut self, held: u64, count: u64, now: Duration) {
        let elapsed = now.saturating_sub(self.active).as_nanos() as f64;
        let pace = elapsed / count as f64;
        // What got slow is believed at once, what got quick by and by.
        self.pace = if pace >= self.pace {
            pace
        } else {
            self.pace * 0.5 + pace * 0.5
        };
        let fits = WORK.as_nanos() as f64 / self.pace.max(1.0);
        self.window = (fits as u64).clamp(1, MOST).min(self.window * 4);
        if self.extra > 2 {
            // It answered only after it had been given more than its window.
            self.floor = self.floor.max(held.min(4 * MOST));
        }
        if held == count && self.leaving == Leaving::No {
            self.floor = 0;
        }
        self.extra = 1;
        self.active = now;
        self.look = Some((now + LOOK[0], LOOK[0]));
    }

    /// Writes what it has not been sent, as far as its pipe takes it.
    fn write(&mut self, desk: &Desk) -> nix::Result<()> {
        while let Some(input) = &self.input
            && self.sent < self.given.len()
        {
            let mut slices = Vec::with_capacity(8);
            let mut skip = self.sent_bytes;
            'gather: for given in self.given.iter().skip(self.sent) {
                for piece in desk.store.pieces(given.at, given.bytes) {
                    let from = skip.min(piece.len());
                    skip -= from;
                    if from < piece.len() {
                        slices.push(IoSlice::new(&piece[from..]));
                    }
                    if slices.len() == PIECES {
                        break 'gather;
                    }
                }
            }
            match writev(input, &slices) {
                Ok(count) => self.advance(count),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => {
                    self.is_full = true;
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        self.is_full = false;
        Ok(())
    }

    /// So many more bytes are written.
    fn advance(&mut self, count: usize) {
        self.sent_bytes += count;
        while let Some(given) = self.given.get(self.sent)
            && self.sent_bytes >= given.bytes
        {
            self.sent_bytes -= given.bytes;
            self.sent += 1;
        }
    }

    /// No more is written to it: it writes what it still holds, and ends.
    fn close(&mut self, leaving: Leaving) {
        self.input = None;
        self.leaving = leaving;
    }

    /// Its first record has only so much time.
    fn is_timed(&self) -> bool {
        match self.leaving {
            Leaving::No | Leaving::Closed | Leaving::Flushing(_) => true,
            Leaving::TimedOut(_) | Leaving::Unwanted => false,
        }
    }

    /// Reads its input empty; says how many bytes that were.
    fn drain(&mut self) -> nix::Result<usize> {
        let mut buffer = [0; 16 * 1024];
        let mut bytes = 0;
        loop {
            match read(&self.input_read, &mut buffer) {
                Ok(0) | Err(Errno::EAGAIN) => return Ok(bytes),
                Ok(count) => bytes += count,
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// How many of its unanswered records it has begun to read, when `unread` of the bytes that it was sent were still in its
    /// pipe; and where it stands: in which run, behind how many of that run's records that it has begun, and behind how many bytes.
    fn touched(&self, desk: &Desk, unread: usize) -> (u64, (usize, u64, usize)) {
        let sent: usize = self
            .given
            .iter()
            .take(self.sent)
            .map(|given| given.bytes)
            .sum();
        // What is not there any more was answered, and so read.
        let mut bytes = (sent + self.sent_bytes).saturating_sub(unread);
        let mut records = 0;
        for (at, given) in self.given.iter().enumerate() {
            if bytes < given.bytes {
                let (whole, end) = desk.store.within(given.at, bytes);
                let begun = whole + u64::from(end < bytes);
                return (
                    (records + begun).saturating_sub(self.answered),
                    (at, begun, bytes),
                );
            }
            bytes -= given.bytes;
            records += given.run.count;
        }
        let all = records.saturating_sub(self.answered);
        (all, (self.given.len(), 0, 0))
    }

    /// Everything behind its first `keep` unanswered records is taken from it; it stands where `touched` says.
    fn keep(&mut self, desk: &Desk, keep: u64, (at, _, bytes): (usize, u64, usize)) {
        let mut left = keep + self.answered;
        let mut kept = 0;
        for given in &mut self.given {
            if left == 0 {
                break;
            }
            if given.run.count > left {
                given.run.count = left;
                given.bytes = desk.store.extent(given.run.first, left).1;
            }
            left -= given.run.count;
            kept += 1;
        }
        self.given.truncate(kept);
        (self.sent, self.sent_bytes) = (at, bytes);
        // It stood at the end of what is left.
        self.advance(0);
        self.sent = self.sent.min(self.given.len());
        if self.sent == self.given.len() {
            self.sent_bytes = 0;
        }
    }

    /// It has ended, and had answered a part of its first run.
    fn note_partly(&mut self, desk: &mut Desk, number: u32, now: Duration) -> Result<(), Unable> {
        let Some(front) = self.given.front() else {
            return Ok(());
        };
        if self.answered == 0 {
            return Ok(());
        }
        let line = Line {
            count: self.answered,
            ..front.line(number, None, now)
        };
        desk.settle(Run {
            count: self.answered,
            ..front.run
        });
        desk.note(&line)
    }
}

impl Workers for Crew {
    fn waits<'a>(&'a self, desk: &Desk, add: &mut dyn FnMut(BorrowedFd<'a>, PollFlags, u32, End)) {
        let reads = !desk.is_full() || desk.is_failing();
        for (number, worker) in self.workers.iter().enumerate() {
            let Some(worker) = worker.as_ref().filter(|worker| worker.is_started) else {
                continue;
            };
            if reads && !worker.is_mute {
                add(
                    worker.output.as_fd(),
                    PollFlags::POLLIN,
                    number as u32,
                    End::Output(0),
                );
            }
            if worker.is_full
                && let Some(input) = &worker.input
            {
                add(input.as_fd(), PollFlags::POLLOUT, number as u32, End::Input);
            }
        }
    }

    fn deadline(&self, desk: &Desk) -> Option<Duration> {
        let of = |worker: &Worker| {
            let look = worker.look.map(|(when, _)| when);
            let limit = desk
                .settings
                .task_timeout
                .filter(|_| !worker.given.is_empty() && worker.is_timed());
            let timeout = limit.map(|limit| worker.active + limit);
            look.into_iter().chain(timeout).min()
        };
        self.workers.iter().flatten().filter_map(of).min()
    }

    fn hear(&mut self, desk: &mut Desk, call: PoolCall) -> Result<(), Unable> {
        match call {
            PoolCall::Started(ticket, _) => {
                let number = self.find(ticket);
                if let Some(worker) = &mut self.workers[number] {
                    worker.is_started = true;
                }
                Ok(())
            }
            PoolCall::CannotStart(ticket, failure) => {
                let number = self.find(ticket);
                self.workers[number] = None;
                self.live -= 1;
                desk.fail(cannot_start(failure));
                Ok(())
            }
            PoolCall::Exited(ticket, exit, _) => self.exited(desk, ticket, exit),
            PoolCall::Stop => panic!("BUG: the desk stops"),
        }
    }

    fn ready(&mut self, desk: &mut Desk, worker: u32, end: End) -> Result<(), Unable> {
        match end {
            End::Output(_) => self.read(desk, worker, false),
            End::Input => self.write(desk, worker),
        }
    }

    fn turn(&mut self, desk: &mut Desk) -> Result<(), Unable> {
        if self.is_ending {
            return Ok(());
        }
        let now = desk.now();
        for number in 0..self.workers.len() as u32 {
            let is_missing = self.workers[number as usize].is_none();
            let is_wanted = !self.has_begun || desk.ledger.has_work();
            if is_missing && is_wanted && !desk.is_failing() {
                self.ask(desk, number)?;
            }
        }
        self.has_begun = true;
        self.hand_out(desk, now)?;
        self.look(desk, now)?;
        self.dismiss(desk);
        Ok(())
    }

    fn end_all(&mut self, desk: &mut Desk, how: Ending) {
        self.is_ending = true;
        for worker in self.workers.iter_mut().flatten() {
            worker.leaving = Leaving::Unwanted;
            worker.input = None;
            match how {
                Ending::Stop => desk.say(PoolEvent::Stop(worker.ticket)),
                Ending::Kill => desk.say(PoolEvent::Kill(worker.ticket)),
                Ending::Loop => {}
            }
        }
    }

    fn are_gone(&self) -> bool {
        self.live == 0
    }
}
