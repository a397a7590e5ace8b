//! `procflow check`: every problem of the files, or that there is none.

use std::io::Write;

use crate::cli::Error;
use crate::cli::args::{CheckArgs, CheckFormat};
use crate::cli::pipeline::{Asked, Pipeline};
use crate::diagnostic::{Diagnostic, Severity, harmless, render};
use crate::exit::ExitCode;
use crate::plan::Plan;

/// Checks each file; what it finds goes to `out`, since finding is its purpose.
///
/// # Errors
/// See [`Error`]. A file with problems is none: then the exit code says so.
pub fn run(args: &CheckArgs, out: &mut dyn Write, styled: bool) -> Result<ExitCode, Error> {
    let mut code = ExitCode::Success;
    for file in &args.files {
        let asked = Asked {
            set: args.set.set.clone(),
            ..Asked::default()
        };
        // A file that can't be read keeps no other from being checked.
        let pipeline = match Pipeline::load(file, asked) {
            Ok(pipeline) => pipeline,
            Err(Error::Usage(why)) => {
                unreadable(&why, &file.display().to_string(), args.format, out)?;
                code = ExitCode::Usage;
                continue;
            }
            Err(other) => return Err(other),
        };
        let problems = worst_first(pipeline.problems);
        let (name, text) = (pipeline.source.name.as_str(), pipeline.source.text.as_str());
        out.write_all(
            match args.format {
                CheckFormat::Human => render(&problems, name, text, styled),
                CheckFormat::Github => crate::diagnostic::render_github(&problems, name, text),
                CheckFormat::Json => crate::diagnostic::render_json(&problems, name, text),
            }
            .as_bytes(),
        )?;
        match &pipeline.plan {
            None => code = ExitCode::Usage,
            Some(plan) if args.format == CheckFormat::Human => {
                if !problems.is_empty() {
                    writeln!(out)?;
                }
                writeln!(out, "{}: ok: {}", harmless(name), summary(plan))?;
            }
            Some(_) => {}
        }
    }
    Ok(code)
}

/// A file that can't be read, as a problem without a place.
fn unreadable(
    why: &str,
    name: &str,
    format: CheckFormat,
    out: &mut dyn Write,
) -> Result<(), Error> {
    let problem = [Diagnostic {
        severity: Severity::Error,
        message: why.to_owned(),
        labels: Vec::new(),
        help: None,
    }];
    let text = match format {
        CheckFormat::Human => render(&problem, name, "", false),
        CheckFormat::Github => crate::diagnostic::render_github(&problem, name, ""),
        CheckFormat::Json => crate::diagnostic::render_json(&problem, name, ""),
    };
    Ok(out.write_all(text.as_bytes())?)
}

/// Errors, then warnings, then notes; each kind in the order of the file.
fn worst_first(mut problems: Vec<Diagnostic>) -> Vec<Diagnostic> {
    problems.sort_by_key(|problem| std::cmp::Reverse(problem.severity));
    problems
}

/// "5 processes, 4 queues, 2 groups".
pub fn summary(plan: &Plan) -> String {
    let count =
        |n: usize, one: &str, many: &str| format!("{n} {}", if n == 1 { one } else { many });
    format!(
        "{}, {}, {}",
        count(plan.nodes.len(), "process", "processes"),
        count(plan.queues.len(), "queue", "queues"),
        count(plan.groups.len(), "group", "groups"),
    )
}
