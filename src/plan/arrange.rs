//! Groups and order: who runs together, and who starts before whom. It knows numbers only.
//!
//! Its vertices are nodes. The workers of a pool are one vertex: they start together and wait for the same.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use petgraph::unionfind::UnionFind;

/// The graph of a pipeline.
#[derive(Debug, Default, Clone)]
pub(super) struct Graph {
    /// How many nodes there are.
    pub(super) nodes: usize,
    /// `(a, b)`: b waits for a.
    pub(super) waits: Vec<(u32, u32)>,
    /// Who is joined by each queue; nobody by one that is stored.
    pub(super) queues: Vec<Joint>,
    /// Ends of queues at pools, `(queue, node)`, that count as an end at each of two workers where cycles are looked for.
    pub(super) several: Vec<(usize, u32)>,
}

/// The nodes that a queue joins.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Joint {
    /// Who writes it, and so stands before its readers.
    pub(super) writers: Vec<u32>,
    /// Who reads it.
    pub(super) readers: Vec<u32>,
    /// Who writes it and comes after its readers, which only a queue with `feedback` may have.
    pub(super) back: Vec<u32>,
}

impl Joint {
    /// All of them. A node may come twice.
    pub(super) fn ends(&self) -> impl Iterator<Item = u32> {
        let writers = self.writers.iter().chain(&self.back);
        writers.chain(&self.readers).copied()
    }

    /// Whether this node writes it.
    pub(super) fn is_written_by(&self, node: u32) -> bool {
        self.writers.contains(&node) || self.back.contains(&node)
    }
}

/// The graph in start order.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Arrangement {
    /// Nodes of each group, writers first, in start order; ties in the order of their numbers.
    pub(super) groups: Vec<Vec<u32>>,
    /// The group of each node.
    pub(super) group_of: Vec<u32>,
}

/// Why there is no order.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stuck {
    /// For each node a number that it shares with those it runs together with.
    pub(super) joined: Vec<u32>,
}

impl Graph {
    /// For each node a number that it shares with those joined to it by queues: the lowest node's.
    pub(super) fn joined(&self) -> Vec<u32> {
        if self.queues.is_empty() {
            return (0..self.nodes as u32).collect();
        }
        let mut sets = UnionFind::<u32>::new(self.nodes);
        for queue in &self.queues {
            let mut ends = queue.ends();
            if let Some(first) = ends.next() {
                for end in ends {
                    sets.union(first, end);
                }
            }
        }
        let labels = sets.into_labeling();
        let mut lowest = vec![u32::MAX; self.nodes];
        for (node, &label) in (0u32..).zip(&labels) {
            lowest[label as usize] = lowest[label as usize].min(node);
        }
        labels
            .into_iter()
            .map(|label| lowest[label as usize])
            .collect()
    }

    /// Groups in start order.
    pub(super) fn arrange(&self) -> Result<Arrangement, Stuck> {
        let joined = self.joined();
        let Some(within) = self.writers_first() else {
            return Err(Stuck { joined });
        };
        // Groups by their lowest node: ties are then in the file's order.
        let between: Vec<(u32, u32)> = self
            .waits
            .iter()
            .map(|&(a, b)| (joined[a as usize], joined[b as usize]))
            .collect();
        // A wait inside a group is an edge to itself, which no order has.
        let Some(order) = topological(self.nodes, &between) else {
            return Err(Stuck { joined });
        };
        let mut group_at = vec![u32::MAX; self.nodes];
        let mut groups = Vec::new();
        for lowest in order {
            if joined[lowest as usize] == lowest {
                group_at[lowest as usize] = groups.len() as u32;
                groups.push(Vec::new());
            }
        }
        let group_of: Vec<u32> = joined
            .iter()
            .map(|&lowest| group_at[lowest as usize])
            .collect();
        for node in within {
            groups[group_of[node as usize] as usize].push(node);
        }
        Ok(Arrangement { groups, group_of })
    }

    /// All nodes so that writers stand before their readers; none where queues lead in a circle.
    fn writers_first(&self) -> Option<Vec<u32>> {
        if self.queues.is_empty() {
            return Some((0..self.nodes as u32).collect());
        }
        // Queues are vertices of their own: the edges of 1,000 writers and 1,000 readers are 2,000, not a million. They have
        // the lower numbers, so that they are taken as soon as they can be and change nothing of the nodes' order.
        let queues = self.queues.len() as u32;
        let edges: Vec<(u32, u32)> = (0u32..)
            .zip(&self.queues)
            .flat_map(|(number, queue)| {
                let write = queue
                    .writers
                    .iter()
                    .map(move |&node| (queues + node, number));
                let read = queue
                    .readers
                    .iter()
                    .map(move |&node| (number, queues + node));
                write.chain(read)
            })
            .collect();
        let order = topological(self.nodes + self.queues.len(), &edges)?;
        Some(
            order
                .into_iter()
                .filter_map(|vertex| vertex.checked_sub(queues))
                .collect(),
        )
    }

    /// For every queue whether it lies on an undirected cycle of its group: data splits and meets again (spec 2.4).
    ///
    /// Queues are vertices here, too: a copy to two readers that meet again is a cycle through the queue, not an edge.
    pub(super) fn meets_again(&self) -> Vec<bool> {
        let mut edges = Vec::new();
        for (number, queue) in (0u32..).zip(&self.queues) {
            edges.extend(queue.ends().map(|node| (self.nodes as u32 + number, node)));
        }
        let several = self.several.iter();
        edges.extend(several.map(|&(queue, node)| ((self.nodes + queue) as u32, node)));
        let on_cycle = crate::plan::bridges::on_cycle(self.nodes + self.queues.len(), &edges);
        let mut meets = vec![false; self.queues.len()];
        for (&(queue, _), on) in edges.iter().zip(on_cycle) {
            meets[queue as usize - self.nodes] |= on;
        }
        meets
    }

    /// The nodes on the circle that a queue closes which leads back: those between its readers and its writers that come after
    /// them.
    pub(super) fn circle(&self, queue: usize) -> Vec<u32> {
        let mut before: Vec<Vec<u32>> = vec![Vec::new(); self.nodes];
        let mut after: Vec<Vec<u32>> = vec![Vec::new(); self.nodes];
        for joint in &self.queues {
            for &writer in joint.writers.iter().chain(&joint.back) {
                for &reader in &joint.readers {
                    after[writer as usize].push(reader);
                    before[reader as usize].push(writer);
                }
            }
        }
        let reach = |from: &[u32], next: &[Vec<u32>]| {
            let mut reached = vec![false; self.nodes];
            let mut todo = from.to_vec();
            while let Some(node) = todo.pop() {
                if !std::mem::replace(&mut reached[node as usize], true) {
                    todo.extend(&next[node as usize]);
                }
            }
            reached
        };
        let forward = reach(&self.queues[queue].readers, &after);
        let backward = reach(&self.queues[queue].back, &before);
        (0u32..)
            .zip(forward.into_iter().zip(backward))
            .filter_map(|(node, (forward, backward))| (forward && backward).then_some(node))
            .collect()
    }

    /// Parts the writers of a queue that may lead back from those that come after its readers, whose number is then told.
    pub(super) fn lead_back(&mut self, queue: usize) -> usize {
        let mut reached = vec![false; self.nodes];
        let mut read_by: Vec<Vec<u32>> = vec![Vec::new(); self.nodes];
        for joint in &self.queues {
            for writer in joint.writers.iter().chain(&joint.back) {
                read_by[*writer as usize].extend(&joint.readers);
            }
        }
        let mut todo = self.queues[queue].readers.clone();
        while let Some(node) = todo.pop() {
            if !std::mem::replace(&mut reached[node as usize], true) {
                todo.extend(&read_by[node as usize]);
            }
        }
        let joint = &mut self.queues[queue];
        let (back, writers) = joint
            .writers
            .iter()
            .partition(|&&writer| reached[writer as usize]);
        (joint.back, joint.writers) = (back, writers);
        joint.back.len()
    }
}

/// All vertices so that `a` stands before `b` for each edge `(a, b)`, the lowest number first where there is a choice.
/// None where edges lead in a circle. (Kahn's algorithm with a heap; petgraph's `toposort` has no say in ties.)
pub(super) fn topological(vertices: usize, edges: &[(u32, u32)]) -> Option<Vec<u32>> {
    let mut start = vec![0u32; vertices + 1];
    let mut before = vec![0u32; vertices];
    for &(a, b) in edges {
        start[a as usize + 1] += 1;
        before[b as usize] += 1;
    }
    for i in 0..vertices {
        start[i + 1] += start[i];
    }
    let mut next = start.clone();
    let mut to = vec![0u32; edges.len()];
    for &(a, b) in edges {
        to[next[a as usize] as usize] = b;
        next[a as usize] += 1;
    }
    let mut ready: BinaryHeap<Reverse<u32>> = (0..vertices as u32)
        .filter(|&v| before[v as usize] == 0)
        .map(Reverse)
        .collect();
    let mut order = Vec::with_capacity(vertices);
    while let Some(Reverse(v)) = ready.pop() {
        order.push(v);
        for &b in &to[start[v as usize] as usize..start[v as usize + 1] as usize] {
            before[b as usize] -= 1;
            if before[b as usize] == 0 {
                ready.push(Reverse(b));
            }
        }
    }
    (order.len() == vertices).then_some(order)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use crate::plan::arrange::{Arrangement, Graph, Joint, topological};

    const NODES: u32 = 9;

    fn joint((writers, readers): (Vec<u32>, Vec<u32>)) -> Joint {
        Joint {
            writers,
            readers,
            back: Vec::new(),
        }
    }

    fn graphs() -> impl Strategy<Value = Graph> {
        let unit = 0..NODES;
        let some = || {
            proptest::collection::btree_set(0..NODES, 1..3)
                .prop_map(|units| units.into_iter().collect::<Vec<u32>>())
        };
        let waits = proptest::collection::vec((unit.clone(), unit), 0..8);
        let queues = proptest::collection::vec((some(), some()).prop_map(joint), 0..4);
        (waits, queues).prop_map(|(waits, queues)| Graph {
            nodes: NODES as usize,
            waits,
            queues,
            several: Vec::new(),
        })
    }

    /// Mostly without cycles: edges lead from lower to higher numbers.
    fn forward(graph: Graph) -> Graph {
        let waits = graph.waits.into_iter().filter(|(a, b)| a < b).collect();
        let queues = graph
            .queues
            .into_iter()
            .filter(|queue| queue.writers.iter().max() < queue.readers.iter().min())
            .collect();
        Graph {
            waits,
            queues,
            ..graph
        }
    }

    /// Groups by joining until nothing changes.
    fn naive_groups(graph: &Graph) -> Vec<u32> {
        let mut joined: Vec<u32> = (0..NODES).collect();
        for _ in 0..NODES {
            for queue in &graph.queues {
                let ends: Vec<u32> = queue.ends().collect();
                let lowest = ends
                    .iter()
                    .map(|&end| joined[end as usize])
                    .min()
                    .unwrap_or(0);
                for end in ends {
                    joined[end as usize] = lowest;
                }
            }
        }
        joined
    }

    /// Whether `b` can be reached from `a` by at least one edge.
    fn reaches(edges: &HashSet<(u32, u32)>, a: u32, b: u32) -> bool {
        let mut reached: HashSet<u32> = edges
            .iter()
            .filter(|(from, _)| *from == a)
            .map(|(_, to)| *to)
            .collect();
        loop {
            let more: HashSet<u32> = edges
                .iter()
                .filter(|(from, to)| reached.contains(from) && !reached.contains(to))
                .map(|(_, to)| *to)
                .collect();
            if more.is_empty() {
                return reached.contains(&b);
            }
            reached.extend(more);
        }
    }

    fn can_be_ordered(graph: &Graph, joined: &[u32]) -> bool {
        let queues: HashSet<(u32, u32)> = graph
            .queues
            .iter()
            .flat_map(|q| {
                let readers = |&w: &u32| q.readers.iter().map(move |&r| (w, r));
                q.writers.iter().flat_map(readers)
            })
            .collect();
        let groups: HashSet<(u32, u32)> = graph
            .waits
            .iter()
            .map(|&(a, b)| (joined[a as usize], joined[b as usize]))
            .collect();
        (0..NODES).all(|unit| !reaches(&queues, unit, unit) && !reaches(&groups, unit, unit))
    }

    fn check(graph: &Graph) -> Result<(), TestCaseError> {
        let joined = naive_groups(graph);
        prop_assert_eq!(&graph.joined(), &joined);
        let arranged = graph.arrange();
        prop_assert_eq!(arranged.is_ok(), can_be_ordered(graph, &joined));
        let Ok(Arrangement { groups, group_of }) = arranged else {
            return Ok(());
        };
        let mut at = vec![usize::MAX; NODES as usize];
        let all: Vec<u32> = groups.iter().flatten().copied().collect();
        for (position, &unit) in all.iter().enumerate() {
            at[unit as usize] = position;
        }
        prop_assert!(
            all.len() == NODES as usize && at.iter().all(|&position| position != usize::MAX),
            "each unit once"
        );
        for node in 0..NODES as usize {
            for other in 0..NODES as usize {
                prop_assert_eq!(
                    joined[node] == joined[other],
                    group_of[node] == group_of[other]
                );
            }
            prop_assert!(groups[group_of[node] as usize].contains(&(node as u32)));
        }
        for &(a, b) in &graph.waits {
            prop_assert!(group_of[a as usize] < group_of[b as usize]);
        }
        for queue in &graph.queues {
            for writer in &queue.writers {
                prop_assert!(
                    queue
                        .readers
                        .iter()
                        .all(|&reader| at[*writer as usize] < at[reader as usize]),
                    "writers first"
                );
            }
        }
        // Ties: no two neighbours stand against their numbers without a reason.
        for group in &groups {
            for pair in group.windows(2) {
                let direct = graph
                    .queues
                    .iter()
                    .any(|q| q.writers.contains(&pair[0]) && q.readers.contains(&pair[1]));
                prop_assert!(pair[0] < pair[1] || direct, "{group:?}");
            }
        }
        for pair in groups.windows(2) {
            let lowest = |group: &[u32]| group.iter().min().copied();
            let waits = graph
                .waits
                .iter()
                .any(|(a, b)| pair[0].contains(a) && pair[1].contains(b));
            prop_assert!(lowest(&pair[0]) < lowest(&pair[1]) || waits, "{pair:?}");
        }
        Ok(())
    }

    /// A way from `from` back to it in the bipartite graph of nodes and queues that uses no edge twice.
    fn on_cycle(graph: &Graph, queue: usize) -> bool {
        let ends: Vec<u32> = graph.queues[queue].ends().collect();
        // Two of its ends are joined by the other queues.
        let others: Vec<_> = graph
            .queues
            .iter()
            .enumerate()
            .filter(|(i, _)| *i != queue)
            .map(|(_, q)| q.clone())
            .collect();
        let joined = naive_groups(&Graph {
            queues: others,
            ..graph.clone()
        });
        (0..ends.len())
            .any(|i| (0..i).any(|k| joined[ends[i] as usize] == joined[ends[k] as usize]))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn order_and_groups_are_those_of_a_naive_search(graph in graphs()) {
            check(&graph)?;
            check(&forward(graph))?;
        }

        #[test]
        fn a_queue_meets_again_where_its_ends_are_joined_without_it(graph in graphs()) {
            let graph = forward(graph);
            let naive: Vec<bool> = (0..graph.queues.len()).map(|queue| on_cycle(&graph, queue)).collect();
            prop_assert_eq!(graph.meets_again(), naive);
        }
    }

    #[test]
    fn ties_are_in_the_order_of_numbers() {
        assert_eq!(topological(5, &[(4, 0), (2, 1)]), Some(vec![2, 1, 3, 4, 0]));
        assert_eq!(topological(2, &[(0, 1), (1, 0)]), None);
        assert_eq!(topological(1, &[(0, 0)]), None);
    }
}
