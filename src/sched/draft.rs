//! For tests: plans in a few words. Nodes are numbered as they come, and their units in the same order: where no pool comes
//! before it, a process's unit has its node's number. Writers come before their readers.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::plan::template::Template;
use crate::plan::{
    After, Deliver, Ends, Group, GroupId, Input, Interval, Node, NodeId, Output, Overflow, Plan,
    Probe, ProbeKind, Queue, QueueId, QueueKind, Resource, Retry, Role, Service, Settings, Sink,
    Skip, Source, Unit, UnitId,
};
use crate::spec::{AfterState, JobserverStyle, Merge, OnFailure, OnWriterFailure, Records};

/// A plan in the making.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub nodes: Vec<DraftNode>,
    pub queues: Vec<DraftQueue>,
    pub timeout: Option<Duration>,
    /// How much there is of each resource.
    pub resources: Vec<u32>,
}

#[derive(Debug, Clone)]
pub(super) struct DraftNode {
    /// A pool of so many workers; none for a process.
    pub workers: Option<u32>,
    /// One more unit gathers what the workers write, and has this file.
    pub gathers: bool,
    pub after: Vec<After>,
    pub allow_failure: bool,
    /// A service; with a probe?
    pub service: Option<bool>,
    pub skip: bool,
    /// A command says whether it runs.
    pub asks: bool,
    pub timeout: Option<Duration>,
    pub grace: Duration,
    pub retry: Retry,
    pub outputs: Vec<Vec<Sink>>,
    pub inputs: Vec<QueueId>,
    pub slots: u32,
    pub memory: u64,
    /// What it claims of each resource.
    pub resources: Vec<u32>,
}

#[derive(Debug, Clone)]
pub(super) struct DraftQueue {
    /// Nodes. Of a pool all workers, where `worker` doesn't say which.
    pub writers: Vec<u32>,
    /// Nodes. Of a pool all workers.
    pub readers: Vec<u32>,
    pub close: bool,
    pub stored: bool,
    /// Of a pool that writes it only this one does.
    pub worker: Option<u32>,
}

impl Draft {
    /// A new node; its number.
    pub fn node(&mut self) -> u32 {
        self.nodes.push(DraftNode {
            workers: None,
            gathers: false,
            after: Vec::new(),
            allow_failure: false,
            service: None,
            skip: false,
            asks: false,
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
            resources: Vec::new(),
        });
        self.nodes.len() as u32 - 1
    }

    /// A new pool; its number.
    pub fn pool(&mut self, workers: u32) -> u32 {
        let node = self.node();
        self.at(node).workers = Some(workers);
        node
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
            stored: false,
            worker: None,
        });
        writers
            .iter()
            .for_each(|writer| self.add_writer(id, *writer));
        readers
            .iter()
            .for_each(|reader| self.add_reader(id, *reader));
        id
    }

    /// A stored queue: its readers start when its writers have succeeded.
    pub fn store(&mut self, writers: &[u32], readers: &[u32]) -> QueueId {
        let id = self.pipe(writers, readers);
        self.queues[id.index()].stored = true;
        for reader in readers {
            for writer in writers {
                let after = &self.nodes[*reader as usize].after;
                if !after
                    .iter()
                    .any(|after| after.node.0 == *writer && after.state == AfterState::Succeeded)
                {
                    self.after(*reader, *writer, AfterState::Succeeded);
                }
            }
        }
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

    /// For each node its units.
    pub fn units(&self) -> Vec<Range<u32>> {
        let mut next = 0;
        let units = |node: &DraftNode| {
            let first = next;
            next += node.workers.unwrap_or(1) + u32::from(node.gathers);
            first..next
        };
        self.nodes.iter().map(units).collect()
    }

    /// The node and the role of each unit.
    fn roles(&self) -> Vec<(u32, Role)> {
        let mut roles = Vec::new();
        for (id, node) in (0u32..).zip(&self.nodes) {
            match node.workers {
                None => roles.push((id, Role::Process)),
                Some(workers) => roles.extend((0..workers).map(|at| (id, Role::Worker(at)))),
            }
            if node.gathers {
                roles.push((id, Role::Gather));
            }
        }
        roles
    }

    /// Queues with their ends by unit. Those that a gatherer reads come last, in the order of their nodes.
    fn unit_queues(&self, roles: &[(u32, Role)]) -> Vec<Queue> {
        let units_of = |nodes: &[u32], worker: Option<u32>| -> Vec<UnitId> {
            let is_end = |node: u32, role: Role| {
                nodes.contains(&node)
                    && match (role, worker) {
                        (Role::Gather, _) => false,
                        (Role::Worker(at), Some(worker)) => at == worker,
                        (Role::Worker(_) | Role::Process | Role::Pool, _) => true,
                    }
            };
            let all = (0u32..).zip(roles);
            all.filter(|(_, (node, role))| is_end(*node, *role))
                .map(|(unit, _)| UnitId(unit))
                .collect()
        };
        let mut queues: Vec<Queue> = Vec::new();
        for draft in &self.queues {
            queues.push(Queue {
                kind: if draft.stored {
                    QueueKind::Stored
                } else {
                    QueueKind::Relayed
                },
                on_writer_failure: if draft.close {
                    OnWriterFailure::Close
                } else {
                    OnWriterFailure::Cancel
                },
                ..queue(
                    units_of(&draft.writers, draft.worker),
                    units_of(&draft.readers, None),
                )
            });
        }
        for (unit, (node, role)) in (0u32..).zip(roles) {
            if *role == Role::Gather {
                queues.push(queue(units_of(&[*node], None), vec![UnitId(unit)]));
            }
        }
        queues
    }

    /// For each unit the lowest of those that it runs with.
    fn leaders(&self, roles: &[(u32, Role)], queues: &[Queue]) -> Vec<u32> {
        let mut leader: Vec<u32> = (0..roles.len() as u32).collect();
        let find = |leader: &[u32], mut at: u32| {
            while leader[at as usize] != at {
                at = leader[at as usize];
            }
            at
        };
        let live = queues.iter().filter(|q| q.kind != QueueKind::Stored);
        let mut joined: Vec<Vec<u32>> = live
            .map(|q| q.writers.iter().chain(&q.readers).map(|u| u.0).collect())
            .collect();
        joined.extend(self.units().into_iter().map(Iterator::collect));
        for units in &joined {
            for pair in units.windows(2) {
                let (a, b) = (find(&leader, pair[0]), find(&leader, pair[1]));
                leader[a.max(b) as usize] = a.min(b);
            }
        }
        (0..leader.len() as u32)
            .map(|at| find(&leader, at))
            .collect()
    }

    pub fn plan(&self) -> Plan {
        let roles = self.roles();
        let queues = self.unit_queues(&roles);
        let leaders = self.leaders(&roles, &queues);
        let mut groups: Vec<Group> = Vec::new();
        let mut group_of: Vec<GroupId> = Vec::new();
        for (unit, leader) in (0u32..).zip(&leaders) {
            if unit == *leader {
                group_of.push(GroupId::from(groups.len()));
                groups.push(Group {
                    units: Vec::new(),
                    queues: Vec::new(),
                    slots: 0,
                    memory: 0,
                    resources: Arc::default(),
                });
            } else {
                group_of.push(group_of[*leader as usize]);
            }
            let (node, role) = roles[unit as usize];
            let draft = &self.nodes[node as usize];
            let group = &mut groups[group_of[unit as usize].index()];
            group.units.push(UnitId(unit));
            match role {
                Role::Worker(_) => group.slots += draft.slots,
                Role::Process | Role::Pool => group.slots = group.slots.max(draft.slots),
                Role::Gather => {}
            }
            group.memory += draft.memory;
            let claims = self.resources.iter().enumerate().map(|(at, _)| {
                let of = |amounts: &[u32]| amounts.get(at).copied().unwrap_or(0);
                of(&group.resources) + of(&draft.resources)
            });
            group.resources = claims.collect();
        }
        for (id, queue) in queues.iter().enumerate() {
            groups[group_of[queue.writers[0].index()].index()]
                .queues
                .push(QueueId::from(id));
        }
        let unit = |(id, (node, role)): (usize, &(u32, Role))| {
            let draft = &self.nodes[*node as usize];
            Unit {
                node: NodeId(*node),
                group: group_of[id],
                role: *role,
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
                ends: Arc::new(ends(UnitId::from(id), *role, draft, &queues)),
                reads: Vec::new(),
                writes: Vec::new(),
            }
        };
        let node = |((id, draft), units): ((usize, &DraftNode), Range<u32>)| Node {
            name: format!("n{id}").into(),
            base: format!("n{id}").into(),
            matrix: Vec::new(),
            units,
            after: draft.after.clone(),
            allow_failure: draft.allow_failure,
            pool: None,
            service: draft.service.map(|probed| {
                Arc::new(Service {
                    ready: probed.then(|| Probe {
                        kind: ProbeKind::File(Template::Literal("f".into())),
                        timeout: Duration::from_secs(60),
                        interval: Interval {
                            first: Duration::from_secs(1),
                            last: Duration::from_secs(1),
                        },
                    }),
                })
            }),
            skip: draft.skip.then_some(Skip::ByUser),
            asks: (draft.asks && !draft.skip)
                .then(|| Arc::new([Template::Literal("ask".into())]) as _),
            description: None,
            tags: Vec::new(),
        };
        let units = roles.iter().enumerate().map(unit).collect();
        Plan {
            name: "test".to_owned(),
            description: None,
            dir: PathBuf::from("/"),
            jobs: None,
            on_failure: OnFailure::Stop,
            timeout: self.timeout,
            jobserver: JobserverStyle::None,
            resources: (self.resources.iter().enumerate())
                .map(|(at, amount)| Resource {
                    name: format!("r{at}").into(),
                    amount: *amount,
                })
                .collect(),
            env: Vec::new(),
            secrets: Vec::new(),
            nodes: self
                .nodes
                .iter()
                .enumerate()
                .zip(self.units())
                .map(node)
                .collect(),
            units,
            queues,
            groups,
        }
    }
}

/// What leads where for one unit of a node.
fn ends(unit: UnitId, role: Role, draft: &DraftNode, queues: &[Queue]) -> Ends {
    let writes = |sink: &Sink| match sink {
        Sink::Queue(queue) => queues[queue.index()].writers.contains(&unit),
        _ => true,
    };
    let queues_where = |is_end: &dyn Fn(&Queue) -> bool| -> Vec<QueueId> {
        (0..queues.len())
            .filter(|at| is_end(&queues[*at]))
            .map(QueueId::from)
            .collect()
    };
    let mut outputs: Vec<Vec<Sink>> = draft
        .outputs
        .iter()
        .map(|to| to.iter().filter(|sink| writes(sink)).cloned().collect())
        .filter(|to: &Vec<Sink>| !to.is_empty())
        .collect();
    if role == Role::Gather {
        outputs = vec![vec![Draft::file()]];
    } else {
        let said: Vec<Sink> = outputs.iter().flatten().cloned().collect();
        let gathered = queues_where(&|queue| queue.writers.contains(&unit));
        let gathered = gathered
            .into_iter()
            .map(Sink::Queue)
            .filter(|sink| !said.contains(sink));
        outputs.extend(gathered.map(|sink| vec![sink]));
    }
    let output = |(fd, to): (usize, Vec<Sink>)| Output {
        name: "o".into(),
        fd: fd as u32 + 1,
        to,
    };
    let input = |(fd, queue): (usize, QueueId)| Input {
        name: "i".into(),
        from: vec![(fd as u32, Source::Queue(queue))],
    };
    let inputs = queues_where(&|queue| queue.readers.contains(&unit));
    Ends {
        inputs: inputs.into_iter().enumerate().map(input).collect(),
        outputs: outputs.into_iter().enumerate().map(output).collect(),
    }
}

fn queue(writers: Vec<UnitId>, readers: Vec<UnitId>) -> Queue {
    Queue {
        name: "q".into(),
        writers,
        readers,
        kind: QueueKind::Relayed,
        records: Records::Lines,
        max_record: None,
        capacity: 1,
        merge: Merge::Arrive,
        on_writer_failure: OnWriterFailure::Cancel,
        file: None,
        max_records: None,
        overflow: Overflow::Block,
        deliver: Deliver::Copy,
        header: 0,
        feedback: false,
    }
}
