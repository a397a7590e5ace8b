//! `--tap`: copies of what passes through queues, printed.
//!
//! All taps of a run share one [`TapPrinter`], since they share one output: what a tap hands over is whole records, and is written
//! in one piece before anything else. A thread of its own does that, and what it has not written yet waits in memory and then
//! in a file, so that who watches a queue doesn't slow it down, and an output that nobody reads does not stop the run.
//!
//! What it doesn't know: that its output is the standard output.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::plan::settings::MAX_RECORD;
use crate::queue::backlog::Backlog;
use crate::queue::framer::Framer;
use crate::spec::Records;

/// Bytes that wait in memory.
const CAPACITY: usize = 1 << 20;
/// Bytes that are written at once.
const BLOCK: usize = 64 * 1024;
/// How often who waits for the end looks whether it is to go on waiting.
const LOOK: Duration = Duration::from_millis(100);

/// Prints what taps hand over.
#[derive(Debug, Clone)]
pub struct TapPrinter(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// What a reader got, byte by byte, is wanted, rather than whole records beside those of others.
    is_exact: bool,
}

#[derive(Debug)]
struct State {
    backlog: Backlog,
    /// Nothing more will come.
    is_over: bool,
    /// Nothing more is printed: all has been, the reader has gone, or writing failed.
    has_ended: bool,
    failure: Option<io::Error>,
}

impl TapPrinter {
    /// Prints to `output`; what does not fit memory waits in a file without a name in `spill`.
    ///
    /// # Errors
    /// No thread to be had.
    pub fn start(output: OwnedFd, spill: PathBuf) -> io::Result<TapPrinter> {
        TapPrinter::begin(output, spill, false)
    }

    /// As [`TapPrinter::start`], for one queue alone: what passes is kept as a reader of it gets it.
    ///
    /// # Errors
    /// No thread to be had.
    pub fn record(output: OwnedFd, spill: PathBuf) -> io::Result<TapPrinter> {
        TapPrinter::begin(output, spill, true)
    }

    fn begin(output: OwnedFd, spill: PathBuf, is_exact: bool) -> io::Result<TapPrinter> {
        let printer = TapPrinter(Arc::new(Shared {
            state: Mutex::new(State {
                backlog: Backlog::new(CAPACITY, Some(spill)),
                is_over: false,
                has_ended: false,
                failure: None,
            }),
            changed: Condvar::new(),
            is_exact,
        }));
        let shared = Arc::clone(&printer.0);
        std::thread::Builder::new()
            .name("tap".to_owned())
            .spawn(move || shared.print(File::from(output)))?;
        Ok(printer)
    }

    fn take(&self, records: &[u8]) {
        let mut state = self.0.lock();
        if state.has_ended {
            return;
        }
        if let Err(e) = state.backlog.push_all(records) {
            let why = format!("can't {} in {}: {}", e.call, e.dir.display(), e.error);
            state.end(Some(io::Error::new(e.error.kind(), why)));
        }
        self.0.changed.notify_all();
    }

    /// Waits until all is printed that was handed over. `goes_on` is asked now and then, with what has waited for how long and how
    /// many bytes of it there are, whether to wait on.
    ///
    /// # Errors
    /// Something could not be written or held. (A reader that has gone wants no more, which is no error.)
    pub fn finish(&self, mut goes_on: impl FnMut(Duration, u64) -> bool) -> io::Result<()> {
        let begin = Instant::now();
        let mut state = self.0.lock();
        state.is_over = true;
        self.0.changed.notify_all();
        while !state.has_ended {
            let (next, timeout) = self
                .0
                .changed
                .wait_timeout(state, LOOK)
                .unwrap_or_else(PoisonError::into_inner);
            state = next;
            if timeout.timed_out()
                && !state.has_ended
                && !goes_on(begin.elapsed(), state.backlog.len())
            {
                state.end(None);
            }
        }
        state.failure.take().map_or(Ok(()), Err)
    }
}

impl State {
    fn end(&mut self, failure: Option<io::Error>) {
        self.has_ended = true;
        self.failure = self.failure.take().or(failure);
        self.backlog = Backlog::new(0, None);
    }
}

impl Shared {
    /// A thread that panicked has left it as it was before or after one step.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread.
    fn print(&self, mut output: File) {
        let mut block = Vec::new();
        let mut state = self.lock();
        loop {
            if state.has_ended || state.is_over && state.backlog.is_empty() {
                break state.end(None);
            }
            if state.backlog.is_empty() {
                state = self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let (front, _) = state.backlog.front();
            let count = front.len().min(BLOCK);
            block.clear();
            block.extend_from_slice(&front[..count]);
            // Counted as held until it is written: who waits for the end is told of it.
            drop(state);
            let written = write_all(&mut output, &block);
            state = self.lock();
            match written {
                _ if state.has_ended => {}
                Ok(()) => {
                    if let Err(e) = state.backlog.consume(count) {
                        state.end(Some(e.error));
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::BrokenPipe => state.end(None),
                Err(e) => state.end(Some(e)),
            }
        }
        self.changed.notify_all();
    }
}

/// Also where whoever shares the output has made it non-blocking.
fn write_all(output: &mut File, mut data: &[u8]) -> io::Result<()> {
    while !data.is_empty() {
        match output.write(data) {
            Ok(count) => data = &data[count..],
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                // An error is EINTR: it is tried again.
                let _ = poll(
                    &mut [PollFd::new(output.as_fd(), PollFlags::POLLOUT)],
                    PollTimeout::NONE,
                );
            }
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// One queue's tap: makes whole records of what passes.
#[derive(Debug)]
pub(crate) struct Tap {
    printer: TapPrinter,
    framer: Framer,
    /// The beginning of a record, where the queue's bytes go by as they come.
    rest: Vec<u8>,
    /// The terminator that the last record lacks: a reader gets it when another record follows.
    owed: Vec<u8>,
}

impl Tap {
    /// Of a queue of such records. `Err` says what makes no sense (the plan refuses that, too).
    pub fn new(printer: TapPrinter, records: &Records) -> Result<Tap, &'static str> {
        Ok(Tap {
            printer,
            framer: Framer::new(records, MAX_RECORD)?,
            rest: Vec::new(),
            owed: Vec::new(),
        })
    }

    /// This passes; its last record lacks `missing`, which is printed, since other queues' records may follow.
    pub fn pass(&mut self, data: &[u8], missing: &[u8]) {
        if self.printer.0.is_exact {
            if !data.is_empty() {
                self.printer
                    .take(&std::mem::replace(&mut self.owed, missing.to_vec()));
                self.printer.take(data);
            }
            return;
        }
        if self.rest.is_empty() && self.framer.whole(data, 0).end == data.len() {
            return self.printer.take(data);
        }
        let seen = self.rest.len();
        self.rest.extend_from_slice(data);
        self.rest.extend_from_slice(missing);
        let whole = self.framer.whole(&self.rest, seen);
        // Longer than any record may be: it goes by as it comes, torn if it must be, rather than fill the memory.
        let end = if whole.too_long || !missing.is_empty() {
            self.rest.len()
        } else {
            whole.end
        };
        self.printer.take(&self.rest[..end]);
        self.rest.drain(..end);
    }

    /// Nothing more passes.
    pub fn end(&mut self) {
        if !self.rest.is_empty() {
            let missing = self.framer.missing_terminator(&self.rest);
            self.rest.extend_from_slice(&missing);
            self.printer.take(&self.rest);
            self.rest.clear();
        }
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.end();
    }
}
