//! The loop: one thread, one wait. It turns what the kernel says into the scheduler's events, and the scheduler's actions
//! into system calls. It decides nothing about the graph.
//!
//! Only this loop reaps, so a process id that it has not reaped is still its own, and a signal can't hit a stranger. In
//! one wake-up, signals come before exits, exits before timers, timers before data: a stop that was asked for is not
//! outrun by an exit, and an exit is not mistaken for a time-out that came at the same moment.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use crate::event::{Exit, Printer, RunEvent, Usage, What};
use crate::exec::crew::{Crew, Values};
use crate::exec::deadlines::{Deadlines, Due, RunClock};
use crate::exec::error::Error;
use crate::exec::feedback::Cycles;
use crate::exec::files::{Appended, PendingFile};
use crate::exec::foreground::Foreground;
use crate::exec::jobserver::Jobserver;
use crate::exec::journal::Journal;
use crate::exec::log_pipes::LogPipes;
use crate::exec::pools::Pools;
use crate::exec::probes::Probes;
use crate::exec::progress::Progress;
use crate::exec::questions::{LeftOut, Questions};
use crate::exec::relays::{Carries, Relays};
use crate::exec::stall::Stalls;
use crate::exec::wiring::{Captured, LogEnds, Taps, TeeHold, Wiring};
use crate::plan::{GroupId, NodeId, Plan, UnitId};
use crate::pool::Ticket;
use crate::report::Observers;
use crate::resume::Keeper;
use crate::sched::{Action, Event, Scheduler, Timer, Verdict};
use crate::spec::OnFailure;
use crate::sys::guard::Link;
use crate::sys::poller::Poller;
use crate::sys::process::Child;
use crate::sys::signals::Signals;

/// The longest value of a node, in bytes (spec 1.2).
pub(super) const VALUE_MAX: usize = 64 * 1024;

/// Read from a log at once: what a pipe of the usual size holds.
const CAPTURE_BLOCK: usize = 64 * 1024;

/// A log is not watched before its process has lived so long: the last look, when it has ended, is all that a short life
/// needs, and watching costs as much as reading.
const SHORT_LIFE: Duration = Duration::from_millis(2);

/// Events and logs are written when there is nothing else to do, or when this time has passed: for short processes, one after
/// the other, a write for each is a tenth of our own work.
const WRITE_EVERY: Duration = Duration::from_millis(10);

/// How long an end waits for relays that still hand on what was written last, where a reader is slow to take it.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// What a wake-up is about, in the order in which they are handled. In a token of epoll(7) the top byte is the kind, the
/// rest says which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Token {
    Guard,
    Signals,
    Relays,
    Pools,
    Probes,
    Slots,
    Capture(u64),
}

impl Token {
    const KIND: u32 = 56;

    pub(super) fn pack(self) -> u64 {
        match self {
            Token::Guard => 0,
            Token::Signals => 1 << Self::KIND,
            Token::Relays => 2 << Self::KIND,
            Token::Pools => 3 << Self::KIND,
            Token::Probes => 4 << Self::KIND,
            Token::Slots => 5 << Self::KIND,
            Token::Capture(number) => (6 << Self::KIND) | number,
        }
    }

    fn unpack(token: u64) -> Self {
        let id = token & ((1 << Self::KIND) - 1);
        match token >> Self::KIND {
            0 => Token::Guard,
            1 => Token::Signals,
            2 => Token::Relays,
            3 => Token::Pools,
            4 => Token::Probes,
            5 => Token::Slots,
            6 => Token::Capture(id),
            _ => panic!("BUG: epoll returned the token {token:#x}"),
        }
    }
}

/// What does a unit's work.
#[derive(Debug)]
pub(super) enum Body {
    /// A process.
    Process(Child),
    /// A pool's thread, by its number, and its workers.
    Pool(u64),
    /// The relay of the queue that it gathers.
    Gather,
}

/// Whose a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// This unit's.
    Unit(UnitId),
    /// A worker of the pool of this number.
    Worker(u64, Ticket),
    /// A probe's, its command of this number.
    Probe(u64),
    /// The command's that says whether this unit's node runs.
    Question(UnitId),
}

/// A unit at work, from its start until the scheduler knows of its exit.
pub(super) struct Live {
    pub(super) body: Body,
    pub(super) attempt: u32,
    pub(super) started: Duration,
    /// Its captures that are still open.
    pub(super) captures: Vec<u64>,
    /// The holds before its tees: dropped when the process has ended, so that the tees end.
    pub(super) tee_holds: Vec<TeeHold>,
    /// procflow has signalled it: what is left of its group then has not leaked, it is dying.
    pub(super) signalled: bool,
    /// Of a `stream` pool's worker: the read end of its share.
    pub(super) share: Option<OwnedFd>,
    /// What is wrong with its result although it may have ended well.
    pub(super) fault: Option<String>,
    /// How the process ended, once it is reaped and only relays are waited for.
    pub(super) reaped: Option<Reaped>,
    /// Relays that have not taken in all that it wrote.
    pub(super) unsettled: HashSet<u64>,
}

/// What the kernel said of an ended process.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reaped {
    pub(super) exit: Exit,
    pub(super) usage: Usage,
    pub(super) leaked: bool,
}

/// An end that the loop reads.
pub(super) struct Capture {
    pub(super) printer: Printer,
    pub(super) what: Captured,
    pub(super) ends: LogEnds,
    /// The poller has it.
    pub(super) watched: bool,
}

/// What is known of a unit's last try, for its `Ended` event.
pub(super) struct LastTry {
    pub(super) attempt: u32,
    pub(super) reaped: Option<Reaped>,
}

/// A run in progress.
pub struct Runner<'a> {
    pub(super) plan: &'a Plan,
    pub(super) sched: Scheduler<'a>,
    pub(super) crew: Crew,
    pub(super) watch: Observers<'a>,
    pub(super) run_id: String,
    pub(super) spill_dir: PathBuf,
    pub(super) taps: Option<Taps>,
    pub(super) on_failure: OnFailure,
    pub(super) tasks_log: TasksLog,

    pub(super) poller: Poller,
    pub(super) signals: Signals,
    pub(super) guard: Option<Link>,
    pub(super) null: OwnedFd,

    pub(super) foreground: Foreground,
    /// A signal that was sent to the guard's group by us, and that the guard will tell us of: heard already.
    pub(super) echo: Option<i32>,

    pub(super) clock: RunClock,
    pub(super) deadlines: Deadlines,
    pub(super) inbox: VecDeque<Event>,
    pub(super) actions: Vec<Action>,
    /// Groups that the scheduler has said to start, with their tries.
    pub(super) to_spawn: Vec<(GroupId, u32)>,

    pub(super) live: HashMap<UnitId, Live>,
    /// Whose process this is, until it is reaped.
    pub(super) pids: HashMap<i32, Owner>,
    /// SIGCHLD has come.
    pub(super) child_ended: bool,
    pub(super) groups: HashMap<GroupId, Wiring>,
    pub(super) relays: Relays,
    pub(super) pools: Pools,
    pub(super) probes: Probes,
    pub(super) questions: Questions,
    pub(super) left_out: LeftOut,
    pub(super) cycles: Cycles,
    pub(super) progress: Progress,
    pub(super) stalls: Stalls,
    pub(super) log_pipes: LogPipes,
    pub(super) captures: HashMap<u64, Capture>,
    /// Captures that are not watched yet, and since when there are: the oldest first.
    pub(super) unwatched: VecDeque<(Duration, u64)>,
    /// The number of the next capture. None is used twice: a wake-up for one that is gone finds nothing.
    pub(super) next_capture: u64,

    pub(super) files: HashMap<UnitId, Vec<PendingFile>>,
    pub(super) appended: Appended,
    /// What units with the sink `value` have written so far.
    pub(super) capturing: HashMap<UnitId, Vec<u8>>,
    /// The values of nodes whose unit has ended.
    pub(super) values: Values,
    /// Where slots are shared with others.
    pub(super) jobserver: Option<Jobserver>,
    /// What the scheduler wants of it.
    pub(super) wanted_slots: u32,
    /// The poller has its pipe.
    pub(super) slots_watched: bool,
    /// When it was last looked whether all its tokens are there.
    pub(super) slots_levelled: Duration,
    pub(super) last: HashMap<UnitId, LastTry>,

    pub(super) journal: Journal<'a>,
    pub(super) broken: Option<Error>,
    pub(super) verdict: Option<Verdict>,
    pub(super) buffer: Vec<u8>,
}

/// What a run is made of.
pub struct Parts<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// Its scheduler, nothing begun.
    pub sched: Scheduler<'a>,
    /// Starts its processes.
    pub crew: Crew,
    /// Who watches.
    pub watch: Observers<'a>,
    /// Notes what has finished.
    pub keeper: Keeper<'a>,
    /// The values of nodes that are reused.
    pub values: HashMap<NodeId, String>,
    /// The guard's messages; without one nothing but a signal to this process is heard.
    pub guard: Option<Link>,
    /// Signals sent to this process itself.
    pub signals: Signals,
    /// The run's id.
    pub run_id: String,
    /// For what queues spill, and for queues that are stored.
    pub spill_dir: PathBuf,
    /// Queues of which a copy is printed.
    pub taps: Option<Taps>,
    /// What a failure means for the rest: a pool treats its records so.
    pub on_failure: OnFailure,
    /// Makes the file in which a pool of this name notes its tasks.
    pub tasks_log: TasksLog,
    /// Job slots, where they are shared with others.
    pub jobserver: Option<Jobserver>,
    /// After so long without movement in a group it is said who waits for whom: [`crate::exec::stall::STALLED_AFTER`], but for tests.
    pub stalled_after: Duration,
}

/// Opens the `tasks.jsonl` of the pool of this name.
pub type TasksLog = Box<dyn Fn(&str) -> io::Result<File>>;

impl<'a> Runner<'a> {
    /// A run that has not begun; its clock has.
    ///
    /// # Errors
    /// Where the kernel has nothing left to watch descriptors with.
    pub fn new(parts: Parts<'a>, clock: RunClock) -> Result<Self, Error> {
        let cannot = |e: io::Error| Error::new("set up the loop", e);
        let poller = Poller::new().map_err(cannot)?;
        let relays = Relays::new().map_err(cannot)?;
        let pools = Pools::new().map_err(cannot)?;
        let probes = Probes::new().map_err(cannot)?;
        poller
            .add(&parts.signals, Token::Signals.pack())
            .map_err(cannot)?;
        poller
            .add(relays.wake(), Token::Relays.pack())
            .map_err(cannot)?;
        poller
            .add(pools.wake(), Token::Pools.pack())
            .map_err(cannot)?;
        poller
            .add(probes.wake(), Token::Probes.pack())
            .map_err(cannot)?;
        if let Some(guard) = &parts.guard {
            poller.add(guard, Token::Guard.pack()).map_err(cannot)?;
        }
        let null = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/null")
            .map_err(|e| Error::new("open /dev/null", e))?
            .into();
        let left_out = LeftOut::of(parts.plan);
        Ok(Runner {
            plan: parts.plan,
            sched: parts.sched,
            crew: parts.crew,
            watch: parts.watch,
            run_id: parts.run_id,
            spill_dir: parts.spill_dir,
            taps: parts.taps,
            on_failure: parts.on_failure,
            tasks_log: parts.tasks_log,
            poller,
            signals: parts.signals,
            guard: parts.guard,
            null,
            foreground: Foreground::new(),
            echo: None,
            clock,
            deadlines: Deadlines::default(),
            inbox: VecDeque::new(),
            actions: Vec::new(),
            live: HashMap::new(),
            pids: HashMap::new(),
            child_ended: false,
            groups: HashMap::new(),
            relays,
            pools,
            probes,
            cycles: Cycles::of(parts.plan, &left_out),
            questions: Questions::default(),
            left_out,
            progress: Progress::default(),
            stalls: Stalls::new(parts.stalled_after),
            log_pipes: LogPipes::default(),
            captures: HashMap::new(),
            unwatched: VecDeque::new(),
            next_capture: 0,
            files: HashMap::new(),
            appended: Appended::default(),
            capturing: HashMap::new(),
            values: Values::new(parts.values),
            to_spawn: Vec::new(),
            jobserver: parts.jobserver,
            wanted_slots: 0,
            slots_watched: false,
            slots_levelled: Duration::ZERO,
            last: HashMap::new(),
            journal: Journal::new(parts.keeper),
            broken: None,
            verdict: None,
            buffer: vec![0; CAPTURE_BLOCK],
        })
    }

    /// Runs the plan to its end, doing something else while the first processes run: everything has ended, nothing of it is left but what made itself a daemon.
    ///
    /// # Errors
    /// Where the loop itself cannot wait any more. Everything else that goes wrong on the way ends the run in order, with
    /// [`Verdict::Broken`] and what it was.
    pub fn run(mut self, meanwhile: impl FnOnce()) -> Result<Ended<'a>, Error> {
        if let Some(jobserver) = self.jobserver.as_ref().filter(|slots| slots.is_outer()) {
            self.inbox.push_back(Event::Slots(jobserver.slots()));
        }
        self.inbox.push_back(Event::Begin);
        self.settle();
        meanwhile();
        let mut ready = Vec::new();
        let mut written = self.clock.now();
        while self.goes_on() {
            ready.clear();
            let now = self.clock.now();
            if now.saturating_sub(written) < WRITE_EVERY {
                self.wait(Some(Duration::ZERO), &mut ready)?;
            }
            if ready.is_empty() {
                self.flush();
                self.offer_slots();
                written = now;
                // What could not be written may have ended the run, where nothing was left to wait for.
                if !self.goes_on() {
                    break;
                }
                self.wait(self.wait_limit(), &mut ready)?;
            }
            ready.sort_unstable();
            self.wake(&ready);
            self.settle();
            self.watch_logs();
        }
        self.end_journal();
        Ok(Ended {
            verdict: self.verdict.unwrap_or(Verdict::Broken),
            broken: self.broken,
            watch: self.watch,
            clock: self.clock,
            taps: self.taps,
            signals: self.signals,
            guard: self.guard,
        })
    }

    fn goes_on(&self) -> bool {
        self.verdict.is_none() || !self.relays.is_empty() || self.probes.has_trials()
    }

    fn wait(&mut self, limit: Option<Duration>, ready: &mut Vec<u64>) -> Result<(), Error> {
        let waited = self.poller.wait(limit);
        ready.extend(waited.map_err(|e| Error::new("wait for events", e))?);
        Ok(())
    }

    fn wait_limit(&self) -> Option<Duration> {
        let watch = self.unwatched.front().map(|(since, _)| *since + SHORT_LIFE);
        let due = [self.deadlines.next(), watch].into_iter().flatten().min();
        let due = due.map(|at| at.saturating_sub(self.clock.now()));
        [self.watch.tick_every(), due].into_iter().flatten().min()
    }

    /// Watches the logs of processes that have lived longer than most do.
    fn watch_logs(&mut self) {
        let now = self.clock.now();
        while let Some(&(since, number)) = self.unwatched.front()
            && now.saturating_sub(since) >= SHORT_LIFE
        {
            self.unwatched.pop_front();
            let Some(capture) = self.captures.get_mut(&number) else {
                continue;
            };
            capture.watched = true;
            let token = Token::Capture(number).pack();
            if let Err(e) = self.poller.add(&capture.ends.read, token) {
                self.fail(Error::new("watch a log", e));
            }
        }
    }

    fn wake(&mut self, ready: &[u64]) {
        let data = ready.partition_point(|&token| token < Token::Relays.pack());
        for &token in &ready[..data] {
            self.dispatch(Token::unpack(token));
        }
        self.reap_children();
        self.timers();
        for &token in &ready[data..] {
            self.dispatch(Token::unpack(token));
        }
        self.watch_foreground();
        self.watch.tick(self.clock.now());
    }

    fn dispatch(&mut self, token: Token) {
        match token {
            Token::Guard => self.read_guard(),
            Token::Signals => self.read_signals(),
            Token::Relays => self.read_relays(),
            Token::Pools => self.read_pools(),
            Token::Probes => self.read_probes(),
            Token::Slots => self.read_slots(),
            Token::Capture(number) => {
                self.read_capture(number);
            }
        }
    }

    fn timers(&mut self) {
        let now = self.clock.now();
        while let Some(due) = self.deadlines.pop(now) {
            match due {
                // Its process has ended in time; only what it wrote is still on its way.
                Due::Sched(Timer::Timeout(unit)) if self.has_ended(unit) => {}
                Due::Sched(timer) => self.inbox.push_back(Event::Fired(timer)),
                Due::Relays(unit) => self.exited(unit),
                Due::Relay(number) => self.end_relay(number),
                Due::Worker(pool, ticket) => self.signal_worker(pool, ticket, libc::SIGKILL),
                Due::NotReady(unit) => self.not_ready(unit),
                Due::Look(unit) => self.try_command(unit),
                Due::Trial(number) => self.trial_is_late(number),
                Due::Stall(group) => self.look_for_stall(group),
                Due::Cycles => self.look_at_cycles(),
                Due::Progress => self.tell_progress(),
                Due::Journal => self.sync_journal(),
            }
        }
    }

    /// Hands the events to the scheduler and does what it says, until both are still.
    pub(super) fn settle(&mut self) {
        loop {
            while let Some(event) = self.inbox.pop_front() {
                let mut actions = std::mem::take(&mut self.actions);
                self.sched.handle(event, &mut actions);
                for action in actions.drain(..) {
                    self.act(action);
                }
                self.actions = actions;
            }
            // All at once, and so with more hands than one: what else there was to say has been said.
            if self.to_spawn.is_empty() && !self.pools.has_asked() {
                return;
            }
            // What has finished is noted before what comes after it begins.
            self.write_journal();
            self.spawn();
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Spawn { group, attempt } => self.to_spawn.push((group, attempt)),
            Action::Ask(unit) => self.ask(unit),
            Action::Stop(unit) => self.stop(unit),
            Action::Kill(unit) => self.signal(unit, libc::SIGKILL),
            Action::Probe(unit) => self.start_probe(unit),
            Action::StopProbe(unit) => self.stop_probe(unit),
            Action::Ready(unit) => self.tell(What::Ready { unit }),
            Action::Arm(timer, after) => self
                .deadlines
                .arm(Due::Sched(timer), self.clock.now() + after),
            Action::Disarm(timer) => self.deadlines.disarm(Due::Sched(timer)),
            Action::Release {
                queue,
                writer,
                torn,
            } => {
                let group = self.plan.unit(writer).group;
                if let Some(wiring) = self.groups.get_mut(&group) {
                    wiring.release(queue, writer, torn);
                    self.relays
                        .look(|carries| matches!(carries, Carries::Queue(id, _) if *id == queue));
                    // It may have been the last from outside of a cycle.
                    self.look_at_cycles();
                }
            }
            Action::Commit(unit) => self.commit(unit),
            Action::Discard(unit) => drop(self.files.remove(&unit)),
            Action::GroupEnded(group) => {
                self.end_group(group);
                let noted = self.journal.keeper.group_ended(group, &self.values);
                self.noted(noted);
            }
            Action::WantSlots(slots) => self.want_slots(slots),
            Action::Ended(unit, outcome) => {
                self.note_left_out(unit, &outcome);
                self.report_end(unit, outcome);
            }
            Action::Retrying {
                unit,
                attempt,
                failure,
                delay,
            } => {
                self.tell(What::Retrying {
                    unit,
                    attempt,
                    failure,
                    delay,
                    stderr_tail: Vec::new(),
                });
            }
            Action::Stopping(cause) => self.tell(What::RunStopping { cause }),
            Action::Finish(verdict) => self.verdict = Some(verdict),
        }
    }

    /// For which unit a process works.
    pub(super) fn unit_of(&self, owner: Owner) -> Option<UnitId> {
        match owner {
            Owner::Unit(unit) => Some(unit),
            Owner::Worker(pool, _) => self.pools.unit(pool),
            Owner::Probe(_) | Owner::Question(_) => None,
        }
    }

    /// Tells whoever watches.
    pub fn tell(&mut self, what: What) {
        self.watch.event(RunEvent {
            at: self.clock.now(),
            what,
        });
    }

    pub(super) fn flush(&mut self) {
        // Before anybody is told.
        self.write_journal();
        if let Err(e) = self.watch.flush() {
            self.fail(e.into());
            self.settle();
        }
    }

    /// procflow cannot go on: the run ends, and the first such error is what it ended of.
    pub(super) fn fail(&mut self, error: Error) {
        if self.broken.is_none() {
            self.broken = Some(error);
            self.inbox.push_back(Event::Broken);
        }
    }
}

/// A run that has ended.
pub struct Ended<'a> {
    /// How.
    pub verdict: Verdict,
    /// What procflow could not do, where that ended the run.
    pub broken: Option<Error>,
    /// Who watched.
    pub watch: Observers<'a>,
    /// The run's clock.
    pub clock: RunClock,
    /// What was to be printed of queues may not have been yet.
    pub taps: Option<Taps>,
    /// Signals that come now are nobody's to hear but who waits for that.
    pub signals: Signals,
    /// The guard, where it is there, to see to what may be left.
    pub guard: Option<Link>,
}
