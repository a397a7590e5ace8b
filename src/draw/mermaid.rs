//! The graph as Mermaid.

use std::fmt::Write as _;
use std::io::{self, Write};

use crate::draw::{Drawing, State, States, vertex, wait_label, words};
use crate::plan::{NodeId, Plan};

/// Mermaid: the same in the form that GitHub and GitLab draw.
///
/// # Errors
/// Those of `out`.
pub fn mermaid(plan: &Plan, states: States<'_>, out: &mut dyn Write) -> io::Result<()> {
    let drawing = Drawing::of(plan, states);
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
    for state in State::ALL {
        let of_it = (0..plan.nodes.len())
            .filter(|&index| drawing.state(NodeId::from(index)) == Some(state))
            .map(|index| format!("n{index}"))
            .collect::<Vec<_>>();
        if of_it.is_empty() {
            continue;
        }
        let (line, fill) = state.colours();
        let class = state.class();
        // The text's colour too: the reader's page may be dark.
        writeln!(
            out,
            "  classDef {class} stroke:{line},fill:{fill},color:#1f2328"
        )?;
        writeln!(out, "  class {} {class}", of_it.join(","))?;
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
