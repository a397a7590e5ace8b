//! One pipe copied to several without its bytes entering user space.
//!
//! ```text
//!            tee            tee            tee
//! input ───┬─────▶ 1   ┌──┬─────▶ 2   ┌──┬─────▶ 3
//!          └─ splice ──┘  └─ splice ──┘  └─ splice ────▶ 4
//! ```
//!
//! tee(2) always begins at a pipe's front and may give less than asked, so one pipe can't be teed to several outputs that
//! have different room. In a chain each stage tees as much as its own output takes and then passes on exactly so
//! much. An output that takes nothing holds back those behind it, once the pipe between is full, and so the input.
//!
//! Records are counted by a look at a copy, which tee(2) makes of what is about to be passed on: at all of it while there is little,
//! then at a page now and then.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::time::Instant;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice, tee};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{pipe2, read};

use crate::queue::census::Census;
use crate::queue::counts::Counters;
use crate::queue::framer::Framer;
use crate::queue::relay::{Control, Fate, WriterState};
use crate::queue::share::PAGE;
use crate::queue::sink::Sink;

/// More than any pipe holds (pipe(7): `pipe-max-size` is 1 MiB by default).
const ALL: usize = 1 << 30;

/// So much is looked at as a whole, and of each so much that follows a page: a look at all costs a tenth of the speed.
const LOOK_EVERY: u64 = 1 << 20;

/// A chain at work.
pub(crate) struct Tee<'a> {
    input: BorrowedFd<'a>,
    /// One or more, all of them pipes.
    sinks: &'a mut [Sink],
    control: &'a Control,
    counters: &'a Counters,
    /// Bytes that have left the input.
    passed: u64,
    /// One for each sink but the last.
    stages: Vec<Stage>,
    /// From each stage to the next.
    links: Vec<Link>,
    /// Takes what would go to the last sink when that is closed.
    null: OwnedFd,
    input_state: Input,
    /// For each sink: nothing has said that it is full.
    has_room: Vec<bool>,
    look: Option<Look<'a>>,
}

/// Counts the records in what is passed on.
struct Look<'a> {
    framer: &'a Framer,
    census: Census,
    read: OwnedFd,
    write: OwnedFd,
    buffer: Vec<u8>,
    /// The next look is due when so many bytes have passed.
    due: u64,
    /// The last byte that was seen, which was the last there was, ends no record.
    is_midway: bool,
}

#[derive(Debug, Default)]
struct Stage {
    /// Bytes at the front of what it reads that its sink has and the next stage has not.
    owed: usize,
}

#[derive(Debug)]
struct Link {
    read: OwnedFd,
    write: OwnedFd,
    /// Bytes in it.
    held: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Input {
    MayHave,
    Empty,
    AtEnd,
}

/// What a move of bytes came to.
enum Moved {
    Bytes(usize),
    /// Nothing there, or no room: the call doesn't say which.
    Blocked,
    /// The reader has gone.
    Gone,
}

impl<'a> Tee<'a> {
    /// Copies `input`, a pipe, to `sinks`: at least two, all pipes.
    ///
    /// # Errors
    /// No descriptors.
    pub fn new(
        input: BorrowedFd<'a>,
        sinks: &'a mut [Sink],
        control: &'a Control,
        counters: &'a Counters,
        counting: Option<&'a Framer>,
    ) -> io::Result<Tee<'a>> {
        let size = fcntl(input, FcntlArg::F_GETPIPE_SZ)?;
        let look = counting.map(|framer| Look::new(framer, size)).transpose()?;
        let link = |_| {
            let (read, write) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
            // Where the user's pipe pages are used up it stays smaller: slower, that's all.
            let _ = fcntl(&write, FcntlArg::F_SETPIPE_SZ(size));
            Ok(Link {
                read,
                write,
                held: 0,
            })
        };
        Ok(Tee {
            input,
            stages: (1..sinks.len()).map(|_| Stage::default()).collect(),
            links: (2..sinks.len()).map(link).collect::<io::Result<_>>()?,
            null: OpenOptions::new().write(true).open("/dev/null")?.into(),
            input_state: Input::MayHave,
            has_room: vec![true; sinks.len()],
            sinks,
            control,
            counters,
            passed: 0,
            look,
        })
    }

    /// Copies until all is delivered or all readers have gone (`true`), or until told to stop (`false`). `settled` is called
    /// when all has been taken in that the writer wrote before it exited, as `fate` tells.
    pub fn run(&mut self, fate: &Fate, settled: impl Fn()) -> io::Result<bool> {
        let mut is_settled = false;
        loop {
            // Before the pipe is looked at: what is said later may be said of bytes that were not seen.
            let end = fate.get();
            let mut moved = false;
            for at in 0..self.stages.len() {
                moved |= self.tee(at)?;
                moved |= self.pass_on(at)?;
            }
            if end != WriterState::Runs && self.input_state != Input::AtEnd {
                // Empty as of before it exited may be not empty any more.
                if self.input_is_readable()? {
                    self.input_state = Input::MayHave;
                } else if end >= WriterState::Ended {
                    self.input_state = Input::AtEnd;
                } else if !is_settled {
                    is_settled = true;
                    settled();
                }
            }
            self.close_finished();
            if self.sinks.iter().all(Sink::is_closed) {
                return Ok(true);
            }
            // With something moved this only looks whether to stop.
            if self.wait(if moved {
                PollTimeout::ZERO
            } else {
                PollTimeout::NONE
            })? {
                return Ok(false);
            }
        }
    }

    /// What a stage reads has something that its sink has not.
    fn has_more(&self, at: usize) -> bool {
        match at.checked_sub(1) {
            None => self.input_state == Input::MayHave,
            Some(link) => self.links[link].held > 0,
        }
    }

    fn source(&self, at: usize) -> BorrowedFd<'_> {
        at.checked_sub(1)
            .map_or(self.input, |link| self.links[link].read.as_fd())
    }

    /// Gives a stage's sink what it takes of what the stage reads.
    fn tee(&mut self, at: usize) -> io::Result<bool> {
        if self.stages[at].owed > 0 || !self.has_more(at) {
            return Ok(false);
        }
        let Some(sink) = self.sinks[at].fd() else {
            return self.skip(at);
        };
        if !self.has_room[at] {
            return Ok(false);
        }
        match attempt(|flags| tee(self.source(at), sink, ALL, flags))? {
            Moved::Bytes(0) => self.input_state = Input::AtEnd,
            Moved::Bytes(count) => {
                self.stages[at].owed = count;
                if at == 0 {
                    self.look_at(count)?;
                }
                self.counters.outputs[at].add(count, 0);
                return Ok(true);
            }
            Moved::Blocked if at == 0 && !self.input_is_readable()? => {
                self.input_state = Input::Empty
            }
            Moved::Blocked => self.has_room[at] = false,
            Moved::Gone => {
                self.sinks[at].close();
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Counts the records in so many bytes at the front of the input, which the first stage owes.
    fn look_at(&mut self, count: usize) -> io::Result<()> {
        let Some(look) = &mut self.look else {
            return Ok(());
        };
        let most = match self.passed {
            passed if passed < LOOK_EVERY => count,
            passed if passed < look.due => 0,
            _ => count.min(PAGE),
        };
        look.due = look.due.max(self.passed + LOOK_EVERY);
        let seen = look.copy(self.input, most)?;
        let data = &look.buffer[..seen];
        let ends = look.framer.ends(data);
        look.is_midway = look.framer.last_end(data) != Some(count);
        self.count_records(seen, ends, count - seen);
        Ok(())
    }

    /// Of bytes that are passed on so many are seen, in which so many records end.
    fn count_records(&mut self, seen: usize, ends: u64, unseen: usize) {
        let Some(look) = &mut self.look else { return };
        if unseen > 0 {
            self.counters.estimate();
        }
        let records = look.census.count(seen, ends, unseen);
        self.counters.inputs[0].add(0, records);
        for (sink, counter) in self.sinks.iter().zip(&self.counters.outputs) {
            counter.add(0, if sink.is_closed() { 0 } else { records });
        }
    }

    /// A stage without a reader owes the next one all that is there. How much is in the input isn't known: as much as
    /// one splice moves.
    fn skip(&mut self, at: usize) -> io::Result<bool> {
        if let Some(link) = at.checked_sub(1) {
            self.stages[at].owed = self.links[link].held;
            return Ok(false);
        }
        if self.is_last(at) && !self.has_room[at + 1] && !self.sinks[at + 1].is_closed() {
            return Ok(false);
        }
        match attempt(|flags| splice(self.input, None, self.target(at), None, ALL, flags))? {
            Moved::Bytes(0) => self.input_state = Input::AtEnd,
            Moved::Bytes(count) => {
                self.count_records(0, 0, count);
                self.has_passed(at, count);
                return Ok(true);
            }
            Moved::Blocked if !self.input_is_readable()? => self.input_state = Input::Empty,
            Moved::Blocked => self.is_full(at),
            Moved::Gone => {
                self.sinks[at + 1].close();
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Moves on what a stage's sink has.
    fn pass_on(&mut self, at: usize) -> io::Result<bool> {
        let owed = self.stages[at].owed;
        if owed == 0
            || self.is_last(at) && !self.has_room[at + 1] && !self.sinks[at + 1].is_closed()
        {
            return Ok(false);
        }
        match attempt(|flags| splice(self.source(at), None, self.target(at), None, owed, flags))? {
            Moved::Bytes(count) => {
                self.stages[at].owed -= count;
                self.has_passed(at, count);
                Ok(count > 0)
            }
            // What is owed is there, so it was the room.
            Moved::Blocked => {
                self.is_full(at);
                Ok(false)
            }
            Moved::Gone => {
                self.sinks[at + 1].close();
                Ok(true)
            }
        }
    }

    fn is_last(&self, at: usize) -> bool {
        at + 1 == self.stages.len()
    }

    /// Where a stage passes on to.
    fn target(&self, at: usize) -> BorrowedFd<'_> {
        match self.links.get(at) {
            Some(link) => link.write.as_fd(),
            None => self.sinks[at + 1].fd().unwrap_or(self.null.as_fd()),
        }
    }

    /// Where a stage passes on to has no room. Of a link that is known from what moves out of it.
    fn is_full(&mut self, at: usize) {
        if self.is_last(at) {
            self.has_room[at + 1] = false;
        }
    }

    fn has_passed(&mut self, at: usize, count: usize) {
        match at.checked_sub(1) {
            None => {
                self.counters.inputs[0].add(count, 0);
                self.passed += count as u64;
                self.counters.inputs[0].has_passed(self.passed);
            }
            Some(link) => self.links[link].held -= count,
        }
        if !self.is_last(at) {
            self.links[at].held += count;
        } else if !self.sinks[at + 1].is_closed() {
            self.counters.outputs[at + 1].add(count, 0);
        }
    }

    /// Closes each sink that has everything: another's reader may be waiting for this one's to end.
    fn close_finished(&mut self) {
        if self.input_state != Input::AtEnd {
            return;
        }
        // The last record, without its terminator. (Where its bytes were not seen it makes no difference.)
        if self
            .look
            .as_mut()
            .is_some_and(|look| std::mem::take(&mut look.is_midway))
        {
            self.count_records(0, 1, 0);
        }
        for (at, sink) in self.sinks.iter_mut().enumerate() {
            let is_last = at == self.stages.len();
            if self.links.iter().take(at).any(|link| link.held > 0) {
                break;
            }
            if !is_last || self.stages.iter().all(|stage| stage.owed == 0) {
                sink.close();
            }
        }
    }

    fn input_is_readable(&self) -> io::Result<bool> {
        let mut fds = [PollFd::new(self.input, PollFlags::POLLIN)];
        loop {
            match poll(&mut fds, PollTimeout::ZERO) {
                Err(Errno::EINTR) => {}
                result => return Ok(result? > 0),
            }
        }
    }

    /// Waits until something can be done; says whether to stop.
    fn wait(&mut self, timeout: PollTimeout) -> io::Result<bool> {
        let mut fds = vec![PollFd::new(self.control.fd(), PollFlags::POLLIN)];
        let mut whose = Vec::new();
        for (at, sink) in self.sinks.iter().enumerate() {
            if let Some(fd) = sink.fd() {
                // Without POLLOUT it still says when the reader has gone.
                let events = if self.has_room[at] {
                    PollFlags::empty()
                } else {
                    PollFlags::POLLOUT
                };
                fds.push(PollFd::new(fd, events));
                whose.push(at);
            }
        }
        if self.input_state == Input::Empty {
            fds.push(PollFd::new(self.input, PollFlags::POLLIN));
        }
        let begin = (timeout != PollTimeout::ZERO).then(Instant::now);
        while let Err(error) = poll(&mut fds, timeout) {
            if error != Errno::EINTR {
                return Err(error.into());
            }
        }
        let said: Vec<PollFlags> = fds
            .iter()
            .map(|fd| fd.revents().unwrap_or(PollFlags::POLLERR))
            .collect();
        if let Some(begin) = begin {
            let waited = u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
            let is_full = self.has_room.contains(&false);
            let counter = if is_full {
                &self.counters.full
            } else {
                &self.counters.empty
            };
            counter.fetch_add(waited, Ordering::Relaxed);
        }
        for (events, at) in said[1..].iter().zip(&whose) {
            if events.contains(PollFlags::POLLERR) {
                self.sinks[*at].close();
            } else if !events.is_empty() {
                self.has_room[*at] = true;
            }
        }
        if said
            .get(1 + whose.len())
            .is_some_and(|events| !events.is_empty())
        {
            self.input_state = Input::MayHave;
        }
        Ok(!said[0].is_empty() && self.control.is_stop())
    }
}

impl<'a> Look<'a> {
    fn new(framer: &'a Framer, size: i32) -> io::Result<Look<'a>> {
        let (read, write) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        // Where it stays smaller, less is seen.
        let _ = fcntl(&write, FcntlArg::F_SETPIPE_SZ(size));
        Ok(Look {
            framer,
            census: Census::default(),
            read,
            write,
            buffer: Vec::new(),
            due: 0,
            is_midway: false,
        })
    }

    /// Copies the front of `input` to the buffer, at most so much; how much it is.
    fn copy(&mut self, input: BorrowedFd<'_>, most: usize) -> io::Result<usize> {
        if most == 0 {
            return Ok(0);
        }
        let Moved::Bytes(count) = attempt(|flags| tee(input, &self.write, most, flags))? else {
            return Ok(0);
        };
        self.buffer.resize(count.max(self.buffer.len()), 0);
        let mut done = 0;
        while done < count {
            match read(&self.read, &mut self.buffer[done..count]) {
                Ok(some) => done += some,
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(done)
    }
}

/// One call that must not wait, again where a signal broke it off.
fn attempt(mut call: impl FnMut(SpliceFFlags) -> nix::Result<usize>) -> io::Result<Moved> {
    loop {
        return match call(SpliceFFlags::SPLICE_F_NONBLOCK) {
            Ok(count) => Ok(Moved::Bytes(count)),
            Err(Errno::EINTR) => continue,
            Err(Errno::EAGAIN) => Ok(Moved::Blocked),
            Err(Errno::EPIPE) => Ok(Moved::Gone),
            Err(error) => Err(error.into()),
        };
    }
}
