//! Each pipeline that is shipped runs, and does what its text says.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::PROCFLOW;

/// The project's pipelines and what they read, copied, so that nothing is written into the sources.
struct Project {
    directory: tempfile::TempDir,
}

impl Project {
    fn new() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let directory = tempfile::tempdir().unwrap();
        for part in ["pipelines", "schemas", "src", "docs", "README.md"] {
            let copied = Command::new("cp")
                .arg("-R")
                .arg(root.join(part))
                .arg(directory.path())
                .status()
                .unwrap();
            assert!(copied.success());
        }
        // What a run of a user's own left there.
        let _ = fs::remove_dir_all(directory.path().join("pipelines/.procflow"));
        let _ = fs::remove_file(directory.path().join("pipelines/word-count.txt"));
        Project { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Runs a pipeline from the project's root, as the README says it.
    fn run(&self, name: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new(PROCFLOW);
        command
            .arg("run")
            .arg(format!("pipelines/{name}.toml"))
            .args(arguments);
        command
            .current_dir(self.directory.path())
            .env_remove("CI")
            .env_remove("GITHUB_ACTIONS")
            .output()
            .unwrap()
    }
}

#[track_caller]
fn check(output: &Output, code: i32, stdout: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), stdout, "{said}");
}

fn events(text: &[u8]) -> Vec<serde_json::Value> {
    String::from_utf8_lossy(text)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// A pipeline that is added gets a test here.
#[test]
fn every_pipeline_has_a_test() {
    let mut names: Vec<_> = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".toml"))
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            "fork.toml",
            "hello.toml",
            "process.toml",
            "queue.toml",
            "subprocess.toml",
            "word-count.toml"
        ]
    );
}

#[test]
fn hello() {
    let project = Project::new();
    check(&project.run("hello", &[]), 0, "hello, world\n");
    check(
        &project.run("hello", &["--set", "name=Ada"]),
        0,
        "hello, Ada\n",
    );
}

#[test]
fn fork() {
    let project = Project::new();
    let output = project.run("fork", &["--json", "report.json"]);
    let report: serde_json::Value =
        serde_json::from_slice(&fs::read(project.path("report.json")).unwrap()).unwrap();
    let (child, parent) = (&report["nodes"][0]["pid"], &report["procflow"]["pid"]);
    check(&output, 0, &format!("{child} is the child of {parent}\n"));
}

#[test]
fn process() {
    let project = Project::new();
    let output = project.run("process", &["--events", "events.jsonl"]);
    check(&output, 0, "work has started\nwork has ended\n");
    let events = events(&fs::read(project.path("events.jsonl")).unwrap());
    let position = |event: &str, node: &str| {
        let found = events
            .iter()
            .position(|line| line["event"] == event && line["node"] == node);
        found.unwrap_or_else(|| panic!("no {event} of {node}: {events:#?}"))
    };
    assert!(position("started", "work") < position("started", "alive"));
    assert!(
        position("started", "alive") < position("ended", "work"),
        "it was alive when the other began"
    );
    assert!(position("ended", "work") < position("started", "join"));
}

#[test]
fn subprocess() {
    let project = Project::new();
    let user = Command::new("id").arg("-un").output().unwrap();
    if !user.status.success() {
        // A user without a name, as containers have them: `who` fails, and rightly so.
        return;
    }
    let user = String::from_utf8(user.stdout).unwrap();
    let sorry = format!("sorry, {}: the child has failed\n", user.trim_end());
    check(&project.run("subprocess", &[]), 1, &sorry);
    check(
        &project.run("subprocess", &["--exit-code-from", "child"]),
        3,
        &sorry,
    );
    check(
        &project.run(
            "subprocess",
            &["--exit-code-from", "child", "--set", "code=200"],
        ),
        200,
        &sorry,
    );
    check(&project.run("subprocess", &["--set", "code=0"]), 0, "");
}

#[test]
fn queue() {
    check(
        &Project::new().run("queue", &[]),
        0,
        "read A\nread B\nread C\n",
    );
}

/// The main job: on real text, through nine processes with a split and a join, the same bytes as one line of shell.
#[test]
fn word_count() {
    let project = Project::new();
    let shell = Command::new("sh")
        .arg("-c")
        .arg(
            "find ../README.md ../docs ../src -type f -exec cat {} + | tr -cs A-Za-z '\\n' | tr A-Z a-z | \
             grep . | sort | uniq -c | sort -k1,1nr -k2,2",
        )
        .current_dir(project.path("pipelines"))
        .env("LC_ALL", "C")
        .output()
        .unwrap();
    let expected = String::from_utf8(shell.stdout).unwrap();
    assert!(
        expected.lines().count() > 1000,
        "that is no real text: {} words",
        expected.lines().count()
    );

    let output = project.run("word-count", &["--json", "report.json"]);
    let top: String = expected.split_inclusive('\n').take(10).collect();
    check(&output, 0, &top);
    let counted = fs::read_to_string(project.path("pipelines/word-count.txt")).unwrap();
    assert!(
        counted == expected,
        "word-count.txt is not what the shell counted"
    );

    let report: serde_json::Value =
        serde_json::from_slice(&fs::read(project.path("report.json")).unwrap()).unwrap();
    let nodes = report["nodes"].as_array().unwrap();
    assert_eq!(nodes.len(), 9);
    assert!(
        nodes.iter().all(|node| node["state"] == "succeeded"),
        "{nodes:#?}"
    );
}
