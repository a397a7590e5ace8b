//! The lines that procflow says of a run: how a node ended, that one still runs, how the whole went. Plain text that can be
//! searched: `[ 4/12] failed     build  0.31s  exit 2`.

use std::fmt::Write;
use std::time::Duration;

use anstyle::{AnsiColor, Style};

use crate::diagnostic::harmless;
use crate::event::{Failure, Outcome, Waiting};
use crate::plan::{NodeId, UnitId};
use crate::report::events::State;
use crate::report::flow::Pace;
use crate::report::observers::View;
use crate::report::stall::{stall, way_out};
use crate::report::tally::{Counts, NodeEnd};
use crate::report::terminal::{Look, Paint};
use crate::report::units::{self, exact, plural, short};
use crate::report::words;

/// Names are padded up to here; a longer one pushes its line out.
const WIDEST_NAME: usize = 32;

/// How lines are laid out in a run.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    /// Colours.
    pub paint: Paint,
    /// Columns of the nodes' names.
    pub name: usize,
    /// Columns of the names of those who print: a pool's workers have numbers.
    pub printer: usize,
}

impl Layout {
    /// For the names of this plan, as wide as the screen is now.
    pub fn new(view: &View<'_>, look: Look) -> Self {
        // Beside the name a line has its counter, state, time and reason. A narrow screen has no columns to give away.
        let room = look.columns.map_or(WIDEST_NAME, |width| {
            usize::from(width).saturating_sub(40).max(8)
        });
        let (mut name, mut printer) = (0, 0);
        for node in &view.plan.nodes {
            let numbers = node.pool.as_ref().map_or(0, |pool| {
                let highest = pool.workers.saturating_sub(1);
                // With the dot before it.
                highest.checked_ilog10().unwrap_or(0) as usize + 2
            });
            name = name.max(node.name.len());
            printer = printer.max(node.name.len() + numbers);
        }
        Layout {
            paint: Paint(look.colour),
            name: name.min(WIDEST_NAME).min(room),
            printer: printer.min(WIDEST_NAME).min(room),
        }
    }
}

/// The colour of how it ended.
pub fn style(outcome: &Outcome) -> Style {
    state_style(outcome.into())
}

/// The colour of a state.
pub fn state_style(state: State) -> Style {
    let colour = match state {
        State::Succeeded => AnsiColor::Green,
        State::Failed => AnsiColor::Red,
        State::Cancelled => AnsiColor::Yellow,
        State::Reused => AnsiColor::Cyan,
        State::Skipped => return Style::new().dimmed(),
    };
    Style::new().fg_color(Some(colour.into()))
}

/// `[ 4/12] `
fn counter(out: &mut String, view: &View<'_>) {
    let counts = &view.tally.counts;
    let total = units::count(counts.total as u64);
    let ended = units::count(counts.ended() as u64);
    let _ = write!(out, "[{ended:>width$}/{total}] ", width = total.len());
}

/// `[ 4/12] failed     build    0.31s  exit 2`, newline included.
pub fn ended(out: &mut String, view: &View<'_>, layout: Layout, node: NodeId, end: &NodeEnd<'_>) {
    counter(out, view);
    let state = format!("{:<9}", words::state(end.outcome));
    out.push_str(&layout.paint.paint(style(end.outcome), &state));
    let time = if end.ran {
        short(end.usage.wall)
    } else {
        "-".to_owned()
    };
    let _ = write!(
        out,
        "  {:<width$}  {time:>7}",
        view.plan.node(node).name,
        width = layout.name
    );
    for (i, remark) in remarks(view, node, end).iter().enumerate() {
        out.push_str(if i == 0 { "  " } else { "; " });
        // A program's name may hold a line's end, and what looks like a line of ours.
        out.push_str(&harmless(&view.secrets.text(remark)));
    }
    out.push('\n');
}

/// What there is to say about an end: the reason first.
fn remarks(view: &View<'_>, node: NodeId, end: &NodeEnd<'_>) -> Vec<String> {
    let mut remarks: Vec<String> = words::node_reason(view.plan, end).into_iter().collect();
    if matches!(end.outcome, Outcome::Failed(_)) && view.plan.node(node).allow_failure {
        remarks.push("it may fail".to_owned());
    }
    let is_service = view.plan.node(node).service.is_some();
    if let Some(time) = view.tally.unit(end.unit).ready_after {
        remarks.push(format!("ready after {}", short(time)));
    }
    if end.attempts > 1 {
        let restarts = u64::from(end.attempts) - 1;
        let is_flaky = view.tally.is_flaky(view.plan, node, end);
        remarks.push(match is_service {
            true if restarts == 1 => "restarted once".to_owned(),
            true => format!("restarted {restarts} times"),
            false if is_flaky => format!("flaky: {} tries", end.attempts),
            false => format!("{} tries", end.attempts),
        });
    }
    if let Some(fed) = view.tally.fed(view.plan, node) {
        let pool = view.plan.node(node).pool.as_ref();
        let keeps_dead_letters = pool.is_some_and(|pool| pool.dead_letter);
        remarks.push(words::records(&fed.counts, keeps_dead_letters));
    }
    if end.leaked {
        remarks.push("left processes behind, which were killed".to_owned());
    }
    remarks
}

/// `[ 3/12] retrying   fetch     exit 7; next try in 2s`
pub fn retrying(
    out: &mut String,
    view: &View<'_>,
    layout: Layout,
    unit: UnitId,
    failure: &Failure,
    delay: Duration,
) {
    counter(out, view);
    out.push_str(
        &layout
            .paint
            .paint(AnsiColor::Yellow.on_default(), "retrying "),
    );
    let why = words::unit_failure(view.plan, unit, failure);
    let why = harmless(&view.secrets.text(&why));
    // Delays are drawn at random: whole milliseconds are enough to read.
    let delay = exact(Duration::from_millis(
        u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
    ));
    let _ = writeln!(
        out,
        "  {:<width$}  {:>7}  {why}; next try in {delay}",
        view.plan.node(view.plan.unit(unit).node).name,
        "",
        width = layout.name
    );
}

/// `[ 3/12] ready      db       1.20s`: so long after its start.
pub fn ready(out: &mut String, view: &View<'_>, layout: Layout, unit: UnitId) {
    counter(out, view);
    let _ = writeln!(
        out,
        "ready      {:<width$}  {:>7}",
        view.plan.node(view.plan.unit(unit).node).name,
        short(view.tally.unit(unit).ready_after.unwrap_or_default()),
        width = layout.name
    );
}

/// `[ 3/12] running    train    2m 00s`; of what counts its records, how far it has come: `12,400 of 50,000 records, 1,230/s`.
pub fn running(
    out: &mut String,
    view: &View<'_>,
    layout: Layout,
    node: NodeId,
    time: Duration,
    pace: Option<&Pace>,
) {
    counter(out, view);
    let _ = write!(
        out,
        "running    {:<width$}  {:>7}",
        view.plan.node(node).name,
        short(time),
        width = layout.name
    );
    for (i, fact) in pace.into_iter().flat_map(words::pace).enumerate() {
        out.push_str(if i == 0 { "  " } else { ", " });
        out.push_str(&fact);
    }
    out.push('\n');
}

/// ```text
/// stalled: nothing has moved in 30s: `a` waits for room in queue `x`, which `b` does not read; `b` waits ...
/// help: `overflow = "spill"` under [queue.x] ...
/// ```
pub fn stalled(out: &mut String, view: &View<'_>, paint: Paint, time: Duration, waits: &[Waiting]) {
    let word = paint.paint(AnsiColor::Yellow.on_default(), "stalled");
    let text = stall(view.plan, time, waits);
    let _ = writeln!(out, "{word}: {}", view.secrets.text(&text));
    if let Some(way_out) = way_out(view.plan, waits) {
        let _ = writeln!(out, "help: {}", view.secrets.text(&way_out));
    }
}

/// A line that a child printed, as it stands in a block below its node's line; of a pool, with the number of the worker. The
/// bar keeps a child from speaking with our voice.
pub fn quoted(worker: Option<u32>, line: &str) -> String {
    match worker {
        None => format!("  | {line}"),
        Some(worker) => format!("  {worker} | {line}"),
    }
}

/// `failed: 12 nodes: 10 succeeded, 1 failed, 1 skipped in 1.31s`
pub fn verdict(out: &mut String, view: &View<'_>, paint: Paint) {
    let counts = &view.tally.counts;
    let Some((time, exit)) = view.tally.ended else {
        return;
    };
    let bad = counts.failed + counts.cancelled > 0;
    // Where procflow could not go on, of some that ran nobody knows how they ended; they don't run any more.
    let counts = Counts {
        running: 0,
        ..*counts
    };
    verdict_of(out, &words::verdict(exit, bad), &counts, time, paint);
}

/// The same of a run that went so.
pub fn verdict_of(out: &mut String, word: &str, counts: &Counts, time: Duration, paint: Paint) {
    let colour = match word {
        "succeeded" => AnsiColor::Green,
        "live" => AnsiColor::Cyan,
        _ => AnsiColor::Red,
    };
    out.push_str(&paint.paint(colour.on_default().bold(), word));
    let _ = write!(out, ": {}", plural(counts.total as u64, "node"));
    out.push_str(&counts.by_state(|count| units::count(count as u64)));
    let _ = writeln!(out, " in {}", short(time));
}
