//! Why a graph has no order, in words: cycles of nodes the short way round, waits inside a group, groups that wait for
//! each other. Only reached when something is wrong, so it is written for clear messages, not for speed.

use std::collections::{BTreeMap, HashSet, VecDeque};

use petgraph::graph::{DiGraph, NodeIndex};

use crate::diagnostic::{Diagnostic, Mark};
use crate::plan::arrange::Graph;
use crate::plan::problems::{Problems, error, listed};

/// What messages need to know of the pipeline.
pub(super) trait Words {
    /// A node's name.
    fn node(&self, node: u32) -> &str;
    /// A queue's name.
    fn queue(&self, queue: usize) -> &str;
    /// Where `node` says that it reads (or writes) this queue.
    fn end(&self, queue: usize, node: u32, reads: bool) -> Mark;
    /// Where `node` says that it waits for `before`.
    fn wait(&self, node: u32, before: u32) -> Mark;
    /// The stored queue that makes `node` wait for `before`; none where it says so itself.
    fn stored(&self, node: u32, before: u32) -> Option<&str>;
}

/// So many problems of a kind are told at most.
const MOST: usize = 100;
/// So many starting points are tried at most for the shortest cycle of a component, fewer in a large one.
const STARTS: usize = 100;
/// So many steps that search may take, roughly.
const STEPS: usize = 100_000;

/// Says why there is no order.
pub(super) fn explain(graph: &Graph, joined: &[u32], words: &dyn Words, problems: &mut Problems) {
    let edges = node_edges(graph);
    let components = components(graph.nodes, &edges);
    let before = problems.0.len();
    // For each node the component that it is in.
    let mut component_of: BTreeMap<u32, usize> = BTreeMap::new();
    for (number, component) in components.iter().enumerate() {
        component_of.extend(component.iter().map(|&node| (node, number)));
    }
    for component in components.iter().take(MOST) {
        if let Some(cycle) = shortest(component, &edges) {
            problems.push(cycle_problem(&cycle, &edges, words));
        }
    }
    let in_cycle = |a: u32, b: u32| {
        component_of.contains_key(&a) && component_of.get(&a) == component_of.get(&b)
    };
    let inside = graph
        .waits
        .iter()
        .filter(|(a, b)| joined[*a as usize] == joined[*b as usize] && !in_cycle(*a, *b));
    for &(a, b) in inside.take(MOST) {
        problems.push(wait_inside_group(graph, a, b, words));
    }
    if problems.0.len() == before {
        groups_in_a_circle(graph, joined, words, problems);
    }
    debug_assert!(
        problems.0.len() > before,
        "BUG: no order, and no reason found: {graph:?}"
    );
}

/// What joins two nodes: a queue, or a wait.
#[derive(Debug, Clone, Copy)]
enum Why {
    Queue(usize),
    Wait,
}

fn node_edges(graph: &Graph) -> BTreeMap<(u32, u32), Why> {
    let mut edges = BTreeMap::new();
    for &edge in &graph.waits {
        edges.insert(edge, Why::Wait);
    }
    for (queue, joint) in graph.queues.iter().enumerate() {
        for &writer in &joint.writers {
            for &reader in &joint.readers {
                edges.insert((writer, reader), Why::Queue(queue));
            }
        }
    }
    edges
}

/// Components that hold a cycle, each in the order of numbers, in the order of their first.
fn components(nodes: usize, edges: &BTreeMap<(u32, u32), Why>) -> Vec<Vec<u32>> {
    let mut graph: DiGraph<(), (), u32> = DiGraph::with_capacity(nodes, edges.len());
    for _ in 0..nodes {
        graph.add_node(());
    }
    for &(a, b) in edges.keys() {
        graph.add_edge(NodeIndex::new(a as usize), NodeIndex::new(b as usize), ());
    }
    // Not tarjan_scc, which recurses and dies on long chains.
    let mut components: Vec<Vec<u32>> = petgraph::algo::kosaraju_scc(&graph)
        .into_iter()
        .map(|component| {
            component
                .into_iter()
                .map(|node| node.index() as u32)
                .collect::<Vec<u32>>()
        })
        .filter(|component| {
            component.len() > 1
                || component
                    .first()
                    .is_some_and(|&one| edges.contains_key(&(one, one)))
        })
        .collect();
    for component in &mut components {
        component.sort_unstable();
    }
    components.sort_unstable();
    components
}

/// A shortest cycle within a component, from its lowest node round to before it again.
fn shortest(component: &[u32], edges: &BTreeMap<(u32, u32), Why>) -> Option<Vec<u32>> {
    let members: HashSet<u32> = component.iter().copied().collect();
    let mut best: Option<Vec<u32>> = None;
    for &start in component
        .iter()
        .take((STEPS / component.len().max(1)).clamp(1, STARTS))
    {
        let bound = best.as_ref().map_or(usize::MAX, Vec::len);
        if let Some(cycle) = round(start, &members, edges).filter(|cycle| cycle.len() < bound) {
            best = Some(cycle);
        }
    }
    best
}

/// The shortest way from `start` back to it.
fn round(
    start: u32,
    members: &HashSet<u32>,
    edges: &BTreeMap<(u32, u32), Why>,
) -> Option<Vec<u32>> {
    let mut from: BTreeMap<u32, u32> = BTreeMap::new();
    let mut queue = VecDeque::from([start]);
    while let Some(at) = queue.pop_front() {
        for (&(_, to), _) in edges.range((at, 0)..=(at, u32::MAX)) {
            if to == start {
                let mut cycle = vec![at];
                let mut step = at;
                while step != start {
                    step = from[&step];
                    cycle.push(step);
                }
                cycle.reverse();
                return Some(cycle);
            }
            if members.contains(&to) && !from.contains_key(&to) {
                from.insert(to, at);
                queue.push_back(to);
            }
        }
    }
    None
}

fn cycle_problem(
    cycle: &[u32],
    edges: &BTreeMap<(u32, u32), Why>,
    words: &dyn Words,
) -> Diagnostic {
    let mut hint =
        "a node can't come after itself: drop one of these, or let the data go through a file"
            .to_owned();
    if let &[one] = cycle {
        let name = words.node(one);
        return match edges.get(&(one, one)) {
            Some(Why::Queue(queue)) => error(format!(
                "`{name}` writes queue `{}` and reads it itself",
                words.queue(*queue)
            ))
            .and(words.end(*queue, one, false), "written here")
            .and(words.end(*queue, one, true), "read here")
            .help(format!(
                "it would wait for its own end of data: use two queues, or a file; for a pool that finds more work say `feedback = true` under `[queue.{}]`",
                words.queue(*queue)
            )),
            _ => error(format!("`{name}` waits for itself"))
                .and(words.wait(one, one), "")
                .help("drop it from `after`"),
        };
    }
    let step = |i: usize| edges.get(&(cycle[i], cycle[(i + 1) % cycle.len()]));
    let by_queues = (0..cycle.len()).all(|i| matches!(step(i), Some(Why::Queue(_))));
    if let (true, Some(Why::Queue(last))) = (by_queues, step(cycle.len() - 1)) {
        let name = words.queue(*last);
        hint.push_str(&format!(
            "; where data is meant to go round, say `feedback = true` under `[queue.{name}]`"
        ));
    }
    let mut way: Vec<&str> = cycle.iter().map(|&node| words.node(node)).collect();
    way.push(words.node(cycle[0]));
    // A chain of a thousand nodes is shown by its ends.
    if way.len() > 12 {
        let left_out = format!("({} more)", way.len() - 10);
        let mut short: Vec<&str> = way[..7].to_vec();
        short.push("...");
        let tail = way[way.len() - 3..].to_vec();
        let shown = format!("{} {left_out} → {}", short.join(" → "), tail.join(" → "));
        return label_cycle(error(format!("cycle: {shown}")), cycle, edges, words).help(hint);
    }
    label_cycle(
        error(format!("cycle: {}", way.join(" → "))),
        cycle,
        edges,
        words,
    )
    .help(hint)
}

/// "`b` waits for `a`", and why where it doesn't say so itself.
fn wait_in_words(node: u32, before: u32, words: &dyn Words) -> String {
    let (name, before_name) = (words.node(node), words.node(before));
    match words.stored(node, before) {
        None => format!("`{name}` waits for `{before_name}`"),
        Some(queue) => format!(
            "`{name}` waits for `{before_name}`, which writes queue `{queue}`: it is stored"
        ),
    }
}

/// Each step of the way at its place in the file.
fn label_cycle(
    mut problem: Diagnostic,
    cycle: &[u32],
    edges: &BTreeMap<(u32, u32), Why>,
    words: &dyn Words,
) -> Diagnostic {
    const SHOWN: usize = 12;
    for (i, &from) in cycle.iter().enumerate().take(SHOWN) {
        let to = cycle[(i + 1) % cycle.len()];
        let (from_name, to_name) = (words.node(from), words.node(to));
        problem = match edges.get(&(from, to)) {
            Some(Why::Queue(queue)) => problem.and(
                words.end(*queue, to, true),
                format!(
                    "`{to_name}` reads queue `{}` from `{from_name}`",
                    words.queue(*queue)
                ),
            ),
            _ => problem.and(words.wait(to, from), wait_in_words(to, from, words)),
        };
    }
    problem
}

/// `b` waits for `a`, and they run together (2.3).
fn wait_inside_group(graph: &Graph, a: u32, b: u32, words: &dyn Words) -> Diagnostic {
    let (before, waiting) = (words.node(a), words.node(b));
    // That it is not stored was said: otherwise it would be.
    let direct = graph
        .queues
        .iter()
        .position(|queue| queue.is_written_by(a) && queue.readers.contains(&b));
    if let Some(queue) = direct {
        let queue_name = words.queue(queue);
        return error(format!("`{waiting}` reads queue `{queue_name}` of `{before}` and waits for `{before}`: `{before}` would block when the queue is full"))
            .and(words.wait(b, a), wait_in_words(b, a, words))
            .and(words.end(queue, b, true), format!("and reads from it while it runs, queue `{queue_name}`"))
            .help(format!(
                "drop the wait, or what keeps the queue from being stored on disk: `store = true` under `[queue.{queue_name}]`"
            ));
    }
    let way = way_between(graph, a, b);
    let queues = listed(way.iter().map(|step| words.queue(step.queue)));
    let noun = if way.len() == 1 { "queue" } else { "queues" };
    error(format!(
        "`{waiting}` waits for `{before}`, but they run together, joined by {noun} {queues}"
    ))
    .and(
        words.wait(b, a),
        match words.stored(b, a) {
            None => "nodes joined by queues start together".to_owned(),
            Some(queue) => format!("queue `{queue}` is stored: its readers wait for its writers"),
        },
    )
    .help(match way.iter().rfind(|step| step.forward) {
        Some(step) => format!(
            "drop the wait, or store a queue on the way, so that its readers start later: `store = true` under `[queue.{}]`",
            words.queue(step.queue)
        ),
        None => "let one of these queues go through a file, which its reader waits for, or drop the wait".to_owned(),
    })
}

/// A queue on the way from one node to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Step {
    queue: usize,
    /// It is passed from a writer to a reader: stored, it would let the one come after the other.
    forward: bool,
}

/// The queues on a shortest way between two nodes of a group.
fn way_between(graph: &Graph, a: u32, b: u32) -> Vec<Step> {
    let mut from: BTreeMap<u32, (u32, Step)> = BTreeMap::new();
    let mut next = VecDeque::from([a]);
    while let Some(at) = next.pop_front() {
        if at == b {
            break;
        }
        for (queue, joint) in graph.queues.iter().enumerate() {
            if joint.ends().any(|end| end == at) {
                for other in joint.ends() {
                    if other != a && !from.contains_key(&other) {
                        let forward = joint.writers.contains(&at) && joint.readers.contains(&other);
                        from.insert(other, (at, Step { queue, forward }));
                        next.push_back(other);
                    }
                }
            }
        }
    }
    let mut way = Vec::new();
    let mut at = b;
    while at != a {
        let Some(&(before, step)) = from.get(&at) else {
            break;
        };
        way.push(step);
        at = before;
    }
    way.reverse();
    way.dedup();
    way
}

/// No cycle of nodes, but groups that can't start before each other.
fn groups_in_a_circle(graph: &Graph, joined: &[u32], words: &dyn Words, problems: &mut Problems) {
    let mut edges: BTreeMap<(u32, u32), Why> = BTreeMap::new();
    let mut said_by: BTreeMap<(u32, u32), (u32, u32)> = BTreeMap::new();
    for &(a, b) in &graph.waits {
        let edge = (joined[a as usize], joined[b as usize]);
        edges.insert(edge, Why::Wait);
        said_by.entry(edge).or_insert((a, b));
    }
    for component in components(graph.nodes, &edges) {
        let Some(cycle) = shortest(&component, &edges) else {
            continue;
        };
        let waits: Vec<(u32, u32)> = (0..cycle.len())
            .filter_map(|i| {
                said_by
                    .get(&(cycle[i], cycle[(i + 1) % cycle.len()]))
                    .copied()
            })
            .collect();
        let mut together = Vec::new();
        let mut queues = Vec::new();
        // Those that would let who waits come after who is waited for.
        let mut cuts = Vec::new();
        for (i, &(_, waiting)) in waits.iter().enumerate() {
            let (next, _) = waits[(i + 1) % waits.len()];
            if waiting != next {
                together.push(format!(
                    "`{waiting}` runs together with `{next}`",
                    waiting = words.node(waiting),
                    next = words.node(next)
                ));
                let way = way_between(graph, next, waiting);
                cuts.extend(way.iter().rfind(|step| step.forward).map(|step| step.queue));
                queues.extend(way.iter().map(|step| step.queue));
            }
        }
        queues.sort_unstable();
        queues.dedup();
        let steps: Vec<String> = waits
            .iter()
            .map(|&(a, b)| format!("`{}` waits for `{}`", words.node(b), words.node(a)))
            .collect();
        let mut problem = error(format!(
            "no group can start first: {}, and {}",
            steps.join(", "),
            together.join(" and ")
        ));
        for &(a, b) in &waits {
            problem = problem.and(words.wait(b, a), wait_in_words(b, a, words));
        }
        let queue = |&queue: &usize| words.queue(queue);
        problems.push(problem.help(match cuts.first() {
            Some(cut) => format!(
                "nodes joined by queues start together: drop a wait, or store a queue, so that its readers start later: `store = true` under `[queue.{}]`",
                queue(cut)
            ),
            None => format!(
                "nodes joined by queues start together: drop a wait, or let a queue go through a file; the queues are {}",
                listed(queues.iter().map(queue))
            ),
        }));
    }
}
