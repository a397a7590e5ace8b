//! [`Past`]: a run as its files tell it: from its report, or where it has none, since it lives or was killed, from its events. It
//! is shown by the code that shows a run at its end.
//!
//! The files may be of an earlier or a later version, or cut off: what is missing is not known, and what is unknown is skipped.

use std::collections::HashMap;
use std::fmt::Write;
use std::io::BufRead;
use std::time::Duration;

use serde::Deserialize;

use crate::diagnostic::harmless;
use crate::report::events::State;
use crate::report::flow::Flow;
use crate::report::lines;
use crate::report::sanitize;
use crate::report::table::{self, MOST_ROWS, Memory, Row, Shown};
use crate::report::tally::Counts;
use crate::report::terminal::{Look, Paint};
use crate::report::units::short;

/// A run that others can ask for.
#[derive(Debug, Default)]
pub struct Past {
    /// In a word or a few: `succeeded`, `interrupted by SIGINT`; `live` and `killed` where there is no report.
    pub verdict: String,
    /// How long it took, or as far as its events go.
    pub wall: Duration,
    /// Nodes by state.
    pub counts: Counts,
    /// Why it stopped before everything had run.
    pub stopped: Option<String>,
    /// In the file's order; told by events, as they began.
    pub nodes: Vec<Node>,
    /// procflow's own peak of memory.
    own_peak: Option<u64>,
}

/// A node of it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Node {
    /// Its name.
    pub name: String,
    state: Option<State>,
    #[serde(skip)]
    running: Vec<Option<u32>>,
    reason: Option<String>,
    exit: Option<u8>,
    signal: Option<Signal>,
    leaked: bool,
    allow_failure: bool,
    attempts: u32,
    flaky: bool,
    wall: Option<f64>,
    user: Option<f64>,
    system: Option<f64>,
    max_rss: Option<u64>,
    bytes_in: Option<u64>,
    bytes_out: Option<u64>,
    records_in: Option<u64>,
    records_out: Option<u64>,
    flow_estimated: bool,
    stderr: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Signal {
    name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Own {
    max_rss: u64,
}

/// What is read of a report.
#[derive(Debug, Deserialize)]
struct Report<N> {
    verdict: String,
    wall: f64,
    #[serde(default)]
    stopped: Option<String>,
    totals: Totals,
    #[serde(default)]
    procflow: Own,
    /// Not read where nobody asks for them.
    nodes: N,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Totals {
    nodes: usize,
    succeeded: usize,
    failed: usize,
    cancelled: usize,
    skipped: usize,
    reused: usize,
}

/// What is read of a line of events.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Line {
    event: String,
    t: f64,
    node: String,
    worker: Option<u32>,
    attempt: u32,
    attempts: u32,
    state: Option<State>,
    reason: Option<String>,
    exit: Option<u8>,
    /// Of a process that ended; of one that is being stopped, what it was sent.
    signal: Option<String>,
    leaked: bool,
    wall: f64,
    user: f64,
    system: f64,
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

impl<N> Report<N> {
    fn past(self, nodes: impl FnOnce(N) -> Vec<Node>) -> Past {
        Past {
            verdict: self.verdict,
            wall: seconds(self.wall),
            counts: Counts {
                total: self.totals.nodes,
                running: 0,
                succeeded: self.totals.succeeded,
                failed: self.totals.failed,
                cancelled: self.totals.cancelled,
                skipped: self.totals.skipped,
                reused: self.totals.reused,
            },
            stopped: self.stopped,
            nodes: nodes(self.nodes),
            own_peak: Some(self.procflow.max_rss),
        }
    }
}

impl Past {
    /// As its report tells it.
    ///
    /// # Errors
    /// Where it is none.
    pub fn of_report(report: &[u8]) -> serde_json::Result<Past> {
        let report: Report<Vec<Node>> = serde_json::from_slice(report)?;
        Ok(report.past(|nodes| nodes))
    }

    /// The same without its nodes, of which there may be many.
    ///
    /// # Errors
    /// Where it is none.
    pub fn in_short(report: &[u8]) -> serde_json::Result<Past> {
        let report: Report<serde::de::IgnoredAny> = serde_json::from_slice(report)?;
        Ok(report.past(|_| Vec::new()))
    }

    /// As its events tell it, as far as they go. `live`: it goes on.
    pub fn of_events(events: impl BufRead, live: bool) -> Past {
        let mut past = Past {
            verdict: if live { "live" } else { "killed" }.to_owned(),
            ..Past::default()
        };
        let mut places = HashMap::new();
        for line in events.split(b'\n') {
            let Ok(text) = line else { break };
            // A line that is cut off is the last one, of a run that was killed while it wrote it.
            if let Ok(line) = serde_json::from_slice::<Line>(&text) {
                past.wall = past.wall.max(seconds(line.t));
                past.take(line, &mut places);
            }
        }
        let mut counts = Counts::default();
        for node in &past.nodes {
            counts.total += 1;
            match node.state {
                _ if !node.running.is_empty() => counts.running += usize::from(live),
                Some(State::Succeeded) => counts.succeeded += 1,
                Some(State::Failed) => counts.failed += 1,
                Some(State::Cancelled) => counts.cancelled += 1,
                Some(State::Skipped) => counts.skipped += 1,
                Some(State::Reused) => counts.reused += 1,
                None => {}
            }
        }
        past.counts = counts;
        if !live {
            for node in &mut past.nodes {
                node.running.clear();
            }
        }
        past
    }

    fn take(&mut self, line: Line, places: &mut HashMap<String, usize>) {
        match &*line.event {
            "started" | "ended" | "retrying" => {}
            "run_ended" => {
                // All that is missing is the report.
                self.verdict = match line.exit {
                    Some(0) => "succeeded".to_owned(),
                    Some(code) => format!("ended with {code}"),
                    None => "ended".to_owned(),
                };
                return;
            }
            "run_stopping" => {
                self.stopped = self.stopped.take().or(line.reason);
                return;
            }
            _ => return,
        }
        let place = *places.entry(line.node.clone()).or_insert_with(|| {
            self.nodes.push(Node {
                name: line.node.clone(),
                ..Node::default()
            });
            self.nodes.len() - 1
        });
        let Some(node) = self.nodes.get_mut(place) else {
            return;
        };
        node.running.retain(|worker| *worker != line.worker);
        match &*line.event {
            "started" => {
                node.attempts = node.attempts.max(line.attempt);
                node.running.push(line.worker);
            }
            "ended" => node.ended(line),
            _ => {}
        }
    }

    /// Appends what a run says at its end: its failures, the table, and how it went.
    pub fn show(&self, out: &mut String, look: Look) {
        let paint = Paint(look.colour);
        for node in self.nodes.iter().filter(|node| node.is_remarkable()) {
            node.show(out, paint, look.colour);
        }
        // A failure that stopped the run has just been told.
        if let Some(why) = self.stopped.as_ref().filter(|_| self.counts.failed == 0) {
            let _ = writeln!(out, "stopping: {}", harmless(why));
        }
        let rows = self.nodes.iter();
        let (rows, more) = if self.nodes.len() <= MOST_ROWS {
            (rows.map(|node| node.row(self.own_peak)).collect(), 0)
        } else {
            let rows = rows.filter(|node| !node.is_plain());
            table::most(rows.map(|node| node.row(self.own_peak)).collect())
        };
        let width = look.columns.map(usize::from);
        table::draw(out, &rows, more, paint, width, look.unicode);
        lines::verdict_of(out, &self.verdict, &self.counts, self.wall, paint);
    }
}

impl Node {
    /// One of its workers has ended, or all of it.
    fn ended(&mut self, line: Line) {
        // The first that failed decides, else the first that was cancelled.
        let rank = |state: Option<State>| match state {
            Some(State::Failed) => 0,
            Some(State::Cancelled) => 1,
            Some(State::Skipped) => 2,
            Some(State::Succeeded) => 3,
            Some(State::Reused) => 4,
            None => 5,
        };
        let add = |sum: &mut Option<f64>, more| *sum = Some(sum.unwrap_or(0.0) + more);
        self.attempts = self.attempts.max(line.attempts);
        self.leaked |= line.leaked;
        if line.attempts > 0 {
            self.wall = Some(self.wall.unwrap_or(0.0).max(line.wall));
            add(&mut self.user, line.user);
            add(&mut self.system, line.system);
        }
        if rank(line.state) < rank(self.state) {
            self.state = line.state;
            self.reason = line.reason;
            self.exit = line.exit;
            self.signal = line.signal.map(|name| Signal { name });
        }
    }

    fn shown(&self) -> Shown {
        match self.state {
            _ if !self.running.is_empty() => Shown::Running,
            Some(state) => Shown::Ended(state),
            None => Shown::Unknown,
        }
    }

    /// It succeeded at once, and left nothing; or an earlier run did that for it.
    fn is_plain(&self) -> bool {
        let state = self.shown();
        matches!(state, Shown::Ended(State::Succeeded | State::Reused))
            && self.attempts <= 1
            && !self.leaked
    }

    /// There is more to say of it than the table does.
    fn is_remarkable(&self) -> bool {
        self.running.is_empty()
            && (self.leaked
                || self.flaky
                || !matches!(self.state, Some(State::Succeeded | State::Reused) | None))
    }

    fn row(&self, own_peak: Option<u64>) -> Row {
        let ran = self.wall.map(seconds);
        let cpu = || seconds(self.user.unwrap_or(0.0) + self.system.unwrap_or(0.0));
        Row {
            name: harmless(&self.name),
            state: self.shown(),
            status: match &self.signal {
                Some(signal) => Some(signal.name.clone()),
                None => self.exit.map(|code| code.to_string()),
            },
            time: ran.map(|wall| (wall, cpu())),
            memory: match self.max_rss {
                Some(peak) => Some(Memory::Peak(peak)),
                None => ran.and(own_peak).map(Memory::Below),
            },
            bytes: Flow {
                input: self.bytes_in,
                output: self.bytes_out,
                is_estimate: self.flow_estimated,
            },
            records: Flow {
                input: self.records_in,
                output: self.records_out,
                is_estimate: self.flow_estimated,
            },
            tries: self.attempts,
            is_flaky: self.flaky,
        }
    }

    /// `failed     build    0.31s  exit 2`, and below it the end of its standard error.
    fn show(&self, out: &mut String, paint: Paint, colour: bool) {
        let Some(state) = self.state else {
            return;
        };
        let word = format!("{:<9}", state.word());
        out.push_str(&paint.paint(lines::state_style(state), &word));
        let time = self
            .wall
            .map_or_else(|| "-".to_owned(), |wall| short(seconds(wall)));
        let _ = write!(out, "  {}  {time:>7}", harmless(&self.name));
        let remarks = [
            self.reason.clone(),
            (self.allow_failure && state == State::Failed).then(|| "it may fail".to_owned()),
            match self.attempts {
                0 | 1 => None,
                tries if self.flaky => Some(format!("flaky: {tries} tries")),
                tries => Some(format!("{tries} tries")),
            },
            self.leaked
                .then(|| "left processes behind, which were killed".to_owned()),
        ];
        for (i, remark) in remarks.into_iter().flatten().enumerate() {
            out.push_str(if i == 0 { "  " } else { "; " });
            out.push_str(&harmless(&remark));
        }
        out.push('\n');
        if state == State::Failed {
            for line in self.stderr.lines() {
                let mut harmless = String::new();
                sanitize::line(&mut harmless, line.as_bytes(), colour);
                out.push_str(&lines::quoted(None, &harmless));
                out.push('\n');
            }
        }
    }
}
