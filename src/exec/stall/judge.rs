//! Who waits for whom in a group that has come to stand still: a function of what each of its processes sleeps on.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::{Waiting, WaitsOn};
use crate::plan::{QueueId, UnitId};

/// What a thread of a unit sleeps on, in terms of the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sleeps {
    /// On one of its queues.
    On(QueueId, Way),
    /// On a pipe that the group's processes have made themselves; the other end is held by these units' processes.
    OnOwnPipe(Vec<UnitId>),
    /// Until another process or thread of its unit has done something.
    OnItsOwn,
    /// On something that may come by itself: time, a file, a terminal, the network, a process that is none of the group.
    Elsewhere,
}

/// Which way data goes for who sleeps on a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// It reads.
    In,
    /// It writes.
    Out,
}

/// Says who waits for whom, where every unit of the group waits on a pipe. `units`: those of the group that run, each with
/// what its threads sleep on. `ends`: the writers and the readers of a queue.
pub fn judge<'p>(
    units: &[(UnitId, Vec<Sleeps>)],
    ends: impl Fn(QueueId) -> (&'p [UnitId], &'p [UnitId]),
) -> Option<Vec<Waiting>> {
    let waits_on_a_pipe = |(_, sleeps): &(UnitId, Vec<Sleeps>)| {
        !sleeps.contains(&Sleeps::Elsewhere)
            && sleeps
                .iter()
                .any(|sleeps| matches!(sleeps, Sleeps::On(..) | Sleeps::OnOwnPipe(_)))
    };
    if units.is_empty() || !units.iter().all(waits_on_a_pipe) {
        return None;
    }
    let asleep: BTreeSet<(UnitId, QueueId, Way)> = units
        .iter()
        .flat_map(|(unit, sleeps)| sleeps.iter().map(move |sleeps| (*unit, sleeps)))
        .filter_map(|(unit, sleeps)| match sleeps {
            Sleeps::On(queue, way) => Some((unit, *queue, *way)),
            _ => None,
        })
        .collect();
    let run: BTreeSet<UnitId> = units.iter().map(|(unit, _)| *unit).collect();
    let running = |candidates: &[UnitId]| -> Vec<UnitId> {
        let runs = |unit: &UnitId| run.contains(unit);
        candidates.iter().copied().filter(runs).collect()
    };
    // Who stands at a queue itself, as the one that waits does, is not whom that one waits for.
    let absent = |candidates: &[UnitId], queue: QueueId, way: Way| -> Vec<UnitId> {
        let stands = |unit: &UnitId| asleep.contains(&(*unit, queue, way));
        let mut running = running(candidates);
        running.retain(|unit| !stands(unit));
        running
    };
    let at_queue = |queue: QueueId, way: Way| {
        let (writers, readers) = ends(queue);
        let (no_writers, no_readers) = (
            absent(writers, queue, Way::Out),
            absent(readers, queue, Way::In),
        );
        match way {
            Way::In if no_writers.is_empty() => (WaitsOn::Data(queue), running(writers)),
            Way::In => (WaitsOn::Data(queue), no_writers),
            Way::Out if !no_readers.is_empty() => (WaitsOn::Room(queue), no_readers),
            // There is room for another writer.
            Way::Out if !no_writers.is_empty() => (WaitsOn::Turn(queue), no_writers),
            Way::Out => (WaitsOn::Room(queue), running(readers)),
        }
    };
    let mut waits: Vec<Waiting> = Vec::new();
    for (unit, sleeps) in units {
        // Between its own processes one waits for the other: what counts is what the last of them waits for.
        let within = Sleeps::OnOwnPipe(vec![*unit]);
        let is_within = |sleeps: &Sleeps| *sleeps == Sleeps::OnItsOwn || *sleeps == within;
        let all_within = sleeps.iter().all(is_within);
        for sleeps in sleeps
            .iter()
            .filter(|sleeps| all_within || !is_within(sleeps))
        {
            let (on, of) = match sleeps {
                Sleeps::On(queue, way) => at_queue(*queue, *way),
                Sleeps::OnOwnPipe(of) => (WaitsOn::OwnPipe, of.clone()),
                Sleeps::OnItsOwn | Sleeps::Elsewhere => continue,
            };
            let wait = Waiting {
                unit: *unit,
                on,
                of,
            };
            if !waits.contains(&wait) {
                waits.push(wait);
            }
        }
    }
    circle_first(&mut waits);
    Some(waits)
}

/// Puts first those that wait for each other in a circle, in its order; the others follow as they were.
fn circle_first(waits: &mut Vec<Waiting>) {
    let circle = circle(waits);
    let mut rest: Vec<Option<Waiting>> = waits.drain(..).map(Some).collect();
    for index in circle {
        waits.extend(rest.get_mut(index).and_then(Option::take));
    }
    waits.extend(rest.into_iter().flatten());
}

/// The waits of a circle, by their positions; none where there is no circle. Found by going from one to whom it waits for, and
/// back where that leads nowhere: who waits for several may wait for one in vain, and for another in a circle.
fn circle(waits: &[Waiting]) -> Vec<usize> {
    let mut steps: BTreeMap<UnitId, Vec<(usize, UnitId)>> = BTreeMap::new();
    for (index, wait) in waits.iter().enumerate() {
        let to = wait.of.iter().map(|&unit| (index, unit));
        steps.entry(wait.unit).or_default().extend(to);
    }
    let mut seen: BTreeSet<UnitId> = BTreeSet::new();
    for &start in steps.keys() {
        if !seen.insert(start) {
            continue;
        }
        // The way to where we are: each unit, with the number of its steps that have been tried. No recursion: it may be long.
        let mut way = vec![(start, 0)];
        while let Some((unit, tried)) = way.last_mut() {
            let Some(&(_, to)) = steps.get(unit).and_then(|steps| steps.get(*tried)) else {
                way.pop();
                continue;
            };
            *tried += 1;
            if let Some(begin) = way.iter().position(|(unit, _)| *unit == to) {
                return way[begin..]
                    .iter()
                    .filter_map(|(unit, tried)| Some(steps.get(unit)?.get(tried - 1)?.0))
                    .collect();
            }
            if seen.insert(to) {
                way.push((to, 0));
            }
        }
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::event::{Waiting, WaitsOn};
    use crate::exec::stall::judge::{Sleeps, Way, judge};
    use crate::plan::{QueueId, UnitId};

    const A: UnitId = UnitId(0);
    const B: UnitId = UnitId(1);
    const C: UnitId = UnitId(2);
    const X: QueueId = QueueId(0);
    const Y: QueueId = QueueId(1);

    fn wait(unit: UnitId, on: WaitsOn, of: &[UnitId]) -> Waiting {
        Waiting {
            unit,
            on,
            of: of.to_vec(),
        }
    }

    /// Queue `x` leads from A to B, `y` from A and C to B.
    fn ends(queue: QueueId) -> (&'static [UnitId], &'static [UnitId]) {
        if queue == X {
            (&[A], &[B])
        } else {
            (&[A, C], &[B])
        }
    }

    #[test]
    fn two_that_wait_for_each_other() {
        let units = [
            (A, vec![Sleeps::OnItsOwn, Sleeps::On(X, Way::Out)]),
            (B, vec![Sleeps::On(Y, Way::In)]),
        ];
        assert_eq!(
            judge(&units, ends),
            Some(vec![
                wait(A, WaitsOn::Room(X), &[B]),
                // C does not run.
                wait(B, WaitsOn::Data(Y), &[A]),
            ])
        );
    }

    #[test]
    fn who_waits_at_the_same_queue_is_not_to_blame() {
        let units = [
            (A, vec![Sleeps::On(X, Way::Out)]),
            (B, vec![Sleeps::On(Y, Way::In)]),
            // Its turn in the sequence has not come.
            (C, vec![Sleeps::On(Y, Way::Out)]),
        ];
        assert_eq!(
            judge(&units, ends),
            Some(vec![
                wait(A, WaitsOn::Room(X), &[B]),
                wait(B, WaitsOn::Data(Y), &[A]),
                wait(C, WaitsOn::Turn(Y), &[A]),
            ])
        );
    }

    #[test]
    fn the_circle_stands_before_who_waits_for_it() {
        let units = [
            (A, vec![Sleeps::OnOwnPipe(vec![C])]),
            (B, vec![Sleeps::On(Y, Way::In)]),
            (C, vec![Sleeps::On(Y, Way::Out)]),
        ];
        assert_eq!(
            judge(&units, ends),
            Some(vec![
                wait(A, WaitsOn::OwnPipe, &[C]),
                wait(C, WaitsOn::Turn(Y), &[A]),
                wait(B, WaitsOn::Data(Y), &[A]),
            ])
        );
    }

    #[test]
    fn who_waits_for_something_else_makes_it_no_stall() {
        let reads = (B, vec![Sleeps::On(X, Way::In)]);
        for other in [
            vec![Sleeps::Elsewhere],
            vec![Sleeps::On(X, Way::Out), Sleeps::Elsewhere],
            vec![Sleeps::OnItsOwn],
            vec![],
        ] {
            let units = [(A, other.clone()), reads.clone()];
            assert_eq!(judge(&units, ends), None, "{other:?}");
        }
        assert_eq!(judge(&[], ends), None);
        // Whoever wrote it has ended.
        assert_eq!(
            judge(&[reads], ends),
            Some(vec![wait(B, WaitsOn::Data(X), &[])])
        );
    }

    fn sleeps() -> impl Strategy<Value = Sleeps> {
        let units = proptest::collection::vec((0..6u32).prop_map(UnitId), 0..3);
        prop_oneof![
            (0..6u32).prop_map(|queue| Sleeps::On(QueueId(queue), Way::In)),
            (0..6u32).prop_map(|queue| Sleeps::On(QueueId(queue), Way::Out)),
            units.prop_map(Sleeps::OnOwnPipe),
            Just(Sleeps::OnItsOwn),
        ]
    }

    proptest! {
        /// Every wait is told once; and where each waits for one that waits, those that come first are a circle.
        #[test]
        fn nothing_is_lost_and_a_circle_is_found(
            sleeps in proptest::collection::vec(proptest::collection::vec(sleeps(), 1..3), 6),
        ) {
            let all: Vec<UnitId> = (0..6).map(UnitId).collect();
            let units: Vec<(UnitId, Vec<Sleeps>)> = all.iter().copied().zip(sleeps).collect();
            let Some(waits) = judge(&units, |_| (&all, &all)) else {
                return Ok(());
            };
            for (unit, sleeps) in &units {
                let mut told: Vec<&Waiting> = waits.iter().filter(|wait| wait.unit == *unit).collect();
                let count = told.len();
                told.dedup();
                prop_assert_eq!(told.len(), count);
                let own = Sleeps::OnOwnPipe(vec![*unit]);
                let only_own = sleeps.iter().all(|sleeps| *sleeps == own || *sleeps == Sleeps::OnItsOwn);
                let mut distinct: Vec<&Sleeps> = Vec::new();
                for sleeps in sleeps {
                    if *sleeps != Sleeps::OnItsOwn && (*sleeps != own || only_own) && !distinct.contains(&sleeps) {
                        distinct.push(sleeps);
                    }
                }
                prop_assert_eq!(count, distinct.len());
            }
            if waits.iter().all(|wait| !wait.of.is_empty()) {
                let closes = |end: usize| {
                    let leads = (0..end).all(|i| waits[i].of.contains(&waits[i + 1].unit));
                    leads && waits[end].of.contains(&waits[0].unit)
                };
                prop_assert!((0..waits.len()).any(closes), "{waits:?}");
            }
        }
    }
}
