//! The graph as Graphviz DOT.

use std::io::{self, Write};

use crate::draw::{Drawing, States, vertex, wait_label, words};
use crate::plan::{NodeId, Plan};

/// Graphviz DOT: a cluster for each group of several, queues as solid edges, waits as dashed ones.
///
/// # Errors
/// Those of `out`.
pub fn dot(plan: &Plan, states: States<'_>, out: &mut dyn Write) -> io::Result<()> {
    let drawing = Drawing::of(plan, states);
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
            // What is not run is dotted, a pool a stack of boxes.
            let mut style = match (plan.node(node).is_left_out(), &plan.node(node).pool) {
                (true, _) => ", style=\"rounded,dotted\"".to_owned(),
                (false, Some(_)) => ", peripheries=2".to_owned(),
                (false, None) => String::new(),
            };
            if let Some(state) = drawing.state(node) {
                let (line, fill) = state.colours();
                style.push_str(&format!(
                    ", style=\"rounded,filled\", color=\"{line}\", fillcolor=\"{fill}\", tooltip=\"{}\"",
                    state.word()
                ));
            }
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
