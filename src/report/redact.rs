//! [`Redactor`]: replaces values of secrets by `***`, in texts and in streams.
//!
//! A stream comes in chunks, and a secret may lie across two. So the end of a chunk that a secret could begin in is held back
//! until more is known: [`Held`] keeps it, one for each stream.

use std::borrow::Cow;

use aho_corasick::{AhoCorasick, MatchKind};

/// What stands where a secret stood.
const MASK: &str = "***";

/// Lines of a secret of several lines are secrets as well, where they have so many bytes: programs print line by line.
/// Shorter ones, `}` for instance, would blot out more than they protect.
const SHORTEST_LINE: usize = 4;

/// Finds secrets. Without any it costs nothing: texts and chunks are passed through as they are.
#[derive(Debug, Default)]
pub struct Redactor(Option<Matcher>);

#[derive(Debug)]
struct Matcher {
    find: AhoCorasick,
    secrets: Vec<Vec<u8>>,
}

/// The end of a stream's last chunk, held back because a secret may begin in it.
#[derive(Debug, Default)]
pub struct Held(Vec<u8>);

impl Redactor {
    /// A redactor of these values (`Plan::secrets`). Empty ones are left out.
    pub fn new(values: &[String]) -> Self {
        let mut secrets: Vec<Vec<u8>> = Vec::new();
        for value in values.iter().filter(|v| !v.is_empty()) {
            secrets.push(value.as_bytes().to_vec());
            if value.contains('\n') {
                let lines = value.lines().filter(|line| line.len() >= SHORTEST_LINE);
                secrets.extend(lines.map(|line| line.as_bytes().to_vec()));
            }
        }
        secrets.sort_unstable();
        secrets.dedup();
        if secrets.is_empty() {
            return Redactor(None);
        }
        match AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(&secrets)
        {
            Ok(find) => Redactor(Some(Matcher { find, secrets })),
            // Its limits are gigabytes of patterns; a pipeline file has 8 MiB at most.
            Err(e) => panic!(
                "BUG: secrets of {} bytes do not fit a matcher: {e}",
                secrets.concat().len()
            ),
        }
    }

    /// Whether there is anything to hide.
    pub fn is_idle(&self) -> bool {
        self.0.is_none()
    }

    /// A whole text without its secrets.
    pub fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match &self.0 {
            Some(m) if m.find.is_match(text) => {
                Cow::Owned(m.find.replace_all(text, &vec![MASK; m.find.patterns_len()]))
            }
            _ => Cow::Borrowed(text),
        }
    }

    /// Whole bytes without their secrets.
    pub fn bytes<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        match &self.0 {
            Some(m) if m.find.is_match(bytes) => Cow::Owned(
                m.find
                    .replace_all_bytes(bytes, &vec![MASK.as_bytes(); m.find.patterns_len()]),
            ),
            _ => Cow::Borrowed(bytes),
        }
    }

    /// What can be shown of a stream after its next chunk: what was held back and the chunk, without secrets, but for an
    /// end that may turn out to be the beginning of one.
    pub fn chunk<'a>(&self, held: &mut Held, chunk: &'a [u8]) -> Cow<'a, [u8]> {
        let Some(matcher) = &self.0 else {
            return Cow::Borrowed(chunk);
        };
        let mut data = std::mem::take(&mut held.0);
        data.extend_from_slice(chunk);
        let mut shown = Vec::with_capacity(data.len());
        let mut from = 0;
        let settled = data.len() - matcher.open_end(&data);
        for found in matcher.find.find_iter(&data) {
            // What begins in the open end may go on in the next chunk as a longer secret.
            if found.start() >= settled {
                break;
            }
            shown.extend_from_slice(data.get(from..found.start()).unwrap_or_default());
            shown.extend_from_slice(MASK.as_bytes());
            from = found.end();
        }
        let keep = settled.max(from);
        shown.extend_from_slice(data.get(from..keep).unwrap_or_default());
        held.0 = data.split_off(keep);
        Cow::Owned(shown)
    }

    /// The stream has ended: what was held back.
    pub fn end(&self, held: &mut Held) -> Vec<u8> {
        let data = std::mem::take(&mut held.0);
        match self.bytes(&data) {
            Cow::Borrowed(_) => data,
            Cow::Owned(redacted) => redacted,
        }
    }
}

impl Matcher {
    /// Length of the longest end of `data` that some secret begins with and is not all of it.
    fn open_end(&self, data: &[u8]) -> usize {
        let longest = |secret: &Vec<u8>| {
            let most = (secret.len() - 1).min(data.len());
            (1..=most)
                .rev()
                .find(|n| data.ends_with(&secret[..*n]))
                .unwrap_or(0)
        };
        self.secrets.iter().map(longest).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn redactor(secrets: &[&str]) -> Redactor {
        Redactor::new(&secrets.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn without_secrets_everything_passes() {
        let redactor = redactor(&["", ""]);
        assert!(redactor.is_idle());
        assert!(matches!(
            redactor.chunk(&mut Held::default(), b"ab"),
            Cow::Borrowed(b"ab")
        ));
    }

    #[test]
    fn the_longest_secret_wins_and_lines_of_one_count() {
        let redactor = redactor(&["key", "keyboard", "begin\nmiddle\n}\n"]);
        assert_eq!(
            redactor.text("a keyboard, a key, > middle <, }"),
            "a ***, a ***, > *** <, }"
        );
    }

    #[test]
    fn an_end_that_may_begin_a_secret_waits() {
        let redactor = redactor(&["hunter2"]);
        let mut held = Held::default();
        assert_eq!(&*redactor.chunk(&mut held, b"a hunt"), b"a ");
        assert_eq!(&*redactor.chunk(&mut held, b"er"), b"");
        assert_eq!(&*redactor.chunk(&mut held, b"2 b hu"), b"*** b ");
        assert_eq!(redactor.end(&mut held), b"hu");
    }

    #[test]
    fn a_secret_that_another_goes_on_from_waits_for_it() {
        let redactor = redactor(&["key", "keyboard"]);
        let mut held = Held::default();
        assert_eq!(&*redactor.chunk(&mut held, b"a key"), b"a ");
        assert_eq!(&*redactor.chunk(&mut held, b"board"), b"***");
        assert_eq!(&*redactor.chunk(&mut held, b" key"), b" ");
        assert_eq!(redactor.end(&mut held), b"***");
    }

    proptest! {
        /// However it is cut, a stream shows what the whole would show.
        #[test]
        fn cuts_do_not_matter(
            text in "[abc]{0,40}",
            secrets in prop::collection::vec("[abc]{1,5}", 0..4),
            cuts in prop::collection::vec(1usize..6, 0..40),
        ) {
            let redactor = Redactor::new(&secrets);
            let (mut held, mut shown, mut rest) = (Held::default(), Vec::new(), text.as_bytes());
            for cut in cuts {
                let (chunk, after) = rest.split_at(cut.min(rest.len()));
                shown.extend_from_slice(&redactor.chunk(&mut held, chunk));
                rest = after;
            }
            shown.extend_from_slice(&redactor.chunk(&mut held, rest));
            shown.extend_from_slice(&redactor.end(&mut held));
            prop_assert_eq!(String::from_utf8_lossy(&shown), redactor.text(&text));
        }
    }
}
