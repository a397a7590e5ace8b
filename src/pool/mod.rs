//! Pools that procflow feeds itself: `request` (long-lived workers that answer record by record) and `task` (a new process for
//! each record). To the rest of the graph such a pool is like one process with a standard input and outputs; inside, workers
//! come and go, and what one of them leaves undone another does.
//!
//! ```text
//!                       ┌────────────── pool thread ──────────────┐
//!  input ──▶ framer ──▶ │ ledger: who has which record, which try │ ──▶ results, held outputs, dead letters
//!  (or fixed tasks)     └──┬───────────────────────────────────┬──┘
//!                          │ records                   answers │
//!                          └──▶ worker ── worker ── worker ────┘
//! ```
//!
//! It starts no process and reaps none: it asks the loop ([`PoolEvent`]), since only the loop knows what is whose, and is told
//! what became of it ([`PoolHandle`]).

mod delivery;
mod desk;
mod handle;
mod intake;
mod journal;
mod ledger;
mod outlet;
mod reorder;
mod request;
mod shelf;
mod store;
mod task;

#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use crate::event::{Exit, Failure, Usage};
use crate::plan;
use crate::spec::{OnFailure, Records};

/// A pool to start.
#[derive(Debug)]
pub struct PoolSpec {
    /// The node's name, for messages.
    pub name: String,
    /// Workers, order, batches, tries.
    pub settings: Arc<plan::Pool>,
    /// What a record that failed every try means for the others, where there is no `dead_letter` for it.
    pub on_failure: OnFailure,
    /// Where records come from.
    pub work: Work,
    /// How the input is cut into records.
    pub records: Records,
    /// Bytes of the longest record, and of the longest answer of a `request` worker.
    pub max_record: u64,
    /// So many first records go to every task's standard input (`task`).
    pub header: u32,
    /// Where results go: what a worker writes to standard output.
    pub results: PoolOutput,
    /// More outputs of a task that are held back until it has succeeded, by descriptor.
    pub held: Vec<(u32, PoolOutput)>,
    /// Takes the records that failed every try.
    pub dead_letter: Option<PoolOutput>,
    /// Exit codes that count as success.
    pub success_codes: Vec<u8>,
    /// `tasks.jsonl`, open for appending.
    pub log: File,
    /// For what is held back and does not fit memory.
    pub spill_dir: PathBuf,
}

/// An end that a pool writes, by whole records.
#[derive(Debug)]
pub struct PoolOutput {
    /// A pipe, a file or a device. Its flags are left as they are.
    pub fd: OwnedFd,
    /// How what it carries is cut into records.
    pub records: Records,
    /// Something will follow the last record although nobody knows that yet (a queue that leads back to the pool): a
    /// missing terminator is always added.
    pub always_terminated: bool,
}

/// Where a pool's records come from.
#[derive(Debug)]
pub enum Work {
    /// A pipe or a file, until its end.
    Stream(OwnedFd),
    /// These, each with its fields.
    List(Vec<Vec<Box<str>>>),
    /// The numbers from the first to the one before the second.
    Range(i64, i64),
    /// The lines of a file, cut into fields where there is a separator.
    Lines(File, Option<Box<str>>),
}

/// What a pool asks of the loop, or tells it.
#[derive(Debug)]
pub enum PoolEvent {
    /// Start a worker.
    Start(Start),
    /// Send the worker its `stop_signal`, and SIGKILL when its `stop_grace` is over.
    Stop(Ticket),
    /// Send the worker SIGKILL.
    Kill(Ticket),
    /// Nothing is in hand and no input is there, but it has not ended. Told each time that this begins to be so.
    Idle(Idle),
    /// Everything is done, and every worker's end was told. All its ends are closed. Last.
    Ended(Ended),
}

/// One process of a pool, from the question for it to its end. Counts from 0, never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// What a pool had taken and written at a moment at which it had nothing in hand: no record, no result, nothing in its outputs
/// that has not left.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Idle {
    /// Bytes read from its input.
    pub taken_bytes: u64,
    /// Bytes of results that have left.
    pub result_bytes: u64,
    /// Of each of [`PoolSpec::held`], by descriptor.
    pub held_bytes: Vec<(u32, u64)>,
    /// Of dead letters.
    pub dead_bytes: u64,
}

/// A worker to start.
#[derive(Debug)]
pub struct Start {
    /// What it is called until its end.
    pub ticket: Ticket,
    /// The number of the worker, from 0: of two that run at once, each has another.
    pub worker: u32,
    /// The descriptors that the pool gives it: ours (to be closed when it is started), its number. Whatever else it has (its
    /// standard error, inputs that are files) is the loop's to add; number 0, too, where the records of a task are not its standard
    /// input.
    pub fds: Vec<(OwnedFd, u32)>,
    /// What it is started for; none in a `request` pool.
    pub task: Option<Task>,
    /// Which try this is, from 1, of the record that has had the most.
    pub attempt: u32,
}

/// What a process of a `task` pool is started for: one record, or a batch of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// The place of the first among all records, from 0.
    pub index: u64,
    /// The records without their terminators, each in its fields: one field where nothing cuts it. Not empty.
    pub records: Vec<Vec<Vec<u8>>>,
}

/// How a pool ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// Every record is answered, or is a dead letter.
    Well,
    /// Somebody who reads its results has gone: what is left was not done.
    Broken,
    /// In words for people: a record failed every try, a worker broke a rule, the workers end without answers.
    Failed(String),
    /// A worker could not be started, in words for people, and what a shell would exit with then.
    CannotStart(String, u8),
    /// It was told to stop.
    Stopped,
    /// procflow can't go on, in words for people: no disk, no descriptors.
    Unable(String),
}

/// What a pool is told by the loop.
#[derive(Debug)]
pub enum PoolCall {
    /// This worker runs.
    Started(Ticket, i32),
    /// It could not be started. The pool fails of it.
    CannotStart(Ticket, Failure),
    /// It has been reaped. Whatever it wrote before is in its pipes.
    Exited(Ticket, Exit, Usage),
    /// Hand out nothing more and end; the loop stops the workers itself.
    Stop,
}

pub use crate::event::PoolCounts;
pub use crate::pool::handle::{PoolEvents, PoolHandle, start};
