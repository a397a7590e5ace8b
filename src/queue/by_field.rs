//! Which reader a record belongs to by one of its fields. Pure.
//!
//! The reader of a key depends on the key and on how many readers there are, on nothing else: it is the same in each run and
//! on each machine.

use memchr::memchr2;
use memchr::memmem::Finder;

/// Finds the key of a record.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    /// From 1; 0 is the whole record.
    field: u32,
    /// `None`: runs of blanks, where those before the first field don't count, as in awk.
    separator: Option<Finder<'static>>,
}

impl Key {
    /// `Err` says what makes no sense (the plan refuses that, too).
    pub fn new(field: u32, separator: Option<&str>) -> Result<Key, &'static str> {
        if separator == Some("") {
            return Err("an empty field separator");
        }
        let separator = separator.map(|text| Finder::new(text.as_bytes()).into_owned());
        Ok(Key { field, separator })
    }

    /// The key of `record`, which has no terminator. A field that isn't there is empty.
    pub fn of<'a>(&self, record: &'a [u8]) -> &'a [u8] {
        let mut rest = record;
        let mut before = match self.field.checked_sub(1) {
            None => return record,
            Some(before) => before,
        };
        loop {
            if self.separator.is_none() {
                let blanks = rest.iter().take_while(|byte| is_blank(**byte)).count();
                rest = &rest[blanks..];
            }
            let (end, next) = match &self.separator {
                Some(separator) => {
                    let found = separator.find(rest);
                    (found, found.map(|at| at + separator.needle().len()))
                }
                None => {
                    let found = memchr2(b' ', b'\t', rest);
                    (found, found)
                }
            };
            if before == 0 {
                return &rest[..end.unwrap_or(rest.len())];
            }
            match next {
                Some(next) => rest = &rest[next..],
                None => return &[],
            }
            before -= 1;
        }
    }

    /// The reader, of so many, that gets `record`, which has no terminator.
    pub fn reader(&self, record: &[u8], readers: usize) -> usize {
        // The upper bits of the product: as even as a remainder, without a division.
        ((u128::from(hash(self.of(record))) * readers as u128) >> 64) as usize
    }
}

fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

/// Eight bytes at a time, each mixed in by a multiplication whose two halves are folded together (as wyhash and its kin do).
/// Not against who wants keys to collide: it would gain them nothing but a busy reader.
fn hash(key: &[u8]) -> u64 {
    // Digits of the golden ratio and of pi: any odd numbers with bits well mixed do.
    const FIRST: u64 = 0x9e37_79b9_7f4a_7c15;
    const SECOND: u64 = 0x2439_f311_5bb1_8c8d;
    let mut state = FIRST ^ key.len() as u64;
    let (words, rest) = key.as_chunks::<8>();
    for word in words {
        state = fold(state ^ u64::from_le_bytes(*word), SECOND);
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    state = fold(state ^ u64::from_le_bytes(last), SECOND);
    fold(state, FIRST)
}

fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

    use proptest::collection::vec;
    use proptest::prelude::*;

    use crate::queue::by_field::{Key, hash};

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![3 => Just(b' '), 2 => Just(b'\t'), 2 => Just(b','), 3 => Just(b'a'), 1 => any::<u8>()];
        vec(byte, 0..40)
    }

    proptest! {
        #[test]
        fn fields_are_those_of_a_plain_split(record in bytes(), field in 0..6u32, separator in prop::option::of("[ ,a]{1,2}")) {
            let expected = match (field.checked_sub(1), &separator) {
                (None, _) => record.clone(),
                (Some(at), None) => record
                    .split(|byte| *byte == b' ' || *byte == b'\t')
                    .filter(|part| !part.is_empty())
                    .nth(at as usize)
                    .unwrap_or_default()
                    .to_vec(),
                (Some(at), Some(separator)) => {
                    let mut fields = vec![Vec::new()];
                    let mut rest = &record[..];
                    while let Some(first) = rest.first() {
                        if let Some(behind) = rest.strip_prefix(separator.as_bytes()) {
                            fields.push(Vec::new());
                            rest = behind;
                        } else {
                            fields.last_mut().unwrap().push(*first);
                            rest = &rest[1..];
                        }
                    }
                    fields.get(at as usize).cloned().unwrap_or_default()
                }
            };
            let key = Key::new(field, separator.as_deref()).unwrap();
            prop_assert_eq!(key.of(&record), &expected[..]);
        }

        #[test]
        fn equal_keys_have_one_reader(key in "[a-z]{1,20}", before in "[a-z]{1,9}", others in ("[a-z]{0,9}", "[a-z]{0,9}"), readers in 1..9usize) {
            let second = Key::new(2, None).unwrap();
            let reader = |more: &str| second.reader(format!("{before} {key} {more}").as_bytes(), readers);
            prop_assert_eq!(reader(&others.0), reader(&others.1));
            prop_assert!(reader("") < readers);
        }
    }

    /// The same in each version of procflow: what one run has put apart another must find.
    #[test]
    fn a_keys_hash_is_for_ever() {
        assert_eq!(
            [&b""[..], b"a", b"12345678", b"a longer key than a word"].map(hash),
            [
                5276786318728276643,
                6170260820253349945,
                3596860641045081955,
                12800518701629475040
            ]
        );
    }

    #[test]
    fn numbered_keys_are_spread_evenly() {
        let whole = Key::new(0, None).unwrap();
        for readers in [2, 3, 4, 7, 16] {
            let mut counts = vec![0; readers];
            for number in 0..10_000 {
                counts[whole.reader(format!("user-{number}").as_bytes(), readers)] += 1;
            }
            let even = 10_000 / readers;
            assert!(
                counts
                    .iter()
                    .all(|count| count * 10 > even * 8 && count * 10 < even * 12),
                "{counts:?}"
            );
        }
    }
}
