//! Services: kept for as long as somebody needs them, watched until they are ready, restarted, and stopped last.
//!
//! A service is one unit, alone in its group; its restarts are that group's tries. Who waits until it runs or is ready *needs* it,
//! until it has ended itself. So a service that needs another one is stopped before it, with no order to be worked out.

use std::collections::BTreeMap;

use crate::event::{Cause, Outcome};
use crate::plan::{GroupId, NodeId, Plan, UnitId};
use crate::sched::Action;
use crate::sched::machine::Scheduler;
use crate::sched::order::Fact;
use crate::sched::state::{Own, Phase, State, Why};
use crate::spec::AfterState;

/// What is known of all services.
#[derive(Debug, Default)]
pub(super) struct Services {
    of: BTreeMap<NodeId, ServiceState>,
    /// What the idle ones run beside: see [`ServiceState::idle`]. None where there is no idle one, or nothing but services.
    beside: Option<Beside>,
}

/// What is known of a service.
#[derive(Debug)]
pub(super) struct ServiceState {
    /// Its only unit.
    pub unit: UnitId,
    /// Nodes that need it, and have not ended.
    pub users: u32,
    /// No node of the plan needs it: it runs until those have ended that don't wait for the end of a service.
    pub idle: bool,
    /// It runs, its probe has succeeded since it was started, and nobody wants it to end.
    pub ready: bool,
    /// [`Action::Probe`] is out, and neither answered nor taken back.
    pub probing: bool,
}

/// Nodes that are no services and don't wait, through whatever others, for the end of one.
#[derive(Debug)]
struct Beside {
    is: Vec<bool>,
    /// Those of them that have not ended.
    open: u32,
}

impl Services {
    /// Nothing has begun.
    pub fn new(plan: &Plan) -> Self {
        let mut of: BTreeMap<NodeId, ServiceState> = BTreeMap::new();
        for (id, node) in plan.nodes.iter().enumerate() {
            if node.service.is_some() {
                let state = ServiceState {
                    unit: UnitId(node.units.start),
                    users: 0,
                    idle: true,
                    ready: false,
                    probing: false,
                };
                of.insert(NodeId::from(id), state);
            }
        }
        if of.is_empty() {
            return Services::default();
        }
        for node in &plan.nodes {
            for need in needs(plan, node) {
                if let Some(service) = of.get_mut(&need) {
                    service.idle = false;
                    service.users += u32::from(!node.is_left_out());
                }
            }
        }
        let idle = of.values().any(|service| service.idle);
        let only_services = plan.nodes.iter().all(|node| node.service.is_some());
        let beside = (idle && !only_services).then(|| Beside::new(plan));
        Services { of, beside }
    }

    /// What is known of a node that is a service.
    pub fn get(&self, node: NodeId) -> Option<&ServiceState> {
        self.of.get(&node)
    }
}

impl Beside {
    fn new(plan: &Plan) -> Self {
        // Groups stand in start order: what a node waits for has been seen.
        let mut late = vec![false; plan.nodes.len()];
        for group in &plan.groups {
            let nodes = || group.units.iter().map(|unit| plan.units[unit.index()].node);
            let is_late = nodes().any(|node| {
                let mut waits = plan.nodes[node.index()].after.iter();
                waits.any(|wait| {
                    let other = &plan.nodes[wait.node.index()];
                    late[wait.node.index()] || wait.state.is_end() && other.service.is_some()
                })
            });
            nodes().for_each(|node| late[node.index()] = is_late);
        }
        let is: Vec<bool> = plan
            .nodes
            .iter()
            .zip(late)
            .map(|(node, late)| node.service.is_none() && !late)
            .collect();
        let open = is.iter().filter(|is| **is).count() as u32;
        Beside { is, open }
    }
}

/// The services that a node needs, each once.
fn needs(plan: &Plan, node: &crate::plan::Node) -> Vec<NodeId> {
    // Sorted already.
    let mut needs: Vec<NodeId> = node.needs(&plan.nodes).collect();
    needs.dedup();
    needs
}

impl Scheduler<'_> {
    /// This unit is a service.
    pub(super) fn is_service(&self, unit: UnitId) -> bool {
        self.plan.nodes[self.node_of(unit).index()]
            .service
            .is_some()
    }

    /// This group is a service.
    pub(super) fn is_service_group(&self, group: GroupId) -> bool {
        let mut units = self.plan.groups[group.index()].units.iter();
        units.any(|unit| self.is_service(*unit))
    }

    fn service_mut(&mut self, unit: UnitId) -> Option<&mut ServiceState> {
        let node = self.node_of(unit);
        self.services.of.get_mut(&node)
    }

    /// The process of a service runs: what it takes until it is ready begins.
    pub(super) fn service_runs(&mut self, unit: UnitId) {
        let Some(service) = &self.plan.nodes[self.node_of(unit).index()].service else {
            return;
        };
        if service.ready.is_none() {
            return self.is_ready(unit);
        }
        self.out.push(Action::Probe(unit));
        if let Some(state) = self.service_mut(unit) {
            state.probing = true;
        }
    }

    /// Its probe has succeeded. One that was taken back meanwhile may still say so.
    pub(super) fn ready(&mut self, unit: UnitId) {
        if let Some(state) = self.service_mut(unit)
            && std::mem::take(&mut state.probing)
        {
            self.is_ready(unit);
        }
    }

    fn is_ready(&mut self, unit: UnitId) {
        if let Some(state) = self.service_mut(unit) {
            state.ready = true;
        }
        self.out.push(Action::Ready(unit));
        self.facts.push_back((self.node_of(unit), Fact::Ready));
    }

    /// It was not ready in time: it has failed, and is stopped.
    pub(super) fn not_ready(&mut self, unit: UnitId, why: String) {
        if let Some(state) = self.service_mut(unit)
            && std::mem::take(&mut state.probing)
        {
            self.stop(unit, Why::NotReady(why));
        }
    }

    /// A service is being stopped, or its process has ended: it is probed no more, and who has not been started waits again. Whether
    /// it was ready.
    pub(super) fn service_goes(&mut self, unit: UnitId) -> bool {
        let id = self.node_of(unit);
        let Some(state) = self.services.of.get_mut(&id) else {
            return false;
        };
        if std::mem::take(&mut state.probing) {
            self.out.push(Action::StopProbe(unit));
        }
        let was_ready = std::mem::take(&mut state.ready);
        if was_ready {
            self.unmeet(id);
        }
        was_ready
    }

    /// Who waits for this service to be ready does so again, where it was not started yet, or is to be tried again.
    fn unmeet(&mut self, id: NodeId) {
        let plan = self.plan;
        for at in self.waiters.range(id.index()) {
            let (waiter, need) = self.waiters.at(at);
            if need.state != AfterState::Ready || self.nodes[waiter.index()].left_out {
                continue;
            }
            for unit in plan.nodes[waiter.index()].units.clone() {
                let group = plan.units[unit as usize].group;
                let state = &mut self.groups[group.index()];
                match state.phase {
                    Phase::Waiting | Phase::Backoff => state.unmet += 1,
                    Phase::Ready => {
                        state.unmet += 1;
                        state.phase = Phase::Waiting;
                        self.leave_line(group);
                    }
                    Phase::ReadyAgain => {
                        state.unmet += 1;
                        state.phase = Phase::Backoff;
                        state.delay_over = true;
                        self.leave_line(group);
                    }
                    // It is looked at again when all is answered.
                    Phase::Asking | Phase::Running | Phase::Over => {}
                }
            }
        }
    }

    /// For so many of its units' waits the services are not ready: a group that is tried again waits for them as it did the first
    /// time.
    pub(super) fn unready_needs(&self, group: GroupId) -> u32 {
        if self.services.of.is_empty() {
            return 0;
        }
        let units = &self.plan.groups[group.index()].units;
        let nodes = units.iter().map(|unit| self.node_of(*unit));
        let waits = nodes
            .filter(|node| !self.nodes[node.index()].left_out)
            .flat_map(|node| &self.plan.nodes[node.index()].after)
            .filter(|wait| wait.state == AfterState::Ready);
        // One that has ended is one without which it goes on, or it would not be tried again.
        waits
            .filter(|wait| {
                let service = self.services.get(wait.node);
                service.is_some_and(|service| {
                    !service.ready && !self.units[service.unit.index()].state.is_done()
                })
            })
            .count() as u32
    }

    /// A node has ended: what was kept for it may go.
    pub(super) fn needs_no_more(&mut self, id: NodeId) {
        if self.services.of.is_empty() {
            return;
        }
        let plan = self.plan;
        let node = &plan.nodes[id.index()];
        if !node.is_left_out() {
            for need in needs(plan, node) {
                if let Some(service) = self.services.of.get_mut(&need) {
                    service.users -= 1;
                    if service.users == 0 {
                        self.unneeded.push_back(need);
                    }
                }
            }
        }
        if let Some(beside) = &mut self.services.beside
            && beside.is[id.index()]
        {
            beside.open -= 1;
            if beside.open == 0 {
                self.idle_ones_go();
            }
        }
    }

    /// Those that nobody has ever waited for are not needed any more.
    fn idle_ones_go(&mut self) {
        let idle = self.services.of.iter().filter(|(_, state)| state.idle);
        self.unneeded.extend(idle.map(|(id, _)| *id));
    }

    /// Services of which all users were left out, and idle ones where all others wait for the end of a service: nobody will ever
    /// say that these have ended.
    pub(super) fn unneeded_from_the_start(&mut self) {
        if self.services.beside.as_ref().is_some_and(|b| b.open == 0) {
            self.idle_ones_go();
        }
        let services = self.services.of.iter();
        let unneeded = services.filter(|(_, state)| !state.idle && state.users == 0);
        self.unneeded.extend(unneeded.map(|(id, _)| *id));
    }

    /// The run has failed, and nothing new is to start. A run of services alone would never end by itself.
    pub(super) fn services_alone_go(&mut self) {
        if self.services.beside.is_none() && self.plan.nodes.iter().all(|n| n.service.is_some()) {
            self.idle_ones_go();
        }
    }

    /// Nobody needs this service (any more): it is stopped, and has then succeeded; or it is not started at all.
    pub(super) fn not_needed(&mut self, id: NodeId) {
        let Some(unit) = self.services.get(id).map(|state| state.unit) else {
            return;
        };
        let group = self.plan.units[unit.index()].group;
        let halted = self.halted.clone();
        match self.groups[group.index()].phase {
            Phase::Waiting | Phase::Ready => {
                let cause = halted.unwrap_or(Cause::NotNeeded);
                if !self.units[unit.index()].state.is_done() {
                    self.skip(group, vec![(unit, cause)]);
                }
            }
            Phase::Asking => {
                let cause = halted.unwrap_or(Cause::NotNeeded);
                self.give_up(group, vec![(unit, cause)]);
            }
            Phase::Backoff | Phase::ReadyAgain => {
                self.leave_backoff(group);
                self.groups[group.index()].phase = Phase::Over;
                self.groups[group.index()].restart = None;
                self.done(unit, Outcome::Succeeded { early_close: false });
            }
            Phase::Running => {
                self.groups[group.index()].restart = None;
                self.is_last_try(group);
                let why = halted.map_or(Why::NotNeeded, Why::Cancel);
                match &self.units[unit.index()].state {
                    State::Starting { stop: None } | State::Running => self.stop(unit, why),
                    State::Stopping(Why::NotReady(_)) => self.set(unit, State::Stopping(why)),
                    State::Starting {
                        stop: Some(Why::NotReady(_)),
                    } => self.set(unit, State::Starting { stop: Some(why) }),
                    // It has just ended, and was to be started again.
                    State::Settled(Own::TakenBack) => {
                        self.decide(unit, Own::Well { early_close: false });
                    }
                    State::Starting { stop: Some(_) }
                    | State::Stopping(_)
                    | State::Settled(_)
                    | State::Committing { .. }
                    | State::Done(_) => {}
                    other @ (State::Waiting
                    | State::Asked { .. }
                    | State::Torn(_)
                    | State::Backoff) => {
                        panic!("BUG: service {unit:?} is {other:?} while its group runs")
                    }
                }
            }
            Phase::Over => {}
        }
    }

    /// A service has ended as it should not have: this node, which needs it, cannot go on. What it shares queues with follows by
    /// the rules of queues.
    pub(super) fn service_is_lost(&mut self, user: NodeId, cause: &Cause) {
        let plan = self.plan;
        let units = || plan.nodes[user.index()].units.clone().map(UnitId);
        let Some(first) = units().next() else { return };
        let group = plan.units[first.index()].group;
        let outcome = Outcome::Cancelled(cause.clone());
        match self.groups[group.index()].phase {
            Phase::Waiting | Phase::Ready | Phase::Asking => self.skip_because_of(first, cause),
            Phase::Backoff | Phase::ReadyAgain => {
                let mut causes = self.causes(group, first, &outcome);
                causes.extend(units().map(|unit| (unit, cause.clone())));
                self.abandon_for(group, &|unit| cause_of(&causes, unit));
            }
            Phase::Running => {
                if self.groups[group.index()].restart.is_some() {
                    let mut causes = self.causes(group, first, &outcome);
                    causes.extend(units().map(|unit| (unit, cause.clone())));
                    self.abandon_for(group, &|unit| cause_of(&causes, unit));
                }
                // Nothing of this try can be taken back: the next would have to do without the service.
                self.is_last_try(group);
                for unit in units() {
                    if matches!(
                        self.units[unit.index()].state,
                        State::Starting { stop: None } | State::Running
                    ) {
                        self.stop(unit, Why::Cancel(cause.clone()));
                    }
                }
            }
            Phase::Over => {}
        }
    }
}

/// The last that is said of a unit.
fn cause_of(causes: &[(UnitId, Cause)], unit: UnitId) -> Cause {
    match causes.iter().rev().find(|(of, _)| *of == unit) {
        Some((_, cause)) => cause.clone(),
        None => panic!("BUG: no cause reaches {unit:?}"),
    }
}
