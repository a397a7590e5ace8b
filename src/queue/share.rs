//! How much a reader of a shared queue is handed at once: nothing while another is freer, few records while readers are
//! slow, blocks when they keep up. Knows clocks and pipes by what it is told of them.
//!
//! What a reader has not read yet nobody else can do for it, so each has a *window*, bytes that may lie unread in its pipe:
//! as much as it reads in a few milliseconds. It begins with one record, doubles while the reader is quicker than that, and is
//! halved when it is slower. In addition nobody is handed more than a small part of what all have been handed so far: a
//! short input is shared evenly, however quick its readers look at first. (They look quick since a reader takes its first
//! records into its own buffer at once, whatever it then does with them.)
//!
//! How does one wait for a pipe to become *empty*? poll(2) says only that it isn't full. A pipe of one page is both at once, so
//! a reader with a small window has such a pipe. One with a large window is looked at from time to time, which is cheap beside
//! what flows then.
//!
//! *Tried before:* windows in records. A window must hold as many bytes for records of 16 bytes as for those of 1,000, and
//! whoever counts records must look at each. Equal blocks to whoever has room: pipes of 256 KiB have room for minutes of work.

use std::time::{Duration, Instant};

/// What fits a pipe of one page.
pub(crate) const PAGE: usize = 4096;
/// A window holds what its reader reads in about this time.
const PACE: Duration = Duration::from_millis(8);
/// One reader is handed at most this part of the even share of what all have been handed so far.
const PART: u64 = 4;
/// How often a reader with much unread is looked at: at first, and at least.
const LOOK: (Duration, Duration) = (Duration::from_micros(200), Duration::from_millis(8));

/// What is known of one reader.
#[derive(Debug, Clone)]
pub(crate) struct Seat {
    /// Bytes that may lie unread.
    window: usize,
    /// What its pipe may hold at most.
    most: usize,
    /// Its pipe is of one page now: it has room when it is empty.
    is_small: bool,
    /// It has been handed something, and poll(2) has not said since that there is room.
    is_waiting: bool,
    /// Unread right after the last hand-over, whose effect has not been judged yet; 0 when it has.
    unread: usize,
    given_at: Instant,
}

/// All readers of a shared queue.
#[derive(Debug)]
pub(crate) struct Share {
    seats: Vec<Seat>,
    /// Bytes handed over to all.
    given: u64,
    /// Who has been handed something last.
    last: usize,
    /// The next look at readers with much unread, where there is one.
    look: Option<Duration>,
}

/// Whether a pipe is to be made smaller or larger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Resize(pub usize);

impl Share {
    /// With the sizes of the readers' pipes.
    pub fn new(sizes: &[usize], now: Instant) -> Share {
        let seat = |size: &usize| Seat {
            window: 1,
            most: (*size).max(PAGE),
            is_small: *size <= PAGE,
            is_waiting: false,
            unread: 0,
            given_at: now,
        };
        Share {
            seats: sizes.iter().map(seat).collect(),
            given: 0,
            last: 0,
            look: None,
        }
    }

    /// poll(2) is to be asked for room.
    pub fn is_waiting(&self, at: usize) -> bool {
        self.seats[at].is_waiting
    }

    /// How long to wait at most, where a reader is to be looked at.
    pub fn look(&self) -> Option<Duration> {
        self.look
    }

    /// Who has been handed something last.
    pub fn last(&self) -> usize {
        self.last
    }

    /// There is room again in a reader's pipe, with so many bytes unread.
    pub fn has_room(&mut self, at: usize, unread: usize, now: Instant) {
        let seat = &mut self.seats[at];
        seat.is_waiting = false;
        if seat.is_small {
            seat.judge(unread, now, true);
        }
    }

    /// Who gets the next records: the one with the least unread of those whose window is open; of equals, who has been handed
    /// nothing for longest. `unread` says what lies
    /// in the pipe of one that could be handed something, and nothing of others.
    pub fn choose(
        &mut self,
        now: Instant,
        mut unread: impl FnMut(usize) -> Option<usize>,
    ) -> Option<Choice> {
        let mut best: Option<((usize, Instant), Choice)> = None;
        let mut is_any_closed = false;
        let count = self.seats.len() as u64;
        let part = usize::try_from(self.given / (count * PART)).unwrap_or(usize::MAX);
        for (at, seat) in self.seats.iter_mut().enumerate() {
            if seat.is_waiting {
                continue;
            }
            let Some(unread) = unread(at) else { continue };
            seat.judge(unread, now, false);
            if unread > seat.window / 2 {
                is_any_closed = true;
                continue;
            }
            let rank = (unread, seat.given_at);
            if best.as_ref().is_none_or(|(least, _)| rank < *least) {
                let most = (seat.window - unread).min(part).max(1);
                best = Some((rank, Choice { at, unread, most }));
            }
        }
        self.look = match (&best, self.look) {
            (Some(_), _) => None,
            (None, _) if !is_any_closed => None,
            (None, None) => Some(LOOK.0),
            (None, Some(look)) => Some((look * 2).min(LOOK.1)),
        };
        best.map(|(_, choice)| choice)
    }

    /// How large a reader's pipe should be, where that isn't what it is.
    pub fn resize(&self, at: usize) -> Option<Resize> {
        let seat = &self.seats[at];
        match (seat.window <= PAGE, seat.is_small) {
            (true, false) => Some(Resize(PAGE)),
            (false, true) if seat.most > PAGE => Some(Resize(seat.most)),
            _ => None,
        }
    }

    /// It has become of so many bytes. (It can't become smaller than what lies in it.)
    pub fn has_size(&mut self, at: usize, size: usize) {
        self.seats[at].is_small = size <= PAGE;
    }

    /// The chosen one has been handed so many bytes.
    pub fn has_given(&mut self, choice: &Choice, bytes: usize, now: Instant) {
        self.given += bytes as u64;
        self.last = choice.at;
        let seat = &mut self.seats[choice.at];
        seat.is_waiting = true;
        seat.unread = choice.unread + bytes;
        seat.given_at = now;
    }
}

/// Who is handed the next records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Choice {
    /// Which reader.
    pub at: usize,
    /// What lies unread in its pipe.
    pub unread: usize,
    /// Bytes that it may be handed; one record it may be handed anyway.
    pub most: usize,
}

impl Seat {
    /// Fits the window to how the last hand-over went: `unread` bytes are left of it. `at_once`: this is the moment when that
    /// became so; else it may have been so for long.
    fn judge(&mut self, unread: usize, now: Instant, at_once: bool) {
        if self.unread == 0 || unread > self.window / 2 && now - self.given_at < PACE * 2 {
            return;
        }
        let took = now - self.given_at;
        if took < PACE / 2 && unread <= self.window / 2 {
            // A window that was not made use of says nothing.
            if self.unread > self.window / 2 {
                self.window = (self.window * 2).min(self.most);
            }
        } else if took > PACE * 2 && (at_once || unread > 0) {
            self.window = (self.window / 2).max(1);
            self.given_at = now;
            if unread > 0 {
                self.unread = unread;
                return;
            }
        }
        self.unread = 0;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

    use std::time::{Duration, Instant};

    use crate::queue::share::{PAGE, Share};

    /// Readers of the given paces in a world without pipes or time: each takes so many bytes in a millisecond. Returns what each
    /// was handed when all was.
    fn simulate(paces: &[f64], record: usize, all: usize) -> (Vec<usize>, Share) {
        let mut now = Instant::now();
        let mut share = Share::new(&vec![1 << 18; paces.len()], now);
        let mut unread = vec![0.0; paces.len()];
        let mut given = vec![0; paces.len()];
        while given.iter().sum::<usize>() < all {
            for (at, unread) in unread.iter().enumerate() {
                let is_full = if share.seats[at].is_small {
                    *unread > 0.0
                } else {
                    *unread >= 262_144.0
                };
                if share.is_waiting(at) && !is_full {
                    share.has_room(at, *unread as usize, now);
                }
            }
            let left = all - given.iter().sum::<usize>();
            if let Some(choice) = share.choose(now, |at| Some(unread[at] as usize)) {
                if let Some(size) = share.resize(choice.at) {
                    share.has_size(
                        choice.at,
                        if size.0 == PAGE && unread[choice.at] > 4096.0 {
                            1 << 18
                        } else {
                            size.0
                        },
                    );
                }
                let bytes = (choice.most / record * record).max(record).min(left);
                unread[choice.at] += bytes as f64;
                given[choice.at] += bytes;
                share.has_given(&choice, bytes, now);
            } else {
                let step = share.look().unwrap_or(Duration::from_micros(20));
                now += step;
                for (unread, pace) in unread.iter_mut().zip(paces) {
                    *unread = f64::max(*unread - pace * step.as_secs_f64() * 1000.0, 0.0);
                }
            }
        }
        (given, share)
    }

    #[test]
    fn quick_readers_get_blocks() {
        let (given, share) = simulate(&[300_000.0; 4], 100, 100_000_000);
        assert!(
            share
                .seats
                .iter()
                .all(|seat| seat.window == 1 << 18 && !seat.is_small),
            "{share:?}"
        );
        assert!(
            given
                .iter()
                .all(|bytes| (20_000_000..30_000_000).contains(bytes)),
            "{given:?}"
        );
    }

    /// A record of 100 bytes takes a tenth of a second.
    #[test]
    fn slow_readers_get_a_record_at_a_time() {
        let (given, share) = simulate(&[1.0; 4], 100, 20_000);
        assert!(
            share
                .seats
                .iter()
                .all(|seat| seat.window <= 100 && seat.is_small),
            "{share:?}"
        );
        assert!(
            given.iter().all(|bytes| (4_900..=5_100).contains(bytes)),
            "{given:?}"
        );
    }

    #[test]
    fn each_gets_as_much_as_it_does() {
        let (given, _) = simulate(&[1.0, 2.0, 4.0, 8.0], 100, 300_000);
        for (bytes, part) in given.iter().zip([1, 2, 4, 8]) {
            let due = 300_000 * part / 15;
            assert!(*bytes * 10 > due * 8 && *bytes * 10 < due * 12, "{given:?}");
        }
    }

    /// One that stops reading in the middle has at most a window's worth of what is to do.
    #[test]
    fn who_becomes_slow_is_left_alone() {
        let (given, _) = simulate(&[300_000.0, 300_000.0, 0.0], 100, 50_000_000);
        assert!(given[2] <= 100, "{given:?}");
    }

    #[test]
    fn a_short_input_is_shared_evenly_among_quick_readers() {
        for records in [4, 8, 20, 100] {
            let (given, _) = simulate(&[1e9; 4], 2, 2 * records);
            let (least, most) = (given.iter().min().unwrap(), given.iter().max().unwrap());
            assert!(most - least <= (records / 4).max(2), "{given:?}");
        }
    }
}
