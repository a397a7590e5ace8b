//! Where the workers of a pool could wait for each other (spec 2.4).
//!
//! A pool is one vertex of the graph, though its workers are many, and a queue that all of them read or write is many edges. That is
//! right as long as a worker that waits keeps no other from going on:
//!
//! - *Shared* queues give a record to whoever is free: others get what a worker that waits doesn't take, up to the end.
//! - Queues merged as records *arrive* take from whoever has some. They are full only when their reader waits, and that is a
//!   matter of the graph outside the pool.
//!
//! So what a worker waits for comes from outside, as it does for a process. It is not so for *stiff* ends: by turns, by key and by
//! copy a record has to go to one certain worker, and in sequence it has to come from one. The others wait for that worker. One
//! such end alone does no harm: what its worker waits for is then at an end that is not stiff, or outside. With two, one worker
//! waits at the one for the second, which waits at the other for the first: a writer whose turn has not come, for a reader whose
//! turn is first. So where a pool has two, they count as a cycle, and spill. The simulation below tries it.

use std::collections::HashMap;

use crate::plan::build::Draft;
use crate::plan::{Deliver, NodeId, QueueKind, UnitId};
use crate::spec::Merge;

/// The ends of queues at pools that count as several where undirected cycles are looked for: `(queue, node)`.
pub(super) fn ends(draft: &Draft) -> Vec<(usize, u32)> {
    let mut stiff: Vec<(usize, u32)> = Vec::new();
    for (index, queue) in draft.queues.iter().enumerate() {
        if queue.kind == QueueKind::Stored {
            continue;
        }
        if queue.deliver != Deliver::Share {
            stiff.extend(of_several(draft, &queue.readers).map(|node| (index, node.0)));
        }
        if queue.merge == Merge::Sequence {
            stiff.extend(of_several(draft, &queue.writers).map(|node| (index, node.0)));
        }
    }
    let mut count: HashMap<u32, usize> = HashMap::new();
    for (_, node) in &stiff {
        *count.entry(*node).or_default() += 1;
    }
    stiff.retain(|(_, node)| count.get(node).is_some_and(|count| *count > 1));
    stiff
}

/// The pools of which several workers are among these units.
fn of_several<'a>(draft: &'a Draft, units: &'a [UnitId]) -> impl Iterator<Item = NodeId> + 'a {
    let node = |unit: UnitId| draft.units[unit.index()].node;
    units
        .chunk_by(move |a, b| node(*a) == node(*b))
        .filter(|of_one| of_one.len() > 1)
        .map(move |of_one| node(of_one[0]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    /// Who gets a record of an input.
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Give {
        Share,
        Turns,
        Key,
        Copy,
    }

    /// An input of a pool: the records that are still to come (each with its key), and how many wait at each worker.
    #[derive(Debug, Clone)]
    struct Input {
        give: Give,
        left: Vec<usize>,
        given: usize,
        waiting: Vec<usize>,
        spills: bool,
    }

    /// An output: how many records wait in the pipe of each worker. Its reader takes all that it can get.
    #[derive(Debug, Clone)]
    struct Output {
        sequence: bool,
        waiting: Vec<usize>,
    }

    /// A worker reads its inputs one after the other, in an order of its own, and writes records for each that it reads.
    #[derive(Debug, Clone)]
    struct Worker {
        inputs: Vec<usize>,
        writes: Vec<usize>,
        pending: Vec<usize>,
    }

    #[derive(Debug, Clone)]
    struct World {
        inputs: Vec<Input>,
        outputs: Vec<Output>,
        workers: Vec<Worker>,
    }

    const ROOM: usize = 1;

    impl World {
        fn stiff(&self) -> usize {
            let inputs = self.inputs.iter().filter(|input| input.give != Give::Share);
            inputs.count() + self.outputs.iter().filter(|output| output.sequence).count()
        }

        /// Goes on until nothing moves; whether all is done then. (What can be done stays possible whatever else is done first,
        /// but for who gets a shared record, which `luck` decides.)
        fn run(mut self, mut luck: impl Iterator<Item = usize>) -> bool {
            while self.give(&mut luck) | self.take() | self.work() {}
            self.workers
                .iter()
                .all(|worker| worker.inputs.is_empty() && worker.pending.is_empty())
        }

        fn give(&mut self, luck: &mut impl Iterator<Item = usize>) -> bool {
            let mut moved = false;
            for input in &mut self.inputs {
                let Some(&key) = input.left.last() else {
                    continue;
                };
                let count = input.waiting.len();
                let free = |worker: &usize| input.spills || input.waiting[*worker] < ROOM;
                let to: Vec<usize> = match input.give {
                    Give::Share => {
                        let free: Vec<usize> = (0..count).filter(free).collect();
                        let one = free.get(luck.next().unwrap_or(0) % free.len().max(1));
                        one.into_iter().copied().collect()
                    }
                    Give::Turns => Some(input.given % count).into_iter().filter(free).collect(),
                    Give::Key => Some(key % count).into_iter().filter(free).collect(),
                    Give::Copy if (0..count).all(|worker| free(&worker)) => (0..count).collect(),
                    Give::Copy => Vec::new(),
                };
                if !to.is_empty() {
                    to.into_iter().for_each(|worker| input.waiting[worker] += 1);
                    input.left.pop();
                    input.given += 1;
                    moved = true;
                }
            }
            moved
        }

        fn take(&mut self) -> bool {
            let mut moved = false;
            for output in &mut self.outputs {
                for (worker, waiting) in self.workers.iter().zip(&mut output.waiting) {
                    moved |= std::mem::take(waiting) > 0;
                    // What is behind waits for its turn, even if it spills: it is not read before.
                    if output.sequence && !(worker.inputs.is_empty() && worker.pending.is_empty()) {
                        break;
                    }
                }
            }
            moved
        }

        fn work(&mut self) -> bool {
            let mut moved = false;
            for (number, worker) in self.workers.iter_mut().enumerate() {
                if let Some(&output) = worker.pending.last() {
                    let waiting = &mut self.outputs[output].waiting[number];
                    if *waiting < ROOM {
                        *waiting += 1;
                        worker.pending.pop();
                        moved = true;
                    }
                } else if let Some(&input) = worker.inputs.last() {
                    let input = &mut self.inputs[input];
                    if input.waiting[number] > 0 {
                        input.waiting[number] -= 1;
                        worker.pending.clone_from(&worker.writes);
                        moved = true;
                    } else if input.left.is_empty() {
                        worker.inputs.pop();
                        moved = true;
                    }
                }
            }
            moved
        }
    }

    fn worlds() -> impl Strategy<Value = World> {
        let give = prop::sample::select(vec![
            Give::Share,
            Give::Share,
            Give::Turns,
            Give::Key,
            Give::Copy,
        ]);
        let records = prop::collection::vec(0usize..4, 0..12);
        let inputs = prop::collection::vec((give, records), 1..3);
        let outputs = prop::collection::vec(any::<bool>(), 1..3);
        (2usize..4, inputs, outputs).prop_flat_map(|(count, inputs, outputs)| {
            let order = Just((0..inputs.len()).collect::<Vec<_>>()).prop_shuffle();
            let writes = prop::collection::vec(0..outputs.len(), 0..3);
            let worker = (order, writes).prop_map(|(inputs, writes)| Worker {
                inputs,
                writes,
                pending: Vec::new(),
            });
            prop::collection::vec(worker, count).prop_map(move |workers| World {
                inputs: inputs
                    .iter()
                    .map(|(give, left)| Input {
                        give: *give,
                        left: left.clone(),
                        given: 0,
                        waiting: vec![0; count],
                        spills: false,
                    })
                    .collect(),
                outputs: outputs
                    .iter()
                    .map(|&sequence| Output {
                        sequence,
                        waiting: vec![0; count],
                    })
                    .collect(),
                workers,
            })
        })
    }

    fn luck() -> impl Strategy<Value = Vec<usize>> {
        prop::collection::vec(0usize..6, 1..8)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]
        #[test]
        fn workers_never_wait_for_each_other(mut world in worlds(), luck in luck()) {
            if world.stiff() > 1 {
                for input in world.inputs.iter_mut().filter(|input| input.give != Give::Share) {
                    input.spills = true;
                }
            }
            prop_assert!(world.clone().run(luck.into_iter().cycle()), "{world:#?}");
        }
    }

    /// The rule is no wider than it must be: without it there are worlds that get stuck.
    #[test]
    fn with_two_stiff_ends_they_would() {
        let input = |give, records| Input {
            give,
            left: vec![0; records],
            given: 0,
            waiting: vec![0; 2],
            spills: false,
        };
        let worker = |inputs: &[usize]| Worker {
            inputs: inputs.to_vec(),
            writes: vec![0, 0],
            pending: Vec::new(),
        };
        let by_turns_and_in_sequence = World {
            inputs: vec![input(Give::Turns, 9)],
            outputs: vec![Output {
                sequence: true,
                waiting: vec![0; 2],
            }],
            workers: vec![worker(&[0]), worker(&[0])],
        };
        assert!(!by_turns_and_in_sequence.run(std::iter::repeat(0)));
        let two_copies = World {
            inputs: vec![input(Give::Copy, 9), input(Give::Copy, 9)],
            outputs: vec![Output {
                sequence: false,
                waiting: vec![0; 2],
            }],
            workers: vec![worker(&[0, 1]), worker(&[1, 0])],
        };
        assert!(!two_copies.run(std::iter::repeat(0)));
    }
}
