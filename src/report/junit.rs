//! JUnit XML (`--junit`): a run as CI servers read tests. Each node is a case; its tries that failed are what Maven's Surefire
//! calls `flakyFailure` and `rerunFailure`.
//!
//! There is no one standard. What is written is valid by Surefire's schema and by that of Jenkins, so: the elements of a case
//! in Surefire's order, no file or line as attributes (they stand in the text), no wall clock but as a property.

use std::borrow::Cow;
use std::fmt::Write;
use std::time::Duration;

use crate::event::{Cause, Exit, Failure, Outcome, Printer, Stream};
use crate::plan::{NodeId, UnitId};
use crate::report::events::rfc3339;
use crate::report::observers::View;
use crate::report::places::Places;
use crate::report::printed::{Printed, Streams};
use crate::report::redact::Redactor;
use crate::report::sanitize;
use crate::report::tally::{FailedTry, NodeEnd};
use crate::report::units::{Label, count};
use crate::report::words;

/// What a case is counted as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Passed,
    Failure,
    /// Nobody can say whether its work would have been done well: it could not start, or procflow ended it and no other node
    /// is to blame.
    Error,
    /// It has no result of its own: a node before it failed, it was left out, or it may fail.
    Skipped,
}

/// The whole document.
pub fn document(view: &View<'_>, printed: &Printed, places: &Places) -> String {
    let cases: Vec<Case<'_>> = (0..view.plan.nodes.len())
        .map(|node| Case::new(view, node.into()))
        .collect();
    let counted = |kind| cases.iter().filter(|case| case.kind == kind).count();
    let (time, exit) = view
        .tally
        .ended
        .unwrap_or((Duration::ZERO, crate::exit::ExitCode::Broken));
    let mut xml = Xml {
        out: "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n".to_owned(),
        depth: 0,
        secrets: view.secrets,
    };
    xml.open(
        "testsuite",
        &[
            ("name", &view.plan.name),
            ("time", &seconds(time)),
            ("tests", &cases.len().to_string()),
            ("errors", &counted(Kind::Error).to_string()),
            ("skipped", &counted(Kind::Skipped).to_string()),
            ("failures", &counted(Kind::Failure).to_string()),
        ],
    );
    xml.open("properties", &[]);
    let counts = &view.tally.counts;
    let mut properties = vec![
        ("run".to_owned(), view.tally.run.id.clone()),
        ("started".to_owned(), rfc3339(view.tally.run.time)),
        (
            "verdict".to_owned(),
            words::verdict(exit, counts.failed + counts.cancelled > 0),
        ),
        ("exit".to_owned(), exit.code().to_string()),
        ("jobs".to_owned(), view.tally.run.jobs.to_string()),
        ("procflow".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
    ];
    for case in &cases {
        if let Some(fed) = view.tally.fed(view.plan, case.node) {
            let node = view.plan.node(case.node);
            let keeps = node.pool.as_ref().is_some_and(|pool| pool.dead_letter);
            properties.push((
                format!("records of {}", node.name),
                words::records(&fed.counts, keeps),
            ));
        }
    }
    for (name, value) in &properties {
        xml.empty("property", &[("name", name), ("value", value)]);
    }
    xml.close("properties");
    for case in &cases {
        case.write(&mut xml, view, printed, places);
    }
    xml.close("testsuite");
    xml.out
}

struct Case<'t> {
    node: NodeId,
    end: Option<NodeEnd<'t>>,
    kind: Kind,
}

impl<'t> Case<'t> {
    fn new(view: &View<'t>, node: NodeId) -> Self {
        let end = view.tally.node_end(view.plan, node);
        let kind = match end.as_ref().map(|end| end.outcome) {
            None => Kind::Error,
            Some(Outcome::Succeeded { .. } | Outcome::Reused) => Kind::Passed,
            Some(Outcome::Failed(_)) if view.plan.node(node).allow_failure => Kind::Skipped,
            Some(Outcome::Failed(Failure::CannotStart { .. } | Failure::Condition(_))) => {
                Kind::Error
            }
            Some(Outcome::Failed(_)) => Kind::Failure,
            Some(Outcome::Cancelled(Cause::RunTimeout | Cause::Interrupted(_) | Cause::Broken)) => {
                Kind::Error
            }
            Some(Outcome::Cancelled(_) | Outcome::Skipped(_)) => Kind::Skipped,
        };
        Case { node, end, kind }
    }

    fn write(&self, xml: &mut Xml<'_>, view: &View<'_>, printed: &Printed, places: &Places) {
        let node = view.plan.node(self.node);
        let time = self
            .end
            .filter(|end| end.ran)
            .map_or(Duration::ZERO, |end| end.usage.wall);
        xml.open(
            "testcase",
            &[
                ("name", &node.name),
                ("classname", &view.plan.name),
                ("time", &seconds(time)),
            ],
        );
        let tries = view.tally.failed_tries(view.plan, self.node);
        match self.kind {
            Kind::Passed => write_tries(xml, "flakyFailure", view, &tries, printed),
            Kind::Failure => {
                self.write_end(xml, "failure", view, places);
                write_tries(xml, "rerunFailure", view, &tries, printed);
            }
            Kind::Error => {
                self.write_end(xml, "error", view, places);
                write_tries(xml, "rerunError", view, &tries, printed);
            }
            Kind::Skipped => {
                // What may fail and has failed is told in full all the same.
                write_tries(xml, "rerunFailure", view, &tries, printed);
                xml.empty("skipped", &[("message", &self.message(view))]);
            }
        }
        let units = || node.units.clone().map(UnitId);
        let streams: Vec<_> = units().flat_map(|unit| printed.of_unit(unit)).collect();
        write_streams(xml, view, streams.iter().map(|(p, s)| (*p, *s)));
        xml.close("testcase");
    }

    /// Why it did not pass, in a line.
    fn message(&self, view: &View<'_>) -> String {
        let Some(end) = &self.end else {
            return "procflow could not go on before it had ended".to_owned();
        };
        let why = words::node_reason(view.plan, end).unwrap_or_default();
        match end.outcome {
            Outcome::Failed(_) if view.plan.node(self.node).allow_failure => {
                format!("failed, as it may: {why}")
            }
            Outcome::Cancelled(_) => format!("cancelled: {why}"),
            _ => why,
        }
    }

    fn write_end(&self, xml: &mut Xml<'_>, tag: &str, view: &View<'_>, places: &Places) {
        let message = self.message(view);
        let kind = match self.end.as_ref().map(|end| end.outcome) {
            Some(Outcome::Failed(failure)) => type_of(failure),
            Some(_) => "cancelled",
            None => "broken off",
        };
        let mut text = places.in_words(self.node);
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&message);
        if let Some(end) = &self.end {
            push_tail(&mut text, end.stderr_tail);
        }
        xml.leaf(tag, &[("message", &message), ("type", kind)], &text);
    }
}

fn write_tries(
    xml: &mut Xml<'_>,
    tag: &str,
    view: &View<'_>,
    tries: &[(UnitId, &FailedTry)],
    printed: &Printed,
) {
    for (i, (unit, failed)) in tries.iter().enumerate() {
        let message = words::unit_failure(view.plan, *unit, &failed.failure);
        xml.open(
            tag,
            &[("message", &message), ("type", type_of(&failed.failure))],
        );
        let mut text = format!("try {}: {message}", failed.attempt);
        push_tail(&mut text, &failed.stderr_tail);
        xml.leaf("stackTrace", &[], &text);
        let before = tries.get(..i).unwrap_or_default();
        let index = before.iter().filter(|(other, _)| other == unit).count();
        let streams = printed.of_failed(*unit, index);
        write_streams(xml, view, streams.iter().map(|(p, s)| (*p, s)));
        xml.close(tag);
    }
}

/// A word for machines that sort failures.
fn type_of(failure: &Failure) -> &'static str {
    match failure {
        Failure::Exit(exit) | Failure::Ended { exit, .. } => match exit {
            Exit::Code(_) => "exit",
            Exit::Signal { .. } => "signal",
        },
        Failure::TimedOut(_) => "timeout",
        Failure::CannotStart { .. } => "cannot start",
        Failure::Result(_) => "result",
        Failure::NotReady(_) => "not ready",
        Failure::Condition(_) => "condition",
    }
}

fn push_tail(text: &mut String, tail: &[u8]) {
    if !tail.is_empty() {
        text.push_str("\n\nThe end of its standard error:\n");
        push_lines(text, tail);
    }
}

/// Lines as a terminal would show them, without colours.
fn push_lines(text: &mut String, bytes: &[u8]) {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    for line in bytes.split(|byte| *byte == b'\n') {
        sanitize::line(text, line, false);
        text.push('\n');
    }
}

fn write_streams<'s>(
    xml: &mut Xml<'_>,
    view: &View<'_>,
    printed: impl Iterator<Item = (Printer, &'s Streams)> + Clone,
) {
    for (tag, stream) in [("system-out", Stream::Out), ("system-err", Stream::Err)] {
        let mut text = String::new();
        for (printer, streams) in printed.clone() {
            let (bytes, left_out) = streams.of(stream).end();
            if bytes.is_empty() {
                continue;
            }
            let label = Label::of_printer(view.plan, printer);
            if label.worker.is_some() {
                let _ = writeln!(text, "[{label}]");
            }
            if left_out > 0 {
                let left_out = count(left_out);
                let _ = writeln!(text, "({left_out} bytes before this are in the log)");
            }
            push_lines(&mut text, bytes);
        }
        if !text.is_empty() {
            xml.leaf(tag, &[], &text);
        }
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.3}", time.as_secs_f64())
}

/// Writes XML: whatever comes in, well-formed XML without secrets goes out.
struct Xml<'s> {
    out: String,
    depth: usize,
    secrets: &'s Redactor,
}

impl Xml<'_> {
    fn open(&mut self, tag: &str, attributes: &[(&str, &str)]) {
        self.start(tag, attributes);
        self.out.push_str(">\n");
        self.depth += 1;
    }

    fn close(&mut self, tag: &str) {
        self.depth = self.depth.saturating_sub(1);
        self.indent();
        let _ = writeln!(self.out, "</{tag}>");
    }

    fn empty(&mut self, tag: &str, attributes: &[(&str, &str)]) {
        self.start(tag, attributes);
        self.out.push_str("/>\n");
    }

    fn leaf(&mut self, tag: &str, attributes: &[(&str, &str)], text: &str) {
        self.start(tag, attributes);
        self.out.push('>');
        // After the controls have been taken out, once more: a secret may have had some within.
        escape(&mut self.out, &self.secrets.text(text), false);
        let _ = writeln!(self.out, "</{tag}>");
    }

    fn start(&mut self, tag: &str, attributes: &[(&str, &str)]) {
        self.indent();
        let _ = write!(self.out, "<{tag}");
        for (name, value) in attributes {
            let value: Cow<'_, str> = self.secrets.text(value);
            let _ = write!(self.out, " {name}=\"");
            escape(&mut self.out, &value, true);
            self.out.push('"');
        }
    }

    fn indent(&mut self) {
        (0..self.depth).for_each(|_| self.out.push_str("  "));
    }
}

/// Appends text. What XML 1.0 has no way to say at all, such as U+0000 or U+FFFE, becomes U+FFFD.
fn escape(out: &mut String, text: &str, in_attribute: bool) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            // `]]>` may not stand in text.
            '>' => out.push_str("&gt;"),
            '"' if in_attribute => out.push_str("&quot;"),
            // Else a reader takes it for a newline, or, in an attribute, all of them for spaces.
            '\r' => out.push_str("&#13;"),
            '\n' if in_attribute => out.push_str("&#10;"),
            '\t' if in_attribute => out.push_str("&#9;"),
            '\t' | '\n' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'.. => {
                out.push(c);
            }
            _ => out.push('\u{fffd}'),
        }
    }
}
