//! Numbers and names as people read them: durations, bytes, counts, rates, signals, units.

use std::fmt;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::event::Printer;
use crate::plan::{Plan, Role, UnitId};

/// How one that runs is called: its node's name, and the number of the worker in a pool. So are its log files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label<'a> {
    /// The node.
    pub node: &'a str,
    /// The worker, from 0; `None` for a process, and for a pool as a whole.
    pub worker: Option<u32>,
}

impl<'a> Label<'a> {
    /// The label of this unit.
    pub fn of(plan: &'a Plan, unit: UnitId) -> Self {
        Label::of_printer(plan, unit.into())
    }

    /// The label of whoever printed something.
    pub fn of_printer(plan: &'a Plan, printer: Printer) -> Self {
        let unit = plan.unit(printer.unit);
        Label {
            node: &plan.node(unit.node).name,
            worker: match unit.role {
                Role::Worker(number) => Some(number),
                Role::Pool => printer.worker,
                Role::Process | Role::Gather => None,
            },
        }
    }
}

impl fmt::Display for Label<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.worker {
            // `pad`, so that a width given by the caller holds.
            None => f.pad(self.node),
            Some(worker) => f.pad(&format!("{}.{worker}", self.node)),
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

/// A count, its thousands set apart: `12,400`.
pub fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 node`, `2,000 nodes`.
pub fn plural(many: u64, noun: &str) -> String {
    format!("{} {noun}{}", count(many), if many == 1 { "" } else { "s" })
}

/// Records a second: `1,230/s`; where there are few `0.4/s`, or `2.5/min`.
pub fn rate(per_second: f64) -> String {
    if per_second >= 9.95 {
        format!("{}/s", count(per_second.round() as u64))
    } else if per_second >= 0.095 {
        format!("{per_second:.1}/s")
    } else if per_second > 0.0 {
        format!("{:.1}/min", per_second * 60.0)
    } else {
        "0/s".to_owned()
    }
}

/// Bytes a second: `3.1 MiB/s`.
pub fn byte_rate(per_second: f64) -> String {
    format!("{}/s", bytes(per_second.round() as u64))
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
    fn thousands_are_set_apart() {
        let shown = [0, 999, 1000, 12_400, 1_234_567, u64::MAX].map(count);
        assert_eq!(
            shown,
            [
                "0",
                "999",
                "1,000",
                "12,400",
                "1,234,567",
                "18,446,744,073,709,551,615"
            ]
        );
    }

    #[test]
    fn few_records_a_second_have_a_fraction() {
        assert_eq!(
            [0.0, 0.05, 0.44, 9.94, 9.95, 1230.4].map(rate),
            ["0/s", "3.0/min", "0.4/s", "9.9/s", "10/s", "1,230/s"]
        );
        assert_eq!(byte_rate(3_250_586.0), "3.1 MiB/s");
    }

    #[test]
    fn signals_have_names() {
        assert_eq!(
            [9, 34, 37, 99].map(signal),
            ["SIGKILL", "SIGRTMIN", "SIGRTMIN+3", "signal 99"]
        );
    }
}
