//! The process of a random graph: it reads its inputs and writes its outputs as its arguments say, step by step, and then looks whether
//! it got what the model says.
//!
//! ```text
//! node  i:/dev/fd/3:BYTES:SUM ...  o:/dev/fd/4:STREAM:LINES ...  r:INPUT:BYTES  w:OUTPUT:LINES ...
//! ```
//!
//! Inputs and outputs are numbered from 0. `r:0:all` reads to the end. `i:/dev/fd/3:to:FILE` is an input of which nobody knows how much
//! comes here: what came is written to that file.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};

/// What a queue's reader got, whatever the order of its lines: lines of several writers come as they arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sum {
    pub bytes: u64,
    /// The sum of the lines' hashes. A line that was torn, lost or doubled changes it.
    pub hashes: u64,
}

impl Sum {
    /// Of all lines of a stream.
    pub fn of_stream(stream: u32, lines: u32) -> Sum {
        let mut sum = Sum::default();
        let mut text = Vec::new();
        for number in 0..lines {
            text.clear();
            line(&mut text, stream, number);
            sum.add_line(&text);
        }
        sum
    }

    pub fn and(self, other: Sum) -> Sum {
        Sum {
            bytes: self.bytes + other.bytes,
            hashes: self.hashes.wrapping_add(other.hashes),
        }
    }

    fn add_line(&mut self, line: &[u8]) {
        self.bytes += line.len() as u64;
        self.hashes = self.hashes.wrapping_add(hash(line));
    }
}

/// Words at a time: this runs without optimization, over many megabytes.
fn hash(line: &[u8]) -> u64 {
    let (words, rest) = line.as_chunks::<8>();
    let mut hash = line.len() as u64;
    for word in words {
        hash = (hash ^ u64::from_le_bytes(*word))
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(29);
    }
    for byte in rest {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash
}

/// Adds a line of a stream, of a length of its own: 16 to 300 bytes, now and then 3,000.
fn line(out: &mut Vec<u8>, stream: u32, number: u32) {
    let begin = out.len();
    out.extend_from_slice(format!("{stream:04} {number:08}").as_bytes());
    let odd = u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
    let length = if odd % 64 == 0 {
        3000
    } else {
        16 + odd as usize % 285
    };
    out.resize(begin + length - 1, b'a' + (odd % 26) as u8);
    out.push(b'\n');
}

enum Expected {
    This(Sum),
    /// To be written to this file.
    Any(String),
}

struct Input {
    file: File,
    expected: Expected,
    sum: Sum,
    /// The line that has begun.
    begun: Vec<u8>,
}

struct Output {
    file: File,
    stream: u32,
    lines: u32,
    written: u32,
}

/// A node's life.
pub fn run(arguments: &[String]) {
    let mut inputs: Vec<Input> = Vec::new();
    let mut outputs: Vec<Output> = Vec::new();
    for argument in arguments {
        let parts: Vec<&str> = argument.split(':').collect();
        match parts[..] {
            ["i", path, bytes, hashes] => inputs.push(Input {
                file: File::open(path).unwrap(),
                expected: match bytes {
                    "to" => Expected::Any(hashes.to_owned()),
                    _ => Expected::This(Sum {
                        bytes: bytes.parse().unwrap(),
                        hashes: hashes.parse().unwrap(),
                    }),
                },
                sum: Sum::default(),
                begun: Vec::new(),
            }),
            ["o", path, stream, lines] => outputs.push(Output {
                file: OpenOptions::new().write(true).open(path).unwrap(),
                stream: stream.parse().unwrap(),
                lines: lines.parse().unwrap(),
                written: 0,
            }),
            ["r", input, bytes] => {
                let bytes = bytes.parse().unwrap_or(u64::MAX);
                read(&mut inputs[input.parse::<usize>().unwrap()], bytes);
            }
            ["w", output, lines] => {
                write(
                    &mut outputs[output.parse::<usize>().unwrap()],
                    lines.parse().unwrap(),
                );
            }
            _ => panic!("{argument}"),
        }
    }
    for input in &inputs {
        assert!(input.begun.is_empty(), "the last line has no end");
        match &input.expected {
            Expected::This(expected) => assert_eq!(input.sum, *expected),
            Expected::Any(file) => {
                let Sum { bytes, hashes } = input.sum;
                std::fs::write(file, format!("{bytes} {hashes}")).unwrap();
            }
        }
    }
    assert!(outputs.iter().all(|output| output.written == output.lines));
}

/// Reads at least so many bytes, or to the end.
fn read(input: &mut Input, bytes: u64) {
    let mut buffer = vec![0; 64 * 1024];
    let mut left = bytes;
    while left > 0 {
        let count = input.file.read(&mut buffer).unwrap();
        if count == 0 {
            return;
        }
        left = left.saturating_sub(count as u64);
        for piece in buffer[..count].split_inclusive(|byte| *byte == b'\n') {
            input.begun.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                input.sum.add_line(&input.begun);
                input.begun.clear();
            }
        }
    }
}

fn write(output: &mut Output, lines: u32) {
    let mut text = Vec::new();
    for number in output.written..output.written + lines {
        line(&mut text, output.stream, number);
        if text.len() > 48 * 1024 {
            output.file.write_all(&text).unwrap();
            text.clear();
        }
    }
    output.file.write_all(&text).unwrap();
    output.written += lines;
}
