//! What happens in a run, as facts for whoever watches: each fact once, flat, versioned.
//!
//! These are the lines of `events.jsonl` (`procflow schema events`) and what reporters see. `sched` decides outcomes,
//! `exec` adds what it measured.

use std::time::Duration;

use crate::plan::{NodeId, QueueId, Skip, UnitId, Unmet};

/// Version of the events' and the report's form. It changes when a reader of the old form would be misled.
pub const VERSION: u32 = 1;

/// Which of a unit's outputs bytes came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard output, and every other output that goes to the log.
    Out,
    /// Standard error.
    Err,
}

/// Whose output bytes are: a unit's process, or a worker of a pool that procflow feeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Printer {
    /// The unit.
    pub unit: UnitId,
    /// Which worker, from 0, of a `request` or `task` pool; none of any other unit. Processes that have this number one after
    /// the other are one printer.
    pub worker: Option<u32>,
}

impl From<UnitId> for Printer {
    fn from(unit: UnitId) -> Self {
        Printer { unit, worker: None }
    }
}

/// How a process ended, as wait4(2) tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It called exit with this code.
    Code(u8),
    /// A signal ended it.
    Signal {
        /// Its number.
        number: i32,
        /// It left a core dump.
        core: bool,
    },
}

impl Exit {
    /// It is one of the codes that count as success.
    pub fn is_success(self, success_codes: &[u8]) -> bool {
        matches!(self, Exit::Code(code) if success_codes.contains(&code))
    }
}

/// How a unit's run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It did its work. `early_close`: a writer that its readers, all of which succeeded, did not need to the end.
    Succeeded {
        /// See above.
        early_close: bool,
    },
    /// It did not.
    Failed(Failure),
    /// procflow ended it, or did not let its result count.
    Cancelled(Cause),
    /// It was never started.
    Skipped(Cause),
    /// It was never started, since what an earlier run made of it still holds.
    Reused,
}

/// Why a unit failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// An exit code that is not one of its `success_codes`, or a signal that procflow did not send.
    Exit(Exit),
    /// It ran out of its `timeout`, of this length.
    TimedOut(Duration),
    /// It could not be started; the text says why, in words for people; the code is 127 or 126, as a shell would say.
    CannotStart {
        /// What a shell would exit with.
        code: u8,
        /// In words for people.
        why: String,
    },
    /// Its condition (`when`) was asked by a command, and that gave no answer: it ended otherwise than by 0 or 1, took too long, or
    /// could not be started. The node itself never began.
    Condition(Box<Failure>),
    /// It ended well, but its result could not be kept, or broke a rule: a file that could not be put in place, a record
    /// longer than `max_record`, a value longer than 64 KiB. In words for people.
    Result(String),
    /// A service was not ready in time; the text says how it was seen, in words for people.
    NotReady(String),
    /// A service's process ended, however it did, while it was still needed.
    Ended {
        /// How.
        exit: Exit,
        /// It had been ready.
        ready: bool,
    },
}

/// Why procflow cancelled or skipped a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// The writer of one of its queues failed, or was cancelled because of `root`.
    Writer {
        /// The writer.
        node: NodeId,
        /// The node whose failure began it (may be `node`).
        root: NodeId,
    },
    /// The reader of one of its queues failed, or was cancelled because of `root`.
    Reader {
        /// The reader.
        node: NodeId,
        /// The node whose failure began it (may be `node`).
        root: NodeId,
    },
    /// Another worker of its pool, this node, did not do its work.
    Pool(NodeId),
    /// It waits for a node that did not end as needed, or needs a service that did not last; `root` began it.
    After {
        /// The node it waits for.
        node: NodeId,
        /// The node whose failure began it (may be `node`).
        root: NodeId,
    },
    /// It waits for the failure of this node, which did not come. No failure.
    NeverFailed(NodeId),
    /// The run stops because this node failed (`on_failure`).
    RunFailed(NodeId),
    /// The run's own timeout.
    RunTimeout,
    /// procflow was asked to stop by this signal.
    Interrupted(i32),
    /// Left out by `--skip`. No failure.
    ByUser,
    /// Its `when` does not hold. No failure.
    When(Unmet),
    /// A service that nobody needs (any more): those who would have did not need it to the end, or were skipped. No failure.
    NotNeeded,
    /// procflow itself could not go on.
    Broken,
}

impl From<&Skip> for Cause {
    fn from(skip: &Skip) -> Self {
        match skip {
            Skip::ByUser => Cause::ByUser,
            Skip::When(unmet) => Cause::When(unmet.clone()),
        }
    }
}

/// What procflow measured of a process (wait4(2), of this process and what it waited for).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// From start to end.
    pub wall: Duration,
    /// CPU time in user mode.
    pub user: Duration,
    /// CPU time in the kernel.
    pub system: Duration,
    /// Peak resident memory, bytes. Never below procflow's own at the time of the start (`ru_maxrss` is inherited through
    /// vfork and exec).
    pub max_rss: u64,
}

/// What a `request` or `task` pool has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PoolCounts {
    /// Records that came, and their bytes.
    pub taken: u64,
    /// See above.
    pub taken_bytes: u64,
    /// Records answered; each is counted once.
    pub answered: u64,
    /// Bytes of results.
    pub result_bytes: u64,
    /// Records that are dead letters.
    pub dead: u64,
    /// Tries after the first, of whatever record.
    pub retried: u64,
    /// Records being worked on.
    pub in_flight: u64,
    /// Workers started.
    pub started: u64,
    /// Records in all, where that is known before the end.
    pub total: Option<u64>,
}

/// One fact.
#[derive(Debug, Clone, PartialEq)]
pub struct RunEvent {
    /// Since the run's start, monotonic.
    pub at: Duration,
    /// What happened.
    pub what: What,
}

/// What a unit's process waits for while its group is stalled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Whose process.
    pub unit: UnitId,
    /// For what.
    pub on: WaitsOn,
    /// Whose it would be to do something about it. Nobody's, where those have ended; of a pipe, its own perhaps.
    pub of: Vec<UnitId>,
}

/// What a process waits for on a pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WaitsOn {
    /// Data of this queue, which a writer has not written.
    Data(QueueId),
    /// Room in this queue, which a reader has not read.
    Room(QueueId),
    /// Its turn in this queue, whose writers come one after the other: one before it has not ended.
    Turn(QueueId),
    /// A pipe or fifo that the processes of the group have made themselves.
    OwnPipe,
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// The first event.
    RunStarted {
        /// The run's id.
        id: String,
        /// The pipeline's name.
        pipeline: String,
        /// Its file, as an absolute path; none where it came from standard input.
        file: Option<String>,
        /// Wall clock, since 1970.
        time: Duration,
        /// procflow's pid: the process that runs the loop, the parent of every node.
        pid: i32,
        /// Job slots.
        jobs: u32,
    },
    /// A unit's process was started.
    Started {
        /// Which.
        unit: UnitId,
        /// Its try, from 1.
        attempt: u32,
        /// Its process id; none of a pool that procflow feeds, and of a gathering of files.
        pid: Option<i32>,
    },
    /// A service is ready: its probe has succeeded, or it has none and runs.
    Ready {
        /// Which.
        unit: UnitId,
    },
    /// A unit is being stopped: by this signal (SIGKILL when its grace is over).
    Stopping {
        /// Which.
        unit: UnitId,
        /// The signal sent.
        signal: i32,
    },
    /// A try failed and its group will be tried again after `delay`.
    Retrying {
        /// Whose failure it is.
        unit: UnitId,
        /// The try that failed, from 1.
        attempt: u32,
        /// Why.
        failure: Failure,
        /// Until the next try.
        delay: Duration,
        /// The end of the try's standard error; see [`What::Ended`].
        stderr_tail: Vec<u8>,
    },
    /// A unit has ended, for good.
    Ended {
        /// Which.
        unit: UnitId,
        /// How.
        outcome: Outcome,
        /// Its process's status, where there was one.
        exit: Option<Exit>,
        /// How many tries it had; 0 where it never started.
        attempts: u32,
        /// What was measured of the last try. Of a pool that procflow feeds: CPU time summed over its workers, and the largest
        /// peak among them.
        usage: Usage,
        /// Processes of its group were left when it ended, and were killed.
        leaked: bool,
        /// The end of its standard error (of a service, of both its outputs), where it failed: at most the last 10 lines, 4 KiB. Of a pool that procflow feeds:
        /// that of the worker that failed last.
        stderr_tail: Vec<u8>,
    },
    /// A worker of a `request` pool was started. (Those of a `task` pool are in its `tasks.jsonl`.)
    WorkerStarted {
        /// The pool.
        unit: UnitId,
        /// Its number, from 0.
        worker: u32,
        /// Its process id.
        pid: i32,
    },
    /// It has ended.
    WorkerEnded {
        /// The pool.
        unit: UnitId,
        /// Its number, from 0.
        worker: u32,
        /// How.
        exit: Exit,
        /// What was measured of it.
        usage: Usage,
    },
    /// What a `request` or `task` pool has done so far: now and then while it runs, and once before its end.
    PoolProgress {
        /// The pool.
        unit: UnitId,
        /// See [`PoolCounts`].
        counts: PoolCounts,
    },
    /// What has passed through a queue so far, now and then while it lives.
    QueueProgress {
        /// Which.
        queue: crate::plan::QueueId,
        /// Bytes that came from its writers.
        bytes: u64,
        /// Records, where their end can be seen.
        records: Option<u64>,
        /// That number is an estimate: some records went by unseen.
        is_estimate: bool,
        /// Bytes that it holds.
        held: u64,
        /// Records that were dropped, since it was full (`overflow = "drop_newest"`, `"drop_oldest"`).
        dropped: u64,
    },
    /// A queue has ended; what passed through it, where procflow knows (a bare pipe's bytes are counted by nobody).
    QueueEnded {
        /// Which.
        queue: QueueId,
        /// Bytes that came from its writers, where known.
        bytes: Option<u64>,
        /// Records, where known.
        records: Option<u64>,
        /// That number is an estimate: some records went by unseen.
        is_estimate: bool,
        /// Bytes from each writer and to each reader, where known.
        ends: Vec<(UnitId, u64)>,
        /// Records that were dropped, since it was full, or since those that may have them had gone.
        dropped: u64,
        /// How long it held records that no reader took; how long there was nothing to hand on. Where procflow carries it.
        full: Duration,
        /// See above.
        empty: Duration,
    },
    /// Nothing moves in a group: no process of it runs, and each waits on a pipe. Told once, and again only if something has
    /// moved in between.
    Stalled {
        /// For so long nothing has moved.
        time: Duration,
        /// Each unit's waits. Those that wait for each other in a circle come first, in its order.
        waits: Vec<Waiting>,
    },
    /// The run begins to stop; nothing new starts but clean-up.
    RunStopping {
        /// Why.
        cause: Cause,
    },
    /// The last event.
    RunEnded {
        /// What `procflow run` will exit with.
        exit: crate::exit::ExitCode,
    },
}
