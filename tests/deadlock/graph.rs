//! Random graphs of processes and queues, and what each reader must get.
//!
//! Nodes are numbered so that data goes from lower to higher numbers. First there are edges: of a series-parallel graph, of
//! a dense one that no paper takes without crossings, of a tree. Each becomes a queue; then queues are put together, to copies,
//! shares and merges, or doubled.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;

use fastrand::Rng;

use crate::node::Sum;
use crate::support::{PROCFLOW, Pipeline};

pub struct Graph {
    nodes: Vec<Node>,
    pub queues: Vec<Queue>,
}

pub struct Queue {
    writers: Vec<usize>,
    readers: Vec<usize>,
    capacity: usize,
    in_sequence: bool,
    /// To several readers: all to each, or each record to one.
    deliver: &'static str,
}

/// As the file says it. The first is the one that copies.
const DELIVER: [&str; 4] = [
    "\"copy\"",
    "\"share\"",
    "\"round_robin\"",
    "{ by_field = 2, separator = \" \" }",
];

impl Queue {
    /// No reader gets all.
    fn is_shared(&self) -> bool {
        self.readers.len() > 1 && self.deliver != DELIVER[0]
    }
}

struct Node {
    /// Queues.
    inputs: Vec<usize>,
    outputs: Vec<Output>,
    /// `r:..` and `w:..` of [`crate::node`].
    steps: Vec<String>,
    /// Its first input and its first output are its standard ones.
    standard: bool,
}

/// One descriptor that is written to.
struct Output {
    stream: u32,
    lines: u32,
    /// More than one: copies.
    queues: Vec<usize>,
}

type Edge = (usize, usize);

impl Graph {
    pub fn random(seed: u64) -> Graph {
        let mut rng = Rng::with_seed(seed);
        let mut edges = match rng.u8(..8) {
            0..3 => series_parallel(&mut rng),
            3..6 => dense(&mut rng),
            6 => complete_bipartite(),
            _ => tree(&mut rng),
        };
        edges.sort_unstable();
        let count = edges.iter().map(|(_, to)| to + 1).max().unwrap();
        let queues = queues(&mut rng, &edges);
        let mut streams = 0..;
        let nodes = (0..count)
            .map(|node| Node::random(&mut rng, node, &queues, &mut streams))
            .collect();
        Graph { nodes, queues }
    }

    /// All that is read.
    pub fn bytes(&self) -> u64 {
        let read = |queue: &Queue, index| {
            let copies = if queue.is_shared() {
                1
            } else {
                queue.readers.len()
            };
            self.sum(index).bytes * copies as u64
        };
        self.queues
            .iter()
            .enumerate()
            .map(|(index, queue)| read(queue, index))
            .sum()
    }

    /// What each reader of a queue gets.
    fn sum(&self, queue: usize) -> Sum {
        let outputs = self.nodes.iter().flat_map(|node| &node.outputs);
        outputs
            .filter(|output| output.queues.contains(&queue))
            .map(|output| Sum::of_stream(output.stream, output.lines))
            .fold(Sum::default(), Sum::and)
    }

    /// The pipeline file, with this program as its nodes.
    pub fn pipeline(&self, program: &Path) -> String {
        let mut text = String::new();
        let sums: Vec<Sum> = (0..self.queues.len())
            .map(|queue| self.sum(queue))
            .collect();
        for (number, node) in self.nodes.iter().enumerate() {
            let (mut command, mut inputs, mut outputs) =
                (String::new(), String::new(), String::new());
            let mut standard = String::new();
            for (index, queue) in node.inputs.iter().enumerate() {
                let Sum { bytes, hashes } = sums[*queue];
                let path = if node.standard && index == 0 {
                    writeln!(standard, "stdin = \"q{queue}\"").unwrap();
                    "/dev/fd/0".to_owned()
                } else {
                    write!(inputs, "i{index} = \"q{queue}\", ").unwrap();
                    format!("${{{{ in.i{index} }}}}")
                };
                if self.queues[*queue].is_shared() {
                    write!(command, ", \"i:{path}:to:{}\"", part(*queue, number)).unwrap();
                } else {
                    write!(command, ", \"i:{path}:{bytes}:{hashes}\"").unwrap();
                }
            }
            for (index, output) in node.outputs.iter().enumerate() {
                let names: Vec<String> = output
                    .queues
                    .iter()
                    .map(|queue| format!("\"q{queue}\""))
                    .collect();
                let to = match &names[..] {
                    [one] => one.clone(),
                    several => format!("[{}]", several.join(", ")),
                };
                let path = if node.standard && index == 0 {
                    writeln!(standard, "stdout = {to}").unwrap();
                    "/dev/fd/1".to_owned()
                } else {
                    write!(outputs, "o{index} = {to}, ").unwrap();
                    format!("${{{{ out.o{index} }}}}")
                };
                write!(command, ", \"o:{path}:{}:{}\"", output.stream, output.lines).unwrap();
            }
            for step in &node.steps {
                write!(command, ", \"{step}\"").unwrap();
            }
            writeln!(
                text,
                "[process.n{number}]\ncommand = [{:?}, \"node\"{command}]\n{standard}inputs = {{ {} }}\noutputs = {{ {} }}",
                program.to_str().unwrap(),
                inputs.trim_end_matches(", "),
                outputs.trim_end_matches(", "),
            )
            .unwrap();
        }
        for (number, queue) in self.queues.iter().enumerate() {
            writeln!(text, "[queue.q{number}]\ncapacity = {}", queue.capacity).unwrap();
            if queue.readers.len() > 1 {
                writeln!(text, "deliver = {}", queue.deliver).unwrap();
            }
            if queue.in_sequence && queue.writers.len() > 1 {
                text.push_str("merge = \"sequence\"\n");
            }
        }
        text
    }

    /// The readers of each shared queue got all of it between them.
    pub fn check_shares(&self, pipeline: &Pipeline) {
        for (number, queue) in self.queues.iter().enumerate() {
            if queue.is_shared() {
                let parts = queue.readers.iter().map(|reader| {
                    let text = fs::read_to_string(pipeline.path(&part(number, *reader))).unwrap();
                    let (bytes, hashes) = text.split_once(' ').unwrap();
                    Sum {
                        bytes: bytes.parse().unwrap(),
                        hashes: hashes.parse().unwrap(),
                    }
                });
                assert_eq!(
                    parts.fold(Sum::default(), Sum::and),
                    self.sum(number),
                    "q{number}"
                );
            }
        }
    }

    /// How many of its queues are planned to spill.
    pub fn spilling(&self, pipeline: &Pipeline) -> usize {
        let plan = Command::new(PROCFLOW)
            .args(["plan", "--format", "json"])
            .arg(pipeline.path("pipeline.toml"))
            .output()
            .unwrap();
        let plan: serde_json::Value = serde_json::from_slice(&plan.stdout).unwrap();
        let text = plan.to_string();
        text.matches("\"spills\":true").count()
    }
}

/// The file in which a reader says what it got of a shared queue.
fn part(queue: usize, reader: usize) -> String {
    format!("part.q{queue}.n{reader}")
}

/// Grown from one edge: an edge becomes two in a row, or two beside each other.
fn series_parallel(rng: &mut Rng) -> Vec<Edge> {
    // Places on a line, in whose order the nodes are numbered at the end.
    let mut edges = vec![(0.0, 1.0)];
    for _ in 0..rng.usize(2..9) {
        let chosen = rng.usize(..edges.len());
        let (from, to) = edges[chosen];
        if rng.bool() {
            edges.push((from, to));
        } else {
            let between = from + (to - from) * rng.f64().clamp(0.1, 0.9);
            edges[chosen] = (from, between);
            edges.push((between, to));
        }
    }
    let mut places: Vec<f64> = edges.iter().flat_map(|(from, to)| [*from, *to]).collect();
    places.sort_by(f64::total_cmp);
    places.dedup();
    let number = |place: f64| places.iter().position(|other| *other == place).unwrap();
    edges
        .into_iter()
        .map(|(from, to)| (number(from), number(to)))
        .collect()
}

/// Of five to seven nodes so many are joined that most can't be drawn without crossings.
fn dense(rng: &mut Rng) -> Vec<Edge> {
    let nodes = rng.usize(3..7);
    let mut edges: Vec<Edge> = Vec::new();
    for to in 1..=nodes {
        let from: Vec<usize> = (0..to).filter(|_| rng.u8(..10) < 6).collect();
        let from = if from.is_empty() { vec![to - 1] } else { from };
        edges.extend(from.into_iter().map(|from| (from, to)));
    }
    edges
}

/// K3,3: from each of three to each of three.
fn complete_bipartite() -> Vec<Edge> {
    (0..3)
        .flat_map(|from| (3..6).map(move |to| (from, to)))
        .collect()
}

/// No two ways between any two nodes: here nothing may spill but by what queues are put together.
fn tree(rng: &mut Rng) -> Vec<Edge> {
    (1..rng.usize(4..8))
        .map(|to| (rng.usize(..to), to))
        .collect()
}

fn queues(rng: &mut Rng, edges: &[Edge]) -> Vec<Queue> {
    let new = |rng: &mut Rng, writers: Vec<usize>, readers: Vec<usize>| Queue {
        writers,
        readers,
        capacity: 4096 << rng.u8(..5),
        in_sequence: rng.bool(),
        deliver: DELIVER[[0, 0, 1, 2, 3][rng.usize(..5)]],
    };
    let mut queues: Vec<Queue> = edges
        .iter()
        .map(|(from, to)| new(rng, vec![*from], vec![*to]))
        .collect();
    for _ in 0..rng.usize(..4) {
        let (one, other) = (rng.usize(..queues.len()), rng.usize(..queues.len()));
        let (a, b) = (&queues[one], &queues[other]);
        let apart = |a: &[usize], b: &[usize]| a.iter().all(|end| !b.contains(end));
        let joined = if one == other {
            let Queue {
                writers, readers, ..
            } = a;
            let double = new(rng, writers.clone(), readers.clone());
            queues.push(double);
            continue;
        } else if a.readers == b.readers && apart(&a.writers, &b.writers) {
            let mut writers = [&a.writers[..], &b.writers].concat();
            writers.sort_unstable();
            new(rng, writers, a.readers.clone())
        } else if a.writers == b.writers && apart(&a.readers, &b.readers) {
            new(
                rng,
                a.writers.clone(),
                [&a.readers[..], &b.readers].concat(),
            )
        } else {
            continue;
        };
        queues[one] = joined;
        queues.swap_remove(other);
    }
    queues
}

impl Node {
    fn random(
        rng: &mut Rng,
        node: usize,
        queues: &[Queue],
        streams: &mut impl Iterator<Item = u32>,
    ) -> Node {
        let of = |ends: fn(&Queue) -> &Vec<usize>| -> Vec<usize> {
            (0..queues.len())
                .filter(|queue| ends(&queues[*queue]).contains(&node))
                .collect()
        };
        let (mut inputs, mut written) = (of(|queue| &queue.readers), of(|queue| &queue.writers));
        rng.shuffle(&mut inputs);
        rng.shuffle(&mut written);
        let mut outputs: Vec<Output> = Vec::new();
        while let Some(queue) = written.pop() {
            match outputs.last_mut() {
                Some(output) if rng.u8(..3) == 0 => output.queues.push(queue),
                _ => outputs.push(Output {
                    stream: streams.next().unwrap(),
                    // Of some 190 bytes.
                    lines: rng.u32(500..3000),
                    queues: vec![queue],
                }),
            }
        }
        let steps = steps(rng, inputs.len(), &outputs);
        Node {
            inputs,
            outputs,
            steps,
            standard: rng.bool(),
        }
    }
}

/// In which order it reads and writes what.
fn steps(rng: &mut Rng, inputs: usize, outputs: &[Output]) -> Vec<String> {
    let mut steps = Vec::new();
    let mut left: Vec<u32> = outputs.iter().map(|output| output.lines).collect();
    // Some go to and fro first.
    for _ in 0..[0, 0, rng.usize(..30)][rng.usize(..3)] {
        let end = rng.usize(..inputs + outputs.len());
        if end < inputs {
            steps.push(format!("r:{end}:{}", rng.u32(1..200_000)));
        } else {
            let output = end - inputs;
            let lines = rng.u32(..=left[output].min(500));
            left[output] -= lines;
            steps.push(format!("w:{output}:{lines}"));
        }
    }
    // Then one after the other: all of an input, all of an output.
    let mut rest: Vec<String> = (0..inputs).map(|input| format!("r:{input}:all")).collect();
    rest.extend(
        left.iter()
            .enumerate()
            .map(|(output, lines)| format!("w:{output}:{lines}")),
    );
    rng.shuffle(&mut rest);
    steps.extend(rest);
    steps
}
