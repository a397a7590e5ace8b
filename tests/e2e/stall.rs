//! Groups that come to stand still because of what their programs expect of each other: procflow says who waits for whom.

use std::fs;

use nix::sys::signal::Signal;

use crate::support::{Live, Pipeline, wait_for};

/// Waits until so many stalls have been told, and gives the lines that say so.
fn stalls(live: &Live, count: usize) -> Vec<String> {
    let stderr = live.pipeline.path("stderr");
    wait_for("a stall to be told", || {
        let text = fs::read_to_string(&stderr).unwrap();
        let (whole, _) = text.rsplit_once('\n')?;
        let lines: Vec<String> = whole
            .lines()
            .filter(|line| line.starts_with("stalled: ") || line.starts_with("help: "))
            .map(|line| {
                // The time is when it was looked at.
                let (_, who) = line.split_once("ms: ").unwrap_or(("", line));
                who.to_owned()
            })
            .collect();
        let told = whole.matches("stalled: nothing has moved in ").count();
        (told >= count).then_some(lines)
    })
}

/// `ask` waits for an answer before it asks, `answer` for the question; twice. Beside them `patient` waits for data of a node
/// that waits for somebody to open a fifo, and `heir` for a daemon that holds its queue. From both something may come: no stall.
#[test]
fn two_that_wait_for_each_other_are_told_of_once_each_time() {
    let live = Pipeline::new(
        r#"
        [process.ask]
        script = '''
        exec 3< back
        read permission <&3
        echo question
        read permission <&3
        echo question
        '''
        stdout = "questions"
        [process.answer]
        script = "exec 4> back; read question; echo answer; read question; echo answer"
        stdin = "questions"
        stdout = { file = "answers" }

        [process.late]
        script = "read word < gate; echo $word"
        stdout = "words"
        [process.patient]
        command = ["cat"]
        stdin = "words"

        [process.leave]
        script = "setsid -f sh -c 'echo > up; read word < bye'; read word < up"
        stdout = "held"
        [process.heir]
        command = ["cat"]
        stdin = "held"
        "#,
    )
    .with_fifo("up")
    .with_fifo("bye")
    .with_fifo("back")
    .with_fifo("gate")
    .args([
        "-j",
        "3",
        "--stalled-after",
        "300ms",
        "--events",
        "events.jsonl",
    ])
    .start();
    let expected = "`ask` waits for `answer` on a pipe of their own; `answer` waits for data of queue `questions`, which `ask` does not write";
    assert_eq!(stalls(&live, 1), [expected]);
    live.release("back", "go\n");
    assert_eq!(stalls(&live, 2), [expected, expected]);
    live.release("back", "go\n");
    live.release("gate", "late\n");
    live.release("bye", "bye\n");
    let ran = live.finish().file("answers", "answer\nanswer\n");
    assert_eq!(ran.stderr.matches("stalled").count(), 2, "{}", ran.stderr);
    let events = fs::read_to_string(ran.pipeline.path("events.jsonl")).unwrap();
    let stalled: Vec<serde_json::Value> = events
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|event: &serde_json::Value| event["event"] == "stalled")
        .collect();
    assert_eq!(stalled.len(), 2);
    let expected = r#"[{"node":"ask","on":"pipe","of":["answer"]},{"node":"answer","on":"data","queue":"questions","of":["ask"]}]"#;
    for event in &stalled {
        assert_eq!(event["waits"].to_string(), expected);
        assert!(event["time"].as_f64().unwrap() >= 0.3, "{event}");
    }
}

/// A writer that says when it is done, to a reader that reads when it is told so. The one that writes is a child of the node's shell.
#[test]
fn a_full_queue_is_named_with_the_way_out() {
    let live = Pipeline::new(
        r#"
        [process.write]
        script = "exec 3> done; head -c 1000000 /dev/zero | cat; echo done >&3"
        stdout = "data"
        [process.read]
        script = "exec 4< done; read done <&4; wc -c"
        stdin = "data"
        stdout = "inherit"
        [queue.data]
        capacity = "64KiB"
        "#,
    )
    .with_fifo("done")
    .args(["--stalled-after", "300ms"])
    .start();
    assert_eq!(
        stalls(&live, 1),
        [
            "`write` waits for room in queue `data`, which `read` does not read; `read` waits for `write` on a pipe of their own",
            "help: `overflow = \"spill\"` under [queue.data] lets who writes it go on",
        ]
    );
    live.release("done", "done\n");
    live.finish().stdout("1000000\n");
}

/// Of the queues behind one output it is the full one that is named. The one that is read is a merge: its reader has another pipe
/// than its writers.
#[test]
fn of_two_copies_the_full_one_is_named() {
    let live = Pipeline::new(
        r#"
        [process.write]
        script = "exec 3> done; yes | head -c 1000000; echo done >&3"
        stdout = ["p", "q"]
        [process.other]
        command = ["true"]
        stdout = "p"
        [process.take]
        command = ["wc", "-c"]
        stdin = "p"
        stdout = { file = "taken" }
        [process.late]
        script = "exec 4< done; read done <&4; wc -c"
        stdin = "q"
        stdout = { file = "late" }
        [queue]
        p.capacity = "64KiB"
        q.capacity = "64KiB"
        "#,
    )
    .with_fifo("done")
    .args(["--stalled-after", "300ms"])
    .start();
    assert_eq!(
        stalls(&live, 1),
        [
            "`write` waits for room in queue `q`, which `late` does not read; `late` waits for `write` on a pipe of their own; \
             `take` waits for data of queue `p`, which `write` does not write",
            "help: `overflow = \"spill\"` under [queue.q] lets who writes it go on",
        ]
    );
    live.release("done", "done\n");
    live.finish()
        .file("taken", "1000000\n")
        .file("late", "1000000\n");
}

/// A conversation in which each waits for the other to begin.
#[test]
fn a_conversation_that_nobody_begins() {
    let live = Pipeline::new(
        r#"
        [process.one]
        script = "read word; echo $word"
        stdin = "back"
        stdout = "there"
        [process.other]
        script = "read word; echo $word"
        stdin = "there"
        stdout = "back"
        [queue.back]
        feedback = true
        "#,
    )
    .args(["--stalled-after", "300ms"])
    .start();
    assert_eq!(
        stalls(&live, 1),
        [
            "`one` waits for data of queue `back`, which `other` does not write; \
             `other` waits for data of queue `there`, which `one` does not write",
            "help: what each waits for may still stand in another program's buffer: \
             let it flush after each record (`stdbuf -oL`)",
        ]
    );
    live.signal(Signal::SIGTERM);
    live.finish()
        .nodes([
            ("one", "cancelled: interrupted by SIGTERM"),
            ("other", "cancelled: interrupted by SIGTERM"),
        ])
        .signal(Signal::SIGTERM);
}
