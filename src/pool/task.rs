//! `task`: a new process for each record, or for each batch of them. What it writes is held back until it has succeeded.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::PollFlags;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::{pipe2, read};

use crate::diagnostic::reason;
use crate::event::{Exit, Failure};
use crate::pool::delivery::Part;
use crate::pool::desk::{Desk, End, Ending, Unable, Workers, unwritable, words};
use crate::pool::journal::Line;
use crate::pool::ledger::{Failed, Run};
use crate::pool::outlet::Tail;
use crate::pool::shelf::Held;
use crate::pool::{Ended, PoolCall, PoolEvent, Start, Task, Ticket};
use crate::queue::BLOCK;
use crate::sys::pipe::Pipe;

/// A process that ends sooner is read once, when it has ended: a wake-up for what it writes costs as much as that.
const YOUNG: Duration = Duration::from_millis(2);

/// A standard input of at most so many bytes goes through a pipe, which a new pipe holds without a reader.
const PIPED: usize = 4096;

/// The processes of a `task` pool.
#[derive(Debug)]
pub(crate) struct Crew {
    /// By worker.
    jobs: Vec<Option<Job>>,
    live: usize,
    next_ticket: u64,
    buffer: Vec<u8>,
}

/// A process and what it works on.
#[derive(Debug)]
struct Job {
    ticket: Ticket,
    run: Run,
    start: Duration,
    state: State,
    outputs: Vec<Output>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The loop was asked for it.
    Asked,
    /// It runs, until it is stopped at this time.
    Runs(Option<Duration>),
    /// It ran out of its time.
    TimedOut,
    /// Nobody wants its result.
    Ending,
}

/// What a process writes to one end.
#[derive(Debug)]
struct Output {
    /// `None`: all has been read.
    fd: Option<OwnedFd>,
    held: Held,
    tail: Tail,
}

impl Crew {
    /// Nothing is started yet.
    pub fn new(desk: &Desk) -> Crew {
        Crew {
            jobs: (0..desk.settings.workers).map(|_| None).collect(),
            live: 0,
            next_ticket: 0,
            buffer: vec![0; BLOCK],
        }
    }

    /// The thread.
    pub fn live(&mut self, desk: &mut Desk) -> Option<Ended> {
        desk.run(self)
    }

    fn find(&mut self, ticket: Ticket) -> usize {
        let of = |job: &Option<Job>| job.as_ref().is_some_and(|job| job.ticket == ticket);
        self.jobs
            .iter()
            .position(of)
            .unwrap_or_else(|| panic!("BUG: {ticket:?} is no process of this pool"))
    }

    /// Asks for a process for these records.
    fn ask(&mut self, desk: &mut Desk, worker: u32, run: Run) -> Result<(), Unable> {
        let unable =
            |error: io::Error| Unable(format!("can't make a pipe for a task: {}", reason(&error)));
        let mut stdin = Vec::new();
        let takes_records = desk.settings.record_on_stdin;
        let mut records = Vec::with_capacity(usize::try_from(run.count).unwrap_or(0));
        for place in run.first..run.end() {
            let record = desk.store.record(place);
            records.push(desk.intake.fields(&record));
            if takes_records {
                if stdin.is_empty() {
                    stdin.extend_from_slice(desk.intake.header());
                }
                stdin.append(&mut desk.intake.as_it_came(record));
            }
        }
        let mut fds = Vec::with_capacity(1 + desk.delivery.outlets.len());
        if takes_records {
            fds.push((input_of(&stdin).map_err(unable)?, 0));
        } else if !desk.intake.header().is_empty() {
            fds.push((input_of(desk.intake.header()).map_err(unable)?, 0));
        }
        let mut outputs = Vec::with_capacity(desk.outputs.len());
        for &number in &desk.outputs {
            let pipe = Pipe::to_here().map_err(unable)?;
            fds.push((pipe.write, number));
            outputs.push(Output {
                fd: Some(pipe.read),
                held: Held::default(),
                tail: Tail::default(),
            });
        }
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.live += 1;
        desk.started += 1;
        self.jobs[worker as usize] = Some(Job {
            ticket,
            run,
            start: desk.now(),
            state: State::Asked,
            outputs,
        });
        desk.say(PoolEvent::Start(Start {
            ticket,
            worker,
            fds,
            task: Some(Task {
                index: run.first,
                records,
            }),
            attempt: run.failures + 1,
        }));
        Ok(())
    }

    /// A process has been reaped.
    fn exited(&mut self, desk: &mut Desk, ticket: Ticket, exit: Exit) -> Result<(), Unable> {
        let worker = self.find(ticket);
        let read = (0..desk.outputs.len()).try_for_each(|at| self.read_all(desk, worker, at));
        let Some(job) = self.jobs[worker].take() else {
            panic!("BUG: {ticket:?} has ended twice");
        };
        self.live -= 1;
        // It has gone, whatever became of what it wrote.
        read?;
        let worker = worker as u32;
        let (run, start) = (job.run, job.start);
        let mut parts = Vec::with_capacity(job.outputs.len());
        let mut is_torn = false;
        for (output, outlet) in job.outputs.into_iter().zip(&desk.delivery.outlets) {
            let missing = output.tail.missing(outlet.framer());
            is_torn |= missing.is_err();
            parts.push(Part {
                data: output.held,
                missing: missing.unwrap_or_default(),
            });
        }
        let why = match job.state {
            State::Ending => {
                forget(desk, parts)?;
                desk.ledger.give_back(worker, 0);
                return Ok(());
            }
            State::TimedOut => format!(
                "timed out after {}",
                humantime::format_duration(desk.settings.task_timeout.unwrap_or_default())
            ),
            State::Asked | State::Runs(_) if !desk.is_success(exit) => words(exit),
            State::Asked | State::Runs(_) if is_torn => {
                "its output ends within a record".to_owned()
            }
            State::Asked | State::Runs(_) => {
                let mut done = None;
                let count = run.count;
                if desk
                    .ledger
                    .answer(worker, count, |run| done = Some(run))
                    .is_err()
                {
                    panic!("BUG: worker {worker} doesn't have {run:?}");
                }
                desk.note(&Line {
                    task: run.first,
                    count,
                    worker,
                    tries: run.failures + 1,
                    exit: Some(exit),
                    start,
                    duration: desk.now().saturating_sub(start),
                    is_dead: false,
                })?;
                desk.settle(run);
                return desk
                    .delivery
                    .pass_held(run.first, count, parts)
                    .map_err(unwritable);
            }
        };
        forget(desk, parts)?;
        let failed = match (job.state, exit) {
            (State::Asked | State::Runs(_), Exit::Code(code)) => Failed::Code(code),
            _ => Failed::Otherwise,
        };
        let now = desk.now();
        desk.ledger.fail(worker, run.count, failed, now);
        desk.bury(worker, Some(exit), start, &why)
    }

    /// Takes what a process has written to one end, until there is no more for now.
    fn read_all(&mut self, desk: &mut Desk, worker: usize, at: usize) -> Result<(), Unable> {
        let Some(job) = &mut self.jobs[worker] else {
            return Ok(());
        };
        let output = &mut job.outputs[at];
        while let Some(fd) = &output.fd {
            match read(fd, &mut self.buffer) {
                Ok(0) => output.fd = None,
                Ok(count) => {
                    let data = &self.buffer[..count];
                    output.tail.push(data, desk.delivery.outlets[at].framer());
                    output
                        .held
                        .push(data, &mut desk.delivery.shelf)
                        .map_err(|error| {
                            Unable(format!(
                                "can't hold back what a task wrote: {}",
                                reason(&error)
                            ))
                        })?;
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => break,
                Err(error) => {
                    return Err(Unable(format!(
                        "can't read from a task: {}",
                        reason(&error.into())
                    )));
                }
            }
        }
        Ok(())
    }
}

impl Workers for Crew {
    fn waits<'a>(&'a self, desk: &Desk, add: &mut dyn FnMut(BorrowedFd<'a>, PollFlags, u32, End)) {
        let now = desk.now();
        for (worker, job) in self.jobs.iter().enumerate() {
            let Some(job) = job else { continue };
            if now < job.start + YOUNG {
                continue;
            }
            for (at, output) in job.outputs.iter().enumerate() {
                if let Some(fd) = &output.fd {
                    add(
                        fd.as_fd(),
                        PollFlags::POLLIN,
                        worker as u32,
                        End::Output(at),
                    );
                }
            }
        }
    }

    fn deadline(&self, desk: &Desk) -> Option<Duration> {
        let now = desk.now();
        let of = |job: &Job| {
            let young = Some(job.start + YOUNG).filter(|grown| now < *grown);
            let timeout = match job.state {
                State::Runs(timeout) => timeout,
                State::Asked | State::TimedOut | State::Ending => None,
            };
            young.into_iter().chain(timeout).min()
        };
        self.jobs.iter().flatten().filter_map(of).min()
    }

    fn hear(&mut self, desk: &mut Desk, call: PoolCall) -> Result<(), Unable> {
        match call {
            PoolCall::Started(ticket, _) => {
                let worker = self.find(ticket);
                let timeout = desk.settings.task_timeout.map(|time| desk.now() + time);
                if let Some(job) = &mut self.jobs[worker]
                    && job.state == State::Asked
                {
                    job.state = State::Runs(timeout);
                }
                Ok(())
            }
            PoolCall::CannotStart(ticket, failure) => {
                let worker = self.find(ticket);
                self.jobs[worker] = None;
                self.live -= 1;
                desk.ledger.give_back(worker as u32, 0);
                desk.fail(cannot_start(failure));
                Ok(())
            }
            PoolCall::Exited(ticket, exit, _) => self.exited(desk, ticket, exit),
            PoolCall::Stop => panic!("BUG: the desk stops"),
        }
    }

    fn ready(&mut self, desk: &mut Desk, worker: u32, end: End) -> Result<(), Unable> {
        match end {
            End::Output(at) => self.read_all(desk, worker as usize, at),
            End::Input => panic!("BUG: a task's input is whole before it starts"),
        }
    }

    fn turn(&mut self, desk: &mut Desk) -> Result<(), Unable> {
        let now = desk.now();
        for job in self.jobs.iter_mut().flatten() {
            if let State::Runs(Some(deadline)) = job.state
                && deadline <= now
            {
                job.state = State::TimedOut;
                desk.say(PoolEvent::Stop(job.ticket));
            }
        }
        let most = desk.settings.batch.map_or(1, u64::from);
        for worker in 0..self.jobs.len() as u32 {
            if self.live == self.jobs.len() || desk.is_full() || !desk.ledger.has_work() {
                break;
            }
            if self.jobs[worker as usize].is_none()
                && let Some(run) = desk.ledger.hand_out(worker, most)
            {
                self.ask(desk, worker, run)?;
            }
        }
        Ok(())
    }

    fn end_all(&mut self, desk: &mut Desk, how: Ending) {
        for job in self.jobs.iter_mut().flatten() {
            job.state = State::Ending;
            match how {
                Ending::Stop => desk.say(PoolEvent::Stop(job.ticket)),
                Ending::Kill => desk.say(PoolEvent::Kill(job.ticket)),
                Ending::Loop => {}
            }
        }
    }

    fn are_gone(&self) -> bool {
        self.live == 0
    }
}

/// What a process can read as its standard input, and then its end.
fn input_of(data: &[u8]) -> io::Result<OwnedFd> {
    if data.len() <= PIPED {
        let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
        File::from(write).write_all(data)?;
        return Ok(read);
    }
    let file = File::from(memfd_create(c"records", MFdFlags::MFD_CLOEXEC)?);
    file.write_all_at(data, 0)?;
    Ok(file.into())
}

/// A failed try leaves no trace.
fn forget(desk: &mut Desk, parts: Vec<Part>) -> Result<(), Unable> {
    for part in parts {
        part.data
            .drop(&mut desk.delivery.shelf)
            .map_err(|error| Unable(format!("can't drop what a task wrote: {}", reason(&error))))?;
    }
    Ok(())
}

/// How a pool ends that can't start a worker.
pub(crate) fn cannot_start(failure: Failure) -> Ended {
    let (why, code) = match failure {
        Failure::CannotStart { why, code } => (why, code),
        other => (format!("{other:?}"), 126),
    };
    Ended::CannotStart(format!("cannot start: {why}"), code)
}
