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

/// What GitHub's runner would make of a step's output: the commands that it obeys, the log without them.
fn github(output: &str) -> (Vec<String>, String) {
    const COMMANDS: [&str; 10] = [
        "add-mask", "add-path", "debug", "echo", "endgroup", "error", "group", "notice", "set-env",
        "warning",
    ];
    let (mut obeyed, mut log) = (Vec::new(), String::new());
    let mut stopped: Option<String> = None;
    for line in output.lines() {
        let of = |text: &str, end: char| text.split([end, ' ']).next().map(str::to_owned);
        let new = line.trim_start().strip_prefix("::");
        let new = new
            .and_then(|rest| rest.split_once("::"))
            .and_then(|(command, _)| of(command, ':'));
        let old = line.split_once("##[");
        let old = old
            .filter(|(_, rest)| rest.contains(']'))
            .and_then(|(_, rest)| of(rest, ']'));
        match (&stopped, new.or(old)) {
            (Some(token), Some(command)) if *token == command => stopped = None,
            (None, Some(command)) if command == "stop-commands" => {
                stopped = line.rsplit("::").next().map(str::to_owned);
            }
            (None, Some(command)) if COMMANDS.contains(&command.as_str()) => {
                obeyed.push(line.to_owned());
            }
            _ => log += &format!("{line}\n"),
        }
    }
    assert_eq!(stopped, None, "commands are never switched on again");
    (obeyed, log)
}

const HOSTILE: &str = r###"
[process.hostile]
script = """
for command in error add-mask stop-commands; do
    echo "::$command::pwned"
    printf '  \t::%s file=x::pwned\n' $command
    echo "it says ##[$command]pwned"
    echo "::$command::pwned" >&2
done
exit 3
"""

[process.gone]
command = ["##[add-mask]pwned\n::error::pwned"]

[process.may]
script = "echo '::warning::pwned' >&2; false"
allow_failure = true

[process.again]
script = "echo try $PROCFLOW_ATTEMPT >&2; [ $PROCFLOW_ATTEMPT = 2 ]"
retries = { max = 1, delay = "0s" }

[process.fine]
command = ["true"]
after = ["again"]
"###;

#[test]
fn github_gets_a_group_for_each_log_and_obeys_no_child() {
    let pipeline = Pipeline::new(HOSTILE).without_report();
    let root = pipeline.path(".");
    let ran = pipeline
        .env("GITHUB_ACTIONS", "true")
        .env("GITHUB_WORKSPACE", root)
        .env("GITHUB_STEP_SUMMARY", "summary.md")
        .args(["-k", "--jobs", "1"])
        .run()
        .exit(1);
    let (obeyed, log) = github(&ran.stderr);
    let expected = [
        "::warning file=pipeline.toml,line=14,endLine=14,col=12,endColumn=47::the whole of `##[add-mask]pwned\\n::error::pwned` is the program's name%0Adid you mean `script = \"##[add-mask]pwned\\n::error::pwned\"`, or one element for each argument?",
        "::group::[1/5] failed     hostile    TIME  exit 3",
        "::endgroup::",
        "::error file=pipeline.toml,line=2,col=1,title=hostile failed::exit 3%0A::error::pwned%0A::add-mask::pwned%0A::stop-commands::pwned",
        "::error file=pipeline.toml,line=13,col=1,title=gone failed::cannot start: no such file: \"##[add-mask]pwned%0A::error::pwned\" (PATH is ...)",
        "::group::[3/5] failed     may        TIME  exit 1; it may fail",
        "::endgroup::",
        "::warning file=pipeline.toml,line=16,col=1,title=may failed%2C as it may::exit 1%0A::warning::pwned",
        "::group::[3/5] retrying   again             exit 1; next try in 0s",
        "::endgroup::",
        "::group::[4/5] succeeded  again      TIME  flaky: 2 tries",
        "::endgroup::",
        "::warning file=pipeline.toml,line=20,col=1,title=again is flaky::try 1 failed: exit 1",
    ];
    let path = std::env::var("PATH").unwrap();
    let obeyed: Vec<_> = obeyed
        .iter()
        .map(|line| timeless(line).replace(&path, "..."))
        .collect();
    assert_eq!(obeyed, expected, "{}", ran.stderr);
    assert!(log.contains("[2/5] failed     gone           -  cannot start: no such file: \"## [add-mask]pwned\\n::error::pwned\" (PATH"), "{log}");
    // What it printed is shown as it was.
    assert!(log.contains("  | ::stop-commands::pwned\n"), "{log}");
    assert!(log.contains("  | it says ##[add-mask]pwned\n"), "{log}");
    let summary = std::fs::read_to_string(ran.pipeline.path("summary.md")).unwrap();
    assert!(
        summary.starts_with("### ❌ pipeline\n\nfailed: 5 nodes: 2 succeeded, 3 failed in "),
        "{summary}"
    );
    assert!(
        summary.contains("<summary><b>hostile</b>: exit 3</summary>"),
        "{summary}"
    );
    assert!(summary.contains("\n  class n3,n4 succeeded\n"), "{summary}");
    assert!(
        summary.contains("\n| again | ✅ succeeded | 0 | "),
        "{summary}"
    );
}

/// `0.31s` as `TIME`.
fn timeless(line: &str) -> String {
    let words = line.split(' ').map(|word| {
        let number = word.strip_suffix('s').unwrap_or_default();
        match number.parse::<f64>() {
            Ok(_) if number.contains('.') => "TIME",
            _ => word,
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn on_github_prefixed_lines_are_harmless_too_and_no_summary_is_only_a_warning() {
    let ran = Pipeline::new(HOSTILE)
        .without_report()
        .env("GITHUB_ACTIONS", "true")
        .env("GITHUB_STEP_SUMMARY", "/no/such/directory/summary")
        .args(["--output", "prefixed", "--only", "again", "--skip", "fine"])
        .run();
    drop(ran.says("warning: cannot write the job summary, /no/such/directory/summary: no such file or directory\n"));
    let ran = Pipeline::new(HOSTILE)
        .without_report()
        .env("GITHUB_ACTIONS", "true")
        .args(["--output", "prefixed", "--only", "hostile"])
        .run()
        .exit(1);
    let (obeyed, _) = github(&ran.stderr);
    let obeyed: Vec<_> = obeyed
        .iter()
        .filter_map(|line| line.split(',').next())
        .collect();
    // The first of these is the check's, of a program's name with a space.
    assert_eq!(
        obeyed,
        ["::warning file=pipeline.toml", "::error file=pipeline.toml"]
    );
}

#[test]
fn problems_of_the_file_are_annotations_on_github() {
    let ran = Pipeline::new("[process.a]\ncomand = [\"true\"]\n")
        .without_report()
        .env("GITHUB_ACTIONS", "true")
        .run()
        .exit(2);
    let (obeyed, _) = github(&ran.stderr);
    assert_eq!(
        obeyed,
        [
            "::error file=pipeline.toml,line=2,endLine=2,col=1,endColumn=7::unknown key `comand` in process `a`%0Adid you mean `command`?"
        ]
    );
    // The way out of it all.
    let ran = Pipeline::new("[process.a]\ncomand = [\"true\"]\n")
        .without_report()
        .env("GITHUB_ACTIONS", "")
        .run()
        .exit(2);
    assert_eq!(github(&ran.stderr).0, [""; 0]);
}

#[test]
fn gitlab_gets_sections_failures_open() {
    let ran = Pipeline::new(
        "[process.good]\nscript = \"printf 'section_start:1:x\\\\r\\\\033[0K\\\\n'; echo fine\"\n[process.bad]\nscript = \"echo oh >&2; exit 1\"\nafter = [\"good\"]\n",
    )
    .env("GITLAB_CI", "true")
    .run()
    .exit(1)
    .node("bad", "failed: exit 1");
    let marks: Vec<_> = ran
        .stderr
        .split('\n')
        .filter(|line| line.contains('\x1b') || line.contains('\r'))
        .collect();
    let shape: Vec<String> = marks
        .iter()
        .map(|line| {
            let digits = line.split(':').nth(1).unwrap_or_default();
            assert!(
                digits.len() >= 10 && digits.bytes().all(|b| b.is_ascii_digit()),
                "{line:?}"
            );
            timeless(&line.replace(digits, "TIME"))
        })
        .collect();
    assert_eq!(
        shape,
        [
            "\x1b[0Ksection_start:TIME:procflow-0-1[collapsed=true]\r\x1b[0K[1/2] succeeded  good    TIME",
            "\x1b[0Ksection_end:TIME:procflow-0-1\r\x1b[0K",
            "\x1b[0Ksection_start:TIME:procflow-1-2\r\x1b[0K[2/2] failed     bad     TIME  exit 1",
            "\x1b[0Ksection_end:TIME:procflow-1-2\r\x1b[0K",
        ],
        "{}",
        ran.stderr
    );
}
