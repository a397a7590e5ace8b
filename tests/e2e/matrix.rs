//! Matrices: a node for each combination, as one sees, names and selects them.

use std::process::Command;

use crate::support::{PROCFLOW, Pipeline, Ran};

const TEST: &str = r#"
[process.test]
command = ["sh", "-c", "echo $1 $MATRIX_DB $URL $PROCFLOW_NODE", "sh", "${{ matrix.py }}"]
env = { URL = "${{ matrix.db }}:" }
stdout = { file = "${{ matrix.py }}-${{ matrix.db }}.txt" }
matrix = { py = ["3.11", 4], db = ["pg", "lite"], exclude = [{ py = "3.11", db = "pg" }], include = [{ py = "5", db = "pg" }] }
tags = ["slow"]

[process.all]
script = "cat *.txt | wc -l | tr -d ' '"
stdout = "inherit"
after = ["test"]

[process.one]
command = ["cat", "5-pg.txt"]
stdout = "inherit"
after = ["test[py=5,db=pg]"]
"#;

#[test]
fn each_combination_is_a_node_with_its_values() {
    let ran = Pipeline::new(TEST)
        .args(["--jobs", "1", "--skip", "one"])
        .run()
        .stdout("4\n")
        .file("3.11-lite.txt", "3.11 lite lite: test[py=3.11,db=lite]\n")
        .file("4-pg.txt", "4 pg pg: test[py=4,db=pg]\n")
        .file("4-lite.txt", "4 lite lite: test[py=4,db=lite]\n")
        .file("5-pg.txt", "5 pg pg: test[py=5,db=pg]\n")
        .nodes([
            ("test[py=3.11,db=lite]", "succeeded"),
            ("test[py=4,db=pg]", "succeeded"),
            ("test[py=4,db=lite]", "succeeded"),
            ("test[py=5,db=pg]", "succeeded"),
            ("all", "succeeded"),
            ("one", "skipped: --skip"),
        ]);
    let values = serde_json::json!({ "py": "3.11", "db": "lite" });
    assert_eq!(ran.field("test[py=3.11,db=lite]", "matrix"), values);
}

#[test]
fn some_can_be_chosen() {
    Pipeline::new(TEST)
        .args(["--only", "test[db=lite]", "--only", "one"])
        .run()
        .stdout("5 pg pg: test[py=5,db=pg]\n")
        .nodes([
            ("test[py=3.11,db=lite]", "succeeded"),
            ("test[py=4,db=lite]", "succeeded"),
            ("test[py=5,db=pg]", "succeeded"),
            ("one", "succeeded"),
        ])
        .only_files(["3.11-lite.txt", "4-lite.txt", "5-pg.txt"]);
    Pipeline::new(TEST)
        .args([
            "--only",
            "@slow",
            "--skip",
            "test[py=4]",
            "--skip",
            "test[db=lite,py=3.11]",
        ])
        .run()
        .nodes([
            ("test[py=3.11,db=lite]", "skipped: --skip"),
            ("test[py=4,db=pg]", "skipped: --skip"),
            ("test[py=4,db=lite]", "skipped: --skip"),
            ("test[py=5,db=pg]", "succeeded"),
        ])
        .only_files(["5-pg.txt"]);
    Pipeline::new(TEST)
        .args(["--only", "test[py=4,db=gp]"])
        .run()
        .says("--only test[py=4,db=gp]: no node `test[py=4,db=gp]`")
        .says("did you mean `test[py=4,db=pg]`?")
        .no_nodes()
        .exit(2);
    Pipeline::new(TEST)
        .args(["--exit-code-from", "test"])
        .run()
        .says("--exit-code-from test: these are 4 nodes; name one of them, such as 'test[py=3.11,db=lite]'")
        .no_nodes()
        .exit(2);
}

#[test]
fn commands_that_look_name_each_combination() {
    let graph = Pipeline::new(TEST)
        .subcommand("graph")
        .args(["--format", "mermaid", "--only", "one"])
        .run()
        .stdout(
            "flowchart LR\n  n0[\"test#91;py#61;5,db#61;pg#93;\"]\n  n1[\"one\"]\n  n0 -.-> n1\n",
        );
    drop(graph);
    Pipeline::new(TEST)
        .subcommand("explain")
        .args(["test"])
        .run()
        .stdout(
            "\
test stands for 4 nodes; name one of them to see what it is:
  'test[py=3.11,db=lite]'
  'test[py=4,db=pg]'
  'test[py=4,db=lite]'
  'test[py=5,db=pg]'
",
        );
    let ran = Pipeline::new(TEST)
        .subcommand("explain")
        .args(["test[py=5]"])
        .run()
        .any_stdout();
    let said = String::from_utf8_lossy(&ran.stdout);
    for line in [
        "process        test[py=5,db=pg]                                     line 2\n",
        "matrix         py = 5, db = pg                                      line 6\n",
        "$MATRIX_DB     pg                                                   line 6\n",
    ] {
        assert!(said.contains(line), "{said}");
    }
}

#[test]
fn several_combinations_write_one_queue_and_a_pattern_gathers_theirs() {
    Pipeline::new(
        r#"
        [process.make]
        command = ["echo", "${{ matrix.v }}"]
        stdout = ["all", "out-${{ matrix.v }}"]
        matrix = { v = ["1.5", "2.5", "3.5"] }
        [process.sort]
        command = ["sort"]
        stdin = "all"
        stdout = { file = "all.txt" }
        [process.paste]
        command = ["paste", "-d,", "${{ in.parts }}"]
        inputs = { parts = "out-*" }
        stdout = "inherit"
        "#,
    )
    .run()
    .stdout("1.5,2.5,3.5\n")
    .file("all.txt", "1.5\n2.5\n3.5\n")
    .nodes([
        ("make[v=1.5]", "succeeded"),
        ("make[v=2.5]", "succeeded"),
        ("make[v=3.5]", "succeeded"),
        ("sort", "succeeded"),
        ("paste", "succeeded"),
    ]);
}

#[test]
fn a_value_names_its_combination() {
    Pipeline::new(
        r#"
        [process.version]
        command = ["echo", "v${{ matrix.of }}"]
        stdout = "value"
        matrix = { of = ["a-b", "c"] }
        [process.say]
        script = 'echo $0 $VALUE_VERSION_OF_A_B $VALUE_VERSION_OF_C'
        after = ["version"]
        stdout = "inherit"
        [process.tell]
        command = ["echo", "${{ value.version[of=c] }}"]
        after = ["say", "version[of=c]"]
        stdout = "inherit"
        "#,
    )
    .run()
    .stdout("sh va-b vc\nvc\n")
    .node("tell", "succeeded");
}

/// A matrix has failed when one of its combinations has; who waits for success needs all.
#[test]
fn what_comes_after_a_matrix_that_failed_in_part() {
    let pipeline = |bad: &str| {
        Pipeline::new(&format!(
            r#"
            [process.test]
            command = ["test", "${{{{ matrix.x }}}}", "!=", "{bad}"]
            matrix = {{ x = [1, 2, 3] }}
            [process.mail]
            command = ["echo", "failed"]
            stdout = "inherit"
            after = [{{ node = "test", state = "failed" }}]
            [process.ship]
            command = ["echo", "shipped"]
            stdout = "inherit"
            after = ["test"]
            "#
        ))
        .args(["--keep-going", "--jobs", "1"])
    };
    pipeline("2")
        .run()
        .stdout("failed\n")
        .says("test[x=2]")
        .nodes([
            ("test[x=1]", "succeeded"),
            ("test[x=2]", "failed: exit 1"),
            ("test[x=3]", "succeeded"),
            ("mail", "succeeded"),
            ("ship", "skipped: test[x=2] failed"),
        ])
        .exit(1);
    pipeline("4").run().stdout("shipped\n").nodes([
        ("test[x=1]", "succeeded"),
        ("test[x=2]", "succeeded"),
        ("test[x=3]", "succeeded"),
        ("mail", "skipped: test[x=3] did not fail"),
        ("ship", "succeeded"),
    ]);
}

#[test]
fn pools_have_combinations_too() {
    Pipeline::new(
        r#"
        [pool.double]
        command = ["sh", "-c", "while read n; do echo $((n * $MATRIX_BY)); done"]
        matrix = { by = [2, 3] }
        workers = "${{ matrix.by }}"
        stdin = { file = "in.txt" }
        stdout = { file = "by-${{ matrix.by }}.txt" }
        [pool.task]
        command = ["echo", "${{ matrix.s }}-${{ task }}"]
        matrix = { s = ["a/b"] }
        tasks = ["1", "2"]
        order = "input"
        stdout = "inherit"
        "#,
    )
    .with_file("in.txt", "1\n")
    .run()
    .stdout("a/b-1\na/b-2\n")
    .file("by-2.txt", "2\n")
    .file("by-3.txt", "3\n")
    .nodes([
        ("double[by=2]", "succeeded"),
        ("double[by=3]", "succeeded"),
        ("task[s=a/b]", "succeeded"),
    ]);
}

/// Their logs, task lists and stored queues are files whose names nothing can lead astray.
#[test]
fn values_may_hold_anything() {
    let ran = Pipeline::new(
        r#"
        [process.say]
        script = 'printf %s "$MATRIX_V"'
        matrix = { v = ["../../x", "a,v=b", "", "a\nb", "x\u001b[31m", "*", "${x}", "VERYLONG"] }
        [pool.work]
        command = ["echo", "${{ task }}"]
        matrix = { v = ["/", "%2F"] }
        tasks = ["1"]
        stdout = "lines"
        [pool.read]
        script = "cat"
        stdin = "lines"
        matrix = { v = ["/", "%2F"] }
        [queue.lines]
        store = true
        deliver = "copy"
        "#
        .replace("VERYLONG", &"long".repeat(100))
        .as_str(),
    )
    .run()
    .node("work[v=/]", "succeeded");
    let run = std::fs::read_dir(ran.pipeline.path(".procflow/runs"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    let mut logs: Vec<(String, String)> = std::fs::read_dir(run.path().join("logs"))
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, std::fs::read_to_string(path).unwrap())
        })
        .filter(|(name, _)| name.starts_with("say"))
        .collect();
    logs.sort();
    let long = logs
        .iter()
        .position(|(name, _)| name.len() > 100)
        .map(|at| logs.remove(at));
    assert_eq!(long.map(|(_, text)| text), Some("long".repeat(100)));
    let expected = [
        ("say[v=%22%22].out", ""),
        ("say[v=%22a%5Cnb%22].out", "a\nb"),
        ("say[v=%22a,v=b%22].out", "a,v=b"),
        ("say[v=%22x%5Cu%7B1b%7D[31m%22].out", "x\u{1b}[31m"),
        ("say[v=%24%7Bx%7D].out", "${x}"),
        ("say[v=%2A].out", "*"),
        ("say[v=..%2F..%2Fx].out", "../../x"),
    ];
    let logs: Vec<(&str, &str)> = logs.iter().map(|(name, text)| (&**name, &**text)).collect();
    // What prints nothing has no log.
    assert_eq!(logs, &expected[1..]);
    for (node, text) in [
        ("say[v=../../x]", "../../x"),
        ("say[v=\"a,v=b\"]", "a,v=b"),
        (
            &format!("say[v={}]", "long".repeat(100)),
            &"long".repeat(100),
        ),
    ] {
        assert_eq!(logs_of(&ran, node), text);
    }
    let said = logs_of(&ran, "say");
    assert_eq!(said.matches("==> say[v=").count(), 7, "{said}");
}

/// What `procflow logs` prints of the last run's node.
fn logs_of(ran: &Ran, node: &str) -> String {
    let output = Command::new(PROCFLOW)
        .args(["logs", "last", node])
        .current_dir(ran.pipeline.path(""))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
