//! [`Meter`]: how fast something has moved lately, from counts that come now and then.

use std::collections::VecDeque;
use std::time::Duration;

/// A rate is that of so long a time: long enough to be read, short enough to be now.
const WINDOW: Duration = Duration::from_secs(10);

/// Of less in that time the rate would jump: the time is longer then, until so many have moved.
const ENOUGH: u64 = 20;

/// But no longer than this.
const LONGEST: Duration = Duration::from_secs(600);

/// A count that is older than this is no news: what has not been told of since has not moved.
const FRESH: Duration = Duration::from_secs(2);

/// The counts of the last seconds.
#[derive(Debug, Clone, Default)]
pub struct Meter {
    /// The oldest first. Of a time in which nothing moved, the beginning and the end.
    samples: VecDeque<Sample>,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Duration,
    moved: Moved,
}

/// What has moved so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Moved {
    /// Records.
    pub records: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Moved {
    fn is_enough_since(self, before: Moved) -> bool {
        // Where records are not counted, bytes are all there is.
        self.records - before.records >= ENOUGH || (self.records == 0 && self.bytes > before.bytes)
    }
}

/// How fast, each in one second.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Speed {
    /// Records.
    pub records: f64,
    /// Bytes.
    pub bytes: f64,
}

impl Meter {
    /// Nothing has moved yet, at `start`.
    pub fn since(start: Duration) -> Self {
        let mut meter = Meter::default();
        meter.add(start, Moved::default());
        meter
    }

    /// So much has moved by now, all in all.
    pub fn add(&mut self, at: Duration, moved: Moved) {
        let backwards = |last: &Sample| {
            last.at > at || last.moved.records > moved.records || last.moved.bytes > moved.bytes
        };
        if self.samples.back().is_some_and(backwards) {
            // It has begun anew.
            self.samples.clear();
        }
        let mut stands = self.samples.iter().rev().take(2);
        if stands.len() == 2 && stands.all(|sample| sample.moved == moved) {
            self.samples.pop_back();
        }
        self.samples.push_back(Sample { at, moved });
        while let Some(second) = self.samples.get(1)
            && second.at + WINDOW <= at
            && (moved.is_enough_since(second.moved) || second.at + LONGEST <= at)
        {
            self.samples.pop_front();
        }
    }

    /// How fast it has moved lately; `None` while that can't be told.
    pub fn speed(&self, now: Duration) -> Option<Speed> {
        let (first, last) = (self.samples.front()?, self.samples.back()?);
        let end = last.at.max(now.saturating_sub(FRESH));
        let time = end.saturating_sub(first.at).as_secs_f64();
        (time > 0.0 && self.samples.len() > 1).then(|| Speed {
            records: (last.moved.records - first.moved.records) as f64 / time,
            bytes: (last.moved.bytes - first.moved.bytes) as f64 / time,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn moved(records: u64) -> Moved {
        Moved {
            records,
            bytes: records * 100,
        }
    }

    #[test]
    fn it_is_the_last_seconds_that_count() {
        let mut meter = Meter::since(seconds(5));
        assert_eq!(meter.speed(seconds(6)), None);
        meter.add(seconds(6), moved(50));
        let speed = |meter: &Meter, now| meter.speed(seconds(now)).map(|speed| speed.records);
        assert_eq!(speed(&meter, 6), Some(50.0));
        // Ten times as fast from here on.
        for second in 7..=30 {
            meter.add(seconds(second), moved(50 + (second - 6) * 500));
        }
        assert_eq!(speed(&meter, 30), Some(500.0));
        assert_eq!(
            meter.speed(seconds(31)).map(|speed| speed.bytes),
            Some(50_000.0)
        );
        assert!(meter.samples.len() <= 12, "{meter:?}");
    }

    #[test]
    fn what_stands_still_slows_down() {
        let mut meter = Meter::since(seconds(0));
        meter.add(seconds(10), moved(1000));
        let shown = [10, 12, 22].map(|now| meter.speed(seconds(now)).map(|speed| speed.records));
        assert_eq!(shown, [Some(100.0), Some(100.0), Some(50.0)]);
    }

    #[test]
    fn what_is_slow_is_measured_for_longer() {
        let mut meter = Meter::since(seconds(0));
        // One in 20 seconds.
        for second in 1..=400 {
            meter.add(seconds(second), moved(second / 20));
        }
        let speed = meter.speed(seconds(400)).map(|speed| speed.records);
        assert!(
            speed.is_some_and(|speed| (0.0475..0.0525).contains(&speed)),
            "{speed:?}"
        );
        // It stops, for an hour.
        for second in 401..=4000 {
            meter.add(seconds(second), moved(20));
        }
        assert_eq!(meter.speed(seconds(4000)), Some(Speed::default()));
        assert!(meter.samples.len() <= 3, "{meter:?}");
    }

    #[test]
    fn what_begins_anew_does_not_run_backwards() {
        let mut meter = Meter::since(seconds(0));
        meter.add(seconds(10), moved(1000));
        meter.add(seconds(11), moved(5));
        assert_eq!(meter.speed(seconds(11)), None);
        meter.add(seconds(12), moved(8));
        assert_eq!(
            meter.speed(seconds(12)).map(|speed| speed.records),
            Some(3.0)
        );
    }
}
