//! The closing table: a row for each node, or, in a big run, for each that did not plainly succeed. No row is wider than the
//! screen.

use std::fmt::Write;

use anstyle::Style;

use crate::event::{Exit, Outcome};
use crate::plan::{NodeId, UnitId};
use crate::report::events::exit_code;
use crate::report::flow::Flow;
use crate::report::lines::style;
use crate::report::observers::View;
use crate::report::tally::NodeEnd;
use crate::report::terminal::Paint;
use crate::report::units::{bytes, count, short, shortened, signal};
use crate::report::words;

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

/// Appends the table. Columns in which nothing is known are left out, and those that do not fit a screen of this width.
pub fn table(out: &mut String, view: &View<'_>, paint: Paint, width: Option<usize>, unicode: bool) {
    let (rows, more) = rows(view);
    if rows.is_empty() {
        return;
    }
    let column = |head, right, cell: &dyn Fn(&Row<'_>) -> String| Column {
        head,
        right,
        cells: rows.iter().map(cell).collect(),
    };
    let ran = |row: &Row<'_>, cell: &dyn Fn(&NodeEnd<'_>) -> String| {
        row.end
            .filter(|end| end.ran)
            .map_or_else(String::new, |end| cell(&end))
    };
    let mut columns = vec![
        column("node", false, &|row| {
            view.plan.node(row.node).name.to_string()
        }),
        column("state", false, &|row| {
            row.end
                .map_or("-", |end| words::state(end.outcome))
                .to_owned()
        }),
        column("exit", true, &|row| {
            row.end.as_ref().and_then(status).unwrap_or_default()
        }),
        column("time", true, &|row| ran(row, &|end| short(end.usage.wall))),
        column("cpu", true, &|row| {
            ran(row, &|end| short(end.usage.user + end.usage.system))
        }),
        column("memory", true, &|row| {
            ran(row, &|end| match view.tally.peak(&end.usage) {
                Some(peak) => bytes(peak),
                None if view.tally.own_peak > 0 => format!("<{}", bytes(view.tally.own_peak)),
                None => String::new(),
            })
        }),
        column("in → out", true, &|row| {
            flow(view.tally.bytes(view.plan, row.node), bytes)
        }),
        column("records", true, &|row| {
            flow(view.tally.records(view.plan, row.node), count)
        }),
        column("tries", true, &|row| match row.end {
            Some(end) if view.tally.is_flaky(view.plan, row.node, &end) => {
                format!("flaky, {}", end.attempts)
            }
            Some(end) if end.attempts > 1 => end.attempts.to_string(),
            _ => String::new(),
        }),
    ];
    columns.retain(|column| column.cells.iter().any(|cell| !cell.is_empty()));
    if let Some(width) = width {
        fit(&mut columns, width, unicode);
    }
    write_rows(out, &columns, &rows, paint);
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

struct Row<'a> {
    node: NodeId,
    end: Option<NodeEnd<'a>>,
}

/// The rows to show, and how many more there would be.
fn rows<'a>(view: &View<'a>) -> (Vec<Row<'a>>, usize) {
    let row = |node| Row {
        node,
        end: view.tally.node_end(view.plan, node),
    };
    let nodes = (0..view.plan.nodes.len()).map(NodeId::from);
    if view.plan.nodes.len() <= MOST_ROWS {
        return (nodes.map(row).collect(), 0);
    }
    // By units: of thousands of nodes nothing is added up that is not shown.
    let plain = |unit: u32| {
        let end = view.tally.unit(UnitId(unit)).end.as_deref();
        end.is_some_and(|end| {
            matches!(end.outcome, Outcome::Succeeded { .. }) && end.attempts <= 1 && !end.leaked
        })
    };
    let mut rows: Vec<_> = nodes
        .filter(|node| !view.plan.node(*node).units.clone().all(plain))
        .map(row)
        .collect();
    // Failures first: where not all have room, these must.
    rows.sort_by_key(|row| {
        !row.end
            .is_some_and(|end| matches!(end.outcome, Outcome::Failed(_)))
    });
    let more = rows.len().saturating_sub(MOST_ROWS);
    rows.truncate(MOST_ROWS);
    (rows, more)
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

fn write_rows(out: &mut String, columns: &[Column], rows: &[Row<'_>], paint: Paint) {
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
            let style = match (c.head, row.end) {
                ("state", Some(end)) => style(end.outcome),
                _ => Style::new(),
            };
            (c.cells.get(i).map_or("", String::as_str), style)
        }));
    }
}
