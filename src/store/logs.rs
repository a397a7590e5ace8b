//! [`Logs`]: what units, and workers of pools, wrote to standard output and standard error, in a file each, made with its first
//! byte.
//!
//! It does not know what a secret is: what comes here has been redacted.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use crate::event::{Printer, Stream};
use crate::plan::UnitId;
use crate::store::Error;
use crate::store::names::file_name;
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
    /// Of those who have printed something; most never do.
    logs: BTreeMap<Key, Log>,
    /// Those with something to write.
    dirty: Vec<Key>,
    open: usize,
}

/// Whose log it is; false for standard output, true for standard error.
type Key = (Printer, bool);

#[derive(Debug)]
struct Log {
    name: String,
    made: bool,
    file: Option<File>,
    buffer: Vec<u8>,
}

impl Logs {
    pub(super) fn new(run: OwnedFd, path: PathBuf) -> Self {
        Logs {
            run,
            path,
            dir_made: false,
            logs: BTreeMap::new(),
            dirty: Vec::new(),
            open: 0,
        }
    }

    /// The directory that they are in.
    pub fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// Keeps these bytes. `label` names who printed them (`sort`, `count.2`); it is asked for once.
    ///
    /// # Errors
    /// Where the file cannot be made or written (a full disk).
    pub fn append(
        &mut self,
        printer: Printer,
        label: impl FnOnce() -> String,
        stream: Stream,
        bytes: &[u8],
    ) -> Result<(), Error> {
        if bytes.is_empty() {
            return Ok(());
        }
        let key = (printer, stream == Stream::Err);
        let log = self.logs.entry(key).or_insert_with(|| {
            let extension = match stream {
                Stream::Out => "out",
                Stream::Err => "err",
            };
            Log {
                name: log_name(&label(), extension),
                made: false,
                file: None,
                buffer: Vec::new(),
            }
        });
        if log.buffer.is_empty() {
            self.dirty.push(key);
        }
        log.buffer.extend_from_slice(bytes);
        if log.buffer.len() > BUFFER {
            self.write(key)
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
        for key in std::mem::take(&mut self.dirty) {
            let written = self.write(key);
            result = result.and(written);
        }
        result
    }

    /// Nothing more comes from this unit and its workers for now: writes and closes their files. A later try adds to them.
    ///
    /// # Errors
    /// As [`Logs::append`].
    pub fn close(&mut self, unit: UnitId) -> Result<(), Error> {
        let first = (Printer { unit, worker: None }, false);
        let last = Printer {
            unit,
            worker: Some(u32::MAX),
        };
        let keys: Vec<Key> = self
            .logs
            .range(first..=(last, true))
            .map(|(key, _)| *key)
            .collect();
        let mut result = Ok(());
        for key in keys {
            let written = self.write(key);
            result = result.and(written);
            if let Some(log) = self.logs.get_mut(&key) {
                self.open -= usize::from(log.file.take().is_some());
                log.buffer = Vec::new();
            }
        }
        result
    }

    fn write(&mut self, key: Key) -> Result<(), Error> {
        let Some(log) = self.logs.get_mut(&key) else {
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

/// The file of who prints under this label: a node's name, and behind a dot the number of a worker, which no name ends with.
fn log_name(label: &str, extension: &str) -> String {
    match label.rsplit_once('.') {
        Some((node, worker)) if worker.bytes().all(|b| b.is_ascii_digit()) => {
            format!("{}.{worker}.{extension}", file_name(node))
        }
        _ => format!("{}.{extension}", file_name(label)),
    }
}
