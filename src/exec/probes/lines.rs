//! Looks in what a service prints whether it is ready: line by line, as it comes.

use regex::bytes::Regex;

use crate::event::Stream;

/// Of a longer line the rest is not looked at.
const LONGEST: usize = 64 << 10;

/// A pattern, and the two lines that are being printed.
#[derive(Debug)]
pub(super) struct Lines {
    pattern: Regex,
    out: Vec<u8>,
    err: Vec<u8>,
    /// Whole lines so far.
    count: u64,
}

impl Lines {
    /// Nothing was printed yet.
    pub(super) fn new(pattern: Regex) -> Self {
        Lines {
            pattern,
            out: Vec::new(),
            err: Vec::new(),
            count: 0,
        }
    }

    /// What was seen so far, in words.
    pub(super) fn seen(&self) -> String {
        match self.count {
            0 => "it has printed no line (does it keep its output in a buffer?)".to_owned(),
            1 => "the line that it has printed does not match".to_owned(),
            many => format!("none of its {many} lines matches"),
        }
    }

    /// This was printed. Whether a line that it ends matches.
    pub(super) fn push(&mut self, stream: Stream, bytes: &[u8]) -> bool {
        let line = match stream {
            Stream::Out => &mut self.out,
            Stream::Err => &mut self.err,
        };
        let mut parts = bytes.split(|byte| *byte == b'\n');
        // What stands behind the last newline is the beginning of the next line.
        let last = parts.next_back().unwrap_or_default();
        for part in parts {
            add(line, part);
            self.count += 1;
            let whole = line.strip_suffix(b"\r").unwrap_or(line);
            if self.pattern.is_match(whole) {
                return true;
            }
            line.clear();
        }
        add(line, last);
        false
    }
}

fn add(line: &mut Vec<u8>, part: &[u8]) {
    let room = LONGEST.saturating_sub(line.len());
    line.extend(part.iter().take(room));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn lines(pattern: &str) -> Lines {
        Lines::new(Regex::new(pattern).unwrap())
    }

    #[test]
    fn a_line_is_found_however_it_is_cut() {
        let text = b"starting\r\nready on 80\r\n";
        for cut in 0..text.len() {
            let mut found = lines("^ready on \\d+$");
            let (a, b) = text.split_at(cut);
            assert!(!found.push(Stream::Out, a));
            assert!(found.push(Stream::Out, b), "cut at {cut}");
        }
    }

    #[test]
    fn the_two_outputs_are_not_mixed_and_a_line_counts_when_it_has_ended() {
        let mut found = lines("ready");
        assert!(!found.push(Stream::Out, b"rea"));
        assert!(!found.push(Stream::Err, b"dy\n"));
        assert!(!found.push(Stream::Out, b"dy"));
        assert!(found.push(Stream::Out, b"\n"));
    }

    #[test]
    fn what_was_seen_is_said() {
        let mut found = lines("ready");
        assert_eq!(
            found.seen(),
            "it has printed no line (does it keep its output in a buffer?)"
        );
        found.push(Stream::Out, b"rea\ndy\n");
        found.push(Stream::Err, b"reading");
        assert_eq!(found.seen(), "none of its 2 lines matches");
    }

    #[test]
    fn of_a_line_without_an_end_only_so_much_is_kept() {
        let mut found = lines("ready");
        for _ in 0..100 {
            assert!(!found.push(Stream::Out, &[b'x'; 4096]));
        }
        assert_eq!(found.out.len(), LONGEST);
        assert!(!found.push(Stream::Out, b"ready\n"));
        assert!(found.push(Stream::Out, b"ready\n"));
    }
}
