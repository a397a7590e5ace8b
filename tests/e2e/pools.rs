//! Pools: work shared among workers, whatever becomes of the workers.

use std::collections::HashSet;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::support::{Live, Pipeline, Ran, children, process_state, wait_for};

/// Where the run has left its logs.
fn logs(ran: &Ran) -> PathBuf {
    let mut runs: Vec<_> = fs::read_dir(ran.pipeline.path(".procflow/runs"))
        .unwrap()
        .map(|run| run.unwrap().path().join("logs"))
        .collect();
    assert_eq!(runs.len(), 1);
    runs.remove(0)
}

/// A pool's `tasks.jsonl`, by the records' numbers. Each record must be there, and once.
#[track_caller]
fn journal(ran: &Ran, pool: &str, records: u64) -> Vec<Value> {
    let text = fs::read_to_string(logs(ran).join(format!("{pool}.tasks.jsonl"))).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'));
    let mut lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}")))
        .collect();
    lines.sort_by_key(|line| line["task"].as_u64());
    let mut next = 0;
    for line in &lines {
        assert_eq!(line["task"], next, "{text}");
        assert!(line["start"].as_f64().unwrap() >= 0.0, "{line}");
        assert!(line["duration"].as_f64().unwrap() >= 0.0, "{line}");
        next += line["count"].as_u64().unwrap();
    }
    assert_eq!(next, records, "{text}");
    lines
}

/// The same, as `tries state exit` of each line.
#[track_caller]
fn tries(ran: &Ran, pool: &str, records: u64) -> Vec<String> {
    let lines = journal(ran, pool, records);
    let short = |line: &Value| {
        let end = match (&line["exit"], &line["signal"]) {
            (Value::Null, Value::Null) => String::new(),
            (Value::Null, signal) => format!(" signal {signal}"),
            (exit, _) => format!(" exit {exit}"),
        };
        format!("{} {}{end}", line["tries"], line["state"].as_str().unwrap())
    };
    lines.iter().map(short).collect()
}

/// A count of a pool that procflow feeds.
#[track_caller]
fn count(ran: &Ran, pool: &str, what: &str) -> u64 {
    ran.field(pool, "pool")[what].as_u64().unwrap()
}

/// `TEXT 0` and so on, a line each.
fn lines(numbers: impl IntoIterator<Item = u64>, text: &str) -> String {
    numbers.into_iter().fold(String::new(), |mut all, number| {
        all += &format!("{text}{number}\n");
        all
    })
}

/// A pool's reason is exactly this, and the pipeline has no other node.
#[track_caller]
fn failed(ran: Ran, reason: &str) -> Ran {
    let end = format!("failed: {reason}");
    ran.exit(1).nodes([("p", end.as_str())])
}

// --- Killed workers ---

/// A number from the environment, for runs in full.
fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// The child processes of a process, whichever of its threads started them.
fn children_of_all_threads(pid: i32) -> Vec<i32> {
    let mut found = Vec::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
    {
        let file = thread.unwrap().path().join("children");
        let text = fs::read_to_string(file).unwrap_or_default();
        found.extend(
            text.split_whitespace()
                .map(|pid| pid.parse::<i32>().unwrap()),
        );
    }
    found
}

/// procflow's process that has the workers as children: `procflow run` itself, or its child.
fn runner(live: &Live) -> i32 {
    wait_for("a worker to be there", || {
        let below = children(live.pid());
        below
            .into_iter()
            .find(|pid| !children_of_all_threads(*pid).is_empty())
    })
}

/// Runs a pool over so many records, kills so many of its workers meanwhile, evenly over the results, and gives back what came.
/// The pool is the only node, so that each child of the runner is a worker.
fn killed_at_random(definition: &str, records: u64, kills: u64, result: &str) -> Ran {
    let bytes: u64 = (0..records)
        .map(|number| (number.to_string().len() + result.len() + 1) as u64)
        .sum();
    let live = Pipeline::new(&format!(
        r#"
        [pool.p]
        workers = 4
        tasks = {{ range = [0, {records}] }}
        retries = {{ max = 1000000, delay = "0s" }}
        stdout = "inherit"
        {definition}
        "#
    ))
    .args(["--progress", "none"])
    .start();
    let begun = Instant::now();
    let runner = runner(&live);
    let stdout = live.pipeline.path("stdout");
    // A generator of its own, so that a failure can be had again: what it picks still depends on who is there.
    let mut random: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut killed = HashSet::new();
    loop {
        let done = killed.len() as u64;
        if done == kills || process_state(runner).is_none_or(|state| state == 'Z') {
            break;
        }
        if fs::metadata(&stdout).unwrap().len() < bytes * done / kills {
            std::thread::yield_now();
            continue;
        }
        let workers: Vec<_> = children_of_all_threads(runner)
            .into_iter()
            .filter(|pid| !killed.contains(pid))
            .filter(|pid| process_state(*pid).is_some_and(|state| state != 'Z'))
            .collect();
        if workers.is_empty() {
            continue;
        }
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let victim = workers[(random % workers.len() as u64) as usize];
        if kill(Pid::from_raw(victim), Signal::SIGKILL).is_ok() {
            killed.insert(victim);
        }
    }
    let kills_done = killed.len() as u64;
    // The last results come together, and there is nobody left to kill. (Where answers are held back, they all do.)
    assert!(
        kills_done >= 1 && (kills_done >= kills / 4 || kills < 20),
        "the run has ended after {kills_done} kills of {kills}"
    );
    let ran = live.finish();
    if records > 100_000 || kills > 1000 {
        let took = begun.elapsed();
        let (retried, started) = (
            count(&ran, "p", "retried"),
            count(&ran, "p", "workers_started"),
        );
        let text = format!(
            "{records} records, {kills_done} kills: {took:.1?}, {retried} tried again, {started} workers\n"
        );
        // The figures of a run in full are what it is run for.
        std::io::stderr().write_all(text.as_bytes()).unwrap();
    }
    assert_eq!(count(&ran, "p", "answered"), records);
    assert_eq!(count(&ran, "p", "dead"), 0);
    assert!(
        journal(&ran, "p", records)
            .iter()
            .all(|line| line["state"] == "done")
    );
    ran
}

#[test]
fn request_workers_killed_at_random_lose_nothing_and_keep_the_order() {
    let records = number("PROCFLOW_POOL_RECORDS", 20_000);
    let kills = number("PROCFLOW_POOL_KILLS", 200);
    let definition = r#"
        feed = "request"
        order = "input"
        command = ["sed", "-u", "s/^/a/"]
    "#;
    let ran = killed_at_random(definition, records, kills, "a");
    assert!(count(&ran, "p", "workers_started") * 4 >= kills);
    ran.stdout(lines(0..records, "a"));
}

#[test]
fn request_workers_killed_at_random_lose_nothing_as_results_come() {
    let records = number("PROCFLOW_POOL_RECORDS", 20_000);
    let kills = number("PROCFLOW_POOL_KILLS", 200);
    let definition = r#"
        feed = "request"
        command = ["sed", "-u", "s/^/a/"]
    "#;
    let ran = killed_at_random(definition, records, kills, "a");
    let mut expected: Vec<_> = (0..records).map(|n| format!("a{n}\n")).collect();
    expected.sort();
    ran.stdout_sorted(&expected.concat());
}

/// They have a block in their own buffer, which is lost with them: what they had read has had a try, answered or not.
#[test]
fn request_workers_that_read_ahead_and_are_killed_at_random_lose_nothing() {
    let records = number("PROCFLOW_POOL_RECORDS", 2_000);
    let kills = number("PROCFLOW_POOL_KILLS", 200) / 100;
    let definition = r#"
        feed = "request"
        order = "input"
        command = ["sed", "s/^/a/"]
    "#;
    killed_at_random(definition, records, kills, "a").stdout(lines(0..records, "a"));
}

#[test]
fn tasks_killed_at_random_lose_nothing_and_keep_the_order() {
    let records = number("PROCFLOW_POOL_TASKS", 1_000);
    let kills = number("PROCFLOW_POOL_KILLS", 200).min(records / 5);
    // A worker killed between its two writes must leave no trace of the first.
    let definition = r#"
        order = "input"
        script = 'printf a; printf "%s\n" "$TASK"'
    "#;
    let ran = killed_at_random(definition, records, kills, "a");
    assert!(count(&ran, "p", "retried") > 0);
    ran.stdout(lines(0..records, "a"));
}

fn kill_now(pid: &str) {
    let pid: i32 = pid.parse().unwrap();
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    wait_for("the killed worker to be gone", || {
        process_state(pid).is_none().then_some(())
    });
}

#[test]
fn an_idle_stream_worker_that_is_killed_fails_the_pool() {
    let live = Pipeline::new(
        r#"
        [process.w]
        command = ["cat", "go"]
        stdout = "q"
        [pool.p]
        workers = 2
        stdin = "q"
        script = 'echo $WORKER $$ > started; exec cat'
        stdout = { file = "x" }
        "#,
    )
    .with_fifo("go")
    .with_fifo("started")
    .with_file("x", "old")
    .start();
    let mut started = live.lines("started", 2);
    started.sort();
    kill_now(started[1].strip_prefix("1 ").unwrap());
    let ran = live.finish().exit(1).nodes([
        ("w", "cancelled: reader p failed"),
        ("p", "failed: worker 1: killed by SIGKILL"),
    ]);
    let workers = ran.field("p", "workers");
    assert_eq!(workers[0]["state"], "cancelled", "{workers}");
    assert_eq!(workers[0]["reason"], "another worker of p failed");
    ran.file("x", "old");
}

#[test]
fn a_busy_stream_worker_that_is_killed_fails_the_pool() {
    let live = Pipeline::new(
        r#"
        [process.w]
        command = ["seq", "100000"]
        stdout = "q"
        [pool.p]
        workers = 2
        stdin = "q"
        script = 'read -r n; echo $WORKER $$ > started; exec sleep 1000'
        stdout = { file = "x" }
        "#,
    )
    .with_fifo("started")
    .with_file("x", "old")
    .start();
    let mut started = live.lines("started", 2);
    started.sort();
    kill_now(started[0].strip_prefix("0 ").unwrap());
    live.finish()
        .exit(1)
        .nodes([
            ("w", "cancelled: reader p failed"),
            ("p", "failed: worker 0: killed by SIGKILL"),
        ])
        .file("x", "old");
}

#[test]
fn an_idle_request_worker_that_is_killed_costs_no_try() {
    let live = Pipeline::new(
        r#"
        [process.w]
        command = ["cat", "go"]
        stdout = "q"
        [pool.p]
        workers = 2
        feed = "request"
        order = "input"
        stdin = "q"
        script = 'echo $$ >> pids; while read -r n; do echo a$n; done'
        stdout = "inherit"
        "#,
    )
    .with_fifo("go")
    .start();
    // Nobody takes their places before there is work.
    let pids = wait_for("two workers", || {
        let pids = fs::read_to_string(live.pipeline.path("pids")).ok()?;
        (pids.lines().count() == 2 && pids.ends_with('\n')).then_some(pids)
    });
    for pid in pids.lines() {
        kill_now(pid);
    }
    live.release("go", "1\n2\n3\n");
    let ran = live.finish().stdout("a1\na2\na3\n");
    assert_eq!(count(&ran, "p", "retried"), 0);
    assert!(count(&ran, "p", "workers_started") >= 3);
    assert!(tries(&ran, "p", 3).iter().all(|line| line == "1 done"));
}

#[test]
fn a_busy_request_worker_that_is_killed_costs_a_try() {
    let live = Pipeline::new(
        r#"
        [pool.p]
        workers = 2
        feed = "request"
        tasks = ["x"]
        script = 'while read -r n; do echo $$ > started; read -r go < go; echo $go$n; done'
        retries = { max = 1, delay = "0s" }
        stdout = "inherit"
        "#,
    )
    .with_fifo("go")
    .with_fifo("started")
    .start();
    kill_now(&live.lines("started", 1)[0]);
    live.lines("started", 1);
    live.release("go", "go\n");
    let ran = live.finish().stdout("gox\n");
    assert_eq!(tries(&ran, "p", 1), ["2 done"]);
    assert_eq!(count(&ran, "p", "retried"), 1);
}

#[test]
fn a_busy_request_worker_that_is_killed_without_retries_fails_the_pool() {
    let live = Pipeline::new(
        r#"
        [pool.p]
        workers = 2
        feed = "request"
        tasks = ["x"]
        script = 'while read -r n; do echo $$ > started; read -r go < go; echo $go$n; done'
        stdout = "inherit"
        "#,
    )
    .with_fifo("go")
    .with_fifo("started")
    .start();
    kill_now(&live.lines("started", 1)[0]);
    let ran = failed(
        live.finish(),
        "record 0 failed its only try: its worker ended without an answer (killed by SIGKILL)",
    );
    assert_eq!(tries(&ran, "p", 1), ["1 dead signal 9"]);
}

#[test]
fn a_killed_task_is_tried_again_and_leaves_no_trace() {
    let live = Pipeline::new(
        r#"
        [pool.p]
        workers = 2
        tasks = ["x"]
        script = 'echo begun; echo side > "$OUT_SIDE"; echo $$ > started; read -r go < go; echo $go$TASK, try $PROCFLOW_ATTEMPT'
        outputs = { side = { file = "side" } }
        retries = { max = 1, delay = "0s" }
        stdout = "inherit"
        "#,
    )
    .with_fifo("go")
    .with_fifo("started")
    .start();
    kill_now(&live.lines("started", 1)[0]);
    live.lines("started", 1);
    live.release("go", "go\n");
    let ran = live
        .finish()
        .stdout("begun\ngox, try 2\n")
        .file("side", "side\n");
    assert_eq!(tries(&ran, "p", 1), ["2 done exit 0"]);
}

#[test]
fn a_killed_task_without_retries_fails_the_pool() {
    let live = Pipeline::new(
        r#"
        [pool.p]
        workers = 2
        tasks = ["x"]
        script = 'echo begun; echo $$ > started; read -r go < go'
        stdout = "inherit"
        "#,
    )
    .with_fifo("go")
    .with_fifo("started")
    .start();
    kill_now(&live.lines("started", 1)[0]);
    let ran = failed(
        live.finish(),
        "record 0 failed its only try: killed by SIGKILL",
    );
    assert_eq!(tries(&ran, "p", 1), ["1 dead signal 9"]);
}

// --- Tasks, in all their forms ---

#[test]
fn tasks_are_a_list() {
    Pipeline::new(
        r#"
        [pool.p]
        workers = 3
        order = "input"
        tasks = ["a", "b c", "", "'$x\\", "é"]
        command = ["printf", "%s %s|%s\n", "${{ task.index }}", "${{ task }}", "x${{ task }}x"]
        stdout = "inherit"
        "#,
    )
    .run()
    .stdout("0 a|xax\n1 b c|xb cx\n2 |xx\n3 '$x\\|x'$x\\x\n4 é|xéx\n");
}

#[test]
fn tasks_are_arrays() {
    Pipeline::new(
        r#"
        [pool.p]
        workers = 3
        order = "input"
        tasks = [["a", "1"], ["b", "2 3"]]
        script = 'printf "%s|%s|%s|%s|%s\n" "$1" "$2" "$TASK_0" "$TASK_1" "$TASK_INDEX"'
        shell = ["sh", "-e", "-c"]
        stdout = "inherit"
        [pool.c]
        after = ["p"]
        order = "input"
        tasks = [["a", "1"], ["b", "2 3"]]
        command = ["printf", "%s-%s\n", "${{ task.1 }}", "${{ task.0 }}"]
        stdout = "inherit"
        "#,
    )
    .run()
    .stdout("||a|1|0\n||b|2 3|1\n1-a\n2 3-b\n");
}

#[test]
fn tasks_are_a_range() {
    let ran = Pipeline::new(
        r#"
        [pool.p]
        workers = 3
        order = "input"
        tasks = { range = [-2, 3] }
        command = ["echo", "${{ task }}", "${{ task.index }}"]
        stdout = "inherit"
        "#,
    )
    .run()
    .stdout("-2 0\n-1 1\n0 2\n1 3\n2 4\n");
    assert_eq!(tries(&ran, "p", 5), ["1 done exit 0"; 5]);
}

#[test]
fn no_tasks_are_no_work() {
    let ran = Pipeline::new(
        r#"
        [pool.p]
        tasks = { range = [3, 3] }
        command = ["false"]
        stdout = { file = "x" }
        [pool.q]
        tasks = { glob = "*.none" }
        feed = "request"
        command = ["cat"]
        stdout = { file = "y" }
        "#,
    )
    .run()
    .file("x", "")
    .file("y", "");
    assert_eq!(count(&ran, "p", "workers_started"), 0);
    journal(&ran, "p", 0);
}

#[test]
fn tasks_are_files_sorted_as_they_are_when_the_pool_starts() {
    Pipeline::new(
        r#"
        [process.make]
        command = ["touch", "b.csv", "a b.csv", "c.csv"]
        [pool.p]
        after = ["make"]
        order = "input"
        tasks = { glob = "*.csv" }
        script = 'echo "$TASK"; test -f "$TASK"'
        stdout = "inherit"
        "#,
    )
    .with_file("no.txt", "")
    .run()
    .stdout("a b.csv\nb.csv\nc.csv\n");
}

#[test]
fn tasks_are_lines_of_a_file() {
    Pipeline::new(
        r#"
        [process.make]
        command = ["printf", 'a\tb c\nd\te\n\t\nf\tg']
        stdout = { file = "list" }
        [pool.p]
        after = ["make"]
        order = "input"
        tasks = { lines = "list", separator = "\t" }
        command = ["printf", "%s|%s|%s\n", "${{ task.index }}", "${{ task.0 }}", "${{ task.1 }}"]
        stdout = "inherit"
        [pool.whole]
        after = ["p"]
        order = "input"
        tasks = { lines = "list" }
        command = ["printf", "%s\n", "${{ task }}"]
        stdout = "inherit"
        "#,
    )
    .run()
    .stdout("0|a|b c\n1|d|e\n2||\n3|f|g\na\tb c\nd\te\n\t\nf\tg\n");
}

#[test]
fn tasks_are_lines_for_workers_that_are_asked() {
    Pipeline::new(
        r#"
        [pool.p]
        workers = 2
        feed = "request"
        order = "input"
        tasks = ["a", "b c", "", "d"]
        command = ["sed", "-u", "s/^/got /"]
        stdout = "inherit"
        "#,
    )
    .run()
    .stdout("got a\ngot b c\ngot \ngot d\n");
}

#[test]
fn a_script_knows_its_task_and_worker() {
    let ran = Pipeline::new(
        r#"
        [pool.p]
        workers = 2
        max_in_flight = 1
        tasks = ["a", "b", "c"]
        script = '''
        read -r line || test -n "$line"
        echo "$TASK $line $TASK_INDEX $WORKER $PROCFLOW_NODE $PROCFLOW_ATTEMPT"
        '''
        stdout = "inherit"
        "#,
    )
    .run()
    .any_stdout();
    let workers: Vec<_> = journal(&ran, "p", 3)
        .iter()
        .map(|line| line["worker"].as_u64().unwrap())
        .collect();
    let expected: Vec<_> = ["a", "b", "c"]
        .iter()
        .zip(0..)
        .map(|(task, at)| format!("{task} {task} {at} {} p 1\n", workers[at]))
        .collect();
    assert_eq!(String::from_utf8_lossy(&ran.stdout), expected.concat());
}

#[test]
fn a_record_that_the_command_does_not_mention_is_its_input_as_it_stands() {
    Pipeline::new(
        r#"
        [queue.q]
        records = "nul"
        [process.w]
        command = ["printf", 'a\nb\0\0c']
        stdout = "q"
        [pool.p]
        feed = "task"
        order = "input"
        stdin = "q"
        command = ["od", "-An", "-c"]
        stdout = "inherit"
        "#,
    )
    .run()
    .stdout("   a  \\n   b  \\0\n  \\0\n   c\n");
}

#[test]
fn records_with_a_nul_or_too_long_for_an_argument_are_the_input_of_a_script() {
    let long = "x".repeat(200_000);
    Pipeline::new(
        r#"
        [process.w]
        command = ["cat", "in"]
        stdout = "q"
        [pool.p]
        feed = "task"
        order = "input"
        stdin = "q"
        script = 'echo "${TASK-unset} $(wc -c)"'
        stdout = "inherit"
        "#,
    )
    .with_file("in", format!("a\0b\n{long}\nok\n"))
    .run()
    .stdout("unset 4\nunset 200001\nok 3\n");
}

#[test]
fn a_record_with_a_nul_or_too_long_for_an_argument_is_a_dead_letter() {
    let long = "x".repeat(200_000);
    let input = format!("a\0b\n{long}\nok\n");
    let ran = Pipeline::new(
        r#"
        [process.w]
        command = ["cat", "in"]
        stdout = "q"
        [pool.p]
        feed = "task"
        order = "input"
        stdin = "q"
        command = ["echo", "${{ task }}"]
        stdout = "inherit"
        dead_letter = "dead"
        [process.bury]
        command = ["cat"]
        stdin = "dead"
        stdout = { file = "dead" }
        "#,
    )
    .with_file("in", &input)
    .run()
    .stdout("ok\n");
    let mut dead = fs::read(ran.pipeline.path("dead")).unwrap();
    dead.sort_unstable();
    let mut expected = format!("a\0b\n{long}\n").into_bytes();
    expected.sort_unstable();
    assert!(dead == expected);
    assert_eq!(count(&ran, "p", "dead"), 2);
    assert_eq!(count(&ran, "p", "answered"), 1);
}

// --- Batches ---

#[test]
fn a_batch_has_exactly_so_many_records_but_the_last() {
    let ran = Pipeline::new(
        r#"
        [pool.p]
        workers = 2
        order = "input"
        batch = 3
        tasks = { range = [0, 8] }
        command = ["printf", "%s %s %s;\n", "${{ task }}"]
        stdout = "inherit"
        "#,
    )
    .run()
    .stdout("0 1 2;\n3 4 5;\n6 7 ;\n");
    let lines = journal(&ran, "p", 8);
    let counts: Vec<_> = lines.iter().map(|line| &line["count"]).collect();
    assert_eq!(counts, [3, 3, 2]);
}

#[test]
fn a_batch_is_the_input_of_a_task() {
    Pipeline::new(
        r#"
        [process.w]
        command = ["seq", "7"]
        stdout = "q"
        [pool.p]
        workers = 2
        feed = "task"
        order = "input"
        batch = 3
        stdin = "q"
        script = 'echo $TASK_INDEX: $(cat)'
        stdout = "inherit"
        "#,
    )
    .run()
    .stdout("0: 1 2 3\n3: 4 5 6\n6: 7\n");
}

#[test]
fn a_batch_that_fails_is_halved_until_the_bad_record_stands_alone() {
    let ran = Pipeline::new(
        r#"
        [pool.p]
        workers = 2
        order = "input"
        batch = 8
        tasks = { range = [0, 20] }
        script = 'for n in $(cat); do echo $n; test $n != 5; done'
        stdout = "inherit"
        dead_letter = "dead"
        [process.bury]
        command = ["cat"]
        stdin = "dead"
        stdout = { file = "dead" }
        "#,
    )
    .run()
    .stdout(lines((0..20).filter(|n| *n != 5), ""))
    .file("dead", "5\n");
    let lines = journal(&ran, "p", 20);
    let dead: Vec<_> = lines
        .iter()
        .filter(|line| line["state"] == "dead")
        .collect();
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0]["task"], 5);
    assert_eq!(dead[0]["count"], 1);
    assert_eq!(dead[0]["exit"], 1);
}

#[test]
fn a_stream_worker_gets_whole_batches() {
    Pipeline::new(
        r#"
        [process.w]
        command = ["seq", "100"]
        stdout = "q"
        [pool.p]
        workers = 3
        batch = 10
        stdin = "q"
        # Each batch begins with a number that ends in 1, and has all up to the next that ends in 0.
        script = 'while read -r n; do test "${n%1}" != "$n" || exit 9; for i in 2 3 4 5 6 7 8 9 0; do read -r m; test "${m%$i}" != "$m" || exit 8; done; echo $n; done'
        stdout = "inherit"
        "#,
    )
    .run()
    .stdout_sorted(&{
        let mut expected: Vec<_> = (0..10).map(|n| format!("{}\n", n * 10 + 1)).collect();
        expected.sort();
        expected.concat()
    });
}

// --- Order, bounds, replacement ---

#[test]
fn one_in_flight_is_one_after_the_other() {
    for feed in ["request", "task"] {
        let (script, workers) = match feed {
            "task" => (
                "echo start $TASK >> log; echo end $TASK >> log; echo $TASK",
                4,
            ),
            _ => (
                "while read -r n; do echo start $n >> log; echo end $n >> log; echo $n; done",
                4,
            ),
        };
        let expected: String = (0..40).map(|n| format!("start {n}\nend {n}\n")).collect();
        Pipeline::new(&format!(
            r#"
            [pool.p]
            workers = {workers}
            feed = "{feed}"
            max_in_flight = 1
            tasks = {{ range = [0, 40] }}
            script = '{script}'
            stdout = "inherit"
            "#
        ))
        .run()
        .stdout(lines(0..40, ""))
        .file("log", expected);
    }
}

/// The first ends when all others have ended, so results can't come in their order.
#[test]
fn results_keep_the_order_of_their_records_where_asked() {
    for order in ["input", "completion"] {
        for feed in ["request", "task"] {
            let work = "case $n in 0) read -r go < go;; esac; printf \"%s \" $n; echo $n >> done";
            let script = match feed {
                "request" => format!("while read -r n; do {work}; done"),
                _ => format!("n=$TASK; {work}"),
            };
            let live = Pipeline::new(&format!(
                r#"
                [queue.r]
                records = {{ separator = " " }}
                [pool.p]
                workers = 2
                feed = "{feed}"
                order = "{order}"
                tasks = {{ range = [0, 4] }}
                script = '''{script}'''
                stdout = "r"
                [process.out]
                command = ["cat"]
                stdin = "r"
                stdout = "inherit"
                "#
            ))
            .with_fifo("go")
            .start();
            let read =
                |name: &str| fs::read_to_string(live.pipeline.path(name)).unwrap_or_default();
            // In whatever order: a worker that starts late leaves the first records to the other, which gives back what it has not
            // begun.
            let others = wait_for("all others", || {
                let done = read("done").replace('\n', " ");
                let mut sorted: Vec<&str> = done.split_whitespace().collect();
                sorted.sort_unstable();
                (sorted == ["1", "2", "3"]).then_some(done)
            });
            let (first, expected) = match order {
                "input" => (String::new(), "0 1 2 3 ".to_owned()),
                _ => (others.clone(), format!("{others}0 ")),
            };
            wait_for("what can come", || (read("stdout") == first).then_some(()));
            live.release("go", "go\n");
            live.finish().stdout(expected);
        }
    }
}

#[test]
fn a_worker_is_replaced_after_so_many_records() {
    let ran = Pipeline::new(
        r#"
        [pool.p]
        workers = 1
        feed = "request"
        order = "input"
        recycle_after = 4
        tasks = { range = [0, 10] }
        script = 'i=0; while read -r n; do i=$((i + 1)); echo $n is number $i; done'
        stdout = "inherit"
        "#,
    )
    .run()
    .stdout(
        (0..10)
            .map(|n| format!("{n} is number {}\n", n % 4 + 1))
            .collect::<String>(),
    );
    assert_eq!(count(&ran, "p", "workers_started"), 3);
    assert_eq!(count(&ran, "p", "retried"), 0);
}

#[test]
fn a_record_that_takes_too_long_is_to_blame_alone() {
    for (feed, script) in [
        (
            "request",
            "while read -r n; do test $n != 2 || exec sleep 1000; echo $n; done",
        ),
        ("task", "test $TASK != 2 || exec sleep 1000; echo $TASK"),
    ] {
        let ran = Pipeline::new(&format!(
            r#"
            [pool.p]
            workers = 2
            feed = "{feed}"
            order = "input"
            task_timeout = "300ms"
            stop_grace = "100ms"
            tasks = {{ range = [0, 6] }}
            script = '{script}'
            stdout = "inherit"
            dead_letter = "dead"
            [process.bury]
            command = ["cat"]
            stdin = "dead"
            stdout = {{ file = "dead" }}
            "#
        ))
        .run()
        .stdout("0\n1\n3\n4\n5\n")
        .file("dead", "2\n");
        assert_eq!(count(&ran, "p", "dead"), 1, "{feed}");
        assert!(count(&ran, "p", "workers_started") >= 2, "{feed}");
    }
}

#[test]
fn retries_wait_between_tries() {
    for (feed, script) in [
        (
            "request",
            "while read -r n; do echo $n >> log; test $n != 1 || exit 3; echo $n; done",
        ),
        (
            "task",
            "echo $TASK >> log; test $TASK != 1 || exit 3; echo $TASK",
        ),
    ] {
        let ran = Pipeline::new(&format!(
            r#"
            [run]
            on_failure = "continue"
            [pool.p]
            workers = 1
            feed = "{feed}"
            retries = {{ max = 2, delay = "100ms", backoff = 2.0, jitter = false }}
            tasks = {{ range = [0, 3] }}
            script = '{script}'
            stdout = "inherit"
            "#
        ))
        .run()
        .stdout_sorted("0\n2\n");
        let log = fs::read_to_string(ran.pipeline.path("log")).unwrap();
        assert_eq!(log.lines().filter(|line| *line == "1").count(), 3, "{feed}");
        assert_eq!(log.lines().count(), 5, "{feed}: {log}");
        // 100 ms and 200 ms.
        assert!(ran.took.as_millis() >= 300, "{feed}: {:?}", ran.took);
        let why = match feed {
            "request" => "its worker ended without an answer (exit code 3)",
            _ => "exit code 3",
        };
        failed(ran, &format!("record 1 failed all of its 3 tries: {why}"));
    }
}

#[test]
fn a_record_is_tried_again_only_with_the_codes_that_say_so() {
    let ran = Pipeline::new(
        r#"
        [run]
        on_failure = "continue"
        [pool.p]
        workers = 1
        order = "input"
        retries = { max = 2, delay = "0s", on_codes = [75] }
        tasks = ["75", "1", "0"]
        script = 'exit $TASK'
        stdout = "inherit"
        "#,
    )
    .run();
    assert_eq!(
        tries(&ran, "p", 3),
        ["3 dead exit 75", "1 dead exit 1", "1 done exit 0"]
    );
    let reason = ran.field("p", "reason");
    failed(ran, reason.as_str().unwrap());
}

#[test]
fn dead_letters_come_as_the_records_came() {
    for (feed, script) in [
        (
            "request",
            "while read -r n; do case $n in *1) exit 4;; esac; echo a$n; done",
        ),
        ("task", "case $TASK in *1) exit 4;; esac; echo a$TASK"),
    ] {
        let ran = Pipeline::new(&format!(
            r#"
            [process.w]
            command = ["printf", "%s", "0\n1\n2\n11\n22\n21"]
            stdout = "q"
            [pool.p]
            workers = 3
            feed = "{feed}"
            order = "input"
            retries = {{ max = 1, delay = "0s" }}
            stdin = "q"
            script = '{script}'
            stdout = "inherit"
            dead_letter = "dead"
            [process.bury]
            command = ["sort", "-n"]
            stdin = "dead"
            stdout = {{ file = "dead" }}
            "#
        ))
        .run()
        .stdout("a0\na2\na22\n")
        .file("dead", "1\n11\n21\n");
        assert_eq!(count(&ran, "p", "dead"), 3, "{feed}");
        let dead = journal(&ran, "p", 6);
        assert_eq!(
            dead.iter()
                .filter(|line| line["state"] == "dead")
                .map(|line| (
                    line["task"].as_u64(),
                    line["exit"].as_u64(),
                    line["tries"].as_u64()
                ))
                .collect::<Vec<_>>(),
            [1, 3, 5].map(|task| (Some(task), Some(4), Some(2))),
            "{feed}"
        );
    }
}

#[test]
fn a_failed_record_stops_the_pool_or_not_as_on_failure_says() {
    // Record 1 fails when 0 is at work; 0 goes on only when 1 has failed.
    for (policy, out, exits) in [
        ("stop", "0\n", "0 1"),
        ("continue", "0\n2\n3\n", "0 1 2 3"),
        ("kill", "", "0 1"),
    ] {
        let live = Pipeline::new(&format!(
            r#"
            [run]
            on_failure = "{policy}"
            [pool.p]
            workers = 2
            order = "input"
            tasks = {{ range = [0, 4] }}
            script = 'echo $TASK >> begun; case $TASK in 0) echo 0 > started; read -r go < go;; 1) echo $$ > started1; read -r go < go1; exit 6;; esac; echo $TASK'
            stdout = "inherit"
            stop_grace = "100ms"
            "#
        ))
        .with_fifo("go")
        .with_fifo("go1")
        .with_fifo("started")
        .with_fifo("started1")
        .start();
        live.lines("started", 1);
        let failing: i32 = live.lines("started1", 1)[0].parse().unwrap();
        live.release("go1", "go\n");
        wait_for("the first to have failed", || {
            process_state(failing).is_none().then_some(())
        });
        if policy != "kill" {
            live.release("go", "go\n");
        }
        let ran = live.finish().stdout(out);
        let mut begun: Vec<_> = fs::read_to_string(ran.pipeline.path("begun"))
            .unwrap()
            .lines()
            .map(str::to_owned)
            .collect();
        begun.sort();
        assert_eq!(begun.join(" "), exits, "{policy}");
        failed(ran, "record 1 failed its only try: exit code 6");
    }
}

#[test]
fn every_task_gets_the_header() {
    Pipeline::new(
        r#"
        [queue.q]
        header = 1
        [process.w]
        command = ["printf", "%s", "name\nann\nbob\ncid"]
        stdout = "q"
        [pool.p]
        workers = 2
        feed = "task"
        order = "input"
        stdin = "q"
        script = 'echo $TASK: $(cat)'
        stdout = "inherit"
        "#,
    )
    .run()
    .stdout("ann: name ann\nbob: name bob\ncid: name cid\n");
}

#[test]
fn what_a_failed_try_wrote_leaves_no_trace() {
    Pipeline::new(
        r#"
        [process.w]
        command = ["seq", "4"]
        stdout = "q"
        [pool.p]
        workers = 2
        feed = "task"
        order = "input"
        stdin = "q"
        retries = { max = 1, delay = "0s" }
        script = '''
        echo "$TASK by try $PROCFLOW_ATTEMPT"
        echo "$TASK aside $PROCFLOW_ATTEMPT" > "$OUT_ASIDE"
        head -c 300000 /dev/zero | tr '\0' x >> "$OUT_ASIDE"
        echo >> "$OUT_ASIDE"
        test $PROCFLOW_ATTEMPT = 2
        '''
        outputs = { aside = "aside" }
        stdout = "inherit"
        [process.look]
        command = ["grep", "-c", ""]
        stdin = "aside"
        stdout = { file = "count" }
        "#,
    )
    .run()
    .stdout("1 by try 2\n2 by try 2\n3 by try 2\n4 by try 2\n")
    .file("count", "8\n");
}

#[test]
fn each_worker_has_a_log_of_its_own() {
    let ran = Pipeline::new(
        r#"
        [pool.r]
        workers = 2
        feed = "request"
        tasks = ["a"]
        script = 'echo "r$WORKER" >&2; exec cat'
        stdout = "null"
        [pool.t]
        workers = 1
        order = "input"
        tasks = ["a", "b"]
        script = 'echo "t $TASK" >&2; echo "out $TASK"'
        "#,
    )
    .run();
    let logs = logs(&ran);
    let read = |name: &str| fs::read_to_string(logs.join(name)).unwrap();
    assert_eq!(read("r.0.err"), "r0\n");
    assert_eq!(read("r.1.err"), "r1\n");
    assert_eq!(read("t.0.err"), "t a\nt b\n");
    let out: String = fs::read_dir(&logs)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_str().unwrap().contains("/t.") && path.extension().unwrap() == "out")
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    assert_eq!(out, "out a\nout b\n");
}

#[test]
fn a_request_worker_that_answers_too_much_or_too_little_fails_the_pool() {
    for (script, says) in [
        ("while read -r n; do echo $n; echo $n; done", "answer"),
        ("read -r n; read -r n; read -r n; exit 0", "answer"),
    ] {
        let ran = Pipeline::new(&format!(
            r#"
            [pool.p]
            workers = 1
            feed = "request"
            tasks = {{ range = [0, 3] }}
            script = '{script}'
            stdout = {{ file = "x" }}
            "#
        ))
        .with_file("x", "old")
        .run()
        .exit(1);
        let reason = ran.field("p", "reason").as_str().unwrap().to_owned();
        assert!(reason.contains(says), "{reason}");
        ran.file("x", "old")
            .nodes([("p", format!("failed: {reason}").as_str())]);
    }
}

// --- Streams ---

#[test]
fn stream_workers_share_their_input_and_each_knows_its_number() {
    let ran = Pipeline::new(
        r#"
        [process.w]
        command = ["seq", "100000"]
        stdout = "q"
        [pool.p]
        workers = 3
        stdin = "q"
        command = ["awk", '{ print $0 > "/dev/stdout"; n++ } END { print n + 0 > ("share-" ENVIRON["WORKER"] "-" "${{ worker }}") }']
        stdout = "r"
        [process.sort]
        command = ["sort", "-n"]
        stdin = "r"
        stdout = { file = "out" }
        "#,
    )
    .run()
    .file("out", lines(1..100_001, ""));
    let share = |n: u32| -> u64 {
        let name = format!("share-{n}-{n}");
        let text = fs::read_to_string(ran.pipeline.path(&name)).unwrap();
        text.trim().parse().unwrap()
    };
    assert_eq!(share(0) + share(1) + share(2), 100_000);
    let workers = ran.field("p", "workers");
    assert_eq!(workers.as_array().unwrap().len(), 3);
}

#[test]
fn a_file_is_shared_by_stream_workers_like_a_queue_and_merged_whole() {
    let ran = Pipeline::new(
        r#"
        [pool.p]
        workers = 3
        stdin = { file = "in" }
        command = ["sed", "s/^/a/"]
        stdout = { file = "out" }
        "#,
    )
    .with_file("in", lines(0..50_000, ""))
    .run();
    let mut found: Vec<u64> = fs::read_to_string(ran.pipeline.path("out"))
        .unwrap()
        .lines()
        .map(|line| line.strip_prefix('a').unwrap().parse().unwrap())
        .collect();
    found.sort_unstable();
    assert!(found.into_iter().eq(0..50_000));
}

#[test]
fn what_stream_workers_write_to_a_file_appears_only_when_all_have_succeeded() {
    let live = Pipeline::new(
        r#"
        [pool.p]
        workers = 2
        stdin = { file = "in" }
        script = 'cat; echo $WORKER > started; read -r code < go$WORKER; exit $code'
        stdout = { file = "out" }
        "#,
    )
    .with_file("in", "1\n2\n")
    .with_file("out", "old")
    .with_fifo("go0")
    .with_fifo("go1")
    .with_fifo("started")
    .start();
    live.lines("started", 2);
    assert_eq!(
        fs::read_to_string(live.pipeline.path("out")).unwrap(),
        "old"
    );
    live.release("go0", "0\n");
    live.release("go1", "5\n");
    live.finish()
        .exit(1)
        .nodes([("p", "failed: worker 1: exit 5")])
        .file("out", "old");
}

#[test]
fn a_queue_for_each_worker_is_gathered_by_a_pattern() {
    Pipeline::new(
        r#"
        [env]
        LC_ALL = "C"
        [process.w]
        command = ["seq", "50000"]
        stdout = "q"
        [pool.sort]
        workers = 3
        stdin = "q"
        command = ["sort", "-n"]
        stdout = "sorted-${{ worker }}"
        [process.merge]
        inputs = { parts = "sorted-*" }
        command = ["sort", "-n", "-m", "${{ in.parts }}"]
        stdout = { file = "out" }
        "#,
    )
    .run()
    .file("out", lines(1..50_001, ""));
}

#[test]
fn every_stream_worker_gets_the_header() {
    Pipeline::new(
        r#"
        [queue.q]
        header = 1
        [process.w]
        command = ["printf", "%s", "name\nann\nbob\n"]
        stdout = "q"
        [pool.p]
        workers = 3
        stdin = "q"
        script = 'read -r head; echo "head $head"; exec cat'
        stdout = "inherit"
        "#,
    )
    .run()
    .stdout_sorted("ann\nbob\nhead name\nhead name\nhead name\n");
}

#[test]
fn a_stream_worker_that_leaves_records_unread_fails_the_pool() {
    Pipeline::new(
        r#"
        [pool.p]
        workers = 2
        batch = 3
        stdin = { file = "in" }
        script = 'read -r n || true'
        stdout = { file = "out" }
        "#,
    )
    .with_file("in", "1\n22\n333\n")
    .with_file("out", "old")
    .run()
    .exit(1)
    .node("p", "failed: worker 0: left 7 bytes unread")
    .file("out", "old");
}

#[test]
fn each_worker_has_a_copy_of_each_input() {
    Pipeline::new(
        r#"
        [process.w]
        command = ["seq", "3"]
        stdout = "q"
        [process.t]
        command = ["echo", "table"]
        stdout = "t"
        [pool.p]
        workers = 2
        stdin = "q"
        inputs = { table = "t" }
        script = 'cat "$IN_TABLE"; cat'
        stdout = "inherit"
        "#,
    )
    .run()
    .stdout_sorted("1\n2\n3\ntable\ntable\n");
}

#[test]
fn a_pool_is_one_of_the_readers_of_a_copied_queue() {
    for feed in ["stream", "request", "task"] {
        let command = match feed {
            "task" => r#"command = ["echo", "${{ task }}"]"#,
            _ => r#"command = ["sed", "-u", ""]"#,
        };
        Pipeline::new(&format!(
            r#"
            [queue.q]
            deliver = "copy"
            [process.w]
            command = ["seq", "300"]
            stdout = "q"
            [pool.p]
            workers = 3
            feed = "{feed}"
            stdin = "q"
            {command}
            stdout = "r"
            [process.sort]
            command = ["sort", "-n"]
            stdin = "r"
            stdout = {{ file = "by-pool" }}
            [process.other]
            command = ["cat"]
            stdin = "q"
            stdout = {{ file = "by-other" }}
            "#
        ))
        .run()
        .file("by-pool", lines(1..301, ""))
        .file("by-other", lines(1..301, ""));
    }
}

/// What comes after a pool comes after all of it.
#[test]
fn to_wait_for_a_pool_is_to_wait_for_all_of_it() {
    Pipeline::new(
        r#"
        [pool.p]
        workers = 2
        tasks = { range = [0, 9] }
        script = 'echo $TASK >> done'
        [process.count]
        after = ["p"]
        command = ["grep", "-c", "", "done"]
        stdout = "inherit"
        "#,
    )
    .run()
    .stdout("9\n");
}

// --- Among other nodes ---

/// Its command for each way to be fed, so that it passes on what it gets.
fn passing(feed: &str) -> &str {
    match feed {
        "task" => r#"command = ["echo", "${{ task }}"]"#,
        _ => r#"command = ["sed", "-u", ""]"#,
    }
}

const FEEDS: [&str; 3] = ["stream", "request", "task"];

#[test]
fn a_pool_whose_reader_has_enough_has_succeeded() {
    for feed in FEEDS {
        Pipeline::new(&format!(
            r#"
            [process.w]
            command = ["yes", "1"]
            stdout = "q"
            [pool.p]
            workers = 2
            feed = "{feed}"
            stdin = "q"
            {}
            stdout = "r"
            [process.r]
            command = ["head", "-n", "5"]
            stdin = "r"
            stdout = "inherit"
            "#,
            passing(feed)
        ))
        .run()
        .stdout("1\n1\n1\n1\n1\n");
    }
}

#[test]
fn a_pool_whose_reader_fails_is_cancelled() {
    for feed in FEEDS {
        Pipeline::new(&format!(
            r#"
            [process.w]
            command = ["yes", "1"]
            stdout = "q"
            [pool.p]
            workers = 2
            feed = "{feed}"
            stdin = "q"
            {}
            stdout = "r"
            [process.r]
            script = 'read -r n; exit 3'
            stdin = "r"
            "#,
            passing(feed)
        ))
        .run()
        .exit(1)
        .node("r", "failed: exit 3")
        .node("p", "cancelled: reader r failed");
    }
}

#[test]
fn a_pool_whose_writer_fails_is_cancelled_unless_its_queue_closes() {
    for feed in FEEDS {
        for closes in [false, true] {
            let policy = if closes { "close" } else { "cancel" };
            let ran = Pipeline::new(&format!(
                r#"
                [queue.q]
                on_writer_failure = "{policy}"
                [process.w]
                script = 'seq 20; exit 3'
                stdout = "q"
                [pool.p]
                workers = 2
                feed = "{feed}"
                stdin = "q"
                {}
                stdout = "r"
                [process.r]
                command = ["sort", "-n"]
                stdin = "r"
                stdout = {{ file = "out" }}
                "#,
                passing(feed)
            ))
            .with_file("out", "old")
            .run()
            .exit(1)
            .node("w", "failed: exit 3");
            if closes {
                ran.node("p", "succeeded")
                    .node("r", "succeeded")
                    .file("out", lines(1..21, ""));
            } else {
                ran.node("p", "cancelled: writer w failed")
                    .file("out", "old");
            }
        }
    }
}

#[test]
fn a_pool_that_fails_stops_who_reads_it_and_who_writes_to_it() {
    for feed in FEEDS {
        let script = match feed {
            "task" => "test $TASK -lt 50 || exit 6; echo $TASK",
            _ => "while read -r n; do test $n -lt 50 || exit 6; echo $n; done",
        };
        let ran = Pipeline::new(&format!(
            r#"
            [process.w]
            script = 'n=0; while :; do n=$((n + 1)); echo $n; done'
            stdout = "q"
            [pool.p]
            workers = 2
            feed = "{feed}"
            stdin = "q"
            script = '{script}'
            stdout = "r"
            [process.r]
            command = ["cat"]
            stdin = "r"
            stdout = {{ file = "out" }}
            "#
        ))
        .with_file("out", "old")
        .run()
        .exit(1)
        .node("w", "cancelled: reader p failed")
        .node("r", "cancelled: writer p failed")
        .file("out", "old");
        assert_eq!(ran.field("p", "state"), "failed");
    }
}

#[test]
fn what_a_pool_writes_can_go_to_several() {
    for feed in FEEDS {
        Pipeline::new(&format!(
            r#"
            [process.w]
            command = ["seq", "300"]
            stdout = "q"
            [pool.p]
            workers = 2
            feed = "{feed}"
            stdin = "q"
            {}
            stdout = ["r", {{ file = "copy" }}]
            [process.r]
            command = ["sort", "-n"]
            stdin = "r"
            stdout = {{ file = "out" }}
            [process.again]
            after = ["p"]
            command = ["sort", "-n", "copy"]
            stdout = {{ file = "out2" }}
            "#,
            passing(feed)
        ))
        .run()
        .file("out", lines(1..301, ""))
        .file("out2", lines(1..301, ""));
    }
}

/// Suspects are halved among workers that are asked, too: in order, the dead one left out.
#[test]
fn one_bad_record_in_a_full_hand_costs_no_other() {
    let ran = Pipeline::new(
        r#"
        [pool.p]
        workers = 2
        feed = "request"
        order = "input"
        batch = 64
        tasks = { range = [0, 3000] }
        script = 'while read -r n; do case $n in 1234|2999) kill -SEGV $$;; esac; echo $n; done'
        stdout = "inherit"
        stderr = "null"
        dead_letter = "dead"
        [process.bury]
        command = ["sort", "-n"]
        stdin = "dead"
        stdout = { file = "dead" }
        "#,
    )
    .run()
    .stdout(lines((0..3000).filter(|n| ![1234, 2999].contains(n)), ""))
    .file("dead", "1234\n2999\n");
    let dead: Vec<_> = journal(&ran, "p", 3000)
        .iter()
        .filter(|line| line["state"] == "dead")
        .map(|line| (line["task"].as_u64(), line["signal"].as_u64()))
        .collect();
    assert_eq!(dead, [(Some(1234), Some(11)), (Some(2999), Some(11))]);
}
