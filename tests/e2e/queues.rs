//! Queues: who gets which record, what happens when one is full, and what is kept on disk.

use std::collections::BTreeSet;
use std::fs;

use crate::support::{Pipeline, Ran};

/// A field of a queue in the report.
#[track_caller]
fn queue(ran: &Ran, name: &str, field: &str) -> serde_json::Value {
    let report = ran.report.as_ref().unwrap();
    let queues = report["queues"].as_array().unwrap();
    let found = queues.iter().find(|queue| queue["name"] == name);
    found.unwrap_or_else(|| panic!("no queue {name}"))[field].clone()
}

fn text(ran: &Ran, name: &str) -> String {
    fs::read_to_string(ran.pipeline.path(name)).unwrap()
}

fn numbers(ran: &Ran, name: &str) -> Vec<u64> {
    let text = text(ran, name);
    text.lines().map(|line| line.parse().unwrap()).collect()
}

/// `1` to this number, a line each.
fn count_to(last: u64) -> String {
    (1..=last).map(|number| format!("{number}\n")).collect()
}

// --- Who gets a record ---

#[test]
fn round_robin_deals_record_by_record() {
    let ran = Pipeline::new(
        r#"
        [queue.q]
        deliver = "round_robin"
        [process.w]
        command = ["seq", "30000"]
        stdout = "q"
        [process.a]
        command = ["cat"]
        stdin = "q"
        stdout = { file = "a" }
        [process.b]
        command = ["cat"]
        stdin = "q"
        stdout = { file = "b" }
        [process.c]
        command = ["cat"]
        stdin = "q"
        stdout = { file = "c" }
        "#,
    )
    .run();
    for (name, first) in [("a", 1), ("b", 2), ("c", 3)] {
        assert!(
            numbers(&ran, name)
                .into_iter()
                .eq((first..=30000).step_by(3))
        );
    }
    assert_eq!(queue(&ran, "q", "records"), 30000);
}

#[test]
fn round_robin_deals_to_the_workers_of_a_pool() {
    Pipeline::new(
        r#"
        [queue.q]
        deliver = "round_robin"
        [process.w]
        command = ["seq", "10"]
        stdout = "q"
        [pool.p]
        workers = 3
        stdin = "q"
        script = 'echo $WORKER: $(cat)'
        stdout = "inherit"
        "#,
    )
    .run()
    .stdout_sorted("0: 1 4 7 10\n1: 2 5 8\n2: 3 6 9\n");
}

/// By nodes and by workers: none sees a key that another has seen, and nothing is lost.
#[test]
fn equal_keys_go_to_one_reader() {
    let write = r#"
        [queue.q]
        deliver = { by_field = 2, separator = "," }
        [process.w]
        command = ["awk", 'BEGIN { for (i = 0; i < 20000; i++) print i ",k" i % 97 "," i }']
        stdout = "q"
    "#;
    let nodes = r#"
        [process.a]
        command = ["cat"]
        stdin = "q"
        stdout = { file = "part-0" }
        [process.b]
        command = ["cat"]
        stdin = "q"
        stdout = { file = "part-1" }
        [process.c]
        command = ["cat"]
        stdin = "q"
        stdout = { file = "part-2" }
    "#;
    let workers = r#"
        [pool.p]
        workers = 3
        stdin = "q"
        script = 'cat > part-$WORKER'
    "#;
    let mut before = None;
    for readers in [nodes, workers] {
        let ran = Pipeline::new(&format!("{write}{readers}")).run();
        let parts: Vec<_> = (0..3)
            .map(|part| text(&ran, &format!("part-{part}")))
            .collect();
        let keys: Vec<BTreeSet<&str>> = parts
            .iter()
            .map(|part| {
                part.lines()
                    .map(|line| line.split(',').nth(1).unwrap())
                    .collect()
            })
            .collect();
        assert!(keys.iter().all(|keys| keys.len() > 10), "{keys:?}");
        assert_eq!(keys.iter().map(BTreeSet::len).sum::<usize>(), 97);
        let mut all: Vec<u64> = parts
            .iter()
            .flat_map(|part| part.lines())
            .map(|line| line.split(',').next().unwrap().parse().unwrap())
            .collect();
        all.sort_unstable();
        assert!(all.into_iter().eq(0..20000));
        // In each run, whoever the readers are.
        if let Some(before) = before.replace(parts.clone()) {
            assert!(before == parts);
        }
    }
}

#[test]
fn every_reader_gets_the_header() {
    for (deliver, a, b) in [
        ("round_robin", "h\n1\n3\n", "h\n2\n"),
        ("copy", "h\n1\n2\n3\n", "h\n1\n2\n3\n"),
    ] {
        Pipeline::new(&format!(
            r#"
            [queue.q]
            deliver = "{deliver}"
            header = 1
            [process.w]
            command = ["printf", "%s\n", "h", "1", "2", "3"]
            stdout = "q"
            [process.a]
            command = ["cat"]
            stdin = "q"
            stdout = {{ file = "a" }}
            [process.b]
            command = ["cat"]
            stdin = "q"
            stdout = {{ file = "b" }}
            "#
        ))
        .run()
        .file("a", a)
        .file("b", b);
    }
}

#[test]
fn a_header_longer_than_the_data_goes_to_all() {
    Pipeline::new(
        r#"
        [queue.q]
        header = 5
        [process.w]
        command = ["printf", "%s\n", "h", "i"]
        stdout = "q"
        [pool.p]
        workers = 2
        stdin = "q"
        script = 'echo $(cat)'
        stdout = "inherit"
        "#,
    )
    .run()
    .stdout_sorted("h i\nh i\n");
}

// --- How much is held ---

/// The reader looks, with each record, how far ahead the writer is. It is so whoever is slower.
#[test]
fn a_writer_is_held_back_by_a_count_of_records() {
    let ran = Pipeline::new(
        r#"
        [queue.q]
        max_records = 3
        [process.w]
        script = 'i=0; while test $i -lt 200; do i=$((i + 1)); printf "%04000d\n" $i; printf x >> written; done'
        stdout = "q"
        [process.r]
        script = 'n=0; while read -r _; do n=$((n + 1)); echo $(($(wc -c < written) - n)); done'
        stdin = "q"
        stdout = { file = "ahead" }
        "#,
    )
    .with_file("written", "")
    .run();
    let text = text(&ran, "ahead");
    let ahead: Vec<i64> = text.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(ahead.len(), 200);
    // Three wait, and one write is in the writer's pipe; what the reader has just got may not be counted as written yet.
    assert!(
        ahead.iter().all(|ahead| (-1..=5).contains(ahead)),
        "{ahead:?}"
    );
}

#[test]
fn what_is_dropped_is_whole_records_counted() {
    for policy in ["drop_newest", "drop_oldest"] {
        let live = Pipeline::new(&format!(
            r#"
            [queue.q]
            overflow = "{policy}"
            capacity = "16KiB"
            [process.w]
            script = 'seq 100000; echo > ended'
            stdout = "q"
            [process.r]
            script = 'read -r go < go; cat'
            stdin = "q"
            stdout = {{ file = "out" }}
            "#
        ))
        .with_fifo("ended")
        .with_fifo("go")
        .start();
        live.lines("ended", 1);
        live.release("go", "go\n");
        let ran = live.finish().says("dropped, since it was full");
        let got = numbers(&ran, "out");
        let dropped = queue(&ran, "q", "dropped").as_u64().unwrap();
        assert!(dropped > 10_000, "{policy}: {dropped}");
        assert_eq!(got.len() as u64 + dropped, 100_000, "{policy}");
        assert!(got.is_sorted_by(|one, next| one < next), "{policy}");
        assert_eq!(got[0], 1, "{policy}");
        if policy == "drop_oldest" {
            assert_eq!(got.last(), Some(&100_000));
        } else {
            assert!(got[..1000].iter().copied().eq(1..=1000));
        }
    }
}

#[test]
fn what_spills_lets_its_writer_end_and_comes_back_in_order() {
    for readers in [1, 2] {
        let mut text = r#"
            [queue.q]
            overflow = "spill"
            capacity = "64KiB"
            deliver = "copy"
            [process.w]
            script = 'seq 300000; echo > ended'
            stdout = "q"
        "#
        .to_owned();
        if readers == 1 {
            text = text.replace("deliver = \"copy\"", "");
        }
        for reader in 0..readers {
            text += &format!(
                r#"
                [process.r{reader}]
                script = 'read -r go < go{reader}; cat'
                stdin = "q"
                stdout = {{ file = "out{reader}" }}
                "#
            );
        }
        let live = Pipeline::new(&text)
            .with_fifo("ended")
            .with_fifo("go0")
            .with_fifo("go1")
            .start();
        live.lines("ended", 1);
        for reader in 0..readers {
            live.release(&format!("go{reader}"), "go\n");
        }
        let mut ran = live.finish();
        for reader in 0..readers {
            ran = ran.file(&format!("out{reader}"), count_to(300_000));
        }
    }
}

// --- Stored queues ---

#[test]
fn a_reader_of_a_stored_queue_is_tried_again_alone() {
    let ran = Pipeline::new(
        r#"
        [queue.q]
        store = true
        [process.w]
        script = 'echo ran >> runs; seq 100000'
        stdout = "q"
        [process.r]
        script = 'cat; test $PROCFLOW_ATTEMPT = 3'
        retries = { max = 2, delay = "0s" }
        stdin = "q"
        stdout = { file = "out" }
        "#,
    )
    .run()
    .file("runs", "ran\n")
    .file("out", count_to(100_000));
    assert_eq!(ran.field("r", "attempts"), 3);
    assert_eq!(ran.field("w", "attempts"), 1);
}

#[test]
fn a_stored_queue_of_several_writers_has_whole_records_of_all() {
    for (merge, expected) in [
        ("sequence", "1\n2\n3\n11\n12"),
        ("arrive", "1\n11\n12\n2\n3\n"),
    ] {
        Pipeline::new(&format!(
            r#"
            [env]
            LC_ALL = "C"
            [queue.q]
            store = true
            deliver = "copy"
            merge = "{merge}"
            [process.a]
            command = ["printf", "1\n2\n3"]
            stdout = "q"
            [process.b]
            command = ["printf", "11\n12"]
            stdout = "q"
            [process.r]
            command = ["{read}"]
            stdin = "q"
            stdout = {{ file = "out" }}
            [process.r2]
            command = ["{read}"]
            stdin = "q"
            stdout = {{ file = "out2" }}
            "#,
            read = if merge == "arrive" { "sort" } else { "cat" },
        ))
        .run()
        .file("out", expected)
        .file("out2", expected);
    }
}

#[test]
fn a_writer_of_a_stored_queue_that_fails_gives_it_no_readers() {
    Pipeline::new(
        r#"
        [queue.q]
        store = true
        [process.w]
        script = 'seq 10; exit 3'
        stdout = "q"
        [process.r]
        command = ["touch", "started"]
        stdin = "q"
        "#,
    )
    .run()
    .exit(1)
    .nodes([("w", "failed: exit 3"), ("r", "skipped: w failed")])
    .no_file("started");
}

#[test]
fn pools_read_a_stored_queue() {
    for feed in ["stream", "request", "task"] {
        let command = match feed {
            "task" => r#"["echo", "${{ task }}"]"#,
            _ => r#"["sed", "-u", ""]"#,
        };
        Pipeline::new(&format!(
            r#"
            [queue.q]
            store = true
            [process.w]
            command = ["seq", "200"]
            stdout = "q"
            [pool.p]
            workers = 3
            feed = "{feed}"
            stdin = "q"
            command = {command}
            stdout = "r"
            [process.sort]
            command = ["sort", "-n"]
            stdin = "r"
            stdout = {{ file = "out" }}
            "#
        ))
        .run()
        .file("out", count_to(200));
    }
}

#[test]
fn a_pool_writes_a_stored_queue() {
    for feed in ["stream", "request", "task"] {
        let input = match feed {
            "stream" => "stdin = { file = \"in\" }",
            _ => "tasks = { lines = \"in\" }",
        };
        let command = match feed {
            "task" => r#"["echo", "${{ task }}"]"#,
            _ => r#"["sed", "-u", ""]"#,
        };
        Pipeline::new(&format!(
            r#"
            [queue.r]
            store = true
            [pool.p]
            workers = 3
            feed = "{feed}"
            {input}
            command = {command}
            stdout = "r"
            [process.sort]
            command = ["sort", "-n"]
            stdin = "r"
            stdout = {{ file = "out" }}
            "#
        ))
        .with_file("in", count_to(200))
        .run()
        .file("out", count_to(200));
    }
}

// --- Queues that lead back ---

/// Each number below 64 finds its double and one more: all numbers up to 127, from 1.
const TREE: &str = r#"
    [queue.todo]
    feedback = true
    [pool.find]
    workers = 3
    feed = "task"
    stdin = "todo"
    script = 'echo $TASK; test $TASK -ge 64 || printf "%s\n" $((TASK * 2)) $((TASK * 2 + 1)) > "$OUT_MORE"'
    stdout = "found"
    [process.sort]
    command = ["sort", "-n"]
    stdin = "found"
    stdout = { file = "out" }
"#;

#[test]
fn a_pool_finds_more_work_until_there_is_none() {
    for (seed, expected) in [
        // With its end, without it, nothing at all.
        (r#"["echo", "1"]"#, count_to(127)),
        (r#"["printf", "1"]"#, count_to(127)),
        (r#"["printf", '64\n127']"#, "64\n127\n".to_owned()),
        (r#"["true"]"#, String::new()),
    ] {
        Pipeline::new(&format!(
            r#"
            [process.seed]
            command = {seed}
            stdout = "todo"
            {TREE}
            [pool.find.outputs]
            more = "todo"
            "#
        ))
        .run()
        .file("out", expected);
    }
}

/// What workers that are asked answer goes on to the pool that finds more, and back.
#[test]
fn two_pools_on_one_cycle_end_together() {
    for (seed, last) in [("1", 127), ("", 0)] {
        let text = TREE.replace("stdin = \"todo\"", "stdin = \"checked\"");
        let ran = Pipeline::new(&format!(
            r#"
            [process.seed]
            command = ["printf", "%s", "{seed}"]
            stdout = "todo"
            [pool.check]
            workers = 2
            feed = "request"
            stdin = "todo"
            command = ["sed", "-u", "s/^0*//"]
            stdout = "checked"
            {text}
            [pool.find.outputs]
            more = "todo"
            "#
        ))
        .run()
        .file("out", count_to(last));
        assert_eq!(ran.field("check", "pool")["answered"], last);
        assert_eq!(ran.field("find", "pool")["answered"], last);
    }
}

/// A record that fails on a cycle does not hold it open.
#[test]
fn a_dead_letter_ends_a_cycle_like_an_answer() {
    let text = TREE.replace("echo $TASK;", "test $TASK != 3 || exit 1; echo $TASK;");
    let ran = Pipeline::new(
        &format!(
            r#"
        [process.seed]
        command = ["echo", "1"]
        stdout = "todo"
        {text}
        [pool.find.outputs]
        more = "todo"
        [process.bury]
        command = ["cat"]
        stdin = "dead"
        stdout = {{ file = "dead" }}
        "#
        )
        .replace(
            "feed = \"task\"",
            "feed = \"task\"\n dead_letter = \"dead\"",
        ),
    )
    .run()
    .file("dead", "3\n");
    // Without 3 and all that come of it: 6, 7; 12 to 15 ...
    let comes_of_3 = |mut number: u64| {
        while number > 3 {
            number /= 2;
        }
        number == 3
    };
    let expected: Vec<_> = (1..128).filter(|number| !comes_of_3(*number)).collect();
    assert_eq!(numbers(&ran, "out"), expected);
}

#[test]
fn processes_in_conversation_end_by_their_own_protocol() {
    Pipeline::new(
        r#"
        [queue.answers]
        feedback = true
        [process.ask]
        script = 'for n in 1 2 3; do echo $n; read -r answer; echo "$n: $answer" >&2; done'
        stdin = "answers"
        stdout = "questions"
        stderr = { file = "log" }
        [process.answer]
        script = 'while read -r n; do echo $((n * n)); done'
        stdin = "questions"
        stdout = "answers"
        "#,
    )
    .run()
    .file("log", "1: 1\n2: 4\n3: 9\n");
}

// --- Records of every kind, through pools ---

#[test]
fn records_of_every_kind_go_through_pools_as_they_came() {
    let length32 = |record: &str| {
        let length = u32::try_from(record.len()).unwrap().to_be_bytes();
        [&length, record.as_bytes()].concat()
    };
    let long = "x".repeat(70_000);
    let bytes = |records: &[&[u8]]| records.iter().map(|record| record.to_vec()).collect();
    let kinds: [(&str, Vec<Vec<u8>>); 6] = [
        (r#""lines""#, bytes(&[b"a\n", b"\n", b"b\0c\n", b"\xff\n"])),
        (r#""nul""#, bytes(&[b"a\nb\0", b"\0", b"c\0"])),
        (
            r#""length32""#,
            ["a\nb", "", "\0\0", &long].map(length32).to_vec(),
        ),
        (
            "{ size = 3 }",
            bytes(&[b"abc", b"\n\n\n", b"\0\0\0", b"xyz"]),
        ),
        (
            r#"{ separator = "--" }"#,
            bytes(&[b"a-b--", b"--", b"c\n--"]),
        ),
        (
            r#"{ start = ">" }"#,
            bytes(&[b">a\nb\n", b">c\n", b">\n", b">d\ne>f\n"]),
        ),
    ];
    for (records, pieces) in &kinds {
        let input = pieces.concat();
        for feed in ["request", "task"] {
            Pipeline::new(&format!(
                r#"
                [queue.q]
                records = {records}
                [queue.r]
                records = {records}
                [process.w]
                command = ["cat", "in"]
                stdout = "q"
                [pool.p]
                workers = 2
                feed = "{feed}"
                order = "input"
                stdin = "q"
                command = ["cat"]
                stdout = "r"
                [process.k]
                command = ["cat"]
                stdin = "r"
                stdout = {{ file = "out" }}
                "#
            ))
            .with_file("in", &input)
            .run()
            .file("out", &input);
        }
        // Two workers have the same records together, in any order; and so has who reads them.
        let ran = Pipeline::new(&format!(
            r#"
            [queue.q]
            records = {records}
            [queue.r]
            records = {records}
            [process.w]
            command = ["cat", "in"]
            stdout = "q"
            [pool.p]
            workers = 2
            stdin = "q"
            script = 'tee part-$WORKER'
            stdout = "r"
            [process.k]
            command = ["cat"]
            stdin = "r"
            stdout = {{ file = "out" }}
            "#
        ))
        .with_file("in", &input)
        .run();
        let read = |name: &str| fs::read(ran.pipeline.path(name)).unwrap();
        let mut pieces = pieces.clone();
        pieces.sort();
        for whole in [[read("part-0"), read("part-1")].concat(), read("out")] {
            assert_eq!(taken_apart(&whole, &pieces), pieces, "{records}");
        }
    }
}

/// The records of these that bytes consist of, sorted.
#[track_caller]
fn taken_apart(mut bytes: &[u8], pieces: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let longest = pieces
            .iter()
            .filter(|piece| bytes.starts_with(piece))
            .max_by_key(|piece| piece.len());
        let longest = longest.unwrap_or_else(|| panic!("no record begins {bytes:?}"));
        found.push(longest.clone());
        bytes = &bytes[longest.len()..];
    }
    found.sort();
    found
}

#[test]
fn a_last_record_without_its_end_gets_one_where_another_follows() {
    for feed in ["request", "task"] {
        let ran = Pipeline::new(&format!(
            r#"
            [queue.q]
            records = {{ separator = "--" }}
            [queue.r]
            records = {{ separator = "--" }}
            [process.w]
            command = ["printf", "%s", "a--b--c"]
            stdout = "q"
            [pool.p]
            workers = 2
            feed = "{feed}"
            stdin = "q"
            command = ["cat"]
            stdout = "r"
            [process.k]
            command = ["cat"]
            stdin = "r"
            stdout = {{ file = "out" }}
            "#
        ))
        .run();
        let text = text(&ran, "out");
        let mut records: Vec<_> = text.trim_end_matches("--").split("--").collect();
        records.sort_unstable();
        assert_eq!(records, ["a", "b", "c"], "{text}");
    }
}

#[test]
fn several_writers_feed_a_pool() {
    for feed in ["stream", "request", "task"] {
        Pipeline::new(&format!(
            r#"
            [process.a]
            command = ["printf", "1\n2\n3"]
            stdout = "q"
            [process.b]
            command = ["printf", "4\n5\n6"]
            stdout = "q"
            [pool.p]
            workers = 2
            feed = "{feed}"
            stdin = "q"
            command = ["sed", "-u", "s/$/!/"]
            stdout = "r"
            [process.sort]
            command = ["sort"]
            stdin = "r"
            stdout = {{ file = "out" }}
            "#
        ))
        .run()
        .file("out", "1!\n2!\n3!\n4!\n5!\n6!\n");
    }
}

/// What `by_field` gives to one worker no other may have: it must not be lost without a word when that worker has ended.
#[test]
fn a_record_for_a_worker_that_has_ended_fails_the_pool() {
    // `a` belongs to the first of two.
    Pipeline::new(
        r#"
        [process.write]
        script = "echo a; read pid < pid; while kill -0 $pid 2> /dev/null; do :; done; echo a"
        stdout = "keys"
        [pool.work]
        script = "if [ $WORKER = 1 ]; then cat; else read key; echo $$ > pid; fi"
        workers = 2
        stdin = "keys"
        stdout = "null"
        [queue.keys]
        deliver = { by_field = 1 }
        "#,
    )
    .with_fifo("pid")
    .run()
    .node(
        "work",
        "failed: worker 1: records of queue `keys` came for worker 0, which had ended before its input did, \
         and by_field lets no other have them",
    )
    .exit(1);
}
