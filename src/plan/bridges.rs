//! Which edges of an undirected multigraph lie on a cycle: those that are no bridge. It knows numbers only.

/// An adjacency list in three flat vectors; each edge stands at both of its ends.
struct Adjacency {
    start: Vec<u32>,
    /// `(the other end, the edge)`
    to: Vec<(u32, u32)>,
}

impl Adjacency {
    fn of(vertices: usize, edges: &[(u32, u32)]) -> Self {
        let mut start = vec![0u32; vertices + 1];
        for &(a, b) in edges {
            start[a as usize + 1] += 1;
            start[b as usize + 1] += 1;
        }
        for i in 0..vertices {
            start[i + 1] += start[i];
        }
        let mut next = start.clone();
        let mut to = vec![(0, 0); edges.len() * 2];
        for (edge, &(a, b)) in (0u32..).zip(edges) {
            for (from, other) in [(a, b), (b, a)] {
                to[next[from as usize] as usize] = (other, edge);
                next[from as usize] += 1;
            }
        }
        Adjacency { start, to }
    }
}

/// For every edge whether it lies on a cycle. Edges are pairs of vertices below `vertices`; several between the same two
/// count as a cycle, and so does an edge from a vertex to itself.
///
/// Tarjan's low-links with a stack of its own: a chain of a million vertices must not exhaust the thread's.
pub(super) fn on_cycle(vertices: usize, edges: &[(u32, u32)]) -> Vec<bool> {
    const UNSEEN: u32 = u32::MAX;
    let adjacency = Adjacency::of(vertices, edges);
    let mut seen = vec![UNSEEN; vertices];
    let mut low = vec![UNSEEN; vertices];
    let mut next: Vec<u32> = adjacency.start[..vertices].to_vec();
    let mut on_cycle = vec![true; edges.len()];
    let mut time = 0;
    // Vertices from the root to where we are, each with the edge that led to it.
    let mut path: Vec<(u32, u32)> = Vec::new();
    for root in 0..vertices {
        if seen[root] != UNSEEN || adjacency.start[root] == adjacency.start[root + 1] {
            continue;
        }
        path.push((root as u32, UNSEEN));
        seen[root] = time;
        low[root] = time;
        time += 1;
        while let Some(&(vertex, by)) = path.last() {
            let v = vertex as usize;
            if next[v] < adjacency.start[v + 1] {
                let (other, edge) = adjacency.to[next[v] as usize];
                next[v] += 1;
                let o = other as usize;
                // The edge that led here is no way back; another between the same two is.
                if edge == by {
                    continue;
                }
                if seen[o] == UNSEEN {
                    seen[o] = time;
                    low[o] = time;
                    time += 1;
                    path.push((other, edge));
                } else {
                    low[v] = low[v].min(seen[o]);
                }
            } else {
                path.pop();
                if let Some(&(parent, _)) = path.last() {
                    let p = parent as usize;
                    low[p] = low[p].min(low[v]);
                    // Nothing below this edge leads back above it but the edge itself.
                    on_cycle[by as usize] = low[v] <= seen[p];
                }
            }
        }
    }
    on_cycle
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::plan::bridges::on_cycle;

    /// Whether `a` reaches `b` without edge `without`.
    fn connected(vertices: usize, edges: &[(u32, u32)], without: usize) -> bool {
        let (a, b) = edges[without];
        let mut reached = vec![false; vertices];
        reached[a as usize] = true;
        loop {
            let mut grew = false;
            for (i, &(x, y)) in edges.iter().enumerate() {
                if i != without && reached[x as usize] != reached[y as usize] {
                    reached[x as usize] = true;
                    reached[y as usize] = true;
                    grew = true;
                }
            }
            if !grew {
                return reached[b as usize];
            }
        }
    }

    proptest! {
        #[test]
        fn an_edge_lies_on_a_cycle_where_its_ends_are_joined_without_it(
            edges in proptest::collection::vec((0u32..12, 0u32..12), 0..24)
        ) {
            let naive: Vec<bool> = (0..edges.len()).map(|i| connected(12, &edges, i)).collect();
            prop_assert_eq!(on_cycle(12, &edges), naive);
        }
    }

    #[test]
    fn a_long_chain_needs_no_stack() {
        let edges: Vec<(u32, u32)> = (0..1_000_000).map(|i| (i, i + 1)).collect();
        assert!(on_cycle(1_000_001, &edges).iter().all(|on| !on));
    }
}
