//! What a `request` or `task` pool is wired with: its own ends are procflow's, and each worker's are made when it starts.

use std::ffi::OsStr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::exec::error::Error;
use crate::exec::wiring::{
    Context, Descriptor, LogEnds, QueueEnds, UnitWiring, WireError, open_input, wire_input,
    wire_output, wire_tee,
};
use crate::plan::template::Template;
use crate::plan::{DEAD_LETTER, Feed, Plan, Sink, Source, Tasks, UnitId};
use crate::pool::{PoolOutput, Work};
use crate::spec::Records;

/// The ends of a pool.
#[derive(Debug)]
pub struct PoolWiring {
    /// Where its records come from.
    pub work: Work,
    /// How they are cut.
    pub records: Records,
    /// Bytes of the longest, where the queue says.
    pub max_record: Option<u64>,
    /// So many first records go to every task.
    pub header: u32,
    /// Where results go.
    pub results: PoolOutput,
    /// More outputs of a task, by descriptor.
    pub held: Vec<(u32, PoolOutput)>,
    /// Takes the records that failed every try.
    pub dead_letter: Option<PoolOutput>,
    /// What a worker has beside what the pool gives it.
    pub workers: WorkerWiring,
}

/// What a worker has beside its pool's pipes.
#[derive(Debug)]
pub struct WorkerWiring {
    /// Its standard error.
    pub stderr: WorkerErr,
    /// Ends with a descriptor that all share, or that is opened for each.
    pub inputs: Vec<(u32, WorkerInput)>,
}

/// Where a worker's standard error leads.
#[derive(Debug)]
pub enum WorkerErr {
    /// To a log of its own.
    Log,
    /// Where its standard output leads.
    Stdout,
    /// The pool holds it back, and gives the worker an end.
    Held,
    /// Here, as all others' do.
    Shared(Descriptor),
}

/// An input of a worker beside its records. Each worker reads its own copy from the start.
#[derive(Debug)]
pub enum WorkerInput {
    /// It has no state that one could take from another.
    Shared(Descriptor),
    /// This file.
    File(PathBuf),
}

/// The ends of a pool, and those of its workers as far as they have them in common.
pub(super) fn wire_pool(
    cx: &mut Context<'_>,
    id: UnitId,
    ends: &mut QueueEnds,
) -> Result<UnitWiring, WireError> {
    let plan = cx.plan;
    let unit = plan.unit(id);
    let Some(pool) = &plan.node(unit.node).pool else {
        panic!("BUG: {id:?} is a pool's, and its node none");
    };
    let mut wired = UnitWiring::default();
    let (mut stdin, mut inputs) = (None, Vec::new());
    for (fd, source) in unit.ends.inputs.iter().flat_map(|input| &input.from) {
        if *fd == 0 {
            stdin = Some(source);
        } else {
            inputs.push((*fd, worker_input(cx, id, source, ends)?));
        }
    }
    let (records, max_record, header) = match stdin {
        Some(Source::Queue(queue)) => {
            let queue = plan.queue(*queue);
            (queue.records.clone(), queue.max_record, queue.header)
        }
        _ => (Records::Lines, None, 0),
    };
    let work = match (&pool.tasks, stdin) {
        (Some(tasks), _) => fixed(cx, id, tasks)?,
        (None, Some(source)) => {
            let end = wire_input(cx, id, source, ends)?;
            Work::Stream(owned(cx, end)?)
        }
        (None, None) => panic!("BUG: {id:?} has neither tasks nor standard input"),
    };
    let (mut results, mut dead_letter) = (None, None);
    let (mut held, mut stderr) = (Vec::new(), WorkerErr::Log);
    for output in &unit.ends.outputs {
        let to = output.to.as_slice();
        if output.fd == 2 {
            match (to, pool.feed) {
                ([Sink::Log], _) => continue,
                ([Sink::Stdout], _) => {
                    stderr = WorkerErr::Stdout;
                    continue;
                }
                ([Sink::Null | Sink::Inherit], _) | (_, Feed::Request | Feed::Stream) => {
                    let end = wire_end(cx, id, 2, to, ends, &mut wired)?;
                    stderr = WorkerErr::Shared(end);
                    continue;
                }
                (_, Feed::Task) => stderr = WorkerErr::Held,
            }
        }
        let end = wire_end(cx, id, output.fd, to, ends, &mut wired)?;
        let end = output_of(plan, to, owned(cx, end)?);
        match &*output.name {
            "stdout" => results = Some(end),
            DEAD_LETTER => dead_letter = Some(end),
            _ => held.push((output.fd, end)),
        }
    }
    let Some(results) = results else {
        panic!("BUG: {id:?} has no standard output");
    };
    wired.pool = Some(Box::new(PoolWiring {
        work,
        records,
        max_record,
        header,
        results,
        held,
        dead_letter,
        workers: WorkerWiring { stderr, inputs },
    }));
    Ok(wired)
}

/// An output of the pool: where it leads, by `fd`.
fn output_of(plan: &Plan, to: &[Sink], fd: OwnedFd) -> PoolOutput {
    let queue = to.iter().find_map(|sink| match sink {
        Sink::Queue(queue) => Some(plan.queue(*queue)),
        _ => None,
    });
    PoolOutput {
        fd,
        records: queue.map_or(Records::Lines, |queue| queue.records.clone()),
        always_terminated: queue.is_some_and(|queue| queue.feedback),
    }
}

fn wire_end(
    cx: &mut Context<'_>,
    id: UnitId,
    fd: u32,
    to: &[Sink],
    ends: &mut QueueEnds,
    wired: &mut UnitWiring,
) -> Result<Descriptor, WireError> {
    let captures = wired.captures.len();
    let end = match to {
        [sink] => wire_output(cx, id, fd, sink, ends, wired)?,
        sinks => return wire_tee(cx, id, fd, sinks, ends, wired),
    };
    // A log's write end is the pool's for as long as it lives, and then nobody's: no other unit gets that pipe.
    let log = wired.captures.get_mut(captures);
    match log.and_then(|(_, LogEnds { write, .. })| write.take()) {
        Some(write) => Ok(Descriptor::own(write)),
        None => Ok(end),
    }
}

fn worker_input(
    cx: &mut Context<'_>,
    id: UnitId,
    source: &Source,
    ends: &mut QueueEnds,
) -> Result<WorkerInput, WireError> {
    match source {
        Source::Null | Source::Inherit => {
            Ok(WorkerInput::Shared(wire_input(cx, id, source, ends)?))
        }
        Source::File(path) => {
            let path = (cx.path)(path);
            // Now, and not when the hundredth worker starts.
            open_input(&path).map_err(|why| WireError::Unit(id, why))?;
            Ok(WorkerInput::File(path))
        }
        Source::Text(_) | Source::Queue(_) => {
            let end = wire_input(cx, id, source, ends)?;
            Ok(WorkerInput::Shared(end))
        }
    }
}

impl WorkerInput {
    /// An end for one worker that reads it from its start.
    ///
    /// # Errors
    /// In words for people: the file has gone in the meantime.
    pub fn open(&self) -> Result<Descriptor, String> {
        match self {
            WorkerInput::File(path) => Ok(Descriptor::own(open_input(path)?.into())),
            WorkerInput::Shared(end @ Descriptor::Shared(_)) => Ok(end.clone()),
            // A file in memory, or a stored queue: another look at it, with a place of its own in it.
            WorkerInput::Shared(Descriptor::Own(fd)) => {
                let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
                Ok(Descriptor::own(open_input(Path::new(&path))?.into()))
            }
        }
    }
}

/// The work that the file gives.
fn fixed(cx: &Context<'_>, id: UnitId, tasks: &Tasks) -> Result<Work, WireError> {
    let wrong = |why| WireError::Unit(id, why);
    Ok(match tasks {
        Tasks::List(list) => Work::List(list.clone()),
        Tasks::Range(from, to) => Work::Range(*from, *to),
        Tasks::Lines { path, separator } => {
            let file = open_input(&(cx.path)(path)).map_err(wrong)?;
            Work::Lines(file, separator.clone())
        }
        Tasks::Glob(pattern) => Work::List(matching(cx, pattern).map_err(wrong)?),
    })
}

/// The files that a pattern matches, sorted, as the pattern names them: relative ones relative to the pipeline.
fn matching(cx: &Context<'_>, pattern: &Template) -> Result<Vec<Vec<Box<str>>>, String> {
    let whole = (cx.path)(pattern);
    let glob = globset::GlobBuilder::new(&whole.to_string_lossy())
        .literal_separator(true)
        .build()
        .map_err(|e| format!("not a pattern: {}", e.kind()))?
        .compile_matcher();
    // What stands before the first step with a sign of a pattern in it need not be searched.
    let plain = |step: &std::path::Component<'_>| {
        let bytes = step.as_os_str().as_bytes();
        !bytes.iter().any(|byte| b"*?[{".contains(byte))
    };
    let mut root: PathBuf = whole.components().take_while(plain).collect();
    if root == whole {
        root.pop();
    }
    let depth = match whole.as_os_str().as_bytes() {
        deep if deep.windows(2).any(|two| two == b"**") => usize::MAX,
        _ => whole.components().count() - root.components().count(),
    };
    let mut found = Vec::new();
    for entry in walkdir::WalkDir::new(&root).max_depth(depth).min_depth(1) {
        match entry {
            Ok(entry) if entry.file_type().is_dir() || !glob.is_match(entry.path()) => {}
            Ok(entry) => found.push(entry.into_path()),
            Err(e)
                if e.io_error()
                    .is_some_and(|e| e.kind() == std::io::ErrorKind::NotFound) => {}
            Err(e) => return Err(format!("cannot look for files: {e}")),
        }
    }
    found.sort_unstable();
    let name = |path: PathBuf| {
        let path = path.strip_prefix(&cx.plan.dir).unwrap_or(&path).as_os_str();
        match OsStr::to_str(path) {
            Some(name) => Ok(vec![Box::from(name)]),
            None => Err(format!("the name of file {path:?} is not UTF-8")),
        }
    };
    found.into_iter().map(name).collect()
}

fn owned(cx: &Context<'_>, end: Descriptor) -> Result<OwnedFd, WireError> {
    end.into_owned(cx.null).map_err(no_end)
}

fn no_end(e: std::io::Error) -> WireError {
    WireError::Broken(Error::new("make the ends of a pool", e))
}
