//! [`Places`]: where in the pipeline file each node stands, for reports that lead there.

use std::fmt::Write;

use crate::diagnostic::{Mark, places};
use crate::plan::{NodeId, Plan};

/// Where each node stands.
#[derive(Debug, Clone, Default)]
pub struct Places {
    /// The file, as a reader of the report finds it.
    pub file: String,
    /// Line and column by node.
    nodes: Vec<Option<(usize, usize)>>,
}

impl Places {
    /// Looks in the file's text.
    pub fn new(plan: &Plan, file: String, text: &str) -> Self {
        let marks = plan.nodes.iter().map(|node| Mark::Key(node.place()));
        Places {
            file,
            nodes: places(text, marks),
        }
    }

    /// The line and column, from 1, of a node's table.
    pub fn of(&self, node: NodeId) -> Option<(usize, usize)> {
        *self.nodes.get(node.index())?
    }

    /// `pipeline.toml:12`; empty where the file has no name to go by.
    pub fn in_words(&self, node: NodeId) -> String {
        let mut text = self.file.clone();
        if let (false, Some((line, _))) = (text.is_empty(), self.of(node)) {
            let _ = write!(text, ":{line}");
        }
        text
    }
}
