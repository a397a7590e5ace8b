//! [`Observers`]: hands every event, and what units print, to whoever watches: the run directory, event files, and reporters.
//! What goes wrong in one of them touches no other.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::time::Duration;

use crate::diagnostic::reason;
use crate::event::{Exit, Outcome, Printer, RunEvent, Stream, What};
use crate::plan::{Plan, UnitId};
use crate::report::block::Tail;
use crate::report::events::{EventLog, write_line};
use crate::report::fed::ended_ill;
use crate::report::json::Report;
use crate::report::junit;
use crate::report::places::Places;
use crate::report::printed::Printed;
use crate::report::redact::{Held, Redactor};
use crate::report::sanitize;
use crate::report::summary;
use crate::report::tally::Tally;
use crate::report::units::Label;
use crate::store;

/// What a reporter may look at, beside what it is told.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// The pipeline.
    pub plan: &'a Plan,
    /// What has happened so far; the event that a reporter is told of is in it already.
    pub tally: &'a Tally,
    /// Secrets are to be taken out of every text of an event. (Output comes without them.)
    pub secrets: &'a Redactor,
}

/// Shows a run to someone. It can't fail: what it can't show is lost.
pub trait Reporter {
    /// This has happened.
    fn event(&mut self, event: &RunEvent, view: &View<'_>);

    /// This was printed to a log. Cut anywhere; without secrets.
    fn output(&mut self, from: Printer, stream: Stream, bytes: &[u8], view: &View<'_>);

    /// A process that printed something has ended, with all that it printed. Of a unit it comes before the event of its end.
    fn output_ended(&mut self, from: Printer, view: &View<'_>);

    /// It is now so late, since the run's start.
    fn tick(&mut self, now: Duration, view: &View<'_>);

    /// How often it wants [`Reporter::tick`]; never, if it need not.
    fn tick_every(&self) -> Option<Duration> {
        None
    }

    /// One wake-up is over: now is the time to write what has come.
    fn flush(&mut self);

    /// The screen is someone else's from here on, until [`Reporter::resume`]: a shell's, when the run is stopped (Ctrl-Z) or goes on
    /// in the background, or a node's that talks to the user itself. What moves is taken off it now; lines may still be said.
    fn suspend(&mut self) {}

    /// The screen is ours again. Where the cursor stands nobody knows. Follows a [`Reporter::suspend`].
    fn resume(&mut self) {}

    /// The run has ended; this is the last call.
    fn finish(&mut self, view: &View<'_>);
}

/// A report that was asked for could not be written: exit code 3.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {name}: {}", reason(why))]
pub struct SinkError {
    /// What the user called it.
    pub name: String,
    /// What the kernel said.
    pub why: io::Error,
}

/// Everyone who watches a run.
pub struct Observers<'p> {
    plan: &'p Plan,
    secrets: Redactor,
    tally: Tally,
    /// Of those that run and have printed something.
    streams: BTreeMap<Printer, Streams>,
    /// Of each fed pool that runs, the end of the standard error of the worker that failed last.
    failed_tails: HashMap<UnitId, Vec<u8>>,
    logs: Option<store::Logs>,
    journal: Option<EventLog>,
    event_files: Vec<EventLog>,
    reporters: Vec<Box<dyn Reporter>>,
    /// The ends of what was printed, where a report at the end wants them.
    printed: Option<Printed>,
    suspended: bool,
    /// The line that is being written; kept for its memory.
    line: Vec<u8>,
    fatal: Option<store::Error>,
    faults: Vec<SinkError>,
}

/// What is kept of the output of a process that runs.
#[derive(Debug, Default)]
struct Streams {
    out: Held,
    err: Held,
    tail: Tail,
}

impl<'p> Observers<'p> {
    /// Nobody watches yet.
    pub fn new(plan: &'p Plan) -> Self {
        Observers {
            plan,
            secrets: Redactor::new(&plan.secrets),
            tally: Tally::new(plan),
            streams: BTreeMap::new(),
            failed_tails: HashMap::new(),
            logs: None,
            journal: None,
            event_files: Vec::new(),
            reporters: Vec::new(),
            printed: None,
            suspended: false,
            line: Vec::new(),
            fatal: None,
            faults: Vec::new(),
        }
    }

    /// Keeps what units print, and events, in the run directory. Its errors end the run ([`Observers::flush`]).
    pub fn keep(&mut self, logs: store::Logs, journal: EventLog) {
        self.logs = Some(logs);
        self.journal = Some(journal);
    }

    /// Writes events here as well. Its errors are told at the end ([`Observers::finish`]).
    pub fn add_event_file(&mut self, file: EventLog) {
        self.event_files.push(file);
    }

    /// Keeps the ends of what units print, for [`Observers::junit`].
    pub fn keep_printed(&mut self) {
        self.printed = Some(Printed::default());
    }

    /// Shows the run to this one as well.
    pub fn add_reporter(&mut self, reporter: Box<dyn Reporter>) {
        self.reporters.push(reporter);
    }

    /// What has happened so far.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// For texts that are shown in another way.
    pub fn secrets(&self) -> &Redactor {
        &self.secrets
    }

    /// The report, as far as the run has come.
    pub fn report(&self) -> Report {
        Report::new(self.plan, &self.tally, &self.secrets)
    }

    /// The run as JUnit XML, as far as it has come.
    pub fn junit(&self, places: &Places) -> String {
        let nothing = Printed::default();
        let printed = self.printed.as_ref().unwrap_or(&nothing);
        let view = View {
            plan: self.plan,
            tally: &self.tally,
            secrets: &self.secrets,
        };
        junit::document(&view, printed, places)
    }

    /// The run as the summary of a job, in at most so many bytes; see [`summary::markdown`].
    pub fn summary(&self, limit: usize) -> String {
        let view = View {
            plan: self.plan,
            tally: &self.tally,
            secrets: &self.secrets,
        };
        summary::markdown(&view, limit)
    }

    /// This has happened. Where a unit failed and `stderr_tail` is empty, it is filled in from what came by
    /// [`Observers::output`]. A try's output ends with its `Ended` or `Retrying`, that of a worker with its `WorkerEnded` (of a
    /// `task` pool, which has none, with [`Observers::output_ended`]).
    pub fn event(&mut self, mut event: RunEvent) {
        match &mut event.what {
            What::Ended {
                unit,
                outcome,
                stderr_tail,
                ..
            } => {
                let tail = self.end_unit(*unit);
                if matches!(outcome, Outcome::Failed(_)) && stderr_tail.is_empty() {
                    *stderr_tail = self.disjoined(tail);
                }
            }
            What::Retrying {
                unit, stderr_tail, ..
            } => {
                let tail = self.end_try(*unit);
                if stderr_tail.is_empty() {
                    *stderr_tail = self.disjoined(tail);
                }
            }
            What::WorkerEnded {
                unit, worker, exit, ..
            } => {
                let worker = Some(*worker);
                self.output_ended(
                    Printer {
                        unit: *unit,
                        worker,
                    },
                    *exit,
                );
            }
            _ => {}
        }
        self.tally.add(self.plan, &event);
        if self.journal.is_some() || !self.event_files.is_empty() {
            self.line.clear();
            write_line(&mut self.line, self.plan, &self.secrets, &event);
            for log in self.journal.iter_mut().chain(&mut self.event_files) {
                log.push(&self.line);
            }
        }
        let view = View {
            plan: self.plan,
            tally: &self.tally,
            secrets: &self.secrets,
        };
        for reporter in &mut self.reporters {
            reporter.event(&event, &view);
        }
    }

    /// This was printed to a log, by a unit or a worker of a pool.
    pub fn output(&mut self, from: impl Into<Printer>, stream: Stream, bytes: &[u8]) {
        let from = from.into();
        let streams = self.streams.entry(from).or_default();
        let held = match stream {
            Stream::Out => &mut streams.out,
            Stream::Err => &mut streams.err,
        };
        let shown = self.secrets.chunk(held, bytes);
        // Why a service does not get ready it may say anywhere.
        let node = self.plan.node(self.plan.unit(from.unit).node);
        if stream == Stream::Err || node.service.is_some() {
            streams.tail.push(&shown);
        }
        if let Some(printed) = &mut self.printed {
            printed.push(from, stream, &shown);
        }
        let view = View {
            plan: self.plan,
            tally: &self.tally,
            secrets: &self.secrets,
        };
        show(
            from,
            stream,
            &shown,
            &view,
            &mut self.logs,
            &mut self.reporters,
            &mut self.fatal,
        );
    }

    /// A worker of a pool that procflow feeds has ended, and with it what it printed. Another process may go on in its place.
    pub fn output_ended(&mut self, worker: Printer, exit: Exit) {
        let tail = self
            .end_output(worker)
            .map(|mut streams| streams.tail.take());
        if ended_ill(&self.plan.unit(worker.unit).settings, exit) {
            self.failed_tails
                .insert(worker.unit, tail.unwrap_or_default());
        }
    }

    /// Nothing more comes from this try of a unit: what was held back is shown, its logs are closed. Gives the last lines of its
    /// standard error, should it have failed.
    fn end_unit(&mut self, unit: UnitId) -> Vec<u8> {
        let failed = self.failed_tails.remove(&unit);
        let first = Printer::from(unit);
        let last = Printer {
            worker: Some(u32::MAX),
            ..first
        };
        let mut tail = Vec::new();
        // Most units print nothing; then nobody has anything to end.
        while let Some((&from, _)) = self.streams.range(first..=last).next() {
            if let Some(mut streams) = self.end_output(from) {
                tail = streams.tail.take();
            }
        }
        if let Some(logs) = &mut self.logs
            && let Err(e) = logs.close(unit)
        {
            self.logs = None;
            self.fatal.get_or_insert(e);
        }
        failed.unwrap_or(tail)
    }

    /// Nothing more comes from this try of a group, which failed by this unit. Gives the last lines of its standard error.
    fn end_try(&mut self, failed: UnitId) -> Vec<u8> {
        let plan = self.plan;
        let mut tail = Vec::new();
        for &unit in &plan.group(plan.unit(failed).group).units {
            let of_unit = self.end_unit(unit);
            if unit == failed {
                tail = of_unit;
            }
            if let Some(printed) = &mut self.printed {
                printed.end_try(unit, unit == failed);
            }
        }
        tail
    }

    /// Nothing more comes from this process: what was held back is shown.
    fn end_output(&mut self, from: Printer) -> Option<Streams> {
        let mut streams = self.streams.remove(&from)?;
        let view = View {
            plan: self.plan,
            tally: &self.tally,
            secrets: &self.secrets,
        };
        if !self.secrets.is_idle() {
            let out = self.secrets.end(&mut streams.out);
            let err = self.secrets.end(&mut streams.err);
            streams.tail.push(&err);
            for (stream, bytes) in [(Stream::Out, out), (Stream::Err, err)] {
                if let Some(printed) = &mut self.printed {
                    printed.push(from, stream, &bytes);
                }
                show(
                    from,
                    stream,
                    &bytes,
                    &view,
                    &mut self.logs,
                    &mut self.reporters,
                    &mut self.fatal,
                );
            }
        }
        for reporter in &mut self.reporters {
            reporter.output_ended(from, &view);
        }
        Some(streams)
    }

    /// The end of a stream as it can be shown: where taking out its controls would put a secret together, they are taken out here.
    fn disjoined(&self, tail: Vec<u8>) -> Vec<u8> {
        if self.secrets.is_idle() {
            return tail;
        }
        let lines = tail.split(|byte| *byte == b'\n').map(|line| {
            let mut text = String::new();
            sanitize::line(&mut text, line, false);
            match self.secrets.text(&text) {
                Cow::Borrowed(_) => line.to_vec(),
                Cow::Owned(redacted) => redacted.into_bytes(),
            }
        });
        lines.collect::<Vec<_>>().join(&b'\n')
    }

    /// How often someone wants [`Observers::tick`].
    pub fn tick_every(&self) -> Option<Duration> {
        self.reporters
            .iter()
            .filter_map(|reporter| reporter.tick_every())
            .min()
    }

    /// It is now so late, since the run's start.
    pub fn tick(&mut self, now: Duration) {
        let view = View {
            plan: self.plan,
            tally: &self.tally,
            secrets: &self.secrets,
        };
        for reporter in &mut self.reporters {
            reporter.tick(now, &view);
        }
    }

    /// The screen is someone else's, until [`Observers::resume`]: what moves is taken off it, now. Twice is once.
    pub fn suspend(&mut self) {
        if !std::mem::replace(&mut self.suspended, true) {
            for reporter in &mut self.reporters {
                reporter.suspend();
            }
        }
    }

    /// The screen is ours again. Without a [`Observers::suspend`] before it does nothing.
    pub fn resume(&mut self) {
        if std::mem::take(&mut self.suspended) {
            for reporter in &mut self.reporters {
                reporter.resume();
            }
        }
    }

    /// One wake-up is over: everything is written.
    ///
    /// # Errors
    /// Where the run directory could not be written since the last call: the run cannot go on. It is told once, and the run
    /// directory's files are left as they are then.
    pub fn flush(&mut self) -> Result<(), store::Error> {
        if let Some(logs) = &mut self.logs
            && let Err(e) = logs.flush()
        {
            self.logs = None;
            self.fatal.get_or_insert(e);
        }
        if let Some(journal) = &mut self.journal
            && let Err(e) = journal.flush()
        {
            let path = std::path::PathBuf::from(journal.name());
            self.fatal.get_or_insert(store::Error::Io {
                doing: "write",
                path,
                source: e,
            });
            self.journal = None;
        }
        let faults = &mut self.faults;
        self.event_files.retain_mut(|file| match file.flush() {
            Ok(()) => true,
            Err(why) => {
                faults.push(SinkError {
                    name: file.name().to_owned(),
                    why,
                });
                false
            }
        });
        for reporter in &mut self.reporters {
            reporter.flush();
        }
        self.fatal.take().map_or(Ok(()), Err)
    }

    /// Whether a report that was asked for could not be written so far.
    pub fn has_faults(&self) -> bool {
        !self.faults.is_empty()
    }

    /// The run has ended: writes what is left and says the last word. `own_peak`: procflow's own peak of resident memory in
    /// bytes. Gives what could not be written.
    ///
    /// # Errors
    /// As [`Observers::flush`].
    pub fn finish(&mut self, own_peak: u64) -> Result<Vec<SinkError>, store::Error> {
        self.tally.own_peak = own_peak;
        let view = View {
            plan: self.plan,
            tally: &self.tally,
            secrets: &self.secrets,
        };
        for reporter in &mut self.reporters {
            reporter.finish(&view);
        }
        self.flush()?;
        Ok(std::mem::take(&mut self.faults))
    }
}

fn show(
    from: Printer,
    stream: Stream,
    bytes: &[u8],
    view: &View<'_>,
    logs: &mut Option<store::Logs>,
    reporters: &mut [Box<dyn Reporter>],
    fatal: &mut Option<store::Error>,
) {
    if bytes.is_empty() {
        return;
    }
    if let Some(open) = logs
        && let Err(e) = open.append(
            from,
            || Label::of_printer(view.plan, from).to_string(),
            stream,
            bytes,
        )
    {
        *logs = None;
        fatal.get_or_insert(e);
    }
    for reporter in reporters {
        reporter.output(from, stream, bytes, view);
    }
}
