//! Makes a child process: one clone(2) that shares the parent's memory until the exec, as posix_spawn does inside.
//!
//! Why not `std::process::Command` or posix_spawn: neither can move descriptors to any number, set rlimits, niceness and
//! PDEATHSIG, *and* say which step failed; and with `pre_exec` the standard library forks, which costs more the
//! more memory procflow has (50 ms at 1 GiB). This is the one place of the program where code runs in the child.

#![allow(unsafe_code)] // see above

use std::ffi::{CStr, c_char, c_int, c_void};
use std::io;
use std::os::fd::RawFd;
use std::ptr;

use nix::errno::Errno;

use crate::sys::process::child::Child;
use crate::sys::process::origin::{KernelAction, Origin, SIGNALS};

/// What a child is to be.
#[derive(Debug, Clone, Copy)]
pub struct Image<'a> {
    /// The program's file; no look-up along a `PATH` here.
    pub program: &'a CStr,
    /// Its arguments, the first being its own name.
    pub argv: &'a [&'a CStr],
    /// Its whole environment, `NAME=value`.
    pub env: &'a [&'a CStr],
    /// The directory it runs in; `None`: ours.
    pub cwd: Option<&'a CStr>,
    /// Which of our descriptors it gets, under which number: (source, target). Targets are distinct. It gets no other, 0 to 2 being
    /// ours where no target says otherwise.
    pub fds: &'a [(RawFd, u32)],
    /// `(RLIMIT_*, value)`, soft and hard alike.
    pub limits: &'a [(u32, u64)],
    /// Added to our niceness; the kernel clamps the sum to -20..=19.
    pub nice: i32,
}

/// The step of a spawn that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// clone(2) itself: nothing is wrong with the image; procflow is out of something.
    Fork,
    /// setpgid(2), prctl(2).
    Group,
    /// dup(2) to this target.
    Fd(u32),
    /// chdir(2).
    Chdir,
    /// setrlimit(2) of this resource.
    Limit(u32),
    /// setpriority(2).
    Nice,
    /// execve(2).
    Exec,
}

/// A child that could not be made. Nothing of it is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{stage:?}: {}", errno.desc())]
pub struct SpawnError {
    /// What failed.
    pub stage: Stage,
    /// Why.
    pub errno: Errno,
}

/// Makes children: with default signal dispositions, the signal mask and the limit of open files that procflow was started
/// with, a process group of their own, and SIGKILL when the thread that made them ends.
///
/// That last point (PR_SET_PDEATHSIG follows the *thread*) is why only threads that live as long as the run make them.
#[derive(Debug)]
pub struct Spawner {
    origin: Origin,
    /// Ours.
    pid: libc::pid_t,
    stack: Stack,
    /// Signals that this process ignores, or was started with ignored: children get the default.
    reset: Vec<c_int>,
}

/// A descriptor on its way to the child.
struct Move {
    source: RawFd,
    target: RawFd,
    /// The source's number is the target of another move, so the source has to be out of the way before that.
    lift: bool,
}

/// What the child does, all of it prepared, and what it says when it fails. It lies in the parent's memory, which the
/// child shares.
struct Order<'a> {
    parent: libc::pid_t,
    program: *const c_char,
    argv: *const *const c_char,
    env: *const *const c_char,
    cwd: *const c_char,
    moves: &'a mut [Move],
    /// Above every target.
    floor: RawFd,
    /// Where ours was raised.
    open_files: Option<&'a libc::rlimit>,
    limits: &'a [(u32, u64)],
    nice: c_int,
    reset: &'a [c_int],
    mask: &'a libc::sigset_t,
    failed: Option<SpawnError>,
}

impl Spawner {
    /// Make it after the last fork (children look whether this process is their parent).
    ///
    /// # Errors
    /// Where there is no memory for the stack.
    pub fn new(origin: Origin) -> io::Result<Self> {
        // What is caught is reset by the exec itself (execve(2)), what procflow never ignores by nobody.
        let ours = [libc::SIGPIPE, libc::SIGTTOU];
        let inherited =
            (1..=64).filter(|signal| origin.was_ignored(*signal) && !ours.contains(signal));
        let reset = ours.into_iter().chain(inherited).collect();
        Ok(Spawner {
            origin,
            // SAFETY: no memory is touched.
            pid: unsafe { libc::getpid() },
            stack: Stack::new()?,
            reset,
        })
    }

    /// What procflow was started with.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Makes a child and comes back when its program has been loaded, or why it could not be. This thread waits for that
    /// long; a program on a file system that hangs makes it hang.
    ///
    /// The trap: for a moment after, the child may still hold copies of descriptors that are close-on-exec. (In the kernel the new
    /// program gets its memory, which is when the parent goes on, before it loses the descriptors.) So the end of data on a pipe whose last end we
    /// have just closed may come a moment late.
    ///
    /// # Errors
    /// The step that failed, and why.
    pub fn spawn(&mut self, image: &Image<'_>) -> Result<Child, SpawnError> {
        let argv = pointers(image.argv);
        let env = pointers(image.env);
        let mut moves = Vec::with_capacity(image.fds.len());
        let mut floor = 3;
        for &(source, target) in image.fds {
            let Some(number) = RawFd::try_from(target)
                .ok()
                .filter(|&target| target < RawFd::MAX)
            else {
                return Err(SpawnError {
                    stage: Stage::Fd(target),
                    errno: Errno::EBADF,
                });
            };
            let lift = image
                .fds
                .iter()
                .any(|&(other, taken)| RawFd::try_from(taken) == Ok(source) && other != source);
            floor = floor.max(number + 1);
            moves.push(Move {
                source,
                target: number,
                lift,
            });
        }
        let mut order = Order {
            parent: self.pid,
            program: image.program.as_ptr(),
            argv: argv.as_ptr(),
            env: env.as_ptr(),
            cwd: image.cwd.map_or(ptr::null(), CStr::as_ptr),
            moves: &mut moves,
            floor,
            open_files: Some(&self.origin.open_files)
                .filter(|limit| limit.rlim_cur < limit.rlim_max),
            limits: image.limits,
            nice: image.nice,
            reset: &self.reset,
            mask: &self.origin.mask,
            failed: None,
        };
        let cloned = clone(&self.stack, &mut order);
        match (cloned, order.failed) {
            (Ok(pid), None) => Ok(Child::new(pid)),
            (Ok(pid), Some(error)) => {
                reap(pid);
                Err(error)
            }
            (Err(errno), _) => Err(SpawnError {
                stage: Stage::Fork,
                errno,
            }),
        }
    }
}

/// The form that execve takes: thin pointers, with a null one at the end.
fn pointers(strings: &[&CStr]) -> Vec<*const c_char> {
    strings
        .iter()
        .map(|string| string.as_ptr())
        .chain([ptr::null()])
        .collect()
}

/// Runs [`child`] on the stack, and comes back when it has executed its program or has failed.
fn clone(stack: &Stack, order: &mut Order<'_>) -> Result<libc::pid_t, Errno> {
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: The child runs `child` on a stack of its own in our memory, while this thread waits (CLONE_VFORK) until it has
    // exec'd or exited; so `order` and all it points to outlive it, and nothing of it is touched by both at once. All
    // signals are blocked around it, or a handler of ours could run in the child, in our memory.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        let order = ptr::from_mut(order).cast();
        let pid = Errno::result(libc::clone(child, stack.top(), flags, order));
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, ptr::null_mut());
        pid
    }
}

/// Takes note of the end of a child that has ended or is about to.
fn reap(pid: libc::pid_t) {
    // SAFETY: no memory is touched: the status is not asked for.
    while unsafe { libc::waitpid(pid, ptr::null_mut(), 0) } < 0 && Errno::last() == Errno::EINTR {}
}

/// The child, from the clone to the exec, on [`Stack`] and in the parent's memory.
///
/// Nothing here may allocate, lock, panic or unwind: only async-signal-safe calls (signal-safety(7)), no indexing, no
/// formatting.
extern "C" fn child(order: *mut c_void) -> c_int {
    // SAFETY: the parent passed a valid `Order`, and sleeps; nobody else has a reference to it.
    let order = unsafe { &mut *order.cast::<Order<'_>>() };
    let failed = prepare_and_exec(order);
    // SAFETY: a plain store, volatile so that it takes place before the exit.
    unsafe {
        ptr::write_volatile(&raw mut order.failed, Some(failed));
        libc::_exit(127)
    }
}

/// Comes back only with what failed.
fn prepare_and_exec(order: &mut Order<'_>) -> SpawnError {
    let fail = |stage| SpawnError {
        stage,
        errno: Errno::last(),
    };
    // SAFETY: system calls on this process alone, with pointers that the parent holds valid until the exec.
    unsafe {
        if libc::setpgid(0, 0) < 0 || libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) < 0 {
            return fail(Stage::Group);
        }
        // The parent may have died before the line above; then nobody would ever end this one.
        if libc::getppid() != order.parent {
            return SpawnError {
                stage: Stage::Group,
                errno: Errno::ESRCH,
            };
        }

        // Descriptors. First the sources that stand where another has to go: dup2 would close them. In the original limit
        // of open files there may be no room for that, so the limit is set after.
        for part in order.moves.iter_mut().filter(|part| part.lift) {
            part.source = libc::fcntl(part.source, libc::F_DUPFD_CLOEXEC, order.floor);
            if part.source < 0 {
                return fail(Stage::Fd(part.target.unsigned_abs()));
            }
        }
        for part in order.moves.iter() {
            let done = if part.source == part.target {
                // dup2 of a number to itself does nothing: it leaves close-on-exec set.
                libc::fcntl(part.target, libc::F_SETFD, 0)
            } else {
                libc::dup2(part.source, part.target)
            };
            if done < 0 {
                return fail(Stage::Fd(part.target.unsigned_abs()));
            }
        }

        if !order.cwd.is_null() && libc::chdir(order.cwd) < 0 {
            return fail(Stage::Chdir);
        }

        if let Some(open_files) = order.open_files {
            // Not checked: it only ever lowers the soft limit that we raised.
            libc::setrlimit(libc::RLIMIT_NOFILE, open_files);
        }
        for &(resource, value) in order.limits {
            let limit = libc::rlimit {
                rlim_cur: value,
                rlim_max: value,
            };
            if libc::setrlimit(resource as _, &raw const limit) < 0 {
                return fail(Stage::Limit(resource));
            }
        }
        if order.nice != 0 {
            // -1 is a niceness, too. There is no error to tell from it: one may always ask for one's own.
            let now = libc::getpriority(libc::PRIO_PROCESS, 0);
            let nice = now.saturating_add(order.nice).clamp(-20, 19);
            if libc::setpriority(libc::PRIO_PROCESS, 0, nice) < 0 {
                return fail(Stage::Nice);
            }
        }

        // An exec resets handlers, but what is ignored stays so: with SIGPIPE ignored, `yes | head` would never end.
        let default = KernelAction::default();
        for &signal in order.reset {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                &raw const default,
                ptr::null_mut::<KernelAction>(),
                SIGNALS / 8,
            );
        }
        // Last, for then a signal may end this process.
        libc::sigprocmask(libc::SIG_SETMASK, order.mask, ptr::null_mut());
        libc::execve(order.program, order.argv, order.env);
        fail(Stage::Exec)
    }
}

/// The stack that children use between clone and exec, one after the other, with a page below it that may not be touched.
#[derive(Debug)]
struct Stack {
    bottom: *mut c_void,
}

// SAFETY: it is memory of the process, owned by this value alone.
unsafe impl Send for Stack {}

impl Stack {
    const SIZE: usize = 64 * 1024;
    const GUARD: usize = 64 * 1024; // the largest page size in use

    fn new() -> io::Result<Self> {
        // SAFETY: a new mapping at a place that the kernel chooses, and a part of it made inaccessible.
        unsafe {
            let flags =
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK | libc::MAP_NORESERVE;
            let prot = libc::PROT_READ | libc::PROT_WRITE;
            let bottom = libc::mmap(
                ptr::null_mut(),
                Self::GUARD + Self::SIZE,
                prot,
                flags,
                -1,
                0,
            );
            if bottom == libc::MAP_FAILED {
                return Err(io::Error::last_os_error());
            }
            let stack = Stack { bottom };
            Errno::result(libc::mprotect(bottom, Self::GUARD, libc::PROT_NONE))?;
            Ok(stack)
        }
    }

    /// Stacks grow down, on every machine that Linux and Rust both run on.
    fn top(&self) -> *mut c_void {
        self.bottom.wrapping_byte_add(Self::GUARD + Self::SIZE)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: exactly what was mapped; no child is on it, for a spawn borrows the spawner until its child has exec'd.
        unsafe { libc::munmap(self.bottom, Self::GUARD + Self::SIZE) };
    }
}
