//! Names of files for names of nodes and queues. Those that the pipeline says are plain, but what a matrix puts into them need
//! not be.

use std::borrow::Cow;
use std::fmt::Write as _;

/// A file name has at most 255 bytes; behind this comes an extension.
const LONGEST: usize = 200;

/// What a node or a queue is called as a file. Letters, digits and what stands in the names of matrix nodes stay as they are,
/// every other byte is `%XX`, so that names that differ have files that differ, and the name can be read off again. Of a very
/// long one only its beginning, then `~` and a number made of the whole.
pub fn file_name(name: &str) -> Cow<'_, str> {
    let is_plain = |c: char| c.is_alphanumeric() || "._-+=,@[]".contains(c);
    if name.len() <= LONGEST && !name.starts_with('.') && name.chars().all(is_plain) {
        return Cow::Borrowed(name);
    }
    let mut encoded = String::with_capacity(name.len() + 16);
    for (at, c) in name.char_indices() {
        if is_plain(c) && !(at == 0 && c == '.') {
            encoded.push(c);
        } else {
            for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    if encoded.len() > LONGEST {
        encoded.truncate(encoded.floor_char_boundary(LONGEST - 17));
        let _ = write!(encoded, "~{:016x}", hash(name));
    }
    Cow::Owned(encoded)
}

/// The name that a file name was made of; of a very long one what is left of it, as it stands.
pub fn name_of(file: &str) -> Cow<'_, str> {
    if !file.contains('%') || file.contains('~') {
        return Cow::Borrowed(file);
    }
    let mut name = Vec::with_capacity(file.len());
    let mut rest = file.as_bytes();
    while let [first, others @ ..] = rest {
        let digit = |at: usize| char::from(*others.get(at)?).to_digit(16);
        rest = match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                // Two digits of 16 fit.
                name.push((high * 16 + low) as u8);
                &others[2..]
            }
            _ => {
                name.push(*first);
                others
            }
        };
    }
    match String::from_utf8(name) {
        Ok(name) => Cow::Owned(name),
        Err(_) => Cow::Borrowed(file),
    }
}

/// FNV-1a: enough to tell apart what nobody has made to be mistaken; who has finds that files are never shared.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use crate::store::names::{LONGEST, file_name, name_of};

    #[test]
    fn names_of_nodes_stay_readable() {
        for (name, file) in [
            ("sort", "sort"),
            ("count.2", "count.2"),
            ("test[py=3.12,db=pg]", "test[py=3.12,db=pg]"),
            ("t[os=Ubuntu 22]", "t[os=Ubuntu%2022]"),
            ("t[p=../../etc/passwd]", "t[p=..%2F..%2Fetc%2Fpasswd]"),
            ("t[p=\"a\\nb\"]", "t[p=%22a%5Cnb%22]"),
            ("t[p=100%~*?:]", "t[p=100%25%7E%2A%3F%3A]"),
            ("t[p=\u{e4}\u{1f600}]", "t[p=\u{e4}%F0%9F%98%80]"),
            ("..", "%2E."),
        ] {
            assert_eq!(file_name(name), file);
        }
    }

    #[test]
    fn long_names_that_differ_at_their_end_have_files_that_differ() {
        let name = |end: &str| format!("t[p={}{end}]", "x".repeat(1000));
        let (one, other) = (name("1"), name("2"));
        assert_ne!(file_name(&one), file_name(&other));
        assert_eq!(file_name(&one).len(), LONGEST);
    }

    proptest! {
        #[test]
        fn no_name_leaves_its_directory_or_shares_a_file(names in proptest::collection::vec("[a-c~%./\\[\\]=\"\\\\ \u{0}\u{e4}\u{20ac}]{1,8}|\\PC{1,300}", 2..40)) {
            let mut files: HashMap<String, &str> = HashMap::new();
            for name in &names {
                let file = file_name(name).into_owned();
                prop_assert!(file.len() <= LONGEST && !file.starts_with('.'), "{file}");
                prop_assert!(!file.contains(['/', '\0']), "{file}");
                if !file.contains('~') {
                    prop_assert_eq!(name_of(&file), &**name);
                }
                let other = files.insert(file, name);
                prop_assert!(other.is_none_or(|other| other == name), "{other:?} and {name:?}");
            }
        }
    }
}
