//! procflow itself could not go on: the third kind of bad end, beside a wrong file and a failed node.

use std::fmt;
use std::io;

use crate::diagnostic::reason;
use crate::store;

/// What procflow could not do, and why. It follows that everything is stopped, and exit code 3.
#[derive(Debug)]
pub enum Error {
    /// A system call, or what stands for one.
    Call {
        /// What it was for; completes "cannot …".
        what: String,
        /// Why not.
        source: io::Error,
    },
    /// The run directory.
    Store(store::Error),
}

impl Error {
    /// `what` completes "cannot …".
    pub fn new(what: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Error::Call {
            what: what.into(),
            source: source.into(),
        }
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        Error::Store(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, source) = match self {
            Error::Call { what, source } => (what, source),
            Error::Store(error) => return write!(f, "{error}"),
        };
        write!(f, "cannot {what}: {}", reason(source))?;
        match source.raw_os_error() {
            Some(libc::EMFILE) => {
                f.write_str("; raise the limit with `ulimit -n`, or run fewer jobs at once with -j")
            }
            Some(libc::ENFILE) => f.write_str("; the whole machine has no file descriptors left"),
            Some(libc::ENOSPC) => {
                f.write_str("; free some space, or put the run's files elsewhere with --state-dir")
            }
            Some(libc::EAGAIN) => f.write_str(
                "; the limit of processes is reached (`ulimit -u`): run fewer jobs at once with -j",
            ),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Call { source, .. } => Some(source),
            Error::Store(error) => Some(error),
        }
    }
}
