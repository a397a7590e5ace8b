//! Waits for many descriptors at once: epoll(7), level-triggered. Knows nothing of what the tokens mean.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

/// How many ready descriptors one wait takes in. More of them come with the next wait; it is no bound on how many are watched.
const BATCH: usize = 256;

/// A set of descriptors that are watched for something to read.
///
/// The trap: closing one ends that only when its last duplicate is closed, since epoll watches the open file description. A child
/// being made holds a duplicate of every descriptor that we have, and the kernel lets us go on before it closes the child's copies:
/// so one that has been closed is reported now and then, for a moment after a spawn. So no token may be used twice, and what is
/// reported of one that is gone is to be ignored.
#[derive(Debug)]
pub struct Poller {
    epoll: Epoll,
    events: Vec<EpollEvent>,
}

impl Poller {
    /// An empty set.
    ///
    /// # Errors
    /// As epoll_create1(2): too many open files.
    pub fn new() -> io::Result<Self> {
        Ok(Poller {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            events: vec![EpollEvent::empty(); BATCH],
        })
    }

    /// Watches a descriptor for something to read.
    ///
    /// # Errors
    /// As epoll_ctl(2): it is watched already, it is a regular file (which is always ready, so epoll refuses it with
    /// EPERM), or the user's limit of watches (`/proc/sys/fs/epoll/max_user_watches`) is reached.
    pub fn add(&self, fd: impl AsFd, token: u64) -> io::Result<()> {
        Ok(self
            .epoll
            .add(fd, EpollEvent::new(EpollFlags::EPOLLIN, token))?)
    }

    /// Watches it no more. Until the next wait it may still be among what the last one has given.
    ///
    /// # Errors
    /// As epoll_ctl(2): it is not watched.
    pub fn remove(&self, fd: impl AsFd) -> io::Result<()> {
        Ok(self.epoll.delete(fd)?)
    }

    /// Waits until at least one descriptor has something to read, has come to its end, or has an error (epoll_ctl(2) reports those
    /// in any case), and gives their tokens. There is none when the time is over (no `timeout`: never) or a signal handler ran. A
    /// wait of less than a millisecond is rounded up, so that a loop with a deadline of its own does not spin.
    ///
    /// # Errors
    /// As epoll_wait(2); none that a program without bugs sees.
    pub fn wait(
        &mut self,
        timeout: Option<Duration>,
    ) -> io::Result<impl Iterator<Item = u64> + '_> {
        let timeout = match timeout {
            None => EpollTimeout::NONE,
            Some(time) => {
                let millis = i32::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX);
                EpollTimeout::try_from(millis).unwrap_or(EpollTimeout::MAX)
            }
        };
        let count = match self.epoll.wait(&mut self.events, timeout) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(errno) => return Err(errno.into()),
        };
        Ok(self.events.iter().take(count).map(EpollEvent::data))
    }
}
