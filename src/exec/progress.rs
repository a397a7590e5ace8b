//! How far queues and pools have come, told now and then while they live.

use std::collections::HashMap;
use std::time::Duration;

use crate::event::{PoolCounts, What};
use crate::exec::deadlines::Due;
use crate::exec::runner::Runner;
use crate::plan::{QueueId, UnitId};

/// How often, while somebody watches.
const OFTEN: Duration = Duration::from_secs(1);

/// Nobody watches: so many times in a run's life so far, so that a run of days does not fill its journal with it.
const SELDOM: u32 = 60;

/// What was told last, so that what stands still is not told again.
#[derive(Debug, Default)]
pub(super) struct Progress {
    queues: HashMap<QueueId, u64>,
    pools: HashMap<UnitId, PoolCounts>,
    /// The next time is arranged.
    armed: bool,
}

impl Runner<'_> {
    /// There is something that may be told of from now on.
    pub(super) fn begin_progress(&mut self) {
        if !self.progress.armed && (!self.relays.is_empty() || self.pools.is_any()) {
            self.progress.armed = true;
            let now = self.clock.now();
            let pause = match self.watch.tick_every() {
                Some(_) => OFTEN,
                None => OFTEN.max(now / SELDOM),
            };
            self.deadlines.arm(Due::Progress, now + pause);
        }
    }

    /// Tells of what has moved.
    pub(super) fn tell_progress(&mut self) {
        let queues: Vec<What> = self
            .relays
            .queues()
            .filter_map(|(queue, counts)| {
                let bytes = counts.inputs.iter().map(|count| count.bytes).sum();
                let told = self.progress.queues.insert(queue, bytes);
                (told.unwrap_or(0) != bytes).then(|| What::QueueProgress {
                    queue,
                    bytes,
                    records: counts.inputs.iter().map(|count| count.records).sum(),
                    is_estimate: counts.is_estimate,
                    held: counts.held,
                    dropped: counts.dropped.records.unwrap_or(0),
                })
            })
            .collect();
        let pools: Vec<What> = self
            .pools
            .counts()
            .filter_map(|(unit, counts)| {
                let told = self.progress.pools.insert(unit, counts);
                (told != Some(counts)).then_some(What::PoolProgress { unit, counts })
            })
            .collect();
        queues
            .into_iter()
            .chain(pools)
            .for_each(|what| self.tell(what));
        self.progress.armed = false;
        self.begin_progress();
    }
}
