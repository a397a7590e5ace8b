//! From the path of a pipeline file to its plan and its problems: what all commands with a FILE begin with.

use std::io;
use std::path::{Path, PathBuf};

use crate::cli::Error;
use crate::cli::args::{PipelineArgs, SelectArgs};
use crate::diagnostic::{Diagnostic, Severity};
use crate::plan::{Origin, Overrides, Plan, build};
use crate::spec::{Source, Spec, read};
use crate::sys::machine;

/// A pipeline file, read and planned.
#[derive(Debug)]
pub struct Pipeline {
    /// Its text and name.
    pub source: Source,
    /// What it says, where the caller wants to keep that, and it can be read.
    pub spec: Option<Spec>,
    /// What it means; none where a problem is an error.
    pub plan: Option<Plan>,
    /// All problems, in the order they were found.
    pub problems: Vec<Diagnostic>,
}

/// What is looked at beside the file.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// `--set`
    pub set: Vec<(String, String)>,
    /// `--only`
    pub only: Vec<String>,
    /// `--skip`
    pub skip: Vec<String>,
    /// `--jobs`
    pub jobs: Option<u32>,
    /// Job slots where neither that nor the file says: those of the make around procflow, else the CPUs.
    pub jobs_around: Option<u32>,
    /// Keep the spec: it is copied for that.
    pub keep_spec: bool,
}

impl Asked {
    /// What the command line asks of a pipeline and of a part of it.
    pub fn of(pipeline: &PipelineArgs, select: &SelectArgs) -> Self {
        Asked {
            set: pipeline.set.set.clone(),
            only: select.only.clone(),
            skip: select.skip.clone(),
            jobs: None,
            jobs_around: None,
            keep_spec: false,
        }
    }
}

impl Pipeline {
    /// Reads and plans the file at `path` (`-`: standard input).
    ///
    /// # Errors
    /// The file can't be read, or there is no current directory. Problems of what it says are no error here.
    pub fn load(path: &Path, asked: Asked) -> Result<Self, Error> {
        let source = Source::read(path, io::stdin().lock())
            .map_err(|error| Error::Usage(error.to_string()))?;
        let origin = origin(source.path.as_deref())?;
        Ok(Pipeline::of(source, &origin, asked))
    }

    /// Plans what this text says, as if it stood there.
    pub fn of(mut source: Source, origin: &Origin, asked: Asked) -> Self {
        let mut overrides = Overrides {
            set: asked.set,
            only: asked.only,
            skip: asked.skip,
            jobs: 1,
            env: &|name| std::env::var(name).ok(),
            memory: &machine::memory,
            ends_lost: false,
        };
        let (spec, mut problems, partial) = match read(&source.text) {
            Ok(spec) => (Some(spec), Vec::new(), None),
            Err(wrong) => (None, wrong.problems, wrong.partial),
        };
        if let Some(spec) = spec
            .as_ref()
            .or(partial.as_ref().map(|partial| &partial.spec))
        {
            hide_defaults(&mut source.text, spec);
            let jobs = asked.jobs.or(spec.run.jobs).or(asked.jobs_around);
            overrides.jobs = jobs.unwrap_or_else(machine::cpus).max(1);
        }
        let kept = if asked.keep_spec { spec.clone() } else { None };
        let plan = match spec {
            Some(spec) => {
                let (plan, found) = build(spec, origin, &overrides);
                problems.extend(found);
                plan
            }
            // What is wrong with the meaning of the rest is told as well, but for what comes from the parts left out.
            None => {
                if let Some(partial) = partial {
                    overrides.ends_lost = partial.lost_ends();
                    let (_, found) = build(partial.spec.clone(), origin, &overrides);
                    problems.extend(
                        found
                            .into_iter()
                            .filter(|p| p.severity != Severity::Note && partial.trusts(p)),
                    );
                }
                None
            }
        };
        Pipeline {
            source,
            spec: kept,
            plan,
            problems,
        }
    }
}

/// Blots out the defaults of secret params where they stand in quotes, so that no line that is shown shows them. By as many
/// bytes, so that every place of the text stays where it is.
fn hide_defaults(text: &mut String, spec: &Spec) {
    for value in spec
        .params
        .values()
        .filter(|param| param.secret)
        .filter_map(|param| param.default.as_deref())
        .filter(|value| !value.is_empty())
    {
        let blots = "*".repeat(value.len());
        for quote in ['"', '\''] {
            let said = format!("{quote}{value}{quote}");
            if text.contains(&said) {
                *text = text.replace(&said, &format!("{quote}{blots}{quote}"));
            }
        }
    }
}

fn origin(path: Option<&Path>) -> Result<Origin, Error> {
    let current = || {
        std::env::current_dir()
            .map_err(|error| Error::Broken(format!("there is no current directory: {error}")))
    };
    let Some(path) = path else {
        return Ok(Origin {
            dir: current()?,
            name: "stdin".to_owned(),
        });
    };
    let absolute = std::path::absolute(path)
        .map_err(|error| Error::Broken(format!("{}: {error}", path.display())))?;
    let dir = absolute
        .parent()
        .map_or_else(|| PathBuf::from("/"), Path::to_path_buf);
    let name = path.file_stem().map_or_else(
        || "pipeline".to_owned(),
        |stem| stem.to_string_lossy().into_owned(),
    );
    Ok(Origin { dir, name })
}
