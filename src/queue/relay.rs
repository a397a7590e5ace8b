//! A relay as the rest of the program sees it: what it is to carry, what it says, and how it is told things.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::thread::JoinHandle;

use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::plan::{Deliver, Overflow};
use crate::queue::carrier::Carrier;
use crate::queue::counts::{Counters, Counts};
use crate::queue::events::Events;
use crate::queue::tap::TapPrinter;
use crate::spec::{Merge, OnWriterFailure, Records};

/// A relay to start.
#[derive(Debug)]
pub struct RelaySpec {
    /// The queue's name, for messages.
    pub name: String,
    /// The writers' ends, in the file's order.
    pub inputs: Vec<RelayInput>,
    /// The readers' ends, in the file's order.
    pub outputs: Vec<RelayOutput>,
    /// How the bytes are cut into records.
    pub records: Records,
    /// Bytes of the longest record, terminator included. `None`: [`crate::plan::settings::MAX_RECORD`], but where one writer's bytes go on as they
    /// come, as through a plain pipe, nobody looks for records, and there is no bound.
    pub max_record: Option<u64>,
    /// How several writers are put together.
    pub merge: Merge,
    /// Whether a writer's failure lets the data end, so that what a writer leaves unfinished must be held back.
    pub on_writer_failure: OnWriterFailure,
    /// Which reader gets a record. With one reader there is nothing to choose.
    pub deliver: Deliver,
    /// So many first records go to every reader, also to one that gets nothing else; where there are fewer, all of them do. The
    /// first of what is merged: where several writers each begin with a header of their own, only that of the writer whose
    /// records come first is one, and the others' are records like any other.
    pub header: u32,
    /// With [`Deliver::Share`]: exactly so many records are handed over at once, but for the last ones. `None`: as many as the
    /// reader's pace allows.
    pub batch: Option<u32>,
    /// Bytes held in memory for each output, its pipe included.
    pub capacity: usize,
    /// Records held at most, those in the readers' pipes included. (A pipe holds bytes, so what a writer may have in its own is
    /// for who makes that pipe.)
    pub max_records: Option<u64>,
    /// It leads back to one of its writers: a record must be whole when it arrives, since nobody can wait for what follows.
    pub feedback: bool,
    /// What happens when that, or `capacity`, is reached. What [`Overflow::Spill`] needs to know stands at each output.
    pub overflow: Overflow,
    /// Prints a copy of all that passes, in the order in which it came in.
    pub tap: Option<TapPrinter>,
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
    /// Records can go to nobody, since the reader that their keys belong to (this one, as an index of [`RelaySpec::outputs`]) has
    /// gone and others have not. Told once, of the first; [`Counts::lost`] counts all.
    Lost {
        /// Whose records they are.
        output: usize,
    },
    /// procflow can't go on (in words for people). The readers see no end of data before [`RelayHandle::stop`].
    Broken(String),
}

/// Where a relay says what it has to say.
pub type RelayEvents = Events<RelayEvent>;

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
    let mut carrier = Carrier::new(spec, events, Arc::clone(&control))?;
    let counters = carrier.counters();
    let thread = std::thread::Builder::new()
        .name(name)
        .spawn(move || carrier.live())?;
    Ok(RelayHandle {
        control,
        counters,
        thread: Some(thread),
    })
}
