//! Moves bytes between pipes and files without copying them through this process: splice(2), tee(2).
//!
//! vmsplice(2) is left out on purpose: a page gifted to a pipe stays ours to write, and a reader that splices on would see
//! it change.

use std::io;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::fcntl::{self, SpliceFFlags};

/// Whether a call may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Until at least one byte has moved.
    Yes,
    /// EAGAIN ([`io::ErrorKind::WouldBlock`]) where nothing can move at once. For the pipes: a socket or a file that blocks
    /// may still wait.
    No,
}

impl Wait {
    fn flags(self) -> SpliceFFlags {
        match self {
            Wait::Yes => SpliceFFlags::empty(),
            Wait::No => SpliceFFlags::SPLICE_F_NONBLOCK,
        }
    }
}

/// Moves up to `len` bytes; at least one of the two is a pipe. 0 is the end of data. May be short.
///
/// # Errors
/// As splice(2): EINVAL where the file cannot be spliced (opened for appending, or its file system does not know how), in which
/// case reading and writing does. EPIPE where nobody reads `to`.
pub fn splice(from: impl AsFd, to: impl AsFd, len: usize, wait: Wait) -> io::Result<usize> {
    retry(|| {
        fcntl::splice(
            from.as_fd(),
            None,
            to.as_fd(),
            None,
            len,
            wait.flags() | SpliceFFlags::SPLICE_F_MOVE,
        )
    })
}

/// Copies up to `len` bytes from the head of one pipe to another, and leaves them there. 0 is the end of data. May be short:
/// it works by whole pipe buffers and stops where `to` is full.
///
/// # Errors
/// As tee(2). EPIPE where nobody reads `to`.
pub fn tee(from: impl AsFd, to: impl AsFd, len: usize, wait: Wait) -> io::Result<usize> {
    retry(|| fcntl::tee(from.as_fd(), to.as_fd(), len, wait.flags()))
}

fn retry(mut call: impl FnMut() -> nix::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
            Ok(count) => return Ok(count),
        }
    }
}
