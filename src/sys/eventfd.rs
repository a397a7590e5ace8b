//! A wake-up from one thread to another: eventfd(2).

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd as Counter};

/// Readable from the first [`EventFd::notify`] until [`EventFd::take`].
#[derive(Debug)]
pub struct EventFd {
    counter: Counter,
}

impl EventFd {
    /// Not notified.
    ///
    /// # Errors
    /// As eventfd(2): too many open files.
    pub fn new() -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(EventFd {
            counter: Counter::from_flags(flags)?,
        })
    }

    /// Makes it readable. May be called from any thread, any number of times.
    ///
    /// # Errors
    /// As write(2); none that a program without bugs sees.
    pub fn notify(&self) -> io::Result<()> {
        match self.counter.write(1) {
            // The counter is full: it is readable, which is all that was wanted.
            Ok(_) | Err(Errno::EAGAIN) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Makes it unreadable. True if it had been notified.
    ///
    /// # Errors
    /// As read(2); none that a program without bugs sees.
    pub fn take(&self) -> io::Result<bool> {
        match self.counter.read() {
            Ok(_) => Ok(true),
            Err(Errno::EAGAIN) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.counter.as_fd()
    }
}
