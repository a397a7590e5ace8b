//! Numbers and names as people read them: durations, bytes, signals, units.

use std::fmt;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::plan::{Plan, UnitId};

/// How a unit is called: its node's name, and its place in it where the node has several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label<'a> {
    /// The node.
    pub node: &'a str,
    /// The unit's place in it, from 0; `None` where it is the only one.
    pub unit: Option<u32>,
}

impl<'a> Label<'a> {
    /// The label of this unit.
    pub fn of(plan: &'a Plan, unit: UnitId) -> Self {
        let Some(node) = plan
            .units
            .get(unit.index())
            .and_then(|u| plan.nodes.get(u.node.index()))
        else {
            panic!("BUG: {unit:?} is not in the plan");
        };
        let several = node.units.len() > 1;
        Label {
            node: &node.name,
            unit: several.then(|| unit.0 - node.units.start),
        }
    }
}

impl fmt::Display for Label<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.unit {
            // `pad`, so that a width given by the caller holds.
            None => f.pad(self.node),
            Some(unit) => f.pad(&format!("{}.{unit}", self.node)),
        }
    }
}

/// A name in so many columns: what does not fit is left out of its middle, since names that are alike often differ at the end.
pub fn shortened(name: &str, columns: usize, unicode: bool) -> String {
    let count = name.chars().count();
    if count <= columns {
        return name.to_owned();
    }
    let gap = if unicode { "…" } else { ".." };
    let Some(room) = columns
        .checked_sub(gap.chars().count())
        .filter(|room| *room >= 2)
    else {
        return name.chars().take(columns).collect();
    };
    let tail = room / 2;
    name.chars()
        .take(room - tail)
        .chain(gap.chars())
        .chain(name.chars().skip(count - tail))
        .collect()
}

/// A measured time with three figures or so: `0.31s`, `12.4s`, `3m 07s`, `1h 02m`.
pub fn short(time: Duration) -> String {
    let seconds = time.as_secs();
    // The bounds are those of rounding: 9.996 s is 10.0s, not 10.00s.
    match time.as_millis() {
        0..9_995 => format!("{:.2}s", time.as_secs_f64()),
        9_995..59_950 => format!("{:.1}s", time.as_secs_f64()),
        59_950..3_600_000 => {
            let seconds = (time + Duration::from_millis(50)).as_secs();
            format!("{}m {:02}s", seconds / 60, seconds % 60)
        }
        _ => format!("{}h {:02}m", seconds / 3600, seconds / 60 % 60),
    }
}

/// A time that someone wrote: `30s`, `1m 30s`, `250ms`.
pub fn exact(time: Duration) -> String {
    humantime::format_duration(time).to_string()
}

/// Bytes with three figures or so: `512 B`, `3.1 MiB`.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    // Divided before each comparison; 1023.95 KiB is shown as the next unit, since it would round to 1024.0.
    let mut value = bytes as f64 / 1024.0;
    let mut units = UNITS.iter();
    let mut unit = units.next().copied().unwrap_or("KiB");
    for next in units {
        if value < 1023.95 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    format!("{value:.1} {unit}")
}

/// A signal by name: `SIGKILL`, `SIGRTMIN+3`.
pub fn signal(number: i32) -> String {
    if let Ok(signal) = Signal::try_from(number) {
        return signal.as_str().to_owned();
    }
    match number - libc::SIGRTMIN() {
        0 => "SIGRTMIN".to_owned(),
        above @ 1.. if number <= libc::SIGRTMAX() => format!("SIGRTMIN+{above}"),
        _ => format!("signal {number}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_their_middle() {
        let of = |columns| shortened("part-of-a-whole-17", columns, true);
        assert_eq!(
            [30, 18, 17, 10, 3, 2, 1, 0].map(of),
            [
                "part-of-a-whole-17",
                "part-of-a-whole-17",
                "part-of-…whole-17",
                "part-…e-17",
                "p…7",
                "pa",
                "p",
                ""
            ]
        );
        assert_eq!(shortened("part-of-a-whole-17", 10, false), "part..e-17");
    }

    #[test]
    fn times_have_about_three_figures() {
        let of = |ms| short(Duration::from_millis(ms));
        let shown: Vec<_> = [
            0, 4, 310, 9_994, 9_995, 12_440, 59_949, 59_950, 187_000, 3_599_949, 3_720_000,
        ]
        .map(of)
        .into();
        assert_eq!(
            shown,
            [
                "0.00s", "0.00s", "0.31s", "9.99s", "10.0s", "12.4s", "59.9s", "1m 00s", "3m 07s",
                "59m 59s", "1h 02m"
            ]
        );
    }

    #[test]
    fn bytes_have_about_three_figures() {
        let shown: Vec<_> = [0, 1023, 1024, 3_250_586, 1024 * 1024 - 1, u64::MAX]
            .map(bytes)
            .into();
        assert_eq!(
            shown,
            ["0 B", "1023 B", "1.0 KiB", "3.1 MiB", "1.0 MiB", "16.0 EiB"]
        );
    }

    #[test]
    fn signals_have_names() {
        assert_eq!(
            [9, 34, 37, 99].map(signal),
            ["SIGKILL", "SIGRTMIN", "SIGRTMIN+3", "signal 99"]
        );
    }
}
