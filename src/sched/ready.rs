//! Groups whose conditions hold, by what they claim: finds the first in plan order that fits. Knows nothing of why they wait.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::plan::{Group, GroupId};

/// What a group holds while it runs.
// Sorted by slots first: see `take_first`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Claim {
    /// Job slots.
    pub slots: u32,
    /// Bytes of memory.
    pub memory: u64,
    /// So much of each of the plan's resources; empty where it claims none.
    pub resources: Arc<[u32]>,
}

impl Claim {
    /// That of a group.
    pub fn of(group: &Group) -> Self {
        Claim {
            slots: group.slots,
            memory: group.memory,
            resources: Arc::clone(&group.resources),
        }
    }
}

/// How much there is of everything that can be claimed, or how much of it is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Amounts {
    /// Job slots.
    pub slots: u32,
    /// Bytes of memory.
    pub memory: u64,
    /// Of each of the plan's resources.
    pub resources: Box<[u32]>,
}

impl Amounts {
    /// Nothing, of so many resources.
    pub fn nothing(resources: usize) -> Self {
        Amounts {
            slots: 0,
            memory: 0,
            resources: vec![0; resources].into(),
        }
    }

    /// Adds what a group claims.
    pub fn take(&mut self, claim: &Claim) {
        self.slots += claim.slots;
        self.memory += claim.memory;
        for (held, claimed) in self.resources.iter_mut().zip(&*claim.resources) {
            *held += claimed;
        }
    }

    /// Takes away what a group had claimed.
    pub fn give_back(&mut self, claim: &Claim) {
        self.slots -= claim.slots;
        self.memory -= claim.memory;
        for (held, claimed) in self.resources.iter_mut().zip(&*claim.resources) {
            *held -= claimed;
        }
    }

    /// What is left of this where `held` is held. More may be held than there is: a group that is larger than the machine runs alone.
    pub fn without(&self, held: &Amounts) -> Amounts {
        let resources = self.resources.iter().zip(&held.resources);
        Amounts {
            slots: self.slots.saturating_sub(held.slots),
            memory: self.memory.saturating_sub(held.memory),
            resources: resources
                .map(|(all, held)| all.saturating_sub(*held))
                .collect(),
        }
    }
}

/// What is free, as a group sees it that wants to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Free {
    /// So much.
    pub amounts: Amounts,
    /// Nothing runs, so that waiting for more slots or memory would be waiting for ever. Resources are never exceeded: a plan in which a
    /// group claims more of one than there is does not exist.
    pub idle: bool,
}

impl Free {
    fn fits(&self, claim: &Claim) -> bool {
        let mut resources = self.amounts.resources.iter().zip(&*claim.resources);
        (self.idle || claim.slots <= self.amounts.slots && claim.memory <= self.amounts.memory)
            && resources.all(|(free, claimed)| claimed <= free)
    }
}

/// The groups that could start. One ordered set for each distinct claim: a run has few of those, however many groups it
/// has, so finding the first that fits asks each set for its first only. (One set in plan order is a trap: with one wide
/// group running, each event would step over all the narrow ones that do not fit.)
///
/// A wide claim may be passed by narrow ones that come later in the plan and fit. It does not wait for ever, since each group
/// runs but once and its tries are counted; keeping room free for it would leave that idle meanwhile.
#[derive(Debug, Default)]
pub(super) struct Ready {
    buckets: BTreeMap<Claim, BTreeSet<GroupId>>,
}

impl Ready {
    pub fn insert(&mut self, claim: Claim, group: GroupId) {
        if !self.buckets.entry(claim).or_default().insert(group) {
            panic!("BUG: {group:?} is ready twice");
        }
    }

    pub fn remove(&mut self, claim: &Claim, group: GroupId) {
        let removed = self
            .buckets
            .get_mut(claim)
            .is_some_and(|bucket| bucket.remove(&group));
        if !removed {
            panic!("BUG: {group:?} with {claim:?} is not ready");
        }
        if self.buckets.get(claim).is_some_and(BTreeSet::is_empty) {
            self.buckets.remove(claim);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    /// Whether there is one that fits.
    pub fn any_fits(&self, free: &Free) -> bool {
        self.buckets.keys().any(|claim| free.fits(claim))
    }

    /// Slots that would be used if so much were free: of as many groups as fit together, the narrow ones first.
    pub fn slots_that_fit(&self, mut free: Amounts) -> u32 {
        let before = free.slots;
        for (claim, bucket) in &self.buckets {
            // Nothing but slots is waited for by asking for them.
            if claim.slots == 0 {
                continue;
            }
            let mut count = u32::try_from(bucket.len()).unwrap_or(u32::MAX);
            count = count.min(free.slots / claim.slots);
            if let Some(times) = free.memory.checked_div(claim.memory) {
                count = count.min(u32::try_from(times).unwrap_or(u32::MAX));
            }
            for (free, claimed) in free.resources.iter().zip(&*claim.resources) {
                count = count.min(free.checked_div(*claimed).unwrap_or(u32::MAX));
            }
            free.slots -= count * claim.slots;
            free.memory -= claim.memory * u64::from(count);
            for (free, claimed) in free.resources.iter_mut().zip(&*claim.resources) {
                *free -= count * claimed;
            }
        }
        before - free.slots
    }

    /// Takes the first group in plan order that fits.
    pub fn take_first(&mut self, free: &Free) -> Option<GroupId> {
        let (claim, group) = self
            .buckets
            .iter()
            .take_while(|(claim, _)| free.idle || claim.slots <= free.amounts.slots)
            .filter(|(claim, _)| free.fits(claim))
            .filter_map(|(claim, bucket)| Some((claim, *bucket.first()?)))
            .min_by_key(|(_, group)| *group)?;
        let claim = claim.clone();
        self.remove(&claim, group);
        Some(group)
    }
}

#[cfg(test)]
mod tests {
    use crate::plan::GroupId;
    use crate::sched::ready::{Amounts, Claim, Free, Ready};

    fn claim(slots: u32, memory: u64, resources: &[u32]) -> Claim {
        Claim {
            slots,
            memory,
            resources: resources.into(),
        }
    }

    fn free(slots: u32, memory: u64, resources: &[u32]) -> Free {
        Free {
            amounts: Amounts {
                slots,
                memory,
                resources: resources.into(),
            },
            idle: false,
        }
    }

    fn idle(resources: &[u32]) -> Free {
        Free {
            idle: true,
            ..free(0, 0, resources)
        }
    }

    #[test]
    fn the_first_that_fits_in_plan_order() {
        let mut ready = Ready::default();
        for (group, slots, memory) in [(4, 1, 10), (0, 3, 0), (2, 1, 99), (3, 1, 10), (1, 0, 0)] {
            ready.insert(claim(slots, memory, &[]), GroupId(group));
        }
        assert_eq!(ready.take_first(&free(0, 50, &[])), Some(GroupId(1)));
        assert_eq!(ready.take_first(&free(0, 50, &[])), None);
        assert_eq!(ready.take_first(&free(2, 50, &[])), Some(GroupId(3)));
        ready.remove(&claim(1, 10, &[]), GroupId(4));
        assert_eq!(ready.take_first(&free(2, 50, &[])), None);
        assert_eq!(ready.take_first(&free(2, 99, &[])), Some(GroupId(2)));
        assert_eq!(ready.take_first(&idle(&[])), Some(GroupId(0)));
        assert_eq!(ready.take_first(&idle(&[])), None);
    }

    #[test]
    fn resources_fit_each_by_itself_and_are_not_exceeded_by_one_that_runs_alone() {
        let mut ready = Ready::default();
        for (group, resources) in [(0, [2, 0].as_slice()), (1, &[1, 1]), (2, &[0, 1]), (3, &[])] {
            ready.insert(claim(1, 0, resources), GroupId(group));
        }
        assert_eq!(ready.take_first(&free(1, 0, &[1, 0])), Some(GroupId(3)));
        assert_eq!(ready.take_first(&free(1, 0, &[1, 0])), None);
        assert_eq!(ready.take_first(&free(1, 0, &[0, 1])), Some(GroupId(2)));
        assert_eq!(ready.take_first(&idle(&[1, 1])), Some(GroupId(1)));
        assert_eq!(ready.take_first(&idle(&[1, 1])), None);
        assert_eq!(ready.take_first(&idle(&[2, 1])), Some(GroupId(0)));
    }

    #[test]
    fn slots_are_counted_for_what_fits_together() {
        let mut ready = Ready::default();
        for (group, slots, memory, resources) in [
            (0, 1, 0, [0, 0]),
            (1, 1, 0, [0, 0]),
            (2, 1, 0, [1, 0]),
            (3, 1, 0, [1, 0]),
            (4, 2, 3, [0, 0]),
            (5, 2, 3, [0, 0]),
            (6, 0, 9, [0, 0]),
        ] {
            ready.insert(claim(slots, memory, &resources), GroupId(group));
        }
        let fits = |slots, memory, resources: &[u32]| {
            ready.slots_that_fit(free(slots, memory, resources).amounts)
        };
        assert_eq!(fits(9, 9, &[1, 0]), 2 + 1 + 4);
        assert_eq!(fits(9, 5, &[0, 9]), 2 + 2);
        assert_eq!(fits(9, 0, &[0, 0]), 2);
        assert_eq!(fits(5, 9, &[2, 0]), 2 + 2);
        assert_eq!(fits(1, 9, &[2, 0]), 1);
        assert_eq!(fits(0, 9, &[2, 0]), 0);
    }

    #[test]
    fn what_is_taken_is_given_back() {
        let all = free(2, 9, &[3, 1]).amounts;
        let mut held = Amounts::nothing(2);
        held.take(&claim(3, 4, &[1, 1]));
        held.take(&claim(1, 0, &[]));
        assert_eq!(all.without(&held), free(0, 5, &[2, 0]).amounts);
        held.give_back(&claim(1, 0, &[]));
        held.give_back(&claim(3, 4, &[1, 1]));
        assert_eq!(held, Amounts::nothing(2));
    }
}
