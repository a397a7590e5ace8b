//! What a relay has moved so far, for whoever asks from another thread.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// A moment's counts of a relay.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counts {
    /// What each input has brought, in the order of [`crate::queue::RelaySpec::inputs`].
    pub inputs: Vec<Count>,
    /// What each output has been given, in the order of [`crate::queue::RelaySpec::outputs`]. Less than what came in where
    /// its reader has gone.
    pub outputs: Vec<Count>,
    /// What was dropped since the queue was full ([`crate::plan::Overflow`]).
    pub dropped: Count,
    /// What could be given to nobody since its reader had gone. The records of bytes that were held for it are not counted.
    pub lost: Count,
    /// Records of inputs and outputs are estimated: some of them went by unseen.
    pub is_estimate: bool,
    /// Bytes held now, beyond what is in pipes.
    pub held: u64,
    /// How long there was nothing to hand on.
    pub empty: Duration,
    /// How long records were held back by an output that took no more.
    pub full: Duration,
}

/// Of one end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    /// Bytes.
    pub bytes: u64,
    /// Records; `None` where there are none to count (`records = "bytes"`), or where no single byte ends them and nobody needs to
    /// know where they end.
    pub records: Option<u64>,
    /// Of an input: bytes that have been handed on, or dropped.
    pub passed: u64,
    /// Of an input: it has ended, and all that it brought has been handed on.
    pub done: bool,
}

/// The counters themselves: written by the relay's thread alone, read by any. Relaxed, since nothing is concluded from
/// one about another.
#[derive(Debug)]
pub(crate) struct Counters {
    pub inputs: Vec<Counter>,
    pub outputs: Vec<Counter>,
    pub dropped: Counter,
    pub lost: Counter,
    /// The first reader that a whole record was lost for, and 1 more; 0 where there is none.
    first_lost: AtomicUsize,
    pub held: AtomicU64,
    pub empty: AtomicU64,
    pub full: AtomicU64,
    has_records: bool,
    is_estimate: AtomicBool,
}

#[derive(Debug, Default)]
pub(crate) struct Counter {
    bytes: AtomicU64,
    records: AtomicU64,
    passed: AtomicU64,
    done: AtomicBool,
}

impl Counter {
    pub fn add(&self, bytes: usize, records: u64) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.records.fetch_add(records, Ordering::Relaxed);
    }

    /// Of an input: so many bytes of it have been handed on in all.
    pub fn has_passed(&self, bytes: u64) {
        self.passed.store(bytes, Ordering::Release);
    }

    /// Of an input: nothing more comes of it.
    pub fn finish(&self) {
        self.done.store(true, Ordering::Release);
    }

    /// So many records more, or fewer.
    pub fn add_signed(&self, records: i64) {
        // Two's complement: what wraps around comes out right.
        self.records
            .fetch_add(records.cast_unsigned(), Ordering::Relaxed);
    }
}

impl Counters {
    pub fn new(inputs: usize, outputs: usize, has_records: bool) -> Counters {
        let some = |count| {
            std::iter::repeat_with(Counter::default)
                .take(count)
                .collect()
        };
        Counters {
            inputs: some(inputs),
            outputs: some(outputs),
            dropped: Counter::default(),
            lost: Counter::default(),
            first_lost: AtomicUsize::new(0),
            held: AtomicU64::new(0),
            empty: AtomicU64::new(0),
            full: AtomicU64::new(0),
            has_records,
            is_estimate: AtomicBool::new(false),
        }
    }

    /// A record of this reader can go to nobody.
    pub fn lose(&self, output: usize, bytes: usize) {
        self.lost.add(bytes, 1);
        let _ =
            self.first_lost
                .compare_exchange(0, output + 1, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// The reader that a whole record was lost for first.
    pub fn first_lost(&self) -> Option<usize> {
        self.first_lost.load(Ordering::Relaxed).checked_sub(1)
    }

    /// Some records go by unseen, and what is counted from now on is a guess.
    pub fn estimate(&self) {
        self.is_estimate.store(true, Ordering::Relaxed);
    }

    pub fn snapshot(&self) -> Counts {
        let count = |counter: &Counter| Count {
            bytes: counter.bytes.load(Ordering::Relaxed),
            records: self
                .has_records
                .then(|| counter.records.load(Ordering::Relaxed)),
            passed: counter.passed.load(Ordering::Acquire),
            done: counter.done.load(Ordering::Acquire),
        };
        Counts {
            inputs: self.inputs.iter().map(count).collect(),
            outputs: self.outputs.iter().map(count).collect(),
            dropped: count(&self.dropped),
            lost: count(&self.lost),
            is_estimate: self.is_estimate.load(Ordering::Relaxed),
            held: self.held.load(Ordering::Relaxed),
            empty: Duration::from_nanos(self.empty.load(Ordering::Relaxed)),
            full: Duration::from_nanos(self.full.load(Ordering::Relaxed)),
        }
    }
}
