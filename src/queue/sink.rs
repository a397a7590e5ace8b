//! One reader's end of a relay: writes what it is given, and holds what the reader doesn't take yet.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::PollFlags;
use nix::sys::stat::{SFlag, fstat};
use nix::unistd::write;

use crate::queue::backlog::{Backlog, Dropped, SpillError};
use crate::queue::framer::Framer;
use crate::sys::pipe;

/// pipe(7): a pipe that polls writable takes so many bytes without blocking.
const PIPE_BUF: usize = 4096;

/// Where bytes leave a relay.
#[derive(Debug)]
pub(crate) struct Sink {
    /// `None`: closed.
    fd: Option<OwnedFd>,
    way: Way,
    /// A write may bring something.
    ready: bool,
    backlog: Backlog,
    /// How much of what is being handed out to all it has taken.
    taken: usize,
    /// What the last record that it was given lacks, should another follow.
    lacks: Vec<u8>,
    /// Where records are counted: those that lie in its pipe, which is of one page, so that it has room when it is empty.
    in_pipe: Option<u64>,
    /// Bytes that were held for a reader that has gone, and that nobody has asked for yet.
    lost: usize,
}

/// How an end is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// A pipe, by an open file description that is ours alone, non-blocking.
    Pipe,
    /// A terminal or another device, likewise.
    Device,
    /// An open file description that others may share. O_NONBLOCK would be theirs, too, and break them, so it is written
    /// only when poll(2) says so, in pieces that poll vouches for.
    Shared,
    /// A regular file, or a disk: never blocks for long.
    File,
}

/// Why an output can't go on.
#[derive(Debug)]
pub(crate) enum SinkError {
    /// Its own descriptor.
    Write(io::Error),
    /// Its file for what doesn't fit memory.
    Spill(SpillError),
}

impl From<SpillError> for SinkError {
    fn from(error: SpillError) -> Self {
        SinkError::Spill(error)
    }
}

enum Wrote {
    Bytes(usize),
    Full,
    Gone,
}

impl Sink {
    /// Takes any descriptor that is open for writing and leaves its flags as they are.
    ///
    /// # Errors
    /// fstat(2) failed.
    pub fn new(fd: OwnedFd, backlog: Backlog) -> io::Result<Sink> {
        let kind = SFlag::from_bits_truncate(fstat(&fd)?.st_mode) & SFlag::S_IFMT;
        let (fd, way) = match kind {
            SFlag::S_IFIFO | SFlag::S_IFCHR => match reopen(&fd) {
                Ok(own) => (
                    Some(own),
                    if kind == SFlag::S_IFIFO {
                        Way::Pipe
                    } else {
                        Way::Device
                    },
                ),
                // fifo(7): nobody has it open for reading.
                Err(error)
                    if kind == SFlag::S_IFIFO
                        && error.raw_os_error() == Some(Errno::ENXIO as i32) =>
                {
                    (None, Way::Pipe)
                }
                // Another user's pipe, no /proc, a terminal of another namespace.
                Err(_) => (Some(fd), Way::Shared),
            },
            SFlag::S_IFREG | SFlag::S_IFBLK => (Some(fd), Way::File),
            _ => (Some(fd), Way::Shared),
        };
        Ok(Sink {
            fd,
            way,
            ready: way != Way::Shared,
            backlog,
            taken: 0,
            lacks: Vec::new(),
            in_pipe: None,
            lost: 0,
        })
    }

    /// Its reader has gone, or it has been given all.
    pub fn is_closed(&self) -> bool {
        self.fd.is_none()
    }

    /// What it writes to, unless it is closed.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(AsFd::as_fd)
    }

    /// Whether it is a pipe that we write by a description of our own; also when it is closed.
    pub fn is_pipe(&self) -> bool {
        self.way == Way::Pipe
    }

    /// Whether it is nothing but a pipe, so that data may be moved to it by other ways than through this sink.
    pub fn is_bare_pipe(&self) -> bool {
        self.way == Way::Pipe && !self.backlog.is_boundless()
    }

    pub fn is_empty(&self) -> bool {
        self.backlog.is_empty()
    }

    /// Its reader has gone, or nothing more will come: what is held for it is dropped.
    pub fn close(&mut self) {
        self.fd = None;
        self.lost += usize::try_from(self.backlog.len()).unwrap_or(usize::MAX);
        self.backlog = Backlog::new(0, None);
    }

    /// The end to wait on, and whether for room to write (else only for its reader to go). `offered`: the length of what
    /// is being handed out to all. `for_more`: there is or may be something to hand to it.
    pub fn waits(&self, offered: usize, for_more: bool) -> Option<(BorrowedFd<'_>, bool)> {
        let fd = self.fd.as_ref()?.as_fd();
        let wants = for_more
            || self.in_pipe.is_some() && !self.ready
            || !self.backlog.is_empty()
            || self.taken < offered;
        // Only of a pipe is it known what the poll says then; a terminal that has hung up would say so again and again.
        (wants || self.way == Way::Pipe).then_some((fd, wants))
    }

    /// What poll(2) said about it.
    pub fn polled(&mut self, events: PollFlags) {
        if self.way == Way::Pipe && events.contains(PollFlags::POLLERR) {
            self.close();
        }
        self.ready = true;
        if let Some(records) = &mut self.in_pipe
            && events.contains(PollFlags::POLLOUT)
        {
            *records = 0;
        }
    }

    /// Writes what is held, as far as it goes; returns the bytes that left.
    pub fn flush(&mut self) -> Result<usize, SinkError> {
        let mut left = 0;
        while !self.backlog.is_empty() {
            let front = self.backlog.front().0;
            let Some(fd) = &self.fd else { break };
            match put(fd, self.way, &mut self.ready, front)? {
                Wrote::Bytes(count) => {
                    let ended = self.backlog.consume(count)?;
                    self.has_written(ended);
                    left += count;
                }
                Wrote::Full => break,
                Wrote::Gone => self.close(),
            }
        }
        Ok(left)
    }

    /// So many records have gone to its pipe. Where these are counted, it takes no more before it is empty.
    fn has_written(&mut self, records: u64) {
        if let Some(in_pipe) = &mut self.in_pipe
            && self.way == Way::Pipe
        {
            *in_pipe += records;
            self.ready = false;
        }
    }

    /// Lets records in its pipe be counted, too. Nothing must be in it yet.
    pub fn count_pipe(&mut self) {
        self.resize(PIPE_BUF);
        self.in_pipe = Some(0);
    }

    /// Records held, in its pipe and before it, where they are counted.
    pub fn records(&self) -> u64 {
        self.in_pipe.unwrap_or(0) + self.backlog.records()
    }

    /// Takes what it can of `parts`, which are handed out until each output has taken all; returns the bytes that left.
    /// A reader that has gone has taken everything.
    pub fn take(&mut self, parts: [&[u8]; 2]) -> Result<usize, SinkError> {
        let mut left = 0;
        let mut before = 0;
        for part in parts {
            while let Some(fd) = &self.fd {
                let rest = &part[(self.taken - before).min(part.len())..];
                if rest.is_empty() {
                    break;
                }
                if self.backlog.is_empty() && self.ready {
                    match put(fd, self.way, &mut self.ready, rest)? {
                        Wrote::Bytes(count) => {
                            self.taken += count;
                            left += count;
                        }
                        Wrote::Full => {}
                        Wrote::Gone => self.close(),
                    }
                } else {
                    match self.backlog.push(rest)? {
                        0 => return Ok(left),
                        count => self.taken += count,
                    }
                }
            }
            before += part.len();
        }
        Ok(left)
    }

    /// Writes or holds all of `data`; returns the bytes that left. Nothing for a reader that has gone.
    pub fn give(&mut self, data: &[u8]) -> Result<usize, SinkError> {
        self.hold(data)?;
        self.flush()
    }

    /// Holds all of `data` until it is flushed; one record, where records are counted.
    pub fn hold(&mut self, data: &[u8]) -> Result<(), SinkError> {
        self.hold_record(data, false)
    }

    /// Holds one record. `is_kept`: it must not be dropped for others.
    pub fn hold_record(&mut self, record: &[u8], is_kept: bool) -> Result<(), SinkError> {
        if self.fd.is_some() {
            let lacks = std::mem::take(&mut self.lacks);
            if !lacks.is_empty() && self.backlog.records() > 0 {
                self.backlog.extend_last(&lacks)?;
            } else if !lacks.is_empty() {
                // The record that lacked it has gone, so this must follow, whatever is dropped.
                self.backlog.push_record(&lacks, true)?;
            }
            self.backlog.push_record(record, is_kept)?;
        }
        Ok(())
    }

    /// Room for one more record among at most `most`.
    pub fn has_room(&self, bytes: usize, most: u64) -> bool {
        self.backlog.has_room(bytes) && self.records() < most
    }

    /// Drops what has waited longest, but nothing that it has begun to write, until there is room for one more among at most
    /// `most`, or for that one alone.
    pub fn drop_oldest(&mut self, bytes: usize, most: u64) -> Dropped {
        let in_pipe = self.in_pipe.unwrap_or(0);
        let dropped = self
            .backlog
            .drop_oldest(bytes, most.saturating_sub(in_pipe));
        if dropped.is_last {
            // It may lack something, which goes with it.
            self.lacks.clear();
        }
        dropped
    }

    /// Writes records of `data` without waiting; a last one that it wrote only in part is held to its end. Returns how
    /// much of `data` it has taken so, and the bytes that left. Nothing must be held.
    pub fn hand(&mut self, data: &[u8], framer: &Framer) -> Result<(usize, usize), SinkError> {
        let lacks = std::mem::take(&mut self.lacks);
        let mut left = 0;
        for (part, before) in [(&lacks[..], 0), (data, lacks.len())] {
            while left < before + part.len() {
                let Some(fd) = &self.fd else { break };
                match put(fd, self.way, &mut self.ready, &part[left - before..])? {
                    Wrote::Bytes(count) => left += count,
                    Wrote::Full => break,
                    Wrote::Gone => self.close(),
                }
            }
            if left < before + part.len() {
                break;
            }
        }
        let Some(written) = left.checked_sub(lacks.len()) else {
            // Nothing of the data; what came before it is not to be torn.
            self.lacks = lacks;
            if left > 0 {
                let rest = self.lacks.split_off(left);
                self.lacks.clear();
                self.backlog.push_record(&rest, true)?;
            }
            return Ok((0, left));
        };
        if written == 0 {
            self.lacks = lacks;
            self.lacks.drain(..left);
            return Ok((0, left));
        }
        let mut end = 0;
        while end < written {
            end = if written == data.len() {
                written
            } else {
                end + framer.first(&data[end..])
            };
        }
        if self.fd.is_some() && written < end {
            self.backlog.push_record(&data[written..end], true)?;
        }
        if self.in_pipe.is_some() {
            self.has_written(framer.count(&data[..end]));
        }
        Ok((end, left))
    }

    /// The last record that it was given lacks this, should another follow.
    pub fn lacks(&mut self, terminator: &[u8]) {
        self.lacks = terminator.to_vec();
    }

    /// Whether something can be handed to it at once.
    pub fn is_free(&self) -> bool {
        self.fd.is_some() && self.ready && self.backlog.is_empty()
    }

    /// Whether it holds as much as it may.
    pub fn is_full(&self) -> bool {
        self.backlog.is_full()
    }

    /// Whether it may hold more than that.
    pub fn is_boundless(&self) -> bool {
        self.backlog.is_boundless()
    }

    /// Bytes that it holds.
    pub fn held(&self) -> u64 {
        self.backlog.len()
    }

    /// Bytes held for a reader that has gone; told once.
    pub fn take_lost(&mut self) -> usize {
        std::mem::take(&mut self.lost)
    }

    /// What its pipe holds; 0 where it is none.
    pub fn pipe_size(&self) -> usize {
        match (&self.fd, self.way) {
            (Some(fd), Way::Pipe) => fcntl(fd, FcntlArg::F_GETPIPE_SZ)
                .ok()
                .and_then(|size| usize::try_from(size).ok())
                .unwrap_or(0),
            _ => 0,
        }
    }

    /// Makes its pipe hold so much, if it can be; returns what it holds.
    pub fn resize(&self, size: usize) -> usize {
        match (&self.fd, self.way) {
            (Some(fd), Way::Pipe) => pipe::resize(fd, size),
            _ => 0,
        }
    }

    /// Bytes in its pipe that its reader has not read.
    pub fn unread(&self) -> usize {
        match (&self.fd, self.way) {
            (Some(fd), Way::Pipe) => pipe::unread(fd).unwrap_or(0),
            _ => 0,
        }
    }

    /// Whether it has taken all `offered` bytes, or is closed.
    pub fn has_taken(&self, offered: usize) -> bool {
        self.is_closed() || self.taken == offered
    }

    /// Something new is handed out.
    pub fn renew(&mut self) {
        self.taken = 0;
    }
}

/// Opens what `fd` leads to once more, for an open file description with flags of its own.
fn reopen(fd: &OwnedFd) -> io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let flags = (OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits();
    OpenOptions::new()
        .write(true)
        .custom_flags(flags)
        .open(path)
        .map(OwnedFd::from)
}

/// One write(2).
fn put(fd: &OwnedFd, way: Way, ready: &mut bool, data: &[u8]) -> Result<Wrote, SinkError> {
    if !*ready {
        return Ok(Wrote::Full);
    }
    let piece = match way {
        Way::Shared => {
            *ready = false;
            &data[..data.len().min(PIPE_BUF)]
        }
        Way::Pipe | Way::Device | Way::File => data,
    };
    loop {
        return match write(fd, piece) {
            Ok(count) => Ok(Wrote::Bytes(count)),
            Err(Errno::EINTR) => continue,
            Err(Errno::EAGAIN) => {
                *ready = false;
                Ok(Wrote::Full)
            }
            Err(Errno::EPIPE) => Ok(Wrote::Gone),
            Err(error) => Err(SinkError::Write(error.into())),
        };
    }
}
