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
        SchemaOf::Events => schema_events().to_value(),
        SchemaOf::Report => schema_report().to_value(),
    };
    writeln!(out, "{schema:#}")?;
    Ok(ExitCode::Success)
}
