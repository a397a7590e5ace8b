//! `docs/messages.md`: what procflow says, collected to be read as one text. It is written by this test, and is what the program
//! says today: so a new message is seen by whoever reads the change, beside all the others.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::ffi::OsString;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use crate::cli::args::parse;
use crate::cli::pipeline::{Asked, Pipeline};
use crate::event::{Cause, Exit, Failure, Outcome};
use crate::exit::ExitCode;
use crate::plan::{NodeId, Plan, UnitId, Unmet};
use crate::report::words;

const HEAD: &str = "\
# Messages

All that procflow says when something is wrong, or may be: collected by a test from the rules and the words of the program, to be
looked up, and to be read as one text. Names and numbers are examples.

";

/// One message, and below it what to do.
fn entry(page: &mut String, message: &str, help: Option<&str>) {
    let code = |text: &str| {
        // A fence that no message has.
        if text.contains('`') {
            format!("`` {text} ``")
        } else {
            format!("`{text}`")
        }
    };
    let mut lines = message.lines();
    let _ = write!(page, "- {}", code(lines.next().unwrap_or_default()));
    for line in lines {
        let _ = write!(page, "<br>{}", code(line));
    }
    page.push('\n');
    if let Some(help) = help {
        let _ = writeln!(page, "  - {}", code(help));
    }
}

/// Those of `rules.txt`, which a test holds to be what the rules say: each message once, by kind.
fn problems(page: &mut String) {
    let rules = include_str!("../plan/rules.txt");
    let mut said: Vec<(&str, &str, Option<&str>)> = Vec::new();
    for case in rules.split("\n## ") {
        let Some((_, said_of_it)) = case.split_once("---\n") else {
            continue;
        };
        for line in said_of_it.lines() {
            if let Some(help) = line.strip_prefix("  = ") {
                if let Some((_, _, last)) = said.last_mut() {
                    *last = Some(help);
                }
            } else if let Some((kind, message)) = line.split_once(": ")
                && ["error", "warning", "note"].contains(&kind)
            {
                said.push((kind, message, None));
            }
        }
    }
    for (kind, title) in [
        (
            "error",
            "## Errors of a pipeline file\n\nThe pipeline does not run: exit code 2.",
        ),
        (
            "warning",
            "## Warnings of a pipeline file\n\nIt runs; `check` and `run` say them.",
        ),
        (
            "note",
            "## Notes on a pipeline file\n\nWhat is worth knowing; `check` says them.",
        ),
    ] {
        let _ = writeln!(page, "{title}\n");
        let mut told: Vec<(&str, Option<&str>)> = Vec::new();
        for (of, message, help) in &said {
            if *of == kind && !told.contains(&(*message, *help)) {
                told.push((*message, *help));
                entry(page, message, *help);
            }
        }
        page.push('\n');
    }
}

fn plan() -> Plan {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.toml");
    let text = "[run]\ntimeout = '1h'\n[process.a]\nscript = 'x'\n[process.b]\nscript = 'x'\nafter = ['a']\n\
                [process.server]\nscript = 'x'\nservice = { ready = { file = 'up' } }\n\
                [process.c]\nscript = 'x'\nafter = [{ node = 'server', state = 'ready' }]\n";
    std::fs::write(&path, text).unwrap();
    Pipeline::load(&path, Asked::default())
        .unwrap()
        .plan
        .unwrap()
}

fn named(plan: &Plan, name: &str) -> (NodeId, UnitId) {
    let at = plan
        .nodes
        .iter()
        .position(|node| &*node.name == name)
        .unwrap();
    (NodeId::from(at), UnitId(plan.nodes[at].units.start))
}

/// An example of each. What is added to the type has to be added here, since this would not compile.
fn failures() -> Vec<Failure> {
    let code = |code| Failure::Exit(Exit::Code(code));
    let signal = |number, core| Failure::Exit(Exit::Signal { number, core });
    let all = vec![
        code(3),
        code(126),
        code(127),
        code(137),
        signal(libc::SIGKILL, false),
        signal(libc::SIGSEGV, true),
        signal(libc::SIGXCPU, false),
        signal(libc::SIGXFSZ, false),
        Failure::TimedOut(Duration::from_secs(30)),
        Failure::CannotStart {
            code: 127,
            why: "no such file: \"sotr\" (PATH is /usr/bin:/bin)".to_owned(),
        },
        Failure::Result("left 3,121 bytes unread".to_owned()),
        Failure::NotReady("not ready after 30s: 127.0.0.1:5432 refuses connections".to_owned()),
        Failure::Condition(Box::new(code(2))),
        Failure::Condition(Box::new(Failure::TimedOut(Duration::from_secs(60)))),
        Failure::Ended {
            exit: Exit::Code(0),
            ready: true,
        },
        Failure::Ended {
            exit: Exit::Code(1),
            ready: false,
        },
    ];
    for failure in &all {
        match failure {
            Failure::Exit(_)
            | Failure::TimedOut(_)
            | Failure::CannotStart { .. }
            | Failure::Result(_)
            | Failure::NotReady(_)
            | Failure::Condition(_)
            | Failure::Ended { .. } => {}
        }
    }
    all
}

fn causes(plan: &Plan) -> Vec<Cause> {
    let (a, b) = (named(plan, "a").0, named(plan, "b").0);
    let server = named(plan, "server").0;
    let name = || -> Arc<str> { "NAME".into() };
    let is = || -> Arc<str> { "yes".into() };
    let all = vec![
        Cause::Writer { node: a, root: a },
        Cause::Writer { node: b, root: a },
        Cause::Reader { node: a, root: a },
        Cause::Reader { node: b, root: a },
        Cause::Pool(a),
        Cause::After { node: a, root: a },
        Cause::After { node: b, root: a },
        Cause::After {
            node: server,
            root: server,
        },
        Cause::After {
            node: server,
            root: a,
        },
        Cause::NeverFailed(a),
        Cause::RunFailed(a),
        Cause::RunTimeout,
        Cause::Interrupted(libc::SIGINT),
        Cause::ByUser,
        Cause::When(Unmet::EnvUnset(name())),
        Cause::When(Unmet::EnvEmpty(name())),
        Cause::When(Unmet::EnvIsNot {
            name: name(),
            is: is(),
        }),
        Cause::When(Unmet::ParamIsNot {
            name: name(),
            is: is(),
        }),
        Cause::When(Unmet::Command),
        Cause::NotNeeded,
        Cause::Broken,
    ];
    for cause in &all {
        match cause {
            Cause::Writer { .. }
            | Cause::Reader { .. }
            | Cause::Pool(_)
            | Cause::After { .. }
            | Cause::NeverFailed(_)
            | Cause::RunFailed(_)
            | Cause::RunTimeout
            | Cause::Interrupted(_)
            | Cause::ByUser
            | Cause::When(
                Unmet::EnvUnset(_)
                | Unmet::EnvEmpty(_)
                | Unmet::EnvIsNot { .. }
                | Unmet::ParamIsNot { .. }
                | Unmet::Command,
            )
            | Cause::NotNeeded
            | Cause::Broken => {}
        }
    }
    all
}

fn ends(page: &mut String) {
    let plan = plan();
    let (_, a) = named(&plan, "a");
    page.push_str("## How a node failed\n\nThe last lines of its standard error stand below.\n\n");
    let (_, server) = named(&plan, "server");
    for failure in failures() {
        let unit = match failure {
            Failure::NotReady(_) | Failure::Ended { .. } => server,
            _ => a,
        };
        entry(page, &words::failure(&plan, unit, &failure), None);
    }
    page.push_str(
        "\n## Why a node was cancelled or skipped\n\nprocflow ended it, or did not start it.\n\n",
    );
    for cause in causes(&plan) {
        entry(page, &words::cause(&plan, &cause), None);
    }
    page.push_str("\n## A node that has succeeded\n\n");
    let early = Outcome::Succeeded { early_close: true };
    entry(
        page,
        &words::reason(&plan, a, &early).unwrap_or_default(),
        None,
    );
    page.push_str("\n## How a run ended\n\n");
    for exit in [
        ExitCode::Success,
        ExitCode::NodeFailed,
        ExitCode::Usage,
        ExitCode::Broken,
        ExitCode::TimedOut,
        ExitCode::Signal(libc::SIGINT),
    ] {
        entry(page, &words::verdict(exit, false), None);
    }
    page.push('\n');
}

fn command_lines(page: &mut String) {
    page.push_str("## A wrong command line\n\nNothing is started: exit code 2.\n\n```text\n");
    for line in [
        "procflow pipeline.toml",
        "procflow rnu p.toml",
        "procflow run",
        "procflow run p.toml --job 3",
        "procflow run p.toml --jobs 0",
        "procflow run p.toml --set book",
        "procflow run p.toml --timeout 3x",
        "procflow run p.toml --progress fancy",
        "procflow run p.toml -k --on-failure stop",
        "procflow explain p.toml",
        "procflow graph p.toml --format png",
    ] {
        let words = line.split(' ').map(OsString::from).collect();
        let error = parse(words).expect_err("a wrong command line");
        let said = error.to_string();
        let _ = writeln!(page, "$ {line}\n{}\n", said.trim_end());
    }
    page.truncate(page.trim_end().len());
    page.push_str("\n```\n");
}

#[test]
fn every_message_is_on_the_page() {
    let mut page = HEAD.to_owned();
    problems(&mut page);
    ends(&mut page);
    command_lines(&mut page);
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/messages.md");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        kept == page,
        "docs/messages.md is not what the program says: UPDATE_EXPECT=1 cargo test --lib messages writes it anew"
    );
}
