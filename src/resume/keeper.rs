//! [`Keeper`]: notes in the journal what has finished, while a run goes on.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use crate::event::Outcome;
use crate::plan::template::{Part, Template};
use crate::plan::{GroupId, NodeId, Plan, QueueKind, Sink, Source, Tasks, Unit, UnitId};
use crate::resume::Sets;
use crate::resume::define::{self, is_aside, is_left_out, units};
use crate::resume::marks::{self, Hasher, Seen};
use crate::store::journal::{Finished, Mark, Record, Writer};

/// See the module.
#[derive(Debug)]
pub struct Keeper<'p> {
    plan: &'p Plan,
    run_id: String,
    hasher: Hasher,
    writer: Writer,
    /// Where stored queues are.
    queues: PathBuf,
    sets: Sets,
    state: Vec<SetState>,
    /// For each group its units that have not ended.
    open: Vec<u32>,
    /// The files that nodes at work read, as they were before; or why they can't be told.
    seen: HashMap<NodeId, Result<Vec<Seen>, String>>,
}

#[derive(Debug, Clone, Default)]
struct SetState {
    /// Groups whose last try has not ended.
    groups: u32,
    /// Some unit of it has not succeeded.
    is_ill: bool,
}

impl<'p> Keeper<'p> {
    /// For a run that has not begun. `queues` is where its stored queues are.
    pub fn new(
        plan: &'p Plan,
        run_id: &str,
        hasher: Hasher,
        writer: Writer,
        queues: PathBuf,
    ) -> Keeper<'p> {
        let sets = Sets::of(plan);
        let mut state = vec![SetState::default(); sets.all().len()];
        for group in 0..plan.groups.len() {
            if let Some(set) = sets.set_of_group(plan, GroupId::from(group)) {
                state[set].groups += 1;
            }
        }
        Keeper {
            plan,
            run_id: run_id.to_owned(),
            hasher,
            writer,
            queues,
            sets,
            state,
            open: plan
                .groups
                .iter()
                .map(|group| group.units.len() as u32)
                .collect(),
            seen: HashMap::new(),
        }
    }

    /// A group is about to be started: what its nodes will read is looked at now.
    pub fn begins<S: BuildHasher>(&mut self, group: GroupId, values: &HashMap<NodeId, String, S>) {
        for &unit in &self.plan.group(group).units {
            let node = self.plan.unit(unit).node;
            if reads_files(self.plan, self.plan.unit(unit)) {
                let paths = inputs(self.plan, node, &self.run_id, values);
                let seen = paths.and_then(|paths| marks::look(&self.plan.dir, paths));
                self.seen.insert(node, seen);
            }
        }
    }

    /// A unit has ended.
    ///
    /// # Errors
    /// The line cannot be made.
    pub fn ended(&mut self, unit: UnitId, outcome: &Outcome) -> io::Result<()> {
        let node = self.plan.unit(unit).node;
        let state = &mut self.state[self.sets.set(node)];
        self.open[self.plan.unit(unit).group.index()] -= 1;
        let why = match outcome {
            Outcome::Succeeded { .. } | Outcome::Reused => return Ok(()),
            // As its neighbours' definitions say. One that was asked during the run is asked again.
            Outcome::Skipped(_) if is_left_out(self.plan, node) => {
                return Ok(());
            }
            Outcome::Skipped(_) => None,
            Outcome::Failed(_) => Some("failed"),
            Outcome::Cancelled(_) => Some("was cancelled"),
        };
        state.is_ill = true;
        match why {
            None => Ok(()),
            Some(why) => self.writer.add(&Record::Ill {
                node: self.plan.node(node).name.to_string(),
                why: why.to_owned(),
            }),
        }
    }

    /// A try of a group has ended, and all that it wrote is where it belongs. Where it was the last, and all of the group's set has
    /// succeeded, that is noted.
    ///
    /// # Errors
    /// The line cannot be made.
    pub fn group_ended<S: BuildHasher>(
        &mut self,
        group: GroupId,
        values: &HashMap<NodeId, String, S>,
    ) -> io::Result<()> {
        let Some(set) = self.sets.set_of_group(self.plan, group) else {
            return Ok(());
        };
        if self.open[group.index()] > 0 {
            return Ok(());
        }
        let state = &mut self.state[set];
        state.groups -= 1;
        if state.groups > 0 || state.is_ill {
            return Ok(());
        }
        let nodes = self.sets.all()[set].clone();
        let nodes = nodes.into_iter().filter(|&node| !is_aside(self.plan, node));
        let finished: Vec<_> = nodes.map(|node| self.finished(node, values)).collect();
        if finished.is_empty() {
            return Ok(());
        }
        self.writer.add(&Record::Finished(finished))
    }

    fn finished<S: BuildHasher>(
        &mut self,
        node: NodeId,
        values: &HashMap<NodeId, String, S>,
    ) -> Finished {
        let mut finished = Finished {
            node: self.plan.node(node).name.to_string(),
            from: None,
            is: Vec::new(),
            read: Vec::new(),
            wrote: Vec::new(),
            stored: Vec::new(),
            value: None,
            unfit: None,
        };
        if let Err(why) = self.results(node, values, &mut finished) {
            finished.is.clear();
            finished.unfit = Some(why);
        }
        finished
    }

    /// What a later run must know of a node, or why no later run can reuse it.
    fn results<S: BuildHasher>(
        &mut self,
        node: NodeId,
        values: &HashMap<NodeId, String, S>,
        finished: &mut Finished,
    ) -> Result<(), String> {
        let plan = self.plan;
        if let Some(why) = unfit(plan, node) {
            return Err(why.to_owned());
        }
        let seen = self.seen.remove(&node).unwrap_or_else(|| Ok(Vec::new()))?;
        let read = marks::read(&plan.dir, seen, &self.hasher)?;
        let paths = outputs(plan, node, &self.run_id, values)?;
        let wrote = marks::written(&plan.dir, paths, &self.hasher)?;
        let queues = stored(plan, node).into_iter().map(|queue| (queue, false));
        let mut stored = marks::written(&self.queues, queues, &self.hasher)?;
        for mark in &mut stored {
            mark.time = None;
        }
        let value = values.get(&node).cloned();
        let paths = [&read, &wrote].into_iter().flatten();
        if value.iter().any(|value| self.is_secret(value)) {
            return Err("its value holds a secret, which is kept nowhere".to_owned());
        }
        if paths
            .into_iter()
            .any(|Mark { path, .. }| self.is_secret(path))
        {
            return Err("the name of a file holds a secret, which is kept nowhere".to_owned());
        }
        finished.is = define::of_node(plan, node, &self.run_id, &self.hasher);
        finished.read = read;
        finished.wrote = wrote;
        finished.stored = stored;
        finished.value = value;
        Ok(())
    }

    fn is_secret(&self, text: &str) -> bool {
        let mut secrets = self.plan.secrets.iter();
        secrets.any(|secret| !secret.is_empty() && text.contains(&**secret))
    }

    /// Writes what was noted. Nothing that follows from it may be done before.
    ///
    /// # Errors
    /// The journal can't be written, and so the run can't go on.
    pub fn write(&mut self) -> io::Result<()> {
        self.writer.write()
    }

    /// Whether something was written since it was last taken down to be brought to the disk.
    pub fn is_dirty(&self) -> bool {
        self.writer.is_dirty()
    }

    /// The same, and takes it down.
    pub fn take_dirty(&mut self) -> bool {
        self.writer.take_dirty()
    }

    /// The journal, for someone who has it written to the disk.
    ///
    /// # Errors
    /// There is no descriptor left.
    pub fn file(&self) -> io::Result<OwnedFd> {
        self.writer.file()
    }

    /// Where the journal is.
    pub fn path(&self) -> &Path {
        self.writer.path()
    }
}

/// Why nothing can take the place of running a node.
pub(super) fn unfit(plan: &Plan, node: NodeId) -> Option<&'static str> {
    for unit in units(plan, node) {
        let mut from = unit.ends.inputs.iter().flat_map(|input| &input.from);
        if from.any(|(_, source)| matches!(source, Source::Inherit)) {
            return Some("it reads procflow's own standard input");
        }
        let mut outputs = unit.ends.outputs.iter();
        if outputs.any(|output| output.fd != 2 && output.to.contains(&Sink::Inherit)) {
            return Some("it writes to procflow's own standard output");
        }
    }
    None
}

fn reads_files(plan: &Plan, unit: &Unit) -> bool {
    let mut from = unit.ends.inputs.iter().flat_map(|input| &input.from);
    !unit.reads.is_empty()
        || from.any(|(_, source)| match source {
            Source::File(_) => true,
            Source::Queue(queue) => plan.queue(*queue).file.is_some(),
            Source::Null | Source::Inherit | Source::Text(_) => false,
        })
        || plan
            .node(unit.node)
            .pool
            .as_ref()
            .is_some_and(|pool| matches!(pool.tasks, Some(Tasks::Glob(_) | Tasks::Lines { .. })))
}

/// A path of the file, with what the run knows put in.
fn path<S: BuildHasher>(
    template: &Template,
    run_id: &str,
    values: &HashMap<NodeId, String, S>,
) -> Result<String, String> {
    let parts = match template {
        Template::Literal(text) => return Ok(text.to_string()),
        Template::Parts(parts) => parts,
    };
    let mut text = String::new();
    for part in parts {
        match part {
            Part::Text(part) => text.push_str(part),
            Part::RunId => text.push_str(run_id),
            Part::Value(node) => text.push_str(values.get(node).map_or("", |value| value)),
            Part::In(_)
            | Part::Out(_)
            | Part::Task
            | Part::TaskField(_)
            | Part::TaskIndex
            | Part::Worker => return Err("the names of its files are each task's own".to_owned()),
        }
    }
    Ok(text)
}

/// The files that a node reads, in order, as the pipeline names them.
pub(super) fn inputs<S: BuildHasher>(
    plan: &Plan,
    node: NodeId,
    run_id: &str,
    values: &HashMap<NodeId, String, S>,
) -> Result<Vec<String>, String> {
    let mut paths = Vec::new();
    let path = |template| path(template, run_id, values);
    for unit in units(plan, node) {
        for (_, source) in unit.ends.inputs.iter().flat_map(|input| &input.from) {
            match source {
                Source::File(file) => paths.push(path(file)?),
                Source::Queue(queue) => {
                    if let Some(file) = &plan.queue(*queue).file {
                        paths.push(path(file)?);
                    }
                }
                Source::Null | Source::Inherit | Source::Text(_) => {}
            }
        }
        for pattern in &unit.reads {
            paths.extend(marks::matching(&plan.dir, &path(pattern)?)?);
        }
    }
    match plan
        .node(node)
        .pool
        .as_ref()
        .and_then(|pool| pool.tasks.as_ref())
    {
        Some(Tasks::Glob(pattern)) => paths.extend(marks::matching(&plan.dir, &path(pattern)?)?),
        Some(Tasks::Lines { path: file, .. }) => paths.push(path(file)?),
        Some(Tasks::List(_) | Tasks::Range(..)) | None => {}
    }
    paths.sort_unstable();
    paths.dedup();
    Ok(paths)
}

/// The files that a node wrote, and whether it appended to them.
fn outputs<S: BuildHasher>(
    plan: &Plan,
    node: NodeId,
    run_id: &str,
    values: &HashMap<NodeId, String, S>,
) -> Result<Vec<(String, bool)>, String> {
    let mut paths = Vec::new();
    for unit in units(plan, node) {
        for sink in unit.ends.outputs.iter().flat_map(|output| &output.to) {
            if let Sink::File { path: file, append } = sink {
                paths.push((path(file, run_id, values)?, *append));
            }
        }
        for pattern in &unit.writes {
            let pattern = path(pattern, run_id, values)?;
            let found = marks::matching(&plan.dir, &pattern)?;
            paths.extend(found.into_iter().map(|path| (path, false)));
        }
    }
    paths.sort_unstable();
    paths.dedup();
    Ok(paths)
}

/// The stored queues that a node writes.
fn stored(plan: &Plan, node: NodeId) -> Vec<String> {
    let mut names = Vec::new();
    for unit in units(plan, node) {
        for sink in unit.ends.outputs.iter().flat_map(|output| &output.to) {
            if let Sink::Queue(queue) = sink {
                let queue = plan.queue(*queue);
                if queue.kind == QueueKind::Stored {
                    names.push(queue.name.to_string());
                }
            }
        }
    }
    names.sort_unstable();
    names.dedup();
    names
}
