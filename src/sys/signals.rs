//! Signals as something to read: signalfd(2). Knows nothing of what is done about them.

#![allow(unsafe_code)] // dispositions are set by signal(2), which nix marks unsafe with reason

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// A set of signals, blocked for this thread (and for threads made after), that are read instead of delivered.
///
/// Make it before the first thread: a signal for the process is delivered to any thread that does not block it. Children
/// do not get this mask: see [`Origin`](crate::sys::process::Origin).
#[derive(Debug)]
pub struct Signals {
    fd: SignalFd,
}

impl Signals {
    /// Blocks these signals and makes them readable.
    ///
    /// # Errors
    /// As signalfd(2): too many open files. EINVAL where a number is no signal.
    pub fn new(signals: &[i32]) -> io::Result<Self> {
        let set = block(signals)?;
        Ok(Signals {
            fd: SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?,
        })
    }

    /// The next signal that has come, by its number. Equal signals that came since the last read are one.
    ///
    /// # Errors
    /// As read(2); none that a program without bugs sees.
    pub fn read(&self) -> io::Result<Option<i32>> {
        match self.fd.read_signal()? {
            None => Ok(None),
            Some(info) => Ok(Some(i32::try_from(info.ssi_signo).unwrap_or(0))),
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Blocks these signals for this thread, and gives them as a set.
///
/// # Errors
/// EINVAL where a number is no signal.
pub fn block(signals: &[i32]) -> io::Result<SigSet> {
    let mut set = SigSet::empty();
    for &signal in signals {
        set.add(Signal::try_from(signal)?);
    }
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), None)?;
    Ok(set)
}

/// Ends this process by a signal, as if it had never been handled: default disposition, unblocked, raised. So the parent
/// sees what ended it, and a shell's script stops at Ctrl-C, which it would not for an exit code of 130. No core dump is
/// left where the signal makes one. Comes back only where the signal does not end a process by default.
pub fn die_by(signal: i32) {
    // SAFETY: three calls on this process alone; the action has no handler, so no code of ours can run by them.
    unsafe {
        let none = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        libc::setrlimit(libc::RLIMIT_CORE, &none);
        libc::signal(signal, libc::SIG_DFL);
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, signal);
        // Blocked until here, or the raise would not take effect before the next line.
        libc::raise(signal);
        libc::sigprocmask(libc::SIG_UNBLOCK, &set, std::ptr::null_mut());
    }
}

/// Stops this process, as Ctrl-Z stops one, and comes back when it is continued. SIGSTOP, not SIGTSTP: the latter is
/// ignored in an orphaned process group.
pub fn stop_self() {
    // SAFETY: no memory is touched.
    unsafe {
        libc::raise(libc::SIGSTOP);
    }
}
