//! The environment of a node: what all nodes have in common, made once, and on top of it what one attempt adds.

use std::collections::HashMap;
use std::ffi::{CStr, CString, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;

/// Variables that an outer procflow set for us, and that are not our nodes' business.
const OUTER: [&[u8]; 3] = [b"PROCFLOW_RUN_ID", b"PROCFLOW_NODE", b"PROCFLOW_ATTEMPT"];

/// What all nodes have in common, as execve takes it. Values are bytes: inherited ones need not be UTF-8.
#[derive(Debug, Clone, Default)]
pub(super) struct Base {
    /// `NAME=value`
    entries: Vec<CString>,
    /// Where a name stands.
    places: HashMap<Box<[u8]>, usize>,
}

impl Base {
    /// `inherited`, and over it `pipeline`; the later wins.
    pub(super) fn new<'a>(
        inherited: impl IntoIterator<Item = (OsString, OsString)>,
        pipeline: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> io::Result<Self> {
        let mut base = Base {
            entries: Vec::new(),
            places: HashMap::new(),
        };
        for (name, value) in inherited {
            if !OUTER.contains(&name.as_bytes()) {
                base.set(name.as_bytes(), value.as_bytes())?;
            }
        }
        for (name, value) in pipeline {
            base.set(name.as_bytes(), value.as_bytes())?;
        }
        Ok(base)
    }

    pub(super) fn set(&mut self, name: &[u8], value: &[u8]) -> io::Result<()> {
        let entry = entry(name, value)?;
        match self
            .places
            .get(name)
            .and_then(|&place| self.entries.get_mut(place))
        {
            Some(old) => *old = entry,
            None => {
                self.places.insert(name.into(), self.entries.len());
                self.entries.push(entry);
            }
        }
        Ok(())
    }
}

/// The environment of one attempt.
#[derive(Debug)]
pub(super) struct Environment<'b> {
    base: &'b Base,
    /// What is set over the base: the name's length and the entry. A handful.
    over: Vec<(usize, CString)>,
}

impl<'b> Environment<'b> {
    pub(super) fn over(base: &'b Base) -> Self {
        Environment {
            base,
            over: Vec::new(),
        }
    }

    /// Fails where the value holds a NUL.
    pub(super) fn set(&mut self, name: &str, value: impl AsRef<[u8]>) -> io::Result<()> {
        let new = (name.len(), entry(name.as_bytes(), value.as_ref())?);
        match self
            .over
            .iter_mut()
            .find(|old| name_of(old) == name.as_bytes())
        {
            Some(old) => *old = new,
            None => self.over.push(new),
        }
        Ok(())
    }

    pub(super) fn get(&self, name: &[u8]) -> Option<&[u8]> {
        let over = self
            .over
            .iter()
            .find(|over| name_of(over) == name)
            .map(|(_, entry)| entry);
        let entry = over.or_else(|| self.base.entries.get(*self.base.places.get(name)?))?;
        entry.to_bytes().get(name.len() + 1..)
    }

    /// Every entry, each name once.
    pub(super) fn list(&self) -> Vec<&CStr> {
        let mut list = Vec::with_capacity(self.base.entries.len() + self.over.len());
        list.extend(self.base.entries.iter().map(CString::as_c_str));
        for over in &self.over {
            match self
                .base
                .places
                .get(name_of(over))
                .and_then(|&place| list.get_mut(place))
            {
                Some(entry) => *entry = &over.1,
                None => list.push(&over.1),
            }
        }
        list
    }
}

fn name_of((length, entry): &(usize, CString)) -> &[u8] {
    entry.to_bytes().get(..*length).unwrap_or_default()
}

fn entry(name: &[u8], value: &[u8]) -> io::Result<CString> {
    Ok(CString::new([name, b"=", value].concat())?)
}

/// The variable that stands for a name of the file.
pub(super) fn variable(prefix: &str, name: &str) -> String {
    format!("{prefix}{}", crate::plan::variable(name))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop")]

    use std::ffi::{OsStr, OsString};
    use std::os::unix::ffi::OsStrExt;

    use crate::exec::launch::environment::{Base, Environment, variable};

    fn inherited(pairs: &[(&str, &[u8])]) -> Vec<(OsString, OsString)> {
        pairs
            .iter()
            .map(|(name, value)| (name.into(), OsStr::from_bytes(value).to_owned()))
            .collect()
    }

    #[test]
    fn the_later_wins_and_stands_in_the_place_of_the_earlier() {
        let base = Base::new(
            inherited(&[
                ("A", b"inherited"),
                ("B", b"\xff"),
                ("PROCFLOW_NODE", b"outer"),
            ]),
            [("A", "file"), ("C", "file"), ("C", "later")],
        )
        .unwrap();
        let mut env = Environment::over(&base);
        env.set("C", "node").unwrap();
        env.set("D", "node").unwrap();
        env.set("D", "own").unwrap();
        assert_eq!(env.list(), [c"A=file", c"B=\xff", c"C=node", c"D=own"]);
        assert_eq!(env.get(b"B"), Some(&b"\xff"[..]));
        assert_eq!(env.get(b"D"), Some(&b"own"[..]));
        assert_eq!(env.get(b"PROCFLOW_NODE"), None);
        assert!(env.set("E", "a\0b").is_err());
    }

    #[test]
    fn one_attempt_leaves_no_trace_in_the_next() {
        let base = Base::new(inherited(&[]), [("A", "1")]).unwrap();
        let mut first = Environment::over(&base);
        first.set("A", "2").unwrap();
        assert_eq!(Environment::over(&base).list(), [c"A=1"]);
    }

    #[test]
    fn names_of_variables() {
        assert_eq!(variable("IN_", "left-part"), "IN_LEFT_PART");
        assert_eq!(variable("OUT_", "3"), "OUT_3");
    }
}
