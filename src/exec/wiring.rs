//! Who holds which end of which pipe, until when: the descriptors of one attempt of a group.
//!
//! For every writer of every queue the loop keeps a *hold*: a duplicate of the write end. The reader sees the end of data
//! when the last copy of the write end is gone, so a hold that is dropped only when the scheduler says `Release` (the
//! writer has succeeded) is what keeps a crash from looking like the end of data, at no cost per byte. Read ends are
//! never held: a writer gets SIGPIPE as soon as its reader has gone.
//!
//! ```text
//! bare pipe      writer ━━▶ pipe ━━▶ reader          hold: the pipe's write end
//! relayed        writer ━━▶ pipe ━━▶ relay ━━▶ pipe ━━▶ reader     hold: the first pipe's write end
//! array of ends  unit ━━▶ pipe ━━▶ relay (tee) ━━▶ queue, file, log …    hold: each queue's own write end
//! ```
//!
//! A tee is invisible to the queues behind it: to each it is the writer's write end. It ends when its unit has ended.
//!
//! What a pool that procflow feeds is wired with is in `pool_wiring`.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::diagnostic::reason;
use crate::exec::error::Error;
use crate::exec::files::{Appended, PendingFile, open_output};
use crate::exec::log_pipes::LogPipes;
use crate::exec::pool_wiring::{self, PoolWiring};
use crate::exec::questions::LeftOut;
use crate::exec::relays::Carries;
use crate::exec::stored;
use crate::plan::template::Template;
use crate::plan::{
    Deliver, Feed, GroupId, Output, Overflow, Plan, Queue, QueueId, QueueKind, Role, Sink, Source,
    Unit, UnitId,
};
use crate::queue::{Fate, RelayInput, RelayOutput, RelaySpec, TapPrinter, WriterState};
use crate::spec::{Merge, OnWriterFailure, Records};
use crate::sys::pipe::{Pipe, is_broken};
use crate::sys::process::sleep::{PipeId, pipe_behind};

/// What the loop reads from a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Captured {
    /// For the log of its standard output (or of another descriptor than 2).
    Out,
    /// For the log of its standard error.
    Err,
    /// Its value.
    Value,
}

/// Bytes that a tee holds which feeds no queue.
const TEE_CAPACITY: usize = 64 * 1024;

/// The queues of a group while an attempt of it lives.
#[derive(Debug, Default)]
pub struct Wiring {
    /// The holds, by queue and writer.
    holds: HashMap<(QueueId, UnitId), Hold>,
    /// The pipes that are read. The ends themselves are the readers' alone.
    read: Vec<(QueueId, PipeId)>,
}

#[derive(Debug)]
struct Hold {
    end: OwnedFd,
    /// For the queue's relay: how this writer ended. `None` for a bare pipe.
    fate: Option<Arc<Fate>>,
}

impl Wiring {
    /// Drops the hold of `writer` on `queue`. `torn`: a record that it left unfinished is not to be delivered.
    pub fn release(&mut self, queue: QueueId, writer: UnitId, torn: bool) {
        let Some(hold) = self.holds.remove(&(queue, writer)) else {
            return;
        };
        if let Some(fate) = &hold.fate {
            fate.set(if torn {
                WriterState::Torn
            } else {
                WriterState::Ended
            });
        }
        // Only now, so that the relay knows of it when it sees the end of data.
        drop(hold.end);
    }

    /// The end of data is held back for this writer.
    pub fn holds_for(&self, queue: QueueId, writer: UnitId) -> bool {
        self.holds.contains_key(&(queue, writer))
    }

    /// All writers of this queue have done their part of it.
    pub fn is_released(&self, queue: QueueId) -> bool {
        !self.holds.keys().any(|(held, _)| *held == queue)
    }

    /// The holds: whose, on which queue.
    pub fn holds(&self) -> impl Iterator<Item = (QueueId, UnitId, BorrowedFd<'_>)> {
        self.holds
            .iter()
            .map(|(&(queue, writer), hold)| (queue, writer, hold.end.as_fd()))
    }

    /// The pipes that readers have of each queue.
    pub fn read_pipes(&self) -> impl Iterator<Item = (QueueId, PipeId)> {
        self.read.iter().copied()
    }

    /// The process of `writer` has ended; its relays are to be told to look.
    pub fn exited(&self, plan: &Plan, writer: UnitId) {
        for queue in output_queues(plan.unit(writer)) {
            if let Some(hold) = self.holds.get(&(queue, writer))
                && let Some(fate) = &hold.fate
            {
                fate.set(WriterState::Exited);
            }
        }
    }

    /// Those queues of `writer` that nobody can read from any more.
    pub fn broken(&self, plan: &Plan, writer: UnitId) -> Vec<QueueId> {
        output_queues(plan.unit(writer))
            .filter(|&queue| {
                self.holds
                    .get(&(queue, writer))
                    .is_some_and(|hold| is_broken(hold.end.as_fd()))
            })
            .collect()
    }
}

/// The queues that a unit writes.
pub fn output_queues(unit: &Unit) -> impl Iterator<Item = QueueId> {
    let outputs = unit.ends.outputs.iter();
    outputs.flat_map(|output| queues_of(&output.to))
}

fn queues_of(sinks: &[Sink]) -> impl Iterator<Item = QueueId> {
    sinks.iter().filter_map(|sink| match sink {
        Sink::Queue(queue) => Some(*queue),
        _ => None,
    })
}

/// What one unit is started with, and what the loop keeps of it.
#[derive(Debug, Default)]
pub struct UnitWiring {
    /// Descriptors for the child: what is to be there, at which number.
    pub fds: Vec<(Descriptor, u32)>,
    /// Ends to read from.
    pub captures: Vec<(Captured, LogEnds)>,
    /// Its files.
    pub files: Vec<PendingFile>,
    /// For each of its outputs with several sinks, a hold on the pipe before the tee, to be dropped when the unit has ended.
    pub tee_holds: Vec<TeeHold>,
    /// Of a `stream` pool's worker: the read end of its share, to see whether it left something unread. The queue's relay takes
    /// no notice of that: its other readers go on.
    pub share: Option<OwnedFd>,
    /// Of a pool that procflow feeds.
    pub pool: Option<Box<PoolWiring>>,
}

impl UnitWiring {
    /// Its descriptors by number: (ours, its).
    pub fn numbers(&self) -> Vec<(RawFd, u32)> {
        numbers(&self.fds)
    }
}

/// A child's descriptors by number: (ours, its).
pub(super) fn numbers(fds: &[(Descriptor, u32)]) -> Vec<(RawFd, u32)> {
    fds.iter().map(|(fd, target)| (fd.raw(), *target)).collect()
}

/// A hold on the pipe before a tee. Dropped, it lets the tee end, whoever else may hold that pipe open.
#[derive(Debug)]
pub struct TeeHold {
    end: OwnedFd,
    /// The queues behind the tee.
    pub queues: Vec<QueueId>,
    fate: Arc<Fate>,
}

impl TeeHold {
    /// The end itself.
    pub fn end(&self) -> BorrowedFd<'_> {
        self.end.as_fd()
    }
}

impl Drop for TeeHold {
    fn drop(&mut self) {
        self.fate.set(WriterState::Ended);
    }
}

/// What the loop has of a pipe for a log.
#[derive(Debug)]
pub struct LogEnds {
    /// Where it reads.
    pub read: OwnedFd,
    /// Kept where the pipe may serve another unit after this one; so the loop sees no end of data, and needs none: it reads
    /// once more when the unit has ended.
    pub write: Option<OwnedFd>,
}

/// A descriptor to hand to a child.
#[derive(Debug, Clone)]
pub enum Descriptor {
    /// Made for it; several numbers may share one.
    Own(Arc<OwnedFd>),
    /// procflow's own, such as an inherited standard output or the shared `/dev/null`.
    Shared(RawFd),
}

impl Descriptor {
    pub(super) fn own(fd: OwnedFd) -> Self {
        Descriptor::Own(Arc::new(fd))
    }

    /// One of our own for what it leads to.
    pub fn try_clone(&self, null: BorrowedFd<'_>) -> io::Result<OwnedFd> {
        match self {
            Descriptor::Own(fd) => fd.try_clone(),
            Descriptor::Shared(fd) if *fd == null.as_raw_fd() => null.try_clone_to_owned(),
            Descriptor::Shared(fd) => duplicate(*fd),
        }
    }

    /// The same, and itself where nobody else has it.
    pub fn into_owned(self, null: BorrowedFd<'_>) -> io::Result<OwnedFd> {
        match self {
            Descriptor::Own(fd) => Arc::try_unwrap(fd).or_else(|fd| fd.try_clone()),
            shared @ Descriptor::Shared(_) => shared.try_clone(null),
        }
    }

    /// Its number in this process.
    pub fn raw(&self) -> RawFd {
        match self {
            Descriptor::Own(fd) => fd.as_raw_fd(),
            Descriptor::Shared(fd) => *fd,
        }
    }
}

/// Why a group could not be wired.
#[derive(Debug)]
pub enum WireError {
    /// An end of this unit could not be opened: the unit cannot start.
    Unit(UnitId, String),
    /// procflow cannot go on.
    Broken(Error),
}

/// Queues of which a copy is printed (`--tap`) or kept (`--record`). Each is carried by a relay.
#[derive(Debug, Default)]
pub struct Taps {
    /// Those that are printed, and what prints them.
    pub printed: Option<(HashSet<QueueId>, TapPrinter)>,
    /// Those that are kept.
    pub records: HashMap<QueueId, Record>,
    /// For what waits to be kept and does not fit memory.
    pub spill: PathBuf,
}

/// What is kept of a queue.
#[derive(Debug)]
pub struct Record {
    /// In this file, of the last try.
    pub path: PathBuf,
    /// Writes it.
    writer: RefCell<Option<TapPrinter>>,
}

impl Record {
    /// In this file.
    pub fn new(path: PathBuf) -> Self {
        Record {
            path,
            writer: RefCell::default(),
        }
    }

    /// Begins anew.
    fn begin(&self, spill: &Path) -> io::Result<TapPrinter> {
        // What an earlier try has kept may still be written: to a file that is gone then.
        match std::fs::remove_file(&self.path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&self.path)?;
        let writer = TapPrinter::record(file.into(), spill.to_owned())?;
        *self.writer.borrow_mut() = Some(writer.clone());
        Ok(writer)
    }

    /// Waits until all is written.
    ///
    /// # Errors
    /// Something could not be written.
    pub fn finish(&self) -> io::Result<()> {
        let writer = self.writer.borrow();
        writer
            .as_ref()
            .map_or(Ok(()), |writer| writer.finish(|_, _| true))
    }
}

impl Taps {
    /// A copy of this queue is wanted.
    pub fn has(&self, queue: QueueId) -> bool {
        let printed = self.printed.as_ref();
        printed.is_some_and(|(queues, _)| queues.contains(&queue))
            || self.records.contains_key(&queue)
    }

    /// What takes the copy of this queue.
    fn of(&self, queue: QueueId) -> io::Result<Option<TapPrinter>> {
        if let Some(record) = self.records.get(&queue) {
            return record.begin(&self.spill).map(Some);
        }
        let printed = self
            .printed
            .as_ref()
            .filter(|(queues, _)| queues.contains(&queue));
        Ok(printed.map(|(_, printer)| printer.clone()))
    }
}

/// What wiring needs to know of the run.
pub struct Context<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// Whom there is nothing to be made for.
    pub left_out: &'a LeftOut,
    /// `/dev/null`, open for reading and writing, shared by all.
    pub null: BorrowedFd<'a>,
    /// For files that are appended to.
    pub appended: &'a mut Appended,
    /// For logs.
    pub log_pipes: &'a mut LogPipes,
    /// Queues whose records are printed as well.
    pub taps: Option<&'a Taps>,
    /// For spill files.
    pub spill_dir: &'a Path,
    /// The run's id: temporary files carry it.
    pub run_id: &'a str,
    /// A path of the file, absolute, with what only the run knows put in.
    pub path: &'a dyn Fn(&Template) -> PathBuf,
    /// Starts a relay, whose events come to the loop.
    pub relay: &'a mut dyn FnMut(RelaySpec, Carries) -> io::Result<()>,
}

/// The ends of a group's queues before they are handed out.
#[derive(Default)]
pub(super) struct QueueEnds {
    pub(super) write: HashMap<(QueueId, UnitId), OwnedFd>,
    pub(super) read: HashMap<(QueueId, UnitId), OwnedFd>,
    fates: HashMap<(QueueId, UnitId), Arc<Fate>>,
    /// What is wired already of units that gather: their queue writes their file itself.
    gathered: HashMap<UnitId, UnitWiring>,
}

/// Makes the queues of `group` and the descriptors of each of its units that is to start, in the group's order.
///
/// # Errors
/// See [`WireError`]; nothing is left open or on disk then.
pub fn wire(
    cx: &mut Context<'_>,
    group: GroupId,
) -> Result<(Wiring, Vec<(UnitId, UnitWiring)>), WireError> {
    let plan = cx.plan;
    let mut wiring = Wiring::default();
    let mut ends = QueueEnds::default();
    for &queue in &plan.group(group).queues {
        make_queue(cx, queue, &mut ends)?;
    }
    for queue in stored::shared(cx, group) {
        stored::share(cx, queue, group, &mut ends)?;
    }
    let read = ends.read.iter();
    wiring.read = read
        .filter_map(|(&(queue, _), end)| Some((queue, pipe_behind(end)?)))
        .collect();
    let mut units = Vec::new();
    for &unit in &plan.group(group).units {
        if !cx.left_out.has(plan, unit) {
            units.push((unit, wire_unit(cx, unit, &mut ends)?));
        }
    }
    for ((queue, writer), end) in ends.write {
        let fate = ends.fates.remove(&(queue, writer));
        wiring.holds.insert((queue, writer), Hold { end, fate });
    }
    Ok((wiring, units))
}

pub(super) fn cannot_make(plan: &Plan, queue: QueueId, e: io::Error) -> WireError {
    WireError::Broken(Error::new(
        format!("make queue `{}`", plan.queue(queue).name),
        e,
    ))
}

/// Makes a queue's pipes, with a relay between where it needs one. A skipped writer has no pipe, so that its readers see an
/// empty queue; a queue whose readers are all skipped has no ends at all (see [`wire_output`]).
fn make_queue(cx: &mut Context<'_>, id: QueueId, ends: &mut QueueEnds) -> Result<(), WireError> {
    let plan = cx.plan;
    let broken = |e: io::Error| cannot_make(plan, id, e);
    let queue = plan.queue(id);
    let writers = cx.left_out.starts(plan, &queue.writers);
    if queue.kind == QueueKind::Stored {
        return stored::store(cx, id, writers, ends);
    }
    let readers = cx.left_out.starts(plan, &queue.readers);
    if readers.is_empty() {
        return Ok(());
    }
    if writers.is_empty() && queue.file.is_none() {
        for &reader in &readers {
            let pipe = Pipe::new(pipe_size(queue)).map_err(broken)?;
            ends.read.insert((id, reader), pipe.read);
        }
        return Ok(());
    }
    if let (QueueKind::Direct, &[writer], &[reader]) =
        (queue.kind, writers.as_slice(), readers.as_slice())
    {
        let Pipe { read, write } = Pipe::new(pipe_size(queue)).map_err(broken)?;
        ends.read.insert((id, reader), read);
        ends.write.insert((id, writer), write);
        return Ok(());
    }
    let inputs = match &queue.file {
        Some(path) => {
            let file =
                open_input(&(cx.path)(path)).map_err(|why| WireError::Unit(readers[0], why))?;
            vec![RelayInput {
                fd: file.into(),
                fate: Arc::default(),
            }]
        }
        None => inputs_of(queue, id, &writers, ends).map_err(broken)?,
    };
    let mut outputs = Vec::new();
    for &reader in &readers {
        let fds = match plan.unit(reader).role {
            Role::Gather => gather(cx, reader, ends)?,
            Role::Process | Role::Worker(_) | Role::Pool => {
                let Pipe { read, write } = Pipe::new(pipe_size(queue)).map_err(broken)?;
                ends.read.insert((id, reader), read);
                vec![write]
            }
        };
        outputs.extend(fds.into_iter().map(|fd| RelayOutput {
            fd,
            spill: queue.spills().then(|| cx.spill_dir.to_owned()),
        }));
    }
    start_relay(cx, id, inputs, outputs, writers)
}

/// A pipe from each writer to the relay.
pub(super) fn inputs_of(
    queue: &Queue,
    id: QueueId,
    writers: &[UnitId],
    ends: &mut QueueEnds,
) -> io::Result<Vec<RelayInput>> {
    let mut inputs = Vec::new();
    for &writer in writers {
        let Pipe { read, write } = match queue.max_records {
            // A pipe that holds bytes would let the writer run ahead by hundreds of short records.
            Some(_) => Pipe::of_one_write()?,
            None => Pipe::new(pipe_size(queue))?,
        };
        let fate = Arc::new(Fate::default());
        inputs.push(RelayInput {
            fd: read,
            fate: Arc::clone(&fate),
        });
        ends.write.insert((id, writer), write);
        ends.fates.insert((id, writer), fate);
    }
    Ok(inputs)
}

pub(super) fn start_relay(
    cx: &mut Context<'_>,
    id: QueueId,
    inputs: Vec<RelayInput>,
    outputs: Vec<RelayOutput>,
    writers: Vec<UnitId>,
) -> Result<(), WireError> {
    let plan = cx.plan;
    let queue = plan.queue(id);
    let spec = RelaySpec {
        name: queue.name.to_string(),
        inputs,
        outputs,
        records: queue.records.clone(),
        max_record: queue.max_record,
        deliver: match queue.readers.first() {
            // Every file gets all.
            Some(&reader) if plan.unit(reader).role == Role::Gather => Deliver::Copy,
            _ => queue.deliver.clone(),
        },
        header: queue.header,
        batch: batch(plan, queue),
        max_records: queue.max_records,
        feedback: queue.feedback,
        overflow: queue.overflow,
        merge: queue.merge,
        on_writer_failure: queue.on_writer_failure,
        capacity: pipe_size(queue),
        // Where a stored queue is shared out, it has been printed when it was written.
        tap: cx
            .taps
            .filter(|_| !writers.is_empty() || queue.file.is_some())
            .map(|taps| taps.of(id))
            .transpose()
            .map_err(|e| cannot_make(plan, id, e))?
            .flatten(),
    };
    (cx.relay)(spec, Carries::Queue(id, writers)).map_err(|e| cannot_make(plan, id, e))
}

/// So many records are handed over at once to the workers of a `stream` pool that says so.
fn batch(plan: &Plan, queue: &Queue) -> Option<u32> {
    let reader = plan.unit(*queue.readers.first()?);
    let pool = plan.node(reader.node).pool.as_ref()?;
    pool.batch.filter(|_| pool.feed == Feed::Stream)
}

/// The files of a unit that gathers, for its queue to write: all get the same.
fn gather(
    cx: &mut Context<'_>,
    id: UnitId,
    ends: &mut QueueEnds,
) -> Result<Vec<OwnedFd>, WireError> {
    let mut wired = UnitWiring::default();
    let mut files = Vec::new();
    for Output { fd, to, .. } in &cx.plan.unit(id).ends.outputs {
        for sink in to {
            let file = wire_output(cx, id, *fd, sink, ends, &mut wired)?.into_owned(cx.null);
            let broken = |e| WireError::Broken(Error::new("open a file of a pool", e));
            files.push(file.map_err(broken)?);
        }
    }
    ends.gathered.insert(id, wired);
    Ok(files)
}

pub(super) fn pipe_size(queue: &Queue) -> usize {
    usize::try_from(queue.capacity).unwrap_or(usize::MAX)
}

fn wire_unit(
    cx: &mut Context<'_>,
    id: UnitId,
    ends: &mut QueueEnds,
) -> Result<UnitWiring, WireError> {
    let unit = cx.plan.unit(id);
    match unit.role {
        Role::Gather => return Ok(ends.gathered.remove(&id).unwrap_or_default()),
        Role::Pool => return pool_wiring::wire_pool(cx, id, ends),
        Role::Process | Role::Worker(_) => {}
    }
    let mut wired = UnitWiring::default();
    for input in &unit.ends.inputs {
        for (fd, source) in &input.from {
            let descriptor = wire_input(cx, id, source, ends)?;
            if let (Role::Worker(_), 0, Source::Queue(_)) = (unit.role, *fd, source) {
                let share = descriptor.try_clone(cx.null);
                let share = share.map_err(|e| WireError::Broken(Error::new("make a pool", e)))?;
                wired.share = Some(share);
            }
            wired.fds.push((descriptor, *fd));
        }
    }
    for output in &unit.ends.outputs {
        let descriptor = match output.to.as_slice() {
            [Sink::Stdout] => same_as_stdout(&wired),
            [sink] => wire_output(cx, id, output.fd, sink, ends, &mut wired)?,
            sinks => wire_tee(cx, id, output.fd, sinks, ends, &mut wired)?,
        };
        wired.fds.push((descriptor, output.fd));
    }
    Ok(wired)
}

fn same_as_stdout(wired: &UnitWiring) -> Descriptor {
    match wired.fds.iter().find(|(_, fd)| *fd == 1) {
        Some((descriptor, _)) => descriptor.clone(),
        None => panic!("BUG: standard error is standard output, which is not wired"),
    }
}

pub(super) fn wire_input(
    cx: &Context<'_>,
    id: UnitId,
    source: &Source,
    ends: &mut QueueEnds,
) -> Result<Descriptor, WireError> {
    match source {
        Source::Null => Ok(Descriptor::Shared(cx.null.as_raw_fd())),
        Source::Inherit => Ok(Descriptor::Shared(0)),
        Source::File(path) => {
            let file = open_input(&(cx.path)(path)).map_err(|why| WireError::Unit(id, why))?;
            Ok(Descriptor::own(file.into()))
        }
        Source::Text(text) => {
            let fd = text_file(text)
                .map_err(|e| WireError::Broken(Error::new("hold the text of a `stdin`", e)))?;
            Ok(Descriptor::own(fd))
        }
        Source::Queue(queue) => match ends.read.remove(&(*queue, id)) {
            Some(end) => Ok(Descriptor::own(end)),
            None if cx.plan.queue(*queue).kind == QueueKind::Stored => {
                stored::open(cx, *queue).map(Descriptor::own)
            }
            None => panic!("BUG: {id:?} reads {queue:?}, which has no end for it"),
        },
    }
}

pub(super) fn open_input(path: &Path) -> Result<File, String> {
    let cannot = |what: &str| {
        format!(
            "file \"{}\": {what}",
            path.display().to_string().escape_debug()
        )
    };
    match std::fs::metadata(path) {
        Ok(meta) if meta.is_dir() => return Err(cannot("is a directory")),
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Err(format!(
                "no such file: \"{}\"",
                path.display().to_string().escape_debug()
            ));
        }
        Err(e) => return Err(cannot(&reason(&e))),
    }
    File::open(path).map_err(|e| cannot(&reason(&e)))
}

/// A file in memory that holds `text`, to be read from its start.
fn text_file(text: &str) -> io::Result<OwnedFd> {
    use std::io::{Seek, Write};
    let fd =
        nix::sys::memfd::memfd_create(c"procflow-stdin", nix::sys::memfd::MFdFlags::MFD_CLOEXEC)?;
    let mut file = File::from(fd);
    file.write_all(text.as_bytes())?;
    file.rewind()?;
    Ok(file.into())
}

pub(super) fn wire_output(
    cx: &mut Context<'_>,
    id: UnitId,
    fd: u32,
    sink: &Sink,
    ends: &mut QueueEnds,
    wired: &mut UnitWiring,
) -> Result<Descriptor, WireError> {
    match sink {
        Sink::Null => Ok(Descriptor::Shared(cx.null.as_raw_fd())),
        Sink::Inherit => Ok(Descriptor::Shared(if fd == 2 { 2 } else { 1 })),
        Sink::Log | Sink::Value => {
            let Pipe { read, write } = cx.log_pipes.take().map_err(no_log_pipe)?;
            let descriptor = Descriptor::Shared(write.as_raw_fd());
            let write = Some(write);
            wired
                .captures
                .push((captured(fd, sink), LogEnds { read, write }));
            Ok(descriptor)
        }
        Sink::Stdout => Ok(same_as_stdout(wired)),
        Sink::File { path, append } => {
            let tag = format!("{}.{}", cx.run_id, id.0);
            let append = append.then_some((id, &mut *cx.appended));
            let (file, pending) = open_output(&(cx.path)(path), append, &tag)
                .map_err(|why| WireError::Unit(id, why))?;
            wired.files.push(pending);
            Ok(Descriptor::own(file))
        }
        Sink::Queue(queue) => {
            // No end: every reader is skipped, and what nobody reads goes nowhere.
            let Some(end) = ends.write.get(&(*queue, id)) else {
                return Ok(Descriptor::Shared(cx.null.as_raw_fd()));
            };
            end.try_clone()
                .map(Descriptor::own)
                .map_err(|e| cannot_make(cx.plan, *queue, e))
        }
    }
}

fn captured(fd: u32, sink: &Sink) -> Captured {
    match sink {
        Sink::Value => Captured::Value,
        _ if fd == 2 => Captured::Err,
        _ => Captured::Out,
    }
}

fn no_log_pipe(e: io::Error) -> WireError {
    WireError::Broken(Error::new("make a pipe for a log", e))
}

/// An output with several sinks: a pipe, and a relay that copies to each.
pub(super) fn wire_tee(
    cx: &mut Context<'_>,
    id: UnitId,
    fd: u32,
    sinks: &[Sink],
    ends: &mut QueueEnds,
    wired: &mut UnitWiring,
) -> Result<Descriptor, WireError> {
    let broken = |e: io::Error| WireError::Broken(Error::new("make a copy of an output", e));
    let mut outputs = Vec::new();
    for sink in sinks {
        if matches!(sink, Sink::Log | Sink::Value) {
            let Pipe { read, write } = Pipe::to_here().map_err(no_log_pipe)?;
            let ends = LogEnds { read, write: None };
            wired.captures.push((captured(fd, sink), ends));
            outputs.push(RelayOutput {
                fd: write,
                spill: None,
            });
            continue;
        }
        let descriptor = wire_output(cx, id, fd, sink, ends, wired)?;
        let fd = match descriptor {
            Descriptor::Own(fd) => {
                Arc::into_inner(fd).map_or_else(|| panic!("BUG: a sink's end is shared"), Ok)
            }
            // `/dev/null`, or a queue that nobody reads.
            Descriptor::Shared(fd) if fd == cx.null.as_raw_fd() => continue,
            Descriptor::Shared(fd) => duplicate(fd),
        };
        // A queue that must not block the others spills in its own relay, behind this one.
        outputs.push(RelayOutput {
            fd: fd.map_err(broken)?,
            spill: None,
        });
    }
    let capacity = queues_of(sinks)
        .map(|queue| pipe_size(cx.plan.queue(queue)))
        .max()
        .unwrap_or(TEE_CAPACITY);
    let Pipe { read, write } = Pipe::new(capacity).map_err(broken)?;
    let fate = Arc::new(Fate::default());
    wired.tee_holds.push(TeeHold {
        end: write.try_clone().map_err(broken)?,
        queues: queues_of(sinks).collect(),
        fate: Arc::clone(&fate),
    });
    let name = format!("{}.{}", cx.plan.node(cx.plan.unit(id).node).name, fd);
    let spec = RelaySpec {
        name,
        inputs: vec![RelayInput { fd: read, fate }],
        outputs,
        records: Records::Bytes,
        max_record: None,
        deliver: Deliver::Copy,
        header: 0,
        batch: None,
        max_records: None,
        feedback: false,
        overflow: Overflow::Block,
        merge: Merge::Arrive,
        on_writer_failure: OnWriterFailure::Close,
        capacity,
        tap: None,
    };
    (cx.relay)(spec, Carries::Tee(id)).map_err(broken)?;
    Ok(Descriptor::own(write))
}

/// A descriptor of our own for what one of our standard descriptors leads to.
fn duplicate(fd: RawFd) -> io::Result<OwnedFd> {
    match fd {
        0 => io::stdin().as_fd().try_clone_to_owned(),
        1 => io::stdout().as_fd().try_clone_to_owned(),
        2 => io::stderr().as_fd().try_clone_to_owned(),
        _ => panic!("BUG: descriptor {fd} is nobody's to share"),
    }
}
