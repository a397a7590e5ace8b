//! A pipeline from the command line to its plan: what every subcommand that takes a FILE begins with.

use std::io;
use std::path::Path;

use crate::cli::Error;
use crate::diagnostic::{Diagnostic, Severity};
use crate::plan::{self, Origin, Overrides, Plan};
use crate::spec::{self, Source};

/// What a pipeline file came to.
#[derive(Debug)]
pub struct Loaded {
    /// Its text, and what messages call it.
    pub source: Source,
    /// The plan, where nothing is wrong.
    pub plan: Option<Plan>,
    /// Everything that there is to say about the file.
    pub diagnostics: Vec<Diagnostic>,
}

impl Loaded {
    /// The plan, and what is worth saying although there is one.
    ///
    /// # Errors
    /// Where there is none.
    pub fn into_plan(self) -> Result<(Plan, Source, Vec<Diagnostic>), (Source, Vec<Diagnostic>)> {
        match self.plan {
            Some(plan) => Ok((plan, self.source, self.diagnostics)),
            None => Err((self.source, self.diagnostics)),
        }
    }
}

/// What the command line changes of a pipeline.
#[derive(Debug, Clone, Copy, Default)]
pub struct Changes<'a> {
    /// `--set`.
    pub set: &'a [(String, String)],
    /// `--only`.
    pub only: &'a [String],
    /// `--skip`.
    pub skip: &'a [String],
}

/// Reads and plans the pipeline at `path`, with all its problems at once.
///
/// # Errors
/// Where there is no text to read.
pub fn load(path: &Path, changes: Changes<'_>) -> Result<Loaded, Error> {
    let source = Source::read(path, io::stdin().lock()).map_err(|e| Error::Usage(e.to_string()))?;
    let origin = origin(&source)?;
    let overrides = Overrides {
        set: changes.set.to_vec(),
        only: changes.only.to_vec(),
        skip: changes.skip.to_vec(),
        env: &|name| std::env::var(name).ok(),
    };
    let (plan, diagnostics) = match spec::read(&source.text) {
        Ok(spec) => plan::build(spec, &origin, &overrides),
        Err(wrong) => {
            let mut diagnostics = wrong.problems;
            if let Some(partial) = wrong.partial {
                let (_, more) = plan::build(partial.spec.clone(), &origin, &overrides);
                diagnostics.extend(more.into_iter().filter(|problem| partial.trusts(problem)));
            }
            (None, diagnostics)
        }
    };
    let plan = plan.filter(|_| {
        diagnostics
            .iter()
            .all(|problem| problem.severity < Severity::Error)
    });
    Ok(Loaded {
        source,
        plan,
        diagnostics,
    })
}

fn origin(source: &Source) -> Result<Origin, Error> {
    let cannot = |e: io::Error| Error::Usage(format!("cannot tell the current directory: {e}"));
    let Some(path) = &source.path else {
        return Ok(Origin {
            dir: std::env::current_dir().map_err(cannot)?,
            name: "stdin".to_owned(),
        });
    };
    let path = std::path::absolute(path).map_err(cannot)?;
    let dir = path
        .parent()
        .map_or_else(|| Path::new("/").to_owned(), Path::to_owned);
    let name = path
        .file_stem()
        .map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    Ok(Origin { dir, name })
}
