//! Random plans in random worlds against what must hold in each. The world is a model of processes, pipes and timers that
//! knows nothing of the scheduler's states: it sees actions, and judges by what it did itself.
//!
//! `SIM_RUNS=100000 SIM_SEED=7 cargo test --release --lib sched::sim` widens it; a failure prints the world's seed, and
//! `SIM_RUNS=1 SIM_SEED=that` plays it again.
//!
//! Seeded by hand, one after the other, and after how many worlds caught (`SIM_SEED=0`), when each node was one process:
//!
//! ```text
//! a writer that failed lets go of its end of data .................    2
//! a group is started once more than it is taken out of line .......    2
//! a timer stays armed after its unit's exit .......................    3
//! a group gives its slots back before its files are in place ......    3
//! a file is put in place before the writers upstream have ended ...    4
//! a cancelled unit's readers are not stopped ......................    2
//! taint stops at a unit that ended well ...........................   19
//! what was released in one try is not in the next .................  132
//! nobody waits for a condition on `started` .......................    2
//! the second signal kills nothing .................................   72
//! the grace of a dead unit goes on ................................    3
//! memory is not given back ........................................    2
//! a retry under way is forgotten by a shutdown ....................  597
//! clean-up is skipped with the rest ...............................    9
//! a failed reader does not stop its writer ........................    2
//! what is left of a group lives on where one could not be started .    2
//! a success in a try that is taken back is final ..................  221
//! SIGPIPE is a success while the reader still runs ................   96
//! an allowed failure fails what comes after it ....................   44
//! the linger timer is forgotten ................................... 1239
//! a unit spawned into a shutdown is not stopped ...................  176
//! ```
//!
//! Three of these were not caught at first. `released` that outlives a try and the forgotten linger timer: any process could
//! crash at any time then, so nothing was ever stuck; now its start decides whether it will. The second signal: nothing looked.
//! Another, a forgotten reset of what is known of the queues between two tries, was never caught, for there was nothing to
//! reset: it is gone.
//!
//! And since there are pools and stored queues:
//!
//! ```text
//! a worker's failure stops nobody .................................     2
//! workers that are not started blame themselves ...................     2
//! a worker's file waits for the one that gathers, and that for it .     3
//! a worker's file does not wait for the others ....................     4
//! nobody looks again when the last worker has done its work .......     4
//! a waiter hears of a pool when its first worker has ended ........    13
//! a pool is its own neighbour .....................................    13
//! each worker has all the tries of its pool .......................    20
//! an allowed failure stops the other workers ......................    24
//! what is held is let go in a group that could not be started .....    79
//! a gathered file is committed although a worker failed ...........   104
//! a pool counts as well if its last worker is .....................   104
//! a file of a pool that may fail appears in spite of that .........   255
//! a stored copy does not keep its writer going ....................   375
//! what a cancelled writer stored is read ..........................  1201
//! a file lost to an allowed failure cancels readers ...............  3327
//! a stored queue's reader is touched by its writer's failure ......  7378
//! a worker that died of its queue does not linger for a file ...... 87205
//! ```
//!
//! The stored copy was not caught at first, for nobody asked whether a writer that is stopped for its readers had others.
//!
//! And since there are resources:
//!
//! ```text
//! of a resource less is given back than was taken .................    14
//! the last claim on a resource stands for all .....................    74
//! only the first resource is looked at ............................   199
//! ```
//!
//! And since there are conditions that are commands:
//!
//! ```text
//! who is given up while it asks keeps its slots ...................    12
//! the start does not wait for the second question .................    12
//! a command that gives no answer counts as a yes ..................    24
//! a failure of the run does not end what is asked .................    56
//! a no leaves the queues of its node unclear ......................   120
//! a no leaves its node among the readers of its queues ............   305
//! a node that was left out goes on waiting ........................ 3,138
//! services are not looked at again after the last answer .......... 8,382
//! the loss of a service is not heard while a command is asked ..... 19,042
//! what is asked outlives the second signal ........................ 25,849
//! ```
//!
//! Two were not caught at first: no second signal came soon enough, and nobody asked whether there was an answer.
//!
//! And since slots come and go:
//!
//! ```text
//! the slot that a run always has is given away ....................    19
//! one that runs alone has not asked for what there is .............    23
//! an old answer is taken for that to a new question ...............    23
//! what somebody waits for is given away ...........................    40
//! one that runs alone never gets what it claims ...................    40
//! an answer is not heard ..........................................    40
//! nobody asks for a single slot ...................................    45
//! nobody asks again when more is wanted ...........................  1045
//! ```
//!
//! And since there are services:
//!
//! ```text
//! a service is not stopped when nobody needs it ...................     4
//! a service that runs counts as running ...........................     4
//! exit 0 of one that is needed is a success .......................    25
//! a signal stops services with those who need them ................    28
//! a probe goes on when its service has ended ......................    36
//! who needs it starts while it is being stopped ...................    36
//! one that waits for its restart is not given up ..................    67
//! one whose users are all left out is started .....................    67
//! an idle one is kept for who waits for its end ...................    67
//! one that may fail fails those who need it .......................    70
//! a failure of the run ends services ..............................    75
//! readiness is told only once .....................................   177
//! not ready in time stands though nobody needs it .................   329
//! who has not been started does not wait again ....................   411
//! who is in line starts without it ................................   411
//! a second signal leaves services .................................   411
//! who runs goes on without it .....................................   855
//! services alone go on after a failure ............................  1243
//! a late word of a probe counts ...................................  6762
//! a service is restarted after a signal ...........................  7202
//! a try in which a service was lost may be repeated ............... 15368
//! a next try does not wait for it ................................. 33760
//! who is being restarted is started again without it .............. 36442
//! ```
//!
//! Two were not caught at first. The next try that waits for nothing: too few services were restarted. The late failure: nobody asked
//! whether somebody had needed the service when it ended.

#![allow(clippy::unwrap_used, reason = "a test ends there")]

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use crate::event::{Cause, Exit, Failure, Outcome};
use crate::plan::services::is_circular;
use crate::plan::{
    Group, GroupId, Node, NodeId, Plan, QueueId, QueueKind, Role, Sink, Unit, UnitId,
};
use crate::sched::draft::Draft;
use crate::sched::order::waits;
use crate::sched::{Action, Event, Scheduler, Timer, Verdict};
use crate::spec::{AfterState, OnFailure, OnWriterFailure};

/// What kinds of trouble a world holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Anything may happen at any time.
    Wild,
    /// No signals, no timers but grace and backoff, nothing but processes that end by themselves.
    Calm,
    /// As calm, no queues, `continue`: an oracle foretells each outcome.
    Foretold,
}

/// What a process would do, left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Nature {
    /// Ends when it likes.
    Source,
    /// Ends well only at the end of all its inputs.
    Filter,
    /// Never ends by itself: `yes`. Ends when nobody reads any more.
    Endless,
    /// Ends when it is stopped, or crashes.
    Service,
}

/// How a process ended, as the world made it end.
#[derive(Debug, Clone, PartialEq)]
enum Ended {
    Well,
    Broken(Vec<QueueId>),
    Bad,
}

/// A command that says whether a node runs, while it does.
#[derive(Debug, Clone, Default)]
struct Question {
    stopped: bool,
    killed: bool,
    timed_out: bool,
}

#[derive(Debug, Clone, Default)]
struct Process {
    /// Spawned and not reaped.
    live: bool,
    /// Spawn was asked and not answered.
    due: bool,
    stopped: bool,
    killed: bool,
    /// It will crash. Decided at its start: what could crash at any time would never be seen to be stuck.
    crashes: bool,
    /// It closed its input and goes on.
    closed: bool,
    /// It closed these inputs, and waits for the end of the others.
    closed_some: Vec<QueueId>,
    /// In this try.
    ended: Option<(Ended, Option<Exit>)>,
    /// Stop or Kill came before its end.
    was_stopped: bool,
    spawned: u32,
    file: bool,
    fault: Option<String>,
    /// It was found after the process's end.
    late_fault: bool,
    timed_out: bool,
    /// It is a service and was said not to be ready in time.
    not_ready: bool,
    /// It was ready when it ended.
    was_ready: bool,
    /// Nobody needed it any more when it ended.
    was_unneeded: bool,
    committing: bool,
    committed: bool,
    failed_to_spawn: bool,
    /// Of the unit on whose behalf its node's command was asked: why that gave no answer.
    no_answer: Option<Failure>,
    commit_failed: Option<String>,
    last_failure: Option<Failure>,
    outcome: Option<Outcome>,
}

/// The queues of a unit.
#[derive(Debug, Clone, Default)]
struct QueuesOf {
    outputs: Vec<QueueId>,
    inputs: Vec<QueueId>,
    /// What it reads from disk, which is there as a whole.
    stored: Vec<QueueId>,
}

struct World<'p> {
    plan: &'p Plan,
    ends: Vec<QueuesOf>,
    kind: Kind,
    policy: OnFailure,
    jobs: u32,
    /// Of these, so many are there now. All, and for good, where they are not shared.
    slots: u32,
    shared: bool,
    /// The last that was asked for, and whether that has been answered.
    wanted: u32,
    answered: bool,
    memory: u64,
    random: fastrand::Rng,
    natures: Vec<Nature>,
    processes: Vec<Process>,
    released: BTreeSet<(QueueId, UnitId)>,
    armed: BTreeSet<Timer>,
    /// Groups between Spawn and GroupEnded.
    running: BTreeSet<GroupId>,
    tries: Vec<u32>,
    /// By node: its results come from an earlier run.
    reused: Vec<bool>,
    due: Vec<UnitId>,
    spawn_failed: Vec<bool>,
    backoff: BTreeMap<GroupId, bool>,
    started: BTreeSet<NodeId>,
    /// Commands that run, by the unit that they are asked for.
    asking: BTreeMap<UnitId, Question>,
    /// Nodes whose command was asked.
    asked: BTreeSet<NodeId>,
    /// Groups that hold their claims while they ask.
    asking_groups: BTreeSet<GroupId>,
    /// By the plan, or since the command said no.
    left_out: BTreeSet<NodeId>,
    /// Services whose probe is under way.
    probing: BTreeSet<UnitId>,
    /// Services that are ready, and not being stopped.
    ready: BTreeSet<UnitId>,
    signals: u32,
    halted: Option<Verdict>,
    run_failed: bool,
    finished: Option<Verdict>,
    log: Vec<String>,
    verbose: bool,
}

fn rank(verdict: Verdict) -> u32 {
    match verdict {
        Verdict::Succeeded => 0,
        Verdict::Failed => 1,
        Verdict::TimedOut => 2,
        Verdict::Interrupted(_) => 3,
        Verdict::Broken => 4,
    }
}

fn random_plan(random: &mut fastrand::Rng, kind: Kind) -> (Plan, Vec<Nature>) {
    let mut draft = Draft::default();
    let wild = kind == Kind::Wild;
    if wild && random.u8(..8) == 0 {
        draft.timeout = Some(Duration::from_secs(100));
    }
    let groups = random.u32(0..7);
    let resources = if random.bool() { random.usize(1..4) } else { 0 };
    // By node.
    let mut natures = Vec::new();
    for _ in 0..groups {
        let earlier = draft.nodes.len() as u32;
        let size = if kind == Kind::Foretold || random.bool() {
            1
        } else {
            random.u32(1..7)
        };
        let retries = random.u8(..4) == 0;
        for member in 0..size {
            let id = if random.u8(..4) == 0 {
                draft.pool(random.u32(1..5))
            } else {
                draft.node()
            };
            let plain = size == 1 && draft.at(id).workers.is_none();
            if plain && kind != Kind::Foretold && random.u8(..3) == 0 {
                draft.at(id).service = Some(random.bool());
            }
            for _ in 0..random.u32(0..3) {
                if earlier > 0 && (member == 0 || random.u8(..4) == 0) {
                    let other = random.u32(..earlier);
                    let is_service = draft.at(other).service.is_some();
                    let state = match random.u8(..7) {
                        0 => AfterState::Failed,
                        1 => AfterState::Finished,
                        2 => AfterState::Started,
                        3.. if is_service => AfterState::Ready,
                        _ => AfterState::Succeeded,
                    };
                    if draft
                        .at(id)
                        .after
                        .iter()
                        .all(|after| after.node.0 != other || after.state != state)
                    {
                        draft.after(id, other, state);
                    }
                }
            }
            let node = draft.at(id);
            node.allow_failure = random.u8(..8) == 0;
            node.skip = random.u8(..12) == 0;
            node.asks = random.u8(..5) == 0;
            node.slots = if random.u8(..6) == 0 {
                random.u32(0..4)
            } else {
                1
            };
            node.memory = if random.u8(..4) == 0 {
                random.u64(0..5)
            } else {
                0
            };
            if random.u8(..3) == 0 {
                node.resources = (0..resources).map(|_| random.u32(..3)).collect();
            }
            if wild {
                let has_timeout = node.service.is_none() && random.u8(..6) == 0;
                node.timeout = has_timeout.then_some(Duration::from_secs(9));
                if random.u8(..8) == 0 {
                    node.grace = Duration::ZERO;
                }
            }
            if retries && random.bool() {
                node.retry.max = random.u32(1..3);
                node.retry.jitter = random.bool();
                // Of workers that fail with different codes the first decides: nobody foretells which that is.
                let foretold_pool = kind == Kind::Foretold && node.workers.is_some();
                node.retry.on_codes = if random.u8(..3) == 0 && !foretold_pool {
                    vec![2, 3]
                } else {
                    Vec::new()
                };
            }
            // What hangs on a restart is seen only where there are many.
            if node.service.is_some() {
                node.retry.max = random.u32(..3);
            }
            if random.u8(..3) == 0 {
                node.outputs.push(vec![Draft::file()]);
            }
            if node.workers.is_some() && kind != Kind::Foretold {
                node.gathers = random.u8(..3) == 0;
            }
            if member > 0 {
                connect(&mut draft, random, earlier, id);
            }
        }
        for id in earlier..draft.nodes.len() as u32 {
            natures.push(if draft.at(id).service.is_some() {
                Nature::Service
            } else if draft.at(id).inputs.is_empty() || random.u8(..3) == 0 {
                Nature::Source
            } else {
                Nature::Filter
            });
        }
        // An endless writer needs an output whose readers all end without it.
        for id in earlier..draft.nodes.len() as u32 {
            let ends_alone = |queue: &QueueId| {
                let queue = &draft.queues[queue.index()];
                let mut readers = queue.readers.iter();
                queue.worker.is_none()
                    && readers.all(|reader| natures[*reader as usize] == Nature::Source)
            };
            let stops = draft.nodes[id as usize].outputs.iter().any(|sinks| {
                sinks
                    .iter()
                    .all(|sink| matches!(sink, Sink::Queue(queue) if ends_alone(queue)))
            });
            if stops
                && natures[id as usize] == Nature::Source
                && draft.nodes[id as usize].inputs.is_empty()
                && random.bool()
            {
                natures[id as usize] = Nature::Endless;
            }
        }
        if kind != Kind::Foretold && earlier > 0 && random.u8(..3) == 0 {
            store(&mut draft, random, earlier, &natures);
        }
    }
    draft.resources = vec![0; resources];
    let plan = draft.plan();
    // There is at least what the largest group claims, as a checked plan has it; often no more.
    for at in 0..resources {
        let is_service = |unit: &UnitId| {
            plan.nodes[plan.units[unit.index()].node.index()]
                .service
                .is_some()
        };
        let (services, others): (Vec<&Group>, Vec<&Group>) = plan
            .groups
            .iter()
            .partition(|group| group.units.iter().any(is_service));
        let claim = |group: &Group| group.resources.get(at).copied().unwrap_or(0);
        let most = others.into_iter().map(claim).max().unwrap_or(0);
        let held: u32 = services.into_iter().map(claim).sum();
        draft.resources[at] = most + held + random.u32(..2);
    }
    let plan = draft.plan();
    if is_circular(&plan) {
        return random_plan(random, kind);
    }
    let nature = |unit: &Unit| match unit.role {
        Role::Gather => Nature::Filter,
        Role::Process | Role::Worker(_) | Role::Pool => natures[unit.node.index()],
    };
    let natures = plan.units.iter().map(nature).collect();
    (plan, natures)
}

/// A stored queue from nodes before `first` to nodes from there on.
fn store(draft: &mut Draft, random: &mut fastrand::Rng, first: u32, natures: &[Nature]) {
    let some = |random: &mut fastrand::Rng, among: Range<u32>| {
        let mut some: Vec<u32> = (0..random.u32(1..3))
            .map(|_| random.u32(among.clone()))
            .collect();
        some.sort_unstable();
        some.dedup();
        some
    };
    let count = draft.nodes.len() as u32;
    let (mut writers, mut readers) = (some(random, 0..first), some(random, first..count));
    for nodes in [&mut writers, &mut readers] {
        nodes.retain(|node| draft.nodes[*node as usize].service.is_none());
    }
    if writers.is_empty() || readers.is_empty() {
        return;
    }
    let queue = draft.store(&writers, &readers);
    draft.queues[queue.index()].close = random.u8(..5) == 0;
    for writer in writers {
        let outputs = &mut draft.at(writer).outputs;
        let live = |to: &Vec<Sink>| to.iter().any(|sink| matches!(sink, Sink::Queue(_)));
        // Beside a live queue, where there is one: a copy. (Whoever never ends by itself needs that broken.)
        let beside = outputs.iter().position(live).unwrap();
        let ends = natures[writer as usize] != Nature::Endless;
        if ends && beside + 1 < outputs.len() && random.bool() {
            outputs.pop();
            outputs[beside].push(Sink::Queue(queue));
        }
    }
}

/// Joins `id` to its group, of which the members before it begin at `first`.
fn connect(draft: &mut Draft, random: &mut fastrand::Rng, first: u32, id: u32) {
    for round in 0..random.u32(1..4) {
        let writer = random.u32(first..id);
        let old: Vec<QueueId> = (0..draft.queues.len())
            .map(QueueId::from)
            .filter(|queue| {
                draft.queues[queue.index()]
                    .writers
                    .iter()
                    .all(|writer| (first..id).contains(writer))
            })
            .collect();
        match (random.u8(..6), old.is_empty()) {
            // One more reader of a queue, which is then a copy.
            (0, false) => draft.add_reader(old[random.usize(..old.len())], id),
            // One more writer: a merge. `id` reads it, so that writers come first.
            (1, false) => {
                let queue = old[random.usize(..old.len())];
                let before_readers = draft.queues[queue.index()]
                    .readers
                    .iter()
                    .all(|reader| writer < *reader);
                if before_readers && !draft.queues[queue.index()].writers.contains(&writer) {
                    draft.add_writer(queue, writer);
                }
                draft.add_reader(queue, id);
            }
            // A queue for each worker.
            (3, _) if draft.at(writer).workers.is_some() => {
                for worker in 0..draft.at(writer).workers.unwrap() {
                    let queue = draft.pipe(&[writer], &[id]);
                    draft.queues[queue.index()].worker = Some(worker);
                }
            }
            // A copy by an array of ends.
            (2, _) if !draft.at(writer).outputs.is_empty() => {
                let queue = draft.pipe(&[writer], &[id]);
                draft.at(writer).outputs.pop();
                let sinks = random.usize(..draft.at(writer).outputs.len());
                draft.at(writer).outputs[sinks].push(Sink::Queue(queue));
            }
            _ => {
                let queue = draft.pipe(&[writer], &[id]);
                draft.queues[queue.index()].close = random.u8(..5) == 0;
                if random.u8(..6) == 0 {
                    draft
                        .at(writer)
                        .outputs
                        .last_mut()
                        .unwrap()
                        .push(if random.bool() { Sink::Log } else { Sink::Null });
                }
            }
        }
        if round > 0 && random.bool() {
            break;
        }
    }
}

impl<'p> World<'p> {
    fn node_of(&self, unit: UnitId) -> NodeId {
        self.plan.units[unit.index()].node
    }

    fn declared(&self, unit: UnitId) -> &'p Node {
        &self.plan.nodes[self.node_of(unit).index()]
    }

    fn units_of(&self, node: NodeId) -> impl Iterator<Item = UnitId> + Clone + use<> {
        self.plan.nodes[node.index()].units.clone().map(UnitId)
    }

    /// The other units of its node.
    fn mates(&self, unit: UnitId) -> impl Iterator<Item = UnitId> + Clone + use<> {
        self.units_of(self.node_of(unit))
            .filter(move |other| *other != unit)
    }

    fn skip(&self, unit: UnitId) -> bool {
        self.left_out.contains(&self.node_of(unit))
    }

    fn is_reused(&self, unit: UnitId) -> bool {
        self.reused[self.node_of(unit).index()]
    }

    fn may_fail(&self, unit: UnitId) -> bool {
        self.declared(unit).allow_failure
    }

    fn process(&mut self, unit: UnitId) -> &mut Process {
        &mut self.processes[unit.index()]
    }

    fn outputs(&self, unit: UnitId) -> Vec<QueueId> {
        self.ends[unit.index()].outputs.clone()
    }

    fn is_stored(&self, queue: QueueId) -> bool {
        self.plan.queues[queue.index()].kind == QueueKind::Stored
    }

    /// Those that it hangs on while it runs.
    fn inputs(&self, unit: UnitId) -> Vec<QueueId> {
        self.ends[unit.index()].inputs.clone()
    }

    fn has_file(&self, unit: UnitId) -> bool {
        self.plan.units[unit.index()]
            .ends
            .outputs
            .iter()
            .flat_map(|o| &o.to)
            .any(|s| matches!(s, Sink::File { .. }))
    }

    /// Nobody can read from it.
    fn is_broken(&self, queue: QueueId) -> bool {
        let mut readers = self.plan.queues[queue.index()].readers.iter();
        !self.is_stored(queue)
            && readers.all(|reader| {
                let process = &self.processes[reader.index()];
                !process.due
                    && (!process.live || process.closed || process.closed_some.contains(&queue))
            })
    }

    /// Readers see the end of data.
    fn has_ended(&self, queue: QueueId) -> bool {
        self.plan.queues[queue.index()]
            .writers
            .iter()
            .all(|writer| self.skip(*writer) || self.released.contains(&(queue, *writer)))
    }

    /// Its own end was one after which readers may see the end of data.
    fn ended_well(&self, unit: UnitId, depth: u32) -> bool {
        if self.skip(unit) || self.is_reused(unit) {
            return true;
        }
        let process = &self.processes[unit.index()];
        if self.is_service(unit) {
            return process.commit_failed.is_none() && self.is_unneeded(unit);
        }
        match &process.ended {
            // A file that cannot be put in place comes too late for those who wrote to its unit: it had read what it wanted. So
            // may a fault that its relay found.
            _ if process.commit_failed.is_some() && depth == 0 => self.may_fail(unit),
            Some((Ended::Well, _)) if process.late_fault && depth > 0 => true,
            _ if process.fault.is_some() || process.timed_out => self.may_fail(unit),
            _ if process.was_stopped => false,
            Some((Ended::Well, _)) => true,
            Some((Ended::Broken(_), _)) if self.may_fail(unit) => true,
            Some((Ended::Broken(broken), _)) => broken.iter().any(|queue| {
                self.plan.queues[queue.index()]
                    .readers
                    .iter()
                    .all(|reader| self.ended_well(*reader, depth + 1))
            }),
            Some((Ended::Bad, _)) => self.may_fail(unit),
            None => false,
        }
    }

    /// As far as it alone is concerned; nothing is forgiven it.
    fn did_its_work(&self, unit: UnitId) -> bool {
        let process = &self.processes[unit.index()];
        matches!(process.ended, Some((Ended::Well | Ended::Broken(_), _)))
            && !process.was_stopped
            && !process.timed_out
            && process.fault.is_none()
            && matches!(process.outcome, None | Some(Outcome::Succeeded { .. }))
    }

    fn good(&self, unit: UnitId) -> bool {
        match &self.processes[unit.index()].outcome {
            Some(
                Outcome::Succeeded { .. }
                | Outcome::Reused
                | Outcome::Skipped(Cause::ByUser | Cause::When(_)),
            ) => true,
            Some(Outcome::Failed(Failure::CannotStart { .. } | Failure::Condition(_))) => false,
            Some(Outcome::Failed(_)) => self.may_fail(unit),
            Some(Outcome::Cancelled(Cause::Pool(_))) => {
                let started = |mate: UnitId| {
                    let mate = &self.processes[mate.index()];
                    !mate.failed_to_spawn && mate.no_answer.is_none()
                };
                self.may_fail(unit) && self.mates(unit).all(started)
            }
            _ => false,
        }
    }

    /// All units whose failure would take back a file of this one.
    fn upstream(&self, unit: UnitId) -> BTreeSet<UnitId> {
        let mut found = BTreeSet::new();
        let mut todo = vec![unit];
        while let Some(at) = todo.pop() {
            for queue in self.inputs(at) {
                if self.plan.queues[queue.index()].on_writer_failure == OnWriterFailure::Close {
                    continue;
                }
                for writer in &self.plan.queues[queue.index()].writers {
                    if !self.skip(*writer) && found.insert(*writer) {
                        todo.push(*writer);
                    }
                }
            }
        }
        found
    }

    /// All its units have an outcome of which this holds; none while one has no outcome.
    fn all_ended(&self, node: NodeId, holds: impl Fn(&Outcome) -> bool) -> Option<bool> {
        let mut all = true;
        for unit in self.units_of(node) {
            all &= holds(self.processes[unit.index()].outcome.as_ref()?);
        }
        Some(all)
    }

    /// A unit of it failed, or was cancelled.
    fn has_failed(&self, node: NodeId) -> bool {
        self.units_of(node).any(|unit| {
            matches!(
                self.processes[unit.index()].outcome,
                Some(Outcome::Failed(_) | Outcome::Cancelled(_))
            )
        })
    }

    /// The services that a node needs.
    fn needs(&self, node: NodeId) -> impl Iterator<Item = UnitId> {
        let plan = self.plan;
        let waits = plan.nodes[node.index()].after.iter();
        waits.filter_map(move |wait| {
            let other = &plan.nodes[wait.node.index()];
            let needed = matches!(wait.state, AfterState::Started | AfterState::Ready);
            (needed && other.service.is_some()).then_some(UnitId(other.units.start))
        })
    }

    fn is_service(&self, unit: UnitId) -> bool {
        self.declared(unit).service.is_some()
    }

    fn has_ended_for_good(&self, node: NodeId) -> bool {
        let mut units = self.units_of(node);
        units.all(|unit| self.processes[unit.index()].outcome.is_some())
    }

    /// Who needs a service and was not left out.
    fn users(&self, service: UnitId) -> Vec<NodeId> {
        let all = (0..self.plan.nodes.len()).map(NodeId::from);
        all.filter(|node| {
            !self.plan.nodes[node.index()].is_left_out()
                && self.needs(*node).any(|unit| unit == service)
        })
        .collect()
    }

    /// Nobody who would need this service is left: of one that nobody ever waits for, none that is to run beside it.
    fn is_unneeded(&self, service: UnitId) -> bool {
        let all = || (0..self.plan.nodes.len()).map(NodeId::from);
        if all().any(|node| self.needs(node).any(|unit| unit == service)) {
            let users = self.users(service);
            return users.into_iter().all(|user| self.has_ended_for_good(user));
        }
        let plain = |node: &NodeId| self.plan.nodes[node.index()].service.is_none();
        if !all().any(|node| plain(&node)) {
            return self.run_failed;
        }
        let late = self.late();
        all()
            .filter(|node| plain(node) && !late.contains(node))
            .all(|node| self.has_ended_for_good(node))
    }

    /// Nodes that wait, through others, for the end of a service.
    fn late(&self) -> BTreeSet<NodeId> {
        let mut late = BTreeSet::new();
        loop {
            let before = late.len();
            for (id, node) in self.plan.nodes.iter().enumerate() {
                let waits = node.after.iter().any(|wait| {
                    let service = self.plan.nodes[wait.node.index()].service.is_some();
                    let end = !matches!(wait.state, AfterState::Started | AfterState::Ready);
                    late.contains(&wait.node) || service && end
                });
                if waits {
                    let group = self.plan.units[node.units.start as usize].group;
                    let units = &self.plan.groups[group.index()].units;
                    late.extend(units.iter().map(|unit| self.node_of(*unit)));
                    late.insert(NodeId::from(id));
                }
            }
            if late.len() == before {
                return late;
            }
        }
    }

    /// A service that it needs has ended, and not as it should.
    fn has_lost_service(&self, node: NodeId) -> bool {
        self.needs(node).any(|unit| {
            let outcome = &self.processes[unit.index()].outcome;
            outcome.as_ref().is_some_and(|outcome| match outcome {
                Outcome::Succeeded { .. }
                | Outcome::Reused
                | Outcome::Skipped(Cause::ByUser | Cause::When(_) | Cause::NotNeeded) => false,
                Outcome::Failed(_) | Outcome::Cancelled(_) => !self.may_fail(unit),
                Outcome::Skipped(_) => true,
            })
        })
    }

    fn condition(&self, node: NodeId, state: AfterState) -> Option<bool> {
        let declared = &self.plan.nodes[node.index()];
        let failed = self.has_failed(node);
        let passes = |outcome: &Outcome| match outcome {
            Outcome::Succeeded { .. }
            | Outcome::Reused
            | Outcome::Skipped(Cause::ByUser | Cause::When(_) | Cause::NotNeeded) => true,
            Outcome::Failed(_) | Outcome::Cancelled(_) => declared.allow_failure,
            // A worker that was not started since another could not be.
            Outcome::Skipped(_) => failed && declared.allow_failure,
        };
        match state {
            AfterState::Succeeded => self.all_ended(node, passes),
            AfterState::Finished => self.all_ended(node, |_| true),
            AfterState::Failed => self.all_ended(node, |_| failed),
            AfterState::Ready if self.ready.contains(&UnitId(declared.units.start)) => Some(true),
            AfterState::Ready => self.all_ended(node, passes),
            AfterState::Started if declared.service.is_some() => {
                match self.all_ended(node, passes) {
                    None if self.started.contains(&node) => Some(true),
                    ended => ended,
                }
            }
            AfterState::Started if self.started.contains(&node) => Some(true),
            AfterState::Started => self.all_ended(node, passes),
        }
    }

    /// What it reads from disk is whole. None while writers have no end.
    fn is_whole(&self, unit: UnitId) -> Option<bool> {
        for queue in &self.ends[unit.index()].stored {
            let queue = &self.plan.queues[queue.index()];
            for writer in &queue.writers {
                self.processes[writer.index()].outcome.as_ref()?;
                let mut all = self.units_of(self.node_of(*writer));
                if queue.on_writer_failure == OnWriterFailure::Cancel
                    && all.any(|unit| {
                        self.processes[unit.index()].outcome.is_some() && !self.good(unit)
                    })
                {
                    return Some(false);
                }
            }
        }
        Some(true)
    }

    fn conditions(&self, group: GroupId) -> Option<bool> {
        let mut all = Some(true);
        for unit in &self.plan.groups[group.index()].units {
            if self.skip(*unit) {
                continue;
            }
            let after = waits(self.plan, self.node_of(*unit)).into_iter();
            let conditions = after.map(|after| self.condition(after.node, after.state));
            for holds in conditions.chain([self.is_whole(*unit)]) {
                match holds {
                    Some(true) => {}
                    Some(false) => return Some(false),
                    None => all = None,
                }
            }
        }
        all
    }

    fn is_cleanup(&self, group: GroupId) -> bool {
        self.plan.groups[group.index()].units.iter().any(|unit| {
            !self.declared(*unit).is_left_out()
                && self
                    .declared(*unit)
                    .after
                    .iter()
                    .any(|after| matches!(after.state, AfterState::Failed | AfterState::Finished))
        })
    }

    /// Groups that hold what they claim.
    fn holders(&self) -> impl Iterator<Item = &GroupId> {
        let asks = |group: &&GroupId| self.is_asking(**group);
        self.running
            .iter()
            .chain(self.asking_groups.iter().filter(asks))
    }

    fn is_asking(&self, group: GroupId) -> bool {
        let mut asked = self.asking.keys();
        asked.any(|unit| self.plan.units[unit.index()].group == group)
    }

    fn used(&self) -> (u32, u64) {
        let groups = self.holders().map(|group| &self.plan.groups[group.index()]);
        groups.fold((0, 0), |(slots, memory), group| {
            (slots + group.slots, memory + group.memory)
        })
    }

    /// What all groups that run hold of a resource.
    fn held(&self, resource: usize) -> u32 {
        let claims = self.holders().map(|group| {
            let claims = &self.plan.groups[group.index()].resources;
            claims.get(resource).copied().unwrap_or(0)
        });
        claims.sum()
    }

    fn resources_fit(&self, group: GroupId) -> bool {
        let claims = &self.plan.groups[group.index()].resources;
        let mut resources = claims.iter().zip(&self.plan.resources).enumerate();
        resources.all(|(at, (claim, there_is))| self.held(at) + claim <= there_is.amount)
    }

    /// Slots that are said to be spare are: nobody uses them, and nobody waits for any. And all that are not used are, where nobody
    /// waits; or others would never get them.
    fn judge_spare(&self, spare: u32) {
        let used = self.used().0.max(1);
        if self.wanted > 0 {
            assert_eq!(spare, 0, "given away and wanted");
        } else {
            assert_eq!(spare, self.slots.saturating_sub(used));
        }
    }

    fn fits(&self, group: GroupId) -> bool {
        if !self.resources_fit(group) {
            return false;
        }
        let (slots, memory) = self.used();
        let claim = &self.plan.groups[group.index()];
        // What claims nothing fits beside a group that is larger than the machine, too.
        let slots = claim.slots == 0 || slots + claim.slots <= self.slots;
        let memory = claim.memory == 0 || memory + claim.memory <= self.memory;
        // What runs alone has asked for what it could get before.
        let asked =
            self.slots == self.jobs || self.answered && self.wanted >= claim.slots.min(self.jobs);
        let mut running = self.holders();
        let only_services = running.all(|group| {
            let units = &self.plan.groups[group.index()].units;
            units.iter().all(|unit| self.is_service(*unit))
        });
        only_services && asked || slots && memory
    }

    /// Does an action, and judges it.
    fn act(&mut self, action: &Action) {
        assert!(self.finished.is_none(), "{action:?} after Finish");
        match action {
            Action::Ask(unit) => {
                let node = self.node_of(*unit);
                let group = self.plan.units[unit.index()].group;
                assert!(self.halted.is_none(), "asked after shutdown");
                assert!(self.declared(*unit).asks.is_some() && !self.skip(*unit));
                assert_eq!(self.declared(*unit).units.start, unit.0);
                assert_eq!(self.tries[group.index()], 0, "asked too late");
                assert!(!self.is_asking(group), "two at once in {group:?}");
                if self.asking_groups.insert(group) {
                    assert!(self.fits(group), "no room for {group:?}");
                }
                assert_eq!(self.conditions(group), Some(true), "{action:?} too early");
                assert!(
                    !self.run_failed || self.is_cleanup(group) || self.is_service(*unit),
                    "{action:?} after the run has failed"
                );
                assert!(self.asked.insert(node), "{action:?} twice");
                self.asking.insert(*unit, Question::default());
            }
            Action::Stop(unit) if self.asking.contains_key(unit) => {
                self.judge_no_answer(*unit);
                let question = self.asking.get_mut(unit).unwrap();
                assert!(!question.stopped && !question.killed, "{action:?} twice");
                question.stopped = true;
            }
            Action::Kill(unit) if self.asking.contains_key(unit) => {
                self.judge_no_answer(*unit);
                let question = self.asking.get_mut(unit).unwrap();
                assert!(!question.killed, "{action:?} twice");
                question.killed = true;
            }
            Action::Spawn { group, attempt } => {
                assert!(self.halted.is_none(), "start after shutdown");
                if !self.asking_groups.remove(group) {
                    assert!(self.fits(*group), "no room for {group:?}");
                }
                assert!(!self.is_asking(*group), "{group:?} before its answer");
                assert!(!self.has_no_answer(*group), "{group:?} without an answer");
                for unit in &self.plan.groups[group.index()].units {
                    let answered = self.asked.contains(&self.node_of(*unit));
                    assert!(self.declared(*unit).asks.is_none() || answered);
                }
                assert_eq!(*attempt, self.tries[group.index()] + 1);
                if *attempt == 1 {
                    assert_eq!(
                        self.conditions(*group),
                        Some(true),
                        "{group:?} before its conditions"
                    );
                    let first = self.plan.groups[group.index()].units[0];
                    assert!(
                        !self.run_failed || self.is_cleanup(*group) || self.is_service(first),
                        "{group:?} after the run has failed"
                    );
                    assert!(
                        !self.is_service(first) || !self.is_unneeded(first),
                        "{first:?} is started for nobody"
                    );
                } else {
                    assert!(
                        self.services_are_ready(*group),
                        "{group:?} again, without its services"
                    );
                    assert_eq!(
                        self.backoff.remove(group),
                        Some(true),
                        "{group:?} without its delay"
                    );
                }
                assert!(self.running.insert(*group));
                self.tries[group.index()] += 1;
                self.spawn_failed[group.index()] = false;
                for unit in &self.plan.groups[group.index()].units {
                    for queue in self.outputs(*unit) {
                        self.released.remove(&(queue, *unit));
                    }
                    if self.skip(*unit) {
                        continue;
                    }
                    let often = if self.is_service(*unit) { 2 } else { 5 };
                    let crashes = self.random.u8(..often) == 0;
                    let process = self.process(*unit);
                    assert!(
                        process.outcome.is_none() && !process.live && !process.due && !process.file
                    );
                    *process = Process {
                        crashes,
                        due: true,
                        spawned: process.spawned,
                        ..Process::default()
                    };
                    self.due.push(*unit);
                }
            }
            Action::Probe(unit) => {
                let service = self.declared(*unit).service.as_ref();
                assert!(service.is_some_and(|service| service.ready.is_some()));
                let process = self.process(*unit);
                assert!(process.live && !process.stopped && !process.killed);
                assert!(!self.ready.contains(unit) && self.probing.insert(*unit));
            }
            Action::StopProbe(unit) => assert!(self.probing.remove(unit), "{action:?}"),
            Action::Ready(unit) => {
                let process = self.process(*unit);
                assert!(process.live && !process.stopped && !process.killed);
                assert!(self.is_service(*unit) && !self.probing.contains(unit));
                assert!(self.ready.insert(*unit), "{action:?} twice");
            }
            Action::Stop(unit) => {
                self.judge_stop(*unit);
                let process = self.process(*unit);
                assert!(
                    process.live && !process.stopped && !process.killed,
                    "{action:?} to {process:?}"
                );
                (process.stopped, process.was_stopped) = (true, true);
                self.ready.remove(unit);
                assert!(!self.probing.contains(unit), "{unit:?} is probed on");
            }
            Action::Kill(unit) => {
                if !self.processes[unit.index()].stopped {
                    self.judge_stop(*unit);
                }
                self.ready.remove(unit);
                let process = self.process(*unit);
                assert!(process.live && !process.killed, "{action:?} to {process:?}");
                (process.killed, process.was_stopped) = (true, true);
            }
            Action::Arm(timer, _) => assert!(self.armed.insert(*timer), "{timer:?} is armed twice"),
            Action::Disarm(timer) => assert!(self.armed.remove(timer), "{timer:?} is not armed"),
            Action::Release {
                queue,
                writer,
                torn,
            } => {
                let plan = &self.plan.queues[queue.index()];
                assert!(plan.writers.contains(writer));
                assert!(
                    self.running
                        .contains(&self.plan.units[writer.index()].group),
                    "{action:?} of no try"
                );
                assert!(!self.process(*writer).live, "{action:?} while it writes");
                assert!(self.released.insert((*queue, *writer)), "{action:?} twice");
                let close =
                    self.plan.queues[queue.index()].on_writer_failure == OnWriterFailure::Close;
                assert!(
                    close || self.ended_well(*writer, 0),
                    "{action:?}: a crash looks like the end of data"
                );
                assert!(close || !torn);
            }
            Action::Commit(unit) => {
                assert!(self.has_file(*unit) && self.ended_well(*unit, 0));
                for other in self.upstream(*unit) {
                    assert!(
                        self.good(other),
                        "{action:?} but {other:?} is {:?}",
                        self.process(other).outcome
                    );
                }
                for mate in self.mates(*unit) {
                    assert!(
                        self.plan.units[mate.index()].role == Role::Gather
                            || self.did_its_work(mate),
                        "{action:?} but {mate:?}, of the same pool, is {:?}",
                        self.processes[mate.index()]
                    );
                }
                let process = self.process(*unit);
                assert!(process.file && !process.committing && !process.committed);
                process.committing = true;
            }
            Action::Discard(unit) => {
                let process = self.process(*unit);
                assert!(process.file && !process.live);
                process.file = false;
            }
            Action::GroupEnded(group) => {
                assert!(self.running.remove(group));
                for unit in &self.plan.groups[group.index()].units {
                    let process = self.process(*unit);
                    assert!(
                        !process.live && !process.due && !process.committing && !process.file,
                        "{action:?}: {unit:?}"
                    );
                }
            }
            Action::Ended(unit, outcome) => {
                let process = self.process(*unit);
                assert!(process.outcome.is_none(), "{unit:?} ends twice");
                assert!(
                    !process.live && !process.due && !process.file && !process.committing,
                    "{action:?}"
                );
                process.outcome = Some(outcome.clone());
                self.judge(*unit, outcome);
                if !self.may_fail(*unit) && is_fault(outcome) && self.policy != OnFailure::Continue
                {
                    self.run_failed = true;
                }
            }
            Action::Retrying {
                unit,
                attempt,
                failure,
                delay,
            } => {
                let group = self.plan.units[unit.index()].group;
                assert!(self.halted.is_none());
                assert_eq!(*attempt, self.tries[group.index()]);
                let settings = &self.plan.units[unit.index()].settings;
                assert!(
                    *attempt
                        <= self.plan.groups[group.index()]
                            .units
                            .iter()
                            .filter(|u| u.0 == self.declared(**u).units.start)
                            .map(|u| self.plan.units[u.index()].settings.retry.max)
                            .sum()
                );
                assert_eq!(Some(failure), self.failure(*unit).as_ref());
                assert!(*delay <= settings.retry.max_delay && *delay * 2 >= settings.retry.delay);
                self.process(*unit).last_failure = Some(failure.clone());
                self.backoff.insert(group, false);
            }
            Action::Stopping(_) => {}
            Action::WantSlots(slots) => {
                assert!(self.shared && *slots != self.wanted && *slots <= self.jobs);
                assert!(*slots == 0 || *slots > self.slots);
                (self.wanted, self.answered) = (*slots, false);
            }
            Action::Finish(verdict) => {
                self.finished = Some(*verdict);
                self.judge_all(*verdict);
            }
        }
    }

    /// All services that its members wait for to be ready are, or need not be.
    fn services_are_ready(&self, group: GroupId) -> bool {
        let units = self.plan.groups[group.index()].units.iter();
        units.filter(|unit| !self.skip(**unit)).all(|unit| {
            let mut waits = self.declared(*unit).after.iter();
            waits.all(|wait| {
                wait.state != AfterState::Ready
                    || self.condition(wait.node, wait.state) == Some(true)
            })
        })
    }

    /// A command is stopped for a reason.
    fn judge_no_answer(&self, unit: UnitId) {
        let group = self.plan.units[unit.index()].group;
        let mut units = self.plan.groups[group.index()].units.iter();
        let spared = self.is_cleanup(group) || self.is_service(unit);
        assert!(
            self.halted.is_some()
                || self.run_failed && !spared
                || self.asking[&unit].timed_out
                || self.is_service(unit) && self.is_unneeded(unit)
                || units.any(|unit| self.has_lost_service(self.node_of(*unit))),
            "{unit:?} is asked no more, and why?"
        );
    }

    /// A service is stopped for a reason.
    fn judge_stop(&self, unit: UnitId) {
        if !self.is_service(unit) {
            return;
        }
        let killed = self.signals >= 2 || self.halted == Some(Verdict::Broken);
        let why = self.processes[unit.index()].not_ready
            || self.is_unneeded(unit)
            || self.has_lost_service(self.node_of(unit));
        if self.halted.is_some() && !killed && !why {
            // What nobody needs ever is stopped with the others; what somebody needs is not before these.
            let users = self.users(unit);
            let lives = |user: &NodeId| {
                let mut units = self.units_of(*user);
                units.any(|unit| self.processes[unit.index()].live)
            };
            assert!(
                !users.iter().any(lives),
                "{unit:?} is stopped before those who need it"
            );
        } else if self.halted.is_none() {
            assert!(why, "{unit:?} is stopped, and needed");
        }
    }

    /// The failure of a unit by itself, as the world made it.
    fn failure(&self, unit: UnitId) -> Option<Failure> {
        let process = &self.processes[unit.index()];
        if let Some(failure) = &process.no_answer {
            return Some(Failure::Condition(Box::new(failure.clone())));
        }
        if process.failed_to_spawn {
            return Some(Failure::CannotStart {
                code: 127,
                why: "no".to_owned(),
            });
        }
        if let Some(why) = process.commit_failed.as_ref().or(process.fault.as_ref()) {
            return Some(Failure::Result(why.clone()));
        }
        if process.timed_out {
            return Some(Failure::TimedOut(Duration::from_secs(9)));
        }
        if process.not_ready {
            return Some(Failure::NotReady("shy".to_owned()));
        }
        if let Some((_, Some(exit))) = process.ended
            && self.is_service(unit)
            && !process.was_stopped
        {
            let ready = process.was_ready;
            return Some(Failure::Ended { exit, ready });
        }
        match process.ended {
            Some((Ended::Bad | Ended::Broken(_), Some(exit))) if !process.was_stopped => {
                Some(Failure::Exit(exit))
            }
            _ => process.last_failure.clone(),
        }
    }

    /// One outcome, against what the world did to that unit.
    fn judge(&mut self, unit: UnitId, outcome: &Outcome) {
        let process = &self.processes[unit.index()];
        let spawned = process.spawned > 0;
        match outcome {
            Outcome::Succeeded { early_close } if self.is_service(unit) => {
                assert!(spawned && !early_close);
                assert!(self.is_unneeded(unit), "{unit:?} was needed");
                // One that was to be restarted when the last that needed it ended has nothing to show.
                let crashed = !process.was_stopped || process.not_ready;
                assert!(process.committed || crashed || !self.has_file(unit));
            }
            Outcome::Succeeded { early_close } => {
                let by_itself =
                    !process.was_stopped && process.fault.is_none() && !process.timed_out;
                let well = by_itself && !matches!(process.ended, Some((Ended::Bad, _)) | None);
                assert!(
                    well && self.ended_well(unit, 0),
                    "{unit:?} {outcome:?}: {process:?}"
                );
                let broken = matches!(process.ended, Some((Ended::Broken(_), _)));
                assert_eq!(*early_close, broken);
                assert_eq!(process.committed, self.has_file(unit));
            }
            Outcome::Failed(failure) => {
                assert_eq!(Some(failure), self.failure(unit).as_ref(), "{process:?}");
                let by_itself = matches!(failure, Failure::NotReady(_) | Failure::Ended { .. });
                assert!(
                    !by_itself || !process.was_unneeded,
                    "{unit:?} failed nobody"
                );
            }
            Outcome::Cancelled(cause) => {
                assert!(spawned);
                assert!(!process.committed);
                match cause {
                    Cause::Writer { .. } | Cause::Reader { .. } => {}
                    Cause::RunFailed(_) => assert_eq!(self.policy, OnFailure::Kill),
                    Cause::RunTimeout | Cause::Interrupted(_) | Cause::Broken => {
                        assert!(self.halted.is_some())
                    }
                    Cause::Pool(node) => {
                        assert!(self.mates(unit).count() > 0 && *node == self.node_of(unit))
                    }
                    Cause::After { .. } => {
                        assert!(
                            self.has_lost_service(self.node_of(unit)),
                            "{unit:?}: {cause:?}"
                        );
                    }
                    Cause::NeverFailed(_) | Cause::ByUser | Cause::When(_) | Cause::NotNeeded => {
                        panic!("{unit:?} {outcome:?}")
                    }
                }
            }
            Outcome::Reused => assert!(!spawned && self.is_reused(unit)),
            Outcome::Skipped(cause) => {
                assert!(!spawned);
                match cause {
                    Cause::ByUser | Cause::When(_) => assert!(self.skip(unit)),
                    Cause::NotNeeded => {
                        assert!(self.is_service(unit) && self.is_unneeded(unit));
                    }
                    Cause::RunFailed(_) => {
                        assert!(!self.is_service(unit));
                        assert!(!self.is_cleanup(self.plan.units[unit.index()].group));
                    }
                    Cause::RunTimeout | Cause::Interrupted(_) | Cause::Broken => {
                        assert!(self.halted.is_some())
                    }
                    Cause::Pool(_)
                    | Cause::After { .. }
                    | Cause::NeverFailed(_)
                    | Cause::Writer { .. }
                    | Cause::Reader { .. } => {}
                }
            }
        }
    }

    /// Everything, at the end.
    fn judge_all(&self, verdict: Verdict) {
        assert!(self.asking.is_empty(), "{:?} are asked", self.asking);
        assert!(self.armed.is_empty(), "{:?} is still armed", self.armed);
        assert!(self.running.is_empty() && self.due.is_empty());
        assert!(self.probing.is_empty() && self.ready.is_empty());
        let mut expected = Verdict::Succeeded;
        for (id, process) in self.processes.iter().enumerate() {
            let unit = UnitId::from(id);
            let Some(outcome) = &process.outcome else {
                panic!("{unit:?} has no end")
            };
            if is_fault(outcome) && !self.may_fail(unit) {
                expected = Verdict::Failed;
            }
            let group = self.plan.units[id].group;
            if let Outcome::Cancelled(cause) | Outcome::Skipped(cause) = outcome {
                self.judge_cause(unit, cause);
            }
            // Nothing is left out that could have run.
            let left_out = self.halted.is_some() || self.run_failed && !self.is_cleanup(group);
            let left_out = match outcome {
                Outcome::Skipped(Cause::NotNeeded) => true,
                // A failure of the run leaves them to those who need them.
                _ if self.has_no_answer(group) => true,
                _ if self.is_service(unit) => self.halted.is_some(),
                _ => left_out,
            };
            assert_eq!(*outcome == Outcome::Reused, self.is_reused(unit));
            let runs = !self.skip(unit) && !self.is_reused(unit);
            if self.tries[group.index()] == 0 && runs && !left_out {
                assert_eq!(
                    self.conditions(group),
                    Some(false),
                    "{unit:?} is {outcome:?}"
                );
            }
        }
        if let Some(halted) = self.halted {
            expected = halted;
        }
        assert_eq!(verdict, expected);
        if self.kind == Kind::Foretold {
            self.foretell();
        }
    }

    /// A command of the group gave no answer.
    fn has_no_answer(&self, group: GroupId) -> bool {
        let mut units = self.plan.groups[group.index()].units.iter();
        units.any(|unit| self.processes[unit.index()].no_answer.is_some())
    }

    /// A cause names a neighbour that did end so, and a root that did fail.
    fn judge_cause(&self, unit: UnitId, cause: &Cause) {
        let own = self.node_of(unit);
        let group = self.plan.units[unit.index()].group;
        let same_group = |node: &NodeId| {
            self.units_of(*node)
                .all(|other| self.plan.units[other.index()].group == group)
        };
        let failed = |root: &NodeId| {
            let outcome = |unit: UnitId| &self.processes[unit.index()].outcome;
            let mut units = self.units_of(*root);
            assert!(
                units.any(|unit| matches!(outcome(unit), Some(Outcome::Failed(_)))),
                "{unit:?}: no unit of the root of {cause:?} failed"
            );
        };
        match cause {
            Cause::Writer { node, root } | Cause::Reader { node, root } => {
                assert!(same_group(node) && *node != own, "{unit:?}: {cause:?}");
                let downstream = matches!(cause, Cause::Reader { .. });
                let of_node =
                    |units: &[UnitId]| units.iter().any(|unit| self.node_of(*unit) == *node);
                // What stops one worker stops all.
                let mut found = self.units_of(own).map(|unit| {
                    if downstream {
                        self.could_lose(unit, of_node)
                    } else {
                        let mut queues = self.inputs(unit).into_iter();
                        queues.any(|q| of_node(&self.plan.queues[q.index()].writers))
                            || self.upstream(unit).into_iter().any(|unit| of_node(&[unit]))
                    }
                });
                assert!(
                    found.any(|found| found),
                    "{unit:?}: {cause:?} is no neighbour"
                );
                failed(root);
            }
            Cause::Pool(node) => {
                assert_eq!(*node, own);
                failed(node);
            }
            Cause::After { node, root } => {
                let mut after = waits(self.plan, self.node_of(unit)).into_iter();
                assert!(after.any(|after| after.node == *node));
                failed(root);
            }
            Cause::RunFailed(root) => failed(root),
            Cause::NeverFailed(node) => assert!(!self.has_failed(*node)),
            Cause::RunTimeout => assert!(self.halted.is_some_and(|v| rank(v) >= 2)),
            Cause::Interrupted(_) => assert!(self.halted.is_some_and(|v| rank(v) >= 3)),
            Cause::Broken => assert_eq!(self.halted, Some(Verdict::Broken)),
            Cause::ByUser | Cause::When(_) | Cause::NotNeeded => {}
        }
    }

    /// It has an output that is for nobody when those readers are lost; or all were lost before they began.
    fn could_lose(&self, unit: UnitId, readers: impl Fn(&[UnitId]) -> bool) -> bool {
        let process = &self.processes[unit.index()];
        let group = self.plan.units[unit.index()].group;
        // Who died of a queue has lost that one, whatever else it wrote.
        let any_will_do = self.spawn_failed[group.index()]
            || process.spawned == 0
            || matches!(process.ended, Some((Ended::Broken(_), _)));
        let lost = |sink: &Sink| match sink {
            Sink::Queue(queue) => {
                !self.is_stored(*queue) && readers(&self.plan.queues[queue.index()].readers)
            }
            _ => false,
        };
        let mut outputs = self.plan.units[unit.index()].ends.outputs.iter();
        outputs.any(|output| {
            let mut sinks = output.to.iter();
            sinks.clone().any(lost) && (any_will_do || sinks.all(|sink| self.is_for_readers(sink)))
        })
    }

    /// It is of use only while somebody reads it now.
    fn is_for_readers(&self, sink: &Sink) -> bool {
        match sink {
            Sink::Queue(queue) => !self.is_stored(*queue),
            other => matches!(other, Sink::Null),
        }
    }

    /// Without queues, signals and time each outcome follows from the exits alone.
    fn foretell(&self) {
        for (id, node) in self.plan.nodes.iter().enumerate() {
            let (id, first) = (NodeId::from(id), UnitId(node.units.start));
            let met = waits(self.plan, id)
                .iter()
                .all(|after| self.condition(after.node, after.state) == Some(true));
            let retry = &self.plan.units[first.index()].settings.retry;
            let mut tries = 1;
            let codes = |tries| self.units_of(id).map(move |unit| foretold(unit, tries));
            let failed = |tries| {
                let again = |code| {
                    code > 0 && (retry.on_codes.is_empty() || retry.on_codes.contains(&code))
                };
                codes(tries).any(again)
            };
            while failed(tries) && tries <= retry.max {
                tries += 1;
            }
            let group = self.plan.units[first.index()].group;
            if self.reused[id.index()] {
                continue;
            }
            let left_out = self.left_out.contains(&id);
            if !left_out && met {
                assert_eq!(self.tries[group.index()], tries, "{id:?}");
            }
            let some_failed = codes(tries).any(|code| code > 0);
            assert!(node.asks.is_none() || !met || left_out != foretold_answer(id));
            assert!(!met || left_out || some_failed == self.has_failed(id));
            for unit in self.units_of(id) {
                let outcome = self.processes[unit.index()].outcome.as_ref().unwrap();
                let code = foretold(unit, tries);
                let as_foretold = match outcome {
                    Outcome::Skipped(Cause::ByUser | Cause::When(_)) => left_out,
                    Outcome::Skipped(Cause::After { .. } | Cause::NeverFailed(_)) => !met,
                    _ if left_out || !met => false,
                    Outcome::Succeeded { early_close } => {
                        code == 0 && !early_close && !(some_failed && self.has_file(unit))
                    }
                    Outcome::Failed(failure) => *failure == Failure::Exit(Exit::Code(code)),
                    // Of several that fail the first is the one to blame; if all of them may, nobody is stopped.
                    Outcome::Cancelled(Cause::Pool(pool)) => {
                        let others_failed = self.mates(unit).any(|mate| {
                            matches!(
                                self.processes[mate.index()].outcome,
                                Some(Outcome::Failed(_))
                            )
                        });
                        let for_its_file = code == 0 && self.has_file(unit);
                        *pool == id && others_failed && (!node.allow_failure || for_its_file)
                    }
                    _ => false,
                };
                assert!(
                    as_foretold,
                    "{unit:?} {outcome:?}, try {tries}, code {code}"
                );
            }
        }
    }

    /// What must hold between any two events.
    fn check(&mut self) {
        if self.finished.is_some() {
            return;
        }
        let mut waits = false;
        // They have begun, or have been given up.
        let asking: BTreeSet<GroupId> = self
            .asking
            .keys()
            .map(|unit| self.plan.units[unit.index()].group)
            .collect();
        self.asking_groups.retain(|group| asking.contains(group));
        for id in 0..self.plan.groups.len() {
            let group = GroupId::from(id);
            let left_out = self.plan.groups[id]
                .units
                .iter()
                .all(|unit| self.skip(*unit) || self.is_reused(*unit));
            let abandoned = self.plan.groups[id]
                .units
                .iter()
                .all(|unit| self.processes[unit.index()].outcome.is_some());
            let is_service = self.is_service(self.plan.groups[id].units[0]);
            let first = self.tries[id] == 0
                && !left_out
                && !(abandoned && (is_service || self.has_no_answer(group)))
                && !self.is_asking(group)
                && self.conditions(group) == Some(true)
                && (!self.run_failed || self.is_cleanup(group) || is_service);
            let again = self.backoff.get(&group) == Some(&true)
                && !abandoned
                && self.services_are_ready(group);
            if self.halted.is_none() && (first || again) {
                assert!(!self.fits(group), "{group:?} could start");
                waits = true;
                let claim = &self.plan.groups[id];
                let (slots, memory) = self.used();
                let rest = claim.memory == 0 || memory + claim.memory <= self.memory;
                let more = claim.slots > 0 && slots + claim.slots <= self.jobs;
                if rest && more && self.resources_fit(group) {
                    assert!(self.wanted > self.slots, "nobody asks for {group:?}");
                }
            }
        }
        assert!(
            self.used().0.min(self.jobs) <= self.slots.max(self.wanted),
            "what runs alone does not get its slots"
        );
        assert!(
            self.wanted == 0 || waits || self.used().0 > self.slots,
            "asked for nobody"
        );
        for (unit, question) in &self.asking {
            let group = self.plan.units[unit.index()].group;
            let spared = self.is_cleanup(group) || self.is_service(*unit);
            let wanted = self.halted.is_none() && (!self.run_failed || spared);
            assert!(
                wanted || question.stopped || question.killed,
                "{unit:?} is asked on"
            );
            let killed = self.signals >= 2 || self.halted == Some(Verdict::Broken);
            assert!(!killed || question.killed, "{unit:?} is asked on");
        }
        for (id, process) in self.processes.iter().enumerate() {
            let unit = UnitId::from(id);
            assert!(
                process.outcome.is_some()
                    || self.running.contains(&self.plan.units[id].group)
                    || self.tries[id_group(self.plan, id)] == 0
                    || self.backoff.contains_key(&self.plan.units[id].group),
                "{unit:?} is nowhere"
            );
            if self.signals >= 2 || self.halted == Some(Verdict::Broken) {
                assert!(
                    !process.live || process.killed,
                    "{unit:?} has outlived the second signal"
                );
            }
            if !process.live || process.was_stopped {
                continue;
            }
            let killed = self.signals >= 2 || self.halted == Some(Verdict::Broken);
            let kept = self.is_service(unit) && !self.is_unneeded(unit) && !killed;
            assert!(
                self.halted.is_none() || kept,
                "{unit:?} runs on after shutdown"
            );
            assert!(
                !self.is_service(unit) || !self.is_unneeded(unit),
                "{unit:?} runs on for nobody"
            );
            assert!(
                !self.has_lost_service(self.node_of(unit)),
                "{unit:?} runs on without its service"
            );
            let ill =
                |unit: &UnitId| self.processes[unit.index()].outcome.is_some() && !self.good(*unit);
            assert!(
                !self.mates(unit).any(|mate| ill(&mate)),
                "{unit:?} works on after a failure in its pool"
            );
            for queue in self.inputs(unit) {
                let queue = &self.plan.queues[queue.index()];
                if queue.on_writer_failure == OnWriterFailure::Cancel {
                    assert!(
                        !queue.writers.iter().any(ill),
                        "{unit:?} reads on after a writer's failure"
                    );
                }
            }
            for output in &self.plan.units[id].ends.outputs {
                let queues: Vec<QueueId> = output
                    .to
                    .iter()
                    .filter_map(|s| {
                        if let Sink::Queue(q) = s {
                            Some(*q)
                        } else {
                            None
                        }
                    })
                    .collect();
                let only = output.to.iter().all(|sink| self.is_for_readers(sink));
                let mut readers = queues
                    .iter()
                    .flat_map(|q| &self.plan.queues[q.index()].readers);
                if only
                    && readers
                        .clone()
                        .all(|r| self.processes[r.index()].outcome.is_some())
                {
                    assert!(
                        !readers.any(ill),
                        "{unit:?} writes on for a reader that failed"
                    );
                }
            }
        }
    }

    /// Something that can happen now, or nothing.
    fn next(&mut self) -> Option<Event> {
        let wild = self.kind == Kind::Wild;
        if wild && self.random.u16(..) < 400 {
            return Some(match self.random.u8(..16) {
                0 => Event::Broken,
                1..4 => Event::Shutdown(15),
                4..8 => Event::Fired(Timer::Run),
                _ if self.plan.units.is_empty() => Event::Shutdown(2),
                at => {
                    let unit = UnitId(self.random.u32(..self.plan.units.len() as u32));
                    match at {
                        8..10 => Event::Fired(Timer::Timeout(unit)),
                        10..12 => Event::Fired(Timer::Grace(unit)),
                        12 => Event::Fired(Timer::Backoff(self.plan.units[unit.index()].group)),
                        13 => Event::Ready(unit),
                        14 => Event::NotReady(unit, "shy".to_owned()),
                        _ if self.outputs(unit).is_empty()
                            || self.processes[unit.index()].committed =>
                        {
                            Event::Shutdown(2)
                        }
                        _ => Event::QueueFault {
                            writer: unit,
                            why: "torn".to_owned(),
                        },
                    }
                }
            });
        }
        // Who has asked once and waits asks again.
        if wild && self.signals == 1 && self.random.u8(..40) == 0 {
            return Some(Event::Shutdown(15));
        }
        // So it does with a question for slots. Others may have all of them.
        if self.wanted > 0 && !self.answered && self.random.u8(..8) > 0 {
            return Some(Event::Slots(
                self.random.u32(self.slots..=self.wanted.max(self.slots)),
            ));
        }
        if self.wanted > self.slots && self.random.u8(..20) == 0 {
            return Some(Event::Slots(self.random.u32(self.slots + 1..=self.wanted)));
        }
        // exec answers a Spawn at once; now and then something slips in between.
        if let Some(unit) = self.due.first().copied()
            && self.random.u8(..8) > 0
        {
            let fails = self.kind != Kind::Foretold && self.random.u8(..24) == 0;
            return Some(if fails {
                Event::SpawnFailed(
                    unit,
                    Failure::CannotStart {
                        code: 127,
                        why: "no".to_owned(),
                    },
                )
            } else {
                Event::Spawned(unit)
            });
        }
        // Timers are the last to come, but some come early.
        let timer = if self.armed.is_empty() {
            None
        } else {
            self.armed
                .iter()
                .nth(self.random.usize(..self.armed.len()))
                .copied()
        };
        let early = match timer {
            Some(Timer::Run | Timer::Timeout(_)) => 40,
            _ => 6,
        };
        if let Some(timer) = timer
            && self.random.u8(..early) == 0
        {
            return Some(Event::Fired(timer));
        }
        let count = self.processes.len();
        if let Some(answer) = self.next_answer() {
            return Some(answer);
        }
        let offset = if count > 0 {
            self.random.usize(..count)
        } else {
            0
        };
        for step in 0..count {
            let unit = UnitId::from((offset + step) % count);
            if let Some(event) = self.next_of(unit) {
                return Some(event);
            }
        }
        if let Some(unit) = self.due.first() {
            return Some(Event::Spawned(*unit));
        }
        if let Some(timer) = timer {
            return Some(Event::Fired(timer));
        }
        // Services alone go on until somebody says so.
        let alone = self.plan.nodes.iter().all(|node| node.service.is_some());
        (alone && self.processes.iter().any(|p| p.live)).then_some(Event::Shutdown(15))
    }

    /// One of the commands that run ends, or none yet.
    fn next_answer(&mut self) -> Option<Event> {
        let count = self.asking.len();
        if count == 0 || self.random.bool() {
            return None;
        }
        let at = self.random.usize(..count);
        let (&unit, question) = self.asking.iter().nth(at)?;
        let signal = |number| Exit::Signal {
            number,
            core: false,
        };
        let (stopped, killed) = (question.stopped, question.killed);
        let answer = match self.random.u8(..12) {
            _ if killed => Ok(signal(9)),
            0..3 if stopped => return None,
            3..9 if stopped => Ok(signal(15)),
            _ if self.kind == Kind::Foretold => {
                Ok(Exit::Code(u8::from(!foretold_answer(self.node_of(unit)))))
            }
            0 => Ok(signal(11)),
            1 => Ok(Exit::Code(2)),
            2 => Err(Failure::CannotStart {
                code: 127,
                why: "no".to_owned(),
            }),
            3..7 => Ok(Exit::Code(1)),
            _ => Ok(Exit::Code(0)),
        };
        Some(Event::Answered(unit, answer))
    }

    fn next_of(&mut self, unit: UnitId) -> Option<Event> {
        let process = self.processes[unit.index()].clone();
        if process.committing {
            let fails = self.kind == Kind::Wild && self.random.u8(..8) == 0;
            return Some(Event::Committed(
                unit,
                if fails {
                    Err("full".to_owned())
                } else {
                    Ok(())
                },
            ));
        }
        if !process.live {
            return None;
        }
        let broken: Vec<QueueId> = self
            .outputs(unit)
            .into_iter()
            .filter(|q| self.is_broken(*q))
            .collect();
        let exit = |exit, fault| Event::Exited {
            unit,
            exit,
            broken: broken.clone(),
            fault,
        };
        let signal = |number| Exit::Signal {
            number,
            core: false,
        };
        if process.killed {
            return Some(exit(signal(9), None));
        }
        if process.stopped {
            // Some ignore it, some end well all the same.
            return match self.random.u8(..4) {
                0 => None,
                1 => Some(exit(Exit::Code(0), None)),
                _ => Some(exit(signal(15), None)),
            };
        }
        if self.probing.contains(&unit) && self.random.u8(..4) == 0 {
            return Some(match self.random.u8(..8) {
                0 => Event::NotReady(unit, "shy".to_owned()),
                _ => Event::Ready(unit),
            });
        }
        if self.kind == Kind::Foretold {
            let tries = self.tries[self.plan.units[unit.index()].group.index()];
            return Some(exit(Exit::Code(foretold(unit, tries)), None));
        }
        if self.is_service(unit) {
            let crashes = process.crashes && self.random.u8(..4) == 0;
            return crashes.then(|| match self.random.u8(..4) {
                0 => exit(Exit::Code(0), None),
                1 => exit(signal(11), None),
                _ => exit(Exit::Code(3), None),
            });
        }
        if process.crashes && self.random.u8(..4) == 0 {
            let code = self.random.u8(1..4);
            return Some(match self.random.u8(..4) {
                0 => exit(signal(11), None),
                1 if self.kind == Kind::Wild => exit(Exit::Code(0), Some("late".to_owned())),
                2 if broken.is_empty() => exit(Exit::Code(141), None),
                _ => exit(Exit::Code(code), None),
            });
        }
        let lost = self.plan.units[unit.index()]
            .ends
            .outputs
            .iter()
            .any(|output| {
                !output.to.is_empty()
                    && output
                        .to
                        .iter()
                        .all(|s| matches!(s, Sink::Queue(q) if self.is_broken(*q)))
            });
        if lost && (self.random.u8(..3) > 0 || self.natures[unit.index()] == Nature::Endless) {
            return Some(exit(
                if self.random.bool() {
                    signal(13)
                } else {
                    Exit::Code(120)
                },
                None,
            ));
        }
        let done = match self.natures[unit.index()] {
            Nature::Source => true,
            Nature::Filter => self
                .inputs(unit)
                .iter()
                .all(|q| process.closed_some.contains(q) || self.has_ended(*q)),
            Nature::Endless | Nature::Service => false,
        };
        let inputs = self.inputs(unit);
        if !done && inputs.len() > process.closed_some.len() + 1 && self.random.u8(..16) == 0 {
            let queue = inputs[self.random.usize(..inputs.len())];
            if !process.closed_some.contains(&queue) {
                self.process(unit).closed_some.push(queue);
            }
        }
        if done && !process.closed && self.random.u8(..4) == 0 {
            self.process(unit).closed = true;
        }
        (done && self.random.bool()).then(|| exit(Exit::Code(0), None))
    }

    /// Lets the event come true in the model. False: it cannot be told apart from nothing, and isn't sent.
    fn happen(&mut self, event: &Event) -> bool {
        match event {
            Event::Slots(slots) => (self.slots, self.answered) = (*slots, true),
            Event::Spawned(unit) | Event::SpawnFailed(unit, _) => {
                let failed = matches!(event, Event::SpawnFailed(..));
                let file = self.has_file(*unit);
                let group = self.plan.units[unit.index()].group;
                self.due.retain(|other| other != unit);
                let process = self.process(*unit);
                (process.due, process.live, process.file) = (false, !failed, file);
                process.failed_to_spawn = failed;
                process.spawned += u32::from(!failed);
                if failed {
                    self.spawn_failed[group.index()] = true;
                    for other in std::mem::take(&mut self.due) {
                        if self.plan.units[other.index()].group == group {
                            self.process(other).due = false;
                        } else {
                            self.due.push(other);
                        }
                    }
                } else if self.plan.groups[group.index()]
                    .units
                    .iter()
                    .all(|u| !self.processes[u.index()].due)
                {
                    let plan = self.plan;
                    let units = plan.groups[group.index()].units.iter();
                    self.started.extend(
                        units
                            .map(|u| plan.units[u.index()].node)
                            .filter(|node| !self.left_out.contains(node)),
                    );
                }
            }
            Event::Exited {
                unit,
                exit,
                broken,
                fault,
            } => {
                let ended = match exit {
                    Exit::Code(0) => Ended::Well,
                    Exit::Code(120 | 141) | Exit::Signal { number: 13, .. }
                        if !broken.is_empty() =>
                    {
                        Ended::Broken(broken.clone())
                    }
                    _ => Ended::Bad,
                };
                let was_ready = self.ready.remove(unit);
                let was_unneeded = self.is_service(*unit) && self.is_unneeded(*unit);
                let process = self.process(*unit);
                process.was_ready = was_ready;
                process.was_unneeded = was_unneeded;
                process.live = false;
                process.ended = Some((ended, Some(*exit)));
                if !process.was_stopped {
                    process.fault = fault.clone();
                }
            }
            Event::Answered(unit, answer) => {
                let question = self.asking.remove(unit).unwrap();
                let no_answer = match answer {
                    _ if question.timed_out => Some(Failure::TimedOut(Duration::from_secs(9))),
                    _ if question.stopped || question.killed => None,
                    Ok(Exit::Code(0)) => None,
                    Ok(Exit::Code(1)) => {
                        self.left_out.insert(self.node_of(*unit));
                        None
                    }
                    Ok(exit) => Some(Failure::Exit(*exit)),
                    Err(failure) => Some(failure.clone()),
                };
                self.process(*unit).no_answer = no_answer;
            }
            Event::Ready(unit) => {
                self.probing.remove(unit);
            }
            Event::NotReady(unit, _) => {
                let was_probing = self.probing.remove(unit);
                self.process(*unit).not_ready |= was_probing;
            }
            Event::Committed(unit, result) => {
                let process = self.process(*unit);
                process.committing = false;
                process.committed = result.is_ok();
                process.file = result.is_err();
                process.commit_failed = result.clone().err();
            }
            Event::QueueFault { writer, why } => {
                let process = self.process(*writer);
                let counts = process.outcome.is_none()
                    && !process.committing
                    && !process.failed_to_spawn
                    && !process.was_stopped
                    && (process.live
                        || matches!(process.ended, Some((Ended::Well | Ended::Broken(_), _))));
                // What the relay finds while a try is taken back is told nobody: it is not modelled.
                let group = self.plan.units[writer.index()].group;
                if !counts
                    || !self.running.contains(&group)
                    || self.processes[writer.index()].fault.is_some()
                {
                    return !self.due.contains(writer);
                }
                if self.plan.groups[group.index()]
                    .units
                    .iter()
                    .any(|u| self.processes[u.index()].was_stopped)
                {
                    return false;
                }
                let process = self.process(*writer);
                process.fault = Some(why.clone());
                process.late_fault = process.ended.is_some();
            }
            Event::Fired(timer) => {
                let armed = self.armed.remove(timer);
                match timer {
                    Timer::Run if armed => self.halt(Verdict::TimedOut),
                    Timer::Backoff(group) if armed => {
                        self.backoff.insert(*group, true);
                    }
                    Timer::Timeout(unit) if armed => match self.asking.get_mut(unit) {
                        Some(question) => question.timed_out = true,
                        None => self.process(*unit).timed_out = true,
                    },
                    Timer::Grace(_) | Timer::Run | Timer::Backoff(_) | Timer::Timeout(_) => {}
                }
            }
            Event::Shutdown(signal) => self.halt(Verdict::Interrupted(*signal)),
            Event::Broken => self.halt(Verdict::Broken),
            Event::Begin => {}
        }
        true
    }

    fn halt(&mut self, verdict: Verdict) {
        self.signals += u32::from(matches!(verdict, Verdict::Interrupted(_)));
        if self
            .halted
            .is_none_or(|halted| rank(verdict) > rank(halted))
        {
            self.halted = Some(verdict);
        }
        self.backoff.clear();
    }
}

fn id_group(plan: &Plan, unit: usize) -> usize {
    plan.units[unit].group.index()
}

fn is_fault(outcome: &Outcome) -> bool {
    !matches!(
        outcome,
        Outcome::Succeeded { .. }
            | Outcome::Reused
            | Outcome::Skipped(
                Cause::ByUser | Cause::When(_) | Cause::NeverFailed(_) | Cause::NotNeeded
            )
    )
}

/// The exit code of a unit's try in a world that is foretold.
fn foretold(unit: UnitId, attempt: u32) -> u8 {
    let mut random =
        fastrand::Rng::with_seed(u64::from(unit.0) * 1000 + u64::from(attempt) + FORETOLD.get());
    if random.u8(..3) == 0 {
        random.u8(1..4)
    } else {
        0
    }
}

/// What the command of a node says in a world that is foretold.
fn foretold_answer(node: NodeId) -> bool {
    fastrand::Rng::with_seed(u64::from(node.0) + FORETOLD.get()).bool()
}

thread_local! {
    static FORETOLD: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

fn queues_of(plan: &Plan) -> Vec<QueuesOf> {
    let mut ends = vec![QueuesOf::default(); plan.units.len()];
    for (id, queue) in plan.queues.iter().enumerate() {
        let id = QueueId::from(id);
        for writer in &queue.writers {
            ends[writer.index()].outputs.push(id);
        }
        for reader in &queue.readers {
            match queue.kind {
                QueueKind::Stored => ends[reader.index()].stored.push(id),
                QueueKind::Direct | QueueKind::Relayed => ends[reader.index()].inputs.push(id),
            }
        }
    }
    ends
}

/// One world; its log, where wanted.
fn run(seed: u64, verbose: bool) -> Vec<String> {
    let mut random = fastrand::Rng::with_seed(seed);
    FORETOLD.set(seed);
    let kind = [Kind::Wild, Kind::Wild, Kind::Calm, Kind::Foretold][random.usize(..4)];
    let (plan, natures) = random_plan(&mut random, kind);
    let policy = match (kind, random.u8(..3)) {
        (Kind::Foretold, _) | (_, 0) => OnFailure::Continue,
        (_, 1) => OnFailure::Stop,
        _ => OnFailure::Kill,
    };
    let jobs = random.u32(1..5);
    let memory = random.bool().then(|| random.u64(1..8));
    let shared = random.bool();
    let mut world = World {
        plan: &plan,
        ends: queues_of(&plan),
        kind,
        policy,
        jobs,
        slots: if shared { random.u32(1..=jobs) } else { jobs },
        shared,
        wanted: 0,
        answered: true,
        memory: memory.unwrap_or(u64::MAX),
        natures,
        processes: vec![Process::default(); plan.units.len()],
        released: BTreeSet::new(),
        armed: BTreeSet::new(),
        running: BTreeSet::new(),
        tries: vec![0; plan.groups.len()],
        due: Vec::new(),
        spawn_failed: vec![false; plan.groups.len()],
        backoff: BTreeMap::new(),
        started: BTreeSet::new(),
        asking: BTreeMap::new(),
        asked: BTreeSet::new(),
        asking_groups: BTreeSet::new(),
        left_out: (0..plan.nodes.len())
            .map(NodeId::from)
            .filter(|node| plan.nodes[node.index()].is_left_out())
            .collect(),
        probing: BTreeSet::new(),
        ready: BTreeSet::new(),
        signals: 0,
        halted: None,
        run_failed: false,
        // Drawn apart, so that the other worlds stay what they were.
        reused: reused(&plan, &mut fastrand::Rng::with_seed(!seed)),
        finished: None,
        log: Vec::new(),
        verbose,
        random,
    };
    if verbose {
        world
            .log
            .push(format!("{kind:?} {policy:?} jobs {jobs} memory {memory:?}"));
        for (id, unit) in plan.units.iter().enumerate() {
            let node = &plan.nodes[unit.node.index()];
            let outputs: Vec<_> = unit.ends.outputs.iter().map(|o| &o.to).collect();
            world.log.push(format!(
                "u{id} {:?} {:?} {:?} {:?} {:?} ends {outputs:?} after {:?} may fail {} skip {} asks {} reused {} retry {}",
                unit.node,
                unit.role,
                unit.group,
                world.natures[id],
                world.ends[id],
                node.after,
                node.allow_failure,
                node.is_left_out(),
                node.asks.is_some(),
                world.reused[unit.node.index()],
                unit.settings.retry.max
            ));
        }
        for (id, queue) in plan.queues.iter().enumerate() {
            world.log.push(format!(
                "q{id} {:?} {:?} {:?} {:?}",
                queue.kind, queue.writers, queue.readers, queue.on_writer_failure
            ));
        }
    }
    let mut scheduler = Scheduler::new(&plan, jobs, memory, policy, seed);
    scheduler.reuse(world.reused.clone());
    let mut actions = Vec::new();
    if shared {
        scheduler.handle(Event::Slots(world.slots), &mut actions);
        assert_eq!(actions, []);
    }
    let mut event = Event::Begin;
    let mut steps = 0;
    loop {
        if world.happen(&event) {
            if world.verbose {
                world.log.push(format!("--> {event:?}"));
                print_log(&mut world.log);
            }
            scheduler.handle(event, &mut actions);
            for action in actions.drain(..) {
                if world.verbose {
                    world.log.push(format!("    {action:?}"));
                    print_log(&mut world.log);
                }
                world.act(&action);
            }
            world.check();
        }
        if world.finished.is_some() {
            break;
        }
        steps += 1;
        assert!(steps < 20_000, "no end");
        // What is not needed is given away when exec finds the time.
        let spare = scheduler.spare_slots();
        world.judge_spare(spare);
        if shared && spare > 0 && world.random.bool() {
            event = Event::Slots(world.slots - spare);
            continue;
        }
        // Something that waits may need several looks: a process that dawdles says no now and then.
        event = match (0..200).find_map(|_| world.next()) {
            Some(event) => event,
            None => panic!("stuck: nothing can happen any more"),
        };
    }
    for late in [Event::Fired(Timer::Run), Event::Shutdown(15), Event::Broken] {
        scheduler.handle(late, &mut actions);
        assert_eq!(actions, []);
    }
    world.log
}

/// Which nodes an earlier run has done: of whole groups, with all that is upstream of them.
fn reused(plan: &Plan, random: &mut fastrand::Rng) -> Vec<bool> {
    let often = random.u8(..4);
    let mut marked: Vec<bool> = plan
        .groups
        .iter()
        .map(|_| often > 0 && random.u8(..4) < often)
        .collect();
    let node_of = |unit: &UnitId| plan.units[unit.index()].node;
    let holds = |node: NodeId, marked: &[bool]| {
        let node = &plan.nodes[node.index()];
        let mut units = node.units.clone().map(|unit| &plan.units[unit as usize]);
        node.is_left_out() || node.service.is_none() && units.all(|unit| marked[unit.group.index()])
    };
    loop {
        let before = marked.clone();
        for (group, declared) in plan.groups.iter().enumerate() {
            for node in declared.units.iter().map(node_of) {
                let after = plan.nodes[node.index()].after.iter();
                let has_all = after.clone().all(|after| {
                    let is_service = plan.nodes[after.node.index()].service.is_some();
                    after.state != AfterState::Failed && (is_service || holds(after.node, &before))
                });
                let mut read = plan
                    .queues
                    .iter()
                    .filter(|queue| queue.readers.iter().any(|unit| node_of(unit) == node));
                let written = read.all(|queue| {
                    queue
                        .writers
                        .iter()
                        .all(|unit| holds(node_of(unit), &before))
                });
                let fits = plan.nodes[node.index()].is_left_out() || has_all && written;
                marked[group] &= fits && holds(node, &before);
            }
        }
        if marked == before {
            break;
        }
    }
    (0..plan.nodes.len())
        .map(NodeId::from)
        .map(|node| !plan.nodes[node.index()].is_left_out() && holds(node, &marked))
        .collect()
}

/// Into the test's output, which is shown where it fails.
fn print_log(log: &mut Vec<String>) {
    use std::io::Write;
    let mut err = std::io::stderr().lock();
    for line in log.drain(..) {
        writeln!(err, "{line}").unwrap();
    }
}

fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap())
}

#[test]
fn random_worlds() {
    let runs = from_env("SIM_RUNS").unwrap_or(4_000);
    let first = from_env("SIM_SEED").unwrap_or(0);
    for seed in first..first + runs {
        let ended = std::panic::catch_unwind(|| run(seed, runs == 1));
        if ended.is_err() {
            panic!(
                "world {seed} of {first}..{}: SIM_RUNS=1 SIM_SEED={seed} shows it",
                first + runs
            );
        }
    }
}
