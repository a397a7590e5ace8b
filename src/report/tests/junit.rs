//! Whole JUnit documents of made-up runs, and that none is ever anything but well-formed.

use proptest::prelude::*;

use super::*;
use crate::event::Printer;
use crate::report::Places;

fn document(observers: &Observers<'_>) -> String {
    observers.junit(&Places::default())
}

#[test]
fn every_kind_of_end_has_its_element() {
    let names = [
        "plain", "flaky", "broken", "gone", "after", "allowed", "stopped", "left-out",
    ];
    let mut plan = plan(&names, &[]);
    // A group each: a try takes its whole group along.
    plan.groups = (0..8)
        .map(|unit| Group {
            units: vec![UnitId(unit)],
            queues: vec![],
            ..plan.groups[0].clone()
        })
        .collect();
    for (group, unit) in (0..).zip(&mut plan.units) {
        unit.group = plan::GroupId(group);
    }
    plan.nodes[5].allow_failure = true;
    let mut story = Story::new(&plan, Progress::None, Output::None);
    story.observers.keep_printed();
    for unit in 0..7 {
        story.start(unit);
    }
    story.at(100).print(0, Stream::Out, "a & b\n");
    story.ok(0);
    for unit in [1, 2] {
        story.print(unit, Stream::Err, "no <route>\nto \x1b[31mhost\x1b[0m\n");
        story.at(200).event(What::Retrying {
            unit: UnitId(unit),
            attempt: 1,
            failure: Failure::Exit(Exit::Code(7)),
            delay: ms(1),
            stderr_tail: vec![],
        });
        story.event(What::Started {
            unit: UnitId(unit),
            attempt: 2,
            pid: Some(200),
        });
    }
    story.at(300).print(1, Stream::Out, "got it\n");
    story.ok(1);
    story.print(2, Stream::Err, "again\n");
    story.fail(2, Exit::Code(7));
    story.end(
        3,
        Outcome::Failed(Failure::CannotStart {
            code: 127,
            why: "no such file: \"sotr\"".to_owned(),
        }),
        None,
    );
    story.end(
        4,
        Outcome::Skipped(Cause::After {
            node: NodeId(2),
            root: NodeId(2),
        }),
        None,
    );
    story.fail(5, Exit::Code(1));
    story.end(
        6,
        Outcome::Cancelled(Cause::Interrupted(libc::SIGINT)),
        Some(Exit::Signal {
            number: libc::SIGTERM,
            core: false,
        }),
    );
    story.end(7, Outcome::Skipped(Cause::ByUser), None);
    let (_, observers) = story.finish(ExitCode::Signal(libc::SIGINT));
    let text = "[process.broken]\n# a comment\n[process.plain]\n  [process.gone]";
    let places = Places::new(&plan, "p.toml".to_owned(), text);
    assert_eq!(
        observers
            .junit(&places)
            .replace(env!("CARGO_PKG_VERSION"), "VERSION"),
        r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuite name="words" time="0.300" tests="8" errors="2" skipped="3" failures="1">
  <properties>
    <property name="run" value="R"/>
    <property name="started" value="2026-11-24T14:53:09.000Z"/>
    <property name="verdict" value="interrupted by SIGINT"/>
    <property name="exit" value="130"/>
    <property name="jobs" value="4"/>
    <property name="procflow" value="VERSION"/>
  </properties>
  <testcase name="plain" classname="words" time="0.100">
    <system-out>a &amp; b
</system-out>
  </testcase>
  <testcase name="flaky" classname="words" time="0.300">
    <flakyFailure message="exit 7" type="exit">
      <stackTrace>try 1: exit 7

The end of its standard error:
no &lt;route&gt;
to host
</stackTrace>
      <system-err>no &lt;route&gt;
to host
</system-err>
    </flakyFailure>
    <system-out>got it
</system-out>
  </testcase>
  <testcase name="broken" classname="words" time="0.300">
    <failure message="exit 7" type="exit">p.toml:1: exit 7

The end of its standard error:
again
</failure>
    <rerunFailure message="exit 7" type="exit">
      <stackTrace>try 1: exit 7

The end of its standard error:
no &lt;route&gt;
to host
</stackTrace>
      <system-err>no &lt;route&gt;
to host
</system-err>
    </rerunFailure>
    <system-err>again
</system-err>
  </testcase>
  <testcase name="gone" classname="words" time="0.000">
    <error message="cannot start: no such file: &quot;sotr&quot;" type="cannot start">p.toml:4: cannot start: no such file: "sotr"</error>
  </testcase>
  <testcase name="after" classname="words" time="0.000">
    <skipped message="broken failed"/>
  </testcase>
  <testcase name="allowed" classname="words" time="0.300">
    <skipped message="failed, as it may: exit 1"/>
  </testcase>
  <testcase name="stopped" classname="words" time="0.300">
    <error message="cancelled: interrupted by SIGINT" type="cancelled">p.toml:1: cancelled: interrupted by SIGINT</error>
  </testcase>
  <testcase name="left-out" classname="words" time="0.000">
    <skipped message="--skip"/>
  </testcase>
</testsuite>
"#
    );
}

#[test]
fn a_run_that_broke_off_has_errors_for_what_had_not_ended() {
    let plan = plan(&["a"], &[]);
    let mut story = Story::new(&plan, Progress::None, Output::None);
    story.start(0);
    let xml = document(&story.observers);
    assert!(
        xml.contains(
            "<error message=\"procflow could not go on before it had ended\" type=\"broken off\">"
        ),
        "{xml}"
    );
}

#[test]
fn a_secret_with_controls_within_is_none_the_less_one() {
    let mut plan = plan(&["a"], &[]);
    plan.secrets = vec!["hunter2".to_owned()];
    let mut story = Story::new(&plan, Progress::Plain, Output::Grouped);
    story.observers.keep_printed();
    story.start(0);
    story.print(0, Stream::Err, "hun\x1b[1mter2 hunt\x07er2\n");
    story.fail(0, Exit::Code(1));
    let (said, observers) = story.finish(ExitCode::NodeFailed);
    assert!(!said.contains("hunter2"), "{said}");
    let xml = document(&observers);
    assert!(!xml.contains("hunter2"), "{xml}");
}

proptest! {
    /// Whatever is printed, and whatever things are called: the document is well-formed and says it, but for what XML can't.
    #[test]
    fn it_is_always_well_formed(
        bytes in prop::collection::vec(
            prop_oneof![any::<u8>(), Just(b'<'), Just(b']'), Just(b'>'), Just(b'&'), Just(b'\r'), Just(b'\n'), Just(0xef), Just(0xbf)],
            0..300,
        ),
        name in any::<String>(),
        why in any::<String>(),
    ) {
        let mut plan = plan(&["a"], &[]);
        plan.name = name.clone();
        let mut story = Story::new(&plan, Progress::None, Output::None);
        story.observers.keep_printed();
        story.start(0);
        story.observers.output(Printer::from(UnitId(0)), Stream::Out, &bytes);
        story.observers.output(Printer::from(UnitId(0)), Stream::Err, &bytes);
        story.end(0, Outcome::Failed(Failure::Result(why)), Some(Exit::Code(0)));
        let (_, observers) = story.finish(ExitCode::NodeFailed);
        let xml = document(&observers);
        let parsed = match roxmltree::Document::parse(&xml) {
            Ok(parsed) => parsed,
            Err(e) => return Err(TestCaseError::fail(format!("{e}: {xml:?}"))),
        };
        let legal = |c: char| match c {
            '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'.. => c,
            _ => '\u{fffd}',
        };
        let expected: String = name.chars().map(legal).collect();
        prop_assert_eq!(parsed.root_element().attribute("name"), Some(expected.as_str()));
    }
}
