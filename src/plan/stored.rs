//! Queues that are kept on disk as a whole (spec 2.3): because the file says so, or because a reader waits for a writer's end, and
//! a pipe between the two would block once it is full. Their readers come after all their writers, by waits that nobody wrote.

use std::collections::HashMap;

use crate::plan::arrange::topological;
use crate::plan::build::{Ends, waits_of};
use crate::plan::{After, Node, NodeId};
use crate::spec::{AfterState, OnWriterFailure};

/// What is said of a queue that matters here.
#[derive(Debug, Clone, Copy)]
pub(super) struct Said {
    /// `store`
    pub(super) store: Option<bool>,
    /// What a writer's failure means.
    pub(super) on_writer_failure: OnWriterFailure,
}

/// Why a queue is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// The file says so.
    Said,
    /// This reader waits for the end of this writer.
    Wait {
        /// Who waits.
        reader: NodeId,
        /// For whom.
        writer: NodeId,
    },
}

/// The waits of stored queues that nobody wrote: who waits for whom, and by which queue.
#[derive(Debug, Default)]
pub(super) struct Implied(HashMap<(NodeId, NodeId), usize>);

impl Implied {
    /// The queue that makes `node` wait for `before`.
    pub(super) fn by(&self, node: NodeId, before: NodeId) -> Option<usize> {
        self.0.get(&(node, before)).copied()
    }
}

/// For each queue why it is stored; none for one that is live. To each reader of a stored one is added that it waits for each
/// writer.
pub(super) fn decide(nodes: &mut [Node], queues: &[(Ends, Said)]) -> (Vec<Option<Why>>, Implied) {
    let mut implied = Implied::default();
    let mut stored = vec![None; queues.len()];
    // A wait that is added may be the reason to store another queue, so it takes as many rounds as there is something new.
    loop {
        let mut waits = Waits::new(nodes);
        let found: Vec<(usize, Why)> = queues
            .iter()
            .enumerate()
            .filter(|(queue, _)| stored[*queue].is_none())
            .filter_map(|(queue, (ends, said))| {
                let why = match said.store {
                    Some(true) => Some(Why::Said),
                    // It would block: that it shall not be stored is then an error, of a wait inside a group.
                    Some(false) => None,
                    None => waits.joins(ends),
                };
                why.map(|why| (queue, why))
            })
            .collect();
        if found.is_empty() {
            return (stored, implied);
        }
        for (queue, why) in found {
            stored[queue] = Some(why);
            let (ends, said) = &queues[queue];
            implied.add(nodes, queue, ends, said.on_writer_failure);
        }
    }
}

impl Implied {
    fn add(
        &mut self,
        nodes: &mut [Node],
        queue: usize,
        ends: &Ends,
        on_writer_failure: OnWriterFailure,
    ) {
        let state = match on_writer_failure {
            OnWriterFailure::Cancel => AfterState::Succeeded,
            // For the reader the data has then ended.
            OnWriterFailure::Close => AfterState::Finished,
        };
        for &reader in &ends.readers {
            for &writer in &ends.writers {
                let after = &mut nodes[reader.index()].after;
                let wait = After {
                    node: writer,
                    state,
                };
                if !after.contains(&wait) {
                    after.push(wait);
                    after.sort_by_key(|wait| wait.node);
                    self.0.entry((reader, writer)).or_insert(queue);
                }
            }
        }
    }
}

/// Who waits for whom, by what the nodes say.
struct Waits<'a> {
    nodes: &'a [Node],
    /// The place of each node in an order; none where they wait in a circle, which is told elsewhere.
    place: Option<Vec<u32>>,
}

impl<'a> Waits<'a> {
    fn new(nodes: &'a [Node]) -> Self {
        Waits { nodes, place: None }
    }

    /// A reader that waits for a writer's end, through as many nodes as it takes.
    fn joins(&mut self, ends: &Ends) -> Option<Why> {
        let nodes = self.nodes;
        let waiting = |reader: &&NodeId| !nodes[reader.index()].after.is_empty();
        // Nearly no reader waits for anything.
        let readers: Vec<NodeId> = ends.readers.iter().filter(waiting).copied().collect();
        readers.into_iter().find_map(|reader| {
            let writer = self.waited_for(reader, &ends.writers)?;
            Some(Why::Wait { reader, writer })
        })
    }

    fn waited_for(&mut self, reader: NodeId, writers: &[NodeId]) -> Option<NodeId> {
        let place = self.place.get_or_insert_with(|| places(self.nodes));
        // What stands before all writers waits for none of them.
        let first = writers
            .iter()
            .filter_map(|writer| place.get(writer.index()))
            .min()?;
        let mut seen = std::collections::HashSet::from([reader]);
        let mut todo = vec![reader];
        while let Some(node) = todo.pop() {
            for wait in &self.nodes[node.index()].after {
                if wait.state.is_end() && writers.contains(&wait.node) {
                    return Some(wait.node);
                }
                if place[wait.node.index()] > *first && seen.insert(wait.node) {
                    todo.push(wait.node);
                }
            }
        }
        None
    }
}

/// The place of each node in an order in which nobody stands before those it waits for; empty where there is none.
fn places(nodes: &[Node]) -> Vec<u32> {
    let Some(order) = topological(nodes.len(), &waits_of(nodes)) else {
        return Vec::new();
    };
    let mut place = vec![0; nodes.len()];
    for (at, node) in (0u32..).zip(order) {
        place[node as usize] = at;
    }
    place
}
