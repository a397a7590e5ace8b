//! Problems while they are found: where ([`Site`], a place that costs nothing until there is something to say) and what
//! (small constructors for [`Diagnostic`]). It doesn't know how problems are shown.

use std::fmt::Write as _;

use crate::diagnostic::{Diagnostic, Label, Mark, Place, Severity, Step};

/// A place in the file as a chain on the stack: planning 100,000 nodes passes hundreds of thousands of them and builds a
/// [`Place`] only for those that have a problem.
#[derive(Debug, Clone, Copy)]
pub(super) struct Site<'a> {
    parent: Option<&'a Site<'a>>,
    step: SiteStep<'a>,
}

#[derive(Debug, Clone, Copy)]
enum SiteStep<'a> {
    Key(&'a str),
    Index(usize),
}

impl<'a> Site<'a> {
    /// A key of the whole file.
    pub(super) fn top(key: &'a str) -> Site<'a> {
        Site { parent: None, step: SiteStep::Key(key) }
    }

    /// A key of the table at this place.
    pub(super) fn key<'b>(&'b self, key: &'b str) -> Site<'b> {
        Site { parent: Some(self), step: SiteStep::Key(key) }
    }

    /// An element of the array at this place.
    pub(super) fn index(&self, index: usize) -> Site<'_> {
        Site { parent: Some(self), step: SiteStep::Index(index) }
    }

    /// The place itself.
    pub(super) fn place(&self) -> Place {
        let mut steps = Vec::new();
        let mut at = Some(self);
        while let Some(site) = at {
            steps.push(match site.step {
                SiteStep::Key(key) => Step::Key(key.to_owned()),
                SiteStep::Index(index) => Step::Index(index),
            });
            at = site.parent;
        }
        steps.reverse();
        Place(steps)
    }

    /// The key here (for a table: its header).
    pub(super) fn mark_key(&self) -> Mark {
        Mark::Key(self.place())
    }

    /// The value here.
    pub(super) fn mark_value(&self) -> Mark {
        Mark::Value(self.place())
    }
}

/// All problems so far, in the order they were found.
#[derive(Debug, Default)]
pub(super) struct Problems(pub(super) Vec<Diagnostic>);

impl Problems {
    /// Adds one.
    pub(super) fn push(&mut self, problem: Diagnostic) {
        self.0.push(problem);
    }

    /// Whether one of them keeps the pipeline from running.
    pub(super) fn fatal(&self) -> bool {
        self.0.iter().any(|p| p.severity == Severity::Error)
    }
}

/// Chaining for [`Diagnostic`].
pub(super) trait Chain {
    /// Another marked place.
    fn at(self, place: Mark, text: impl Into<String>) -> Self;
    /// The way out.
    fn hint(self, help: impl Into<String>) -> Self;
    /// "did you mean ..?", where a candidate is near `word`; leaves a help that is there already.
    fn did_you_mean<'a>(self, word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Self;
}

impl Chain for Diagnostic {
    fn at(mut self, place: Mark, text: impl Into<String>) -> Self {
        self.labels.push(Label { place, text: text.into() });
        self
    }

    fn hint(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    fn did_you_mean<'a>(mut self, word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Self {
        if let (None, Some(near)) = (&self.help, nearest(word, candidates)) {
            self.help = Some(format!("did you mean `{near}`?"));
        }
        self
    }
}

fn problem(severity: Severity, message: String, place: Option<Mark>) -> Diagnostic {
    let labels = place.map(|place| Label { place, text: String::new() }).into_iter().collect();
    Diagnostic { severity, message, labels, help: None }
}

/// An error at a place of the file; its own text at the mark is added by the first [`Chain::at`]'s caller where needed.
pub(super) fn error(place: Mark, message: impl Into<String>) -> Diagnostic {
    problem(Severity::Error, message.into(), Some(place))
}

/// An error of the command line.
pub(super) fn error_of_command_line(message: impl Into<String>) -> Diagnostic {
    problem(Severity::Error, message.into(), None)
}

/// A warning at a place of the file.
pub(super) fn warning(place: Mark, message: impl Into<String>) -> Diagnostic {
    problem(Severity::Warning, message.into(), Some(place))
}

/// A note without a place of its own: labels are added.
pub(super) fn note(message: impl Into<String>) -> Diagnostic {
    problem(Severity::Note, message.into(), None)
}

/// An error whose places are all added as labels.
pub(super) fn error_of(message: impl Into<String>) -> Diagnostic {
    problem(Severity::Error, message.into(), None)
}

/// The candidate that `word` was most probably meant to be.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A third of the longer word may differ: the measure that rustc uses, too.
    candidates
        .into_iter()
        .filter(|candidate| *candidate != word)
        // A length that differs by more than that cannot be near: spares the quadratic measure for most of 100,000 names.
        .filter(|candidate| candidate.len().abs_diff(word.len()) <= candidate.len().max(word.len()).max(3) / 3)
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= candidate.len().max(word.len()).max(3) / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Whether this may be the name of a node, queue, param or end: `[A-Za-z_][A-Za-z0-9_-]*`.
pub(super) fn is_name(word: &str) -> bool {
    let mut bytes = word.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// What is said of a name that [`is_name`] refuses.
pub(super) const NAME_RULE: &str = "names begin with a letter or `_` and go on with letters, digits, `_` and `-`";

/// The part of a variable's name that stands for `name`: upper case, `-` as `_`.
pub(super) fn variable(name: &str) -> String {
    name.chars().map(|c| if c == '-' { '_' } else { c.to_ascii_uppercase() }).collect()
}

/// "`a`", "`a` and `b`", "`a`, `b` and `c`"; from the sixth on "and N more".
pub(super) fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    const SHOWN: usize = 5;
    let names: Vec<&str> = names.into_iter().collect();
    let mut text = String::new();
    for (i, name) in names.iter().take(SHOWN).enumerate() {
        if i > 0 {
            text.push_str(if i + 1 == names.len() { " and " } else { ", " });
        }
        let _ = write!(text, "`{name}`");
    }
    if names.len() > SHOWN {
        let _ = write!(text, " and {} more", names.len() - SHOWN);
    }
    text
}

#[cfg(test)]
mod tests {
    use crate::plan::problems::{is_name, listed, nearest, variable};

    #[test]
    fn the_nearest_name_is_near_or_none() {
        assert_eq!(nearest("srot", ["sort", "count"]), Some("sort"));
        assert_eq!(nearest("sort", ["sort"]), None);
        assert_eq!(nearest("a", ["b"]), Some("b"));
        assert_eq!(nearest("upload", ["sort", "count"]), None);
    }

    #[test]
    fn names() {
        for good in ["a", "_", "word-count", "A1"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "1", "-a", "a b", "a.b", "ä", "a\n"] {
            assert!(!is_name(bad), "{bad}");
        }
        assert_eq!(variable("word-count"), "WORD_COUNT");
    }

    #[test]
    fn lists_stay_short() {
        assert_eq!(listed(["a"]), "`a`");
        assert_eq!(listed(["a", "b"]), "`a` and `b`");
        assert_eq!(listed(["a", "b", "c"]), "`a`, `b` and `c`");
        assert_eq!(listed(["a", "b", "c", "d", "e", "f", "g"]), "`a`, `b`, `c`, `d`, `e` and 2 more");
    }
}
