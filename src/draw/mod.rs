//! The graph of a plan, drawn: as text for a terminal, as Graphviz DOT, as Mermaid, as an SVG picture. Where it is known how nodes have ended, in
//! their colours.
//!
//! Below `cli` and `report`, which draw the same.

use std::collections::{HashMap, HashSet};

use crate::event::Outcome;
use crate::plan::{
    After, Deliver, Group, NodeId, Overflow, Plan, Queue, QueueId, QueueKind, UnitId,
};
use crate::spec::AfterState;

mod dot;
mod layout;
mod mermaid;
mod svg;
#[cfg(test)]
mod tests;
mod text;
pub mod words;

pub use crate::draw::dot::dot;
pub use crate::draw::mermaid::mermaid;
pub use crate::draw::svg::{Notes, STYLE, picture, svg};
pub use crate::draw::text::text;

/// How a node has ended, as far as a drawing tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// It did its work.
    Succeeded,
    /// It did not.
    Failed,
    /// It did not, and may (`allow_failure`).
    Tolerated,
    /// procflow ended it, or did not let its result count.
    Cancelled,
    /// It was never started.
    Skipped,
    /// It was never started, since what an earlier run made of it holds.
    Reused,
}

impl State {
    /// Each.
    pub const ALL: [State; 6] = [
        State::Succeeded,
        State::Failed,
        State::Tolerated,
        State::Cancelled,
        State::Skipped,
        State::Reused,
    ];

    /// What a node's outcome is drawn as.
    pub fn of(outcome: &Outcome, allow_failure: bool) -> Self {
        match outcome {
            Outcome::Succeeded { .. } => State::Succeeded,
            Outcome::Failed(_) if allow_failure => State::Tolerated,
            Outcome::Failed(_) => State::Failed,
            Outcome::Cancelled(_) => State::Cancelled,
            Outcome::Skipped(_) => State::Skipped,
            Outcome::Reused => State::Reused,
        }
    }

    /// In a word, as reports say it.
    pub fn word(self) -> &'static str {
        match self {
            State::Succeeded => "succeeded",
            State::Failed => "failed",
            State::Tolerated => "failed, may fail",
            State::Cancelled => "cancelled",
            State::Skipped => "skipped",
            State::Reused => "reused",
        }
    }

    /// As the name of a class, in formats that have such.
    fn class(self) -> &'static str {
        match self {
            State::Succeeded => "succeeded",
            State::Failed => "failed",
            State::Tolerated => "tolerated",
            State::Cancelled => "cancelled",
            State::Skipped => "skipped",
            State::Reused => "reused",
        }
    }

    /// What tells it without words: a border's and a background's colour. Black text can be read on the latter.
    fn colours(self) -> (&'static str, &'static str) {
        match self {
            State::Succeeded => ("#1a7f37", "#d2f4d9"),
            State::Failed => ("#b3261e", "#ffd3cf"),
            State::Tolerated => ("#9a6700", "#fff1c2"),
            State::Cancelled => ("#6639ba", "#e9defa"),
            State::Skipped => ("#6e7781", "#e6e9ec"),
            State::Reused => ("#0e7490", "#d5f0f6"),
        }
    }
}

/// What a drawing knows of how nodes have ended: by [`NodeId`], none for those that have not, or of which nobody knows. Nothing at
/// all is an empty slice.
pub type States<'a> = &'a [Option<State>];

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
    states: States<'a>,
    edges: Vec<Edge<'a>>,
    stored: HashSet<(NodeId, NodeId)>,
}

impl<'a> Drawing<'a> {
    fn of(plan: &'a Plan, states: States<'a>) -> Self {
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
            states,
            edges,
            stored,
        }
    }

    /// How a node has ended, where that is known.
    fn state(&self, node: NodeId) -> Option<State> {
        self.states.get(node.index()).copied().flatten()
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
