//! `procflow replay`: starts one node of an earlier run again, alone, in the user's terminal.
//!
//! The run's directory has the pipeline as it was and, in `run.json`, what else the plan was made of; from these the plan is made
//! again, and the node is started as a run starts it. Values of secrets are kept nowhere, so they are asked for again.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};

use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpgrp};
use serde::{Deserialize, Serialize};

use crate::cli::args::{ReplayArgs, RunArgs};
use crate::cli::pipeline::{Asked, Pipeline};
use crate::cli::{Error, runs, words};
use crate::diagnostic::{did_you_mean, reason};
use crate::event::Failure;
use crate::exec::launch::{As, For, Launcher, StartError};
use crate::exit::ExitCode;
use crate::plan::template::{Part, Template};
use crate::plan::{Arg, Input, Origin, Plan, Sink, Source, Unit, UnitId};
use crate::report::{Redactor, Terminal};
use crate::spec;
use crate::store::{Head, Run, record_name};
use crate::sys::guard::{foreground, foreground_group};
use crate::sys::process::{self, Child};
use crate::sys::signals::stop_self;

/// What, beside the file, a run's plan was made of.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Settings {
    /// What relative paths are relative to.
    dir: PathBuf,
    name: String,
    /// Without secrets.
    set: Vec<(String, String)>,
    only: Vec<String>,
    skip: Vec<String>,
    jobs: Option<u32>,
}

impl Settings {
    pub(crate) fn of(args: &RunArgs, plan: &Plan) -> Settings {
        let set = args.pipeline.set.set.iter();
        Settings {
            dir: plan.dir.clone(),
            name: plan.name.clone(),
            set: set
                .filter(|(_, value)| !plan.secrets.contains(value))
                .cloned()
                .collect(),
            only: args.select.only.clone(),
            skip: args.select.skip.clone(),
            jobs: args.jobs,
        }
    }

    pub(crate) fn to_json(&self, secrets: &Redactor) -> Vec<u8> {
        match serde_json::to_string(self) {
            Ok(json) => format!("{}\n", secrets.text(&json)).into_bytes(),
            Err(e) => panic!("BUG: {self:?} is no JSON: {e}"),
        }
    }
}

/// Starts a node again, and ends as it does.
///
/// # Errors
/// See [`Error`].
pub fn run(args: &ReplayArgs, origin: process::Origin) -> Result<ExitCode, Error> {
    let (run, head) = runs::find(&args.which)?;
    let Some(mut plan) = plan_of(&run, &head, args)? else {
        return Ok(ExitCode::Usage);
    };
    let id = node_of(&plan, &run, &args.node)?;
    let cannot = |why: String| Error::Usage(format!("{} cannot be replayed: {why}", args.node));
    let unit = plan.unit(id).clone();
    let record = run.path().join(record_name(&args.node));
    let record = std::path::absolute(&record).unwrap_or(record);
    let mut held: Vec<(File, u32)> = Vec::new();
    for input in &unit.ends.inputs {
        held.extend(inputs(&plan, &run, input, args, &record).map_err(cannot)?);
    }
    let mut fds = Vec::new();
    for output in &unit.ends.outputs {
        match (output.fd, output.to.first()) {
            (2, Some(Sink::Stdout)) => fds.push((1, 2)),
            (1 | 2, _) => {}
            // What else it writes was for others.
            (fd, _) => {
                let null = File::options().write(true).open("/dev/null");
                held.push((null.map_err(|e| cannot(reason(&e)))?, fd));
            }
        }
    }
    fds.extend(held.iter().map(|(file, fd)| (file.as_raw_fd(), *fd)));
    if record.exists() {
        let record = record.display().to_string();
        plan.env.push(("PROCFLOW_STDIN".to_owned(), record));
    }
    if let Some(unit) = plan.units.get_mut(id.index()) {
        let prefix = args.prefix.iter();
        let prefix = prefix.map(|word| Arg::One(Template::Literal(word.as_str().into())));
        unit.argv.splice(0..0, prefix);
    }
    start(&plan, id, run.id().as_str(), &fds, origin)
}

/// The plan of a run, made again; or none, and its problems told.
fn plan_of(run: &Run, head: &Head, args: &ReplayArgs) -> Result<Option<Plan>, Error> {
    let settings = read(run, "run.json")?;
    let settings: Settings = serde_json::from_slice(&settings).map_err(|_| {
        Error::Usage(format!(
            "run {} has a run.json that cannot be read",
            run.id()
        ))
    })?;
    let text = String::from_utf8(read(run, "pipeline.toml")?).map_err(|_| {
        Error::Usage(format!(
            "run {} has a pipeline.toml that is no text",
            run.id()
        ))
    })?;
    if let Ok(spec) = spec::read(&text) {
        for (name, param) in spec.params.iter().filter(|(_, param)| param.secret) {
            let by_env = param.env.as_ref().and_then(std::env::var_os);
            let is_set = args.set.iter().any(|(set, _)| set == name);
            if param.default.is_some() && !is_set && by_env.is_none() {
                return Err(Error::Usage(format!(
                    "the run has not kept the value of `{name}`, which is secret; say it again: --set {name}=..."
                )));
            }
        }
    }
    let mut set = settings.set;
    set.extend(args.set.iter().cloned());
    let asked = Asked {
        set,
        only: settings.only,
        skip: settings.skip,
        jobs: settings.jobs,
        ..Asked::default()
    };
    let name = head
        .file
        .as_ref()
        .map_or("<stdin>".to_owned(), |file| file.display().to_string());
    let source = spec::Source {
        name,
        path: None,
        text,
    };
    let origin = Origin {
        dir: settings.dir,
        name: settings.name,
    };
    let pipeline = Pipeline::of(source, &origin, asked);
    let terminal = Terminal::of_stderr();
    let mut problems = Vec::new();
    words::plan_or_problems(&pipeline, &mut problems, terminal.look().colour)?;
    terminal.say(&String::from_utf8_lossy(&problems));
    Ok(pipeline.plan)
}

fn read(run: &Run, name: &str) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    run.open(name)
        .and_then(|file| file.take(spec::MAX_FILE).read_to_end(&mut bytes))
        .map_err(|e| runs::unreadable(run, name, &e))?;
    Ok(bytes)
}

fn node_of(plan: &Plan, run: &Run, name: &str) -> Result<UnitId, Error> {
    let Some(node) = plan.nodes.iter().find(|node| &*node.name == name) else {
        let near = did_you_mean(name, plan.nodes.iter().map(|node| &*node.name))
            .map(|near| format!("; did you mean `{near}`?"))
            .unwrap_or_default();
        let told = format!("no node `{name}` in run {}{near}", run.id());
        return Err(Error::Usage(told));
    };
    let cannot = |why: &str| Err(Error::Usage(format!("{name} cannot be replayed: {why}")));
    if node.pool.is_some() {
        return cannot("it is a pool, whose workers get their records from procflow");
    }
    let id = UnitId(node.units.start);
    let unit = plan.unit(id);
    if uses_value(unit) {
        return cannot("it uses the value of another node, which the run has not kept");
    }
    Ok(id)
}

/// It names `${{ value.X }}`.
fn uses_value(unit: &Unit) -> bool {
    let argv = unit.argv.iter().filter_map(|arg| match arg {
        Arg::One(template) => Some(template),
        _ => None,
    });
    let templates = argv.chain(unit.env.iter().map(|(_, value)| value));
    templates
        .chain([&unit.settings.cwd])
        .any(|template| match template {
            Template::Literal(_) => false,
            Template::Parts(parts) => parts.iter().any(|part| matches!(part, Part::Value(_))),
        })
}

/// What a node reads by this name, opened; or why it cannot be.
fn inputs(
    plan: &Plan,
    run: &Run,
    input: &Input,
    args: &ReplayArgs,
    record: &Path,
) -> Result<Vec<(File, u32)>, String> {
    let mut opened = Vec::new();
    let open = |path: &Path| {
        File::open(path).map_err(|e| format!("cannot open {}: {}", path.display(), reason(&e)))
    };
    for (fd, source) in &input.from {
        let file = match source {
            _ if *fd == 0 && args.keep_stdin => continue,
            Source::Inherit => continue,
            Source::Null => open(Path::new("/dev/null"))?,
            Source::File(template) => {
                let path = template.resolve(&|part| match part {
                    Part::Text(text) => text.to_string(),
                    Part::RunId => run.id().to_string(),
                    _ => String::new(),
                });
                open(&plan.dir.join(path))?
            }
            Source::Text(text) => kept(text).map_err(|e| reason(&e))?,
            Source::Queue(_) if *fd == 0 && record.exists() => open(record)?,
            Source::Queue(queue) => {
                let name = &plan.queue(*queue).name;
                return Err(match fd {
                    0 => format!(
                        "what it read from queue `{name}` was not recorded: `procflow run --record {}` does, --keep-stdin takes what is here",
                        args.node
                    ),
                    _ => format!(
                        "it reads queue `{name}` as `{}`, and only standard input is recorded",
                        input.name
                    ),
                });
            }
        };
        opened.push((file, *fd));
    }
    Ok(opened)
}

/// A file without a name that has this text.
fn kept(text: &str) -> io::Result<File> {
    let mut file = tempfile::tempfile()?;
    file.write_all(text.as_bytes())?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file)
}

fn start(
    plan: &Plan,
    unit: UnitId,
    run_id: &str,
    fds: &[(RawFd, u32)],
    origin: process::Origin,
) -> Result<ExitCode, Error> {
    std::env::set_current_dir(&plan.dir).map_err(|e| {
        Error::Usage(format!(
            "cannot go to {}: {}",
            plan.dir.display(),
            reason(&e)
        ))
    })?;
    let broken = |e: io::Error| Error::Broken(format!("cannot start a process: {}", reason(&e)));
    let mut launcher = Launcher::new(plan, run_id, origin).map_err(broken)?;
    let role = As {
        attempt: 1,
        worker: None,
        task: None,
        purpose: For::Itself,
    };
    let child = match launcher.start(unit, role, fds, &|_| None) {
        Ok(child) => child,
        Err(StartError::Unit(Failure::CannotStart { code, why })) => {
            let name = words::unit_name(plan, unit);
            let told = format!("procflow: {name} cannot start: {why}\n");
            Terminal::of_stderr().say(&crate::report::Redactor::new(&plan.secrets).text(&told));
            return Ok(ExitCode::Node(code));
        }
        Err(StartError::Unit(other)) => panic!("BUG: {other:?} before there was a process"),
        Err(StartError::Task(why)) => return Err(Error::Broken(why)),
        Err(StartError::Broken(e)) => return Err(broken(e)),
    };
    wait(&child).map_err(|e| Error::Broken(format!("cannot wait for it: {}", reason(&e))))
}

/// Waits for the end of the node. Where we have the terminal it gets it: what is typed is for it alone, and Ctrl-Z stops both.
fn wait(child: &Child) -> io::Result<ExitCode> {
    let own = getpgrp().as_raw();
    let has_terminal = foreground_group(io::stdin()) == Some(own);
    let lend = || {
        if has_terminal {
            foreground(io::stdin(), child.pid());
        }
        // It may have tried to read before it was its turn.
        child.signal_group(libc::SIGCONT)
    };
    lend()?;
    loop {
        let status = waitpid(Pid::from_raw(child.pid()), Some(WaitPidFlag::WUNTRACED));
        let code = match status {
            Ok(WaitStatus::Exited(_, code)) => u8::try_from(code).unwrap_or(u8::MAX),
            Ok(WaitStatus::Signaled(_, signal, _)) => {
                u8::try_from(128 + signal as i32).unwrap_or(u8::MAX)
            }
            Ok(WaitStatus::Stopped(..)) if has_terminal => {
                foreground(io::stdin(), own);
                stop_self();
                lend()?;
                continue;
            }
            Ok(_) | Err(nix::errno::Errno::EINTR) => continue,
            Err(e) => return Err(e.into()),
        };
        if has_terminal {
            foreground(io::stdin(), own);
        }
        return Ok(ExitCode::Node(code));
    }
}
