//! `--only`: the chosen nodes with what they need.
//!
//! What a node needs is what it waits for, and its whole group: a writer without its reader would block or be ended by
//! SIGPIPE, a reader without its writer would have no data. The group's nodes need what they wait for in turn.

use indexmap::IndexMap;

use crate::plan::build::Draft;
use crate::plan::matrix::Matrices;
use crate::plan::problems::{Problems, error};
use crate::plan::{After, NodeId, Overrides, ProbeKind, QueueId, Sink, Source, Tasks, UnitId};
use crate::spec::Process;

/// The nodes that `--only` names; none where it is not given.
pub(super) fn chosen(
    processes: &IndexMap<String, Process>,
    matrices: &Matrices,
    overrides: &Overrides<'_>,
    problems: &mut Problems,
) -> Option<Vec<NodeId>> {
    if overrides.only.is_empty() {
        return None;
    }
    let mut chosen = Vec::new();
    for word in &overrides.only {
        if let Some(tag) = word.strip_prefix('@') {
            let before = chosen.len();
            let tagged = processes
                .values()
                .enumerate()
                .filter(|(_, process)| process.tags.iter().any(|t| t == tag));
            chosen.extend(tagged.map(|(index, _)| NodeId::from(index)));
            if chosen.len() == before {
                let tags: Vec<String> = processes
                    .values()
                    .flat_map(|process| &process.tags)
                    .map(|tag| format!("@{tag}"))
                    .collect();
                let problem = error(format!("--only {word}: no node has the tag `{tag}`"));
                problems.push_unknown(problem, word, tags.iter().map(String::as_str), None);
            }
        } else if let Some(nodes) = matrices.find(processes, word) {
            chosen.extend(nodes);
        } else {
            let is_tag = processes
                .values()
                .any(|process| process.tags.contains(word));
            let problem = error(format!("--only {word}: no node `{word}`"));
            if is_tag {
                problems.push(problem.help(format!("`{word}` is a tag: say `--only @{word}`")));
            } else {
                matrices.push_unknown(problem, processes, word, None, problems);
            }
        }
    }
    Some(chosen)
}

/// The parts of the draft that the chosen nodes need, numbered anew. `group` has a number for each node that those of its
/// group share.
pub(super) fn keep(mut draft: Draft, chosen: &[NodeId], group: &[u32]) -> Draft {
    let kept = needed(&draft, chosen, group);
    let new = numbers(&kept);
    let units_kept: Vec<bool> = draft
        .units
        .iter()
        .map(|unit| kept[unit.node.index()])
        .collect();
    let new_unit = numbers(&units_kept);
    // A live queue joins only units of one group, so it stays whole or goes whole. Of one that is stored, readers may be left
    // out, and with them other writers.
    let queues_kept: Vec<bool> = draft
        .queues
        .iter()
        .map(|queue| {
            let mut ends = queue.writers.iter().chain(&queue.readers);
            ends.any(|unit| units_kept[unit.index()])
        })
        .collect();
    let new_queue = numbers(&queues_kept);
    let node = |old: NodeId| NodeId(new[old.index()]);

    retain(&mut draft.nodes, &kept);
    retain(&mut draft.units, &units_kept);
    retain(&mut draft.claims, &kept);
    retain(&mut draft.queues, &queues_kept);
    let mut first = 0;
    for said in &mut draft.nodes {
        let count = said.units.end - said.units.start;
        said.units = first..first + count;
        first += count;
        said.after = said
            .after
            .iter()
            .map(|wait| After {
                node: node(wait.node),
                state: wait.state,
            })
            .collect();
        if let Some(pool) = &mut said.pool
            && let Some(Tasks::Glob(path) | Tasks::Lines { path, .. }) =
                &mut std::sync::Arc::make_mut(pool).tasks
        {
            path.renumber(&node);
        }
        if let Some(service) = &mut said.service
            && let Some(probe) = &mut std::sync::Arc::make_mut(service).ready
        {
            match &mut probe.kind {
                ProbeKind::Tcp(text)
                | ProbeKind::Http(text)
                | ProbeKind::Log(text)
                | ProbeKind::File(text) => text.renumber(&node),
                ProbeKind::Command(words) => {
                    words.iter_mut().for_each(|word| word.renumber(&node));
                }
            }
        }
    }
    for unit in &mut draft.units {
        unit.node = node(unit.node);
        renumber_unit(unit, &node, &|old| QueueId(new_queue[old.index()]));
    }
    for queue in &mut draft.queues {
        for ends in [&mut queue.writers, &mut queue.readers] {
            ends.retain(|unit| units_kept[unit.index()]);
            for unit in ends {
                *unit = UnitId(new_unit[unit.index()]);
            }
        }
        if let Some(file) = &mut queue.file {
            file.renumber(&node);
        }
    }
    draft
}

/// Which nodes are needed.
fn needed(draft: &Draft, chosen: &[NodeId], group: &[u32]) -> Vec<bool> {
    let mut members: IndexMap<u32, Vec<NodeId>> = IndexMap::new();
    for (index, &group) in group.iter().enumerate() {
        members.entry(group).or_default().push(NodeId::from(index));
    }
    let mut kept = vec![false; draft.nodes.len()];
    let mut todo = chosen.to_vec();
    while let Some(node) = todo.pop() {
        if kept[node.index()] {
            continue;
        }
        for &member in &members[&group[node.index()]] {
            kept[member.index()] = true;
            todo.extend(
                draft.nodes[member.index()]
                    .after
                    .iter()
                    .map(|wait| wait.node),
            );
        }
    }
    kept
}

/// The new number of each that is kept.
fn numbers(kept: &[bool]) -> Vec<u32> {
    let mut next = 0;
    kept.iter()
        .map(|&kept| {
            next += u32::from(kept);
            next.wrapping_sub(1)
        })
        .collect()
}

fn retain<T>(all: &mut Vec<T>, kept: &[bool]) {
    let mut kept = kept.iter();
    all.retain(|_| kept.next().is_some_and(|kept| *kept));
}

fn renumber_unit(
    unit: &mut crate::plan::Unit,
    node: &dyn Fn(NodeId) -> NodeId,
    queue: &dyn Fn(QueueId) -> QueueId,
) {
    for argument in &mut unit.argv {
        if let crate::plan::Arg::One(template) = argument {
            template.renumber(node);
        }
    }
    for (_, template) in &mut unit.env {
        template.renumber(node);
    }
    for template in unit.reads.iter_mut().chain(&mut unit.writes) {
        template.renumber(node);
    }
    if unit.settings.cwd.literal().is_none() {
        std::sync::Arc::make_mut(&mut unit.settings)
            .cwd
            .renumber(node);
    }
    let plain = unit.ends.inputs.iter().all(|input| {
        input
            .from
            .iter()
            .all(|(_, source)| matches!(source, Source::Null))
    }) && unit
        .ends
        .outputs
        .iter()
        .all(|output| output.to.iter().all(|sink| matches!(sink, Sink::Log)));
    if plain {
        return;
    }
    let ends = std::sync::Arc::make_mut(&mut unit.ends);
    for (_, source) in ends.inputs.iter_mut().flat_map(|input| &mut input.from) {
        match source {
            Source::File(path) => path.renumber(node),
            Source::Queue(id) => *id = queue(*id),
            Source::Null | Source::Inherit | Source::Text(_) => {}
        }
    }
    for sink in ends.outputs.iter_mut().flat_map(|output| &mut output.to) {
        match sink {
            Sink::File { path, .. } => path.renumber(node),
            Sink::Queue(id) => *id = queue(*id),
            Sink::Log | Sink::Null | Sink::Inherit | Sink::Value | Sink::Stdout => {}
        }
    }
}
