//! Surroundings that nobody wishes for: odd parents, closed descriptors, full disks, limits.

use std::fs::{File, OpenOptions};
use std::process::Stdio;

use crate::support::Pipeline;

const PAIR: &str = r#"
[process.write]
command = ["seq", "3"]
stdout = "q"
[process.read]
command = ["sort", "-r"]
stdin = "q"
stdout = { file = "out" }
"#;

/// A pipe that landed on descriptor 0, 1 or 2 would be taken for a standard stream.
#[test]
fn procflow_runs_with_its_standard_streams_closed() {
    for closed in ["<&-", ">&-", "2>&-", "<&- >&-", "<&- >&- 2>&-"] {
        Pipeline::new(PAIR)
            .under(["sh", "-c", &format!("exec \"$@\" {closed}"), "sh"])
            .run()
            .nodes([("write", "succeeded"), ("read", "succeeded")])
            .file("out", "3\n2\n1\n");
    }
}

/// Where SIGCHLD is ignored the kernel reaps by itself, and every exit code would be lost.
#[test]
fn procflow_runs_where_its_parent_ignores_sigchld() {
    Pipeline::new("[process.a]\nscript = \"exit 3\"\n")
        .under(["sh", "-c", "trap '' CHLD; exec \"$@\"", "sh"])
        .run()
        .nodes([("a", "failed: exit 3")])
        .exit(1);
}

const SIGNALS: &str = r#"
[process.a]
command = ["grep", "-E", "SigBlk|SigIgn", "/proc/self/status"]
stdout = "inherit"
"#;

#[test]
fn nodes_have_clean_signal_masks_and_dispositions() {
    Pipeline::new(SIGNALS)
        .run()
        .stdout("SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
}

/// The mask that procflow was started with is the nodes' mask, whatever procflow blocks for itself.
#[test]
fn nodes_have_the_mask_that_procflow_was_started_with() {
    Pipeline::new(SIGNALS)
        .under([
            "python3",
            "-c",
            "import os, signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1]); \
             signal.signal(signal.SIGPIPE, signal.SIG_DFL); signal.signal(signal.SIGXFSZ, signal.SIG_DFL); \
             os.execvp(sys.argv[1], sys.argv[1:])",
        ])
        .run()
        .stdout("SigBlk:\t0000000000000200\nSigIgn:\t0000000000000000\n");
}

/// Whoever starts procflow may have forgotten descriptors; no node sees them.
#[test]
fn nodes_have_no_descriptors_but_their_own() {
    // Descriptor 3 is the directory that `ls` itself has open; 10 and 11 are the jobserver's.
    Pipeline::new("[process.a]\ncommand = [\"ls\", \"/proc/self/fd\"]\nstdout = \"inherit\"\n")
        .under([
            "sh",
            "-c",
            "exec 7< pipeline.toml 8>&1 9< pipeline.toml; exec \"$@\"",
            "sh",
        ])
        .run()
        .stdout("0\n1\n10\n11\n2\n3\n");
}

#[test]
fn nodes_of_a_group_do_not_see_each_others_ends() {
    Pipeline::new(
        r#"
        [run]
        jobserver = "none"
        [process.write]
        command = ["ls", "/proc/self/fd"]
        stdout = "q"
        [process.read]
        script = "cat; ls /proc/self/fd"
        stdin = "q"
        stdout = "r"
        [process.last]
        command = ["cat"]
        stdin = "r"
        stdout = "inherit"
        "#,
    )
    .run()
    .stdout("0\n1\n2\n3\n0\n1\n2\n3\n");
}

/// O_NONBLOCK (04000) belongs to the open file, which a child shares: a program that doesn't expect it loses data.
#[test]
fn the_ends_of_queues_block() {
    let script = "for end in 0 1 2; do grep flags /proc/self/fdinfo/$end >&2; done; cat";
    let ran = Pipeline::new(&format!(
        r#"
        [process.first]
        script = "{script}"
        stdin = {{ text = "x" }}
        stdout = ["q", "copy"]
        stderr = {{ file = "first" }}
        [process.second]
        script = "{script}"
        stdin = "q"
        stdout = "merged"
        stderr = {{ file = "second" }}
        [process.third]
        script = "{script}"
        stdin = "copy"
        stdout = "merged"
        stderr = {{ file = "third" }}
        [process.last]
        script = "{script}"
        stdin = "merged"
        stderr = {{ file = "last" }}
        "#
    ))
    .run();
    for node in ["first", "second", "third", "last"] {
        let flags = std::fs::read_to_string(ran.pipeline.path(node)).unwrap();
        assert_eq!(flags.lines().count(), 3, "{node}: {flags}");
        for line in flags.lines() {
            let flags = u32::from_str_radix(line.split_whitespace().nth(1).unwrap(), 8).unwrap();
            assert_eq!(flags & 0o4000, 0, "{node}: {line}");
        }
    }
}

#[test]
fn nodes_have_their_own_process_group_and_procflow_as_parent() {
    let ran = Pipeline::new(
        r#"
        [process.a]
        script = 'echo "$$ $PPID $(ps -o pgid= -p $$ | tr -d " ")"'
        stdout = "inherit"
        "#,
    )
    .run()
    .any_stdout();
    let said = String::from_utf8(ran.stdout.clone()).unwrap();
    let said: Vec<&str> = said.split_whitespace().collect();
    assert_eq!(said[0], said[2], "its process group is its own: {said:?}");
    assert_eq!(said[0], ran.field("a", "pid").to_string());
    assert_eq!(
        said[1],
        ran.report.as_ref().unwrap()["procflow"]["pid"].to_string()
    );
}

#[test]
fn nodes_have_the_limits_that_procflow_was_started_with() {
    Pipeline::new("[process.a]\nscript = \"ulimit -Sn; ulimit -Hn\"\nstdout = \"inherit\"\n")
        .under(["prlimit", "--nofile=256:1024"])
        .run()
        .stdout("256\n1024\n");
}

#[test]
fn too_few_descriptors_are_a_clear_error_and_everything_is_stopped() {
    let mut text = String::new();
    for pair in 0..50 {
        text.push_str(&format!(
            "[process.w{pair}]\ncommand = [\"sleep\", \"1000\"]\nstdout = \"q{pair}\"\n[process.r{pair}]\ncommand = [\"cat\"]\nstdin = \"q{pair}\"\n"
        ));
    }
    let ran = Pipeline::new(&text)
        .args(["--jobs", "1000"])
        .under(["prlimit", "--nofile=40:40"])
        .run()
        .says("open files")
        .exit(3);
    assert_ne!(ran.field("w49", "state"), "succeeded");
    drop(ran.node("w0", "cancelled: procflow could not go on"));
}

#[test]
fn a_report_that_cannot_be_written_is_an_error_of_its_own() {
    Pipeline::new("[process.a]\ncommand = [\"true\"]\n")
        .without_report()
        .args(["--json", "/dev/full"])
        .run()
        .says("/dev/full")
        .exit(3);
}

#[test]
fn a_closed_standard_output_of_a_command_that_prints_is_an_error() {
    let full = || Stdio::from(OpenOptions::new().write(true).open("/dev/full").unwrap());
    let ran = Pipeline::new("[process.a]\ncommand = [\"true\"]\n").subcommand("plan");
    let stderr = Stdio::from(File::create(ran.path("errors")).unwrap());
    let ran = ran.run_with(Stdio::null(), full(), stderr).exit(3);
    let said = std::fs::read_to_string(ran.pipeline.path("errors")).unwrap();
    assert!(said.contains("standard output"), "{said}");
}

/// Whether this machine lets us run this.
fn can(command: &[&str]) -> bool {
    std::process::Command::new(command[0])
        .args(&command[1..])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// A node's own trouble with a full disk is its own; what procflow has to keep is procflow's.
#[test]
fn a_full_disk_under_the_run_directory_is_a_clear_error() {
    // In a namespace of the mounts' own, which not everybody may have: root in a container may not, for one.
    if !can(&["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/tmp"]) {
        return;
    }
    let ran = Pipeline::new(
        r#"
        [process.a]
        script = "yes a line that is long enough to fill a small disk soon | head -c 1000000; sleep 1000"
        "#,
    )
    .args(["--state-dir", "small", "--output", "none"])
    .under([
        "unshare",
        "--mount",
        "sh",
        "-ec",
        "mkdir small; mount -t tmpfs -o size=128k,mode=700 none small; exec \"$@\"",
        "sh",
    ])
    .run()
    .says("no space left")
    .exit(3);
    let (_, end) = ran.ends()[0].clone();
    assert!(end.starts_with("cancelled"), "{end}");
    drop(ran.node("a", &end));
}

#[test]
fn a_journal_that_is_full_ends_the_run_between_two_tries_as_well() {
    // 512 bytes have room for the run's and the node's beginning, and not for the line that says it will be tried again.
    let name = "a".repeat(120);
    Pipeline::new(&format!(
        r#"
        [process.{name}]
        script = "sleep 0.05; exit 1"
        retries = {{ max = 9, delay = "1h" }}
        "#
    ))
    .without_report()
    .under([
        "sh",
        "-ec",
        "trap '' XFSZ; exec prlimit --fsize=512 \"$@\"",
        "sh",
    ])
    .args(["--progress", "none", "--output", "none"])
    .run()
    .exit(3);
}

#[test]
fn a_run_directory_that_cannot_be_made_is_named() {
    Pipeline::new("[process.a]\ncommand = [\"true\"]\n")
        .without_report()
        .args(["--state-dir", "/proc/nowhere"])
        .run()
        .says("/proc/nowhere")
        .exit(3);
}

/// A loop around procflow keeps its standard input.
#[test]
fn procflow_reads_nothing_of_its_standard_input_by_itself() {
    Pipeline::new("[process.a]\ncommand = [\"cat\"]\n")
        .without_report()
        .input("1\n2\n3\n")
        .under([
            "sh",
            "-c",
            "while read -r line; do \"$@\" 2> /dev/null; echo \"$line\"; done",
            "sh",
        ])
        .run()
        .stdout("1\n2\n3\n");
}

#[test]
fn children_that_others_started_are_left_alone() {
    // The shell starts a child and becomes procflow, which so has a child that it knows nothing of.
    Pipeline::new("[process.a]\ncommand = [\"sleep\", \"0.1\"]\n")
        .under(["sh", "-c", "sleep 0.05 & exec \"$@\"", "sh"])
        .run();
}

#[test]
fn a_locale_changes_nothing() {
    Pipeline::new(PAIR)
        .env("LC_ALL", "tr_TR.UTF-8")
        .run()
        .file("out", "3\n2\n1\n");
}

/// As a container's first process procflow has no default dispositions, and every orphan comes to it.
#[test]
fn procflow_runs_as_the_first_process_of_a_container() {
    if !can(&["unshare", "--fork", "--pid", "--mount-proc", "true"]) {
        return;
    }
    let mut text = String::new();
    for node in 0..20 {
        text.push_str(&format!("[process.n{node}]\nscript = \"(true & true &) ; (setsid sleep 1000 > /dev/null 2>&1 &)\"\n"));
    }
    Pipeline::new(&text)
        .under(["unshare", "--fork", "--pid", "--mount-proc"])
        .run();
}

#[test]
fn the_umask_holds_for_results_and_not_for_the_run_directory() {
    use std::os::unix::fs::PermissionsExt;
    for (umask, mode) in [("000", 0o666), ("027", 0o640), ("077", 0o600)] {
        let ran = Pipeline::new(
            "[process.a]\ncommand = [\"echo\", \"x\"]\nstdout = { file = \"out\" }\n",
        )
        .under(["sh", "-c", &format!("umask {umask}; exec \"$@\""), "sh"])
        .run();
        let mode_of = |name: &str| {
            std::fs::metadata(ran.pipeline.path(name))
                .unwrap()
                .permissions()
                .mode()
                & 0o777
        };
        assert_eq!(mode_of("out"), mode, "umask {umask}");
        assert_eq!(mode_of(".procflow"), 0o700, "umask {umask}");
    }
}

#[test]
fn a_file_that_is_replaced_keeps_its_mode() {
    use std::os::unix::fs::PermissionsExt;
    let pipeline =
        Pipeline::new("[process.a]\ncommand = [\"echo\", \"x\"]\nstdout = { file = \"out\" }\n")
            .with_program("out", "old\n");
    let ran = pipeline.run();
    let mode = std::fs::metadata(ran.pipeline.path("out"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o755);
}
