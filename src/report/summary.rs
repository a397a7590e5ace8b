//! The job summary of GitHub Actions: a run as Markdown, with its table, its failures and its graph.
//!
//! Nothing that a node prints, or is named, becomes markup: in tables every mark is an entity, output stands in `<pre>` as HTML.

use std::fmt::Write;

use crate::draw::{State, mermaid};
use crate::event::{Exit, Outcome};
use crate::plan::{NodeId, Plan};
use crate::report::events::exit_code;
use crate::report::lines;
use crate::report::observers::View;
use crate::report::sanitize;
use crate::report::tally::NodeEnd;
use crate::report::terminal::Paint;
use crate::report::units::{bytes, count, short, signal};
use crate::report::words;

/// GitHub shows nothing at all of a step whose summary is longer than 1 MiB.
pub const LIMIT: usize = 1024 * 1024;

/// So many rows and failures are shown; what is shown is read.
const MOST_ROWS: usize = 200;
const MOST_FAILURES: usize = 20;

/// What Mermaid draws at most on GitHub, with room to spare, and of how many nodes one still sees anything.
const MOST_DRAWN: usize = 100;
const LONGEST_GRAPH: usize = 45_000;

/// The summary, in at most so many bytes.
pub fn markdown(view: &View<'_>, limit: usize) -> String {
    let ends: Vec<_> = (0..view.plan.nodes.len())
        .map(NodeId::from)
        .map(|node| (node, view.tally.node_end(view.plan, node)))
        .collect();
    let mut out = head(view);
    let note = "\nThe rest is left out: a summary has at most 1 MiB. All of it is in the log.\n";
    let room = limit.saturating_sub(note.len());
    for part in [
        failures(view, &ends),
        table(view, &ends),
        drawing(view.plan, &ends),
    ]
    .into_iter()
    .flatten()
    {
        if out.len() + part.len() > room {
            out.push_str(note);
            break;
        }
        out.push_str(&part);
    }
    if out.len() > limit {
        return String::new();
    }
    // Once more for what only came together here.
    view.secrets.text(&out).into_owned()
}

type Ends<'t> = [(NodeId, Option<NodeEnd<'t>>)];

fn head(view: &View<'_>) -> String {
    let mut verdict = String::new();
    lines::verdict(&mut verdict, view, Paint(false));
    let well = verdict.starts_with("succeeded");
    let mark = if well { "✅" } else { "❌" };
    format!(
        "### {mark} {}\n\n{}\n",
        escaped(&view.plan.name),
        escaped(verdict.trim_end())
    )
}

/// Each failure in a part of its own, so that what has room is shown.
fn failures(view: &View<'_>, ends: &Ends<'_>) -> Vec<String> {
    let failed = |end: &NodeEnd<'_>| matches!(end.outcome, Outcome::Failed(_));
    let failed: Vec<_> = ends
        .iter()
        .filter_map(|(node, end)| Some((*node, end.filter(failed)?)))
        // Those that may fail are in the table.
        .filter(|(node, _)| !view.plan.node(*node).allow_failure)
        .collect();
    let mut parts: Vec<String> = failed
        .iter()
        .take(MOST_FAILURES)
        .enumerate()
        .map(|(i, (node, end))| failure(view, *node, end, i == 0))
        .collect();
    if failed.len() > MOST_FAILURES {
        let more = count((failed.len() - MOST_FAILURES) as u64);
        parts.push(format!("\nand {more} more failed\n"));
    }
    parts
}

fn failure(view: &View<'_>, node: NodeId, end: &NodeEnd<'_>, open: bool) -> String {
    let why = words::node_reason(view.plan, end).unwrap_or_default();
    let open = if open { " open" } else { "" };
    let mut part = format!(
        "\n<details{open}><summary><b>{}</b>: {}</summary>\n",
        html(&view.plan.node(node).name),
        html(&view.secrets.text(&why))
    );
    if !end.stderr_tail.is_empty() {
        part.push_str("\n<pre>\n");
        for line in end.stderr_tail.split(|byte| *byte == b'\n') {
            let mut text = String::new();
            sanitize::line(&mut text, line, false);
            let _ = writeln!(part, "{}", html(&view.secrets.text(&text)));
        }
        part.push_str("</pre>\n");
    }
    part.push_str("\n</details>\n");
    part
}

/// The table. Of many nodes only those that did not plainly succeed.
fn table(view: &View<'_>, ends: &Ends<'_>) -> Vec<String> {
    let all = ends.len() <= MOST_ROWS;
    let plain = |node: NodeId, end: &NodeEnd<'_>| {
        matches!(end.outcome, Outcome::Succeeded { .. })
            && !view.tally.is_flaky(view.plan, node, end)
    };
    let mut rows: Vec<_> = ends
        .iter()
        .filter(|(node, end)| all || !end.as_ref().is_some_and(|end| plain(*node, end)))
        .collect();
    if !all {
        // Failures first: where not all have room, these must.
        let failed = |end: &NodeEnd<'_>| matches!(end.outcome, Outcome::Failed(_));
        rows.sort_by_key(|(_, end)| !end.as_ref().is_some_and(failed));
    }
    if rows.is_empty() {
        return vec![];
    }
    let mut part = "\n| node | state | exit | time | CPU | memory | tries | |\n\
                    | --- | --- | ---: | ---: | ---: | ---: | ---: | --- |\n"
        .to_owned();
    for (node, end) in rows.iter().take(MOST_ROWS) {
        let name = escaped(&view.plan.node(*node).name);
        let Some(end) = end else {
            let _ = writeln!(part, "| {name} | - | | | | | | |");
            continue;
        };
        let ran = |text: String| if end.ran { text } else { String::new() };
        let exit = match end.exit {
            Some(Exit::Signal { number, .. }) => signal(number),
            _ => exit_code(end.outcome, end.exit).map_or_else(String::new, |code| code.to_string()),
        };
        let peak = view.tally.peak(&end.usage).map_or_else(String::new, bytes);
        let tries = if end.attempts > 1 {
            end.attempts.to_string()
        } else {
            String::new()
        };
        let mut why = words::node_reason(view.plan, end).unwrap_or_default();
        if view.tally.is_flaky(view.plan, *node, end) {
            "flaky".clone_into(&mut why);
        }
        let why = view.secrets.text(&why);
        let _ = writeln!(
            part,
            "| {name} | {} {} | {exit} | {} | {} | {} | {tries} | {} |",
            mark(end.outcome),
            words::state(end.outcome),
            ran(short(end.usage.wall)),
            ran(short(end.usage.user + end.usage.system)),
            ran(peak),
            escaped(&why)
        );
    }
    if rows.len() > MOST_ROWS {
        let more = count((rows.len() - MOST_ROWS) as u64);
        let _ = writeln!(part, "\nand {more} more");
    }
    vec![part]
}

fn mark(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Succeeded { .. } => "✅",
        Outcome::Failed(_) => "❌",
        Outcome::Cancelled(_) => "🚫",
        Outcome::Skipped(_) => "⏭️",
        Outcome::Reused => "♻️",
    }
}

/// The graph, with the colours of what became of its nodes. One that nobody could read is not drawn.
fn drawing(plan: &Plan, ends: &Ends<'_>) -> Vec<String> {
    if plan.nodes.len() < 2 || plan.nodes.len() > MOST_DRAWN {
        return vec![];
    }
    let states: Vec<_> = ends
        .iter()
        .map(|(node, end)| {
            Some(State::of(
                end.as_ref()?.outcome,
                plan.node(*node).allow_failure,
            ))
        })
        .collect();
    let mut graph = Vec::new();
    if mermaid(plan, &states, &mut graph).is_err() || graph.len() > LONGEST_GRAPH {
        return vec![];
    }
    let graph = String::from_utf8_lossy(&graph);
    vec![format!("\n```mermaid\n{graph}```\n")]
}

/// Text in a table or a paragraph: whatever Markdown could take for a mark is an entity.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '\\' | '`' | '*' | '_' | '{' | '}' | '[' | ']' | '<' | '>' | '(' | ')' | '#' | '+'
            | '!' | '|' | '&' | '~' | '@' | '$' | '"' | '\'' => {
                let _ = write!(out, "&#{};", u32::from(c));
            }
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// Text in HTML.
fn html(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // A line of Markdown ends here, and with it what we began.
            c if c.is_control() && c != '\t' => out.push(' '),
            c => out.push(c),
        }
    }
    out
}
