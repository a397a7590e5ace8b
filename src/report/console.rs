//! [`Console`]: a run as people see it on a terminal or in a CI log: a line for each end, what nodes print, the closing table.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

use anstyle::AnsiColor;
use indexmap::IndexMap;

use crate::event::{Cause, Failure, Outcome, Printer, RunEvent, Stream, What};
use crate::plan::{NodeId, Plan, UnitId};
use crate::report::bars::Bars;
use crate::report::block::{Block, Lines};
use crate::report::ci::{self, Level};
use crate::report::lines::{self, Layout};
use crate::report::observers::{Reporter, View};
use crate::report::places::Places;
use crate::report::sanitize;
use crate::report::table;
use crate::report::tally::NodeEnd;
use crate::report::terminal::{Look, Paint, Terminal};
use crate::report::units::{Label, bytes, plural, shortened};
use crate::report::words;
use crate::store::file_name;

/// How a run's progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Bars that are drawn again and again; on a terminal only.
    Bars,
    /// A line for each end.
    Plain,
    /// Failures only.
    None,
}

impl Progress {
    /// What suits this place: bars on a terminal, but not in continuous integration, whose terminal is a log.
    pub fn auto(look: Look, ci: bool) -> Self {
        if look.size.is_some() && !ci {
            Progress::Bars
        } else {
            Progress::Plain
        }
    }
}

/// How what nodes print is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// All of a node when it has ended.
    Grouped,
    /// Line by line as it comes, each with the node's name.
    Prefixed,
    /// All of a node when it has failed.
    Failed,
    /// Not at all. (Of a failure the last lines of its standard error are shown in any case.)
    None,
}

impl Output {
    /// What suits this place: who sits at a terminal wants lines as they come, who reads a log wants them in order.
    pub fn auto(look: Look, ci: bool) -> Self {
        if look.size.is_some() && !ci {
            Output::Prefixed
        } else {
            Output::Grouped
        }
    }
}

/// A node that runs longer than this is told of, and again each time its time has doubled.
const LONG: Duration = Duration::from_secs(60);

/// How often bars are drawn at most. What comes between waits: drawing at each of the events of a busy run is what makes bars slow.
const DRAW: Duration = Duration::from_millis(80);

/// How often plain progress looks for long runners. The loop has to wake up for it: so, seldom.
const LOOK: Duration = Duration::from_secs(10);

/// Shows a run on a [`Terminal`].
#[derive(Debug)]
pub struct Console {
    terminal: Terminal,
    look: Look,
    progress: Progress,
    output: Output,
    /// Where the run's files are, to be named when something failed.
    run_dir: Option<PathBuf>,
    log: ci::Log,
    layout: Option<Layout>,
    bars: Option<Bars>,
    /// The screen is someone else's for the time.
    suspended: bool,
    /// When bars were last drawn.
    drawn: Option<Duration>,
    /// Nodes that run, as they were started.
    running: IndexMap<NodeId, Due>,
    /// What has been printed of lines that are not whole yet.
    lines: HashMap<Printer, Lines>,
    /// What nodes that run have printed, where it is shown when they have ended.
    blocks: HashMap<NodeId, Block>,
    /// What is to be said at the next flush (with bars: tick).
    pending: String,
}

/// When a node that runs is to be told of, with plain progress.
#[derive(Debug, Clone, Copy)]
struct Due {
    /// At this time in any case.
    at: Duration,
    /// A pool at this time, if it has done more records than it was told of.
    counts: Duration,
    told: u64,
}

impl Due {
    fn since(start: Duration) -> Self {
        Due {
            at: start + LONG,
            counts: start + LOOK,
            told: 0,
        }
    }

    /// It is told of, now that it has run so long.
    fn tell(&mut self, now: Duration, time: Duration, done: u64) {
        self.at = now + time;
        // A log that somebody reads tomorrow needs no line for each ten seconds of a night.
        self.counts = now + LOOK.max(time / 20);
        self.told = done;
    }
}

impl Console {
    /// Shows on `terminal`. Bars become plain lines where it is none.
    pub fn new(
        terminal: Terminal,
        progress: Progress,
        output: Output,
        run_dir: Option<PathBuf>,
    ) -> Self {
        let (look, host) = (terminal.look(), terminal.host());
        let progress = if progress == Progress::Bars && look.size.is_none() {
            Progress::Plain
        } else {
            progress
        };
        let bars = (progress == Progress::Bars).then(|| Bars::new(&terminal));
        Console {
            terminal,
            look,
            progress,
            output,
            run_dir,
            log: ci::Log::new(host, Places::default()),
            layout: None,
            bars,
            suspended: false,
            drawn: None,
            running: IndexMap::new(),
            lines: HashMap::new(),
            blocks: HashMap::new(),
            pending: String::new(),
        }
    }

    /// Failures are put at the line of the file where their nodes stand, on a CI server that can.
    #[must_use]
    pub fn with_places(mut self, places: Places) -> Self {
        self.log = ci::Log::new(self.terminal.host(), places);
        self
    }

    fn layout(&mut self, view: &View<'_>) -> Layout {
        *self
            .layout
            .get_or_insert_with(|| Layout::new(view, self.look))
    }

    fn run_started(&mut self, id: &str, jobs: u32, view: &View<'_>) {
        if self.progress != Progress::Plain {
            return;
        }
        let total = view.tally.counts.total as u64;
        let (nodes, slots) = (plural(total, "node"), plural(jobs.into(), "job"));
        let _ = writeln!(
            self.pending,
            "{}: {nodes}, {slots}, run {id}",
            view.plan.name
        );
    }

    fn ended(&mut self, node: NodeId, end: &NodeEnd<'_>, view: &View<'_>) {
        self.running.shift_remove(&node);
        let block = self.blocks.remove(&node);
        let failed = matches!(end.outcome, Outcome::Failed(_));
        let show_block = match self.output {
            Output::Grouped => block.is_some(),
            Output::Failed => block.is_some() && failed,
            Output::Prefixed | Output::None => false,
        };
        if !(self.progress == Progress::Plain || failed || show_block) {
            return;
        }
        let layout = self.layout(view);
        let mut line = String::new();
        lines::ended(&mut line, view, layout, node, end);
        match block {
            Some(block) if show_block => {
                let times = (end.at.saturating_sub(end.usage.wall), end.at);
                self.say_block(&line, &block, node, times, !failed, view);
            }
            _ => {
                self.say_line(&line);
                if failed {
                    self.quote_tail(end, view);
                }
            }
        }
    }

    /// What a CI server is to show by itself: a failure, and what is no failure but should be looked at.
    fn annotate(&mut self, node: NodeId, end: &NodeEnd<'_>, view: &View<'_>) {
        let may_fail = view.plan.node(node).allow_failure;
        let (level, state, why) = match end.outcome {
            Outcome::Failed(_) => {
                let why = words::node_reason(view.plan, end).unwrap_or_default();
                let (level, state) = if may_fail {
                    (Level::Warning, "failed, as it may")
                } else {
                    (Level::Error, "failed")
                };
                (level, state, why)
            }
            _ if view.tally.is_flaky(view.plan, node, end) => {
                let tries = view.tally.failed_tries(view.plan, node);
                let tries = tries.iter().map(|(unit, failed)| {
                    let why = words::unit_failure(view.plan, *unit, &failed.failure);
                    format!("try {} failed: {why}", failed.attempt)
                });
                let why = tries.collect::<Vec<_>>().join("\n");
                (Level::Warning, "is flaky", why)
            }
            _ => return,
        };
        let mut text = why;
        for line in end.stderr_tail.split(|byte| *byte == b'\n') {
            if !end.stderr_tail.is_empty() {
                text.push('\n');
                sanitize::line(&mut text, line, false);
            }
        }
        let name = &view.plan.node(node).name;
        let title = format!("{name} {state}");
        let text = view.secrets.text(&text);
        self.log
            .annotate(&mut self.pending, level, node, &title, &text);
    }

    fn retrying(
        &mut self,
        unit: UnitId,
        failure: &Failure,
        delay: Duration,
        now: Duration,
        view: &View<'_>,
    ) {
        self.running.retain(|node, _| view.tally.node(*node).runs());
        let node = view.plan.unit(unit).node;
        let block = self.blocks.remove(&node);
        if self.progress != Progress::None {
            let layout = self.layout(view);
            let mut line = String::new();
            lines::retrying(&mut line, view, layout, unit, failure, delay);
            // What the failed try printed stands below it, not mixed with what the next one prints.
            match block {
                Some(block) => {
                    let tries = view.tally.unit(unit).failed_tries.last();
                    let start = tries.map_or(now, |failed| failed.started);
                    self.say_block(&line, &block, node, (start, now), true, view);
                }
                None => self.say_line(&line),
            }
        }
    }

    /// Says a line that has words of others in it, which are no commands of ours.
    fn say_line(&mut self, line: &str) {
        self.pending.push_str(&line.replace(ci::OWN, ""));
    }

    /// Says a line and, below it, what was printed: where the log can be folded, as a part of it. `times`: of the start and the
    /// end of the process.
    fn say_block(
        &mut self,
        title: &str,
        block: &Block,
        node: NodeId,
        times: (Duration, Duration),
        folded: bool,
        view: &View<'_>,
    ) {
        let began = view.tally.run.time;
        let out = &mut self.pending;
        let section = self.log.open(out, node, title, began + times.0, folded);
        for line in block.lines() {
            match line {
                Ok(line) => self.log.line(out, section.as_ref(), line),
                Err((count, size)) => {
                    let logs = self.run_dir.as_ref().map(|dir| {
                        format!(
                            ", all of it in {}",
                            dir.join("logs")
                                .join(format!("{}.*", file_name(&view.plan.node(node).name)))
                                .display()
                        )
                    });
                    let line = format!(
                        "  {} ({}) left out{}",
                        plural(count, "line"),
                        bytes(size),
                        logs.unwrap_or_default()
                    );
                    self.log.line(out, section.as_ref(), &line);
                }
            }
        }
        self.log.close(out, section, began + times.1);
    }

    fn quote_tail(&mut self, end: &NodeEnd<'_>, view: &View<'_>) {
        if end.stderr_tail.is_empty() {
            return;
        }
        let worker = Label::of(view.plan, end.unit).worker;
        for line in view.secrets.bytes(end.stderr_tail).split(|b| *b == b'\n') {
            let harmless = self.harmless(line, view);
            self.pending.push_str(&lines::quoted(worker, &harmless));
            self.pending.push('\n');
        }
    }

    fn stopping(&mut self, cause: &Cause, view: &View<'_>) {
        let once_more = match cause {
            // The failure is told of by itself.
            Cause::RunFailed(_) => return,
            Cause::Interrupted(_) => "; once more kills at once",
            _ => "",
        };
        let _ = writeln!(
            self.pending,
            "stopping: {}{once_more}",
            words::cause(view.plan, cause)
        );
    }

    /// A line that was printed, as it is shown.
    fn harmless(&self, line: &[u8], view: &View<'_>) -> String {
        let mut harmless = String::new();
        sanitize::line(&mut harmless, line, self.look.colour);
        // It came without secrets. Taking out its controls may have put one together.
        match view.secrets.text(&harmless) {
            Cow::Borrowed(_) => harmless,
            Cow::Owned(redacted) => redacted,
        }
    }

    /// Takes a line that was printed, by this mode.
    fn take_line(&mut self, from: Printer, line: &[u8], view: &View<'_>) {
        let label = Label::of_printer(view.plan, from);
        match self.output {
            Output::None => {}
            Output::Prefixed => {
                let layout = self.layout(view);
                let name = match self.look.columns {
                    None => label.to_string(),
                    Some(width) => {
                        let room = (usize::from(width) / 3).max(20);
                        shortened(&label.to_string(), room, self.look.unicode)
                    }
                };
                let name = format!("{name:<width$}", width = layout.printer.min(20));
                self.pending
                    .push_str(&layout.paint.paint(AnsiColor::Cyan.on_default(), &name));
                self.pending.push_str(" | ");
                let harmless = self.harmless(line, view);
                self.pending.push_str(&harmless);
                self.pending.push('\n');
            }
            Output::Grouped | Output::Failed => {
                let harmless = self.harmless(line, view);
                self.blocks
                    .entry(node_of(view.plan, from))
                    .or_default()
                    .push(&lines::quoted(label.worker, &harmless));
            }
        }
    }

    /// Says of what has run long that it runs, and how far pools have come.
    fn tell_of_running(&mut self, now: Duration, view: &View<'_>) {
        let layout = self.layout(view);
        for (&node, due) in &mut self.running {
            if due.at > now && due.counts > now {
                continue;
            }
            let is_pool = view.plan.node(node).pool.is_some();
            let pace = is_pool
                .then(|| view.tally.pace(view.plan, node, now))
                .flatten();
            let done = pace.and_then(|pace| pace.done).unwrap_or(0);
            let has_moved = due.counts <= now && done != due.told;
            if due.at <= now || has_moved {
                let started = view.tally.node(node).started;
                let time = now.saturating_sub(started.unwrap_or(now));
                lines::running(&mut self.pending, view, layout, node, time, pace.as_ref());
                due.tell(now, time, done);
            }
        }
    }
}

fn node_of(plan: &Plan, printer: Printer) -> NodeId {
    plan.unit(printer.unit).node
}

impl Reporter for Console {
    fn event(&mut self, event: &RunEvent, view: &View<'_>) {
        match &event.what {
            What::RunStarted { id, jobs, .. } => self.run_started(id, *jobs, view),
            What::Started { unit, .. } => {
                // Without progress nobody asks who runs.
                if self.progress != Progress::None {
                    self.running
                        .entry(view.plan.unit(*unit).node)
                        .or_insert_with(|| Due::since(event.at));
                }
            }
            What::Retrying {
                unit,
                failure,
                delay,
                ..
            } => self.retrying(*unit, failure, *delay, event.at, view),
            What::Ended { unit, .. } => {
                let node = view.plan.unit(*unit).node;
                if let Some(end) = view.tally.node_end(view.plan, node) {
                    self.ended(node, &end, view);
                    self.annotate(node, &end, view);
                }
            }
            What::Ready { unit } => {
                if self.progress == Progress::Plain {
                    let layout = self.layout(view);
                    lines::ready(&mut self.pending, view, layout, *unit);
                }
            }
            What::Stalled { time, waits } => {
                let paint = Paint(self.look.colour);
                lines::stalled(&mut self.pending, view, paint, *time, waits);
            }
            What::RunStopping { cause } => self.stopping(cause, view),
            What::QueueEnded {
                queue,
                records,
                dropped: dropped @ 1..,
                ..
            } if self.progress != Progress::None => {
                let queue = &view.plan.queue(*queue).name;
                let dropped = words::dropped(*dropped, *records);
                let _ = writeln!(self.pending, "queue {queue}: {dropped}");
            }
            What::Stopping { .. }
            | What::WorkerStarted { .. }
            | What::WorkerEnded { .. }
            | What::PoolProgress { .. }
            | What::QueueProgress { .. }
            | What::QueueEnded { .. }
            | What::RunEnded { .. } => {}
        }
    }

    fn output(&mut self, from: Printer, stream: Stream, bytes: &[u8], view: &View<'_>) {
        if self.output == Output::None {
            return;
        }
        // Taken out for the time, since a line is said by the whole console.
        let mut lines = self.lines.remove(&from).unwrap_or_default();
        lines.push(stream, bytes, |line| self.take_line(from, line, view));
        self.lines.insert(from, lines);
    }

    fn output_ended(&mut self, from: Printer, view: &View<'_>) {
        if let Some(mut lines) = self.lines.remove(&from) {
            lines.end(|line| self.take_line(from, line, view));
        }
    }

    fn tick(&mut self, now: Duration, view: &View<'_>) {
        if let (Some(bars), false) = (&mut self.bars, self.suspended) {
            if self.drawn.is_some_and(|at| now.saturating_sub(at) < DRAW) {
                return;
            }
            self.drawn = Some(now);
            self.look = self.terminal.look();
            bars.draw(
                &std::mem::take(&mut self.pending),
                now,
                self.running.keys().copied(),
                self.look,
                view,
            );
            return;
        }
        if !self.running.is_empty() {
            self.tell_of_running(now, view);
        }
    }

    fn tick_every(&self) -> Option<Duration> {
        match self.progress {
            Progress::Bars if !self.suspended => Some(Duration::from_millis(100)),
            // Somebody must find out that the screen is ours again.
            Progress::Bars => Some(Duration::from_millis(500)),
            Progress::Plain => Some(LOOK),
            Progress::None => None,
        }
    }

    fn flush(&mut self) {
        // With bars, lines go out at the next tick: drawing everything again for each of them is what makes bars slow.
        if (self.bars.is_none() || self.suspended) && !self.pending.is_empty() {
            self.terminal.say(&self.pending);
            self.pending.clear();
        }
    }

    fn suspend(&mut self) {
        self.suspended = true;
        if let Some(bars) = &mut self.bars {
            bars.hide();
        }
        self.flush();
    }

    fn resume(&mut self) {
        self.suspended = false;
        self.drawn = None;
        if let (Some(_), Some((width, _))) = (&self.bars, self.terminal.look().size) {
            // A line that was begun (a prompt) is left as it is, and nothing is where no line was begun: the spaces fill the row,
            // or, if something stands in it, reach into the next; the start of the row where they end is that of an empty one.
            let spaces = " ".repeat(usize::from(width));
            self.terminal.queue(&format!("{spaces}\r\x1b[K"));
        }
    }

    fn finish(&mut self, view: &View<'_>) {
        self.look = self.terminal.look();
        if let Some(bars) = self.bars.take() {
            bars.clear();
        }
        let paint = Paint(self.look.colour);
        let well = view
            .tally
            .ended
            .is_some_and(|(_, exit)| exit == crate::exit::ExitCode::Success);
        if self.progress != Progress::None {
            let width = self.look.columns.map(usize::from);
            table::table(&mut self.pending, view, paint, width, self.look.unicode);
        }
        if self.progress != Progress::None || !well {
            lines::verdict(&mut self.pending, view, paint);
        }
        if let (false, Some(dir)) = (well, &self.run_dir) {
            let _ = writeln!(self.pending, "its files: {}", dir.display());
        }
        self.terminal.say(&self.pending);
        self.pending.clear();
    }
}
