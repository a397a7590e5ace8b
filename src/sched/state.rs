//! The states of a unit and of a group, and what is true in each. Knows no transition: those are in `machine`.

use crate::event::{Cause, Exit, Failure, Outcome};
use crate::plan::{NodeId, QueueId, UnitId};

/// Where a unit is in its life. The picture is in the module's documentation.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum State {
    /// It has never been started, and its group still may be.
    Waiting,
    /// The command that says whether its node runs has been started, on behalf of all units of the node. Nothing of itself has.
    Asked {
        /// That command is being stopped.
        stop: Option<Why>,
    },
    /// [`Spawn`](crate::sched::Action::Spawn) is out and the answer for this unit has not come. There may or may not be a
    /// process; nothing can be sent to it.
    Starting {
        /// It is to be stopped as soon as it is there.
        stop: Option<Why>,
    },
    /// It has a process, and nobody wants it to end.
    Running,
    /// It has a process that was sent its stop signal or SIGKILL. However it ends now, `Why` decides what that means.
    Stopping(Why),
    /// Its process is gone: it wrote to a queue that nobody reads any more. Whether that is a failure, its readers' own
    /// results decide, and they have none yet.
    Torn(Box<Torn>),
    /// Its process is gone, or never came, and its own result is known. It is not final: the unit waits for the rest of its
    /// group to be started, for the writers upstream of its file, or for the end of a group that may be restarted.
    Settled(Own),
    /// All that could speak against its result has ended well, and its files are being put in place.
    Committing {
        /// See [`Outcome::Succeeded`].
        early_close: bool,
    },
    /// A try of its group has failed and all of it has been taken back. The next waits for its delay, then for slots.
    Backoff,
    /// It has ended, and [`Ended`](crate::sched::Action::Ended) was said. Nothing changes it any more.
    Done(Outcome),
}

/// Why a unit is being stopped: what its end will mean.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Why {
    /// It ran out of its own `timeout`: it has failed.
    TimedOut,
    /// procflow found a fault in what it wrote: it has failed.
    Fault(String),
    /// Its group is to be restarted: its end means nothing.
    Retry,
    /// Something outside of it: it is cancelled.
    Cancel(Cause),
    /// A service that was not ready in time: it has failed.
    NotReady(String),
    /// A service that nobody needs any more: it has succeeded.
    NotNeeded,
}

/// How a unit that wrote to a broken queue ended.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Torn {
    /// By SIGPIPE, or one of its `epipe_codes`.
    pub exit: Exit,
    /// The queues that nobody could read from when it ended. Not empty.
    pub broken: Vec<QueueId>,
}

/// A unit's own result, as far as it alone is concerned.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Own {
    /// It did its work.
    Well {
        /// See [`Outcome::Succeeded`].
        early_close: bool,
    },
    /// It did not: failed, cancelled or skipped.
    Ill(Outcome),
    /// It ended in a try that does not count. It is waiting for the rest of that try to end.
    TakenBack,
}

/// What a unit is to the queues it reads and writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// Its own result is not known.
    Open,
    /// It has ended as it should; or it failed and may.
    Well,
    /// It has not: what it wrote is not whole, what it read is lost.
    Ill,
}

impl State {
    /// It has a process, which signals reach.
    pub fn is_live(&self) -> bool {
        matches!(self, State::Running | State::Stopping(_))
    }

    /// The answer to its spawn is due.
    pub fn is_starting(&self) -> bool {
        matches!(self, State::Starting { .. })
    }

    /// It belongs to the group's current try and has no own result in it.
    pub fn is_undecided(&self) -> bool {
        self.is_live() || self.is_starting() || matches!(self, State::Torn(_))
    }

    /// It has ended for good.
    pub fn is_done(&self) -> bool {
        matches!(self, State::Done(_))
    }

    /// What it is to its queues. `may_fail` is its node's `allow_failure`, which makes its own failure an end like any other.
    /// That it was cancelled is not its own: what made procflow cancel it has left its data incomplete. (But for a worker whose
    /// file alone was lost by another's allowed failure: what it wrote to queues is whole.) A command that cannot be started
    /// takes its group with it, allowed or not (spec 2.5); so does one that could not be asked for.
    pub fn side(&self, may_fail: bool) -> Side {
        let outcome = match self {
            State::Waiting
            | State::Asked { .. }
            | State::Starting { .. }
            | State::Running
            | State::Stopping(_)
            | State::Torn(_)
            | State::Settled(Own::TakenBack)
            | State::Backoff => return Side::Open,
            State::Settled(Own::Well { .. }) | State::Committing { .. } => return Side::Well,
            State::Settled(Own::Ill(outcome)) | State::Done(outcome) => outcome,
        };
        match outcome {
            Outcome::Succeeded { .. }
            | Outcome::Reused
            | Outcome::Skipped(Cause::ByUser | Cause::When(_)) => Side::Well,
            Outcome::Failed(Failure::CannotStart { .. } | Failure::Condition(_)) => Side::Ill,
            Outcome::Failed(_) | Outcome::Cancelled(Cause::Pool(_)) if may_fail => Side::Well,
            Outcome::Failed(_) | Outcome::Cancelled(_) | Outcome::Skipped(_) => Side::Ill,
        }
    }

    /// What is known of its end, where it did not do its work.
    pub fn ill(&self) -> Option<&Outcome> {
        match self {
            State::Settled(Own::Ill(outcome)) | State::Done(outcome) => Some(outcome),
            _ => None,
        }
    }
}

/// Where a group is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Conditions of its members are open.
    Waiting,
    /// Nothing but slots or memory is missing for its first try.
    Ready,
    /// It holds what it needs, and the commands that say which of its nodes run are asked.
    Asking,
    /// A try runs: it holds slots, from `Spawn` to `GroupEnded`.
    Running,
    /// A try has failed, and the timer of the next is armed. It holds no slots.
    Backoff,
    /// The delay is over; nothing but slots or memory is missing for the next try.
    ReadyAgain,
    /// All its units have ended.
    Over,
}

/// The node whose failure is behind `cause`, if it was a node's.
pub(super) fn root(cause: &Cause) -> Option<NodeId> {
    match cause {
        Cause::Writer { root, .. } | Cause::Reader { root, .. } | Cause::After { root, .. } => {
            Some(*root)
        }
        Cause::RunFailed(root) | Cause::Pool(root) => Some(*root),
        Cause::NeverFailed(_)
        | Cause::RunTimeout
        | Cause::Interrupted(_)
        | Cause::ByUser
        | Cause::When(_)
        | Cause::NotNeeded
        | Cause::Broken => None,
    }
}

/// From where in a group, or in the graph, a cause comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum From {
    Writer,
    Reader,
    /// Another unit of the same pool.
    Pool,
    Condition,
}

/// The cause for a neighbour of `node`, whose end `outcome` is not what the neighbour needs. A cause that is the whole run's,
/// or no failure at all, is passed on as it is: naming the neighbour would hide it. So is within a pool what came from outside.
pub(super) fn derived(from: From, node: NodeId, outcome: &Outcome) -> Cause {
    let root = match outcome {
        Outcome::Succeeded { .. } | Outcome::Reused | Outcome::Failed(_) => node,
        Outcome::Cancelled(cause) | Outcome::Skipped(cause) => match root(cause) {
            Some(root) if from != From::Pool => root,
            Some(_) | None => return cause.clone(),
        },
    };
    match from {
        From::Writer => Cause::Writer { node, root },
        From::Reader => Cause::Reader { node, root },
        From::Pool => Cause::Pool(node),
        From::Condition => Cause::After { node, root },
    }
}

/// The retry that a group has ahead of it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Restart {
    /// Whose failure made it necessary: the first of this try.
    pub unit: UnitId,
    /// That failure. It stands if the retry is abandoned.
    pub failure: Failure,
}
