//! Taking up an earlier run: which of its results still hold.
//!
//! What a node is and what it read and wrote are lists of lines (`define`, `marks`). A run notes them in its journal when a node
//! has finished ([`Keeper`]); a later run makes them anew and compares ([`decide()`]). The first that differs is the reason, so what
//! decides and what explains is the same code.
//!
//! Nodes that run in one group are one *set*: they are reused together or run together, since the data between them is gone.

mod decide;
mod define;
mod keeper;
mod marks;

pub use crate::resume::decide::{Decision, Fate, decide};
pub use crate::resume::define::for_all;
pub use crate::resume::keeper::Keeper;
pub use crate::resume::marks::Hasher;

use crate::plan::{GroupId, NodeId, Plan, UnitId};

/// Which nodes are reused, or run, together.
#[derive(Debug, Clone)]
pub struct Sets {
    /// For each node its set.
    of: Vec<u32>,
    /// The nodes of each set.
    nodes: Vec<Vec<NodeId>>,
}

impl Sets {
    /// Those of a plan, in the order in which they start.
    pub fn of(plan: &Plan) -> Sets {
        // A union of trees: each node points to another of its set, the root to itself.
        let mut parents: Vec<u32> = (0..plan.nodes.len() as u32).collect();
        fn root(parents: &mut [u32], mut node: u32) -> u32 {
            while parents[node as usize] != node {
                let up = parents[node as usize];
                parents[node as usize] = parents[up as usize];
                node = up;
            }
            node
        }
        for group in &plan.groups {
            let mut nodes = group.units.iter().map(|unit| plan.unit(*unit).node.0);
            let Some(first) = nodes.next() else { continue };
            for node in nodes {
                let (a, b) = (root(&mut parents, first), root(&mut parents, node));
                parents[b as usize] = a;
            }
        }
        let mut numbers = vec![u32::MAX; plan.nodes.len()];
        let mut of = vec![0; plan.nodes.len()];
        let mut nodes: Vec<Vec<NodeId>> = Vec::new();
        for group in &plan.groups {
            for unit in &group.units {
                let node = plan.unit(*unit).node;
                let number = &mut numbers[root(&mut parents, node.0) as usize];
                if *number == u32::MAX {
                    *number = nodes.len() as u32;
                    nodes.push(Vec::new());
                }
                let members = &mut nodes[*number as usize];
                if !members.contains(&node) {
                    members.push(node);
                }
                of[node.index()] = *number;
            }
        }
        Sets { of, nodes }
    }

    /// A node's set.
    pub fn set(&self, node: NodeId) -> usize {
        self.of[node.index()] as usize
    }

    /// A group's set.
    pub fn set_of_group(&self, plan: &Plan, group: GroupId) -> Option<usize> {
        let unit: &UnitId = plan.group(group).units.first()?;
        Some(self.set(plan.unit(*unit).node))
    }

    /// The nodes of each.
    pub fn all(&self) -> &[Vec<NodeId>] {
        &self.nodes
    }
}
