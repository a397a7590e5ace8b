//! `--resume`: what is reused and what runs again, after whatever has happened in between.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;

use crate::support::{Live, Pipeline, Ran, wait_for};

/// Each node notes its start in `starts`.
const CHAIN: &str = r#"
[process.number]
script = "echo number >> starts; seq 30"
stdout = "numbers"
[queue.numbers]
store = true
[process.sort]
script = "echo sort >> starts; sort -rn"
stdin = "numbers"
stdout = { file = "sorted.txt" }
[process.count]
script = "echo count >> starts; wc -l < sorted.txt"
after = ["sort"]
stdout = "value"
[process.say]
script = "echo say >> starts; test ! -e broken; echo \"$VALUE_COUNT lines\" > said.txt"
after = ["count"]
reads = ["src/**"]
writes = ["said.txt"]
[process.alone]
script = "echo alone >> starts"
"#;

fn chain() -> Pipeline {
    Pipeline::new(CHAIN)
        .with_file("src/a.c", "a")
        .with_file("src/b/b.c", "b")
}

/// The nodes that were started, in the order of their names, since this was asked last.
fn starts(ran: &Ran) -> Vec<String> {
    let path = ran.pipeline.path("starts");
    let text = fs::read_to_string(&path).unwrap_or_default();
    let _ = fs::remove_file(path);
    let mut names: Vec<String> = text.lines().map(str::to_owned).collect();
    names.sort();
    names
}

/// The runs of a pipeline's directory, the oldest first.
fn runs(pipeline: &Pipeline) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(pipeline.path(".procflow/runs")) else {
        return Vec::new();
    };
    let mut runs: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    runs.sort();
    runs
}

fn name(run: &std::path::Path) -> String {
    run.file_name().unwrap().to_str().unwrap().to_owned()
}

/// Runs the chain to its end, changes something, takes the run up, and gives back who was started and what was said of them.
#[track_caller]
fn after(change: impl FnOnce(&Pipeline)) -> (Vec<String>, Vec<String>) {
    let first = chain().run();
    assert_eq!(starts(&first), ["alone", "count", "number", "say", "sort"]);
    let pipeline = first.again().args(["--resume"]);
    change(&pipeline);
    let mut second = pipeline.run();
    let started = starts(&second);
    let mut expected = second.ends();
    for (name, end) in &mut expected {
        let runs = started.contains(name);
        assert_eq!(end, if runs { "succeeded" } else { "reused" }, "{name}");
    }
    let said = second
        .stderr
        .lines()
        .filter(|line| line.starts_with("procflow: `"));
    let said = said
        .map(|line| line["procflow: ".len()..].to_owned())
        .collect();
    second = second.file("said.txt", "30 lines\n");
    let mut all: Vec<String> = second.ends().into_iter().map(|(name, _)| name).collect();
    all.sort();
    assert_eq!(all, ["alone", "count", "number", "say", "sort"]);
    let _ = second.any_nodes();
    (started, said)
}

fn write(pipeline: &Pipeline, name: &str, text: &str) {
    fs::write(pipeline.path(name), text).unwrap();
}

fn edit(pipeline: &Pipeline, old: &str, new: &str) {
    let text = fs::read_to_string(pipeline.path("pipeline.toml")).unwrap();
    assert!(text.contains(old));
    write(pipeline, "pipeline.toml", &text.replace(old, new));
}

#[test]
fn of_a_finished_run_nothing_is_started() {
    let (started, said) = after(|_| {});
    assert!(started.is_empty() && said.is_empty());
}

#[test]
fn it_says_that_there_is_nothing_to_do() {
    let first = chain().run();
    let id = name(&runs(&first.pipeline)[0]);
    let second = first.again().args(["--resume"]).run();
    let said = second.stderr.lines().next().unwrap_or_default().to_owned();
    assert_eq!(
        said,
        format!("procflow: takes up run {id}: nothing to do, all of it is finished")
    );
    let last = second.stderr.lines().last().unwrap_or_default().to_owned();
    assert!(
        last.starts_with("succeeded: 5 nodes: 5 reused in "),
        "{last}"
    );
    let _ = second.any_nodes();
}

#[test]
fn what_failed_runs_again_and_the_rest_does_not() {
    let first = chain().with_file("broken", "").run().exit(1);
    let first = first.any_nodes();
    assert_eq!(starts(&first), ["alone", "count", "number", "say", "sort"]);
    let id = name(&runs(&first.pipeline)[0]);
    let pipeline = first.again().args(["--resume"]);
    fs::remove_file(pipeline.path("broken")).unwrap();
    let second = pipeline.run().file("said.txt", "30 lines\n");
    assert_eq!(starts(&second), ["say"]);
    second
        .says(&format!(
            "procflow: takes up run {id}: 4 of 5 nodes are reused\nprocflow: `say` runs again: it failed\n"
        ))
        .nodes([
            ("number", "reused"),
            ("sort", "reused"),
            ("count", "reused"),
            ("say", "succeeded"),
            ("alone", "reused"),
        ]);
}

#[test]
fn an_edited_node_and_what_comes_after_it_run_again() {
    let (started, said) = after(|pipeline| edit(pipeline, "sort -rn", "sort -n"));
    assert_eq!(started, ["count", "say", "sort"]);
    assert_eq!(
        said,
        [
            "`sort` runs again: its definition has changed: command[3]",
            "`count` runs again: `sort` runs again",
            "`say` runs again: `count` runs again",
        ]
    );
}

#[test]
fn what_cannot_change_a_result_may_be_edited() {
    let (started, _) = after(|pipeline| {
        let more = "[process.sort]\ndescription = \"d\"\ntags = [\"t\"]\nretries = 2\ntimeout = \"1h\"\nstop_grace = \"9s\"\n";
        edit(pipeline, "[process.sort]\n", more);
    });
    assert!(started.is_empty());
}

#[test]
fn an_output_that_has_changed_or_gone_is_made_again() {
    let (started, said) = after(|pipeline| fs::remove_file(pipeline.path("said.txt")).unwrap());
    assert_eq!(started, ["say"]);
    assert_eq!(
        said,
        ["`say` runs again: `said.txt`, which it wrote, is gone"]
    );
    let (started, said) = after(|pipeline| write(pipeline, "sorted.txt", "x"));
    assert_eq!(started, ["count", "say", "sort"]);
    assert_eq!(
        said[0],
        "`sort` runs again: `sorted.txt`, which it wrote, has changed"
    );
}

#[test]
fn an_output_of_the_same_size_and_time_is_known_by_its_hash() {
    let (started, _) = after(|pipeline| {
        let path = pipeline.path("said.txt");
        let time = fs::metadata(&path).unwrap().modified().unwrap();
        write(pipeline, "said.txt", "31 lines\n");
        let file = fs::File::options().write(true).open(path).unwrap();
        file.set_modified(time).unwrap();
    });
    assert_eq!(started, ["say"]);
}

#[test]
fn what_is_read_and_has_changed_is_read_again() {
    let (started, said) = after(|pipeline| write(pipeline, "src/b/b.c", "B"));
    assert_eq!(started, ["say"]);
    assert_eq!(
        said,
        ["`say` runs again: `src/b/b.c`, which it reads, has changed"]
    );
    let (_, said) = after(|pipeline| write(pipeline, "src/new", ""));
    assert_eq!(
        said,
        ["`say` runs again: `src/new`, which it reads, is new"]
    );
    let (_, said) = after(|pipeline| fs::remove_file(pipeline.path("src/a.c")).unwrap());
    assert_eq!(
        said,
        ["`say` runs again: `src/a.c`, which it reads, is gone"]
    );
    // As a checkout does: the same text, written anew.
    let (started, _) = after(|pipeline| write(pipeline, "src/a.c", "a"));
    assert!(started.is_empty());
}

#[test]
fn a_stored_queue_that_has_gone_is_filled_again() {
    let (started, said) = after(|pipeline| {
        fs::remove_file(runs(pipeline)[0].join("queues/numbers")).unwrap();
    });
    assert_eq!(started, ["count", "number", "say", "sort"]);
    assert_eq!(
        said[0],
        "`number` runs again: what it stored in queue `numbers` is gone"
    );
}

#[test]
fn params_and_the_environment_count_for_all() {
    let (started, said) = after(|pipeline| {
        edit(
            pipeline,
            "\n[process.number]",
            "\n[env]\nLC_ALL = \"C\"\n[process.number]",
        );
    });
    assert_eq!(started.len(), 5);
    assert_eq!(
        said[0],
        "`number` runs again: what holds for all nodes has changed: env LC_ALL"
    );
}

#[test]
fn a_run_that_took_one_up_can_be_taken_up() {
    let mut ran = chain().run();
    starts(&ran);
    for _ in 0..3 {
        ran = ran.again().only_args(["--resume"]).run().any_nodes();
        assert!(starts(&ran).is_empty());
    }
    // The one that ran is not needed for that any more: what it stored is in each of them.
    let pipeline = ran.again();
    for run in &runs(&pipeline)[..3] {
        fs::remove_dir_all(run).unwrap();
    }
    edit(&pipeline, "sort -rn", "sort -n");
    let ran = pipeline.run().any_nodes();
    assert_eq!(starts(&ran), ["count", "say", "sort"]);
    assert!(
        fs::read_to_string(ran.pipeline.path("sorted.txt"))
            .unwrap()
            .starts_with("1\n2\n")
    );
}

#[test]
fn nodes_in_one_group_are_reused_together() {
    let text = r#"
        [process.a]
        script = "echo a >> starts; seq 3"
        stdout = "q"
        [process.b]
        script = "echo b >> starts; cat > b.txt"
        stdin = "q"
        writes = ["b.txt"]
    "#;
    let ran = Pipeline::new(text).run();
    assert_eq!(starts(&ran), ["a", "b"]);
    let ran = ran.again().args(["--resume"]).run().any_nodes();
    assert!(starts(&ran).is_empty());
    let pipeline = ran.again();
    fs::remove_file(pipeline.path("b.txt")).unwrap();
    let ran = pipeline.run();
    assert_eq!(starts(&ran), ["a", "b"]);
    ran.says("`a` runs again: it runs together with `b`, which runs again\n")
        .says("`b` runs again: `b.txt`, which it wrote, is gone\n")
        .file("b.txt", "1\n2\n3\n");
}

#[test]
fn a_service_runs_only_for_who_needs_it() {
    let text = r#"
        [process.db]
        script = "echo db >> starts; exec sleep 60"
        service = {}
        [process.test]
        script = "echo test >> starts; test ! -e broken"
        after = [{ node = "db", state = "ready" }]
    "#;
    let ran = Pipeline::new(text)
        .with_file("broken", "")
        .run()
        .exit(1)
        .any_nodes();
    assert_eq!(starts(&ran), ["db", "test"]);
    let pipeline = ran.again().args(["--resume"]);
    fs::remove_file(pipeline.path("broken")).unwrap();
    let ran = pipeline.run();
    assert_eq!(starts(&ran), ["db", "test"]);
    let ran = ran.again().run();
    assert!(starts(&ran).is_empty());
    ran.nodes([("db", "skipped: nobody needs it"), ("test", "reused")]);
}

#[test]
fn what_comes_from_outside_or_goes_there_is_done_each_time() {
    let text = r#"
        [process.ask]
        command = ["cat"]
        stdin = "inherit"
        [process.tell]
        command = ["echo", "hello"]
        stdout = "inherit"
    "#;
    let ran = Pipeline::new(text).run().stdout("hello\n");
    ran.again()
        .args(["--resume"])
        .run()
        .stdout("hello\n")
        .says("`ask` runs again: it reads procflow's own standard input\n")
        .says("`tell` runs again: it writes to procflow's own standard output\n");
}

#[test]
fn a_secret_is_known_and_kept_nowhere() {
    let text = r#"
        [params]
        token = { required = true, secret = true }
        [process.a]
        script = "echo a >> starts; test -n \"$PARAM_TOKEN\""
        [process.b]
        script = "echo \"$PARAM_TOKEN\"; echo b >> starts"
        stdout = "value"
    "#;
    let ran = Pipeline::new(text).args(["--set", "token=canary-17"]).run();
    assert_eq!(starts(&ran), ["a", "b"]);
    let ran = ran
        .again()
        .only_args(["--set", "token=canary-17", "--resume"])
        .run()
        .says("`b` runs again: its value holds a secret, which is kept nowhere\n")
        .nodes([("a", "reused"), ("b", "succeeded")]);
    assert_eq!(starts(&ran), ["b"]);
    let pipeline = ran
        .again()
        .only_args(["--set", "token=canary-18", "--resume"]);
    for run in runs(&pipeline) {
        let journal = fs::read_to_string(run.join("journal")).unwrap();
        assert!(!journal.contains("canary"), "{journal}");
    }
    let ran = pipeline.run();
    assert_eq!(starts(&ran), ["a", "b"]);
    ran.says("`a` runs again: what holds for all nodes has changed: env PARAM_TOKEN\n");
}

#[test]
fn without_an_earlier_run_it_begins_at_the_beginning() {
    chain()
        .args(["--resume"])
        .run()
        .says("procflow: no earlier run to take up: runs from the beginning\n");
}

#[test]
fn a_run_that_is_not_there_or_lives_is_no_run_to_take_up() {
    let ran = chain().args(["--resume=nine"]).run().exit(2).no_nodes();
    let dir = ran.pipeline.path(".procflow/runs");
    assert_eq!(
        ran.stderr,
        format!("procflow: --resume: no run in {}\n", dir.display())
    );
    let text = "[process.a]\nscript = \"echo up > up; read x < go\"\n";
    let live = Pipeline::new(text)
        .without_report()
        .with_fifo("up")
        .with_fifo("go")
        .start();
    live.lines("up", 1);
    let id = name(&runs(&live.pipeline)[0]);
    let mut second = live.pipeline.command();
    second.arg("--resume");
    let output = second.output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        format!("procflow: --resume: run {id} is live; wait for its end, or end it\n")
    );
    live.release("go", "\n");
    live.finish();
}

#[test]
fn a_damaged_journal_is_named_with_the_place() {
    let ran = chain().run();
    let journal = runs(&ran.pipeline)[0].join("journal");
    let whole = fs::read(&journal).unwrap();
    let second = whole.iter().position(|&byte| byte == b'\n').unwrap() + 1;
    let pipeline = ran.again().args(["--resume"]).without_report();
    let mut damaged = whole.clone();
    damaged[second + 5] ^= 1;
    fs::write(&journal, &damaged).unwrap();
    let ran = pipeline.run().exit(3);
    assert_eq!(
        ran.stderr,
        format!(
            "procflow: journal {} is damaged at byte {second}; nothing in it can be relied on: name another run with --resume=RUN, or run from the beginning\n",
            journal.display()
        )
    );
    assert_eq!(runs(&ran.pipeline).len(), 1);
    // The last line torn: what it said is done again.
    let pipeline = ran.again();
    let _ = fs::remove_file(pipeline.path("starts"));
    fs::write(&journal, &whole[..whole.len() - 3]).unwrap();
    let ran = pipeline.run();
    assert_eq!(starts(&ran), ["say"]);
}

/// Thirty nodes: stored queues, a pool that is fed from one, and chains of files. Each notes its start and its end.
fn thirty() -> String {
    let mut text = String::from(
        r#"
        [process.source]
        script = "echo source >> starts; seq 400; echo source >> ends"
        stdout = "numbers"
        [queue.numbers]
        store = true
        [pool.square]
        workers = 2
        feed = "request"
        order = "input"
        script = "echo square >> starts; while read n; do echo $((n * n)); done"
        stdin = "numbers"
        stdout = "squares"
        [queue.squares]
        store = true
        [process.sum]
        script = "echo sum >> starts; awk '{s += $1} END {print s}'; echo sum >> ends"
        stdin = "squares"
        stdout = { file = "sum.txt" }
        "#,
    );
    for chain in 0..3 {
        for link in 0..9 {
            let name = format!("c{chain}_{link}");
            let (before, input) = match link {
                0 => ("sum".to_owned(), "sum.txt".to_owned()),
                _ => {
                    let before = format!("c{chain}_{}", link - 1);
                    (before.clone(), format!("{before}.txt"))
                }
            };
            text += &format!(
                "[process.{name}]\nscript = \"echo {name} >> starts; sleep 0.01; cat {input}; echo {name}; echo {name} >> ends\"\nafter = [\"{before}\"]\nreads = [\"{input}\"]\nstdout = {{ file = \"{name}.txt\" }}\n"
            );
        }
    }
    text
}

/// Everything that the thirty nodes make, by name.
fn products(pipeline: &Pipeline) -> Vec<(String, Vec<u8>)> {
    let mut names = vec!["sum.txt".to_owned()];
    names.extend((0..3).flat_map(|chain| (0..9).map(move |link| format!("c{chain}_{link}.txt"))));
    let read = |name: String| {
        let bytes = fs::read(pipeline.path(&name)).unwrap_or_default();
        (name, bytes)
    };
    names.into_iter().map(read).collect()
}

/// The nodes that a run's events say have succeeded: its journal must know them.
fn told(run: &std::path::Path) -> Vec<String> {
    let events = fs::read_to_string(run.join("events.jsonl")).unwrap_or_default();
    let lines = events
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let ended = lines.filter(|event| event["event"] == "ended" && event["state"] == "succeeded");
    ended
        .map(|event| event["node"].as_str().unwrap().to_owned())
        .collect()
}

/// procflow killed at random moments, its guard or its runner, and taken up each time: nothing is left at any time, no node that
/// was told to have succeeded runs again, and in the end all is as if nothing had been. `PROCFLOW_RESUME_KILLS=300` for the long one.
#[test]
fn killed_at_random_moments_it_ends_as_if_nothing_had_been() {
    let kills = std::env::var("PROCFLOW_RESUME_KILLS").map_or(5, |text| text.parse().unwrap());
    let whole = Pipeline::new(&thirty()).run();
    let expected = products(&whole.pipeline);
    drop(whole);
    let (mut killed, mut rounds, mut seed) = (0, 0, 7_u64);
    let mut random = move |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) % below
    };
    while killed < kills {
        rounds += 1;
        let mut pipeline = Pipeline::new(&thirty()).without_report().args(["--resume"]);
        let mut finished: Vec<String> = Vec::new();
        loop {
            let before = runs(&pipeline);
            let _ = fs::remove_file(pipeline.path("starts"));
            let live = pipeline.start();
            // At the start of a node, at random; and a little later.
            let wait = random(12) as usize;
            let starts = live.pipeline.path("starts");
            let has_ended =
                |live: &Live| matches!(crate::support::process_state(live.pid()), None | Some('Z'));
            wait_for("some starts, or the end", || {
                let text = fs::read_to_string(&starts).unwrap_or_default();
                (text.lines().count() >= wait || has_ended(&live)).then_some(())
            });
            std::thread::sleep(std::time::Duration::from_micros(random(8_000)));
            let is_over = has_ended(&live);
            let ran = if is_over {
                live.finish().again()
            } else {
                killed += 1;
                let guard = live.pid();
                let runner = crate::support::children(guard).first().copied();
                let victim = runner.filter(|_| random(2) == 0).unwrap_or(guard);
                live.kill_for_good(victim)
            };
            let started = fs::read_to_string(ran.path("starts")).unwrap_or_default();
            for name in started.lines() {
                assert!(
                    !finished.iter().any(|known| known == name),
                    "`{name}` had finished, and runs again after {killed} kills"
                );
            }
            for run in runs(&ran).iter().filter(|run| !before.contains(run)) {
                finished.extend(told(run));
            }
            pipeline = ran;
            if is_over {
                break;
            }
        }
        assert!(products(&pipeline) == expected, "after {killed} kills");
    }
    writeln!(std::io::stderr(), "{killed} kills in {rounds} rounds").unwrap();
}
