//! Deadlines as something to read: timerfd(2) on the monotonic clock, which does not jump when the date is set and stands
//! still while the machine sleeps.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::time::{ClockId as Clock, clock_gettime};

/// A time of the monotonic clock, since its zero (about the machine's start). What [`Timer::arm`] takes.
pub type Moment = Duration;

/// The monotonic clock.
///
/// # Panics
/// Never: CLOCK_MONOTONIC exists on every Linux.
#[must_use]
pub fn now() -> Moment {
    match clock_gettime(Clock::CLOCK_MONOTONIC) {
        Ok(time) => Duration::from(time),
        Err(errno) => panic!("BUG: clock_gettime(CLOCK_MONOTONIC): {errno}"),
    }
}

/// One deadline, readable from when it has passed until it is set again.
#[derive(Debug)]
pub struct Timer {
    fd: TimerFd,
}

impl Timer {
    /// Not set.
    ///
    /// # Errors
    /// As timerfd_create(2): too many open files.
    pub fn new() -> io::Result<Self> {
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        Ok(Timer {
            fd: TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?,
        })
    }

    /// Sets the deadline, instead of the one before; one in the past has passed at once.
    ///
    /// # Errors
    /// As timerfd_settime(2); none that a program without bugs sees.
    pub fn arm(&self, at: Moment) -> io::Result<()> {
        // A time of zero would disarm it.
        let at = TimeSpec::from_duration(at.max(Duration::from_nanos(1)));
        Ok(self.fd.set(
            Expiration::OneShot(at),
            TimerSetTimeFlags::TFD_TIMER_ABSTIME,
        )?)
    }

    /// Takes the deadline back; one that has passed is readable no more.
    ///
    /// # Errors
    /// As timerfd_settime(2); none that a program without bugs sees.
    pub fn disarm(&self) -> io::Result<()> {
        Ok(self.fd.unset()?)
    }

    /// Takes note that the deadline has passed: it is readable no more. True if it had.
    ///
    /// # Errors
    /// As read(2); none that a program without bugs sees.
    pub fn take(&self) -> io::Result<bool> {
        match self.fd.wait() {
            Ok(()) => Ok(true),
            Err(Errno::EAGAIN) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
