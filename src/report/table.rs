//! The closing table: a row for each node, or, in a big run, for each that did not plainly succeed. No row is wider than the
//! screen.

use std::fmt::Write;
use std::time::Duration;

use anstyle::Style;

use crate::event::{Exit, Outcome};
use crate::plan::{NodeId, UnitId};
use crate::report::events::{State, exit_code};
use crate::report::flow::Flow;
use crate::report::lines::state_style;
use crate::report::observers::View;
use crate::report::tally::NodeEnd;
use crate::report::terminal::Paint;
use crate::report::units::{bytes, count, short, shortened, signal};

/// A run of more nodes than this shows only those that did not plainly succeed, and at most so many of them.
pub const MOST_ROWS: usize = 40;

/// A column: its head, whether it stands to the right, and its cells.
struct Column {
    head: &'static str,
    right: bool,
    cells: Vec<String>,
}

/// What is left out first where not all columns fit.
const LEAST: [&str; 7] = [
    "cpu",
    "memory",
    "records",
    "tries",
    "in → out",
    "time",
    "exit",
];

/// A node as the table shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// How it ended, or what is known instead.
    pub state: Shown,
    /// Its exit code, or the signal that ended it.
    pub status: Option<String>,
    /// How long it ran, and its CPU time; where it ran.
    pub time: Option<(Duration, Duration)>,
    /// Its peak of memory; where it ran.
    pub memory: Option<Memory>,
    /// Bytes in and out.
    pub bytes: Flow,
    /// Records in and out.
    pub records: Flow,
    /// Its tries.
    pub tries: u32,
    /// It succeeded after it had failed.
    pub is_flaky: bool,
}

/// What stands in the column of states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// It has ended so.
    Ended(State),
    /// It runs.
    Running,
    /// Nobody knows how it ended, if it did.
    Unknown,
}

/// A peak of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// So many bytes.
    Peak(u64),
    /// No more than procflow's own, which hides it.
    Below(u64),
}

/// Appends the table of a run. Columns in which nothing is known are left out, and those that do not fit a screen of this width.
pub fn table(out: &mut String, view: &View<'_>, paint: Paint, width: Option<usize>, unicode: bool) {
    let (rows, more) = rows(view);
    draw(out, &rows, more, paint, width, unicode);
}

/// Appends the table of these rows; `more` are not among them.
pub fn draw(
    out: &mut String,
    rows: &[Row],
    more: usize,
    paint: Paint,
    width: Option<usize>,
    unicode: bool,
) {
    if rows.is_empty() {
        return;
    }
    let column = |head, right, cell: &dyn Fn(&Row) -> String| Column {
        head,
        right,
        cells: rows.iter().map(cell).collect(),
    };
    let time = |time: Option<Duration>| time.map_or_else(String::new, short);
    let mut columns = vec![
        column("node", false, &|row| row.name.clone()),
        column("state", false, &|row| match row.state {
            Shown::Ended(state) => state.word().to_owned(),
            Shown::Running => "running".to_owned(),
            Shown::Unknown => "-".to_owned(),
        }),
        column("exit", true, &|row| row.status.clone().unwrap_or_default()),
        column("time", true, &|row| time(row.time.map(|(wall, _)| wall))),
        column("cpu", true, &|row| time(row.time.map(|(_, cpu)| cpu))),
        column("memory", true, &|row| match row.memory {
            Some(Memory::Peak(peak)) => bytes(peak),
            Some(Memory::Below(own @ 1..)) => format!("<{}", bytes(own)),
            Some(Memory::Below(0)) | None => String::new(),
        }),
        column("in → out", true, &|row| flow(row.bytes, bytes)),
        column("records", true, &|row| flow(row.records, count)),
        column("tries", true, &|row| match row.tries {
            tries if row.is_flaky => format!("flaky, {tries}"),
            0 | 1 => String::new(),
            tries => tries.to_string(),
        }),
    ];
    columns.retain(|column| column.cells.iter().any(|cell| !cell.is_empty()));
    if let Some(width) = width {
        fit(&mut columns, width, unicode);
    }
    write_rows(out, &columns, rows, paint);
    if more > 0 {
        let _ = writeln!(out, "and {} more", count(more as u64));
    }
}

/// `3.1 MiB → -`; `~12,400 → 12,400` where they are estimates.
fn flow(flow: Flow, words: fn(u64) -> String) -> String {
    if flow.is_empty() {
        return String::new();
    }
    let side = |side: Option<u64>| side.map_or("-".to_owned(), words);
    let about = if flow.is_estimate { "~" } else { "" };
    format!("{about}{} → {}", side(flow.input), side(flow.output))
}

/// The rows to show, and how many more there would be.
fn rows(view: &View<'_>) -> (Vec<Row>, usize) {
    let nodes = (0..view.plan.nodes.len()).map(NodeId::from);
    if view.plan.nodes.len() <= MOST_ROWS {
        return (nodes.map(|node| row(view, node)).collect(), 0);
    }
    // By units: of thousands of nodes nothing is added up that is not shown.
    let plain = |unit: u32| {
        let end = view.tally.unit(UnitId(unit)).end.as_deref();
        end.is_some_and(|end| {
            matches!(end.outcome, Outcome::Succeeded { .. }) && end.attempts <= 1 && !end.leaked
        })
    };
    let rows = nodes
        .filter(|node| !view.plan.node(*node).units.clone().all(plain))
        .map(|node| row(view, node));
    most(rows.collect())
}

/// As many of these as are shown of a big run, and how many more there are.
pub fn most(mut rows: Vec<Row>) -> (Vec<Row>, usize) {
    // Failures first: where not all have room, these must.
    rows.sort_by_key(|row| row.state != Shown::Ended(State::Failed));
    let more = rows.len().saturating_sub(MOST_ROWS);
    rows.truncate(MOST_ROWS);
    (rows, more)
}

fn row(view: &View<'_>, node: NodeId) -> Row {
    let end = view.tally.node_end(view.plan, node);
    let ran = end.filter(|end| end.ran);
    Row {
        name: view.plan.node(node).name.to_string(),
        state: end.map_or(Shown::Unknown, |end| Shown::Ended(end.outcome.into())),
        status: end.as_ref().and_then(status),
        time: ran.map(|end| (end.usage.wall, end.usage.user + end.usage.system)),
        memory: ran.map(|end| match view.tally.peak(&end.usage) {
            Some(peak) => Memory::Peak(peak),
            None => Memory::Below(view.tally.own_peak),
        }),
        bytes: view.tally.bytes(view.plan, node),
        records: view.tally.records(view.plan, node),
        tries: end.map_or(0, |end| end.attempts),
        is_flaky: end.is_some_and(|end| view.tally.is_flaky(view.plan, node, &end)),
    }
}

fn status(end: &NodeEnd<'_>) -> Option<String> {
    match end.exit {
        Some(Exit::Signal { number, .. }) => Some(signal(number)),
        Some(Exit::Code(_)) | None => exit_code(end.outcome, end.exit).map(|code| code.to_string()),
    }
}

/// Between columns.
const GAP: usize = 2;

impl Column {
    fn width(&self) -> usize {
        let cells = self.cells.iter().map(String::as_str);
        cells
            .chain([self.head])
            .map(|text| text.chars().count())
            .max()
            .unwrap_or(0)
    }
}

/// Makes the table fit: long names may cost columns up to two fifths of the screen; beyond it they are shortened.
fn fit(columns: &mut Vec<Column>, width: usize, unicode: bool) {
    // All but the first.
    let others = |columns: &[Column]| {
        columns
            .iter()
            .skip(1)
            .map(|column| column.width() + GAP)
            .sum::<usize>()
    };
    let name = columns
        .first()
        .map_or(0, Column::width)
        .min((width * 2 / 5).max(8));
    for least in LEAST {
        if name + others(columns) <= width {
            break;
        }
        columns.retain(|column| column.head != least);
    }
    let room = width.saturating_sub(others(columns)).max(1);
    if let Some(names) = columns.first_mut() {
        for cell in &mut names.cells {
            *cell = shortened(cell, room, unicode);
        }
    }
}

fn write_rows(out: &mut String, columns: &[Column], rows: &[Row], paint: Paint) {
    let widths: Vec<usize> = columns.iter().map(Column::width).collect();
    let mut line = |cells: &mut dyn Iterator<Item = (&str, Style)>| {
        let mut text = String::new();
        let mut last = 0;
        for (i, ((cell, style), (column, width))) in
            cells.zip(columns.iter().zip(&widths)).enumerate()
        {
            let padded = if column.right {
                format!("{cell:>width$}")
            } else {
                format!("{cell:<width$}")
            };
            if i > 0 {
                text.push_str("  ");
            }
            text.push_str(&paint.paint(style, &padded));
            if !cell.is_empty() {
                last = text.len();
            }
        }
        // No spaces at the end of a line, but for those that a colour ends with.
        text.truncate(last);
        out.push_str(text.trim_end());
        out.push('\n');
    };
    line(&mut columns.iter().map(|c| (c.head, Style::new().bold())));
    for (i, row) in rows.iter().enumerate() {
        line(&mut columns.iter().map(|c| {
            let style = match (c.head, row.state) {
                ("state", Shown::Ended(state)) => state_style(state),
                _ => Style::new(),
            };
            (c.cells.get(i).map_or("", String::as_str), style)
        }));
    }
}
