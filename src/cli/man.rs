//! `procflow man`: prints the manual page, made from the same text as `--help`.

use std::io::Write;

use clap::CommandFactory;

use crate::cli::Error;
use crate::cli::args::Cli;
use crate::exit::ExitCode;

/// Prints one page for the whole program: each subcommand is a section of it.
///
/// # Errors
/// [`Error::Stdout`].
pub fn run(out: &mut dyn Write) -> Result<ExitCode, Error> {
    let mut command = Cli::command();
    command.build();
    let page = clap_mangen::Man::new(command.clone());
    page.render(out)?;
    Ok(ExitCode::Success)
}
