//! The bytes of the records that are not done: kept until each is answered or dead, found by their place.
//!
//! Records lie whole, one behind the other, in chunks. A chunk goes when all its records are done; so one slow record keeps one
//! chunk, not everything that came after it.

use std::cell::Cell;
use std::collections::VecDeque;

use crate::queue::BLOCK;
use crate::queue::framer::Framer;

/// So many chunks are kept for reuse: new memory of this size costs page faults each time.
const SPARE: usize = 16;

#[derive(Debug)]
struct Chunk {
    /// The place of its first record.
    first: u64,
    count: u64,
    /// How many bytes came before it, of all.
    at: u64,
    /// Records that are not done.
    left: u64,
    data: Vec<u8>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Store {
    framer: Framer,
    chunks: VecDeque<Chunk>,
    spare: Vec<Vec<u8>>,
    held: usize,
    /// Bytes so far, of all.
    end: u64,
    /// Where a record that was looked for last begins in its chunk: most look-ups go on from there.
    mark: Cell<(u64, usize)>,
    /// The place of the last record of all, where that came without its terminator, and how many bytes were added for it.
    added: Option<(u64, usize)>,
}

impl Store {
    pub fn new(framer: Framer) -> Store {
        Store {
            framer,
            chunks: VecDeque::new(),
            spare: Vec::new(),
            held: 0,
            end: 0,
            mark: Cell::new((0, 0)),
            added: None,
        }
    }

    /// Takes whole records, the first of which has this place.
    pub fn push(&mut self, first: u64, count: u64, data: &[u8]) {
        self.held += data.len();
        let at = self.end;
        self.end += data.len() as u64;
        if let Some(last) = self.chunks.back_mut()
            && last.left > 0
            && last.data.len() + data.len() <= BLOCK
        {
            last.count += count;
            last.left += count;
            last.data.extend_from_slice(data);
            return;
        }
        let mut chunk = self
            .spare
            .pop()
            .unwrap_or_else(|| Vec::with_capacity(BLOCK.max(data.len())));
        chunk.extend_from_slice(data);
        self.chunks.push_back(Chunk {
            first,
            count,
            at,
            left: count,
            data: chunk,
        });
    }

    /// Takes the last record of all, which lacks these bytes at its end. They are added, for in a worker's hands another record
    /// may follow, and taken off where it goes on as it came.
    pub fn push_last(&mut self, place: u64, data: &[u8], missing: &[u8]) {
        self.push(place, 1, &[data, missing].concat());
        self.added = Some((place, missing.len()));
    }

    /// Bytes held.
    pub fn held(&self) -> usize {
        self.held
    }

    fn chunk(&self, place: u64) -> usize {
        match self.chunks.partition_point(|chunk| chunk.first <= place) {
            0 => panic!("BUG: record {place} is not held"),
            behind => behind - 1,
        }
    }

    /// The record's begin in its chunk; of the record behind the chunk's last, the chunk's end.
    fn offset(&self, chunk: &Chunk, place: u64) -> usize {
        if place == chunk.first + chunk.count {
            return chunk.data.len();
        }
        let (marked, at) = self.mark.get();
        let (from, at) = if (chunk.first..=place).contains(&marked) {
            (marked, at)
        } else {
            (chunk.first, 0)
        };
        let offset = at + self.framer.end_of(&chunk.data[at..], place - from);
        self.mark.set((place, offset));
        offset
    }

    /// Where a record begins, or, of the place behind the last one, where that would: in bytes, of all that came.
    pub fn locate(&self, place: u64) -> u64 {
        let chunk = &self.chunks[self.chunk(place)];
        chunk.at + self.offset(chunk, place) as u64
    }

    /// Where so many records from this place on lie: where they begin, and how many bytes they have.
    pub fn extent(&self, first: u64, count: u64) -> (u64, usize) {
        let begin = self.locate(first);
        // Of the last record's chunk: the one behind it may not be there.
        let last = &self.chunks[self.chunk(first + count - 1)];
        let end = last.at + self.offset(last, first + count) as u64;
        (begin, (end - begin) as usize)
    }

    /// So many bytes from there on, piece by piece.
    pub fn pieces(&self, begin: u64, bytes: usize) -> impl Iterator<Item = &[u8]> {
        let end = begin + bytes as u64;
        let first = self.chunks.partition_point(|chunk| chunk.at <= begin);
        let chunks = self.chunks.iter().skip(first.saturating_sub(1));
        chunks
            .take_while(move |chunk| chunk.at < end)
            .map(move |chunk| {
                let from = begin.max(chunk.at) - chunk.at;
                let to = end.min(chunk.at + chunk.data.len() as u64) - chunk.at;
                &chunk.data[from as usize..to as usize]
            })
    }

    /// About so many records from this place on have `bytes` bytes; at least 1.
    pub fn fitting(&self, first: u64, bytes: usize) -> u64 {
        let chunk = &self.chunks[self.chunk(first)];
        let mean = (chunk.data.len() as u64 / chunk.count.max(1)).max(1);
        (bytes as u64 / mean).max(1)
    }

    /// How many whole records lie in so many bytes from there on, where a record begins, and how many bytes these have.
    pub fn within(&self, begin: u64, bytes: usize) -> (u64, usize) {
        let (mut records, mut before) = (0, 0);
        for piece in self.pieces(begin, bytes) {
            let whole = self.framer.whole(piece, 0);
            records += whole.records;
            before += whole.end;
            if whole.end < piece.len() && before + piece.len() - whole.end < bytes {
                // A record whose end only the next one shows, at the end of a chunk.
                records += 1;
                before += piece.len() - whole.end;
            }
        }
        (records, before)
    }

    /// The bytes that were added to the last record, if it is that.
    pub fn added(&self, place: u64) -> usize {
        self.added
            .filter(|(last, _)| *last == place)
            .map_or(0, |(_, added)| added)
    }

    /// One record as it came.
    pub fn record(&self, place: u64) -> Vec<u8> {
        let (begin, bytes) = self.extent(place, 1);
        let mut record = self.pieces(begin, bytes).collect::<Vec<_>>().concat();
        record.truncate(record.len() - self.added(place));
        record
    }

    /// These are done.
    pub fn done(&mut self, first: u64, count: u64) {
        let end = first + count;
        let mut at = self.chunk(first);
        while let Some(chunk) = self.chunks.get_mut(at)
            && chunk.first < end
        {
            let from = first.max(chunk.first);
            chunk.left -= end.min(chunk.first + chunk.count) - from;
            if chunk.left == 0 {
                self.held -= chunk.data.len();
                let mut data = std::mem::take(&mut chunk.data);
                if self.spare.len() < SPARE && data.capacity() == BLOCK {
                    data.clear();
                    self.spare.push(data);
                }
            }
            at += 1;
        }
        while self.chunks.front().is_some_and(|chunk| chunk.left == 0) {
            self.chunks.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

    use proptest::collection::vec;
    use proptest::prelude::*;

    use crate::pool::store::Store;
    use crate::queue::BLOCK;
    use crate::queue::framer::Framer;
    use crate::spec::Records;

    fn records() -> impl Strategy<Value = Vec<Vec<u8>>> {
        // A few long ones, so that chunks are filled and one is larger than a chunk.
        let record = prop_oneof![20 => 1..9usize, 1 => Just(BLOCK / 3), 1 => Just(BLOCK + 7)];
        vec(record, 1..60).prop_map(|lengths| {
            lengths
                .into_iter()
                .enumerate()
                .map(|(at, length)| [vec![b'a' + (at % 26) as u8; length], b"\n".to_vec()].concat())
                .collect()
        })
    }

    proptest! {
        /// Each run of records is found, whatever has gone, and all has gone when all are done.
        #[test]
        fn records_are_found_by_place(
            records in records(),
            pushes in vec(1..9usize, 1..60),
            looks in vec((any::<prop::sample::Index>(), 1..20u64), 1..40),
        ) {
            let mut store = Store::new(Framer::new(&Records::Lines, u64::MAX).unwrap());
            let (mut first, mut pushes) = (0, pushes.into_iter().cycle());
            while first < records.len() {
                let count = pushes.next().unwrap().min(records.len() - first);
                store.push(first as u64, count as u64, &records[first..first + count].concat());
                first += count;
            }
            let mut is_done = vec![false; records.len()];
            for (at, count) in looks {
                let at = at.index(records.len());
                let there = is_done[at..].iter().take_while(|done| !**done).count();
                let count = (count as usize).min(there);
                if count == 0 {
                    continue;
                }
                let expected = records[at..at + count].concat();
                let (begin, bytes) = store.extent(at as u64, count as u64);
                prop_assert_eq!(bytes, expected.len());
                let found: Vec<u8> = store.pieces(begin, bytes).flatten().copied().collect();
                prop_assert_eq!(&found, &expected);
                prop_assert_eq!(store.record(at as u64), &records[at][..]);
                // One byte less than all: the last is not whole.
                let whole = expected.len() - records[at + count - 1].len();
                prop_assert_eq!(store.within(begin, bytes - 1), (count as u64 - 1, whole));
                prop_assert_eq!(store.within(begin, bytes), (count as u64, bytes));
                store.done(at as u64, count as u64);
                is_done[at..at + count].fill(true);
            }
            for (at, done) in is_done.iter().enumerate() {
                if !done {
                    store.done(at as u64, 1);
                }
            }
            prop_assert_eq!((store.held(), store.chunks.len()), (0, 0));
        }
    }

    #[test]
    fn a_last_record_goes_on_as_it_came() {
        let mut store = Store::new(Framer::new(&Records::Lines, u64::MAX).unwrap());
        store.push(0, 1, b"a\n");
        store.push_last(1, b"b", b"\n");
        let (begin, bytes) = store.extent(0, 2);
        assert_eq!(
            store.pieces(begin, bytes).collect::<Vec<_>>().concat(),
            b"a\nb\n"
        );
        assert_eq!(
            (store.record(0), store.record(1)),
            (b"a\n".to_vec(), b"b".to_vec())
        );
        assert_eq!((store.added(0), store.added(1)), (0, 1));
    }
}
