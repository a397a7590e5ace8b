//! The journal of a run in progress: when it is written, and when it is on the disk.
//!
//! A line is written (so that procflow may be killed) before what follows from it is begun or told. It is on the disk (so that the
//! machine may lose its power) a second later at most: a thread sees to that, since a disk takes its time. A run that is over
//! within a second never waits for one.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crate::exec::deadlines::Due;
use crate::exec::error::Error;
use crate::exec::runner::Runner;
use crate::resume::Keeper;

/// From a line to when it is asked of the disk.
const SYNC_AFTER: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(super) struct Journal<'a> {
    pub keeper: Keeper<'a>,
    /// [`Due::Journal`] is armed.
    is_due: bool,
    /// What the disk has been asked for.
    syncing: Option<JoinHandle<io::Result<()>>>,
    /// The file itself is on the disk, and not only what is in it.
    has_name: bool,
}

impl<'a> Journal<'a> {
    pub fn new(keeper: Keeper<'a>) -> Self {
        Journal {
            keeper,
            is_due: false,
            syncing: None,
            has_name: false,
        }
    }
}

impl Runner<'_> {
    /// What became of a line. Without one a later run would know less than was said, so this one can't go on.
    pub(super) fn noted(&mut self, noted: io::Result<()>) {
        if let Err(e) = noted {
            let path = self.journal.keeper.path().display().to_string();
            self.fail(Error::new(format!("write the journal {path}"), e));
        }
    }

    /// Writes what was noted.
    pub(super) fn write_journal(&mut self) {
        if self.broken.is_some() {
            return;
        }
        let written = self.journal.keeper.write();
        self.noted(written);
        if !self.journal.is_due && self.journal.keeper.is_dirty() {
            self.journal.is_due = true;
            self.deadlines
                .arm(Due::Journal, self.clock.now() + SYNC_AFTER);
        }
    }

    /// Asks the disk for what was written; or hears what became of that.
    pub(super) fn sync_journal(&mut self) {
        self.journal.is_due = false;
        let is_busy = match self.journal.syncing.take() {
            Some(thread) if !thread.is_finished() => {
                self.journal.syncing = Some(thread);
                true
            }
            Some(thread) => {
                self.synced(thread);
                false
            }
            None => false,
        };
        if self.broken.is_some() {
            return;
        }
        if !is_busy && self.journal.keeper.take_dirty() {
            let file = self.journal.keeper.file();
            // The directory of the run, and the one that it is in.
            let path = self.journal.keeper.path();
            let dirs = path
                .ancestors()
                .skip(1)
                .take(2)
                .map(PathBuf::from)
                .collect();
            let dirs = if std::mem::replace(&mut self.journal.has_name, true) {
                Vec::new()
            } else {
                dirs
            };
            let started = file.and_then(|file| {
                let thread = Builder::new().name("journal".to_owned());
                thread.spawn(move || sync(file, dirs))
            });
            match started {
                Ok(thread) => self.journal.syncing = Some(thread),
                Err(e) => return self.noted(Err(e)),
            }
        }
        if self.journal.syncing.is_some() {
            self.journal.is_due = true;
            self.deadlines
                .arm(Due::Journal, self.clock.now() + SYNC_AFTER);
        }
    }

    fn synced(&mut self, thread: JoinHandle<io::Result<()>>) {
        if let Ok(Err(e)) = thread.join() {
            let path = self.journal.keeper.path().display().to_string();
            self.fail(Error::new(
                format!("write the journal {path} to the disk"),
                e,
            ));
        }
    }

    /// Nothing more comes. What the disk is still about to say is not waited for.
    pub(super) fn end_journal(&mut self) {
        self.write_journal();
        if let Some(thread) = self.journal.syncing.take()
            && thread.is_finished()
        {
            self.synced(thread);
        }
    }
}

/// Once it has failed, what the disk says of the same file later means nothing: so it is asked no more.
fn sync(file: OwnedFd, dirs: Vec<PathBuf>) -> io::Result<()> {
    nix::unistd::fdatasync(&file)?;
    for dir in dirs {
        File::open(dir)?.sync_all()?;
    }
    Ok(())
}
