//! A child process from its start until nothing of its process group is left.

#![allow(unsafe_code)] // wait4 and waitid are not in nix, or without what is needed of them

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::ptr;
use std::time::Duration;

use nix::errno::Errno;

/// What a process used, as wait4(2) tells it: itself and the children that it waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// CPU time in user mode.
    pub user: Duration,
    /// CPU time in the kernel.
    pub system: Duration,
    /// Peak resident memory, bytes. The peak of its parent at the time of the start is in it: it shared that memory until the exec.
    pub max_rss: u64,
}

/// A child that leads a process group of its own.
///
/// Only one thread reaps, and until that the number is nobody else's, so a signal cannot hit a stranger. (A pidfd for each
/// child, which pins a process as well, was tried first: making, watching and closing it took a tenth of what starting a
/// small program takes, and SIGCHLD with [`next_ended`] tells the same.)
///
/// Dropping it neither ends nor reaps the process.
#[derive(Debug)]
pub struct Child {
    pid: libc::pid_t,
    reaped: bool,
}

impl Child {
    pub(super) fn new(pid: libc::pid_t) -> Self {
        Child { pid, reaped: false }
    }

    /// Its process id, which is its group's, too. For reports: nothing is done by it after the reap.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Sends a signal to its process group. A group of which nobody is left is no error.
    ///
    /// # Errors
    /// EPERM where every process of the group has become another user's (a set-user-id program).
    pub fn signal_group(&self, signal: i32) -> io::Result<()> {
        match self.send(signal) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn send(&self, signal: i32) -> Result<(), Errno> {
        if self.reaped {
            // The number may be someone else's by now.
            return Err(Errno::ESRCH);
        }
        // SAFETY: no memory is touched. The leader is not reaped, so the number is this group's. (It made the group before the exec, and
        // `Child` exists only after.)
        Errno::result(unsafe { libc::kill(-self.pid, signal) }).map(drop)
    }

    /// Reaps it, if it has ended: see [`Child::reap`]. `None` while it runs, and once it has been reaped.
    ///
    /// # Errors
    /// ECHILD where someone else has reaped it: a bug.
    pub fn try_wait(&mut self) -> io::Result<Option<(ExitStatus, Usage)>> {
        if self.reaped || peek(libc::P_PID, self.pid.unsigned_abs()) != Ok(Some(self.pid)) {
            return Ok(None);
        }
        self.reap()
    }

    /// Reaps it after [`next_ended`] has told of it, and kills what is left of its group: how it ended, and what it used. `None`
    /// once it has been reaped.
    ///
    /// # Errors
    /// ECHILD where someone else has reaped it: a bug.
    pub fn reap(&mut self) -> io::Result<Option<(ExitStatus, Usage)>> {
        if self.reaped {
            return Ok(None);
        }
        // Now or never: after the reap nobody can say whose this number is. The leader is dead and does not mind.
        let _ = self.send(libc::SIGKILL);
        let mut status = 0;
        // SAFETY: zeroes are a valid rusage.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: it writes only to the two local variables.
        match Errno::result(unsafe {
            libc::wait4(self.pid, &raw mut status, libc::WNOHANG, &raw mut usage)
        }) {
            Ok(0) => return Ok(None),
            Ok(_) => self.reaped = true,
            Err(errno) => return Err(errno.into()),
        }
        let usage = Usage {
            user: duration(usage.ru_utime),
            system: duration(usage.ru_stime),
            max_rss: u64::try_from(usage.ru_maxrss)
                .unwrap_or(0)
                .saturating_mul(1024),
        };
        Ok(Some((ExitStatus::from_raw(status), usage)))
    }

    /// Whether somebody was left of its group when it was reaped, and has been killed then.
    ///
    /// Members that had ended already, but whom nobody has reaped (they are ours, by adoption, where we are a subreaper), do not
    /// count. Those that a signal of ours has just hit may still be about to end, so after [`Child::signal_group`] the answer
    /// says nothing about the program.
    #[must_use]
    pub fn had_leftovers(&self) -> bool {
        // One call in the usual case, in which nobody is there. The number may be someone else's by now: then it is only
        // asked whether that group exists.
        // SAFETY: no memory is touched.
        let exists = || unsafe { libc::kill(-self.pid, 0) } == 0;
        self.reaped && exists() && (reap_group(self.pid) || exists())
    }
}

/// The signal that has stopped this child, if it stands still now and that has not been told before.
#[must_use]
pub fn stopped_by(pid: i32) -> Option<i32> {
    // SAFETY: zeroes are a valid siginfo (the kernel leaves it so where there is nothing to tell); the call writes only to it.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let flags = libc::WSTOPPED | libc::WNOHANG;
        let done = libc::waitid(libc::P_PID, pid.unsigned_abs(), &raw mut info, flags);
        (done == 0 && info.si_pid() == pid).then(|| info.si_status())
    }
}

/// What [`next_ended`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextEnded {
    /// This process has ended and is ours to reap: a [`Child`], or one that came to us because its parent ended before it (we
    /// are its subreaper).
    Process(i32),
    /// None has, of those that there are.
    None,
    /// There is none: nothing that this process has started is left, nor anything that came from that.
    NoChild,
}

/// Looks for a process that has ended. The kernel shows one at a time, the same until that one is reaped.
///
/// With SIGCHLD as something to read ([`Signals`](crate::sys::signals::Signals)) this serves every exit. SIGCHLDs that come
/// together are one: ask until there is no process.
#[must_use]
pub fn next_ended() -> NextEnded {
    match peek(libc::P_ALL, 0) {
        Ok(Some(pid)) => NextEnded::Process(pid),
        Ok(None) => NextEnded::None,
        // ECHILD is the only error that these arguments can have.
        Err(_) => NextEnded::NoChild,
    }
}

/// Reaps a process that [`next_ended`] told of and that is no [`Child`].
pub fn reap_orphan(pid: i32) {
    // SAFETY: no memory is touched: the status is not asked for.
    unsafe { libc::waitpid(pid, ptr::null_mut(), libc::WNOHANG) };
}

/// A child that has ended and is not reaped.
fn peek(kind: libc::idtype_t, id: libc::id_t) -> Result<Option<libc::pid_t>, Errno> {
    // SAFETY: zeroes are a valid siginfo (the kernel leaves it so where there is none); the call writes only to it.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        Errno::result(libc::waitid(kind, id, &raw mut info, flags))?;
        Ok(Some(info.si_pid()).filter(|&pid| pid != 0))
    }
}

/// Reaps the dead of a group that are ours. True if one of them was killed by SIGKILL.
fn reap_group(group: libc::pid_t) -> bool {
    let mut killed = false;
    loop {
        // SAFETY: zeroes are a valid siginfo; the call writes only to it.
        unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            let flags = libc::WEXITED | libc::WNOHANG;
            let done = libc::waitid(libc::P_PGID, group.unsigned_abs(), &raw mut info, flags);
            if done != 0 || info.si_pid() == 0 {
                return killed;
            }
            killed |= info.si_code == libc::CLD_KILLED && info.si_status() == libc::SIGKILL;
        }
    }
}

fn duration(time: libc::timeval) -> Duration {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let micros = u64::try_from(time.tv_usec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_micros(micros)
}
