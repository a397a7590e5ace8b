//! No graph deadlocks by procflow's queues (spec 2.4): random graphs whose data splits and meets again in every way, of
//! processes that read one input after the other and write far more than any pipe holds. Each run ends, and each reader got
//! exactly what the model says.
//!
//! The processes are this program, too: as `deadlock node ...` it is a node, without that the trial. So it has no test
//! harness, which would write to the nodes' standard output.
//!
//! `PROCFLOW_DEADLOCK_GRAPHS=5000` tries so many graphs, `PROCFLOW_DEADLOCK_SEED` says with which to begin: one that failed can be
//! tried alone.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]
#![allow(clippy::print_stdout, reason = "it is the harness")]

mod graph;
mod node;
#[path = "../support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use crate::graph::Graph;
use crate::support::Pipeline;

/// So long the trial lasts, where nobody says how many graphs.
const TIME: Duration = Duration::from_secs(20);

/// Its name, as the harness of other tests has one.
const TEST: &str = "no_graph_deadlocks_by_our_queues";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(("node", rest)) = arguments
        .split_first()
        .map(|(first, rest)| (&**first, rest))
    {
        return node::run(rest);
    }
    let has = |option: &str| arguments.iter().any(|argument| argument == option);
    if has("--ignored") {
        return;
    }
    if has("--list") {
        println!("{TEST}: test");
        return;
    }
    let filters: Vec<&String> = arguments
        .iter()
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    if filters.iter().all(|filter| TEST.contains(filter.as_str())) {
        no_graph_deadlocks_by_our_queues();
    }
}

fn no_graph_deadlocks_by_our_queues() {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .map(|text| text.parse::<u64>().unwrap())
    };
    let first = number("PROCFLOW_DEADLOCK_SEED").unwrap_or(1);
    let count = number("PROCFLOW_DEADLOCK_GRAPHS");
    let start = Instant::now();
    let goes_on = |tried| count.map_or_else(|| start.elapsed() < TIME, |count| tried < count);
    let (mut tried, mut queues, mut spilling, mut bytes) = (0, 0, 0, 0);
    while goes_on(tried) {
        let graph = Graph::random(first + tried);
        let seed = SaySeed(first + tried);
        let pipeline = Pipeline::new(&graph.pipeline(&std::env::current_exe().unwrap()));
        // Where it hangs, what it says about that is shown.
        let ran = pipeline
            .args(["--output", "failed", "--stalled-after", "5s"])
            .run();
        graph.check_shares(&ran.pipeline);
        spilling += graph.spilling(&ran.pipeline);
        drop((ran, seed));
        tried += 1;
        queues += graph.queues.len();
        bytes += graph.bytes();
    }
    println!(
        "test {TEST} ... ok: {tried} graphs with {queues} queues, {spilling} of which may spill, and {} MiB in {:.1} s",
        bytes >> 20,
        start.elapsed().as_secs_f64()
    );
    // Else it has tried nothing that could go wrong.
    assert!(spilling > 0 && spilling < queues);
}

/// Says which graph it was, where its run is given up.
struct SaySeed(u64);

impl Drop for SaySeed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!(
                "{TEST} failed. Again: PROCFLOW_DEADLOCK_SEED={} PROCFLOW_DEADLOCK_GRAPHS=1 cargo test --test deadlock",
                self.0
            );
        }
    }
}
