//! `--resume`: finds the run that is taken up, and takes over what holds of it.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::cli::Error;
use crate::diagnostic::reason;
use crate::plan::{NodeId, Plan};
use crate::resume::{Decision, Fate, Hasher, Sets, decide};
use crate::store::journal::{self, Fault, Finished, Journal, Record};
use crate::store::{self, FindError, Run, Runs};

/// What was killed a moment ago is still being cleaned up after: so long that is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// So many nodes that run again are named with their reasons.
const NAMED: usize = 10;

/// An earlier run that is taken up.
#[derive(Debug)]
pub struct Earlier {
    run: Run,
    journal: Journal,
}

/// What is taken over of it.
#[derive(Debug, Default)]
pub struct Taken {
    /// By node: it is reused. Empty where none is.
    pub reused: Vec<bool>,
    /// What the new journal begins with.
    pub records: Vec<Record>,
    /// The values of nodes that are reused.
    pub values: HashMap<NodeId, String>,
}

/// Where runs are.
pub fn state_dir(named: Option<&Path>, plan: &Plan) -> PathBuf {
    named.map_or_else(|| plan.dir.join(".procflow"), Path::to_owned)
}

/// The pipeline file as journals name it: links on the way to it don't matter.
pub fn file_name(file: &Path, plan: &Plan) -> String {
    if file.as_os_str() == "-" {
        return plan.dir.join("-").display().to_string();
    }
    let real = fs::canonicalize(file).or_else(|_| std::path::absolute(file));
    real.unwrap_or_else(|_| file.to_owned())
        .display()
        .to_string()
}

/// Makes the hashes of a plan's definitions: with a key that is kept apart from the runs, where something in them is secret.
///
/// # Errors
/// The key can't be read or made.
pub fn hasher(plan: &Plan, state_dir: &Path) -> Result<Hasher, store::Error> {
    if plan.secrets.iter().all(String::is_empty) {
        return Ok(Hasher::default());
    }
    store::key(state_dir).map(Hasher::new)
}

/// The run of this name, or with none the last one of this pipeline file that has a journal.
///
/// # Errors
/// There is none of that name; it lives; its journal says nothing that can be relied on.
pub fn earlier(word: Option<&str>, state_dir: &Path, file: &str) -> Result<Option<Earlier>, Error> {
    let runs = Runs::of(state_dir).map_err(|e| Error::Broken(e.to_string()))?;
    let run = match word {
        Some(word) => runs.find(word).map(Some),
        None => last(&runs, file),
    };
    let run = match run {
        Ok(Some(run)) => run,
        Ok(None) => return Ok(None),
        Err(FindError::Store(e)) => return Err(Error::Broken(e.to_string())),
        Err(e) => return Err(Error::Usage(format!("--resume: {e}"))),
    };
    let asked = Instant::now();
    while run.is_live() {
        if asked.elapsed() >= PATIENCE {
            return Err(Error::Usage(format!(
                "--resume: run {} is live; wait for its end, or end it",
                run.id()
            )));
        }
        sleep(Duration::from_millis(5));
    }
    let journal = read(&run)?;
    Ok(Some(Earlier { run, journal }))
}

/// The last run of this pipeline file that has a journal: one without has begun nothing.
fn last(runs: &Runs, file: &str) -> Result<Option<Run>, FindError> {
    for id in runs.ids()? {
        let Ok(run) = runs.find(&id) else { continue };
        let Ok(mut journal) = run.open("journal") else {
            continue;
        };
        let mut bytes = Vec::new();
        if journal.read_to_end(&mut bytes).is_ok()
            && journal::file_of(&bytes).is_none_or(|its| its == file)
        {
            return Ok(Some(run));
        }
    }
    Ok(None)
}

/// A run's journal.
///
/// # Errors
/// See [`earlier`].
pub fn read(run: &Run) -> Result<Journal, Error> {
    let path = run.path().join("journal");
    let mut bytes = Vec::new();
    let opened = run.open("journal");
    match opened.and_then(|mut file| file.read_to_end(&mut bytes)) {
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Err(Error::Usage(format!(
                "run {} has no journal: it had begun nothing",
                run.id()
            )));
        }
        Err(e) => {
            return Err(Error::Broken(format!(
                "cannot read {}: {}",
                path.display(),
                reason(&e)
            )));
        }
    }
    journal::read(&bytes).map_err(|fault| {
        let hint = match fault {
            Fault::Damaged { .. } => {
                "; nothing in it can be relied on: name another run with --resume=RUN, or run from the beginning"
            }
            Fault::Empty | Fault::Newer { .. } => "",
        };
        Error::Broken(format!("journal {} {fault}{hint}", path.display()))
    })
}

impl Earlier {
    /// Its name.
    pub fn id(&self) -> &str {
        self.run.id().as_str()
    }

    /// Decides what of it holds for a run of this id.
    pub fn decide(&self, plan: &Plan, run_id: &str, hasher: &Hasher) -> Decision {
        decide(plan, &self.journal, self.run.path(), run_id, hasher)
    }

    /// Takes over what holds: what is stored comes to `queues`.
    ///
    /// # Errors
    /// A stored queue can't be taken over.
    pub fn take_over(
        &self,
        plan: &Plan,
        decision: &Decision,
        queues: &Path,
    ) -> Result<Taken, Error> {
        let mut taken = Taken {
            reused: vec![false; plan.nodes.len()],
            ..Taken::default()
        };
        for nodes in Sets::of(plan).all() {
            let mut finished = Vec::new();
            for &node in nodes {
                match &decision.fates[node.index()] {
                    Fate::Reused(results) => {
                        taken.reused[node.index()] = true;
                        finished.push(self.take(results, queues)?);
                        if let Some(value) = &results.value {
                            taken.values.insert(node, value.clone());
                        }
                    }
                    Fate::Again(why) => taken.records.push(Record::Again {
                        node: plan.node(node).name.to_string(),
                        why: why.clone(),
                    }),
                    Fate::Aside => {}
                }
            }
            if !finished.is_empty() {
                taken.records.push(Record::Finished(finished));
            }
        }
        Ok(taken)
    }

    fn take(&self, results: &Finished, queues: &Path) -> Result<Finished, Error> {
        for mark in &results.stored {
            let (from, to) = (
                self.run.path().join("queues").join(&mark.path),
                queues.join(&mark.path),
            );
            // Nobody writes to it any more: a node that runs again makes its own.
            match fs::hard_link(&from, &to) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(_) => {
                    fs::copy(&from, &to).map_err(|e| {
                        Error::Broken(format!(
                            "cannot copy {} to {}: {}",
                            from.display(),
                            to.display(),
                            reason(&e)
                        ))
                    })?;
                }
            }
        }
        let mut results = results.clone();
        results.from.get_or_insert_with(|| self.id().to_owned());
        Ok(results)
    }

    /// What is said of it: how much of it holds, and why the rest doesn't.
    pub fn words(&self, plan: &Plan, decision: &Decision) -> String {
        let mut again = Vec::new();
        let mut reused = 0;
        for (node, fate) in plan.nodes.iter().zip(&decision.fates) {
            match fate {
                Fate::Reused(_) => reused += 1,
                Fate::Again(why) => again.push((&node.name, why)),
                Fate::Aside => {}
            }
        }
        let id = self.id();
        let total = reused + again.len();
        if again.is_empty() {
            return format!("procflow: takes up run {id}: nothing to do, all of it is finished\n");
        }
        let mut text =
            format!("procflow: takes up run {id}: {reused} of {total} nodes are reused\n");
        // That a run which was cut short has more to do says itself.
        let unsaid = format!("run {id} has not finished it");
        again.retain(|(_, why)| **why != unsaid);
        for (name, why) in again.iter().take(NAMED) {
            let _ = writeln!(text, "procflow: `{name}` runs again: {why}");
        }
        if again.len() > NAMED {
            let _ = writeln!(
                text,
                "procflow: {} more nodes run again",
                again.len() - NAMED
            );
        }
        text
    }
}
