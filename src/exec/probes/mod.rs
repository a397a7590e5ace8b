//! Probes: looks whether services are ready, until they are or their time is over. How it is looked is in `look` (from outside, by
//! threads), in `lines` (in what it prints), and here (by commands). What follows from it the scheduler decides.
//!
//! A command is a process of the loop's: it leads a group of its own, is reaped here, and is killed when it takes too long
//! or nobody wants to know any more. It counts for no node.

mod lines;
mod look;

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use crate::diagnostic::{harmless, reason};
use crate::event::{Exit, Stream};
use crate::exec::crew::Job;
use crate::exec::deadlines::Due;
use crate::exec::ending::reap_child;
use crate::exec::error::Error;
use crate::exec::inbox::Inbox;
use crate::exec::launch::{For, StartError};
use crate::exec::probes::lines::Lines;
use crate::exec::probes::look::{PATIENCE, Sight, Stamp, Watch, longer};
use crate::exec::runner::Runner;
use crate::plan::template::{Part, Template};
use crate::plan::{GroupId, Probe, ProbeKind, UnitId, probe};
use crate::report::words;
use crate::sched::Event;
use crate::sys::pipe::Pipe;
use crate::sys::process::Child;

/// The probes under way.
#[derive(Debug)]
pub(super) struct Probes {
    running: HashMap<UnitId, Running>,
    /// What was at the paths that are looked at, before the services were started.
    before: HashMap<UnitId, Option<Stamp>>,
    inbox: Inbox<()>,
    /// Whose a number of the inbox is.
    watched: HashMap<u64, UnitId>,
    /// Commands that run, by number; also those that nobody wants to know of any more.
    trials: HashMap<u64, Trial>,
    last_trial: u64,
}

/// A probe under way.
#[derive(Debug)]
struct Running {
    how: How,
    /// What is looked at, in words.
    what: String,
}

#[derive(Debug)]
enum How {
    /// By a thread; the number it says so by.
    Watch(Watch, u64),
    /// In what it prints.
    Lines(Lines),
    /// By a command, again and again.
    Command {
        /// The one that runs.
        trial: Option<u64>,
        /// Before the next.
        pause: Duration,
        /// How the last ended, in words.
        seen: String,
    },
}

/// A command that runs.
#[derive(Debug)]
struct Trial {
    child: Child,
    /// Whose probe; none when nobody wants to know any more.
    of: Option<UnitId>,
    /// What it prints.
    output: OwnedFd,
    started: Duration,
    /// It took too long.
    late: bool,
}

impl Probes {
    /// None yet.
    ///
    /// # Errors
    /// Where there are no descriptors left.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Probes {
            running: HashMap::new(),
            before: HashMap::new(),
            inbox: Inbox::new()?,
            watched: HashMap::new(),
            trials: HashMap::new(),
            last_trial: 0,
        })
    }

    /// Readable when a thread has seen what it looks for.
    pub(super) fn wake(&self) -> BorrowedFd<'_> {
        self.inbox.wake()
    }

    /// Commands run that have to be reaped.
    pub(super) fn has_trials(&self) -> bool {
        !self.trials.is_empty()
    }

    /// A unit has printed this. Whether it is the line that its probe waits for.
    pub(super) fn printed(&mut self, unit: UnitId, stream: Stream, bytes: &[u8]) -> bool {
        // Nearly always there is no probe at all.
        if self.running.is_empty() {
            return false;
        }
        match self.running.get_mut(&unit) {
            Some(Running {
                how: How::Lines(lines),
                ..
            }) => lines.push(stream, bytes),
            _ => false,
        }
    }

    /// Sends a signal to all commands: they stop and go on with the run.
    pub(super) fn signal_all(&self, signal: i32) {
        for trial in self.trials.values() {
            // One that has become another user's is not to be had.
            let _ = trial.child.signal_group(signal);
        }
    }
}

/// Beginning and ending.
impl Runner<'_> {
    /// Looks what is at the paths that will be looked at, before the services of a group are started.
    pub(super) fn look_before(&mut self, group: GroupId) {
        let plan = self.plan;
        for &unit in &plan.group(group).units {
            if let Some(Probe {
                kind: ProbeKind::File(path),
                ..
            }) = self.probe_of(unit)
            {
                let path = self.probe_path(path);
                // What can't be looked at now can't be told from what is there later: the first look says so.
                let before = Stamp::of(&path).unwrap_or_default();
                self.probes.before.insert(unit, before);
            }
        }
    }

    fn probe_of(&self, unit: UnitId) -> Option<&Probe> {
        let node = self.plan.node(self.plan.unit(unit).node);
        node.service.as_ref()?.ready.as_ref()
    }

    fn probe_path(&self, path: &Template) -> PathBuf {
        self.plan.dir.join(self.probe_text(path))
    }

    fn probe_text(&self, template: &Template) -> String {
        template.resolve(&|part| match part {
            Part::Text(text) => text.to_string(),
            Part::RunId => self.run_id.clone(),
            Part::Value(node) => self.values.get(node).cloned().unwrap_or_default(),
            Part::Task
            | Part::TaskField(_)
            | Part::TaskIndex
            | Part::Worker
            | Part::In(_)
            | Part::Out(_) => panic!("BUG: {part:?} in a probe"),
        })
    }

    /// Begins to look whether a service is ready.
    pub(super) fn start_probe(&mut self, unit: UnitId) {
        let plan = self.plan;
        let node = plan.node(plan.unit(unit).node);
        let Some(said) = node.service.as_ref().and_then(|s| s.ready.as_ref()) else {
            panic!("BUG: {unit:?} has no probe");
        };
        let begun = match &said.kind {
            ProbeKind::Tcp(text) => {
                let text = self.probe_text(text);
                let sight = probe::address(&text).map(Sight::Address);
                self.watch_service(unit, said, sight, format!("tcp {text}"))
            }
            ProbeKind::Http(text) => {
                let text = self.probe_text(text);
                let sight = probe::url(&text).map(Sight::Url);
                self.watch_service(unit, said, sight, text)
            }
            ProbeKind::File(text) => {
                let what = format!("file {}", self.probe_text(text));
                let before = self.probes.before.remove(&unit).flatten();
                let sight = Ok(Sight::File(self.probe_path(text), before));
                self.watch_service(unit, said, sight, what)
            }
            ProbeKind::Log(text) => {
                let text = self.probe_text(text);
                probe::pattern(&text)
                    .map(|pattern| Running {
                        how: How::Lines(Lines::new(pattern)),
                        what: format!("log {text:?}"),
                    })
                    .map_err(|wrong| wrong.message)
            }
            ProbeKind::Command(words) => {
                let words: Vec<String> = words.iter().map(|word| self.probe_text(word)).collect();
                Ok(Running {
                    how: How::Command {
                        trial: None,
                        pause: said.interval.first,
                        seen: "it has not ended yet".to_owned(),
                    },
                    what: format!("command {}", words.join(" ")),
                })
            }
        };
        match begun {
            Ok(running) => {
                let is_command = matches!(running.how, How::Command { .. });
                self.probes.running.insert(unit, running);
                let due = self.clock.now() + said.timeout;
                self.deadlines.arm(Due::NotReady(unit), due);
                if is_command {
                    self.try_command(unit);
                }
            }
            Err(why) => self.inbox.push_back(Event::NotReady(unit, why)),
        }
    }

    fn watch_service(
        &mut self,
        unit: UnitId,
        said: &Probe,
        sight: Result<Sight, probe::Wrong>,
        what: String,
    ) -> Result<Running, String> {
        let sight = sight.map_err(|wrong| format!("never ready: {}", wrong.message))?;
        let events = self.probes.inbox.events();
        let number = events.id;
        match Watch::begin(sight, said.interval, events) {
            Ok(watch) => {
                self.probes.watched.insert(number, unit);
                Ok(Running {
                    how: How::Watch(watch, number),
                    what,
                })
            }
            Err(e) => {
                let why = reason(&e);
                self.fail(Error::new("start a thread", e));
                Err(why)
            }
        }
    }

    /// Nobody wants to know any more whether this service is ready.
    pub(super) fn stop_probe(&mut self, unit: UnitId) {
        self.probes.before.remove(&unit);
        self.deadlines.disarm(Due::NotReady(unit));
        self.deadlines.disarm(Due::Look(unit));
        let Some(running) = self.probes.running.remove(&unit) else {
            return;
        };
        match running.how {
            How::Watch(_, number) => {
                self.probes.watched.remove(&number);
            }
            How::Command {
                trial: Some(number),
                ..
            } => {
                if let Some(trial) = self.probes.trials.get_mut(&number) {
                    trial.of = None;
                }
                self.kill_trial(number);
            }
            How::Lines(_) | How::Command { trial: None, .. } => {}
        }
    }

    /// A service is ready.
    pub(super) fn is_ready(&mut self, unit: UnitId) {
        self.stop_probe(unit);
        self.inbox.push_back(Event::Ready(unit));
    }

    /// The time of a probe is over.
    pub(super) fn not_ready(&mut self, unit: UnitId) {
        let Some(timeout) = self.probe_of(unit).map(|probe| probe.timeout) else {
            return;
        };
        let Some(running) = self.probes.running.get(&unit) else {
            return;
        };
        let seen = match &running.how {
            How::Watch(watch, _) => watch.seen(),
            How::Lines(lines) => lines.seen(),
            How::Command { seen, .. } => seen.clone(),
        };
        let why = format!(
            "not ready after {}: {}: {seen}",
            humantime::format_duration(timeout),
            running.what
        );
        self.stop_probe(unit);
        self.inbox.push_back(Event::NotReady(unit, why));
    }

    /// Threads that have seen what they look for.
    pub(super) fn read_probes(&mut self) {
        while let Some((number, ())) = self.probes.inbox.next() {
            if let Some(&unit) = self.probes.watched.get(&number) {
                self.is_ready(unit);
            }
        }
    }
}

/// Commands.
impl Runner<'_> {
    /// Starts a probe's command (once more).
    pub(super) fn try_command(&mut self, unit: UnitId) {
        let pipe = match Pipe::to_here() {
            Ok(pipe) => pipe,
            Err(e) => return self.fail(Error::new("make a pipe for a probe", e)),
        };
        let (null, write) = (self.null.as_raw_fd(), pipe.write.as_raw_fd());
        let job = Job {
            attempt: 1,
            units: vec![(unit, vec![(null, 0), (write, 1), (write, 2)])],
            worker: None,
            purpose: For::Probe,
        };
        let mut done = self.crew.start(vec![job], &self.values).into_iter();
        let started = done.next().and_then(|done| done.into_iter().next());
        match started {
            Some(Ok(child)) => self.trial_started(unit, child, pipe.read),
            Some(Err(StartError::Unit(failure))) => {
                // It will not appear by itself.
                let why = format!("its probe: {}", words::failure(self.plan, unit, &failure));
                self.stop_probe(unit);
                self.inbox.push_back(Event::NotReady(unit, why));
            }
            Some(Err(StartError::Broken(e))) => self.fail(Error::new("start a process", e)),
            other => panic!("BUG: {other:?} came of a probe of {unit:?}"),
        }
    }

    fn trial_started(&mut self, unit: UnitId, child: Child, output: OwnedFd) {
        self.probes.last_trial += 1;
        let number = self.probes.last_trial;
        let now = self.clock.now();
        self.pids
            .insert(child.pid(), crate::exec::runner::Owner::Probe(number));
        self.deadlines.arm(Due::Trial(number), now + PATIENCE);
        let trial = Trial {
            child,
            of: Some(unit),
            output,
            started: now,
            late: false,
        };
        self.probes.trials.insert(number, trial);
        if let Some(Running {
            how: How::Command { trial, .. },
            ..
        }) = self.probes.running.get_mut(&unit)
        {
            *trial = Some(number);
        }
    }

    /// A command has taken too long.
    pub(super) fn trial_is_late(&mut self, number: u64) {
        if let Some(trial) = self.probes.trials.get_mut(&number) {
            trial.late = true;
        }
        self.kill_trial(number);
    }

    fn kill_trial(&mut self, number: u64) {
        self.deadlines.disarm(Due::Trial(number));
        if let Some(trial) = self.probes.trials.get(&number)
            && let Err(e) = trial.child.signal_group(libc::SIGKILL)
        {
            self.fail(Error::new("kill the command of a probe", e));
        }
    }

    /// Reaps a command that has ended, with what is left of its process group.
    pub(super) fn reap_trial(&mut self, number: u64) {
        let Some(mut trial) = self.probes.trials.remove(&number) else {
            panic!("BUG: command {number} of a probe ended, and does not run");
        };
        self.deadlines.disarm(Due::Trial(number));
        let lived = self.clock.now().saturating_sub(trial.started);
        let reaped = match reap_child(&mut trial.child, true, lived) {
            Ok(reaped) => reaped,
            Err(error) => return self.fail(error),
        };
        let Some(unit) = trial.of else { return };
        match reaped.exit {
            Exit::Code(0) if !trial.late => self.is_ready(unit),
            _ if trial.late => self.seen(unit, format!("no end after {}s", PATIENCE.as_secs())),
            exit => {
                let said = last_line(&trial.output);
                let exit = words::exit(exit);
                let seen = match said.is_empty() {
                    true => exit,
                    false => format!("{exit}: {said}"),
                };
                self.seen(unit, seen);
            }
        }
    }

    /// A command has not succeeded: the next comes after a pause.
    fn seen(&mut self, unit: UnitId, what: String) {
        let Some(interval) = self.probe_of(unit).map(|probe| probe.interval) else {
            return;
        };
        if let Some(Running {
            how: How::Command { trial, pause, seen },
            ..
        }) = self.probes.running.get_mut(&unit)
        {
            (*trial, *seen) = (None, what);
            self.deadlines
                .arm(Due::Look(unit), self.clock.now() + *pause);
            *pause = longer(*pause, interval);
        }
    }
}

/// The last line of what a command has printed, where there is one.
fn last_line(output: &OwnedFd) -> String {
    let mut text = vec![0; 64 << 10];
    let count = nix::unistd::read(output, &mut text).unwrap_or(0);
    text.truncate(count);
    let text = String::from_utf8_lossy(&text);
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let last = lines.next_back().unwrap_or_default();
    harmless(last).chars().take(200).collect()
}
