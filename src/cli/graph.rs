//! `procflow graph`: the graph as DOT, as Mermaid, or as text for a terminal.

use std::io::Write;

use crate::cli::Error;
use crate::cli::args::{GraphArgs, GraphFormat};
use crate::cli::pipeline::{Asked, Pipeline};
use crate::cli::words;
use crate::draw;
use crate::exit::ExitCode;

/// Prints the graph of a file; its problems go to `err`.
///
/// # Errors
/// See [`Error`].
pub fn run(
    args: &GraphArgs,
    out: &mut dyn Write,
    err: &mut dyn Write,
    styled: bool,
) -> Result<ExitCode, Error> {
    let asked = Asked::of(&args.pipeline, &args.select);
    let pipeline = Pipeline::load(&args.pipeline.file, asked)?;
    let Some(plan) = words::plan_or_problems(&pipeline, err, styled)? else {
        return Ok(ExitCode::Usage);
    };
    match args.format {
        GraphFormat::Dot => draw::dot(plan, &[], out)?,
        GraphFormat::Mermaid => draw::mermaid(plan, &[], out)?,
        GraphFormat::Text => draw::text(plan, &[], out)?,
    }
    Ok(ExitCode::Success)
}
