//! Job slots that are shared with others: gets them when the scheduler wants some, and gives away what is spare.

use std::io;
use std::time::Duration;

use crate::exec::error::Error;
use crate::exec::jobserver::Jobserver;
use crate::exec::runner::{Runner, Token};
use crate::sched::Event;

/// How long it is not looked whether tokens have got lost, or been added.
const LEVEL_EVERY: Duration = Duration::from_millis(10);

impl Runner<'_> {
    /// So many slots would be used. 0: no more than there are.
    pub(super) fn want_slots(&mut self, slots: u32) {
        self.wanted_slots = slots;
        if slots > 0 {
            self.take_slots();
            // What there is is an answer, too.
            self.slots_changed();
        }
        self.watch_slots();
    }

    /// There may be tokens.
    pub(super) fn read_slots(&mut self) {
        let before = self.jobserver.as_ref().map(Jobserver::slots);
        self.take_slots();
        if self.jobserver.as_ref().map(Jobserver::slots) != before {
            self.slots_changed();
        }
        self.watch_slots();
    }

    fn take_slots(&mut self) {
        if self.nothing_holds_slots() {
            self.with_jobserver(Jobserver::level);
        }
        let wanted = self.wanted_slots;
        self.with_jobserver(|jobserver| jobserver.take(wanted));
    }

    /// Gives away what nobody here needs, when there is nothing else to do.
    pub(super) fn offer_slots(&mut self) {
        let spare = self.sched.spare_slots();
        let held = self.jobserver.as_ref().map_or(1, Jobserver::slots);
        if spare > 0 && held > 1 {
            self.with_jobserver(|jobserver| jobserver.give(spare));
            self.slots_changed();
            self.settle();
        }
    }

    /// Where nothing runs that could hold a token, all of them are there again. That is so between any two nodes of a chain, so it is not
    /// looked at each time.
    pub(super) fn level_slots(&mut self) {
        if self.jobserver.is_none() || !self.nothing_holds_slots() {
            return;
        }
        let now = self.clock.now();
        if now.saturating_sub(self.slots_levelled) < LEVEL_EVERY {
            return;
        }
        self.slots_levelled = now;
        let before = self.jobserver.as_ref().map(Jobserver::slots);
        self.with_jobserver(Jobserver::level);
        if self.jobserver.as_ref().map(Jobserver::slots) != before {
            self.slots_changed();
        }
    }

    /// Nothing runs, or not yet, that could hold a token. Services get none.
    fn nothing_holds_slots(&self) -> bool {
        self.pids.values().all(|owner| {
            let unit = self.unit_of(*owner);
            unit.is_some_and(|unit| self.plan.node(self.plan.unit(unit).node).service.is_some())
        })
    }

    fn slots_changed(&mut self) {
        if let Some(jobserver) = &self.jobserver {
            self.inbox.push_back(Event::Slots(jobserver.slots()));
        }
    }

    fn with_jobserver(&mut self, act: impl FnOnce(&mut Jobserver) -> io::Result<()>) {
        if let Some(Err(error)) = self.jobserver.as_mut().map(act) {
            self.fail(Error::new("share job slots", error));
        }
    }

    /// The pipe is watched only while something waits for it: it is readable whenever somebody has nothing to do.
    fn watch_slots(&mut self) {
        let Some(jobserver) = &self.jobserver else {
            return;
        };
        let waits = self.wanted_slots > jobserver.slots();
        let changed = match (waits, self.slots_watched) {
            (true, false) => self.poller.add(jobserver.pipe(), Token::Slots.pack()),
            (false, true) => self.poller.remove(jobserver.pipe()),
            _ => return,
        };
        self.slots_watched = waits;
        if let Err(error) = changed {
            self.fail(Error::new("wait for job slots", error));
        }
    }
}
