//! What a node is given: its environment, parameters, directory, limits.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::support::Pipeline;

#[test]
fn the_later_environment_wins() {
    let mut text = String::from(
        r#"
        env_file = "all.env"
        [env]
        C = "env"
        D = "env"
        E = "env"
        [process.a]
        env_file = "node.env"
        command = ["sh", "-c", "echo $A $B $C $D $E"]
        stdout = "inherit"
        [process.a.env]
        "#,
    );
    text.push_str("E = \"node env\"\n");
    Pipeline::new(&text)
        .env("A", "inherited")
        .env("B", "inherited")
        .with_file("all.env", "B=file\nC=file\n")
        .with_file("node.env", "D='node file'\nE=file\n")
        .run()
        .stdout("inherited file env node file node env\n");
}

/// They were procflow's only where the node said nothing.
#[test]
fn what_procflow_sets_wins_over_what_the_file_says() {
    let ran = Pipeline::new(
        r#"
        env_file = "all.env"
        [params]
        book-name = "moby"
        [env]
        PARAM_BOOK_NAME = "env"
        PIPELINE_DIR = "env"
        [process.a]
        env_file = "node.env"
        script = 'echo "$PARAM_BOOK_NAME $PROCFLOW_NODE $PROCFLOW_ATTEMPT $PARAM_OTHER"; test "$PIPELINE_DIR" = "$PWD"; test "$PROCFLOW_RUN_ID" != node'
        stdout = "inherit"
        [process.a.env]
        PARAM_BOOK_NAME = "node"
        PARAM_OTHER = "other"
        PIPELINE_DIR = "node"
        PROCFLOW_RUN_ID = "node"
        PROCFLOW_NODE = "node"
        PROCFLOW_ATTEMPT = "node"
        "#,
    )
    .with_file("all.env", "PARAM_BOOK_NAME=file\n")
    .with_file("node.env", "PARAM_BOOK_NAME=file\nPIPELINE_DIR=file\n")
    .run()
    .says("warning: `PROCFLOW_RUN_ID` is set by procflow itself, and its value wins")
    .stdout("moby a 1 other\n");
    assert_eq!(ran.stderr.matches("warning:").count(), 7);
}

#[test]
fn a_default_that_is_secret_is_not_shown_with_its_line() {
    Pipeline::new(
        "[params]\ntoken = { secret = true, default = \"hush-hush\", choices = [\"hush\"] }\n[process.a]\ncommand = [\"true\"]\n",
    )
    .run()
    .says("the default of parameter `token` is none of its choices")
    .never_says("hush-hush")
    .no_nodes()
    .exit(2);
}

#[test]
fn a_cleared_environment_holds_only_what_the_pipeline_says() {
    let ran = Pipeline::new(
        r#"
        [env]
        SAID = "here"
        [process.a]
        command = ["/usr/bin/env"]
        clear_env = true
        stdout = "inherit"
        "#,
    )
    .env("INHERITED", "not wanted")
    .run()
    .any_stdout();
    let text = String::from_utf8(ran.stdout.clone()).unwrap();
    let mut names: Vec<&str> = text
        .lines()
        .map(|line| line.split_once('=').unwrap().0)
        .collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "PIPELINE_DIR",
            "PROCFLOW_ATTEMPT",
            "PROCFLOW_NODE",
            "PROCFLOW_RUN_ID",
            "SAID"
        ]
    );
}

#[test]
fn bytes_that_are_no_text_pass_through_the_environment() {
    Pipeline::new("[process.a]\ncommand = [\"printenv\", \"ODD\"]\nstdout = \"inherit\"\n")
        .env("ODD", OsStr::from_bytes(b"a\xffb"))
        .run()
        .stdout(b"a\xffb\n");
}

#[test]
fn procflow_tells_a_node_about_itself() {
    let ran = Pipeline::new(
        r#"
        [process.a-node]
        script = 'echo "$PROCFLOW_NODE $PROCFLOW_ATTEMPT $PROCFLOW_RUN_ID"; test "$PIPELINE_DIR" = "$PWD"'
        stdout = "inherit"
        [process.command]
        after = ["a-node"]
        command = ["echo", "${{ run.id }}"]
        stdout = "inherit"
        "#,
    )
    .run()
    .any_stdout();
    let id = ran.report.as_ref().unwrap()["run"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(
        String::from_utf8_lossy(&ran.stdout),
        format!("a-node 1 {id}\n{id}\n")
    );
}

const GREET: &str = r#"
[params]
name = { default = "world", choices = ["world", "Ada", "a  b; $(rm -rf x) \"'"] }
[process.command]
command = ["printf", "<%s>\n", "${{ params.name }}"]
stdout = "inherit"
[process.script]
after = ["command"]
script = 'printf "<%s>\n" "$PARAM_NAME"'
stdout = "inherit"
"#;

#[test]
fn a_parameter_has_its_default_or_what_was_set() {
    Pipeline::new(GREET).run().stdout("<world>\n<world>\n");
    Pipeline::new(GREET)
        .args(["--set", "name=Ada"])
        .run()
        .stdout("<Ada>\n<Ada>\n");
}

#[test]
fn a_value_stays_one_argument_whatever_it_holds() {
    let odd = "a  b; $(rm -rf x) \"'";
    Pipeline::new(GREET)
        .args(["--set", &format!("name={odd}")])
        .run()
        .stdout(format!("<{odd}>\n<{odd}>\n"));
}

#[test]
fn a_value_that_is_no_choice_is_refused() {
    Pipeline::new(GREET)
        .args(["--set", "name=Adda"])
        .run()
        .says("name")
        .says("did you mean")
        .says("Ada")
        .no_nodes()
        .exit(2);
}

#[test]
fn an_unknown_parameter_is_refused() {
    Pipeline::new(GREET)
        .args(["--set", "nmae=Ada"])
        .run()
        .says("nmae")
        .says("did you mean")
        .no_nodes()
        .exit(2);
}

#[test]
fn a_required_parameter_must_be_given() {
    let text = "[params]\nbook = { required = true }\n[process.a]\ncommand = [\"echo\", \"${{ params.book }}\"]\nstdout = \"inherit\"\n";
    Pipeline::new(text)
        .run()
        .says("book")
        .says("--set")
        .no_nodes()
        .exit(2);
    Pipeline::new(text)
        .args(["--set", "book=x"])
        .run()
        .stdout("x\n");
}

#[test]
fn a_parameter_may_come_from_the_environment() {
    let text = "[params]\nbook = { env = \"BOOK\", default = \"none\" }\n[process.a]\ncommand = [\"echo\", \"${{ params.book }}\"]\nstdout = \"inherit\"\n";
    Pipeline::new(text).run().stdout("none\n");
    Pipeline::new(text)
        .env("BOOK", "from outside")
        .run()
        .stdout("from outside\n");
    Pipeline::new(text)
        .env("BOOK", "from outside")
        .args(["--set", "book=set"])
        .run()
        .stdout("set\n");
}

/// The secret comes by three ways to three places; none of what procflow writes may hold it.
#[test]
fn a_secret_is_shown_nowhere() {
    let secret = "s3cret-t0ken-value";
    let ran = Pipeline::new(
        r#"
        [params]
        token = { secret = true, env = "TOKEN" }
        [process.log]
        command = ["echo", "the token is ${{ params.token }}"]
        [process.err]
        script = "printf 'half of it: %.9s' \"$PARAM_TOKEN\" >&2; printf '%s\n' \"$PARAM_TOKEN\" | cut -c 10- >&2; exit 1"
        "#,
    )
    .env("TOKEN", secret)
    .args(["--keep-going", "--events", "events", "--output", "prefixed"])
    .run()
    .says("***")
    .never_says(secret)
    .nodes([("log", "succeeded"), ("err", "failed: exit 1")])
    .exit(1);
    let mut files = vec![
        ran.pipeline.path(".procflow"),
        ran.pipeline.path("report.json"),
        ran.pipeline.path("events"),
    ];
    let mut seen = 0;
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(
                std::fs::read_dir(path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        } else {
            seen += 1;
            let bytes = std::fs::read(&path).unwrap();
            let found = bytes
                .windows(secret.len())
                .any(|window| window == secret.as_bytes());
            assert!(!found, "{} holds the secret", path.display());
        }
    }
    assert!(seen >= 5, "only {seen} files were looked at");
}

/// With quotes and a tab in it, it is written otherwise in messages than it is.
#[test]
fn a_secret_is_hidden_as_it_is_quoted_too() {
    let secret = "pa\"ss\\wo'rd\tend";
    let pipeline = || {
        Pipeline::new(
            r#"
            [params]
            token = { secret = true, env = "TOKEN" }
            [process.file]
            command = ["echo", "${{ params.token }}"]
            stdout = { file = "no/${{ params.token }}" }
            "#,
        )
        .env("TOKEN", secret)
    };
    let ran = pipeline().run();
    let name = ran.ends()[0].1.clone();
    assert!(name.contains("/no/***\": there is no directory"), "{name}");
    drop(
        ran.node("file", &name)
            .says("cannot start: file \"")
            .says("no/***\"")
            .never_says("wo'rd")
            .never_says("wo\\'rd")
            .exit(1),
    );
    let explained = pipeline()
        .subcommand("explain")
        .args(["file"])
        .without_report()
        .run()
        .any_stdout();
    let told = String::from_utf8_lossy(&explained.stdout);
    assert!(told.contains("***") && !told.contains("wo'rd"), "{told}");
}

#[test]
fn a_template_in_a_script_is_refused() {
    Pipeline::new("[params]\nx = \"1\"\n[process.a]\nscript = \"echo ${{ params.x }}\"\n")
        .run()
        .says("PARAM_X")
        .no_nodes()
        .exit(2);
}

#[test]
fn a_template_can_be_written_literally() {
    Pipeline::new(
        "[process.a]\ncommand = [\"echo\", \"$${{ params.x }}\"]\nstdout = \"inherit\"\n",
    )
    .run()
    .stdout("${{ params.x }}\n");
}

#[test]
fn no_shell_looks_at_a_command() {
    Pipeline::new(
        "[process.a]\ncommand = [\"echo\", \"$HOME; rm -rf x | y > z *\"]\nstdout = \"inherit\"\n",
    )
    .run()
    .stdout("$HOME; rm -rf x | y > z *\n");
}

/// Files are relative to the pipeline, a program with a slash in its name to the directory that the node runs in.
#[test]
fn paths_are_relative_to_the_pipeline_and_programs_to_their_directory() {
    Pipeline::new(
        r#"
        [process.a]
        cwd = "below"
        command = ["./program"]
        stdin = { file = "input" }
        stdout = { file = "output" }
        "#,
    )
    .with_program("below/program", "#!/bin/sh\ncat; basename \"$PWD\"\n")
    .with_file("input", "input\n")
    .run()
    .file("output", "input\nbelow\n");
}

#[test]
fn a_pipeline_can_be_run_from_anywhere() {
    Pipeline::new(
        r#"
        [process.a]
        command = ["sh", "-c", "cat; basename \"$PWD\""]
        stdin = { file = "input" }
        stdout = { file = "output" }
        "#,
    )
    .with_file("deep/er/pipeline.toml", "[process.b]\ncommand = [\"cat\"]\nstdin = { file = \"in\" }\nstdout = { file = \"out\" }\n")
    .with_file("deep/er/in", "deep\n")
    .with_name("deep/er/pipeline.toml")
    .run()
    .file("deep/er/out", "deep\n");
}

#[test]
fn a_bare_name_is_looked_up_along_the_nodes_own_path() {
    Pipeline::new(
        r#"
        [process.a]
        command = ["greet"]
        env = { PATH = "${{ pipeline.dir }}/bin:${{ env.PATH }}" }
        stdout = "inherit"
        "#,
    )
    .with_program("bin/greet", "#!/bin/sh\necho hello\n")
    .run()
    .stdout("hello\n");
}

#[test]
fn limits_hold_for_the_node() {
    Pipeline::new(
        r#"
        [process.a]
        script = "ulimit -n; ulimit -c; ulimit -t"
        limits = { open_files = 77, core = 0, cpu_time = "90s" }
        stdout = "inherit"
        "#,
    )
    .run()
    .stdout("77\n0\n90\n");
}

#[test]
fn niceness_is_added() {
    let ours = std::process::Command::new("nice").output().unwrap().stdout;
    let ours: i32 = String::from_utf8(ours).unwrap().trim().parse().unwrap();
    Pipeline::new("[process.a]\ncommand = [\"nice\"]\nnice = 7\nstdout = \"inherit\"\n")
        .run()
        .stdout(format!("{}\n", (ours + 7).min(19)));
}

#[test]
fn another_shell_may_run_the_script() {
    Pipeline::new(
        r#"
        [process.a]
        shell = ["awk"]
        script = "BEGIN { print 6 * 7 }"
        stdout = "inherit"
        "#,
    )
    .run()
    .stdout("42\n");
}

/// `sh -e`: the first command that fails ends the script.
#[test]
fn a_script_ends_at_its_first_failure() {
    Pipeline::new("[process.a]\nscript = \"\"\"\necho before\nfalse\necho after\n\"\"\"\nstdout = \"inherit\"\n")
        .run()
        .stdout("before\n")
        .nodes([("a", "failed: exit 1")])
        .exit(1);
}

#[test]
fn logs_are_kept_in_the_run_directory() {
    let ran = Pipeline::new("[process.a]\nscript = \"echo out; echo err >&2\"\n").run();
    let runs: Vec<_> = std::fs::read_dir(ran.pipeline.path(".procflow/runs"))
        .unwrap()
        .map(|run| run.unwrap().path())
        .collect();
    let [run] = runs.as_slice() else {
        panic!("{runs:?}")
    };
    let read = |name: &str| std::fs::read_to_string(Path::new(run).join(name)).unwrap();
    assert_eq!(read("logs/a.out"), "out\n");
    assert_eq!(read("logs/a.err"), "err\n");
    assert_eq!(
        read("pipeline.toml"),
        std::fs::read_to_string(ran.pipeline.path("pipeline.toml")).unwrap()
    );
    assert_eq!(
        read("report.json"),
        std::fs::read_to_string(ran.pipeline.path("report.json")).unwrap()
    );
    assert!(
        read("events.jsonl")
            .lines()
            .all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok())
    );
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(ran.pipeline.path(".procflow"))
            .unwrap()
            .permissions(),
    );
    assert_eq!(mode & 0o777, 0o700);
}

/// Old runs are removed beside the next ones, which wait for it only where more than four are left.
#[test]
fn the_last_twenty_runs_are_kept() {
    let pipeline = Pipeline::new("[process.a]\ncommand = [\"true\"]\n");
    let runs = |pipeline: &Pipeline| {
        let entries = std::fs::read_dir(pipeline.path(".procflow/runs")).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let mut all = std::collections::BTreeSet::new();
    for _ in 0..30 {
        let mut command = pipeline.command();
        assert!(
            command
                .stdin(std::process::Stdio::null())
                .stderr(std::process::Stdio::null())
                .status()
                .unwrap()
                .success()
        );
        all.extend(runs(&pipeline));
    }
    let kept = runs(&pipeline);
    assert_eq!(all.len(), 30);
    assert!((20..=24).contains(&kept.len()), "{kept:?}");
    let newest: Vec<_> = all.into_iter().skip(10).collect();
    assert!(kept.ends_with(&newest), "{kept:?} of {newest:?}");
}
