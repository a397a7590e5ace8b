//! Imports point one way, and `unsafe` has one place: the rules of `src/lib.rs`, read off the source files.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Each module and those of ours that it may import. What is missing here may import nothing.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    (
        "cli",
        &[
            "diagnostic",
            "exit",
            "spec",
            "plan",
            "event",
            "sched",
            "exec",
            "queue",
            "pool",
            "store",
            "resume",
            "sys",
            "report",
            "draw",
        ],
    ),
    (
        "exec",
        &[
            "sched",
            "plan",
            "spec",
            "queue",
            "pool",
            "store",
            "resume",
            "sys",
            "event",
            "exit",
            "report",
            "diagnostic",
        ],
    ),
    ("resume", &["plan", "spec", "event", "store", "diagnostic"]),
    (
        "report",
        &[
            "draw",
            "event",
            "plan",
            "spec",
            "exit",
            "store",
            "diagnostic",
        ],
    ),
    ("draw", &["event", "plan", "spec", "diagnostic"]),
    (
        "store",
        &["event", "plan", "spec", "exit", "sys", "diagnostic"],
    ),
    (
        "pool",
        &["plan", "spec", "event", "queue", "sys", "diagnostic"],
    ),
    ("queue", &["plan", "spec", "sys"]),
    ("sched", &["plan", "spec", "event"]),
    ("event", &["plan", "exit"]),
    ("plan", &["spec", "diagnostic"]),
    ("spec", &["diagnostic"]),
    ("diagnostic", &[]),
    ("exit", &[]),
    ("sys", &[]),
];

fn source_files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(source_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// The module that a file belongs to: the first part of its path.
fn module(source: &Path, file: &Path) -> String {
    let first = file
        .strip_prefix(source)
        .unwrap()
        .components()
        .next()
        .unwrap();
    first
        .as_os_str()
        .to_str()
        .unwrap()
        .trim_end_matches(".rs")
        .to_owned()
}

/// The lines of a file that are code: no comments, and nothing behind `//`.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.split("//").next().unwrap()))
}

/// The modules of ours that a line of code names: `crate::NAME`, or each of `crate::{NAME::.., NAME::..}`.
fn imports(line: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for part in line.split("crate::").skip(1) {
        let name: String = part
            .chars()
            .take_while(|c| c.is_ascii_lowercase() || *c == '_')
            .collect();
        if part[name.len()..].starts_with("::") || part[name.len()..].starts_with(';') {
            found.insert(name);
        }
    }
    found
}

#[test]
fn imports_point_one_way() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    for file in source_files(&source) {
        let module = module(&source, &file);
        if module == "lib" || module == "main" {
            continue;
        }
        let allowed = MAY_IMPORT
            .iter()
            .find(|(name, _)| *name == module)
            .map(|(_, allowed)| *allowed);
        let allowed = allowed
            .unwrap_or_else(|| panic!("module `{module}` has no place in the order of src/lib.rs"));
        let text = fs::read_to_string(&file).unwrap();
        for (line, code) in code(&text) {
            if code.trim_start().starts_with("use crate::{") {
                wrong.push(format!(
                    "{}:{line}: one `use crate::...` a line, so that layers can be read",
                    file.display()
                ));
            }
            for import in imports(code) {
                if import != module && !allowed.contains(&import.as_str()) {
                    wrong.push(format!(
                        "{}:{line}: `{module}` must not import `{import}`",
                        file.display()
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn unsafe_stands_only_in_sys() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    for file in source_files(&source) {
        if module(&source, &file) == "sys" {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        for (line, code) in code(&text) {
            let words = code.split(|c: char| !c.is_alphanumeric() && c != '_');
            if words
                .into_iter()
                .any(|word| word == "unsafe" || word == "unsafe_code")
            {
                wrong.push(format!("{}:{line}: {}", file.display(), code.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The checks above see what they are to see.
#[test]
fn an_import_is_seen() {
    let found: Vec<String> = imports("use crate::plan::UnitId; let x = crate::sys::spawn();")
        .into_iter()
        .collect();
    assert_eq!(found, ["plan", "sys"]);
    let line = code("let a = 1; // unsafe\n").next().unwrap();
    assert_eq!(line, (1, "let a = 1; "));
}
