//! Who gets what of a queue with several readers: what its table says, in terms of units.
//!
//! The file speaks of nodes. A pool is one reader among others: of a queue that is copied it gets one copy, which its workers
//! share, since that is what `stdin` means to a pool. (Of a queue among its `inputs` each worker gets a copy.) In the plan a queue
//! has one way to deliver, so such a copy is a queue of its own: whoever writes the first one writes it, too.

use std::sync::Arc;

use crate::plan::build::{Draft, live_kind};
use crate::plan::ends;
use crate::plan::{Deliver, NodeId, Output, Queue, QueueId, QueueKind, Sink, Source, UnitId};
use crate::spec;

/// Some of a queue's readers: one node's.
struct Reader<'a> {
    node: NodeId,
    /// It is the standard input of a pool's workers.
    shared: bool,
    ends: Vec<&'a ends::End>,
}

/// The readers of a queue, node by node.
fn readers<'a>(draft: &Draft, ends: &'a [ends::End]) -> Vec<Reader<'a>> {
    let mut readers: Vec<Reader<'_>> = Vec::new();
    for end in ends {
        let node = draft.units[end.unit.index()].node;
        match readers.last_mut() {
            Some(reader) if reader.node == node => reader.ends.push(end),
            _ => readers.push(Reader {
                node,
                shared: false,
                ends: vec![end],
            }),
        }
    }
    for reader in &mut readers {
        let several = reader.ends.len() > 1;
        reader.shared = several && reader.ends.iter().all(|end| &*end.key == "stdin");
    }
    readers
}

/// How each queue delivers. Queues that stand for a pool's copy are added behind all others; for each of these the queue that it
/// is a copy of.
pub(super) fn decide(
    draft: &mut Draft,
    queues: &ends::Queues,
    said: &dyn Fn(&str) -> Option<spec::Deliver>,
) -> Vec<(QueueId, QueueId)> {
    let mut copies = Vec::new();
    for (index, (name, ends)) in queues.0.iter().enumerate() {
        let said = said(name);
        if ends.readers.len() < 2 {
            if let (Some(said), [_]) = (said, ends.readers.as_slice()) {
                draft.queues[index].deliver = meant(said);
            }
            continue;
        }
        let readers = readers(draft, &ends.readers);
        let deliver = match (said, readers.as_slice()) {
            (Some(spec::Deliver::Copy), [_, _, ..]) => {
                copies.extend(part(draft, QueueId::from(index), &readers));
                continue;
            }
            // One pool: it gets all as a whole.
            (Some(spec::Deliver::Copy) | None, [only]) => {
                if only.shared {
                    Deliver::Share
                } else {
                    Deliver::Copy
                }
            }
            (Some(said), _) => meant(said),
            // Several nodes must say, which is told elsewhere.
            (None, _) => Deliver::Copy,
        };
        draft.queues[index].deliver = deliver;
    }
    copies
}

fn meant(said: spec::Deliver) -> Deliver {
    match said {
        spec::Deliver::Share => Deliver::Share,
        spec::Deliver::RoundRobin => Deliver::RoundRobin,
        spec::Deliver::Copy => Deliver::Copy,
        spec::Deliver::ByField { field, separator } => Deliver::ByField {
            field,
            separator: separator.map(Into::into),
        },
    }
}

/// Gives each pool its own queue for its copy. Where no other reader is left, the first pool keeps the queue itself.
fn part(draft: &mut Draft, id: QueueId, readers: &[Reader<'_>]) -> Vec<(QueueId, QueueId)> {
    let mut pools: Vec<&Reader<'_>> = readers.iter().filter(|reader| reader.shared).collect();
    let queue = &mut draft.queues[id.index()];
    queue.deliver = Deliver::Copy;
    if pools.len() == readers.len() {
        pools.remove(0);
        queue.deliver = Deliver::Share;
    }
    let mut copies = Vec::new();
    for pool in pools {
        let copy = QueueId::from(draft.queues.len());
        let units: Vec<UnitId> = pool.ends.iter().map(|end| end.unit).collect();
        let (queue, all) = (&mut draft.queues[id.index()], &draft.units);
        queue
            .readers
            .retain(|reader| all[reader.index()].node != pool.node);
        if queue.kind != QueueKind::Stored {
            queue.kind = live_kind(queue);
        }
        let mut queue = Queue {
            // No name of the file has a dot.
            name: format!("{}.{}", queue.name, draft.nodes[pool.node.index()].name).into(),
            readers: units.clone(),
            deliver: Deliver::Share,
            ..queue.clone()
        };
        if queue.kind != QueueKind::Stored {
            queue.kind = live_kind(&queue);
        }
        for &unit in &units {
            let ends = Arc::make_mut(&mut draft.units[unit.index()].ends);
            for (_, source) in ends.inputs.iter_mut().flat_map(|input| &mut input.from) {
                if *source == Source::Queue(id) {
                    *source = Source::Queue(copy);
                }
            }
        }
        for &unit in &queue.writers {
            let ends = Arc::make_mut(&mut draft.units[unit.index()].ends);
            let leads_here = |output: &&mut Output| output.to.contains(&Sink::Queue(id));
            if let Some(output) = ends.outputs.iter_mut().find(leads_here) {
                output.to.push(Sink::Queue(copy));
            }
        }
        draft.queues.push(queue);
        copies.push((copy, id));
    }
    copies
}
