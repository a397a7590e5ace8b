//! For tests: plans in a few words. Nodes are numbered as they come, a node has one unit of the same number, and writers
//! come before their readers.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::plan::template::Template;
use crate::plan::{
    After, Deliver, Ends, Group, GroupId, Input, Node, NodeId, Output, Overflow, Plan, Queue,
    QueueId, QueueKind, Retry, Role, Settings, Sink, Source, Unit, UnitId,
};
use crate::spec::{AfterState, Merge, OnFailure, OnWriterFailure, Records};

/// A plan in the making.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub nodes: Vec<DraftNode>,
    pub queues: Vec<DraftQueue>,
    pub timeout: Option<Duration>,
}

#[derive(Debug, Clone)]
pub(super) struct DraftNode {
    pub after: Vec<After>,
    pub allow_failure: bool,
    pub skip: bool,
    pub timeout: Option<Duration>,
    pub grace: Duration,
    pub retry: Retry,
    pub outputs: Vec<Vec<Sink>>,
    pub inputs: Vec<QueueId>,
    pub slots: u32,
    pub memory: u64,
}

#[derive(Debug, Clone)]
pub(super) struct DraftQueue {
    pub writers: Vec<u32>,
    pub readers: Vec<u32>,
    pub close: bool,
}

impl Draft {
    /// A new node; its number.
    pub fn node(&mut self) -> u32 {
        self.nodes.push(DraftNode {
            after: Vec::new(),
            allow_failure: false,
            skip: false,
            timeout: None,
            grace: Duration::from_secs(5),
            retry: Retry {
                max: 0,
                delay: Duration::from_secs(1),
                backoff: 2.0,
                max_delay: Duration::from_secs(60),
                jitter: false,
                on_codes: Vec::new(),
            },
            outputs: Vec::new(),
            inputs: Vec::new(),
            slots: 1,
            memory: 0,
        });
        self.nodes.len() as u32 - 1
    }

    pub fn nodes<const N: usize>(&mut self) -> [u32; N] {
        std::array::from_fn(|_| self.node())
    }

    pub fn at(&mut self, node: u32) -> &mut DraftNode {
        &mut self.nodes[node as usize]
    }

    /// `node` starts when `other` is in `state`.
    pub fn after(&mut self, node: u32, other: u32, state: AfterState) {
        self.at(node).after.push(After {
            node: NodeId(other),
            state,
        });
    }

    /// `writers | readers`, each writer through an output of its own.
    pub fn pipe(&mut self, writers: &[u32], readers: &[u32]) -> QueueId {
        let id = QueueId::from(self.queues.len());
        self.queues.push(DraftQueue {
            writers: Vec::new(),
            readers: Vec::new(),
            close: false,
        });
        writers
            .iter()
            .for_each(|writer| self.add_writer(id, *writer));
        readers
            .iter()
            .for_each(|reader| self.add_reader(id, *reader));
        id
    }

    pub fn add_writer(&mut self, queue: QueueId, writer: u32) {
        self.at(writer).outputs.push(vec![Sink::Queue(queue)]);
        self.queues[queue.index()].writers.push(writer);
    }

    pub fn add_reader(&mut self, queue: QueueId, reader: u32) {
        self.at(reader).inputs.push(queue);
        self.queues[queue.index()].readers.push(reader);
    }

    pub fn file() -> Sink {
        Sink::File {
            path: Template::Literal("f".into()),
            append: false,
        }
    }

    pub fn plan(&self) -> Plan {
        let mut leader: Vec<u32> = (0..self.nodes.len() as u32).collect();
        let find = |leader: &[u32], mut at: u32| {
            while leader[at as usize] != at {
                at = leader[at as usize];
            }
            at
        };
        for queue in &self.queues {
            let ends: Vec<u32> = queue
                .writers
                .iter()
                .chain(&queue.readers)
                .copied()
                .collect();
            for pair in ends.windows(2) {
                let (a, b) = (find(&leader, pair[0]), find(&leader, pair[1]));
                leader[a.max(b) as usize] = a.min(b);
            }
        }
        let mut groups: Vec<Group> = Vec::new();
        let mut group_of = vec![GroupId(0); self.nodes.len()];
        for node in 0..self.nodes.len() as u32 {
            let first = find(&leader, node);
            if first == node {
                group_of[node as usize] = GroupId::from(groups.len());
                groups.push(Group {
                    units: Vec::new(),
                    queues: Vec::new(),
                    slots: 0,
                    memory: 0,
                });
            } else {
                group_of[node as usize] = group_of[first as usize];
            }
            let draft = &self.nodes[node as usize];
            let group = &mut groups[group_of[node as usize].index()];
            group.units.push(UnitId(node));
            group.slots = group.slots.max(draft.slots);
            group.memory += draft.memory;
        }
        for (id, queue) in self.queues.iter().enumerate() {
            groups[group_of[queue.writers[0] as usize].index()]
                .queues
                .push(QueueId::from(id));
        }
        let unit = |(id, draft): (usize, &DraftNode)| {
            let output = |(fd, to): (usize, &Vec<Sink>)| Output {
                name: "o".into(),
                fd: fd as u32 + 1,
                to: to.clone(),
            };
            let input = |(fd, queue): (usize, &QueueId)| Input {
                name: "i".into(),
                from: vec![(fd as u32, Source::Queue(*queue))],
            };
            Unit {
                node: NodeId::from(id),
                group: group_of[id],
                role: Role::Process,
                argv: Vec::new(),
                env: Vec::new(),
                settings: Arc::new(Settings {
                    cwd: Template::Literal(".".into()),
                    clear_env: false,
                    timeout: draft.timeout,
                    stop_signal: 15,
                    stop_grace: draft.grace,
                    retry: draft.retry.clone(),
                    success_codes: vec![0],
                    epipe_codes: vec![120, 141],
                    limits: Vec::new(),
                    nice: 0,
                }),
                ends: Arc::new(Ends {
                    inputs: draft.inputs.iter().enumerate().map(input).collect(),
                    outputs: draft.outputs.iter().enumerate().map(output).collect(),
                }),
                reads: Vec::new(),
                writes: Vec::new(),
            }
        };
        let queue = |queue: &DraftQueue| Queue {
            name: "q".into(),
            writers: queue.writers.iter().map(|w| UnitId(*w)).collect(),
            readers: queue.readers.iter().map(|r| UnitId(*r)).collect(),
            kind: QueueKind::Relayed,
            records: Records::Lines,
            max_record: None,
            capacity: 1,
            merge: Merge::Arrive,
            on_writer_failure: if queue.close {
                OnWriterFailure::Close
            } else {
                OnWriterFailure::Cancel
            },
            file: None,
            max_records: None,
            overflow: Overflow::Block,
            deliver: Deliver::Copy,
            header: 0,
            feedback: false,
        };
        let node = |(id, draft): (usize, &DraftNode)| Node {
            name: format!("n{id}").into(),
            units: id as u32..id as u32 + 1,
            after: draft.after.clone(),
            allow_failure: draft.allow_failure,
            pool: None,
            skip: draft.skip,
            description: None,
            tags: Vec::new(),
        };
        Plan {
            name: "test".to_owned(),
            description: None,
            dir: PathBuf::from("/"),
            jobs: None,
            on_failure: OnFailure::Stop,
            timeout: self.timeout,
            env: Vec::new(),
            secrets: Vec::new(),
            nodes: self.nodes.iter().enumerate().map(node).collect(),
            units: self.nodes.iter().enumerate().map(unit).collect(),
            queues: self.queues.iter().map(queue).collect(),
            groups,
        }
    }
}
