//! `procflow runs`: which runs there are, and how they went; `--prune`. And how commands find the run that a RUN means.

use std::ffi::OsStr;
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use crate::cli::Error;
use crate::cli::args::{PlanFormat, RunsArgs, StateArgs, WhichArgs};
use crate::diagnostic::{harmless, reason};
use crate::exit::ExitCode;
use crate::report::Past;
use crate::report::units::short;
use crate::store::{FindError, Head, Run, Runs};

/// Lists runs, or removes old ones.
///
/// # Errors
/// See [`Error`].
pub fn run(
    args: &RunsArgs,
    out: &mut dyn Write,
    problems: &mut dyn Write,
) -> Result<ExitCode, Error> {
    let runs = Runs::of(&state_dir(&args.state, args.file.as_deref())).map_err(broken)?;
    if args.prune {
        return prune(&runs, args.keep, out);
    }
    let listing = runs.list().map_err(broken)?;
    for (path, why) in &listing.strange {
        let line = format!("procflow: {} {why}; left out", path.display());
        writeln!(problems, "{}", harmless(&line))?;
    }
    let is_meant = |head: &Head| args.file.as_ref().is_none_or(|file| head.is_of(file));
    let rows: Vec<Row> = listing
        .runs
        .iter()
        .filter(|(_, head)| is_meant(head))
        .map(|(run, head)| Row::of(run, head))
        .collect();
    match args.format {
        PlanFormat::Table => table(&rows, out)?,
        PlanFormat::Json => {
            let json = serde_json::to_string_pretty(&rows)
                .map_err(|e| Error::Broken(format!("BUG: no JSON: {e}")))?;
            writeln!(out, "{json}")?;
        }
    }
    if rows.is_empty() {
        let dir = harmless(&runs.path().display().to_string());
        let of = args.file.as_ref().map_or_else(String::new, |file| {
            format!(" of {}", harmless(&file.display().to_string()))
        });
        writeln!(
            problems,
            "procflow: no run{of} in {dir}; --state-dir names another place than .procflow"
        )?;
    }
    Ok(ExitCode::Success)
}

fn prune(runs: &Runs, keep: usize, out: &mut dyn Write) -> Result<ExitCode, Error> {
    let gone = runs.prune(keep).map_err(broken)?;
    for id in &gone {
        writeln!(out, "removed {id}")?;
    }
    Ok(ExitCode::Success)
}

/// A run as it is listed.
#[derive(Debug, Serialize)]
struct Row {
    run: String,
    pipeline: String,
    file: Option<PathBuf>,
    /// RFC 3339, UTC.
    started: String,
    state: String,
    /// Seconds.
    wall: f64,
    nodes: usize,
    succeeded: usize,
    failed: usize,
    cancelled: usize,
    skipped: usize,
    reused: usize,
    running: usize,
    /// Its directory.
    path: PathBuf,
    /// The counts in words: `12: 10 succeeded, 1 failed, 1 skipped`.
    #[serde(skip)]
    in_words: String,
}

impl Row {
    fn of(run: &Run, head: &Head) -> Row {
        let past = past(run, head, Past::in_short);
        let started = humantime::format_rfc3339_seconds(
            std::time::UNIX_EPOCH + Duration::from_secs(head.started.as_secs()),
        );
        Row {
            run: run.id().to_string(),
            pipeline: head.pipeline.clone(),
            file: head.file.clone(),
            started: started.to_string(),
            state: past.verdict,
            wall: past.wall.as_secs_f64(),
            nodes: past.counts.total,
            succeeded: past.counts.succeeded,
            failed: past.counts.failed,
            cancelled: past.counts.cancelled,
            skipped: past.counts.skipped,
            reused: past.counts.reused,
            running: past.counts.running,
            path: std::path::absolute(run.path()).unwrap_or_else(|_| run.path().to_owned()),
            in_words: format!(
                "{}{}",
                past.counts.total,
                past.counts.by_state(|count| count.to_string())
            ),
        }
    }
}

fn table(rows: &[Row], out: &mut dyn Write) -> Result<(), Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let started = |row: &Row| row.started.replace('T', " ").replace('Z', "");
    let mut lines =
        vec![["run", "started (UTC)", "pipeline", "state", "time", "nodes"].map(str::to_owned)];
    lines.extend(rows.iter().map(|row| {
        [
            row.run.clone(),
            started(row),
            harmless(&row.pipeline),
            harmless(&row.state),
            short(Duration::try_from_secs_f64(row.wall).unwrap_or_default()),
            row.in_words.clone(),
        ]
    }));
    columns(&lines, &[4], out)
}

/// Writes lines of cells, one below the other; of the columns named those are set to the right.
pub(crate) fn columns<const N: usize>(
    lines: &[[String; N]],
    right: &[usize],
    out: &mut dyn Write,
) -> Result<(), Error> {
    let mut widths = [0; N];
    for line in lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for line in lines {
        let mut text = String::new();
        for (i, (cell, &width)) in line.iter().zip(&widths).enumerate() {
            if i > 0 {
                text.push_str("  ");
            }
            text += &if right.contains(&i) {
                format!("{cell:>width$}")
            } else {
                format!("{cell:<width$}")
            };
        }
        writeln!(out, "{}", text.trim_end())?;
    }
    Ok(())
}

/// What a run did: by its report, read by `read`, or where it has none, by its events.
pub(crate) fn past(run: &Run, head: &Head, read: fn(&[u8]) -> serde_json::Result<Past>) -> Past {
    let is_live = run.is_live();
    if !is_live && let Some(past) = report(run).ok().and_then(|json| read(&json).ok()) {
        return past;
    }
    let Ok(events) = run.open("events.jsonl") else {
        return Past::default();
    };
    let mut past = Past::of_events(BufReader::new(events), is_live);
    if is_live {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        past.wall = now.unwrap_or_default().saturating_sub(head.started);
    }
    past
}

/// The text of a run's report.
pub(crate) fn report(run: &Run) -> std::io::Result<Vec<u8>> {
    let mut json = Vec::new();
    run.open("report.json")?.read_to_end(&mut json)?;
    Ok(json)
}

/// The run that a RUN means, and what its first event says.
///
/// # Errors
/// There is none, or nothing can be told of it.
pub(crate) fn find(which: &WhichArgs) -> Result<(Run, Head), Error> {
    let word = which.run.as_path();
    let file = is_file(word).then_some(word);
    let runs = Runs::of(&state_dir(&which.state, file)).map_err(broken)?;
    let found = match (file, word.to_str()) {
        (Some(file), _) => runs.last_of(file),
        (None, Some(word)) => runs.find(word),
        (None, None) => runs.find(&word.to_string_lossy()),
    };
    let run = found.map_err(|e| match e {
        FindError::Store(e) => broken(e),
        wrong => Error::Usage(wrong.to_string()),
    })?;
    let head = run
        .head()
        .map_err(|why| Error::Usage(format!("{} {why}", run.path().display())))?;
    Ok((run, head))
}

/// A word that names a pipeline file and no run: it ends as these do, or is a path.
fn is_file(word: &Path) -> bool {
    word.extension() == Some(OsStr::new("toml")) || word.components().count() > 1
}

/// `--state-dir`, or `.procflow` beside the pipeline file, or here.
pub(crate) fn state_dir(args: &StateArgs, file: Option<&Path>) -> PathBuf {
    match (&args.state_dir, file.and_then(Path::parent)) {
        (Some(dir), _) => dir.clone(),
        (None, Some(parent)) => parent.join(".procflow"),
        (None, None) => ".procflow".into(),
    }
}

fn broken(error: crate::store::Error) -> Error {
    Error::Broken(error.to_string())
}

/// An error of a file of a run.
pub(crate) fn unreadable(run: &Run, name: &str, error: &std::io::Error) -> Error {
    let path = run.path().join(name);
    Error::Broken(format!("cannot read {}: {}", path.display(), reason(error)))
}
