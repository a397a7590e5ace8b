//! `procflow graph`: the graph as DOT, as Mermaid, as a picture, or as text for a terminal.

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
        GraphFormat::Svg => {
            let mut shown = plan.clone();
            // What else is drawn is names.
            for node in &mut shown.nodes {
                let masked = node
                    .description
                    .as_deref()
                    .map(|text| words::masked(plan, text));
                node.description = masked.map(Into::into);
            }
            draw::svg(&shown, draw::Notes::default(), out)?;
        }
        GraphFormat::Text => draw::text(plan, &[], out)?,
    }
    Ok(ExitCode::Success)
}
