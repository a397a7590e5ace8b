//! From the text of a pipeline file to a [`Spec`], or to every problem that the text has.
//!
//! A good file is parsed once, in one pass, and keeps no places. serde stops at its first problem, so a file with one
//! is read again, table by table: what is wrong is noted and taken out, and the table read again, until nothing is
//! wrong any more. Unknown keys go the same way (`deny_unknown_fields`): one mechanism, and a good file pays nothing
//! for it. (serde_ignored was the road not taken: it copies every key of a good file, too.)

use std::collections::BTreeSet;
use std::ops::Range;

use indexmap::IndexMap;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue, Deserializer, ValueDeserializer};

use crate::diagnostic::{Diagnostic, Label, Mark, Place, Step, did_you_mean};
use crate::spec::syntax::syntax;
use crate::spec::{Param, Process, Queue, Spec};

/// So many problems are shown at most.
const MOST: usize = 100;

/// A file that cannot be read as it is.
#[derive(Debug, Clone)]
pub struct Wrong {
    /// Every problem that was found.
    pub problems: Vec<Diagnostic>,
    /// What could be made of the rest, so that its meaning can be checked as well; none where the text is no TOML.
    pub partial: Option<Partial>,
}

/// What a file with problems says in its other parts.
#[derive(Debug, Clone)]
pub struct Partial {
    /// The file without what is wrong in it.
    pub spec: Spec,
    /// Where something was left out.
    damaged: BTreeSet<Place>,
}

impl Partial {
    /// Whether a problem that was found in [`Partial::spec`] is one of the file, and not of what was left out: it has
    /// no mark in a table that lost something.
    pub fn trusts(&self, problem: &Diagnostic) -> bool {
        problem.labels.iter().all(|label| match &label.place {
            Mark::Key(place) | Mark::Value(place) => !self
                .damaged
                .iter()
                .any(|damaged| section(damaged) == section(place)),
            Mark::Bytes(_) => true,
        })
    }
}

/// The table that a place belongs to: a whole process, queue or parameter, or the top-level key.
fn section(place: &Place) -> &[Step] {
    let deep = matches!(place.0.first(), Some(Step::Key(key)) if matches!(key.as_str(), "process" | "queue" | "params"));
    let length = if deep { 2 } else { 1 };
    place.0.get(..length).unwrap_or(&place.0)
}

/// Reads a pipeline file.
///
/// # Errors
/// [`Wrong`], with every problem of the text: all syntax errors, or else all unknown keys and all values of the wrong
/// kind (up to 100 in all).
pub fn read(text: &str) -> Result<Spec, Wrong> {
    if let Some(spec) = in_pieces(text, PIECE) {
        return Ok(spec);
    }
    let (table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        return Err(Wrong {
            problems: errors
                .iter()
                .take(MOST)
                .map(|error| syntax(error, text))
                .collect(),
            partial: None,
        });
    }
    let mut reader = Reader::default();
    let spec = reader.spec(table.into_inner());
    Err(reader.finish(spec))
}

/// A large file is read in pieces of at least so many bytes.
const PIECE: usize = 64 << 10;

/// Reads a good file piece by piece, cut before lines that begin with `[`; none where anything is wrong, or so unusual that
/// only reading the file as a whole can tell.
///
/// The parser holds tokens, events and tree of its whole input at once, thirty times the text. Piece by piece they stay in
/// the cache, which is twice as fast, and the memory of a file of 100,000 processes is that of its [`Spec`].
///
/// That each piece is a whole document shows that the cuts are right: one within a string or array leaves it open. Two
/// pieces can only differ from their sum where they both say something of the same table, so that is looked for.
fn in_pieces(text: &str, size: usize) -> Option<Spec> {
    let mut spec: Option<Spec> = None;
    let mut seen = BTreeSet::new();
    let mut start = 0;
    while start < text.len() || spec.is_none() {
        let rest = text.get(start..)?;
        let piece = rest.get(..cut(rest, size))?;
        start += piece.len();
        let whole = piece.len() == text.len();
        let table = DeTable::parse(piece).ok()?;
        if !whole {
            for (key, value) in table.get_ref() {
                // `[process.a]` in one piece and `[process.b]` in the next are both welcome, `process = {}` or `[process]` twice
                // are not: only in the first does the table itself stand behind a bracket.
                let shared = matches!(key.get_ref().as_ref(), "process" | "queue" | "params")
                    && value.span().start.checked_sub(1).and_then(|before| piece.as_bytes().get(before)) == Some(&b'[');
                if !shared && !seen.insert(key.get_ref().to_string()) {
                    return None;
                }
                if !shared && matches!(key.get_ref().as_ref(), "process" | "queue" | "params") {
                    return None;
                }
            }
        }
        let said = |key| table.get_ref().contains_key(key);
        let (run, env, env_file, defaults) = (said("run"), said("env"), said("env_file"), said("defaults"));
        let part = Spec::deserialize(Deserializer::from(table)).ok()?;
        match &mut spec {
            None => spec = Some(part),
            Some(spec) => {
                // A top-level key without a table stands before the first header, in the first piece.
                if run {
                    spec.run = part.run;
                }
                if env {
                    spec.env = part.env;
                }
                if env_file {
                    spec.env_file = part.env_file;
                }
                if defaults {
                    spec.defaults = part.defaults;
                }
                extend(&mut spec.params, part.params)?;
                extend(&mut spec.process, part.process)?;
                extend(&mut spec.queue, part.queue)?;
            }
        }
    }
    spec
}

/// Where the first piece of a text ends: before a header, or at its end.
fn cut(text: &str, size: usize) -> usize {
    let bytes = text.as_bytes();
    let headers = memchr::memmem::find_iter(bytes.get(size..).unwrap_or_default(), "\n[");
    headers.map(|newline| size + newline + 1).next().unwrap_or(bytes.len())
}

/// Adds entries; none where one was there before.
fn extend<T>(all: &mut IndexMap<String, T>, more: IndexMap<String, T>) -> Option<()> {
    for (name, value) in more {
        if all.insert(name, value).is_some() {
            return None;
        }
    }
    Some(())
}

/// Reads with all problems noted.
#[derive(Default)]
struct Reader {
    problems: Vec<Diagnostic>,
    damaged: BTreeSet<Place>,
}

impl Reader {
    /// Reads the file in pieces: each process, queue and parameter, and then the rest. The cost of a problem is then
    /// that of reading its piece again, not the file.
    fn spec(&mut self, mut root: DeTable<'_>) -> Spec {
        let params = self.each::<Param>(&mut root, "params");
        let process = self.each::<Process>(&mut root, "process");
        let queue = self.each::<Queue>(&mut root, "queue");
        let root = Spanned::new(0..0, DeValue::Table(root));
        let rest: Spec = self.piece(root, &Place::default()).unwrap_or_default();
        Spec {
            params,
            process,
            queue,
            ..rest
        }
    }

    /// Takes the table of tables `key` out of the root, if it is one, and reads each.
    fn each<T: DeserializeOwned + Default>(
        &mut self,
        root: &mut DeTable<'_>,
        key: &str,
    ) -> IndexMap<String, T> {
        let mut read = IndexMap::new();
        if !root
            .get(key)
            .is_some_and(|value| value.get_ref().is_table())
        {
            return read;
        }
        let Some(DeValue::Table(tables)) = root.remove(key).map(Spanned::into_inner) else {
            return read;
        };
        for (name, value) in tables {
            let name = name.into_inner().into_owned();
            // One that could not be read at all still exists: others may name it.
            let one = self
                .piece(value, &Place::of(&[key, &name]))
                .unwrap_or_default();
            read.insert(name, one);
        }
        read
    }

    /// Reads one value again and again, each time without what was wrong in it the last time.
    fn piece<T: DeserializeOwned>(&mut self, value: Spanned<DeValue<'_>>, place: &Place) -> Option<T> {
        let mut left = value.clone();
        loop {
            let error = match T::deserialize(ValueDeserializer::from(left.clone())) {
                Ok(read) => return Some(read),
                Err(error) => error,
            };
            let at = error.span().unwrap_or_else(|| value.span());
            let (mut here, mut there) = (Vec::new(), Vec::new());
            if !find(&left, &at, &mut here) || !find(&value, &at, &mut there) {
                // The piece itself is of the wrong kind.
                self.note(&error, &at, place, value.get_ref());
                return None;
            }
            // The place is that in the file: in what is left, elements of arrays have moved up.
            let mut wrong = place.clone();
            wrong.0.extend(there.iter().cloned());
            if let Some(found) = look(&value, &there) {
                self.note(&error, &at, &wrong, found);
            }
            remove(&mut left, &here);
        }
    }

    /// Notes a problem, unless it only comes from what was taken out before.
    fn note(
        &mut self,
        error: &toml::de::Error,
        at: &Range<usize>,
        place: &Place,
        found: &DeValue<'_>,
    ) {
        let consequence = self
            .damaged
            .iter()
            .any(|damaged| damaged.0.len() > place.0.len() && damaged.0.starts_with(&place.0));
        self.damaged.insert(place.clone());
        if !consequence {
            self.problems
                .push(explain(error.message(), at, place, found));
        }
    }

    fn finish(mut self, spec: Spec) -> Wrong {
        self.problems
            .sort_by_key(|problem| match problem.labels.first() {
                Some(Label {
                    place: Mark::Bytes(at),
                    ..
                }) => at.start,
                _ => 0,
            });
        let more = self.problems.len().saturating_sub(MOST);
        self.problems.truncate(MOST);
        if more > 0 {
            self.problems
                .push(Diagnostic::note(format!("and {more} more problems")));
        }
        Wrong {
            problems: self.problems,
            partial: Some(Partial {
                spec,
                damaged: self.damaged,
            }),
        }
    }
}

/// Finds the deepest entry or element that a problem at the bytes `at` belongs to. False where that is the value itself.
///
/// A key and its value are one entry: a problem of either takes both out. Spans are compared, not searched: the value that
/// a problem belongs to has exactly the problem's span, and a table's span is its header alone.
fn find(value: &Spanned<DeValue<'_>>, at: &Range<usize>, steps: &mut Vec<Step>) -> bool {
    match value.get_ref() {
        DeValue::Table(table) => {
            for (key, value) in table {
                steps.push(Step::Key(key.get_ref().to_string()));
                if find(value, at, steps) || value.span() == *at || key.span() == *at {
                    return true;
                }
                steps.pop();
            }
        }
        DeValue::Array(array) => {
            for (index, value) in array.iter().enumerate() {
                steps.push(Step::Index(index));
                if find(value, at, steps) || value.span() == *at {
                    return true;
                }
                steps.pop();
            }
        }
        _ => {}
    }
    false
}

/// The value at a path.
fn look<'a, 'i>(value: &'a Spanned<DeValue<'i>>, steps: &[Step]) -> Option<&'a DeValue<'i>> {
    steps
        .iter()
        .try_fold(value.get_ref(), |value, step| match step {
            Step::Key(key) => value.get(key.as_str()).map(Spanned::get_ref),
            Step::Index(index) => value.get(*index).map(Spanned::get_ref),
        })
}

/// Takes the entry or element at a path out.
fn remove<'i>(value: &mut Spanned<DeValue<'i>>, steps: &[Step]) {
    let Some((last, parents)) = steps.split_last() else {
        return;
    };
    let mut here = value.get_mut();
    for step in parents {
        let next = match (here, step) {
            (DeValue::Table(table), Step::Key(key)) => table.get_mut(key.as_str()),
            (DeValue::Array(array), Step::Index(index)) => array.get_mut(*index),
            _ => None,
        };
        let Some(next) = next else { return };
        here = next.get_mut();
    }
    match (here, last) {
        (DeValue::Table(table), Step::Key(key)) => {
            table.remove(key.as_str());
        }
        (DeValue::Array(array), Step::Index(index)) => {
            let rest = std::mem::replace(array, DeArray::new())
                .into_iter()
                .enumerate()
                .filter(|(i, _)| i != index);
            *array = rest.map(|(_, value)| value).collect::<DeArray<'i>>();
        }
        _ => {}
    }
}

/// Keys that the contract has and this version does not.
const LATER: [(&str, &str); 23] = [
    ("pool", "pools are not part of this version"),
    ("workers", "pools are not part of this version"),
    ("feed", "pools are not part of this version"),
    ("tasks", "pools are not part of this version"),
    ("order", "pools are not part of this version"),
    ("batch", "pools are not part of this version"),
    ("max_in_flight", "pools are not part of this version"),
    ("recycle_after", "pools are not part of this version"),
    ("task_timeout", "pools are not part of this version"),
    ("dead_letter", "pools are not part of this version"),
    ("matrix", "matrix nodes are not part of this version"),
    ("exclude", "matrix nodes are not part of this version"),
    ("include", "matrix nodes are not part of this version"),
    ("service", "services are not part of this version"),
    ("ready", "services are not part of this version"),
    ("restart", "services are not part of this version"),
    ("when", "conditions are not part of this version"),
    ("resources", "resources are not part of this version"),
    ("executor", "executors are not part of this version"),
    (
        "max_records",
        "this setting of queues is not part of this version",
    ),
    (
        "overflow",
        "this setting of queues is not part of this version",
    ),
    (
        "store",
        "this setting of queues is not part of this version",
    ),
    (
        "feedback",
        "this setting of queues is not part of this version",
    ),
];

/// Puts serde's message into our words. That these parts of serde's messages are what we take them for is held by the
/// tests below, which assert whole messages.
fn explain(message: &str, at: &Range<usize>, place: &Place, found: &DeValue<'_>) -> Diagnostic {
    let mark = Mark::Bytes(at.clone());
    let subject = place.in_words();
    // To serde, a date is a table with a key of the parser's own.
    let date = matches!(found, DeValue::Datetime(_));
    if date && message.starts_with("unknown field `$__toml_private") {
        return Diagnostic::error(mark, format!("{subject}: a date or time cannot stand here"));
    }
    if let Some(rest) = message.strip_prefix("unknown field `")
        && let Some(Step::Key(key)) = place.0.last()
        && let Some(known) = rest.strip_prefix(key.as_str()).and_then(|rest| rest.strip_prefix("`, expected "))
    {
        return unknown_key(mark, key, place, &quoted(known));
    }
    let (message, help) = message.split_once('\n').map_or((message, None), |(message, help)| (message, Some(help)));
    if let Some(field) = message.strip_prefix("missing field `") {
        return Diagnostic::error(mark, format!("{subject}: `{field} is missing"));
    }
    let unexpected = message
        .strip_prefix("invalid type: ")
        .or_else(|| message.strip_prefix("invalid value: "));
    let Some((given, expected)) = unexpected.and_then(|rest| rest.rsplit_once(", expected "))
    else {
        let diagnostic = Diagnostic::error(mark, format!("{subject}: {message}"));
        return match help {
            Some(help) => diagnostic.help(help),
            None => diagnostic,
        };
    };
    let given = match given {
        "map" if date => "a date or time".to_owned(),
        "map" => "a table".to_owned(),
        "sequence" => "an array".to_owned(),
        other => other.replace("floating point", "number"),
    };
    let diagnostic = Diagnostic::error(
        mark,
        format!("{subject}: expected {expected}, found {given}"),
    );
    match found {
        DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_)
            if expected.starts_with("a string") =>
        {
            diagnostic.help(format!("put it in quotes: \"{}\"", plain(found)))
        }
        DeValue::Datetime(date) if expected.starts_with("a string") => diagnostic.help(format!("put it in quotes: \"{date}\"")),
        _ => diagnostic,
    }
}

/// A number or truth value as it is written.
fn plain(value: &DeValue<'_>) -> String {
    match value {
        DeValue::Integer(integer) => integer.to_string(),
        DeValue::Float(float) => float.to_string(),
        DeValue::Boolean(truth) => truth.to_string(),
        other => other.type_str().to_owned(),
    }
}

/// The names in serde's "`a`, `b` or `c`".
fn quoted(list: &str) -> Vec<&str> {
    list.split('`').skip(1).step_by(2).collect()
}

fn unknown_key(mark: Mark, key: &str, place: &Place, known: &[&str]) -> Diagnostic {
    let parent = Place(
        place
            .0
            .get(..place.0.len().saturating_sub(1))
            .unwrap_or_default()
            .to_vec(),
    );
    let message = if parent.0.is_empty() {
        format!("unknown key `{key}` at the top level")
    } else {
        format!("unknown key `{key}` in {}", parent.in_words())
    };
    let diagnostic = Diagnostic::error(mark, message);
    if let Some(word) = did_you_mean(key, known.iter().copied()) {
        return diagnostic.help(format!("did you mean `{word}`?"));
    }
    if let Some((_, help)) = LATER.iter().find(|(later, _)| *later == key) {
        return diagnostic.help(*help);
    }
    diagnostic.help(format!("known keys are {}", known.join(", ")))
}
