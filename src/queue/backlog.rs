//! What an output has taken and its reader has not: first in, first out, in memory up to a bound, then in a file.
//!
//! The file has no name, lies in a directory of the run, and takes what does not fit: appended at its end, read back
//! from its front with positional reads. Space that has been read back is given back: piece by piece as holes, and all of
//! it when the file has become empty.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use nix::fcntl::{FallocateFlags, fallocate};

use crate::queue::BLOCK;

/// The front of a spill file is given back in pieces of this many bytes: few calls, and a file that never becomes empty
/// (a reader that keeps up, but never catches up) does not grow without end.
const HOLE: u64 = 16 * 1024 * 1024;

/// Bytes on their way to one output.
#[derive(Debug)]
pub(crate) struct Backlog {
    memory: VecDeque<u8>,
    /// The most bytes that `memory` holds.
    capacity: usize,
    spill: Option<Spill>,
    /// Where it counts records: those in `memory`.
    lengths: Option<Lengths>,
}

/// The records of a backlog, in order.
#[derive(Debug, Default)]
struct Lengths {
    /// Bytes of each.
    bytes: VecDeque<usize>,
    /// So many bytes of the first have gone.
    begun: usize,
    /// So many of the first must not be dropped.
    kept: usize,
}

/// What made room for something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Dropped {
    pub bytes: usize,
    pub records: u64,
    /// The last record is among them.
    pub is_last: bool,
}

/// A failed call on a spill file.
#[derive(Debug)]
pub(crate) struct SpillError {
    /// Where the file lies.
    pub dir: PathBuf,
    /// What was tried, as in "can't …".
    pub call: &'static str,
    /// Why not.
    pub error: io::Error,
}

#[derive(Debug)]
struct Spill {
    dir: PathBuf,
    /// Made when first needed: most queues that may spill never do.
    file: Option<File>,
    /// What has been read back.
    front: u64,
    /// What has been given back to the file system, at most `front`.
    hole: u64,
    /// The file's length.
    end: u64,
}

impl Backlog {
    /// Holds up to `capacity` bytes in memory; what is more goes to a file in `spill`, where that is given.
    pub fn new(capacity: usize, spill: Option<PathBuf>) -> Backlog {
        Backlog {
            memory: VecDeque::new(),
            capacity,
            lengths: None,
            spill: spill.map(|dir| Spill {
                dir,
                file: None,
                front: 0,
                hole: 0,
                end: 0,
            }),
        }
    }

    /// Holds records in memory and counts them. It is up to its owner that these are no more than `capacity` bytes, or one record.
    pub fn counted(capacity: usize) -> Backlog {
        Backlog {
            lengths: Some(Lengths::default()),
            ..Backlog::new(capacity, None)
        }
    }

    /// Records held, those in part included, where it counts them.
    pub fn records(&self) -> u64 {
        self.lengths
            .as_ref()
            .map_or(0, |lengths| lengths.bytes.len() as u64)
    }

    /// Memory has room for so many bytes, or holds nothing.
    pub fn has_room(&self, bytes: usize) -> bool {
        self.memory.is_empty() || self.memory.len() + bytes <= self.capacity
    }

    /// Takes one record, whole; where it doesn't count, any bytes. `is_kept`: it must not be dropped.
    pub fn push_record(&mut self, record: &[u8], is_kept: bool) -> Result<(), SpillError> {
        if let Some(lengths) = &mut self.lengths {
            lengths.bytes.push_back(record.len());
            if is_kept {
                lengths.kept = lengths.bytes.len();
            }
        }
        self.push_all(record)
    }

    /// Takes more bytes of the last record.
    pub fn extend_last(&mut self, more: &[u8]) -> Result<(), SpillError> {
        if let Some(last) = self
            .lengths
            .as_mut()
            .and_then(|lengths| lengths.bytes.back_mut())
        {
            *last += more.len();
        }
        self.push_all(more)
    }

    /// Drops records, the oldest first, until one of so many bytes has room and there are fewer than `most`: but none of which
    /// something has gone already, nor one that must not be dropped.
    pub fn drop_oldest(&mut self, bytes: usize, most: u64) -> Dropped {
        let mut dropped = Dropped::default();
        let Some(lengths) = &mut self.lengths else {
            return dropped;
        };
        let begun = usize::from(lengths.begun > 0);
        let first = lengths.kept.max(begun).min(lengths.bytes.len());
        for length in lengths.bytes.iter().skip(first) {
            let has_room = self.memory.len() - dropped.bytes + bytes <= self.capacity;
            let records = lengths.bytes.len() as u64 - dropped.records;
            if has_room && records < most {
                break;
            }
            dropped.bytes += length;
            dropped.records += 1;
        }
        let count = dropped.records as usize;
        dropped.is_last = count > 0 && first + count == lengths.bytes.len();
        let before = lengths.bytes.range(..first).sum::<usize>() - lengths.begun;
        lengths.bytes.drain(first..first + count);
        self.memory.drain(before..before + dropped.bytes);
        dropped
    }

    /// All that is in memory, in one piece.
    pub fn contiguous(&mut self) -> &[u8] {
        self.memory.make_contiguous()
    }

    /// It takes whatever it is given.
    pub fn is_boundless(&self) -> bool {
        self.spill.is_some()
    }

    pub fn is_empty(&self) -> bool {
        // The file is never ahead of memory: see `consume`.
        self.memory.is_empty()
    }

    /// The bytes to go next; not all of them.
    pub fn front(&self) -> (&[u8], &[u8]) {
        self.memory.as_slices()
    }

    /// Takes as much of `data` as has room; returns how much that is.
    pub fn push(&mut self, data: &[u8]) -> Result<usize, SpillError> {
        let in_order = self.spill.as_ref().is_none_or(Spill::is_empty);
        let room = if in_order {
            self.capacity.saturating_sub(self.memory.len())
        } else {
            0
        };
        let (held, more) = data.split_at(room.min(data.len()));
        self.memory.extend(held);
        match &mut self.spill {
            Some(spill) if !more.is_empty() => {
                spill.append(more)?;
                // With a capacity of 0 nothing would ever come forward.
                if self.memory.is_empty() {
                    self.advance()?;
                }
                Ok(data.len())
            }
            _ => Ok(held.len()),
        }
    }

    /// Memory has no room for more.
    pub fn is_full(&self) -> bool {
        self.memory.len() >= self.capacity
    }

    /// Takes all of `data`: where nothing goes to a file, beyond the bound of memory.
    pub fn push_all(&mut self, data: &[u8]) -> Result<(), SpillError> {
        if self.spill.is_some() {
            self.push(data).map(drop)
        } else {
            self.memory.extend(data);
            Ok(())
        }
    }

    /// Bytes held, in memory and in the file.
    pub fn len(&self) -> u64 {
        let spilled = self
            .spill
            .as_ref()
            .map_or(0, |spill| spill.end - spill.front);
        self.memory.len() as u64 + spilled
    }

    /// The first `count` bytes have gone. Returns how many records that ended, where it counts them.
    pub fn consume(&mut self, count: usize) -> Result<u64, SpillError> {
        self.memory.drain(..count);
        let ended = self
            .lengths
            .as_mut()
            .map_or(0, |lengths| lengths.gone(count));
        self.advance()?;
        Ok(ended)
    }

    /// Lets what is in the file come forward when nothing is before it.
    fn advance(&mut self) -> Result<(), SpillError> {
        match &mut self.spill {
            Some(spill) if self.memory.is_empty() && !spill.is_empty() => {
                spill.take(&mut self.memory)
            }
            _ => Ok(()),
        }
    }
}

impl Lengths {
    fn gone(&mut self, count: usize) -> u64 {
        self.begun += count;
        let mut ended = 0;
        while let Some(first) = self.bytes.front()
            && *first <= self.begun
        {
            self.begun -= first;
            self.bytes.pop_front();
            self.kept = self.kept.saturating_sub(1);
            ended += 1;
        }
        ended
    }
}

impl Spill {
    fn is_empty(&self) -> bool {
        self.front == self.end
    }

    fn append(&mut self, data: &[u8]) -> Result<(), SpillError> {
        let file = match &mut self.file {
            Some(file) => file,
            none => match tempfile::tempfile_in(&self.dir) {
                Ok(file) => none.insert(file),
                Err(error) => return Err(self.error("make a spill file", error)),
            },
        };
        match file.write_all_at(data, self.end) {
            Ok(()) => {
                self.end += data.len() as u64;
                Ok(())
            }
            Err(error) => Err(self.error("write to a spill file", error)),
        }
    }

    /// Moves up to a block from the file's front to `memory`, which is empty.
    fn take(&mut self, memory: &mut VecDeque<u8>) -> Result<(), SpillError> {
        let Some(file) = &self.file else {
            panic!("BUG: {} bytes spilled, but no file", self.end - self.front)
        };
        let count = usize::try_from(self.end - self.front).map_or(BLOCK, |held| held.min(BLOCK));
        let mut block = vec![0; count];
        if let Err(error) = file.read_exact_at(&mut block, self.front) {
            return Err(self.error("read from a spill file", error));
        }
        *memory = block.into();
        self.front += count as u64;
        if self.is_empty() {
            (self.front, self.hole, self.end) = (0, 0, 0);
            return file
                .set_len(0)
                .map_err(|error| self.error("empty a spill file", error));
        }
        if self.front - self.hole >= HOLE {
            // A file system without holes keeps the space until the file is empty: nothing to report.
            let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
            let _ = fallocate(
                file,
                flags,
                self.hole.cast_signed(),
                (self.front - self.hole).cast_signed(),
            );
            self.hole = self.front;
        }
        Ok(())
    }

    fn error(&self, call: &'static str, error: io::Error) -> SpillError {
        SpillError {
            dir: self.dir.clone(),
            call,
            error,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

    use std::collections::VecDeque;
    use std::os::unix::fs::MetadataExt;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use crate::queue::backlog::{Backlog, HOLE};

    proptest! {
        /// First in, first out, wherever it is held; memory up to its bound; the file empty when all has gone.
        #[test]
        fn a_backlog_is_a_queue(
            capacity in 0..100usize,
            spills: bool,
            steps in vec((0..300usize, 0..300usize), 0..40),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let mut backlog = Backlog::new(capacity, spills.then(|| dir.path().to_owned()));
            let mut model: VecDeque<u8> = VecDeque::new();
            let mut next = 0..;
            for (pushes, consumes) in steps {
                let data: Vec<u8> = next.by_ref().take(pushes).map(|number: u32| number as u8).collect();
                let taken = backlog.push(&data).unwrap();
                prop_assert_eq!(taken, if spills { pushes } else { pushes.min(capacity - model.len()) });
                model.extend(&data[..taken]);
                let (first, second) = backlog.front();
                let held = first.len() + second.len();
                prop_assert!([first, second].concat().iter().eq(model.iter().take(held)));
                let consumes = consumes.min(held);
                model.drain(..consumes);
                backlog.consume(consumes).unwrap();
                prop_assert_eq!(backlog.is_empty(), model.is_empty());
                if model.is_empty() && let Some(file) = backlog.spill.as_ref().and_then(|spill| spill.file.as_ref()) {
                    prop_assert_eq!(file.metadata().unwrap().len(), 0);
                }
            }
        }
    }

    /// A reader that follows at a distance: the file's front is given back.
    #[test]
    fn what_has_been_read_back_takes_no_disk() {
        let dir = tempfile::tempdir().unwrap();
        let mut backlog = Backlog::new(1, Some(dir.path().to_owned()));
        let block = vec![7; 1 << 20];
        for _ in 0..4 {
            backlog.push(&block).unwrap();
        }
        for _ in 0..(2 * HOLE) >> 20 {
            backlog.push(&block).unwrap();
            let mut left = block.len();
            while left > 0 {
                let count = backlog.front().0.len().min(left);
                backlog.consume(count).unwrap();
                left -= count;
            }
        }
        let file = backlog
            .spill
            .as_ref()
            .and_then(|spill| spill.file.as_ref())
            .unwrap();
        let disk = file.metadata().unwrap().blocks() * 512;
        assert!(
            disk < HOLE + (8 << 20),
            "{disk} bytes on disk for 4 MiB held"
        );
    }
}
