//! Problems while they are found: where ([`Site`], a place that costs nothing until there is something to say) and what
//! (collected in [`Problems`]). It doesn't know how problems are shown.

use std::fmt::Write as _;

use crate::diagnostic::{Diagnostic, Mark, Place, Severity, Step, did_you_mean};
use crate::plan::params::SHORTEST_SECRET;

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
    /// Words in the value of the step before.
    Words(&'a str),
}

impl<'a> Site<'a> {
    /// A key of the whole file.
    pub(super) fn top(key: &'a str) -> Site<'a> {
        Site {
            parent: None,
            step: SiteStep::Key(key),
        }
    }

    /// A key of the table at this place.
    pub(super) fn key<'b>(&'b self, key: &'b str) -> Site<'b> {
        Site {
            parent: Some(self),
            step: SiteStep::Key(key),
        }
    }

    /// An element of the array at this place.
    pub(super) fn index(&self, index: usize) -> Site<'_> {
        Site {
            parent: Some(self),
            step: SiteStep::Index(index),
        }
    }

    /// Words in the value at this place.
    pub(super) fn words<'b>(&'b self, words: &'b str) -> Site<'b> {
        Site {
            parent: Some(self),
            step: SiteStep::Words(words),
        }
    }

    /// The place itself.
    pub(super) fn place(&self) -> Place {
        let mut steps = Vec::new();
        let mut at = Some(self);
        while let Some(site) = at {
            steps.push(match site.step {
                SiteStep::Key(key) => Step::Key(key.to_owned()),
                SiteStep::Index(index) => Step::Index(index),
                SiteStep::Words(_) => {
                    at = site.parent;
                    continue;
                }
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
        match self.step {
            SiteStep::Words(words) => Mark::Within(self.place(), words.to_owned()),
            SiteStep::Key(_) | SiteStep::Index(_) => Mark::Value(self.place()),
        }
    }
}

/// So many problems get a "did you mean".
const SUGGESTED: usize = 100;

/// All problems so far, in the order they were found.
#[derive(Debug, Default)]
pub(super) struct Problems(pub(super) Vec<Diagnostic>);

impl Problems {
    /// Adds one.
    pub(super) fn push(&mut self, problem: Diagnostic) {
        self.0.push(problem);
    }

    /// Adds one about a word that is unknown: with the nearest candidate as its help, else with `otherwise`.
    pub(super) fn push_unknown<'a>(
        &mut self,
        problem: Diagnostic,
        word: &str,
        candidates: impl IntoIterator<Item = &'a str>,
        otherwise: Option<String>,
    ) {
        // A look at 100,000 names for each of 100,000 wrong ones would take minutes, and nobody reads on that far.
        let near = if self.0.len() < SUGGESTED {
            did_you_mean(word, candidates)
        } else {
            None
        };
        let help = near
            .map(|near| format!("did you mean `{near}`?"))
            .or(otherwise);
        self.0.push(match help {
            Some(help) => problem.help(help),
            None => problem,
        });
    }

    /// Puts `***` in place of secrets: a problem may show what a name stands for.
    pub(super) fn hide(&mut self, secrets: &[String]) {
        // One may be a part of another: the longest first.
        let mut secrets: Vec<&str> = secrets.iter().map(String::as_str).collect();
        secrets.sort_unstable_by_key(|secret| std::cmp::Reverse(secret.len()));
        // A shorter one is a problem itself, and would blot out letters of every message.
        for secret in secrets
            .into_iter()
            .filter(|secret| secret.len() >= SHORTEST_SECRET)
        {
            let hide = |text: &mut String| {
                if text.contains(secret) {
                    *text = text.replace(secret, "***");
                }
            };
            for problem in &mut self.0 {
                hide(&mut problem.message);
                problem.help.iter_mut().for_each(hide);
                problem
                    .labels
                    .iter_mut()
                    .for_each(|label| hide(&mut label.text));
            }
        }
    }

    /// Whether one of them keeps the pipeline from running.
    pub(super) fn fatal(&self) -> bool {
        self.fatal_since(0)
    }

    /// Whether one of them from this number on does.
    pub(super) fn fatal_since(&self, first: usize) -> bool {
        let mut since = self.0.iter().skip(first);
        since.any(|p| p.severity == Severity::Error)
    }

    /// Takes out those from `first` on that are told since `before` already: what is said of one of several that were made of the
    /// same words holds for all.
    pub(super) fn once(&mut self, before: usize, first: usize) {
        for problem in self.0.split_off(first) {
            // Each of thousands may have its own: a look at all of them for each would take minutes.
            let told = self.0.iter().skip(before).take(SUGGESTED);
            if !told.clone().any(|told| *told == problem) {
                self.0.push(problem);
            }
        }
    }
}

/// Whether this may be the name of a node, queue, param or end: `[A-Za-z_][A-Za-z0-9_-]*`.
pub(super) fn is_name(word: &str) -> bool {
    let mut bytes = word.bytes();
    bytes
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// What is said of a name that [`is_name`] refuses.
pub(super) const NAME_RULE: &str =
    "names begin with a letter or `_` and go on with letters, digits, `_` and `-`";

/// A problem without a place in the file: of the command line, or with all its places added.
pub(super) fn error(message: impl Into<String>) -> Diagnostic {
    Diagnostic {
        severity: Severity::Error,
        message: message.into(),
        labels: Vec::new(),
        help: None,
    }
}

/// The part of a variable's name that stands for `name`: upper case, `-` as `_`. In the name of a matrix node all that a variable
/// can't have is `_`, but for the bracket at its end: `TEST_PY_3_12`.
pub fn variable(name: &str) -> String {
    let of_matrix = name.contains('[');
    name.trim_end_matches(']')
        .chars()
        .map(|c| {
            if c == '-' || of_matrix && !c.is_ascii_alphanumeric() {
                '_'
            } else {
                c.to_ascii_uppercase()
            }
        })
        .collect()
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
    use crate::plan::problems::{is_name, listed, variable};

    #[test]
    fn names() {
        for good in ["a", "_", "word-count", "A1"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "1", "-a", "a b", "a.b", "ä", "a\n"] {
            assert!(!is_name(bad), "{bad}");
        }
        assert_eq!(variable("word-count"), "WORD_COUNT");
        assert_eq!(variable("test[py=3.12,db=pg]"), "TEST_PY_3_12_DB_PG");
    }

    #[test]
    fn lists_stay_short() {
        assert_eq!(listed(["a"]), "`a`");
        assert_eq!(listed(["a", "b"]), "`a` and `b`");
        assert_eq!(listed(["a", "b", "c"]), "`a`, `b` and `c`");
        assert_eq!(
            listed(["a", "b", "c", "d", "e", "f", "g"]),
            "`a`, `b`, `c`, `d`, `e` and 2 more"
        );
    }
}
