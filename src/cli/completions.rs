//! `procflow completions`, and what completes names from the pipeline on the command line.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use clap::CommandFactory;
use clap_complete::CompletionCandidate;
use clap_complete::env::{CompleteEnv, Shells};

use crate::cli::Error;
use crate::cli::args::{Cli, CompletionsArgs, Shell};
use crate::exit::ExitCode;
use crate::plan::matrix_names;
use crate::spec::{self, Source, Spec};
use crate::store::Runs;

/// The variable by which a shell's script asks for candidates.
const ASK: &str = "PROCFLOW_COMPLETE";

/// Answers a shell that asks for candidates, and ends the program then; otherwise does nothing. To be called first, before
/// anything is printed.
pub fn answer() {
    // It would look at the current directory first.
    if env::var_os(ASK).is_none() {
        return;
    }
    CompleteEnv::with_factory(Cli::command).var(ASK).complete();
}

/// Prints the script that makes a shell ask procflow.
///
/// # Errors
/// [`Error::Stdout`], and [`Error::Broken`] for a shell that the engine does not know, which would be a bug.
pub fn run(args: &CompletionsArgs, out: &mut dyn Write) -> Result<ExitCode, Error> {
    let name = match args.shell {
        Shell::Bash => "bash",
        Shell::Elvish => "elvish",
        Shell::Fish => "fish",
        Shell::Powershell => "powershell",
        Shell::Zsh => "zsh",
    };
    let shells = Shells::builtins();
    let shell = shells
        .completer(name)
        .ok_or_else(|| Error::Broken(format!("no completions for {name}")))?;
    let mut script = Vec::new();
    shell.write_registration(ASK, "procflow", "procflow", "procflow", &mut script)?;
    out.write_all(&script)?;
    Ok(ExitCode::Success)
}

/// Names of nodes.
pub(crate) fn nodes(current: &OsStr) -> Vec<CompletionCandidate> {
    matching(current, &pipeline(), node_names)
}

/// Names of nodes, and tags with their `@`.
pub(crate) fn nodes_and_tags(current: &OsStr) -> Vec<CompletionCandidate> {
    matching(current, &pipeline(), |spec| {
        let mut names = node_names(spec);
        let tags = spec
            .process
            .values()
            .chain(spec.pool.values())
            .flat_map(|process| process.tags.iter().map(|tag| (format!("@{tag}"), None)));
        for tag in tags {
            if !names.contains(&tag) {
                names.push(tag);
            }
        }
        names
    })
}

/// Names of queues: those with a table, and those that ends name.
pub(crate) fn queues(current: &OsStr) -> Vec<CompletionCandidate> {
    matching(current, &pipeline(), queue_names)
}

/// Names of parameters with their `=`.
pub(crate) fn params(current: &OsStr) -> Vec<CompletionCandidate> {
    matching(current, &pipeline(), |spec| {
        spec.params
            .iter()
            .map(|(name, param)| (format!("{name}="), param.help.clone()))
            .collect()
    })
}

/// Runs: ids, the newest first, with what they are runs of.
pub(crate) fn runs(current: &OsStr) -> Vec<CompletionCandidate> {
    let Some(current) = current.to_str() else {
        return Vec::new();
    };
    let found = Runs::of(&state_dir()).and_then(|runs| runs.list());
    let listed = found.map(|listing| listing.runs).unwrap_or_default();
    let ids = listed
        .into_iter()
        .map(|(run, head)| (run.id().to_string(), Some(head.pipeline)));
    let last = [("last".to_owned(), Some("the newest run".to_owned()))];
    candidates(last.into_iter().chain(ids), current)
}

/// Names of the nodes of the run that the command line names.
pub(crate) fn nodes_of_run(current: &OsStr) -> Vec<CompletionCandidate> {
    let spec = pipeline().or_else(|| {
        let runs = Runs::of(&state_dir()).ok()?;
        // The subcommand and options are no runs.
        let run = words()
            .iter()
            .skip(2)
            .find_map(|word| runs.find(word.to_str()?).ok())?;
        let mut text = String::new();
        run.open("pipeline.toml")
            .ok()?
            .take(spec::MAX_FILE)
            .read_to_string(&mut text)
            .ok()?;
        match spec::read(&text) {
            Ok(spec) => Some(spec),
            Err(wrong) => wrong.partial.map(|partial| partial.spec),
        }
    });
    matching(current, &spec, node_names)
}

/// What `--state-dir` says, or the default.
fn state_dir() -> PathBuf {
    let words = words();
    let mut words = words.iter().filter_map(|word| word.to_str());
    while let Some(word) = words.next() {
        if let Some(dir) = word.strip_prefix("--state-dir=") {
            return dir.into();
        }
        if word == "--state-dir"
            && let Some(dir) = words.next()
        {
            return dir.into();
        }
    }
    ".procflow".into()
}

/// Names with their descriptions.
type Names = Vec<(String, Option<String>)>;

fn node_names(spec: &Spec) -> Names {
    spec.process
        .iter()
        .chain(&spec.pool)
        .flat_map(|(name, process)| {
            // All of a matrix, then each.
            let each = process.matrix.iter();
            let each = each.flat_map(|matrix| matrix_names(name, matrix));
            std::iter::once(name.clone())
                .chain(each)
                .map(|name| (name, process.description.clone()))
        })
        .collect()
}

/// A queue has writers: their ends name it.
fn queue_names(spec: &Spec) -> Names {
    let processes = spec.process.values().chain(spec.pool.values());
    let outputs = processes.flat_map(|process| {
        let more = process.outputs.iter().flat_map(|outputs| outputs.values());
        process.stdout.iter().chain(&process.stderr).chain(more)
    });
    let sinks = outputs.flat_map(|output| match output {
        spec::Output::One(sink) => std::slice::from_ref(sink),
        spec::Output::Many(sinks) => sinks,
    });
    let mut names = Names::new();
    for sink in sinks {
        if let spec::Sink::Queue(name) = sink
            && !names.iter().any(|(known, _)| known == name)
        {
            names.push((name.clone(), None));
        }
    }
    names
}

fn matching(
    current: &OsStr,
    spec: &Option<Spec>,
    names: fn(&Spec) -> Names,
) -> Vec<CompletionCandidate> {
    let (Some(spec), Some(current)) = (spec, current.to_str()) else {
        return Vec::new();
    };
    candidates(names(spec).into_iter(), current)
}

fn candidates(
    names: impl Iterator<Item = (String, Option<String>)>,
    current: &str,
) -> Vec<CompletionCandidate> {
    names
        .filter(|(name, _)| name.starts_with(current))
        .map(|(name, help)| CompletionCandidate::new(name).help(help.map(Into::into)))
        .collect()
}

/// The words of the command line that is being completed. clap's engine does not tell a completer what else is on the line; they
/// stand after `--` of our own command line.
fn words() -> Vec<OsString> {
    env::args_os()
        .skip_while(|word| word != "--")
        .skip(1)
        .collect()
}

/// The pipeline on the command line: its first word that is a readable `.toml` file.
fn pipeline() -> Option<Spec> {
    words().iter().find_map(|word| {
        let path = Path::new(word);
        if path.extension() != Some(OsStr::new("toml")) {
            return None;
        }
        let source = Source::read(path, io::empty()).ok()?;
        match spec::read(&source.text) {
            Ok(spec) => Some(spec),
            // A file that is being written is worth completing from, too.
            Err(wrong) => wrong.partial.map(|partial| partial.spec),
        }
    })
}
