//! The command line: clap types, and one file for each subcommand whose function reads as its table of contents.

use std::io::{self, Write};

use crate::exit::ExitCode;
use crate::report::Terminal;
use crate::sys::process::Origin;

pub mod args;
pub mod check;
pub mod completions;
pub mod dry_run;
pub mod explain;
pub mod graph;
pub mod init;
mod live;
pub mod logs;
pub mod man;
#[cfg(test)]
mod messages;
pub mod pipeline;
pub mod plan;
pub mod ps;
pub mod replay;
pub mod run;
pub mod runs;
pub mod schema;
pub mod server;
pub mod show;
pub mod stop;
mod take_up;
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

/// Runs the subcommand that the command line names. What it prints goes to `out`.
///
/// # Errors
/// See [`Error`].
pub fn dispatch(command: Command, origin: Origin, out: &mut dyn Write) -> Result<ExitCode, Error> {
    match command {
        Command::Run(args) => run::run(&args, origin, out),
        Command::Replay(args) => replay::run(&args, origin),
        // It was opened to /dev/null, where what is printed would vanish.
        _ if origin.was_closed(1) => Err(Error::Stdout(io::Error::from_raw_os_error(libc::EBADF))),
        printing => print(printing, out),
    }
}

/// Runs a subcommand that prints. Problems of a pipeline go to standard error, but for those of `check`, whose purpose they
/// are.
fn print(command: Command, out: &mut dyn Write) -> Result<ExitCode, Error> {
    let terminal = Terminal::of_stderr();
    let styled = terminal.look().colour;
    let mut problems = Vec::new();
    let code = match command {
        Command::Run(_) | Command::Replay(_) => panic!("BUG: a run is no command that prints"),
        Command::Check(args) => check::run(&args, out, Terminal::stdout_look().colour),
        Command::Plan(args) => plan::run(&args, out, &mut problems, styled),
        Command::Explain(args) => explain::run(&args, out, &mut problems, styled),
        Command::Graph(args) => graph::run(&args, out, &mut problems, styled),
        Command::Runs(args) => runs::run(&args, out, &mut problems),
        Command::Show(args) => show::run(&args, out),
        Command::Logs(args) => logs::run(&args, out),
        Command::Ps(args) => ps::run(&args, out, &mut problems),
        Command::Stop(args) => stop::run(&args, out),
        Command::Schema(args) => schema::run(&args, out),
        Command::Init(args) => init::run(&args, out),
        Command::Completions(args) => completions::run(&args, out),
        Command::Man => man::run(out),
    };
    terminal.say(&String::from_utf8_lossy(&problems));
    let code = code?;
    out.flush()?;
    Ok(code)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::io::{self, Write};

    use clap::{CommandFactory, Parser};

    use crate::cli::args::parse;
    use crate::cli::{Cli, Error, print};
    use crate::exit::ExitCode;

    /// Standard output that cannot be written to.
    struct Broken(io::ErrorKind);

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Err(self.0.into())
        }
    }

    fn run(line: &str, out: &mut dyn Write) -> Result<ExitCode, Error> {
        print(
            Cli::try_parse_from(line.split_whitespace())
                .unwrap()
                .command,
            out,
        )
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn usage_errors_exit_with_2_and_help_with_0() {
        let code = |line: &str| {
            Cli::try_parse_from(line.split_whitespace())
                .map_or_else(|error| error.exit_code(), |_| -1)
        };
        for line in [
            "procflow",
            "procflow rum p",
            "procflow run",
            "procflow run p --jobs 0",
            "procflow run p --set x",
            "procflow run p --set =x",
            "procflow run p --timeout 5",
            "procflow run p -k --on-failure stop",
            "procflow explain p",
            "procflow check",
            "procflow schema all",
        ] {
            assert_eq!(code(line), 2, "{line}");
        }
        for line in [
            "procflow --help",
            "procflow run --help",
            "procflow --version",
        ] {
            assert_eq!(code(line), 0, "{line}");
        }
        for line in [
            "procflow run - --set a=b=c --set d= --only x --only @y --skip z -j 3 -n --timeout 1h --on-failure kill",
            "procflow run p -k --json r --events - --progress plain --output grouped --exit-code-from x --state-dir d",
            "procflow check a b --format github --set a=b",
            "procflow plan p --format json --only x",
            "procflow graph p --format dot --skip x",
        ] {
            assert_eq!(code(line), -1, "{line}");
        }
    }

    #[test]
    fn run_is_read_as_by_the_whole_command_line() {
        for line in [
            "procflow run p",
            "procflow run - --set a=b=c --set d= --only x --only @y --skip z -j 3 -n --timeout 1h --on-failure kill",
            "procflow run p -kj4 --json=r --events - --progress plain --output grouped --exit-code-from x --state-dir d",
            "procflow run -- -p",
            "procflow run run",
            "procflow run",
            "procflow run --help",
            "procflow run -h",
            "procflow run help",
            "procflow run --version",
            "procflow run p --job 3",
            "procflow run p q",
            "procflow run p -j 0",
            "procflow run p -k --on-failure stop",
        ] {
            let line: Vec<_> = line.split_whitespace().map(Into::into).collect();
            let whole = Cli::try_parse_from(&line).map(|cli| format!("{cli:?}"));
            let read = parse(line.clone()).map(|cli| format!("{cli:?}"));
            assert_eq!(
                read.map_err(|e| e.to_string()),
                whole.map_err(|e| e.to_string()),
                "{line:?}"
            );
        }
    }

    #[test]
    fn a_wrong_command_line_is_told_the_way_on() {
        let told = |line: &str| {
            parse(line.split_whitespace().map(Into::into).collect())
                .unwrap_err()
                .to_string()
        };
        for (line, tip) in [
            (
                "procflow a.toml",
                "\n  tip: to run a pipeline: procflow run a.toml\n",
            ),
            (
                "procflow run p -j 0",
                ": expected a number from 1 to 1000000\n",
            ),
        ] {
            assert!(told(line).contains(tip), "{}", told(line));
        }
        assert!(!told("procflow sort").contains("tip: to run"));
    }

    #[test]
    fn what_is_no_node_is_told_as_what_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.toml");
        let text = "[process.read]\ncommand = ['x']\nstdout = ['q', 'log']\n[process.sort]\ncommand = ['x']\nstdin = 'q'\n";
        std::fs::write(&path, text).unwrap();
        for (word, told) in [
            (
                "q",
                "`q` is a queue: read → sort (pipe, one of several copies)",
            ),
            ("srot", "did you mean `sort`?"),
            ("zzz", "`procflow plan` shows its nodes"),
        ] {
            let line = format!("procflow explain {} {word}", path.display());
            let error = run(&line, &mut Vec::new()).unwrap_err();
            let expected = format!("no node `{word}` in {}; {told}", path.display());
            assert_eq!(error.message(), Some(expected));
        }
    }

    #[test]
    fn a_reader_that_has_seen_enough_is_no_failure_a_full_disk_is() {
        for line in [
            "procflow schema pipeline",
            "procflow man",
            "procflow completions bash",
            "procflow init -",
        ] {
            let error = run(line, &mut Broken(io::ErrorKind::BrokenPipe)).unwrap_err();
            assert_eq!(
                (error.exit_code(), error.message()),
                (ExitCode::Success, None),
                "{line}"
            );
            let error = run(line, &mut Broken(io::ErrorKind::StorageFull)).unwrap_err();
            let message = Some("cannot write to standard output: no storage space".to_owned());
            assert_eq!(
                (error.exit_code(), error.message()),
                (ExitCode::Broken, message),
                "{line}"
            );
        }
    }

    #[test]
    fn init_writes_a_pipeline_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.toml");
        let line = format!("procflow init {}", path.display());
        let mut out = Vec::new();
        assert!(matches!(run(&line, &mut out), Ok(ExitCode::Success)));
        assert_eq!(
            String::from_utf8(out).unwrap(),
            format!("wrote {0}; next: procflow run {0}\n", path.display())
        );
        std::fs::write(&path, "mine").unwrap();
        let error = run(&line, &mut Vec::new()).unwrap_err();
        assert_eq!(error.exit_code(), ExitCode::Usage);
        assert_eq!(
            error.message().unwrap(),
            format!(
                "{} exists already, and is not overwritten; name another file, or `-` to print it",
                path.display()
            )
        );
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
    }
}
