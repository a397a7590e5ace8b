//! The graph as text for a terminal.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::io::{self, Write};

use crate::diagnostic::harmless;
use crate::draw::{Drawing, States, vertex, words};
use crate::plan::{NodeId, Plan};

/// Text: groups in start order. In a group, data flows from left to right and down: `a ─lines→ b`; where it splits, each reader
/// stands below its writer; a node that was shown already is named again with `…`.
///
/// # Errors
/// Those of `out`.
pub fn text(plan: &Plan, states: States<'_>, out: &mut dyn Write) -> io::Result<()> {
    let drawing = Drawing::of(plan, states);
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
    match drawing.state(node) {
        Some(state) => {
            let _ = write!(text, " ({})", state.word());
        }
        None => {
            if let Some(why) = words::left_out(plan.node(node)) {
                let _ = write!(text, " ({})", harmless(&why));
            }
        }
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
