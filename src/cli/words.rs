//! Words that the printing commands share: names, commands, states, amounts. Secrets never get through.

use std::borrow::Cow;
use std::io::{self, Write};
use std::time::Duration;

use crate::cli::pipeline::Pipeline;
use crate::diagnostic::{Severity, harmless, render};
use crate::plan::template::Template;
use crate::plan::{Arg, Feed, Group, Node, Plan, Probe, ProbeKind, Queue, Unit, UnitId};
use crate::report::Redactor;
use crate::spec::{JobserverStyle, OnFailure};

pub use crate::draw::words::{copy_of, few, is_within, left_out, node_name, nodes, state, wait};
#[cfg(test)]
pub(crate) use crate::draw::words::{example, planned, pools};

/// The plan; or none, and its errors and warnings told. Warnings are told in any case, notes are `check`'s.
///
/// # Errors
/// Those of `err`.
pub fn plan_or_problems<'a>(
    pipeline: &'a Pipeline,
    err: &mut dyn Write,
    styled: bool,
) -> io::Result<Option<&'a Plan>> {
    let told: Vec<_> = pipeline
        .problems
        .iter()
        .filter(|problem| problem.severity > Severity::Note)
        .cloned()
        .collect();
    err.write_all(render(&told, &pipeline.source.name, &pipeline.source.text, styled).as_bytes())?;
    Ok(pipeline.plan.as_ref())
}

/// The name of a unit's node.
pub fn unit_name(plan: &Plan, unit: UnitId) -> &str {
    &plan.nodes[plan.units[unit.index()].node.index()].name
}

/// The names of the nodes at one side of a queue, each once.
pub fn end_nodes<'a>(plan: &'a Plan, units: &[UnitId]) -> Vec<&'a str> {
    let mut names: Vec<&str> = units.iter().map(|&unit| unit_name(plan, unit)).collect();
    names.dedup();
    names
}

/// "a, b → c".
pub fn ends(plan: &Plan, queue: &Queue) -> String {
    let (writers, readers) = (
        end_nodes(plan, &queue.writers),
        end_nodes(plan, &queue.readers),
    );
    format!("{} → {}", writers.join(", "), readers.join(", "))
}

/// As the file says it.
pub fn jobserver(style: JobserverStyle) -> &'static str {
    match style {
        JobserverStyle::Pipe => "pipe",
        JobserverStyle::Fifo => "fifo",
        JobserverStyle::None => "none",
    }
}

/// What a group claims of the plan's resources, and how much.
pub fn claims<'a>(plan: &'a Plan, group: &'a Group) -> impl Iterator<Item = (&'a str, u32)> {
    let resources = plan.resources.iter().zip(&*group.resources);
    resources
        .filter(|(_, claimed)| **claimed > 0)
        .map(|(resource, claimed)| (&*resource.name, *claimed))
}

/// "gpu 2, db 1".
pub fn amounts<'a>(amounts: impl Iterator<Item = (&'a str, u32)>) -> String {
    let amounts: Vec<String> = amounts
        .map(|(name, amount)| format!("{name} {amount}"))
        .collect();
    amounts.join(", ")
}

/// As the file says it.
pub fn feed(feed: Feed) -> &'static str {
    match feed {
        Feed::Stream => "stream",
        Feed::Request => "request",
        Feed::Task => "task",
    }
}

/// `text` with every secret of the plan as `***`.
pub fn masked<'a>(plan: &Plan, text: &'a str) -> Cow<'a, str> {
    // Its lines by themselves as well: what has several may stand here with its line ends as escapes.
    Redactor::new(&plan.secrets).text(text)
}

/// A unit's arguments, with what is left for the run as the file says it.
pub fn argv(plan: &Plan, unit: &Unit) -> Vec<String> {
    unit.argv
        .iter()
        .map(|argument| match argument {
            Arg::One(template) => {
                let text = template.display(&|node| node_name(plan, node)).to_string();
                masked(plan, &text).into_owned()
            }
            Arg::EachInput(name) => format!("${{{{ in.{name} }}}}"),
            Arg::EachTask => "${{ task }}".to_owned(),
        })
        .collect()
}

/// A unit's command as one line of at most `width` characters.
pub fn command(plan: &Plan, unit: &Unit, width: usize) -> String {
    line(&argv(plan, unit), width)
}

/// The command that says whether a node runs, as [`argv`].
pub fn condition(plan: &Plan, node: &Node) -> Option<Vec<String>> {
    let words = node.asks.as_ref()?.iter().map(|word| {
        let text = word.display(&|node| node_name(plan, node)).to_string();
        masked(plan, &text).into_owned()
    });
    Some(words.collect())
}

/// Words as one line, as one would type it, of at most `width` characters.
pub fn line(words: &[String], width: usize) -> String {
    let line = words
        .iter()
        .map(|word| shell_word(&one_line(word)).into_owned())
        .collect::<Vec<_>>()
        .join(" ");
    let line = harmless(&line);
    shortened(&line, width)
}

/// A script's lines, one after the other, with what can't be taken for a part of it between them.
fn one_line(text: &str) -> Cow<'_, str> {
    if !text.contains('\n') {
        return Cow::Borrowed(text);
    }
    if text.trim().is_empty() {
        return Cow::Owned(text.replace('\n', "⏎"));
    }
    Cow::Owned(
        text.trim()
            .split('\n')
            .map(str::trim)
            .collect::<Vec<_>>()
            .join(" ⏎ "),
    )
}

/// At most `width` characters, the last of them `…` where more were there.
pub fn shortened(line: &str, width: usize) -> String {
    match line.char_indices().nth(width) {
        None => line.to_owned(),
        Some(_) => line
            .chars()
            .take(width.saturating_sub(1))
            .chain(['…'])
            .collect(),
    }
}

/// Quoted as a shell would need it, so that the borders of arguments can be seen.
pub fn shell_word(word: &str) -> Cow<'_, str> {
    let plain = |c: char| c.is_alphanumeric() || "_-./=:,+@%^".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return Cow::Borrowed(word);
    }
    Cow::Owned(format!("'{}'", word.replace('\'', "'\\''")))
}

/// When a service is ready: "ready when 127.0.0.1:5432 takes a connection; looked at every 100ms to 1s, for 1m at most".
pub fn readiness(plan: &Plan, probe: Option<&Probe>) -> String {
    let Some(probe) = probe else {
        return "ready as soon as it runs".to_owned();
    };
    let text = |template: &Template| {
        let text = template.display(&|node| node_name(plan, node)).to_string();
        masked(plan, &harmless(&text)).into_owned()
    };
    let when = match &probe.kind {
        ProbeKind::Tcp(address) => format!("{} takes a connection", text(address)),
        ProbeKind::Http(url) => format!("{} is answered", text(url)),
        ProbeKind::Log(pattern) => format!("a line of its output matches {:?}", text(pattern)),
        ProbeKind::File(path) => format!("file {} is there", text(path)),
        ProbeKind::Command(words) => {
            let words = words
                .iter()
                .map(|word| shell_word(&text(word)).into_owned());
            format!("this succeeds: {}", words.collect::<Vec<_>>().join(" "))
        }
    };
    let (first, last) = (probe.interval.first, probe.interval.last);
    let every = match &probe.kind {
        // It is looked at as it comes.
        ProbeKind::Log(_) => String::new(),
        _ if first == last => format!("; looked at every {}", duration(first)),
        _ => format!(
            "; looked at every {} to {}",
            duration(first),
            duration(last)
        ),
    };
    format!(
        "ready when {when}{every}, for {} at most",
        duration(probe.timeout)
    )
}

/// As the file says it.
pub fn on_failure(policy: OnFailure) -> &'static str {
    match policy {
        OnFailure::Stop => "stop",
        OnFailure::Kill => "kill",
        OnFailure::Continue => "continue",
    }
}

/// "1m 30s".
pub fn duration(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

/// "256 KiB": whole units where the number is one.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [(&str, u64); 4] = [
        ("TiB", 1 << 40),
        ("GiB", 1 << 30),
        ("MiB", 1 << 20),
        ("KiB", 1 << 10),
    ];
    match UNITS
        .iter()
        .find(|(_, size)| bytes >= *size && bytes.is_multiple_of(*size))
    {
        Some((unit, size)) => format!("{} {unit}", bytes / size),
        None if bytes < 10_000 => format!("{bytes} bytes"),
        None => bytesize::ByteSize(bytes).display().iec().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use crate::cli::words::{bytes, one_line, shell_word, shortened};

    #[test]
    fn words_and_amounts() {
        assert_eq!(shell_word("a-b.c"), "a-b.c");
        assert_eq!(shell_word(""), "''");
        assert_eq!(shell_word("it's"), "'it'\\''s'");
        assert_eq!(one_line("\n"), "⏎");
        assert_eq!(one_line("\n  a\n  b\n"), "a ⏎ b");
        assert_eq!(shortened("abcdef", 6), "abcdef");
        assert_eq!(shortened("abcdefg", 6), "abcde…");
        assert_eq!(bytes(256 << 10), "256 KiB");
        assert_eq!(bytes(5), "5 bytes");
    }
}
