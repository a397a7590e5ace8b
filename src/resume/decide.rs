//! Which results of an earlier run still hold, and why the others don't.

use std::collections::HashMap;
use std::path::Path;

use crate::plan::{NodeId, Plan, UnitId};
use crate::resume::Sets;
use crate::resume::define::{self, difference, is_aside};
use crate::resume::keeper::{inputs, unfit};
use crate::resume::marks::{self, Hasher};
use crate::store::journal::{Finished, Journal, Record};

/// What becomes of each node of a plan.
#[derive(Debug)]
pub struct Decision {
    /// By node.
    pub fates: Vec<Fate>,
}

/// What becomes of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// Its results hold; these they are.
    Reused(Box<Finished>),
    /// It runs, since this is so, in words for people.
    Again(String),
    /// There is nothing to decide: the user has left it out, or it is a service, which runs when somebody needs it.
    Aside,
}

/// Decides for each node. `run` is the directory of the run whose journal this is, `run_id` the id of the one that is about to begin.
pub fn decide(
    plan: &Plan,
    journal: &Journal,
    run: &Path,
    run_id: &str,
    hasher: &Hasher,
) -> Decision {
    let mut finished: HashMap<&str, &Finished> = HashMap::new();
    let mut ill: HashMap<&str, &str> = HashMap::new();
    for record in &journal.records {
        match record {
            Record::Finished(nodes) => {
                finished.extend(nodes.iter().map(|node| (node.node.as_str(), node)));
            }
            Record::Ill { node, why } => {
                ill.insert(node, why);
            }
            Record::Again { .. } => {}
        }
    }
    let sets = Sets::of(plan);
    let mut look = Look {
        plan,
        hasher,
        run,
        run_id,
        for_all: difference(&journal.header.all, &define::for_all(plan, hasher)),
        values: HashMap::new(),
        fates: vec![Fate::Aside; plan.nodes.len()],
    };
    // Sets come in start order: what is upstream of one has been decided.
    for nodes in sets.all() {
        let nodes: Vec<NodeId> = nodes
            .iter()
            .copied()
            .filter(|&node| !is_aside(plan, node))
            .collect();
        let why = nodes.iter().find_map(|&node| {
            let name = &*plan.node(node).name;
            let why = match (finished.get(name), ill.get(name)) {
                (Some(finished), _) => look.why_again(node, finished),
                (None, Some(why)) => Some(format!("it {why}")),
                (None, None) => Some(format!("run {} has not finished it", journal.header.run)),
            };
            why.map(|why| (node, why))
        });
        for node in nodes {
            let name = &*plan.node(node).name;
            look.fates[node.index()] = match (&why, finished.get(name)) {
                (Some((first, why)), _) if *first == node => Fate::Again(why.clone()),
                (Some((first, _)), _) => Fate::Again(format!(
                    "it runs together with `{}`, which runs again",
                    plan.node(*first).name
                )),
                (None, Some(&finished)) => {
                    if let Some(value) = &finished.value {
                        look.values.insert(node, value.clone());
                    }
                    Fate::Reused(Box::new(finished.clone()))
                }
                (None, None) => panic!("BUG: `{name}` is reused, and has not finished"),
            };
        }
    }
    Decision { fates: look.fates }
}

struct Look<'a> {
    plan: &'a Plan,
    hasher: &'a Hasher,
    run: &'a Path,
    run_id: &'a str,
    /// How what holds for all nodes has changed.
    for_all: Option<String>,
    /// Values of nodes that are reused.
    values: HashMap<NodeId, String>,
    fates: Vec<Fate>,
}

impl Look<'_> {
    /// Why a node that had finished runs again, if it does. What costs least is asked first.
    fn why_again(&self, node: NodeId, was: &Finished) -> Option<String> {
        let plan = self.plan;
        if let Some(why) = &was.unfit {
            return Some(why.clone());
        }
        if let Some(why) = unfit(plan, node) {
            return Some(why.to_owned());
        }
        if let Some(lines) = &self.for_all {
            return Some(format!("what holds for all nodes has changed: {lines}"));
        }
        let is = define::of_node(plan, node, self.run_id, self.hasher);
        if let Some(lines) = difference(&was.is, &is) {
            return Some(format!("its definition has changed: {lines}"));
        }
        if let Some(up) = self.upstream_again(node) {
            return Some(format!("`{}` runs again", plan.node(up).name));
        }
        self.changed_input(node, was)
            .or_else(|| self.changed_output(was))
    }

    /// Something upstream of it, in another set, that runs.
    fn upstream_again(&self, node: NodeId) -> Option<NodeId> {
        let runs = |id: &NodeId| matches!(self.fates[id.index()], Fate::Again(_));
        let mut before = self.plan.node(node).after.iter().map(|after| after.node);
        if let Some(found) = before.find(runs) {
            return Some(found);
        }
        let units = define::units(self.plan, node).flat_map(|unit| &unit.ends.inputs);
        let queues = units
            .flat_map(|input| &input.from)
            .filter_map(|(_, source)| match source {
                crate::plan::Source::Queue(queue) => Some(*queue),
                _ => None,
            });
        let writers = queues.flat_map(|queue| &self.plan.queue(queue).writers);
        let mut writers = writers.map(|unit: &UnitId| self.plan.unit(*unit).node);
        writers.find(runs)
    }

    fn changed_input(&self, node: NodeId, was: &Finished) -> Option<String> {
        let now = match inputs(self.plan, node, self.run_id, &self.values) {
            Ok(now) => now,
            Err(why) => return Some(why),
        };
        let is_new = |path: &&String| {
            !was.read.iter().any(|mark| mark.path == **path) && path.as_str() != "/dev/null"
        };
        if let Some(new) = now.iter().find(is_new) {
            return Some(format!("`{new}`, which it reads, is new"));
        }
        was.read.iter().find_map(|mark| {
            let change = marks::change(&self.plan.dir, mark, self.hasher, false)?;
            Some(format!("`{}`, which it reads, {change}", mark.path))
        })
    }

    fn changed_output(&self, was: &Finished) -> Option<String> {
        let wrote = was.wrote.iter().find_map(|mark| {
            let change = marks::change(&self.plan.dir, mark, self.hasher, true)?;
            Some(format!("`{}`, which it wrote, {change}", mark.path))
        });
        wrote.or_else(|| {
            was.stored.iter().find_map(|mark| {
                let change = marks::change(&self.run.join("queues"), mark, self.hasher, false)?;
                Some(format!("what it stored in queue `{}` {change}", mark.path))
            })
        })
    }
}
