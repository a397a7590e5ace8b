//! Diagnostics as text: for people (as rustc shows them), for GitHub's annotations, as JSON.

use std::fmt::Write as _;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde_json::json;

use crate::diagnostic::spans::Spans;
use crate::diagnostic::{Diagnostic, Severity, harmless};

/// Renders for people, sorted by their places in the file: message, place, the line itself with a caret, the way out.
///
/// `text` is the file's content, `styled` whether colours are wanted. Ends with a newline where there is anything.
pub fn render(diagnostics: &[Diagnostic], file_name: &str, text: &str, styled: bool) -> String {
    let renderer = if styled {
        Renderer::styled()
    } else {
        Renderer::plain()
    };
    let file_name = harmless(file_name);
    let mut out = String::new();
    for (spans, diagnostic) in placed(diagnostics, text) {
        if !out.is_empty() {
            out.push('\n');
        }
        let message = harmless(&diagnostic.message);
        let title = level(diagnostic.severity).primary_title(message.as_str());
        let help = diagnostic.help.as_deref().map(harmless);
        let mut group = match window(&spans, text) {
            Some((window, line)) => {
                let source = text.get(window.clone()).unwrap_or_default();
                let mut snippet = Snippet::source(source)
                    .line_start(line)
                    .path(file_name.as_str());
                for (i, (span, label)) in spans.iter().zip(&diagnostic.labels).enumerate() {
                    let Some(span) = span else { continue };
                    let kind = if i == 0 {
                        AnnotationKind::Primary
                    } else {
                        AnnotationKind::Context
                    };
                    let annotation = kind.span(span.start - window.start..span.end - window.start);
                    snippet = snippet.annotation(match label.text.as_str() {
                        "" => annotation,
                        words => annotation.label(harmless(words)),
                    });
                }
                title.element(snippet)
            }
            None => Group::with_title(title),
        };
        if let Some(help) = &help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        out.push_str(&renderer.render(&[group]));
        out.push('\n');
    }
    out
}

/// Renders for GitHub Actions: one workflow command for each, which makes an annotation of the file's line.
pub fn render_github(diagnostics: &[Diagnostic], file_name: &str, text: &str) -> String {
    let mut out = String::new();
    let lines = Lines::of(text);
    for (spans, diagnostic) in placed(diagnostics, text) {
        let command = match diagnostic.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "notice",
        };
        let mut message = diagnostic.message.clone();
        if let Some(help) = &diagnostic.help {
            message.push('\n');
            message.push_str(help);
        }
        let mut properties = format!("file={}", github_property(file_name));
        if let Some(Some(span)) = spans.first() {
            let (line, column) = lines.at(text, span.start);
            let (end_line, end_column) = lines.at(text, span.end);
            let _ = write!(properties, ",line={line},endLine={end_line}");
            // GitHub ignores columns where the lines differ.
            if line == end_line {
                let _ = write!(properties, ",col={column},endColumn={end_column}");
            }
        }
        let _ = writeln!(
            out,
            "::{command} {properties}::{}",
            github_message(&message)
        );
    }
    out
}

/// Renders as a JSON array of objects with `severity`, `message`, `file`, `line`, `column`, `end_line`, `end_column`
/// (from 1, in characters; null where a problem has no place), `help` and `related` places. Ends with a newline.
pub fn render_json(diagnostics: &[Diagnostic], file_name: &str, text: &str) -> String {
    let lines = Lines::of(text);
    let place = |span: &Option<Range<usize>>| match span {
        Some(span) => {
            let ((line, column), (end_line, end_column)) =
                (lines.at(text, span.start), lines.at(text, span.end));
            (Some(line), Some(column), Some(end_line), Some(end_column))
        }
        None => (None, None, None, None),
    };
    let list: Vec<serde_json::Value> = placed(diagnostics, text)
        .into_iter()
        .map(|(spans, diagnostic)| {
            let (line, column, end_line, end_column) = place(spans.first().unwrap_or(&None));
            let related: Vec<serde_json::Value> = spans
                .iter()
                .zip(&diagnostic.labels)
                .skip(1)
                .map(|(span, label)| {
                    let (line, column, end_line, end_column) = place(span);
                    json!({ "message": label.text, "line": line, "column": column, "end_line": end_line, "end_column": end_column })
                })
                .collect();
            json!({
                "severity": diagnostic.severity.to_string(),
                "message": diagnostic.message,
                "file": file_name,
                "line": line,
                "column": column,
                "end_line": end_line,
                "end_column": end_column,
                "help": diagnostic.help,
                "related": related,
            })
        })
        .collect();
    format!("{:#}\n", serde_json::Value::Array(list))
}

/// Diagnostics with the spans of their labels, by position; those without one first.
fn placed<'d>(
    diagnostics: &'d [Diagnostic],
    text: &str,
) -> Vec<(Vec<Option<Range<usize>>>, &'d Diagnostic)> {
    if diagnostics.is_empty() {
        return Vec::new();
    }
    let spans = Spans::of(text);
    let mut placed: Vec<_> = diagnostics
        .iter()
        .map(|diagnostic| {
            let marks = diagnostic
                .labels
                .iter()
                .map(|label| spans.find(&label.place));
            (marks.collect::<Vec<_>>(), diagnostic)
        })
        .collect();
    // Errors of a place stand before its warnings; notes on the file as a whole ("and 7 more") at the end.
    placed.sort_by_key(|(spans, diagnostic)| {
        let start = spans.iter().flatten().map(|span| span.start).next();
        let whole_file_note = start.is_none() && diagnostic.severity == Severity::Note;
        (
            whole_file_note,
            start,
            std::cmp::Reverse(diagnostic.severity),
        )
    });
    placed
}

fn level(severity: Severity) -> Level<'static> {
    match severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
        Severity::Note => Level::NOTE,
    }
}

/// The whole lines that hold all spans, and the number of the first. The renderer numbers lines from its source's
/// start, so for a file of 10 MB it is given a window.
fn window(spans: &[Option<Range<usize>>], text: &str) -> Option<(Range<usize>, usize)> {
    let start = spans.iter().flatten().map(|span| span.start).min()?;
    let end = spans.iter().flatten().map(|span| span.end).max()?;
    let start = text
        .get(..start)?
        .rfind('\n')
        .map_or(0, |newline| newline + 1);
    let end = text
        .get(end..)?
        .find('\n')
        .map_or(text.len(), |newline| end + newline);
    let line = memchr::memchr_iter(b'\n', text.as_bytes().get(..start)?).count() + 1;
    Some((start..end, line))
}

/// Where the lines of a text begin.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        Lines(
            std::iter::once(0)
                .chain(memchr::memchr_iter(b'\n', text.as_bytes()).map(|newline| newline + 1))
                .collect(),
        )
    }

    /// Line and column of a byte, both from 1, the column in characters.
    fn at(&self, text: &str, byte: usize) -> (usize, usize) {
        let line = self.0.partition_point(|start| *start <= byte);
        let start = line
            .checked_sub(1)
            .and_then(|line| self.0.get(line))
            .copied()
            .unwrap_or(0);
        let column = text
            .get(start..byte)
            .map_or(0, |before| before.chars().count());
        (line, column + 1)
    }
}

/// As the runner unescapes a command's message.
fn github_message(text: &str) -> String {
    text.replace('%', "%25")
        .replace('\r', "%0D")
        .replace('\n', "%0A")
}

/// As the runner unescapes a command's property.
fn github_property(text: &str) -> String {
    github_message(text).replace(':', "%3A").replace(',', "%2C")
}
