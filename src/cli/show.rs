//! `procflow show`: what a run did, as it said itself at its end.

use std::io::{self, Write};

use crate::cli::args::{PlanFormat, ShowArgs};
use crate::cli::{Error, runs};
use crate::diagnostic::harmless;
use crate::exit::ExitCode;
use crate::report::{Past, Terminal};

/// Shows a run.
///
/// # Errors
/// See [`Error`].
pub fn run(args: &ShowArgs, out: &mut dyn Write) -> Result<ExitCode, Error> {
    let (run, head) = runs::find(&args.which)?;
    if args.format == PlanFormat::Json {
        let report = runs::report(&run).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound if run.is_live() => Error::Usage(format!(
                "run {} has not ended, and has no report yet; without --format json it is shown as far as it has come",
                run.id()
            )),
            io::ErrorKind::NotFound => Error::Usage(format!(
                "run {} was killed, and has no report; without --format json it is shown as far as its events tell",
                run.id()
            )),
            _ => runs::unreadable(&run, "report.json", &e),
        })?;
        out.write_all(&report)?;
        return Ok(ExitCode::Success);
    }
    let past = runs::past(&run, &head, Past::of_report);
    let started = humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + head.started);
    let file = head.file.as_ref().map_or_else(
        || "standard input".to_owned(),
        |file| file.display().to_string(),
    );
    let first = format!("{}: run {}, {started}, {file}", head.pipeline, run.id());
    let mut text = format!("{}\n", harmless(&first));
    past.show(&mut text, Terminal::stdout_look());
    out.write_all(text.as_bytes())?;
    Ok(ExitCode::Success)
}
