//! Where a pool's records come from: reads them, cuts them, and puts them into the store.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::unistd::read;

use crate::pool::Work;
use crate::pool::store::Store;
use crate::queue::BLOCK;
use crate::queue::framer::{Framer, Rest};
use crate::spec::Records;

/// See the module.
#[derive(Debug)]
pub(crate) struct Intake {
    from: From,
    framer: Framer,
    max_record: u64,
    /// `buffer[..end]` begins where a record begins.
    buffer: Vec<u8>,
    end: usize,
    /// So many bytes have been looked at and hold no whole record.
    seen: usize,
    /// So many records of the header are still to come.
    header_left: u64,
    /// The header, as it came.
    header: Vec<u8>,
    /// Records taken so far, and their bytes: the header is not among them.
    taken: u64,
    /// See above.
    pub bytes: u64,
    /// Bytes read so far.
    read: u64,
    /// What each record is cut at, into fields.
    separator: Option<Box<str>>,
    /// Records are given ones for tasks, and may hold any text: in the store they have their length before them.
    is_counted: bool,
    /// Records in all, where that is known.
    pub total: Option<u64>,
}

#[derive(Debug)]
enum From {
    Stream(OwnedFd),
    List(std::vec::IntoIter<Vec<Box<str>>>),
    Range(std::ops::Range<i64>),
    End,
}

/// Why there is no more.
#[derive(Debug)]
pub(crate) enum IntakeError {
    /// The input breaks a rule, in words for people.
    Rule(String),
    /// It can't be read.
    Read(io::Error),
}

/// Between the fields of a given task while it is a record of the store.
const FIELDS: &str = "\0";

impl Intake {
    /// Nothing is read yet. `header`: so many first records are kept apart. `is_line`: fixed work becomes lines.
    pub fn new(work: Work, framer: Framer, max_record: u64, header: u32, is_line: bool) -> Intake {
        let is_counted = !is_line && matches!(work, Work::List(_) | Work::Range(..));
        let framer = if is_counted {
            Framer::new(&Records::Length32, u64::MAX).unwrap_or(framer)
        } else {
            framer
        };
        let mut separator = None;
        let mut total = None;
        let from = match work {
            Work::Stream(fd) => From::Stream(fd),
            Work::Lines(file, between) => {
                separator = between;
                From::Stream(file.into())
            }
            Work::List(list) => {
                total = Some(list.len() as u64);
                separator = Some(if is_line { "\t" } else { FIELDS }.into());
                From::List(list.into_iter())
            }
            Work::Range(from, to) => {
                total = Some(to.saturating_sub(from).max(0).cast_unsigned());
                From::Range(from..to)
            }
        };
        Intake {
            from,
            framer,
            max_record,
            buffer: Vec::new(),
            end: 0,
            seen: 0,
            header_left: header.into(),
            header: Vec::new(),
            taken: 0,
            bytes: 0,
            read: 0,
            separator,
            is_counted,
            total,
        }
    }

    /// How records lie in the store.
    pub fn framer(&self) -> &Framer {
        &self.framer
    }

    /// A record of the store as it came, or as the line that a given task is.
    pub fn as_it_came(&self, record: Vec<u8>) -> Vec<u8> {
        if !self.is_counted {
            return record;
        }
        let mut line = self.fields(&record).join(&b'\t');
        line.push(b'\n');
        line
    }

    /// The first records, which every task gets. All there when the first other record is.
    pub fn header(&self) -> &[u8] {
        &self.header
    }

    /// Nothing more will come.
    pub fn is_ended(&self) -> bool {
        matches!(self.from, From::End)
    }

    /// The end to wait on; none where there is no need to wait.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.from {
            From::Stream(fd) => Some(fd.as_fd()),
            From::List(_) | From::Range(_) | From::End => None,
        }
    }

    /// There is something without waiting.
    pub fn is_given(&self) -> bool {
        matches!(self.from, From::List(_) | From::Range(_))
    }

    /// A record without its terminator, in its fields.
    pub fn fields(&self, record: &[u8]) -> Vec<Vec<u8>> {
        let content = self.framer.content(record);
        match self.separator.as_deref() {
            None | Some("") => vec![content.to_vec()],
            Some(separator) => {
                let mut fields = Vec::new();
                let mut from = 0;
                for at in memchr::memmem::find_iter(content, separator) {
                    fields.push(content[from..at].to_vec());
                    from = at + separator.len();
                }
                fields.push(content[from..].to_vec());
                fields
            }
        }
    }

    /// Takes in what is there, once; says how many records that brought. poll(2) must have said that there is something, or
    /// this waits for it: flags of an open file description that others may share are left as they are.
    ///
    /// # Errors
    /// See [`IntakeError`].
    pub fn fill(&mut self, store: &mut Store) -> Result<u64, IntakeError> {
        match &mut self.from {
            From::Stream(_) => self.fill_from_stream(store),
            From::List(_) | From::Range(_) => self.fill_from_given(store),
            From::End => Ok(0),
        }
    }

    fn fill_from_given(&mut self, store: &mut Store) -> Result<u64, IntakeError> {
        let mut count = 0;
        let mut data = Vec::new();
        let separator = self.separator.as_deref().unwrap_or_default();
        while data.len() < BLOCK / 2 {
            let record = match &mut self.from {
                From::List(list) => list.next().map(|fields| fields.join(separator)),
                From::Range(range) => range.next().map(|number| number.to_string()),
                From::Stream(_) | From::End => None,
            };
            let Some(record) = record else {
                self.from = From::End;
                break;
            };
            let from = data.len();
            count += 1;
            if self.is_counted {
                let length = u32::try_from(record.len()).unwrap_or(u32::MAX);
                data.extend_from_slice(&length.to_be_bytes());
                data.extend_from_slice(record.as_bytes());
                continue;
            }
            data.extend_from_slice(record.as_bytes());
            let missing = self.framer.missing_terminator(&data[from..]);
            data.extend_from_slice(&missing);
            if self.framer.whole(&data[from..], 0).records > 1 {
                let place = self.taken + count - 1;
                return Err(IntakeError::Rule(format!(
                    "task {place} is more than one record: {record:?}"
                )));
            }
        }
        self.push(store, count, &data);
        Ok(count)
    }

    fn push(&mut self, store: &mut Store, count: u64, data: &[u8]) {
        if count > 0 {
            store.push(self.taken, count, data);
            self.taken += count;
            self.bytes += data.len() as u64;
        }
    }

    fn fill_from_stream(&mut self, store: &mut Store) -> Result<u64, IntakeError> {
        if self.buffer.len() - self.end < BLOCK / 2 {
            self.buffer.resize((self.buffer.len() * 2).max(BLOCK), 0);
        }
        let From::Stream(fd) = &self.from else {
            return Ok(0);
        };
        let got = match read(fd, &mut self.buffer[self.end..]) {
            Ok(got) => got,
            Err(Errno::EINTR | Errno::EAGAIN) => return Ok(0),
            Err(error) => return Err(IntakeError::Read(error.into())),
        };
        if got == 0 {
            return self.fill_from_rest(store);
        }
        self.end += got;
        self.read += got as u64;
        let whole = self.framer.whole(&self.buffer[..self.end], self.seen);
        let (mut from, mut records) = (0, whole.records);
        if self.header_left > 0 {
            let of_header = self.header_left.min(records);
            from = self.framer.end_of(&self.buffer[..whole.end], of_header);
            self.header.extend_from_slice(&self.buffer[..from]);
            self.header_left -= of_header;
            records -= of_header;
        }
        let buffer = std::mem::take(&mut self.buffer);
        self.push(store, records, &buffer[from..whole.end]);
        self.buffer = buffer;
        self.buffer.copy_within(whole.end..self.end, 0);
        self.end -= whole.end;
        self.seen = self.end;
        if whole.too_long {
            let most = bytesize::ByteSize(self.max_record)
                .to_string()
                .replace(".0 ", " ");
            let after = self.read - self.end as u64;
            return Err(IntakeError::Rule(format!(
                "a record of its input is longer than max_record ({most}), after {after} bytes"
            )));
        }
        Ok(records)
    }

    /// At the end of the data: what is left is a last record without a terminator, or torn.
    fn fill_from_rest(&mut self, store: &mut Store) -> Result<u64, IntakeError> {
        self.from = From::End;
        let rest = std::mem::take(&mut self.buffer);
        let rest = &rest[..self.end];
        if rest.is_empty() {
            return Ok(0);
        }
        if self.framer.rest() == Rest::Torn {
            return Err(IntakeError::Rule(format!(
                "the last record of its input is cut off after {} bytes of it",
                rest.len()
            )));
        }
        let missing = self.framer.missing_terminator(rest);
        if self.header_left > 0 {
            self.header.extend_from_slice(rest);
            return Ok(0);
        }
        store.push_last(self.taken, rest, &missing);
        self.taken += 1;
        self.bytes += rest.len() as u64;
        Ok(1)
    }
}
