//! When what is due, on the run's own clock, which stands still while the run is suspended (Ctrl-Z).
//!
//! Times are offsets from the run's start, so that a suspended hour moves no deadline: the clock is shifted, not the list.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use crate::plan::{GroupId, UnitId};
use crate::pool::Ticket;
use crate::sched::Timer;

/// What a deadline is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Due {
    /// A timer of the scheduler.
    Sched(Timer),
    /// A unit's end is not held up any longer by relays that still hand on what it wrote.
    Relays(UnitId),
    /// The relay of this number is not waited for any longer: its group has ended.
    Relay(u64),
    /// This worker of a pool has had its `stop_grace`.
    Worker(u64, Ticket),
    /// This service is not ready, and its time for that is over.
    NotReady(UnitId),
    /// It is time for the next command that looks whether this service is ready.
    Look(UnitId),
    /// The command of this number, of a probe, has had its time.
    Trial(u64),
    /// It is time to have the journal written to the disk, or to hear what became of that.
    Journal,
    /// It is time to tell how far queues and pools have come.
    Progress,
    /// It is time to look whether a cycle is over.
    Cycles,
    /// It is time to look whether anything moves in this group.
    Stall(GroupId),
}

/// The run's clock: monotonic time since its start, without the time that the run was suspended.
#[derive(Debug)]
pub struct RunClock {
    start: Instant,
    suspended: Duration,
}

impl RunClock {
    /// A clock that starts now.
    pub fn start() -> Self {
        RunClock {
            start: Instant::now(),
            suspended: Duration::ZERO,
        }
    }

    /// Time since the start.
    pub fn now(&self) -> Duration {
        self.start.elapsed().saturating_sub(self.suspended)
    }

    /// The run stood still for this long.
    pub fn skip(&mut self, suspended: Duration) {
        self.suspended += suspended;
    }
}

/// The armed deadlines, at most one of each.
#[derive(Debug, Default)]
pub struct Deadlines {
    queue: BTreeSet<(Duration, Due)>,
    armed: HashMap<Due, Duration>,
}

impl Deadlines {
    /// Lets `due` come at `at`. Armed again, only the new time counts.
    pub fn arm(&mut self, due: Due, at: Duration) {
        self.disarm(due);
        self.armed.insert(due, at);
        self.queue.insert((at, due));
    }

    /// Forgets `due`, armed or not.
    pub fn disarm(&mut self, due: Due) {
        if let Some(at) = self.armed.remove(&due) {
            self.queue.remove(&(at, due));
        }
    }

    /// When the next one is due.
    pub fn next(&self) -> Option<Duration> {
        self.queue.first().map(|&(at, _)| at)
    }

    /// Takes the next that is due at `now`.
    pub fn pop(&mut self, now: Duration) -> Option<Due> {
        let &(at, due) = self.queue.first()?;
        if at > now {
            return None;
        }
        self.disarm(due);
        Some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Due = Due::Sched(Timer::Timeout(UnitId(0)));
    const B: Due = Due::Relays(UnitId(0));

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn timers_come_in_the_order_in_which_they_are_due() {
        let mut deadlines = Deadlines::default();
        deadlines.arm(A, seconds(5));
        deadlines.arm(B, seconds(3));
        assert_eq!(deadlines.next(), Some(seconds(3)));
        assert_eq!(deadlines.pop(seconds(2)), None);
        assert_eq!(deadlines.pop(seconds(9)), Some(B));
        assert_eq!(deadlines.pop(seconds(9)), Some(A));
        assert_eq!(deadlines.pop(seconds(9)), None);
    }

    #[test]
    fn a_timer_armed_again_fires_once_at_its_new_time() {
        let mut deadlines = Deadlines::default();
        deadlines.arm(A, seconds(1));
        deadlines.arm(A, seconds(4));
        assert_eq!(deadlines.pop(seconds(3)), None);
        assert_eq!(deadlines.pop(seconds(4)), Some(A));
        assert_eq!(deadlines.next(), None);
    }

    #[test]
    fn a_disarmed_timer_never_fires() {
        let mut deadlines = Deadlines::default();
        deadlines.arm(A, seconds(1));
        deadlines.disarm(A);
        deadlines.disarm(B);
        assert_eq!(deadlines.pop(seconds(9)), None);
    }
}
