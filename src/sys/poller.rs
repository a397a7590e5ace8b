//! Waits for many descriptors at once: epoll(7), level-triggered. Knows nothing of what the tokens mean.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

/// How many ready descriptors one wait takes in. More of them come with the next wait; it is no bound on how many are watched.
const BATCH: usize = 256;

/// What to wait for. Hang-ups and errors are reported in any case (epoll_ctl(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// There is something to read, or the end of data.
    Read,
    /// There is room to write.
    Write,
    /// Nothing but a hang-up or an error: the readers of this write end have gone.
    Hangup,
}

impl Interest {
    fn flags(self) -> EpollFlags {
        match self {
            Interest::Read => EpollFlags::EPOLLIN,
            Interest::Write => EpollFlags::EPOLLOUT,
            Interest::Hangup => EpollFlags::empty(),
        }
    }
}

/// A descriptor that is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    /// What [`Poller::add`] was given.
    pub token: u64,
    /// There is something to read, or the end of data.
    pub readable: bool,
    /// There is room to write.
    pub writable: bool,
    /// The other side has gone, or the descriptor has an error: for a pipe's write end, that nobody can read from it.
    pub hangup: bool,
}

/// A set of watched descriptors.
///
/// A descriptor must be removed before it is closed: epoll watches the open file description, so one of which a
/// duplicate lives on elsewhere would go on reporting under a token that nobody knows any more. And a child being made
/// holds a duplicate of every descriptor that we have: the kernel lets us go on before it closes the child's copies, so they live on for
/// a moment after the spawn. (Seen: without the removal, one that had been closed was reported now and then.)
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

    /// Watches a descriptor.
    ///
    /// # Errors
    /// As epoll_ctl(2): it is watched already, it is a regular file (which is always ready, so epoll refuses it with
    /// EPERM), or the user's limit of watches (`/proc/sys/fs/epoll/max_user_watches`) is reached.
    pub fn add(&self, fd: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        Ok(self
            .epoll
            .add(fd, EpollEvent::new(interest.flags(), token))?)
    }

    /// Changes what a watched descriptor is watched for, and its token.
    ///
    /// # Errors
    /// As epoll_ctl(2): it is not watched.
    pub fn modify(&self, fd: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        Ok(self
            .epoll
            .modify(fd, &mut EpollEvent::new(interest.flags(), token))?)
    }

    /// Watches a descriptor no more.
    ///
    /// # Errors
    /// As epoll_ctl(2): it is not watched.
    pub fn remove(&self, fd: impl AsFd) -> io::Result<()> {
        Ok(self.epoll.delete(fd)?)
    }

    /// Waits until at least one descriptor is ready, and says which are. Nothing is ready when the time is over (no
    /// `timeout`: never) or a signal handler ran. A wait of less than a millisecond is rounded up, so that a loop with a
    /// deadline of its own does not spin; deadlines that matter belong in a [`Timer`](crate::sys::timer::Timer).
    ///
    /// # Errors
    /// As epoll_wait(2); none that a program without bugs sees.
    pub fn wait(
        &mut self,
        timeout: Option<Duration>,
    ) -> io::Result<impl Iterator<Item = Ready> + '_> {
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
        Ok(self.events.iter().take(count).map(|event| {
            let flags = event.events();
            Ready {
                token: event.data(),
                readable: flags.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLHUP),
                writable: flags.contains(EpollFlags::EPOLLOUT),
                hangup: flags.intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR),
            }
        }))
    }
}
