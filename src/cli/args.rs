//! The command line as clap types. What the arguments mean stands at their use; here is what people read.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue};
use clap::{Args, FromArgMatches, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::engine::ArgValueCompleter;

use crate::cli::completions;
use crate::diagnostic::harmless;
use crate::spec::OnFailure;
use crate::spec::values::Duration;
use crate::store::KEEP;

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "procflow",
    version,
    about = "Runs a graph of processes, joined by queues, that a TOML file describes",
    after_help = "A first pipeline: `procflow init`, then `procflow run pipeline.toml`.",
    arg_required_else_help = true,
    subcommand_required = true,
    max_term_width = 100
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a pipeline
    #[command(
        after_help = "Exit code: 0 every node succeeded, 1 a node failed, 2 the command line or the pipeline is wrong,\n3 procflow itself could not go on, 124 the run's time was over; ended by a signal: that signal."
    )]
    Run(Box<RunArgs>),
    /// Look for everything that is wrong with pipelines, without running them
    Check(CheckArgs),
    /// Show what would run, in start order
    Plan(PlanArgs),
    /// Show every effective value of a node, and where it comes from
    Explain(ExplainArgs),
    /// Draw the graph as text, as a picture (SVG), or for Graphviz or Mermaid
    Graph(GraphArgs),
    /// List earlier runs, and those that go on
    Runs(RunsArgs),
    /// Show what a run did: its failures and its table
    Show(ShowArgs),
    /// Print what the nodes of a run printed
    Logs(LogsArgs),
    /// Show the runs that go on, and their nodes
    Ps(PsArgs),
    /// End a run as Ctrl-C would, and wait until it has ended
    Stop(StopArgs),
    /// Start one node of an earlier run again, alone, here
    #[command(
        after_help = "Exit code: that of the node, 128 + the signal that ended it; 2 where it cannot be replayed."
    )]
    Replay(ReplayArgs),
    /// Print a JSON Schema, for editors and other readers
    Schema(SchemaArgs),
    /// Write a commented pipeline to start from
    Init(InitArgs),
    /// Print a script that completes procflow's command line
    #[command(
        after_help = "bash: source <(procflow completions bash)\nzsh:  source <(procflow completions zsh)\nfish: procflow completions fish | source"
    )]
    Completions(CompletionsArgs),
    /// Print the manual page: `procflow man | man -l -`
    Man,
}

/// The pipeline, and the values of its parameters.
#[derive(Debug, Clone, Args)]
pub struct PipelineArgs {
    /// The pipeline file; `-` reads standard input
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub set: SetArgs,
}

/// `--set`.
#[derive(Debug, Clone, Args)]
pub struct SetArgs {
    /// Set a parameter of the pipeline (repeatable)
    #[arg(long, value_name = "NAME=VALUE", value_parser = assignment, help_heading = "Pipeline", add = ArgValueCompleter::new(completions::params))]
    pub set: Vec<(String, String)>,
}

/// `--only` and `--skip`.
#[derive(Debug, Clone, Args)]
pub struct SelectArgs {
    /// Run this node, or every node with this tag, and what it needs (repeatable)
    #[arg(long, value_name = "NODE|@TAG", help_heading = "Pipeline", add = ArgValueCompleter::new(completions::nodes_and_tags))]
    pub only: Vec<String>,
    /// Leave this node out; what comes after it goes on as if it had succeeded (repeatable)
    #[arg(long, value_name = "NODE", help_heading = "Pipeline", add = ArgValueCompleter::new(completions::nodes))]
    pub skip: Vec<String>,
}

/// `procflow run`.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub pipeline: PipelineArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub select: SelectArgs,

    /// Job slots [default: the file's `run.jobs`, else the CPUs that procflow may use]
    #[arg(short, long, value_name = "N", value_parser = job_slots, help_heading = "Running")]
    pub jobs: Option<u32>,
    /// Run all that does not depend on a failure: `--on-failure continue`
    #[arg(short, long, conflicts_with = "on_failure", help_heading = "Running")]
    pub keep_going: bool,
    /// What a failure means for the rest of the run [default: the file's `run.on_failure`, else stop]
    #[arg(long, value_enum, value_name = "POLICY", help_heading = "Running")]
    pub on_failure: Option<OnFailure>,
    /// Time limit of the whole run, such as 90s or 2h
    #[arg(long, value_name = "DURATION", value_parser = duration, help_heading = "Running")]
    pub timeout: Option<Duration>,
    /// Start nothing: go through the run as if every process succeeded at once
    #[arg(short = 'n', long, help_heading = "Running")]
    pub dry_run: bool,
    /// Take up an earlier run: nodes that it has finished, and of which nothing has changed, are reused. RUN is its id, the
    /// beginning of that, or `last` [default: the last run of this pipeline file]
    #[arg(long, value_name = "RUN", num_args = 0..=1, require_equals = true, help_heading = "Running")]
    pub resume: Option<Option<String>>,
    /// Exit with the code of this node's process (128 + the signal that ended it)
    #[arg(long, value_name = "NODE", help_heading = "Running", add = ArgValueCompleter::new(completions::nodes))]
    pub exit_code_from: Option<String>,
    /// Say who waits for whom when nothing has moved in a group for so long: for tests, which don't wait for 30 seconds
    #[arg(long, hide = true, value_name = "DURATION", value_parser = duration)]
    pub stalled_after: Option<Duration>,

    /// Print a copy of what passes through this queue (repeatable)
    #[arg(long, value_name = "QUEUE", help_heading = "Output", add = ArgValueCompleter::new(completions::queues))]
    pub tap: Vec<String>,
    /// Record the standard input of this node, for `procflow replay` (repeatable)
    #[arg(long, value_name = "NODE", help_heading = "Output", add = ArgValueCompleter::new(completions::nodes))]
    pub record: Vec<String>,
    /// What to show of the run's progress
    #[arg(long, value_enum, default_value_t = Progress::Auto, value_name = "HOW", help_heading = "Output")]
    pub progress: Progress,
    /// What to show of the nodes' output [default: prefixed on a terminal, else grouped]
    #[arg(long, value_enum, value_name = "HOW", help_heading = "Output")]
    pub output: Option<NodeOutput>,
    /// Copy the report to this file, as JSON; `-` is standard output
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Output")]
    pub json: Option<PathBuf>,
    /// Write a JUnit XML report to this file, as CI servers read it; `-` is standard output
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Output")]
    pub junit: Option<PathBuf>,
    /// Write events to this file as they happen, one JSON object in a line; `-` is standard output
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Output")]
    pub events: Option<PathBuf>,
    /// Where runs keep their logs and reports [default: .procflow beside the pipeline]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, help_heading = "Output")]
    pub state_dir: Option<PathBuf>,
}

/// What is shown of a run's progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Progress {
    /// Bars on a terminal, else plain lines
    Auto,
    /// Bars, redrawn in place
    Bars,
    /// A line for what happens
    Plain,
    /// Nothing of it: failures, and what nodes print
    None,
}

/// What is shown of the output of nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum NodeOutput {
    /// A node's output as a whole, when it has ended
    Grouped,
    /// Lines as they come, after the node's name
    Prefixed,
    /// The output of nodes that fail
    Failed,
    /// Nothing: it is in the logs
    None,
}

/// `procflow check`.
#[derive(Debug, Clone, Args)]
pub struct CheckArgs {
    /// The pipeline files; `-` reads standard input
    #[arg(value_name = "FILE", required = true, value_hint = ValueHint::FilePath)]
    pub files: Vec<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub set: SetArgs,
    /// How problems are shown
    #[arg(long, value_enum, default_value_t = CheckFormat::Human)]
    pub format: CheckFormat,
}

/// How `check` shows problems.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CheckFormat {
    /// The lines themselves, marked
    Human,
    /// A JSON array
    Json,
    /// Annotations of GitHub Actions
    Github,
}

/// `procflow plan`.
#[derive(Debug, Clone, Args)]
pub struct PlanArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub pipeline: PipelineArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub select: SelectArgs,
    /// How the plan is shown
    #[arg(long, value_enum, default_value_t = PlanFormat::Table)]
    pub format: PlanFormat,
}

/// How `plan` shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PlanFormat {
    /// A table
    Table,
    /// A JSON object
    Json,
}

/// `procflow explain`.
#[derive(Debug, Clone, Args)]
pub struct ExplainArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub pipeline: PipelineArgs,
    /// The node to explain
    #[arg(value_name = "NODE", add = ArgValueCompleter::new(completions::nodes))]
    pub node: String,
}

/// `procflow graph`.
#[derive(Debug, Clone, Args)]
pub struct GraphArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub pipeline: PipelineArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub select: SelectArgs,
    /// How the graph is drawn
    #[arg(long, value_enum, default_value_t = GraphFormat::Text)]
    pub format: GraphFormat,
}

/// How `graph` draws.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum GraphFormat {
    /// Graphviz: `procflow graph --format dot FILE | dot -Tsvg`
    Dot,
    /// Mermaid, as GitHub shows it in Markdown
    Mermaid,
    /// A picture for a browser or a page, drawn by procflow itself
    Svg,
    /// For a terminal
    Text,
}

/// Where runs are looked for.
#[derive(Debug, Clone, Args)]
pub struct StateArgs {
    /// Where the runs are [default: .procflow in the current directory, or beside the pipeline file]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub state_dir: Option<PathBuf>,
}

/// A run, and where it is looked for.
#[derive(Debug, Clone, Args)]
pub struct WhichArgs {
    /// The run: its id or the beginning of it, `last`, or a pipeline file for the last run of that
    #[arg(value_name = "RUN", value_hint = ValueHint::FilePath, add = ArgValueCompleter::new(completions::runs))]
    pub run: PathBuf,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub state: StateArgs,
}

/// `procflow runs`.
#[derive(Debug, Clone, Args)]
pub struct RunsArgs {
    /// Only runs of this pipeline file
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: Option<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub state: StateArgs,
    /// Remove old runs, and say which; runs that go on stay
    #[arg(long, conflicts_with_all = ["format", "file"])]
    pub prune: bool,
    /// How many of the newest runs `--prune` leaves
    #[arg(long, value_name = "N", default_value_t = KEEP, requires = "prune")]
    pub keep: usize,
    /// How the runs are shown
    #[arg(long, value_enum, default_value_t = PlanFormat::Table)]
    pub format: PlanFormat,
}

/// `procflow show`.
#[derive(Debug, Clone, Args)]
pub struct ShowArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub which: WhichArgs,
    /// How the run is shown; `json` is its report, which a run has when it has ended
    #[arg(long, value_enum, default_value_t = PlanFormat::Table)]
    pub format: PlanFormat,
}

/// `procflow logs`.
#[derive(Debug, Clone, Args)]
pub struct LogsArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub which: WhichArgs,
    /// Only what this node printed
    #[arg(value_name = "NODE", add = ArgValueCompleter::new(completions::nodes_of_run))]
    pub node: Option<String>,
    /// Only standard output
    #[arg(long, conflicts_with = "stderr")]
    pub stdout: bool,
    /// Only standard error
    #[arg(long)]
    pub stderr: bool,
    /// Go on with what is printed from now on, until the run has ended
    #[arg(short, long)]
    pub follow: bool,
}

/// `procflow ps`.
#[derive(Debug, Clone, Args)]
pub struct PsArgs {
    /// Only runs of this pipeline file
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: Option<PathBuf>,
    /// Where the runs are [default: wherever your runs on this machine are]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub state_dir: Option<PathBuf>,
    /// How they are shown
    #[arg(long, value_enum, default_value_t = PlanFormat::Table)]
    pub format: PlanFormat,
}

/// `procflow stop`.
#[derive(Debug, Clone, Args)]
pub struct StopArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub which: WhichArgs,
    /// Kill its processes at once, as a second Ctrl-C does
    #[arg(long)]
    pub kill: bool,
    /// Don't wait until it has ended
    #[arg(long)]
    pub no_wait: bool,
}

/// `procflow replay`.
#[derive(Debug, Clone, Args)]
pub struct ReplayArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub which: WhichArgs,
    /// The node
    #[arg(value_name = "NODE", add = ArgValueCompleter::new(completions::nodes_of_run))]
    pub node: String,
    /// Set a parameter that the run did not keep: a secret (repeatable)
    #[arg(long, value_name = "NAME=VALUE", value_parser = assignment)]
    pub set: Vec<(String, String)>,
    /// Leave standard input as it is here; the variable PROCFLOW_STDIN names the record
    #[arg(long)]
    pub keep_stdin: bool,
    /// What to put before the node's command, such as `gdb --args`
    #[arg(value_name = "PREFIX", last = true)]
    pub prefix: Vec<String>,
}

/// `procflow schema`.
#[derive(Debug, Clone, Args)]
pub struct SchemaArgs {
    /// Of what
    #[arg(value_enum, value_name = "WHICH")]
    pub which: SchemaOf,
}

/// What has a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SchemaOf {
    /// The pipeline file
    Pipeline,
    /// A line of `--events`
    Events,
    /// The report of `--json`
    Report,
}

/// `procflow init`.
#[derive(Debug, Clone, Args)]
pub struct InitArgs {
    /// Where to write it; `-` prints it. An existing file is never overwritten [default: pipeline.toml, or the example's name]
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: Option<PathBuf>,
    /// One of the pipelines that come with procflow, instead
    #[arg(long, value_name = "NAME", value_parser = crate::cli::init::example_names())]
    pub example: Option<String>,
}

/// `procflow completions`.
#[derive(Debug, Clone, Args)]
pub struct CompletionsArgs {
    /// The shell that is to complete
    #[arg(value_enum, value_name = "SHELL")]
    pub shell: Shell,
}

/// Shells that can complete procflow's command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum Shell {
    Bash,
    Elvish,
    Fish,
    Powershell,
    Zsh,
}

impl ValueEnum for OnFailure {
    fn value_variants<'a>() -> &'a [Self] {
        &[OnFailure::Stop, OnFailure::Kill, OnFailure::Continue]
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        Some(match self {
            OnFailure::Stop => clap::builder::PossibleValue::new("stop")
                .help("Start nothing new, let what runs finish"),
            OnFailure::Kill => {
                clap::builder::PossibleValue::new("kill").help("Stop what runs, too")
            }
            OnFailure::Continue => clap::builder::PossibleValue::new("continue")
                .help("Run all that does not depend on the failure"),
        })
    }
}

/// Reads a command line, the program's name being its first word.
///
/// clap makes its model of all subcommands before it reads the first word, which takes a twentieth of a small run. So `run`
/// is read by a model of it alone. What that refuses, a call for help among it, is answered by the whole.
///
/// # Errors
/// What is wrong with it, or the text of `--help` and `--version`.
pub fn parse(line: Vec<OsString>) -> Result<Cli, clap::Error> {
    if line.get(1).is_some_and(|word| word == "run")
        && let Ok(matches) = RunArgs::augment_args(clap::Command::new("run"))
            .try_get_matches_from(line.iter().skip(1))
        && let Ok(args) = RunArgs::from_arg_matches(&matches)
    {
        return Ok(Cli {
            command: Command::Run(Box::new(args)),
        });
    }
    Cli::try_parse_from(line).map_err(with_a_tip)
}

/// A wrong command line, with what was meant where a pipeline stands in the place of a subcommand.
fn with_a_tip(mut error: clap::Error) -> clap::Error {
    let tip = match error.get(ContextKind::InvalidSubcommand) {
        Some(ContextValue::String(word)) if word.ends_with(".toml") => {
            format!("to run a pipeline: procflow run {}", harmless(word))
        }
        _ => return error,
    };
    error.remove(ContextKind::SuggestedSubcommand);
    error.insert(
        ContextKind::Suggested,
        ContextValue::StyledStrs(vec![tip.into()]),
    );
    error
}

/// As the file's `run.jobs`; clap's own bounds would be told as Rust writes them.
fn job_slots(text: &str) -> Result<u32, String> {
    text.parse()
        .ok()
        .filter(|jobs| (1..=1_000_000).contains(jobs))
        .ok_or_else(|| "expected a number from 1 to 1000000".to_owned())
}

fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

/// The message's second line, its way out, has no place in clap's one.
fn duration(text: &str) -> Result<Duration, String> {
    text.parse::<Duration>()
        .map_err(|message| message.replace('\n', "; "))
}
