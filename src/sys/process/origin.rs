//! What procflow was started with, taken down before it changes any of it, so that its children get the original.

#![allow(unsafe_code)] // dispositions, masks and descriptors by number

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::errno::Errno;

/// Signals that the kernel has.
pub(super) const SIGNALS: usize = 64;

/// What rt_sigaction(2) takes: the default disposition where it is all zeroes. The C library's call refuses signals 32 and
/// 33, which it keeps for itself; but our own parent may have left them ignored all the same.
#[repr(C)]
#[derive(Default)]
pub(super) struct KernelAction {
    handler: usize,
    /// Flags, restorer and mask stand in another order on each machine.
    rest: [usize; 7],
}

/// The state that procflow's own parent left it in.
#[derive(Clone)]
pub struct Origin {
    /// Blocked signals.
    pub(super) mask: libc::sigset_t,
    /// RLIMIT_NOFILE.
    pub(super) open_files: libc::rlimit,
    /// Bit n - 1: signal n was ignored, as in `/proc/PID/status`.
    ignored: u64,
    /// Descriptors 0 to 2: it was closed.
    closed: [bool; 3],
}

impl std::fmt::Debug for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Origin")
            .field(
                "open_files",
                &(self.open_files.rlim_cur, self.open_files.rlim_max),
            )
            .field("ignored", &format_args!("{:#x}", self.ignored))
            .field("closed", &self.closed)
            .finish_non_exhaustive()
    }
}

impl Origin {
    /// Takes down what procflow was started with, and then sets up its own process: SIGPIPE ignored (a write to a closed
    /// pipe is an error to handle, not a death), SIGCHLD back to default (ignored, as some init scripts leave it, children
    /// would be reaped by the kernel and their status lost), closed standard descriptors led to `/dev/null` (else the next
    /// file opened would be "standard output"), inherited descriptors from 3 on close-on-exec, and as many open files as
    /// allowed.
    ///
    /// Call it first, before the first thread and before anything is blocked, once.
    ///
    /// # Errors
    /// Where `/dev/null` can't be opened, or a call fails that a program without bugs never sees fail.
    pub fn capture() -> io::Result<Self> {
        // SAFETY: a signal set and a sigaction of zeroes are valid values, and each call writes only to the local variable it is
        // given; dispositions are set to default and ignore, so no code of ours can run by them.
        let (mask, ignored) = unsafe {
            let mut mask = std::mem::zeroed();
            Errno::result(libc::sigprocmask(
                libc::SIG_BLOCK,
                std::ptr::null(),
                &raw mut mask,
            ))?;
            let mut ignored = 0;
            for signal in 1..=SIGNALS {
                let mut action = KernelAction::default();
                let (none, size) = (std::ptr::null::<KernelAction>(), SIGNALS / 8);
                let asked =
                    libc::syscall(libc::SYS_rt_sigaction, signal, none, &raw mut action, size);
                if asked == 0 && action.handler == libc::SIG_IGN {
                    ignored |= 1 << (signal - 1);
                }
            }
            libc::signal(libc::SIGPIPE, libc::SIG_IGN);
            libc::signal(libc::SIGCHLD, libc::SIG_DFL);
            (mask, ignored)
        };
        let closed = open_standard()?;
        close_on_exec_from_3();
        Ok(Origin {
            mask,
            open_files: raise_open_files()?,
            ignored,
            closed,
        })
    }

    /// This signal was ignored: by nohup(1), or a shell's `&` without job control. It should stay so. (SIGPIPE says nothing: Rust's
    /// runtime ignores it before `main`.)
    #[must_use]
    pub fn was_ignored(&self, signal: i32) -> bool {
        (1..=64).contains(&signal) && self.ignored & (1 << (signal - 1)) != 0
    }

    /// Descriptor 0, 1 or 2 was closed, so what is written there goes nowhere.
    #[must_use]
    pub fn was_closed(&self, fd: usize) -> bool {
        self.closed.get(fd).copied().unwrap_or(false)
    }

    /// How many descriptors a child may have open: the soft limit of RLIMIT_NOFILE, as it was.
    #[must_use]
    pub fn open_files(&self) -> u64 {
        self.open_files.rlim_cur
    }
}

/// Bits 0 to 2: the descriptor was closed when the program was loaded.
static CLOSED_AT_LOAD: AtomicU32 = AtomicU32::new(0);

/// Rust's runtime opens `/dev/null` over closed standard descriptors before `main`, for reading and writing. That can't be told afterwards from
/// a parent that did the same on purpose (Python's `subprocess.DEVNULL`), so this looks before the runtime does.
#[used]
#[unsafe(link_section = ".init_array")]
static LOOK_AT_LOAD: extern "C" fn() = {
    extern "C" fn look() {
        for fd in 0..3 {
            // SAFETY: F_GETFD touches no memory, and fails for a closed descriptor.
            if unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
                CLOSED_AT_LOAD.fetch_or(1 << fd, Ordering::Relaxed);
            }
        }
    }
    look
};

/// Says which of descriptors 0 to 2 were closed, and opens `/dev/null` there.
fn open_standard() -> io::Result<[bool; 3]> {
    let mut closed = [false; 3];
    for (fd, closed) in closed.iter_mut().enumerate() {
        // SAFETY: no memory is touched but the constant path. The descriptor is left open on purpose: it is a standard one.
        unsafe {
            let open = i32::try_from(fd).is_ok_and(|fd| libc::fcntl(fd, libc::F_GETFD) >= 0);
            if !open {
                // The lowest free number is this one: those below were looked at before.
                Errno::result(libc::open(c"/dev/null".as_ptr(), libc::O_RDWR))?;
            }
            *closed = !open || CLOSED_AT_LOAD.load(Ordering::Relaxed) & (1 << fd) != 0;
        }
    }
    Ok(closed)
}

/// Descriptors that our parent forgot to close must not get into our children.
fn close_on_exec_from_3() {
    // SAFETY: no memory is touched; no descriptor is closed.
    let done = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            3,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if done == 0 {
        return;
    }
    // Linux before 5.11, or a sandbox that does not know the call.
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else {
        return;
    };
    for fd in entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|fd| *fd > 2)
    {
        // SAFETY: no memory is touched. The directory's own descriptor is among them, and is close-on-exec already.
        unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}

/// Raises the soft limit of open files to the hard one and says what it was.
fn raise_open_files() -> io::Result<libc::rlimit> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: both calls only use the local variables they are given.
    unsafe {
        Errno::result(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit))?;
        let raised = libc::rlimit {
            rlim_cur: limit.rlim_max,
            ..limit
        };
        // Where it is refused (a sandbox), the limit stays and is met when it is met.
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised);
    }
    Ok(limit)
}
