//! `procflow stop`: ends a run as SIGTERM would, and waits until it has ended.

use std::io::Write;
use std::time::Duration;

use crate::cli::args::StopArgs;
use crate::cli::{Error, live, runs};
use crate::diagnostic::reason;
use crate::exit::ExitCode;
use crate::report::{Past, Terminal};
use crate::store::{Head, Run};
use crate::sys::others::{Other, has_open, is_namesake, stat};

/// How often `--kill` says it again. procflow takes the first as a request to stop, and each further one as one to kill.
const AGAIN: Duration = Duration::from_millis(50);

/// How long what has ended may take to be gone.
const GONE: Duration = Duration::from_secs(10);

/// Stops a run.
///
/// # Errors
/// See [`Error`].
pub fn run(args: &StopArgs, out: &mut dyn Write) -> Result<ExitCode, Error> {
    let (run, head) = live::find(&args.which)?;
    let told = |what: &str| format!("run {} {what}", run.id());
    if !run.is_live() {
        let past = runs::past(&run, &head, Past::in_short);
        let ended = told(&format!("has ended already: {}\n", past.verdict));
        Terminal::of_stderr().say(&format!("procflow: {ended}"));
        return Ok(ExitCode::Success);
    }
    let cannot =
        |e: std::io::Error| Error::Broken(told(&format!("cannot be stopped: {}", reason(&e))));
    // First the process, then the question whether it is the one: so no other can have got its number in between.
    let runner = Other::open(head.pid).map_err(cannot)?;
    let Some(runner) = runner.filter(|runner| is_runner(runner, &run)) else {
        if !run.is_live() {
            return ended(&run, &head, out);
        }
        return Err(Error::Broken(told(&format!(
            "is of another machine or container: no process here with the pid {} is its procflow",
            head.pid
        ))));
    };
    let guard = stat(runner.pid()).and_then(|stat| Other::open(stat.parent).ok().flatten());
    // The same procflow's, if the runner still is its child.
    let guard = guard.filter(|guard| {
        stat(runner.pid()).is_some_and(|stat| stat.parent == guard.pid())
            && is_namesake(guard.pid())
    });
    let signal = |process: &Other, number| process.signal(number).map_err(cannot);
    signal(&runner, libc::SIGTERM)?;
    // One that is stopped (Ctrl-Z) hears nothing until it goes on.
    for process in guard.iter().chain([&runner]) {
        if stat(process.pid()).is_some_and(|stat| stat.state == 'T') {
            signal(process, libc::SIGCONT)?;
        }
    }
    if args.no_wait {
        if args.kill {
            std::thread::sleep(AGAIN);
            signal(&runner, libc::SIGTERM)?;
        }
        return Ok(ExitCode::Success);
    }
    let patience = if args.kill { AGAIN } else { GONE };
    while !runner.wait(patience).map_err(cannot)? {
        if args.kill {
            signal(&runner, libc::SIGTERM)?;
        }
    }
    // It sees to what its nodes have left behind.
    if let Some(guard) = &guard {
        guard.wait(GONE).map_err(cannot)?;
    }
    ended(&run, &head, out)
}

fn is_runner(process: &Other, run: &Run) -> bool {
    has_open(process.pid(), run.dir())
}

fn ended(run: &Run, head: &Head, out: &mut dyn Write) -> Result<ExitCode, Error> {
    let past = runs::past(run, head, Past::in_short);
    writeln!(out, "run {}: {}", run.id(), past.verdict)?;
    Ok(ExitCode::Success)
}
