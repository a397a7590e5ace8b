//! [`Printed`]: the ends of what processes printed, of each try, where a report at the end wants to show them. Without secrets, as
//! it came.

use std::collections::BTreeMap;

use crate::event::{Printer, Stream};
use crate::plan::UnitId;

/// So many bytes are kept of a stream of a try.
const KEPT: usize = 16 * 1024;

/// What was printed.
#[derive(Debug, Default)]
pub struct Printed {
    /// By the tries that are the last so far.
    last: BTreeMap<Printer, Streams>,
    /// By tries that failed and were followed by another: of each unit in their order.
    failed: BTreeMap<UnitId, Vec<Vec<(Printer, Streams)>>>,
}

/// Both streams of a process.
#[derive(Debug, Default)]
pub struct Streams {
    /// Standard output.
    pub out: Kept,
    /// Standard error.
    pub err: Kept,
}

/// The end of a stream.
#[derive(Debug, Default)]
pub struct Kept {
    bytes: Vec<u8>,
    /// So many bytes before it are left out.
    left_out: u64,
}

impl Streams {
    /// The end of this one.
    pub fn of(&self, stream: Stream) -> &Kept {
        match stream {
            Stream::Out => &self.out,
            Stream::Err => &self.err,
        }
    }
}

impl Kept {
    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        // Twice as many before it is cut: who prints much is not to pay for a move of all at each line.
        if self.bytes.len() > 2 * KEPT {
            self.cut();
        }
    }

    /// Leaves the last [`KEPT`] bytes, from the start of a line where there is one.
    fn cut(&mut self) {
        let (bytes, left_out) = self.end();
        (self.bytes, self.left_out) = (bytes.to_vec(), left_out);
    }

    /// The last bytes, and how many before them are left out.
    pub fn end(&self) -> (&[u8], u64) {
        let over = self.bytes.len().saturating_sub(KEPT);
        let mut from = over;
        if over > 0 {
            let rest = self.bytes.get(over..).unwrap_or_default();
            from += memchr::memchr(b'\n', rest).map_or(0, |newline| newline + 1);
        }
        (
            self.bytes.get(from..).unwrap_or_default(),
            self.left_out + from as u64,
        )
    }
}

impl Printed {
    /// This was printed.
    pub fn push(&mut self, from: Printer, stream: Stream, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let streams = self.last.entry(from).or_default();
        match stream {
            Stream::Out => streams.out.push(bytes),
            Stream::Err => streams.err.push(bytes),
        }
    }

    /// A try of a unit is over, and there will be another. What it printed is kept where it is the one that `failed`.
    pub fn end_try(&mut self, unit: UnitId, failed: bool) {
        let of_unit: Vec<_> = self.of_unit(unit).map(|(printer, _)| printer).collect();
        let printed = of_unit
            .into_iter()
            .filter_map(|printer| Some((printer, self.last.remove(&printer)?)))
            .map(|(printer, mut streams)| {
                streams.out.cut();
                streams.err.cut();
                (printer, streams)
            })
            .collect();
        if failed {
            self.failed.entry(unit).or_default().push(printed);
        }
    }

    /// What the last try of a unit has printed.
    pub fn of_unit(&self, unit: UnitId) -> impl Iterator<Item = (Printer, &Streams)> {
        let first = Printer::from(unit);
        let last = Printer {
            worker: Some(u32::MAX),
            ..first
        };
        self.last
            .range(first..=last)
            .map(|(printer, streams)| (*printer, streams))
    }

    /// What the failed try of a unit printed, counted from 0.
    pub fn of_failed(&self, unit: UnitId, index: usize) -> &[(Printer, Streams)] {
        self.failed
            .get(&unit)
            .and_then(|tries| tries.get(index))
            .map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_much_is_kept_from_the_start_of_a_line() {
        let mut kept = Kept::default();
        let mut all = 0;
        for i in 0..10_000 {
            let line = format!("line {i}\n");
            all += line.len() as u64;
            kept.push(line.as_bytes());
        }
        let (bytes, left_out) = kept.end();
        assert!(bytes.starts_with(b"line ") && bytes.ends_with(b"line 9999\n"));
        assert!(bytes.len() <= KEPT && bytes.len() > KEPT - 20);
        assert_eq!(left_out + bytes.len() as u64, all);
        // Without a line's end there is no better place to cut.
        let mut kept = Kept::default();
        kept.push(&[b'x'; 5 * KEPT]);
        assert_eq!(kept.end(), (&[b'x'; KEPT][..], 4 * KEPT as u64));
    }

    #[test]
    fn a_try_that_failed_keeps_what_it_printed_apart() {
        let mut printed = Printed::default();
        let unit = UnitId(3);
        let said = |streams: &Streams| String::from_utf8_lossy(streams.err.end().0).into_owned();
        printed.push(unit.into(), Stream::Err, b"one");
        printed.end_try(unit, true);
        printed.push(unit.into(), Stream::Err, b"two");
        printed.end_try(unit, false);
        printed.push(unit.into(), Stream::Err, b"three");
        let failed = printed.of_failed(unit, 0);
        assert_eq!(
            failed.iter().map(|(_, s)| said(s)).collect::<Vec<_>>(),
            ["one"]
        );
        assert!(printed.of_failed(unit, 1).is_empty());
        let last: Vec<_> = printed.of_unit(unit).map(|(_, s)| said(s)).collect();
        assert_eq!(last, ["three"]);
    }
}
