//! What the TOML parser reports, as diagnostics; and where a duplicate key stood first, which it does not tell.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::diagnostic::{Diagnostic, Mark};

/// A syntax error of `text`; of a duplicate with its `first`, where that is wanted.
pub(crate) fn syntax(error: &toml::de::Error, text: &str, first: bool) -> Diagnostic {
    let at = error.span().unwrap_or(0..0);
    let found = text.get(at.clone()).unwrap_or_default();
    let diagnostic = Diagnostic::error(Mark::Bytes(at.clone()), error.message());
    if error.message() == "duplicate key" {
        let diagnostic = Diagnostic::error(
            Mark::Bytes(at.clone()),
            format!("duplicate key `{}`", found.trim()),
        );
        return match first.then(|| first_of(text, &at)).flatten() {
            Some(first) => diagnostic.and(Mark::Bytes(first), "it is here already"),
            None => diagnostic,
        };
    }
    if let Some(help) = way_out(error.message(), &at, text) {
        return diagnostic.help(help);
    }
    if error.message().starts_with("string values must be quoted") && !found.is_empty() {
        return diagnostic.help(format!("write {:?}", found.trim()));
    }
    diagnostic
}

/// What was probably meant, where the parser's words leave a newcomer to TOML alone.
fn way_out(message: &str, at: &Range<usize>, text: &str) -> Option<String> {
    let here = text.get(at.start..)?;
    if message.starts_with("invalid unquoted key") && here.starts_with(':') {
        return Some("TOML joins a key and its value by `=`".to_owned());
    }
    if message.starts_with("missing escaped value") {
        return Some(
            "for a backslash write `\\\\`, or take '...' or '''...''' for the quotes, where it stands for itself"
                .to_owned(),
        );
    }
    if message.starts_with("invalid basic string, expected `\"`") {
        return Some(
            "the string does not end: close it by `\"`, or take \"\"\"...\"\"\" for several lines"
                .to_owned(),
        );
    }
    if message.starts_with("invalid literal string, expected `'`") {
        return Some(
            "the string does not end: close it by `'`, or take '''...''' for several lines"
                .to_owned(),
        );
    }
    if message.starts_with("unclosed table") {
        return Some("a name holds letters, digits, `_` and `-`".to_owned());
    }
    None
}

/// The errors of a text without those that only follow from one before: more of the same line, and, since nobody knows where
/// a string that does not end should have ended, all that comes after one.
pub(crate) fn roots<'e>(errors: &'e [toml::de::Error], text: &str) -> Vec<&'e toml::de::Error> {
    let line = |error: &toml::de::Error| {
        let at = error.span().map_or(0, |at| at.start);
        let before = text.as_bytes().get(..at).unwrap_or_default();
        memchr::memrchr(b'\n', before).map_or(0, |newline| newline + 1)
    };
    let alike = |a: &toml::de::Error, b: &toml::de::Error, start: &str| {
        a.message().starts_with(start) && b.message().starts_with(start)
    };
    let mut errors: Vec<&toml::de::Error> = errors.iter().collect();
    errors.sort_by_key(|error| error.span().map_or(0, |at| at.start));
    let mut roots: Vec<&toml::de::Error> = Vec::new();
    for error in errors {
        if let Some(last) = roots.last() {
            let (before, here) = (line(last), line(error));
            if before == here
                && !alike(last, error, "missing escaped value")
                && !alike(last, error, "duplicate key")
            {
                continue;
            }
            // What a table's second header is followed by.
            let section = text.get(before..here).unwrap_or_default();
            if alike(last, error, "duplicate key")
                && section.starts_with('[')
                && !section.contains("\n[")
            {
                continue;
            }
        }
        roots.push(error);
        if unended(error.message()) {
            break;
        }
    }
    roots
}

/// Whether a string, or what it stands in, does not end where it should.
fn unended(message: &str) -> bool {
    [
        "invalid basic string",
        "invalid literal string",
        "invalid multi-line",
        "unclosed array",
        "unclosed inline",
    ]
    .iter()
    .any(|start| message.starts_with(start))
}

/// Where the key stands for the first time that is a duplicate at `at`. None for the rare cases that are not understood
/// (dotted keys): the duplicate alone is then shown.
fn first_of(text: &str, at: &Range<usize>) -> Option<Range<usize>> {
    let before = text.get(..at.start)?;
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = text.get(line_start..)?.split('\n').next()?;
    // In what stands before the duplicate's line, the key is the first one.
    let (before, _) = DeTable::parse_recoverable(text.get(..line_start)?);
    if line.trim_start().starts_with('[') {
        let (header, _) = DeTable::parse_recoverable(line);
        return named(header.get_ref(), before.get_ref());
    }
    let key = one_key(text.get(at.clone())?)?;
    let (whole, _) = DeTable::parse_recoverable(text);
    let table = inline_around(whole.get_ref(), at).or_else(|| last_header(before.get_ref(), text));
    let (first, _) = table
        .unwrap_or(before.get_ref())
        .get_key_value(key.as_str())?;
    Some(first.span()).filter(|first| first.start < at.start)
}

/// A key without its quotes.
fn one_key(written: &str) -> Option<String> {
    let line = format!("{written} = 0");
    let table = DeTable::parse(&line).ok()?;
    table
        .get_ref()
        .keys()
        .next()
        .map(|key| key.get_ref().to_string())
}

/// The span of the key in `table` that the only path of `header` leads to.
fn named(header: &DeTable<'_>, table: &DeTable<'_>) -> Option<Range<usize>> {
    let (key, inner) = header.iter().next()?;
    let (found, value) = table.get_key_value(key.get_ref().as_ref())?;
    match (inner.get_ref(), value.get_ref()) {
        (DeValue::Table(inner), DeValue::Table(table)) if !inner.is_empty() => named(inner, table),
        _ => Some(found.span()),
    }
}

/// The innermost inline table that has `at` between its braces.
fn inline_around<'t, 'i>(table: &'t DeTable<'i>, at: &Range<usize>) -> Option<&'t DeTable<'i>> {
    table.iter().find_map(|(_, value)| in_value(value, at))
}

fn in_value<'t, 'i>(value: &'t Spanned<DeValue<'i>>, at: &Range<usize>) -> Option<&'t DeTable<'i>> {
    match value.get_ref() {
        DeValue::Table(inner) => inline_around(inner, at).or_else(|| {
            (value.span().start <= at.start && at.end <= value.span().end).then_some(inner)
        }),
        DeValue::Array(array) => array.iter().find_map(|value| in_value(value, at)),
        _ => None,
    }
}

/// The table with the last header of a text: the one that a line after it belongs to.
fn last_header<'t, 'i>(table: &'t DeTable<'i>, text: &str) -> Option<&'t DeTable<'i>> {
    fn search<'t, 'i>(
        table: &'t DeTable<'i>,
        text: &str,
        last: &mut Option<(usize, &'t DeTable<'i>)>,
    ) {
        for (_, value) in table {
            let DeValue::Table(inner) = value.get_ref() else {
                continue;
            };
            let start = value.span().start;
            // A table that is only named on the way to another has the span of that name.
            let header = text.as_bytes().get(start) == Some(&b'[');
            if header && last.is_none_or(|(before, _)| before < start) {
                *last = Some((start, inner));
            }
            search(inner, text, last);
        }
    }
    let mut last = None;
    search(table, text, &mut last);
    last.map(|(_, table)| table)
}
