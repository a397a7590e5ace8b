//! The terminal, where nodes use it themselves: who may read it now, and when procflow keeps off the screen.
//!
//! Every node is in a process group of its own, in the background of the terminal; who reads the terminal from there is stopped
//! (SIGTTIN). So a node with `stdin = "inherit"` is made the terminal's foreground for its life, as a shell does it with a job. One
//! at a time, in the order of their starts: the next gets it when the one before has ended.
//!
//! What the terminal sends to its foreground (Ctrl-C, Ctrl-\, Ctrl-Z) reaches that node alone then. It was meant for the whole
//! run, and all that stands in the guard's group beside it (a script, the other side of a shell's `|`), so they get it, too, once
//! it is seen what it did to the node: a node that outlives a Ctrl-C has handled it.

use std::collections::{HashSet, VecDeque};
use std::io::{IsTerminal, stderr, stdin, stdout};
use std::time::Duration;

use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};

use crate::event::Exit;
use crate::exec::runner::{Body, Runner};
use crate::plan::{Plan, Sink, Source, UnitId};
use crate::sched::Event;
use crate::sys::guard::{foreground, foreground_group, guard_group, signal_job};
use crate::sys::process::stopped_by;

/// A stop that was shorter than this was none: nobody is there who could continue us (an orphaned process group, in which the kernel
/// ignores stops).
const SHORTEST_STOP: Duration = Duration::from_millis(50);

/// How often it is looked whether the run is in the foreground again: a shell does not say so of a job that runs.
const LOOK: Duration = Duration::from_millis(100);

/// Who uses the terminal.
#[derive(Debug)]
pub(super) struct Foreground {
    /// Descriptors 0 to 2 are terminals.
    terminals: [bool; 3],
    /// The guard's process group.
    home: i32,
    /// Units that read the terminal, as they were started: the first has it, if anybody has.
    readers: VecDeque<UnitId>,
    /// It has been given to the first reader; its modes were these.
    given: Option<Option<Termios>>,
    /// Readers to which procflow itself has sent a signal: what they end of says nothing of the user.
    asked: HashSet<UnitId>,
    /// The first reader has been stopped by a read, and left so.
    left: bool,
    /// Units that write to the screen, or read from it, themselves.
    users: HashSet<UnitId>,
    /// The shell, or another job of it, is in the foreground.
    background: bool,
    /// When that was last looked at.
    looked: Duration,
    /// Nobody continues us when we stop.
    orphaned: bool,
}

impl Foreground {
    pub(super) fn new() -> Self {
        Foreground {
            terminals: [
                stdin().is_terminal(),
                stdout().is_terminal(),
                stderr().is_terminal(),
            ],
            home: guard_group(),
            readers: VecDeque::new(),
            given: None,
            asked: HashSet::new(),
            left: false,
            users: HashSet::new(),
            background: false,
            looked: Duration::ZERO,
            orphaned: false,
        }
    }

    /// It gets the terminal as its standard input.
    fn reads(&self, plan: &Plan, unit: UnitId) -> bool {
        let mut sources = plan.unit(unit).ends.inputs.iter().flat_map(|i| &i.from);
        self.terminals[0] && sources.any(|(_, source)| *source == Source::Inherit)
    }

    fn writes(&self, plan: &Plan, unit: UnitId) -> bool {
        let mut outputs = plan.unit(unit).ends.outputs.iter();
        outputs.any(|output| {
            // As the wiring has it: every number but 2 is standard output.
            let terminal = self.terminals[if output.fd == 2 { 2 } else { 1 }];
            terminal && output.to.contains(&Sink::Inherit)
        })
    }

    /// procflow sends this unit a signal by itself.
    pub(super) fn asked(&mut self, unit: UnitId) {
        if self.readers.contains(&unit) {
            self.asked.insert(unit);
        }
    }
}

impl Runner<'_> {
    /// A unit is about to be started: what moves goes off the screen before it writes there.
    pub(super) fn enter_terminal(&mut self, unit: UnitId) {
        let front = &mut self.foreground;
        if front.reads(self.plan, unit) || front.writes(self.plan, unit) {
            front.users.insert(unit);
            self.watch.suspend();
        }
    }

    /// A unit has been started; one that reads the terminal gets it, or waits for it.
    pub(super) fn give_terminal(&mut self, unit: UnitId) {
        if self.foreground.reads(self.plan, unit) {
            self.foreground.readers.push_back(unit);
            self.give_to_first();
        }
    }

    /// Gives the terminal to the first reader, and sees to it that it runs.
    fn give_to_first(&mut self) {
        if self.lend() {
            if std::mem::take(&mut self.foreground.left) {
                self.continue_first();
            }
            // It may have read from the background already, and been stopped: no SIGCONT without a look, which would undo a
            // Ctrl-Z that was typed in this moment.
            self.look_for_stop();
        }
    }

    /// Gives the terminal to the first reader, if it is ours to give. True where it was.
    fn lend(&mut self) -> bool {
        let front = &mut self.foreground;
        if front.given.is_some() || foreground_group(stdin()) != Some(front.home) {
            return false;
        }
        let first = front.readers.front();
        let Some(live) = first.and_then(|unit| self.live.get(unit)) else {
            return false;
        };
        let modes = tcgetattr(stdin()).ok();
        let Body::Process(child) = &live.body else {
            return false;
        };
        if !foreground(stdin(), child.pid()) {
            return false;
        }
        front.given = Some(modes);
        true
    }

    fn continue_first(&mut self) {
        if let Some(&unit) = self.foreground.readers.front() {
            self.signal(unit, libc::SIGCONT);
        }
    }

    /// Takes the terminal back for the guard's group, whoever of a node's has it.
    fn take_terminal_back(&mut self) -> Option<Termios> {
        let modes = self.foreground.given.take()?;
        foreground(stdin(), self.foreground.home);
        modes
    }

    /// A unit's process has been reaped, or could not be started.
    pub(super) fn leave_terminal(&mut self, unit: UnitId, exit: Option<Exit>) {
        let front = &mut self.foreground;
        if !front.users.remove(&unit) {
            return;
        }
        let first = front.readers.front() == Some(&unit);
        front.readers.retain(|reader| *reader != unit);
        let asked = front.asked.remove(&unit);
        if first {
            front.left = false;
            let had = front.given.is_some();
            let modes = self.take_terminal_back();
            if let Some(Exit::Signal { number, .. }) = exit {
                // It had no time to set them back. (One that ends by itself may mean to leave them so, as stty(1) does.)
                if let Some(modes) = modes {
                    let _ = tcsetattr(stdin(), SetArg::TCSANOW, &modes);
                }
                if had && !asked {
                    self.interrupted(number);
                }
            }
            self.give_to_first();
        }
        self.show_again();
    }

    /// What ended the first reader was typed: it is for all.
    fn interrupted(&mut self, signal: i32) {
        let gone = || foreground_group(stdin()).is_none();
        match signal {
            libc::SIGINT | libc::SIGQUIT => {}
            // The terminal has gone, not the node alone.
            libc::SIGHUP if gone() => {}
            _ => return,
        }
        self.inbox.push_back(Event::Shutdown(signal));
        // The guard passes it on to us; it is the same one.
        self.echo = Some(signal);
        signal_job(signal);
    }

    /// Some child has changed: if it is the one that has the terminal, and it has stopped, the whole run stops, as a shell's job of
    /// several processes does.
    pub(super) fn look_for_stop(&mut self) {
        let first = self.foreground.readers.front();
        let Some(live) = first.and_then(|unit| self.live.get(unit)) else {
            return;
        };
        let Body::Process(child) = &live.body else {
            return;
        };
        let Some(signal) = stopped_by(child.pid()) else {
            return;
        };
        let had = self.foreground.given.is_some();
        if matches!(signal, libc::SIGTTIN | libc::SIGTTOU) {
            self.give_to_first();
            if self.foreground.given.is_some() {
                // The terminal was on its way.
                return self.continue_first();
            }
            // It wants to read, and the run is in the background: as any job, it waits there for `fg`.
            if self.foreground.orphaned {
                self.foreground.left = true;
            } else {
                signal_job(libc::SIGTSTP);
            }
        } else if had {
            // The guard hears it, too, and tells us: all go the way of a Ctrl-Z.
            signal_job(libc::SIGTSTP);
        }
    }

    /// The run is about to stop: the terminal is the shell's, and so is the screen.
    pub(super) fn hand_over_terminal(&mut self) {
        self.watch.suspend();
        self.take_terminal_back();
    }

    /// The run goes on, in the foreground or not. All units are continued after this.
    pub(super) fn get_terminal_back(&mut self, stopped: Duration) {
        self.foreground.orphaned = stopped < SHORTEST_STOP;
        self.foreground.left = false;
        // No look at the reader: it still stands, by our own SIGSTOP, which is not to be taken for another Ctrl-Z.
        self.lend();
        self.foreground.background = false;
        self.look_for_background();
        self.show_again();
    }

    /// Keeps the screen still while the run is in the background, where a shell's user types.
    pub(super) fn watch_foreground(&mut self) {
        let now = self.clock.now();
        if self.foreground.terminals[2]
            && (self.foreground.looked.is_zero()
                || now.saturating_sub(self.foreground.looked) >= LOOK)
        {
            self.foreground.looked = now.max(Duration::from_nanos(1));
            self.look_for_background();
        }
    }

    fn look_for_background(&mut self) {
        let front = &mut self.foreground;
        let background = front.given.is_none()
            && foreground_group(stderr()).is_some_and(|group| group != front.home);
        if background != front.background {
            front.background = background;
            if background {
                self.watch.suspend();
            } else {
                self.give_to_first();
                self.show_again();
            }
        }
    }

    fn show_again(&mut self) {
        if self.foreground.users.is_empty() && !self.foreground.background {
            self.watch.resume();
        }
    }
}
