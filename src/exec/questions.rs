//! Conditions that are commands: each is a process of the loop's, on behalf of a unit that may then be started. It leads a group of
//! its own, is stopped and reaped as a unit is, and what it prints is in the node's log. The scheduler decides what follows.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use crate::event::{Cause, Failure, Outcome};
use crate::exec::crew::Job;
use crate::exec::ending::reap_child;
use crate::exec::error::Error;
use crate::exec::launch::{For, StartError};
use crate::exec::runner::{Owner, Runner};
use crate::exec::wiring::{Captured, LogEnds};
use crate::plan::{NodeId, Plan, UnitId};
use crate::sched::Event;
use crate::sys::pipe::Pipe;
use crate::sys::process::Child;

/// A command that runs.
#[derive(Debug)]
pub(super) struct Question {
    child: Child,
    started: Duration,
    /// What it prints.
    captures: [u64; 2],
    /// We have signalled it.
    signalled: bool,
}

/// The commands that run, each with the unit that it is asked for.
#[derive(Debug, Default)]
pub(super) struct Questions(HashMap<UnitId, Question>);

/// Nodes that are not started, by `--skip` or `when`. For wiring they are not there at all.
#[derive(Debug)]
pub struct LeftOut(HashSet<NodeId>);

impl LeftOut {
    /// What is known before the run.
    pub fn of(plan: &Plan) -> Self {
        let nodes = plan.nodes.iter().enumerate();
        let out = nodes.filter(|(_, node)| node.is_left_out());
        LeftOut(out.map(|(id, _)| NodeId::from(id)).collect())
    }

    /// Those of the units that are started: all but these.
    pub fn starts(&self, plan: &Plan, units: &[UnitId]) -> Vec<UnitId> {
        units
            .iter()
            .copied()
            .filter(|&unit| !self.has(plan, unit))
            .collect()
    }

    /// This unit's node is one of them.
    pub fn has(&self, plan: &Plan, unit: UnitId) -> bool {
        self.0.contains(&plan.unit(unit).node)
    }
}

impl Runner<'_> {
    /// Asks whether a unit's node runs.
    pub(super) fn ask(&mut self, unit: UnitId) {
        if let Some(error) = &self.broken {
            let why = error.to_string();
            return self.cannot_ask(unit, Failure::CannotStart { code: 126, why });
        }
        let (out, err) = match (self.log_pipes.take(), self.log_pipes.take()) {
            (Ok(out), Ok(err)) => (out, err),
            (Err(e), _) | (_, Err(e)) => return self.ask_broken(unit, "make a pipe", e),
        };
        let fds = [
            self.null.as_raw_fd(),
            out.write.as_raw_fd(),
            err.write.as_raw_fd(),
        ];
        let job = Job {
            attempt: 1,
            units: vec![(unit, fds.into_iter().zip(0..).collect())],
            worker: None,
            purpose: For::Condition,
        };
        let mut done = self.crew.start(vec![job], &self.values).into_iter();
        match done.next().and_then(|done| done.into_iter().next()) {
            Some(Ok(child)) => self.is_asked(unit, child, [out, err]),
            Some(Err(StartError::Unit(failure))) => self.cannot_ask(unit, failure),
            Some(Err(StartError::Broken(e))) => self.ask_broken(unit, "start a process", e),
            other => panic!("BUG: {other:?} came of the condition of {unit:?}"),
        }
    }

    fn is_asked(&mut self, unit: UnitId, child: Child, pipes: [Pipe; 2]) {
        let started = self.clock.now();
        self.pids.insert(child.pid(), Owner::Question(unit));
        let [out, err] = pipes;
        let captures = [(Captured::Out, out), (Captured::Err, err)].map(|(what, pipe)| {
            let ends = LogEnds {
                read: pipe.read,
                // The command may leave somebody who has it.
                write: None,
            };
            self.begin_capture(started, unit.into(), what, ends)
        });
        let question = Question {
            child,
            started,
            captures,
            signalled: false,
        };
        self.questions.0.insert(unit, question);
    }

    fn cannot_ask(&mut self, unit: UnitId, failure: Failure) {
        self.inbox.push_back(Event::Answered(unit, Err(failure)));
    }

    /// It is procflow that can't. The scheduler waits for an answer all the same.
    fn ask_broken(&mut self, unit: UnitId, what: &str, e: io::Error) {
        let error = Error::new(what, e);
        let why = error.to_string();
        self.fail(error);
        self.cannot_ask(unit, Failure::CannotStart { code: 126, why });
    }

    /// Reaps a command that has ended, with what is left of its process group.
    pub(super) fn reap_question(&mut self, unit: UnitId) {
        let Some(mut question) = self.questions.0.remove(&unit) else {
            panic!("BUG: the condition of {unit:?} ended, and is not asked");
        };
        let lived = self.clock.now().saturating_sub(question.started);
        let reaped = match reap_child(&mut question.child, question.signalled, lived) {
            Ok(reaped) => reaped,
            Err(error) => return self.fail(error),
        };
        for number in question.captures {
            self.read_rest(number);
            self.captures.remove(&number);
        }
        self.inbox.push_back(Event::Answered(unit, Ok(reaped.exit)));
    }

    /// Sends a signal to the process group of the command that is asked for this unit. False where none is.
    pub(super) fn signal_question(&mut self, unit: UnitId, signal: i32) -> bool {
        let Some(question) = self.questions.0.get_mut(&unit) else {
            return false;
        };
        let ends_it = !matches!(signal, libc::SIGSTOP | libc::SIGCONT);
        question.signalled |= ends_it;
        if let Err(e) = question.child.signal_group(signal)
            && ends_it
        {
            let node = &self.plan.node(self.plan.unit(unit).node).name;
            let what = format!("send signal {signal} to the condition of `{node}`");
            self.fail(Error::new(what, e));
        }
        true
    }

    /// The same to all of them.
    pub(super) fn signal_questions(&mut self, signal: i32) {
        let units: Vec<UnitId> = self.questions.0.keys().copied().collect();
        for unit in units {
            self.signal_question(unit, signal);
        }
    }

    /// A unit has ended. One whose condition did not hold is out of its queues from now on.
    pub(super) fn note_left_out(&mut self, unit: UnitId, outcome: &Outcome) {
        if matches!(outcome, Outcome::Skipped(Cause::When(_)))
            && self.left_out.0.insert(self.plan.unit(unit).node)
        {
            self.cycles.without(self.plan, &self.left_out);
        }
    }
}
