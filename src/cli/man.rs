//! `procflow man`: prints the manual page, made from the same text as `--help`.
//!
//! One page for the whole program. clap_mangen, the road not taken, makes a page for each subcommand, which a program that prints
//! its manual to standard output has no place for, and sets a list of short values as one of paragraphs.

use std::io::{self, Write};

use clap::{Arg, Command, CommandFactory};

use crate::cli::Error;
use crate::cli::args::Cli;
use crate::exit::ExitCode;

/// Prints the page.
///
/// # Errors
/// [`Error::Stdout`].
pub fn run(out: &mut dyn Write) -> Result<ExitCode, Error> {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    // No date: the page is the same whenever it is made.
    let version = command.get_version().unwrap_or_default();
    writeln!(
        out,
        ".TH PROCFLOW 1 \"\" \"procflow {version}\" \"User Commands\""
    )?;
    // Words and options are not torn at the end of a line.
    writeln!(out, ".nh")?;
    out.write_all(HEAD.as_bytes())?;
    for subcommand in command.get_subcommands() {
        writeln!(out, ".br\n{}", synopsis(subcommand))?;
    }
    out.write_all(DESCRIPTION.as_bytes())?;
    writeln!(out, ".SH COMMANDS")?;
    for subcommand in command.get_subcommands() {
        write_subcommand(subcommand, out)?;
    }
    out.write_all(TAIL.as_bytes())?;
    Ok(ExitCode::Success)
}

/// What the page begins with: whatis(1) wants the name and one line.
const HEAD: &str = "\
.SH NAME
procflow \\- run a graph of processes, joined by queues, that a TOML file describes
.SH SYNOPSIS
\\fBprocflow\\fR [\\fB\\-h\\fR|\\fB\\-\\-help\\fR] [\\fB\\-V\\fR|\\fB\\-\\-version\\fR]
";

const DESCRIPTION: &str = "\
.SH DESCRIPTION
procflow starts the processes of a pipeline file, joins them by queues, waits for what they depend on, and tells how every one
of them ended. When a writer fails, its readers are stopped: none takes half of its data for the whole. Whatever happens to
procflow itself, nothing that it started is left.
.PP
What procflow says of a run goes to standard error. Standard output belongs to the nodes, and to the commands whose purpose is to
print. A first pipeline: \\fBprocflow init\\fR, then \\fBprocflow run pipeline.toml\\fR.
.PP
Every command takes \\fB\\-h\\fR, \\fB\\-\\-help\\fR.
";

const TAIL: &str = "\
.SH \"EXIT STATUS\"
Of \\fBprocflow run\\fR:
.TP
\\fB0\\fR
every node succeeded, was skipped without fault, or may fail
.TP
\\fB1\\fR
a node failed
.TP
\\fB2\\fR
the command line or the pipeline is wrong; nothing was started
.TP
\\fB3\\fR
procflow itself could not go on, or could not write a report that was asked for
.TP
\\fB124\\fR
the time of the run was over
.PP
Asked to end by a signal, it ends by that signal. With \\fB\\-\\-exit\\-code\\-from\\fR it passes the code of one node on.
.SH FILES
.TP
\\fI.procflow/runs/ID/\\fR
Beside the pipeline: the logs, events and report of each of the last 20 runs, and the pipeline as it was.
.SH ENVIRONMENT
.TP
\\fBNO_COLOR\\fR, \\fBCLICOLOR_FORCE\\fR
No colours; colours where no terminal is, too.
.TP
\\fBCI\\fR
Where it is set, what a run shows is made for a log, even on a terminal.
.TP
\\fBGITHUB_ACTIONS\\fR, \\fBGITLAB_CI\\fR
Where one is \\fBtrue\\fR, the log is made for that server: folded output, annotations of failures, and on GitHub a job summary in
\\fBGITHUB_STEP_SUMMARY\\fR.
.PP
Its processes get, beside their environment: \\fBPROCFLOW_RUN_ID\\fR, \\fBPROCFLOW_NODE\\fR, \\fBPROCFLOW_ATTEMPT\\fR (from 1),
\\fBPIPELINE_DIR\\fR, and \\fBPARAM_X\\fR, \\fBIN_X\\fR, \\fBOUT_X\\fR and \\fBVALUE_NODE\\fR for what the pipeline names; in pools
\\fBWORKER\\fR, and \\fBTASK\\fR and \\fBTASK_INDEX\\fR where each record has a process.
.SH \"SEE ALSO\"
.BR make (1),
.BR xargs (1),
.BR mkfifo (1),
.BR pipe (7)
";

/// The usage of a subcommand as a line of the synopsis.
fn synopsis(command: &Command) -> String {
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ").replace(['<', '>'], "");
    let name = format!("procflow {}", command.get_name());
    let rest = usage.strip_prefix(&name).unwrap_or_default();
    format!("\\fB{}\\fR{}", escaped(&name), escaped(rest))
}

/// Writes the part of one subcommand: usage, what it does, arguments and options, what stands below its help.
fn write_subcommand(command: &Command, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, ".SS {}", synopsis(command))?;
    if let Some(about) = command.get_about() {
        writeln!(out, "{}", sentence(&about.to_string()))?;
    }
    // Arguments first, then the options, those without a heading first. `--help` is told of once, above.
    let shown = |arg: &&Arg| !arg.is_hide_set() && arg.get_id() != "help";
    let mut args: Vec<&Arg> = command.get_arguments().filter(shown).collect();
    let mut headings: Vec<Option<&str>> = Vec::new();
    for arg in &args {
        if !headings.contains(&arg.get_help_heading()) {
            headings.push(arg.get_help_heading());
        }
    }
    args.sort_by_key(|arg| {
        let heading = arg.get_help_heading();
        let place = headings.iter().position(|known| *known == heading);
        (!arg.is_positional(), heading.is_some(), place)
    });
    for arg in args {
        write_arg(arg, out)?;
    }
    // What is said below the help of `run` is a section of its own here.
    let after = command
        .get_after_help()
        .filter(|_| command.get_name() != "run");
    if let Some(after) = after {
        writeln!(out, ".PP\n.nf\n{}\n.fi", escaped(&after.to_string()))?;
    }
    Ok(())
}

/// Writes an argument or option with what it takes.
fn write_arg(arg: &Arg, out: &mut dyn Write) -> io::Result<()> {
    let mut names: Vec<String> = Vec::new();
    names.extend(arg.get_short().map(|short| format!("-{short}")));
    names.extend(arg.get_long().map(|long| format!("--{long}")));
    let names: Vec<String> = names
        .iter()
        .map(|name| format!("\\fB{}\\fR", escaped(name)))
        .collect();
    let takes = arg.get_action().takes_values();
    let value = arg
        .get_value_names()
        .filter(|_| takes)
        .and_then(|values| values.first())
        .map(|value| format!("\\fI{}\\fR", escaped(value)));
    let parts: Vec<String> = [names.join(", ")]
        .into_iter()
        .filter(|names| !names.is_empty())
        .chain(value)
        .collect();
    writeln!(out, ".TP\n{}", parts.join(" "))?;
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let default: Vec<String> = arg
        .get_default_values()
        .iter()
        .map(|value| value.to_string_lossy().into_owned())
        .collect();
    let values = if takes {
        arg.get_possible_values()
    } else {
        Vec::new()
    };
    let explained = values.iter().any(|value| value.get_help().is_some());
    let mut help = help;
    if !values.is_empty() && !explained {
        let names: Vec<&str> = values.iter().map(|value| value.get_name()).collect();
        help.push_str(&format!(": {}", names.join(", ")));
    }
    if takes && !default.is_empty() {
        help.push_str(&format!(" [default: {}]", default.join(", ")));
    }
    writeln!(out, "{}", escaped(&help))?;
    if explained {
        // A list within, without empty lines.
        writeln!(out, ".RS\n.PD 0")?;
        for value in &values {
            let help = value.get_help().map(ToString::to_string);
            writeln!(
                out,
                ".TP 10\n\\fB{}\\fR\n{}",
                escaped(value.get_name()),
                escaped(&help.unwrap_or_default())
            )?;
        }
        writeln!(out, ".PD\n.RE")?;
    }
    Ok(())
}

/// A line of help as a sentence.
fn sentence(text: &str) -> String {
    format!("{}.", escaped(text.trim_end_matches('.')))
}

/// Text as roff takes it literally.
fn escaped(text: &str) -> String {
    let text = text
        .replace('\\', "\\e")
        .replace('-', "\\-")
        .replace('`', "\\(ga")
        .replace('\'', "\\(aq");
    text.lines()
        .map(|line| {
            if line.starts_with('.') {
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
                page.contains(&format!(".SS \\fBprocflow {}", subcommand.get_name())),
                "{}",
                subcommand.get_name()
            );
            for long in subcommand
                .get_arguments()
                .filter(|argument| !argument.is_hide_set())
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
    }

    /// With `UPDATE_EXPECT=1` in the environment it is written anew, as `procflow man > docs/man/procflow.1` does.
    #[test]
    fn the_page_in_the_repository_is_up_to_date() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/man/procflow.1");
        let mut page = Vec::new();
        run(&mut page).unwrap();
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(path, &page).unwrap();
        }
        assert_eq!(
            std::fs::read_to_string(path).unwrap_or_default(),
            String::from_utf8(page).unwrap(),
            "UPDATE_EXPECT=1 cargo test --lib up_to_date writes it anew"
        );
    }
}
