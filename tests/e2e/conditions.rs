//! `when`: nodes that run only where a variable, a parameter or a command says so.

use nix::sys::signal::Signal;

use crate::support::{Pipeline, wait_for};

/// What depends on a node that is left out goes on as if that had gone well, and finds its queues empty.
#[test]
fn a_node_whose_condition_does_not_hold_is_skipped_and_counts_as_satisfied() {
    let pipeline = || {
        Pipeline::new(
            r#"
            [process.ci]
            when = { env = "FOR_CI" }
            command = ["echo", "data"]
            stdout = "q"
            [process.reader]
            script = "wc -l; echo read"
            stdin = "q"
            stdout = "inherit"
            [process.after]
            after = ["ci"]
            command = ["echo", "after"]
            stdout = "inherit"
            [process.failed]
            after = [{ node = "ci", state = "failed" }]
            command = ["echo", "not me"]
            [process.started]
            after = [{ node = "ci", state = "started" }, "after"]
            command = ["echo", "started"]
            stdout = "inherit"
            "#,
        )
        .args(["-j", "1"])
    };
    let never = ("failed", "skipped: ci did not fail");
    pipeline()
        .env("FOR_CI", "")
        .run()
        .stdout("0\nread\nafter\nstarted\n")
        .nodes([
            ("ci", "skipped: when: env FOR_CI is empty"),
            ("reader", "succeeded"),
            ("after", "succeeded"),
            never,
            ("started", "succeeded"),
        ]);
    pipeline()
        .run()
        .stdout("0\nread\nafter\nstarted\n")
        .node("ci", "skipped: when: env FOR_CI is not set")
        .node("failed", "skipped: ci did not fail");
    pipeline()
        .env("FOR_CI", "true")
        .run()
        .stdout("1\nread\nafter\nstarted\n")
        .node("failed", "skipped: ci did not fail");
}

/// Order, values and failures pass through what is left out: nothing starts beside what it comes after.
#[test]
fn what_comes_after_a_skipped_node_comes_after_what_that_came_after() {
    let pipeline = |build: &str| {
        Pipeline::new(&format!(
            r#"
            [run]
            on_failure = "continue"
            [process.build]
            script = "sleep 0.2; echo v1; {build}"
            stdout = "value"
            [process.test]
            when = {{ env = "TESTS" }}
            after = ["build"]
            command = ["true"]
            [process.more-tests]
            after = ["test"]
            command = ["true"]
            [process.ship]
            after = ["more-tests"]
            command = ["echo", "${{{{ value.build }}}}"]
            stdout = "inherit"
            [process.clean]
            after = [{{ node = "more-tests", state = "finished" }}]
            command = ["true"]
            "#
        ))
        .args(["-j", "4", "--skip", "more-tests"])
    };
    let no = "skipped: when: env TESTS is not set";
    pipeline("")
        .run()
        .stdout("v1\n")
        .node("test", no)
        .node("more-tests", "skipped: --skip");
    pipeline("exit 3")
        .run()
        .nodes([
            ("build", "failed: exit 3"),
            ("test", no),
            ("more-tests", "skipped: --skip"),
            ("ship", "skipped: build failed"),
            ("clean", "succeeded"),
        ])
        .exit(1);
}

/// What the process would find in its environment: the later wins, and `clear_env` inherits nothing.
#[test]
fn the_environment_is_the_nodes_own() {
    let node = |name: &str, keys: &str| format!("[process.{name}]\ncommand = ['true']\n{keys}\n");
    let text = [
        "env_file = 'common'\n[params]\ndeploy = 'yes'\n[env]\nSTAGE = 'test'\n".to_owned(),
        node("inherited", "when = { env = 'OUTER', is = 'o' }"),
        node("cleared", "clear_env = true\nwhen = { env = 'OUTER' }"),
        node("common", "when = { env = 'FROM_FILE', is = 'f' }"),
        node("table", "when = { env = 'STAGE', is = 'test' }"),
        node(
            "own",
            "env = { STAGE = 'live' }\nwhen = { env = 'STAGE', is = 'live' }",
        ),
        node(
            "other",
            "env = { STAGE = 'live' }\nwhen = { env = 'STAGE', is = 'test' }",
        ),
        node(
            "file",
            "env_file = 'mine'\nwhen = { env = 'STAGE', is = 'mine' }",
        ),
        node("param", "when = { env = 'PARAM_DEPLOY', is = 'yes' }"),
    ];
    Pipeline::new(&text.concat())
        .with_file("common", "FROM_FILE=f\nSTAGE=common\n")
        .with_file("mine", "STAGE=mine\n")
        .env("OUTER", "o")
        .run()
        .nodes([
            ("inherited", "succeeded"),
            ("cleared", "skipped: when: env OUTER is not set"),
            ("common", "succeeded"),
            ("table", "succeeded"),
            ("own", "succeeded"),
            ("other", "skipped: when: env STAGE is not \"test\""),
            ("file", "succeeded"),
            ("param", "succeeded"),
        ]);
}

const DEPLOY: &str = r#"
[params]
deploy = { default = "no", choices = ["yes", "no"] }
[process.build]
command = ["true"]
[pool.upload]
when = { param = "deploy", is = "yes" }
after = ["build"]
tasks = ["a", "b"]
command = ["echo", "${{ task }}"]
stdout = "inherit"
workers = 1
[process.announce]
after = ["upload"]
when = { command = ["test", "-e", "${{ params.deploy }}"] }
command = ["echo", "announced"]
stdout = "inherit"
"#;

#[test]
fn a_parameter_decides_about_a_pool_as_a_whole() {
    Pipeline::new(DEPLOY).run().nodes([
        ("build", "succeeded"),
        ("upload", "skipped: when: param deploy is not \"yes\""),
        ("announce", "skipped: when: its command said no (exit 1)"),
    ]);
    Pipeline::new(DEPLOY)
        .with_file("yes", "")
        .args(["--set", "deploy=yes"])
        .run()
        .stdout("a\nb\nannounced\n");
}

#[test]
fn what_is_known_before_the_run_is_shown_before_it() {
    let said = |subcommand: &str| {
        Pipeline::new(DEPLOY)
            .subcommand(subcommand)
            .without_report()
    };
    drop(said("check").run().stdout(
        "pipeline.toml: ok: 2 processes, 1 pool, 0 queues, 3 groups; skipped: upload (param deploy is not \"yes\")\n",
    ));
    drop(said("graph").args(["--format", "text"]).run().stdout(
        "build\nupload ×1 (skipped: param deploy is not \"yes\") (after build)\nannounce (after upload)\n",
    ));
    drop(said("run").args(["--dry-run"]).run().stdout(
        "upload: would be skipped: when: param deploy is not \"yes\"\nbuild: true\nannounce (when test -e no): echo announced\n",
    ));
}

/// An answer is asked when all else is there, once for all tries.
#[test]
fn a_command_is_asked_late_and_once() {
    Pipeline::new(
        r#"
        [process.first]
        command = ["touch", "there"]
        [process.flaky]
        after = ["first"]
        when = { command = ["sh", "-c", "test -e there; echo asked >> log; echo \"$PROCFLOW_NODE: $WHO\" >&2"] }
        env = { WHO = "me" }
        retries = { max = 2, delay = "0s" }
        script = "test \"$PROCFLOW_ATTEMPT\" = 3"
        "#,
    )
    .run()
    .file("log", "asked\n")
    .says("flaky: me\n")
    .node("flaky", "succeeded");
}

#[test]
fn a_command_that_gives_no_answer_is_a_failure() {
    let text = |command: &str| {
        format!(
            "[process.asks]\nwhen = {{ command = {command} }}\ncommand = ['echo', 'data']\nstdout = 'q'\n[process.reader]\ncommand = ['cat']\nstdin = 'q'\n[process.after]\nafter = ['asks']\ncommand = ['true']\n"
        )
    };
    for (command, reason) in [
        (
            "['sh', '-c', 'echo why >&2; exit 2']",
            "failed: when: its command ended with exit 2, which is neither 0 (yes) nor 1 (no)",
        ),
        (
            "['sh', '-c', 'kill -9 $$']",
            "failed: when: its command was killed by SIGKILL",
        ),
        (
            "['/nothing']",
            "failed: when: its command: cannot start: no such file: \"/nothing\"",
        ),
    ] {
        Pipeline::new(&text(command))
            .run()
            .nodes([
                ("asks", reason),
                ("reader", "skipped: writer asks failed"),
                ("after", "skipped: asks failed"),
            ])
            .exit(1);
    }
}

/// Its failure may be allowed, as any other of the node. Those of its group can't go on without it.
#[test]
fn an_allowed_failure_to_answer_fails_nobody() {
    Pipeline::new(
        r#"
        [process.asks]
        when = { command = ["/nothing"] }
        allow_failure = true
        command = ["true"]
        [process.after]
        after = ["asks"]
        command = ["echo", "after"]
        stdout = "inherit"
        "#,
    )
    .run()
    .stdout("after\n")
    .node(
        "asks",
        "failed: when: its command: cannot start: no such file: \"/nothing\"",
    );
}

#[test]
fn a_time_limit_holds_for_the_command_too() {
    Pipeline::new(
        r#"
        [process.asks]
        when = { command = ["sleep", "1000"] }
        timeout = "50ms"
        command = ["true"]
        "#,
    )
    .run()
    .node("asks", "failed: when: its command: timed out after 50ms")
    .exit(1);
}

/// Both ends of a queue, and a whole group, whose commands are asked before anything of it starts.
#[test]
fn in_a_group_all_are_asked_before_any_is_started() {
    let pipeline = |writer: &str, reader: &str| {
        Pipeline::new(&format!(
            r#"
            [process.writer]
            when = {{ command = ["sh", "-c", "test ! -e started && exit {writer}"] }}
            script = "touch started; echo data"
            stdout = "q"
            [process.reader]
            when = {{ command = ["sh", "-c", "test ! -e started && exit {reader}"] }}
            script = "touch started; wc -l"
            stdin = "q"
            stdout = "inherit"
            [process.other]
            script = "touch started; wc -l"
            stdin = "q"
            stdout = {{ file = "other" }}
            [queue.q]
            deliver = "copy"
            "#
        ))
    };
    let no = "skipped: when: its command said no (exit 1)";
    pipeline("0", "0").run().stdout("1\n").file("other", "1\n");
    pipeline("1", "0")
        .run()
        .stdout("0\n")
        .file("other", "0\n")
        .node("writer", no);
    pipeline("0", "1")
        .run()
        .file("other", "1\n")
        .node("reader", no);
    pipeline("1", "1")
        .run()
        .file("other", "0\n")
        .node("writer", no)
        .node("reader", no);
}

/// All that wrote a stored queue were left out: its readers find it empty. And a pool that would have written a file leaves none.
#[test]
fn what_a_skipped_node_would_have_written_is_empty() {
    Pipeline::new(
        r#"
        [process.writer]
        when = { command = ["false"] }
        command = ["echo", "data"]
        stdout = "q"
        [queue.q]
        store = true
        [process.reader]
        script = "cat; echo end"
        stdin = "q"
        stdout = "inherit"
        [pool.workers]
        when = { command = ["false"] }
        stdin = { file = "words" }
        workers = 2
        command = ["cat"]
        stdout = { file = "never" }
        "#,
    )
    .with_file("words", "a\nb\n")
    .run()
    .stdout("end\n")
    .no_file("never")
    .node("writer", "skipped: when: its command said no (exit 1)")
    .node("workers", "skipped: when: its command said no (exit 1)");
}

/// Also with a file of its own in each task's environment: there is no task yet.
#[test]
fn a_pool_is_asked_for_as_a_whole() {
    Pipeline::new(
        r#"
        [pool.p]
        when = { command = ["sh", "-c", "echo asked >> log; test -z \"$ONE$TASK$WORKER\""] }
        tasks = ["a", "b", "c"]
        env = { ONE = "${{ task }}" }
        command = ["sh", "-c", "echo $ONE"]
        stdout = "inherit"
        order = "input"
        "#,
    )
    .run()
    .stdout("a\nb\nc\n")
    .file("log", "asked\n");
}

/// A service that is not there counts as ready.
#[test]
fn a_service_may_be_left_out() {
    Pipeline::new(
        r#"
        [process.db]
        service = { ready = { file = "never" } }
        when = { command = ["false"] }
        command = ["sleep", "1000"]
        [process.test]
        after = ["db"]
        command = ["echo", "tested"]
        stdout = "inherit"
        "#,
    )
    .run()
    .stdout("tested\n")
    .node("db", "skipped: when: its command said no (exit 1)");
}

/// Values are there for it, and it runs where and as what the node would.
#[test]
fn a_command_has_the_nodes_directory_and_values() {
    Pipeline::new(
        r#"
        [process.version]
        command = ["echo", "v1"]
        stdout = "value"
        [process.tag]
        after = ["version"]
        cwd = "sub"
        when = { command = ["test", "-e", "${{ value.version }}", "-a", "!", "-e", "x-${{ run.id }}"] }
        command = ["echo", "tagged"]
        stdout = "inherit"
        "#,
    )
    .with_file("sub/v1", "")
    .run()
    .stdout("tagged\n");
}

/// It is stopped as a node is, and nothing of it is left.
#[test]
fn a_signal_stops_the_command_and_skips_the_node() {
    let live = Pipeline::new(
        r#"
        [process.asks]
        when = { command = ["sh", "-c", "trap 'echo stopped >> log; exit 0' TERM; sleep 1000 & echo asked > ready; wait"] }
        command = ["touch", "ran"]
        "#,
    )
    .with_fifo("ready")
    .start();
    live.lines("ready", 1);
    live.signal(Signal::SIGTERM);
    live.finish()
        .signal(Signal::SIGTERM)
        .file("log", "stopped\n")
        .no_file("ran")
        .node("asks", "skipped: interrupted by SIGTERM");
}

/// What is asked is bounded by job slots, as what runs is.
#[test]
fn commands_hold_their_nodes_slots() {
    let node = |name: &str| {
        format!(
            "[process.{name}]\nwhen = {{ command = ['sh', '-c', 'test ! -e busy; touch busy; rm busy'] }}\nscript = 'test ! -e busy'\n"
        )
    };
    let text: String = ["a", "b", "c", "d", "e", "f"].map(node).concat();
    drop(Pipeline::new(&text).args(["-j", "1"]).run());
}

/// A failure elsewhere stops what is asked, too.
#[test]
fn nothing_is_asked_on_when_the_run_has_failed() {
    let live = Pipeline::new(
        r#"
        [run]
        jobs = 2
        [process.asks]
        when = { command = ["sh", "-c", "echo asked > ready; sleep 1000"] }
        command = ["touch", "ran"]
        [process.bad]
        script = "read go < go; exit 3"
        "#,
    )
    .with_fifo("ready")
    .with_fifo("go")
    .start();
    live.lines("ready", 1);
    wait_for("the other one", || {
        let all = live.processes();
        all.iter()
            .any(|(_, command)| command.contains("read go"))
            .then_some(())
    });
    live.release("go", "go\n");
    live.finish()
        .no_file("ran")
        .nodes([
            ("asks", "skipped: the run stopped after bad failed"),
            ("bad", "failed: exit 3"),
        ])
        .exit(1);
}

#[test]
fn mistakes_are_told_with_the_way_out() {
    let said = |when: &str, text: &str| {
        let ran = Pipeline::new(&format!(
            "[params]\ndeploy = {{ default = 'no', choices = ['yes', 'no'] }}\n[process.a]\ncommand = ['true']\n{when}\n"
        ))
        .subcommand("check")
        .without_report()
        .run()
        .any_stdout()
        .exit(2);
        let told = String::from_utf8_lossy(&ran.stdout);
        assert!(told.contains(text), "{told}");
    };
    said(
        "when = { param = 'deplyo', is = 'yes' }",
        "error: no parameter `deplyo`\n --> pipeline.toml:5:18\n  |\n5 | when = { param = 'deplyo', is = 'yes' }\n  |                  ^^^^^^^^\n  |\n  = help: did you mean `deploy`?\n",
    );
    said(
        "when = { param = 'deploy', is = 'yse' }",
        "error: parameter `deploy` is never \"yse\"\n --> pipeline.toml:5:33\n  |\n5 | when = { param = 'deploy', is = 'yse' }\n  |                                 ^^^^^\n  |\n  = help: did you mean \"yes\"?\n",
    );
    said(
        "when = { env = '$CI' }",
        "error: \"$CI\" can't be the name of an environment variable\n --> pipeline.toml:5:16\n  |\n5 | when = { env = '$CI' }\n  |                ^^^^^\n  |\n  = help: did you mean \"CI\"?\n",
    );
    said(
        "when = { param = 'deploy' }",
        "error: `when` of process `a`: `is` is missing",
    );
    said("when = '$CI'", "say what it is: { env = \"CI\" }");
    said(
        "when = {}",
        "expected one of `env`, `param` and `command`, found none",
    );
    said("when = { command = [] }", "an empty command");
    said("when = { env = 'A', command = ['true'] }", "found several");
    said(
        "when = { command = ['true'], is = 'x' }",
        "`is` goes with `env` and `param`",
    );
    said(
        "env = { A = '${{ run.id }}' }\nwhen = { env = 'A' }",
        "error: variable `A` of this node is known only when it starts",
    );
    said(
        "when = { command = ['test', '${{ in.x }}'] }",
        "error: `in.x` means nothing here",
    );
}
