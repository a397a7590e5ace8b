//! What to do next: a pure machine from events to actions. No I/O, no clock, no pid; `exec` makes it so.
//!
//! # A unit
//!
//! ```text
//!            Spawn          Spawned             Stop, Kill
//! Waiting ─────────▶ Starting ─────────▶ Running ─────────▶ Stopping
//!    │                  │ SpawnFailed       │ Exited           │ Exited
//!    │                  │                   ├───────▶ Torn     │        its queue broke: its readers decide
//!    │                  ▼                   ▼          ▼       ▼
//!    │               Settled ◀─────────────────────────────────          its own result is known
//!    │                  │ │ └───────▶ Committing                       its file is being put in place
//!    │ skipped          │ ▼                  │
//!    │                  │ Backoff ──▶ Starting   (the whole group, again)
//!    ▼                  ▼                    ▼
//!   Done ◀───────────────────────────────────                          Ended was said
//! ```
//!
//! A unit's *own result* and its *outcome* are two things. The first is known when its process is gone; it is what decides
//! whether its readers have lost a writer, and whether a writer that died of SIGPIPE ended early or was failed. The second is
//! final, and comes later where something else can still take the result back:
//! - nothing is final while members of the group are still being started;
//! - a unit that writes a file waits for everything upstream of it, since a file appears only when all of that succeeded;
//! - a pool's worker with a file waits for the own results of the other workers, since the files of a node appear when the node
//!   has succeeded, and for what is upstream of those that write files, too;
//! - in a group that may be restarted all wait for the group's end, since a restart takes all of it back.
//!
//! The two waits never cross: an own result waits only for what is *downstream* (for readers), an outcome only for what is
//! *upstream* (for writers) or for own results. That is why `yes | head > file` ends: `head`'s own result makes `yes` an
//! early end, and that makes `head`'s file appear.
//!
//! One wait can go in a circle: a writer that died of one queue waits for that queue's reader, and the reader waits for the
//! end of another queue of the same writer (or of another worker of its pool, whose file waits for this one). Such a writer has
//! [`Timer::Grace`] armed; when it fires it has failed, for the reader's other data is not whole.
//!
//! # Pools
//!
//! A node with several units is a pool. A worker that ends ill takes the others with it, for nobody can know how much of its
//! share it had done; they end by [`Cause::Pool`], or by what ended it. What waits for a pool hears of its end when the last
//! unit has one. A failure that a pool may have stops nobody and ends its queues as a success would, but it keeps all its files
//! from appearing. Its tries are counted for the node.
//!
//! # Services
//!
//! A service is a unit that does not end by itself. It is alone in its group, and its restarts are that group's tries. Who waits
//! until it runs or is ready needs it; when the last of them has ended it is stopped, and has then succeeded, however it takes that.
//! If it ends before that it has failed, or is restarted; who needs it is stopped, or goes on waiting. Neither a failure of the
//! run nor a first signal ends it: those end who needs it, and that ends it, so it goes after them. A group that runs and is a
//! service does not count where it is asked whether nothing runs: it may run only for what can't start beside it.
//!
//! # Conditions
//!
//! A command that says whether a node runs is asked last: when its group could start, and has the room for it. So the answer is of
//! now, there are never more of them than job slots, and nothing is between a yes and the start. The commands of a group are asked
//! one after the other. While one runs, its node's first unit is `Asked`, which is not in the picture: from there it goes back to
//! `Waiting`, or to its end. A no takes the node out of the group as `--skip` would have from the start.
//!
//! # Stored queues
//!
//! They join nobody: their readers are in other groups and wait for their writers' nodes, by `after`. That all of these succeeded
//! is not enough where one may fail: one that was *cancelled* then counts as well for what comes after it, but what it stored is
//! not whole, so its readers are skipped.
//!
//! # The end of data
//!
//! `exec` holds a duplicate of each writer's end. [`Action::Release`] lets go of it when the writer's outcome is a success (or
//! a failure that its node may have). In a group that may be restarted that is too late, for the group's end waits for its
//! readers: there the own result is enough, and a file that could not be put in place afterwards, or a failure upstream of
//! it, comes after the reader has seen the end.
//!
//! # Files
//!
//! `machine`: data, entrance, [`Scheduler`] · `state`: what is true in each state · `settle`: inside a group · `order`: between
//! nodes · `ask`: conditions that are commands · `retry`, `halt`, `service` · `slots`: those shared with others · `ready`, `flat`:
//! containers · `draft`, `sim`, `stories`: tests.

use std::time::Duration;

use crate::event::{Cause, Exit, Failure, Outcome};
use crate::plan::{GroupId, QueueId, UnitId};

mod ask;
#[cfg(test)]
mod draft;
mod flat;
mod halt;
mod machine;
mod order;
mod ready;
mod retry;
mod service;
mod settle;
#[cfg(test)]
mod sim;
mod slots;
mod state;
#[cfg(test)]
mod stories;

pub use crate::sched::machine::Scheduler;

/// What happened in the world.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The run begins. First, once.
    Begin,
    /// Answer to [`Action::Ask`]: how the command ended, or why it could not be started.
    Answered(UnitId, Result<Exit, Failure>),
    /// Answer to [`Action::Spawn`]: this unit's process runs. In the group's order.
    Spawned(UnitId),
    /// Answer to [`Action::Spawn`]: this unit could not be started. No later unit of the group was tried.
    SpawnFailed(UnitId, Failure),
    /// A unit's process has been reaped.
    Exited {
        /// Which.
        unit: UnitId,
        /// How.
        exit: Exit,
        /// Those of its output queues that nobody can read from any more (their pipe's write end polls POLLERR).
        broken: Vec<QueueId>,
        /// Something procflow found wrong with its result, and not with the process: it may have ended well, or died of a broken
        /// queue, and has failed of this. Of a pool, why it failed.
        fault: Option<String>,
    },
    /// Answer to [`Action::Commit`].
    Committed(UnitId, Result<(), String>),
    /// A queue's relay found a fault of this writer (a record longer than `max_record`, an end within a record). After the
    /// writer's [`Action::Ended`], or while its files are being put in place, it is too late and changes nothing: a writer's
    /// [`Event::Exited`] is to be held back until the relay has taken in what it wrote.
    QueueFault {
        /// Whose fault it is.
        writer: UnitId,
        /// In words for people.
        why: String,
    },
    /// Answer to [`Action::Probe`]: this service is ready. One whose probe was taken back may still say so.
    Ready(UnitId),
    /// Answer to [`Action::Probe`]: this service was not ready in time; in words for people. One whose probe was taken back may
    /// still say so.
    NotReady(UnitId, String),
    /// A deadline has passed. One that was disarmed meanwhile may still come, unless it was armed again.
    Fired(Timer),
    /// procflow got SIGINT, SIGTERM or SIGHUP. The second one kills.
    Shutdown(i32),
    /// So many job slots there are for this run now, where they are shared with others. At once after [`Action::WantSlots`], and
    /// whenever it changes after that.
    Slots(u32),
    /// procflow cannot go on (disk full, no descriptors, the guard died): everything is killed at once.
    Broken,
}

/// A deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Timer {
    /// The `timeout` of a unit's attempt.
    Timeout(UnitId),
    /// The `stop_grace` of a unit that is being stopped. Also how long a unit that has died of a broken queue waits for its
    /// readers where these may wait for it, too; its process is gone then.
    Grace(UnitId),
    /// The delay before a group's next try.
    Backoff(GroupId),
    /// The run's timeout.
    Run,
}

/// What is to be done, in this order.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Run the command that says whether this unit's node runs (`Node::asks`; the unit is its first); answer with
    /// [`Event::Answered`], also where it was stopped.
    Ask(UnitId),
    /// Make the group's queues, then start its units in order; stop at the first that cannot be started. Units that were left out
    /// (by `Node::skip`, or by an answer) are not in it: their ends of queues are closed.
    Spawn {
        /// Which.
        group: GroupId,
        /// Its try, from 1.
        attempt: u32,
    },
    /// Send the unit's `stop_signal`, then CONT, to its process group.
    Stop(UnitId),
    /// Send SIGKILL to its process group.
    Kill(UnitId),
    /// Look whether this service is ready, until it is or its time is over; answer with [`Event::Ready`] or [`Event::NotReady`].
    Probe(UnitId),
    /// It doesn't matter any more whether it is.
    StopProbe(UnitId),
    /// Tell whoever watches: this service is ready.
    Ready(UnitId),
    /// Let this event come after so long.
    Arm(Timer, Duration),
    /// That deadline does not matter any more.
    Disarm(Timer),
    /// This writer has done its part of the queue: drop the write end held for it. When every writer's is dropped,
    /// readers see the end of data.
    Release {
        /// The queue.
        queue: QueueId,
        /// The writer.
        writer: UnitId,
        /// It failed and the queue is `on_writer_failure = "close"`: a record that it left torn is dropped.
        torn: bool,
    },
    /// Put the unit's files in place; answer with [`Event::Committed`].
    Commit(UnitId),
    /// Take back the unit's files.
    Discard(UnitId),
    /// Nothing of this attempt of the group runs any more: drop what is left of its queues.
    GroupEnded(GroupId),
    /// So many job slots would be used if they were there: get more, if they can be had. 0: no more than there are. Answer with
    /// [`Event::Slots`], at once and when more have come.
    WantSlots(u32),
    /// Tell whoever watches: a unit's end.
    Ended(UnitId, Outcome),
    /// Tell whoever watches: a try failed, the group's next comes after `delay`.
    Retrying {
        /// Whose failure.
        unit: UnitId,
        /// The try that failed.
        attempt: u32,
        /// Why.
        failure: Failure,
        /// Until the next.
        delay: Duration,
    },
    /// Tell whoever watches: the run begins to stop.
    Stopping(Cause),
    /// Everything has ended. Last, once.
    Finish(Verdict),
}

/// The run's result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Every node succeeded, was skipped without fault, or may fail.
    Succeeded,
    /// A node failed.
    Failed,
    /// The run's timeout.
    TimedOut,
    /// Ended by this signal.
    Interrupted(i32),
    /// procflow could not go on.
    Broken,
}
