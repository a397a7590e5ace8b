//! `procflow ps`: the runs that go on, and their nodes: what their events say was started, and what `/proc` says of it now.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::cli::args::{PlanFormat, PsArgs};
use crate::cli::{Error, live, runs};
use crate::diagnostic::harmless;
use crate::exit::ExitCode;
use crate::report::units::{bytes, count, short};
use crate::store::{Head, Run, Runs};
use crate::sys::others::{self, Stat};

/// Shows what runs.
///
/// # Errors
/// See [`Error`].
pub fn run(
    args: &PsArgs,
    out: &mut dyn Write,
    problems: &mut dyn Write,
) -> Result<ExitCode, Error> {
    let mut found = match &args.state_dir {
        None => live::all(),
        Some(dir) => {
            let listing = Runs::of(dir).and_then(|runs| runs.list());
            let mut listed = listing.map_err(|e| Error::Broken(e.to_string()))?.runs;
            listed.retain(|(run, _)| run.is_live());
            listed
        }
    };
    if let Some(file) = &args.file {
        found.retain(|(_, head)| head.is_of(file));
    }
    let processes = others::all();
    let shown: Vec<LiveRun> = found
        .iter()
        .map(|(run, head)| LiveRun::of(run, head, &processes))
        .collect();
    match args.format {
        PlanFormat::Json => {
            let json = serde_json::to_string_pretty(&shown)
                .map_err(|e| Error::Broken(format!("BUG: no JSON: {e}")))?;
            writeln!(out, "{json}")?;
        }
        PlanFormat::Table => {
            for (i, run) in shown.iter().enumerate() {
                if i > 0 {
                    writeln!(out)?;
                }
                run.write(out)?;
            }
            if shown.is_empty() {
                writeln!(problems, "procflow: nothing runs")?;
            }
        }
    }
    Ok(ExitCode::Success)
}

/// A run that goes on.
#[derive(Debug, Serialize)]
struct LiveRun {
    run: String,
    pipeline: String,
    file: Option<PathBuf>,
    /// Its directory.
    path: PathBuf,
    /// The process that runs its loop.
    pid: i32,
    /// Seconds.
    time: f64,
    nodes: Vec<LiveNode>,
    queues: Vec<LiveQueue>,
}

/// A process of a node, or what procflow does for a pool.
#[derive(Debug, Serialize)]
struct LiveNode {
    node: String,
    worker: Option<u32>,
    /// None of a pool that procflow feeds: its workers have some.
    pid: Option<i32>,
    /// Its process is there, and has not ended.
    alive: bool,
    /// It is stopped, as by Ctrl-Z.
    stopped: bool,
    /// Seconds.
    time: Option<f64>,
    /// Seconds, of all processes of its process group.
    cpu: Option<f64>,
    /// Bytes, likewise.
    memory: Option<u64>,
    /// Records that a pool has answered.
    records: Option<u64>,
}

/// What has passed through a queue.
#[derive(Debug, Serialize)]
struct LiveQueue {
    queue: String,
    bytes: u64,
    records: Option<u64>,
    held: u64,
}

/// What is read of a line of events.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Line {
    event: String,
    t: f64,
    node: String,
    worker: Option<u32>,
    pid: Option<i32>,
    answered: u64,
    queue: String,
    bytes: u64,
    records: Option<u64>,
    held: u64,
}

/// A node, and the number of a worker.
type Key = (String, Option<u32>);

/// When it was started, in seconds from the run's start, where that is known; and its number.
type Process = (f64, Option<i32>);

/// What was started and has not ended.
#[derive(Debug, Default)]
struct Started {
    /// In the order of their starts.
    nodes: Vec<(Key, Process)>,
    answered: BTreeMap<String, u64>,
    queues: Vec<LiveQueue>,
}

impl Started {
    fn of(events: impl BufRead) -> Started {
        let mut started = Started::default();
        for line in events.split(b'\n') {
            let Ok(text) = line else { break };
            // A line that is being written is cut off.
            if let Ok(line) = serde_json::from_slice::<Line>(&text) {
                started.take(line);
            }
        }
        started
    }

    fn take(&mut self, line: Line) {
        let key = (line.node, line.worker);
        match &*line.event {
            "started" | "worker_started" => {
                self.nodes.retain(|(known, _)| *known != key);
                self.nodes.push((key, (line.t, line.pid)));
            }
            "ended" | "worker_ended" | "retrying" => self.nodes.retain(|(known, _)| *known != key),
            "pool_progress" => {
                self.answered.insert(key.0, line.answered);
            }
            "queue_progress" => {
                self.queues.retain(|queue| queue.queue != line.queue);
                self.queues.push(LiveQueue {
                    queue: line.queue,
                    bytes: line.bytes,
                    records: line.records,
                    held: line.held,
                });
            }
            "queue_ended" => self.queues.retain(|queue| queue.queue != line.queue),
            _ => {}
        }
    }
}

impl LiveRun {
    fn of(run: &Run, head: &Head, processes: &[Stat]) -> LiveRun {
        let events = run.open("events.jsonl");
        let mut started = events.map_or_else(
            |_| Started::default(),
            |events| Started::of(BufReader::new(events)),
        );
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let time = now.unwrap_or_default().saturating_sub(head.started);
        // Processes of `task` pools are not in the events: their environment says what they are.
        let children = || {
            processes
                .iter()
                .filter(|process| process.parent == head.pid)
        };
        for child in children() {
            let is_known = |(_, (_, pid)): &(Key, Process)| *pid == Some(child.pid);
            if started.nodes.iter().any(is_known) {
                continue;
            }
            let environment = others::environment(child.pid);
            if let Some(node) = others::variable(&environment, "PROCFLOW_NODE") {
                let worker = others::variable(&environment, "WORKER");
                let worker = worker.and_then(|worker| worker.parse().ok());
                let unknown = (f64::NAN, Some(child.pid));
                started.nodes.push(((node, worker), unknown));
            }
        }
        let nodes = started.nodes.iter();
        let nodes = nodes.map(|((node, worker), (at, pid))| {
            let own = pid.and_then(|pid| children().find(|process| process.pid == pid));
            let group = |sum: fn(&[&Stat]) -> f64| {
                let group: Vec<&Stat> = processes
                    .iter()
                    .filter(|process| Some(process.group) == *pid)
                    .collect();
                own.map(|_| sum(&group))
            };
            LiveNode {
                node: node.clone(),
                worker: *worker,
                pid: *pid,
                alive: own.is_some_and(|stat| stat.state != 'Z'),
                stopped: own.is_some_and(|stat| stat.state == 'T'),
                time: (!at.is_nan()).then(|| (time.as_secs_f64() - at).max(0.0)),
                cpu: group(|group| group.iter().map(|stat| stat.cpu.as_secs_f64()).sum()),
                memory: group(|group| group.iter().map(|stat| stat.resident as f64).sum())
                    .map(|sum| sum as u64),
                records: match worker {
                    None => started.answered.get(node).copied(),
                    Some(_) => None,
                },
            }
        });
        LiveRun {
            run: run.id().to_string(),
            pipeline: head.pipeline.clone(),
            file: head.file.clone(),
            path: std::path::absolute(run.path()).unwrap_or_else(|_| run.path().to_owned()),
            pid: head.pid,
            time: time.as_secs_f64(),
            nodes: nodes.collect(),
            queues: started.queues,
        }
    }

    /// ```text
    /// words: run 20261124-145309-4a3d, pid 1234, 12.3s, /srv/words.toml
    /// node     pid   alive  time   cpu    memory   records
    /// sort     1235  yes    12.3s  11.8s  3.1 MiB
    /// queue lines: 12,400 records, 1.2 MiB, 256.0 KiB held
    /// ```
    fn write(&self, out: &mut dyn Write) -> Result<(), Error> {
        let seconds =
            |seconds: f64| short(Duration::try_from_secs_f64(seconds).unwrap_or_default());
        let file = self.file.as_ref().map_or_else(
            || "standard input".to_owned(),
            |file| file.display().to_string(),
        );
        let (run, pid, time) = (&self.run, self.pid, seconds(self.time));
        let head = format!("{}: run {run}, pid {pid}, {time}, {file}", self.pipeline);
        writeln!(out, "{}", harmless(&head))?;
        let known = |text: Option<String>| text.unwrap_or_default();
        let mut lines =
            vec![["node", "pid", "alive", "time", "cpu", "memory", "records"].map(str::to_owned)];
        lines.extend(self.nodes.iter().map(|node| {
            [
                harmless(&match node.worker {
                    Some(worker) => format!("{}.{worker}", node.node),
                    None => node.node.clone(),
                }),
                known(node.pid.map(|pid| pid.to_string())),
                match (node.pid, node.alive, node.stopped) {
                    (None, _, _) => "",
                    (_, _, true) => "stopped",
                    (_, true, _) => "yes",
                    (_, false, _) => "no",
                }
                .to_owned(),
                known(node.time.map(seconds)),
                known(node.cpu.map(seconds)),
                known(node.memory.map(bytes)),
                known(node.records.map(count)),
            ]
        }));
        if !self.nodes.is_empty() {
            runs::columns(&lines, &[1, 3, 4, 5, 6], out)?;
        }
        for queue in &self.queues {
            let records = queue.records.map_or_else(String::new, |records| {
                format!("{} records, ", count(records))
            });
            let (name, moved, held) = (&queue.queue, bytes(queue.bytes), bytes(queue.held));
            writeln!(
                out,
                "{}",
                harmless(&format!("queue {name}: {records}{moved}, {held} held"))
            )?;
        }
        Ok(())
    }
}
