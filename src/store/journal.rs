//! `journal`: what a run has finished, for a later run to take up.
//!
//! ```text
//! {"procflow":1,"run":"20261124-145309-4f2a","file":"/home/me/ci.toml","all":[["env CI","5f.."]]}#9a0c11f2
//! {"finished":[{"node":"build","is":[["command[0]","91.."]],"read":[..],"wrote":[..],"stored":[..]}]}#5be4d0c7
//! ```
//!
//! Lines are only ever appended. Behind each stands the CRC-32 of the CRC before it and the line, so a line that was changed, lost,
//! doubled, moved or taken from another run ends the chain. What stands behind the end of the chain decides what that
//! means: at most one line (or zeros) is what a run that was killed, or a machine that lost its power, leaves of its last
//! write; it is ignored, and what it said will be done again. Anything else is damage, and nothing of such a journal is used.
//!
//! Reading is a function of the bytes alone: [`read`].

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The version of the journal's form.
pub const VERSION: u32 = 1;

/// The first line: whose journal it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// [`VERSION`].
    pub procflow: u32,
    /// The run.
    pub run: String,
    /// The pipeline file, absolute; of one that came from standard input, its directory and `-`.
    pub file: String,
    /// The run that it took up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub takes_up: Option<String>,
    /// What the pipeline says for all nodes.
    pub all: Vec<Line>,
}

/// A part of a definition: its name, and a hash of what it says.
pub type Line = (String, String);

/// A line behind the header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    /// These nodes, which ran together, have all succeeded.
    Finished(Vec<Finished>),
    /// This node ran to an end that was not good.
    Ill {
        /// Its name.
        node: String,
        /// How it ended, in words for people.
        why: String,
    },
    /// This node could not be taken over from the run before, and so it runs again.
    Again {
        /// Its name.
        node: String,
        /// In words for people.
        why: String,
    },
}

/// What is known of a node that has succeeded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finished {
    /// Its name.
    pub node: String,
    /// The run in which it ran, where that is another: it was reused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Its definition.
    pub is: Vec<Line>,
    /// The files that it read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub read: Vec<Mark>,
    /// The files that it wrote.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wrote: Vec<Mark>,
    /// The stored queues that it wrote, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stored: Vec<Mark>,
    /// Its value, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Why it is not to be reused although it succeeded, in words for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unfit: Option<String>,
}

/// What a file was like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Its path, as the pipeline names it; of a stored queue, its name.
    pub path: String,
    /// Its size in bytes.
    pub size: u64,
    /// When it was changed last: nanoseconds since 1970. None where that does not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<i64>,
    /// A hash of what is in it, up to its size.
    pub hash: String,
    /// More may have been appended to it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub grows: bool,
}

/// What a journal says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Journal {
    /// Its first line.
    pub header: Header,
    /// The others, in order.
    pub records: Vec<Record>,
}

/// A journal that says nothing that can be relied on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Its first line is not whole: the run had not begun.
    #[error("is empty")]
    Empty,
    /// Something in it is not as it was written.
    #[error("is damaged at byte {offset}")]
    Damaged {
        /// Where the first line begins that is not.
        offset: usize,
    },
    /// It was written by a later procflow.
    #[error("has version {found}, and this procflow knows versions up to {VERSION}")]
    Newer {
        /// Its version.
        found: u32,
    },
}

/// Reads a journal from its bytes.
///
/// # Errors
/// See [`Fault`].
pub fn read(bytes: &[u8]) -> Result<Journal, Fault> {
    let (lines, end) = chain(bytes);
    let rest = &bytes[end..];
    // A newline at the very end is a line's own; one before that means that there is more behind the broken line.
    let is_torn = match rest.iter().position(|&byte| byte == b'\n') {
        None => true,
        Some(at) => rest[at + 1..].iter().all(|&byte| byte == 0),
    };
    let mut lines = lines.into_iter();
    let Some((_, first)) = lines.next() else {
        return Err(match is_torn {
            true => Fault::Empty,
            false => Fault::Damaged { offset: 0 },
        });
    };
    #[derive(Deserialize)]
    struct Versioned {
        procflow: u32,
    }
    let damaged = |offset| Fault::Damaged { offset };
    let found = serde_json::from_slice::<Versioned>(first).map_err(|_| damaged(0))?;
    if found.procflow > VERSION {
        return Err(Fault::Newer {
            found: found.procflow,
        });
    }
    let header = serde_json::from_slice(first).map_err(|_| damaged(0))?;
    if !is_torn {
        return Err(damaged(end));
    }
    let records = lines
        .map(|(offset, line)| serde_json::from_slice(line).map_err(|_| damaged(offset)))
        .collect::<Result<_, _>>()?;
    Ok(Journal { header, records })
}

/// The pipeline file that the first line names, be it whole or not; none where it names none.
pub fn file_of(bytes: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Named {
        file: String,
    }
    let line = bytes.split(|&byte| byte == b'\n').next()?;
    let text = line.get(..line.len().checked_sub(9)?)?;
    serde_json::from_slice::<Named>(text)
        .ok()
        .map(|named| named.file)
}

/// The lines of the longest whole chain, with their places, and where it ends.
fn chain(bytes: &[u8]) -> (Vec<(usize, &[u8])>, usize) {
    let (mut lines, mut at, mut crc) = (Vec::new(), 0, 0);
    while let Some(length) = bytes[at..].iter().position(|&byte| byte == b'\n') {
        let line = &bytes[at..at + length];
        let Some((text, tail)) = line.split_at_checked(length.saturating_sub(9)) else {
            break;
        };
        let next = next_crc(crc, text);
        if tail != format!("#{next:08x}").as_bytes() {
            break;
        }
        lines.push((at, text));
        (at, crc) = (at + length + 1, next);
    }
    (lines, at)
}

fn next_crc(before: u32, line: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&before.to_le_bytes());
    hasher.update(line);
    hasher.finalize()
}

/// A journal that is being written. It gathers lines until it is told to write them.
#[derive(Debug)]
pub struct Writer {
    file: File,
    path: PathBuf,
    crc: u32,
    lines: Vec<u8>,
    /// Something was written that was not taken down yet.
    dirty: bool,
}

impl Writer {
    /// Begins a journal in a file that is empty and open for appending.
    pub(super) fn new(file: File, path: PathBuf, header: &Header) -> io::Result<Writer> {
        let mut writer = Writer {
            file,
            path,
            crc: 0,
            lines: Vec::new(),
            dirty: false,
        };
        writer.push(header)?;
        Ok(writer)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds a line.
    ///
    /// # Errors
    /// It cannot be put into JSON.
    pub fn add(&mut self, record: &Record) -> io::Result<()> {
        self.push(record)
    }

    fn push(&mut self, line: &impl Serialize) -> io::Result<()> {
        let begin = self.lines.len();
        serde_json::to_writer(&mut self.lines, line)?;
        self.crc = next_crc(self.crc, &self.lines[begin..]);
        writeln!(self.lines, "#{:08x}", self.crc)
    }

    /// Writes what was added since the last time.
    ///
    /// # Errors
    /// The file cannot be written. The journal is of no use any more: nobody knows how much of it there is.
    pub fn write(&mut self) -> io::Result<()> {
        if self.lines.is_empty() {
            return Ok(());
        }
        self.file.write_all(&self.lines)?;
        self.lines.clear();
        self.dirty = true;
        Ok(())
    }

    /// Whether something was written since it was last taken down to be brought to the disk.
    pub fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// The same, and takes it down.
    pub fn take_dirty(&mut self) -> bool {
        std::mem::take(&mut self.dirty)
    }

    /// The file, for someone who has it written to the disk.
    ///
    /// # Errors
    /// There is no descriptor left.
    pub fn file(&self) -> io::Result<OwnedFd> {
        self.file.try_clone().map(OwnedFd::from)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

    use proptest::prelude::*;

    use super::*;

    fn header(run: &str) -> Header {
        Header {
            procflow: VERSION,
            run: run.to_owned(),
            file: "/p/pipeline.toml".to_owned(),
            takes_up: None,
            all: vec![("env A".to_owned(), "00".to_owned())],
        }
    }

    fn finished(node: &str) -> Record {
        let mark = Mark {
            path: format!("{node}.out"),
            size: 7,
            time: Some(1_795_531_989_290_000_000),
            hash: "0123".to_owned(),
            grows: false,
        };
        Record::Finished(vec![Finished {
            node: node.to_owned(),
            from: None,
            is: vec![("command[0]".to_owned(), "ab".to_owned())],
            read: Vec::new(),
            wrote: vec![mark],
            stored: Vec::new(),
            value: Some("1\n#".to_owned()),
            unfit: None,
        }])
    }

    fn written(run: &str, records: &[Record]) -> Vec<u8> {
        let file = tempfile::tempfile().unwrap();
        let mut writer = Writer::new(file, PathBuf::new(), &header(run)).unwrap();
        for record in records {
            writer.add(record).unwrap();
        }
        writer.lines
    }

    fn sample() -> (Vec<Record>, Vec<u8>) {
        let ill = Record::Ill {
            node: "b".to_owned(),
            why: "failed".to_owned(),
        };
        let records = vec![finished("a"), ill, finished("c"), finished("d")];
        let bytes = written("r", &records);
        (records, bytes)
    }

    /// What is read is what was written, or the beginning of it; never anything else.
    fn is_a_beginning(bytes: &[u8], records: &[Record]) -> bool {
        match read(bytes) {
            Err(_) => true,
            Ok(journal) => journal.header == header("r") && records.starts_with(&journal.records),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let (records, bytes) = sample();
        let journal = read(&bytes).unwrap();
        assert_eq!((journal.header, journal.records), (header("r"), records));
    }

    #[test]
    fn cut_anywhere_it_says_the_beginning() {
        let (records, bytes) = sample();
        let mut lines = 0;
        for cut in 0..=bytes.len() {
            lines += usize::from(cut > 0 && bytes[cut - 1] == b'\n');
            match (lines, read(&bytes[..cut])) {
                (0, found) => assert_eq!(found, Err(Fault::Empty), "{cut}"),
                (lines, found) => assert_eq!(found.unwrap().records, records[..lines - 1]),
            }
        }
    }

    #[test]
    fn a_changed_bit_is_found_wherever_it_is() {
        let (records, bytes) = sample();
        let last = bytes.len()
            - 1
            - bytes
                .iter()
                .rev()
                .skip(1)
                .position(|&b| b == b'\n')
                .unwrap();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << bit;
                assert!(is_a_beginning(&changed, &records), "{at} {bit}");
                if at < last - 1 {
                    assert!(read(&changed).is_err(), "{at} {bit}");
                }
            }
        }
    }

    #[test]
    fn a_changed_byte_is_found_wherever_it_is() {
        let (records, bytes) = sample();
        for at in 0..bytes.len() {
            for other in [0, b'\n', b'#', b'0', b'"', 0x7f, 0x80, 0xff] {
                let mut changed = bytes.clone();
                if std::mem::replace(&mut changed[at], other) != other {
                    assert!(is_a_beginning(&changed, &records), "{at} {other}");
                    assert_ne!(read(&changed).map(|j| j.records), Ok(records.clone()));
                }
            }
        }
    }

    #[test]
    fn lines_doubled_swapped_lost_or_of_another_run_are_damage() {
        let (records, bytes) = sample();
        let lines: Vec<&[u8]> = bytes.split_inclusive(|&b| b == b'\n').collect();
        let at = |line: usize| lines[..line].concat().len();
        let doubled = [lines[0], lines[1], lines[1], lines[2]].concat();
        assert_eq!(read(&doubled), Err(Fault::Damaged { offset: at(2) }));
        let swapped = [lines[0], lines[2], lines[1], lines[3]].concat();
        assert_eq!(read(&swapped), Err(Fault::Damaged { offset: at(1) }));
        let lost = [lines[0], lines[1], lines[3], lines[4]].concat();
        assert_eq!(read(&lost), Err(Fault::Damaged { offset: at(2) }));
        let headless = lines[1..].concat();
        assert_eq!(read(&headless), Err(Fault::Damaged { offset: 0 }));
        let other = written("s", &records);
        let foreign = [&bytes[..at(2)], &other[at(1)..]].concat();
        assert_eq!(read(&foreign), Err(Fault::Damaged { offset: at(2) }));
        let twice = [&bytes[..], &bytes[..]].concat();
        let offset = bytes.len();
        assert_eq!(read(&twice), Err(Fault::Damaged { offset }));
    }

    #[test]
    fn zeros_at_the_end_are_a_torn_line_and_elsewhere_damage() {
        let (records, bytes) = sample();
        for cut in 1..bytes.len() {
            let mut zeroed = bytes.clone();
            zeroed[cut..].fill(0);
            assert!(is_a_beginning(&zeroed, &records), "{cut}");
            let lines = bytes[..cut].iter().filter(|&&b| b == b'\n').count();
            assert_eq!(read(&zeroed).is_ok(), lines > 0, "{cut}");
        }
        let mut hole = bytes.clone();
        hole[20..60].fill(0);
        assert_eq!(read(&hole), Err(Fault::Damaged { offset: 0 }));
    }

    #[test]
    fn a_later_version_is_named() {
        let mut later = header("r");
        later.procflow = 7;
        let file = tempfile::tempfile().unwrap();
        let writer = Writer::new(file, PathBuf::new(), &later).unwrap();
        let fault = read(&writer.lines).unwrap_err();
        assert_eq!(
            fault.to_string(),
            "has version 7, and this procflow knows versions up to 1"
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = read(&bytes);
        }

        #[test]
        fn several_faults_at_once_are_found(
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        ) {
            let (records, bytes) = sample();
            let mut changed = bytes.clone();
            for (at, other) in changes {
                let at = at.index(changed.len());
                changed[at] = other;
            }
            prop_assert!(is_a_beginning(&changed, &records));
        }
    }
}
