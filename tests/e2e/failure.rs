//! What a failure means for the rest: waiting, skipping, cleaning up, trying again, running out of time.

use crate::support::{Pipeline, wait_for};

#[test]
fn nodes_wait_for_what_they_come_after() {
    Pipeline::new(
        r#"
        [process.third]
        after = ["second"]
        command = ["echo", "third"]
        stdout = "inherit"
        [process.second]
        after = ["first"]
        command = ["echo", "second"]
        stdout = "inherit"
        [process.first]
        command = ["echo", "first"]
        stdout = "inherit"
        "#,
    )
    .run()
    .stdout("first\nsecond\nthird\n");
}

/// In each mode the clean-up runs; `slow` is let go by it, so it runs for certain when `bad` fails.
const CLEAN_UP: &str = r#"
[run]
jobs = 3
[process.bad]
script = "until test -e slow-runs; do sleep 0.01; done; exit 1"
[process.slow]
script = ": > slow-runs; until test -e bad-failed; do sleep 0.01; done"
[process.later]
after = ["slow"]
command = ["true"]
[process.needs-bad]
after = ["bad"]
command = ["true"]
[process.on-failure]
after = [{ node = "bad", state = "failed" }]
script = "echo on-failure; : > bad-failed"
stdout = "inherit"
[process.at-the-end]
after = [{ node = "bad", state = "finished" }, { node = "slow", state = "finished" }]
command = ["echo", "at-the-end"]
stdout = "inherit"
"#;

fn clean_up(mode: &str) -> Pipeline {
    Pipeline::new(CLEAN_UP).args(["--on-failure", mode])
}

#[test]
fn stop_starts_nothing_new_and_lets_finish_what_runs() {
    clean_up("stop")
        .run()
        .stdout("on-failure\nat-the-end\n")
        .nodes([
            ("bad", "failed: exit 1"),
            ("slow", "succeeded"),
            ("later", "skipped: the run stopped after bad failed"),
            ("needs-bad", "skipped: bad failed"),
            ("on-failure", "succeeded"),
            ("at-the-end", "succeeded"),
        ])
        .exit(1);
}

#[test]
fn continue_runs_all_that_does_not_depend_on_the_failure() {
    clean_up("continue")
        .run()
        .stdout("on-failure\nat-the-end\n")
        .nodes([
            ("bad", "failed: exit 1"),
            ("slow", "succeeded"),
            ("later", "succeeded"),
            ("needs-bad", "skipped: bad failed"),
            ("on-failure", "succeeded"),
            ("at-the-end", "succeeded"),
        ])
        .exit(1);
}

#[test]
fn kill_ends_what_runs_too() {
    Pipeline::new(
        r#"
        [process.bad]
        script = "read go < gate; exit 1"
        [process.slow]
        script = "echo go > gate; sleep 1000"
        [process.clean-up]
        after = [{ node = "bad", state = "failed" }, { node = "slow", state = "finished" }]
        command = ["echo", "cleaned up"]
        stdout = "inherit"
        "#,
    )
    .with_fifo("gate")
    .args(["--on-failure", "kill", "--jobs", "2"])
    .run()
    .stdout("cleaned up\n")
    .nodes([
        ("bad", "failed: exit 1"),
        ("slow", "cancelled: the run stopped after bad failed"),
        ("clean-up", "succeeded"),
    ])
    .exit(1);
}

#[test]
fn a_clean_up_whose_failure_never_came_is_skipped_and_that_is_no_failure() {
    Pipeline::new(
        r#"
        [process.good]
        command = ["true"]
        [process.sorry]
        after = [{ node = "good", state = "failed" }]
        command = ["true"]
        "#,
    )
    .run()
    .nodes([
        ("good", "succeeded"),
        ("sorry", "skipped: good did not fail"),
    ]);
}

#[test]
fn a_node_that_may_fail_fails_nobody() {
    Pipeline::new(
        r#"
        [process.may]
        script = "echo one; exit 7"
        allow_failure = true
        stdout = "q"
        [process.read]
        command = ["cat"]
        stdin = "q"
        stdout = "inherit"
        [process.next]
        after = ["may"]
        command = ["true"]
        "#,
    )
    .run()
    .stdout("one\n")
    .nodes([
        ("may", "failed: exit 7"),
        ("read", "succeeded"),
        ("next", "succeeded"),
    ]);
}

#[test]
fn other_codes_may_mean_success() {
    Pipeline::new(
        r#"
        [process.grep]
        command = ["grep", "needle"]
        success_codes = [0, 1]
        [process.only-three]
        command = ["true"]
        success_codes = [3]
        "#,
    )
    .run()
    .nodes([("grep", "succeeded"), ("only-three", "failed: exit 0")])
    .exit(1);
}

#[test]
fn a_node_is_tried_again() {
    let ran = Pipeline::new(
        r#"
        [process.flaky]
        script = 'echo "try $PROCFLOW_ATTEMPT"; test "$PROCFLOW_ATTEMPT" = 3'
        retries = { max = 5, delay = "1ms" }
        stdout = "inherit"
        "#,
    )
    .run()
    .stdout("try 1\ntry 2\ntry 3\n");
    assert_eq!(ran.field("flaky", "attempts"), 3);
}

#[test]
fn tries_come_to_an_end() {
    let ran = Pipeline::new(
        r#"
        [process.never]
        script = "exit 9"
        retries = { max = 2, delay = "1ms" }
        "#,
    )
    .run()
    .nodes([("never", "failed: exit 9")])
    .exit(1);
    assert_eq!(ran.field("never", "attempts"), 3);
}

#[test]
fn only_some_codes_are_tried_again() {
    let ran = Pipeline::new(
        r#"
        [process.a]
        script = 'exit $((74 + PROCFLOW_ATTEMPT))'
        retries = { max = 5, delay = "1ms", on_codes = [75] }
        "#,
    )
    .run()
    .nodes([("a", "failed: exit 76")])
    .exit(1);
    assert_eq!(ran.field("a", "attempts"), 2);
}

/// What the first try wrote must be in none of the results: neither in the reader's, nor in the file.
#[test]
fn a_group_is_tried_again_as_a_whole_and_from_the_start() {
    let ran = Pipeline::new(
        r#"
        [process.write]
        script = 'echo "try $PROCFLOW_ATTEMPT"; test "$PROCFLOW_ATTEMPT" = 2'
        retries = { max = 1, delay = "1ms" }
        stdout = ["q", { file = "written" }]
        [process.read]
        command = ["cat"]
        stdin = "q"
        stdout = { file = "read" }
        "#,
    )
    .run()
    .file("written", "try 2\n")
    .file("read", "try 2\n")
    .only_files(["read", "written"]);
    assert_eq!(ran.field("write", "attempts"), 2);
    assert_eq!(ran.field("read", "attempts"), 2);
}

#[test]
fn a_node_that_runs_out_of_time_is_stopped() {
    Pipeline::new(
        r#"
        [process.slow]
        command = ["sleep", "1000"]
        timeout = "100ms"
        "#,
    )
    .run()
    .nodes([("slow", "failed: timed out after 100ms")])
    .exit(1);
}

#[test]
fn a_node_that_ignores_the_signal_is_killed_after_its_grace() {
    Pipeline::new(
        r#"
        [process.stubborn]
        script = "trap '' TERM INT HUP; sleep 1000"
        timeout = "100ms"
        stop_grace = "50ms"
        "#,
    )
    .run()
    .nodes([("stubborn", "failed: timed out after 100ms")])
    .exit(1);
}

/// The process that procflow knows ends at once; what it started does not.
#[test]
fn a_grandchild_that_ignores_the_signal_is_killed_too() {
    Pipeline::new(
        r#"
        [process.a]
        script = "trap 'exit 0' TERM; (trap '' TERM; sleep 1000) & wait"
        timeout = "100ms"
        stop_grace = "50ms"
        "#,
    )
    .run()
    .nodes([("a", "failed: timed out after 100ms")])
    .exit(1);
}

/// A stopped process does nothing on SIGTERM until it is continued.
#[test]
fn a_stopped_process_can_be_ended() {
    Pipeline::new(
        r#"
        [process.stopped]
        script = "kill -STOP $$; sleep 1000"
        timeout = "100ms"
        stop_grace = "1000s"
        "#,
    )
    .run()
    .nodes([("stopped", "failed: timed out after 100ms")])
    .exit(1);
}

#[test]
fn a_node_may_choose_the_signal_that_ends_it() {
    Pipeline::new(
        r#"
        [process.a]
        script = "trap 'echo ended by USR1; exit 0' USR1; while :; do sleep 0.01; done"
        stop_signal = "USR1"
        stop_grace = "1000s"
        timeout = "200ms"
        stdout = "inherit"
        "#,
    )
    .run()
    .stdout("ended by USR1\n")
    .nodes([("a", "failed: timed out after 200ms")])
    .exit(1);
}

#[test]
fn the_runs_own_timeout_ends_everything() {
    Pipeline::new(
        r#"
        [process.slow]
        command = ["sleep", "1000"]
        [process.next]
        after = ["slow"]
        command = ["true"]
        "#,
    )
    .args(["--timeout", "100ms"])
    .run()
    .nodes([
        ("slow", "cancelled: the run timed out after 100ms"),
        ("next", "skipped: the run timed out after 100ms"),
    ])
    .exit(124);
}

#[test]
fn a_program_that_is_not_there_says_what_was_meant() {
    let ran = Pipeline::new(
        r#"
        [process.a]
        command = ["sotr"]
        "#,
    )
    .with_program("bin/sort", "#!/bin/sh\n")
    .run()
    .exit(1);
    let (_, end) = &ran.ends()[0];
    assert!(end.starts_with("failed: cannot start: "), "{end}");
    assert!(
        end.contains("sotr") && end.contains("did you mean") && end.contains("sort"),
        "{end}"
    );
    assert_eq!(ran.field("a", "exit"), 127);
    drop(ran.node("a", end.clone().as_str()));
}

/// Three things that exec(2) all calls "no such file".
#[test]
fn the_program_its_interpreter_and_its_directory_are_told_apart() {
    let start = |process: &str, word: &str, code: i32| {
        let ran = Pipeline::new(&format!("[process.a]\n{process}\n"))
            .with_program("orphan", "#!/no/such/interpreter\n")
            .with_file("plain", "text\n")
            .run()
            .exit(1);
        let (_, end) = ran.ends()[0].clone();
        assert!(
            end.starts_with("failed: cannot start: ") && end.contains(word),
            "{end}"
        );
        assert_eq!(ran.field("a", "exit"), code, "{end}");
        drop(ran.node("a", &end));
    };
    start(r#"command = ["/no/such/program"]"#, "/no/such/program", 127);
    start(r#"command = ["./orphan"]"#, "/no/such/interpreter", 127);
    start("command = [\"true\"]\ncwd = \"nowhere\"", "nowhere", 127);
    start(r#"command = ["./plain"]"#, "plain", 126);
    start(r#"command = ["/"]"#, "/", 126);
}

#[test]
fn where_one_of_a_group_cannot_start_nothing_of_it_is_left_running() {
    let ran = Pipeline::new(
        r#"
        [process.write]
        command = ["yes"]
        stdout = "q"
        [process.read]
        command = ["/no/such/program"]
        stdin = "q"
        [process.next]
        after = ["write"]
        command = ["true"]
        "#,
    )
    .run()
    .node("write", "cancelled: reader read failed")
    .exit(1);
    assert_eq!(ran.field("next", "state"), "skipped");
}

#[test]
fn an_argument_that_is_too_long_for_the_kernel_is_named() {
    let ran = Pipeline::new(
        r#"
        [process.a]
        command = ["true", "${{ params.long }}"]
        [params]
        long = { env = "LONG" }
        "#,
    )
    .env("LONG", "x".repeat(131_000))
    .args(["--set", &format!("long={}", "y".repeat(131_000))])
    .run();
    // 131,000 bytes fit: an argument may have 131,071.
    drop(ran.node("a", "succeeded"));

    let ran = Pipeline::new(&format!(
        "[process.a]\ncommand = [\"true\", \"{}\"]\n",
        "x".repeat(200_000)
    ))
    .run()
    .exit(1);
    let (_, end) = ran.ends()[0].clone();
    assert!(
        end.starts_with("failed: cannot start: ") && end.contains("too long"),
        "{end}"
    );
    drop(ran.node("a", &end));
}

/// A program that somebody still writes cannot be executed (ETXTBSY); it is waited for a while.
#[test]
fn a_program_that_is_still_being_written_is_waited_for() {
    let pipeline = Pipeline::new("[process.a]\ncommand = [\"./program\"]\nstdout = \"inherit\"\n")
        .with_program("program", "#!/bin/sh\necho ran\n");
    let writer = std::fs::OpenOptions::new()
        .append(true)
        .open(pipeline.path("program"))
        .unwrap();
    let live = pipeline.start();
    // Let go when procflow has come to starting it: its run directory is there then.
    let runs = live.pipeline.path(".procflow/runs");
    wait_for("the run directory", || runs.exists().then_some(()));
    drop(writer);
    live.finish().stdout("ran\n");
}

#[test]
fn the_last_lines_of_standard_error_stand_below_a_failure() {
    Pipeline::new(
        r#"
        [process.a]
        script = "echo the disk is on fire >&2; exit 1"
        "#,
    )
    .run()
    .says("the disk is on fire")
    .nodes([("a", "failed: exit 1")])
    .exit(1);
}

/// Each node counts itself in and out under a lock; there are never more inside than slots.
#[test]
fn never_more_processes_run_than_there_are_slots() {
    let mut text = String::from("[run]\njobs = 3\n");
    for node in 0..30 {
        text.push_str(&format!("[process.n{node}]\ncommand = [\"./counted\"]\n"));
    }
    let ran = Pipeline::new(&text)
        .with_program(
            "counted",
            "#!/bin/sh -e\n\
             exec 9> lock\n\
             flock 9; inside=$(($(cat inside) + 1)); echo $inside > inside; echo $inside >> seen; flock -u 9\n\
             sleep 0.01\n\
             flock 9; echo $(($(cat inside) - 1)) > inside; flock -u 9\n",
        )
        .with_file("inside", "0\n")
        .run()
        .file("inside", "0\n");
    let seen = std::fs::read_to_string(ran.pipeline.path("seen")).unwrap();
    let seen: Vec<u32> = seen.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(seen.len(), 30);
    assert!(
        seen.iter().all(|inside| (1..=3).contains(inside)),
        "{seen:?}"
    );
}

/// Each of the three waits for the other two, so they all run at the same time or for ever.
#[test]
fn as_many_processes_run_as_there_are_slots() {
    let script =
        r#": > "$PROCFLOW_NODE"; until test -e a && test -e b && test -e c; do sleep 0.01; done"#;
    let mut text = String::from("[run]\njobs = 3\n");
    for node in ["a", "b", "c"] {
        text.push_str(&format!("[process.{node}]\nscript = '{script}'\n"));
    }
    Pipeline::new(&text).run();
}

#[test]
fn a_node_larger_than_the_machine_still_runs() {
    Pipeline::new(
        r#"
        [run]
        jobs = 1
        [process.big]
        command = ["true"]
        cpus = 64
        "#,
    )
    .run();
}

#[test]
fn the_runs_own_timeout_ends_the_wait_for_a_retry() {
    let ran = Pipeline::new(
        r#"
        [process.flaky]
        script = "exit 1"
        retries = { max = 1, delay = "1000s" }
        "#,
    )
    .args(["--timeout", "200ms"])
    .run()
    .exit(124);
    let (_, end) = ran.ends()[0].clone();
    drop(ran.node("flaky", &end));
}
