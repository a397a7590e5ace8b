//! What is wrong with a pipeline file, and where: collected while it is read and planned, all shown at once.
//!
//! A problem names a [`Place`], the path of a key in the file (`process.sort.after[1]`), not a byte range: a file without
//! problems then never pays for spans. They are looked up by parsing the text again when there is something to show.

use std::fmt;

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
    /// A range of bytes: for what the TOML parser reports itself.
    Bytes(std::ops::Range<usize>),
}
