//! [`Logs`]: what units wrote to standard output and standard error, in a file each, made with its first byte.
//!
//! It does not know what a secret is: what comes here has been redacted.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use crate::event::Stream;
use crate::plan::UnitId;
use crate::store::Error;
use crate::store::run_dir::make_dir;

/// A buffer that grows beyond this is written at once.
const BUFFER: usize = 64 * 1024;

/// So many log files stay open. A wide graph must not take the descriptors that its pipes need; beyond this a file is
/// opened for each flush.
const OPEN: usize = 128;

/// The log files of a run. Bytes are buffered until [`Logs::flush`], which the loop calls once a wake-up.
#[derive(Debug)]
pub struct Logs {
    run: OwnedFd,
    path: PathBuf,
    dir_made: bool,
    /// Two for each unit: what went to standard output, then standard error. Boxed: most units print nothing.
    logs: Vec<Option<Box<Log>>>,
    /// Indexes of those with something to write.
    dirty: Vec<usize>,
    open: usize,
}

#[derive(Debug)]
struct Log {
    name: String,
    made: bool,
    file: Option<File>,
    buffer: Vec<u8>,
}

impl Logs {
    pub(super) fn new(run: OwnedFd, path: PathBuf, units: usize) -> Self {
        let logs = std::iter::repeat_with(|| None).take(units * 2).collect();
        Logs {
            run,
            path,
            dir_made: false,
            logs,
            dirty: Vec::new(),
            open: 0,
        }
    }

    /// The directory that they are in.
    pub fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// Keeps these bytes. `label` names the unit (`sort`, `count.2`); it is asked for once.
    ///
    /// # Errors
    /// Where the file cannot be made or written (a full disk).
    pub fn append(
        &mut self,
        unit: UnitId,
        label: impl FnOnce() -> String,
        stream: Stream,
        bytes: &[u8],
    ) -> Result<(), Error> {
        if bytes.is_empty() {
            return Ok(());
        }
        let index = index(unit, stream);
        let Some(slot) = self.logs.get_mut(index) else {
            panic!("BUG: a log of {unit:?}, which is not in the plan")
        };
        let log = slot.get_or_insert_with(|| {
            let extension = match stream {
                Stream::Out => "out",
                Stream::Err => "err",
            };
            Box::new(Log {
                name: file_name(&label(), unit, extension),
                made: false,
                file: None,
                buffer: Vec::new(),
            })
        });
        if log.buffer.is_empty() {
            self.dirty.push(index);
        }
        log.buffer.extend_from_slice(bytes);
        if log.buffer.len() > BUFFER {
            self.write(index)
        } else {
            Ok(())
        }
    }

    /// Writes what is buffered: one write(2) for each log that has got something.
    ///
    /// # Errors
    /// As [`Logs::append`]. The others are written all the same.
    pub fn flush(&mut self) -> Result<(), Error> {
        let mut result = Ok(());
        for index in std::mem::take(&mut self.dirty) {
            let written = self.write(index);
            result = result.and(written);
        }
        result
    }

    /// Nothing more comes from this unit for now: writes and closes its files. A later try of it adds to them.
    ///
    /// # Errors
    /// As [`Logs::append`].
    pub fn close(&mut self, unit: UnitId) -> Result<(), Error> {
        let mut result = Ok(());
        for stream in [Stream::Out, Stream::Err] {
            let index = index(unit, stream);
            if self.logs.get(index).is_none_or(Option::is_none) {
                continue;
            }
            let written = self.write(index);
            result = result.and(written);
            if let Some(Some(log)) = self.logs.get_mut(index) {
                self.open -= usize::from(log.file.take().is_some());
                log.buffer = Vec::new();
            }
        }
        result
    }

    fn write(&mut self, index: usize) -> Result<(), Error> {
        let Some(Some(log)) = self.logs.get_mut(index) else {
            return Ok(());
        };
        if log.buffer.is_empty() {
            return Ok(());
        }
        if !self.dir_made {
            make_dir(&self.run, "logs", &self.path)?;
            self.dir_made = true;
        }
        let was_open = log.file.is_some();
        let mut file = match log.file.take() {
            Some(file) => file,
            None => open_log(&self.run, log)
                .map_err(|e| Error::io("open", self.path.join(&log.name), e))?,
        };
        let written = file.write_all(&log.buffer);
        log.buffer.clear();
        if was_open || self.open < OPEN {
            self.open += usize::from(!was_open);
            log.file = Some(file);
        }
        written.map_err(|e| Error::io("write", self.path.join(&log.name), e))
    }
}

/// Opens a log at its end. The first time it must not be there yet: two units never share a file, and a link that someone
/// planted is an error.
fn open_log(run: &OwnedFd, log: &mut Log) -> io::Result<File> {
    let mut flags =
        OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    if !log.made {
        flags |= OFlag::O_EXCL;
    }
    let path = format!("logs/{}", log.name);
    let file = openat(run, path.as_str(), flags, Mode::from_bits_truncate(0o600))?;
    log.made = true;
    Ok(File::from(file))
}

fn index(unit: UnitId, stream: Stream) -> usize {
    unit.index() * 2 + usize::from(stream == Stream::Err)
}

/// A file name for a unit. Names of the pipeline are plain, but what a matrix puts into them need not be, and a file name has
/// at most 255 bytes.
fn file_name(label: &str, unit: UnitId, extension: &str) -> String {
    let mut name: String = label
        .chars()
        .map(|c| if c == '/' || c.is_control() { '_' } else { c })
        .collect();
    let changed = name != label || name.starts_with('.');
    if name.len() > 200 {
        name.truncate(name.floor_char_boundary(200));
    }
    if changed || name.len() < label.len() {
        // The number makes it unique again.
        return format!("{}~{}.{extension}", name.trim_start_matches('.'), unit.0);
    }
    format!("{name}.{extension}")
}
