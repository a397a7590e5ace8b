//! How units end: reaped, what they wrote last handed on, their files put in place, their queues let go.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use nix::fcntl::{FcntlArg, fcntl};

use crate::event::{Exit, Outcome, Printer, Stream, Usage, What};
use crate::exec::deadlines::Due;
use crate::exec::error::Error;
use crate::exec::files::PendingFile;
use crate::exec::launch::grouped;
use crate::exec::relays::Carries;
use crate::exec::runner::{Body, Capture, LastTry, Owner, PATIENCE, Reaped, Runner, VALUE_MAX};
use crate::exec::wiring::{Captured, LogEnds};
use crate::plan::{GroupId, QueueId, QueueKind, Role, Sink, UnitId};
use crate::queue::RelayEvent;
use crate::sched::Event;
use crate::store::file_name;
use crate::sys::pipe::{Pipe, unread};
use crate::sys::process::{Child, NextEnded, next_ended, reap_orphan};

impl Runner<'_> {
    /// Takes note of every process that has ended: units, and what came to us because its parent ended before it.
    pub(super) fn reap_children(&mut self) {
        if !std::mem::take(&mut self.child_ended) {
            return;
        }
        // What they said before was said before these ended: a worker that has ended well can't be failed any more.
        if !self.relays.is_empty() {
            self.read_relays();
        }
        let alone = loop {
            match next_ended() {
                NextEnded::Process(pid) => match self.pids.remove(&pid) {
                    Some(Owner::Unit(unit)) => self.reap(unit),
                    Some(Owner::Worker(pool, ticket)) => self.reap_worker(pool, ticket),
                    Some(Owner::Probe(number)) => self.reap_trial(number),
                    Some(Owner::Question(unit)) => self.reap_question(unit),
                    None => reap_orphan(pid),
                },
                NextEnded::None => break false,
                NextEnded::NoChild => break true,
            }
        };
        self.log_pipes.sort_out(alone);
    }

    /// Reaps a unit that has ended, with what is left of its process group.
    fn reap(&mut self, unit: UnitId) {
        let Some(live) = self.live.get_mut(&unit) else {
            panic!("BUG: {unit:?} ended, and does not run");
        };
        let Body::Process(child) = &mut live.body else {
            panic!("BUG: {unit:?} is no process, and ended as one");
        };
        let wall = self.clock.now().saturating_sub(live.started);
        let reaped = match reap_child(child, live.signalled, wall) {
            Ok(reaped) => reaped,
            Err(error) => return self.fail(error),
        };
        let exit = reaped.exit;
        live.reaped = Some(reaped);
        // One that ended ill has a reason of its own: a broken queue, too, whose reader may have had enough.
        let is_well = exit.is_success(&self.plan.unit(unit).settings.success_codes);
        let share = live.share.take();
        live.fault = share.filter(|_| is_well).and_then(left_unread);
        self.leave_terminal(unit, Some(exit));
        self.settle_outputs(unit);
    }

    /// Who gathers is stopped: what its queue still carries is not wanted.
    pub(super) fn signal_gather(&mut self, unit: UnitId, signal: i32) {
        if matches!(signal, libc::SIGSTOP | libc::SIGCONT) {
            return;
        }
        for number in self.relays.read_by(self.plan, unit) {
            self.end_relay(number);
        }
        self.gathered(
            unit,
            Exit::Signal {
                number: signal,
                core: false,
            },
        );
    }

    /// A unit that gathers has ended: its queue's relay has.
    fn gathered(&mut self, unit: UnitId, exit: Exit) {
        let now = self.clock.now();
        let Some(live) = self.live.get_mut(&unit) else {
            return;
        };
        if live.reaped.is_some() {
            return;
        }
        let usage = Usage {
            wall: now.saturating_sub(live.started),
            ..Usage::default()
        };
        live.reaped = Some(Reaped {
            exit,
            usage,
            leaked: false,
        });
        self.settle_outputs(unit);
    }

    /// Ends a unit whose process has ended: at once, or when its relays have taken in what it wrote before its end. A fault in
    /// that (a record cut off, or too long) must be known before the unit counts as succeeded, and copies must be whole before a
    /// file among them is put in place.
    ///
    /// First its tees have to end, then its queues are asked: before, what is in a queue's pipe is not all that will come.
    ///
    /// A failure is not kept waiting for its queues, since its readers are to be stopped, nor long for its tees.
    pub(super) fn settle_outputs(&mut self, unit: UnitId) {
        let plan_unit = self.plan.unit(unit);
        let has_tees = self.relays.has_tees(unit);
        let Some(live) = self.live.get_mut(&unit) else {
            return;
        };
        let Some(Reaped { exit, .. }) = live.reaped else {
            return;
        };
        // What we have stopped ends as what it was stopped for, a fault perhaps that its queue will not tell again.
        let counts_as_success = !live.signalled
            && live.fault.is_none()
            && (self.plan.node(plan_unit.node).allow_failure
                || exit.is_success(&plan_unit.settings.success_codes));
        if has_tees {
            live.tee_holds.clear();
            self.relays
                .look(|carries| matches!(carries, Carries::Tee(owner) if *owner == unit));
            if !counts_as_success {
                self.deadlines
                    .arm(Due::Relays(unit), self.clock.now() + PATIENCE);
            }
            return;
        }
        if counts_as_success && let Some(wiring) = self.groups.get(&plan_unit.group) {
            live.unsettled = self.relays.written_by(unit);
            if !live.unsettled.is_empty() {
                wiring.exited(self.plan, unit);
                let writes = |carries: &Carries| matches!(carries, Carries::Queue(_, writers) if writers.contains(&unit));
                self.relays.look(writes);
                return;
            }
        }
        self.exited(unit);
    }

    /// A relay has taken in all that `unit` wrote, or will not.
    fn settled(&mut self, unit: UnitId, number: u64) {
        if let Some(live) = self.live.get_mut(&unit)
            && live.unsettled.remove(&number)
            && live.unsettled.is_empty()
        {
            self.exited(unit);
        }
    }

    /// A unit's process has ended; it is only waited for relays.
    pub(super) fn has_ended(&self, unit: UnitId) -> bool {
        self.live
            .get(&unit)
            .is_some_and(|live| live.reaped.is_some())
    }

    /// Tells the scheduler of a unit's exit.
    pub(super) fn exited(&mut self, unit: UnitId) {
        let Some(live) = self.live.remove(&unit) else {
            return;
        };
        let Some(reaped) = live.reaped else {
            panic!("BUG: {unit:?} is said to have ended, and is not reaped");
        };
        self.deadlines.disarm(Due::Relays(unit));
        // What it wrote before its end is in the pipes now. What a daemon of its may still write is not waited for.
        for number in live.captures {
            let is_empty = self.read_rest(number);
            if let Some(Capture { ends, watched, .. }) = self.captures.remove(&number)
                && let (
                    LogEnds {
                        read,
                        write: Some(write),
                    },
                    false,
                    true,
                ) = (ends, watched, is_empty)
            {
                self.log_pipes.give_back(Pipe { read, write });
            }
        }
        self.last.insert(
            unit,
            LastTry {
                attempt: live.attempt,
                reaped: Some(reaped),
            },
        );
        let broken = match self.groups.get(&self.plan.unit(unit).group) {
            Some(wiring) => wiring.broken(self.plan, unit),
            None => Vec::new(),
        };
        // Taken in any case: a try that failed leaves nothing for the next one.
        let value_fault = self.take_value(unit);
        let is_success = reaped
            .exit
            .is_success(&self.plan.unit(unit).settings.success_codes);
        let fault = live.fault.or(value_fault.filter(|_| is_success));
        self.inbox.push_back(Event::Exited {
            unit,
            exit: reaped.exit,
            broken,
            fault,
        });
    }

    /// Reads all that is at a capture now. True where there is nothing more.
    pub(super) fn read_rest(&mut self, number: u64) -> bool {
        if self.read_capture(number) {
            return true;
        }
        let Some(capture) = self.captures.get(&number) else {
            return true;
        };
        // Its writer may have enlarged it (F_SETPIPE_SZ). No more than it holds: there may be a daemon that goes on writing.
        let size = fcntl(&capture.ends.read, FcntlArg::F_GETPIPE_SZ).unwrap_or(0);
        let more = usize::try_from(size).unwrap_or(0) / self.buffer.len();
        (0..more).any(|_| self.read_capture(number))
    }

    /// Reads once at a capture. True where there is nothing more.
    pub(super) fn read_capture(&mut self, number: u64) -> bool {
        let Some(capture) = self.captures.get(&number) else {
            return true;
        };
        let (printer, what) = (capture.printer, capture.what);
        // One read takes all that a pipe of the usual size holds, so there is no loop for a busy writer to keep us in.
        match nix::unistd::read(&capture.ends.read, &mut self.buffer) {
            Ok(0) => {
                self.captures.remove(&number);
                true
            }
            Ok(count) => {
                self.captured(printer, what, count);
                count < self.buffer.len()
            }
            Err(nix::errno::Errno::EAGAIN) => true,
            Err(nix::errno::Errno::EINTR) => false,
            Err(e) => {
                self.fail(Error::new("read a log", e));
                false
            }
        }
    }

    fn captured(&mut self, printer: Printer, what: Captured, count: usize) {
        let bytes = &self.buffer[..count];
        let stream = match what {
            Captured::Value => {
                let value = self.capturing.entry(printer.unit).or_default();
                // What is beyond the newline and one byte more only has to be known to be there.
                let room = (VALUE_MAX + 2).saturating_sub(value.len());
                value.extend_from_slice(&bytes[..count.min(room)]);
                return;
            }
            Captured::Out => Stream::Out,
            Captured::Err => Stream::Err,
        };
        if self.probes.printed(printer.unit, stream, bytes) {
            self.is_ready(printer.unit);
        }
        let bytes = &self.buffer[..count];
        self.watch.output(printer, stream, bytes);
    }
}

/// The relays: their ends, faults, and what they hold up.
impl Runner<'_> {
    pub(super) fn read_relays(&mut self) {
        while let Some((number, event)) = self.relays.next_event() {
            match event {
                RelayEvent::Ended => self.end_relay(number),
                RelayEvent::Settled { input } => {
                    if let Some(writer) = self.relays.writer(number, input) {
                        self.settled(writer, number);
                    }
                }
                RelayEvent::Fault { input, why } => {
                    if let Some(writer) = self.relays.writer(number, input) {
                        self.inbox.push_back(Event::QueueFault { writer, why });
                        self.settled(writer, number);
                    } else {
                        self.fault_of_a_file(number, why);
                    }
                }
                RelayEvent::Lost { output } => self.lost_for(number, output),
                RelayEvent::Broken(why) => {
                    self.fail(Error::new("carry a queue", io::Error::other(why)))
                }
            }
        }
    }

    /// What is wrong with a file that a pool's workers share has no writer to blame. It is the pool that has failed, by the first
    /// of its workers that still runs: the others would wait for an end that does not come.
    fn fault_of_a_file(&mut self, number: u64, why: String) {
        let Some(&Carries::Queue(queue, _)) = self.relays.carries(number) else {
            return;
        };
        self.fail_readers(queue, why);
    }

    /// Records came for a reader that had gone. Where it is a worker of a pool, its pool is to do all of them: that it ended well
    /// does not help. (Among nodes each does as much as it likes, and what is lost is counted.)
    fn lost_for(&mut self, number: u64, output: usize) {
        let Some(&Carries::Queue(queue, _)) = self.relays.carries(number) else {
            return;
        };
        let planned = self.plan.queue(queue);
        let readers = self.left_out.starts(self.plan, &planned.readers);
        if let Some(Role::Worker(worker)) =
            readers.get(output).map(|&unit| self.plan.unit(unit).role)
        {
            let name = &planned.name;
            let why = format!(
                "records of queue `{name}` came for worker {worker}, which had ended before its input did, and by_field lets no other have them"
            );
            self.fail_readers(queue, why);
        }
    }

    /// Something is wrong with what this pool's workers share that none of them is to blame for: the first that still runs
    /// fails of it, and so the pool.
    fn fail_readers(&mut self, queue: QueueId, why: String) {
        let mut readers = self.plan.queue(queue).readers.iter().copied();
        if let Some(reader) =
            readers.find(|&unit| self.live.contains_key(&unit) && !self.has_ended(unit))
        {
            self.inbox.push_back(Event::QueueFault {
                writer: reader,
                why,
            });
        }
    }

    /// A relay has handed on everything, or is not waited for any more.
    pub(super) fn end_relay(&mut self, number: u64) {
        let Some((carries, counts)) = self.relays.end(number) else {
            return;
        };
        self.deadlines.disarm(Due::Relay(number));
        match carries {
            Carries::Queue(queue, writers) => {
                let bytes = counts.inputs.iter().map(|count| count.bytes).sum();
                let records = counts.inputs.iter().map(|count| count.records).sum();
                let readers = self
                    .left_out
                    .starts(self.plan, &self.plan.queue(queue).readers);
                let written = writers.iter().copied().zip(&counts.inputs);
                let ends = written.chain(readers.into_iter().zip(&counts.outputs));
                let ends = ends.map(|(unit, count)| (unit, count.bytes)).collect();
                self.tell(What::QueueEnded {
                    queue,
                    bytes: Some(bytes),
                    records,
                    is_estimate: counts.is_estimate,
                    ends,
                    dropped: counts.dropped.records.unwrap_or(0) + counts.lost.records.unwrap_or(0),
                    full: counts.full,
                    empty: counts.empty,
                });
                for writer in writers {
                    self.settled(writer, number);
                }
                for &reader in &self.plan.queue(queue).readers {
                    if self.plan.unit(reader).role == Role::Gather {
                        self.gathered(reader, Exit::Code(0));
                    }
                }
            }
            Carries::Tee(unit) => {
                if !self.relays.has_tees(unit) {
                    self.settle_outputs(unit);
                }
            }
        }
    }

    /// Nothing of this attempt of the group runs any more. Nobody is left to read its queues. A tee may still have to write a
    /// log or a file, which takes long only where a daemon has kept an end.
    pub(super) fn end_group(&mut self, group: GroupId) {
        let mut relayed = Vec::new();
        self.forget_stall(group);
        for number in self.relays.of_group(group) {
            if let Some(Carries::Queue(queue, _)) = self.relays.carries(number) {
                relayed.push(*queue);
            }
            match self.relays.carries(number) {
                Some(Carries::Tee(_)) => self
                    .deadlines
                    .arm(Due::Relay(number), self.clock.now() + PATIENCE),
                Some(Carries::Queue(queue, writers))
                    if !writers.is_empty() && self.is_well_stored(group, *queue) =>
                {
                    // Its readers, which may start at once, find all of it in its file.
                    // Where they don't, at once: the readers are not even to be started.
                    if let Err(Some(why)) = self.relays.wait_for(number) {
                        self.fail(Error::new("carry a queue", io::Error::other(why)));
                    }
                    self.end_relay(number);
                }
                _ => self.end_relay(number),
            }
        }
        // With it go the holds; not before the relays, which would take that for the end of data.
        self.groups.remove(&group);
        let plan = self.plan;
        for &queue in &plan.group(group).queues {
            let bytes = match plan.queue(queue).kind {
                QueueKind::Relayed => continue,
                QueueKind::Direct => None,
                QueueKind::Stored if relayed.contains(&queue) => continue,
                QueueKind::Stored => {
                    let file = self.spill_dir.join(&*file_name(&plan.queue(queue).name));
                    std::fs::metadata(file).ok().map(|meta| meta.len())
                }
            };
            self.tell(What::QueueEnded {
                queue,
                bytes,
                records: None,
                is_estimate: false,
                ends: Vec::new(),
                dropped: 0,
                full: Duration::ZERO,
                empty: Duration::ZERO,
            });
        }
    }
}

impl Runner<'_> {
    /// All that was to be written to a stored queue has been.
    fn is_well_stored(&self, group: GroupId, queue: QueueId) -> bool {
        let wiring = self.groups.get(&group);
        self.plan.queue(queue).kind == QueueKind::Stored
            && wiring.is_some_and(|wiring| wiring.is_released(queue))
    }
}

/// Results: files, values, and the last word on a unit.
impl Runner<'_> {
    /// Puts a unit's files in place. Its tees have written all of them: see [`Runner::settle_outputs`].
    pub(super) fn commit(&mut self, unit: UnitId) {
        let files = self.files.remove(&unit).unwrap_or_default();
        let result = files.into_iter().try_for_each(PendingFile::commit);
        self.inbox.push_back(Event::Committed(unit, result));
    }

    /// Makes a unit's value of what it wrote, without its last newline, as `$(..)` does; says what is wrong with it.
    fn take_value(&mut self, unit: UnitId) -> Option<String> {
        let mut outputs = self.plan.unit(unit).ends.outputs.iter();
        if !outputs.any(|output| output.to.contains(&Sink::Value)) {
            return None;
        }
        // One that wrote nothing has an empty value.
        let mut value = self.capturing.remove(&unit).unwrap_or_default();
        if value.last() == Some(&b'\n') {
            value.pop();
        }
        if value.len() > VALUE_MAX {
            return Some("its value is longer than 64 KiB; write it to a file instead".to_owned());
        }
        if value.contains(&0) {
            return Some(
                "its value holds a NUL byte, which no argument and no variable can".to_owned(),
            );
        }
        match String::from_utf8(value) {
            Ok(value) => {
                Arc::make_mut(&mut self.values).insert(self.plan.unit(unit).node, value);
                None
            }
            Err(e) => Some(format!(
                "its value is not UTF-8, at byte {}",
                e.utf8_error().valid_up_to()
            )),
        }
    }

    pub(super) fn report_end(&mut self, unit: UnitId, outcome: Outcome) {
        let noted = self.journal.keeper.ended(unit, &outcome);
        self.noted(noted);
        let last = self.last.remove(&unit);
        let reaped = last.as_ref().and_then(|last| last.reaped);
        self.tell(What::Ended {
            unit,
            outcome,
            exit: reaped.map(|reaped| reaped.exit),
            attempts: last.map_or(0, |last| last.attempt),
            usage: reaped.map(|reaped| reaped.usage).unwrap_or_default(),
            leaked: reaped.is_some_and(|reaped| reaped.leaked),
            // The observers know what it printed.
            stderr_tail: Vec::new(),
        });
    }
}

/// What is wrong with a worker that has ended well: records handed to it lie unread in its pipe, and nobody will do them.
fn left_unread(share: OwnedFd) -> Option<String> {
    match unread(&share) {
        None | Some(0) => None,
        Some(bytes) => Some(format!("left {} bytes unread", grouped(bytes))),
    }
}

/// Reaps a process that has ended, with what is left of its process group. `signalled`: by us; `wall`: how long it lived.
///
/// # Errors
/// Somebody else has reaped it.
pub(super) fn reap_child(
    child: &mut Child,
    signalled: bool,
    wall: Duration,
) -> Result<Reaped, Error> {
    let (status, used) = match child.reap() {
        Ok(Some(ended)) => ended,
        Ok(None) => panic!("BUG: process {} was reaped before", child.pid()),
        Err(e) => return Err(Error::new("learn how a process ended", e)),
    };
    Ok(Reaped {
        exit: exit_of(status),
        usage: Usage {
            wall,
            user: used.user,
            system: used.system,
            max_rss: used.max_rss,
        },
        // Of a group that we have signalled the last may still be dying: that is no leak.
        leaked: !signalled && child.had_leftovers(),
    })
}

/// What wait4(2) says, as we say it.
fn exit_of(status: ExitStatus) -> Exit {
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Code((code & 0xff) as u8),
        (None, Some(number)) => Exit::Signal {
            number,
            core: status.core_dumped(),
        },
        (None, None) => panic!("BUG: wait4 without WUNTRACED reports {status:?}"),
    }
}
