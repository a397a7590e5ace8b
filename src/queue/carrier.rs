//! A queue's thread: whole records from its writers to its readers.
//!
//! One offer at a time: a run of whole records of one writer. How it is handed out depends on who gets a record. With
//! copies, each output takes what its pipe and its backlog have room for, and nothing else is read before all have taken it; so
//! every output gets the same bytes in the same order, and a slow one holds the others back no earlier than its backlog is
//! full. Else the offer is dealt out: see [`crate::queue::deal`].
//!
//! Memory is bounded by one block, or one unfinished record, for each input and one backlog for each output.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll, ppoll};
use nix::sys::time::TimeSpec;

use crate::plan::Deliver;
use crate::plan::settings::MAX_RECORD;
use crate::queue::backlog::{Backlog, SpillError};
use crate::queue::census::Census;
use crate::queue::counts::Counters;
use crate::queue::deal::{self, Bounds, Deal, Hand};
use crate::queue::framer::Framer;
use crate::queue::relay::{Control, RelayEvent, RelayEvents, RelayInput, RelayOutput, RelaySpec};
use crate::queue::share::PAGE;
use crate::queue::sink::{Sink, SinkError};
use crate::queue::source::{Next, Settle, Source, SourceError};
use crate::queue::splice::{self, SpliceError};
use crate::queue::tap::Tap;
use crate::queue::tee::Tee;
use crate::spec::{Merge, OnWriterFailure};

/// All that a relay's thread owns.
pub(crate) struct Carrier {
    name: String,
    sources: Vec<Source>,
    sinks: Vec<Sink>,
    merge: Merge,
    framer: Framer,
    on_writer_failure: OnWriterFailure,
    max_record: u64,
    /// What is being handed out.
    offer: Option<Offer>,
    /// Blocks may be moved by [`splice`].
    may_splice: bool,
    /// The sink that is owed the rest of a record.
    owed: Option<usize>,
    /// Bytes of that rest so far.
    owed_length: u64,
    /// How many records are in blocks that nobody looks at.
    census: Census,
    /// Of bytes that go on as they come: what counts their records, where a single byte ends them.
    counting: Option<Framer>,
    /// The last of those bytes was no record's end.
    is_midway: bool,
    /// There is a block to move, but no reader for it now.
    is_held_up: bool,
    /// Who gets a record, where not all get a copy.
    deal: Option<Deal>,
    /// The terminator that the last record copied to all lacks, should another follow.
    missing: Vec<u8>,
    /// A copy of what passes goes there.
    tap: Option<Tap>,
    /// [`RelayEvent::Lost`] has been told.
    has_told_of_loss: bool,
    /// The source to begin with next time, so that a busy one doesn't starve the others.
    turn: usize,
    control: Arc<Control>,
    counters: Arc<Counters>,
    events: RelayEvents,
}

/// Whole records of one source, offered to all sinks.
struct Offer {
    source: usize,
    /// What was missing behind the last offer, where all get a copy.
    terminator: Vec<u8>,
    /// What is missing behind this one.
    missing: Vec<u8>,
    /// So many of the source's bytes.
    end: usize,
    records: u64,
}

/// What the only writer of a tee has written is always in order.
const SETTLED: RelayEvent = RelayEvent::Settled { input: 0 };

/// Why a relay's loop came to its end.
enum Over {
    Ended,
    Stopped,
}

/// Why procflow can't go on, in words for people.
struct Broken(String);

/// Bytes gathered for one output before they are written, where records are dealt out one by one.
const GATHER: usize = 64 * 1024;

/// What poll(2) said about an end.
enum Polled {
    Wake,
    Source(usize),
    /// A source whose turn has not come.
    Ahead(usize),
    Faulty(usize),
    Sink(usize, PollFlags),
}

impl Carrier {
    /// Ready to [`Carrier::live`].
    ///
    /// # Errors
    /// See [`crate::queue::start`].
    pub fn new(spec: RelaySpec, events: RelayEvents, control: Arc<Control>) -> io::Result<Carrier> {
        // Bytes of one writer that no failure can leave half delivered go on as they come, like through a plain pipe.
        let max_record = spec.max_record.unwrap_or(MAX_RECORD);
        let framer = Framer::new(&spec.records, max_record)
            .map_err(|what| io::Error::new(io::ErrorKind::InvalidInput, what))?;
        let is_copy = spec.deliver == Deliver::Copy || spec.outputs.len() < 2;
        let bounds = Bounds {
            overflow: spec.overflow,
            records: spec.max_records,
            bytes: spec.capacity,
            spill: spec.outputs.iter().find_map(|output| output.spill.clone()),
        };
        let is_counted = bounds.is_counted();
        let as_they_come = spec.inputs.len() == 1
            && is_copy
            && !is_counted
            && spec.on_writer_failure == OnWriterFailure::Cancel
            && spec.max_record.is_none()
            && !spec.feedback
            && !framer.is_counted();
        let (framer, counting) = if as_they_come {
            (Framer::bytes(), Some(framer).filter(Framer::is_terminated))
        } else {
            (framer, None)
        };
        let has_records = !framer.is_bytes() || counting.is_some();
        let counters = Counters::new(spec.inputs.len(), spec.outputs.len(), has_records);
        let mut may_splice = spec.inputs.len() == 1
            && !spec.feedback
            && spec.on_writer_failure == OnWriterFailure::Cancel
            && spec.max_record.is_none()
            && spec.tap.is_none();
        // Where an output spills no writer may be held up, not even until its turn comes.
        let ahead = match spec.merge {
            Merge::Sequence => spec.outputs.iter().find_map(|output| output.spill.clone()),
            Merge::Arrive => None,
        };
        let source = |input: RelayInput| {
            let source = Source::new(input.fd, input.fate, framer.clone())?.complete(spec.feedback);
            Ok(match &ahead {
                Some(dir) => source.read_ahead(Backlog::new(spec.capacity, Some(dir.clone()))),
                None => source,
            })
        };
        // The reader's pipe holds its part: a backlog behind one that is large enough would only cost a copy.
        let sink = |output: RelayOutput| {
            let pipe = fcntl(&output.fd, FcntlArg::F_GETPIPE_SZ).ok();
            let pipe = pipe
                .and_then(|size| usize::try_from(size).ok())
                .unwrap_or(0);
            let capacity = spec.capacity.saturating_sub(pipe);
            let backlog = if is_counted {
                Backlog::counted(capacity)
            } else if is_copy {
                Backlog::new(capacity, output.spill)
            } else {
                // What is shared waits in one place for all, and what is dealt is gathered for each before it is written.
                let spill = output.spill.filter(|_| spec.deliver != Deliver::Share);
                Backlog::new(capacity.max(GATHER), spill)
            };
            Sink::new(output.fd, backlog)
        };
        let mut sinks: Vec<Sink> = spec
            .outputs
            .into_iter()
            .map(sink)
            .collect::<io::Result<_>>()?;
        let senseless = |what| io::Error::new(io::ErrorKind::InvalidInput, what);
        let deal = Deal::new(&spec.deliver, spec.header, spec.batch, bounds, &mut sinks)
            .map_err(senseless)?;
        let tap = spec.tap.map(|printer| Tap::new(printer, &spec.records));
        let tap = tap.transpose().map_err(senseless)?;
        let sources: Vec<Source> = spec
            .inputs
            .into_iter()
            .map(source)
            .collect::<io::Result<_>>()?;
        may_splice &= sources.iter().all(Source::is_spliceable) && sinks.iter().all(Sink::is_pipe);
        Ok(Carrier {
            name: spec.name,
            sources,
            sinks,
            merge: spec.merge,
            framer: framer.clone(),
            on_writer_failure: spec.on_writer_failure,
            max_record,
            offer: None,
            may_splice,
            owed: None,
            owed_length: 0,
            census: Census::default(),
            counting,
            is_midway: false,
            is_held_up: false,
            deal,
            missing: Vec::new(),
            tap,
            has_told_of_loss: false,
            turn: 0,
            control,
            counters: Arc::new(counters),
            events,
        })
    }

    /// What it counts.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// The thread. Whatever goes wrong, no end is closed before all is delivered, all readers have gone, or the relay is
    /// stopped: a reader would take that for the end of data.
    pub fn live(&mut self) {
        let broken = match catch_unwind(AssertUnwindSafe(|| self.run())) {
            Ok(Ok(Over::Ended)) => {
                // Writers that go on get SIGPIPE, as if the readers had read their pipes themselves.
                self.sources.clear();
                self.sinks.clear();
                self.tap = None;
                // What is left was for readers that have gone.
                self.counters.held.store(0, Ordering::Relaxed);
                return self.events.send(RelayEvent::Ended);
            }
            Ok(Ok(Over::Stopped)) => return,
            Ok(Err(Broken(why))) => why,
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text
                    .or_else(|| panic.downcast_ref::<&str>().copied())
                    .unwrap_or("no message");
                format!("queue `{}` panicked: {text}", self.name)
            }
        };
        self.events.send(RelayEvent::Broken(broken));
        while !self.control.is_stop() {
            let mut wake = [PollFd::new(self.control.fd(), PollFlags::POLLIN)];
            // An error is EINTR.
            let _ = poll(&mut wake, PollTimeout::NONE);
        }
    }

    fn run(&mut self) -> Result<Over, Broken> {
        if let [source] = &mut self.sources[..]
            && let Some(input) = source.bare_pipe()
            && self.deal.is_none()
            && self.tap.is_none()
            && self.sinks.len() > 1
            && self.sinks.iter().all(Sink::is_bare_pipe)
        {
            let counting = self.counting.as_ref();
            let ended = Tee::new(
                input,
                &mut self.sinks,
                &self.control,
                &self.counters,
                counting,
            )
            .and_then(|mut tee| tee.run(source.fate(), || self.events.send(SETTLED)));
            let failed = |error| Broken(format!("can't copy queue `{}`: {error}", self.name));
            return ended
                .map(|ended| if ended { Over::Ended } else { Over::Stopped })
                .map_err(failed);
        }
        loop {
            if self.offer.is_none() && self.sources.iter().all(Source::is_done) {
                self.end_deal()?;
                // Each as soon as it has all: what another still holds may be waiting for this one's reader to end.
                if self.deal.as_ref().is_none_or(Deal::is_empty) {
                    self.sinks
                        .iter_mut()
                        .filter(|sink| sink.is_empty())
                        .for_each(Sink::close);
                }
            }
            if self.sinks.iter().all(Sink::is_closed) {
                return Ok(Over::Ended);
            }
            let polled = self.wait()?;
            let is_woken = polled.iter().any(|end| matches!(end, Polled::Wake));
            if is_woken && self.control.is_stop() {
                return Ok(Over::Stopped);
            }
            if is_woken {
                // Readers are to go on without what a faulty writer has left.
                self.sources
                    .iter_mut()
                    .filter(|source| source.is_forgiven())
                    .for_each(Source::close);
            }
            for end in &polled {
                if let Polled::Sink(sink, events) = end {
                    self.flush(*sink, *events)?;
                }
            }
            self.hand_out()?;
            if std::mem::take(&mut self.is_held_up) {
                self.read(0)?;
            }
            // Not before room was made: what is read has somewhere to go.
            let pivot = polled
                .iter()
                .position(|end| matches!(end, Polled::Source(source) if *source >= self.turn));
            let (late, early) = polled.split_at(pivot.unwrap_or(0));
            for end in early.iter().chain(late) {
                match end {
                    Polled::Source(source) if self.takes_more() => self.read(*source)?,
                    Polled::Ahead(source) => self.read_ahead(*source)?,
                    Polled::Faulty(source) => self.sources[*source].close(),
                    _ => {}
                }
            }
        }
    }

    /// Nothing more will come: what is held for nobody yet goes out, however little it is.
    fn end_deal(&mut self) -> Result<(), Broken> {
        if let Some(deal) = &mut self.deal
            && !deal.is_empty()
        {
            deal.end();
            self.hand_out()?;
        }
        Ok(())
    }

    /// Nothing has been read that waits for a reader.
    fn takes_more(&self) -> bool {
        self.offer.is_none() && !self.is_held_up
    }

    /// Waits until something can be done.
    fn wait(&self) -> Result<Vec<Polled>, Broken> {
        let mut ends = vec![(
            PollFd::new(self.control.fd(), PollFlags::POLLIN),
            Polled::Wake,
        )];
        let offered = match &self.offer {
            Some(offer) if self.deal.is_none() => offer.len(),
            _ => 0,
        };
        for (at, sink) in self.sinks.iter().enumerate() {
            let for_more = self.deal.as_ref().is_some_and(|deal| deal.is_waiting(at));
            if let Some((fd, wants)) = sink.waits(offered, for_more) {
                // Without POLLOUT it still says when the reader has gone.
                let events = if wants {
                    PollFlags::POLLOUT
                } else {
                    PollFlags::empty()
                };
                ends.push((PollFd::new(fd, events), Polled::Sink(at, events)));
            }
        }
        let last = match self.merge {
            Merge::Arrive => self.sources.len(),
            Merge::Sequence => self.first_open(),
        };
        let mut at_once = None;
        for (at, source) in self.sources.iter().enumerate() {
            if at > last {
                if source.is_due_ahead() {
                    at_once = Some(Polled::Ahead(at));
                }
                let fd = source.readable_ahead();
                ends.extend(fd.map(|fd| (PollFd::new(fd, PollFlags::POLLIN), Polled::Ahead(at))));
            } else if self.takes_more() && (source.has_ahead() || source.is_due()) {
                at_once = Some(Polled::Source(at));
            } else if let Some(fd) = source.readable()
                && self.takes_more()
            {
                ends.push((PollFd::new(fd, PollFlags::POLLIN), Polled::Source(at)));
            }
            if let Some(fd) = source.faulty()
                && self.on_writer_failure == OnWriterFailure::Close
            {
                ends.push((PollFd::new(fd, PollFlags::empty()), Polled::Faulty(at)));
            }
        }
        let (mut fds, whose): (Vec<PollFd>, Vec<Polled>) = ends.into_iter().unzip();
        let begin = Instant::now();
        let look = self.deal.as_ref().and_then(Deal::look);
        let has_more =
            !self.takes_more() || self.deal.as_ref().is_some_and(|deal| !deal.is_empty());
        let timeout = match look.filter(|_| has_more) {
            _ if at_once.is_some() => Some(TimeSpec::from(Duration::ZERO)),
            look => look.map(TimeSpec::from),
        };
        while let Err(error) = ppoll(&mut fds, timeout, None) {
            if error != Errno::EINTR {
                return Err(Broken(format!(
                    "can't wait for the ends of queue `{}`: {error}",
                    self.name
                )));
            }
        }
        self.count_wait(begin);
        let said = fds
            .iter()
            .map(|fd| fd.revents().unwrap_or(PollFlags::POLLERR));
        let said = said.zip(whose).filter(|(events, _)| !events.is_empty());
        Ok(said
            .map(|(events, end)| match end {
                Polled::Sink(at, _) => Polled::Sink(at, events),
                other => other,
            })
            .chain(at_once)
            .collect())
    }

    fn count_wait(&self, begin: Instant) {
        let waited = u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
        if !self.takes_more() {
            self.counters.full.fetch_add(waited, Ordering::Relaxed);
        } else if self.sinks.iter().all(Sink::is_empty) {
            self.counters.empty.fetch_add(waited, Ordering::Relaxed);
        }
    }

    /// The source whose turn it is where they come in sequence.
    fn first_open(&self) -> usize {
        self.sources
            .iter()
            .position(|source| !source.is_done())
            .unwrap_or(self.sources.len())
    }

    /// A sink has room, or has gone.
    fn flush(&mut self, at: usize, events: PollFlags) -> Result<(), Broken> {
        let sink = &mut self.sinks[at];
        sink.polled(events);
        deal::flush(sink, at, &self.counters).map_err(|error| unwritable(&self.name, error))?;
        if let Some(deal) = &mut self.deal
            && events.contains(PollFlags::POLLOUT)
        {
            deal.has_room(at, sink);
        }
        Ok(())
    }

    /// A source has something to read, or has ended.
    fn read(&mut self, at: usize) -> Result<(), Broken> {
        self.turn = at + 1;
        if self.may_splice && self.splice(at)? {
            return Ok(());
        }
        match self.sources[at].fill() {
            Ok(count) => self.counters.inputs[at].add(count, 0),
            // A pipe can always be read. A file is who names it to blame for, and no reason to end the run.
            Err(SourceError::Read(error)) if self.sources[at].is_file() => {
                let name = &self.name;
                self.fault(
                    at,
                    format!("can't read the file of queue `{name}`: {error}"),
                );
            }
            Err(error) => return Err(unreadable(&self.name, error)),
        }
        self.advance(at);
        self.hand_out()?;
        self.settle(at);
        Ok(())
    }

    /// Moves a block without looking at most of it, where that is worth it. Whether it did, or must wait for a reader.
    fn splice(&mut self, at: usize) -> Result<bool, Broken> {
        let Some(share) = self.deal.as_mut().and_then(Deal::plain_share) else {
            return Ok(false);
        };
        let source = &mut self.sources[at];
        let (sink, moved) = if let Some(owed) = self.owed {
            let sink = &mut self.sinks[owed];
            if !sink.is_empty() {
                self.is_held_up = true;
                return Ok(true);
            }
            (owed, splice::pay(source, sink, &self.framer, false))
        } else {
            let there = source.unread();
            if there < splice::LEAST || source.held() > PAGE {
                return Ok(false);
            }
            let now = Instant::now();
            let Some(choice) = deal::choose(share, &self.sinks, now) else {
                self.is_held_up = true;
                return Ok(true);
            };
            let most = there.min(choice.most);
            if most < splice::LEAST {
                return Ok(false);
            }
            let sink = &mut self.sinks[choice.at];
            let moved = splice::block(source, sink, &self.framer, most);
            let handed = moved.as_ref().map_or(0, |moved| moved.handed);
            share.has_given(&choice, handed, now);
            (choice.at, moved)
        };
        let moved = moved.map_err(|error| match error {
            SpliceError::Source(error) => unreadable(&self.name, error),
            SpliceError::Sink(error) => unwritable(&self.name, error),
        })?;
        if moved.unseen > 0 {
            self.counters.estimate();
        }
        let seen = moved.handed - moved.unseen;
        let records = self.census.count(seen, moved.ends, moved.unseen);
        self.counters.inputs[at].add(moved.came, records);
        self.counters.outputs[sink].add(moved.left, records);
        let lost = self.sinks[sink].take_lost();
        self.counters.lost.add(lost, 0);
        // Of a block nobody knows how much of it is that record's; of what follows it all is.
        self.owed_length = match (self.owed, moved.is_owed) {
            (_, false) | (None, true) => 0,
            (Some(_), true) => self.owed_length + moved.handed as u64,
        };
        self.owed = moved.is_owed.then_some(sink);
        self.publish(at);
        if self.owed_length > self.max_record {
            self.owed = None;
            let begin = self.sources[at].passed() - self.owed_length;
            self.fault(at, self.too_long(begin));
            return Ok(true);
        }
        self.advance(at);
        self.hand_out()?;
        self.settle(at);
        Ok(true)
    }

    /// Says whether all is in order that a source's writer has written, once it has ended and all of that is here.
    fn settle(&mut self, at: usize) {
        // What is offered has not been taken in yet.
        if self.offer.is_some() {
            return;
        }
        match self.sources[at].settle() {
            None => {}
            Some(Settle::Well) => self.events.send(RelayEvent::Settled { input: at }),
            Some(Settle::Torn { held, after }) => self.fault(at, self.torn(held, after)),
            Some(Settle::TooLong { after }) => self.fault(at, self.too_long(after)),
        }
    }

    /// The same for a source whose turn has not come. Where its fault lets the data end, what it has written before that is
    /// still handed on in its turn.
    fn settle_ahead(&mut self, at: usize) {
        let why = match self.sources[at].settle_ahead() {
            None => return,
            Some(Settle::Well) => return self.events.send(RelayEvent::Settled { input: at }),
            Some(Settle::Torn { held, after }) => self.torn(held, after),
            Some(Settle::TooLong { after }) => self.too_long(after),
        };
        match self.on_writer_failure {
            OnWriterFailure::Cancel => self.fault(at, why),
            OnWriterFailure::Close => self.events.send(RelayEvent::Fault { input: at, why }),
        }
    }

    /// A source has something to read, but it isn't its turn.
    fn read_ahead(&mut self, at: usize) -> Result<(), Broken> {
        let count = self.sources[at]
            .fill_ahead()
            .map_err(|error| unreadable(&self.name, error))?;
        self.counters.inputs[at].add(count, 0);
        self.settle_ahead(at);
        Ok(())
    }

    /// Hands out what is offered, and what its source has behind that, as far as it goes.
    fn hand_out(&mut self) -> Result<(), Broken> {
        if self.deal.is_some() {
            return self.deal_out();
        }
        while let Some(offer) = &self.offer {
            let parts = [
                &offer.terminator[..],
                self.sources[offer.source].data(offer.end),
            ];
            let mut is_taken = true;
            for (sink, counter) in self.sinks.iter_mut().zip(&self.counters.outputs) {
                let had_taken = sink.has_taken(offer.len());
                let left = sink
                    .take(parts)
                    .map_err(|error| unwritable(&self.name, error))?;
                let has_taken = sink.has_taken(offer.len());
                let took_now = has_taken && !had_taken && !sink.is_closed();
                counter.add(left, if took_now { offer.records } else { 0 });
                is_taken &= has_taken;
            }
            if !is_taken {
                break;
            }
            let source = offer.source;
            self.sources[source].consume(offer.end);
            self.publish(source);
            self.offer = None;
            self.advance(source);
        }
        self.publish_held();
        Ok(())
    }

    /// The same where each record goes to one reader.
    fn deal_out(&mut self) -> Result<(), Broken> {
        while let Some(deal) = &mut self.deal {
            let (data, lacks) = match &self.offer {
                Some(offer) => (
                    self.sources[offer.source].data(offer.end),
                    &offer.missing[..],
                ),
                // What is held may go on.
                None => (&[][..], &[][..]),
            };
            let hand = Hand {
                data,
                lacks,
                framer: &self.framer,
            };
            let dealt = deal
                .deal(hand, &mut self.sinks, &self.counters)
                .map_err(|error| unwritable(&self.name, error))?;
            // Before any reader sees the end: whoever judges this must not find all of them ended well.
            if !self.has_told_of_loss
                && let Some(output) = self.counters.first_lost()
            {
                self.has_told_of_loss = true;
                self.events.send(RelayEvent::Lost { output });
            }
            let Some(offer) = &mut self.offer else { break };
            offer.end -= dealt;
            let (source, rest) = (offer.source, offer.end);
            self.sources[source].consume(dealt);
            self.publish(source);
            if rest > 0 {
                break;
            }
            self.offer = None;
            self.advance(source);
            if self.offer.is_none() {
                break;
            }
        }
        self.publish_held();
        Ok(())
    }

    /// What has been handed on of a source, for who looks. Not before what is held of that: who sees that all has been handed on
    /// must see where it is.
    fn publish(&self, source: usize) {
        self.publish_held();
        self.counters.inputs[source].has_passed(self.sources[source].passed());
    }

    fn publish_held(&self) {
        let held = self.deal.as_ref().map_or(0, Deal::held);
        let held = held + self.sinks.iter().map(Sink::held).sum::<u64>();
        self.counters.held.store(held, Ordering::Release);
    }

    /// Finds what a source has to offer next. Nothing must be offered.
    fn advance(&mut self, at: usize) {
        let source = &mut self.sources[at];
        match source.next() {
            Next::More => {}
            Next::End => {
                source.close();
                // The last record, without its terminator.
                if std::mem::take(&mut self.is_midway) {
                    let counters = &self.counters;
                    let counters = counters.inputs[at..=at].iter().chain(&counters.outputs);
                    counters.for_each(|counter| counter.add(0, 1));
                }
                self.counters.inputs[at].finish();
            }
            Next::Whole { end, records } => {
                let records = match &self.counting {
                    None => records,
                    Some(framer) => {
                        let data = source.data(end);
                        self.is_midway = framer.last_end(data) != Some(end);
                        framer.ends(data)
                    }
                };
                self.offer(at, end, records, Vec::new());
            }
            Next::Last { end } => {
                let missing = source.framer().missing_terminator(source.data(end));
                self.offer(at, end, 1, missing);
            }
            Next::TooLong => {
                let after = source.passed();
                self.fault(at, self.too_long(after));
            }
            Next::Torn { held } => {
                let after = source.passed();
                self.fault(at, self.torn(held, after));
            }
        }
    }

    fn too_long(&self, after: u64) -> String {
        let most = bytesize::ByteSize(self.max_record)
            .to_string()
            .replace(".0 ", " ");
        let name = &self.name;
        format!(
            "a record of queue `{name}` is longer than max_record ({most}), after {after} bytes"
        )
    }

    fn torn(&self, held: usize, after: u64) -> String {
        let name = &self.name;
        format!(
            "the last record of queue `{name}` is cut off after {held} bytes of it, {after} bytes into the data"
        )
    }

    fn offer(&mut self, source: usize, end: usize, records: u64, missing: Vec<u8>) {
        let terminator = match self.deal {
            None => std::mem::replace(&mut self.missing, missing.clone()),
            Some(_) => Vec::new(),
        };
        self.counters.inputs[source].add(0, records);
        if let Some(tap) = &mut self.tap {
            tap.pass(self.sources[source].data(end), &missing);
        }
        self.offer = Some(Offer {
            source,
            terminator,
            missing,
            end,
            records,
        });
        self.sinks.iter_mut().for_each(Sink::renew);
    }

    fn fault(&mut self, input: usize, why: String) {
        let source = &mut self.sources[input];
        source.fault();
        if self.on_writer_failure == OnWriterFailure::Close && source.faulty().is_none() {
            // It has ended already.
            source.close();
        }
        self.events.send(RelayEvent::Fault { input, why });
    }
}

impl Offer {
    fn len(&self) -> usize {
        self.terminator.len() + self.end
    }
}

fn unreadable(name: &str, error: SourceError) -> Broken {
    match error {
        SourceError::Read(error) => Broken(format!("can't read queue `{name}`: {error}")),
        SourceError::Spill(error) => unspillable(name, &error),
    }
}

fn unwritable(name: &str, error: SinkError) -> Broken {
    match error {
        SinkError::Write(error) => {
            Broken(format!("can't write what queue `{name}` carries: {error}"))
        }
        SinkError::Spill(error) => unspillable(name, &error),
    }
}

fn unspillable(name: &str, error: &SpillError) -> Broken {
    let SpillError { dir, call, error } = error;
    Broken(format!(
        "can't {call} of queue `{name}` in {}: {error}",
        dir.display()
    ))
}
