//! What a child of `sys::process` is like, and what is said of its end: real processes, each waited for until it has ended.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may stop")]

use std::ffi::{CStr, CString};
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::OnceLock;
use std::thread;

use nix::errno::Errno;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use procflow::sys::guard::become_subreaper;
use procflow::sys::pipe::Pipe;
use procflow::sys::process::{Child, Image, Origin, SpawnError, Spawner, Stage, Usage};

fn origin() -> Origin {
    static ORIGIN: OnceLock<Origin> = OnceLock::new();
    ORIGIN.get_or_init(|| Origin::capture().unwrap()).clone()
}

/// An image with the program's name, arguments and nothing special.
fn plain<'a>(program: &'a CStr, argv: &'a [&'a CStr]) -> Image<'a> {
    Image {
        program,
        argv,
        env: &[c"PATH=/usr/bin:/bin"],
        cwd: None,
        fds: &[],
        limits: &[],
        nice: 0,
    }
}

fn spawn(image: &Image<'_>) -> Result<Child, SpawnError> {
    Spawner::new(origin()).unwrap().spawn(image)
}

/// Waits for the end.
fn end(child: &mut Child) -> ExitStatus {
    wait(child).0
}

/// Waits for the end; what it used as well.
fn wait(child: &mut Child) -> (ExitStatus, Usage) {
    let ended = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
    waitid(Id::Pid(Pid::from_raw(child.pid())), ended).unwrap();
    child.try_wait().unwrap().expect("it has ended")
}

/// Runs a shell script with what the rest of the image says; gives what it wrote to descriptor 1.
fn sh(script: &str, rest: Image<'_>) -> (String, ExitStatus) {
    let script = CString::new(script).unwrap();
    run(&Image {
        program: c"/bin/sh",
        argv: &[c"sh", c"-c", &script],
        ..rest
    })
}

/// For [`sh`]: nothing special.
fn nothing() -> Image<'static> {
    plain(c"", &[])
}

/// Runs an image, with a pipe as descriptor 1 besides its own.
fn run(image: &Image<'_>) -> (String, ExitStatus) {
    let null = File::open("/dev/null").unwrap();
    let Pipe { read, write } = Pipe::new(65536).unwrap();
    let mut fds = image.fds.to_vec();
    fds.push((write.as_raw_fd(), 1));
    if !fds.iter().any(|(_, target)| *target == 0) {
        fds.push((null.as_raw_fd(), 0));
    }
    let mut child = spawn(&Image {
        fds: &fds,
        ..*image
    })
    .unwrap();
    drop(write);
    let mut text = String::new();
    File::from(read).read_to_string(&mut text).unwrap();
    (text, end(&mut child))
}

fn error(image: &Image<'_>) -> (Stage, Errno) {
    let error = spawn(image).expect_err("it must not start");
    (error.stage, error.errno)
}

#[test]
fn descriptors_by_number_and_no_other() {
    let inherited = File::open("/dev/null").unwrap();
    let (three, seven) = (Pipe::new(4096).unwrap(), Pipe::new(4096).unwrap());
    let fds = [(three.write.as_raw_fd(), 3), (seven.write.as_raw_fd(), 7)];
    let script = "echo three >&3; echo seven >&7; exec ls /proc/self/fd";
    let (out, status) = sh(
        script,
        Image {
            fds: &fds,
            ..nothing()
        },
    );
    drop((three.write, seven.write));
    assert!(status.success());
    // 4 is the directory that ls reads.
    assert_eq!(
        out, "0\n1\n2\n3\n4\n7\n",
        "although {inherited:?} is open here"
    );
    let mut text = String::new();
    File::from(three.read).read_to_string(&mut text).unwrap();
    File::from(seven.read).read_to_string(&mut text).unwrap();
    assert_eq!(text, "three\nseven\n");
}

#[test]
fn descriptors_that_stand_in_each_other_s_place() {
    let (a, b) = (Pipe::new(4096).unwrap(), Pipe::new(4096).unwrap());
    let number = |fd: &dyn AsRawFd| (fd.as_raw_fd(), u32::try_from(fd.as_raw_fd()).unwrap());
    let ((a_fd, a_place), (b_fd, b_place)) = (number(&a.write), number(&b.write));
    // The two swapped, one of them under a second number as well.
    let fds = [(a_fd, b_place), (b_fd, a_place), (a_fd, 500)];
    let script =
        format!("echo 1 >/dev/fd/{a_place}; echo 2 >/dev/fd/{b_place}; echo 3 >/dev/fd/500");
    assert!(
        sh(
            &script,
            Image {
                fds: &fds,
                ..nothing()
            }
        )
        .1
        .success()
    );
    drop((a.write, b.write));
    let (mut at_a, mut at_b) = (String::new(), String::new());
    File::from(a.read).read_to_string(&mut at_a).unwrap();
    File::from(b.read).read_to_string(&mut at_b).unwrap();
    assert_eq!((at_a.as_str(), at_b.as_str()), ("2\n3\n", "1\n"));
}

#[test]
fn a_descriptor_that_keeps_its_number_loses_close_on_exec() {
    let pipe = Pipe::new(4096).unwrap();
    let fd = pipe.write.as_raw_fd();
    let fds = [(fd, u32::try_from(fd).unwrap())];
    assert!(
        sh(
            &format!("echo here >/dev/fd/{fd}"),
            Image {
                fds: &fds,
                ..nothing()
            }
        )
        .1
        .success()
    );
    drop(pipe.write);
    let mut text = String::new();
    File::from(pipe.read).read_to_string(&mut text).unwrap();
    assert_eq!(text, "here\n");
}

#[test]
fn its_ends_block_although_ours_do_not() {
    let pipe = Pipe::new(4096).unwrap();
    procflow::sys::pipe::set_nonblocking(&pipe.read).unwrap();
    let fds = [(pipe.write.as_raw_fd(), 3)];
    // Octal: O_WRONLY alone, no O_NONBLOCK (04000).
    let (out, _) = sh(
        "grep flags /proc/self/fdinfo/3",
        Image {
            fds: &fds,
            ..nothing()
        },
    );
    assert_eq!(out, "flags:\t01\n");
}

/// The fields of `/proc/self/status` or `stat` that matter, as a child sees them.
fn status_field(name: &str) -> String {
    let argv = [c"cat", c"/proc/self/status"];
    let (text, _) = run(&plain(c"/bin/cat", &argv));
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().to_owned()
}

#[test]
fn signals_are_as_a_program_expects_them() {
    // Rust's runtime ignores SIGPIPE for us: here it must not be.
    assert_eq!(status_field("SigIgn:"), "0000000000000000");
    assert_eq!(status_field("SigCgt:"), "0000000000000000");
}

#[test]
fn it_leads_a_group_of_its_own() {
    let argv = [c"cat", c"/proc/self/stat"];
    let (text, _) = run(&plain(c"/bin/cat", &argv));
    let fields: Vec<&str> = text.split(' ').collect();
    assert_eq!(fields[0], fields[4], "pid and process group: {text}");
    assert_eq!(
        fields[3],
        std::process::id().to_string(),
        "its parent: {text}"
    );
}

#[test]
fn environment_and_directory() {
    let dir = tempfile::tempdir().unwrap();
    let path = CString::new(dir.path().to_str().unwrap()).unwrap();
    let argv = [c"env"];
    let env = [c"A=\xff", c"B="];
    let image = Image {
        env: &env,
        ..plain(c"/usr/bin/env", &argv)
    };
    let null = File::open("/dev/null").unwrap();
    let pipe = Pipe::new(4096).unwrap();
    let fds = [(null.as_raw_fd(), 0), (pipe.write.as_raw_fd(), 1)];
    let mut child = spawn(&Image { fds: &fds, ..image }).unwrap();
    drop(pipe.write);
    let mut bytes = Vec::new();
    File::from(pipe.read).read_to_end(&mut bytes).unwrap();
    assert!(end(&mut child).success());
    assert_eq!(bytes, b"A=\xff\nB=\n");

    let (out, _) = sh(
        "pwd -P",
        Image {
            cwd: Some(&path),
            ..nothing()
        },
    );
    assert_eq!(
        out.trim_end(),
        dir.path().canonicalize().unwrap().to_str().unwrap()
    );
}

#[test]
fn limits_and_niceness() {
    let (out, _) = sh(
        "ulimit -Sn; ulimit -Hn; ulimit -c",
        Image {
            limits: &[(libc::RLIMIT_NOFILE, 50), (libc::RLIMIT_CORE, 0)],
            ..nothing()
        },
    );
    assert_eq!(out, "50\n50\n0\n");

    let own: i32 = sh("nice", nothing()).0.trim().parse().unwrap();
    assert_eq!(
        sh(
            "nice",
            Image {
                nice: 3,
                ..nothing()
            }
        )
        .0
        .trim(),
        (own + 3).min(19).to_string()
    );
    assert_eq!(
        sh(
            "nice",
            Image {
                nice: 1000,
                ..nothing()
            }
        )
        .0
        .trim(),
        "19"
    );
}

#[test]
fn each_step_that_fails_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str, mode| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        CString::new(path.to_str().unwrap()).unwrap()
    };
    let argv = [c"x"];
    let program = |program: &CStr| error(&plain(program, &argv));
    assert_eq!(program(c"/no/such"), (Stage::Exec, Errno::ENOENT));
    assert_eq!(
        program(&file("interpreter", "#!/no/such\n", 0o755)),
        (Stage::Exec, Errno::ENOENT)
    );
    assert_eq!(
        program(&file("text", "echo no\n", 0o755)),
        (Stage::Exec, Errno::ENOEXEC)
    );
    assert_eq!(
        program(&file("plain", "#!/bin/sh\n", 0o644)),
        (Stage::Exec, Errno::EACCES)
    );
    assert_eq!(program(c"/etc"), (Stage::Exec, Errno::EACCES));
    let long = CString::new("x".repeat(131_072)).unwrap();
    assert_eq!(
        error(&plain(c"/bin/true", &[c"true", &long])),
        (Stage::Exec, Errno::E2BIG)
    );

    let plain = plain(c"/bin/true", &argv);
    assert_eq!(
        error(&Image {
            cwd: Some(c"/no/such"),
            ..plain
        }),
        (Stage::Chdir, Errno::ENOENT)
    );
    assert_eq!(
        error(&Image {
            fds: &[(RawFd::MAX, 5)],
            ..plain
        }),
        (Stage::Fd(5), Errno::EBADF)
    );
    assert_eq!(
        error(&Image {
            fds: &[(0, u32::MAX)],
            ..plain
        }),
        (Stage::Fd(u32::MAX), Errno::EBADF)
    );
    // More than the kernel's own bound: refused to root, too.
    let limits = [(libc::RLIMIT_NOFILE, 1 << 40)];
    assert_eq!(
        error(&Image {
            limits: &limits,
            ..plain
        }),
        (Stage::Limit(libc::RLIMIT_NOFILE), Errno::EPERM)
    );
}

#[test]
fn every_status_is_exact() {
    for code in 0..=255 {
        let status = sh(&format!("exit {code}"), nothing()).1;
        assert_eq!((status.code(), status.signal()), (Some(code), None));
    }
    // The default of these is not to end a process.
    let harmless = [
        libc::SIGCHLD,
        libc::SIGCONT,
        libc::SIGSTOP,
        libc::SIGTSTP,
        libc::SIGTTIN,
        libc::SIGTTOU,
        libc::SIGURG,
        libc::SIGWINCH,
    ];
    for signal in (1..=31).filter(|signal| !harmless.contains(signal)) {
        let status = sh(
            &format!("kill -{signal} $$"),
            Image {
                limits: &[(libc::RLIMIT_CORE, 0)],
                ..nothing()
            },
        )
        .1;
        assert_eq!((status.code(), status.signal()), (None, Some(signal)));
    }
}

#[test]
fn a_signal_goes_to_the_whole_group() {
    // Both hold the pipe open: its end is the end of both.
    let pipe = Pipe::new(4096).unwrap();
    let fds = [(pipe.write.as_raw_fd(), 3)];
    let argv = [c"sh", c"-c", c"sleep 1000 & echo ready >&3; wait"];
    let image = Image {
        fds: &fds,
        ..plain(c"/bin/sh", &argv)
    };
    let mut child = spawn(&image).unwrap();
    drop(pipe.write);
    let mut read = File::from(pipe.read);
    let mut ready = [0; 6];
    read.read_exact(&mut ready).unwrap();
    assert_eq!(child.try_wait().unwrap(), None);
    child.signal_group(libc::SIGTERM).unwrap();
    assert_eq!(read.read_to_end(&mut Vec::new()).unwrap(), 0);
    assert_eq!(end(&mut child).signal(), Some(libc::SIGTERM));
    assert_eq!(child.try_wait().unwrap(), None, "reaped once");
    child
        .signal_group(libc::SIGTERM)
        .expect("nobody is left, which is no error");
}

#[test]
fn what_is_left_of_the_group_is_killed_and_told() {
    let pipe = Pipe::new(4096).unwrap();
    let fds = [(pipe.write.as_raw_fd(), 3)];
    let argv = [
        c"sh",
        c"-c",
        c"(trap '' TERM; sleep 1000 & echo ready >&3; wait) & exit 3",
    ];
    let image = Image {
        fds: &fds,
        ..plain(c"/bin/sh", &argv)
    };
    let mut child = spawn(&image).unwrap();
    drop(pipe.write);
    // Else whoever is the subreaper may have reaped it before it is asked for.
    become_subreaper().unwrap();
    assert!(!child.had_leftovers(), "not before it is reaped");
    assert_eq!(end(&mut child).code(), Some(3));
    assert!(child.had_leftovers());
    // The last one that held the pipe has gone.
    File::from(pipe.read).read_to_end(&mut Vec::new()).unwrap();
}

#[test]
fn nobody_left_is_no_leak() {
    for _ in 0..50 {
        let mut child = spawn(&plain(c"/bin/true", &[c"true"])).unwrap();
        assert!(end(&mut child).success());
        assert!(!child.had_leftovers());
    }
}

#[test]
fn it_does_not_outlive_the_thread_that_made_it() {
    let mut child = thread::spawn(|| spawn(&plain(c"/bin/sleep", &[c"sleep", c"1000"])).unwrap())
        .join()
        .unwrap();
    assert_eq!(end(&mut child).signal(), Some(libc::SIGKILL));
}

#[test]
fn what_it_used_is_told() {
    let argv = [
        c"sh",
        c"-c",
        c"i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done",
    ];
    let mut child = spawn(&plain(c"/bin/sh", &argv)).unwrap();
    let (_, usage) = wait(&mut child);
    assert!(usage.user.as_micros() > 1000, "{usage:?}");
    assert!(usage.max_rss > 500_000, "{usage:?}");
}
