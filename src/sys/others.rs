//! Other processes than our own and its children: what `/proc` says of them, and how to signal one without hitting another that has
//! got its number meanwhile (pidfd_open(2)).

#![allow(unsafe_code)] // calls that nix does not have

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// A process that is none of our children.
#[derive(Debug)]
pub struct Other {
    pid: i32,
    fd: OwnedFd,
}

impl Other {
    /// The process that has this number now; none where no process has. Who takes it for a certain one must look whether it is that
    /// *after* this: the number belongs to it until it has been reaped, and [`Other::signal`] hits it alone for ever.
    ///
    /// # Errors
    /// As pidfd_open(2): no descriptors left; Linux before 5.3.
    pub fn open(pid: i32) -> io::Result<Option<Other>> {
        // SAFETY: no memory is touched.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        match Errno::result(fd) {
            Ok(fd) => {
                let fd = i32::try_from(fd).map_err(io::Error::other)?;
                // SAFETY: the kernel has just made it for us.
                let fd = unsafe { OwnedFd::from_raw_fd(fd) };
                Ok(Some(Other { pid, fd }))
            }
            Err(Errno::ESRCH | Errno::EINVAL) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Its number.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Sends it a signal; false where it has ended.
    ///
    /// # Errors
    /// As pidfd_send_signal(2): it is not ours to signal.
    pub fn signal(&self, signal: i32) -> io::Result<bool> {
        let (fd, none) = (self.fd.as_raw_fd(), std::ptr::null::<libc::siginfo_t>());
        // SAFETY: no memory is touched: there is no siginfo.
        let sent = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, none, 0) };
        match Errno::result(sent) {
            Ok(_) => Ok(true),
            Err(Errno::ESRCH) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    /// Waits for its end, so long at most; true when it has ended.
    ///
    /// # Errors
    /// As poll(2); none that a program without bugs sees.
    pub fn wait(&self, time: Duration) -> io::Result<bool> {
        let time = PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, time) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::EINTR) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }
}

/// What `/proc/PID/stat` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Its number.
    pub pid: i32,
    /// `R` runs, `S` and `D` sleep, `T` is stopped, `Z` has ended and is not reaped.
    pub state: char,
    /// Its parent's number.
    pub parent: i32,
    /// Its process group.
    pub group: i32,
    /// CPU time, of children that it has reaped, too.
    pub cpu: Duration,
    /// Resident memory in bytes.
    pub resident: u64,
}

/// What is known of a process; nothing where there is none.
#[must_use]
pub fn stat(pid: i32) -> Option<Stat> {
    let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
    parse(pid, &String::from_utf8_lossy(&text))
}

/// What is known of all processes.
#[must_use]
pub fn all() -> Vec<Stat> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| stat(entry.file_name().to_str()?.parse().ok()?))
        .collect()
}

/// See proc_pid_stat(5). The name may hold anything, closing parentheses among it.
fn parse(pid: i32, text: &str) -> Option<Stat> {
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    // The first of them is field 3 of the manual page.
    let number = |field: usize| fields.get(field - 3)?.parse::<i64>().ok();
    let ticks: i64 = [14, 15, 16, 17].into_iter().filter_map(number).sum();
    let unsigned = |value: i64| u64::try_from(value).unwrap_or(0);
    // SAFETY: no memory is touched.
    let (hertz, page) = unsafe {
        (
            libc::sysconf(libc::_SC_CLK_TCK),
            libc::sysconf(libc::_SC_PAGESIZE),
        )
    };
    Some(Stat {
        pid,
        state: fields.first()?.chars().next()?,
        parent: i32::try_from(number(4)?).ok()?,
        group: i32::try_from(number(5)?).ok()?,
        cpu: Duration::from_secs_f64(unsigned(ticks) as f64 / unsigned(hertz).max(1) as f64),
        resident: unsigned(number(24)?) * unsigned(page),
    })
}

/// Processes that run the same program as this one, by its name, other than this one.
#[must_use]
pub fn namesakes() -> Vec<i32> {
    let me = nix::unistd::getpid().as_raw();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let pid = entry.file_name();
            let pid = pid
                .to_str()
                .filter(|pid| pid.bytes().all(|b| b.is_ascii_digit()))?;
            pid.parse().ok()
        })
        .filter(|pid| *pid != me && is_namesake(*pid))
        .collect()
}

/// Whether a process runs the same program as this one, by its name.
#[must_use]
pub fn is_namesake(pid: i32) -> bool {
    let own = fs::read("/proc/self/comm").ok();
    own.is_some() && own == fs::read(format!("/proc/{pid}/comm")).ok()
}

/// What the descriptors of a process lead to; nothing where we may not look.
#[must_use]
pub fn open_paths(pid: i32) -> Vec<PathBuf> {
    let fds = fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten();
    fds.flatten()
        .filter_map(|fd| fs::read_link(fd.path()).ok())
        .collect()
}

/// Whether a process has this file or directory open.
#[must_use]
pub fn has_open(pid: i32, file: impl AsFd) -> bool {
    let identity = |path: &Path| {
        let meta = fs::metadata(path).ok()?;
        Some((meta.dev(), meta.ino()))
    };
    let own = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
    let Some(own) = identity(Path::new(&own)) else {
        return false;
    };
    let fds = fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten();
    fds.flatten().any(|fd| identity(&fd.path()) == Some(own))
}

/// A variable of the environment that a process was started with.
#[must_use]
pub fn variable(environment: &[u8], name: &str) -> Option<String> {
    environment
        .split(|b| *b == 0)
        .find_map(|entry| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
        .map(|value| String::from_utf8_lossy(value).into_owned())
}

/// The environment that a process was started with; nothing where we may not look.
#[must_use]
pub fn environment(pid: i32) -> Vec<u8> {
    fs::read(format!("/proc/{pid}/environ")).unwrap_or_default()
}

#[cfg(test)]
#[expect(
    clippy::unwrap_used,
    reason = "a failed step of a test is a failed test"
)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        let text = "7 (a) R 1 (b)) S 3 4 4 0 -1 4194560 9 9 9 9 150 50 0 0 20 0 1 0 123 4096 25 18446744073709551615\n";
        let stat = parse(7, text).unwrap();
        assert_eq!(
            (stat.pid, stat.state, stat.parent, stat.group),
            (7, 'S', 3, 4)
        );
        assert!(stat.cpu >= Duration::from_millis(200) && stat.resident >= 25 * 4096);
        assert_eq!(parse(7, "7 (a) S 3"), None);
    }

    #[test]
    fn a_process_is_known_and_its_end_is_waited_for() {
        let mut child = std::process::Command::new("sleep")
            .arg("1000")
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let other = Other::open(pid).unwrap().unwrap();
        let me = i32::try_from(std::process::id()).unwrap();
        assert_eq!(stat(pid).unwrap().parent, me);
        assert!(!other.wait(Duration::ZERO).unwrap());
        assert!(other.signal(libc::SIGTERM).unwrap());
        while !other.wait(Duration::from_secs(10)).unwrap() {}
        child.wait().unwrap();
        assert!(!other.signal(libc::SIGTERM).unwrap());
        assert!(all().iter().any(|stat| stat.pid == me));
        let dir = tempfile::tempdir().unwrap();
        let open = fs::File::open(dir.path()).unwrap();
        assert!(has_open(me, &open));
        assert!(open_paths(me).contains(&dir.path().to_owned()));
        assert!(!has_open(1, &open) || me == 1);
    }
}
