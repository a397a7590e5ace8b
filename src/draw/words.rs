//! Words for the parts of a plan, which all that print it share.

use crate::plan::{After, Group, Node, NodeId, Plan, Queue, Skip};
use crate::spec::AfterState;

/// The name of a node.
pub fn node_name(plan: &Plan, node: NodeId) -> &str {
    &plan.nodes[node.index()].name
}

/// Why a node will not be started, as it stands behind its name: `skipped`, `skipped: env CI is not set`.
pub fn left_out(node: &Node) -> Option<String> {
    match node.skip.as_ref()? {
        Skip::ByUser => Some("skipped".to_owned()),
        Skip::When(unmet) => Some(format!("skipped: {unmet}")),
    }
}

/// The nodes of a group, in start order.
pub fn nodes(plan: &Plan, group: &Group) -> Vec<NodeId> {
    let mut nodes: Vec<NodeId> = group
        .units
        .iter()
        .map(|&unit| plan.unit(unit).node)
        .collect();
    // Units of a node stand together.
    nodes.dedup();
    nodes
}

/// Whether a queue lies within a pool: it is procflow's own, for a file that the workers share or write together.
pub fn is_within(plan: &Plan, queue: &Queue) -> bool {
    let mut nodes = queue
        .writers
        .iter()
        .chain(&queue.readers)
        .map(|&unit| plan.unit(unit).node);
    let first = nodes.next();
    queue.is_internal() && nodes.all(|node| Some(node) == first)
}

/// The queue of the file that this one is a pool's copy of; none where it is none, or lies within a pool.
pub fn copy_of(queue: &Queue) -> Option<&str> {
    let (of, _) = queue.name.split_once('.')?;
    (queue.file.is_none()).then_some(of)
}

/// "a, b, c"; from the ninth on "and N more".
pub fn few(names: &[String]) -> String {
    const SHOWN: usize = 8;
    match names.get(..SHOWN) {
        Some(shown) if names.len() > SHOWN + 1 => {
            format!("{} and {} more", shown.join(", "), names.len() - SHOWN)
        }
        _ => names.join(", "),
    }
}

/// "`a`", or "`a` failed".
pub fn wait(plan: &Plan, wait: After) -> String {
    let name = node_name(plan, wait.node);
    match wait.state {
        AfterState::Succeeded => name.to_owned(),
        other => format!("{name} {}", state(other)),
    }
}

/// As the file says it.
pub fn state(state: AfterState) -> &'static str {
    match state {
        AfterState::Succeeded => "succeeded",
        AfterState::Failed => "failed",
        AfterState::Finished => "finished",
        AfterState::Started => "started",
        AfterState::Ready => "ready",
    }
}

/// The example that the printing commands are tested with, planned as if it stood in `/p`.
#[cfg(test)]
pub(crate) fn example() -> (crate::spec::Spec, Plan) {
    planned(include_str!("example.toml"))
}

/// The same with pools.
#[cfg(test)]
pub(crate) fn pools() -> (crate::spec::Spec, Plan) {
    planned(include_str!("pools.toml"))
}

/// A pipeline, planned as if it stood in `/p`.
#[cfg(test)]
pub(crate) fn planned(text: &str) -> (crate::spec::Spec, Plan) {
    let spec = match crate::spec::read(text) {
        Ok(spec) => spec,
        Err(wrong) => panic!("{:?}", wrong.problems),
    };
    let origin = crate::plan::Origin {
        dir: "/p".into(),
        name: "example".to_owned(),
    };
    match crate::plan::build(spec.clone(), &origin, &crate::plan::Overrides::none()) {
        (Some(plan), _) => (spec, plan),
        (None, problems) => panic!("{problems:?}"),
    }
}
