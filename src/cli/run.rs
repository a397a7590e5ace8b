//! `procflow run`: reads like the table of contents of a run.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use nix::sys::resource::{UsageWho, getrusage};

use crate::cli::args::{NodeOutput, Progress, RunArgs};
use crate::cli::pipeline::{Asked, Pipeline};
use crate::cli::replay::Settings;
use crate::cli::server::Server;
use crate::cli::{Error, dry_run, take_up, words};
use crate::diagnostic::{Severity, did_you_mean, harmless, reason, render_github};
use crate::event::{Exit, Failure, Outcome, RunEvent, What};
use crate::exec::crew::Crew;
use crate::exec::deadlines::RunClock;
use crate::exec::jobserver::{self, Jobserver, Offer, Outer};
use crate::exec::runner::{Ended, Parts, Runner};
use crate::exec::stall::STALLED_AFTER;
use crate::exec::wiring::{Record, Taps};
use crate::exit::ExitCode;
use crate::plan::{self, Deliver, NodeId, Plan, Queue, QueueId, QueueKind, Role, Unit, UnitId};
use crate::queue::TapPrinter;
use crate::report;
use crate::report::ci::{Host, OWN};
use crate::report::summary;
use crate::report::terminal::{Look, Wishes};
use crate::report::{
    Console, EventLog, Observers, Output, Places, Redactor, Terminal, check_target, write_target,
};
use crate::resume::{self, Keeper};
use crate::sched::{Scheduler, Verdict};
use crate::spec::Source;
use crate::store::RunDir;
use crate::store::journal::{self, Header};
use crate::sys::guard::{self, Link, Notice};
use crate::sys::machine;
use crate::sys::process::Origin;
use crate::sys::signals::Signals;

/// Signals that this process hears when they are sent to it, and not to the guard.
const SIGNALS: [i32; 6] = [
    libc::SIGINT,
    libc::SIGTERM,
    libc::SIGHUP,
    libc::SIGQUIT,
    libc::SIGTSTP,
    libc::SIGCHLD,
];

/// Of these, those that give up what is waited for when all processes have ended.
const ENDING: [i32; 4] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT];

/// So long nothing is said while standard output doesn't take what is to be printed.
const TAP_PATIENCE: Duration = Duration::from_secs(1);

/// Runs a pipeline.
///
/// The process that the user started stays behind as the guard; what comes back from here is the runner, or with
/// `--dry-run`, where nothing is started, the only process.
///
/// # Errors
/// See [`Error`].
pub fn run(args: &RunArgs, origin: Origin, out: &mut dyn Write) -> Result<ExitCode, Error> {
    let outer = Outer::of(std::env::var_os("MAKEFLAGS").as_deref());
    if args.dry_run {
        let pipeline = read(args, &outer)?;
        return with_plan(args, pipeline, |plan, _| {
            dry_run::print(&plan, jobs(args, &outer, &plan), out)
        });
    }
    let debt = match &outer {
        Outer::There(client) => Some(Arc::clone(&client.debt)),
        Outer::None | Outer::Lost(_) => None,
    };
    let guard = guard::start(&origin, debt.as_deref())
        .map_err(|e| Error::Broken(format!("cannot start the guard process: {e}")))?;
    let pipeline = read(args, &outer)?;
    with_plan(args, pipeline, |plan, source| {
        run_plan(args, plan, source, origin, outer, guard)
    })
}

fn read(args: &RunArgs, outer: &Outer) -> Result<Pipeline, Error> {
    let asked = Asked {
        jobs: args.jobs,
        jobs_around: jobs_around(outer),
        ..Asked::of(&args.pipeline, &args.select)
    };
    Pipeline::load(&args.pipeline.file, asked)
}

/// Says what is wrong with the file, or goes on with its plan.
fn with_plan(
    args: &RunArgs,
    pipeline: Pipeline,
    then: impl FnOnce(Plan, &Source) -> Result<ExitCode, Error>,
) -> Result<ExitCode, Error> {
    say(&pipeline)?;
    let Some(plan) = pipeline.plan else {
        return Ok(ExitCode::Usage);
    };
    if let Some(name) = &args.exit_code_from {
        node_named(&plan, "--exit-code-from", name)?;
    }
    recorded(&plan, &args.record, &tapped(&plan, &args.tap)?)?;
    then(plan, &pipeline.source)
}

/// Errors and warnings. Notes are `check`'s: they would be said at every run.
fn say(pipeline: &Pipeline) -> Result<(), Error> {
    let terminal = Terminal::of_stderr();
    let mut problems = Vec::new();
    words::plan_or_problems(pipeline, &mut problems, terminal.look().colour)?;
    terminal.say(&String::from_utf8_lossy(&problems));
    if terminal.host() == Host::GitHub {
        let file = Server::of_process(&pipeline.source).file;
        let told = pipeline.problems.iter();
        let told: Vec<_> = told
            .filter(|problem| problem.severity != Severity::Note)
            .cloned()
            .collect();
        for line in render_github(&told, &file, &pipeline.source.text).lines() {
            terminal.say(&format!("{OWN}{line}\n"));
        }
    }
    Ok(())
}

fn jobs(args: &RunArgs, outer: &Outer, plan: &Plan) -> u32 {
    let said = args.jobs.or(match outer {
        Outer::Lost(_) => Some(1),
        Outer::None | Outer::There(_) => plan.jobs,
    });
    said.or_else(|| jobs_around(outer))
        .unwrap_or_else(machine::cpus)
        .max(1)
}

/// How many jobs the make around procflow runs, where it says so: what a run takes of it is not bound by this machine's CPUs.
fn jobs_around(outer: &Outer) -> Option<u32> {
    match outer {
        Outer::There(client) => client.jobs,
        Outer::Lost(_) => Some(1),
        Outer::None => None,
    }
}

/// The slots of this run, and what its nodes get to know of them.
fn slots(
    args: &RunArgs,
    outer: Outer,
    plan: &Plan,
    jobs: u32,
) -> io::Result<(Option<Jobserver>, Offer)> {
    let say = |text: String| {
        Terminal::of_stderr().say(&format!("procflow: warning: {}\n", harmless(&text)))
    };
    let client = match (outer, args.jobs) {
        (Outer::None, _) => None,
        (_, Some(jobs)) => {
            say(format!(
                "-j{jobs} is given, so the job slots of the make around procflow are not shared"
            ));
            None
        }
        (Outer::There(client), None) => Some(client),
        (Outer::Lost(why), None) => {
            say(format!(
                "{why}: going on with 1 job slot; begin the recipe with `+` to share make's, or give procflow its own by -j"
            ));
            None
        }
    };
    jobserver::slots(client, plan, jobs, &|name| {
        std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
    })
}

fn run_plan(
    args: &RunArgs,
    mut plan: Plan,
    source: &Source,
    origin: Origin,
    outer: Outer,
    guard: Link,
) -> Result<ExitCode, Error> {
    if let Some(timeout) = args.timeout {
        plan.timeout = Some(timeout.0);
    }
    let tapped = tapped(&plan, &args.tap)?;
    let recorded = recorded(&plan, &args.record, &tapped)?;
    for &queue in tapped.iter().chain(recorded.iter().map(|(queue, _)| queue)) {
        let queue = &mut plan.queues[queue.index()];
        // Of what flows from process to process procflow would see nothing.
        if queue.kind == QueueKind::Direct {
            queue.kind = QueueKind::Relayed;
        }
    }
    let plan = Arc::new(plan);
    check_targets(args)?;
    let file = pipeline_file(args)?;
    let args = &from_elsewhere(args)?;
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let secrets = Redactor::new(&plan.secrets);
    let state_dir = take_up::state_dir(args.state_dir.as_deref(), &plan);
    let journal_file = take_up::file_name(&args.pipeline.file, &plan);
    // Before anything of this run is there, which would be the last one.
    let earlier = match &args.resume {
        Some(word) => Some(take_up::earlier(
            word.as_deref(),
            &state_dir,
            &journal_file,
        )?),
        None => None,
    };
    let dir = RunDir::create(
        args.state_dir.as_deref(),
        &plan.dir,
        secrets.text(&source.text).as_bytes(),
        now,
    )
    .map_err(|e| Error::Broken(e.to_string()))?;
    dir.write_settings(&Settings::of(args, &plan).to_json(&secrets))
        .map_err(|e| Error::Broken(e.to_string()))?;
    let dir = Arc::new(dir);
    let broken = |e: &dyn std::fmt::Display| Error::Broken(e.to_string());
    let id = dir.id().to_string();
    let jobs = jobs(args, &outer, &plan);
    let (jobserver, offer) = slots(args, outer, &plan, jobs)
        .map_err(|e| broken(&format_args!("cannot share job slots: {}", reason(&e))))?;
    let server = Server::of_process(source);
    let watch = observers(args, &plan, source, &server, &dir)?;

    let needs_dir = |queue: &Queue| queue.spills() || queue.kind == QueueKind::Stored;
    let is_fed = |unit: &Unit| unit.role == Role::Pool;
    let spill_dir = match plan.queues.iter().any(needs_dir)
        || plan.units.iter().any(is_fed)
        || !tapped.is_empty()
        || !recorded.is_empty()
    {
        true => dir.queues().map_err(|e| broken(&e))?,
        false => dir.path().to_owned(),
    };
    let hasher = take_up::hasher(&plan, &state_dir).map_err(|e| broken(&e))?;
    let mut taken = take_up::Taken::default();
    let mut takes_up = None;
    match earlier {
        None => {}
        Some(None) => tell(
            args,
            "procflow: no earlier run to take up: runs from the beginning\n",
        ),
        Some(Some(earlier)) => {
            let decision = earlier.decide(&plan, &id, &hasher);
            taken = earlier.take_over(&plan, &decision, &spill_dir)?;
            takes_up = Some(earlier.id().to_owned());
            tell(args, &earlier.words(&plan, &decision));
        }
    }
    let header = Header {
        procflow: journal::VERSION,
        run: id.clone(),
        file: journal_file,
        takes_up,
        all: resume::for_all(&plan, &hasher),
    };
    let writer = dir
        .begin_journal(&header, &taken.records)
        .map_err(|e| broken(&e))?;
    let keeper = Keeper::new(&plan, &id, hasher, writer, spill_dir.clone());
    let mut sched = Scheduler::new(
        &plan,
        jobs,
        memory_limit(&plan),
        on_failure(args, &plan),
        seed(&id),
    );
    sched.reuse(taken.reused);
    std::env::set_current_dir(&plan.dir).map_err(|e| {
        broken(&format_args!(
            "cannot go to {}: {}",
            plan.dir.display(),
            reason(&e)
        ))
    })?;
    let parts = Parts {
        plan: &plan,
        sched,
        keeper,
        values: taken.values,
        crew: Crew::new(Arc::clone(&plan), &id, origin, offer)
            .map_err(|e| broken(&format_args!("cannot prepare to start processes: {e}")))?,
        watch,
        guard: Some(guard),
        signals: Signals::new(&SIGNALS)
            .map_err(|e| broken(&format_args!("cannot listen to signals: {e}")))?,
        run_id: id.clone(),
        taps: taps(tapped, &recorded, &plan, &dir, &spill_dir).map_err(|e| {
            broken(&format_args!(
                "cannot print what passes through queues: {e}"
            ))
        })?,
        spill_dir,
        on_failure: on_failure(args, &plan),
        jobserver,
        tasks_log: Box::new({
            let dir = Arc::clone(&dir);
            move |node| dir.create_tasks(node).map_err(io::Error::other)
        }),
        stalled_after: args.stalled_after.map_or(STALLED_AFTER, |after| after.0),
    };
    let mut runner = Runner::new(parts, RunClock::start()).map_err(|e| broken(&e))?;
    runner.tell(What::RunStarted {
        id,
        pipeline: plan.name.clone(),
        file,
        time: now,
        pid: pid(),
        jobs,
    });
    // While the first processes run, there is time to tidy up.
    let mut pruning = None;
    let ended = runner
        .run(|| pruning = dir.prune_meanwhile())
        .map_err(|e| broken(&e))?;
    let exit = finish(args, &plan, source, &server, &dir, ended)?;
    if let Some(pruning) = pruning
        && dir.is_crowded()
    {
        // A panic in it is told of by the runtime; runs that are left are no reason for more.
        let _ = pruning.join();
    }
    Ok(exit)
}

/// The absolute path of the pipeline file; none of standard input.
fn pipeline_file(args: &RunArgs) -> Result<Option<String>, Error> {
    let file = &args.pipeline.file;
    if file.as_os_str() == "-" {
        return Ok(None);
    }
    let file = std::path::absolute(file)
        .map_err(|e| Error::Broken(format!("there is no current directory: {}", reason(&e))))?;
    Ok(Some(file.display().to_string()))
}

fn on_failure(args: &RunArgs, plan: &Plan) -> crate::spec::OnFailure {
    match (args.keep_going, args.on_failure) {
        (true, _) => crate::spec::OnFailure::Continue,
        (false, given) => given.unwrap_or(plan.on_failure),
    }
}

/// Bytes of memory that nodes may claim. Asked only where somebody claims some: it means a walk through the cgroups.
fn memory_limit(plan: &Plan) -> Option<u64> {
    let mut groups = plan.groups.iter();
    groups
        .any(|group| group.memory > 0)
        .then(machine::memory)
        .flatten()
}

/// Says something of our own, where that is not unwanted.
fn tell(args: &RunArgs, text: &str) {
    if args.progress != Progress::None {
        let lines: String = text
            .lines()
            .map(|line| format!("{}\n", harmless(line)))
            .collect();
        Terminal::of_stderr().say(&lines);
    }
}

/// The arguments for a process that is about to go to another directory.
fn from_elsewhere(args: &RunArgs) -> Result<RunArgs, Error> {
    let mut args = args.clone();
    for path in [
        &mut args.json,
        &mut args.junit,
        &mut args.events,
        &mut args.state_dir,
    ] {
        if let Some(path) = path.as_mut().filter(|path| path.as_os_str() != "-") {
            *path = std::path::absolute(&*path).map_err(|e| {
                Error::Broken(format!("there is no current directory: {}", reason(&e)))
            })?;
        }
    }
    Ok(args)
}

/// The queues of these names.
fn tapped(plan: &Plan, names: &[String]) -> Result<HashSet<QueueId>, Error> {
    let named = |name: &String| {
        let at = plan.queues.iter().position(|queue| *queue.name == **name);
        at.map(QueueId::from).ok_or_else(|| {
            let said = plan.queues.iter().filter(|queue| !queue.is_internal());
            let hint = did_you_mean(name, said.map(|queue| &*queue.name))
                .map(|near| format!("; did you mean `{near}`?"))
                .unwrap_or_default();
            Error::Usage(format!("--tap {name}: no queue `{name}`{hint}"))
        })
    };
    names.iter().map(named).collect()
}

/// The queues that the nodes of `--record` read as their standard input, by node. A node that has a file or a text there needs no
/// record to be replayed.
fn recorded(
    plan: &Plan,
    nodes: &[String],
    tapped: &HashSet<QueueId>,
) -> Result<Vec<(QueueId, NodeId)>, Error> {
    let mut recorded = Vec::new();
    for name in nodes {
        let id = node_named(plan, "--record", name)?;
        let cannot = |why: &str| Err(Error::Usage(format!("--record {name}: {why}")));
        let node = plan.node(id);
        if node.pool.is_some() {
            return cannot("it is a pool, which cannot be replayed; name a process");
        }
        let ends = &plan.unit(UnitId(node.units.start)).ends;
        let queue = match ends.inputs.first().map(|input| input.from.as_slice()) {
            Some([(0, plan::Source::Queue(queue))]) => *queue,
            Some([(0, plan::Source::Inherit)]) => {
                return cannot("its standard input is procflow's own, which is not looked at");
            }
            _ => continue,
        };
        let planned = plan.queue(queue);
        if planned.readers.len() > 1 && planned.deliver != Deliver::Copy {
            let why = format!(
                "it shares queue `{}` with others, and which records it gets is not recorded",
                planned.name
            );
            return cannot(&why);
        }
        if tapped.contains(&queue) {
            return cannot(&format!(
                "--tap {} is asked for, too; leave one out",
                planned.name
            ));
        }
        recorded.push((queue, id));
    }
    Ok(recorded)
}

/// What prints copies of queues to standard output, and keeps them in the run's directory.
fn taps(
    queues: HashSet<QueueId>,
    recorded: &[(QueueId, NodeId)],
    plan: &Plan,
    dir: &RunDir,
    spill: &Path,
) -> io::Result<Option<Taps>> {
    if queues.is_empty() && recorded.is_empty() {
        return Ok(None);
    }
    let mut taps = Taps {
        spill: spill.to_owned(),
        ..Taps::default()
    };
    if !queues.is_empty() {
        let output = io::stdout().as_fd().try_clone_to_owned()?;
        let printer = TapPrinter::start(output, spill.to_owned())?;
        taps.printed = Some((queues, printer));
    }
    for &(queue, node) in recorded {
        let path = dir
            .record(&plan.node(node).name)
            .map_err(io::Error::other)?;
        taps.records.insert(queue, Record::new(path));
    }
    Ok(Some(taps))
}

/// Waits until what passed through queues is printed. Whoever does not read it is told, and may give it up by a signal, which is
/// returned.
fn finish_taps(
    taps: &Taps,
    signals: &Signals,
    guard: Option<&Link>,
) -> (Option<i32>, io::Result<()>) {
    let mut is_told = false;
    let mut ended_by = None;
    let records = taps.records.values().map(Record::finish);
    let recorded = records.fold(Ok(()), io::Result::and);
    let Some((_, printer)) = &taps.printed else {
        return (None, recorded);
    };
    let result = printer.finish(|waited, bytes| {
        if !is_told && waited >= TAP_PATIENCE {
            is_told = true;
            Terminal::of_stderr().say(&format!(
                "procflow: waiting for standard output to take what --tap has for it ({}); Ctrl-C gives it up\n",
                bytesize::ByteSize(bytes)
            ));
        }
        let notice = guard.and_then(|guard| guard.read_signal().ok().flatten());
        let told = match notice {
            Some(Notice::Signal(signal)) => Some(signal),
            Some(Notice::GuardGone) => Some(libc::SIGHUP),
            _ => signals.read().ok().flatten(),
        };
        ended_by = told.filter(|signal| ENDING.contains(signal));
        ended_by.is_none()
    });
    (ended_by, recorded.and(result))
}

fn node_named(plan: &Plan, flag: &str, name: &str) -> Result<NodeId, Error> {
    match plan.find(name).as_slice() {
        [] => {}
        &[node] => return Ok(node),
        nodes @ [first, ..] => {
            return Err(Error::Usage(format!(
                "--exit-code-from {name}: these are {} nodes; name one of them, such as '{}'",
                nodes.len(),
                plan.node(*first).name
            )));
        }
    }
    let hint = did_you_mean(name, plan.nodes.iter().map(|node| &*node.name))
        .map(|near| format!("; did you mean `{near}`?"))
        .unwrap_or_default();
    Err(Error::Usage(format!(
        "{flag} {name}: no node `{name}`{hint}"
    )))
}

/// What was asked for must be writable before anything starts: nobody wants to learn it after an hour.
fn check_targets(args: &RunArgs) -> Result<(), Error> {
    let mut taken: Vec<(&str, &Path)> = Vec::new();
    for (flag, path) in [
        ("--json", &args.json),
        ("--junit", &args.junit),
        ("--events", &args.events),
    ] {
        let Some(path) = path.as_deref() else {
            continue;
        };
        if let Some((other, _)) = taken.iter().find(|(_, taken)| *taken == path) {
            return Err(Error::Usage(format!(
                "{other} and {flag} both write {}: give each a file of its own",
                match path.to_str() {
                    Some("-") => "standard output".to_owned(),
                    _ => path.display().to_string(),
                }
            )));
        }
        taken.push((flag, path));
        if path.as_os_str() != "-" {
            check_target(path).map_err(|why| Error::Usage(format!("{flag} {why}")))?;
        }
    }
    Ok(())
}

/// Everyone who watches this run.
fn observers<'p>(
    args: &RunArgs,
    plan: &'p Plan,
    source: &Source,
    server: &Server,
    dir: &RunDir,
) -> Result<Observers<'p>, Error> {
    let broken = |e: crate::store::Error| Error::Broken(e.to_string());
    let mut watch = Observers::new(plan);
    if args.junit.is_some() {
        watch.keep_printed();
    }
    let journal = dir.path().join("events.jsonl").display().to_string();
    watch.keep(
        dir.logs().map_err(broken)?,
        EventLog::new(journal, dir.create_events().map_err(broken)?),
    );
    if let Some(path) = &args.events {
        watch.add_event_file(event_file(path)?);
    }
    let terminal = Terminal::of_stderr();
    let (progress, output) = display(args, terminal.look(), Wishes::of_process().ci);
    let places = match terminal.host() {
        Host::GitHub => Places::new(plan, server.file.clone(), &source.text),
        Host::GitLab | Host::Other => Places::default(),
    };
    let run_dir = Some(dir.path().to_owned());
    let console = Console::new(terminal, progress, output, run_dir);
    watch.add_reporter(Box::new(console.with_places(places)));
    Ok(watch)
}

fn event_file(path: &Path) -> Result<EventLog, Error> {
    EventLog::open(path).map_err(|e| {
        Error::Usage(format!(
            "--events {}: cannot be written: {}",
            path.display(),
            reason(&e)
        ))
    })
}

/// Bars and prefixed lines for who sits at a terminal; lines and whole blocks for who reads a log.
fn display(args: &RunArgs, look: Look, ci: bool) -> (report::Progress, Output) {
    let progress = match args.progress {
        Progress::Auto => report::Progress::auto(look, ci),
        Progress::Plain => report::Progress::Plain,
        Progress::Bars => report::Progress::Bars,
        Progress::None => report::Progress::None,
    };
    let output = match args.output {
        None => Output::auto(look, ci),
        Some(NodeOutput::Grouped) => Output::Grouped,
        Some(NodeOutput::Prefixed) => Output::Prefixed,
        Some(NodeOutput::Failed) => Output::Failed,
        Some(NodeOutput::None) => Output::None,
    };
    (progress, output)
}

/// For the jitter of retries: a run's id gives its seed, so that a run can be told from its report.
fn seed(id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish()
}

fn pid() -> i32 {
    nix::unistd::getpid().as_raw()
}

/// The last word: the report, what could not be written of it, and the exit code.
fn finish(
    args: &RunArgs,
    plan: &Plan,
    source: &Source,
    server: &Server,
    dir: &RunDir,
    ended: Ended<'_>,
) -> Result<ExitCode, Error> {
    let Ended {
        verdict,
        broken,
        mut watch,
        clock,
        taps,
        signals,
        guard,
    } = ended;
    if guard.is_none() {
        guard::sweep();
    }
    let (ended_by, printed) = match &taps {
        Some(taps) => finish_taps(taps, &signals, guard.as_ref()),
        None => (None, Ok(())),
    };
    let verdict = match (ended_by, verdict) {
        (Some(signal), Verdict::Succeeded) => Verdict::Interrupted(signal),
        (_, verdict) => verdict,
    };
    let mut exit = match (&broken, verdict) {
        (Some(_), _) | (None, Verdict::Broken) => ExitCode::Broken,
        (None, Verdict::Interrupted(signal)) => ExitCode::Signal(signal),
        (None, verdict) => own_code(args, plan, &watch).unwrap_or(match verdict {
            Verdict::Succeeded => ExitCode::Success,
            Verdict::TimedOut => ExitCode::TimedOut,
            _ => ExitCode::NodeFailed,
        }),
    };
    watch.event(RunEvent {
        at: clock.now(),
        what: What::RunEnded { exit },
    });
    let mut faults: Vec<String> = broken.iter().map(ToString::to_string).collect();
    match watch.finish(own_peak()) {
        Ok(unwritten) => faults.extend(unwritten.iter().map(ToString::to_string)),
        Err(e) => faults.push(e.to_string()),
    }
    if let Err(e) = printed {
        faults.push(format!(
            "cannot print or keep what --tap and --record ask for: {}",
            reason(&e)
        ));
    }
    let report = watch.report().to_json();
    faults.extend(dir.write_report(&report).err().map(|e| e.to_string()));
    let mut write = |path: &Path, report: &[u8]| {
        let result = write_report(path, report);
        faults.extend(
            result
                .err()
                .map(|e| format!("cannot write {}: {}", path.display(), reason(&e))),
        );
    };
    if let Some(path) = &args.json {
        write(path, &report);
    }
    if let Some(path) = &args.junit {
        let places = Places::new(plan, source.name.clone(), &source.text);
        write(path, watch.junit(&places).as_bytes());
    }
    if let Some(path) = &server.summary
        && let Err(e) = append_summary(path, &watch)
    {
        // Nobody asked for it by name, so it is no reason to fail.
        Terminal::of_stderr().say(&format!(
            "warning: cannot write the job summary, {}: {}\n",
            harmless(&path.display().to_string()),
            reason(&e)
        ));
    }
    if !faults.is_empty() {
        let terminal = Terminal::of_stderr();
        for fault in &faults {
            terminal.say(&format!("procflow: {}\n", harmless(fault)));
        }
        if !matches!(exit, ExitCode::Signal(_)) {
            exit = ExitCode::Broken;
        }
    }
    Ok(exit)
}

/// Adds the run to the summary of the job, which other steps and nodes write to as well.
fn append_summary(path: &Path, watch: &Observers<'_>) -> io::Result<()> {
    let mut file = std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)?;
    let taken = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    let room = summary::LIMIT.saturating_sub(taken);
    file.write_all(watch.summary(room).as_bytes())
}

fn write_report(path: &Path, report: &[u8]) -> io::Result<()> {
    if path.as_os_str() == "-" {
        let mut out = io::stdout().lock();
        out.write_all(report)?;
        return out.flush();
    }
    write_target(path, report)
}

/// `--exit-code-from`: that process's own code, or what a shell would say where it could not be started.
fn own_code(args: &RunArgs, plan: &Plan, watch: &Observers<'_>) -> Option<ExitCode> {
    let node = node_named(plan, "--exit-code-from", args.exit_code_from.as_ref()?).ok()?;
    let end = watch.tally().node_end(plan, node)?;
    Some(ExitCode::Node(match (end.exit, end.outcome) {
        (Some(Exit::Code(code)), _) => code,
        (Some(Exit::Signal { number, .. }), _) => u8::try_from(128 + number).unwrap_or(u8::MAX),
        (None, Outcome::Failed(Failure::CannotStart { code, .. })) => *code,
        (None, _) => return None,
    }))
}

/// procflow's own peak of resident memory, in bytes.
fn own_peak() -> u64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF)
        .map(|usage| usage.max_rss())
        .unwrap_or(0);
    u64::try_from(usage).unwrap_or(0) * 1024
}
