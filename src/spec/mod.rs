//! What the user said: the pipeline file as serde types, nothing decided yet.
//!
//! The doc comments of these types are the descriptions in `schemas/pipeline.schema.json`, which an editor shows while
//! one types. Types are plain (no spans): places are looked up by path when there is a problem to show.

pub mod values;

mod ends;
mod matrix;
mod pieces;
pub(crate) mod pools;
mod read;
mod schema;
mod service;
mod source;
mod syntax;
mod when;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::spec::values::{Amount, ByteSize, Duration, OneOrMany, Signal};

pub use crate::spec::read::{Partial, Wrong, read};
pub use crate::spec::schema::pipeline_schema;
pub use crate::spec::service::{Probe, ProbeKind, Restart, Service};
pub use crate::spec::source::{MAX_FILE, Source, SourceError};
pub use crate::spec::when::When;

/// A procflow pipeline: processes, joined by queues.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
#[schemars(title = "procflow pipeline")]
pub struct Spec {
    /// The pipeline's name, for reports. Default: the file's name without its extension.
    pub name: Option<String>,
    /// What the pipeline is for, in a sentence. Shown by reports.
    pub description: Option<String>,
    /// How the run as a whole behaves: job slots, what a failure means, a time limit.
    pub run: Run,
    /// Values that `--set NAME=VALUE` changes: `book = "book.txt"`, or a table. Used as `${{ params.book }}` in strings, and as `$PARAM_BOOK` in scripts.
    pub params: IndexMap<String, Param>,
    /// Environment variables of every process: `LC_ALL = "C"`. They win over inherited ones and over `env_file`; a process's own `env` wins over them.
    pub env: IndexMap<String, String>,
    /// Dotenv file or files with environment variables for every process, such as `".env"`; read before `env`, which wins. Relative to this file.
    pub env_file: OneOrMany,
    /// Settings for every process that does not say otherwise.
    pub defaults: Defaults,
    /// The processes, by name: `[process.sort]`. A name begins with a letter or `_`; letters, digits, `_` and `-` follow.
    pub process: IndexMap<String, Process>,
    /// The pools, by name: `[pool.count]`. A pool is a process that runs several times, as workers that share what comes in.
    #[serde(deserialize_with = "pools::pools")]
    #[schemars(with = "IndexMap<String, PoolTable>")]
    pub pool: IndexMap<String, Process>,
    /// Settings of queues, by name: `[queue.lines]`. Most queues need none: naming one as an end of a process makes it.
    pub queue: IndexMap<String, Queue>,
}

/// How the run as a whole behaves.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct Run {
    /// Job slots: how many processes run at once. `--jobs` wins over it. Default: the CPUs that procflow may use.
    #[serde(deserialize_with = "values::jobs")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub jobs: Option<u32>,
    /// What a failed process means for the rest of the run. `--on-failure` and `--keep-going` win over it. Default: `"stop"`.
    pub on_failure: Option<OnFailure>,
    /// Time limit of the whole run, such as `"2h"`; when it is over everything is stopped, and the exit code is 124. Default: none.
    pub timeout: Option<Duration>,
    /// Counters of what there is, from which nodes claim by their `resources`: `{ gpu = 2, db = 1 }`. Nodes whose claims add up to more wait for each other. Default: none.
    pub resources: IndexMap<String, Amount>,
    /// How make, cargo and ninja below share the job slots: by `"pipe"` (make, cargo), by `"fifo"` (make from 4.4, cargo, ninja from 1.13), or `"none"`: they start as many jobs as they like. Default: `"pipe"`.
    pub jobserver: Option<JobserverStyle>,
}

/// How job slots are shared with programs that know GNU make's jobserver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, JsonSchema)]
#[schemars(rename_all = "lowercase")]
pub enum JobserverStyle {
    /// By a pipe that nodes inherit.
    #[default]
    Pipe,
    /// By a name that nodes open.
    Fifo,
    /// Not at all.
    None,
}

/// What a node's failure means for the rest of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, JsonSchema)]
#[schemars(rename_all = "lowercase")]
pub enum OnFailure {
    /// Start nothing new, let what runs finish.
    #[default]
    Stop,
    /// Stop what runs, too.
    Kill,
    /// Run all that does not depend on the failure.
    Continue,
}

/// A parameter: `NAME = "default"` or a table.
#[derive(Debug, Clone, Default)]
pub struct Param {
    /// The value where nothing else says one.
    pub default: Option<String>,
    /// One line for people.
    pub help: Option<String>,
    /// The values that are allowed.
    pub choices: Vec<String>,
    /// It must be given.
    pub required: bool,
    /// Its value is shown nowhere.
    pub secret: bool,
    /// Taken from this environment variable where `--set` does not say.
    pub env: Option<String>,
}

/// A parameter as a table.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
struct ParamTable {
    /// The value where neither `--set` nor `env` gives one.
    default: Option<String>,
    /// What it is for, in one line.
    help: Option<String>,
    /// The values that are allowed: `["debug", "release"]`. Default: any.
    choices: Vec<String>,
    /// It must be given by `--set` or by `env`. Default: false.
    required: bool,
    /// Its value is shown nowhere: `***` stands for it on the screen, in logs and in reports. Default: false.
    secret: bool,
    /// Environment variable that gives the value where `--set` does not, such as `"CI_TOKEN"`.
    env: Option<String>,
}

/// Settings for every process that does not say otherwise.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct Defaults {
    /// Runs every `script`, whose text is handed over as the last argument. Default: `["sh", "-e", "-c"]`.
    #[serde(deserialize_with = "values::argv")]
    #[schemars(length(min = 1))]
    pub shell: Option<Vec<String>>,
    /// The directory that processes run in, relative to this file. Default: this file's directory.
    pub cwd: Option<String>,
    /// Processes inherit nothing of procflow's environment, and have only what the pipeline sets. Default: false.
    pub clear_env: Option<bool>,
    /// Time limit of each attempt of a process, such as `"30s"`; then it is stopped, and has failed. Default: none.
    pub timeout: Option<Duration>,
    /// The signal that stops a process (its whole process group), such as `"INT"`. Default: `"TERM"`.
    pub stop_signal: Option<Signal>,
    /// How long a process has after `stop_signal` until it is killed. Default: `"5s"`.
    pub stop_grace: Option<Duration>,
    /// How often a failed process is tried again: `3`, or a table. Default: 0.
    pub retries: Option<Retries>,
    /// Exit codes that count as success: `[0, 1]` for grep. Default: `[0]`.
    #[serde(deserialize_with = "values::some_codes")]
    pub success_codes: Option<Vec<u8>>,
    /// Exit codes by which a program says that its reader has gone, as others do by SIGPIPE; no failure where the readers had succeeded. Default: `[120, 141]`.
    #[serde(deserialize_with = "values::some_codes")]
    pub epipe_codes: Option<Vec<u8>>,
    /// Failures fail neither the run nor what comes after. Default: false.
    pub allow_failure: Option<bool>,
    /// Resource limits of each process. Default: inherited.
    pub limits: Option<Limits>,
    /// Added to the niceness of each process, as nice(1) does. Default: 0.
    #[serde(deserialize_with = "values::nice")]
    #[schemars(range(min = -20, max = 19))]
    pub nice: Option<i32>,
}

/// Makes two types of one list of keys: the process, and the table of a pool, which has all of them and more.
///
/// serde's `flatten` would do it in a line, but it takes away what this file needs most: unknown keys are then no errors, and
/// what is wrong with a value has lost its place.
macro_rules! process {
    ($( $(#[$meta:meta])* pub $key:ident: $type:ty, )*) => {
        /// A process: one program with its arguments, or a script.
        // Rarely used parts are boxed: a file may hold 100,000 of these.
        #[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
        #[serde(default, deny_unknown_fields, expecting = "a table")]
        pub struct Process {
            $( $(#[$meta])* pub $key: $type, )*
            /// What makes a pool of it (`[pool.NAME]`); none in `[process.NAME]`.
            #[serde(skip)]
            pub pool: Option<Box<Pool>>,
        }

        /// A pool: a process that runs several times, as workers that share what comes in. It has all keys of a process, too.
        #[derive(Default, Deserialize, JsonSchema)]
        #[serde(default, deny_unknown_fields, expecting = "a table")]
        #[schemars(rename = "Pool")]
        pub(crate) struct PoolTable {
            $( $(#[$meta])* $key: $type, )*
            /// How many workers: a number, or `"auto"`, as many as there are job slots. Default: `"auto"`.
            workers: Option<Workers>,
            /// How the workers get their records: `"stream"`, each reads its share to the end; `"request"`, each answers record by record; `"task"`, a new process for each record. Default: `"stream"`; `"task"` where there are `tasks`.
            feed: Option<Feed>,
            /// Fixed work instead of `stdin`: `["a", "b"]`, `{ range = [0, 100] }`, `{ glob = "*.csv" }` or `{ lines = "list.txt" }`.
            tasks: Option<Tasks>,
            /// Results as the records came, `"input"`, or as they are done, `"completion"` (`request` and `task`). Default: `"completion"`.
            order: Option<Order>,
            /// Records that a worker is handed at once. Default: `task`: 1; `request` adapts itself; `stream`: as many as fit a block.
            #[serde(deserialize_with = "pools::count")]
            #[schemars(range(min = 1, max = 1_000_000))]
            batch: Option<u32>,
            /// Records that are being worked on in the whole pool (`request` and `task`); 1 makes it sequential. Default: no bound but the workers.
            #[serde(deserialize_with = "pools::count")]
            #[schemars(range(min = 1, max = 1_000_000))]
            max_in_flight: Option<u32>,
            /// A worker is replaced after so many records (`request`). Default: never.
            #[serde(deserialize_with = "pools::long_count")]
            #[schemars(range(min = 1))]
            recycle_after: Option<u64>,
            /// Time limit of each record, such as `"10s"` (`request` and `task`); then its try has failed. Default: none.
            task_timeout: Option<Duration>,
            /// Queue that gets the records that failed every try (`request` and `task`). Default: such a record fails the pool.
            dead_letter: Option<String>,
        }

        impl From<PoolTable> for Process {
            fn from(table: PoolTable) -> Self {
                Process {
                    $( $key: table.$key, )*
                    pool: Some(Box::new(Pool {
                        workers: table.workers,
                        feed: table.feed,
                        tasks: table.tasks,
                        order: table.order,
                        batch: table.batch,
                        max_in_flight: table.max_in_flight,
                        recycle_after: table.recycle_after,
                        task_timeout: table.task_timeout,
                        dead_letter: table.dead_letter,
                        behind: 0,
                    })),
                }
            }
        }
    };
}

process! {
    /// The program and its arguments, without a shell: `["sort", "-n"]`. Either this or `script`.
    #[serde(deserialize_with = "values::argv")]
    #[schemars(length(min = 1))]
    pub command: Option<Vec<String>>,
    /// Text for the shell (see `shell`): `"sort | uniq -c"`. Values come as environment variables: `$PARAM_X`, `$IN_X`. Either this or `command`.
    pub script: Option<String>,
    /// Runs `script`, whose text is handed over as the last argument: `["bash", "-euo", "pipefail", "-c"]`. Default: `["sh", "-e", "-c"]`.
    #[serde(deserialize_with = "values::argv")]
    #[schemars(length(min = 1))]
    pub shell: Option<Vec<String>>,
    /// The directory that it runs in, relative to this file. Default: this file's directory.
    pub cwd: Option<String>,
    /// Environment variables of this process: `{ LC_ALL = "C" }`. They win over all others.
    pub env: Option<Box<IndexMap<String, String>>>,
    /// Dotenv file or files for this process; its `env` wins over them. Relative to this file.
    pub env_file: OneOrMany,
    /// It inherits nothing of procflow's environment, and has only what the pipeline sets. Default: false.
    pub clear_env: Option<bool>,
    /// What it reads: a queue's name, `{ file = "p" }`, `{ text = "..." }`, `"null"` or `"inherit"`. Default: `"null"`.
    pub stdin: Option<Stdin>,
    /// Where its output goes: a queue's name, `{ file = "p" }` (appears only when it has succeeded), `"log"`, `"null"`, `"inherit"`, `"value"`, or an array of these: each gets a copy. Default: `"log"`.
    #[serde(deserialize_with = "ends::stdout")]
    #[schemars(with = "Option<schema::Stdout>")]
    pub stdout: Option<Output>,
    /// Where its error output goes: as `stdout`, or `"stdout"` to join it. Default: `"log"`.
    #[serde(deserialize_with = "ends::stderr")]
    #[schemars(with = "Option<schema::Stderr>")]
    pub stderr: Option<Output>,
    /// More inputs: `{ left = "q1" }` gives the path `${{ in.left }}`, `$IN_LEFT` in a script. A number as the name is that descriptor. An array or a pattern such as `"sorted-*"` gives several.
    pub inputs: Option<Box<IndexMap<String, Inputs>>>,
    /// More outputs: `{ rest = "q2" }` gives the path `${{ out.rest }}`, `$OUT_REST` in a script. A number as the name is that descriptor: `{ 3 = "q2" }`.
    #[serde(deserialize_with = "ends::outputs")]
    pub outputs: Option<Box<IndexMap<String, Output>>>,
    /// Files that it reads by itself, as names or globs: `["src/*.c"]`. Relative to this file.
    pub reads: OneOrMany,
    /// Files that it writes by itself, as names or globs. Relative to this file.
    pub writes: OneOrMany,
    /// What it waits for: `["a", { node = "b", state = "finished" }]`. Without a state: until that node has succeeded, or, if it is a service, is ready.
    #[serde(deserialize_with = "ends::after")]
    pub after: Vec<After>,
    /// On what condition it runs: `{ env = "CI" }`, `{ env = "X", is = "y" }`, `{ param = "deploy", is = "yes" }` or `{ command = [..] }`. Else it is skipped, which is no failure. Default: always.
    pub when: Option<Box<When>>,
    /// Time limit of each attempt, such as `"30s"`; then it is stopped, and has failed. Default: none.
    pub timeout: Option<Duration>,
    /// The signal that stops it (its whole process group), such as `"INT"`. Default: `"TERM"`.
    pub stop_signal: Option<Signal>,
    /// How long it has after `stop_signal` until it is killed. Default: `"5s"`.
    pub stop_grace: Option<Duration>,
    /// How often it is tried again when it fails: `3`, or a table. Processes joined to it by queues start again with it. Default: 0.
    pub retries: Option<Box<Retries>>,
    /// Exit codes that count as success: `[0, 1]` for grep. Default: `[0]`.
    #[serde(deserialize_with = "values::some_codes")]
    pub success_codes: Option<Vec<u8>>,
    /// Exit codes by which it says that its reader has gone, as others do by SIGPIPE (Python: `[1, 120]`); no failure where the readers had succeeded. Default: `[120, 141]`.
    #[serde(deserialize_with = "values::some_codes")]
    pub epipe_codes: Option<Vec<u8>>,
    /// Its failure fails neither the run nor what comes after it. Default: false.
    pub allow_failure: Option<bool>,
    /// Job slots that it holds while it runs, of a pool those of each worker. Default: 1; processes joined by queues share one.
    #[serde(deserialize_with = "values::cpus")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub cpus: Option<u32>,
    /// Memory that it will need, such as `"2GiB"`: processes wait while the sum is more than the machine has. It is no limit (see `limits`). Default: none.
    pub memory: Option<ByteSize>,
    /// What it claims of the counters in `[run] resources` while it runs, of a pool each worker: `{ gpu = 1 }`. It waits until so much is free. Default: none.
    pub resources: Option<Box<IndexMap<String, Amount>>>,
    /// Resource limits: `{ memory = "1GiB", open_files = 256 }`. Default: inherited.
    pub limits: Option<Box<Limits>>,
    /// Added to its niceness, as nice(1) does: 10 makes it give way to others. Default: 0.
    #[serde(deserialize_with = "values::nice")]
    #[schemars(range(min = -20, max = 19))]
    pub nice: Option<i32>,
    /// It is a service, which runs for as long as somebody waits for it or needs it: `true`, or a table such as `{ ready = { tcp = "127.0.0.1:5432" } }`. Default: false.
    #[serde(deserialize_with = "service::service")]
    pub service: Option<Box<Service>>,
    /// Runs once for each combination of these values: `{ py = ["3.11", "3.12"], db = ["pg", "sqlite"] }` gives `test[py=3.11,db=pg]` and three more. `exclude` leaves combinations out, `include` adds some. Used as `${{ matrix.py }}` in strings, and as `$MATRIX_PY` in scripts.
    pub matrix: Option<Box<Matrix>>,
    /// What it does, in a sentence. Shown by reports.
    pub description: Option<String>,
    /// Words to select it by: `--only @TAG`.
    pub tags: Vec<String>,
}

/// `matrix`: one node for each combination of the axes' values.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Matrix {
    /// Each axis with its values, in the file's order.
    pub axes: IndexMap<String, Vec<String>>,
    /// Combinations that have all of these values are left out.
    pub exclude: Vec<IndexMap<String, String>>,
    /// Combinations that are added, or values for combinations that are there.
    pub include: Vec<IndexMap<String, String>>,
}

/// What makes a pool of a process.
#[derive(Debug, Clone, Default)]
pub struct Pool {
    /// How many.
    pub workers: Option<Workers>,
    /// How they get their records.
    pub feed: Option<Feed>,
    /// Fixed work instead of standard input.
    pub tasks: Option<Tasks>,
    /// The order of results.
    pub order: Option<Order>,
    /// Records handed over at once.
    pub batch: Option<u32>,
    /// Records being worked on in the whole pool.
    pub max_in_flight: Option<u32>,
    /// A worker is replaced after so many records.
    pub recycle_after: Option<u64>,
    /// For one record.
    pub task_timeout: Option<Duration>,
    /// The queue of the records that failed every try.
    pub dead_letter: Option<String>,
    /// So many processes stand before it in the file: TOML keeps processes and pools in two tables, and their order among each
    /// other is lost but for this.
    pub behind: usize,
}

/// `workers`: a number, or a string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Workers {
    /// So many.
    Number(u32),
    /// `"auto"`: as many as there are job slots.
    Auto,
    /// A template that stands for one of these: `"${{ params.workers }}"`.
    Template(String),
}

/// How the workers of a pool get their records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema)]
#[schemars(rename_all = "lowercase")]
pub enum Feed {
    /// Each worker is one process that reads its share until the end.
    Stream,
    /// Each worker is one process that gets a record and answers with exactly one.
    Request,
    /// A new process for each record.
    Task,
}

/// In which order results leave a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema)]
#[schemars(rename_all = "lowercase")]
pub enum Order {
    /// As the records came.
    Input,
    /// As they are done.
    Completion,
}

/// Fixed work of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tasks {
    /// `["a", "b"]`, or arrays: `[["a", "1"], ["b", "2"]]`.
    List(Vec<Vec<String>>),
    /// `{ range = [0, 100] }`: 0 to 99.
    Range(i64, i64),
    /// `{ glob = "*.csv" }`
    Glob(String),
    /// `{ lines = "list.txt", separator = "\t" }`
    Lines {
        /// The file.
        path: String,
        /// Between fields.
        separator: Option<String>,
    },
}

/// `stdin`, or an element of `inputs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stdin {
    /// `"null"`
    Null,
    /// `"inherit"`
    Inherit,
    /// `{ file = "p" }`
    File(String),
    /// `{ text = "..." }`
    Text(String),
    /// Any other string: a queue's name; in `inputs` it may be a pattern such as `sorted-*`.
    Queue(String),
}

/// The value of a key of `inputs`: one end or several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inputs {
    /// A single end (or a pattern, which may stand for several).
    One(Stdin),
    /// An array of ends.
    Many(Vec<Stdin>),
}

/// `stdout`, `stderr`, or a value of `outputs`: one sink, or an array of which each gets a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// A single sink.
    One(Sink),
    /// An array of sinks.
    Many(Vec<Sink>),
}

/// Where output goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sink {
    /// `"log"`
    Log,
    /// `"null"`
    Null,
    /// `"inherit"`
    Inherit,
    /// `"value"` (stdout only)
    Value,
    /// `"stdout"` (stderr only): the same end as stdout.
    Stdout,
    /// `{ file = "p", append = false }`
    File {
        /// The file's path.
        path: String,
        /// Written in place, at the end.
        append: bool,
    },
    /// Any other string: a queue's name.
    Queue(String),
}

/// An element of `after`: `"a"`, or `{ node = "a", state = "finished" }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct After {
    /// The node to wait for.
    pub node: String,
    /// Until when; where nothing is said, a service is waited for until it is ready, any other node until it has succeeded.
    pub state: Option<AfterState>,
}

/// What to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, JsonSchema)]
#[schemars(rename_all = "lowercase")]
pub enum AfterState {
    /// It has succeeded.
    #[default]
    Succeeded,
    /// It has failed, or was cancelled. Where that never comes, the waiting node is skipped.
    Failed,
    /// It has ended, in whatever state (a skipped node has ended, too).
    Finished,
    /// Its process runs, or has run.
    Started,
    /// It is a service, and ready.
    Ready,
}

impl AfterState {
    /// It comes no earlier than the end of the node that is waited for.
    pub fn is_end(self) -> bool {
        match self {
            AfterState::Succeeded | AfterState::Failed | AfterState::Finished => true,
            AfterState::Started | AfterState::Ready => false,
        }
    }
}

/// `retries = 3`, or a table.
#[derive(Debug, Clone, PartialEq)]
pub struct Retries {
    /// Tries after the first.
    pub max: u32,
    /// Before the first retry.
    pub delay: Option<Duration>,
    /// Factor from one delay to the next.
    pub backoff: Option<f64>,
    /// Bound of the delay.
    pub max_delay: Option<Duration>,
    /// The delay is drawn between its half and its whole.
    pub jitter: Option<bool>,
    /// Only these exit codes are retried; empty: every failure.
    pub on_codes: Vec<u8>,
}

/// Retries as a table: how many, and how long to wait before each.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
struct RetriesTable {
    /// How many tries there are after the first.
    #[serde(deserialize_with = "values::tries")]
    #[schemars(range(min = 0, max = 1_000_000))]
    max: u32,
    /// How long to wait before the first retry. Default: `"1s"`.
    delay: Option<Duration>,
    /// By what each delay is longer than the one before. Default: 2.0.
    #[serde(default, deserialize_with = "values::backoff")]
    #[schemars(range(min = 1.0, max = 1000.0))]
    backoff: Option<f64>,
    /// What a delay grows to at most. Default: `"1m"`.
    max_delay: Option<Duration>,
    /// Each delay is drawn at random between its half and its whole. Default: true.
    jitter: Option<bool>,
    /// Only these exit codes are retried: `[75]`. Default: every failure.
    #[serde(default, deserialize_with = "values::codes")]
    on_codes: Vec<u8>,
}

/// Resource limits, as setrlimit(2) takes them (soft and hard alike).
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct Limits {
    /// Address space (RLIMIT_AS), such as `"1GiB"`.
    pub memory: Option<ByteSize>,
    /// CPU time (RLIMIT_CPU), rounded up to seconds, such as `"10m"`.
    pub cpu_time: Option<Duration>,
    /// Open file descriptors (RLIMIT_NOFILE).
    #[serde(deserialize_with = "values::count")]
    pub open_files: Option<u64>,
    /// Size of a file that it writes (RLIMIT_FSIZE).
    pub file_size: Option<ByteSize>,
    /// Processes of this user (RLIMIT_NPROC).
    #[serde(deserialize_with = "values::count")]
    pub processes: Option<u64>,
    /// Size of a core dump (RLIMIT_CORE); 0: none.
    pub core: Option<ByteSize>,
}

/// Settings of a queue.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct Queue {
    /// How its bytes are cut into records, which are never split or mixed: `"lines"`, `"nul"`, `{ separator = "\n\n" }` and more. Default: `"lines"`.
    pub records: Option<Records>,
    /// The longest record; a longer one fails its writer. Default: `"16MiB"`.
    pub max_record: Option<ByteSize>,
    /// Bytes held in memory before the writer has to wait. Default: `"256KiB"`.
    pub capacity: Option<ByteSize>,
    /// Records held before the writer has to wait, where a count matters more than bytes. Default: none.
    #[serde(deserialize_with = "pools::long_count")]
    #[schemars(range(min = 1))]
    pub max_records: Option<u64>,
    /// What happens when it is full: `"block"` the writer, `"spill"` to disk, `"drop_newest"` or `"drop_oldest"`. Default: `"block"`; `"spill"` where data splits and meets again.
    pub overflow: Option<Overflow>,
    /// Who gets a record: `"share"`, whoever is free; `"round_robin"`; `"copy"`, every reader gets all; `{ by_field = 1 }`, equal keys go to the same reader. Default: a pool's workers share; several reading nodes must say.
    pub deliver: Option<Deliver>,
    /// With several writers: how their records are put together. Default: `"arrive"`.
    pub merge: Option<Merge>,
    /// So many first records go to every reader, every worker and every task. Default: 0.
    #[serde(deserialize_with = "pools::header")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub header: Option<u32>,
    /// Keep all of it on disk: its readers start when its writers have ended. Default: false; true where a reader waits for its writer.
    pub store: Option<bool>,
    /// What a writer's failure means for the readers. Default: `"cancel"`.
    pub on_writer_failure: Option<OnWriterFailure>,
    /// It may lead back to a node that it comes from. Default: false.
    pub feedback: Option<bool>,
}

/// What happens when a queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub enum Overflow {
    /// Its writers wait.
    Block,
    /// What does not fit goes to disk.
    Spill,
    /// What comes is dropped; how much is reported.
    DropNewest,
    /// What has waited longest is dropped; how much is reported.
    DropOldest,
}

/// How a queue's bytes are cut into records.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Records {
    /// `"lines"`
    #[default]
    Lines,
    /// `"nul"`
    Nul,
    /// `"length32"`: 4-byte big-endian length, then the record.
    Length32,
    /// `{ size = 16 }`
    Size(u32),
    /// `{ separator = "\n\n" }`
    Separator(String),
    /// `{ start = ">" }`: a record begins with a line that starts so.
    Start(String),
    /// `"bytes"`: no records, any cut will do.
    Bytes,
}

/// Which of several readers gets a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deliver {
    /// `"share"`: one that is free.
    Share,
    /// `"round_robin"`: one after the other, record by record.
    RoundRobin,
    /// `"copy"`: every reader gets all.
    Copy,
    /// `{ by_field = 1, separator = "\t" }`: equal keys go to the same reader.
    ByField {
        /// The key, from 1; 0 is the whole record.
        field: u32,
        /// Between fields; none: runs of spaces and tabs.
        separator: Option<String>,
    },
}

/// With several writers: whole records as they arrive, or writer after writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, JsonSchema)]
#[schemars(rename_all = "lowercase")]
pub enum Merge {
    /// Whole records as they arrive.
    #[default]
    Arrive,
    /// Writer after writer, in the file's order.
    Sequence,
}

/// What a writer's failure means for the queue's readers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, JsonSchema)]
#[schemars(rename_all = "lowercase")]
pub enum OnWriterFailure {
    /// They are stopped and never see the end of data.
    #[default]
    Cancel,
    /// For them the data has then ended, as in a shell.
    Close,
}
