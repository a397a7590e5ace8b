//! The JSON Schema of the pipeline file: derived from the types, but for values with several notations, which are
//! written out here so that an editor can offer their words.

use std::borrow::Cow;

use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::spec::values::{Amount, ByteSize, Duration, OneOrMany, Signal};
use crate::spec::{
    After, AfterState, Deliver, Inputs, Matrix, Output, Param, ParamTable, Records, Retries,
    RetriesTable, Spec, Stdin, Tasks, Workers,
};

/// The schema as JSON Schema draft-07, the newest that editors' TOML servers are sure to know.
pub fn pipeline_schema() -> serde_json::Value {
    SchemaSettings::draft07()
        .for_deserialize()
        .with_transform(RecursiveTransform(for_toml))
        .into_generator()
        .into_root_schema_for::<Spec>()
        .to_value()
}

/// TOML has no null, but schemars allows it for every `Option`; and the types' defaults are not the file's.
fn for_toml(schema: &mut Schema) {
    let Some(object) = schema.as_object_mut() else {
        return;
    };
    object.remove("default");
    // "uint8" and the like are schemars' own; the bounds stand beside them, and editors warn of formats they don't know.
    object.remove("format");
    if let Some(kinds) = object.get_mut("type")
        && let Some(list) = kinds.as_array_mut()
    {
        list.retain(|kind| kind != "null");
        if let [one] = list.as_slice() {
            *kinds = one.clone();
        }
    }
    if let Some(list) = object.get_mut("anyOf").and_then(|any| any.as_array_mut()) {
        list.retain(|one| one.get("type").is_none_or(|kind| kind != "null"));
        if let [one] = list.as_slice() {
            // `allOf` of one, since draft-07 ignores what stands beside a bare `$ref`: the description would be lost.
            let one = one.clone();
            object.remove("anyOf");
            object.insert("allOf".to_owned(), serde_json::json!([one]));
        }
    }
}

/// Implements [`JsonSchema`] by a schema that is written out.
macro_rules! written {
    ($type:ident, $name:literal, |$generator:ident| $schema:expr) => {
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema($generator: &mut SchemaGenerator) -> Schema {
                $schema
            }
        }
    };
}

written!(Duration, "Duration", |_generator| json_schema!({
    "type": "string",
    "description": "A time span, such as \"250ms\", \"30s\", \"1h 30m\" or \"2d\".",
    "pattern": "^\\s*([0-9]+(\\.[0-9]+)?\\s*(ns|nsec|nanos|us|µs|usec|micros|ms|msec|millis|s|sec|secs|second|seconds|m|min|mins|minute|minutes|h|hr|hrs|hour|hours|d|day|days|w|wk|wks|week|weeks)\\s*)+$",
    "examples": ["30s", "5m", "1h 30m"],
}));

written!(ByteSize, "ByteSize", |_generator| json_schema!({
    "description": "A number of bytes, or a size such as \"64MiB\" (2^20 bytes each) or \"64MB\" (10^6).",
    "anyOf": [
        { "type": "integer", "minimum": 0 },
        {
            "type": "string",
            "pattern": "^\\s*[0-9]+(\\.[0-9]+)?\\s*([bB]|[kKmMgGtTpPeE]([iI]?[bB])?)?\\s*$",
            "examples": ["64MiB", "2GiB"],
        },
    ],
}));

written!(Signal, "Signal", |_generator| {
    let names: Vec<&str> = nix::sys::signal::Signal::iterator()
        .map(|signal| signal.as_str().trim_start_matches("SIG"))
        .collect();
    json_schema!({
        "description": "A signal's name, with or without SIG.",
        "type": "string",
        "anyOf": [{ "enum": names }, { "pattern": format!("^SIG({})$", names.join("|")) }],
    })
});

written!(Amount, "Amount", |_generator| json_schema!({
    "description": "How much there is of a resource, or how much of it is claimed.",
    "type": "integer",
    "minimum": 0,
    "maximum": 1_000_000,
}));

written!(OneOrMany, "OneOrMany", |_generator| json_schema!({
    "description": "A string, or an array of strings.",
    "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }],
}));

written!(Param, "Param", |generator| json_schema!({
    "description": "A parameter: its default as a string, or a table.",
    "anyOf": [{ "type": "string" }, generator.subschema_for::<ParamTable>()],
}));

written!(Stdin, "Input", |_generator| json_schema!({
    "description": "What is read: a queue's name, a file, a text, `\"null\"` or `\"inherit\"`.",
    "anyOf": [
        { "enum": ["null", "inherit"] },
        { "type": "string", "description": "A queue's name." },
        {
            "type": "object",
            "properties": { "file": { "type": "string", "description": "The file's path, relative to this file." } },
            "required": ["file"],
            "additionalProperties": false,
        },
        {
            "type": "object",
            "properties": { "text": { "type": "string", "description": "The input itself." } },
            "required": ["text"],
            "additionalProperties": false,
        },
    ],
}));

written!(Inputs, "Inputs", |generator| {
    let one = generator.subschema_for::<Stdin>();
    json_schema!({
        "description": "One input (of queues also a pattern such as `\"sorted-*\"`), or an array of them.",
        "anyOf": [one.clone(), { "type": "array", "items": one, "minItems": 1 }],
    })
});

/// Stands for the type of `stdout` in the schema.
pub(crate) struct Stdout;
/// Stands for the type of `stderr` in the schema.
pub(crate) struct Stderr;

written!(Stdout, "Stdout", |_generator| output(&[
    "log", "null", "inherit", "value"
]));
written!(Stderr, "Stderr", |_generator| output(&[
    "log", "null", "inherit", "stdout"
]));
written!(Output, "Output", |_generator| output(&[
    "log", "null", "inherit"
]));

/// One sink or an array of them, with the words that are allowed at this place.
fn output(words: &[&str]) -> Schema {
    let others: Vec<&str> = ["value", "stdout"]
        .into_iter()
        .filter(|word| !words.contains(word))
        .collect();
    let sink = serde_json::json!([
        { "enum": words },
        { "type": "string", "not": { "enum": others }, "description": "A queue's name." },
        {
            "type": "object",
            "properties": {
                "file": { "type": "string", "description": "The file's path, relative to this file." },
                "append": {
                    "type": "boolean",
                    "description": "Write at the end, in place, instead of a new file that appears on success. Default: false.",
                },
            },
            "required": ["file"],
            "additionalProperties": false,
        },
    ]);
    let mut any = sink.as_array().cloned().unwrap_or_default();
    any.push(serde_json::json!({ "type": "array", "items": { "anyOf": sink }, "minItems": 1 }));
    json_schema!({
        "description": "Where output goes: a queue's name, a file, a word, or an array of these: each gets a copy.",
        "anyOf": any,
    })
}

written!(After, "After", |generator| json_schema!({
    "description": "A node to wait for, and until when.",
    "anyOf": [
        { "type": "string", "description": "Until this node has succeeded, or, if it is a service, is ready." },
        {
            "type": "object",
            "properties": {
                "node": { "type": "string", "description": "The node's name." },
                "state": generator.subschema_for::<AfterState>(),
            },
            "required": ["node"],
            "additionalProperties": false,
        },
    ],
}));

written!(Retries, "Retries", |generator| json_schema!({
    "description": "How often a failure is tried again: a number, or a table.",
    "anyOf": [{ "type": "integer", "minimum": 0, "maximum": 1_000_000 }, generator.subschema_for::<RetriesTable>()],
}));

written!(Records, "Records", |_generator| json_schema!({
    "description": "How a queue's bytes are cut into records.",
    "anyOf": [
        { "const": "lines", "description": "Each line is a record." },
        { "const": "nul", "description": "Each record ends with a NUL byte, as in find -print0." },
        { "const": "length32", "description": "Before each record stands its length, as 4 bytes, big-endian." },
        { "const": "bytes", "description": "No records: any cut will do." },
        {
            "type": "object",
            "properties": { "size": { "type": "integer", "minimum": 1, "maximum": 1 << 30, "description": "Bytes of each record." } },
            "required": ["size"],
            "additionalProperties": false,
        },
        {
            "type": "object",
            "properties": { "separator": { "type": "string", "minLength": 1, "description": "What each record ends with, such as \"\\n\\n\"." } },
            "required": ["separator"],
            "additionalProperties": false,
        },
        {
            "type": "object",
            "properties": { "start": { "type": "string", "minLength": 1, "description": "How the first line of each record begins, such as \">\"." } },
            "required": ["start"],
            "additionalProperties": false,
        },
    ],
}));

written!(Deliver, "Deliver", |_generator| json_schema!({
    "description": "Which of several readers gets a record.",
    "anyOf": [
        { "const": "share", "description": "One that is free." },
        { "const": "round_robin", "description": "One after the other, record by record." },
        { "const": "copy", "description": "Every reader gets all." },
        {
            "type": "object",
            "properties": {
                "by_field": { "type": "integer", "minimum": 0, "maximum": 1_000_000, "description": "Equal keys go to the same reader. The field that is the key, from 1; 0 is the whole record." },
                "separator": { "type": "string", "minLength": 1, "description": "What stands between fields. Default: runs of spaces and tabs." },
            },
            "required": ["by_field"],
            "additionalProperties": false,
        },
    ],
}));

written!(Workers, "Workers", |_generator| json_schema!({
    "description": "How many workers: a number, or \"auto\", as many as there are job slots.",
    "anyOf": [
        { "type": "integer", "minimum": 1, "maximum": 32_768 },
        { "const": "auto" },
        { "type": "string", "pattern": "\\$\\{\\{" },
    ],
}));

written!(Tasks, "Tasks", |_generator| {
    let field = serde_json::json!({ "type": "string" });
    json_schema!({
        "description": "Fixed work: an array of strings, of arrays of strings, or a table.",
        "anyOf": [
            { "type": "array", "items": { "anyOf": [field.clone(), { "type": "array", "items": field, "minItems": 1 }] } },
            {
                "type": "object",
                "properties": {
                    "range": {
                        "type": "array",
                        "items": [{ "type": "integer" }, { "type": "integer" }],
                        "minItems": 2,
                        "maxItems": 2,
                        "description": "From the first number to the one before the second.",
                    },
                },
                "required": ["range"],
                "additionalProperties": false,
            },
            {
                "type": "object",
                "properties": { "glob": { "type": "string", "description": "The files that match, sorted." } },
                "required": ["glob"],
                "additionalProperties": false,
            },
            {
                "type": "object",
                "properties": {
                    "lines": { "type": "string", "description": "The lines of this file, read when the pool starts." },
                    "separator": { "type": "string", "minLength": 1, "description": "Cuts lines into fields: `${{ task.0 }}`, `${{ task.1 }}`." },
                },
                "required": ["lines"],
                "additionalProperties": false,
            },
        ],
    })
});

written!(Matrix, "Matrix", |_generator| {
    let value = serde_json::json!({ "anyOf": [{ "type": "string" }, { "type": "integer" }, { "type": "boolean" }] });
    let rows = |description: &str| {
        serde_json::json!({
            "type": "array",
            "items": { "type": "object", "additionalProperties": value.clone(), "minProperties": 1 },
            "description": description,
        })
    };
    json_schema!({
        "description": "Axes with their values: one process for each combination.",
        "type": "object",
        "properties": {
            "exclude": rows("Combinations that have all of these values are left out: [{ py = \"3.11\", db = \"pg\" }]."),
            "include": rows("Combinations that are added, [{ py = \"3.13\", db = \"pg\" }]; or more values for those that are there, [{ py = \"3.12\", flags = \"-O\" }]."),
        },
        "patternProperties": {
            "^(?!(include|exclude)$)[A-Za-z_][A-Za-z0-9_-]*$": {
                "type": "array",
                "items": value,
                "minItems": 1,
                "uniqueItems": true,
                "description": "The values of an axis. Put numbers with a point in quotes: 3.10 is 3.1.",
            },
        },
        "additionalProperties": false,
    })
});
