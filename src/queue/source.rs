//! One writer's end of a relay: reads its pipe and says which whole records are there.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::{SFlag, fstat};
use nix::unistd::{Whence, lseek, read};

use crate::queue::BLOCK;
use crate::queue::backlog::{Backlog, SpillError};
use crate::queue::framer::{Framer, Rest};
use crate::queue::relay::{Fate, WriterState};
use crate::queue::share::PAGE;
use crate::sys::pipe;

/// A writer's pipe and what has been read of it and not handed on.
#[derive(Debug)]
pub(crate) struct Source {
    state: State,
    fate: Arc<Fate>,
    framer: Framer,
    /// `buffer[start..end]` begins where a record begins. It grows only for a record that doesn't fit.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// So many bytes from `start` on have been looked at and hold no whole record.
    seen: usize,
    /// Bytes handed on so far.
    passed: u64,
    /// Its last record is given the terminator that it lacks, whether or not another follows.
    completes: bool,
    ahead: Option<Ahead>,
    /// Of a regular file: bytes up to what was its end at first. One that grows while it is read is read to the end of the
    /// record in which that lies, lest it never end.
    left: Option<u64>,
    /// A record of which a part has been handed on goes on with what is read next.
    midway: bool,
    /// What was read last lies beyond that end.
    is_beyond: bool,
    /// Its pipe was found empty after the writer's process had ended, and whether all is in order has been told; or a fault in
    /// what was read ahead has. What is wrong after that is a stranger's who has the pipe, too, or is known.
    settled: bool,
    /// The last read found nothing, and had begun after the writer's process had ended: nothing more comes from that.
    dry: bool,
}

/// What was read before the source's turn: where writers come in sequence and none may be held up.
#[derive(Debug)]
struct Ahead {
    backlog: Backlog,
    /// The pipe had come to its end then.
    ended: bool,
    /// The last read found nothing, and had begun after the writer's process had ended.
    dry: bool,
    /// The unfinished record at its end, so that a fault is known before its turn: a writer's end must not wait for its turn, as
    /// whose turn it is may wait for the writer's end.
    rest: Vec<u8>,
    /// So many bytes of `rest` have been looked at.
    seen: usize,
    /// Bytes of whole records before `rest`.
    whole: u64,
    /// The record that begins with `rest` is longer than allowed.
    too_long: bool,
}

impl Ahead {
    fn push(&mut self, data: &[u8], framer: &Framer) -> Result<(), SpillError> {
        self.backlog.push(data)?;
        if !self.too_long {
            self.rest.extend_from_slice(data);
            let whole = framer.whole(&self.rest, self.seen);
            self.rest.drain(..whole.end);
            self.seen = self.rest.len();
            self.whole += whole.end as u64;
            self.too_long = whole.too_long;
        }
        Ok(())
    }
}

/// Why a source can't go on.
#[derive(Debug)]
pub(crate) enum SourceError {
    /// Its pipe.
    Read(io::Error),
    /// Its file for what was read ahead.
    Spill(SpillError),
}

impl From<SpillError> for SourceError {
    fn from(error: SpillError) -> Self {
        SourceError::Spill(error)
    }
}

#[derive(Debug)]
enum State {
    /// More may come.
    Open(OwnedFd),
    /// Nothing more will come; what has been read may not be handed on yet.
    AtEnd,
    /// It broke a rule. What it still writes is not read, but its pipe stays open, so that it doesn't end by SIGPIPE before
    /// whoever judges it has heard why.
    Faulty(OwnedFd),
    /// It broke a rule with its very end.
    FaultyAtEnd,
    /// Everything that counts has been handed on.
    Done,
}

/// What there is to hand on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// The first `end` bytes are whole records.
    Whole { end: usize, records: u64 },
    /// The first `end` bytes are the last record, which lacks its terminator.
    Last { end: usize },
    /// Nothing before more has been read.
    More,
    /// Nothing any more.
    End,
    /// A record is longer than allowed.
    TooLong,
    /// The data ended `held` bytes after a record's begin.
    Torn { held: usize },
}

/// What a writer whose process has ended leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settle {
    /// Nothing is wrong with it.
    Well,
    /// It ended `held` bytes after a record's begin, and that is no record. Before that, there are `after` bytes.
    Torn { held: usize, after: u64 },
    /// A record that begins after so many bytes is longer than allowed. (Only of what was read ahead; else [`Next`] says it.)
    TooLong { after: u64 },
}

impl Source {
    /// Takes the read end of a pipe that nobody else reads, or a regular file. It is made non-blocking: a pipe's two ends don't share that.
    pub fn new(fd: OwnedFd, fate: Arc<Fate>, framer: Framer) -> io::Result<Source> {
        let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
        fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        let left = regular_size(&fd)?;
        let state = State::Open(fd);
        Ok(Source {
            state,
            fate,
            framer,
            buffer: Vec::new(),
            start: 0,
            end: 0,
            seen: 0,
            passed: 0,
            completes: false,
            ahead: None,
            left,
            midway: false,
            is_beyond: false,
            settled: false,
            dry: false,
        })
    }

    /// Lets its last record be given the terminator that it lacks, whether or not another follows.
    pub fn complete(mut self, completes: bool) -> Source {
        self.completes = completes;
        self
    }

    /// Lets it be read before its turn, too.
    pub fn read_ahead(mut self, backlog: Backlog) -> Source {
        self.ahead = Some(Ahead {
            backlog,
            ended: false,
            dry: false,
            rest: Vec::new(),
            seen: 0,
            whole: 0,
            too_long: false,
        });
        self
    }

    /// The end to wait on before its turn.
    pub fn readable_ahead(&self) -> Option<BorrowedFd<'_>> {
        self.ahead.as_ref().filter(|ahead| !ahead.ended)?;
        self.readable()
    }

    /// There is something to [`Source::fill`] without waiting for the pipe.
    pub fn has_ahead(&self) -> bool {
        let is_open = matches!(self.state, State::Open(_));
        is_open
            && self
                .ahead
                .as_ref()
                .is_some_and(|ahead| ahead.ended || !ahead.backlog.is_empty())
    }

    /// Reads once before its turn; returns how many bytes that brought.
    pub fn fill_ahead(&mut self) -> Result<usize, SourceError> {
        let (State::Open(fd), Some(ahead)) = (&self.state, &mut self.ahead) else {
            return Ok(0);
        };
        if ahead.ended {
            return Ok(0);
        }
        self.buffer.resize(BLOCK, 0);
        let fate = self.fate.get();
        match get(fd, &mut self.buffer)? {
            None if fate >= WriterState::Ended => {
                ahead.ended = true;
                Ok(0)
            }
            None => {
                ahead.dry = fate == WriterState::Exited;
                Ok(0)
            }
            Some(0) => {
                ahead.ended = true;
                Ok(0)
            }
            Some(count) => {
                ahead.push(&self.buffer[..count], &self.framer)?;
                Ok(count)
            }
        }
    }

    /// It is to be read before its turn although its pipe may be empty: something is to be told of that.
    pub fn is_due_ahead(&self) -> bool {
        matches!(self.state, State::Open(_))
            && self.ahead.is_some()
            && !self.settled
            && self.fate.get() == WriterState::Exited
    }

    /// What is to be told of what was read before its turn: a fault at once, else that all is in order, when its writer has
    /// exited and its pipe is empty. Told once.
    pub fn settle_ahead(&mut self) -> Option<Settle> {
        let ahead = self.ahead.as_ref().filter(|_| !self.settled)?;
        let (held, after) = (ahead.rest.len(), ahead.whole);
        let told = if ahead.too_long {
            Settle::TooLong { after }
        } else if !(ahead.dry || ahead.ended && self.fate.get() == WriterState::Exited) {
            return None;
        } else if held > 0 && self.framer.rest() == Rest::Torn {
            Settle::Torn { held, after }
        } else {
            Settle::Well
        };
        self.settled = true;
        Some(told)
    }

    /// The end to wait on for more data.
    pub fn readable(&self) -> Option<BorrowedFd<'_>> {
        match &self.state {
            State::Open(fd) => Some(fd.as_fd()),
            _ => None,
        }
    }

    /// The end to wait on for its writers to be gone.
    pub fn faulty(&self) -> Option<BorrowedFd<'_>> {
        match &self.state {
            State::Faulty(fd) => Some(fd.as_fd()),
            _ => None,
        }
    }

    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// How far its writer has come.
    pub fn fate(&self) -> &Fate {
        &self.fate
    }

    /// It is to be read although its pipe may be empty: something is to be told of that.
    pub fn is_due(&self) -> bool {
        let is_open = matches!(self.state, State::Open(_));
        is_open
            && match self.fate.get() {
                WriterState::Runs => false,
                WriterState::Exited => !self.settled,
                WriterState::Ended | WriterState::Torn => true,
            }
    }

    /// It broke a rule, and is to count as ended all the same.
    pub fn is_forgiven(&self) -> bool {
        matches!(self.state, State::Faulty(_) | State::FaultyAtEnd)
            && self.fate.get() >= WriterState::Ended
    }

    /// What is to be told of a writer that has exited, once its pipe is empty; told once.
    pub fn settle(&mut self) -> Option<Settle> {
        if self.settled || self.fate.get() != WriterState::Exited {
            return None;
        }
        let held = self.end - self.start;
        match &self.state {
            // `dry` says that the last read, begun after the writer's end, found nothing.
            State::Open(_) if !self.dry => None,
            State::Open(_) if held > 0 && self.framer.rest() == Rest::Torn => {
                self.settled = true;
                Some(Settle::Torn {
                    held,
                    after: self.passed,
                })
            }
            State::Open(_) | State::AtEnd | State::Done => {
                self.settled = true;
                Some(Settle::Well)
            }
            // The fault has been told.
            State::Faulty(_) | State::FaultyAtEnd => None,
        }
    }

    /// Its pipe, where bytes may be moved from it by other ways than through this source.
    pub fn bare_pipe(&self) -> Option<BorrowedFd<'_>> {
        self.readable().filter(|fd| {
            self.framer.is_bytes()
                && fstat(fd)
                    .is_ok_and(|stat| stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFIFO.bits())
        })
    }

    pub fn framer(&self) -> &Framer {
        &self.framer
    }

    /// Bytes handed on so far.
    pub fn passed(&self) -> u64 {
        self.passed
    }

    /// The first `end` bytes that are held.
    pub fn data(&self, end: usize) -> &[u8] {
        &self.buffer[self.start..self.start + end]
    }

    /// Reads once; returns how many bytes that brought from the pipe. At the end of data, [`Source::next`] says so.
    pub fn fill(&mut self) -> Result<usize, SourceError> {
        self.fill_up_to(usize::MAX)
    }

    fn fill_up_to(&mut self, most_wanted: usize) -> Result<usize, SourceError> {
        let State::Open(fd) = &self.state else {
            return Ok(0);
        };
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.end == 0 && self.buffer.len() != BLOCK {
            self.buffer = vec![0; BLOCK];
        } else if self.buffer.len() - self.end < BLOCK / 2 {
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
        if let Some(ahead) = &mut self.ahead {
            let (front, _) = ahead.backlog.front();
            let count = front.len().min(self.buffer.len() - self.end);
            self.buffer[self.end..self.end + count].copy_from_slice(&front[..count]);
            self.end += count;
            if count > 0 {
                ahead.backlog.consume(count)?;
                return Ok(0);
            }
            if ahead.ended {
                self.state = State::AtEnd;
                return Ok(0);
            }
        }
        let most = match self.left {
            // The end, as it was at first.
            Some(0) if self.end == 0 && !self.midway => {
                self.state = State::AtEnd;
                return Ok(0);
            }
            Some(0) => PAGE,
            Some(left) => usize::try_from(left).unwrap_or(usize::MAX),
            None => usize::MAX,
        };
        let most = self.end + most.min(most_wanted).min(self.buffer.len() - self.end);
        // Before the read: what is said while it runs may be said of bytes that it did not see.
        let fate = self.fate.get();
        match get(fd, &mut self.buffer[self.end..most])? {
            None if fate >= WriterState::Ended => {
                self.state = State::AtEnd;
                Ok(0)
            }
            None => {
                self.dry = fate == WriterState::Exited;
                Ok(0)
            }
            Some(0) => {
                self.state = State::AtEnd;
                Ok(0)
            }
            Some(count) => {
                self.end += count;
                if let Some(left) = &mut self.left {
                    self.is_beyond = *left == 0;
                    *left = left.saturating_sub(count as u64);
                }
                Ok(count)
            }
        }
    }

    /// The same, but no more than a page.
    pub fn fill_page(&mut self) -> Result<usize, SourceError> {
        self.fill_up_to(PAGE)
    }

    /// Whether a record of which a part has been handed on goes on with what is read next.
    pub fn is_midway(&mut self, is_midway: bool) {
        self.midway = is_midway;
        if !is_midway && self.is_beyond {
            // What follows was not there when it began.
            self.end_here();
        }
    }

    /// Nothing more counts but what is held up to here.
    fn end_here(&mut self) {
        (self.start, self.end, self.seen) = (0, 0, 0);
        self.state = State::AtEnd;
    }

    /// So many bytes went on without being read.
    pub fn has_passed(&mut self, count: usize) {
        self.passed += count as u64;
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(count as u64);
        }
    }

    /// Bytes that can be read at once.
    pub fn unread(&self) -> usize {
        let there = self.readable().and_then(pipe::unread).unwrap_or(0);
        let left = self.left.map_or(usize::MAX, |left| {
            usize::try_from(left).unwrap_or(usize::MAX)
        });
        there.min(left)
    }

    /// Bytes that have been read and not handed on.
    pub fn held(&self) -> usize {
        self.end - self.start
    }

    /// It is a regular file.
    pub fn is_file(&self) -> bool {
        self.left.is_some()
    }

    /// Whether bytes can be moved from it by splice(2).
    pub fn is_spliceable(&self) -> bool {
        self.ahead.is_none()
            && self.framer.is_terminated()
            && self.readable().is_some_and(|fd| {
                let kind = fstat(fd).map_or(0, |stat| stat.st_mode) & SFlag::S_IFMT.bits();
                kind == SFlag::S_IFIFO.bits() || kind == SFlag::S_IFREG.bits()
            })
    }

    /// What there is to hand on. [`Source::consume`] must follow before this is asked again where there was something.
    pub fn next(&mut self) -> Next {
        let held = self.end - self.start;
        if matches!(
            self.state,
            State::Done | State::Faulty(_) | State::FaultyAtEnd
        ) {
            return Next::More;
        }
        if self.seen < held && !self.midway {
            let whole = self.framer.whole(self.data(held), self.seen);
            self.seen = if whole.too_long { whole.end } else { held };
            if whole.end > 0 && self.is_beyond {
                // One record began before the end that the file had; what follows was not there then.
                let end = self.framer.first(self.data(whole.end));
                self.end = self.start + end;
                self.seen = end;
                self.state = State::AtEnd;
                return Next::Whole { end, records: 1 };
            }
            if whole.end > 0 {
                return Next::Whole {
                    end: whole.end,
                    records: whole.records,
                };
            }
            if whole.too_long {
                return if self.settled {
                    Next::End
                } else {
                    Next::TooLong
                };
            }
        }
        match (&self.state, held) {
            (State::Open(_), _) => Next::More,
            (_, 0) => Next::End,
            _ => match (self.fate.get(), self.framer.rest()) {
                (WriterState::Torn, _) => Next::End,
                (_, Rest::Unterminated) if self.completes => {
                    let missing = self.framer.missing_terminator(self.data(held));
                    self.buffer.truncate(self.end);
                    self.buffer.extend_from_slice(&missing);
                    self.end += missing.len();
                    let end = held + missing.len();
                    self.seen = end;
                    Next::Whole { end, records: 1 }
                }
                (_, Rest::Unterminated) => Next::Last { end: held },
                (_, Rest::Torn) if self.settled => Next::End,
                (_, Rest::Torn) => Next::Torn { held },
            },
        }
    }

    /// The first `count` bytes have been handed on.
    pub fn consume(&mut self, count: usize) {
        self.start += count;
        self.seen = self.seen.saturating_sub(count);
        self.passed += count as u64;
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// It broke a rule: what it has brought and will bring doesn't count.
    pub fn fault(&mut self) {
        self.forget();
        self.state = match std::mem::replace(&mut self.state, State::Done) {
            State::Open(fd) | State::Faulty(fd) => State::Faulty(fd),
            State::AtEnd | State::FaultyAtEnd | State::Done => State::FaultyAtEnd,
        };
    }

    /// Nothing more is wanted of it. A writer that goes on gets SIGPIPE.
    pub fn close(&mut self) {
        self.forget();
        self.state = State::Done;
    }

    fn forget(&mut self) {
        self.buffer = Vec::new();
        self.ahead = None;
        (self.start, self.end, self.seen) = (0, 0, 0);
    }
}

/// Bytes of a regular file behind where it is read; `None` for anything else.
fn regular_size(fd: &OwnedFd) -> io::Result<Option<u64>> {
    let stat = fstat(fd)?;
    if stat.st_mode & SFlag::S_IFMT.bits() != SFlag::S_IFREG.bits() {
        return Ok(None);
    }
    let at = lseek(fd, 0, Whence::SeekCur)?;
    Ok(Some(u64::try_from(stat.st_size - at).unwrap_or(0)))
}

/// One read(2); `None` where there is nothing now.
fn get(fd: &OwnedFd, buffer: &mut [u8]) -> Result<Option<usize>, SourceError> {
    match read(fd, buffer) {
        Ok(count) => Ok(Some(count)),
        Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
        Err(error) => Err(SourceError::Read(error.into())),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

    use std::io::{Seek, Write};

    use crate::queue::framer::Framer;
    use crate::queue::source::{Next, Source};
    use crate::spec::Records;

    /// What a file grows by while it is read is not read, but for the end of a record that had begun.
    #[test]
    fn a_file_that_grows_is_read_to_its_first_end() {
        let long = "x".repeat(10_000);
        for (first, more, expected) in [
            ("one\ntwo\nthr", "ee\nfour\nfive\n", "one\ntwo\nthree\n"),
            ("one\ntwo\n", "three\n", "one\ntwo\n"),
            ("", "one\n", ""),
            ("one", "", "one"),
            ("one", "two", "onetwo"),
            ("x", &format!("{long}\ntwo\n"), &format!("x{long}\n")),
        ] {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(b"not this").unwrap();
            file.write_all(first.as_bytes()).unwrap();
            let mut read = file.reopen().unwrap();
            read.seek(std::io::SeekFrom::Start(8)).unwrap();
            let framer = Framer::new(&Records::Lines, 1 << 20).unwrap();
            let mut source = Source::new(read.into(), Default::default(), framer).unwrap();
            file.write_all(more.as_bytes()).unwrap();
            let mut found = Vec::new();
            loop {
                match source.next() {
                    Next::Whole { end, .. } | Next::Last { end } => {
                        found.extend_from_slice(source.data(end));
                        source.consume(end);
                    }
                    Next::More => drop(source.fill().unwrap()),
                    Next::End => break,
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(String::from_utf8(found).unwrap(), expected);
        }
    }
}
