//! Each pipeline that is shipped runs, and does what its text says.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::PROCFLOW;

/// The text that several pipelines read.
const TEXT: &str = "find ../README.md ../docs ../src -type f -exec cat {} +";

/// Its words, counted by one process.
const COUNT: &str = "find ../README.md ../docs ../src -type f -exec cat {} + | tr -cs A-Za-z '\\n' | tr A-Z a-z | \
                     grep . | sort | uniq -c | sort -k1,1nr -k2,2";

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
        for result in [
            "crawl",
            "map-reduce",
            "parallel-sort",
            "poison",
            "poison-dead",
            "word-count",
        ] {
            let _ = fs::remove_file(directory.path().join(format!("pipelines/{result}.txt")));
        }
        Project { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// What a shell says to this, where the pipelines are.
    fn shell(&self, script: &str) -> String {
        let output = Command::new("sh")
            .args(["-c", script])
            .current_dir(self.path("pipelines"))
            .env("LC_ALL", "C")
            .output()
            .unwrap();
        assert!(output.status.success(), "{script}");
        String::from_utf8(output.stdout).unwrap()
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
            "crawl.toml",
            "fork.toml",
            "hello.toml",
            "log-report.toml",
            "map-reduce.toml",
            "parallel-sort.toml",
            "poison.toml",
            "pool.toml",
            "process.toml",
            "queue.toml",
            "service.toml",
            "subprocess.toml",
            "word-count.toml"
        ]
    );
}

#[test]
fn service() {
    let project = Project::new();
    let output = project.run("service", &[]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let mut lines: Vec<_> = output
        .stdout
        .split_inclusive(|byte| *byte == b'\n')
        .collect();
    lines.sort();
    let lines = lines.concat();
    let expected = "no-such-page: 404\nservice.toml: the same\n";
    assert_eq!(String::from_utf8_lossy(&lines), expected, "{said}");
    assert!(
        said.contains("stopped, no longer needed; ready after "),
        "{said}"
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
        "read A\nread B\nread C\nthe sum of 200000 numbers is 20000100000\n",
    );
}

/// Five tasks by four processes: each is done, in order, and at least one process has done two.
#[test]
fn pool() {
    let output = Project::new().run("pool", &[]);
    let said = String::from_utf8(output.stdout.clone()).unwrap();
    let pids: Vec<&str> = said
        .lines()
        .filter_map(|line| line.rsplit_once("process ").map(|(_, pid)| pid))
        .collect();
    let mut expected: String = (0..)
        .zip(&pids)
        .map(|(task, pid)| format!("task {task} was done by process {pid}\n"))
        .collect();
    expected.push_str("all tasks are done\n");
    check(&output, 0, &expected);
    assert_eq!(pids.len(), 5);
    assert!(pids.iter().collect::<HashSet<_>>().len() <= 4, "{pids:?}");
}

#[test]
fn parallel_sort() {
    let project = Project::new();
    let expected = project.shell(&format!("{TEXT} | tr -cs A-Za-z '\\n' | sort"));
    assert!(expected.lines().count() > 10_000);
    check(&project.run("parallel-sort", &[]), 0, "");
    let sorted = fs::read_to_string(project.path("pipelines/parallel-sort.txt")).unwrap();
    assert!(sorted == expected, "not what the shell has sorted");
}

#[test]
fn map_reduce() {
    let project = Project::new();
    let expected = project.shell(COUNT);
    check(&project.run("map-reduce", &[]), 0, "");
    let counted = fs::read_to_string(project.path("pipelines/map-reduce.txt")).unwrap();
    assert!(counted == expected, "not what the shell has counted");
}

#[test]
fn crawl() {
    let project = Project::new();
    let expected = project.shell("find ../src -mindepth 1 | sort");
    assert!(expected.lines().count() > 100);
    check(&project.run("crawl", &[]), 0, "");
    let found = fs::read_to_string(project.path("pipelines/crawl.txt")).unwrap();
    assert_eq!(found, expected);
}

#[test]
fn poison() {
    let project = Project::new();
    check(&project.run("poison", &[]), 0, "");
    let results = fs::read_to_string(project.path("pipelines/poison.txt")).unwrap();
    let expected: String = (-5..=5)
        .filter(|n| *n != 0)
        .map(|n| format!("60 / {n} = {}\n", 60 / n))
        .collect();
    assert_eq!(results, expected);
    let dead = fs::read_to_string(project.path("pipelines/poison-dead.txt")).unwrap();
    assert_eq!(dead, "0\n");
}

/// The statistics are those of a log that the test has read itself.
#[test]
fn log_report() {
    let project = Project::new();
    let pipeline = fs::read_to_string(project.path("pipelines/log-report.toml")).unwrap();
    let pipeline: toml::Table = pipeline.parse().unwrap();
    let program = pipeline["process"]["log"]["command"][3].as_str().unwrap();
    let log = Command::new("awk")
        .args(["-v", "requests=3000", program])
        .env("LC_ALL", "C")
        .output()
        .unwrap();
    let log = String::from_utf8(log.stdout).unwrap();
    let requests: Vec<Vec<&str>> = log.lines().map(|line| line.split(' ').collect()).collect();
    assert_eq!(requests.len(), 3000);

    let sum = |key: Key| {
        let mut sums: BTreeMap<String, u64> = BTreeMap::new();
        for (key, count) in requests.iter().filter_map(|request| key(request)) {
            *sums.entry(key).or_default() += count;
        }
        sums
    };
    let top = |sums: BTreeMap<String, u64>| {
        let mut sums: Vec<_> = sums.into_iter().collect();
        sums.sort_by_key(|(_, count)| Reverse(*count));
        sums.truncate(4);
        list(sums)
    };
    let hour = |request: &[&str]| Some((format!("{}:00", request[3].split(':').nth(1)?), 1));
    let page = |request: &[&str]| Some((request[6].to_owned(), 1));
    let missing = |request: &[&str]| (request[8] == "404").then(|| (request[0].to_owned(), 1));
    let traffic = |request: &[&str]| Some((request[0].to_owned(), request[9].parse().ok()?));
    let status = |request: &[&str]| Some((request[8].to_owned(), 1));
    let expected = format!(
        "3000 requests\n\nby status\n{}\nbusiest hours\n{}\nmost wanted pages\n{}\n\
         hosts that found nothing\n{}\nbytes by host\n{}",
        list(sum(&status)),
        top(sum(&hour)),
        top(sum(&page)),
        top(sum(&missing)),
        top(sum(&traffic)),
    );
    let output = project.run("log-report", &["--set", "requests=3000", "--set", "top=4"]);
    check(&output, 0, &expected);
}

/// What a statistic makes of a request: what it counts, and how much.
type Key<'a> = &'a dyn Fn(&[&str]) -> Option<(String, u64)>;

fn list(counts: impl IntoIterator<Item = (String, u64)>) -> String {
    let line = |(key, count)| format!("{count:8}  {key}\n");
    counts.into_iter().map(line).collect()
}

/// The main job: on real text, through nine processes with a split and a join, the same bytes as one line of shell.
#[test]
fn word_count() {
    let project = Project::new();
    let expected = project.shell(COUNT);
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
