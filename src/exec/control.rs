//! Control from outside: signals, the guard's messages, Ctrl-Z.

use std::time::Instant;

use crate::event::What;
use crate::exec::error::Error;
use crate::exec::runner::{Body, Runner};
use crate::plan::UnitId;
use crate::sched::Event;
use crate::sys::guard::Notice;
use crate::sys::signals::stop_self;

impl Runner<'_> {
    /// A signal that was sent to this process itself. If there are more, the next wait says so.
    pub(super) fn read_signals(&mut self) {
        match self.signals.read() {
            Ok(Some(signal)) => self.signalled(signal),
            Ok(None) => {}
            Err(e) => self.fail(Error::new("read signals", e)),
        }
    }

    /// Signals that the guard got: those of the terminal, and what is sent to the process id that the user knows.
    pub(super) fn read_guard(&mut self) {
        while let Some(guard) = &self.guard {
            match guard.read_signal() {
                Ok(Some(Notice::Signal(signal))) if self.echo == Some(signal) => self.echo = None,
                Ok(Some(Notice::Signal(signal))) => self.signalled(signal),
                Ok(None) => return,
                Ok(Some(Notice::GuardGone)) => {
                    // Closed, or it would be readable for ever.
                    self.guard = None;
                    let why = std::io::Error::other("the process that guards this run was killed");
                    self.fail(Error::new("go on", why));
                }
                Err(e) => return self.fail(Error::new("hear from the guard", e)),
            }
        }
    }

    fn signalled(&mut self, signal: i32) {
        match signal {
            libc::SIGINT | libc::SIGTERM | libc::SIGHUP | libc::SIGQUIT => {
                self.inbox.push_back(Event::Shutdown(signal))
            }
            libc::SIGTSTP => self.suspend(),
            libc::SIGCHLD => {
                self.child_ended = true;
                self.look_for_stop();
            }
            _ => {}
        }
    }

    /// Ctrl-Z: stops every unit, then this process, until someone continues it. SIGSTOP and not SIGTSTP: a unit in a session of its own
    /// would not stop for the latter. No deadline counts the time between.
    fn suspend(&mut self) {
        // It may be for days.
        self.flush();
        self.signal_all(libc::SIGSTOP);
        self.pools.suspend();
        self.hand_over_terminal();
        let since = Instant::now();
        stop_self();
        let stopped = since.elapsed();
        self.clock.skip(stopped);
        self.pools.resume();
        self.get_terminal_back(stopped);
        self.signal_all(libc::SIGCONT);
    }

    fn signal_all(&mut self, signal: i32) {
        let running = self.live.iter().filter(|(_, live)| live.reaped.is_none());
        let units: Vec<UnitId> = running.map(|(&unit, _)| unit).collect();
        for unit in units {
            self.signal(unit, signal);
        }
        self.probes.signal_all(signal);
        self.signal_questions(signal);
    }

    /// Asks a unit to end. CONT, since a stopped process sees no other signal before.
    pub(super) fn stop(&mut self, unit: UnitId) {
        if self.has_ended(unit) {
            return self.exited(unit);
        }
        let signal = self.plan.unit(unit).settings.stop_signal;
        if self.signal_question(unit, signal) {
            self.signal_question(unit, libc::SIGCONT);
            return;
        }
        self.foreground.asked(unit);
        self.signal(unit, signal);
        self.signal(unit, libc::SIGCONT);
        self.tell(What::Stopping { unit, signal });
    }

    /// Sends a signal to a unit's process group. One that has ended in the meantime gets none.
    pub(super) fn signal(&mut self, unit: UnitId, signal: i32) {
        if self.signal_question(unit, signal) {
            return;
        }
        let Some(live) = self.live.get_mut(&unit) else {
            return;
        };
        if live.reaped.is_some() {
            // Only relays were waited for, and are no longer.
            return self.exited(unit);
        }
        let ends_it = !matches!(signal, libc::SIGSTOP | libc::SIGCONT);
        live.signalled |= ends_it;
        let child = match &live.body {
            Body::Process(child) => child,
            Body::Pool(pool) => {
                let pool = *pool;
                return self.signal_pool(pool, signal);
            }
            Body::Gather => return self.signal_gather(unit, signal),
        };
        // One that has become another user's (sudo) and runs on through a Ctrl-Z does no harm.
        if let Err(e) = child.signal_group(signal)
            && ends_it
        {
            let node = &self.plan.node(self.plan.unit(unit).node).name;
            self.fail(Error::new(format!("send signal {signal} to `{node}`"), e));
        }
    }
}
