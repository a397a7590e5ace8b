//! The command line: options of `run`, and the commands that only look at a pipeline.

use std::process::Command;

use crate::support::{PROCFLOW, Pipeline};

const DIAMOND: &str = r#"
[process.a]
command = ["echo", "a"]
stdout = "inherit"
[process.b]
after = ["a"]
command = ["echo", "b"]
stdout = "inherit"
tags = ["late"]
[process.c]
after = ["b"]
command = ["echo", "c"]
stdout = "inherit"
tags = ["late"]
[process.other]
command = ["echo", "other"]
stdout = "inherit"
"#;

#[test]
fn only_runs_a_node_with_what_it_needs() {
    Pipeline::new(DIAMOND)
        .args(["--only", "b"])
        .run()
        .stdout("a\nb\n")
        .nodes([("a", "succeeded"), ("b", "succeeded")]);
    Pipeline::new(DIAMOND)
        .args(["--only", "@late"])
        .run()
        .stdout("a\nb\nc\n")
        .node("c", "succeeded");
}

#[test]
fn only_names_what_it_does_not_know() {
    Pipeline::new(DIAMOND)
        .args(["--only", "ohter"])
        .run()
        .says("ohter")
        .says("did you mean")
        .says("other")
        .no_nodes()
        .exit(2);
    Pipeline::new(DIAMOND)
        .args(["--only", "@lat"])
        .run()
        .says("lat")
        .no_nodes()
        .exit(2);
}

#[test]
fn skip_leaves_a_node_out_and_what_comes_after_goes_on() {
    Pipeline::new(DIAMOND)
        .args(["--skip", "b", "--skip", "other"])
        .run()
        .stdout_sorted("a\nc\n")
        .nodes([
            ("a", "succeeded"),
            ("b", "skipped: --skip"),
            ("c", "succeeded"),
            ("other", "skipped: --skip"),
        ]);
}

#[test]
fn a_queue_whose_writer_is_skipped_is_empty() {
    Pipeline::new(
        r#"
        [process.write]
        command = ["seq", "3"]
        stdout = "q"
        [process.read]
        command = ["wc", "-l"]
        stdin = "q"
        stdout = "inherit"
        "#,
    )
    .args(["--skip", "write"])
    .run()
    .stdout("0\n")
    .nodes([("write", "skipped: --skip"), ("read", "succeeded")]);
}

#[test]
fn a_dry_run_starts_nothing() {
    Pipeline::new(
        r#"
        [process.a]
        command = ["touch", "made"]
        [process.b]
        after = ["a"]
        command = ["/no/such/program"]
        stdout = { file = "out" }
        "#,
    )
    .without_report()
    .args(["--dry-run"])
    .run()
    .any_stdout()
    .only_files([]);
}

#[test]
fn a_pipeline_can_come_from_standard_input() {
    let pipeline = Pipeline::new("")
        .with_file("here", "from here\n")
        .with_name("-");
    pipeline
        .input("[process.a]\ncommand = [\"cat\", \"here\"]\nstdout = \"inherit\"\n")
        .run()
        .stdout("from here\n");
}

#[test]
fn every_problem_of_a_file_is_reported_at_once() {
    Pipeline::new(
        "[process.sort]\ncomand = [\"sort\"]\n\n[process.b]\ncommand = [\"true\"]\nafter = [\"srot\"]\ntimeout = \"soon\"\n",
    )
    .run()
    .says("pipeline.toml:2:1")
    .says("unknown key `comand` in process `sort`")
    .says("did you mean `command`?")
    .says("comand = [\"sort\"]")
    .says("pipeline.toml:6:")
    .says("did you mean `sort`?")
    .says("pipeline.toml:7:")
    .no_nodes()
    .exit(2);
}

#[test]
fn a_cycle_is_named_by_its_nodes() {
    Pipeline::new(
        "[process.a]\ncommand = [\"true\"]\nafter = [\"c\"]\n[process.b]\ncommand = [\"true\"]\nafter = [\"a\"]\n[process.c]\ncommand = [\"true\"]\nafter = [\"b\"]\n",
    )
    .run()
    .says("error: cycle: a → b → c → a")
    .says("3 | after = [\"c\"]")
    .says("6 | after = [\"a\"]")
    .says("9 | after = [\"b\"]")
    .no_nodes()
    .exit(2);
}

/// None of these may start anything, hang or crash; each is the user's mistake.
#[test]
fn wrong_files_are_refused() {
    for (text, word) in [
        ("[process.a\n", "pipeline.toml:1:"),
        ("[process.a]\n", "command"),
        ("[process.a]\ncommand = []\n", "command"),
        ("[process.a]\ncommand = [\"a\"]\nscript = \"b\"\n", "script"),
        ("[process.a]\ncommand = [\"a\\u0000b\"]\n", "NUL"),
        ("[process.\"a b\"]\ncommand = [\"true\"]\n", "a b"),
        ("[process.a]\ncommand = [\"true\"]\nstdin = \"q\"\n", "q"),
        ("[process.a]\ncommand = [\"true\"]\nstdout = \"q\"\n", "q"),
        ("[process.a]\ncommand = [\"true\"]\nafter = [\"a\"]\n", "a"),
        (
            "[process.a]\ncommand = [\"true\"]\ntimeout = \"-1s\"\n",
            "timeout",
        ),
        ("[process.a]\ncommand = [\"true\"]\ncpus = -1\n", "cpus"),
        (
            "[run]\njobs = 0\n[process.a]\ncommand = [\"true\"]\n",
            "jobs",
        ),
        ("[process.a]\ncommand = [\"${{ params.x }}\"]\n", "params.x"),
        (
            "[process.a]\ncommand = [\"true\"]\n[process.a]\ncommand = [\"true\"]\n",
            "duplicate",
        ),
        (
            "[process.a]\ncommand = [\"true\"]\nstdout = \"q\"\n[process.b]\ncommand = [\"true\"]\nstdin = \"q\"\n[process.c]\ncommand = [\"true\"]\nstdin = \"q\"\n",
            "deliver",
        ),
        (
            "[queue.q]\ncapacity = \"1KiB\"\n[process.a]\ncommand = [\"true\"]\n",
            "q",
        ),
        ("[process.\"../a\"]\ncommand = [\"true\"]\n", "../a"),
        ("[process.\"\"]\ncommand = [\"true\"]\n", "name"),
        (
            "[process.a]\ncommand = [\"true\"]\nstop_signal = \"TREM\"\n",
            "did you mean",
        ),
    ] {
        let ran = Pipeline::new(text).run();
        assert_eq!(ran.status.code(), Some(2), "{text}\n{}", ran.stderr);
        assert!(
            ran.stderr.contains(word),
            "{word:?} for\n{text}\n{}",
            ran.stderr
        );
        drop(ran.no_nodes().exit(2));
    }
}

#[test]
fn a_file_that_is_no_text_is_refused() {
    Pipeline::new("")
        .with_file("pipeline.toml", b"[process.a]\ncommand = [\"\xff\"]\n")
        .run()
        .says("UTF-8")
        .no_nodes()
        .exit(2);
    Pipeline::new("")
        .with_name("nowhere.toml")
        .run()
        .says("nowhere.toml")
        .no_nodes()
        .exit(2);
    Pipeline::new("").with_name(".").run().no_nodes().exit(2);
}

#[test]
fn nesting_without_end_is_refused() {
    let deep = format!("x = {}{}\n", "[".repeat(100_000), "]".repeat(100_000));
    let ran = Pipeline::new(&deep).run().no_nodes().exit(2);
    assert!(
        ran.stderr.len() < 100_000,
        "{} bytes of message",
        ran.stderr.len()
    );
}

#[test]
fn a_wrong_command_line_is_refused() {
    Pipeline::new(DIAMOND)
        .args(["--job", "3"])
        .run()
        .says("--jobs")
        .no_nodes()
        .exit(2);
    Pipeline::new(DIAMOND)
        .args(["--jobs", "0"])
        .run()
        .no_nodes()
        .exit(2);
    Pipeline::new(DIAMOND)
        .args(["--exit-code-from", "aa"])
        .run()
        .says("aa")
        .no_nodes()
        .exit(2);
    Pipeline::new(DIAMOND)
        .args(["--timeout", "soon"])
        .run()
        .says("soon")
        .no_nodes()
        .exit(2);
}

#[test]
fn check_accepts_a_good_file_and_names_the_faults_of_others() {
    Pipeline::new(DIAMOND)
        .subcommand("check")
        .run()
        .any_stdout();
    let ran = Pipeline::new("[process.a]\ncomand = [\"true\"]\n")
        .subcommand("check")
        .run()
        .any_stdout()
        .exit(2);
    let said = format!("{}{}", ran.stderr, String::from_utf8_lossy(&ran.stdout));
    assert!(said.contains("did you mean `command`?"), "{said}");
}

#[test]
fn plan_explain_and_graph_name_the_nodes() {
    for (subcommand, more) in [("plan", ""), ("explain", "b"), ("graph", "")] {
        let pipeline = Pipeline::new(DIAMOND).subcommand(subcommand);
        let pipeline = if more.is_empty() {
            pipeline
        } else {
            pipeline.args([more])
        };
        let ran = pipeline.run().any_stdout();
        let said = String::from_utf8_lossy(&ran.stdout).into_owned();
        assert!(said.contains('b'), "{subcommand}: {said}");
    }
}

#[test]
fn a_run_without_progress_says_nothing_where_all_goes_well() {
    let ran = Pipeline::new(DIAMOND)
        .args(["--progress", "none", "--output", "none"])
        .run()
        .any_stdout();
    assert_eq!(ran.stderr, "");
}

#[test]
fn events_on_standard_output_begin_and_end_with_the_run() {
    let ran = Pipeline::new("[process.a]\ncommand = [\"true\"]\n")
        .args(["--events", "-"])
        .run()
        .any_stdout();
    let text = String::from_utf8(ran.stdout.clone()).unwrap();
    let events: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let names: Vec<&str> = events
        .iter()
        .map(|event| event["event"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["run_started", "started", "ended", "run_ended"]);
}

/// Commands that print, with the first line or so of what they print.
#[test]
fn the_commands_that_print_do() {
    for (arguments, word) in [
        (vec!["--version"], "procflow"),
        (vec!["--help"], "run"),
        (vec!["schema", "pipeline"], "\"$schema\""),
        (vec!["schema", "events"], "\"$schema\""),
        (vec!["schema", "report"], "\"$schema\""),
        (vec!["completions", "bash"], "procflow"),
        (vec!["completions", "zsh"], "procflow"),
        (vec!["completions", "fish"], "procflow"),
        (vec!["man"], ".TH"),
    ] {
        let output = Command::new(PROCFLOW).args(&arguments).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(text.contains(word), "{arguments:?}: {text}");
    }
}

/// All that is in `pipelines/` is an example. One that reads what is only there says so, instead of failing when it is run.
#[test]
fn each_pipeline_is_an_example() {
    let directory = tempfile::tempdir().unwrap();
    let mut at_home = Vec::new();
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/pipelines")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let output = Command::new(PROCFLOW)
            .args(["init", "--example", &name])
            .current_dir(directory.path())
            .output()
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let written = directory.path().join(format!("{name}.toml"));
        assert_eq!(
            std::fs::read(written).unwrap(),
            std::fs::read(&path).unwrap()
        );
        let next = format!("wrote {name}.toml; next: procflow run {name}.toml\n");
        if said != next {
            assert!(said.contains("procflow's own sources"), "{said}");
            at_home.push(name);
        }
    }
    at_home.sort();
    assert_eq!(
        at_home,
        ["ci", "crawl", "map-reduce", "parallel-sort", "word-count"]
    );
}

#[test]
fn what_init_writes_runs_and_is_never_overwritten() {
    for (arguments, name) in [
        (vec![], "pipeline.toml"),
        (vec!["mine.toml"], "mine.toml"),
        (vec!["--example", "hello"], "hello.toml"),
        (vec!["--example", "fork"], "fork.toml"),
        (vec!["--example", "process"], "process.toml"),
        (vec!["--example", "queue"], "queue.toml"),
        (vec!["--example", "pool"], "pool.toml"),
        (vec!["--example", "poison"], "poison.toml"),
        (vec!["--example", "log-report"], "log-report.toml"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let procflow = |first: &str, rest: &[&str]| {
            let mut command = Command::new(PROCFLOW);
            command
                .arg(first)
                .args(rest)
                .current_dir(directory.path())
                .output()
                .unwrap()
        };
        let output = procflow("init", &arguments);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let written = std::fs::read(directory.path().join(name)).unwrap();
        let output = procflow("run", &[name]);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let output = procflow("init", &arguments);
        assert!(!output.status.success());
        assert!(String::from_utf8_lossy(&output.stderr).contains(name));
        assert_eq!(std::fs::read(directory.path().join(name)).unwrap(), written);
    }
}

/// The generated files that are checked in are what the program says today.
#[test]
fn the_schemas_are_up_to_date() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    for schema in ["pipeline", "events", "report"] {
        let output = Command::new(PROCFLOW)
            .args(["schema", schema])
            .output()
            .unwrap();
        let kept =
            std::fs::read(root.join(format!("schemas/{schema}.schema.json"))).unwrap_or_default();
        assert!(
            output.stdout == kept,
            "schemas/{schema}.schema.json is not what `procflow schema {schema}` prints; write it anew with that"
        );
    }
}
