//! Services: waited for until they are ready, kept while somebody needs them, restarted, stopped in order, and never left behind.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::{Pipeline, wait_for};

/// A node that finds a free port.
const PORT: &str = r#"
[process.port]
command = ["python3", "-c", "import socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); print(s.getsockname()[1])"]
stdout = "value"
"#;

/// A service that says that it is there, and gets ready by this when it is let go; and who fails where it does not wait for that.
fn gated(ready: &str, get_ready: &str) -> Pipeline {
    Pipeline::new(&format!(
        r#"
        [process.db]
        script = '''
        echo up > up
        read go < go
        echo yes > mark
        {get_ready}
        exec sleep 1000
        '''
        service = {{ ready = {ready} }}
        [process.test]
        command = ["cat", "mark"]
        stdout = "inherit"
        after = ["db"]
        "#
    ))
    .with_fifo("up")
    .with_fifo("go")
}

fn is_waited_for(pipeline: Pipeline) {
    let live = pipeline.start();
    live.lines("up", 1);
    live.release("go", "go\n");
    drop(live.finish().stdout("yes\n"));
}

#[test]
fn a_file_is_waited_for() {
    is_waited_for(gated("{ file = \"ready\" }", ": > ready"));
}

/// Such as the socket of a server that was killed.
#[test]
fn a_file_that_was_there_before_is_not_it() {
    is_waited_for(gated("{ file = \"ready\" }", "echo new > ready").with_file("ready", "stale"));
}

#[test]
fn a_line_of_its_output_is_waited_for() {
    is_waited_for(gated(
        "{ log = '^listening on port \\d+$' }",
        "echo listening on port 80",
    ));
    is_waited_for(gated(
        "{ log = '^listening on port \\d+$' }",
        "printf 'listening on ' >&2; echo noise; echo port 80 >&2",
    ));
}

#[test]
fn a_command_is_waited_for() {
    is_waited_for(gated(
        "{ command = [\"test\", \"-e\", \"ready\"] }",
        ": > ready",
    ));
}

/// A server that writes a file before it listens, and takes a while until it does.
fn server(ready: &str) -> Pipeline {
    Pipeline::new(&format!(
        r#"
        {PORT}
        [process.web]
        command = ["python3", "serve.py", "${{{{ value.port }}}}"]
        service = {{ ready = {ready} }}
        after = ["port"]
        [process.test]
        command = ["cat", "mark"]
        stdout = "inherit"
        after = ["web"]
        "#
    ))
    .with_file(
        "serve.py",
        r#"
import http.server, sys

class Answer(http.server.BaseHTTPRequestHandler):
    asked = 0

    def do_GET(self):
        # Not well at first.
        Answer.asked += 1
        self.send_response(200 if Answer.asked > 3 and self.path == "/health?x" else 503)
        self.end_headers()

with open("mark", "w") as mark:
    mark.write("yes\n")
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
"#,
    )
}

#[test]
fn a_connection_is_waited_for() {
    let address = "{ tcp = \"127.0.0.1:${{ value.port }}\" }";
    drop(server(address).run().stdout("yes\n"));
    let both = "{ tcp = \"localhost:${{ value.port }}\" }";
    drop(server(both).run().stdout("yes\n"));
}

#[test]
fn an_answer_is_waited_for() {
    let url = "{ http = \"http://127.0.0.1:${{ value.port }}/health?x\", interval = \"10ms\" }";
    let ran = server(url).run().stdout("yes\n");
    let log = std::fs::read_dir(ran.pipeline.path(".procflow/runs")).unwrap();
    let run = log.flatten().next().unwrap().path();
    let log = std::fs::read_to_string(run.join("logs/web.err")).unwrap();
    assert!(
        log.matches(" 503 ").count() == 3 && log.matches(" 200 ").count() == 1,
        "{log}"
    );
}

#[test]
fn without_a_probe_a_service_is_ready_when_it_runs() {
    let ran = Pipeline::new(
        r#"
        [process.db]
        script = "echo $$ > pid; exec sleep 1000"
        service = true
        [process.test]
        command = ["true"]
        after = ["db"]
        "#,
    )
    .run();
    assert_eq!(ran.field("db", "signal")["name"], "SIGTERM");
    assert_eq!(ran.field("db", "reason"), "stopped, no longer needed");
    assert!(ran.field("db", "ready").is_f64());
    drop(ran);
}

#[test]
fn a_service_that_is_not_ready_in_time_has_failed_with_its_log_at_hand() {
    Pipeline::new(
        r#"
        [process.db]
        script = "echo starting up; echo no disk >&2; exec sleep 1000"
        service = { ready = { file = "never", timeout = "1s" } }
        [process.test]
        command = ["true"]
        after = ["db"]
        "#,
    )
    .args(["--progress", "none", "--output", "none"])
    .run()
    .exit(1)
    .says("not ready after 1s: file never: no such file\n  | starting up\n  | no disk\n")
    .nodes([
        ("db", "failed: not ready after 1s: file never: no such file"),
        ("test", "skipped: service db failed"),
    ]);
}

#[test]
fn what_was_seen_last_is_said() {
    let cases = [
        (
            "tcp = \"127.0.0.1:1\"",
            "tcp 127.0.0.1:1: connection refused",
        ),
        (
            "http = \"http://127.0.0.1:1/x\"",
            "http://127.0.0.1:1/x: connection refused",
        ),
        (
            "log = \"up+\"",
            "log \"up+\": it has printed no line (does it keep its output in a buffer?)",
        ),
        (
            "command = [\"sh\", \"-c\", \"echo no >&2; echo luck; exit 3\"]",
            "command sh -c echo no >&2; echo luck; exit 3: exit 3: luck",
        ),
        (
            "command = [\"sleep\", \"1000\"]",
            "command sleep 1000: it has not ended yet",
        ),
    ];
    let mut text = "[run]\non_failure = \"continue\"\n".to_owned();
    for (at, (probe, _)) in cases.iter().enumerate() {
        text += &format!(
            r#"
            [process.n{at}]
            command = ["sleep", "1000"]
            service = {{ ready = {{ {probe}, timeout = "1s" }} }}
            [process.u{at}]
            command = ["true"]
            after = ["n{at}"]
            "#
        );
    }
    let ran = Pipeline::new(&text).run().exit(1);
    let ends = ran.ends();
    for (at, (_, seen)) in cases.iter().enumerate() {
        let expected = [
            format!("failed: not ready after 1s: {seen}"),
            format!("skipped: service n{at} failed"),
        ];
        assert_eq!([&ends[2 * at].1, &ends[2 * at + 1].1], expected.each_ref());
    }
    drop(ran.node("n0", &ends[0].1));
}

/// It is not waited for: it will not appear by itself.
#[test]
fn a_probe_that_cannot_be_started_fails_its_service() {
    drop(
        Pipeline::new(
            r#"
            [process.db]
            command = ["sleep", "1000"]
            service = { ready = { command = ["/no/such/probe"], timeout = "1000s" } }
            [process.test]
            command = ["true"]
            after = ["db"]
            "#,
        )
        .run()
        .exit(1)
        .nodes([
            (
                "db",
                "failed: its probe: cannot start: no such file: \"/no/such/probe\"",
            ),
            ("test", "skipped: service db failed"),
        ]),
    );
}

#[test]
fn a_service_that_ends_before_it_is_ready_has_failed() {
    for (script, how) in [
        ("exit 0", "exit 0"),
        ("exit 3", "exit 3"),
        ("kill -9 $$", "killed by SIGKILL"),
    ] {
        let end = format!("failed: ended before it was ready: {how}");
        Pipeline::new(&format!(
            r#"
            [process.db]
            script = "{script}"
            service = {{ ready = {{ file = "never" }} }}
            [process.test]
            command = ["true"]
            after = ["db"]
            "#
        ))
        .run()
        .exit(1)
        .nodes([("db", &end), ("test", "skipped: service db failed")]);
    }
}

#[test]
fn a_service_that_dies_fails_those_who_need_it_by_name() {
    let live = Pipeline::new(
        r#"
        [process.db]
        script = "echo db > up; read go < go; exit 3"
        service = true
        [process.web]
        script = "echo web > up; exec sleep 1000"
        service = true
        after = ["db"]
        [process.test]
        script = "echo test > up; exec sleep 1000"
        after = ["web"]
        [process.later]
        command = ["true"]
        after = ["db", "test"]
        [process.apart]
        script = "read go < go2"
        [process.report]
        command = ["echo", "done"]
        stdout = "inherit"
        after = [{ node = "test", state = "finished" }]
        "#,
    )
    .with_fifo("up")
    .with_fifo("go")
    .with_fifo("go2")
    .start();
    live.lines("up", 3);
    live.release("go", "go\n");
    wait_for("the test to be gone", || {
        let sleeps = |(_, command): &(i32, String)| command.starts_with("sleep 1000");
        (!live.processes().iter().any(sleeps)).then_some(())
    });
    live.release("go2", "go\n");
    live.finish().exit(1).stdout("done\n").nodes([
        ("db", "failed: ended while it was needed: exit 3"),
        ("web", "cancelled: service db failed"),
        ("test", "cancelled: service web did not last (db failed)"),
        ("later", "skipped: service db failed"),
        ("apart", "succeeded"),
        ("report", "succeeded"),
    ]);
}

/// Each time it waits longer; who waits for it goes on waiting.
#[test]
fn a_service_is_restarted_while_those_who_need_it_wait() {
    let ran = Pipeline::new(
        r#"
        [process.db]
        script = "[ $PROCFLOW_ATTEMPT = 3 ] || exit 1; : > ready; exec sleep 1000"
        service = { ready = { file = "ready" }, restart = { max = 2, delay = "10ms" } }
        [process.test]
        command = ["test", "-e", "ready"]
        after = ["db"]
        "#,
    )
    .run()
    .says("ended before it was ready: exit 1; next try in 10ms")
    .says("ended before it was ready: exit 1; next try in 20ms")
    .says("stopped, no longer needed; ready after")
    .says("; restarted 2 times");
    assert_eq!(ran.field("db", "attempts"), 3);
    drop(ran);
}

#[test]
fn who_runs_goes_on_while_a_service_is_restarted_and_who_does_not_waits_again() {
    let live = Pipeline::new(
        r#"
        [process.db]
        script = '''
        echo $PROCFLOW_ATTEMPT > up
        [ $PROCFLOW_ATTEMPT = 1 ] || read again < again
        echo $PROCFLOW_ATTEMPT > ready
        read go < go
        exit 1
        '''
        service = { ready = { file = "ready" }, restart = { max = 1, delay = "1ms" } }
        [process.runs]
        script = "echo runs > up; read go < gate"
        after = ["db"]
        [process.waits]
        command = ["cat", "ready"]
        stdout = "inherit"
        after = ["db", "first"]
        [process.first]
        script = "read go < gate2"
        "#,
    )
    .with_fifo("up")
    .with_fifo("again")
    .with_fifo("go")
    .with_fifo("gate")
    .with_fifo("gate2")
    .args(["--jobs", "4"])
    .start();
    assert_eq!(live.lines("up", 2), ["1", "runs"]);
    live.release("go", "go\n");
    assert_eq!(live.lines("up", 1), ["2"]);
    // All that `waits` waits for has been ready, and the service is not: it has to wait on.
    live.release("gate2", "go\n");
    live.release("again", "go\n");
    wait_for("`waits` to have read", || {
        let said = std::fs::read_to_string(live.pipeline.path("stdout")).unwrap();
        (said == "2\n").then_some(())
    });
    live.release("gate", "go\n");
    drop(live.finish().stdout("2\n"));
}

#[test]
fn restarts_come_to_an_end() {
    Pipeline::new(
        r#"
        [process.db]
        command = ["false"]
        service = { ready = { file = "never" }, restart = { max = 2, delay = "1ms" } }
        [process.test]
        command = ["true"]
        after = ["db"]
        "#,
    )
    .run()
    .exit(1)
    .says("restarted 2 times")
    .nodes([
        ("db", "failed: ended before it was ready: exit 1"),
        ("test", "skipped: service db failed"),
    ]);
}

/// Three that stop only when those are gone that need them: each says when it is told to.
fn chain() -> Pipeline {
    let node = |name: &str, more: &str| {
        format!(
            r#"
            [process.{name}]
            script = "trap 'echo {name} >> order; exit 0' TERM; echo {name} > up; sleep 1000 & wait"
            {more}
            "#
        )
    };
    let text = [
        node("db", "service = true"),
        node("web", "service = true\nafter = [\"db\"]"),
        node("proxy", "service = true\nafter = [\"web\", \"db\"]"),
    ];
    Pipeline::new(&(text.concat() + "[process.test]\nscript = \"trap 'echo test >> order; exit 0' TERM; echo test > up; read go < go & wait\"\nafter = [\"proxy\"]\n"))
        .with_fifo("up")
        .with_fifo("go")
}

#[test]
fn services_are_stopped_before_those_that_they_need() {
    let live = chain().start();
    live.lines("up", 4);
    live.release("go", "go\n");
    drop(live.finish().file("order", "proxy\nweb\ndb\n"));
}

#[test]
fn a_signal_stops_them_in_this_order_too() {
    let live = chain().start();
    live.lines("up", 4);
    live.signal(Signal::SIGINT);
    let why = "cancelled: interrupted by SIGINT";
    live.finish()
        .signal(Signal::SIGINT)
        .file("order", "test\nproxy\nweb\ndb\n")
        .nodes([("db", why), ("web", why), ("proxy", why), ("test", why)]);
}

#[test]
fn a_second_signal_kills_services_at_once() {
    let live = Pipeline::new(
        r#"
        [defaults]
        stop_grace = "1000s"
        [process.db]
        script = "trap '' TERM; echo db > up; while :; do sleep 0.02; done"
        service = true
        [process.test]
        script = "trap 'echo stopping > up' TERM; echo test > up; while :; do sleep 0.02; done"
        after = ["db"]
        "#,
    )
    .with_fifo("up")
    .start();
    live.lines("up", 2);
    live.signal(Signal::SIGTERM);
    live.lines("up", 1);
    live.signal(Signal::SIGTERM);
    let why = "cancelled: interrupted by SIGTERM";
    let ran = live.finish().signal(Signal::SIGTERM);
    drop(ran.nodes([("db", why), ("test", why)]));
}

#[test]
fn a_service_that_does_not_stop_is_killed_and_that_is_said() {
    let ran = Pipeline::new(
        r#"
        [process.db]
        script = "trap '' TERM; : > ready; while :; do sleep 0.02; done"
        service = { ready = { file = "ready" } }
        stop_grace = "100ms"
        [process.test]
        command = ["true"]
        after = ["db"]
        "#,
    )
    .run();
    assert_eq!(
        ran.field("db", "reason"),
        "no longer needed; killed, since SIGTERM had not stopped it in 100ms"
    );
    drop(ran);
}

/// Of a service, its users, and the commands of its probe.
#[test]
fn kill_9_of_procflow_leaves_no_service() {
    let live = Pipeline::new(
        r#"
        [process.db]
        script = "trap '' TERM; echo db > up; setsid sleep 1000 & sleep 1000"
        service = true
        [process.probed]
        script = "sleep 1000"
        service = { ready = { command = ["sh", "-c", "echo probe > up; trap '' TERM; sleep 1000; sleep 1000"] } }
        [process.test]
        script = "echo test > up; sleep 1000"
        after = ["db"]
        [process.waits]
        command = ["true"]
        after = ["probed"]
        "#,
    )
    .with_fifo("up")
    .start();
    live.lines("up", 3);
    assert!(live.processes().len() >= 7, "{:#?}", live.processes());
    let victim = live.pid();
    let took = live.kill_and_time(victim);
    assert!(took < Duration::from_secs(2), "it took {took:?}");
}

/// A probe's command that is under way when nobody wants to know any more goes, too.
#[test]
fn the_command_of_a_probe_ends_with_its_service() {
    let live = Pipeline::new(
        r#"
        [process.db]
        command = ["sleep", "1000"]
        service = { ready = { command = ["sh", "-c", "echo probe > up; trap '' TERM; sleep 1000; sleep 1000"] } }
        [process.test]
        command = ["true"]
        after = ["db", "fails"]
        [process.fails]
        script = "read go < go; exit 3"
        "#,
    )
    .with_fifo("up")
    .with_fifo("go")
    .start();
    live.lines("up", 1);
    live.release("go", "go\n");
    drop(live.finish().exit(1).nodes([
        ("db", "succeeded"),
        ("test", "skipped: fails failed"),
        ("fails", "failed: exit 3"),
    ]));
}

#[test]
fn clean_up_has_its_service_whatever_has_failed() {
    for on_failure in ["stop", "kill", "continue"] {
        let live = Pipeline::new(&format!(
            r#"
            [run]
            on_failure = "{on_failure}"
            [process.db]
            script = "trap 'rm alive; exit 0' TERM; echo yes > alive; echo db > up; sleep 1000 & wait"
            service = {{ ready = {{ file = "alive" }} }}
            [process.test]
            script = "read go < go; exit 3"
            after = ["db"]
            [process.dump]
            command = ["cat", "alive"]
            stdout = "inherit"
            after = ["db", {{ node = "test", state = "finished" }}]
            [process.archive]
            script = "! test -e alive"
            after = [{{ node = "db", state = "finished" }}]
            "#
        ))
        .with_fifo("up")
        .with_fifo("go")
        .start();
        live.lines("up", 1);
        live.release("go", "go\n");
        drop(live.finish().exit(1).stdout("yes\n").nodes([
            ("db", "succeeded"),
            ("test", "failed: exit 3"),
            ("dump", "succeeded"),
            ("archive", "succeeded"),
        ]));
    }
}

const SELECT: &str = r#"
[process.db]
command = ["sleep", "1000"]
service = true
[process.test]
command = ["true"]
after = ["db"]
[process.lint]
command = ["true"]
"#;

#[test]
fn a_chosen_node_brings_its_service() {
    drop(
        Pipeline::new(SELECT)
            .args(["--only", "test"])
            .run()
            .nodes([("db", "succeeded"), ("test", "succeeded")]),
    );
    drop(
        Pipeline::new(SELECT)
            .args(["--only", "lint"])
            .run()
            .nodes([("lint", "succeeded")]),
    );
}

#[test]
fn a_service_that_is_left_out_counts_as_ready() {
    drop(Pipeline::new(SELECT).args(["--skip", "db"]).run().nodes([
        ("db", "skipped: --skip"),
        ("test", "succeeded"),
        ("lint", "succeeded"),
    ]));
}

#[test]
fn a_service_is_not_started_for_nobody() {
    drop(Pipeline::new(SELECT).args(["--skip", "test"]).run().nodes([
        ("db", "skipped: nobody needs it"),
        ("test", "skipped: --skip"),
        ("lint", "succeeded"),
    ]));
}

#[test]
fn a_service_that_nobody_waits_for_runs_beside_the_rest() {
    let live = Pipeline::new(
        r#"
        [process.mail]
        script = "echo mail > up; exec sleep 1000"
        service = true
        [process.test]
        script = "read go < go"
        "#,
    )
    .with_fifo("up")
    .with_fifo("go")
    .start();
    live.lines("up", 1);
    live.release("go", "go\n");
    drop(live.finish().says(
        "warning: nobody waits for service `mail`: it runs until all other nodes have ended",
    ));
}

#[test]
fn services_alone_run_until_they_are_stopped() {
    let live = Pipeline::new(SELECT).args(["--only", "db"]).start();
    wait_for("the service to run", || {
        let sleeps = |(_, command): &(i32, String)| command.starts_with("sleep 1000");
        live.processes().iter().any(sleeps).then_some(())
    });
    live.signal(Signal::SIGTERM);
    let ran = live.finish().signal(Signal::SIGTERM);
    drop(ran.nodes([("db", "cancelled: interrupted by SIGTERM")]));
}

/// A service is no reason to wait for slots that will not be free before it ends.
#[test]
fn a_node_larger_than_the_machine_runs_beside_a_service() {
    drop(
        Pipeline::new(
            r#"
            [process.db]
            command = ["sleep", "1000"]
            cpus = 1
            service = true
            [process.test]
            command = ["true"]
            cpus = 7
            after = ["db"]
            "#,
        )
        .args(["--jobs", "2"])
        .run(),
    );
}

#[test]
fn a_dry_run_shows_services() {
    drop(
        Pipeline::new(SELECT)
            .args(["--dry-run"])
            .without_report()
            .run()
            .stdout("db (service): sleep 1000\nlint: true\ntest: true\n"),
    );
}

#[test]
fn what_a_service_writes_to_a_file_appears_when_it_has_been_stopped() {
    drop(
        Pipeline::new(
            r#"
            [process.db]
            script = "echo one; echo ready >&2; exec sleep 1000"
            stdout = [{ file = "out" }, "log"]
            service = { ready = { log = "ready" } }
            [process.test]
            script = "! test -e out"
            after = ["db"]
            "#,
        )
        .run()
        .file("out", "one\n"),
    );
}

#[test]
fn each_service_of_a_matrix_has_a_probe_of_its_own() {
    drop(
        Pipeline::new(
            r#"
            [process.db]
            script = "echo up $MATRIX_V; exec sleep 1000"
            matrix = { v = ["1", "2"] }
            service = { ready = { log = "^up ${{ matrix.v }}$" } }
            [process.test]
            command = ["true"]
            matrix = { v = ["1", "2"] }
            after = ["db"]
            "#,
        )
        .run()
        .nodes([
            ("db[v=1]", "succeeded"),
            ("db[v=2]", "succeeded"),
            ("test[v=1]", "succeeded"),
            ("test[v=2]", "succeeded"),
        ]),
    );
}

#[test]
fn a_condition_leaves_out_a_service_or_who_would_need_it() {
    drop(
        Pipeline::new(
            r#"
            [process.db]
            command = ["sleep", "1000"]
            service = true
            when = { env = "PF_NOT_SET" }
            [process.test]
            command = ["true"]
            after = ["db"]
            [process.mail]
            command = ["sleep", "1000"]
            service = true
            [process.never]
            command = ["true"]
            after = ["mail"]
            when = { env = "PF_NOT_SET" }
            "#,
        )
        .run()
        .nodes([
            ("db", "skipped: when: env PF_NOT_SET is not set"),
            ("test", "succeeded"),
            ("mail", "skipped: nobody needs it"),
            ("never", "skipped: when: env PF_NOT_SET is not set"),
        ]),
    );
}

#[test]
fn the_runs_timeout_stops_services_after_those_who_need_them() {
    let live = chain().args(["--timeout", "4s"]).start();
    live.lines("up", 4);
    let why = "cancelled: the run timed out after 4s";
    let ran = live.finish().exit(124);
    drop(ran.file("order", "test\nproxy\nweb\ndb\n").nodes([
        ("db", why),
        ("web", why),
        ("proxy", why),
        ("test", why),
    ]));
}
