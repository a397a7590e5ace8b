//! What the user said: the pipeline file as serde types, nothing decided yet.
//!
//! The doc comments of these types are the descriptions in `schemas/pipeline.schema.json`, which an editor shows while
//! one types. Types are plain (no spans): places are looked up by path when there is a problem to show.

pub mod values;

use indexmap::IndexMap;

use crate::spec::values::{ByteSize, Duration, OneOrMany, Signal};

/// A whole pipeline file.
#[derive(Debug, Clone, Default)]
pub struct Spec {
    /// The pipeline's name, for reports. Default: the file's stem.
    pub name: Option<String>,
    /// What the pipeline is for, in a sentence.
    pub description: Option<String>,
    /// How the run as a whole behaves.
    pub run: Run,
    /// Values that `--set NAME=VALUE` changes, used as `${{ params.NAME }}`, or `$PARAM_NAME` in scripts.
    pub params: IndexMap<String, Param>,
    /// Environment variables of every node.
    pub env: IndexMap<String, String>,
    /// Dotenv file or files, read before `env`.
    pub env_file: OneOrMany,
    /// Settings for every process that does not say otherwise.
    pub defaults: Defaults,
    /// The processes, by name.
    pub process: IndexMap<String, Process>,
    /// Settings of queues, by name. A queue needs none: naming it as an end of a process makes it.
    pub queue: IndexMap<String, Queue>,
}

/// `[run]`.
#[derive(Debug, Clone, Default)]
pub struct Run {
    /// Job slots. Default: the CPUs this process may use.
    pub jobs: Option<u32>,
    /// What a failure means for the rest of the run.
    pub on_failure: Option<OnFailure>,
    /// For the whole run.
    pub timeout: Option<Duration>,
}

/// What a node's failure means for the rest of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnFailure {
    /// Start nothing new, let what runs finish.
    #[default]
    Stop,
    /// End what runs, too.
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

/// `[defaults]`: settings for every process that does not say otherwise.
#[derive(Debug, Clone, Default)]
pub struct Defaults {
    pub shell: Option<Vec<String>>,
    pub cwd: Option<String>,
    pub clear_env: Option<bool>,
    pub timeout: Option<Duration>,
    pub stop_signal: Option<Signal>,
    pub stop_grace: Option<Duration>,
    pub retries: Option<Retries>,
    pub success_codes: Option<Vec<u8>>,
    pub epipe_codes: Option<Vec<u8>>,
    pub allow_failure: Option<bool>,
    pub limits: Option<Limits>,
}

/// `[process.NAME]`. (Rarely used parts are boxed: a file may hold 100,000 of these.)
#[derive(Debug, Clone, Default)]
pub struct Process {
    pub command: Option<Vec<String>>,
    pub script: Option<String>,
    pub shell: Option<Vec<String>>,
    pub cwd: Option<String>,
    pub env: Option<Box<IndexMap<String, String>>>,
    pub env_file: OneOrMany,
    pub clear_env: Option<bool>,
    pub stdin: Option<Stdin>,
    pub stdout: Option<Output>,
    pub stderr: Option<Output>,
    pub inputs: Option<Box<IndexMap<String, Inputs>>>,
    pub outputs: Option<Box<IndexMap<String, Output>>>,
    pub reads: OneOrMany,
    pub writes: OneOrMany,
    pub after: Vec<After>,
    pub timeout: Option<Duration>,
    pub stop_signal: Option<Signal>,
    pub stop_grace: Option<Duration>,
    pub retries: Option<Box<Retries>>,
    pub success_codes: Option<Vec<u8>>,
    pub epipe_codes: Option<Vec<u8>>,
    pub allow_failure: Option<bool>,
    pub cpus: Option<u32>,
    pub memory: Option<ByteSize>,
    pub limits: Option<Box<Limits>>,
    pub nice: Option<i32>,
    pub description: Option<String>,
    pub tags: Vec<String>,
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
    One(Stdin),
    Many(Vec<Stdin>),
}

/// `stdout`, `stderr`, or a value of `outputs`: one sink, or an array of which each gets a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    One(Sink),
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
    File { path: String, append: bool },
    /// Any other string: a queue's name.
    Queue(String),
}

/// An element of `after`: `"a"`, or `{ node = "a", state = "finished" }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct After {
    pub node: String,
    pub state: AfterState,
}

/// What to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum AfterState {
    #[default]
    Succeeded,
    /// It failed, or was cancelled.
    Failed,
    /// It ended, in whatever state (a skipped node has ended, too).
    Finished,
    /// Its process runs, or has run.
    Started,
}

/// `retries = 3`, or a table.
#[derive(Debug, Clone, PartialEq)]
pub struct Retries {
    pub max: u32,
    pub delay: Option<Duration>,
    pub backoff: Option<f64>,
    pub max_delay: Option<Duration>,
    pub jitter: Option<bool>,
    pub on_codes: Vec<u8>,
}

/// `limits`: resource limits, as setrlimit(2) takes them (soft and hard alike).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Limits {
    /// RLIMIT_AS
    pub memory: Option<ByteSize>,
    /// RLIMIT_CPU, rounded up to seconds
    pub cpu_time: Option<Duration>,
    /// RLIMIT_NOFILE
    pub open_files: Option<u64>,
    /// RLIMIT_FSIZE
    pub file_size: Option<ByteSize>,
    /// RLIMIT_NPROC
    pub processes: Option<u64>,
    /// RLIMIT_CORE
    pub core: Option<ByteSize>,
}

/// `[queue.NAME]`. Only what works already is here (and so in the schema); the rest of spec 1.4 comes with the queues.
#[derive(Debug, Clone, Default)]
pub struct Queue {
    pub records: Option<Records>,
    pub max_record: Option<ByteSize>,
    pub capacity: Option<ByteSize>,
    pub deliver: Option<Deliver>,
    pub merge: Option<Merge>,
    pub on_writer_failure: Option<OnWriterFailure>,
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

/// With several readers: who gets a record. (Shares come with the pools.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deliver {
    /// Every reader gets all.
    Copy,
}

/// With several writers: whole records as they arrive, or writer after writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Merge {
    #[default]
    Arrive,
    Sequence,
}

/// What a writer's failure means for the queue's readers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnWriterFailure {
    /// They are stopped and never see the end of data.
    #[default]
    Cancel,
    /// For them the data has then ended, as in a shell.
    Close,
}
