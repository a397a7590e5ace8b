//! The procflow program: parses the command line, runs the subcommand, and ends as it says.

use std::env;
use std::io::{self, BufWriter};
use std::process;

use procflow::cli;
use procflow::exit::ExitCode;
use procflow::report::Terminal;
use procflow::sys::process::Origin;
use procflow::sys::signals::die_by;

fn main() {
    cli::completions::answer();
    let code = match Origin::capture() {
        Ok(origin) => {
            let cli =
                cli::args::parse(env::args_os().collect()).unwrap_or_else(|error| error.exit());
            let mut out = BufWriter::new(io::stdout());
            cli::dispatch(cli.command, origin, &mut out).unwrap_or_else(|error| {
                if let Some(message) = error.message() {
                    Terminal::of_stderr().say(&format!("procflow: {message}\n"));
                }
                error.exit_code()
            })
        }
        Err(error) => {
            Terminal::of_stderr().say(&format!("procflow: cannot set up this process: {error}\n"));
            ExitCode::Broken
        }
    };
    if let ExitCode::Signal(signal) = code {
        die_by(signal);
    }
    process::exit(i32::from(code.code()));
}
