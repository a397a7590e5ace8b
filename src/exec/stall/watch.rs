//! Since when nothing has moved in a group: what is remembered from one look at it to the next.
//!
//! A group that works is known by one thread, the *witness*, that has run since the last look: one file of /proc to read.
//! Only where the witness has not run is everything looked at. A group stands still while no thread of it has left a CPU
//! and no relay has moved a byte.

use std::time::Duration;

use crate::sys::process::sleep::{Progress, Thread};

/// So many looks in the time after which something is said.
const LOOKS: u32 = 6;

/// A look at every thread of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot<T> {
    /// Bytes that its relays have moved.
    pub moved: u64,
    /// Its threads, whose they are, and how far they have come.
    pub threads: Vec<(T, Thread, Progress)>,
}

/// What is known of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Watch<T> {
    /// It moves, or nobody has looked. The witness and how often it has left a CPU.
    Moving(Option<(Thread, u64)>),
    /// It stands still.
    Still {
        /// Since when, at the latest.
        since: Duration,
        /// As it stands.
        snapshot: Snapshot<T>,
        /// When to say so; never, where it has been said.
        due: Option<Duration>,
    },
}

impl<T: PartialEq> Watch<T> {
    /// Takes a look, at `now`: through `progress` at one thread, through `all` at everything. Where nothing has moved for
    /// `after`, and that has not been said, for how long.
    pub fn look(
        &mut self,
        now: Duration,
        after: Duration,
        progress: impl FnOnce(Thread) -> Option<Progress>,
        all: impl FnOnce() -> Snapshot<T>,
    ) -> Option<Duration> {
        if let Watch::Moving(Some((witness, switches))) = self
            && let Some(progress) = progress(*witness)
            && (progress.is_busy() || progress.switches != *switches)
        {
            *switches = progress.switches;
            return None;
        }
        let new = all();
        // Whoever is busy now makes the best witness; else who has run since the last look.
        let busy = new
            .threads
            .iter()
            .find(|(_, _, progress)| progress.is_busy());
        let changed = match self {
            Watch::Moving(_) => None,
            Watch::Still { snapshot, .. } => new
                .threads
                .iter()
                .find(|thread| !snapshot.threads.contains(thread)),
        };
        if let Some((_, thread, progress)) = busy.or(changed) {
            *self = Watch::Moving(Some((*thread, progress.switches)));
            return None;
        }
        match self {
            Watch::Still {
                since,
                snapshot,
                due,
            } if *snapshot == new => {
                let stands = due.is_some_and(|due| now >= due);
                stands.then(|| now.saturating_sub(*since))
            }
            _ => {
                *self = Watch::Still {
                    since: now,
                    snapshot: new,
                    due: Some(now + after),
                };
                None
            }
        }
    }

    /// How long until the next look. What stands still and is known to may be large, and nothing is at stake any more.
    pub fn pause(&self, after: Duration) -> Duration {
        match self {
            Watch::Still { since, due, .. } if *due != Some(*since + after) => after,
            Watch::Moving(_) | Watch::Still { .. } => after / LOOKS,
        }
    }

    /// It has been said that it stands still (`again`: `None`), or it is no stall and is to be looked into again then.
    pub fn judged(&mut self, again: Option<Duration>) {
        if let Watch::Still { due, .. } = self {
            *due = again;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::time::Duration;

    use crate::exec::stall::watch::{Snapshot, Watch};
    use crate::sys::process::sleep::{Activity, Progress, Thread};

    const AFTER: Duration = Duration::from_secs(30);

    /// Two threads of somebody, and a relay.
    #[derive(Clone)]
    struct World {
        switches: [u64; 2],
        is_busy: bool,
        moved: u64,
        looks: RefCell<Vec<&'static str>>,
    }

    impl World {
        fn new() -> Self {
            World {
                switches: [1, 1],
                is_busy: false,
                moved: 0,
                looks: RefCell::default(),
            }
        }

        fn progress(&self, thread: Thread) -> Progress {
            let index = usize::from(thread.id == 2);
            Progress {
                activity: match self.is_busy && index == 1 {
                    true => Activity::Runs,
                    false => Activity::Sleeps,
                },
                switches: self.switches[index],
            }
        }

        fn snapshot(&self) -> Snapshot<()> {
            self.looks.borrow_mut().push("all");
            let threads = [1, 2].map(|id| Thread { process: 1, id });
            Snapshot {
                moved: self.moved,
                threads: threads
                    .map(|thread| ((), thread, self.progress(thread)))
                    .to_vec(),
            }
        }

        fn look(&self, watch: &mut Watch<()>, seconds: u64) -> Option<Duration> {
            let one = |thread| {
                self.looks.borrow_mut().push("one");
                Some(self.progress(thread))
            };
            watch.look(Duration::from_secs(seconds), AFTER, one, || self.snapshot())
        }
    }

    fn seconds(n: u64) -> Option<Duration> {
        Some(Duration::from_secs(n))
    }

    #[test]
    fn what_stands_still_for_long_is_said_once() {
        let world = World::new();
        let mut watch = Watch::Moving(None);
        assert_eq!(world.look(&mut watch, 5), None);
        assert_eq!(world.look(&mut watch, 34), None);
        assert_eq!(watch.pause(AFTER), AFTER / 6);
        assert_eq!(world.look(&mut watch, 36), seconds(31));
        watch.judged(None);
        assert_eq!(watch.pause(AFTER), AFTER);
        assert_eq!(world.look(&mut watch, 300), None);
    }

    #[test]
    fn it_is_said_again_where_something_has_moved_in_between() {
        let mut world = World::new();
        let mut watch = Watch::Moving(None);
        world.look(&mut watch, 0);
        assert_eq!(world.look(&mut watch, 30), seconds(30));
        watch.judged(None);
        world.switches[1] += 1;
        assert_eq!(world.look(&mut watch, 60), None, "it has run");
        assert_eq!(world.look(&mut watch, 65), None, "it stands since now");
        assert_eq!(world.look(&mut watch, 94), None);
        assert_eq!(world.look(&mut watch, 95), seconds(30));
    }

    #[test]
    fn a_relay_that_moves_is_movement() {
        let mut world = World::new();
        let mut watch = Watch::Moving(None);
        world.look(&mut watch, 0);
        world.moved += 1;
        assert_eq!(world.look(&mut watch, 29), None);
        assert_eq!(world.look(&mut watch, 58), None);
        assert_eq!(world.look(&mut watch, 59), seconds(30));
    }

    #[test]
    fn what_is_no_stall_is_looked_into_again_later() {
        let world = World::new();
        let mut watch = Watch::Moving(None);
        world.look(&mut watch, 0);
        assert_eq!(world.look(&mut watch, 30), seconds(30));
        watch.judged(seconds(60));
        assert_eq!(world.look(&mut watch, 59), None);
        assert_eq!(world.look(&mut watch, 60), seconds(60));
    }

    /// A group that works costs one file a look.
    #[test]
    fn one_that_runs_is_a_witness_for_all() {
        let mut world = World::new();
        world.is_busy = true;
        let mut watch = Watch::Moving(None);
        for now in 0..100 {
            assert_eq!(world.look(&mut watch, now * 10), None);
        }
        world.is_busy = false;
        for now in 100..200 {
            world.switches[1] += 1;
            assert_eq!(world.look(&mut watch, now * 10), None);
        }
        let looks = world.looks.borrow();
        let ones = looks.iter().filter(|look| **look == "one").count();
        assert_eq!((ones, looks.len()), (199, 200));
    }
}
