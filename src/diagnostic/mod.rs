//! What is wrong with a pipeline file, and where: collected while it is read and planned, all shown at once.
//!
//! A problem names a [`Place`], the path of a key in the file (`process.sort.after[1]`), not a byte range: a file without
//! problems then never pays for spans. They are looked up by parsing the text again when there is something to show.

use std::fmt;

mod render;
mod spans;

pub use crate::diagnostic::render::{
    github_message, github_property, places, render, render_github, render_json,
};

/// One step of a [`Place`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    /// A key of a table.
    Key(String),
    /// An element of an array, from 0.
    Index(usize),
}

/// The path of a key or value in the pipeline file. The empty path is the whole file.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct Place(pub Vec<Step>);

impl Place {
    /// The place of a table's key path, such as `["process", "sort"]`.
    pub fn of(keys: &[&str]) -> Self {
        Place(keys.iter().map(|k| Step::Key((*k).to_owned())).collect())
    }

    /// The place of `key` in the table at this place.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        let mut steps = self.0.clone();
        steps.push(Step::Key(key.to_owned()));
        Place(steps)
    }

    /// The place of element `index` of the array at this place.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        let mut steps = self.0.clone();
        steps.push(Step::Index(index));
        Place(steps)
    }
}

impl Place {
    /// The place as a message names it: "process `sort`", "`stdin.file` of process `sort`", "`run.jobs`".
    pub fn in_words(&self) -> String {
        let rest = |from: usize| Place(self.0.get(from..).unwrap_or_default().to_vec());
        let kind = match self.0.first() {
            Some(Step::Key(key)) if key == "process" => "process",
            Some(Step::Key(key)) if key == "pool" => "pool",
            Some(Step::Key(key)) if key == "queue" => "queue",
            Some(Step::Key(key)) if key == "params" => "parameter",
            _ => "",
        };
        match self.0.get(1) {
            _ if self.0.is_empty() => "the pipeline".to_owned(),
            Some(Step::Key(name)) if !kind.is_empty() && self.0.len() == 2 => {
                format!("{kind} `{name}`")
            }
            Some(Step::Key(name)) if !kind.is_empty() => {
                format!("`{}` of {kind} `{name}`", rest(2))
            }
            _ => format!("`{self}`"),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if i == 0 => write!(f, "{key}")?,
                Step::Key(key) => write!(f, ".{key}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// How much a problem matters, from the least to the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing; nothing is wrong.
    Note,
    /// Probably not what was meant.
    Warning,
    /// The pipeline cannot run.
    Error,
}

/// One problem of a pipeline file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// How much it matters.
    pub severity: Severity,
    /// What is wrong, in one line without a full stop.
    pub message: String,
    /// Where: the first is the primary place, the others explain; each with its own short text (may be empty).
    pub labels: Vec<Label>,
    /// The way out, if one is known: "did you mean `command`?".
    pub help: Option<String>,
}

/// A marked place of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// What is marked.
    pub place: Mark,
    /// A few words to stand at the mark; may be empty.
    pub text: String,
}

/// What a [`Label`] marks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mark {
    /// The key at a place (for a table: its header).
    Key(Place),
    /// The value at a place.
    Value(Place),
    /// The first of these words in the value at a place, such as one `${{ NAME }}` of a long script; the whole value where
    /// they are written otherwise (with escapes).
    Within(Place, String),
    /// A range of bytes: for what the TOML parser reports itself.
    Bytes(std::ops::Range<usize>),
}

impl Diagnostic {
    /// A problem that keeps the pipeline from running, at its primary place.
    pub fn error(place: Mark, message: impl Into<String>) -> Self {
        Diagnostic::at(Severity::Error, place, message.into())
    }

    /// A problem that is probably not what was meant.
    pub fn warning(place: Mark, message: impl Into<String>) -> Self {
        Diagnostic::at(Severity::Warning, place, message.into())
    }

    /// Something worth knowing about a place.
    pub fn note_at(place: Mark, message: impl Into<String>) -> Self {
        Diagnostic::at(Severity::Note, place, message.into())
    }

    /// Something worth knowing about the file as a whole.
    pub fn note(message: impl Into<String>) -> Self {
        Diagnostic {
            severity: Severity::Note,
            message: message.into(),
            labels: Vec::new(),
            help: None,
        }
    }

    fn at(severity: Severity, place: Mark, message: String) -> Self {
        let labels = vec![Label {
            place,
            text: String::new(),
        }];
        Diagnostic {
            severity,
            message,
            labels,
            help: None,
        }
    }

    /// Sets the words at the primary mark.
    #[must_use]
    pub fn label(mut self, text: impl Into<String>) -> Self {
        if let Some(primary) = self.labels.first_mut() {
            primary.text = text.into();
        }
        self
    }

    /// Adds another marked place that explains.
    #[must_use]
    pub fn and(mut self, place: Mark, text: impl Into<String>) -> Self {
        self.labels.push(Label {
            place,
            text: text.into(),
        });
        self
    }

    /// Sets the way out.
    #[must_use]
    pub fn help(mut self, text: impl Into<String>) -> Self {
        self.help = Some(text.into());
        self
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Error => "error",
        })
    }
}

/// Looks up the lines of places in one text, for commands that say where a value comes from.
pub struct Lines<'i> {
    spans: spans::Spans<'i>,
    text: &'i str,
}

impl<'i> Lines<'i> {
    /// Parses the text.
    pub fn of(text: &'i str) -> Self {
        Lines {
            spans: spans::Spans::of(text),
            text,
        }
    }

    /// The line of a key, from 1.
    pub fn of_key(&self, place: &Place) -> Option<usize> {
        let at = self.spans.find(&Mark::Key(place.clone()))?.start;
        let before = self.text.as_bytes().get(..at)?;
        Some(memchr::memchr_iter(b'\n', before).count() + 1)
    }
}

/// The candidate that `word` was probably meant to be: the nearest, if no more than a third of its letters is wrong.
pub fn did_you_mean<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    // Distance is quadratic: nobody mistypes a word this long, but a file may hold one.
    if word.len() > 100 {
        return None;
    }
    candidates
        .into_iter()
        .filter(|candidate| candidate.len() <= 100 && *candidate != word)
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, candidate)| {
            *distance <= (word.chars().count().max(candidate.chars().count()) / 3).max(1)
        })
        // A word of one letter is one step from every other.
        .filter(|(_, candidate)| word.chars().count() > 1 || candidate.eq_ignore_ascii_case(word))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// What the system says, as a part of a message: without Rust's "(os error 2)", and in lower case.
pub fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    let words = text
        .split_once(" (os error")
        .map_or(&*text, |(words, _)| words);
    let mut letters = words.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_lowercase().chain(letters).collect()
    })
}

/// `text` with everything that could move a terminal's cursor, hide or turn text shown as an escape.
pub fn harmless(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        // Bidirectional controls can make a line read as what it is not.
        let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if c.is_control() || turns {
            safe.extend(c.escape_default());
        } else {
            safe.push(c);
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use crate::diagnostic::{Place, did_you_mean, harmless};

    #[test]
    fn slips_are_understood_and_other_words_left_alone() {
        let known = ["command", "cwd", "stdin", "stdout", "stderr", "after"];
        for (word, meant) in [
            ("comand", Some("command")),
            ("comamnd", Some("command")),
            ("stdou", Some("stdout")),
            ("sdtin", Some("stdin")),
            ("afetr", Some("after")),
            ("cdw", Some("cwd")),
            ("pool", None),
            ("x", None),
            ("", None),
            ("command", None),
        ] {
            assert_eq!(did_you_mean(word, known), meant, "{word}");
        }
        assert_eq!(did_you_mean(&"x".repeat(100_000), known), None);
    }

    #[test]
    fn places_have_names() {
        assert_eq!(Place::default().in_words(), "the pipeline");
        assert_eq!(Place::of(&["run", "jobs"]).in_words(), "`run.jobs`");
        assert_eq!(Place::of(&["process"]).in_words(), "`process`");
        assert_eq!(Place::of(&["process", "a"]).in_words(), "process `a`");
        assert_eq!(
            Place::of(&["queue", "q", "merge"]).in_words(),
            "`merge` of queue `q`"
        );
        assert_eq!(Place::of(&["params", "p"]).in_words(), "parameter `p`");
        assert_eq!(
            Place::of(&["process", "a", "after"])
                .index(1)
                .key("state")
                .in_words(),
            "`after[1].state` of process `a`"
        );
    }

    #[test]
    fn text_is_made_harmless_and_else_left_as_it_is() {
        assert_eq!(
            harmless("a\tb\u{1b}[2J\u{9b}\u{202e}ä 日本\u{7f}"),
            "a\\tb\\u{1b}[2J\\u{9b}\\u{202e}ä 日本\\u{7f}"
        );
    }
}
