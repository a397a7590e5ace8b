//! The pipe of a GNU make jobserver: each byte in it is the right to run one job. Who takes one puts it back.
//!
//! The pipe is shared with programs that block on it, so it is opened anew here: O_NONBLOCK is of the open file description, and set on
//! the shared one it would be everybody's. (Between "there is something to read" and the read somebody else may have read it.)

#![allow(unsafe_code)] // shared memory, an inherited descriptor by number

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use nix::errno::Errno;
use nix::fcntl::OFlag;

use crate::sys::pipe::unread;

/// A jobserver's pipe, to take from and to put back. Neither waits.
#[derive(Debug)]
pub struct TokenPipe {
    own: OwnedFd,
}

impl TokenPipe {
    /// Opens a fifo.
    ///
    /// # Errors
    /// As open(2); it is no fifo.
    pub fn of_path(path: &Path) -> io::Result<Self> {
        // Both ways at once, which Linux allows: nothing waits for a reader, and the pipe never comes to its end.
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags((OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOCTTY).bits())
            .open(path)?;
        match file.metadata()?.file_type().is_fifo() {
            true => Ok(TokenPipe { own: file.into() }),
            false => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no fifo")),
        }
    }

    /// Opens a pipe that this process has a descriptor of.
    ///
    /// # Errors
    /// The descriptor is not open, or is no pipe's; there is no /proc.
    pub fn of_fd(fd: RawFd) -> io::Result<Self> {
        // SAFETY: no memory is touched.
        Errno::result(unsafe { libc::fcntl(fd, libc::F_GETFD) })?;
        TokenPipe::of_path(Path::new(&format!("/proc/self/fd/{fd}")))
    }

    /// Takes tokens, up to `most`, and adds them to `tokens`. There may be fewer, and none.
    ///
    /// # Errors
    /// As read(2); none that a program without bugs sees.
    pub fn take(&self, most: usize, tokens: &mut Vec<u8>) -> io::Result<()> {
        let mut block = [0; 4096];
        let mut left = most;
        while left > 0 {
            let room = block.get_mut(..left.min(4096)).unwrap_or_default();
            match nix::unistd::read(&self.own, room) {
                Ok(0) | Err(Errno::EAGAIN) => return Ok(()),
                Ok(count) => {
                    tokens.extend_from_slice(room.get(..count).unwrap_or_default());
                    left -= count;
                }
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// Puts tokens back; how many it took. Fewer than all where the pipe is full, of which no jobserver has a use.
    ///
    /// # Errors
    /// As write(2); none that a program without bugs sees.
    pub fn put(&self, tokens: &[u8]) -> io::Result<usize> {
        let mut done = 0;
        while let Some(rest) = tokens.get(done..).filter(|rest| !rest.is_empty()) {
            match nix::unistd::write(&self.own, rest) {
                Ok(count) => done += count,
                Err(Errno::EAGAIN) => break,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(done)
    }

    /// How many lie in it.
    #[must_use]
    pub fn lying(&self) -> usize {
        unread(&self.own).unwrap_or(0)
    }
}

impl AsFd for TokenPipe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.own.as_fd()
    }
}

/// So many tokens can be written down.
const MOST: usize = 4096 - size_of::<usize>();

/// What this process has taken of somebody else's tokens, in memory that it shares with the processes it forks: so that one that
/// outlives it can give them back. Make it before the fork.
#[derive(Debug)]
pub struct Debt {
    pipe: RawFd,
    page: *mut Page,
}

#[repr(C)]
struct Page {
    count: AtomicUsize,
    tokens: [AtomicU8; MOST],
}

// SAFETY: the page is only touched by atomic operations, and stays mapped as long as the value lives.
unsafe impl Send for Debt {}
// SAFETY: as above.
unsafe impl Sync for Debt {}

impl Debt {
    /// Nothing is owed to this pipe. It must stay open in whoever [pays](Debt::pay).
    ///
    /// # Errors
    /// Where there is no memory.
    pub fn to(pipe: &TokenPipe) -> io::Result<Self> {
        // SAFETY: a new mapping at a place that the kernel chooses; it is all zeroes, which is a valid page.
        let page = unsafe {
            let prot = libc::PROT_READ | libc::PROT_WRITE;
            let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
            libc::mmap(ptr::null_mut(), size_of::<Page>(), prot, flags, -1, 0)
        };
        if page == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Debt {
            pipe: pipe.own.as_raw_fd(),
            page: page.cast(),
        })
    }

    fn page(&self) -> &Page {
        // SAFETY: mapped, aligned, and valid whatever its bytes are.
        unsafe { &*self.page }
    }

    /// These are all that are held now. Say fewer before they are put back and more after they were taken: whoever is killed in between then
    /// keeps one, instead of giving it back twice.
    pub fn is(&self, tokens: &[u8]) {
        let page = self.page();
        for (slot, token) in page.tokens.iter().zip(tokens) {
            slot.store(*token, Ordering::Relaxed);
        }
        page.count.store(tokens.len().min(MOST), Ordering::Release);
    }

    /// Gives everything back that is owed, for a process that is gone. Async-signal-safe, and does not allocate.
    pub fn pay(&self) {
        let page = self.page();
        let count = page.count.swap(0, Ordering::Acquire).min(MOST);
        for token in page.tokens.iter().take(count) {
            let token = token.load(Ordering::Relaxed);
            // SAFETY: one byte of a local variable is read. Where it cannot be written there is nobody to tell.
            unsafe { libc::write(self.pipe, (&raw const token).cast(), 1) };
        }
    }
}

impl Drop for Debt {
    fn drop(&mut self) {
        // SAFETY: exactly what was mapped, and nobody has a reference into it any more.
        unsafe { libc::munmap(self.page.cast(), size_of::<Page>()) };
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::os::fd::AsRawFd;

    use nix::fcntl::{FcntlArg, OFlag, fcntl};

    use crate::sys::pipe::Pipe;
    use crate::sys::tokens::{Debt, TokenPipe};

    #[test]
    fn tokens_are_taken_and_put_back_and_nobody_waits() {
        let pipe = Pipe::new(4096).unwrap();
        let tokens = TokenPipe::of_fd(pipe.read.as_raw_fd()).unwrap();
        let mut held = Vec::new();
        tokens.take(3, &mut held).unwrap();
        assert_eq!(held, b"");
        assert_eq!(tokens.put(b"abcde").unwrap(), 5);
        tokens.take(3, &mut held).unwrap();
        assert_eq!((held.as_slice(), tokens.lying()), (&b"abc"[..], 2));
        tokens.take(usize::MAX, &mut held).unwrap();
        assert_eq!((held.as_slice(), tokens.lying()), (&b"abcde"[..], 0));
        // Full: it says so.
        let room = tokens.put(&[b'+'; 100_000]).unwrap();
        assert_eq!(tokens.lying(), room);
        assert_eq!(tokens.put(b"+").unwrap(), 0);
    }

    #[test]
    fn those_who_share_the_pipe_still_wait() {
        let pipe = Pipe::new(4096).unwrap();
        let _tokens = TokenPipe::of_fd(pipe.read.as_raw_fd()).unwrap();
        for end in [&pipe.read, &pipe.write] {
            let flags = OFlag::from_bits_retain(fcntl(end, FcntlArg::F_GETFL).unwrap());
            assert!(!flags.contains(OFlag::O_NONBLOCK));
        }
    }

    #[test]
    fn what_is_no_pipe_is_refused() {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(TokenPipe::of_fd(file.as_raw_fd()).is_err());
        assert!(TokenPipe::of_fd(-2).is_err());
        assert!(TokenPipe::of_fd(987_654).is_err());
        assert!(TokenPipe::of_path("/dev/null".as_ref()).is_err());
    }

    #[test]
    fn what_is_owed_is_paid_once() {
        let pipe = Pipe::new(4096).unwrap();
        let tokens = TokenPipe::of_fd(pipe.read.as_raw_fd()).unwrap();
        let debt = Debt::to(&tokens).unwrap();
        debt.pay();
        assert_eq!(tokens.lying(), 0);
        debt.is(b"abc");
        debt.is(b"ab");
        debt.pay();
        debt.pay();
        let mut paid = Vec::new();
        tokens.take(9, &mut paid).unwrap();
        assert_eq!(paid, b"ab");
    }
}
