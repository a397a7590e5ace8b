//! `tasks.jsonl`: a line for each record, or for neighbours that one worker answered alike. Written in blocks.

use std::fs::File;
use std::io::{self, Write};
use std::time::Duration;

use crate::event::Exit;

/// Lines are gathered up to so many bytes.
const BLOCK: usize = 64 * 1024;

/// What became of some records.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Line {
    /// The place of the first.
    pub task: u64,
    /// How many.
    pub count: u64,
    /// The number of the worker that had them last.
    pub worker: u32,
    /// Tries, the last one included.
    pub tries: u32,
    /// How the process of the last try ended; unknown of one that answered and goes on.
    pub exit: Option<Exit>,
    /// When the last try began, since the pool's start.
    pub start: Duration,
    /// How long it took.
    pub duration: Duration,
    /// They failed every try.
    pub is_dead: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
    lines: Vec<u8>,
}

impl Journal {
    pub fn new(file: File) -> Journal {
        Journal {
            file,
            lines: Vec::new(),
        }
    }

    /// Adds a line.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn add(&mut self, line: &Line) -> io::Result<()> {
        let Line {
            task,
            count,
            worker,
            tries,
            ..
        } = line;
        let (start, duration) = (line.start.as_secs_f64(), line.duration.as_secs_f64());
        let state = if line.is_dead { "dead" } else { "done" };
        let out = &mut self.lines;
        write!(
            out,
            r#"{{"task":{task},"count":{count},"worker":{worker},"tries":{tries}"#
        )?;
        match line.exit {
            None => {}
            Some(Exit::Code(code)) => write!(out, r#","exit":{code}"#)?,
            Some(Exit::Signal { number, .. }) => write!(out, r#","signal":{number}"#)?,
        }
        writeln!(
            out,
            r#","start":{start:.6},"duration":{duration:.6},"state":"{state}"}}"#
        )?;
        if out.len() >= BLOCK {
            self.flush()?;
        }
        Ok(())
    }

    /// Writes what is gathered.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn flush(&mut self) -> io::Result<()> {
        let lines = std::mem::take(&mut self.lines);
        self.file.write_all(&lines)
    }
}
