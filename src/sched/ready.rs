//! Groups whose conditions hold, by what they claim: finds the first in plan order that fits. Knows nothing of why they wait.

use std::collections::{BTreeMap, BTreeSet};

use crate::plan::GroupId;

/// What a group holds while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Claim {
    /// Job slots.
    pub slots: u32,
    /// Bytes of memory.
    pub memory: u64,
}

/// The groups that could start. One ordered set for each distinct claim: a run has few of those, however many groups it
/// has, so finding the first that fits asks each set for its first only. (One set in plan order is a trap: with one wide
/// group running, each event would step over all the narrow ones that do not fit.)
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

    pub fn remove(&mut self, claim: Claim, group: GroupId) {
        let removed = self
            .buckets
            .get_mut(&claim)
            .is_some_and(|bucket| bucket.remove(&group));
        if !removed {
            panic!("BUG: {group:?} with {claim:?} is not ready");
        }
        if self.buckets.get(&claim).is_some_and(BTreeSet::is_empty) {
            self.buckets.remove(&claim);
        }
    }

    /// Takes the first group in plan order that claims no more than `free`; any claim fits where that is `None`.
    pub fn take_first(&mut self, free: Option<Claim>) -> Option<GroupId> {
        let most = Claim {
            slots: free.map_or(u32::MAX, |free| free.slots),
            memory: u64::MAX,
        };
        let (claim, group) = self
            .buckets
            .range(..=most)
            .filter(|(claim, _)| free.is_none_or(|free| claim.memory <= free.memory))
            .filter_map(|(claim, bucket)| Some((*claim, *bucket.first()?)))
            .min_by_key(|(_, group)| *group)?;
        self.remove(claim, group);
        Some(group)
    }
}

#[cfg(test)]
mod tests {
    use crate::plan::GroupId;
    use crate::sched::ready::{Claim, Ready};

    fn claim(slots: u32, memory: u64) -> Claim {
        Claim { slots, memory }
    }

    #[test]
    fn the_first_that_fits_in_plan_order() {
        let mut ready = Ready::default();
        for (group, slots, memory) in [(4, 1, 10), (0, 3, 0), (2, 1, 99), (3, 1, 10), (1, 0, 0)] {
            ready.insert(claim(slots, memory), GroupId(group));
        }
        assert_eq!(ready.take_first(Some(claim(0, 50))), Some(GroupId(1)));
        assert_eq!(ready.take_first(Some(claim(0, 50))), None);
        assert_eq!(ready.take_first(Some(claim(2, 50))), Some(GroupId(3)));
        ready.remove(claim(1, 10), GroupId(4));
        assert_eq!(ready.take_first(Some(claim(2, 50))), None);
        assert_eq!(ready.take_first(Some(claim(2, 99))), Some(GroupId(2)));
        assert_eq!(ready.take_first(None), Some(GroupId(0)));
        assert_eq!(ready.take_first(None), None);
    }
}
