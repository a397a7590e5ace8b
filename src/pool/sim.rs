//! Random worlds against the ledger: workers that die at any point, time out, answer late; records that kill whoever works on
//! them, always or a few times; every setting. The world is a model that keeps a line for each record and knows nothing of runs.
//!
//! `SIM_RUNS=100000 SIM_SEED=7 cargo test --release --lib pool::sim` widens it; a failure prints the world's seed, and
//! `SIM_RUNS=1 SIM_SEED=that` plays it again.
//!
//! Seeded by hand, one after the other, and after how many worlds caught (`SIM_SEED=0`):
//!
//! ```text
//! a stop hands out what has failed before .........................    4
//! what failed is given company ....................................    2
//! a suspect is handed to one that has something ...................   12
//! max_in_flight counts runs, not records ..........................    2
//! what is given back stays counted for its worker's life ..........   27
//! what is given back unread has had a try .........................    2
//! a batch that failed is buried whole .............................    2
//! halves go on with the tries of the whole ........................    2
//! the second half is lost .........................................    2
//! the delay before a try is left out ..............................    9
//! a code that is not tried again is tried again ...................    7
//! one try too few .................................................    3
//! one try too many ................................................    1
//! a short batch before the end ....................................   81
//! a timeout blames all that its worker has ........................   10
//! an answer doesn't end a row of barren ends ......................  213
//! an end in which records were touched is barren ..................  122
//! what waits for its delay is forgotten at the end ................    9
//! a dead letter counts as a failure ...............................    2
//! what is left of a run that was answered in part is lost .........    2
//! recycle_after is not looked at ..................................   20
//! a worker's life begins with what the last one had ...............   20
//! one record of several runs is as good as alone ..................    2
//! untouched records of a dead worker stay its own .................   10
//! ```
//!
//! Three of these were not caught while the model only counted failures: tries that are too many, those of halves, and those
//! after a code that is not to be tried again. Now it counts the tries that are left to each record.

#![allow(clippy::unwrap_used, reason = "a test ends there")]

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::plan::Retry;
use crate::pool::ledger::{Failed, Ledger, Rules, Run, State, TooMany};
use crate::pool::reorder::Reorder;
use crate::spec::OnFailure;

/// What the model knows of a record.
#[derive(Debug, Clone, Default)]
struct Record {
    /// It kills its worker so many times more.
    kills: u32,
    holder: Option<u32>,
    answered: bool,
    dead: bool,
    /// Tries that failed and counted for it.
    failed: u32,
    /// Of these, the ones that count: since it came, or since the last halving.
    tries: u32,
    /// It must be dead now: it was alone, and this was its last try.
    is_due: bool,
    /// It isn't to be handed out before.
    not_before: Duration,
}

/// What the model knows of a holder.
#[derive(Debug, Clone, Default)]
struct Holder {
    /// Not answered, in the order handed out.
    records: VecDeque<u64>,
    /// Of its life.
    given: u64,
    answered: u64,
    has_suspects: bool,
}

struct World {
    rules: Rules,
    /// Holders get one run, and answer it whole or not at all.
    is_task: bool,
    /// Nobody dies but by its record.
    is_calm: bool,
    random: fastrand::Rng,
    ledger: Ledger,
    now: Duration,
    records: Vec<Record>,
    holders: Vec<Holder>,
    ended: bool,
    halted: bool,
    /// Records still to come by themselves, and because of answers.
    to_come: u64,
    order: Reorder<u64>,
    /// What has left, in order.
    left: Vec<u64>,
    deaths: u32,
    idle_deaths: u32,
    log: Vec<String>,
    verbose: bool,
}

fn random_rules(random: &mut fastrand::Rng, is_task: bool) -> Rules {
    let max_in_flight = if random.u8(..3) == 0 {
        random.u64(1..12)
    } else {
        u64::MAX
    };
    Rules {
        retry: Retry {
            max: [0, 0, 1, 2, 3][random.usize(..5)],
            delay: Duration::from_secs([0, 0, 1, 3][random.usize(..4)]),
            backoff: [1.0, 2.0][random.usize(..2)],
            max_delay: Duration::from_secs(5),
            jitter: random.bool(),
            on_codes: if random.u8(..4) == 0 {
                vec![2]
            } else {
                Vec::new()
            },
        },
        batch: (random.u8(..3) == 0).then(|| random.u64(1..8)),
        max_in_flight,
        recycle_after: if !is_task && random.u8(..4) == 0 {
            random.u64(1..9)
        } else {
            u64::MAX
        },
        on_failure: [OnFailure::Stop, OnFailure::Kill, OnFailure::Continue][random.usize(..3)],
        dead_letter: random.u8(..3) == 0,
        barren: 9,
    }
}

impl World {
    fn new(seed: u64, verbose: bool) -> World {
        let mut random = fastrand::Rng::with_seed(seed);
        let is_task = random.bool();
        let rules = random_rules(&mut random, is_task);
        let holders = random.u32(1..5);
        let to_come = if random.u8(..16) == 0 {
            0
        } else {
            random.u64(0..60)
        };
        World {
            ledger: Ledger::new(rules.clone(), holders, seed),
            rules,
            is_task,
            is_calm: random.u8(..3) == 0,
            now: Duration::ZERO,
            records: Vec::new(),
            holders: vec![Holder::default(); holders as usize],
            ended: false,
            halted: false,
            to_come,
            order: Reorder::new(),
            left: Vec::new(),
            deaths: 0,
            idle_deaths: 0,
            log: Vec::new(),
            verbose,
            random,
        }
    }

    fn tell(&mut self, what: impl FnOnce() -> String) {
        if self.verbose {
            let now = self.now;
            self.log.push(format!("{now:?} {}", what()));
            print_log(&mut self.log);
        }
    }

    fn arrive(&mut self, count: u64) {
        for _ in 0..count {
            let kills = match self.random.u8(..24) {
                0 => u32::MAX,
                1 | 2 => self.random.u32(1..4),
                _ => 0,
            };
            self.records.push(Record {
                kills,
                ..Record::default()
            });
        }
        self.ledger.arrive(count);
        self.tell(|| format!("{count} come"));
    }

    fn in_flight(&self) -> u64 {
        self.holders
            .iter()
            .map(|holder| holder.records.len() as u64)
            .sum()
    }

    /// True where the holder got something.
    fn hand_out(&mut self, at: u32) -> bool {
        let most = match (self.is_task, self.random.u8(..3)) {
            (true, _) => self.rules.batch.unwrap_or(1),
            (false, 0) => 1,
            (false, 1) => self.random.u64(1..10),
            (false, _) => 100,
        };
        if self.is_task && !self.holders[at as usize].records.is_empty() {
            return false;
        }
        self.ledger.wake(self.now);
        let has_work = self.ledger.has_work();
        let run = self.ledger.hand_out(at, most);
        self.tell(|| format!("{at} gets {run:?} of at most {most}"));
        let holder = &self.holders[at as usize];
        let Some(run) = run else {
            let blocked = self.rules.batch.is_some() || holder.given >= self.rules.recycle_after;
            assert!(
                !has_work || blocked || !holder.records.is_empty(),
                "holder {at} is idle and gets none of the work there is"
            );
            return false;
        };
        assert!(!self.halted, "{run:?} is handed out after the stop");
        assert!(run.count > 0);
        assert!(run.count <= most || self.rules.batch.is_some());
        assert!(
            !holder.has_suspects && (!run.suspect || holder.records.is_empty()),
            "what is tried apart has company: {run:?} with {:?}",
            holder.records
        );
        if let Some(batch) = self.rules.batch
            && self.is_task
            && !run.suspect
            && run.failures == 0
        {
            let is_last = self.ended && run.end() == self.records.len() as u64;
            let batch = batch.min(self.rules.max_in_flight);
            assert!(
                run.count == batch || is_last && run.count < batch,
                "{run:?} is no batch"
            );
        }
        for place in run.first..run.end() {
            let record = self
                .records
                .get_mut(place as usize)
                .unwrap_or_else(|| panic!("record {place} has not come"));
            assert!(record.holder.is_none(), "record {place} is somebody's");
            assert!(!record.answered && !record.dead, "record {place} is done");
            assert!(record.not_before <= self.now, "record {place} must wait");
            assert_eq!(record.failed > 0, run.suspect, "record {place} in {run:?}");
            assert_eq!(record.tries, run.failures, "record {place} in {run:?}");
            record.holder = Some(at);
        }
        let holder = &mut self.holders[at as usize];
        holder.records.extend(run.first..run.end());
        holder.has_suspects = run.suspect;
        let had = holder.given;
        holder.given += run.count;
        let is_within = holder.given <= self.rules.recycle_after
            || self.rules.batch.is_some() && had < self.rules.recycle_after;
        assert!(is_within, "holder {at} gets more than it may in its life");
        assert!(
            self.in_flight() <= self.rules.max_in_flight,
            "too much in flight"
        );
        true
    }

    /// A holder answers its first so many records.
    fn answer(&mut self, at: u32, count: u64) {
        self.tell(|| format!("{at} answers {count}"));
        let mut done = Vec::new();
        let answered = self.ledger.answer(at, count, |run| done.push(run));
        assert_eq!(answered, Ok(()));
        let places: Vec<u64> = done
            .iter()
            .flat_map(|run: &Run| run.first..run.end())
            .collect();
        let holder = &mut self.holders[at as usize];
        let expected: Vec<u64> = holder.records.drain(..count as usize).collect();
        assert_eq!(
            places, expected,
            "other records are answered than it had first"
        );
        holder.answered += count;
        if holder.records.is_empty() {
            holder.has_suspects = false;
        }
        for run in done {
            for place in run.first..run.end() {
                let record = &mut self.records[place as usize];
                assert!(!record.answered && !record.dead);
                (record.answered, record.holder) = (true, None);
                // Its answer is work for the same pool.
                if !self.ended && self.random.u8(..8) == 0 {
                    self.to_come += 1;
                }
            }
            self.leave(run.first, run.count);
        }
        self.idle_deaths = 0;
    }

    fn leave(&mut self, first: u64, count: u64) {
        if self.order.pass(first, count) {
            self.left.extend(first..first + count);
        } else if let Some(held) = self.order.extend(first, count) {
            *held += count;
        } else {
            self.order.hold(first, count, count);
        }
        while let Some(count) = self.order.pop() {
            let from = self.left.len() as u64;
            self.left.extend(from..from + count);
        }
    }

    /// What a holder has behind its first so many comes back untouched.
    fn forget(&mut self, at: u32, keep: usize) {
        let holder = &mut self.holders[at as usize];
        for place in holder.records.drain(keep..) {
            self.records[place as usize].holder = None;
            holder.given -= 1;
        }
        if holder.records.is_empty() {
            holder.has_suspects = false;
        }
    }

    /// A try of these records has failed: each has had it.
    fn charge(&mut self, places: &[u64], failed: Failed) {
        let retry = &self.rules.retry;
        let again = match failed {
            Failed::Code(code) => retry.on_codes.is_empty() || retry.on_codes.contains(&code),
            Failed::Otherwise => retry.on_codes.is_empty(),
        };
        for place in places {
            let record = &mut self.records[*place as usize];
            record.holder = None;
            record.failed += 1;
            record.tries += 1;
            if !again || record.tries > retry.max {
                record.is_due = places.len() == 1;
                record.tries = if record.is_due { record.tries } else { 0 };
            }
            // After the first failure the delay is known; later it depends on how often it was halved.
            let least = if retry.jitter {
                retry.delay / 2
            } else {
                retry.delay
            };
            record.not_before = if again && retry.max > 0 && record.failed == 1 {
                self.now + least
            } else {
                Duration::ZERO
            };
        }
    }

    fn bury(&mut self) {
        while let Some(run) = self.ledger.next_dead() {
            self.tell(|| format!("{run:?} is dead"));
            for place in run.first..run.end() {
                let record = &mut self.records[place as usize];
                assert!(!record.answered && !record.dead && record.holder.is_none());
                assert!(record.is_due, "record {place} has a try left");
                assert_eq!(record.tries, run.failures);
                record.dead = true;
                if !self.rules.dead_letter && self.rules.on_failure != OnFailure::Continue {
                    self.halted = true;
                }
            }
            self.leave(run.first, run.count);
            self.idle_deaths = 0;
        }
        let due = self.records.iter().position(|r| r.is_due && !r.dead);
        assert_eq!(due, None, "a record has no try left and is not dead");
    }

    /// A holder ends; it had begun with its first so many records.
    fn die(&mut self, at: u32, touched: u64, failed: Failed) {
        self.tell(|| format!("{at} dies, had begun with {touched}: {failed:?}"));
        self.deaths += 1;
        let before = self.ledger.retried();
        self.ledger.fail(at, touched, failed, self.now);
        assert_eq!(self.ledger.retried(), before);
        self.forget(at, touched as usize);
        let places: Vec<u64> = self.holders[at as usize].records.drain(..).collect();
        self.charge(&places, failed);
        self.bury();
        let holder = std::mem::take(&mut self.holders[at as usize]);
        let counts = touched == 0;
        if counts && holder.answered == 0 && !self.is_task {
            self.idle_deaths += 1;
        }
        let is_loop = self.ledger.renew(at, u32::from(counts && !self.is_task));
        assert_eq!(
            is_loop,
            self.idle_deaths > self.rules.barren,
            "a crash loop, or none"
        );
        if is_loop {
            self.ledger.halt();
            self.halted = true;
        }
    }

    /// The first record of a holder takes too long.
    fn time_out(&mut self, at: u32) {
        self.tell(|| format!("{at} times out"));
        self.deaths += 1;
        self.ledger.time_out(at, self.now);
        self.forget(at, 1);
        let places: Vec<u64> = self.holders[at as usize].records.drain(..).collect();
        self.charge(&places, Failed::Otherwise);
        self.bury();
        self.holders[at as usize] = Holder::default();
        let is_loop = self.ledger.renew(at, 0);
        assert!(!is_loop || self.halted || self.idle_deaths > self.rules.barren);
    }

    /// A holder goes on with what it has, as far as it can. True where something happened.
    fn work(&mut self, at: u32) -> bool {
        let held = self.holders[at as usize].records.len() as u64;
        if held == 0 {
            return false;
        }
        let kills = |place: &u64| self.records[*place as usize].kills > 0;
        let bad = self.holders[at as usize].records.iter().position(kills);
        match bad {
            None if self.is_task => self.answer(at, held),
            None => {
                let count = self.random.u64(1..=held);
                self.answer(at, count);
            }
            Some(bad) => {
                let bad = bad as u64;
                let answered = if self.is_task || bad == 0 {
                    0
                } else {
                    // It may have held answers back.
                    self.random.u64(0..=bad)
                };
                if answered > 0 {
                    self.answer(at, answered);
                }
                let place = self.holders[at as usize].records[(bad - answered) as usize];
                let record = &mut self.records[place as usize];
                if record.kills != u32::MAX {
                    record.kills -= 1;
                }
                let held = held - answered;
                let touched = if self.is_task {
                    held
                } else {
                    self.random.u64(bad - answered + 1..=held)
                };
                let failed = match self.random.u8(..3) {
                    0 => Failed::Code(1),
                    1 => Failed::Code(2),
                    _ => Failed::Otherwise,
                };
                self.die(at, touched, failed);
            }
        }
        true
    }

    fn step(&mut self) {
        let at = self.random.u32(..self.holders.len() as u32);
        let held = self.holders[at as usize].records.len() as u64;
        match self.random.u8(..16) {
            0..=2 if self.to_come > 0 && !self.ended => {
                let count = self.random.u64(1..=self.to_come);
                self.to_come -= count;
                self.arrive(count);
            }
            3 if self.to_come == 0 && !self.ended => {
                self.ledger.end();
                self.ended = true;
            }
            4..=7 => {
                self.hand_out(at);
            }
            8..=10 => {
                self.work(at);
            }
            11 => self.now += Duration::from_millis(self.random.u64(0..2000)),
            12 if !self.is_calm => {
                // Killed, at any point.
                let answered = if held > 0 && !self.is_task {
                    self.random.u64(0..=held)
                } else {
                    0
                };
                if answered > 0 {
                    self.answer(at, answered);
                }
                let touched = match self.is_task {
                    true => held,
                    false => self.random.u64(0..=held - answered),
                };
                self.die(at, touched, Failed::Otherwise);
            }
            13 if !self.is_calm && held > 0 && !self.is_task && self.random.bool() => {
                self.time_out(at);
            }
            14 if held > 1 && !self.is_task => {
                let keep = self.random.u64(1..=held);
                self.tell(|| format!("{at} keeps {keep}"));
                self.ledger.give_back(at, keep);
                self.forget(at, keep as usize);
            }
            15 if !self.is_calm && self.random.u8(..64) == 0 => {
                self.tell(|| "stop".to_owned());
                self.ledger.halt();
                self.halted = true;
            }
            _ => {}
        }
    }

    /// Nothing unforeseen happens any more: it must come to its end.
    fn finish(&mut self) {
        for _ in 0..100_000 {
            if self.to_come > 0 && !self.ended {
                let count = std::mem::take(&mut self.to_come);
                self.arrive(count);
                continue;
            }
            if !self.ended {
                self.ledger.end();
                self.ended = true;
            }
            if self.ledger.state() == State::Over {
                return;
            }
            let mut moved = false;
            for at in 0..self.holders.len() as u32 {
                moved |= self.hand_out(at);
                moved |= self.work(at);
                // One that has had all that it may is replaced.
                let holder = &self.holders[at as usize];
                if holder.records.is_empty() && holder.given >= self.rules.recycle_after {
                    assert!(self.ledger.is_spent(at));
                    let answered = holder.answered;
                    self.holders[at as usize] = Holder::default();
                    self.ledger.renew(at, 0);
                    moved |= answered > 0;
                }
            }
            if !moved {
                let wake = self.ledger.next_wake();
                let wake = wake.unwrap_or_else(|| panic!("stuck: {:?}", self.ledger));
                self.now = self.now.max(wake);
            }
        }
        panic!("no end");
    }

    fn check(&self) {
        let count = |is: fn(&Record) -> bool| {
            self.records.iter().filter(|record| is(record)).count() as u64
        };
        let (answered, dead) = (count(|r| r.answered), count(|r| r.dead));
        assert_eq!(self.ledger.answered(), answered);
        assert_eq!(self.ledger.buried(), dead);
        assert_eq!(self.ledger.in_flight(), self.in_flight());
        for (at, holder) in self.holders.iter().enumerate() {
            assert_eq!(self.ledger.held(at as u32), holder.records.len() as u64);
        }
        assert!(
            self.left.iter().copied().eq(0..self.left.len() as u64),
            "out of order"
        );
    }
}

/// One world.
fn run(seed: u64, verbose: bool) {
    let mut world = World::new(seed, verbose);
    let rules = format!("{:?} task {}", world.rules, world.is_task);
    world.tell(|| rules);
    for _ in 0..world.random.u32(0..150) {
        world.step();
        world.check();
        if world.ledger.state() == State::Over {
            break;
        }
    }
    world.finish();
    world.check();
    assert_eq!(world.in_flight(), 0);
    assert_eq!(world.ledger.hand_out(0, 100), None);
    assert_eq!(world.ledger.answer(0, 1, |_| {}), Err(TooMany));
    let culprits = world.records.iter().filter(|record| record.dead).count();
    assert_eq!(
        world.ledger.culprit().is_some(),
        culprits > 0 && !world.rules.dead_letter
    );
    if !world.halted {
        let open = world
            .records
            .iter()
            .position(|record| !record.answered && !record.dead);
        assert_eq!(open, None, "a record is neither answered nor dead");
        assert_eq!(world.left.len(), world.records.len(), "not all have left");
    }
    if world.is_calm {
        // Only who kills can die.
        let kinds: BTreeMap<bool, usize> = world.records.iter().filter(|record| record.dead).fold(
            BTreeMap::new(),
            |mut kinds, record| {
                *kinds
                    .entry(record.kills > 0 || record.failed > 0)
                    .or_default() += 1;
                kinds
            },
        );
        assert_eq!(kinds.get(&false), None);
    }
}

/// Into the test's output, which is shown where it fails.
fn print_log(log: &mut Vec<String>) {
    use std::io::Write;
    let mut err = std::io::stderr().lock();
    for line in log.drain(..) {
        writeln!(err, "{line}").unwrap();
    }
}

fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap())
}

#[test]
fn random_worlds() {
    let runs = from_env("SIM_RUNS").unwrap_or(4_000);
    let first = from_env("SIM_SEED").unwrap_or(0);
    for seed in first..first + runs {
        let ended = std::panic::catch_unwind(|| run(seed, runs == 1));
        if ended.is_err() {
            panic!(
                "world {seed} of {first}..{}: SIM_RUNS=1 SIM_SEED={seed} shows it",
                first + runs
            );
        }
    }
}
