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
            "ci-package",
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
            "ci.toml",
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
            "release.toml",
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

/// A program that stands for cargo: it notes what was asked of it, and fails where a test says so.
const CARGO: &str = r#"#!/bin/sh
echo "$LC_ALL $*" >> "$ASKED"
case "$1" in
--version) echo cargo 1.2.3 ;;
fetch) [ "$PROCFLOW_ATTEMPT" = 2 ] ;;
deny) exit 101 ;;
package) echo Cargo.toml ;;
publish) echo "with $CARGO_REGISTRY_TOKEN" ;;
test) [ "$*" != "test --locked --test $BAD" ] ;;
esac
"#;

/// `pipelines/ci.toml` with that program. What was asked of it, sorted; the state of each node; what was said.
fn ci(project: &Project, bad: &str, arguments: &[&str]) -> (Vec<String>, String, Output) {
    use std::os::unix::fs::PermissionsExt;
    let cargo = project.path("cargo");
    fs::write(&cargo, CARGO).unwrap();
    fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755)).unwrap();
    let asked = project.path("asked");
    let _ = fs::remove_file(&asked);
    let mut command = Command::new(PROCFLOW);
    command
        .args(["run", "pipelines/ci.toml", "--json", "report.json"])
        .args(["--set", &format!("cargo={}", cargo.display())])
        .args(arguments);
    let output = command
        .current_dir(project.directory.path())
        .env("ASKED", &asked)
        .env("BAD", bad)
        .env("LC_ALL", "C")
        .env("CI_TOKEN", "t0p-s3cret")
        .env_remove("CI")
        .env_remove("GITHUB_ACTIONS")
        .env_remove("MAKEFLAGS")
        .output()
        .unwrap();
    let asked = fs::read_to_string(asked).unwrap();
    let mut asked: Vec<String> = asked.lines().map(str::to_owned).collect();
    asked.sort();
    let report: serde_json::Value =
        serde_json::from_slice(&fs::read(project.path("report.json")).unwrap()).unwrap();
    let nodes = report["nodes"].as_array().unwrap().iter();
    let states = nodes.map(|node| {
        format!(
            "{} {}\n",
            node["name"].as_str().unwrap(),
            node["state"].as_str().unwrap()
        )
    });
    (asked, states.collect(), output)
}

/// The project's own checks, without cargo, which would take minutes.
#[test]
fn ci_asks_for_every_check() {
    let project = Project::new();
    let arguments = ["--set", "publish=yes", "--junit", "junit.xml"];
    let (asked, states, output) = ci(&project, "none", &arguments);
    check(&output, 0, "checked with cargo 1.2.3\n");
    let expected = "\
C --version
C clippy --locked --all-targets -- -D warnings
C deny --locked check bans licenses sources
C doc --locked --no-deps --document-private-items
C fetch --locked
C fetch --locked
C fmt --check
C package --locked --list --allow-dirty
C publish --locked --dry-run
C test --locked --lib
C test --locked --no-run
C test --locked --test deadlock
C test --locked --test e2e
C test --locked --test launch
C test --locked --test layers
C test --locked --test schema
C.UTF-8 test --locked --test e2e
C.UTF-8 test --locked --test launch
";
    assert_eq!(asked.join("\n") + "\n", expected);
    // The one that may.
    assert_eq!(
        states.replace(" succeeded", "").matches(' ').count(),
        1,
        "{states}"
    );
    assert!(states.contains("licences failed\n"), "{states}");
    let listed = fs::read_to_string(project.path("pipelines/ci-package.txt")).unwrap();
    assert_eq!(listed, "Cargo.toml\n");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("with ***"), "{said}");
    let junit = fs::read_to_string(project.path("junit.xml")).unwrap();
    assert!(junit.contains("test[suite=e2e,locale=C.UTF-8]"), "{junit}");
    for text in [&*said, &junit] {
        assert!(!text.contains("t0p-s3cret"), "{text}");
    }
}

#[test]
fn ci_sums_up_whatever_failed() {
    let project = Project::new();
    let (_, states, output) = ci(&project, "launch", &[]);
    check(&output, 1, "checked with cargo 1.2.3\n");
    for state in [
        "test[suite=e2e,locale=C] succeeded\n",
        "test[suite=launch,locale=C] failed\n",
        "test[suite=launch,locale=C.UTF-8] failed\n",
        "package skipped\n",
        "publish skipped\n",
        "summary succeeded\n",
    ] {
        assert!(states.contains(state), "{states}");
    }
    assert!(!project.path("pipelines/ci-package.txt").exists());
    let (asked, _, output) = ci(&project, "none", &["--only", "test[suite=schema]"]);
    check(&output, 0, "");
    assert_eq!(asked.len(), 4, "{asked:?}");
    let (asked, _, output) = ci(&project, "none", &["--only", "@quick"]);
    check(&output, 0, "");
    assert_eq!(asked, ["C --version", "C fmt --check"]);
}

/// Each of the ten is what the pipeline says that it names.
#[test]
fn ci_md_shows_lines_of_the_pipelines_that_it_names() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("docs/ci.md")).unwrap();
    let things: Vec<&str> = text.split("\n## ").skip(1).collect();
    assert_eq!(things.len(), 10);
    for (number, thing) in (1..).zip(things) {
        assert!(thing.starts_with(&format!("{number}. ")), "{thing}");
        let (_, rest) = thing.split_once("Pipeline:").unwrap();
        let (_, name) = rest.split_once("(../").unwrap();
        let (name, _) = name.split_once(')').unwrap();
        let pipeline = fs::read_to_string(root.join(name)).unwrap();
        let (_, lines) = rest.split_once("```").unwrap();
        let (kind, lines) = lines.split_once('\n').unwrap();
        let (lines, _) = lines.split_once("```").unwrap();
        for line in lines.lines() {
            let is_in = match kind {
                "toml" => pipeline.lines().any(|known| known == line),
                _ => pipeline.contains(&format!("#   {line}\n")),
            };
            assert!(is_in, "{name} has no line {line:?}");
        }
    }
}

/// Packed each time, published when asked to, and the token is on no screen.
#[test]
fn release() {
    let project = Project::new();
    fs::write(project.path("pipelines/VERSION"), "1.2\n").unwrap();
    let run = |arguments: &[&str], variables: &[(&str, &str)]| {
        let output = Command::new(PROCFLOW)
            .args(["run", "pipelines/release.toml", "--output", "prefixed"])
            .args(arguments)
            .current_dir(project.directory.path())
            .env_remove("CI")
            .env_remove("GITHUB_ACTIONS")
            .env_remove("RELEASE_TOKEN")
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output, said)
    };
    let packed = project.path("pipelines/pipelines-1.2.tar.gz");
    let published = project.path("pipelines/published/pipelines-1.2.tar.gz");

    let (output, said) = run(&[], &[]);
    check(&output, 0, "");
    for why in [
        "when: param deploy is not \"yes\"",
        "when: its command said no (exit 1)",
        "when: env CI is not set",
    ] {
        assert!(said.contains(why), "{said}");
    }
    assert!(packed.exists() && !project.path("pipelines/published").exists());

    let (output, said) = run(&["--set", "deploy=yes"], &[]);
    check(&output, 1, "");
    assert!(said.contains("no token: set RELEASE_TOKEN"), "{said}");

    let (output, said) = run(
        &["--set", "deploy=yes", "--set", "channel=stable"],
        &[("RELEASE_TOKEN", "s3cret-token"), ("CI", "true")],
    );
    check(&output, 0, "release 1.2: deploy yes, channel stable\n");
    assert!(said.contains("publishing with ***"), "{said}");
    assert!(!said.contains("s3cret-token"), "{said}");
    assert_eq!(fs::read(&packed).unwrap(), fs::read(&published).unwrap());
    assert_eq!(
        fs::read_link(project.path("pipelines/published/latest.tar.gz")).unwrap(),
        Path::new("pipelines-1.2.tar.gz")
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
