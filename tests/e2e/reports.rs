//! Reports for CI servers: JUnit XML.

use std::process::Command;

use crate::support::{Pipeline, Ran};

/// The document, once it is known to be well-formed and, where xmllint(1) is installed, valid.
fn junit(ran: &Ran, name: &str) -> String {
    let path = ran.pipeline.path(name);
    let xml = std::fs::read_to_string(&path).unwrap();
    roxmltree::Document::parse(&xml).unwrap();
    let schema = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/junit.xsd");
    match Command::new("xmllint")
        .args(["--noout", "--schema", schema])
        .arg(&path)
        .output()
    {
        Ok(checked) => assert!(
            checked.status.success(),
            "{}\n{xml}",
            String::from_utf8_lossy(&checked.stderr)
        ),
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound),
    }
    xml
}

#[test]
fn junit_has_a_case_for_each_node_and_every_try() {
    let ran = Pipeline::new(
        r#"
name = "ci <nightly>"

[process.build]
script = "printf 'built: ]]> \\001 & done\\n'"

[process.fetch]
script = "echo try $PROCFLOW_ATTEMPT >&2; [ $PROCFLOW_ATTEMPT = 3 ]"
retries = { max = 2, delay = "0s" }

[process.test]
script = "echo testing; echo bad luck $PROCFLOW_ATTEMPT >&2; exit 4"
retries = { max = 1, delay = "0s" }
after = ["build"]

[process.deploy]
command = ["true"]
after = ["test"]

[process.lint]
command = ["no-such-linter"]
allow_failure = true

[process.docs]
command = ["no-such-program"]

[pool.count]
feed = "task"
tasks = ["a", "b", "c"]
script = "echo $TASK >&2"
workers = 1
"#,
    )
    .args(["--junit", "junit.xml", "-k", "--output", "none"])
    .run()
    .exit(1)
    .node("fetch", "succeeded");
    let xml = junit(&ran, "junit.xml");
    let document = roxmltree::Document::parse(&xml).unwrap();
    let suite = document.root_element();
    assert_eq!(suite.attribute("name"), Some("ci <nightly>"));
    let counts = ["tests", "failures", "errors", "skipped"];
    assert_eq!(
        counts.map(|count| suite.attribute(count).unwrap()),
        ["7", "1", "1", "2"]
    );
    let mut told = String::new();
    for case in suite
        .children()
        .filter(|child| child.has_tag_name("testcase"))
    {
        told += &format!("{}\n", case.attribute("name").unwrap());
        for part in case.children().filter(roxmltree::Node::is_element) {
            let message = part.attribute("message").unwrap_or_default();
            let text: Vec<_> = part
                .descendants()
                .filter(|node| node.is_text())
                .map(|node| node.text().unwrap().trim())
                .filter(|text| !text.is_empty())
                .collect();
            told += &format!("  {} {message:?} {text:?}\n", part.tag_name().name());
        }
    }
    let path = std::env::var("PATH").unwrap();
    assert_eq!(
        told.replace(&path, "..."),
        r#"build
  system-out "" ["built: ]]>  & done"]
fetch
  flakyFailure "exit 1" ["try 1: exit 1\n\nThe end of its standard error:\ntry 1", "try 1"]
  flakyFailure "exit 1" ["try 2: exit 1\n\nThe end of its standard error:\ntry 2", "try 2"]
  system-err "" ["try 3"]
test
  failure "exit 4" ["pipeline.toml:11: exit 4\n\nThe end of its standard error:\nbad luck 2"]
  rerunFailure "exit 4" ["try 1: exit 4\n\nThe end of its standard error:\nbad luck 1", "testing", "bad luck 1"]
  system-out "" ["testing"]
  system-err "" ["bad luck 2"]
deploy
  skipped "test failed" []
lint
  skipped "failed, as it may: cannot start: no such file: \"no-such-linter\" (PATH is ...)" []
docs
  error "cannot start: no such file: \"no-such-program\" (PATH is ...)" ["pipeline.toml:24: cannot start: no such file: \"no-such-program\" (PATH is ...)"]
count
  system-err "" ["[count.0]\na\nb\nc"]
"#
    );
    let property = |name: &str| {
        let mut properties = document
            .descendants()
            .filter(|node| node.has_tag_name("property"));
        let property = properties.find(|node| node.attribute("name") == Some(name));
        property.unwrap().attribute("value").unwrap().to_owned()
    };
    assert_eq!(property("records of count"), "3 records");
    assert_eq!(property("verdict"), "failed");
}

#[test]
fn junit_is_written_when_the_run_is_interrupted() {
    let live = Pipeline::new(
        "[process.a]\nscript = \"echo ready > fifo; exec sleep 1000\"\n[process.b]\ncommand = [\"true\"]\nafter = [\"a\"]\n",
    )
    .with_fifo("fifo")
    .args(["--junit", "junit.xml"])
    .start();
    live.lines("fifo", 1);
    live.signal(nix::sys::signal::Signal::SIGINT);
    let ran = live
        .finish()
        .signal(nix::sys::signal::Signal::SIGINT)
        .node("a", "cancelled: interrupted by SIGINT");
    let xml = junit(&ran, "junit.xml");
    assert!(
        xml.contains(r#"errors="1" skipped="1" failures="0""#),
        "{xml}"
    );
}

#[test]
fn a_report_target_that_cannot_be_written_is_refused_before_anything_starts() {
    let pipeline = || Pipeline::new("[process.a]\nscript = \"echo ran > ran\"\n").without_report();
    pipeline()
        .args(["--junit", "no/junit.xml"])
        .run()
        .exit(2)
        .says("procflow: --junit no/junit.xml: there is no directory no\n")
        .no_file("ran");
    pipeline()
        .args(["--junit", "out", "--json", "out"])
        .run()
        .exit(2)
        .says("procflow: --json and --junit both write out: give each a file of its own\n")
        .no_file("ran");
    pipeline()
        .args(["--events", "-", "--junit", "-"])
        .run()
        .exit(2)
        .says("procflow: --junit and --events both write standard output: give each a file of its own\n")
        .no_file("ran");
    pipeline()
        .args(["--junit", "/dev/full"])
        .run()
        .exit(3)
        .says("procflow: cannot write /dev/full: no space left on device\n");
}
