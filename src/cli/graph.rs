//! `procflow graph`: the graph as DOT, as Mermaid, or as text for a terminal.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::io::{self, Write};

use crate::cli::Error;
use crate::cli::args::{GraphArgs, GraphFormat};
use crate::cli::pipeline::{Asked, Pipeline};
use crate::cli::words;
use crate::diagnostic::harmless;
use crate::exit::ExitCode;
use crate::plan::{
    After, Deliver, Group, NodeId, Overflow, Plan, Queue, QueueId, QueueKind, UnitId,
};
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

/// A queue as it is drawn: between nodes, each once. What procflow made for itself is not drawn.
struct Edge<'a> {
    id: u32,
    queue: &'a Queue,
    writers: Vec<NodeId>,
    readers: Vec<NodeId>,
    /// Some of its readers, pools, have a queue of their own for their copy.
    parted: bool,
}

impl Edge<'_> {
    /// What it is called: its name, and what can't be seen. (That it is merged can; that it is copied is what one expects of
    /// several arrows.)
    fn label(&self) -> String {
        let queue = self.queue;
        let mut marks = Vec::new();
        let several = self.readers.len() > 1 && !self.parted;
        match queue.deliver {
            Deliver::Share if several => marks.push("shared"),
            Deliver::RoundRobin if several => marks.push("round robin"),
            Deliver::ByField { .. } if queue.readers.len() > 1 => marks.push("by field"),
            _ => {}
        }
        if queue.kind == QueueKind::Stored {
            marks.push("stored");
        } else if queue.feedback {
            marks.push("leads back");
        } else if queue.spills() {
            marks.push("spills");
        }
        match queue.overflow {
            Overflow::DropNewest | Overflow::DropOldest => marks.push("drops"),
            Overflow::Block | Overflow::Spill => {}
        }
        match marks.as_slice() {
            [] => queue.name.to_string(),
            marks => format!("{} ({})", queue.name, marks.join(", ")),
        }
    }

    /// With more than two nodes it is drawn as a point of its own.
    fn is_hub(&self) -> bool {
        self.writers.len() + self.readers.len() > 2
    }
}

/// The edges of all queues of the file.
fn edges(plan: &Plan) -> Vec<Edge<'_>> {
    let nodes = |units: &[UnitId]| -> Vec<NodeId> {
        let mut nodes: Vec<NodeId> = units.iter().map(|&unit| plan.unit(unit).node).collect();
        // Units of a node stand together.
        nodes.dedup();
        nodes
    };
    let mut edges: Vec<Edge<'_>> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    for (id, queue) in (0u32..).zip(&plan.queues) {
        if words::is_within(plan, queue) {
            continue;
        }
        let readers = nodes(&queue.readers);
        // A pool's copy of a queue is drawn as an arrow of that queue.
        if let Some(of) = words::copy_of(queue)
            && let Some(edge) = places.get(of).and_then(|&place| edges.get_mut(place))
        {
            edge.readers.extend(readers);
            edge.parted = true;
            continue;
        }
        places.insert(&queue.name, edges.len());
        edges.push(Edge {
            id,
            queue,
            writers: nodes(&queue.writers),
            readers,
            parted: false,
        });
    }
    edges
}

/// What the edge of a wait is called; nothing where it is the usual one.
fn wait_label(state: AfterState) -> &'static str {
    match state {
        AfterState::Succeeded => "",
        other => words::state(other),
    }
}

/// A node's name, of a pool with the number of its workers: "count ×4".
fn vertex(plan: &Plan, node: NodeId) -> String {
    let node = plan.node(node);
    match &node.pool {
        Some(pool) => format!("{} ×{}", node.name, pool.workers),
        None if node.service.is_some() => format!("{} (service)", node.name),
        None => node.name.to_string(),
    }
}

/// What is drawn: the edges of all queues of the file, and who waits for whom by one that is stored.
struct Drawing<'a> {
    plan: &'a Plan,
    edges: Vec<Edge<'a>>,
    stored: HashSet<(NodeId, NodeId)>,
}

impl<'a> Drawing<'a> {
    fn of(plan: &'a Plan) -> Self {
        let edges = edges(plan);
        let stored = edges
            .iter()
            .filter(|edge| edge.queue.kind == QueueKind::Stored)
            .flat_map(|edge| {
                let writers =
                    |&reader: &NodeId| edge.writers.iter().map(move |&writer| (reader, writer));
                edge.readers.iter().flat_map(writers)
            })
            .collect();
        Drawing {
            plan,
            edges,
            stored,
        }
    }

    /// The waits that no stored queue shows.
    fn waits(&self, node: NodeId) -> impl Iterator<Item = &After> {
        self.plan.node(node).after.iter().filter(move |wait| {
            let usual = matches!(wait.state, AfterState::Succeeded | AfterState::Finished);
            !(usual && self.stored.contains(&(node, wait.node)))
        })
    }

    /// The queues of a group that are points of their own.
    fn hubs(&self, group: &Group) -> impl Iterator<Item = &Edge<'a>> {
        let edges = &self.edges;
        let place = |id: &QueueId| edges.binary_search_by_key(&id.0, |edge| edge.id).ok();
        let queues = group.queues.iter();
        queues
            .filter_map(move |id| edges.get(place(id)?))
            .filter(|edge| edge.is_hub() && edge.queue.kind != QueueKind::Stored)
    }

    /// Those that stand between groups: they are stored.
    fn hubs_between(&self) -> impl Iterator<Item = &Edge<'a>> {
        let hubs = self.edges.iter().filter(|edge| edge.is_hub());
        hubs.filter(|edge| edge.queue.kind == QueueKind::Stored)
    }
}

/// Graphviz DOT: a cluster for each group of several, queues as solid edges, waits as dashed ones.
///
/// # Errors
/// Those of `out`.
pub fn dot(plan: &Plan, out: &mut dyn Write) -> io::Result<()> {
    let drawing = Drawing::of(plan);
    writeln!(out, "digraph {} {{", dot_string(&plan.name))?;
    writeln!(out, "  rankdir=LR")?;
    writeln!(out, "  node [shape=box, style=rounded]")?;
    for (number, group) in plan.groups.iter().enumerate() {
        let nodes = words::nodes(plan, group);
        let indent = if nodes.len() > 1 {
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
        for &node in &nodes {
            let style = match (plan.node(node).is_left_out(), &plan.node(node).pool) {
                (true, _) => ", style=\"rounded,dotted\"",
                // A pool is a stack of boxes.
                (false, Some(_)) => ", peripheries=2",
                (false, None) => "",
            };
            writeln!(
                out,
                "{indent}n{} [label={}{style}]",
                node.0,
                dot_string(&vertex(plan, node))
            )?;
        }
        for edge in drawing.hubs(group) {
            writeln!(
                out,
                "{indent}q{} [shape=ellipse, style=solid, label={}]",
                edge.id,
                dot_string(&edge.label())
            )?;
        }
        if nodes.len() > 1 {
            writeln!(out, "  }}")?;
        }
    }
    for edge in drawing.hubs_between() {
        writeln!(
            out,
            "  q{} [shape=cylinder, style=solid, label={}]",
            edge.id,
            dot_string(&edge.label())
        )?;
    }
    for edge in &drawing.edges {
        if edge.is_hub() {
            for writer in &edge.writers {
                writeln!(out, "  n{} -> q{}", writer.0, edge.id)?;
            }
            for reader in &edge.readers {
                writeln!(out, "  q{} -> n{}", edge.id, reader.0)?;
            }
        } else if let (Some(writer), Some(reader)) = (edge.writers.first(), edge.readers.first()) {
            // What leads back must not turn the whole picture round.
            let back = if edge.queue.feedback {
                ", constraint=false"
            } else {
                ""
            };
            writeln!(
                out,
                "  n{} -> n{} [label={}{back}]",
                writer.0,
                reader.0,
                dot_string(&edge.label())
            )?;
        }
    }
    for index in 0..plan.nodes.len() {
        for wait in drawing.waits(NodeId::from(index)) {
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
    let drawing = Drawing::of(plan);
    writeln!(out, "flowchart LR")?;
    for (number, group) in plan.groups.iter().enumerate() {
        let nodes = words::nodes(plan, group);
        let several = nodes.len() > 1;
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
        for &node in &nodes {
            let label = mermaid_string(&vertex(plan, node));
            // A pool has a double border.
            match plan.node(node).pool {
                Some(_) => writeln!(out, "{indent}n{}[[{label}]]", node.0)?,
                None => writeln!(out, "{indent}n{}[{label}]", node.0)?,
            }
        }
        for edge in drawing.hubs(group) {
            writeln!(
                out,
                "{indent}q{}([{}])",
                edge.id,
                mermaid_string(&edge.label())
            )?;
        }
        if several {
            writeln!(out, "  end")?;
        }
    }
    for edge in drawing.hubs_between() {
        writeln!(out, "  q{}[({})]", edge.id, mermaid_string(&edge.label()))?;
    }
    for edge in &drawing.edges {
        if edge.is_hub() {
            for writer in &edge.writers {
                writeln!(out, "  n{} --> q{}", writer.0, edge.id)?;
            }
            for reader in &edge.readers {
                writeln!(out, "  q{} --> n{}", edge.id, reader.0)?;
            }
        } else if let (Some(writer), Some(reader)) = (edge.writers.first(), edge.readers.first()) {
            writeln!(
                out,
                "  n{} -->|{}| n{}",
                writer.0,
                mermaid_string(&edge.label()),
                reader.0
            )?;
        }
    }
    for index in 0..plan.nodes.len() {
        for wait in drawing.waits(NodeId::from(index)) {
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
    let drawing = Drawing::of(plan);
    let outgoing = outgoing(&drawing);
    for (number, group) in plan.groups.iter().enumerate() {
        let nodes = words::nodes(plan, group);
        let tree = Tree::of(&drawing, &outgoing, &nodes);
        // Groups of several stand apart.
        if let [only] = tree.as_slice()
            && nodes.len() == 1
        {
            writeln!(out, "{only}")?;
            continue;
        }
        if number > 0 {
            writeln!(out)?;
        }
        for line in tree {
            writeln!(out, "{line}")?;
        }
        let next = plan.groups.get(number + 1);
        if next.is_some_and(|next| words::nodes(plan, next).len() == 1) {
            writeln!(out)?;
        }
    }
    Ok(())
}

/// A node with what it waits for: "total (after a, b failed)".
fn name(drawing: &Drawing<'_>, node: NodeId) -> String {
    let plan = drawing.plan;
    let mut text = harmless(&vertex(plan, node));
    if plan.node(node).is_left_out() {
        text.push_str(" (skipped)");
    }
    let waits: Vec<String> = drawing
        .waits(node)
        .map(|wait| words::wait(plan, *wait))
        .collect();
    if !waits.is_empty() {
        let _ = write!(text, " (after {})", words::few(&waits));
    }
    text
}

/// The edges that lead away from each node, by their place.
fn outgoing(drawing: &Drawing<'_>) -> Vec<Vec<usize>> {
    let mut outgoing = vec![Vec::new(); drawing.plan.nodes.len()];
    for (place, edge) in drawing.edges.iter().enumerate() {
        for writer in &edge.writers {
            outgoing[writer.index()].push(place);
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
    drawing: &'a Drawing<'a>,
    outgoing: &'a [Vec<usize>],
    /// Nodes of this group, which are told here.
    members: HashSet<NodeId>,
    shown: HashSet<NodeId>,
    lines: Vec<String>,
}

/// What is left to show.
struct Todo {
    node: NodeId,
    /// The edge that leads to it.
    by: Option<usize>,
    /// It is the last of its siblings.
    last: bool,
    indent: String,
}

impl<'a> Tree<'a> {
    fn of(drawing: &'a Drawing<'a>, outgoing: &'a [Vec<usize>], nodes: &[NodeId]) -> Vec<String> {
        let mut tree = Tree {
            drawing,
            outgoing,
            members: nodes.iter().copied().collect(),
            shown: HashSet::new(),
            lines: Vec::new(),
        };
        // Writers stand first, so what is not shown yet when its turn comes is a beginning.
        for &node in nodes {
            if !tree.shown.contains(&node) {
                tree.from(node);
            }
        }
        tree.lines
    }

    /// Shows a node and all that it leads to. With a stack of its own: a graph may be deep.
    fn from(&mut self, first: NodeId) {
        let mut todo = vec![Todo {
            node: first,
            by: None,
            last: true,
            indent: String::new(),
        }];
        while let Some(Todo {
            mut node,
            by,
            last,
            indent,
        }) = todo.pop()
        {
            let mut line = indent.clone();
            let mut below = indent;
            if let Some(edge) = by {
                line.push_str(if last { "└" } else { "├" });
                self.arrow(&mut line, edge);
                below.push_str(if last { "   " } else { "│  " });
            }
            // As long as there is one way on, it goes on in the same line.
            let (branches, mut column) = loop {
                let column = line.chars().count();
                // Too deep: it begins at the margin when its turn comes.
                let deep = below.chars().count() > DEPTH && !self.shown.contains(&node);
                // It is told where its group is.
                let elsewhere = !self.members.contains(&node);
                if deep || elsewhere || !self.shown.insert(node) {
                    let _ = write!(
                        line,
                        "{} …",
                        harmless(words::node_name(self.drawing.plan, node))
                    );
                    break (Vec::new(), column);
                }
                line.push_str(&name(self.drawing, node));
                let mut next = self.next(node);
                if next.len() != 1 {
                    break (next, column);
                }
                let Some((reader, edge)) = next.pop() else {
                    break (next, column);
                };
                if line.chars().count() > LINE {
                    self.lines
                        .push(std::mem::replace(&mut line, format!("{below}  ")));
                }
                line.push(' ');
                self.arrow(&mut line, edge);
                node = reader;
            };
            self.lines.push(line);
            // Its readers stand below it; far to the right it is named once more at the left.
            if !branches.is_empty() && column > DEPTH {
                column = below.chars().count();
                self.lines.push(format!(
                    "{below}{}",
                    harmless(words::node_name(self.drawing.plan, node))
                ));
            }
            while below.chars().count() < column {
                below.push(' ');
            }
            let count = branches.len();
            for (i, (reader, edge)) in branches.into_iter().enumerate().rev() {
                todo.push(Todo {
                    node: reader,
                    by: Some(edge),
                    last: i + 1 == count,
                    indent: below.clone(),
                });
            }
        }
    }

    fn arrow(&self, line: &mut String, edge: usize) {
        let _ = write!(line, "─{}→ ", self.drawing.edges[edge].label());
    }

    /// Who reads what a node writes.
    fn next(&self, node: NodeId) -> Vec<(NodeId, usize)> {
        let edges = self.outgoing[node.index()].iter();
        let readers = |&edge: &usize| {
            let readers = self.drawing.edges[edge].readers.iter();
            readers.map(move |&reader| (reader, edge))
        };
        edges.flat_map(readers).collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::cli::graph::{dot, mermaid, text};
    use crate::cli::words::{example, pools};

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

    #[test]
    fn pools_as_text() {
        let (_, plan) = pools();
        assert_eq!(
            printed(|out| text(&plan, out)),
            r#"read
├─lines→ letters
└─lines→ count ×2 ─counts→ total ─all (stored)→ fetch …

fetch ×3
├─pages (leads back)→ walk ×1
│                     ├─pages (leads back)→ walk …
│                     └─found (spills)→ show
└─bad (drops)→ show …
"#
        );
    }

    #[test]
    fn pools_as_dot() {
        let (_, plan) = pools();
        assert_eq!(
            printed(|out| dot(&plan, out)),
            r#"digraph "pools" {
  rankdir=LR
  node [shape=box, style=rounded]
  subgraph cluster_0 {
    label="group 1"
    color=gray
    n0 [label="read"]
    n1 [label="count ×2", peripheries=2]
    n2 [label="letters"]
    n3 [label="total"]
    q0 [shape=ellipse, style=solid, label="lines"]
  }
  subgraph cluster_1 {
    label="group 2"
    color=gray
    n4 [label="fetch ×3", peripheries=2]
    n5 [label="walk ×1", peripheries=2]
    n6 [label="show"]
    q4 [shape=ellipse, style=solid, label="pages (leads back)"]
  }
  n0 -> q0
  q0 -> n2
  q0 -> n1
  n1 -> n3 [label="counts"]
  n3 -> n4 [label="all (stored)"]
  n4 -> q4
  n5 -> q4
  q4 -> n5
  n4 -> n6 [label="bad (drops)"]
  n5 -> n6 [label="found (spills)"]
}
"#
        );
    }

    #[test]
    fn pools_as_mermaid() {
        let (_, plan) = pools();
        assert_eq!(
            printed(|out| mermaid(&plan, out)),
            r#"flowchart LR
  subgraph g0["group 1"]
    n0["read"]
    n1[["count #215;2"]]
    n2["letters"]
    n3["total"]
    q0(["lines"])
  end
  subgraph g1["group 2"]
    n4[["fetch #215;3"]]
    n5[["walk #215;1"]]
    n6["show"]
    q4(["pages (leads back)"])
  end
  n0 --> q0
  q0 --> n2
  q0 --> n1
  n1 -->|"counts"| n3
  n3 -->|"all (stored)"| n4
  n4 --> q4
  n5 --> q4
  q4 --> n5
  n4 -->|"bad (drops)"| n6
  n5 -->|"found (spills)"| n6
"#
        );
    }
}
