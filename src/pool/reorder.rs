//! Puts what is done back into the order of the records. Pure.

use std::collections::BTreeMap;

/// Holds what is done until all before it is.
#[derive(Debug)]
pub(crate) struct Reorder<T> {
    /// The place of the next record to leave.
    next: u64,
    /// By the place of its first record, with how many.
    held: BTreeMap<u64, (u64, T)>,
}

impl<T> Reorder<T> {
    /// Begins with record 0.
    pub fn new() -> Reorder<T> {
        Reorder {
            next: 0,
            held: BTreeMap::new(),
        }
    }

    /// Whether what begins at this place can leave at once; it has then left, with `count` records.
    pub fn pass(&mut self, first: u64, count: u64) -> bool {
        let is_next = first == self.next;
        if is_next {
            self.next += count;
        }
        is_next
    }

    /// Keeps the result of these records.
    pub fn hold(&mut self, first: u64, count: u64, result: T) {
        if first < self.next || self.held.insert(first, (count, result)).is_some() {
            panic!("BUG: record {first} is done twice");
        }
    }

    /// What was held of the same records' direct predecessors, to add to. The records are counted as held, too.
    pub fn extend(&mut self, first: u64, count: u64) -> Option<&mut T> {
        let (begin, (held, result)) = self.held.range_mut(..first).next_back()?;
        if begin + *held != first {
            return None;
        }
        *held += count;
        Some(result)
    }

    /// What can leave next.
    pub fn pop(&mut self) -> Option<T> {
        let entry = self.held.first_entry()?;
        if *entry.key() != self.next {
            return None;
        }
        let (count, result) = entry.remove();
        self.next += count;
        Some(result)
    }
}
