//! How pools, stored queues and what hangs on them begin, are stopped, fail and are tried again: no status is lost, nobody waits
//! for ever, nothing is left behind.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::{Live, Pipeline, children, process_state, wait_for};

/// A pool of each kind at work, and one that waits for its input; no worker ends at SIGTERM. Each says that it is there.
fn stubborn_pools(settings: &str) -> Live {
    let stubborn = "trap '' TERM INT HUP; echo ready > ready; while :; do sleep 0.02; done";
    let live = Pipeline::new(&format!(
        r#"
        [defaults]
        {settings}
        [process.feed]
        script = "seq 100; exec sleep 1000"
        stdout = "work"
        [pool.stream]
        workers = 2
        script = "{stubborn}"
        stdin = "work"
        stdout = "null"
        [pool.request]
        workers = 2
        feed = "request"
        tasks = {{ range = [0, 10] }}
        script = "{stubborn}"
        [pool.task]
        workers = 2
        tasks = {{ range = [0, 10] }}
        script = "{stubborn}"
        [process.quiet]
        command = ["sleep", "1000"]
        stdout = "nothing"
        [pool.idle]
        workers = 2
        feed = "request"
        script = "trap '' TERM INT HUP; echo ready > ready; read -r line; while :; do sleep 0.02; done"
        stdin = "nothing"
        [pool.waiting]
        feed = "task"
        workers = 2
        command = ["true"]
        stdin = "nothing-either"
        [process.quieter]
        command = ["sleep", "1000"]
        stdout = "nothing-either"
        "#
    ))
    .with_fifo("ready")
    .args(["--jobs", "30"])
    .start();
    live.lines("ready", 8);
    // The search for survivors sees them now, so that it means something when it sees none.
    assert!(live.processes().len() >= 13, "{:#?}", live.processes());
    live
}

const STUBBORN: [&str; 8] = [
    "feed", "stream", "request", "task", "quiet", "idle", "waiting", "quieter",
];

/// What the workers of an idle pool do with the end of their input is a matter of taste; so no grace is long here.
#[test]
fn pools_with_stubborn_workers_are_stopped() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let live = stubborn_pools("stop_grace = \"100ms\"");
        live.signal(signal);
        let why = format!("cancelled: interrupted by {signal}");
        let nodes = STUBBORN.map(|name| (name, why.as_str()));
        drop(live.finish().nodes(nodes).signal(signal));
    }
}

/// The grace is longer than the test's limit.
#[test]
fn a_second_signal_kills_pools_at_once() {
    let live = stubborn_pools("stop_grace = \"1000s\"");
    live.signal(Signal::SIGTERM);
    wait_for("the writers to be stopped", || {
        let sleeping = |(_, command): &(i32, String)| command.starts_with("sleep 1000");
        (!live.processes().iter().any(sleeping)).then_some(())
    });
    live.signal(Signal::SIGTERM);
    let nodes = STUBBORN.map(|name| (name, "cancelled: interrupted by SIGTERM"));
    drop(live.finish().nodes(nodes).signal(Signal::SIGTERM));
}

#[test]
fn the_runs_timeout_stops_pools() {
    let live = stubborn_pools("stop_grace = \"100ms\"\n[run]\ntimeout = \"1500ms\"");
    let ran = live.finish().exit(124);
    let nodes = STUBBORN.map(|name| (name, "cancelled: the run timed out after 1s 500ms"));
    drop(ran.nodes(nodes));
}

#[test]
fn a_pools_timeout_is_its_failure() {
    Pipeline::new(
        r#"
        [run]
        on_failure = "continue"
        [defaults]
        timeout = "300ms"
        stop_grace = "100ms"
        [pool.request]
        workers = 2
        feed = "request"
        tasks = { range = [0, 10] }
        script = "trap '' TERM; while :; do sleep 0.02; done"
        [pool.task]
        workers = 2
        tasks = { range = [0, 10] }
        script = "trap '' TERM; while :; do sleep 0.02; done"
        "#,
    )
    .args(["--jobs", "30"])
    .run()
    .nodes([
        ("request", "failed: timed out after 300ms"),
        ("task", "failed: timed out after 300ms"),
    ])
    .exit(1);
}

fn rounds() -> u32 {
    std::env::var("PROCFLOW_KILL_ROUNDS")
        .ok()
        .map_or(2, |rounds| rounds.parse().unwrap())
}

#[test]
fn kill_9_of_procflow_leaves_no_worker_behind() {
    for round in 0..rounds() {
        for kills_runner in [false, true] {
            let live = stubborn_pools("stop_grace = \"1000s\"");
            let program = std::fs::read_link(format!("/proc/{}/exe", live.pid())).unwrap();
            let is_procflow = |child: &i32| {
                std::fs::read_link(format!("/proc/{child}/exe")).is_ok_and(|exe| exe == program)
            };
            let victim = match kills_runner {
                false => live.pid(),
                true => children(live.pid())
                    .into_iter()
                    .find(is_procflow)
                    .expect("procflow has a child that is procflow"),
            };
            let took = live.kill_and_time(victim);
            assert!(
                took < Duration::from_secs(2),
                "round {round}: it took {took:?}"
            );
        }
    }
}

/// Both kinds that have a `task_timeout`: its clock is the pool's, not the loop's.
#[test]
fn no_task_timeout_counts_the_time_that_a_run_stood_still() {
    let live = Pipeline::new(
        r#"
        [pool.task]
        workers = 1
        tasks = ["a"]
        task_timeout = "2s"
        script = "echo $$ > ready; read go < go-task"
        [pool.request]
        workers = 1
        feed = "request"
        tasks = ["a"]
        task_timeout = "2s"
        script = "read -r line; echo $$ > ready; read go < go-request; echo answer; cat > /dev/null"
        stdout = "inherit"
        "#,
    )
    .with_fifo("ready")
    .with_fifo("go-task")
    .with_fifo("go-request")
    .args(["--jobs", "4"])
    .in_its_own_group()
    .start();
    let workers = live.lines("ready", 2);
    live.signal(Signal::SIGTSTP);
    for worker in workers {
        let worker: i32 = worker.parse().unwrap();
        wait_for("the worker to stand still", || {
            (process_state(worker) == Some('T')).then_some(())
        });
    }
    wait_for("procflow to stand still", || {
        (process_state(live.pid()) == Some('T')).then_some(())
    });
    // Time itself is what is tested.
    std::thread::sleep(Duration::from_millis(2500));
    live.signal(Signal::SIGCONT);
    live.release("go-task", "go\n");
    live.release("go-request", "go\n");
    drop(live.finish().stdout("answer\n"));
}

/// The loop hears of a pool's wish for a worker and of the end of its wishes at the same time: no worker may be started then.
#[test]
fn a_pool_whose_reader_leaves_ends_whatever_it_has_just_asked_for() {
    for _ in 0..5 {
        let ran = Pipeline::new(
            r#"
            [pool.work]
            workers = 16
            tasks = { range = [0, 100000] }
            script = "echo $TASK; if [ $TASK -gt 40 ]; then exec sleep 1000; fi"
            stdout = "q"
            [process.head]
            command = ["head", "-n", "1"]
            stdin = "q"
            stdout = "null"
            "#,
        )
        .args(["--jobs", "20"])
        .run();
        drop(ran.nodes([("work", "succeeded"), ("head", "succeeded")]));
    }
}

#[test]
fn a_pool_whose_reader_leaves_early_has_succeeded() {
    for feed in ["stream", "request", "task"] {
        let ran = Pipeline::new(&format!(
            r#"
            [process.write]
            command = ["yes", "a line that fills pipes"]
            stdout = "q"
            [pool.work]
            workers = 2
            feed = "{feed}"
            command = ["cat"]
            stdin = "q"
            stdout = "r"
            [process.head]
            command = ["head", "-n", "1"]
            stdin = "r"
            stdout = "null"
            "#
        ))
        .run();
        assert_eq!(ran.field("work", "early_close"), true, "{feed}");
        assert_eq!(ran.field("write", "early_close"), true, "{feed}");
    }
}

/// The code is the pool's own, where it has none: a pool that failed is not said to have ended well.
#[test]
fn the_exit_code_of_a_failed_pool_is_not_that_of_success() {
    for feed in ["request", "task"] {
        Pipeline::new(&format!(
            r#"
            [pool.work]
            workers = 2
            feed = "{feed}"
            script = "[ $FEED = task ] || read -r line || exit 0; exit 3"
            env = {{ FEED = "{feed}" }}
            tasks = ["a"]
            allow_failure = true
            "#
        ))
        .args(["--exit-code-from", "work"])
        .run()
        .node(
            "work",
            match feed {
                "task" => "failed: record 0 failed its only try: exit code 3",
                _ => "failed: record 0 failed its only try: its worker ended without an answer (exit code 3)",
            },
        )
        .exit(3);
    }
}

#[test]
fn a_pool_that_cannot_start_its_workers_says_so() {
    for feed in ["stream", "request", "task"] {
        let ran = Pipeline::new(&format!(
            r#"
            [process.write]
            command = ["seq", "10"]
            stdout = "q"
            [pool.work]
            workers = 2
            feed = "{feed}"
            command = ["procflow-has-no-such-program"]
            stdin = "q"
            stdout = "r"
            [process.read]
            command = ["cat"]
            stdin = "r"
            stdout = {{ file = "out" }}
            "#
        ))
        .args(["--exit-code-from", "work"])
        .run();
        let ran = ran.no_file("out").exit(127);
        let ends = ran.ends();
        assert!(
            ends[1]
                .1
                .contains("cannot start: no such file: \"procflow-has-no-such-program\""),
            "{feed}: {ends:#?}"
        );
        drop(ran.node("work", &ends[1].1));
    }
}

/// A writer that fails never looks like the end of data: what the pool has done so far is not taken for whole.
#[test]
fn a_writer_that_fails_stops_the_pool_and_who_reads_its_results() {
    for (feed, script) in [("stream", "cat"), ("request", "cat"), ("task", "cat")] {
        let ran = Pipeline::new(&format!(
            r#"
            [process.write]
            script = "seq 10; read go < go; exit 3"
            stdout = "q"
            [pool.work]
            workers = 2
            feed = "{feed}"
            script = "{script}"
            stdin = "q"
            stdout = "r"
            [process.read]
            script = "head -n 1; echo ready > ready; cat > /dev/null"
            stdin = "r"
            stdout = {{ file = "out" }}
            "#
        ))
        .with_fifo("ready")
        .with_fifo("go");
        let live = ran.start();
        if feed == "task" {
            live.lines("ready", 1);
        }
        live.release("go", "go\n");
        let ran = live.finish().no_file("out").exit(1);
        drop(ran.nodes([
            ("write", "failed: exit 3"),
            ("work", "cancelled: writer write failed"),
            ("read", "cancelled: writer write failed"),
        ]));
    }
}

#[test]
fn a_pool_that_fails_takes_its_writer_and_reader_along() {
    for feed in ["stream", "request", "task"] {
        let ran = Pipeline::new(&format!(
            r#"
            [process.write]
            script = "seq 10; exec sleep 1000"
            stdout = "q"
            [pool.work]
            workers = 2
            feed = "{feed}"
            script = "read -r line; exit 3"
            stdin = "q"
            stdout = "r"
            [process.read]
            command = ["cat"]
            stdin = "r"
            stdout = {{ file = "out" }}
            "#
        ))
        .run();
        let ran = ran.no_file("out").exit(1);
        let work = ran.ends()[1].1.clone();
        assert!(work.starts_with("failed"), "{feed}: {work}");
        drop(ran.nodes([
            ("write", "cancelled: reader work failed"),
            ("work", &work),
            ("read", "cancelled: writer work failed"),
        ]));
    }
}

/// The relay of a stored queue may say that it cannot write before or after its writers' ends are known; its readers never start.
#[test]
fn a_stored_queue_that_cannot_be_written_ends_the_run() {
    for _ in 0..10 {
        let ran = Pipeline::new(
            r#"
            [process.one]
            command = ["seq", "20000"]
            stdout = "q"
            [process.two]
            command = ["seq", "3"]
            stdout = "q"
            [queue.q]
            store = true
            [process.read]
            script = "touch read; cat > /dev/null"
            stdin = "q"
            "#,
        )
        .under([
            "sh",
            "-ec",
            "trap '' XFSZ; exec prlimit --fsize=65536 \"$@\"",
            "sh",
        ])
        .run()
        .exit(3)
        .says("queue `q`")
        .no_file("read");
        drop(ran.node("read", "skipped: procflow could not go on"));
    }
}

/// A pool whose tasks can't be noted can't start, while what else is in its group has started already.
#[test]
fn a_pool_that_procflow_cannot_start_takes_its_group_along() {
    let ran = Pipeline::new(
        r#"
        [process.write]
        script = "exec sleep 1000"
        stdout = "q"
        [process.first]
        script = "rm -rf .procflow/runs/*/tasks .procflow/runs/*/logs; touch .procflow/runs/$PROCFLOW_RUN_ID/tasks .procflow/runs/$PROCFLOW_RUN_ID/logs"
        [pool.work]
        feed = "task"
        workers = 2
        command = ["true"]
        stdin = "q"
        stdout = "r"
        after = ["first"]
        [process.read]
        script = "trap '' TERM; cat > /dev/null"
        stdin = "r"
        "#,
    )
    .run();
    let ends = ran.ends();
    drop(ran.exit(3).says("start a pool").node("first", &ends[1].1));
}

#[test]
fn a_node_behind_a_stored_queue_is_tried_again_alone() {
    Pipeline::new(
        r#"
        [process.write]
        script = "echo run >> writes; seq 3"
        stdout = "q"
        [queue.q]
        store = true
        [pool.sum]
        feed = "request"
        workers = 1
        script = "while read -r line; do echo $line >> seen; echo $line; done"
        stdin = "q"
        stdout = "r"
        [process.read]
        script = "cat; [ $PROCFLOW_ATTEMPT = 3 ]"
        stdin = "r"
        stdout = { file = "out" }
        retries = 2
        "#,
    )
    .run()
    .file("writes", "run\n")
    .file("seen", "1\n2\n3\n1\n2\n3\n1\n2\n3\n")
    .file("out", "1\n2\n3\n");
}

/// What a pool had put into its value or its merged file before its group was tried again is gone.
#[test]
fn a_group_with_pools_is_tried_again_from_the_start() {
    for feed in ["request", "task"] {
        Pipeline::new(&format!(
            r#"
            [process.write]
            script = "seq 3; read go < go; [ $PROCFLOW_ATTEMPT = 2 ]"
            stdout = "q"
            retries = 1
            [pool.work]
            feed = "{feed}"
            workers = 1
            script = 'while read -r line; do echo $line; echo $line > ready; done'
            stdin = "q"
            stdout = "value"
            [process.use]
            after = ["work"]
            command = ["echo", "${{{{ value.work }}}}"]
            stdout = "inherit"
            "#
        ))
        .with_fifo("ready")
        .with_fifo("go")
        .start()
        .tap(|live| {
            for _ in 0..2 {
                live.lines("ready", 3);
                live.release("go", "go\n");
            }
        })
        .finish()
        .stdout("1\n2\n3\n");
    }
}

#[test]
fn a_stream_pool_and_its_merged_file_are_tried_again_from_the_start() {
    Pipeline::new(
        r#"
        [process.write]
        script = "seq 3; [ $PROCFLOW_ATTEMPT = 3 ]"
        stdout = "q"
        retries = { max = 2, delay = "10ms" }
        [pool.work]
        workers = 2
        command = ["cat"]
        stdin = "q"
        stdout = { file = "out" }
        [process.sort]
        after = ["work"]
        command = ["sort", "out"]
        stdout = "inherit"
        "#,
    )
    .run()
    .stdout("1\n2\n3\n");
}

#[test]
fn two_hundred_workers_come_and_go() {
    Pipeline::new(
        r#"
        [pool.request]
        workers = 200
        feed = "request"
        tasks = { range = [0, 1000] }
        command = ["cat"]
        stdout = "q"
        [process.count]
        command = ["wc", "-l"]
        stdin = "q"
        stdout = "inherit"
        "#,
    )
    .args(["--jobs", "300"])
    .run()
    .stdout("1000\n");
}

#[test]
fn more_workers_than_descriptors_are_a_clear_error() {
    for feed in ["request", "task"] {
        let ran = Pipeline::new(&format!(
            r#"
            [pool.work]
            workers = 200
            feed = "{feed}"
            tasks = {{ range = [0, 1000] }}
            script = "exec sleep 1000"
            "#
        ))
        .under(["prlimit", "--nofile=100:100"])
        .args(["--jobs", "300"])
        .run()
        .exit(3)
        .says("too many open files");
        let ends = ran.ends();
        drop(ran.node("work", &ends[0].1));
    }
}

/// Its tasks can't be held back any more, nor their ends be noted, while others end at the same moment.
#[test]
fn a_pool_that_cannot_hold_back_what_its_tasks_write_ends_the_run() {
    for _ in 0..3 {
        let ran = Pipeline::new(
            r#"
            [pool.work]
            workers = 8
            feed = "task"
            tasks = { range = [0, 100] }
            script = "head -c 50000000 /dev/zero"
            stdout = "null"
            "#,
        )
        .under([
            "sh",
            "-ec",
            "trap '' XFSZ; exec prlimit --fsize=65536 \"$@\"",
            "sh",
        ])
        .args(["--jobs", "20"])
        .run()
        .exit(3)
        .says("what a task wrote: file too large");
        drop(ran.node("work", "cancelled: procflow could not go on"));
    }
}
