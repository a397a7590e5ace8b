//! What runs leave behind, as `runs`, `show` and `logs` tell it.

use std::fs;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;

use crate::support::{Live, PROCFLOW, Pipeline, Ran, process_state, wait_for};

/// Some of each state, and what they print.
const STATES: &str = r#"
[process.gen]
command = ["seq", "1000"]
stdout = "nums"
[pool.count]
workers = 2
command = ["cat"]
stdin = "nums"
stdout = { file = "out.txt" }
[process.bad]
script = "echo out; printf 'oh \\033[2Jno' >&2; exit 3"
[process.late]
command = ["true"]
after = ["bad"]
"#;

/// Standard output, standard error and exit code of another command in the directory of a run. The run's id, its start and its
/// directory read `ID`, `TIME` and `DIR`.
fn ask(dir: &Path, arguments: &[&str]) -> (String, String, Option<i32>) {
    let output = Command::new(PROCFLOW)
        .args(arguments)
        .current_dir(dir)
        .env_remove("CLICOLOR_FORCE")
        .output()
        .unwrap();
    let ids = ids(dir);
    let text = |bytes: &[u8]| {
        let mut text = String::from_utf8_lossy(bytes).into_owned();
        for id in &ids {
            text = text.replace(id, "ID").replace(&time(dir, id), "TIME");
            text = text.replace(&time(dir, id).replace('T', " ").replace('Z', ""), "TIME");
        }
        text.replace(dir.to_str().unwrap(), "DIR")
    };
    (
        text(&output.stdout),
        text(&output.stderr),
        output.status.code(),
    )
}

/// The ids of the runs in a directory, the oldest first.
fn ids(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir.join(".procflow/runs"));
    let mut ids: Vec<String> = entries
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.len() == "20261124-145309-4a3d".len())
        .collect();
    ids.sort();
    ids
}

/// When a run began, in whole seconds.
fn time(dir: &Path, id: &str) -> String {
    let events = dir.join(".procflow/runs").join(id).join("events.jsonl");
    let events = fs::read_to_string(events).unwrap_or_default();
    let first = events.lines().next().unwrap_or("{}");
    let first: serde_json::Value = serde_json::from_str(first).unwrap_or_default();
    let time = first["time"].as_str().unwrap_or("no time");
    format!("{}Z", time.split('.').next().unwrap())
}

/// The lines from this one on.
fn from<'a>(text: &'a str, start: &str) -> &'a str {
    text.find(start).map_or("", |at| &text[at..])
}

fn states() -> Ran {
    Pipeline::new(STATES)
        .args(["-k"])
        .run()
        .exit(1)
        .node("bad", "failed: exit 3")
}

#[test]
fn a_run_is_shown_as_it_showed_itself() {
    let ran = states();
    let dir = ran.pipeline.path("");
    let (shown, errors, code) = ask(&dir, &["show", "last"]);
    assert_eq!((&*errors, code), ("", Some(0)));
    let table = from(&shown, "node ");
    assert!(table.starts_with("node   state      exit "), "{shown}");
    assert_eq!(
        table,
        from(&ran.stderr, "node ")
            .split("its files")
            .next()
            .unwrap()
    );
    let told = shown.split("node ").next().unwrap();
    let took = told.split("bad    ").nth(1).unwrap().split("  ").next();
    let expected = format!(
        "pipeline: run ID, TIME, DIRpipeline.toml\n\
         failed     bad    {}  exit 3\n  | oh no\n\
         skipped    late        -  bad failed\n",
        took.unwrap()
    );
    assert_eq!(told, expected);
    for word in [&ids(&dir)[0], &ids(&dir)[0][..13], "pipeline.toml"] {
        assert_eq!(ask(&dir, &["show", word]).0, shown, "{word}");
    }
    let report = fs::read_to_string(dir.join("report.json")).unwrap();
    let id = &ids(&dir)[0];
    let (json, _, _) = ask(&dir, &["show", id, "--format", "json"]);
    assert_eq!(json, report.replace(id, "ID"));
}

#[test]
fn logs_are_printed_byte_by_byte() {
    let ran = states();
    let dir = ran.pipeline.path("");
    let all = "==> bad.out <==\nout\n\n==> bad.err <==\noh \u{1b}[2Jno";
    for (arguments, expected) in [
        (&["logs", "last"][..], all),
        (&["logs", "last", "bad"], all),
        (&["logs", "last", "bad", "--stdout"], "out\n"),
        (&["logs", "last", "--stderr"], "oh \u{1b}[2Jno"),
        (&["logs", "last", "gen"], ""),
        (
            &["logs", "last", "--stdout", "-f"],
            "==> bad.out <==\nout\n",
        ),
    ] {
        let found = ask(&dir, arguments);
        assert_eq!(
            found,
            (expected.to_owned(), String::new(), Some(0)),
            "{arguments:?}"
        );
    }
    let (_, told, code) = ask(&dir, &["logs", "last", "bat"]);
    assert_eq!(code, Some(2));
    assert_eq!(
        told,
        "procflow: no node `bat` in run ID; did you mean `bad`?\n"
    );
}

#[test]
fn runs_are_listed_and_pruned() {
    let ran = states();
    let dir = ran.pipeline.path("");
    let (listed, errors, code) = ask(&dir, &["runs"]);
    assert_eq!((&*errors, code), ("", Some(0)));
    let lines: Vec<Vec<&str>> = listed
        .lines()
        .map(|line| line.split("  ").map(str::trim).collect())
        .map(|cells: Vec<&str>| cells.into_iter().filter(|cell| !cell.is_empty()).collect())
        .collect();
    assert_eq!(
        lines[0],
        ["run", "started (UTC)", "pipeline", "state", "time", "nodes"]
    );
    assert_eq!(lines[1][..4], ["ID", "TIME", "pipeline", "failed"]);
    assert_eq!(lines[1][5], "4: 2 succeeded, 1 failed, 1 skipped");
    assert_eq!(lines.len(), 2);
    let (json, _, _) = ask(&dir, &["runs", "pipeline.toml", "--format", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json[0]["file"], "DIRpipeline.toml");
    assert_eq!(json[0]["skipped"], 1);

    fs::write(dir.join(".procflow/runs/notes"), "").unwrap();
    let (_, errors, code) = ask(&dir, &["runs"]);
    assert_eq!(
        (&*errors, code),
        (
            "procflow: .procflow/runs/notes is no run; left out\n",
            Some(0)
        )
    );
    fs::remove_file(dir.join(".procflow/runs/notes")).unwrap();
    let id = ids(&dir)[0].clone();
    assert_eq!(
        ask(&dir, &["runs", "--prune", "--keep", "0"]),
        (format!("removed {id}\n"), String::new(), Some(0))
    );
    let nothing =
        "procflow: no run in .procflow/runs; --state-dir names another place than .procflow\n";
    assert_eq!(
        ask(&dir, &["runs"]),
        (String::new(), nothing.to_owned(), Some(0))
    );
    assert_eq!(
        ask(&dir, &["show", "last"]),
        (
            String::new(),
            "procflow: no run in .procflow/runs\n".to_owned(),
            Some(2)
        )
    );
}

#[test]
fn a_run_that_lives_and_one_that_was_killed_are_told_by_their_events() {
    let live = Pipeline::new(
        "[process.quick]\ncommand = [\"true\"]\n[process.wait]\nscript = \"echo begun; cat go\"\nafter = [\"quick\"]\n",
    )
    .with_fifo("go")
    .start();
    let dir = live.pipeline.path("");
    wait_for("the log of the node that waits", || {
        (ask(&dir, &["logs", "last", "wait"]).0 == "begun\n").then_some(())
    });
    let (shown, _, _) = ask(&dir, &["show", "last"]);
    assert!(shown.contains("\nquick  succeeded     0"), "{shown}");
    assert!(shown.contains("\nwait   running\n"), "{shown}");
    assert!(
        shown.contains("\nlive: 2 nodes: 1 succeeded, 1 running in "),
        "{shown}"
    );
    let (_, told, code) = ask(&dir, &["show", "last", "--format", "json"]);
    assert_eq!(code, Some(2));
    assert_eq!(
        told,
        "procflow: run ID has not ended, and has no report yet; \
         without --format json it is shown as far as it has come\n"
    );
    // It lives, so it stays.
    assert_eq!(ask(&dir, &["runs", "--prune", "--keep", "0"]).0, "");

    // What is left when procflow is killed at this moment: its files, which nobody holds the lock of.
    let killed = tempfile::tempdir().unwrap();
    let of = |dir: &Path, id: &str| dir.join(".procflow/runs").join(id);
    let id = &ids(&dir)[0];
    fs::create_dir_all(of(killed.path(), id)).unwrap();
    let events = fs::read_to_string(of(&dir, id).join("events.jsonl")).unwrap();
    fs::write(
        of(killed.path(), id).join("events.jsonl"),
        format!("{events}{{\"event\":\"sta"),
    )
    .unwrap();
    let (shown, _, _) = ask(killed.path(), &["show", "last"]);
    assert!(shown.contains("\nquick  succeeded     0"), "{shown}");
    assert!(shown.contains("\nwait   -\n"), "{shown}");
    assert!(
        shown.contains("\nkilled: 2 nodes: 1 succeeded in "),
        "{shown}"
    );
    let (_, told, code) = ask(killed.path(), &["show", "last", "--format", "json"]);
    assert_eq!(code, Some(2));
    assert_eq!(
        told,
        "procflow: run ID was killed, and has no report; \
         without --format json it is shown as far as its events tell\n"
    );
    assert_eq!(
        ask(killed.path(), &["runs", "--prune", "--keep", "0"]).0,
        format!("removed {id}\n")
    );
    live.release("go", "");
    live.finish();
}

/// Many runs of one pipeline at once, the first of which make the state directory: none is in another's way.
#[test]
fn runs_of_one_pipeline_at_once_do_not_disturb_each_other() {
    let pipeline = Pipeline::new(
        "[process.a]\ncommand = [\"seq\", \"1000\"]\nstdout = \"q\"\n[pool.b]\nworkers = 2\ncommand = [\"cat\"]\nstdin = \"q\"\nstdout = { file = \"out.txt\" }\n",
    );
    let dir = pipeline.path("");
    let runs: Vec<_> = (0..20)
        .map(|_| {
            let mut command = pipeline.command();
            let pipe = std::process::Stdio::piped;
            command.stdout(pipe()).stderr(pipe()).spawn().unwrap()
        })
        .collect();
    for run in runs {
        let output = run.wait_with_output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{told}");
    }
    let (json, told, _) = ask(&dir, &["runs", "--format", "json"]);
    assert_eq!(told, "");
    let listed: Vec<serde_json::Value> = serde_json::from_str(&json).unwrap();
    assert!(listed.len() >= 20, "{json}");
    assert!(
        listed.iter().all(|run| run["state"] == "succeeded"),
        "{json}"
    );
    // Whole, whoever was the last.
    let text = fs::read_to_string(dir.join("out.txt")).unwrap();
    let mut lines: Vec<u32> = text.lines().map(|line| line.parse().unwrap()).collect();
    lines.sort_unstable();
    assert_eq!(lines, (1..=1000).collect::<Vec<_>>());
    assert_eq!(
        fs::read_dir(&dir)
            .unwrap()
            .filter(|entry| entry
                .as_ref()
                .unwrap()
                .file_name()
                .to_str()
                .unwrap()
                .starts_with(".out"))
            .count(),
        0
    );
}

/// A run whose nodes wait, and say so in the fifo `begun`.
fn waiting(script: &str) -> Live {
    let live = Pipeline::new(&format!(
        "[process.quick]\ncommand = [\"true\"]\n[process.wait]\nscript = \"\"\"{script}\"\"\"\nstop_grace = \"1h\"\n\
         [pool.work]\nfeed = \"task\"\nworkers = 1\ntasks = [\"a\"]\nscript = \"echo begun > begun; exec sleep 1000\"\n"
    ))
    .with_fifo("begun")
    .args(["-j3"])
    .start();
    live.lines("begun", 2);
    live
}

#[test]
fn ps_shows_the_nodes_that_run() {
    let live = waiting("echo begun > begun; sleep 1000");
    let dir = live.pipeline.path("");
    let nodes = || {
        let (json, told, code) = ask(&dir, &["ps", "pipeline.toml", "--format", "json"]);
        assert_eq!((&*told, code), ("", Some(0)));
        let json: Vec<serde_json::Value> = serde_json::from_str(&json).unwrap();
        json
    };
    // Events come 10 ms late at most.
    let runs = wait_for("the events of the start", || {
        let runs = nodes();
        (runs.first()?["nodes"].as_array()?.len() == 3).then_some(runs)
    });
    assert_eq!(runs.len(), 1);
    let found: Vec<_> = runs[0]["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| {
            let has_memory = node["memory"].as_u64().is_some_and(|memory| memory > 0);
            (
                node["node"].as_str().unwrap(),
                node["worker"].as_u64(),
                node["alive"] == true,
                has_memory,
            )
        })
        .collect();
    assert_eq!(
        found,
        [
            ("wait", None, true, true),
            ("work", None, false, false),
            ("work", Some(0), true, true)
        ]
    );
    let pid = runs[0]["nodes"][0]["pid"].as_i64().unwrap();
    let (table, _, _) = ask(&dir, &["ps", "--state-dir", ".procflow"]);
    let mut lines = table.lines();
    assert!(lines.next().unwrap().starts_with("pipeline: run ID, pid "));
    let cells: Vec<_> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(
        cells,
        ["node", "pid", "alive", "time", "cpu", "memory"]
            .into_iter()
            .chain(["records"])
            .collect::<Vec<_>>()
    );
    let cells: Vec<_> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(cells[..3], ["wait", &pid.to_string(), "yes"]);

    let (said, told, code) = ask(&dir, &["stop", "last"]);
    assert_eq!(
        (&*said, &*told, code),
        ("run ID: interrupted by SIGTERM\n", "", Some(0))
    );
    assert_eq!(
        ask(&dir, &["ps", "pipeline.toml"]).1,
        "procflow: nothing runs\n"
    );
    live.finish().signal(Signal::SIGTERM).nodes([
        ("quick", "succeeded"),
        ("wait", "cancelled: interrupted by SIGTERM"),
        ("work", "cancelled: interrupted by SIGTERM"),
    ]);
}

#[test]
fn stop_knows_what_has_ended_and_what_never_was() {
    let ran = states();
    let dir = ran.pipeline.path("");
    assert_eq!(
        ask(&dir, &["stop", "last"]),
        (
            String::new(),
            "procflow: run ID has ended already: failed\n".to_owned(),
            Some(0)
        )
    );
    let (_, told, code) = ask(&dir, &["stop", "1999"]);
    assert_eq!(
        (&*told, code),
        (
            "procflow: no run `1999` in .procflow/runs; `procflow runs` lists them\n",
            Some(2)
        )
    );
}

/// From anywhere, by its id; and whoever ignores SIGTERM is killed.
#[test]
fn a_stubborn_run_is_killed() {
    let live = waiting("trap '' TERM; echo begun > begun; while :; do sleep 1000; done");
    let id = ids(&live.pipeline.path(""))[0].clone();
    let elsewhere = tempfile::tempdir().unwrap();
    let (said, told, code) = ask(elsewhere.path(), &["stop", &id, "--kill"]);
    assert_eq!((&*told, code), ("", Some(0)));
    assert_eq!(said, format!("run {id}: interrupted by SIGTERM\n"));
    live.finish()
        .signal(Signal::SIGTERM)
        .node("wait", "cancelled: interrupted by SIGTERM");
}

#[test]
fn a_run_that_stands_still_is_stopped_all_the_same() {
    let live = waiting("echo begun > begun; sleep 1000");
    let dir = live.pipeline.path("");
    live.signal(Signal::SIGTSTP);
    let runner = crate::support::children(live.pid())[0];
    wait_for("the run to stand still", || {
        (process_state(runner) == Some('T')).then_some(())
    });
    assert_eq!(
        ask(&dir, &["stop", "pipeline.toml"]).0,
        "run ID: interrupted by SIGTERM\n"
    );
    live.finish()
        .signal(Signal::SIGTERM)
        .node("wait", "cancelled: interrupted by SIGTERM");
}
