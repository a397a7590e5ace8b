//! What the file means: nodes, units, queues and groups by number, every rule checked. Pure: it reads no clock, starts
//! nothing, and touches no file but those that the pipeline names for it to read (dotenv files).
//!
//! After planning nothing is looked up by name. A *node* is what the file declares, a *unit* is one process to run, an
//! *attempt* is one try of a unit, a *group* holds the units joined by live queues, which run together.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::diagnostic::Place;
use crate::plan::template::Template;
use crate::spec::{AfterState, JobserverStyle, OnFailure};

mod arrange;
mod bridges;
mod build;
mod checks;
mod claims;
mod condition;
mod cycles;
mod deliver;
mod dotenv;
mod ends;
mod environment;
mod matrix;
mod params;
mod pools;
pub mod probe;
mod problems;
mod scope;
mod select;
pub mod services;
pub mod settings;
#[cfg(test)]
mod simulation;
mod stiff;
mod stored;
pub mod template;
#[cfg(test)]
mod tests;
mod uses;

pub use crate::plan::build::{Origin, Overrides, build};
pub use crate::plan::matrix::names as matrix_names;
pub use crate::plan::problems::variable;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub u32);

        impl $name {
            /// The position in the plan's vector.
            pub fn index(self) -> usize {
                self.0 as usize
            }
        }

        impl From<usize> for $name {
            /// # Panics
            /// Where a plan would hold more than `u32::MAX` of them, which the size limit of a file rules out.
            fn from(index: usize) -> Self {
                match u32::try_from(index) {
                    Ok(index) => $name(index),
                    Err(_) => panic!("BUG: {index} does not fit an id"),
                }
            }
        }
    };
}

id!(
    /// A node: index into [`Plan::nodes`].
    NodeId
);
id!(
    /// A unit: index into [`Plan::units`].
    UnitId
);
id!(
    /// A queue: index into [`Plan::queues`].
    QueueId
);
id!(
    /// A group: index into [`Plan::groups`], which stand in start order.
    GroupId
);

/// A pipeline, ready to run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The pipeline's name.
    pub name: String,
    /// Its description.
    pub description: Option<String>,
    /// The directory that relative paths are relative to; absolute.
    pub dir: PathBuf,
    /// Job slots, where the file says.
    pub jobs: Option<u32>,
    /// What a failure means for the rest.
    pub on_failure: OnFailure,
    /// For the whole run.
    pub timeout: Option<Duration>,
    /// How nodes share job slots.
    pub jobserver: JobserverStyle,
    /// Counters that nodes claim from, in the file's order.
    pub resources: Vec<Resource>,
    /// What the pipeline adds to the inherited environment of every node: dotenv files, `[env]`, `PARAM_X`, `PIPELINE_DIR`.
    /// The later wins.
    pub env: Vec<(String, String)>,
    /// Values that must be shown nowhere (values of secret params and of variables that came from them).
    pub secrets: Vec<String>,
    /// In the file's order.
    pub nodes: Vec<Node>,
    /// Units of a node stand together.
    pub units: Vec<Unit>,
    /// In order of first mention.
    pub queues: Vec<Queue>,
    /// In start order.
    pub groups: Vec<Group>,
}

/// Look-ups by id. An id that is not of this plan is a bug, and panics.
impl Plan {
    /// The node.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()]
    }

    /// The unit.
    pub fn unit(&self, id: UnitId) -> &Unit {
        &self.units[id.index()]
    }

    /// The queue.
    pub fn queue(&self, id: QueueId) -> &Queue {
        &self.queues[id.index()]
    }

    /// The group.
    pub fn group(&self, id: GroupId) -> &Group {
        &self.groups[id.index()]
    }
}

/// A counter of what there is, from which nodes claim (`[run] resources`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// Its name.
    pub name: Arc<str>,
    /// How much there is: never more is claimed at the same time.
    pub amount: u32,
}

/// What the file declares under one name.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its name; of a matrix node with its combination: `test[py=3.12,db=pg]`.
    pub name: Arc<str>,
    /// The name that the file declares: `test`. Nodes of one matrix share it.
    pub base: Arc<str>,
    /// Its combination, where it comes from a matrix: axes and values, in the axes' order, then what `include` adds.
    pub matrix: Vec<(Arc<str>, Arc<str>)>,
    /// Its units (ids from start to end).
    pub units: Range<u32>,
    /// What it waits for. Sorted by the file's order; without duplicates.
    pub after: Vec<After>,
    /// Its failure fails neither the run nor what comes after it.
    pub allow_failure: bool,
    /// What makes a pool of it; none for a process.
    pub pool: Option<Arc<Pool>>,
    /// What makes a service of it: it runs until nobody needs it any more. It is one process, alone in its group.
    pub service: Option<Arc<Service>>,
    /// Left out: never started; for what comes after it, it counts as satisfied, and its queues as empty.
    pub skip: Option<Skip>,
    /// Whether it runs this command says (`when`), asked once when all else that it waits for is there: by exit code 0 yes, by 1 no.
    pub asks: Option<Arc<[Template]>>,
    /// For reports.
    pub description: Option<Arc<str>>,
    /// For reports and `--only @tag`.
    pub tags: Vec<Arc<str>>,
}

impl Node {
    /// The table of the file that declares it.
    pub fn table(&self) -> &'static str {
        match self.pool {
            Some(_) => "pool",
            None => "process",
        }
    }

    /// It is known to be left out before the run.
    pub fn is_left_out(&self) -> bool {
        self.skip.is_some()
    }

    /// Its place in the file.
    pub fn place(&self) -> Place {
        Place::of(&[self.table(), &self.base])
    }

    /// The services that are kept for it: those it waits for until they run or are ready. `nodes` are all of the plan. One may
    /// come twice.
    pub fn needs<'a>(&'a self, nodes: &'a [Node]) -> impl Iterator<Item = NodeId> + 'a {
        let waits = self.after.iter().filter(|wait| !wait.state.is_end());
        waits
            .map(|wait| wait.node)
            .filter(|node| nodes[node.index()].service.is_some())
    }
}

/// What makes a service of a process. How often it is restarted is its [`Settings::retry`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// When it is ready; none: as soon as it runs.
    pub ready: Option<Probe>,
}

/// How one sees that a service is ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// What is looked at.
    pub kind: ProbeKind,
    /// How long it may take until it is ready.
    pub timeout: Duration,
    /// Between two looks.
    pub interval: Interval,
}

/// A pause that grows by half, from the first to the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval {
    /// Before the second look.
    pub first: Duration,
    /// At most.
    pub last: Duration,
}

/// What is looked at to see that a service is ready. What the strings mean says [`probe`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeKind {
    /// This address takes a connection.
    Tcp(Template),
    /// A GET of this URL is answered, and not by an error.
    Http(Template),
    /// A line of its output matches this pattern.
    Log(Template),
    /// This file is there, and was not before the service was started.
    File(Template),
    /// This command, which runs as the service does, succeeds.
    Command(Vec<Template>),
}

/// Why a node is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Skip {
    /// `--skip`.
    ByUser,
    /// Its `when` does not hold.
    When(Unmet),
}

/// A condition (`when`) that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unmet {
    /// This variable is not in the node's environment.
    EnvUnset(Arc<str>),
    /// It is, and empty.
    EnvEmpty(Arc<str>),
    /// It is something else. Of the file, not what it is: that may be a secret.
    EnvIsNot {
        /// The variable.
        name: Arc<str>,
        /// What it would have to be.
        is: Arc<str>,
    },
    /// This param is something else.
    ParamIsNot {
        /// The param.
        name: Arc<str>,
        /// What it would have to be.
        is: Arc<str>,
    },
    /// Its command has said no.
    Command,
}

impl fmt::Display for Unmet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unmet::EnvUnset(name) => write!(f, "env {name} is not set"),
            Unmet::EnvEmpty(name) => write!(f, "env {name} is empty"),
            Unmet::EnvIsNot { name, is } => write!(f, "env {name} is not {is:?}"),
            Unmet::ParamIsNot { name, is } => write!(f, "param {name} is not {is:?}"),
            Unmet::Command => f.write_str("its command said no (exit 1)"),
        }
    }
}

/// A condition on another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct After {
    /// The node to wait for.
    pub node: NodeId,
    /// Until when.
    pub state: AfterState,
}

/// One process to run.
#[derive(Debug, Clone)]
pub struct Unit {
    /// Whose it is.
    pub node: NodeId,
    /// With whom it runs.
    pub group: GroupId,
    /// What it is to its node.
    pub role: Role,
    /// Its arguments, program first. For a script: the shell's argv, then the script as a literal.
    pub argv: Vec<Arg>,
    /// Environment of this node alone, over [`Plan::env`]; the later wins.
    pub env: Vec<(String, Template)>,
    /// What it shares with most other units.
    pub settings: Arc<Settings>,
    /// Where its descriptors lead; all-default units share one.
    pub ends: Arc<Ends>,
    /// Files (globs) it says that it reads and writes by itself.
    pub reads: Vec<Template>,
    /// See `reads`.
    pub writes: Vec<Template>,
}

/// What a unit is to its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The one process of a process node.
    Process,
    /// This worker, from 0, of a `stream` pool: a process that reads its share.
    Worker(u32),
    /// A `request` or `task` pool as a whole. To the rest of the graph it is like a process: its ends are the pool's, it runs
    /// until all is answered, and it is stopped as one. Inside, procflow feeds workers that come and go (`crate::pool`).
    Pool,
    /// Not a process: puts what the workers of a `stream` pool write to one file together, by whole records. It reads a queue
    /// of theirs and has the file among its outputs, so the file appears when all of them have succeeded.
    Gather,
}

/// What makes a pool of a process: several workers, and how they are fed.
#[derive(Debug, Clone, PartialEq)]
pub struct Pool {
    /// How many.
    pub workers: u32,
    /// How they get their work.
    pub feed: Feed,
    /// Fixed work instead of standard input.
    pub tasks: Option<Tasks>,
    /// The order of results (`request`, `task`).
    pub order: Order,
    /// Records handed over at once. `None`: `request` adapts itself, `task` hands over one, of a shared queue the workers of a
    /// `stream` pool get as many as fit a block.
    pub batch: Option<u32>,
    /// Records being worked on in the whole pool. `None`: no bound but the workers.
    pub max_in_flight: Option<u32>,
    /// A worker is replaced after so many records (`request`).
    pub recycle_after: Option<u64>,
    /// For one record (`request`, `task`).
    pub task_timeout: Option<Duration>,
    /// Tries after the first, for one record (`request`, `task`). What is tried again of a `stream` pool is its group, as of a
    /// process: that is in [`Settings::retry`].
    pub retry: Retry,
    /// A record is the standard input of the task that it is for (`task`): always for a `script`, and where the command
    /// mentions neither `${{ task }}` nor a field of it.
    pub record_on_stdin: bool,
    /// The pool writes the records that failed every try to its output of this name ([`DEAD_LETTER`]).
    pub dead_letter: bool,
}

/// The name, in [`Ends::outputs`], of the end to which a pool writes the records that failed every try. Its descriptor
/// exists in no process.
pub const DEAD_LETTER: &str = "dead_letter";

/// How the workers of a pool get their work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feed {
    /// Each worker is one process that reads its share until the end.
    Stream,
    /// Each worker is one process that gets a record and answers with exactly one.
    Request,
    /// A new process for each record.
    Task,
}

/// In which order a pool's results leave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// As they are done.
    #[default]
    Completion,
    /// As the records came.
    Input,
}

/// Fixed work of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tasks {
    /// `["a", "b"]`, or arrays: each task has fields, at least one.
    List(Vec<Vec<Box<str>>>),
    /// From the first number to the one before the second.
    Range(i64, i64),
    /// The files that match, sorted.
    Glob(Template),
    /// The lines of a file, read when the pool starts; cut into fields where there is a separator.
    Lines {
        /// The file.
        path: Template,
        /// Between fields.
        separator: Option<Box<str>>,
    },
}

/// One element of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arg {
    /// One argument.
    One(Template),
    /// An element that is nothing but `${{ in.X }}` of several queues: one argument for each.
    EachInput(Box<str>),
    /// An element that is nothing but `${{ task }}` of a batch: one argument for each record.
    EachTask,
}

/// Effective settings of a unit: the node's, else `[defaults]`, else procflow's.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The directory it runs in; relative to [`Plan::dir`].
    pub cwd: Template,
    /// It starts with an empty environment but for what the pipeline says : nothing is inherited.
    pub clear_env: bool,
    /// Per attempt.
    pub timeout: Option<Duration>,
    /// How it is stopped.
    pub stop_signal: i32,
    /// How long it has then until SIGKILL.
    pub stop_grace: Duration,
    /// Tries after the first.
    pub retry: Retry,
    /// Exit codes that count as success.
    pub success_codes: Vec<u8>,
    /// Exit codes that mean "my reader has gone".
    pub epipe_codes: Vec<u8>,
    /// `(RLIMIT_*, value)`, soft and hard alike.
    pub limits: Vec<(u32, u64)>,
    /// Added to the inherited niceness.
    pub nice: i32,
}

/// Retries, with every default filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct Retry {
    /// How many tries after the first.
    pub max: u32,
    /// Before the first retry.
    pub delay: Duration,
    /// Factor from one delay to the next.
    pub backoff: f64,
    /// Bound of the delay.
    pub max_delay: Duration,
    /// The delay is drawn between its half and its whole.
    pub jitter: bool,
    /// Only these exit codes are retried; empty: every failure.
    pub on_codes: Vec<u8>,
}

/// Where a unit's descriptors lead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ends {
    /// Descriptor 0 first, then `inputs` in the file's order.
    pub inputs: Vec<Input>,
    /// Descriptors 1 and 2 first, then `outputs` in the file's order.
    pub outputs: Vec<Output>,
}

/// One name of a unit's inputs: `stdin`, or a key of `inputs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// `stdin`, or the key; `${{ in.NAME }}`.
    pub name: Box<str>,
    /// The descriptors, one for each source.
    pub from: Vec<(u32, Source)>,
}

/// Where input comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// `/dev/null`
    Null,
    /// procflow's own standard input.
    Inherit,
    /// A file.
    File(Template),
    /// This text.
    Text(Arc<str>),
    /// A queue.
    Queue(QueueId),
}

/// One name of a unit's outputs: `stdout`, `stderr`, or a key of `outputs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// `stdout`, `stderr`, or the key; `${{ out.NAME }}`.
    pub name: Box<str>,
    /// The descriptor.
    pub fd: u32,
    /// Where it goes; each gets a copy where there are several.
    pub to: Vec<Sink>,
}

/// Where output goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sink {
    /// The node's log and the screen.
    Log,
    /// `/dev/null`
    Null,
    /// procflow's own standard output (standard error for `stderr`).
    Inherit,
    /// Kept as the node's value, up to 64 KiB.
    Value,
    /// (stderr only) the same end as stdout.
    Stdout,
    /// A file: written beside its target and renamed on success, or appended to in place.
    File {
        /// Where.
        path: Template,
        /// In place, at the end.
        append: bool,
    },
    /// A queue.
    Queue(QueueId),
}

/// What carries data between nodes.
#[derive(Debug, Clone)]
pub struct Queue {
    /// Its name.
    pub name: Arc<str>,
    /// A regular file that it is read from instead of writers: the `stdin = { file = "p" }` of a `stream` pool, whose workers
    /// share it.
    pub file: Option<Template>,
    /// Who writes it, in the file's order.
    pub writers: Vec<UnitId>,
    /// Who reads it, in the file's order.
    pub readers: Vec<UnitId>,
    /// How procflow carries it.
    pub kind: QueueKind,
    /// How its bytes are cut into records.
    pub records: crate::spec::Records,
    /// Bytes of the longest record, where the file says. Where it does not, [`settings::MAX_RECORD`] where procflow looks at
    /// records anyway.
    pub max_record: Option<u64>,
    /// Bytes held in memory; for a bare pipe its size.
    pub capacity: u64,
    /// Records held, where a count matters more than bytes.
    pub max_records: Option<u64>,
    /// What happens when it is full.
    pub overflow: Overflow,
    /// Who gets a record, with several readers.
    pub deliver: Deliver,
    /// So many first records go to every reader.
    pub header: u32,
    /// How several writers are put together.
    pub merge: crate::spec::Merge,
    /// What a writer's failure means for the readers.
    pub on_writer_failure: crate::spec::OnWriterFailure,
    /// It may close a cycle (spec 2.6): it leads back to one of its writers, or to a node upstream of it.
    pub feedback: bool,
}

impl Queue {
    /// procflow made it: the file does not name it. It stands for a file that the workers of a pool share or write together,
    /// or for a pool's copy of another queue.
    pub fn is_internal(&self) -> bool {
        self.name.contains('.')
    }

    /// What does not fit its memory goes to disk.
    pub fn spills(&self) -> bool {
        self.overflow == Overflow::Spill
    }
}

/// What happens when a queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overflow {
    /// Its writers wait.
    #[default]
    Block,
    /// It goes to disk. Also where it lies on an undirected cycle of its group (spec 2.4), and would block otherwise.
    Spill,
    /// What comes is dropped.
    DropNewest,
    /// What has waited longest is dropped.
    DropOldest,
}

/// Which of several readers gets a record.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Deliver {
    /// One that is free.
    #[default]
    Share,
    /// One after the other, record by record.
    RoundRobin,
    /// All of them.
    Copy,
    /// Equal keys go to the same reader.
    ByField {
        /// The key, from 1; 0 is the whole record.
        field: u32,
        /// Between fields; `None`: runs of spaces and tabs.
        separator: Option<Box<str>>,
    },
}

/// How procflow carries a queue.
///
/// It says nothing of what stands before a queue: where the writer's end is an array, each of its ends gets a copy, and a
/// tee stands between the writer and the (direct or relayed) queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueKind {
    /// One writer, one reader, nothing to look at: a kernel pipe between the two.
    Direct,
    /// Through a relay thread: several writers or readers, it may spill, or a rule of its records needs a look at the data.
    Relayed,
    /// Kept on disk as a whole. It joins its writers, and is one of the queues of their group, but not its readers: these start
    /// when all its writers have succeeded, and read the file.
    Stored,
}

/// Units joined by live queues: they start together, and a retry restarts them together.
#[derive(Debug, Clone)]
pub struct Group {
    /// Writers first; ties in the file's order.
    pub units: Vec<UnitId>,
    /// The queues between them. One that is stored joins no group, and is in none of these.
    pub queues: Vec<QueueId>,
    /// Job slots that it holds (spec 2.2).
    pub slots: u32,
    /// Bytes of memory that its nodes claim.
    pub memory: u64,
    /// What its nodes claim of each of [`Plan::resources`]: never more than there is. Empty: nothing of any.
    pub resources: Arc<[u32]>,
}
