//! `procflow man`: prints the manual page, made from the same text as `--help`.

use std::io::{self, Write};

use clap::{Command, CommandFactory};
use clap_mangen::Man;

use crate::cli::Error;
use crate::cli::args::Cli;
use crate::exit::ExitCode;

/// Prints one page for the whole program. clap_mangen makes a page for each subcommand, which a program that prints its
/// manual to standard output has no place for: so their parts are put under headings of one.
///
/// # Errors
/// [`Error::Stdout`].
pub fn run(out: &mut dyn Write) -> Result<ExitCode, Error> {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let page = Man::new(command.clone()).manual("procflow");
    page.render_title(out)?;
    page.render_name_section(out)?;
    page.render_synopsis_section(out)?;
    page.render_description_section(out)?;
    writeln!(out, ".SH COMMANDS")?;
    for subcommand in command.get_subcommands() {
        write_subcommand(subcommand, out)?;
    }
    Ok(ExitCode::Success)
}

/// Writes the part of one subcommand: usage, what it does, options, what stands below its help.
fn write_subcommand(command: &Command, out: &mut dyn Write) -> io::Result<()> {
    let usage = command.clone().render_usage().to_string();
    writeln!(
        out,
        ".SS \"{}\"",
        escaped(usage.trim_start_matches("Usage: "))
    )?;
    if let Some(about) = command.get_about() {
        writeln!(out, "{}.", escaped(&about.to_string()))?;
    }
    // Every command has `--help`, and the page says so once, in its synopsis.
    let command = command.clone().mut_arg("help", |help| help.hide(true));
    let mut options = Vec::new();
    Man::new(command.clone()).render_options_section(&mut options)?;
    for line in String::from_utf8_lossy(&options).lines() {
        match line.strip_prefix(".SH ") {
            // Groups of options, one level below.
            Some("OPTIONS") => {}
            Some(group) => writeln!(
                out,
                ".PP\n\\fI{} options:\\fR",
                group.trim_matches('"').to_lowercase()
            )?,
            // The definition of the apostrophe, which stands once on top of the page.
            None if line.starts_with(".ie \\n(.g") || line.starts_with(".el .ds Aq") => {}
            None => writeln!(out, "{line}")?,
        }
    }
    if let Some(after) = command.get_after_help() {
        writeln!(out, ".PP\n.nf\n{}\n.fi", escaped(&after.to_string()))?;
    }
    Ok(())
}

/// Text as roff takes it literally.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    text.lines()
        .map(|line| {
            if line.starts_with(['.', '\'']) {
                format!("\\&{line}")
            } else {
                line.to_owned()
            }
        })
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use clap::CommandFactory;

    use crate::cli::args::Cli;
    use crate::cli::man::run;

    #[test]
    fn every_option_of_every_subcommand_is_in_the_page() {
        let mut page = Vec::new();
        run(&mut page).unwrap();
        let page = String::from_utf8(page).unwrap();
        for subcommand in Cli::command().get_subcommands() {
            assert!(
                page.contains(&format!(".SS \"procflow {}", subcommand.get_name())),
                "{}",
                subcommand.get_name()
            );
            for long in subcommand
                .get_arguments()
                .filter_map(|argument| argument.get_long())
            {
                let shown = format!("\\-\\-{}", long.replace('-', "\\-"));
                assert!(
                    page.contains(&shown),
                    "{shown} of {}",
                    subcommand.get_name()
                );
            }
        }
        assert_eq!(page.matches(".SH OPTIONS").count(), 0);
        assert_eq!(page.matches(".SH SYNOPSIS").count(), 1);
    }
}
