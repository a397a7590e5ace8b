//! The rule of which queues spill (spec 2.4), tried on random graphs of simulated processes: queues are counters, processes read
//! and write step by step as their programs say.
//!
//! Where the marked queues are boundless and all others hold one record, every run ends, whatever the processes read and write
//! first. And no queue is marked for nothing: each lies on a cycle of which not all queues may be bounded, since there are
//! programs that get stuck then.

use std::collections::{BTreeMap, VecDeque};

use fastrand::Rng;
use proptest::prelude::*;

use crate::plan::arrange::{Graph, Joint};

/// What a process does next, so many times.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// A record to each reader of the queue.
    Write(usize, u32),
    /// A record of the queue: of this writer, as where writers come one after the other, or of any.
    Read(usize, Option<u32>, u32),
}

type Programs = Vec<VecDeque<Step>>;

/// Records on their way: of a queue, from a writer, to a reader. A merge takes from each writer apart, a copy gives to each reader
/// apart.
type Held = BTreeMap<(usize, u32, u32), u32>;

/// Runs until nothing moves any more; whether all programs have come to their end.
fn runs_to_its_end(
    graph: &Graph,
    mut programs: Programs,
    is_bounded: &[bool],
    rng: &mut Rng,
) -> bool {
    let mut held = Held::new();
    loop {
        // Whoever can do something, in any order.
        let mut units: Vec<u32> = (0..graph.nodes as u32).collect();
        rng.shuffle(&mut units);
        let moved = units.into_iter().any(|unit| {
            let program = &mut programs[unit as usize];
            while let Some(Step::Write(_, 0) | Step::Read(_, _, 0)) = program.front() {
                program.pop_front();
            }
            program
                .front_mut()
                .is_some_and(|step| does(graph, unit, step, &mut held, is_bounded, rng))
        });
        if !moved {
            return programs.iter().all(VecDeque::is_empty);
        }
    }
}

/// One record of a step, where that can be done.
fn does(
    graph: &Graph,
    unit: u32,
    step: &mut Step,
    held: &mut Held,
    is_bounded: &[bool],
    rng: &mut Rng,
) -> bool {
    match step {
        Step::Write(queue, count) => {
            let readers = &graph.queues[*queue].readers;
            let holds = |reader: &u32| {
                held.get(&(*queue, unit, *reader))
                    .is_some_and(|held| *held > 0)
            };
            if is_bounded[*queue] && readers.iter().any(holds) {
                return false;
            }
            for &reader in readers {
                *held.entry((*queue, unit, reader)).or_default() += 1;
            }
            *count -= 1;
            true
        }
        Step::Read(queue, from, count) => {
            let mut writers = match from {
                Some(writer) => vec![*writer],
                None => graph.queues[*queue].writers.clone(),
            };
            rng.shuffle(&mut writers);
            let mut writers = writers.into_iter();
            let taken = writers.any(|writer| match held.get_mut(&(*queue, writer, unit)) {
                Some(held @ 1..) => {
                    *held -= 1;
                    true
                }
                _ => false,
            });
            *count -= u32::from(taken);
            taken
        }
    }
}

/// Data goes from lower to higher units.
fn random_graph(rng: &mut Rng) -> Graph {
    let units = rng.u32(2..8);
    let some = |rng: &mut Rng, from: u32, to: u32| {
        let mut all: Vec<u32> = (from..to).collect();
        rng.shuffle(&mut all);
        all.truncate([1, 1, 2, 3][rng.usize(..4)]);
        all.sort_unstable();
        all
    };
    let queues = (0..rng.usize(1..9))
        .map(|_| {
            let between = rng.u32(1..units);
            Joint {
                writers: some(rng, 0, between),
                readers: some(rng, between, units),
                back: Vec::new(),
            }
        })
        .collect();
    Graph {
        nodes: units as usize,
        waits: Vec::new(),
        queues,
        several: Vec::new(),
    }
}

/// Any steps in any order. What is written to a queue is read by each of its readers.
fn random_programs(graph: &Graph, rng: &mut Rng) -> Programs {
    let mut programs: Vec<Vec<Step>> = vec![Vec::new(); graph.nodes];
    for (
        queue,
        Joint {
            writers, readers, ..
        },
    ) in graph.queues.iter().enumerate()
    {
        let in_sequence = rng.bool();
        let written: Vec<(u32, u32)> = writers
            .iter()
            .map(|&writer| (writer, rng.u32(..6)))
            .collect();
        for &(writer, count) in &written {
            programs[writer as usize].push(Step::Write(queue, count));
        }
        for &reader in readers {
            let program = &mut programs[reader as usize];
            if in_sequence {
                let reads = written.iter();
                program
                    .extend(reads.map(|&(writer, count)| Step::Read(queue, Some(writer), count)));
            } else {
                let count = written.iter().map(|(_, count)| count).sum();
                program.push(Step::Read(queue, None, count));
            }
        }
    }
    programs
        .into_iter()
        .map(|steps| mixed(steps, rng))
        .collect()
}

/// The steps in any order, but for those of one queue, some of them taken apart.
fn mixed(steps: Vec<Step>, rng: &mut Rng) -> VecDeque<Step> {
    let queue_of = |step: &Step| match step {
        Step::Write(queue, _) | Step::Read(queue, ..) => *queue,
    };
    let mut by_queue: BTreeMap<usize, VecDeque<Step>> = BTreeMap::new();
    let in_pieces = rng.bool();
    for step in steps {
        let of_queue = by_queue.entry(queue_of(&step)).or_default();
        match step {
            Step::Write(queue, count) if in_pieces => {
                of_queue.extend((0..count).map(|_| Step::Write(queue, 1)));
            }
            Step::Read(queue, from, count) if in_pieces => {
                of_queue.extend((0..count).map(|_| Step::Read(queue, from, 1)));
            }
            whole => of_queue.push_back(whole),
        }
    }
    let mut steps = VecDeque::new();
    while !by_queue.is_empty() {
        let queues: Vec<usize> = by_queue.keys().copied().collect();
        let queue = queues[rng.usize(..queues.len())];
        match by_queue.get_mut(&queue).and_then(VecDeque::pop_front) {
            Some(step) => steps.push_back(step),
            None => drop(by_queue.remove(&queue)),
        }
    }
    steps
}

/// A cycle through a queue: units and queues in turn, each joined to the next one, the last queue to the first unit.
type Cycle = Vec<(u32, usize)>;

fn cycle_through(graph: &Graph, queue: usize) -> Option<Cycle> {
    let ends = |queue: usize| {
        let Joint {
            writers, readers, ..
        } = &graph.queues[queue];
        writers.iter().chain(readers).copied()
    };
    ends(queue).find_map(|start| {
        // The shortest way to another end of this queue, by other queues.
        let mut before: BTreeMap<u32, (u32, usize)> = BTreeMap::new();
        let mut next = VecDeque::from([start]);
        while let Some(unit) = next.pop_front() {
            if unit != start && ends(queue).any(|end| end == unit) {
                let mut way = vec![(unit, queue)];
                let mut at = unit;
                while at != start {
                    let (unit, by) = before[&at];
                    way.push((unit, by));
                    at = unit;
                }
                way.reverse();
                return Some(way);
            }
            let others = (0..graph.queues.len()).filter(|&other| other != queue);
            for by in others.filter(|&by| ends(by).any(|end| end == unit)) {
                for end in ends(by) {
                    if end != start && !before.contains_key(&end) {
                        before.insert(end, (unit, by));
                        next.push_back(end);
                    }
                }
            }
        }
        None
    })
}

/// Programs that get stuck where the queues of this cycle are bounded. Going round, whoever writes to both sides begins with the
/// one before him, whoever reads from both sides with the one behind him; so each waits for the next, all the way round.
fn adversaries(graph: &Graph, cycle: &Cycle) -> Programs {
    // More than all the queues and programs of the cycle hold.
    let many = 3 * cycle.len() as u32 + 3;
    let writes = |unit: u32, queue: usize| graph.queues[queue].writers.contains(&unit);
    let round = cycle.len();
    let mut programs: Vec<Vec<Step>> = vec![Vec::new(); graph.nodes];
    // Who writes the queue, in which order its writers are taken.
    let mut written: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
    for (index, &(unit, ahead)) in cycle.iter().enumerate() {
        let (next, _) = cycle[(index + 1) % round];
        // The next one first: it is the one that does not come.
        let mut writers: Vec<u32> = [next, unit]
            .into_iter()
            .filter(|&end| writes(end, ahead))
            .collect();
        // A copy to both of them has a writer elsewhere.
        if writers.is_empty() {
            writers.push(graph.queues[ahead].writers[0]);
        }
        written.insert(ahead, writers);
    }
    let reads = |queue: usize, count: u32| -> Vec<Step> {
        let writers = written[&queue].iter();
        writers
            .map(|&writer| Step::Read(queue, Some(writer), count))
            .collect()
    };
    for (index, &(unit, ahead)) in cycle.iter().enumerate() {
        let behind = cycle[(index + round - 1) % round].1;
        let program = &mut programs[unit as usize];
        match (writes(unit, behind), writes(unit, ahead)) {
            (true, true) => program.extend([Step::Write(ahead, many), Step::Write(behind, many)]),
            (false, false) => program.extend([reads(ahead, many), reads(behind, many)].concat()),
            // It passes on what it gets, one by one.
            (true, false) => {
                for _ in 0..many {
                    program.extend(reads(ahead, 1));
                    program.push(Step::Write(behind, 1));
                }
            }
            (false, true) => {
                for _ in 0..many {
                    program.extend(reads(behind, 1));
                    program.push(Step::Write(ahead, 1));
                }
            }
        }
    }
    // The other ends of the cycle's queues do what they must, and last.
    for (index, &(unit, queue)) in cycle.iter().enumerate() {
        let on_cycle = [unit, cycle[(index + 1) % round].0];
        for &writer in written[&queue]
            .iter()
            .filter(|writer| !on_cycle.contains(writer))
        {
            programs[writer as usize].insert(0, Step::Write(queue, many));
        }
        for &reader in graph.queues[queue]
            .readers
            .iter()
            .filter(|reader| !on_cycle.contains(reader))
        {
            programs[reader as usize].extend(reads(queue, many));
        }
    }
    programs.into_iter().map(VecDeque::from).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn every_run_ends_where_the_marked_queues_are_boundless(seed: u64) {
        let mut rng = Rng::with_seed(seed);
        let graph = random_graph(&mut rng);
        let is_bounded: Vec<bool> = graph.meets_again().iter().map(|meets| !meets).collect();
        for _ in 0..3 {
            let programs = random_programs(&graph, &mut rng);
            let ends = runs_to_its_end(&graph, programs.clone(), &is_bounded, &mut rng);
            prop_assert!(ends, "{graph:?} {programs:?}");
        }
    }

    #[test]
    fn no_queue_is_marked_for_nothing(seed: u64) {
        let mut rng = Rng::with_seed(seed);
        let graph = random_graph(&mut rng);
        let meets = graph.meets_again();
        for queue in (0..meets.len()).filter(|&queue| meets[queue]) {
            let cycle = cycle_through(&graph, queue);
            prop_assert!(cycle.is_some(), "{graph:?} queue {queue}");
            let Some(cycle) = cycle else { continue };
            let programs = adversaries(&graph, &cycle);
            let of_cycle: Vec<bool> = (0..meets.len()).map(|queue| cycle.iter().any(|(_, other)| *other == queue)).collect();
            let ends = runs_to_its_end(&graph, programs.clone(), &of_cycle, &mut rng);
            prop_assert!(!ends, "{graph:?} {cycle:?} {programs:?}");
            // As the rule has it, the same programs come to their end.
            let is_bounded: Vec<bool> = meets.iter().map(|meets| !meets).collect();
            let ends = runs_to_its_end(&graph, programs.clone(), &is_bounded, &mut rng);
            prop_assert!(ends, "{graph:?} {cycle:?} {programs:?}");
        }
    }
}
