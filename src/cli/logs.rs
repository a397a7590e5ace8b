//! `procflow logs`: what the nodes of a run printed. To a pipe it goes byte by byte as it was; on a terminal it is made harmless,
//! as when it was printed.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::time::Duration;

use crate::cli::args::LogsArgs;
use crate::cli::{Error, runs};
use crate::diagnostic::{did_you_mean, harmless};
use crate::exit::ExitCode;
use crate::report::{Past, Terminal, sanitize};
use crate::store::{Run, file_name, name_of};

/// How often `--follow` looks for more.
const LOOK: Duration = Duration::from_millis(100);

/// So much is read at once.
const BLOCK: usize = 64 * 1024;

/// Prints logs.
///
/// # Errors
/// See [`Error`].
pub fn run(args: &LogsArgs, out: &mut dyn Write) -> Result<ExitCode, Error> {
    let (run, head) = runs::find(&args.which)?;
    let past = runs::past(&run, &head, Past::of_report);
    let order: Vec<&str> = past.nodes.iter().map(|node| &*node.name).collect();
    if let Some(node) = &args.node
        && !order
            .iter()
            .any(|known| known == node || is_combination(known, node))
        && logs(&run, args)?.is_empty()
        && !(args.follow && run.is_live())
    {
        let near = did_you_mean(node, order.iter().copied())
            .map(|near| format!("; did you mean `{near}`?"))
            .unwrap_or_default();
        let told = format!("no node `{node}` in run {}{near}", run.id());
        return Err(Error::Usage(told));
    }
    let mut printer = Printer {
        out,
        look: Terminal::stdout_look()
            .columns
            .map(|_| Terminal::stdout_look().colour),
        open: HashMap::new(),
        with_heads: false,
        last: None,
        at_line_start: true,
    };
    loop {
        // Asked first: what is printed before the end is there when the end is seen.
        let goes_on = args.follow && run.is_live();
        let mut found = logs(&run, args)?;
        found.sort_by_cached_key(|log| {
            let place = order.iter().position(|node| log.is_of(node));
            (
                place.unwrap_or(usize::MAX),
                log.node.clone(),
                log.worker,
                log.is_err,
            )
        });
        // With --follow more may come.
        printer.with_heads |= found.len() > 1 || args.follow && args.node.is_none();
        for log in &found {
            printer
                .print(&run, log)
                .map_err(|e| e.of(&run, &log.file))?;
        }
        if !goes_on {
            break;
        }
        printer.out.flush()?;
        std::thread::sleep(LOOK);
    }
    Ok(ExitCode::Success)
}

/// A log file.
#[derive(Debug)]
struct Log {
    /// Below `logs`.
    file: String,
    node: String,
    worker: Option<u32>,
    is_err: bool,
}

impl Log {
    /// By its name: `NODE.out`, `NODE.WORKER.err`.
    fn of(file: &str) -> Option<Log> {
        let (stem, is_err) = match file.rsplit_once('.')? {
            (stem, "out") => (stem, false),
            (stem, "err") => (stem, true),
            _ => return None,
        };
        let (stem, worker) = match stem.rsplit_once('.') {
            Some((node, number)) if number.bytes().all(|b| b.is_ascii_digit()) => {
                (node, number.parse().ok())
            }
            _ => (stem, None),
        };
        Some(Log {
            file: file.to_owned(),
            node: name_of(stem).into_owned(),
            worker,
            is_err,
        })
    }

    /// Whether it is this node's. (A very long name can't be read off its file.)
    fn is_of(&self, node: &str) -> bool {
        self.node == node || self.node == file_name(node)
    }

    /// Whether it is what this name stands for: a node, or all combinations of a matrix.
    fn is_asked_for(&self, name: &str) -> bool {
        self.is_of(name) || is_combination(&self.node, name)
    }
}

/// Whether `node` is `name[..]`.
fn is_combination(node: &str, name: &str) -> bool {
    node.strip_prefix(name)
        .is_some_and(|rest| rest.starts_with('['))
}

/// Those that are asked for.
fn logs(run: &Run, args: &LogsArgs) -> Result<Vec<Log>, Error> {
    let names = match run.logs() {
        Ok(names) => names,
        Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(e) => return Err(runs::unreadable(run, "logs", &e)),
    };
    let logs = names.iter().filter_map(|name| Log::of(name));
    Ok(logs
        .filter(|log| args.node.as_ref().is_none_or(|node| log.is_asked_for(node)))
        .filter(|log| !(args.stdout && log.is_err || args.stderr && !log.is_err))
        .collect())
}

struct Printer<'o> {
    out: &'o mut dyn Write,
    /// It is a terminal, that shows colours or doesn't.
    look: Option<bool>,
    /// What has been begun, and on a terminal, its last line that is not whole.
    open: HashMap<String, (File, Vec<u8>)>,
    with_heads: bool,
    /// Whose bytes were printed last.
    last: Option<String>,
    at_line_start: bool,
}

enum PrintError {
    Read(io::Error),
    Write(io::Error),
}

impl PrintError {
    fn of(self, run: &Run, file: &str) -> Error {
        match self {
            PrintError::Read(e) => runs::unreadable(run, &format!("logs/{file}"), &e),
            PrintError::Write(e) => Error::Stdout(e),
        }
    }
}

impl Printer<'_> {
    /// Prints what is new in a log.
    fn print(&mut self, run: &Run, log: &Log) -> Result<(), PrintError> {
        let (mut file, mut rest) = match self.open.remove(&log.file) {
            Some(open) => open,
            None => {
                let file = run.open(&format!("logs/{}", log.file));
                (file.map_err(PrintError::Read)?, Vec::new())
            }
        };
        let mut block = vec![0; BLOCK];
        loop {
            let count = file.read(&mut block).map_err(PrintError::Read)?;
            if count == 0 {
                break;
            }
            let bytes = block.get(..count).unwrap_or_default();
            self.show(&log.file, bytes, &mut rest)
                .map_err(PrintError::Write)?;
        }
        if !rest.is_empty() {
            let line = std::mem::take(&mut rest);
            self.line(&line).map_err(PrintError::Write)?;
            self.at_line_start = false;
        }
        self.open.insert(log.file.clone(), (file, rest));
        Ok(())
    }

    fn show(&mut self, name: &str, bytes: &[u8], rest: &mut Vec<u8>) -> io::Result<()> {
        if self.with_heads && self.last.as_deref() != Some(name) {
            let end = if self.at_line_start { "" } else { "\n" };
            let gap = if self.last.is_some() { "\n" } else { "" };
            writeln!(self.out, "{end}{gap}==> {} <==", harmless(name))?;
        }
        self.last = Some(name.to_owned());
        self.at_line_start = bytes.ends_with(b"\n");
        if self.look.is_none() {
            return self.out.write_all(bytes);
        }
        rest.extend_from_slice(bytes);
        let whole = memchr::memrchr(b'\n', rest).map_or(0, |at| at + 1);
        let lines: Vec<u8> = rest.drain(..whole).collect();
        for line in lines.split_inclusive(|b| *b == b'\n') {
            self.line(line.strip_suffix(b"\n").unwrap_or(line))?;
            self.out.write_all(b"\n")?;
        }
        Ok(())
    }

    /// On a terminal.
    fn line(&mut self, line: &[u8]) -> io::Result<()> {
        let mut text = String::new();
        sanitize::line(&mut text, line, self.look == Some(true));
        self.out.write_all(text.as_bytes())
    }
}
