//! The command line: clap types, and one file for each subcommand whose function reads as its table of contents.

use std::io::{self, Write};

use crate::exit::ExitCode;
use crate::sys::process::Origin;

pub mod args;
pub mod check;
pub mod completions;
pub mod dry_run;
pub mod explain;
pub mod graph;
pub mod init;
pub mod load;
pub mod man;
pub mod pipeline;
pub mod plan;
pub mod run;
pub mod schema;
mod words;

pub use crate::cli::args::{Cli, Command};

/// Why a subcommand did not do its work. What it has said itself is no error: then it returns an [`ExitCode`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Standard output cannot be written to.
    #[error("cannot write to standard output: {0}")]
    Stdout(#[source] io::Error),
    /// What was asked for cannot be done; nothing was started.
    #[error("{0}")]
    Usage(String),
    /// procflow itself could not go on.
    #[error("{0}")]
    Broken(String),
}

impl From<io::Error> for Error {
    /// An error of the writer that a subcommand prints to. Errors of other files are named where they happen.
    fn from(error: io::Error) -> Self {
        Error::Stdout(error)
    }
}

impl Error {
    /// How the program ends by it. A reader of standard output that has seen enough (`procflow graph | head`) is no
    /// failure.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Error::Stdout(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::Success,
            Error::Stdout(_) | Error::Broken(_) => ExitCode::Broken,
            Error::Usage(_) => ExitCode::Usage,
        }
    }

    /// What to say of it on standard error; none where there is nothing to say.
    pub fn message(&self) -> Option<String> {
        match self {
            Error::Stdout(error) if error.kind() == io::ErrorKind::BrokenPipe => None,
            other => Some(crate::diagnostic::harmless(&other.to_string())),
        }
    }
}

/// Runs the subcommand that the command line names.
///
/// # Errors
/// See [`Error`].
pub fn dispatch(cli: Cli, origin: Origin, out: &mut dyn Write) -> Result<ExitCode, Error> {
    let code = match cli.command {
        Command::Run(args) => run::run(&args, origin, out)?,
        Command::Schema(args) => schema::run(&args, out)?,
        Command::Init(args) => init::run(&args, out)?,
        Command::Completions(args) => completions::run(&args, out)?,
        Command::Man => man::run(out)?,
        _ => return Err(Error::Usage("not there yet".to_owned())),
    };
    out.flush()?;
    Ok(code)
}
