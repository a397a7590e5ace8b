//! Logs of CI servers: which of them shows what we say ([`Host`]), and what it lets one do with a log: fold a node's output, and
//! put a failure at its line of the pipeline file.
//!
//! GitHub Actions obeys lines of a step's output, standard output and standard error alike: those that begin, after spaces, with
//! `::`, and, a relic, `##[...]` anywhere in a line. So whatever we say passes [`harmless`], but for our own commands, and a
//! node's output stands between commands that switch commands off and on by a token that nobody can guess. (A character without
//! width within `##[` would not do: the runner compares as a language does, which passes over such characters.)
//!
//! Of GitLab only a section's marks matter. They need a carriage return and an escape, which no line of a child has left.

use std::collections::hash_map::RandomState;
use std::fmt::Write;
use std::hash::BuildHasher;
use std::time::Duration;

use crate::diagnostic::{github_message, github_property};
use crate::plan::NodeId;
use crate::report::places::Places;

/// Who shows what we say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Host {
    /// Nobody whom we know.
    #[default]
    Other,
    /// GitHub Actions, or what behaves as it does (Gitea, Forgejo).
    GitHub,
    /// GitLab CI.
    GitLab,
}

impl Host {
    /// From environment variables, by this look-up. Each says `true` of itself.
    pub fn from_env(var: impl Fn(&str) -> Option<String>) -> Self {
        let says = |name| var(name).is_some_and(|value| value == "true");
        if says("GITHUB_ACTIONS") {
            Host::GitHub
        } else if says("GITLAB_CI") {
            Host::GitLab
        } else {
            Host::Other
        }
    }
}

/// A line that begins with it is said as it stands, without it: it is a command of ours, or stands where none is obeyed. It is a
/// control character, which no text that we show has left.
pub const OWN: char = '\u{1}';

/// What is said, as this host is to see it.
pub fn harmless(host: Host, text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        if let Some(own) = line.strip_prefix(OWN) {
            out.push_str(own);
        } else if host == Host::GitHub {
            let trimmed = line.trim_start();
            out.push_str(line.strip_suffix(trimmed).unwrap_or_default());
            let rest = match trimmed.strip_prefix("::") {
                Some(rest) => {
                    out.push_str(": :");
                    rest
                }
                None => trimmed,
            };
            out.push_str(&rest.replace("##[", "## ["));
        } else {
            out.push_str(line);
        }
    }
    out
}

/// What a server's log is told of a run.
#[derive(Debug)]
pub struct Log {
    host: Host,
    places: Places,
    /// For tokens: keys that the kernel drew, which nobody else knows.
    keys: RandomState,
    sections: u64,
}

/// How an annotation is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Red.
    Error,
    /// Yellow.
    Warning,
}

/// A part of the log that can be folded, as long as it is open.
#[derive(Debug)]
pub struct Section(String);

impl Log {
    /// For this host; `places` name the file as it stands in the repository.
    pub fn new(host: Host, places: Places) -> Self {
        Log {
            host,
            places,
            keys: RandomState::new(),
            sections: 0,
        }
    }

    /// Opens a section of this title (with its newline). `time`: when what it tells of began, since 1970. `folded`: where one may
    /// choose, it is not shown until one asks for it.
    pub fn open(
        &mut self,
        out: &mut String,
        node: NodeId,
        title: &str,
        time: Duration,
        folded: bool,
    ) -> Option<Section> {
        self.sections += 1;
        match self.host {
            Host::Other => {
                out.push_str(title);
                None
            }
            Host::GitHub => {
                let token = self.token();
                let title = github_message(title.trim_end());
                let _ = writeln!(out, "{OWN}::group::{title}");
                let _ = writeln!(out, "{OWN}::stop-commands::{token}");
                Some(Section(token))
            }
            Host::GitLab => {
                // The name must be the only one of its kind in the log.
                let name = format!("procflow-{}-{}", node.0, self.sections);
                let collapsed = if folded { "[collapsed=true]" } else { "" };
                let _ = write!(
                    out,
                    "{OWN}\x1b[0Ksection_start:{}:{name}{collapsed}\r\x1b[0K{title}",
                    time.as_secs()
                );
                Some(Section(name))
            }
        }
    }

    /// Adds a line to an open section.
    pub fn line(&self, out: &mut String, section: Option<&Section>, line: &str) {
        if section.is_some() {
            out.push(OWN);
        }
        out.push_str(line);
        out.push('\n');
    }

    /// Closes a section. `time`: when what it tells of ended.
    pub fn close(&self, out: &mut String, section: Option<Section>, time: Duration) {
        let Some(Section(name)) = section else {
            return;
        };
        let _ = match self.host {
            Host::Other => Ok(()),
            Host::GitHub => writeln!(out, "{OWN}::{name}::\n{OWN}::endgroup::"),
            Host::GitLab => writeln!(
                out,
                "{OWN}\x1b[0Ksection_end:{}:{name}\r\x1b[0K",
                time.as_secs()
            ),
        };
    }

    /// Puts a message at the node's line of the pipeline file, where the host can do that.
    pub fn annotate(&self, out: &mut String, level: Level, node: NodeId, title: &str, text: &str) {
        if self.host != Host::GitHub {
            return;
        }
        let command = match level {
            Level::Error => "error",
            Level::Warning => "warning",
        };
        let _ = write!(out, "{OWN}::{command} ");
        if !self.places.file.is_empty() {
            let _ = write!(out, "file={},", github_property(&self.places.file));
            if let Some((line, column)) = self.places.of(node) {
                let _ = write!(out, "line={line},col={column},");
            }
        }
        let _ = writeln!(
            out,
            "title={}::{}",
            github_property(title),
            github_message(text)
        );
    }

    /// A word that no node can have known before it printed its last line.
    fn token(&self) -> String {
        let half = |half: u8| self.keys.hash_one((self.sections, half));
        format!("{:016x}{:016x}", half(0), half(1))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn servers_are_told_by_their_variables() {
        let host = |set: &[(&str, &str)]| {
            Host::from_env(|name| {
                let found = set.iter().find(|(set, _)| *set == name);
                found.map(|(_, value)| (*value).to_owned())
            })
        };
        for (set, expected) in [
            (&[][..], Host::Other),
            (&[("CI", "true")], Host::Other),
            (&[("CI", "true"), ("GITHUB_ACTIONS", "true")], Host::GitHub),
            (&[("GITHUB_ACTIONS", "")], Host::Other),
            (&[("GITHUB_ACTIONS", "false")], Host::Other),
            (&[("CI", "true"), ("GITLAB_CI", "true")], Host::GitLab),
            (&[("GITLAB_CI", "")], Host::Other),
            // act, within a GitLab job.
            (
                &[("GITLAB_CI", "true"), ("GITHUB_ACTIONS", "true")],
                Host::GitHub,
            ),
        ] {
            assert_eq!(host(set), expected, "{set:?}");
        }
    }

    #[test]
    fn what_is_no_command_of_ours_is_none() {
        let text = "::error::x\n  \t::add-mask::y\nsays ##[error]z and ##[group]\n\u{1}::group::own\nplain :: text\n";
        assert_eq!(
            harmless(Host::GitHub, text),
            ": :error::x\n  \t: :add-mask::y\nsays ## [error]z and ## [group]\n::group::own\nplain :: text\n"
        );
        assert_eq!(harmless(Host::GitLab, "::x\n\u{1}y\n"), "::x\ny\n");
    }

    #[test]
    fn an_annotation_cannot_be_broken_out_of() {
        let mut places = Places::default();
        "a,b:%.toml".clone_into(&mut places.file);
        let log = Log::new(Host::GitHub, places);
        let mut out = String::new();
        log.annotate(
            &mut out,
            Level::Error,
            NodeId(0),
            "x::y,z\r",
            "1%\n::error::2",
        );
        assert_eq!(
            harmless(Host::GitHub, &out),
            "::error file=a%2Cb%3A%25.toml,title=x%3A%3Ay%2Cz%0D::1%25%0A::error::2\n"
        );
    }

    proptest! {
        /// Whatever is said, the runner finds no command in it.
        #[test]
        fn the_runner_obeys_nothing(text in "[ \t:#\\[\\]a\n]{0,60}") {
            for line in harmless(Host::GitHub, &text).lines() {
                prop_assert!(!line.trim_start().starts_with("::"), "{:?}", line);
                prop_assert!(!line.contains("##["), "{:?}", line);
            }
        }
    }
}
