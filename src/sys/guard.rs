//! Sees to it that nothing is left behind, whatever happens to the runner.
//!
//! ```text
//! user's shell ── guard (the pid that the user knows) ── runner (the loop) ── nodes
//!                       ── control pipe: signals ──▶
//! ```
//!
//! The process that the user started becomes the *guard*: it forks the *runner* and then only waits. Both are child subreapers,
//! so whatever loses its parent comes to the runner while that lives, and to the guard after; even a process in a session
//! of its own can't get past the two.
//!
//! - The runner and the nodes are in process groups of their own, in the background for the terminal. So Ctrl-C and Ctrl-Z reach the
//!   guard alone, which passes each signal on, once, as a byte through the control pipe.
//! - The guard ends: the runner reads the end of the pipe, and kills everything ([`sweep`]).
//! - The runner ends: the guard kills everything, and then ends as the runner did.
//! - Both are killed at the same instant: nodes have PDEATHSIG. What they started and put into a session of its own then is beyond us.
//!
//! The guard does not allocate, does not open files but `/proc`'s list of its children, and can't run out of anything.

#![allow(unsafe_code)] // fork, sigwaitinfo, and calls that must not allocate

use std::ffi::{CStr, c_int};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::pipe2;

use crate::sys::pipe::set_nonblocking;
use crate::sys::process::Origin;
use crate::sys::signals::die_by;
use crate::sys::tokens::Debt;

/// What the guard waits for. Those that were ignored when procflow was started are not among them, and stay ignored.
const SIGNALS: [c_int; 10] = [
    libc::SIGINT,
    libc::SIGTERM,
    libc::SIGHUP,
    libc::SIGQUIT,
    libc::SIGTSTP,
    libc::SIGWINCH,
    libc::SIGCONT,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGCHLD,
];

/// How long killed processes may take to be gone. One that hangs in the kernel (a dead network file system) can take
/// for ever, and nobody can do anything about it.
const PATIENCE: Duration = Duration::from_secs(10);

/// The runner's end of the control pipe. Readable when there is something to read.
#[derive(Debug)]
pub struct Link {
    control: OwnedFd,
}

/// What the guard says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// It got this signal. After SIGTSTP it waits for the runner to stop itself
    /// ([`stop_self`](crate::sys::signals::stop_self)), and then stops, too.
    Signal(i32),
    /// It is gone. Nobody will see to what is left: kill everything now.
    GuardGone,
}

impl Link {
    /// The next thing that the guard says, if there is one.
    ///
    /// # Errors
    /// As read(2); none that a program without bugs sees.
    pub fn read_signal(&self) -> io::Result<Option<Notice>> {
        let mut byte = [0];
        match nix::unistd::read(&self.control, &mut byte) {
            Ok(0) => Ok(Some(Notice::GuardGone)),
            Ok(_) => Ok(Some(Notice::Signal(i32::from(byte[0])))),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.control.as_fd()
    }
}

/// Makes this process the guard, and comes back in the runner, a new process. In the guard it never comes back.
///
/// `debt`: what the runner owes to a jobserver, which the guard pays back when that has ended without.
///
/// Call it right after [`Origin::capture`], while there is one thread only. In the runner SIGTTOU is ignored, so that it can write to the
/// terminal from the background.
///
/// # Errors
/// Where there is no runner to be had: as fork(2) and pipe(2).
///
/// # Panics
/// Never, in the guard.
pub fn start(origin: &Origin, debt: Option<&Debt>) -> io::Result<Link> {
    let (control, forward) = pipe2(OFlag::O_CLOEXEC)?;
    // The guard never waits for a runner that does not read; a signal that finds the pipe full (64 Ki of them) is lost.
    set_nonblocking(&forward)?;
    set_nonblocking(&control)?;
    become_subreaper()?;
    // Who exec'd procflow may have had children, which are ours now, and none of our business. Those that end later stay
    // zombies until we end.
    let strangers = children_now();
    // SAFETY: a set of zeroes is valid, and the calls write only to local variables.
    let waited = unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in SIGNALS
            .into_iter()
            .filter(|&signal| !origin.was_ignored(signal) || signal == libc::SIGCHLD)
        {
            libc::sigaddset(&raw mut set, signal);
        }
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut());
        set
    };
    // SAFETY: there is one thread, by this function's contract, so the new process is a whole copy.
    let forked = unsafe { libc::fork() };
    match Errno::result(forked)? {
        0 => {
            drop(forward);
            become_runner()?;
            Ok(Link { control })
        }
        runner => {
            drop(control);
            Guard {
                runner,
                forward,
                waited,
                strangers: &strangers,
                debt,
            }
            .watch()
        }
    }
}

/// What loses its parent comes to this process, instead of to init. [`start`] does it.
///
/// # Errors
/// As prctl(2): on Linux before 3.4.
pub fn become_subreaper() -> io::Result<()> {
    // SAFETY: no memory is touched.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) })?;
    Ok(())
}

fn become_runner() -> io::Result<()> {
    // Not inherited by fork.
    become_subreaper()?;
    // SAFETY: no memory is touched; ignoring a signal runs no code of ours.
    unsafe {
        Errno::result(libc::setpgid(0, 0))?;
        libc::signal(libc::SIGTTOU, libc::SIG_IGN);
        // A runner that is stopped reads no pipe. SIGCONT wakes it, and it sees that the guard has gone. (If that is so already, the
        // pipe says it: nothing to check here.)
        Errno::result(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGCONT, 0, 0, 0))?;
    }
    Ok(())
}

struct Guard<'a> {
    runner: libc::pid_t,
    forward: OwnedFd,
    waited: libc::sigset_t,
    strangers: &'a [libc::pid_t],
    debt: Option<&'a Debt>,
}

impl Guard<'_> {
    /// The guard's whole life.
    fn watch(self) -> ! {
        // The runner does it, too; whoever comes first. It must not be in the guard's group when the terminal's next
        // signal comes.
        // SAFETY: no memory is touched.
        unsafe { libc::setpgid(self.runner, self.runner) };
        let mut stopping = false;
        loop {
            // SAFETY: the set is valid, and no siginfo is asked for.
            let signal = unsafe { libc::sigwaitinfo(&raw const self.waited, ptr::null_mut()) };
            match signal {
                libc::SIGCHLD => match self.look_at_runner() {
                    Runner::Runs => {}
                    Runner::Stopped if stopping => {
                        stopping = false;
                        self.stop_and_continue();
                    }
                    // Somebody stopped the runner alone: for a debugger, say. They know how to continue it.
                    Runner::Stopped => {}
                    Runner::Ended(status) => self.end(status),
                },
                libc::SIGTSTP => {
                    stopping = true;
                    self.tell(signal);
                }
                libc::SIGCONT => {
                    stopping = false;
                    self.continue_runner();
                }
                signal if signal > 0 => self.tell(signal),
                // EINTR: a debugger.
                _ => {}
            }
        }
    }

    fn tell(&self, signal: c_int) {
        let byte = u8::try_from(signal).unwrap_or(0);
        // SAFETY: one byte of a local variable is read.
        unsafe { libc::write(self.forward.as_raw_fd(), (&raw const byte).cast(), 1) };
    }

    fn continue_runner(&self) {
        // SAFETY: no memory is touched; the runner is our child, and not reaped.
        unsafe { libc::kill(self.runner, libc::SIGCONT) };
        self.tell(libc::SIGCONT);
    }

    /// Stops this process the way Ctrl-Z does, so that the shell says so; comes back when it goes on. Where no shell
    /// is there to continue it (an orphaned process group), the kernel ignores the signal, and so it goes on at once.
    fn stop_and_continue(&self) {
        // SAFETY: calls on this process alone, with local variables; SIGTSTP's disposition is the default.
        unsafe {
            let mut stop: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut stop);
            libc::sigaddset(&raw mut stop, libc::SIGTSTP);
            libc::raise(libc::SIGTSTP);
            libc::sigprocmask(libc::SIG_UNBLOCK, &raw const stop, ptr::null_mut());
            // Stopped, and continued.
            libc::sigprocmask(libc::SIG_BLOCK, &raw const stop, ptr::null_mut());
            // Told once is enough: the SIGCONT that ended the stop waits to be read.
            let mut cont: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut cont);
            libc::sigaddset(&raw mut cont, libc::SIGCONT);
            let now = libc::timespec {
                tv_sec: 0,
                tv_nsec: 0,
            };
            libc::sigtimedwait(&raw const cont, ptr::null_mut(), &raw const now);
        }
        self.continue_runner();
    }

    fn look_at_runner(&self) -> Runner {
        let mut status = 0;
        let mut seen = Runner::Runs;
        loop {
            // SAFETY: only the local variable is written.
            let pid = unsafe {
                libc::waitpid(
                    self.runner,
                    &raw mut status,
                    libc::WNOHANG | libc::WUNTRACED,
                )
            };
            if pid != self.runner {
                return seen;
            }
            if !libc::WIFSTOPPED(status) {
                return Runner::Ended(status);
            }
            seen = Runner::Stopped;
        }
    }

    /// Ends everything that is left, and then this process, as the runner ended.
    fn end(&self, status: c_int) -> ! {
        // SAFETY: no memory is touched. SIGCHLD alone ends the wait in `kill_all`.
        kill_all(c"/proc/thread-self/children", self.strangers);
        if let Some(debt) = self.debt {
            debt.pay();
        }
        take_terminal_back();
        if libc::WIFEXITED(status) {
            // SAFETY: nothing is left to be done.
            unsafe { libc::_exit(libc::WEXITSTATUS(status)) };
        }
        let signal = libc::WTERMSIG(status);
        if signal == libc::SIGKILL {
            // The one end that nobody else can tell of.
            let text = b"procflow: the runner was killed (SIGKILL); everything it had started has been ended\n";
            // SAFETY: a constant text is read.
            unsafe { libc::write(2, text.as_ptr().cast(), text.len()) };
        }
        die_by(signal);
        // SAFETY: nothing is left to be done.
        unsafe { libc::_exit(128 + signal) }
    }
}

/// Where the terminal was given to a node ([`foreground`]) that is gone now, makes this process's group its foreground again: a script
/// that started us can't read it otherwise. (A runner that ends in order has done it.)
fn take_terminal_back() {
    // SAFETY: no memory is touched; descriptor 0 is open for as long as the process lives, since Origin::capture.
    unsafe {
        let (group, own) = (libc::tcgetpgrp(0), libc::getpgrp());
        if group > 0 && group != own && Errno::result(libc::kill(-group, 0)) == Err(Errno::ESRCH) {
            foreground(BorrowedFd::borrow_raw(0), own);
        }
    }
}

enum Runner {
    Runs,
    Stopped,
    /// With this wait status.
    Ended(c_int),
}

/// Kills every process that descends from this one, and waits until they are gone. True when they are.
///
/// For the runner's own end. It must be a subreaper (see [`start`]), or what loses its parent meanwhile gets away. Every child is reaped,
/// so nothing that waits for one may run any more.
pub fn sweep() -> bool {
    let deadline = Instant::now() + PATIENCE;
    // A process has a list of children for each of its threads.
    loop {
        let mut gone = true;
        match std::fs::read_dir("/proc/self/task") {
            Ok(threads) => {
                for thread in threads.flatten() {
                    let path = thread.path().join("children");
                    if let Ok(path) =
                        std::ffi::CString::new(path.into_os_string().into_encoded_bytes())
                    {
                        gone &= kill_children(&path, &[]) == 0;
                    }
                }
            }
            // Out of descriptors, say.
            Err(_) => gone = kill_children(c"/proc/thread-self/children", &[]) == 0,
        }
        if gone {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        reap_or_wait();
    }
}

/// As [`sweep`], for one thread and without allocating.
fn kill_all(list: &CStr, spared: &[libc::pid_t]) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while kill_children(list, spared) > 0 {
        if Instant::now() > deadline {
            return false;
        }
        reap_or_wait();
    }
    true
}

/// Reaps what has ended; where nothing has, waits for a moment until something does. Descendants become children when
/// their parents have ended, so it takes a round for each generation.
fn reap_or_wait() {
    // SAFETY: only local variables are used; the status is not asked for.
    unsafe {
        let mut reaped = false;
        while libc::waitpid(-1, ptr::null_mut(), libc::WNOHANG) > 0 {
            reaped = true;
        }
        if reaped {
            return;
        }
        // SIGCHLD may be blocked here or not, and another thread may take it: so no more than a moment.
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        let moment = libc::timespec {
            tv_sec: 0,
            tv_nsec: 5_000_000,
        };
        libc::sigtimedwait(&raw const set, ptr::null_mut(), &raw const moment);
    }
}

/// Sends SIGKILL to every child on this list and says how many there are. They are children that are not reaped, and only this thread
/// reaps, so no number can have become someone else's.
fn kill_children(list: &CStr, spared: &[libc::pid_t]) -> usize {
    let mut count = 0;
    each_child(list, |pid| {
        if !spared.contains(&pid) {
            count += 1;
            // SAFETY: no memory is touched.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
    });
    count
}

fn children_now() -> Vec<libc::pid_t> {
    let mut pids = Vec::new();
    each_child(c"/proc/thread-self/children", |pid| pids.push(pid));
    pids
}

/// Reads a list of children: numbers with a space after each. See proc_pid_task_tid_children(5). Without allocating.
fn each_child(list: &CStr, mut found: impl FnMut(libc::pid_t)) {
    // SAFETY: the path ends in NUL; the buffer is as long as is said; the descriptor is closed once.
    unsafe {
        let fd = libc::open(list.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
        if fd < 0 {
            return;
        }
        let mut buffer = [0u8; 4096];
        let mut pid: libc::pid_t = 0;
        while let Ok(length) =
            usize::try_from(libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len()))
        {
            if length == 0 {
                break;
            }
            for byte in buffer.iter().take(length) {
                if byte.is_ascii_digit() {
                    pid = pid
                        .wrapping_mul(10)
                        .wrapping_add(libc::pid_t::from(byte - b'0'));
                } else if pid > 0 {
                    found(pid);
                    pid = 0;
                }
            }
        }
        libc::close(fd);
    }
}

/// Gives the terminal to a process group: to a node that reads it (`stdin = "inherit"`), or back to the guard's.
/// True if it has it now; false where `terminal` is none, or not this session's.
///
/// While a node has the terminal, Ctrl-C and Ctrl-Z reach that node alone.
pub fn foreground(terminal: impl AsFd, group: i32) -> bool {
    // SAFETY: only local variables are used. SIGTTOU, which stops who does this from the background, is blocked around it.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGTTOU);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, &raw mut before);
        let done = libc::tcsetpgrp(terminal.as_fd().as_raw_fd(), group);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, ptr::null_mut());
        done == 0
    }
}

/// The process group that has this terminal; `None` where it is no terminal, not this session's, or nobody has it any more.
pub fn foreground_group(terminal: impl AsFd) -> Option<i32> {
    // SAFETY: no memory is touched.
    let group = unsafe { libc::tcgetpgrp(terminal.as_fd().as_raw_fd()) };
    (group > 0).then_some(group)
}

/// Sends a signal to the guard's process group, as the terminal does with what is typed: to the guard and to all that the user's shell
/// started with it.
pub fn signal_job(signal: i32) {
    let group = guard_group();
    if group > 0 {
        // SAFETY: no memory is touched. The guard lives as long as we do, and its group as long as it; where it is being killed at this
        // moment, so are we.
        unsafe { libc::kill(-group, signal) };
    }
}

/// The guard's process group, for [`foreground`].
#[must_use]
pub fn guard_group() -> i32 {
    // SAFETY: no memory is touched. Where the guard has gone this is another process's, or an error's -1; giving it the terminal then fails.
    unsafe { libc::getpgid(libc::getppid()) }
}
