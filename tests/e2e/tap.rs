//! `--tap`, and faults of files that a pool shares.

use std::process::Stdio;

use crate::support::Pipeline;

const LINES: &str = r#"
[process.write]
command = ["printf", "a\nb\nc"]
stdout = "lines"
[process.read]
command = ["cat"]
stdin = "lines"
stdout = { file = "read.txt" }
"#;

#[test]
fn a_tap_prints_what_passes_through_a_bare_pipe() {
    // The terminator that the last record lacks is added for what may follow in the same output, not for the reader.
    Pipeline::new(LINES)
        .args(["--tap", "lines"])
        .run()
        .stdout("a\nb\nc\n")
        .file("read.txt", "a\nb\nc");
}

#[test]
fn a_tap_of_a_stored_queue_prints_it_once() {
    Pipeline::new(&LINES.replace("stdin =", "after = [\"write\"]\nstdin ="))
        .args(["--tap", "lines"])
        .run()
        .stdout("a\nb\nc\n")
        .file("read.txt", "a\nb\nc");
}

#[test]
fn a_tap_sees_each_record_once_whoever_gets_it() {
    let expected: String = (1..=100_000).map(|number| format!("{number}\n")).collect();
    for deliver in ["share", "copy", "round_robin"] {
        Pipeline::new(&format!(
            r#"
            [process.write]
            command = ["seq", "100000"]
            stdout = "numbers"
            [process.one]
            command = ["cat"]
            stdin = "numbers"
            stdout = "null"
            [process.other]
            command = ["cat"]
            stdin = "numbers"
            stdout = "null"
            [queue.numbers]
            deliver = "{deliver}"
            "#
        ))
        .args(["--tap", "numbers"])
        .run()
        .stdout(&expected);
    }
}

#[test]
fn taps_of_several_queues_tear_no_record() {
    let half = 50_000;
    let mut expected = vec![format!("{}\n", "x".repeat(99)); half];
    expected.extend(vec![format!("{}\n", "y".repeat(99)); half]);
    Pipeline::new(
        r#"
        [process.xs]
        script = "yes $(printf 'x%.0s' $(seq 99)) | head -n 50000"
        stdout = "x"
        [process.ys]
        script = "yes $(printf 'y%.0s' $(seq 99)) | head -n 50000"
        stdout = "y"
        [process.read]
        command = ["cat"]
        stdin = "x"
        stdout = "null"
        [process.read_too]
        command = ["cat"]
        stdin = "y"
        stdout = "null"
        "#,
    )
    .args(["--tap", "x", "--tap", "y"])
    .run()
    .stdout_sorted(&expected.concat());
}

#[test]
fn a_tap_whose_reader_has_gone_ends_alone() {
    let pipeline = Pipeline::new(
        r#"
        [process.write]
        command = ["seq", "1000000"]
        stdout = "numbers"
        [process.count]
        command = ["wc", "-l"]
        stdin = "numbers"
        stdout = { file = "count.txt" }
        "#,
    )
    .args(["--tap", "numbers"]);
    let (read, write) = std::io::pipe().unwrap();
    drop(read);
    pipeline
        .run_with(Stdio::null(), write.into(), Stdio::piped())
        .file("count.txt", "1000000\n");
}

#[test]
fn an_unknown_tap_is_refused() {
    Pipeline::new(LINES)
        .without_report()
        .args(["--tap", "line"])
        .run()
        .says("--tap line: no queue `line`; did you mean `lines`?")
        .exit(2);
}

/// It has no writer to blame, and its readers would wait for an end that does not come.
#[test]
fn a_fault_of_a_file_fails_the_pool_that_shares_it() {
    let long = vec![b'x'; (17 << 20) + 1];
    Pipeline::new(
        r#"
        [pool.count]
        command = ["wc", "-c"]
        workers = 2
        stdin = { file = "long.txt" }
        stdout = "null"
        "#,
    )
    .with_file("long.txt", long)
    .run()
    .nodes([(
        "count",
        "failed: worker 0: a record of queue `count.stdin` is longer than max_record (16 MiB), after 0 bytes",
    )])
    .exit(1);
}
