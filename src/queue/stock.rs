//! What a shared queue holds that no reader has been chosen for yet: first in, first out, whole records.
//!
//! In memory, where records can be counted and dropped, or in memory and then a file. A shared queue that blocks its writers
//! and counts nothing has none: what it holds lies in pipes.

use crate::queue::BLOCK;
use crate::queue::backlog::{Backlog, Dropped, SpillError};
use crate::queue::framer::Framer;

/// Records that wait for a reader.
#[derive(Debug)]
pub(crate) struct Stock {
    backlog: Backlog,
    /// Where it spills: what has come back from the backlog, which returns blocks cut anywhere.
    front: Vec<u8>,
    /// What the last record lacks, should another follow.
    lacks: Vec<u8>,
}

impl Stock {
    /// Nothing yet.
    pub fn new(backlog: Backlog) -> Stock {
        Stock {
            backlog,
            front: Vec::new(),
            lacks: Vec::new(),
        }
    }

    /// It holds nothing.
    pub fn is_empty(&self) -> bool {
        self.front.is_empty() && self.backlog.is_empty()
    }

    /// Bytes held.
    pub fn len(&self) -> u64 {
        self.front.len() as u64 + self.backlog.len()
    }

    /// Records held, where it counts them.
    pub fn records(&self) -> u64 {
        self.backlog.records()
    }

    /// It takes whatever it is given.
    pub fn is_boundless(&self) -> bool {
        self.backlog.is_boundless()
    }

    /// Memory has room for `record`, or for any if it holds none.
    pub fn has_room(&self, record: usize) -> bool {
        self.backlog.has_room(record)
    }

    /// Takes one record, or, where it doesn't count them, several.
    pub fn push(&mut self, records: &[u8]) -> Result<(), SpillError> {
        let lacks = std::mem::take(&mut self.lacks);
        // Where nothing is held it was dropped with the record that lacked it.
        if !lacks.is_empty() && !self.is_empty() {
            self.backlog.extend_last(&lacks)?;
        }
        self.backlog.push_record(records, false)
    }

    /// The last record lacks this, should another follow.
    pub fn lacks(&mut self, terminator: &[u8]) {
        self.lacks = terminator.to_vec();
    }

    /// Drops what has waited longest until one of so many bytes has room, and one more of at most `most`.
    pub fn drop_oldest(&mut self, bytes: usize, most: u64) -> Dropped {
        self.backlog.drop_oldest(bytes, most)
    }

    /// Whole records from the front: at least `least` of them, if it holds so many.
    pub fn front(&mut self, framer: &Framer, least: usize) -> Result<&[u8], SpillError> {
        if !self.backlog.is_boundless() {
            return Ok(self.backlog.contiguous());
        }
        loop {
            let whole = framer.whole(&self.front, 0);
            let is_enough = whole.records as usize >= least || framer.is_bytes() && whole.end > 0;
            if self.backlog.is_empty() {
                // The last may be unterminated: all that it holds is whole records.
                return Ok(&self.front);
            }
            if is_enough {
                return Ok(&self.front[..whole.end]);
            }
            let count = {
                let (block, _) = self.backlog.front();
                let count = block.len().min(BLOCK);
                self.front.extend_from_slice(&block[..count]);
                count
            };
            self.backlog.consume(count)?;
        }
    }

    /// So many bytes from the front have been taken. Returns what the last of these lacks, should another follow it.
    pub fn taken(&mut self, count: usize) -> Result<Vec<u8>, SpillError> {
        if self.backlog.is_boundless() {
            self.front.drain(..count);
        } else {
            self.backlog.consume(count)?;
        }
        Ok(if self.is_empty() {
            std::mem::take(&mut self.lacks)
        } else {
            Vec::new()
        })
    }
}
