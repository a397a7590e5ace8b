//! Where records end: cuts bytes of one writer into records, whatever the pieces they come in.
//!
//! Pure. The caller keeps the bytes; a framer only looks at them, always from a record's first byte on, and remembers
//! nothing between two looks.

use memchr::memmem::{Finder, find};
use memchr::{memchr, memchr_iter, memrchr};

use crate::spec::Records;

/// Finds record ends of one framing.
#[derive(Debug, Clone)]
pub(crate) struct Framer {
    kind: Kind,
    /// The longest record, its terminator, or its length field, included.
    max_record: usize,
}

#[derive(Debug, Clone)]
enum Kind {
    /// A record ends with this byte.
    Terminator(u8),
    /// A record ends with these bytes: the first that are all its own.
    Separator(Finder<'static>),
    /// A record begins at the first byte, and behind each newline that these bytes follow. The finder's needle has the
    /// newline.
    Start(Finder<'static>),
    /// A record is four bytes that tell a length, big-endian, and so many more.
    Length32,
    /// A record is this many bytes.
    Size(usize),
    /// No records: any cut will do.
    Bytes,
}

/// What a look at some bytes found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Whole {
    /// The records that are complete end here.
    pub end: usize,
    /// How many these are. 0 for bytes without records.
    pub records: u64,
    /// The record that begins at `end` is longer than the longest allowed, or will be.
    pub too_long: bool,
}

/// What the bytes behind the last complete record are, when no more will come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest {
    /// A record that lacks only its terminator.
    Unterminated,
    /// The beginning of a record.
    Torn,
}

impl Framer {
    /// `Err` says which setting makes no sense (the plan refuses those, too).
    pub fn new(records: &Records, max_record: u64) -> Result<Framer, &'static str> {
        let kind = match records {
            Records::Lines => Kind::Terminator(b'\n'),
            Records::Nul => Kind::Terminator(0),
            Records::Length32 => Kind::Length32,
            Records::Size(0) => return Err("records of size 0"),
            Records::Size(size) => Kind::Size(*size as usize),
            Records::Separator(text) => match text.as_bytes() {
                [] => return Err("an empty record separator"),
                [byte] => Kind::Terminator(*byte),
                bytes => Kind::Separator(Finder::new(bytes).into_owned()),
            },
            Records::Start(text) => {
                Kind::Start(Finder::new(&[b"\n", text.as_bytes()].concat()).into_owned())
            }
            Records::Bytes => Kind::Bytes,
        };
        let max_record = usize::try_from(max_record).unwrap_or(usize::MAX);
        Ok(Framer { kind, max_record })
    }

    /// No records: any cut will do.
    pub fn bytes() -> Framer {
        Framer {
            kind: Kind::Bytes,
            max_record: usize::MAX,
        }
    }

    /// Whether a writer's end can be in the middle of a record, so that the end alone tells a fault.
    pub fn is_counted(&self) -> bool {
        matches!(self.kind, Kind::Length32 | Kind::Size(_))
    }

    /// Whether there are no records to look for.
    pub fn is_bytes(&self) -> bool {
        matches!(self.kind, Kind::Bytes)
    }

    /// The records that are complete in `data`, which begins where a record begins. An earlier look at the first `seen`
    /// bytes of it found none.
    pub fn whole(&self, data: &[u8], seen: usize) -> Whole {
        let seen = seen.min(data.len());
        match &self.kind {
            Kind::Bytes => Whole {
                end: data.len(),
                records: 0,
                too_long: false,
            },
            // The usual case: with so few bytes no record can be too long, and only the last end matters.
            Kind::Terminator(byte) if data.len() <= self.max_record => {
                let end = memrchr(*byte, &data[seen..]).map_or(0, |at| seen + at + 1);
                let records = memchr_iter(*byte, &data[seen..end.max(seen)]).count() as u64;
                Whole {
                    end,
                    records,
                    too_long: false,
                }
            }
            Kind::Terminator(byte) => {
                let ends = memchr_iter(*byte, &data[seen..]).map(|at| seen + at + 1);
                self.one_by_one(data, ends.map(Some).chain([None]))
            }
            Kind::Separator(finder) => {
                let length = finder.needle().len();
                let mut from = (seen + 1).saturating_sub(length);
                self.one_by_one(
                    data,
                    std::iter::repeat_with(move || {
                        let at = finder.find(data.get(from..)?)?;
                        from += at + length;
                        Some(from)
                    }),
                )
            }
            Kind::Start(finder) => {
                let mut from = (seen + 1).saturating_sub(finder.needle().len());
                self.one_by_one(
                    data,
                    std::iter::repeat_with(move || {
                        let at = finder.find(data.get(from..)?)?;
                        // Behind the newline; the next may begin within what was found (a needle of newlines).
                        from += at + 1;
                        Some(from)
                    }),
                )
            }
            Kind::Length32 => {
                let mut start = 0;
                self.one_by_one(
                    data,
                    std::iter::repeat_with(move || {
                        let length = data.get(start..)?.first_chunk::<4>()?;
                        start = start
                            .saturating_add(4)
                            .saturating_add(u32::from_be_bytes(*length) as usize);
                        Some(start)
                    }),
                )
            }
            Kind::Size(size) if *size > self.max_record => Whole {
                end: 0,
                records: 0,
                too_long: true,
            },
            Kind::Size(size) => {
                let records = data.len() / size;
                Whole {
                    end: records * size,
                    records: records as u64,
                    too_long: false,
                }
            }
        }
    }

    /// Where the first `count` records of `data` end, which begins where a record begins and holds no unfinished one: a last
    /// record whose end only what follows would show ends with `data`.
    pub fn end_of(&self, data: &[u8], count: u64) -> usize {
        let Some(before) = count.checked_sub(1) else {
            return 0;
        };
        let before = usize::try_from(before).unwrap_or(usize::MAX);
        let end = match &self.kind {
            Kind::Bytes => None,
            Kind::Terminator(byte) => memchr_iter(*byte, data).nth(before).map(|at| at + 1),
            Kind::Separator(finder) => {
                let at = finder.find_iter(data).nth(before);
                at.map(|at| at + finder.needle().len())
            }
            Kind::Start(finder) => {
                let mut from = 0;
                std::iter::from_fn(|| {
                    from += finder.find(data.get(from..)?)? + 1;
                    Some(from)
                })
                .nth(before)
            }
            Kind::Length32 => {
                let mut end = 0usize;
                std::iter::from_fn(|| {
                    let length = data.get(end..)?.first_chunk::<4>()?;
                    end = end
                        .saturating_add(4)
                        .saturating_add(u32::from_be_bytes(*length) as usize);
                    Some(end)
                })
                .nth(before)
            }
            Kind::Size(size) => Some(count.saturating_mul(*size as u64) as usize),
        };
        end.unwrap_or(data.len()).min(data.len())
    }

    /// A record without what ends it, or tells its length: what a program gets as an argument.
    pub fn content<'a>(&self, record: &'a [u8]) -> &'a [u8] {
        match &self.kind {
            Kind::Terminator(byte) => record.strip_suffix(&[*byte]).unwrap_or(record),
            Kind::Separator(finder) => record.strip_suffix(finder.needle()).unwrap_or(record),
            Kind::Length32 => record.get(4..).unwrap_or(record),
            Kind::Start(_) => record.strip_suffix(b"\n").unwrap_or(record),
            Kind::Size(_) | Kind::Bytes => record,
        }
    }

    /// Takes record ends as long as they lie in `data` and no record is too long. An end may lie behind `data` where a
    /// length told so.
    fn one_by_one(&self, data: &[u8], ends: impl Iterator<Item = Option<usize>>) -> Whole {
        let mut whole = Whole {
            end: 0,
            records: 0,
            too_long: false,
        };
        for end in ends {
            whole.too_long = end.unwrap_or(data.len()) - whole.end > self.max_record;
            match end {
                Some(end) if end <= data.len() && !whole.too_long => {
                    whole.end = end;
                    whole.records += 1;
                }
                _ => break,
            }
        }
        whole
    }

    /// Where the first record of `data` ends, which is whole records; the last may lack its terminator. All of it for bytes
    /// without records.
    pub fn first(&self, data: &[u8]) -> usize {
        let end = match &self.kind {
            Kind::Terminator(byte) => memchr(*byte, data).map(|at| at + 1),
            Kind::Separator(finder) => finder.find(data).map(|at| at + finder.needle().len()),
            Kind::Start(finder) => finder.find(data).map(|at| at + 1),
            Kind::Length32 => data
                .first_chunk::<4>()
                .map(|length| (u32::from_be_bytes(*length) as usize).saturating_add(4)),
            Kind::Size(size) => Some(*size),
            Kind::Bytes => None,
        };
        end.unwrap_or(data.len()).min(data.len())
    }

    /// Where so many bytes end, or the record before that: as many records of `data`, which is whole records, as fit `most` bytes,
    /// but at least one. Bytes without records may end anywhere.
    pub fn portion(&self, data: &[u8], most: usize) -> usize {
        if data.len() <= most {
            return data.len();
        }
        match &self.kind {
            Kind::Bytes => most.max(1).min(data.len()),
            Kind::Size(size) => ((most / size).max(1) * size).min(data.len()),
            Kind::Terminator(byte) => {
                memrchr(*byte, &data[..most]).map_or_else(|| self.first(data), |at| at + 1)
            }
            Kind::Separator(_) | Kind::Start(_) | Kind::Length32 => {
                let mut end = self.first(data);
                while end < data.len() {
                    let next = end + self.first(&data[end..]);
                    if next > most {
                        break;
                    }
                    end = next;
                }
                end
            }
        }
    }

    /// How many records `data` is, which is whole records; the last may lack its terminator. 0 for bytes without records.
    pub fn count(&self, data: &[u8]) -> u64 {
        match &self.kind {
            Kind::Bytes => 0,
            Kind::Size(size) => data.len().div_ceil(*size) as u64,
            Kind::Terminator(byte) => {
                let is_open = data.last().is_some_and(|last| last != byte);
                memchr_iter(*byte, data).count() as u64 + u64::from(is_open)
            }
            Kind::Separator(_) | Kind::Start(_) | Kind::Length32 => {
                let (mut end, mut count) = (0, 0);
                while end < data.len() {
                    end += self.first(&data[end..]);
                    count += 1;
                }
                count
            }
        }
    }

    /// Whether a look at any bytes tells whether a record ends among them.
    pub fn is_terminated(&self) -> bool {
        matches!(self.kind, Kind::Terminator(_))
    }

    /// How many records end in `data`, which begins anywhere. Only of a framing that [is terminated](Framer::is_terminated).
    pub fn ends(&self, data: &[u8]) -> u64 {
        match self.kind {
            Kind::Terminator(byte) => memchr_iter(byte, data).count() as u64,
            _ => panic!("BUG: {:?} needs more than a byte to see an end", self.kind),
        }
    }

    /// Where the first record ends that ends in `data`, which begins anywhere. Only of a framing that
    /// [is terminated](Framer::is_terminated).
    pub fn first_end(&self, data: &[u8]) -> Option<usize> {
        match self.kind {
            Kind::Terminator(byte) => memchr(byte, data).map(|at| at + 1),
            _ => panic!("BUG: {:?} needs more than a byte to see an end", self.kind),
        }
    }

    /// The same of the last.
    pub fn last_end(&self, data: &[u8]) -> Option<usize> {
        match self.kind {
            Kind::Terminator(byte) => memrchr(byte, data).map(|at| at + 1),
            _ => panic!("BUG: {:?} needs more than a byte to see an end", self.kind),
        }
    }

    /// A record without what only says where it ends: its terminator, the newline before the next one's start, its length.
    pub fn body<'a>(&self, record: &'a [u8]) -> &'a [u8] {
        let without = match &self.kind {
            Kind::Terminator(byte) => record.strip_suffix(&[*byte]),
            Kind::Separator(finder) => record.strip_suffix(finder.needle()),
            Kind::Start(_) => record.strip_suffix(b"\n"),
            Kind::Length32 => record.get(4..),
            Kind::Size(_) | Kind::Bytes => None,
        };
        without.unwrap_or(record)
    }

    /// What `rest`, which is not empty and stands behind the last complete record, is when nothing more comes.
    pub fn rest(&self) -> Rest {
        if self.is_counted() {
            Rest::Torn
        } else {
            Rest::Unterminated
        }
    }

    /// What must follow `record`, an unterminated last one, before another writer's record can: as little as makes a
    /// reader that cuts from the left find one record. Empty where it needs nothing.
    pub fn missing_terminator(&self, record: &[u8]) -> Vec<u8> {
        match &self.kind {
            Kind::Terminator(byte) => vec![*byte],
            Kind::Separator(finder) => {
                // A record may end with the beginning of a separator. With "\n\n", "a\n" needs one newline more: two
                // would be a record "a" and a newline too many before the next one.
                let separator = finder.needle();
                let from = record.len().saturating_sub(separator.len());
                let joined = [&record[from..], separator].concat();
                let end = find(&joined, separator).map_or(joined.len(), |at| at + separator.len());
                joined[record.len() - from..end].to_vec()
            }
            Kind::Start(_) if record.last() != Some(&b'\n') => vec![b'\n'],
            Kind::Start(_) | Kind::Length32 | Kind::Size(_) | Kind::Bytes => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

    use proptest::collection::vec;
    use proptest::prelude::*;

    use crate::queue::framer::{Framer, Rest, Whole};
    use crate::queue::model::{missing, split};
    use crate::spec::Records;

    /// Every framing, with terminators that bytes of so small an alphabet often hit, whole and in part.
    fn framings() -> impl Strategy<Value = Records> {
        prop_oneof![
            Just(Records::Lines),
            Just(Records::Nul),
            Just(Records::Length32),
            (1..9u32).prop_map(Records::Size),
            "[\n>a]{1,4}".prop_map(Records::Separator),
            // No line end: the plan refuses it.
            "[>a]{0,3}".prop_map(Records::Start),
        ]
    }

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        vec(
            prop_oneof![3 => Just(b'\n'), 3 => Just(0), 2 => Just(b'>'), 2 => Just(b'a'), 1 => any::<u8>()],
            0..200,
        )
    }

    proptest! {
        /// Any cuts: what comes out, piece by piece, is what a naive splitter makes of the whole.
        #[test]
        fn pieces_do_not_matter(records in framings(), data in bytes(), cuts in vec(1..50usize, 0..20)) {
            let framer = Framer::new(&records, u64::MAX).unwrap();
            let (mut held, mut seen, mut ends, mut count) = (Vec::new(), 0, Vec::new(), 0);
            let mut rest = &data[..];
            let mut passed = 0;
            for cut in cuts.into_iter().chain([usize::MAX]) {
                let (piece, behind) = rest.split_at(cut.min(rest.len()));
                rest = behind;
                held.extend_from_slice(piece);
                let whole = framer.whole(&held, seen);
                prop_assert!(!whole.too_long);
                held.drain(..whole.end);
                seen = held.len();
                passed += whole.end;
                count += whole.records;
                ends.push((passed, count));
            }
            let model = split(&records, &data);
            prop_assert_eq!((passed, count), (model.ends.last().copied().unwrap_or(0), model.ends.len() as u64));
            // Each time so many records as there are ends up to there.
            for (end, count) in ends {
                prop_assert_eq!(count, model.ends.iter().filter(|at| **at <= end).count() as u64);
                prop_assert!(end == 0 || model.ends.contains(&end));
            }
        }

        /// The first so many of whole records end where the model says.
        #[test]
        fn ends_by_number(records in framings(), data in bytes()) {
            let framer = Framer::new(&records, u64::MAX).unwrap();
            let model = split(&records, &data);
            let whole = &data[..model.ends.last().copied().unwrap_or(0)];
            prop_assert_eq!(framer.end_of(whole, 0), 0);
            for (before, end) in model.ends.iter().enumerate() {
                prop_assert_eq!(framer.end_of(whole, before as u64 + 1), *end);
            }
        }

        /// The records before the one that is too long are whole, and it is told at once.
        #[test]
        fn too_long(records in framings(), data in bytes(), max in 0..40u64) {
            let framer = Framer::new(&records, max).unwrap();
            let model = split(&records, &data);
            let mut begin = 0;
            let mut expected = Whole { end: 0, records: 0, too_long: false };
            for end in model.all_ends.iter().copied() {
                expected.too_long = (end - begin) as u64 > max;
                if expected.too_long || end > data.len() || !model.ends.contains(&end) {
                    break;
                }
                (expected.end, expected.records, begin) = (end, expected.records + 1, end);
            }
            if let Records::Size(size) = records {
                expected.too_long = u64::from(size) > max;
            }
            prop_assert_eq!(framer.whole(&data, 0), expected);
        }

        /// With the missing terminator a last record is one record, and with less it isn't.
        #[test]
        fn terminators(records in framings(), data in bytes()) {
            let framer = Framer::new(&records, u64::MAX).unwrap();
            let last = &data[split(&records, &data).ends.last().copied().unwrap_or(0)..];
            if !last.is_empty() && framer.rest() == Rest::Unterminated {
                prop_assert_eq!(framer.missing_terminator(last), missing(&records, last));
            }
        }
    }

    #[test]
    fn senseless_settings() {
        assert!(Framer::new(&Records::Size(0), 1).is_err());
        assert!(Framer::new(&Records::Separator(String::new()), 1).is_err());
    }
}
