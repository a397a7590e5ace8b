//! The run directory: what a run leaves behind, and where.
//!
//! ```text
//! .procflow/            0700, beside the pipeline (or --state-dir)
//!   .gitignore          *
//!   key                 made when something is secret: without it hashes of what is say nothing
//!   runs/ID/            one run, flock(2)ed while it lives; IDs sort by time
//!     pipeline.toml     the text that was run
//!     run.json          what else the plan was made of
//!     stdin/NODE        what a node read, where that is recorded
//!     events.jsonl      report.json
//!     journal           what is finished, for a later run to take up
//!     logs/NODE.out     logs/NODE.err     made when there is something to write; NODE.WORKER.out of a pool
//!     queues/           made when a queue needs it
//! ```
//!
//! The name of a matrix node, `test[py=3.12]`, may hold anything: [`file_name`] makes a file's name of it.
//!
//! It knows files and names, not what is in them: `report` writes events and the report, `queue` what it spills.

pub mod journal;
mod key;
mod logs;
mod names;
mod run_dir;
mod runs;

pub use key::key;
pub use logs::Logs;
pub use names::{file_name, name_of};
pub use run_dir::{KEEP, RunDir, RunId, record_name};
pub use runs::{FindError, Head, Listing, Run, Runs};

use std::io;
use std::path::{Path, PathBuf};

/// The run directory could not be made or written. procflow cannot go on then (exit code 3).
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call failed.
    #[error("cannot {doing} {}: {}{}", path.display(), crate::diagnostic::reason(source), hint(source))]
    Io {
        /// What was tried, as a verb: "create", "write".
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The state directory is there, and is not ours to use.
    #[error("{} {why}; name another directory with --state-dir", path.display())]
    Unfit {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it, as a predicate: "is a symbolic link".
        why: String,
    },
}

impl Error {
    fn io(doing: &'static str, path: impl AsRef<Path>, source: impl Into<io::Error>) -> Self {
        Error::Io {
            doing,
            path: path.as_ref().to_owned(),
            source: source.into(),
        }
    }
}

/// The way out, where the errno says that another directory is one.
fn hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied
        | io::ErrorKind::ReadOnlyFilesystem
        | io::ErrorKind::NotADirectory
        // A file system without locks, as some networks have.
        | io::ErrorKind::Unsupported => {
            "; name a directory for runs with --state-dir"
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "; make room, or name another place with --state-dir",
        _ => "",
    }
}

#[cfg(test)]
mod tests;
