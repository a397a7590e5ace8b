//! `procflow init`: a commented pipeline to start from.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use clap::builder::PossibleValuesParser;

use crate::cli::Error;
use crate::cli::args::InitArgs;
use crate::diagnostic::{harmless, reason};
use crate::exit::ExitCode;

/// What `init` writes.
pub const START: &str = include_str!("init.toml");

/// A pipeline that comes with procflow.
struct Example {
    name: &'static str,
    text: &'static str,
    /// What must be done before it can run in any directory: it reads procflow's own files.
    first: Option<&'static str>,
}

/// Runs anywhere.
const fn anywhere(name: &'static str, text: &'static str) -> Example {
    Example {
        name,
        text,
        first: None,
    }
}

/// Reads procflow's own sources and documents, by names that are nowhere else.
const fn at_home(name: &'static str, text: &'static str) -> Example {
    Example {
        name,
        text,
        first: Some(
            "it reads procflow's own sources: put files of yours in place of `../README.md`, `../docs` and `../src`",
        ),
    }
}

/// From the simple to the large, as they are listed where a name is wrong.
const EXAMPLES: &[Example] = &[
    anywhere("hello", include_str!("../../pipelines/hello.toml")),
    anywhere("fork", include_str!("../../pipelines/fork.toml")),
    anywhere("process", include_str!("../../pipelines/process.toml")),
    anywhere(
        "subprocess",
        include_str!("../../pipelines/subprocess.toml"),
    ),
    anywhere("queue", include_str!("../../pipelines/queue.toml")),
    anywhere("pool", include_str!("../../pipelines/pool.toml")),
    anywhere("poison", include_str!("../../pipelines/poison.toml")),
    anywhere(
        "log-report",
        include_str!("../../pipelines/log-report.toml"),
    ),
    anywhere("service", include_str!("../../pipelines/service.toml")),
    anywhere("release", include_str!("../../pipelines/release.toml")),
    Example {
        name: "crawl",
        text: include_str!("../../pipelines/crawl.toml"),
        first: Some("it walks procflow's own sources: say `--set root=DIRECTORY` for another one"),
    },
    at_home(
        "word-count",
        include_str!("../../pipelines/word-count.toml"),
    ),
    at_home(
        "parallel-sort",
        include_str!("../../pipelines/parallel-sort.toml"),
    ),
    at_home(
        "map-reduce",
        include_str!("../../pipelines/map-reduce.toml"),
    ),
    Example {
        name: "ci",
        text: include_str!("../../pipelines/ci.toml"),
        first: Some(
            "it checks procflow's own sources, from a directory of theirs: put your own commands in place of cargo's",
        ),
    },
];

/// What `--example` takes.
pub(crate) fn example_names() -> PossibleValuesParser {
    PossibleValuesParser::new(EXAMPLES.iter().map(|example| example.name))
}

/// Writes the pipeline to the file that `args` names, or prints it where that is `-`.
///
/// # Errors
/// [`Error::Usage`] where the file exists; it is never overwritten. [`Error::Broken`] where it cannot be written.
pub fn run(args: &InitArgs, out: &mut dyn Write) -> Result<ExitCode, Error> {
    let example = args
        .example
        .as_deref()
        .and_then(|name| EXAMPLES.iter().find(|example| example.name == name));
    let (name, text) = example.map_or(("pipeline", START), |example| (example.name, example.text));
    let path = args
        .file
        .clone()
        .unwrap_or_else(|| PathBuf::from(format!("{name}.toml")));
    if path.as_os_str() == "-" {
        out.write_all(text.as_bytes())?;
        return Ok(ExitCode::Success);
    }
    let text = if example.is_none() {
        named(text, &path)
    } else {
        text.to_owned()
    };
    let shown = harmless(&path.display().to_string());
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&path)
        .and_then(|mut file| file.write_all(text.as_bytes()));
    match written {
        Ok(()) => {
            match example.and_then(|example| example.first) {
                None => writeln!(out, "wrote {shown}; next: procflow run {shown}")?,
                Some(first) => writeln!(out, "wrote {shown}; {first}")?,
            }
            Ok(ExitCode::Success)
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(Error::Usage(format!(
            "{shown} exists already, and is not overwritten; name another file, or `-` to print it"
        ))),
        Err(error) => {
            let message = format!("cannot write {shown}: {}", reason(&error));
            Err(match error.kind() {
                // As where a report is to be written where it can't: what was asked for is wrong, not the machine.
                ErrorKind::NotFound | ErrorKind::NotADirectory => Error::Usage(message),
                _ => Error::Broken(message),
            })
        }
    }
}

/// The pipeline reads its own file, so it must know that file's name, where that needs no care in TOML.
fn named(text: &str, path: &Path) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    match path.file_name().and_then(|name| name.to_str()) {
        Some(name) if name.chars().all(plain) => text.replace("pipeline.toml", name),
        _ => text.to_owned(),
    }
}
