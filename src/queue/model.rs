//! What tests compare with: records cut in the plainest way, one byte after the other.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

use crate::plan::Deliver;
use crate::queue::by_field::Key;
use crate::spec::Records;

/// Where records of some data end.
pub(crate) struct Split {
    /// The ends of complete records.
    pub ends: Vec<usize>,
    /// Those, and the end of what is behind them: told by a length, else that of the data.
    pub all_ends: Vec<usize>,
}

pub(crate) fn split(records: &Records, data: &[u8]) -> Split {
    let mut ends = Vec::new();
    let mut begin = 0;
    let mut told = data.len();
    for at in 1..=data.len() {
        let record = &data[begin..at];
        let ended = match records {
            Records::Lines => record.ends_with(b"\n"),
            Records::Nul => record.ends_with(b"\0"),
            Records::Separator(separator) => record.ends_with(separator.as_bytes()),
            Records::Size(size) => record.len() == *size as usize,
            Records::Length32 if record.len() < 4 => false,
            Records::Length32 => {
                let length = u32::from_be_bytes([record[0], record[1], record[2], record[3]]);
                told = begin + 4 + length as usize;
                told == at
            }
            Records::Start(start) => {
                record.ends_with(b"\n") && data[at..].starts_with(start.as_bytes())
            }
            Records::Bytes => false,
        };
        if ended {
            ends.push(at);
            begin = at;
            told = data.len();
        }
    }
    let mut all_ends = ends.clone();
    if told != begin {
        all_ends.push(told);
    }
    Split { ends, all_ends }
}

/// As much of a terminator's end as makes `last` one record that is over.
pub(crate) fn missing(records: &Records, last: &[u8]) -> Vec<u8> {
    let terminator = match records {
        Records::Lines => &b"\n"[..],
        Records::Nul => b"\0",
        Records::Separator(separator) => separator.as_bytes(),
        Records::Start(_) if last.ends_with(b"\n") => b"",
        Records::Start(_) => return b"\n".to_vec(),
        Records::Length32 | Records::Size(_) | Records::Bytes => b"",
    };
    (0..terminator.len())
        .map(|from| &terminator[from..])
        .find(|end| split(records, &[last, end].concat()).ends == [last.len() + end.len()])
        .unwrap_or_default()
        .to_vec()
}

/// Which of so many readers gets which of `whole`, in the plainest way; `None` where that is the readers' to say.
pub(crate) fn deal(
    records: &Records,
    deliver: &Deliver,
    header: u32,
    readers: usize,
    whole: &[Vec<u8>],
) -> Option<Vec<Vec<Vec<u8>>>> {
    let header = whole.len().min(header as usize);
    let mut dealt = vec![whole[..header].to_vec(); readers];
    for (number, record) in whole[header..].iter().enumerate() {
        let reader = match deliver {
            Deliver::Share | Deliver::Copy => return None,
            Deliver::RoundRobin => number % readers,
            Deliver::ByField { field, separator } => {
                let mut body = &record[..];
                match records {
                    Records::Lines | Records::Start(_) => {
                        body = body.strip_suffix(b"\n").unwrap_or(body);
                    }
                    Records::Nul => body = body.strip_suffix(b"\0").unwrap_or(body),
                    Records::Separator(text) => {
                        body = body.strip_suffix(text.as_bytes()).unwrap_or(body);
                    }
                    Records::Length32 => body = &body[4..],
                    Records::Size(_) | Records::Bytes => {}
                }
                Key::new(*field, separator.as_deref())
                    .unwrap()
                    .reader(body, readers)
            }
        };
        dealt[reader].push(record.clone());
    }
    Some(dealt)
}
