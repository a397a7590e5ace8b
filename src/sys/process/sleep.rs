//! What a process that does not run sleeps on, as /proc shows it to who may trace it (a user's own processes; see proc(5)).
//!
//! Everything here is a look at something that moves: a process may be another one's by the next call, and what can't be
//! read is taken for gone, or unknown. It is for telling people, never for deciding what to do.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

/// A thread of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Thread {
    /// The process.
    pub process: i32,
    /// The thread; of the first one this is the process's number.
    pub id: i32,
}

/// How far a thread has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What it does now.
    pub activity: Activity,
    /// How often it left a CPU. While that is the same it has not run: CPU time, which is counted in hundredths of a
    /// second, misses a program that does little.
    pub switches: u64,
}

/// What a thread does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// It runs, or is about to.
    Runs,
    /// It waits for a disk, or for what else may not be interrupted.
    OnDisk,
    /// It sleeps, is stopped, or has ended.
    Sleeps,
}

impl Progress {
    /// It comes on by itself.
    pub fn is_busy(&self) -> bool {
        self.activity != Activity::Sleeps
    }
}

/// What a thread sleeps on. The descriptor is missing where that may not be seen (Yama's `ptrace_scope` of 2 or 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sleep {
    /// A pipe without data.
    Read(Option<i32>),
    /// A pipe without room.
    Write(Option<i32>),
    /// The end of a child, another thread, or nothing more (a zombie).
    Own,
    /// Something else, or it can't be seen.
    Other,
}

/// A pipe or fifo: its device and inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PipeId(u64, u64);

/// An end of a pipe that a process holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PipeEnd {
    /// Which.
    pub pipe: PipeId,
    /// It can read from it.
    pub reads: bool,
    /// It can write to it.
    pub writes: bool,
}

/// The threads of a process.
pub fn threads(process: i32) -> Vec<Thread> {
    numbers(&format!("/proc/{process}/task"))
        .map(|id| Thread { process, id })
        .collect()
}

/// The children of a process, those that another one left to it among them. (`/proc/PID/task/TID/children`: they are their
/// thread's.)
pub fn children(process: i32) -> Vec<i32> {
    let of = |thread: Thread| {
        let path = format!("/proc/{process}/task/{}/children", thread.id);
        let text = fs::read_to_string(path).unwrap_or_default();
        text.split_ascii_whitespace()
            .filter_map(|pid| pid.parse().ok())
            .collect::<Vec<i32>>()
    };
    threads(process).into_iter().flat_map(of).collect()
}

/// The process group of a process, while it is there.
pub fn group(process: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name before it may hold anything, parentheses too.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(2)?.parse().ok()
}

/// How far a thread has come, while it is there.
pub fn progress(thread: Thread) -> Option<Progress> {
    let Thread { process, id } = thread;
    progress_of(&fs::read_to_string(format!("/proc/{process}/task/{id}/status")).ok()?)
}

fn progress_of(status: &str) -> Option<Progress> {
    let mut activity = None;
    let mut switches = None;
    for line in status.lines() {
        match line.split_once(':') {
            Some(("State", value)) => {
                activity = Some(match value.trim_start().chars().next() {
                    Some('R') => Activity::Runs,
                    Some('D') => Activity::OnDisk,
                    _ => Activity::Sleeps,
                });
            }
            Some(("voluntary_ctxt_switches" | "nonvoluntary_ctxt_switches", count)) => {
                *switches.get_or_insert(0) += count.trim().parse::<u64>().ok()?;
            }
            _ => {}
        }
    }
    Some(Progress {
        activity: activity?,
        switches: switches?,
    })
}

/// What a thread sleeps on.
pub fn sleep(thread: Thread) -> Sleep {
    let Thread { process, id } = thread;
    let read = |what: &str| fs::read_to_string(format!("/proc/{process}/task/{id}/{what}"));
    // A zombie waits in no function.
    let is_over = || {
        read("status").is_ok_and(|status| status.lines().any(|line| line.starts_with("State:\tZ")))
    };
    let (wchan, call) = (
        read("wchan").unwrap_or_default(),
        read("syscall").unwrap_or_default(),
    );
    match sleep_of(&wchan, &call) {
        Sleep::Other if is_over() => Sleep::Own,
        sleep => sleep,
    }
}

/// `wchan` names the kernel's function that waits (`pipe_read`; `anon_pipe_read` since Linux 6.15; `pipe_wait_readable` in a
/// splice), or is `0` where it may not be seen. `call` is the system call's number and arguments, in hexadecimal.
fn sleep_of(wchan: &str, call: &str) -> Sleep {
    let mut words = call.split_ascii_whitespace();
    let number = words
        .next()
        .and_then(|word| word.parse::<libc::c_long>().ok());
    let arguments: Vec<Option<i32>> = words
        .map(|word| {
            let value = u64::from_str_radix(word.trim_start_matches("0x"), 16).ok()?;
            i32::try_from(value).ok()
        })
        .collect();
    let argument = |index: usize| arguments.get(index).copied().flatten();
    // Of which argument: (what is read, what is written).
    let (read, written) = match number {
        Some(libc::SYS_read | libc::SYS_readv) => (argument(0), None),
        Some(libc::SYS_write | libc::SYS_writev | libc::SYS_vmsplice) => (None, argument(0)),
        Some(libc::SYS_splice) => (argument(0), argument(2)),
        Some(libc::SYS_tee) => (argument(0), argument(1)),
        Some(libc::SYS_sendfile) => (argument(1), argument(0)),
        _ => (None, None),
    };
    if wchan.contains("pipe_read") || wchan.contains("pipe_wait_readable") {
        Sleep::Read(read)
    } else if wchan.contains("pipe_write") || wchan.contains("pipe_wait_writable") {
        Sleep::Write(written)
    } else if wchan.contains("do_wait") || wchan.contains("futex") {
        Sleep::Own
    } else if !wchan.is_empty() && wchan != "0" && !wchan.starts_with("pipe_wait") {
        Sleep::Other
    } else {
        // The function may not be seen. The call alone doesn't say whether its descriptor is a pipe: that is the caller's to see.
        match (number, read, written) {
            (Some(libc::SYS_wait4 | libc::SYS_waitid | libc::SYS_futex), ..) => Sleep::Own,
            (_, Some(fd), None) => Sleep::Read(Some(fd)),
            (_, None, Some(fd)) => Sleep::Write(Some(fd)),
            _ => Sleep::Other,
        }
    }
}

/// The pipe that a descriptor of a process is an end of.
pub fn pipe(process: i32, fd: i32) -> Option<PipeId> {
    pipe_at(&format!("/proc/{process}/fd/{fd}"))
}

/// The pipe that a descriptor of ours is an end of.
pub fn pipe_behind(fd: impl AsFd) -> Option<PipeId> {
    let stat = nix::sys::stat::fstat(fd).ok()?;
    (stat.st_mode & libc::S_IFMT == libc::S_IFIFO).then_some(PipeId(stat.st_dev, stat.st_ino))
}

/// The ends of pipes that a process holds.
pub fn pipe_ends(process: i32) -> Vec<PipeEnd> {
    let dir = format!("/proc/{process}/fd");
    numbers(&dir)
        .filter_map(|fd| {
            let path = format!("{dir}/{fd}");
            // The link's own permissions say how the descriptor was opened: proc_pid_fd(5).
            let mode = fs::symlink_metadata(&path).ok()?.permissions().mode();
            Some(PipeEnd {
                pipe: pipe_at(&path)?,
                reads: mode & 0o400 != 0,
                writes: mode & 0o200 != 0,
            })
        })
        .collect()
}

fn pipe_at(path: &str) -> Option<PipeId> {
    let file = fs::metadata(path).ok()?;
    (file.mode() & libc::S_IFMT == libc::S_IFIFO).then(|| PipeId(file.dev(), file.ino()))
}

/// The names in a directory that are numbers.
fn numbers(dir: &str) -> impl Iterator<Item = i32> {
    fs::read_dir(dir)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        reason = "a test fails by panicking"
    )]

    use std::io::Write;
    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};

    use crate::sys::process::sleep::{
        Activity, Progress, Sleep, Thread, children, group, pipe, pipe_ends, progress, progress_of,
        sleep, sleep_of, threads,
    };

    /// Waits until the first thread of a process sleeps as expected.
    fn until(process: i32, wanted: impl Fn(Sleep) -> bool) -> Sleep {
        let start = Instant::now();
        loop {
            let found = sleep(Thread {
                process,
                id: process,
            });
            if wanted(found) {
                return found;
            }
            assert!(start.elapsed() < Duration::from_secs(60), "{found:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn pid(child: &Child) -> i32 {
        i32::try_from(child.id()).unwrap()
    }

    #[test]
    fn a_process_that_waits_for_data_or_room_is_seen_to() {
        let mut reader = Command::new("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let process = pid(&reader);
        let ours = pipe_ends(i32::try_from(std::process::id()).unwrap());
        assert_eq!(
            until(process, |sleep| matches!(sleep, Sleep::Read(_))),
            Sleep::Read(Some(0))
        );
        let id = pipe(process, 0).unwrap();
        assert!(
            ours.iter()
                .any(|end| end.pipe == id && end.writes && !end.reads)
        );
        assert_eq!(
            threads(process),
            [Thread {
                process,
                id: process
            }]
        );

        let before = progress(threads(process)[0]).unwrap();
        assert_eq!(before.activity, Activity::Sleeps);
        assert_eq!(progress(threads(process)[0]), Some(before));
        // More than its own pipe to us takes.
        let mut stdin = reader.stdin.take().unwrap();
        stdin.write_all(&vec![b'x'; 80 * 1024]).unwrap();
        assert_eq!(
            until(process, |sleep| matches!(sleep, Sleep::Write(_))),
            Sleep::Write(Some(1))
        );
        assert!(progress(threads(process)[0]).unwrap().switches > before.switches);
        drop((stdin, reader.stdout.take()));
        reader.wait().unwrap();
        assert_eq!(
            progress(Thread {
                process,
                id: process
            }),
            None
        );
    }

    #[test]
    fn who_waits_for_a_child_and_who_for_time_are_told_apart() {
        let mut shell = Command::new("sh")
            .args(["-c", "sleep 1000; true"])
            .spawn()
            .unwrap();
        until(pid(&shell), |sleep| sleep == Sleep::Own);
        let [child] = children(pid(&shell))[..] else {
            panic!("{:?}", children(pid(&shell)))
        };
        assert_eq!(group(child), group(pid(&shell)));
        until(child, |sleep| sleep == Sleep::Other);
        let zombie = Thread {
            process: child,
            id: child,
        };
        shell.kill().unwrap();
        shell.wait().unwrap();
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(zombie.process),
            nix::sys::signal::Signal::SIGKILL,
        )
        .unwrap();
    }

    #[test]
    fn what_the_kernel_says_in_its_words() {
        let read = format!("{} 0x3 0x7f00 0x20000 0x0 0x0 0x0", libc::SYS_read);
        let write = format!("{} 0x1 0x7f00 0x20000 0x0 0x0 0x0", libc::SYS_write);
        let splice = format!("{} 0x0 0x0 0x5 0x0 0x100 0x0", libc::SYS_splice);
        let futex = format!("{} 0x7f00 0x80 0x0 0x0 0x0 0x0", libc::SYS_futex);
        for (wchan, call, expected) in [
            ("anon_pipe_read", &*read, Sleep::Read(Some(3))),
            ("pipe_write", &write, Sleep::Write(Some(1))),
            ("pipe_wait_readable", &splice, Sleep::Read(Some(0))),
            ("pipe_wait_writable", &splice, Sleep::Write(Some(5))),
            // Not to be seen which descriptor.
            ("pipe_read", "", Sleep::Read(None)),
            // Before Linux 5.5 both ways.
            ("pipe_wait", &read, Sleep::Read(Some(3))),
            ("0", &write, Sleep::Write(Some(1))),
            ("0", &splice, Sleep::Other),
            ("0", &futex, Sleep::Own),
            ("futex_do_wait", "", Sleep::Own),
            ("do_wait", "", Sleep::Own),
            ("hrtimer_nanosleep", &read, Sleep::Other),
            ("0", "running", Sleep::Other),
            ("", "", Sleep::Other),
        ] {
            assert_eq!(sleep_of(wchan, call), expected, "{wchan:?} {call:?}");
        }
        let status = "Name:\tState: R\nState:\tD (disk sleep)\nvoluntary_ctxt_switches:\t7\nnonvoluntary_ctxt_switches:\t5\n";
        assert_eq!(
            progress_of(status),
            Some(Progress {
                activity: Activity::OnDisk,
                switches: 12
            })
        );
    }
}
