//! [`Fed`]: what a `request` or `task` pool has done, by the events that tell of its records and workers.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::event::{Exit, PoolCounts, Usage};
use crate::plan::Settings;
use crate::report::meter::{Meter, Moved};

/// What a `request` or `task` pool has done.
#[derive(Debug, Clone, Default)]
pub struct Fed {
    /// See [`PoolCounts`].
    pub counts: PoolCounts,
    /// Records that are done, and bytes that came.
    pub meter: Meter,
    /// By number; only those of a `request` pool are told of.
    pub workers: BTreeMap<u32, Worker>,
    /// How the worker ended that failed last.
    pub failed_last: Option<Exit>,
}

/// A worker of a `request` pool: the processes that have had its number, in one.
#[derive(Debug, Clone, Default)]
pub struct Worker {
    /// How many there were.
    pub processes: u32,
    /// The last one's.
    pub pid: i32,
    /// When the first was started.
    pub started: Duration,
    /// When the last one ended, and how; none while it runs.
    pub ended: Option<(Duration, Exit)>,
    /// Times are summed, the peak is the largest.
    pub usage: Usage,
}

impl Fed {
    pub(super) fn since(start: Duration) -> Self {
        Fed {
            meter: Meter::since(start),
            ..Fed::default()
        }
    }

    /// Records that need no more work: answered, or given up.
    pub fn done(&self) -> u64 {
        self.counts.answered + self.counts.dead
    }

    pub(super) fn progress(&mut self, at: Duration, counts: PoolCounts) {
        self.counts = counts;
        let moved = Moved {
            records: self.done(),
            bytes: counts.taken_bytes,
        };
        self.meter.add(at, moved);
    }

    pub(super) fn worker_started(&mut self, at: Duration, worker: u32, pid: i32) {
        let worker = self.workers.entry(worker).or_insert_with(|| Worker {
            started: at,
            ..Worker::default()
        });
        worker.processes += 1;
        worker.pid = pid;
        worker.ended = None;
    }

    pub(super) fn worker_ended(&mut self, at: Duration, worker: u32, exit: Exit, usage: &Usage) {
        let worker = self.workers.entry(worker).or_default();
        worker.ended = Some((at, exit));
        worker.usage = together(&worker.usage, usage);
    }
}

/// What two processes have used: times summed, the larger peak.
pub(super) fn together(one: &Usage, other: &Usage) -> Usage {
    Usage {
        wall: one.wall + other.wall,
        user: one.user + other.user,
        system: one.system + other.system,
        max_rss: one.max_rss.max(other.max_rss),
    }
}

/// A worker of a fed pool has ended by its own fault. One that was stopped with its `stop_signal` has not.
pub(super) fn ended_ill(settings: &Settings, exit: Exit) -> bool {
    match exit {
        Exit::Code(code) => !settings.success_codes.contains(&code),
        Exit::Signal { number, .. } => number != settings.stop_signal,
    }
}
