//! One output of a pool: whole results, one after the other, none glued to the next.

use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;

use nix::poll::PollFlags;

use crate::pool::PoolOutput;
use crate::pool::shelf::{Held, Shelf};
use crate::queue::backlog::Backlog;
use crate::queue::framer::{Framer, Rest};
use crate::queue::sink::{Sink, SinkError};

/// With so many bytes on their way no more results are asked for.
const HIGH: usize = 128 * 1024;

/// See the module.
#[derive(Debug)]
pub(crate) struct Outlet {
    sink: Sink,
    framer: Framer,
    always_terminated: bool,
    /// What the last result lacks, should another follow.
    missing: Vec<u8>,
    /// Results that are complete, but not all of which the sink has.
    queued: VecDeque<Result>,
    /// Bytes that the sink has and that have not left.
    held: usize,
    /// Bytes handed in so far.
    pub bytes: u64,
}

/// What is queued.
#[derive(Debug)]
struct Result {
    data: Held,
    missing: Vec<u8>,
}

/// Follows a result while it comes in: what it lacks at its end.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    /// The record that has no end yet.
    rest: Vec<u8>,
    seen: usize,
}

/// A result ends within a record.
#[derive(Debug)]
pub(crate) struct Torn;

impl Tail {
    /// More of the result has come.
    pub fn push(&mut self, data: &[u8], framer: &Framer) {
        if framer.is_bytes() {
            return;
        }
        if self.rest.is_empty() {
            let whole = framer.whole(data, 0);
            self.rest.extend_from_slice(&data[whole.end..]);
        } else {
            self.rest.extend_from_slice(data);
            let whole = framer.whole(&self.rest, self.seen);
            self.rest.drain(..whole.end);
        }
        self.seen = self.rest.len();
    }

    /// What must be added before another result follows.
    ///
    /// # Errors
    /// It is no record, whatever is added.
    pub fn missing(&self, framer: &Framer) -> std::result::Result<Vec<u8>, Torn> {
        if self.rest.is_empty() {
            return Ok(Vec::new());
        }
        match framer.rest() {
            Rest::Torn => Err(Torn),
            Rest::Unterminated => Ok(framer.missing_terminator(&self.rest)),
        }
    }
}

impl Outlet {
    /// An output to nobody yet.
    ///
    /// # Errors
    /// A framing that makes no sense; a descriptor that is none.
    pub fn new(output: PoolOutput) -> io::Result<Outlet> {
        let framer = Framer::new(&output.records, u64::MAX)
            .map_err(|what| io::Error::new(io::ErrorKind::InvalidInput, what))?;
        // Whatever it is given it takes; `is_full` is what bounds it.
        let backlog = Backlog::new(usize::MAX, None);
        Ok(Outlet {
            sink: Sink::new(output.fd, backlog)?,
            framer,
            always_terminated: output.always_terminated,
            missing: Vec::new(),
            queued: VecDeque::new(),
            held: 0,
            bytes: 0,
        })
    }

    pub fn framer(&self) -> &Framer {
        &self.framer
    }

    /// Its reader has gone.
    pub fn is_closed(&self) -> bool {
        self.sink.is_closed()
    }

    /// Its reader has gone before its time. A queue that leads back to this pool goes when the cycle is over, in any order with
    /// the end of the input.
    pub fn is_broken(&self) -> bool {
        self.is_closed() && !self.always_terminated
    }

    /// No more is to be handed in before some has left.
    pub fn is_full(&self) -> bool {
        !self.is_closed() && (self.held >= HIGH || !self.queued.is_empty())
    }

    /// All has left.
    pub fn is_empty(&self) -> bool {
        self.is_closed() || (self.held == 0 && self.queued.is_empty())
    }

    /// The end to wait on, and for what.
    pub fn waits(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        let (fd, wants) = self.sink.waits(0, false)?;
        let events = if wants {
            PollFlags::POLLOUT
        } else {
            PollFlags::empty()
        };
        Some((fd, events))
    }

    /// What poll(2) said about it.
    ///
    /// # Errors
    /// It can't be written, or what is held can't be read back.
    pub fn polled(&mut self, events: PollFlags, shelf: &mut Shelf) -> io::Result<()> {
        self.sink.polled(events);
        let left = self.sink.flush().map_err(error)?;
        self.held -= left.min(self.held);
        self.pump(shelf)
    }

    /// Takes whole records; the last lacks `missing` at its end.
    ///
    /// # Errors
    /// As [`Outlet::polled`].
    pub fn put(&mut self, data: &[u8], missing: Vec<u8>, shelf: &mut Shelf) -> io::Result<()> {
        if data.is_empty() || self.is_closed() {
            return Ok(());
        }
        if self.queued.is_empty() {
            self.write(data)?;
            self.finish(missing)
        } else {
            let mut held = Held::default();
            held.push(data, shelf)?;
            self.queued.push_back(Result {
                data: held,
                missing,
            });
            Ok(())
        }
    }

    /// Takes a result that was held back.
    ///
    /// # Errors
    /// As [`Outlet::polled`].
    pub fn put_held(&mut self, data: Held, missing: Vec<u8>, shelf: &mut Shelf) -> io::Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        self.queued.push_back(Result { data, missing });
        self.pump(shelf)
    }

    /// Hands queued results to the sink, as far as there is room.
    fn pump(&mut self, shelf: &mut Shelf) -> io::Result<()> {
        if self.is_closed() {
            self.held = 0;
            for result in self.queued.drain(..) {
                result.data.drop(shelf)?;
            }
            return Ok(());
        }
        while self.held < HIGH
            && let Some(result) = self.queued.front_mut()
        {
            let piece = result.data.pop(shelf)?;
            let is_over = result.data.is_empty();
            if let Some(piece) = piece {
                self.write(&piece)?;
            }
            if is_over {
                let missing = self.queued.pop_front().map(|result| result.missing);
                self.finish(missing.unwrap_or_default())?;
            }
        }
        Ok(())
    }

    /// A result is complete.
    fn finish(&mut self, missing: Vec<u8>) -> io::Result<()> {
        self.missing = missing;
        if self.always_terminated && !self.missing.is_empty() {
            self.write(&[])?;
        }
        Ok(())
    }

    /// Hands bytes to the sink, behind what the result before lacks.
    fn write(&mut self, data: &[u8]) -> io::Result<()> {
        let missing = std::mem::take(&mut self.missing);
        self.sink.renew();
        let left = self.sink.take([&missing, data]).map_err(error)?;
        let length = missing.len() + data.len();
        self.bytes += length as u64;
        self.held += length - left.min(length);
        Ok(())
    }
}

fn error(error: SinkError) -> io::Error {
    match error {
        SinkError::Write(error) => error,
        SinkError::Spill(error) => error.error,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

    use std::io::Read;

    use nix::poll::PollFlags;

    use crate::pool::PoolOutput;
    use crate::pool::outlet::{Outlet, Tail};
    use crate::pool::shelf::{Held, Shelf};
    use crate::queue::framer::Framer;
    use crate::spec::Records;

    /// Results of both kinds, through a pipe that is full: in order, none glued to the next.
    #[test]
    fn results_stay_apart_and_in_order() {
        for always_terminated in [false, true] {
            let (mut read, write) = std::io::pipe().unwrap();
            let dir = tempfile::tempdir().unwrap();
            let mut shelf = Shelf::new(dir.path().to_owned(), 1000);
            let mut outlet = Outlet::new(PoolOutput {
                fd: write.into(),
                records: Records::Lines,
                always_terminated,
            })
            .unwrap();
            let mut expected = Vec::new();
            for number in 0..60u8 {
                let record = vec![b'0' + number; 5000];
                let missing = b"\n".to_vec();
                if number % 3 == 0 {
                    let mut held = Held::default();
                    held.push(&record, &mut shelf).unwrap();
                    outlet.put_held(held, missing, &mut shelf).unwrap();
                } else {
                    outlet.put(&record, missing, &mut shelf).unwrap();
                }
                expected.extend(record);
                if always_terminated || number != 59 {
                    expected.push(b'\n');
                }
            }
            assert!(outlet.is_full() && !outlet.is_empty());
            let mut found = vec![0; expected.len()];
            let mut at = 0;
            while at < found.len() {
                at += read.read(&mut found[at..]).unwrap();
                outlet.polled(PollFlags::POLLOUT, &mut shelf).unwrap();
            }
            assert!(found == expected);
            assert!(outlet.is_empty() && !outlet.is_full());
            assert_eq!(outlet.bytes, expected.len() as u64);
            drop(read);
            outlet.polled(PollFlags::POLLERR, &mut shelf).unwrap();
            assert!(outlet.is_closed());
        }
    }

    #[test]
    fn what_a_result_lacks() {
        let of = |records: &Records, pieces: &[&[u8]]| {
            let framer = Framer::new(records, u64::MAX).unwrap();
            let mut tail = Tail::default();
            for piece in pieces {
                tail.push(piece, &framer);
            }
            tail.missing(&framer).ok()
        };
        assert_eq!(of(&Records::Lines, &[b"a\nb", b"c"]), Some(b"\n".to_vec()));
        assert_eq!(of(&Records::Lines, &[b"a", b"\n"]), Some(Vec::new()));
        assert_eq!(
            of(&Records::Separator("--".into()), &[b"a-", b"-b-"]),
            Some(b"-".to_vec())
        );
        assert_eq!(of(&Records::Size(2), &[b"a", b"bc"]), None);
    }
}
