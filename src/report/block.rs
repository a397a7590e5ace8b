//! What a process printed, cut into lines ([`Lines`]), and kept until it has ended ([`Block`]).

use std::collections::VecDeque;

use crate::event::Stream;

/// A line that is longer is cut here: nothing that a child prints may fill the memory.
const LONGEST_LINE: usize = 64 * 1024;

/// A block keeps so many bytes of its beginning, and as many of its end. What is between is in the log.
const HALF_BLOCK: usize = 512 * 1024;

/// Cuts the two streams of a process into lines; whole lines, in the order in which they became whole.
#[derive(Debug, Default)]
pub struct Lines {
    out: Vec<u8>,
    err: Vec<u8>,
}

impl Lines {
    /// Takes bytes; gives each line that is whole now, without its newline.
    pub fn push(&mut self, stream: Stream, bytes: &[u8], mut each: impl FnMut(&[u8])) {
        let partial = match stream {
            Stream::Out => &mut self.out,
            Stream::Err => &mut self.err,
        };
        let mut from = 0;
        for end in memchr::memchr_iter(b'\n', bytes) {
            let line = bytes.get(from..end).unwrap_or_default();
            if partial.is_empty() {
                each(line);
            } else {
                partial.extend_from_slice(line);
                each(partial);
                partial.clear();
            }
            from = end + 1;
        }
        partial.extend_from_slice(bytes.get(from..).unwrap_or_default());
        if partial.len() > LONGEST_LINE {
            // A progress bar that overwrites itself is one long line: only its last state is worth keeping.
            match memchr::memrchr(b'\r', partial) {
                Some(at) if at + 1 < partial.len() => {
                    partial.drain(..=at);
                }
                _ => {}
            }
        }
        if partial.len() > LONGEST_LINE {
            each(partial);
            partial.clear();
        }
    }

    /// The streams have ended: gives the last lines that had no newline.
    pub fn end(&mut self, mut each: impl FnMut(&[u8])) {
        for partial in [&mut self.out, &mut self.err] {
            if !partial.is_empty() {
                each(partial);
                partial.clear();
            }
        }
    }
}

/// Lines of a node, kept until it has ended: all of them, or the first and the last half MiB.
#[derive(Debug, Default)]
pub struct Block {
    head: String,
    tail: VecDeque<String>,
    tail_bytes: usize,
    dropped_lines: u64,
    dropped_bytes: u64,
}

impl Block {
    /// Adds a line. `line` has no newline and is harmless.
    pub fn push(&mut self, line: &str) {
        if self.tail.is_empty() && self.head.len() + line.len() < HALF_BLOCK {
            self.head.push_str(line);
            self.head.push('\n');
            return;
        }
        self.tail_bytes += line.len();
        self.tail.push_back(line.to_owned());
        while self.tail_bytes > HALF_BLOCK
            && let Some(dropped) = self.tail.pop_front()
        {
            self.tail_bytes -= dropped.len();
            self.dropped_lines += 1;
            self.dropped_bytes += dropped.len() as u64 + 1;
        }
    }

    /// The lines; `Err` stands where so many lines and bytes are left out.
    pub fn lines(&self) -> impl Iterator<Item = Result<&str, (u64, u64)>> {
        let gap = (self.dropped_lines > 0).then_some(Err((self.dropped_lines, self.dropped_bytes)));
        self.head
            .lines()
            .map(Ok)
            .chain(gap)
            .chain(self.tail.iter().map(|line| Ok(line.as_str())))
    }
}

/// The last lines of a stream: at most 10, at most 4 KiB, as they stand in the report.
#[derive(Debug, Default)]
pub struct Tail(Vec<u8>);

impl Tail {
    const LINES: usize = 10;
    const BYTES: usize = 4096;

    /// Adds what came.
    pub fn push(&mut self, bytes: &[u8]) {
        let enough = bytes.len().saturating_sub(Tail::BYTES);
        self.0
            .extend_from_slice(bytes.get(enough..).unwrap_or_default());
        if self.0.len() > 4 * Tail::BYTES {
            self.0.drain(..self.0.len() - Tail::BYTES);
        }
    }

    /// The last lines, without the last newline. Where 4 KiB begin within a line, it begins within that line.
    pub fn take(&mut self) -> Vec<u8> {
        let bytes = std::mem::take(&mut self.0);
        let bytes = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        let from = memchr::memrchr_iter(b'\n', bytes)
            .nth(Tail::LINES - 1)
            .map_or(0, |at| at + 1);
        let from = from.max(bytes.len().saturating_sub(Tail::BYTES));
        bytes.get(from..).unwrap_or_default().to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(chunks: &[(Stream, &str)]) -> Vec<String> {
        let (mut lines, mut got) = (Lines::default(), Vec::new());
        for (stream, chunk) in chunks {
            lines.push(*stream, chunk.as_bytes(), |line| {
                got.push(String::from_utf8_lossy(line).into_owned())
            });
        }
        lines.end(|line| got.push(String::from_utf8_lossy(line).into_owned()));
        got
    }

    #[test]
    fn lines_come_whole_however_they_are_cut() {
        let chunks = [
            (Stream::Out, "a\nb"),
            (Stream::Err, "x"),
            (Stream::Out, "c\n\nd"),
            (Stream::Err, "y\n"),
        ];
        assert_eq!(cut(&chunks), ["a", "bc", "", "xy", "d"]);
    }

    #[test]
    fn an_endless_line_is_cut_and_an_overwritten_one_shrinks() {
        let long = "x".repeat(LONGEST_LINE + 1);
        assert_eq!(
            cut(&[(Stream::Out, &long), (Stream::Out, "y\n")]),
            [long.as_str(), "y"]
        );
        let bar = "50%\r".repeat(LONGEST_LINE) + "99%";
        assert_eq!(cut(&[(Stream::Out, &bar), (Stream::Out, "\n")]), ["99%"]);
    }

    #[test]
    fn a_block_keeps_its_beginning_and_its_end() {
        let mut block = Block::default();
        let line = |i: usize| format!("{i:01023}");
        for i in 0..3000 {
            block.push(&line(i));
        }
        let lines: Vec<_> = block.lines().collect();
        let gap = lines.iter().position(Result::is_err);
        assert_eq!(gap, Some(512));
        assert_eq!(lines.first(), Some(&Ok(line(0).as_str())));
        assert_eq!(lines.last(), Some(&Ok(line(2999).as_str())));
        let Some(Err((dropped, bytes))) = lines.get(512) else {
            panic!("no gap")
        };
        assert_eq!(*dropped as usize + lines.len() - 1, 3000);
        assert_eq!(*bytes, dropped * 1024);
    }

    #[test]
    fn a_tail_is_ten_lines_or_four_kib() {
        let mut tail = Tail::default();
        for i in 0..5000 {
            tail.push(format!("line {i}\n").as_bytes());
        }
        let text = String::from_utf8_lossy(&tail.take()).into_owned();
        assert_eq!(
            text.lines().collect::<Vec<_>>(),
            (4990..5000)
                .map(|i| format!("line {i}"))
                .collect::<Vec<_>>()
        );
        tail.push("é\n".repeat(2).as_bytes());
        assert_eq!(tail.take(), "é\né".as_bytes());
        tail.push(&[b'x'; 100_000]);
        assert_eq!(tail.take(), [b'x'; 4096]);
    }
}
