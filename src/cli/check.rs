//! `procflow check`: every problem of the files, or that there is none.

use std::io::Write;

use crate::cli::Error;
use crate::cli::args::{CheckArgs, CheckFormat};
use crate::cli::pipeline::{Asked, Pipeline};
use crate::cli::words;
use crate::diagnostic::{Diagnostic, Severity, harmless, render};
use crate::exit::ExitCode;
use crate::plan::{Plan, Skip};

/// Checks each file; what it finds goes to `out`, since finding is its purpose.
///
/// # Errors
/// See [`Error`]. A file with problems is none: then the exit code says so.
pub fn run(args: &CheckArgs, out: &mut dyn Write, styled: bool) -> Result<ExitCode, Error> {
    let mut code = ExitCode::Success;
    // What is said of files with problems stands apart.
    let mut apart = false;
    for file in &args.files {
        let asked = Asked {
            set: args.set.set.clone(),
            ..Asked::default()
        };
        // A file that can't be read keeps no other from being checked.
        let pipeline = match Pipeline::load(file, asked) {
            Ok(pipeline) => pipeline,
            Err(Error::Usage(why)) => {
                if apart && args.format == CheckFormat::Human {
                    writeln!(out)?;
                }
                apart = true;
                unreadable(&why, &file.display().to_string(), args.format, out)?;
                code = ExitCode::Usage;
                continue;
            }
            Err(other) => return Err(other),
        };
        let problems = pipeline.problems;
        if apart && args.format == CheckFormat::Human {
            writeln!(out)?;
        }
        apart = !problems.is_empty();
        let (name, text) = (pipeline.source.name.as_str(), pipeline.source.text.as_str());
        out.write_all(
            match args.format {
                CheckFormat::Human => render(&problems, name, text, styled),
                CheckFormat::Github => crate::diagnostic::render_github(&problems, name, text),
                CheckFormat::Json => crate::diagnostic::render_json(&problems, name, text),
            }
            .as_bytes(),
        )?;
        match &pipeline.plan {
            None => code = ExitCode::Usage,
            Some(plan) if args.format == CheckFormat::Human => {
                if !problems.is_empty() {
                    writeln!(out)?;
                }
                let skipped = skipped(plan);
                writeln!(out, "{}: ok: {}{skipped}", harmless(name), summary(plan))?;
            }
            Some(_) => {}
        }
    }
    Ok(code)
}

/// A file that can't be read, as a problem without a place.
fn unreadable(
    why: &str,
    name: &str,
    format: CheckFormat,
    out: &mut dyn Write,
) -> Result<(), Error> {
    let problem = [Diagnostic {
        severity: Severity::Error,
        message: why.to_owned(),
        labels: Vec::new(),
        help: None,
    }];
    let text = match format {
        CheckFormat::Human => render(&problem, name, "", false),
        CheckFormat::Github => crate::diagnostic::render_github(&problem, name, ""),
        CheckFormat::Json => crate::diagnostic::render_json(&problem, name, ""),
    };
    Ok(out.write_all(text.as_bytes())?)
}

/// "5 processes, 1 pool, 4 queues, 2 groups": what the file declares, so without the queues that procflow made.
pub fn summary(plan: &Plan) -> String {
    let count =
        |n: usize, one: &str, many: &str| format!("{n} {}", if n == 1 { one } else { many });
    let pools = plan.nodes.iter().filter(|node| node.pool.is_some()).count();
    let queues = plan.queues.iter().filter(|queue| !queue.is_internal());
    let mut parts = vec![count(plan.nodes.len() - pools, "process", "processes")];
    if pools > 0 {
        parts.push(count(pools, "pool", "pools"));
    }
    parts.push(count(queues.count(), "queue", "queues"));
    parts.push(count(plan.groups.len(), "group", "groups"));
    parts.join(", ")
}

/// "; skipped: publish (env CI is not set)", where that is known.
fn skipped(plan: &Plan) -> String {
    let skipped: Vec<String> = plan
        .nodes
        .iter()
        .filter_map(|node| match &node.skip {
            Some(Skip::When(unmet)) => Some(format!("{} ({unmet})", node.name)),
            Some(Skip::ByUser) | None => None,
        })
        .collect();
    match skipped.is_empty() {
        true => String::new(),
        false => format!("; skipped: {}", harmless(&words::few(&skipped))),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use crate::cli::args::{CheckArgs, CheckFormat, SetArgs};
    use crate::cli::check::run;
    use crate::exit::ExitCode;

    /// Checks files with these texts; `DIR` stands for where they are.
    fn check(texts: &[&str], format: CheckFormat) -> (ExitCode, String) {
        let Ok(dir) = tempfile::tempdir() else {
            panic!("no temporary directory")
        };
        let files: Vec<PathBuf> = (0..texts.len())
            .map(|i| dir.path().join(format!("{i}.toml")))
            .collect();
        for (file, text) in files.iter().zip(texts) {
            // An empty text stands for a file that is not there.
            assert!(text.is_empty() || std::fs::write(file, text).is_ok());
        }
        let args = CheckArgs {
            files,
            set: SetArgs { set: Vec::new() },
            format,
        };
        let mut out = Vec::new();
        let code = match run(&args, &mut out, false) {
            Ok(code) => code,
            Err(error) => panic!("{error}"),
        };
        let text = String::from_utf8_lossy(&out).replace(&*dir.path().to_string_lossy(), "DIR");
        (code, text)
    }

    #[test]
    fn a_good_file_is_ok_with_its_numbers() {
        let text = "[process.a]\ncommand = ['x']\nstdout = 'q'\n[process.b]\ncommand = ['x']\nstdin = 'q'\n";
        let expected = "DIR/0.toml: ok: 2 processes, 1 queue, 1 group\n";
        assert_eq!(
            check(&[text], CheckFormat::Human),
            (ExitCode::Success, expected.to_owned())
        );
        assert_eq!(
            check(&[text], CheckFormat::Github),
            (ExitCode::Success, String::new())
        );
    }

    #[test]
    fn problems_of_the_text_and_of_its_meaning_are_told_together_and_the_next_file_is_checked() {
        let wrong = "[process.a]\ncomand = ['x']\n[process.b]\ncommand = ['x']\nafter = ['c']\n[process.cc]\ncommand = ['cat x']\n";
        let good = "[process.a]\ncommand = ['x']\n";
        let (code, text) = check(&[wrong, "", good], CheckFormat::Human);
        assert_eq!(code, ExitCode::Usage);
        assert_eq!(
            text,
            r#"error: unknown key `comand` in process `a`
 --> DIR/0.toml:2:1
  |
2 | comand = ['x']
  | ^^^^^^
  |
  = help: did you mean `command`?

error: no node `c`
 --> DIR/0.toml:5:10
  |
5 | after = ['c']
  |          ^^^

warning: the whole of `cat x` is the program's name
 --> DIR/0.toml:7:12
  |
7 | command = ['cat x']
  |            ^^^^^^^
  |
  = help: did you mean `script = "cat x"`, or one element for each argument?

error: cannot read DIR/1.toml: no such file or directory

DIR/2.toml: ok: 1 process, 0 queues, 1 group
"#
        );
    }
}
