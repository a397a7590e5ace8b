//! A unit of the plan becomes a process of this machine: arguments, environment, directory and program, then the spawn.
//!
//! It knows nothing of pipes and files (who calls it brings the descriptors) nor of what becomes of the process.

use std::borrow::Cow;
use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::ops::Deref;
use std::os::fd::RawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use nix::errno::Errno;

use crate::event::Failure;
use crate::exec::jobserver::Offer;
use crate::exec::launch::environment::{Base, Environment, variable};
use crate::exec::launch::lookup::{Lookup, NotFound};
use crate::exec::launch::task::{joined, tasks_of};
use crate::plan::template::{Part, Template};
use crate::plan::{
    Arg, DEAD_LETTER, Ends, NodeId, Plan, Probe, ProbeKind, Role, Sink, Source, Tasks, Unit, UnitId,
};
use crate::pool::Task;
use crate::sys::process::{Child, Image, Origin, SpawnError, Spawner, Stage};

mod environment;
mod lookup;
mod refusal;
mod task;

pub(super) use crate::exec::launch::refusal::grouped;

/// How long a program that somebody has open for writing is waited for (ETXTBSY): any process that forks while it writes an
/// executable makes this happen for a moment, and it is no fault of the pipeline.
const BUSY: Patience = Patience {
    first: Duration::from_millis(10),
    total: Duration::from_secs(2),
};

/// How long the kernel may have no room for one more process.
const FORK: Patience = Patience {
    first: Duration::from_millis(5),
    total: Duration::from_millis(300),
};

/// Starts units of a plan, from a thread that lives as long as the run: see [`Spawner`].
#[derive(Debug)]
pub struct Launcher<P> {
    plan: P,
    run_id: String,
    spawner: Spawner,
    /// What every node's environment has in common.
    base: Base,
    /// The same for nodes with `clear_env`.
    clear: Base,
    /// The same for services, who get no job slots: what builds ends.
    apart: Option<Base>,
    lookup: Lookup,
    /// This process runs in the pipeline's directory, so a node that does, too, need not go there.
    at_home: bool,
    /// What nodes get to know of job slots.
    offer: Offer,
    /// For each node: those before it whose values it gets. Empty where no node has a value.
    values_before: Vec<Arc<[NodeId]>>,
}

/// What a process is started as.
#[derive(Debug, Clone, Copy)]
pub struct As<'a> {
    /// The try, from 1.
    pub attempt: u32,
    /// A worker of a pool that procflow feeds: its number, from 0.
    pub worker: Option<u32>,
    /// What it is started for, in a `task` pool.
    pub task: Option<&'a Task>,
    /// What it is for.
    pub purpose: For,
}

/// What a process is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum For {
    /// It is what the unit is there for.
    Itself,
    /// It looks whether the unit, a service, is ready.
    Probe,
    /// It says whether the unit's node runs at all.
    Condition,
}

/// A unit that could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The unit has failed: something is wrong with it.
    #[error("{0:?}")]
    Unit(Failure),
    /// The task cannot be handed over (in words for people): no argument holds a NUL, or so much. Nothing is wrong with the unit.
    #[error("{0}")]
    Task(String),
    /// Nothing is wrong with the unit: this machine has no process or descriptor left for it, and so not for others.
    #[error("cannot start a process: {0}")]
    Broken(io::Error),
}

impl<P: Deref<Target = Plan>> Launcher<P> {
    /// Takes down our own environment.
    ///
    /// # Errors
    /// Where there is no memory, or a variable of the plan holds a NUL (which the plan's checks rule out).
    pub fn new(plan: P, run_id: &str, origin: Origin) -> io::Result<Self> {
        let own = [("PROCFLOW_RUN_ID", run_id)];
        let pipeline = || {
            plan.env
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str()))
                .chain(own)
        };
        Ok(Launcher {
            run_id: run_id.to_owned(),
            spawner: Spawner::new(origin)?,
            base: Base::new(std::env::vars_os(), pipeline())?,
            clear: Base::new([], pipeline())?,
            lookup: Lookup::default(),
            apart: None,
            at_home: false,
            offer: Offer::default(),
            values_before: values_before(&plan),
            plan,
        })
    }

    /// This process runs in the pipeline's directory, for as long as there is a unit to start.
    #[must_use]
    pub fn at_home(mut self) -> Self {
        self.at_home = true;
        self
    }

    /// Nodes share job slots. What the pipeline says of these variables wins, and `clear_env` leaves them out.
    ///
    /// # Errors
    /// None: no flag holds a NUL.
    pub fn offering(mut self, offer: &Offer) -> io::Result<Self> {
        if self.plan.nodes.iter().any(|node| node.service.is_some()) {
            let mut apart = self.base.clone();
            self.set_flags(&offer.without, &mut apart)?;
            self.apart = Some(apart);
        }
        let mut base = std::mem::take(&mut self.base);
        self.set_flags(&offer.variables, &mut base)?;
        self.base = base;
        self.offer = offer.clone();
        Ok(self)
    }

    fn set_flags(&self, flags: &[(&'static str, String)], base: &mut Base) -> io::Result<()> {
        for (name, value) in flags {
            if !self.plan.env.iter().any(|(said, _)| said == name) {
                base.set(name.as_bytes(), value.as_bytes())?;
            }
        }
        Ok(())
    }

    /// Starts a unit's process: `fds` are all descriptors it gets, (ours, its number); `values` knows what nodes that have ended
    /// had to say.
    ///
    /// It comes back when the program has been loaded. Ours stay open: it is the caller's to close them.
    ///
    /// # Errors
    /// See [`StartError`]. Nothing of the process is left then.
    pub fn start<'v>(
        &mut self,
        unit: UnitId,
        role: As<'_>,
        fds: &[(RawFd, u32)],
        values: &dyn Fn(NodeId) -> Option<&'v str>,
    ) -> Result<Child, StartError> {
        let Some(unit) = self.plan.units.get(unit.index()) else {
            panic!("BUG: {unit:?} is not in the plan")
        };
        let known = Known {
            plan: &self.plan,
            ends: &unit.ends,
            run_id: &self.run_id,
            values,
            unit,
            role,
        };
        let argv = known.argv(unit)?;
        let cwd = known.resolve(&unit.settings.cwd)?;
        let at_home = self.at_home && matches!(&*cwd, b"" | b".");
        // Without `.` and doubled slashes, as it is shown.
        let cwd: Cow<'_, Path> = match at_home {
            true => Cow::Borrowed(&self.plan.dir),
            false => {
                let cwd = Path::new(OsStr::from_bytes(&cwd));
                Cow::Owned(self.plan.dir.join(cwd).components().collect())
            }
        };
        let before = self
            .values_before
            .get(unit.node.index())
            .map_or(&[][..], |nodes| nodes);
        let is_service =
            || (self.plan.nodes.get(unit.node.index())).is_some_and(|node| node.service.is_some());
        let base = match &self.apart {
            _ if unit.settings.clear_env => &self.clear,
            Some(apart) if is_service() => apart,
            _ => &self.base,
        };
        let env = known.environment(base, unit, before)?;

        let cwd_path = match at_home {
            true => None,
            false => Some(c_string(cwd.as_os_str().as_bytes(), "cwd")?),
        };
        let argv: Vec<&CStr> = argv.iter().map(CString::as_c_str).collect();
        let name = argv.first().map_or(&[][..], |name| name.to_bytes());
        let env_list = env.list();
        // Only who is told of the pipe gets its ends.
        let told = env.get(b"MAKEFLAGS").is_some_and(|flags| {
            let offered = self.offer.makeflags();
            offered.is_some_and(|offered| offered.as_bytes() == flags)
        });
        let with_slots;
        let fds = match told && !self.offer.fds.is_empty() {
            true => {
                with_slots = [fds, &self.offer.fds].concat();
                &with_slots
            }
            false => fds,
        };
        let mut again = Retries::default();
        loop {
            let program = match self.lookup.find(name, &cwd, env.get(b"PATH")) {
                Ok(program) => program,
                Err(NotFound { code, why }) => return Err(cannot_start(code, why)),
            };
            let image = Image {
                program: &program.file,
                argv: &argv,
                env: &env_list,
                cwd: cwd_path.as_deref(),
                fds,
                limits: &unit.settings.limits,
                nice: unit.settings.nice,
            };
            let error = match self.spawner.spawn(&image) {
                Ok(child) => return Ok(child),
                Err(error) => error,
            };
            if again.after(error, program.remembered) {
                self.lookup.forget();
                continue;
            }
            if error.stage == Stage::Fork {
                return Err(StartError::Broken(error.errno.into()));
            }
            if error.errno == Errno::E2BIG && role.task.is_some() {
                return Err(StartError::Task(
                    "the task is too long for an argument: let the program read it from its standard input".to_owned(),
                ));
            }
            let (code, why) =
                refusal::explain(error, &image, &cwd, self.spawner.origin().open_files());
            return Err(cannot_start(code, why));
        }
    }
}

/// What a unit's templates may name.
struct Known<'a, 'v> {
    plan: &'a Plan,
    ends: &'a Ends,
    run_id: &'a str,
    values: &'a dyn Fn(NodeId) -> Option<&'v str>,
    unit: &'a Unit,
    role: As<'a>,
}

impl<'a> Known<'a, '_> {
    fn argv(&self, unit: &Unit) -> Result<Vec<CString>, StartError> {
        let words = match self.role.purpose {
            For::Itself => None,
            For::Probe => Some(self.probe_command()),
            For::Condition => Some(self.condition()),
        };
        if let Some(words) = words {
            return words
                .iter()
                .map(|word| self.argument(&self.resolve(word)?))
                .collect();
        }
        let mut argv = Vec::with_capacity(unit.argv.len());
        for arg in &unit.argv {
            match arg {
                Arg::One(template) => argv.push(self.argument(&self.resolve(template)?)?),
                Arg::EachTask => {
                    for record in &self.task().records {
                        argv.push(self.argument(&joined(record, self.separator()))?);
                    }
                }
                Arg::EachInput(name) => {
                    for path in self.inputs(name) {
                        argv.push(c_string(path.as_bytes(), "an argument")?);
                    }
                }
            }
        }
        Ok(argv)
    }

    fn probe_command(&self) -> &'a [Template] {
        let node = self.plan.nodes.get(self.unit.node.index());
        let service = node.and_then(|node| node.service.as_deref());
        match service.and_then(|service| service.ready.as_ref()) {
            Some(Probe {
                kind: ProbeKind::Command(words),
                ..
            }) => words,
            other => panic!("BUG: {other:?} is no command"),
        }
    }

    fn condition(&self) -> &'a [Template] {
        let node = self.plan.nodes.get(self.unit.node.index());
        match node.and_then(|node| node.asks.as_deref()) {
            Some(words) => words,
            None => panic!("BUG: {:?} has no condition", self.unit.argv),
        }
    }

    fn argument(&self, bytes: &[u8]) -> Result<CString, StartError> {
        match CString::new(bytes) {
            Ok(argument) => Ok(argument),
            Err(_) if self.role.task.is_some() => Err(StartError::Task(
                "the task holds a NUL byte, which no argument can".to_owned(),
            )),
            Err(_) => Err(cannot_start(126, "an argument holds a NUL byte".to_owned())),
        }
    }

    fn environment<'e>(
        &self,
        base: &'e Base,
        unit: &Unit,
        before: &[NodeId],
    ) -> Result<Environment<'e>, StartError> {
        let mut env = Environment::over(base);
        let mut set = |name: &str, value: &[u8]| {
            env.set(name, value)
                .map_err(|_| cannot_start(126, format!("variable `{name}` holds a NUL byte")))
        };
        // What is another for each process of a pool there is not before the pool.
        let whole = self.role.purpose == For::Condition && unit.role == Role::Pool;
        let known = |value: &Template| !(whole && value.is_per_process());
        for (name, value) in unit.env.iter().filter(|(_, value)| known(value)) {
            set(name, &self.resolve(value)?)?;
        }
        if let Some(worker) = self.worker() {
            set("WORKER", worker.to_string().as_bytes())?;
        }
        if let Some(task) = self.role.task {
            for (name, value) in tasks_of(task, self.separator()) {
                set(&name, &value)?;
            }
        }
        // Standard ends need no path: the process has them.
        for input in self
            .ends
            .inputs
            .iter()
            .filter(|input| &*input.name != "stdin")
        {
            set(
                &variable("IN_", &input.name),
                self.inputs(&input.name)
                    .collect::<Vec<_>>()
                    .join(" ")
                    .as_bytes(),
            )?;
        }
        for output in self
            .ends
            .outputs
            .iter()
            .filter(|output| output.fd > 2 || is_number(&output.name))
            .filter(|output| &*output.name != DEAD_LETTER)
        {
            set(
                &variable("OUT_", &output.name),
                dev_fd(output.fd).as_bytes(),
            )?;
        }
        for &node in before {
            if let Some(value) = (self.values)(node) {
                set(&variable("VALUE_", self.name(node)), value.as_bytes())?;
            }
        }
        set("PROCFLOW_NODE", self.name(unit.node).as_bytes())?;
        set("PROCFLOW_ATTEMPT", self.role.attempt.to_string().as_bytes())?;
        Ok(env)
    }

    fn task(&self) -> &'a Task {
        match self.role.task {
            Some(task) => task,
            None => panic!("BUG: {:?} names a task, and has none", self.unit.argv),
        }
    }

    /// The number of the worker that is started.
    fn worker(&self) -> Option<u32> {
        match self.unit.role {
            Role::Worker(worker) => Some(worker),
            Role::Process | Role::Pool | Role::Gather => self.role.worker,
        }
    }

    /// What stands between the fields of a task that is put together again.
    fn separator(&self) -> &'a str {
        let node = self.plan.nodes.get(self.unit.node.index());
        let pool = node.and_then(|node| node.pool.as_deref());
        match pool.and_then(|pool| pool.tasks.as_ref()) {
            Some(Tasks::Lines {
                separator: Some(separator),
                ..
            }) => separator,
            _ => "\t",
        }
    }

    /// Bytes, since a task need not be text.
    fn resolve<'t>(&self, template: &'t Template) -> Result<Cow<'t, [u8]>, StartError> {
        let parts = match template {
            Template::Literal(text) => return Ok(Cow::Borrowed(text.as_bytes())),
            Template::Parts(parts) => parts,
        };
        let mut text = Vec::new();
        for part in parts {
            match part {
                Part::Text(part) => text.extend_from_slice(part.as_bytes()),
                Part::In(name) => {
                    let paths: Vec<String> = self.inputs(name).collect();
                    text.extend_from_slice(paths.join(" ").as_bytes());
                }
                Part::Out(name) => text.extend_from_slice(self.output(name).as_bytes()),
                Part::RunId => text.extend_from_slice(self.run_id.as_bytes()),
                Part::Task => {
                    let records = self.task().records.iter();
                    let records: Vec<_> = records.map(|r| joined(r, self.separator())).collect();
                    text.extend_from_slice(&records.join(&b'\n'));
                }
                Part::TaskField(field) => {
                    let record = self.task().records.first();
                    let value = record.and_then(|record| record.get(*field as usize));
                    text.extend_from_slice(value.map_or(&[][..], |value| value));
                }
                Part::TaskIndex => {
                    text.extend_from_slice(self.task().index.to_string().as_bytes());
                }
                Part::Worker => {
                    text.extend_from_slice(self.worker().unwrap_or(0).to_string().as_bytes());
                }
                // An empty text instead would make `rm -r ${{ value.where }}/x` something nobody meant.
                Part::Value(node) => match (self.values)(*node) {
                    Some(value) => text.extend_from_slice(value.as_bytes()),
                    None => {
                        return Err(cannot_start(
                            126,
                            format!(
                                "there is no value of `{}`: it has not succeeded",
                                self.name(*node)
                            ),
                        ));
                    }
                },
            }
        }
        Ok(Cow::Owned(text))
    }

    fn inputs(&self, name: &str) -> impl Iterator<Item = String> {
        let input = self.ends.inputs.iter().find(|input| &*input.name == name);
        input
            .map_or(&[][..], |input| &input.from)
            .iter()
            .map(|(fd, _)| dev_fd(*fd))
    }

    fn output(&self, name: &str) -> String {
        self.ends
            .outputs
            .iter()
            .find(|output| &*output.name == name)
            .map_or_else(String::new, |output| dev_fd(output.fd))
    }

    fn name(&self, node: NodeId) -> &'a str {
        self.plan
            .nodes
            .get(node.index())
            .map_or("", |node| &node.name)
    }
}

/// Whether a failed spawn is worth another try, of which there are only so many.
#[derive(Debug, Default)]
struct Retries {
    busy: Duration,
    fork: Duration,
    looked_up: bool,
}

impl Retries {
    /// True if it may work now; waits first where that is what it takes.
    fn after(&mut self, error: SpawnError, remembered: bool) -> bool {
        match (error.stage, error.errno) {
            (Stage::Exec, Errno::ETXTBSY) => BUSY.wait(&mut self.busy),
            (Stage::Fork, Errno::EAGAIN | Errno::ENOMEM) => FORK.wait(&mut self.fork),
            // It was there when it was looked up, and has been moved since.
            (Stage::Exec, Errno::ENOENT | Errno::EACCES | Errno::ENOTDIR)
                if remembered && !self.looked_up =>
            {
                self.looked_up = true;
                true
            }
            _ => false,
        }
    }
}

/// Pauses that double, up to a total.
struct Patience {
    first: Duration,
    total: Duration,
}

impl Patience {
    fn wait(&self, waited: &mut Duration) -> bool {
        let left = self.total.saturating_sub(*waited);
        let pause = (*waited).max(self.first).min(left);
        *waited += pause;
        sleep(pause);
        !pause.is_zero()
    }
}

fn cannot_start(code: u8, why: String) -> StartError {
    StartError::Unit(Failure::CannotStart { code, why })
}

fn c_string(bytes: &[u8], what: &str) -> Result<CString, StartError> {
    CString::new(bytes).map_err(|_| cannot_start(126, format!("{what} holds a NUL byte")))
}

fn dev_fd(fd: u32) -> String {
    format!("/dev/fd/{fd}")
}

fn is_number(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_digit())
}

/// For each node those with `stdout = "value"` that it comes after, in whatever number of steps.
fn values_before(plan: &Plan) -> Vec<Arc<[NodeId]>> {
    let mut has_value = vec![false; plan.nodes.len()];
    for unit in &plan.units {
        if unit
            .ends
            .outputs
            .iter()
            .any(|output| output.to.contains(&Sink::Value))
            && let Some(has) = has_value.get_mut(unit.node.index())
        {
            *has = true;
        }
    }
    if !has_value.contains(&true) {
        return Vec::new();
    }
    let none: Arc<[NodeId]> = Arc::new([]);
    let mut before = vec![none; plan.nodes.len()];
    // Groups stand in start order, so what a node comes after has been seen.
    for unit in plan
        .groups
        .iter()
        .flat_map(|group| &group.units)
        .filter_map(|unit| plan.units.get(unit.index()))
    {
        let mut all: Vec<NodeId> = before
            .get(unit.node.index())
            .map_or_else(Vec::new, |nodes| nodes.to_vec());
        for earlier in nodes_before(plan, unit) {
            all.extend(
                before
                    .get(earlier.index())
                    .iter()
                    .flat_map(|nodes| nodes.iter()),
            );
            if has_value.get(earlier.index()) == Some(&true) {
                all.push(earlier);
            }
        }
        all.sort_unstable();
        all.dedup();
        if let Some(nodes) = before.get_mut(unit.node.index()) {
            *nodes = all.into();
        }
    }
    before
}

/// The nodes that a unit's node comes after in one step: those it waits for, and the writers of its queues.
fn nodes_before<'a>(plan: &'a Plan, unit: &'a Unit) -> impl Iterator<Item = NodeId> + 'a {
    let waits = plan
        .nodes
        .get(unit.node.index())
        .into_iter()
        .flat_map(|node| node.after.iter().map(|after| after.node));
    let queues = unit
        .ends
        .inputs
        .iter()
        .flat_map(|input| &input.from)
        .filter_map(|(_, source)| match source {
            Source::Queue(queue) => plan.queues.get(queue.index()),
            Source::Null | Source::Inherit | Source::File(_) | Source::Text(_) => None,
        });
    let writers = queues
        .flat_map(|queue| &queue.writers)
        .filter_map(|unit| plan.units.get(unit.index()));
    waits.chain(writers.map(|unit| unit.node))
}

/// A path as bytes, for the kernel.
fn path_c_string(path: &Path) -> Option<CString> {
    CString::new(path.as_os_str().to_os_string().into_vec()).ok()
}

/// Bytes that name a file.
fn as_path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}
