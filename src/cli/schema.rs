//! `procflow schema`: prints a JSON Schema.

use std::io::Write;

use crate::cli::Error;
use crate::cli::args::{SchemaArgs, SchemaOf};
use crate::exit::ExitCode;
use crate::spec::pipeline_schema;

/// Prints the schema that `args` names, as it is checked in under `schemas/`.
///
/// # Errors
/// [`Error::Stdout`].
pub fn run(args: &SchemaArgs, out: &mut dyn Write) -> Result<ExitCode, Error> {
    let schema = match args.which {
        SchemaOf::Pipeline => pipeline_schema(),
        // Until their part is there.
        SchemaOf::Events | SchemaOf::Report => {
            return Err(Error::Usage("this schema is not there yet".to_owned()));
        }
    };
    writeln!(out, "{schema:#}")?;
    Ok(ExitCode::Success)
}
