//! Pipes: pipe(7). Knows nothing of what flows through them.

#![allow(unsafe_code)] // FIONREAD is not in nix

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::pipe2;

/// A pipe's two ends. Both are close-on-exec and blocking.
#[derive(Debug)]
pub struct Pipe {
    /// Where it is read.
    pub read: OwnedFd,
    /// Where it is written.
    pub write: OwnedFd,
}

impl Pipe {
    /// A pipe for what this process reads itself, whenever there is something: its read end does not wait. Of the size that the
    /// kernel gives (64 KiB; less for a user who has very many).
    ///
    /// # Errors
    /// As pipe(2): too many open files.
    pub fn to_here() -> io::Result<Self> {
        let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
        // A new pipe has no other flags to keep.
        fcntl(&read, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok(Pipe { read, write })
    }

    /// A pipe that holds `capacity` bytes, or as near to it as this user may have (see [`resize`]).
    ///
    /// # Errors
    /// As pipe(2): too many open files.
    pub fn new(capacity: usize) -> io::Result<Self> {
        let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
        resize(&write, capacity);
        Ok(Pipe { read, write })
    }

    /// A pipe that holds one write(2), of up to a page, however few bytes it is: one page, in packet mode (O_DIRECT, pipe(2)),
    /// where what is written by two calls never shares a page. Its reader gets one such write at a time, and must ask for a page at
    /// least, or loses the rest of it.
    ///
    /// # Errors
    /// As pipe(2): too many open files.
    pub fn of_one_write() -> io::Result<Self> {
        let (read, write) = pipe2(OFlag::O_CLOEXEC | OFlag::O_DIRECT)?;
        resize(&write, 1);
        Ok(Pipe { read, write })
    }
}

/// Sets how many bytes a pipe holds, and says how many it holds now (the kernel rounds up to a power of two of pages).
///
/// Where that is more than this user may have (`/proc/sys/fs/pipe-max-size`, `pipe-user-pages-soft`), it is made as large
/// as allowed: size is speed, not meaning, so this is no error.
pub fn resize(pipe: impl AsFd, capacity: usize) -> usize {
    let pipe = pipe.as_fd();
    let current = fcntl(pipe, FcntlArg::F_GETPIPE_SZ)
        .ok()
        .and_then(|size| usize::try_from(size).ok())
        .unwrap_or(0);
    let mut wanted = i32::try_from(capacity).unwrap_or(i32::MAX);
    while usize::try_from(wanted).is_ok_and(|wanted| wanted != current) {
        match fcntl(pipe, FcntlArg::F_SETPIPE_SZ(wanted)) {
            Ok(size) => return usize::try_from(size).unwrap_or(current),
            // Too much for this user: the half may do, unless the pipe holds that much already.
            Err(Errno::EPERM | Errno::EINVAL | Errno::ENOMEM)
                if usize::try_from(wanted / 2).is_ok_and(|half| half > current) =>
            {
                wanted /= 2;
            }
            Err(_) => break,
        }
    }
    current
}

/// Bytes that lie in a pipe, asked at either end of it (FIONREAD, pipe(7)). `None` where this is no pipe.
pub fn unread(pipe: impl AsFd) -> Option<usize> {
    let mut count: libc::c_int = 0;
    // SAFETY: the descriptor is open as long as it is borrowed, and FIONREAD writes one int where it is told to.
    let result = unsafe { libc::ioctl(pipe.as_fd().as_raw_fd(), libc::FIONREAD, &raw mut count) };
    if result == -1 {
        return None;
    }
    usize::try_from(count).ok()
}

/// Nobody can read any more what is written to this end.
pub fn is_broken(write: impl AsFd) -> bool {
    let mut polled = [PollFd::new(write.as_fd(), PollFlags::empty())];
    match poll(&mut polled, PollTimeout::ZERO) {
        Ok(_) => polled.iter().any(|p| {
            p.revents()
                .is_some_and(|events| events.contains(PollFlags::POLLERR))
        }),
        Err(_) => false,
    }
}

/// A write to this end would have to wait.
pub fn is_full(write: impl AsFd) -> bool {
    let mut polled = [PollFd::new(write.as_fd(), PollFlags::POLLOUT)];
    matches!(poll(&mut polled, PollTimeout::ZERO), Ok(0))
}

/// Takes every flag off a pipe's end that can be taken off: reads and writes wait.
///
/// # Errors
/// As fcntl(2); none that a program without bugs sees.
pub fn set_blocking(fd: impl AsFd) -> io::Result<()> {
    fcntl(fd.as_fd(), FcntlArg::F_SETFL(OFlag::empty()))?;
    Ok(())
}

/// Lets reads and writes of this descriptor fail with EAGAIN instead of waiting.
///
/// The flag belongs to the open file description, so every duplicate has it too: set it only on an end that no other
/// process holds. The other end of the pipe is a description of its own and keeps blocking.
///
/// # Errors
/// As fcntl(2); none that a program without bugs sees.
pub fn set_nonblocking(fd: impl AsFd) -> io::Result<()> {
    let fd = fd.as_fd();
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

/// Opens a pipe's read end once more: an open file description of its own, whose reads fail with EAGAIN instead of waiting,
/// while those of the other one wait as before.
///
/// # Errors
/// As open(2); no /proc.
pub fn reopen_read(read: impl AsFd) -> io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", read.as_fd().as_raw_fd());
    OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)
        .map(OwnedFd::from)
}
