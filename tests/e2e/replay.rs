//! `procflow replay` and `run --record`: a node of an earlier run again, alone.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::support::{PROCFLOW, Pipeline, Ran};

/// Another command in the directory of a run.
fn ask(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(PROCFLOW)
        .args(arguments)
        .current_dir(dir)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// The only run in a directory.
fn run_dir(dir: &Path) -> std::path::PathBuf {
    let mut runs = fs::read_dir(dir.join(".procflow/runs")).unwrap();
    runs.next().unwrap().unwrap().path()
}

#[track_caller]
fn said(output: &Output, code: i32, stdout: &str, stderr: &str) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert_eq!(
        (
            text(&output.stdout),
            text(&output.stderr),
            output.status.code()
        ),
        (stdout.to_owned(), stderr.to_owned(), Some(code))
    );
}

const GREETING: &str = r#"
[params]
word = "hello"
token = { secret = true, default = "sesame-street" }
[process.write]
command = ["printf", "a\nb\nc"]
stdout = "lines"
[process.read]
cwd = "sub"
script = "echo $GREETING $PARAM_TOKEN in $(basename $PWD), run $PROCFLOW_RUN_ID; cat; exit 3"
stdin = "lines"
env = { GREETING = "${{ params.word }}" }
allow_failure = true
stdout = { file = "out.txt" }
[process.alone]
script = "cat; kill -9 $$"
stdin = { text = "a text\n" }
allow_failure = true
[pool.many]
command = ["cat"]
stdin = { file = "pipeline.toml" }
workers = 2
"#;

fn greeted(arguments: [&str; 4]) -> Ran {
    Pipeline::new(GREETING)
        .with_file("sub/x", "")
        .args(arguments)
        .run()
        .node("write", "succeeded")
}

#[test]
fn a_node_is_replayed_with_what_it_read() {
    let ran = greeted(["--set", "word=good day", "--record", "read"]);
    let dir = ran.pipeline.path("");
    let run = run_dir(&dir);
    let id = run.file_name().unwrap().to_str().unwrap();
    // Byte by byte: nobody adds a newline.
    assert_eq!(fs::read(run.join("stdin/read")).unwrap(), b"a\nb\nc");
    let settings = fs::read_to_string(run.join("run.json")).unwrap();
    assert!(settings.contains("good day"), "{settings}");

    let token = ["--set", "token=sesame-street"];
    let again = ask(&dir, &[&["replay", "last", "read"], &token[..]].concat());
    let expected = format!("good day sesame-street in sub, run {id}\na\nb\nc");
    said(&again, 3, &expected, "");
    // Its file is as the run left it.
    assert!(!dir.join("out.txt").exists());
    let prefixed = [
        &["replay", "last", "read"],
        &token[..],
        &["--", "env", "GREETING=ho"],
    ];
    let expected = expected.replace("good day", "ho");
    said(&ask(&dir, &prefixed.concat()), 3, &expected, "");
    let kept = [
        &["replay", "last", "read"],
        &token[..],
        &[
            "--keep-stdin",
            "--",
            "sh",
            "-c",
            "cat; cat $PROCFLOW_STDIN",
            "sh",
        ],
    ];
    said(&ask(&dir, &kept.concat()), 0, "a\nb\nc", "");
    let ended = ask(&dir, &[&["replay", "last", "alone"], &token[..]].concat());
    said(&ended, 137, "a text\n", "");
}

#[test]
fn what_cannot_be_replayed_is_told_with_the_way_out() {
    let ran = greeted(["--set", "word=hello", "-j", "3"]);
    let dir = ran.pipeline.path("");
    let id = run_dir(&dir);
    let id = id.file_name().unwrap().to_str().unwrap();
    let token = ["--set", "token=sesame-street"];
    let told = |node: &str, more: &[&str], expected: &str| {
        let expected = format!("procflow: {expected}\n");
        said(
            &ask(&dir, &[&["replay", "last", node], more].concat()),
            2,
            "",
            &expected,
        );
    };
    told(
        "read",
        &[],
        "the run has not kept the value of `token`, which is secret; say it again: --set token=...",
    );
    told(
        "read",
        &token,
        "read cannot be replayed: what it read from queue `lines` was not recorded: \
         `procflow run --record read` does, --keep-stdin takes what is here",
    );
    told(
        "many",
        &token,
        "many cannot be replayed: it is a pool, whose workers get their records from procflow",
    );
    told(
        "raed",
        &token,
        &format!("no node `raed` in run {id}; did you mean `read`?"),
    );
}

#[test]
fn a_record_is_that_of_the_last_try() {
    let ran = Pipeline::new(
        r#"
        [process.write]
        script = "echo try $PROCFLOW_ATTEMPT"
        stdout = "lines"
        [process.read]
        script = "cat; test $PROCFLOW_ATTEMPT = 2"
        stdin = "lines"
        retries = { max = 1, delay = "1ms" }
        "#,
    )
    .args(["--record", "read"])
    .run();
    let run = run_dir(&ran.pipeline.path(""));
    assert_eq!(fs::read(run.join("stdin/read")).unwrap(), b"try 2\n");
}

#[test]
fn what_cannot_be_recorded_is_refused() {
    for (node, why) in [
        (
            "many",
            "it is a pool, which cannot be replayed; name a process",
        ),
        ("raed", "no node `raed`; did you mean `read`?"),
    ] {
        Pipeline::new(GREETING)
            .args(["--record", node])
            .run()
            .exit(2)
            .no_nodes()
            .says(&format!("procflow: --record {node}: {why}\n"));
    }
}
