//! The scheduler's data, its one entrance [`Scheduler::handle`], and the one function through which a unit changes its state.
//! What follows from an event is spread over the neighbours by idea: `settle` (inside a group: who is stopped, whose result is
//! final), `order` (between nodes: conditions, slots, starting), `retry` and `halt`.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use crate::event::{Cause, Exit, Failure, Outcome};
use crate::plan::{GroupId, Node, NodeId, Plan, QueueId, QueueKind, Role, Sink, UnitId};
use crate::sched::flat::Flat;
use crate::sched::order::{Fact, Need, waits as waits_of};
use crate::sched::ready::{Amounts, Ready};
use crate::sched::service::Services;
use crate::sched::state::{Own, Phase, Restart, Side, State, Torn, Why};
use crate::sched::{Action, Event, Timer, Verdict};
use crate::spec::{AfterState, OnFailure, OnWriterFailure};

/// SIGPIPE on every Linux architecture (signal(7)). By number, for this module asks the system nothing.
const SIGPIPE: i32 = 13;

/// How long a writer that died of a broken queue waits for that queue's readers, where they may be waiting for it, too.
const LINGER: Duration = Duration::from_secs(5);

/// Decides what to do next. See the [module](crate::sched).
#[derive(Debug)]
pub struct Scheduler<'p> {
    pub(super) plan: &'p Plan,
    pub(super) on_failure: OnFailure,
    pub(super) capacity: Amounts,
    pub(super) used: Amounts,
    /// The most slots that there can ever be; now there are those of `capacity`.
    pub(super) most_slots: u32,
    /// The last [`Action::WantSlots`].
    pub(super) wanted_slots: u32,
    /// It has been answered.
    pub(super) answered: bool,
    /// Groups in [`Phase::Running`] that are no services: those end by themselves.
    pub(super) running: u32,
    pub(super) units: Vec<UnitState>,
    pub(super) groups: Vec<GroupState>,
    pub(super) nodes: Vec<NodeState>,
    pub(super) queues: Vec<QueueState>,
    /// For each node: who waits for it, and for what.
    pub(super) waiters: Flat<(NodeId, Need)>,
    /// For each unit: the queues it reads, each once.
    pub(super) reads: Flat<QueueId>,
    /// For each unit: the queues it writes, each once.
    pub(super) writes: Flat<QueueId>,
    /// Writers of queues that lead back to them, or to a unit upstream of them. They come after the readers, so these don't wait
    /// for them: both would wait for ever.
    pub(super) back: BTreeSet<(QueueId, UnitId)>,
    pub(super) ready: Ready,
    pub(super) services: Services,
    /// Services that nobody needs any more, and that have not been stopped for that.
    pub(super) unneeded: VecDeque<NodeId>,
    /// Units that are not done.
    pub(super) open: usize,
    /// Units whose surroundings have changed.
    pub(super) touched: VecDeque<UnitId>,
    /// Groups of which no unit is undecided, or no unit open, any more.
    pub(super) quiet: VecDeque<GroupId>,
    /// What nodes' waiters have not been told.
    pub(super) facts: VecDeque<(NodeId, Fact)>,
    /// The first failure, until what depends on it is skipped; then `on_failure` is applied.
    pub(super) first_failure: FirstFailure,
    /// Everything is being stopped, for this reason.
    pub(super) halted: Option<Cause>,
    /// Nothing is stopped gently any more.
    pub(super) kill_all: bool,
    /// A unit that may not fail did, or was kept from its work by a failure.
    pub(super) failed: bool,
    pub(super) run_timer: bool,
    pub(super) phase: RunPhase,
    /// By node: its results come from an earlier run. Empty where none's do.
    pub(super) reused: Vec<bool>,
    pub(super) random: fastrand::Rng,
    pub(super) out: Vec<Action>,
}

/// Where the run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RunPhase {
    /// Before [`Event::Begin`].
    New,
    /// Until all units are done.
    Going,
    /// [`Action::Finish`] was said.
    Finished,
}

/// What became of the first failure of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FirstFailure {
    /// There is none.
    None,
    /// This node's; `on_failure` is still to be applied.
    Pending(NodeId),
    /// It was.
    Applied,
}

/// What is known of a unit.
#[derive(Debug)]
pub(super) struct UnitState {
    /// Changed by [`Scheduler::set`] alone.
    pub state: State,
    /// It stands in `touched`.
    pub touched: bool,
    /// It writes a file that is renamed when all is well.
    pub has_file: bool,
    /// Such a file of it was begun.
    pub file_open: bool,
    /// The ends held for it in this try were released.
    pub released: bool,
    /// It, and everything upstream of it, is done and well: nothing can come up that would take a file back.
    pub clear: bool,
    /// The ill unit upstream of it, or itself, that is nearest.
    pub taint: Option<UnitId>,
    /// It was sent SIGKILL.
    pub killed: bool,
    /// [`Timer::Timeout`] is armed.
    pub timeout: bool,
    /// [`Timer::Grace`] is armed.
    pub grace: bool,
    /// Nothing but its node's other units can keep its result, which is good, from being final.
    pub sure: bool,
}

/// What is known of a group. The counters are [`Scheduler::set`]'s.
#[derive(Debug)]
pub(super) struct GroupState {
    pub phase: Phase,
    /// The try that runs, or ran last; 0 before the first.
    pub attempt: u32,
    /// Conditions that do not hold yet, counted for each unit; counted before the first try and while the next is waited for.
    pub unmet: u32,
    /// In [`Phase::Backoff`]: the delay is over, and only a service that is not ready is missing.
    pub delay_over: bool,
    /// Units in [`State::Starting`].
    pub starting: u32,
    /// Units with [`State::is_undecided`].
    pub undecided: u32,
    /// Units that are not done.
    pub open: u32,
    /// Some member has retries.
    pub restartable: bool,
    /// A member waits for `failed` or `finished`: clean-up, which starts whatever happened.
    pub cleanup: bool,
    /// This try will not be taken back: its results are final.
    pub last_try: bool,
    pub restart: Option<Restart>,
    /// Commands that say which of its nodes run, and have not.
    pub questions: u32,
    /// It will not start: why not, once the command that runs has ended.
    pub given_up: Option<Vec<(UnitId, Cause)>>,
}

/// What is known of a node.
#[derive(Debug)]
pub(super) struct NodeState {
    /// Units that are not done.
    pub open: u32,
    /// Units whose process was started, once.
    pub started: u32,
    /// Its own failures so far that were retried, whichever of its units it was.
    pub failures: u32,
    /// Units, but for one that gathers, that are not [`UnitState::sure`]: while there are any, none of them has its file put
    /// in place.
    pub unsure: u32,
    /// It is not started: by the plan, or its command has said no.
    pub left_out: bool,
    /// Its command has been asked.
    pub asked: bool,
    /// Several units of it share the work, and have files.
    pub shares_files: bool,
    /// The end of its first unit that did not succeed.
    pub ill: Option<Outcome>,
    /// The first of its units that ended ill ([`Side::Ill`]). It takes the others with it, and no reader may take what they
    /// wrote for all.
    pub ill_unit: Option<UnitId>,
}

/// What is known of a queue in the current try.
#[derive(Debug, Clone, Default)]
pub(super) struct QueueState {
    /// Its readers without an own result.
    pub readers_open: u32,
    /// Its first reader that ended ill.
    pub ill_reader: Option<UnitId>,
    /// Its first writer that ended ill.
    pub ill_writer: Option<UnitId>,
    /// Its writers that are not [`UnitState::clear`].
    pub unclear: u32,
    /// [`UnitState::taint`] of the first writer that has one. Not for a queue that is closed on failure: it ends there.
    pub taint: Option<UnitId>,
}

impl<'p> Scheduler<'p> {
    /// A scheduler that has seen nothing yet.
    ///
    /// `jobs`: the most job slots that there can be; they are all there until [`Event::Slots`] says otherwise. `memory_limit`: bytes that nodes' `memory` may add up to; `None`: no limit. `seed`: for the jitter of
    /// retries; equal seeds and events give equal actions. Linear in the plan's size.
    pub fn new(
        plan: &'p Plan,
        jobs: u32,
        memory_limit: Option<u64>,
        on_failure: OnFailure,
        seed: u64,
    ) -> Self {
        let stored = readers_of_stored(plan);
        let mut waits = Vec::new();
        let all = (0..plan.nodes.len()).map(NodeId::from);
        for waiter in all.filter(|id| !plan.nodes[id.index()].is_left_out()) {
            waits.extend(waits_of(plan, waiter).iter().map(|after| {
                let need = Need {
                    state: after.state,
                    data: stored.binary_search(&(waiter, after.node)).is_ok(),
                };
                (after.node.0, (waiter, need))
            }));
        }
        let mut reads = Vec::new();
        let mut writes = Vec::new();
        for (id, queue) in plan.queues.iter().enumerate() {
            // What is stored is there as a whole before its readers start: they hang on its writers by a wait, no more.
            if queue.kind != QueueKind::Stored {
                reads.extend(queue.readers.iter().map(|unit| (unit.0, QueueId::from(id))));
            }
            writes.extend(queue.writers.iter().map(|unit| (unit.0, QueueId::from(id))));
        }
        // A unit may have two ends of one queue; it is one reader, or writer, of it.
        for ends in [&mut reads, &mut writes] {
            ends.sort_unstable();
            ends.dedup();
        }
        let mut queues = vec![QueueState::default(); plan.queues.len()];
        let left_out = |unit: u32| plan.nodes[plan.units[unit as usize].node.index()].is_left_out();
        for (_, queue) in reads.iter().filter(|(unit, _)| !left_out(*unit)) {
            queues[queue.index()].readers_open += 1;
        }
        let back = back_writers(plan);
        for (unit, queue) in writes.iter().filter(|(unit, _)| !left_out(*unit)) {
            let counts = !back.contains(&(*queue, UnitId(*unit)));
            queues[queue.index()].unclear += u32::from(counts);
        }
        Scheduler {
            plan,
            on_failure,
            capacity: Amounts {
                slots: jobs,
                memory: memory_limit.unwrap_or(u64::MAX),
                resources: plan.resources.iter().map(|one| one.amount).collect(),
            },
            used: Amounts::nothing(plan.resources.len()),
            most_slots: jobs,
            wanted_slots: 0,
            answered: true,
            running: 0,
            units: plan
                .units
                .iter()
                .map(|unit| UnitState::new(writes_file(&unit.ends.outputs)))
                .collect(),
            groups: plan
                .groups
                .iter()
                .map(|group| GroupState::new(plan, &group.units))
                .collect(),
            nodes: plan
                .nodes
                .iter()
                .map(|node| NodeState::new(plan, node))
                .collect(),
            queues,
            waiters: Flat::new(plan.nodes.len(), &waits),
            reads: Flat::new(plan.units.len(), &reads),
            writes: Flat::new(plan.units.len(), &writes),
            back,
            ready: Ready::default(),
            services: Services::new(plan),
            unneeded: VecDeque::new(),
            open: plan.units.len(),
            touched: VecDeque::new(),
            quiet: VecDeque::new(),
            facts: VecDeque::new(),
            first_failure: FirstFailure::None,
            halted: None,
            kill_all: false,
            failed: false,
            run_timer: false,
            phase: RunPhase::New,
            reused: Vec::new(),
            random: fastrand::Rng::with_seed(seed),
            out: Vec::new(),
        }
    }

    /// These nodes, marked by their index, are not started: what an earlier run made of them holds, and to all that wait for them
    /// they have succeeded. Before [`Event::Begin`]. Of a group either all nodes are marked, but for those that are left out, or
    /// none, and none is marked that waits for one that isn't: data that is gone can't be read again.
    pub fn reuse(&mut self, nodes: Vec<bool>) {
        self.reused = nodes;
    }

    /// Takes in what happened; appends what is to be done, in order.
    ///
    /// # Panics
    /// "BUG: ..." where the event cannot have happened: an answer without a question, an exit of what does not run.
    pub fn handle(&mut self, event: Event, actions: &mut Vec<Action>) {
        match event {
            // Whatever is still under way then (a signal, a timer) finds nothing to change.
            _ if self.phase == RunPhase::Finished => return,
            Event::Begin => self.begin(),
            Event::Answered(unit, answer) => self.answered(unit, answer),
            Event::Spawned(unit) => self.spawned(unit),
            Event::SpawnFailed(unit, failure) => self.spawn_failed(unit, failure),
            Event::Exited {
                unit,
                exit,
                broken,
                fault,
            } => self.exited(unit, exit, broken, fault),
            Event::Committed(unit, result) => self.committed(unit, result),
            Event::QueueFault { writer, why } => self.queue_fault(writer, why),
            Event::Ready(unit) => self.ready(unit),
            Event::NotReady(unit, why) => self.not_ready(unit, why),
            Event::Fired(timer) => self.fired(timer),
            Event::Shutdown(signal) => self.shutdown(signal),
            Event::Broken => self.halt(Cause::Broken, true),
            Event::Slots(slots) => self.slots_are(slots),
        }
        self.follow_up();
        actions.append(&mut self.out);
    }

    /// Works off everything that an event has touched: first what is inside groups, then what nodes' ends mean to their
    /// waiters, then what a failure means to the run, and starts what can be started only when all that is known.
    fn follow_up(&mut self) {
        if self.phase == RunPhase::New {
            return;
        }
        loop {
            if let Some(unit) = self.touched.pop_front() {
                self.units[unit.index()].touched = false;
                self.settle(unit);
            } else if let Some(group) = self.quiet.pop_front() {
                self.group_is_quiet(group);
            } else if let Some((node, fact)) = self.facts.pop_front() {
                self.tell_waiters(node, fact);
            } else if let Some(service) = self.unneeded.pop_front() {
                self.not_needed(service);
            } else if let FirstFailure::Pending(node) = self.first_failure {
                self.first_failure = FirstFailure::Applied;
                self.run_has_failed(node);
            } else if self.start_next() {
                // And look again: starting touches nothing, but the next may fit as well.
            } else {
                break;
            }
        }
        self.ask_for_slots();
        if self.open == 0 {
            self.finish();
        }
    }

    fn begin(&mut self) {
        if self.phase != RunPhase::New {
            panic!("BUG: Begin in {:?}", self.phase);
        }
        self.phase = RunPhase::Going;
        if let Some(timeout) = self.plan.timeout
            && self.halted.is_none()
        {
            self.run_timer = true;
            self.out.push(Action::Arm(Timer::Run, timeout));
        }
        for (id, unit) in self.plan.units.iter().enumerate() {
            if let Some(skip) = &self.plan.nodes[unit.node.index()].skip {
                self.done(UnitId::from(id), Outcome::Skipped(Cause::from(skip)));
            } else if self.reused.get(unit.node.index()) == Some(&true) {
                self.done(UnitId::from(id), Outcome::Reused);
            }
        }
        if let Some(cause) = self.halted.clone() {
            self.stop_all(&cause);
            return;
        }
        self.unneeded_from_the_start();
        for id in 0..self.groups.len() {
            // A group that `--skip` has emptied is over, which is not worked off yet.
            let state = &self.groups[id];
            if state.phase == Phase::Waiting && state.unmet == 0 && state.open > 0 {
                self.becomes_ready(GroupId::from(id));
            }
        }
    }

    fn finish(&mut self) {
        if self.running > 0 || self.used != Amounts::nothing(self.plan.resources.len()) {
            panic!(
                "BUG: all units are done, but {} groups hold {:?}",
                self.running, self.used
            );
        }
        if self.run_timer {
            self.run_timer = false;
            self.out.push(Action::Disarm(Timer::Run));
        }
        let verdict = match self.halted {
            Some(Cause::Broken) => Verdict::Broken,
            Some(Cause::Interrupted(signal)) => Verdict::Interrupted(signal),
            Some(Cause::RunTimeout) => Verdict::TimedOut,
            Some(ref cause) => panic!("BUG: the run was halted by {cause:?}"),
            None if self.failed => Verdict::Failed,
            None => Verdict::Succeeded,
        };
        self.phase = RunPhase::Finished;
        self.out.push(Action::Finish(verdict));
    }

    fn spawned(&mut self, unit: UnitId) {
        let stop = match &self.units[unit.index()].state {
            State::Starting { stop } => stop.clone(),
            other => panic!("BUG: Spawned({unit:?}) in {other:?}"),
        };
        self.units[unit.index()].file_open = self.units[unit.index()].has_file;
        match stop {
            Some(why) => {
                self.set(unit, State::Stopping(why));
                self.send_stop(unit);
            }
            None => {
                self.set(unit, State::Running);
                if let Some(timeout) = self.plan.units[unit.index()].settings.timeout {
                    self.units[unit.index()].timeout = true;
                    self.out.push(Action::Arm(Timer::Timeout(unit), timeout));
                }
            }
        }
        let group = self.plan.units[unit.index()].group;
        if self.groups[group.index()].starting == 0 {
            self.group_has_started(group);
        }
        if self.units[unit.index()].state == State::Running {
            self.service_runs(unit);
        }
    }

    fn exited(&mut self, unit: UnitId, exit: Exit, broken: Vec<QueueId>, fault: Option<String>) {
        let why = match &self.units[unit.index()].state {
            State::Running => None,
            State::Stopping(why) => Some(why.clone()),
            other => panic!("BUG: Exited({unit:?}, {exit:?}) in {other:?}"),
        };
        self.disarm(unit);
        let ready = self.service_goes(unit);
        let settings = &self.plan.units[unit.index()].settings;
        let ill = |failure| Own::Ill(Outcome::Failed(failure));
        let own = match (why, exit) {
            (Some(Why::NotReady(why)), _) => ill(Failure::NotReady(why)),
            (Some(Why::NotNeeded), _) => Own::Well { early_close: false },
            // However it did.
            (None, exit) if self.is_service(unit) => ill(Failure::Ended { exit, ready }),
            (Some(Why::TimedOut), _) => {
                ill(Failure::TimedOut(settings.timeout.unwrap_or_default()))
            }
            (Some(Why::Fault(fault)), _) => ill(Failure::Result(fault)),
            (Some(Why::Retry), _) => Own::TakenBack,
            (Some(Why::Cancel(cause)), _) => Own::Ill(Outcome::Cancelled(cause)),
            (None, Exit::Code(code)) if settings.success_codes.contains(&code) => match fault {
                None => Own::Well { early_close: false },
                Some(fault) => ill(Failure::Result(fault)),
            },
            (None, exit) if !broken.is_empty() && means_broken(exit, &settings.epipe_codes) => {
                match fault {
                    // A record that is too long closes the queue in front of its writer: the fault is the reason.
                    Some(fault) => ill(Failure::Result(fault)),
                    None => {
                        let only = self.hangs_on_one(unit, broken[0]);
                        self.set(unit, State::Torn(Box::new(Torn { exit, broken })));
                        self.touch(unit);
                        if !only {
                            // Its readers may wait for the end of another queue of it, or for one another's files, or those
                            // of its pool: for ever.
                            self.units[unit.index()].grace = true;
                            self.out.push(Action::Arm(Timer::Grace(unit), LINGER));
                        }
                        return;
                    }
                }
            }
            (None, exit) => ill(match fault {
                Some(fault) => Failure::Result(fault),
                None => Failure::Exit(exit),
            }),
        };
        self.decide(unit, own);
    }

    /// Its one queue `queue` is read by one node, and nobody waits for the result of this unit but its group.
    fn hangs_on_one(&self, unit: UnitId, queue: QueueId) -> bool {
        let mut readers = self.plan.queues[queue.index()].readers.iter();
        let node = readers.next().map(|reader| self.node_of(*reader));
        self.writes.of(unit.index()).len() == 1
            && readers.all(|reader| Some(self.node_of(*reader)) == node)
            && !self.nodes[self.node_of(unit).index()].shares_files
    }

    fn committed(&mut self, unit: UnitId, result: Result<(), String>) {
        let State::Committing { early_close } = self.units[unit.index()].state else {
            panic!(
                "BUG: Committed({unit:?}) in {:?}",
                self.units[unit.index()].state
            );
        };
        match result {
            Ok(()) => {
                self.units[unit.index()].file_open = false;
                self.done(unit, Outcome::Succeeded { early_close });
            }
            Err(why) => self.done(unit, Outcome::Failed(Failure::Result(why))),
        }
    }

    fn queue_fault(&mut self, writer: UnitId, why: String) {
        match &self.units[writer.index()].state {
            State::Starting { stop: None } | State::Running => self.stop(writer, Why::Fault(why)),
            // It was the queue's closing that ended it, or its last record that is torn.
            State::Torn(_) | State::Settled(Own::Well { .. }) => {
                self.disarm(writer);
                self.decide(writer, Own::Ill(Outcome::Failed(Failure::Result(why))));
            }
            // It has not ended well anyway, or nothing of this try counts, or it is too late.
            State::Asked { .. }
            | State::Starting { stop: Some(_) }
            | State::Stopping(_)
            | State::Settled(Own::Ill(_) | Own::TakenBack)
            | State::Committing { .. }
            | State::Waiting
            | State::Backoff
            | State::Done(_) => {}
        }
    }

    fn fired(&mut self, timer: Timer) {
        match timer {
            Timer::Timeout(unit) => {
                if std::mem::take(&mut self.units[unit.index()].timeout) {
                    self.stop(unit, Why::TimedOut);
                }
            }
            Timer::Grace(unit) => {
                if std::mem::take(&mut self.units[unit.index()].grace) {
                    match &self.units[unit.index()].state {
                        State::Stopping(_) | State::Asked { .. } => self.kill(unit),
                        State::Torn(torn) => {
                            let failure = Failure::Exit(torn.exit);
                            self.decide(unit, Own::Ill(Outcome::Failed(failure)));
                        }
                        other => panic!("BUG: the grace of {unit:?} was armed in {other:?}"),
                    }
                }
            }
            Timer::Backoff(id) => {
                let group = &mut self.groups[id.index()];
                if group.phase == Phase::Backoff && !group.delay_over {
                    group.delay_over = true;
                    if group.unmet == 0 {
                        self.becomes_ready(id);
                    }
                }
            }
            Timer::Run => {
                if std::mem::take(&mut self.run_timer) {
                    self.halt(Cause::RunTimeout, false);
                }
            }
        }
    }

    /// The one function through which a unit changes its state, and in which what is counted by state is.
    pub(super) fn set(&mut self, unit: UnitId, state: State) {
        let plan = self.plan;
        let group = &mut self.groups[plan.units[unit.index()].group.index()];
        let may_fail = plan.nodes[plan.units[unit.index()].node.index()].allow_failure;
        let left_out = self.nodes[plan.units[unit.index()].node.index()].left_out;
        let old = std::mem::replace(&mut self.units[unit.index()].state, state);
        let new = &self.units[unit.index()].state;

        if old.is_done() {
            panic!("BUG: {unit:?} goes from {old:?} to {new:?}");
        }
        count(&mut group.starting, old.is_starting(), new.is_starting());
        count(&mut group.undecided, old.is_undecided(), new.is_undecided());
        if new.is_done() {
            group.open -= 1;
            self.open -= 1;
        }
        if group.open == 0 || (group.undecided == 0 && old.is_undecided()) {
            self.quiet.push_back(plan.units[unit.index()].group);
        }

        let (old, new) = (old.side(may_fail), new.side(may_fail));
        // A unit that was left out is in no count of its queues.
        if old == new || left_out {
            return;
        }
        // Itself first: its end is the reason for what happens to the others, and is told before.
        self.touch(unit);
        for at in self.reads.range(unit.index()) {
            let id = self.reads.at(at);
            let queue = &mut self.queues[id.index()];
            count(
                &mut queue.readers_open,
                old == Side::Open,
                new == Side::Open,
            );
            if new == Side::Ill {
                queue.ill_reader.get_or_insert(unit);
            }
            plan.queues[id.index()]
                .writers
                .iter()
                .for_each(|writer| self.touch(*writer));
        }
        if new == Side::Ill {
            self.worker_is_lost(unit);
        }
        for at in self.writes.range(unit.index()) {
            let id = self.writes.at(at);
            if new == Side::Ill {
                self.queues[id.index()].ill_writer.get_or_insert(unit);
                plan.queues[id.index()]
                    .readers
                    .iter()
                    .for_each(|reader| self.touch(*reader));
            }
        }
    }

    /// Remembers to look at a unit again.
    pub(super) fn touch(&mut self, unit: UnitId) {
        if !std::mem::replace(&mut self.units[unit.index()].touched, true) {
            self.touched.push_back(unit);
        }
    }

    /// Begins to stop a unit that nothing has stopped yet.
    pub(super) fn stop(&mut self, unit: UnitId, why: Why) {
        match &self.units[unit.index()].state {
            State::Starting { stop: None } => self.set(unit, State::Starting { stop: Some(why) }),
            State::Asked { stop: None } => {
                self.disarm(unit);
                self.set(unit, State::Asked { stop: Some(why) });
                self.send_stop(unit);
            }
            State::Running => {
                self.disarm(unit);
                self.service_goes(unit);
                self.set(unit, State::Stopping(why));
                self.send_stop(unit);
            }
            other => panic!("BUG: stop({unit:?}, {why:?}) in {other:?}"),
        }
    }

    fn send_stop(&mut self, unit: UnitId) {
        let grace = self.plan.units[unit.index()].settings.stop_grace;
        if self.kill_all || grace.is_zero() {
            self.kill(unit);
        } else {
            self.units[unit.index()].grace = true;
            self.out.push(Action::Stop(unit));
            self.out.push(Action::Arm(Timer::Grace(unit), grace));
        }
    }

    /// SIGKILL for a unit that is being stopped, once.
    pub(super) fn kill(&mut self, unit: UnitId) {
        self.disarm(unit);
        if !std::mem::replace(&mut self.units[unit.index()].killed, true) {
            self.out.push(Action::Kill(unit));
        }
    }

    /// Disarms what is armed for a unit.
    pub(super) fn disarm(&mut self, unit: UnitId) {
        let state = &mut self.units[unit.index()];
        if std::mem::take(&mut state.timeout) {
            self.out.push(Action::Disarm(Timer::Timeout(unit)));
        }
        if std::mem::take(&mut state.grace) {
            self.out.push(Action::Disarm(Timer::Grace(unit)));
        }
    }

    /// Its readers never take its end for the end of data.
    pub(super) fn cancels_readers(&self, queue: QueueId) -> bool {
        self.plan.queues[queue.index()].on_writer_failure == OnWriterFailure::Cancel
    }

    pub(super) fn node_of(&self, unit: UnitId) -> NodeId {
        self.plan.units[unit.index()].node
    }
}

impl UnitState {
    fn new(has_file: bool) -> Self {
        UnitState {
            state: State::Waiting,
            touched: false,
            has_file,
            file_open: false,
            released: false,
            clear: false,
            taint: None,
            killed: false,
            timeout: false,
            grace: false,
            sure: false,
        }
    }
}

impl NodeState {
    fn new(plan: &Plan, node: &Node) -> Self {
        let units = &plan.units[node.units.start as usize..node.units.end as usize];
        let share = units.iter().filter(|unit| unit.role != Role::Gather);
        let files = share.clone().any(|unit| writes_file(&unit.ends.outputs));
        let count = share.count();
        NodeState {
            open: units.len() as u32,
            started: 0,
            failures: 0,
            unsure: count as u32,
            left_out: node.is_left_out(),
            asked: false,
            shares_files: count > 1 && files,
            ill: None,
            ill_unit: None,
        }
    }
}

impl GroupState {
    fn new(plan: &Plan, units: &[UnitId]) -> Self {
        let mut group = GroupState {
            phase: Phase::Waiting,
            attempt: 0,
            unmet: 0,
            delay_over: false,
            starting: 0,
            undecided: 0,
            open: u32::try_from(units.len()).unwrap_or(u32::MAX),
            restartable: false,
            cleanup: false,
            last_try: false,
            restart: None,
            questions: 0,
            given_up: None,
        };
        for id in units {
            let unit = &plan.units[id.index()];
            let node = &plan.nodes[unit.node.index()];
            if node.is_left_out() {
                continue;
            }
            let waits = waits_of(plan, unit.node).len();
            group.unmet += u32::try_from(waits).unwrap_or(u32::MAX);
            group.questions += u32::from(node.asks.is_some() && node.units.start == id.0);
            group.restartable |= unit.settings.retry.max > 0;
            group.cleanup |= node
                .after
                .iter()
                .any(|after| matches!(after.state, AfterState::Failed | AfterState::Finished));
        }
        group
    }
}

/// The writers of `feedback` queues that are reached from one of its readers.
fn back_writers(plan: &Plan) -> BTreeSet<(QueueId, UnitId)> {
    let mut back = BTreeSet::new();
    let feedback = plan.queues.iter().enumerate().filter(|(_, q)| q.feedback);
    for (id, queue) in feedback {
        let mut reached: BTreeSet<UnitId> = queue.readers.iter().copied().collect();
        let mut todo = queue.readers.clone();
        while let Some(unit) = todo.pop() {
            let written = plan.queues.iter().filter(|q| q.writers.contains(&unit));
            for reader in written.flat_map(|q| &q.readers) {
                if reached.insert(*reader) {
                    todo.push(*reader);
                }
            }
        }
        let writers = queue.writers.iter().filter(|unit| reached.contains(unit));
        back.extend(writers.map(|unit| (QueueId::from(id), *unit)));
    }
    back
}

/// `(reader, writer)`, sorted: the reader takes what the writer stored for all there is.
fn readers_of_stored(plan: &Plan) -> Vec<(NodeId, NodeId)> {
    let node = |unit: &UnitId| plan.units[unit.index()].node;
    let mut pairs = BTreeSet::new();
    for queue in &plan.queues {
        if queue.kind == QueueKind::Stored && queue.on_writer_failure == OnWriterFailure::Cancel {
            let writers: BTreeSet<NodeId> = queue.writers.iter().map(node).collect();
            for reader in queue.readers.iter().map(node).collect::<BTreeSet<NodeId>>() {
                pairs.extend(writers.iter().map(|writer| (reader, *writer)));
            }
        }
    }
    pairs.into_iter().collect()
}

fn writes_file(outputs: &[crate::plan::Output]) -> bool {
    outputs
        .iter()
        .flat_map(|output| &output.to)
        .any(|sink| matches!(sink, Sink::File { append: false, .. }))
}

fn means_broken(exit: Exit, epipe_codes: &[u8]) -> bool {
    match exit {
        Exit::Code(code) => epipe_codes.contains(&code),
        Exit::Signal { number, .. } => number == SIGPIPE,
    }
}

fn count(counter: &mut u32, old: bool, new: bool) {
    match (old, new) {
        (false, true) => *counter += 1,
        (true, false) => *counter -= 1,
        (true, true) | (false, false) => {}
    }
}
