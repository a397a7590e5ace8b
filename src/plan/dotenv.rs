//! Dotenv files: lines of `NAME=value`, with the quotes, escapes and `$NAME` that a shell's reader would expect. It knows
//! nothing of files and of where the variables go.
//!
//! The crate dotenvy was used before: it reads `$A_B` as `$A` and `_B`, refuses `"$A"`, and takes an inherited variable
//! where the file has set one of that name.

/// A line that is none, where it begins.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    /// From 1.
    pub(super) line: usize,
    /// What stands before its `=`: the value may be a secret.
    pub(super) name: String,
}

/// Variables in the file's order, and the lines that are none. `$NAME` is what the file said before, else `outer`, else
/// nothing.
pub(super) fn parse(
    text: &str,
    outer: &dyn Fn(&str) -> Option<String>,
) -> (Vec<(String, String)>, Vec<Wrong>) {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (mut known, mut wrong) = (Vec::new(), Vec::new());
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        let first = rest.lines().next().unwrap_or_default();
        if rest.is_empty() {
            return (known, wrong);
        }
        if first.starts_with('#') {
            rest = &rest[first.len()..];
            continue;
        }
        let mut reader = Reader {
            rest,
            known: &known,
            outer,
        };
        match reader.variable() {
            Some(variable) => {
                rest = reader.rest;
                known.push(variable);
            }
            None => {
                let before = &text[..text.len() - rest.len()];
                wrong.push(Wrong {
                    line: memchr::memchr_iter(b'\n', before.as_bytes()).count() + 1,
                    name: first
                        .split('=')
                        .next()
                        .unwrap_or_default()
                        .trim()
                        .to_owned(),
                });
                rest = &rest[first.len()..];
            }
        }
    }
}

struct Reader<'t, 'k> {
    rest: &'t str,
    known: &'k [(String, String)],
    outer: &'k dyn Fn(&str) -> Option<String>,
}

impl<'t> Reader<'t, '_> {
    /// `[export] NAME = value`, up to the end of its line.
    fn variable(&mut self) -> Option<(String, String)> {
        if let Some(behind) = self.rest.strip_prefix("export")
            && behind.starts_with([' ', '\t'])
        {
            self.rest = behind;
            self.blanks();
        }
        let name = self.take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
        if !name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
            return None;
        }
        self.blanks();
        self.rest = self.rest.strip_prefix('=')?;
        let value = self.value()?;
        Some((name.to_owned(), value))
    }

    fn value(&mut self) -> Option<String> {
        let mut value = String::new();
        let mut begun = false;
        loop {
            if self.blanks() {
                // Only a comment can follow, except at the value's very beginning.
                if self.at_end() || self.rest.starts_with('#') {
                    self.take_while(|c| c != '\n');
                    return Some(value);
                }
                if begun {
                    return None;
                }
            }
            begun = true;
            if self.at_end() {
                return Some(value);
            }
            match self.next()? {
                '\'' => {
                    let (quoted, behind) = self.rest.split_once('\'')?;
                    value.push_str(quoted);
                    self.rest = behind;
                }
                '"' => self.quoted(&mut value)?,
                '\\' => value.push(self.next().filter(|c| *c != '\n')?),
                '$' => self.put_variable(&mut value)?,
                other => value.push(other),
            }
        }
    }

    /// What stands between double quotes, up to the second.
    fn quoted(&mut self, value: &mut String) -> Option<()> {
        loop {
            match self.next()? {
                '"' => return Some(()),
                '$' => self.put_variable(value)?,
                '\\' => match self.next()? {
                    'n' => value.push('\n'),
                    'r' => value.push('\r'),
                    't' => value.push('\t'),
                    c @ ('\\' | '"' | '\'' | '$' | '`') => value.push(c),
                    other => value.extend(['\\', other]),
                },
                other => value.push(other),
            }
        }
    }

    /// What `$NAME` or `${NAME}` stands for; its `$` has been read.
    fn put_variable(&mut self, value: &mut String) -> Option<()> {
        let braces = self.rest.strip_prefix('{');
        self.rest = braces.unwrap_or(self.rest);
        let name = self.take_while(|c| c.is_ascii_alphanumeric() || c == '_');
        if braces.is_some() {
            self.rest = self.rest.strip_prefix('}')?;
            if name.is_empty() {
                return None;
            }
        }
        if name.is_empty() {
            value.push('$');
        } else if let Some((_, known)) = self.known.iter().rev().find(|(known, _)| known == name) {
            value.push_str(known);
        } else {
            value.push_str(&(self.outer)(name).unwrap_or_default());
        }
        Some(())
    }

    /// Skips blanks; whether there were any.
    fn blanks(&mut self) -> bool {
        !self.take_while(|c| matches!(c, ' ' | '\t')).is_empty()
    }

    fn at_end(&self) -> bool {
        self.rest.is_empty() || self.rest.starts_with('\n') || self.rest.starts_with("\r\n")
    }

    fn next(&mut self) -> Option<char> {
        let c = self.rest.chars().next()?;
        self.rest = &self.rest[c.len_utf8()..];
        Some(c)
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> &'t str {
        let end = self.rest.find(|c| !wanted(c)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use crate::plan::dotenv::parse;

    fn read(text: &str) -> String {
        let outer = |name: &str| (name == "HOME" || name == "A").then(|| "/root".to_owned());
        let (variables, wrong) = parse(text, &outer);
        let mut said: Vec<String> = variables
            .iter()
            .map(|(name, value)| format!("{name}={value:?}"))
            .collect();
        said.extend(
            wrong
                .iter()
                .map(|wrong| format!("{}: {}", wrong.line, wrong.name)),
        );
        said.join(" | ")
    }

    #[test]
    fn values_are_what_a_shell_would_make_of_them() {
        for (text, expected) in [
            ("", ""),
            ("A=1", r#"A="1""#),
            ("\u{feff}A=1\r\nB = 2 \r\n", r#"A="1" | B="2""#),
            (
                "# c\n\n  export A=1 # c\nB=a#b\nC= # c\nD=",
                r#"A="1" | B="a#b" | C="" | D="""#,
            ),
            ("A='$B \\n'\"x y\"z", r#"A="$B \\nx yz""#),
            (r#"A="a\n\"\$\\\d""#, r#"A="a\n\"$\\\\d""#),
            ("A=\"two\nlines\"\nB='3\n4'", r#"A="two\nlines" | B="3\n4""#),
            ("A=a\\ b", r#"A="a b""#),
            (
                "A=x\nA_B=y\nC=$A_B-$A.${A}b\"$A\"$HOME$NONE$",
                r#"A="x" | A_B="y" | C="y-x.xbx/root$""#,
            ),
            ("B=$A\nA=1\nC=$A", r#"B="/root" | A="1" | C="1""#),
            (
                "A=1\nfoo\nB=a b\nC=\"open\nD=4\nE=${A:-x}\n9=9\nA: 1\nF='' b",
                r#"A="1" | D="4" | 2: foo | 3: B | 4: C | 6: E | 7: 9 | 8: A: 1 | 9: F"#,
            ),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_text_is_read_to_its_end(text in any::<String>()) {
            parse(&text, &|_| None);
        }

        #[test]
        fn quoted_values_come_out_as_they_are(value in "[^'\0]*") {
            let (variables, wrong) = parse(&format!("A='{value}'\n"), &|_| None);
            assert_eq!(variables, [("A".to_owned(), value)]);
            assert_eq!(wrong, []);
        }
    }
}
