//! Runs that go on, of this user, wherever on this machine their directories are: their procflows have them open.

use std::ffi::OsStr;
use std::path::Path;

use crate::cli::args::WhichArgs;
use crate::cli::{Error, runs};
use crate::store::{Head, Run};
use crate::sys::others::{namesakes, open_paths};

/// All of them, the newest first.
pub(crate) fn all() -> Vec<(Run, Head)> {
    let mut found: Vec<(Run, Head)> = Vec::new();
    for pid in namesakes() {
        let paths = open_paths(pid);
        let is_run = |path: &&std::path::PathBuf| {
            path.parent().and_then(Path::file_name) == Some(OsStr::new("runs"))
        };
        let run = paths.iter().filter(is_run).find_map(|path| Run::at(path));
        let Some(run) = run else { continue };
        let Ok(head) = run.head() else { continue };
        if head.pid == pid && run.is_live() {
            found.push((run, head));
        }
    }
    found.sort_by(|(one, _), (other, _)| other.id().cmp(one.id()));
    found
}

/// The run that a RUN means: of the state directory, or, where that has none such, one that goes on elsewhere.
///
/// # Errors
/// There is none, or several.
pub(crate) fn find(which: &WhichArgs) -> Result<(Run, Head), Error> {
    let error = match runs::find(which) {
        Ok(found) => return Ok(found),
        Err(error) => error,
    };
    if which.state.state_dir.is_some() || matches!(error, Error::Broken(_)) {
        return Err(error);
    }
    let word = which.run.to_string_lossy();
    let mut found = all();
    match &*word {
        "" | "last" => return Err(error),
        id => found.retain(|(run, _)| run.id().as_str().starts_with(id)),
    }
    match found.len() {
        1 => found.pop().ok_or(error),
        0 => Err(error),
        several => Err(Error::Usage(format!(
            "`{word}` begins the names of {several} runs that go on; say more of it"
        ))),
    }
}
