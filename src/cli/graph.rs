//! `procflow graph`: the graph as DOT, as Mermaid, or as text for a terminal.

use std::fmt::Write as _;
use std::io::{self, Write};

use crate::cli::Error;
use crate::cli::args::{GraphArgs, GraphFormat};
use crate::cli::pipeline::{Asked, Pipeline};
use crate::cli::words;
use crate::diagnostic::harmless;
use crate::exit::ExitCode;
use crate::plan::{Group, NodeId, Plan, Queue, QueueId, UnitId};
use crate::spec::AfterState;

/// Prints the graph of a file; its problems go to `err`.
///
/// # Errors
/// See [`Error`].
pub fn run(
    args: &GraphArgs,
    out: &mut dyn Write,
    err: &mut dyn Write,
    styled: bool,
) -> Result<ExitCode, Error> {
    let asked = Asked::of(&args.pipeline, &args.select);
    let pipeline = Pipeline::load(&args.pipeline.file, asked)?;
    let Some(plan) = words::plan_or_problems(&pipeline, err, styled)? else {
        return Ok(ExitCode::Usage);
    };
    match args.format {
        GraphFormat::Dot => dot(plan, out)?,
        GraphFormat::Mermaid => mermaid(plan, out)?,
        GraphFormat::Text => text(plan, out)?,
    }
    Ok(ExitCode::Success)
}

/// What an edge of a queue is called: its name, and whether it spills. (That it is merged or copied can be seen.)
fn queue_label(queue: &Queue) -> String {
    if queue.spills() {
        format!("{} (spills)", queue.name)
    } else {
        queue.name.to_string()
    }
}

/// A queue with more than two ends is drawn as a point of its own.
fn is_hub(queue: &Queue) -> bool {
    queue.writers.len() + queue.readers.len() > 2
}

/// What the edge of a wait is called; nothing where it is the usual one.
fn wait_label(state: AfterState) -> &'static str {
    match state {
        AfterState::Succeeded => "",
        other => words::state(other),
    }
}

fn node_of(plan: &Plan, unit: UnitId) -> NodeId {
    plan.units[unit.index()].node
}

/// Graphviz DOT: a cluster for each group of several, queues as solid edges, waits as dashed ones.
///
/// # Errors
/// Those of `out`.
pub fn dot(plan: &Plan, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "digraph {} {{", dot_string(&plan.name))?;
    writeln!(out, "  rankdir=LR")?;
    writeln!(out, "  node [shape=box, style=rounded]")?;
    for (number, group) in plan.groups.iter().enumerate() {
        let indent = if group.units.len() > 1 {
            writeln!(out, "  subgraph cluster_{number} {{")?;
            writeln!(
                out,
                "    label={}",
                dot_string(&format!("group {}", number + 1))
            )?;
            writeln!(out, "    color=gray")?;
            "    "
        } else {
            "  "
        };
        for &unit in &group.units {
            let node = node_of(plan, unit);
            let style = if plan.nodes[node.index()].skip {
                ", style=\"rounded,dotted\""
            } else {
                ""
            };
            writeln!(
                out,
                "{indent}n{} [label={}{style}]",
                node.0,
                dot_string(words::node_name(plan, node))
            )?;
        }
        for &id in &group.queues {
            let queue = &plan.queues[id.index()];
            if is_hub(queue) {
                writeln!(
                    out,
                    "{indent}q{} [shape=ellipse, style=solid, label={}]",
                    id.0,
                    dot_string(&queue_label(queue))
                )?;
            }
        }
        if group.units.len() > 1 {
            writeln!(out, "  }}")?;
        }
    }
    for (id, queue) in (0u32..).zip(&plan.queues) {
        if is_hub(queue) {
            for &writer in &queue.writers {
                writeln!(out, "  n{} -> q{id}", node_of(plan, writer).0)?;
            }
            for &reader in &queue.readers {
                writeln!(out, "  q{id} -> n{}", node_of(plan, reader).0)?;
            }
        } else if let (Some(&writer), Some(&reader)) =
            (queue.writers.first(), queue.readers.first())
        {
            writeln!(
                out,
                "  n{} -> n{} [label={}]",
                node_of(plan, writer).0,
                node_of(plan, reader).0,
                dot_string(&queue_label(queue))
            )?;
        }
    }
    for (index, node) in plan.nodes.iter().enumerate() {
        for wait in &node.after {
            let label = match wait_label(wait.state) {
                "" => String::new(),
                label => format!(", label={}", dot_string(label)),
            };
            writeln!(out, "  n{} -> n{index} [style=dashed{label}]", wait.node.0)?;
        }
    }
    writeln!(out, "}}")
}

/// A quoted string of DOT: `\` would begin an escape of its labels.
fn dot_string(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            c if c.is_control() => quoted.push(' '),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// Mermaid: the same in the form that GitHub and GitLab draw.
///
/// # Errors
/// Those of `out`.
pub fn mermaid(plan: &Plan, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "flowchart LR")?;
    for (number, group) in plan.groups.iter().enumerate() {
        let several = group.units.len() > 1;
        let indent = if several {
            writeln!(
                out,
                "  subgraph g{number}[{}]",
                mermaid_string(&format!("group {}", number + 1))
            )?;
            "    "
        } else {
            "  "
        };
        for &unit in &group.units {
            let node = node_of(plan, unit);
            writeln!(
                out,
                "{indent}n{}[{}]",
                node.0,
                mermaid_string(words::node_name(plan, node))
            )?;
        }
        for &id in &group.queues {
            let queue = &plan.queues[id.index()];
            if is_hub(queue) {
                writeln!(
                    out,
                    "{indent}q{}([{}])",
                    id.0,
                    mermaid_string(&queue_label(queue))
                )?;
            }
        }
        if several {
            writeln!(out, "  end")?;
        }
    }
    for (id, queue) in (0u32..).zip(&plan.queues) {
        if is_hub(queue) {
            for &writer in &queue.writers {
                writeln!(out, "  n{} --> q{id}", node_of(plan, writer).0)?;
            }
            for &reader in &queue.readers {
                writeln!(out, "  q{id} --> n{}", node_of(plan, reader).0)?;
            }
        } else if let (Some(&writer), Some(&reader)) =
            (queue.writers.first(), queue.readers.first())
        {
            writeln!(
                out,
                "  n{} -->|{}| n{}",
                node_of(plan, writer).0,
                mermaid_string(&queue_label(queue)),
                node_of(plan, reader).0
            )?;
        }
    }
    for (index, node) in plan.nodes.iter().enumerate() {
        for wait in &node.after {
            match wait_label(wait.state) {
                "" => writeln!(out, "  n{} -.-> n{index}", wait.node.0)?,
                label => writeln!(
                    out,
                    "  n{} -.->|{}| n{index}",
                    wait.node.0,
                    mermaid_string(label)
                )?,
            }
        }
    }
    Ok(())
}

/// A quoted string of Mermaid, which has no escapes but entities, and reads HTML in labels.
fn mermaid_string(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' | ' ' | '_' | '-' | '.' | ',' | '(' | ')' => {
                quoted.push(c)
            }
            c if c.is_control() => quoted.push(' '),
            c => {
                let _ = write!(quoted, "#{};", u32::from(c));
            }
        }
    }
    quoted.push('"');
    quoted
}

/// Text: groups in start order. In a group, data flows from left to right and down: `a ─lines→ b`; where it splits, each reader
/// stands below its writer; a node that was shown already is named again with `…`.
///
/// # Errors
/// Those of `out`.
pub fn text(plan: &Plan, out: &mut dyn Write) -> io::Result<()> {
    let outgoing = outgoing(plan);
    for (number, group) in plan.groups.iter().enumerate() {
        if let [only] = group.units[..] {
            writeln!(out, "{}", name(plan, node_of(plan, only)))?;
            continue;
        }
        // Groups of several stand apart.
        if number > 0 {
            writeln!(out)?;
        }
        for line in Tree::of(plan, &outgoing, group) {
            writeln!(out, "{line}")?;
        }
        if number + 1 < plan.groups.len() && plan.groups[number + 1].units.len() == 1 {
            writeln!(out)?;
        }
    }
    Ok(())
}

/// A node with what it waits for: "total (after a, b failed)".
fn name(plan: &Plan, node: NodeId) -> String {
    let mut text = harmless(words::node_name(plan, node));
    let said = &plan.nodes[node.index()];
    if said.skip {
        text.push_str(" (skipped)");
    }
    if !said.after.is_empty() {
        let waits = said
            .after
            .iter()
            .map(|wait| words::wait(plan, *wait))
            .collect::<Vec<_>>();
        let _ = write!(text, " (after {})", words::few(&waits));
    }
    text
}

/// The queues that each unit writes.
fn outgoing(plan: &Plan) -> Vec<Vec<QueueId>> {
    let mut outgoing = vec![Vec::new(); plan.units.len()];
    for (id, queue) in plan.queues.iter().enumerate() {
        for writer in &queue.writers {
            outgoing[writer.index()].push(QueueId::from(id));
        }
    }
    outgoing
}

/// So long a line gets at most before the flow goes on below.
const LINE: usize = 100;
/// So deep the tree gets at most; what is below begins at the margin again.
const DEPTH: usize = 60;

/// A group as a tree of lines.
struct Tree<'a> {
    plan: &'a Plan,
    outgoing: &'a [Vec<QueueId>],
    shown: std::collections::HashSet<UnitId>,
    lines: Vec<String>,
}

/// What is left to show.
struct Todo {
    unit: UnitId,
    /// The queue that leads to it.
    by: Option<QueueId>,
    /// It is the last of its siblings.
    last: bool,
    indent: String,
}

impl<'a> Tree<'a> {
    fn of(plan: &'a Plan, outgoing: &'a [Vec<QueueId>], group: &Group) -> Vec<String> {
        let mut tree = Tree {
            plan,
            outgoing,
            shown: std::collections::HashSet::new(),
            lines: Vec::new(),
        };
        // Writers stand first, so what is not shown yet when its turn comes is a beginning.
        for &unit in &group.units {
            if !tree.shown.contains(&unit) {
                tree.from(unit);
            }
        }
        tree.lines
    }

    /// Shows a unit and all that it leads to. With a stack of its own: a graph may be deep.
    fn from(&mut self, first: UnitId) {
        let mut todo = vec![Todo {
            unit: first,
            by: None,
            last: true,
            indent: String::new(),
        }];
        while let Some(Todo {
            mut unit,
            by,
            last,
            indent,
        }) = todo.pop()
        {
            let mut line = indent.clone();
            let mut below = indent;
            if let Some(queue) = by {
                line.push_str(if last { "└" } else { "├" });
                self.arrow(&mut line, queue);
                below.push_str(if last { "   " } else { "│  " });
            }
            // As long as there is one way on, it goes on in the same line.
            let (branches, mut column) = loop {
                let column = line.chars().count();
                // Too deep: it begins at the margin when its turn comes.
                let deep = below.chars().count() > DEPTH && !self.shown.contains(&unit);
                if deep || !self.shown.insert(unit) {
                    let _ = write!(line, "{} …", harmless(words::unit_name(self.plan, unit)));
                    break (Vec::new(), column);
                }
                line.push_str(&name(self.plan, node_of(self.plan, unit)));
                let mut next = self.next(unit);
                if next.len() != 1 {
                    break (next, column);
                }
                let Some((reader, queue)) = next.pop() else {
                    break (next, column);
                };
                if line.chars().count() > LINE {
                    self.lines
                        .push(std::mem::replace(&mut line, format!("{below}  ")));
                }
                line.push(' ');
                self.arrow(&mut line, queue);
                unit = reader;
            };
            self.lines.push(line);
            // Its readers stand below it; far to the right it is named once more at the left.
            if !branches.is_empty() && column > DEPTH {
                column = below.chars().count();
                self.lines.push(format!(
                    "{below}{}",
                    harmless(words::unit_name(self.plan, unit))
                ));
            }
            while below.chars().count() < column {
                below.push(' ');
            }
            let count = branches.len();
            for (i, (reader, queue)) in branches.into_iter().enumerate().rev() {
                todo.push(Todo {
                    unit: reader,
                    by: Some(queue),
                    last: i + 1 == count,
                    indent: below.clone(),
                });
            }
        }
    }

    fn arrow(&self, line: &mut String, queue: QueueId) {
        let _ = write!(line, "─{}→ ", queue_label(&self.plan.queues[queue.index()]));
    }

    /// Who reads what a unit writes.
    fn next(&self, unit: UnitId) -> Vec<(UnitId, QueueId)> {
        let readers = |queue: QueueId| {
            self.plan.queues[queue.index()]
                .readers
                .iter()
                .map(move |&reader| (reader, queue))
        };
        self.outgoing[unit.index()]
            .iter()
            .flat_map(|&queue| readers(queue))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::cli::graph::{dot, mermaid, text};
    use crate::cli::words::example;

    fn printed(print: impl FnOnce(&mut Vec<u8>) -> std::io::Result<()>) -> String {
        let mut out = Vec::new();
        assert!(print(&mut out).is_ok());
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn the_example_as_dot() {
        let (_, plan) = example();
        assert_eq!(
            printed(|out| dot(&plan, out)),
            r#"digraph "word-count" {
  rankdir=LR
  node [shape=box, style=rounded]
  n0 [label="fetch"]
  subgraph cluster_1 {
    label="group 2"
    color=gray
    n1 [label="read"]
    n2 [label="split"]
    n3 [label="left"]
    n4 [label="right"]
    n5 [label="total"]
    q3 [shape=ellipse, style=solid, label="counts (spills)"]
  }
  n6 [label="mail"]
  n1 -> n2 [label="text"]
  n2 -> n3 [label="odd (spills)"]
  n2 -> n4 [label="even (spills)"]
  n3 -> q3
  n4 -> q3
  q3 -> n5
  n0 -> n1 [style=dashed]
  n1 -> n6 [style=dashed]
  n5 -> n6 [style=dashed, label="failed"]
}
"#
        );
    }

    #[test]
    fn the_example_as_mermaid() {
        let (_, plan) = example();
        assert_eq!(
            printed(|out| mermaid(&plan, out)),
            r#"flowchart LR
  n0["fetch"]
  subgraph g1["group 2"]
    n1["read"]
    n2["split"]
    n3["left"]
    n4["right"]
    n5["total"]
    q3(["counts (spills)"])
  end
  n6["mail"]
  n1 -->|"text"| n2
  n2 -->|"odd (spills)"| n3
  n2 -->|"even (spills)"| n4
  n3 --> q3
  n4 --> q3
  q3 --> n5
  n0 -.-> n1
  n1 -.-> n6
  n5 -.->|"failed"| n6
"#
        );
    }

    #[test]
    fn the_example_as_text() {
        let (_, plan) = example();
        assert_eq!(
            printed(|out| text(&plan, out)),
            r#"fetch

read (after fetch) ─text→ split
                          ├─odd (spills)→ left ─counts (spills)→ total
                          └─even (spills)→ right ─counts (spills)→ total …

mail (after read, total failed)
"#
        );
    }
}
