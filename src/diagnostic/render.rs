//! Diagnostics as text: for people (as rustc shows them), for GitHub's annotations, as JSON.

use std::fmt::Write as _;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde_json::json;

use crate::diagnostic::spans::Spans;
use crate::diagnostic::{Diagnostic, Mark, Severity, harmless};

/// Renders for people, errors first, each kind sorted by place in the file: message, place, the line itself with a caret, the way out.
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
                let mut snippet =
                    Snippet::source(source(text.get(window.clone()).unwrap_or_default()))
                        .line_start(line)
                        .path(file_name.as_str());
                for (i, (span, label)) in spans.iter().zip(&diagnostic.labels).enumerate() {
                    let Some(span) = span else { continue };
                    let kind = if i == 0 {
                        AnnotationKind::Primary
                    } else {
                        AnnotationKind::Context
                    };
                    let moved = |byte: usize| {
                        source(text.get(window.start..byte).unwrap_or_default()).len()
                    };
                    let annotation = kind.span(moved(span.start)..moved(span.end));
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

/// Line and column, both from 1, at which each of these begins.
pub fn places(text: &str, marks: impl IntoIterator<Item = Mark>) -> Vec<Option<(usize, usize)>> {
    let (spans, lines) = (Spans::of(text), Lines::of(text));
    marks
        .into_iter()
        .map(|mark| Some(lines.at(text, spans.find(&mark)?.start)))
        .collect()
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

/// Diagnostics with the spans of their labels: errors, warnings, notes; each kind by position, those without one first. What is
/// said twice in the same words of the same places is left out.
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
    // Notes on the file as a whole ("and 7 more") at the end.
    placed.sort_by_key(|(spans, diagnostic)| {
        let start = spans.iter().flatten().map(|span| span.start).next();
        let whole_file_note = start.is_none() && diagnostic.severity == Severity::Note;
        (
            std::cmp::Reverse(diagnostic.severity),
            whole_file_note,
            start,
        )
    });
    placed.dedup_by(|(_, one), (_, before)| one == before);
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
    Some((start.max(bom(text))..end, line))
}

/// Source text as it is shown: with the line ends of Unix, since a carriage return would be shown as a character of its
/// own, and without what the renderer lets through though some terminals obey it (U+009B is `ESC [` in one character).
fn source(text: &str) -> String {
    let text = text.replace("\r\n", "\n");
    let text = text.strip_suffix('\r').unwrap_or(&text);
    let obeyed = |c: char| {
        matches!(
            c,
            '\u{80}'..='\u{9f}' | '\u{200e}' | '\u{200f}' | '\u{061c}'
        )
    };
    text.chars()
        .map(|c| if obeyed(c) { '\u{fffd}' } else { c })
        .collect()
}

/// The length of a byte order mark, which is no part of the first line.
fn bom(text: &str) -> usize {
    if text.starts_with('\u{feff}') {
        '\u{feff}'.len_utf8()
    } else {
        0
    }
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
pub fn github_message(text: &str) -> String {
    text.replace('%', "%25")
        .replace('\r', "%0D")
        .replace('\n', "%0A")
}

/// As the runner unescapes a command's property.
pub fn github_property(text: &str) -> String {
    github_message(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use crate::diagnostic::{Diagnostic, Mark, Place, render, render_github, render_json};

    const TEXT: &str = "\
name = \"x\"
[process.a]
script = \"ä\"
after = [
  \"b\",
  { node = \"c\", state = \"started\" },
]
[process.b.env]
A = \"1\"
[queue]
";

    /// The line and what is marked in it.
    fn marked(mark: Mark) -> String {
        let shown = render(&[Diagnostic::error(mark, "m")], "p.toml", TEXT, false);
        shown.lines().skip(3).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn places_are_marked_by_key_header_and_value() {
        let process = Place::of(&["process", "a"]);
        assert_eq!(
            marked(Mark::Key(process.clone())),
            "2 | [process.a]\n  | ^^^^^^^^^^^"
        );
        assert_eq!(
            marked(Mark::Value(process.clone())),
            "2 | [process.a]\n  | ^^^^^^^^^^^"
        );
        assert_eq!(
            marked(Mark::Key(process.key("script"))),
            "3 | script = \"ä\"\n  | ^^^^^^"
        );
        assert_eq!(
            marked(Mark::Value(process.key("script"))),
            "3 | script = \"ä\"\n  |          ^^^"
        );
        assert_eq!(
            marked(Mark::Value(process.key("after").index(0))),
            "5 |   \"b\",\n  |   ^^^"
        );
        let state = process.key("after").index(1).key("state");
        assert_eq!(
            marked(Mark::Key(state.clone())),
            "6 |   { node = \"c\", state = \"started\" },\n  |                 ^^^^^"
        );
        assert_eq!(
            marked(Mark::Value(state)),
            "6 |   { node = \"c\", state = \"started\" },\n  |                         ^^^^^^^^^"
        );
    }

    #[test]
    fn a_place_that_is_missing_is_that_around_it() {
        let process = Place::of(&["process", "a"]);
        assert_eq!(
            marked(Mark::Value(process.key("stdin").key("file"))),
            "2 | [process.a]\n  | ^^^^^^^^^^^"
        );
        assert_eq!(
            marked(Mark::Value(process.key("script").key("x"))),
            "3 | script = \"ä\"\n  |          ^^^"
        );
        assert_eq!(
            marked(Mark::Key(Place::of(&["process", "b"]))),
            "8 | [process.b.env]\n  |          ^"
        );
        assert_eq!(marked(Mark::Key(Place::of(&["nothing"]))), "");
        assert_eq!(marked(Mark::Key(Place::default())), "");
    }

    #[test]
    fn several_are_sorted_by_place_and_explain_each_other() {
        let a = Mark::Key(Place::of(&["process", "a"]));
        let b = Mark::Value(Place::of(&["process", "a", "after"]).index(0));
        let problems = [
            Diagnostic::note("the last word"),
            Diagnostic::warning(b.clone(), "second")
                .label("here")
                .help("a way out"),
            Diagnostic::error(a.clone(), "first")
                .label("this")
                .and(b, "and that"),
            Diagnostic::error(Mark::Key(Place::default()), "of the file"),
        ];
        assert_eq!(
            render(&problems, "dir/p.toml", TEXT, false),
            "\
error: of the file

error: first
 --> dir/p.toml:2:1
  |
2 | [process.a]
  | ^^^^^^^^^^^ this
...
5 |   \"b\",
  |   --- and that

warning: second
 --> dir/p.toml:5:3
  |
5 |   \"b\",
  |   ^^^ here
  |
  = help: a way out

note: the last word
"
        );
        assert!(render(&problems, "p", TEXT, true).contains("\u{1b}["));
        assert_eq!(render(&[], "p", TEXT, false), "");
    }

    #[test]
    fn nothing_from_the_file_moves_the_cursor() {
        let text = "\"a\u{202e}\" = \"\u{9b}2J\u{1b}]0;x\u{7}\"\r\n";
        let problem = Diagnostic::error(Mark::Bytes(0..3), "of `\u{1b}[2J\u{202e}`")
            .label("\u{7}")
            .help("\r\u{85}");
        let shown = render(&[problem], "\u{1b}[31m.toml", text, false);
        let harmful =
            |c: char| (c.is_control() && c != '\n') || ('\u{202a}'..='\u{202e}').contains(&c);
        assert!(!shown.contains(harmful), "{shown:?}");
        assert!(
            shown.starts_with("error: of `\\u{1b}[2J\\u{202e}`\n --> \\u{1b}[31m.toml:1:1\n"),
            "{shown:?}"
        );
    }

    #[test]
    fn github_commands_cannot_be_broken_out_of() {
        let problem = Diagnostic::error(
            Mark::Value(Place::of(&["process", "a", "script"])),
            "100%\n::error::x",
        )
        .help("h:,");
        assert_eq!(
            render_github(&[problem, Diagnostic::note("n")], "a,b:c%.toml", TEXT),
            "::error file=a%2Cb%3Ac%25.toml,line=3,endLine=3,col=10,endColumn=13::100%25%0A::error::x%0Ah:,\n\
             ::notice file=a%2Cb%3Ac%25.toml::n\n"
        );
    }

    #[test]
    fn json_tells_places_in_characters() {
        let process = Place::of(&["process", "a"]);
        let problem = Diagnostic::error(Mark::Value(process.key("script")), "m")
            .help("h")
            .and(Mark::Value(process.key("after")), "r");
        let json: serde_json::Value = serde_json::from_str(&render_json(
            &[problem, Diagnostic::note("n")],
            "p.toml",
            TEXT,
        ))
        .unwrap();
        assert_eq!(
            json,
            serde_json::json!([
                {
                    "severity": "error", "message": "m", "file": "p.toml", "help": "h",
                    "line": 3, "column": 10, "end_line": 3, "end_column": 13,
                    "related": [{ "message": "r", "line": 4, "column": 9, "end_line": 7, "end_column": 2 }],
                },
                {
                    "severity": "note", "message": "n", "file": "p.toml", "help": null,
                    "line": null, "column": null, "end_line": null, "end_column": null, "related": [],
                },
            ])
        );
    }
}
