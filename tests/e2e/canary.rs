//! Canaries: secrets go everywhere that a secret can go, and then every file and every stream that procflow left is searched for
//! them. Not searched is what the nodes themselves have written where they were told to: there are no such files here.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{PROCFLOW, Pipeline};

/// A plain one; one with marks of every language that reports are written in; one of several lines.
const TOKEN: &str = "c4nary-7f3d9b21-plain";
const MARKS: &str = "canary-left \"'<&>%|`\\$]]> canary-right";
const LINES: &str = "first-canary-line\nsecond-canary-line";

/// What must be found nowhere. (Of the one with marks no half may be left either: what is escaped first is not found any more.)
const TRACES: [&str; 5] = [
    TOKEN,
    "canary-left",
    "canary-right",
    "first-canary-line",
    "second-canary-line",
];

const EVERYWHERE: &str = r#"
name = "canary"

[params]
token = { secret = true, env = "TOKEN" }
marks = { secret = true, env = "MARKS" }
lines = { secret = true, env = "LINES" }

[env]
ALL = "${{ params.token }} ${{ params.marks }} ${{ params.lines }}"

[process.argument]
command = ["printf", "%s\n", "in ${{ params.token }} the middle", "${{ params.marks }}", "${{ params.lines }}"]

[process.environment]
script = "env; env >&2"
env = { OWN = "x-${{ params.token }}-y" }

[process.trace]
script = 'set -x; : "$PARAM_TOKEN" "$PARAM_MARKS" "$PARAM_LINES"; false'

# Each byte is a write of its own.
[process.bytewise]
script = '''
printf '%s' "$PARAM_TOKEN" | sed 's/./&\n/g' | while read -r c; do printf %s "$c"; printf %s "$c" >&2; sleep 0.01; done
exit 4
'''

# What a terminal would take out, and put the secret together.
[process.colours]
script = '''printf 'c4nary-\033[31m7f3d9b21\033[0m-plain\n' >&2; printf 'c4nary-7f3d\0079b21-plain\n'; exit 4'''

[process.again]
script = 'echo "try $PROCFLOW_ATTEMPT: $ALL"; echo "$ALL" >&2; [ $PROCFLOW_ATTEMPT = 3 ]'
retries = { max = 2, delay = "0s" }

[process.gone]
command = ["no-such-${{ params.token }}-${{ params.marks }}"]

[process.nowhere]
command = ["true"]
cwd = "no/${{ params.token }}"

[process.unwritable]
command = ["true"]
stdout = { file = "no/${{ params.token }}/file" }

[process.unreadable]
command = ["cat"]
stdin = { file = "no/${{ params.token }}" }

[process.value]
script = 'printf "%s" "$PARAM_TOKEN"'
stdout = "value"

[process.valued]
command = ["no-such-${{ value.value }}"]
after = ["value"]

[process.service]
script = 'echo "starting with $ALL"; echo "$ALL" >&2; sleep 1000'
service = { ready = { file = "no/${{ params.token }}", timeout = "200ms" } }

[process.user]
command = ["true"]
after = [{ node = "service", state = "ready" }]

[process.make]
script = 'printf "%s\n" "$PARAM_TOKEN" b'
stdout = "records"

[pool.task]
feed = "task"
workers = 2
stdin = "records"
script = 'echo "$TASK"; echo "$TASK" "$PARAM_MARKS" >&2; [ "$TASK" = b ]'
retries = { max = 1, delay = "0s" }

[process.questions]
script = 'printf "%s\n" "$PARAM_TOKEN" b'
stdout = "asked"

[pool.request]
feed = "request"
workers = 2
stdin = "asked"
script = 'while read -r line; do echo "$line" "$PARAM_MARKS" >&2; exit 3; done'
"#;

/// Every file below, and what of the canaries is in it or in its name.
fn search(directory: &Path) -> (usize, Vec<String>) {
    let (mut seen, mut found) = (0, Vec::new());
    let mut left: Vec<PathBuf> = vec![directory.to_owned()];
    while let Some(path) = left.pop() {
        let name = path.display().to_string();
        let mut texts = vec![name.clone().into_bytes()];
        if path.is_dir() {
            left.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        } else {
            seen += 1;
            texts.push(fs::read(&path).unwrap());
        }
        for text in texts {
            for trace in TRACES {
                let at = text
                    .windows(trace.len())
                    .position(|part| part == trace.as_bytes());
                if let Some(at) = at {
                    let around = &text[at.saturating_sub(60)..(at + 60).min(text.len())];
                    found.push(format!("{name}: {}", String::from_utf8_lossy(around)));
                }
            }
        }
    }
    (seen, found)
}

fn canaries(pipeline: Pipeline) -> Pipeline {
    pipeline
        .env("TOKEN", TOKEN)
        .env("MARKS", MARKS)
        .env("LINES", LINES)
}

#[test]
fn no_canary_is_in_anything_that_a_run_leaves_or_says() {
    let places: [&[(&str, &str)]; 3] = [
        &[],
        &[
            ("GITHUB_ACTIONS", "true"),
            ("GITHUB_STEP_SUMMARY", "summary.md"),
        ],
        &[("GITLAB_CI", "true")],
    ];
    for (place, output) in [
        (0, "grouped"),
        (0, "prefixed"),
        (0, "failed"),
        (1, "grouped"),
        (2, "prefixed"),
    ] {
        let mut pipeline = canaries(Pipeline::new(EVERYWHERE));
        for (name, value) in places[place] {
            pipeline = pipeline.env(name, value);
        }
        let ran = pipeline
            .args([
                "-k",
                "--output",
                output,
                "--junit",
                "junit.xml",
                "--events",
                "events",
            ])
            .run()
            .exit(1)
            .node("again", "succeeded")
            .says("***");
        let (seen, found) = search(&ran.pipeline.path("."));
        assert_eq!(found, [""; 0], "with {output}");
        assert!(seen > 25, "only {seen} files were searched");
        for command in ["runs", "show last", "show last --format json", "logs last"] {
            let output = std::process::Command::new(PROCFLOW)
                .args(command.split(' '))
                .current_dir(ran.pipeline.path("."))
                .output()
                .unwrap();
            let said = [output.stdout, output.stderr].concat();
            fs::write(ran.pipeline.path("said"), &said).unwrap();
            assert_eq!(search(&ran.pipeline.path("said")).1, [""; 0], "{command}");
            assert!(!said.is_empty(), "{command}");
        }
        // They were where they should have been: the logs have what stands for them.
        let directory = fs::read_dir(ran.pipeline.path(".procflow/runs")).unwrap();
        let run = directory
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.is_dir());
        let log =
            |name: &str| fs::read_to_string(run.as_ref().unwrap().join("logs").join(name)).unwrap();
        assert_eq!(log("argument.out"), "in *** the middle\n***\n***\n");
        assert_eq!(
            (log("bytewise.out"), log("bytewise.err")),
            ("***".to_owned(), "***".to_owned())
        );
    }
}

#[test]
fn no_canary_is_in_what_is_said_of_a_file() {
    for (subcommand, arguments) in [
        ("check", &["--format", "human"][..]),
        ("check", &["--format", "json"]),
        ("check", &["--format", "github"]),
        ("plan", &["--format", "table"]),
        ("plan", &["--format", "json"]),
        ("graph", &["--format", "text"]),
        ("graph", &["--format", "dot"]),
        ("graph", &["--format", "mermaid"]),
        ("run", &["--dry-run"]),
        ("explain", &["argument"]),
        ("explain", &["environment"]),
        ("explain", &["gone"]),
        ("explain", &["nowhere"]),
        ("explain", &["unwritable"]),
        ("explain", &["unreadable"]),
        ("explain", &["service"]),
        ("explain", &["request"]),
    ] {
        let mut pipeline = canaries(Pipeline::new(EVERYWHERE)).subcommand(subcommand);
        for argument in arguments {
            pipeline = pipeline.args([argument]);
        }
        let ran = pipeline.run().any_stdout();
        let (_, found) = search(&ran.pipeline.path("."));
        assert_eq!(found, [""; 0], "{subcommand} {arguments:?}");
        // Annotations are of problems, and there are none.
        let is_silent = arguments.contains(&"github");
        assert_eq!(
            ran.stdout.is_empty(),
            is_silent,
            "{subcommand} {arguments:?}"
        );
    }
}
