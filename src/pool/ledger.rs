//! Who has which record, and which try it is: leases, retries, halving, the end.
//!
//! Pure: no bytes, no clock, no process. Records are their places among all records, and are dealt with in *runs* of
//! neighbours, so that millions of quick ones cost what thousands do. A run is cut where it has to be: when its worker answered
//! a part of it, when a part of it was never read, when it failed in company and nobody knows which record is the bad one.
//!
//! ```text
//!                      ┌───────── free: given back unread ◀─────────┐
//!                      ▼                                            │
//!  arrive ──▶ fresh ──▶ hand_out ──▶ lease of a holder ──▶ answer ──┼──▶ answered
//!                      ▲                                            │
//!                      └── suspects ◀── waiting (delay) ◀── fail ───┴──▶ dead: was alone, and has no try left
//! ```
//!
//! A record that failed is a *suspect*. It is tried with nothing else in its worker's hands but what failed with it, so that
//! no stranger is charged with its next failure. When such a run has had its tries it is halved, and each half has its
//! tries anew, until the bad record stands alone.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::plan::Retry;
use crate::spec::OnFailure;

/// Neighbouring records that are dealt with alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    /// The place of the first among all records.
    pub first: u64,
    /// How many. Not 0.
    pub count: u64,
    /// Failures so far, of these records together.
    pub failures: u32,
    /// It failed, or was in company with what failed: it is tried apart.
    pub suspect: bool,
}

impl Run {
    /// The place behind its last record.
    pub fn end(&self) -> u64 {
        self.first + self.count
    }

    /// Cuts it: the first `count`, and the others.
    fn cut(self, count: u64) -> (Run, Option<Run>) {
        let rest = (count < self.count).then(|| Run {
            first: self.first + count,
            count: self.count - count,
            ..self
        });
        let count = count.min(self.count);
        (Run { count, ..self }, rest)
    }
}

/// What is asked of a pool.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    /// For one record.
    pub retry: Retry,
    /// Records handed over at once: exactly so many, but for the last.
    pub batch: Option<u64>,
    /// Records in all hands. At least 1.
    pub max_in_flight: u64,
    /// A holder gets so many in its life. At least 1.
    pub recycle_after: u64,
    /// What a record that failed every try means for the others.
    pub on_failure: OnFailure,
    /// Records that failed every try have somewhere to go: they are no failure.
    pub dead_letter: bool,
    /// Ends of holders that answered nothing, one after the other, are a crash loop when they weigh more than this.
    pub barren: u32,
}

/// How a try failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failed {
    /// By this exit code, which may be one that is not tried again.
    Code(u8),
    /// In another way.
    Otherwise,
}

/// What has become of the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// There is work, or may be.
    Open,
    /// Nothing more is handed out; something is in somebody's hands.
    Halting,
    /// Nothing is in anybody's hands, and nothing will be.
    Over,
}

/// More records were answered than were handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooMany;

/// The record that made the pool fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Culprit {
    /// Its place.
    pub record: u64,
    /// The tries that it had alone, or with others that are no longer suspects.
    pub tries: u32,
}

/// What a holder has.
#[derive(Debug, Default)]
struct Lease {
    /// Not answered, in the order handed out.
    runs: VecDeque<Run>,
    /// How many records these are.
    count: u64,
    /// Records handed out to it in its life.
    given: u64,
    /// Records that it answered in its life.
    answered: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Ledger {
    rules: Rules,
    random: fastrand::Rng,
    /// The first record that was never handed out.
    next: u64,
    /// So many have come.
    arrived: u64,
    /// No more will come.
    ended: bool,
    /// Came back untouched, by their first record.
    free: BTreeMap<u64, Run>,
    /// To be tried apart, by their first record.
    suspects: BTreeMap<u64, Run>,
    /// The same, when their delay is over.
    waiting: BTreeMap<(Duration, u64), Run>,
    /// By holder.
    leases: Vec<Lease>,
    in_flight: u64,
    answered: u64,
    /// Found dead and not yet asked for.
    dead: VecDeque<Run>,
    buried: u64,
    retried: u64,
    barren: u32,
    halted: bool,
    culprit: Option<Culprit>,
}

impl Ledger {
    /// Nothing has come yet. `seed`: for the jitter of delays.
    pub fn new(rules: Rules, holders: u32, seed: u64) -> Ledger {
        Ledger {
            rules,
            random: fastrand::Rng::with_seed(seed),
            next: 0,
            arrived: 0,
            ended: false,
            free: BTreeMap::new(),
            suspects: BTreeMap::new(),
            waiting: BTreeMap::new(),
            leases: (0..holders).map(|_| Lease::default()).collect(),
            in_flight: 0,
            answered: 0,
            dead: VecDeque::new(),
            buried: 0,
            retried: 0,
            barren: 0,
            halted: false,
            culprit: None,
        }
    }

    /// So many more records have come.
    pub fn arrive(&mut self, count: u64) {
        if self.ended {
            panic!("BUG: {count} records came behind the end");
        }
        self.arrived += count;
    }

    /// No more will come.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// Nothing more is to be handed out.
    pub fn halt(&mut self) {
        self.halted = true;
    }

    /// Hands records to a holder: at most `most` of them. Suspects only where it has nothing else, and nothing else where it has
    /// suspects.
    pub fn hand_out(&mut self, holder: u32, most: u64) -> Option<Run> {
        if self.halted {
            return None;
        }
        let lease = &self.leases[holder as usize];
        let has_suspects = lease.runs.front().is_some_and(|run| run.suspect);
        if has_suspects {
            return None;
        }
        let is_idle = lease.runs.is_empty();
        let life = self.rules.recycle_after.saturating_sub(lease.given);
        let flight = self.rules.max_in_flight.saturating_sub(self.in_flight);
        // A batch is handed out whole: a holder that has had less than its life's count takes one more.
        let most = match self.rules.batch {
            Some(_) if life > 0 => flight,
            Some(_) => 0,
            None => most.min(life).min(flight),
        };
        if most == 0 {
            return None;
        }
        let run = if is_idle && let Some(run) = self.take_back(true, most) {
            self.retried += run.count;
            run
        } else if let Some(run) = self.take_back(false, most) {
            run
        } else {
            self.take_fresh(most)?
        };
        let lease = &mut self.leases[holder as usize];
        lease.runs.push_back(run);
        lease.count += run.count;
        lease.given += run.count;
        self.in_flight += run.count;
        Some(run)
    }

    /// The first of what came back.
    fn take_back(&mut self, suspects: bool, most: u64) -> Option<Run> {
        let is_whole = self.rules.batch.is_some();
        let from = if suspects {
            &mut self.suspects
        } else {
            &mut self.free
        };
        let entry = from.first_entry()?;
        if is_whole && entry.get().count > most {
            return None;
        }
        let (run, rest) = entry.remove().cut(most);
        if let Some(rest) = rest {
            from.insert(rest.first, rest);
        }
        Some(run)
    }

    fn take_fresh(&mut self, most: u64) -> Option<Run> {
        let there = self.arrived - self.next;
        let count = match self.rules.batch {
            Some(batch) => {
                // One that could never be in flight as a whole is handed out in parts.
                let batch = batch.min(self.rules.max_in_flight);
                if there < batch && !self.ended {
                    return None;
                }
                Some(batch.min(there)).filter(|count| *count <= most)?
            }
            None => most.min(there),
        };
        if count == 0 {
            return None;
        }
        let run = Run {
            first: self.next,
            count,
            failures: 0,
            suspect: false,
        };
        self.next += count;
        Some(run)
    }

    /// A holder answered its first `count` records. Tells each run, or part of one, that is done.
    ///
    /// # Errors
    /// It doesn't have so many. Those that it has are answered.
    pub fn answer(
        &mut self,
        holder: u32,
        count: u64,
        mut done: impl FnMut(Run),
    ) -> Result<(), TooMany> {
        let lease = &mut self.leases[holder as usize];
        let mut left = count;
        while left > 0
            && let Some(run) = lease.runs.pop_front()
        {
            let (part, rest) = run.cut(left);
            if let Some(rest) = rest {
                lease.runs.push_front(rest);
            }
            left -= part.count;
            done(part);
        }
        let answered = count - left;
        lease.count -= answered;
        lease.answered += answered;
        self.in_flight -= answered;
        self.answered += answered;
        if answered > 0 {
            self.barren = 0;
        }
        if left > 0 { Err(TooMany) } else { Ok(()) }
    }

    /// What a holder has behind its first `keep` records comes back: it was never touched.
    pub fn give_back(&mut self, holder: u32, keep: u64) {
        let lease = &mut self.leases[holder as usize];
        while lease.count > keep
            && let Some(run) = lease.runs.pop_back()
        {
            let kept = run.count.saturating_sub(lease.count - keep);
            let back = if kept > 0 {
                let (stays, back) = run.cut(kept);
                lease.runs.push_back(stays);
                back.unwrap_or_else(|| panic!("BUG: {run:?} is cut at {kept}"))
            } else {
                run
            };
            lease.count -= back.count;
            lease.given -= back.count;
            self.in_flight -= back.count;
            let to = if back.suspect {
                &mut self.suspects
            } else {
                &mut self.free
            };
            to.insert(back.first, back);
        }
    }

    /// A holder's first record took too long: it has had a try, and it alone. The others come back as they were.
    pub fn time_out(&mut self, holder: u32, now: Duration) {
        self.give_back(holder, 1);
        self.fail(holder, 1, Failed::Otherwise, now);
    }

    /// A holder's try has failed. Of what it has, its first `touched` records count it; the others come back as they were.
    pub fn fail(&mut self, holder: u32, touched: u64, failed: Failed, now: Duration) {
        self.give_back(holder, touched);
        let lease = &mut self.leases[holder as usize];
        let runs = std::mem::take(&mut lease.runs);
        let is_alone = lease.count == 1;
        self.in_flight -= lease.count;
        lease.count = 0;
        for run in runs {
            self.charge(run, is_alone, failed, now);
        }
    }

    fn charge(&mut self, run: Run, is_alone: bool, failed: Failed, now: Duration) {
        let retry = &self.rules.retry;
        let may_again = match failed {
            Failed::Code(code) => retry.on_codes.is_empty() || retry.on_codes.contains(&code),
            Failed::Otherwise => retry.on_codes.is_empty(),
        };
        let mut run = Run {
            failures: run.failures + 1,
            suspect: true,
            ..run
        };
        if may_again && run.failures <= retry.max {
            return self.wait(run, now);
        }
        if is_alone {
            return self.bury(run);
        }
        // Somebody of many: nobody knows who. (One record of several runs stands alone now, for the first time.)
        run.failures = 0;
        let (first, second) = run.cut(run.count.div_ceil(2));
        for half in [Some(first), second].into_iter().flatten() {
            self.suspects.insert(half.first, half);
        }
    }

    /// Until the delay before its next try is over.
    fn wait(&mut self, run: Run, now: Duration) {
        let retry = &self.rules.retry;
        if retry.delay.is_zero() {
            self.suspects.insert(run.first, run);
            return;
        }
        let exponent = i32::try_from(run.failures.saturating_sub(1)).unwrap_or(i32::MAX);
        let seconds = retry.delay.as_secs_f64() * retry.backoff.powi(exponent);
        // Also where the product is too large for a number.
        let delay = Duration::try_from_secs_f64(seconds)
            .unwrap_or(retry.max_delay)
            .min(retry.max_delay);
        let delay = if retry.jitter {
            delay.mul_f64(0.5 + self.random.f64() / 2.0)
        } else {
            delay
        };
        self.waiting
            .insert((now.saturating_add(delay), run.first), run);
    }

    fn bury(&mut self, run: Run) {
        self.barren = 0;
        self.buried += run.count;
        self.dead.push_back(run);
        if self.rules.dead_letter {
            return;
        }
        self.culprit.get_or_insert(Culprit {
            record: run.first,
            tries: run.failures,
        });
        match self.rules.on_failure {
            OnFailure::Stop | OnFailure::Kill => self.halted = true,
            OnFailure::Continue => {}
        }
    }

    /// Those whose delay is over can be handed out.
    pub fn wake(&mut self, now: Duration) {
        while let Some(entry) = self.waiting.first_entry()
            && entry.key().0 <= now
        {
            let run = entry.remove();
            self.suspects.insert(run.first, run);
        }
    }

    /// When the next delay is over: [`Ledger::wake`] is due then.
    pub fn next_wake(&self) -> Option<Duration> {
        let first = self.waiting.first_key_value();
        first.filter(|_| !self.halted).map(|((when, _), _)| *when)
    }

    /// A holder has ended, and holds nothing: another begins in its place. `weight`: how much that looks like a crash loop where it
    /// has answered nothing in its life; 0 for one that had begun with a record (that has cost a try, and there are only so many)
    /// or was to end. True where the ends since the last answer weigh more than [`Rules::barren`].
    pub fn renew(&mut self, holder: u32, weight: u32) -> bool {
        let lease = std::mem::take(&mut self.leases[holder as usize]);
        if lease.count > 0 {
            panic!(
                "BUG: holder {holder} has ended with {} records",
                lease.count
            );
        }
        if lease.answered == 0 {
            self.barren = self.barren.saturating_add(weight);
        }
        self.barren > self.rules.barren
    }

    /// A record that failed every try, once each.
    pub fn next_dead(&mut self) -> Option<Run> {
        self.dead.pop_front()
    }

    /// Records that a holder has.
    pub fn held(&self, holder: u32) -> u64 {
        self.leases[holder as usize].count
    }

    /// A holder that gets no more in its life.
    pub fn is_spent(&self, holder: u32) -> bool {
        self.leases[holder as usize].given >= self.rules.recycle_after
    }

    /// Whether a holder has what is tried apart.
    pub fn has_suspects(&self, holder: u32) -> bool {
        let first = self.leases[holder as usize].runs.front();
        first.is_some_and(|run| run.suspect)
    }

    /// Records that nobody has touched, and that are there.
    pub fn untouched(&self) -> u64 {
        let free: u64 = if self.free.is_empty() {
            0
        } else {
            self.free.values().map(|run| run.count).sum()
        };
        self.arrived - self.next + free
    }

    /// There is something to be tried apart.
    pub fn has_suspected(&self) -> bool {
        !self.suspects.is_empty()
    }

    /// The first record that would be handed out next to whom nothing is tried apart.
    pub fn next_untouched(&self) -> Option<u64> {
        let free = self.free.first_key_value().map(|(first, _)| *first);
        free.or_else(|| Some(self.next).filter(|next| *next < self.arrived))
    }

    /// Something could be handed out now, if there were a holder for it.
    pub fn has_work(&self) -> bool {
        let fresh = self.arrived - self.next;
        let enough = match self.rules.batch {
            Some(batch) if !self.ended => batch.min(self.rules.max_in_flight),
            _ => 1,
        };
        !self.halted
            && self.in_flight < self.rules.max_in_flight
            && (fresh >= enough || !self.free.is_empty() || !self.suspects.is_empty())
    }

    /// More input would be of use before anything else can be handed out.
    pub fn wants_more(&self) -> bool {
        let fresh = self.arrived - self.next;
        !self.ended && !self.halted && fresh < self.rules.batch.unwrap_or(1)
    }

    /// Everything that came is in somebody's hands or done, and no more will come: who has nothing will get nothing, unless
    /// somebody else fails.
    pub fn is_dry(&self) -> bool {
        let none = self.next == self.arrived && self.free.is_empty();
        self.halted || self.ended && none && self.suspects.is_empty() && self.waiting.is_empty()
    }

    /// Nothing more is handed out.
    pub fn is_halted(&self) -> bool {
        self.halted
    }

    /// Nothing is in anybody's hands, nor waits.
    pub fn is_idle(&self) -> bool {
        self.in_flight == 0 && self.answered + self.buried == self.arrived
    }

    /// See [`State`].
    pub fn state(&self) -> State {
        let is_done = self.ended && self.answered + self.buried == self.arrived;
        match (self.halted || is_done, self.in_flight) {
            (true, 0) => State::Over,
            (true, _) => State::Halting,
            (false, _) => State::Open,
        }
    }

    /// The first record that failed every try and had nowhere to go.
    pub fn culprit(&self) -> Option<Culprit> {
        self.culprit
    }

    /// In all hands.
    pub fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// So far.
    pub fn answered(&self) -> u64 {
        self.answered
    }

    /// So far.
    pub fn buried(&self) -> u64 {
        self.buried
    }

    /// Records handed out after they had failed.
    pub fn retried(&self) -> u64 {
        self.retried
    }

    /// So far.
    pub fn arrived(&self) -> u64 {
        self.arrived
    }
}
