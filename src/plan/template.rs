//! `${{ NAME }}` in a string of the pipeline file.
//!
//! One pass from left to right: what is put in is never looked at again, so no value can name another and nothing grows
//! beyond the sum of what is named.

use std::fmt;

use crate::diagnostic::Diagnostic;
use crate::plan::NodeId;
use crate::plan::problems::{Problems, Site, variable};
use crate::plan::scope::{Found, Scope};

/// A string of the file with what is known at plan time already put in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Template {
    /// Nothing left to put in.
    Literal(Box<str>),
    /// Text and names that only the run knows, in turn.
    Parts(Box<[Part]>),
}

/// A piece of a [`Template`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// As it stands.
    Text(Box<str>),
    /// `${{ in.X }}`: the path of that input, `/dev/fd/N`.
    In(Box<str>),
    /// `${{ out.X }}`: the path of that output, `/dev/fd/N`.
    Out(Box<str>),
    /// `${{ value.NODE }}`: what that node's standard output said.
    Value(NodeId),
    /// `${{ run.id }}`
    RunId,
    /// `${{ task }}`: the record that a worker is started for (`task` pools).
    Task,
    /// `${{ task.0 }}`: one of its fields.
    TaskField(u32),
    /// `${{ task.index }}`: its place among all, from 0.
    TaskIndex,
    /// `${{ worker }}`: the number of the worker, from 0, in pools whose workers come and go.
    Worker,
}

impl Template {
    /// The string for a run that knows the rest. `value` is asked for every part but [`Part::Text`].
    pub fn resolve(&self, value: &dyn Fn(&Part) -> String) -> String {
        match self {
            Template::Literal(text) => text.to_string(),
            Template::Parts(parts) => parts
                .iter()
                .map(|part| match part {
                    Part::Text(text) => text.to_string(),
                    other => value(other),
                })
                .collect(),
        }
    }

    /// The string, where nothing is left to put in.
    pub fn literal(&self) -> Option<&str> {
        match self {
            Template::Literal(text) => Some(text),
            Template::Parts(_) => None,
        }
    }

    /// As the file would say it; `name` knows the nodes' names.
    pub fn display<'a>(&'a self, name: &'a dyn Fn(NodeId) -> &'a str) -> impl fmt::Display + 'a {
        fmt::from_fn(move |f| match self {
            Template::Literal(text) => f.write_str(text),
            Template::Parts(parts) => parts.iter().try_for_each(|part| match part {
                Part::Text(text) => f.write_str(text),
                Part::In(end) => write!(f, "${{{{ in.{end} }}}}"),
                Part::Out(end) => write!(f, "${{{{ out.{end} }}}}"),
                Part::Value(node) => write!(f, "${{{{ value.{} }}}}", name(*node)),
                Part::RunId => f.write_str("${{ run.id }}"),
                Part::Task => f.write_str("${{ task }}"),
                Part::TaskField(field) => write!(f, "${{{{ task.{field} }}}}"),
                Part::TaskIndex => f.write_str("${{ task.index }}"),
                Part::Worker => f.write_str("${{ worker }}"),
            }),
        })
    }

    /// Whether a record, or a field of it, is put in.
    pub fn names_task(&self) -> bool {
        match self {
            Template::Literal(_) => false,
            Template::Parts(parts) => parts
                .iter()
                .any(|part| matches!(part, Part::Task | Part::TaskField(_))),
        }
    }

    /// Whether it is another for each process of a pool that procflow feeds.
    pub fn is_per_process(&self) -> bool {
        match self {
            Template::Literal(_) => false,
            Template::Parts(parts) => parts.iter().any(|part| {
                matches!(
                    part,
                    Part::Task | Part::TaskField(_) | Part::TaskIndex | Part::Worker
                )
            }),
        }
    }

    /// Renames the nodes in it.
    pub(super) fn renumber(&mut self, new: &dyn Fn(NodeId) -> NodeId) {
        if let Template::Parts(parts) = self {
            for part in parts {
                if let Part::Value(node) = part {
                    *node = new(*node);
                }
            }
        }
    }
}

impl From<&str> for Template {
    fn from(text: &str) -> Self {
        Template::Literal(text.into())
    }
}

const OPEN: &str = "${{";
const CLOSE: &str = "}}";

/// A string cut at its names.
enum Piece<'a> {
    Text(&'a str),
    /// `$${{`, which stands for `${{`.
    Escaped,
    /// What stands between `${{` and `}}`, and all of it with these.
    Name(&'a str, &'a str),
    /// `${{` without `}}`: the rest of the string.
    Unterminated(&'a str),
}

/// Cuts a string at its names.
fn pieces(mut text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    while let Some(open) = text.find(OPEN) {
        let (before, from) = text.split_at(open);
        if let Some(before) = before.strip_suffix('$') {
            pieces.push(Piece::Text(before));
            pieces.push(Piece::Escaped);
            text = &from[OPEN.len()..];
            continue;
        }
        pieces.push(Piece::Text(before));
        let Some(close) = from.find(CLOSE) else {
            pieces.push(Piece::Unterminated(from));
            return pieces;
        };
        let (whole, rest) = from.split_at(close + CLOSE.len());
        pieces.push(Piece::Name(from[OPEN.len()..close].trim(), whole));
        text = rest;
    }
    pieces.push(Piece::Text(text));
    pieces
}

/// Collects the parts of a template; neighbouring texts become one.
#[derive(Default)]
pub(super) struct Builder {
    parts: Vec<Part>,
    text: String,
}

impl Builder {
    /// Adds text that is known now.
    pub(super) fn text(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// Adds what only the run knows.
    pub(super) fn part(&mut self, part: Part) {
        if !self.text.is_empty() {
            self.parts
                .push(Part::Text(std::mem::take(&mut self.text).into()));
        }
        self.parts.push(part);
    }

    /// Adds a whole template.
    pub(super) fn template(&mut self, template: &Template) {
        match template {
            Template::Literal(text) => self.text(text),
            Template::Parts(parts) => {
                for part in parts {
                    match part {
                        Part::Text(text) => self.text(text),
                        other => self.part(other.clone()),
                    }
                }
            }
        }
    }

    fn finish(mut self) -> Template {
        if self.parts.is_empty() {
            return Template::Literal(self.text.into());
        }
        if !self.text.is_empty() {
            self.parts.push(Part::Text(self.text.into()));
        }
        Template::Parts(self.parts.into())
    }
}

/// Reads a string of the file, puts in what `scope` knows and leaves the rest to the run. What is wrong goes to `found`.
pub(super) fn parse(
    text: String,
    scope: &Scope<'_>,
    site: &Site<'_>,
    found: &mut Found<'_>,
) -> Template {
    if text.contains('\0') {
        found.problems.push(
            Diagnostic::error(
                site.mark_value(),
                "a NUL byte, which no argument, variable or path can hold",
            )
            .help("a file, or `stdin = { text = \"...\" }`, can carry it"),
        );
    }
    if !text.contains(OPEN) {
        return Template::Literal(text.into_boxed_str());
    }
    let mut builder = Builder::default();
    for piece in pieces(&text) {
        match piece {
            Piece::Text(text) => builder.text(text),
            Piece::Escaped => builder.text(OPEN),
            Piece::Name(name, whole) => scope.put(name, &site.words(whole), &mut builder, found),
            Piece::Unterminated(rest) => found.problems.push(
                Diagnostic::error(site.words(rest).mark_value(), "`${{` without `}}`")
                    .help("write `$${{` where `${{` itself is meant"),
            ),
        }
    }
    builder.finish()
}

/// `X` where the whole string is `${{ in.X }}`.
pub(super) fn sole_input(text: &str) -> Option<&str> {
    let name = text.strip_prefix(OPEN)?.strip_suffix(CLOSE)?.trim();
    if name.contains('}') {
        None
    } else {
        name.strip_prefix("in.")
    }
}

/// Whether the whole string is `${{ task }}`.
pub(super) fn is_sole_task(text: &str) -> bool {
    let name = text
        .strip_prefix(OPEN)
        .and_then(|rest| rest.strip_suffix(CLOSE));
    name.is_some_and(|name| name.trim() == "task")
}

/// A script, in which nothing is put in: pasting values into shell code is how injections happen.
pub(super) fn script(text: String, site: &Site<'_>, problems: &mut Problems) -> String {
    if text.contains('\0') {
        problems.push(Diagnostic::error(
            site.mark_value(),
            "a NUL byte, which no argument can hold",
        ));
    }
    if !text.contains(OPEN) {
        return text;
    }
    let mut script = String::new();
    for piece in pieces(&text) {
        match piece {
            Piece::Text(text) => script.push_str(text),
            Piece::Escaped => script.push_str(OPEN),
            Piece::Name(name, whole) => problems.push(
                Diagnostic::error(
                    site.words(whole).mark_value(),
                    format!("`${{{{ {name} }}}}` in a script, where nothing is replaced"),
                )
                .help(instead_of(name)),
            ),
            Piece::Unterminated(rest) => problems.push(
                Diagnostic::error(
                    site.words(rest).mark_value(),
                    "`${{` in a script, where nothing is replaced",
                )
                .help("write `$${{` where `${{` itself is meant"),
            ),
        }
    }
    script
}

/// How a script gets what `${{ name }}` would be.
fn instead_of(name: &str) -> String {
    let from_root = |root: &str| match root.split_once('.') {
        Some(("params" | "param", x)) => Some(format!("PARAM_{}", variable(x))),
        Some(("env", x)) => Some(x.to_owned()),
        Some(("matrix", x)) => Some(format!("MATRIX_{}", variable(x))),
        Some(("in", x)) => Some(format!("IN_{}", variable(x))),
        Some(("out", x)) => Some(format!("OUT_{}", variable(x))),
        Some(("value", x)) => Some(format!("VALUE_{}", variable(x))),
        Some(("run", "id")) => Some("PROCFLOW_RUN_ID".to_owned()),
        Some(("pipeline", "dir")) => Some("PIPELINE_DIR".to_owned()),
        Some(("task", "index")) => Some("TASK_INDEX".to_owned()),
        None if root == "task" => Some("TASK".to_owned()),
        None if root == "worker" => Some("WORKER".to_owned()),
        _ => None,
    };
    if name.starts_with("task.") && name != "task.index" {
        return format!(
            "say `env = {{ FIELD = \"${{{{ {name} }}}}\" }}`, and use `\"$FIELD\"` (`\"$TASK\"` is the whole record)"
        );
    }
    match from_root(name) {
        Some(variable) => format!("use the environment variable: `\"${variable}\"`"),
        None => {
            "use an environment variable, or write `$${{` where `${{` itself is meant".to_owned()
        }
    }
}
