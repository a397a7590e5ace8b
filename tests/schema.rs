//! The checked-in schema of the pipeline file: up to date, and right about what it allows.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::path::{Path, PathBuf};

use procflow::spec::pipeline_schema;
use serde_json::Value;

fn checked_in() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas/pipeline.schema.json")
}

/// Every problem that the schema finds in a pipeline, as "path: message".
fn problems(text: &str) -> Vec<String> {
    let pipeline: Value = toml::from_str::<Value>(text).expect("the text is TOML");
    let validator = jsonschema::draft7::new(&pipeline_schema()).expect("the schema is one");
    validator
        .iter_errors(&pipeline)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect()
}

#[test]
fn the_checked_in_schema_is_that_of_the_types() {
    let generated = format!("{:#}\n", pipeline_schema());
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(checked_in(), &generated).unwrap();
    }
    let found = std::fs::read_to_string(checked_in()).unwrap_or_default();
    assert!(
        found == generated,
        "out of date: UPDATE_EXPECT=1 cargo test --test schema writes it anew"
    );
}

#[test]
fn it_is_draft_07_without_nulls() {
    let schema = pipeline_schema();
    assert_eq!(schema["$schema"], "http://json-schema.org/draft-07/schema#");
    fn walk(value: &Value, path: &str) {
        match value {
            Value::Null => panic!("null at {path}"),
            Value::String(text) => assert!(
                text != "null" || path.contains("/enum"),
                "type null at {path}"
            ),
            Value::Array(list) => list
                .iter()
                .enumerate()
                .for_each(|(i, one)| walk(one, &format!("{path}/{i}"))),
            Value::Object(map) => map
                .iter()
                .for_each(|(key, one)| walk(one, &format!("{path}/{key}"))),
            Value::Bool(_) | Value::Number(_) => {}
        }
    }
    walk(&schema, "");
}

#[test]
fn every_table_is_closed_and_every_key_described() {
    fn walk(value: &Value, path: &str) {
        if let Some(properties) = value.get("properties").and_then(Value::as_object) {
            assert_eq!(value["additionalProperties"], false, "{path} is open");
            for (key, property) in properties {
                let text = property
                    .get("description")
                    .and_then(Value::as_str)
                    .unwrap_or_default();
                assert!(
                    !text.is_empty() || property.get("$ref").is_some(),
                    "{path}/{key} has no description"
                );
            }
        }
        if let Some(map) = value.as_object() {
            map.iter()
                .for_each(|(key, one)| walk(one, &format!("{path}/{key}")));
        }
        if let Some(list) = value.as_array() {
            list.iter()
                .enumerate()
                .for_each(|(i, one)| walk(one, &format!("{path}/{i}")));
        }
    }
    walk(&pipeline_schema(), "");
}

/// Uses every key once. Where the schema and the reader part, one of the two next tests fails.
const EVERYTHING: &str = include_str!("everything.toml");

#[test]
fn what_is_right_is_allowed() {
    assert_eq!(problems(EVERYTHING), [""; 0]);
    assert_eq!(problems(procflow::cli::init::START), [""; 0]);
}

#[test]
fn what_the_schema_allows_the_reader_takes() {
    for text in [EVERYTHING, procflow::cli::init::START] {
        if let Err(wrong) = procflow::spec::read(text) {
            panic!(
                "{}",
                procflow::diagnostic::render(&wrong.problems, "p.toml", text, false)
            );
        }
    }
}

#[test]
fn every_shipped_pipeline_is_valid() {
    let Ok(folder) = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines"))
    else {
        return;
    };
    for entry in folder {
        let path = entry.unwrap().path();
        if path
            .extension()
            .is_some_and(|extension| extension == "toml")
        {
            assert_eq!(
                problems(&std::fs::read_to_string(&path).unwrap()),
                [""; 0],
                "{}",
                path.display()
            );
        }
    }
}

#[test]
fn typical_mistakes_are_found_by_schema_and_reader_alike() {
    let mistakes = [
        "nam = \"x\"",
        "[run]\njobs = 0",
        "[run]\non_failure = \"stpo\"",
        "[run]\ntimeout = \"5M\"",
        "[run]\ntimeout = 30",
        "[process.a]\ncomand = [\"x\"]",
        "[process.a]\ncommand = \"x\"",
        "[process.a]\nstdin = 3",
        "[process.a]\nstdin = { fil = \"p\" }",
        "[process.a]\nstdin = { file = \"p\", text = \"t\" }",
        "[process.a]\nstdout = \"stdout\"",
        "[process.a]\nstderr = \"value\"",
        "[process.a]\nstdout = [\"q\", { append = true }]",
        "[process.a]\nafter = \"b\"",
        "[process.a]\nafter = [{ node = \"b\", state = \"up\" }]",
        "[process.a]\nservice = \"yes\"",
        "[process.a]\nservice = { redy = { tcp = \"127.0.0.1:1\" } }",
        "[process.a]\nservice = { ready = \"127.0.0.1:1\" }",
        "[process.a]\nservice = { ready = {} }",
        "[process.a]\nservice = { ready = { tcp = 5432 } }",
        "[process.a]\nservice = { ready = { tcp = \"127.0.0.1:1\", file = \"f\" } }",
        "[process.a]\nservice = { ready = { command = \"x\" } }",
        "[process.a]\nservice = { ready = { file = \"f\", timeout = 30 } }",
        "[process.a]\nservice = { restart = -1 }",
        "[process.a]\nservice = { restart = { delay = \"1s\" } }",
        "[process.a]\nnice = 20",
        "[process.a]\nsuccess_codes = [256]",
        "[process.a]\nstop_signal = \"TREM\"",
        "[process.a]\nmemory = \"2 gigs\"",
        "[process.a]\nretries = { delay = \"1s\" }",
        "[process.a]\nenv = { A = 1 }",
        "[process.a]\nworkers = 4",
        "[pool.a]\ncomand = [\"x\"]",
        "[pool.a]\nworkers = 0",
        "[pool.a]\nworkers = \"many\"",
        "[pool.a]\nfeed = \"lines\"",
        "[pool.a]\norder = true",
        "[pool.a]\nbatch = 0",
        "[pool.a]\nmax_in_flight = 0",
        "[pool.a]\nrecycle_after = 0",
        "[pool.a]\ntask_timeout = 3",
        "[pool.a]\ndead_letter = [\"q\"]",
        "[pool.a]\ntasks = \"*.csv\"",
        "[pool.a]\ntasks = 3",
        "[pool.a]\ntasks = [3]",
        "[pool.a]\ntasks = [[]]",
        "[pool.a]\ntasks = { range = [1] }",
        "[pool.a]\ntasks = { range = [1, 2, 3] }",
        "[pool.a]\ntasks = { range = 3 }",
        "[pool.a]\ntasks = { glob = \"*\", lines = \"l\" }",
        "[pool.a]\ntasks = { glob = \"*\", separator = \"l\" }",
        "[pool.a]\ntasks = { separator = \"l\" }",
        "[pool.a]\nstdout = \"stdout\"",
        "[queue.a]\ndeliver = \"all\"",
        "[queue.a]\ndeliver = { by_field = -1 }",
        "[queue.a]\ndeliver = { separator = \",\" }",
        "[queue.a]\noverflow = \"drop\"",
        "[queue.a]\nmax_records = 0",
        "[queue.a]\nheader = -1",
        "[queue.a]\nstore = \"yes\"",
        "[queue.a]\nfeedback = 1",
        "[queue.a]\nrecords = { size = 0 }",
        "[queue.a]\nrecords = \"words\"",
        "[params]\na = 3",
    ];
    for text in mistakes {
        assert_eq!(
            problems(text).len(),
            1,
            "the schema on {text:?}: {:?}",
            problems(text)
        );
        let found = procflow::spec::read(text).expect_err(text).problems;
        assert_eq!(found.len(), 1, "the reader on {text:?}: {found:?}");
    }
}
