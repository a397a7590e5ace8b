//! Queues that are kept on disk as a whole: a file each, in the run's directory.
//!
//! A stored queue's readers start when all its writers have succeeded, so a reader sees a file like any other, from its start and
//! to its end: it can be started late, or again. Nobody waits for anybody.
//!
//! ```text
//! one writer, nothing to look at     writer ━━▶ file                    file ━━▶ reader
//! several, or records to check       writer ━━▶ pipe ━━▶ relay ━━▶ file
//! shared by the workers of a pool                                       file ━━▶ relay ━━▶ pipe ━━▶ worker
//! ```

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::exec::wiring::{
    Context, QueueEnds, WireError, cannot_make, inputs_of, pipe_size, start_relay,
};
use crate::plan::{Deliver, GroupId, Queue, QueueId, QueueKind, Role, Source, Unit, UnitId};
use crate::queue::{RelayInput, RelayOutput};
use crate::spec::Records;
use crate::store::file_name;
use crate::sys::pipe::Pipe;

/// Makes a queue's file anew, and its writers' ends. What an earlier try has left in it is gone.
pub(super) fn store(
    cx: &mut Context<'_>,
    id: QueueId,
    writers: Vec<UnitId>,
    ends: &mut QueueEnds,
) -> Result<(), WireError> {
    let plan = cx.plan;
    let broken = |e: io::Error| cannot_make(plan, id, e);
    let queue = plan.queue(id);
    let file: OwnedFd = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path(cx, queue))
        .map_err(broken)?
        .into();
    let is_tapped = cx.taps.is_some_and(|taps| taps.has(id));
    match writers.as_slice() {
        [] => Ok(()),
        &[writer] if !is_looked_at(queue) && !is_tapped => {
            ends.write.insert((id, writer), file);
            Ok(())
        }
        _ => {
            let inputs = inputs_of(queue, id, &writers, ends).map_err(broken)?;
            let output = RelayOutput {
                fd: file,
                spill: None,
            };
            start_relay(cx, id, inputs, vec![output], writers)
        }
    }
}

/// A file has no bound to its records, and takes what is cut off: where that matters a relay is between.
fn is_looked_at(queue: &Queue) -> bool {
    queue.max_record.is_some() && queue.records != Records::Bytes
        || matches!(queue.records, Records::Length32 | Records::Size(_))
}

/// Opens a queue's file to be read from its start.
pub(super) fn open(cx: &Context<'_>, id: QueueId) -> Result<OwnedFd, WireError> {
    let queue = cx.plan.queue(id);
    let path = path(cx, queue);
    // Of who would have made it nobody was started.
    if cx.left_out.starts(cx.plan, &queue.writers).is_empty() {
        let made = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path);
        made.map_err(|e| cannot_make(cx.plan, id, e))?;
    }
    match File::open(path) {
        Ok(file) => Ok(file.into()),
        Err(e) => Err(cannot_make(cx.plan, id, e)),
    }
}

fn path(cx: &Context<'_>, queue: &Queue) -> PathBuf {
    cx.spill_dir.join(&*file_name(&queue.name))
}

/// The stored queues that workers of a pool in this group share.
pub(super) fn shared(cx: &Context<'_>, group: GroupId) -> Vec<QueueId> {
    let plan = cx.plan;
    let is_worker = |unit: &&Unit| matches!(unit.role, Role::Worker(_));
    // Asked of the group's own ends: a look at every queue of the plan for each group would be one too many.
    let units = cx
        .left_out
        .starts(plan, &plan.group(group).units)
        .into_iter();
    let mut shared: Vec<QueueId> = units
        .map(|unit| plan.unit(unit))
        .filter(is_worker)
        .flat_map(|unit| &unit.ends.inputs)
        .flat_map(|input| &input.from)
        .filter_map(|(_, source)| match source {
            Source::Queue(id) => Some(*id),
            Source::Null | Source::Inherit | Source::File(_) | Source::Text(_) => None,
        })
        .filter(|&id| {
            let queue = plan.queue(id);
            queue.kind == QueueKind::Stored && queue.deliver != Deliver::Copy
        })
        .collect();
    shared.sort_unstable();
    shared.dedup();
    shared
}

fn readers_in(cx: &Context<'_>, queue: &Queue, group: GroupId) -> Vec<UnitId> {
    let plan = cx.plan;
    let mut readers = cx.left_out.starts(plan, &queue.readers);
    readers.retain(|&unit| plan.unit(unit).group == group);
    readers
}

/// Shares what is stored among its readers in this group.
pub(super) fn share(
    cx: &mut Context<'_>,
    id: QueueId,
    group: GroupId,
    ends: &mut QueueEnds,
) -> Result<(), WireError> {
    let plan = cx.plan;
    let queue = plan.queue(id);
    let input = RelayInput {
        fd: open(cx, id)?,
        fate: Arc::default(),
    };
    let mut outputs = Vec::new();
    for reader in readers_in(cx, queue, group) {
        let Pipe { read, write } =
            Pipe::new(pipe_size(queue)).map_err(|e| cannot_make(plan, id, e))?;
        ends.read.insert((id, reader), read);
        outputs.push(RelayOutput {
            fd: write,
            spill: None,
        });
    }
    start_relay(cx, id, vec![input], outputs, Vec::new())
}
