//! `procflow schema`: prints a JSON Schema.

use std::io::Write;

use crate::cli::Error;
use crate::cli::args::{SchemaArgs, SchemaOf};
use crate::exit::ExitCode;
use crate::report::{schema_events, schema_report};
use crate::spec::pipeline_schema;

/// Prints the schema that `args` names, as it is checked in under `schemas/`.
///
/// # Errors
/// [`Error::Stdout`].
pub fn run(args: &SchemaArgs, out: &mut dyn Write) -> Result<ExitCode, Error> {
    let schema = match args.which {
        SchemaOf::Pipeline => pipeline_schema(),
        SchemaOf::Events => in_order(&schema_events()),
        SchemaOf::Report => in_order(&schema_report()),
    };
    writeln!(out, "{schema:#}")?;
    Ok(ExitCode::Success)
}

/// What a schema is about stands first; `Schema::to_value` has it where schemars happened to add it.
fn in_order(schema: &schemars::Schema) -> serde_json::Value {
    match serde_json::to_value(schema) {
        Ok(value) => value,
        Err(e) => panic!("BUG: a schema is no JSON: {e}"),
    }
}
