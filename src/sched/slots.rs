//! Slots that come and go: where they are shared with others (a jobserver), a run has at each moment so many of them, and asks for more
//! when something waits for one. Where they are its own, it has all of them from the start, and nothing here happens.

use crate::sched::Action;
use crate::sched::machine::Scheduler;
use crate::sched::ready::{Amounts, Free};

impl Scheduler<'_> {
    /// `exec` has so many slots for this run: the answer to [`Action::WantSlots`], and whenever that changes.
    pub(super) fn slots_are(&mut self, slots: u32) {
        self.capacity.slots = slots;
        self.answered = true;
    }

    /// Slots that nobody uses and nobody waits for: others may have them. The last one is never among them.
    pub fn spare_slots(&self) -> u32 {
        match self.wanted_slots {
            0 => self.capacity.slots.saturating_sub(self.used.slots.max(1)),
            _ => 0,
        }
    }

    /// What is free. Where more slots may be had for the asking, nothing needs to run alone for want of them: first it is asked.
    pub(super) fn free(&self) -> Free {
        let idle = self.running == 0
            && (self.capacity.slots >= self.most_slots
                || self.answered && self.wanted_slots == self.slots_to_want());
        Free {
            amounts: self.capacity.without(&self.used),
            idle,
        }
    }

    /// Says how many slots would be used if they were there, where that has changed.
    pub(super) fn ask_for_slots(&mut self) {
        let wanted = self.slots_to_want();
        if wanted != self.wanted_slots {
            self.wanted_slots = wanted;
            self.answered = false;
            self.out.push(Action::WantSlots(wanted));
        }
    }

    /// 0 where more slots would start nothing.
    fn slots_to_want(&self) -> u32 {
        if self.capacity.slots >= self.most_slots {
            return 0;
        }
        let most = Amounts {
            slots: self.most_slots,
            ..self.capacity.clone()
        };
        let free = Free {
            amounts: most.without(&self.used),
            idle: true,
        };
        // What is to run alone, whatever it claims, gets as many as there are.
        if self.running == 0 && self.ready.any_fits(&free) {
            return self.most_slots;
        }
        let fitting = self.ready.slots_that_fit(free.amounts);
        if fitting > 0 {
            return self.used.slots + fitting;
        }
        // And gets the others when they come, so that nobody else does.
        match self.used.slots > self.capacity.slots {
            true => self.used.slots.min(self.most_slots),
            false => 0,
        }
    }
}
