//! A queue's thread: whole records from its writers to each of its readers.
//!
//! One offer at a time: a run of whole records of one writer is offered to all outputs, each takes what its pipe and its
//! backlog have room for, and nothing else is read before all have taken it. So every output gets the same bytes in the
//! same order, a slow one holds the others back no earlier than its backlog is full, and memory is bounded by one block, or one
//! unfinished record, for each input and one backlog for each output.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Instant;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::plan::settings::MAX_RECORD;
use crate::queue::backlog::{Backlog, SpillError};
use crate::queue::counts::{Counters, Counts};
use crate::queue::framer::Framer;
use crate::queue::sink::{Sink, SinkError};
use crate::queue::source::{Next, Settle, Source, SourceError};
use crate::queue::tee::Tee;
use crate::spec::{Merge, OnWriterFailure, Records};

/// A relay to start.
#[derive(Debug)]
pub struct RelaySpec {
    /// The queue's name, for messages.
    pub name: String,
    /// The writers' ends, in the file's order.
    pub inputs: Vec<RelayInput>,
    /// The readers' ends. Each gets all.
    pub outputs: Vec<RelayOutput>,
    /// How the bytes are cut into records.
    pub records: Records,
    /// Bytes of the longest record, terminator included. `None`: [`MAX_RECORD`], but where one writer's bytes go on as they
    /// come, as through a plain pipe, nobody looks for records, and there is no bound.
    pub max_record: Option<u64>,
    /// How several writers are put together.
    pub merge: Merge,
    /// Whether a writer's failure lets the data end, so that what a writer leaves unfinished must be held back.
    pub on_writer_failure: OnWriterFailure,
    /// Bytes held in memory for each output, its pipe included.
    pub capacity: usize,
}

/// A writer's end.
#[derive(Debug)]
pub struct RelayInput {
    /// The read end of the writer's pipe; nobody else reads it.
    pub fd: OwnedFd,
    /// How the writer ended. To be set before the last write end that is held for it is closed.
    pub fate: Arc<Fate>,
}

/// A reader's end.
#[derive(Debug)]
pub struct RelayOutput {
    /// The write end of the reader's pipe, or any other descriptor to write to. Its flags are left as they are.
    pub fd: OwnedFd,
    /// Where what does not fit memory is kept. Without, the queue waits for this output.
    pub spill: Option<PathBuf>,
}

/// What is known of a writer, told by who knows it. [`RelayHandle::look`] makes the relay see it.
#[derive(Debug, Default)]
pub struct Fate(AtomicU8);

/// How far a writer has come, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
#[repr(u8)]
pub enum WriterState {
    /// It runs. The end of its pipe is the end of its data all the same.
    #[default]
    Runs,
    /// Its process has ended: what is in its pipe now is all that it wrote. Once that has been taken in, the relay says
    /// whether it is in order ([`RelayEvent::Settled`]); readers see no end before more is known.
    Exited,
    /// It has done its part. When its pipe is empty, its data has ended, whoever else may still hold the pipe open. A last
    /// record without a terminator is a record.
    Ended,
    /// The same, but not well: a last record that isn't complete is dropped.
    Torn,
}

impl Fate {
    /// Says how far.
    pub fn set(&self, end: WriterState) {
        self.0.store(end as u8, Ordering::Release);
    }

    /// What was said last.
    pub fn get(&self) -> WriterState {
        match self.0.load(Ordering::Acquire) {
            0 => WriterState::Runs,
            1 => WriterState::Exited,
            2 => WriterState::Ended,
            3 => WriterState::Torn,
            other => panic!("BUG: a fate of {other}"),
        }
    }
}

/// What a relay has to say, at most once each but for faults, which come once for an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RelayEvent {
    /// Everything has been handed on, or all readers have gone. All its ends are closed.
    Ended,
    /// All that this writer wrote before it [exited](WriterState::Exited) has been taken in, and is in order. Where it is not,
    /// there is a `Fault` instead.
    Settled {
        /// Which, as an index of [`RelaySpec::inputs`].
        input: usize,
    },
    /// A writer broke a rule. What it wrote before has been handed on. With [`OnWriterFailure::Cancel`] the readers will not see
    /// an end of data before [`RelayHandle::stop`]; with `Close` the writer counts as ended, once it has.
    Fault {
        /// Whose fault, as an index of [`RelaySpec::inputs`].
        input: usize,
        /// In words for people.
        why: String,
    },
    /// procflow can't go on (in words for people). The readers see no end of data before [`RelayHandle::stop`].
    Broken(String),
}

/// Where a relay says what it has to say.
#[derive(Debug, Clone)]
pub struct RelayEvents {
    /// Comes with each event.
    pub id: u64,
    /// Takes the event.
    pub sender: mpsc::Sender<(u64, RelayEvent)>,
    /// An eventfd(2) that is written to after each event.
    pub wake: Arc<OwnedFd>,
}

impl RelayEvents {
    fn send(&self, event: RelayEvent) {
        // Nobody listens any more, or (EAGAIN) is awake already.
        let _ = self.sender.send((self.id, event));
        let _ = nix::unistd::write(&*self.wake, &1u64.to_ne_bytes());
    }
}

/// A running relay. Dropping it stops it.
#[derive(Debug)]
pub struct RelayHandle {
    control: Arc<Control>,
    counters: Arc<Counters>,
    thread: Option<JoinHandle<()>>,
}

impl RelayHandle {
    /// Lets the thread end at once, whatever it waits for. Its ends are closed, and what it holds is lost: readers that are
    /// not to take that for the end of data must have ended before.
    pub fn stop(&self) {
        self.control.stop.store(true, Ordering::Release);
        self.look();
    }

    /// Lets the thread look at what has become of its writers ([`Fate`]).
    pub fn look(&self) {
        // Fails only where it has been written u64::MAX - 1 times.
        let _ = self.control.wake.write(1);
    }

    /// What has been moved so far. The last counts stand when the thread has ended.
    pub fn counts(&self) -> Counts {
        self.counters.snapshot()
    }

    /// Whether the thread has ended.
    #[cfg(test)]
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits until the thread has ended: by itself, or stopped.
    pub fn join(mut self) {
        self.wait();
    }

    fn wait(&mut self) {
        // A panic has been reported as an event.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl Drop for RelayHandle {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.stop();
            self.wait();
        }
    }
}

/// What the thread is told from outside.
#[derive(Debug)]
pub(crate) struct Control {
    /// Readable when there is something to look at.
    wake: EventFd,
    stop: AtomicBool,
}

impl Control {
    /// Told nothing yet.
    pub fn new() -> io::Result<Control> {
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Control {
            wake,
            stop: AtomicBool::new(false),
        })
    }

    /// The end to wait on.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// Takes the wake-up; whether it says to stop.
    pub fn is_stop(&self) -> bool {
        // EAGAIN: there was none.
        let _ = self.wake.read();
        self.stop.load(Ordering::Acquire)
    }
}

/// Starts a relay's thread.
///
/// # Errors
/// A setting that makes no sense (`InvalidInput`), no descriptor or thread to be had.
pub fn start(spec: RelaySpec, events: RelayEvents) -> io::Result<RelayHandle> {
    let control = Arc::new(Control::new()?);
    let name = format!("queue {}", spec.name.replace('\0', "?"));
    let mut relay = Relay::new(spec, events, Arc::clone(&control))?;
    let counters = Arc::clone(&relay.counters);
    let thread = std::thread::Builder::new()
        .name(name)
        .spawn(move || relay.live())?;
    Ok(RelayHandle {
        control,
        counters,
        thread: Some(thread),
    })
}

/// All that a relay's thread owns.
struct Relay {
    name: String,
    sources: Vec<Source>,
    sinks: Vec<Sink>,
    merge: Merge,
    on_writer_failure: OnWriterFailure,
    max_record: u64,
    /// What is being handed out.
    offer: Option<Offer>,
    /// The terminator that the last record handed out lacks, should another follow.
    missing: Vec<u8>,
    /// The source to begin with next time, so that a busy one doesn't starve the others.
    turn: usize,
    control: Arc<Control>,
    counters: Arc<Counters>,
    events: RelayEvents,
}

/// Whole records of one source, offered to all sinks.
struct Offer {
    source: usize,
    /// What was missing behind the last offer.
    terminator: Vec<u8>,
    /// So many of the source's bytes.
    end: usize,
    records: u64,
}

/// What the only writer of a tee has written is always in order.
const SETTLED: RelayEvent = RelayEvent::Settled { input: 0 };

/// Why a relay's loop came to its end.
enum Over {
    Ended,
    Stopped,
}

/// Why procflow can't go on, in words for people.
struct Broken(String);

/// What poll(2) said about an end.
enum Polled {
    Wake,
    Source(usize),
    /// A source whose turn has not come.
    Ahead(usize),
    Faulty(usize),
    Sink(usize, PollFlags),
}

impl Relay {
    fn new(spec: RelaySpec, events: RelayEvents, control: Arc<Control>) -> io::Result<Relay> {
        // Bytes of one writer that no failure can leave half delivered go on as they come, like through a plain pipe.
        let max_record = spec.max_record.unwrap_or(MAX_RECORD);
        let framer = Framer::new(&spec.records, max_record)
            .map_err(|what| io::Error::new(io::ErrorKind::InvalidInput, what))?;
        let as_they_come = spec.inputs.len() == 1
            && spec.on_writer_failure == OnWriterFailure::Cancel
            && spec.max_record.is_none()
            && !framer.is_counted();
        let framer = if as_they_come {
            Framer::bytes()
        } else {
            framer
        };
        let counters = Counters::new(spec.inputs.len(), spec.outputs.len(), !framer.is_bytes());
        // Where an output spills no writer may be held up, not even until its turn comes.
        let ahead = match spec.merge {
            Merge::Sequence => spec.outputs.iter().find_map(|output| output.spill.clone()),
            Merge::Arrive => None,
        };
        let source = |input: RelayInput| {
            let source = Source::new(input.fd, input.fate, framer.clone())?;
            Ok(match &ahead {
                Some(dir) => source.read_ahead(Backlog::new(spec.capacity, Some(dir.clone()))),
                None => source,
            })
        };
        // The reader's pipe holds its part: a backlog behind one that is large enough would only cost a copy.
        let sink = |output: RelayOutput| {
            let pipe = fcntl(&output.fd, FcntlArg::F_GETPIPE_SZ).ok();
            let pipe = pipe
                .and_then(|size| usize::try_from(size).ok())
                .unwrap_or(0);
            let backlog = Backlog::new(spec.capacity.saturating_sub(pipe), output.spill);
            Sink::new(output.fd, backlog)
        };
        Ok(Relay {
            name: spec.name,
            sources: spec
                .inputs
                .into_iter()
                .map(source)
                .collect::<io::Result<_>>()?,
            sinks: spec
                .outputs
                .into_iter()
                .map(sink)
                .collect::<io::Result<_>>()?,
            merge: spec.merge,
            on_writer_failure: spec.on_writer_failure,
            max_record,
            offer: None,
            missing: Vec::new(),
            turn: 0,
            control,
            counters: Arc::new(counters),
            events,
        })
    }

    /// The thread. Whatever goes wrong, no end is closed before all is delivered, all readers have gone, or the relay is
    /// stopped: a reader would take that for the end of data.
    fn live(&mut self) {
        let broken = match catch_unwind(AssertUnwindSafe(|| self.run())) {
            Ok(Ok(Over::Ended)) => {
                // Writers that go on get SIGPIPE, as if the readers had read their pipes themselves.
                self.sources.clear();
                self.sinks.clear();
                return self.events.send(RelayEvent::Ended);
            }
            Ok(Ok(Over::Stopped)) => return,
            Ok(Err(Broken(why))) => why,
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text
                    .or_else(|| panic.downcast_ref::<&str>().copied())
                    .unwrap_or("no message");
                format!("queue `{}` panicked: {text}", self.name)
            }
        };
        self.events.send(RelayEvent::Broken(broken));
        while !self.control.is_stop() {
            let mut wake = [PollFd::new(self.control.fd(), PollFlags::POLLIN)];
            // An error is EINTR.
            let _ = poll(&mut wake, PollTimeout::NONE);
        }
    }

    fn run(&mut self) -> Result<Over, Broken> {
        if let [source] = &mut self.sources[..]
            && let Some(input) = source.bare_pipe()
            && self.sinks.len() > 1
            && self.sinks.iter().all(Sink::is_bare_pipe)
        {
            let ended = Tee::new(input, &mut self.sinks, &self.control, &self.counters)
                .and_then(|mut tee| tee.run(source.fate(), || self.events.send(SETTLED)));
            let failed = |error| Broken(format!("can't copy queue `{}`: {error}", self.name));
            return ended
                .map(|ended| if ended { Over::Ended } else { Over::Stopped })
                .map_err(failed);
        }
        loop {
            if self.offer.is_none() && self.sources.iter().all(Source::is_done) {
                // Each as soon as it has all: what another still holds may be waiting for this one's reader to end.
                self.sinks
                    .iter_mut()
                    .filter(|sink| sink.is_empty())
                    .for_each(Sink::close);
            }
            if self.sinks.iter().all(Sink::is_closed) {
                return Ok(Over::Ended);
            }
            let polled = self.wait()?;
            let is_woken = polled.iter().any(|end| matches!(end, Polled::Wake));
            if is_woken && self.control.is_stop() {
                return Ok(Over::Stopped);
            }
            if is_woken {
                // Readers are to go on without what a faulty writer has left.
                self.sources
                    .iter_mut()
                    .filter(|source| source.is_forgiven())
                    .for_each(Source::close);
            }
            for end in &polled {
                if let Polled::Sink(sink, events) = end {
                    self.flush(*sink, *events)?;
                }
            }
            self.hand_out()?;
            // Not before room was made: what is read has somewhere to go.
            let pivot = polled
                .iter()
                .position(|end| matches!(end, Polled::Source(source) if *source >= self.turn));
            let (late, early) = polled.split_at(pivot.unwrap_or(0));
            for end in early.iter().chain(late) {
                match end {
                    Polled::Source(source) if self.offer.is_none() => self.read(*source)?,
                    Polled::Ahead(source) => self.read_ahead(*source)?,
                    Polled::Faulty(source) => self.sources[*source].close(),
                    _ => {}
                }
            }
        }
    }

    /// Waits until something can be done.
    fn wait(&self) -> Result<Vec<Polled>, Broken> {
        let mut ends = vec![(
            PollFd::new(self.control.fd(), PollFlags::POLLIN),
            Polled::Wake,
        )];
        let offered = self.offer.as_ref().map_or(0, Offer::len);
        for (at, sink) in self.sinks.iter().enumerate() {
            if let Some((fd, wants)) = sink.waits(offered) {
                // Without POLLOUT it still says when the reader has gone.
                let events = if wants {
                    PollFlags::POLLOUT
                } else {
                    PollFlags::empty()
                };
                ends.push((PollFd::new(fd, events), Polled::Sink(at, events)));
            }
        }
        let last = match self.merge {
            Merge::Arrive => self.sources.len(),
            Merge::Sequence => self.first_open(),
        };
        let mut at_once = None;
        for (at, source) in self.sources.iter().enumerate() {
            if at > last {
                if source.is_due_ahead() {
                    at_once = Some(Polled::Ahead(at));
                }
                let fd = source.readable_ahead();
                ends.extend(fd.map(|fd| (PollFd::new(fd, PollFlags::POLLIN), Polled::Ahead(at))));
            } else if self.offer.is_none() && (source.has_ahead() || source.is_due()) {
                at_once = Some(Polled::Source(at));
            } else if let Some(fd) = source.readable()
                && self.offer.is_none()
            {
                ends.push((PollFd::new(fd, PollFlags::POLLIN), Polled::Source(at)));
            }
            if let Some(fd) = source.faulty()
                && self.on_writer_failure == OnWriterFailure::Close
            {
                ends.push((PollFd::new(fd, PollFlags::empty()), Polled::Faulty(at)));
            }
        }
        let (mut fds, whose): (Vec<PollFd>, Vec<Polled>) = ends.into_iter().unzip();
        let begin = Instant::now();
        let timeout = if at_once.is_some() {
            PollTimeout::ZERO
        } else {
            PollTimeout::NONE
        };
        while let Err(error) = poll(&mut fds, timeout) {
            if error != Errno::EINTR {
                return Err(Broken(format!(
                    "can't wait for the ends of queue `{}`: {error}",
                    self.name
                )));
            }
        }
        self.count_wait(begin);
        let said = fds
            .iter()
            .map(|fd| fd.revents().unwrap_or(PollFlags::POLLERR));
        let said = said.zip(whose).filter(|(events, _)| !events.is_empty());
        Ok(said
            .map(|(events, end)| match end {
                Polled::Sink(at, _) => Polled::Sink(at, events),
                other => other,
            })
            .chain(at_once)
            .collect())
    }

    fn count_wait(&self, begin: Instant) {
        let waited = u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
        if self.offer.is_some() {
            self.counters.full.fetch_add(waited, Ordering::Relaxed);
        } else if self.sinks.iter().all(Sink::is_empty) {
            self.counters.empty.fetch_add(waited, Ordering::Relaxed);
        }
    }

    /// The source whose turn it is where they come in sequence.
    fn first_open(&self) -> usize {
        self.sources
            .iter()
            .position(|source| !source.is_done())
            .unwrap_or(self.sources.len())
    }

    /// A sink has room, or has gone.
    fn flush(&mut self, at: usize, events: PollFlags) -> Result<(), Broken> {
        let sink = &mut self.sinks[at];
        sink.polled(events);
        let left = sink
            .flush()
            .map_err(|error| unwritable(&self.name, error))?;
        self.counters.outputs[at].add(left, 0);
        Ok(())
    }

    /// A source has something to read, or has ended.
    fn read(&mut self, at: usize) -> Result<(), Broken> {
        self.turn = at + 1;
        match self.sources[at].fill() {
            Ok(count) => self.counters.inputs[at].add(count, 0),
            Err(error) => return Err(unreadable(&self.name, error)),
        }
        self.advance(at);
        self.hand_out()?;
        self.settle(at);
        Ok(())
    }

    /// Says whether all is in order that a source's writer has written, once it has ended and all of that is here.
    fn settle(&mut self, at: usize) {
        // What is offered has not been taken in yet.
        if self.offer.is_some() {
            return;
        }
        match self.sources[at].settle() {
            None => {}
            Some(Settle::Well) => self.events.send(RelayEvent::Settled { input: at }),
            Some(Settle::Torn { held, after }) => self.fault(at, self.torn(held, after)),
            Some(Settle::TooLong { after }) => self.fault(at, self.too_long(after)),
        }
    }

    /// The same for a source whose turn has not come. Where its fault lets the data end, what it has written before that is
    /// still handed on in its turn.
    fn settle_ahead(&mut self, at: usize) {
        let why = match self.sources[at].settle_ahead() {
            None => return,
            Some(Settle::Well) => return self.events.send(RelayEvent::Settled { input: at }),
            Some(Settle::Torn { held, after }) => self.torn(held, after),
            Some(Settle::TooLong { after }) => self.too_long(after),
        };
        match self.on_writer_failure {
            OnWriterFailure::Cancel => self.fault(at, why),
            OnWriterFailure::Close => self.events.send(RelayEvent::Fault { input: at, why }),
        }
    }

    /// A source has something to read, but it isn't its turn.
    fn read_ahead(&mut self, at: usize) -> Result<(), Broken> {
        let count = self.sources[at]
            .fill_ahead()
            .map_err(|error| unreadable(&self.name, error))?;
        self.counters.inputs[at].add(count, 0);
        self.settle_ahead(at);
        Ok(())
    }

    /// Hands out what is offered, and what its source has behind that, as far as it goes.
    fn hand_out(&mut self) -> Result<(), Broken> {
        while let Some(offer) = &self.offer {
            let parts = [
                &offer.terminator[..],
                self.sources[offer.source].data(offer.end),
            ];
            let mut is_taken = true;
            for (sink, counter) in self.sinks.iter_mut().zip(&self.counters.outputs) {
                let had_taken = sink.has_taken(offer.len());
                let left = sink
                    .take(parts)
                    .map_err(|error| unwritable(&self.name, error))?;
                let has_taken = sink.has_taken(offer.len());
                let took_now = has_taken && !had_taken && !sink.is_closed();
                counter.add(left, if took_now { offer.records } else { 0 });
                is_taken &= has_taken;
            }
            if !is_taken {
                break;
            }
            let source = offer.source;
            self.sources[source].consume(offer.end);
            self.offer = None;
            self.advance(source);
        }
        Ok(())
    }

    /// Finds what a source has to offer next. Nothing must be offered.
    fn advance(&mut self, at: usize) {
        let source = &mut self.sources[at];
        match source.next() {
            Next::More => {}
            Next::End => source.close(),
            Next::Whole { end, records } => self.offer(at, end, records, Vec::new()),
            Next::Last { end } => {
                let missing = source.framer().missing_terminator(source.data(end));
                self.offer(at, end, 1, missing);
            }
            Next::TooLong => {
                let after = source.passed();
                self.fault(at, self.too_long(after));
            }
            Next::Torn { held } => {
                let after = source.passed();
                self.fault(at, self.torn(held, after));
            }
        }
    }

    fn too_long(&self, after: u64) -> String {
        let most = bytesize::ByteSize(self.max_record)
            .to_string()
            .replace(".0 ", " ");
        let name = &self.name;
        format!(
            "a record of queue `{name}` is longer than max_record ({most}), after {after} bytes"
        )
    }

    fn torn(&self, held: usize, after: u64) -> String {
        let name = &self.name;
        format!(
            "the last record of queue `{name}` is cut off after {held} bytes of it, {after} bytes into the data"
        )
    }

    fn offer(&mut self, source: usize, end: usize, records: u64, missing: Vec<u8>) {
        let terminator = std::mem::replace(&mut self.missing, missing);
        self.counters.inputs[source].add(0, records);
        self.offer = Some(Offer {
            source,
            terminator,
            end,
            records,
        });
        self.sinks.iter_mut().for_each(Sink::renew);
    }

    fn fault(&mut self, input: usize, why: String) {
        let source = &mut self.sources[input];
        source.fault();
        if self.on_writer_failure == OnWriterFailure::Close && source.faulty().is_none() {
            // It has ended already.
            source.close();
        }
        self.events.send(RelayEvent::Fault { input, why });
    }
}

impl Offer {
    fn len(&self) -> usize {
        self.terminator.len() + self.end
    }
}

fn unreadable(name: &str, error: SourceError) -> Broken {
    match error {
        SourceError::Read(error) => Broken(format!("can't read queue `{name}`: {error}")),
        SourceError::Spill(error) => unspillable(name, &error),
    }
}

fn unwritable(name: &str, error: SinkError) -> Broken {
    match error {
        SinkError::Write(error) => {
            Broken(format!("can't write what queue `{name}` carries: {error}"))
        }
        SinkError::Spill(error) => unspillable(name, &error),
    }
}

fn unspillable(name: &str, error: &SpillError) -> Broken {
    let SpillError { dir, call, error } = error;
    Broken(format!(
        "can't {call} of queue `{name}` in {}: {error}",
        dir.display()
    ))
}
