//! Hands whole records to one reader each: to whoever is free, in turn, or by a key.
//!
//! What has been handed to a reader is never handed out again, also where that reader has gone: nobody can know how much
//! of it was done. Whoever watches the readers judges that (a worker that ends before its input has ended has failed). What
//! happens to the rest:
//! - shared, or in turn: the others get it. What is held for a reader is at most the end of a record that it has begun to get,
//!   where shared; in turn, also whole records that were its turn, which count as [lost](crate::queue::Counts::lost);
//! - by a key: the others must not get it, since equal keys would no longer be together. Records of a key whose reader has gone
//!   go nowhere, and count as lost, so that it can be told.

use std::time::Instant;

use crate::plan::Deliver;
use crate::queue::by_field::Key;
use crate::queue::counts::Counters;
use crate::queue::framer::Framer;
use crate::queue::share::Share;
use crate::queue::sink::{Sink, SinkError};

/// Who gets a record.
#[derive(Debug)]
pub(crate) struct Deal {
    way: Way,
    /// So many records of the header have not come yet.
    header: u64,
}

#[derive(Debug)]
enum Way {
    Share(Share),
    /// Whose turn it is.
    RoundRobin(usize),
    ByField(Key),
}

/// Whole records to be handed out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hand<'a> {
    pub data: &'a [u8],
    /// What the last of them lacks to be terminated, should another follow it.
    pub lacks: &'a [u8],
    pub framer: &'a Framer,
}

impl Deal {
    /// For several readers that don't each get a copy; `None` for those that do. `Err` says what makes no sense.
    pub fn new(
        deliver: &Deliver,
        header: u32,
        sinks: &[Sink],
    ) -> Result<Option<Deal>, &'static str> {
        if sinks.len() < 2 {
            return Ok(None);
        }
        let way = match deliver {
            Deliver::Copy => return Ok(None),
            Deliver::Share => {
                let sizes: Vec<usize> = sinks.iter().map(Sink::pipe_size).collect();
                Way::Share(Share::new(&sizes, Instant::now()))
            }
            Deliver::RoundRobin => Way::RoundRobin(0),
            Deliver::ByField { field, separator } => {
                Way::ByField(Key::new(*field, separator.as_deref())?)
            }
        };
        let header = u64::from(header);
        Ok(Some(Deal { way, header }))
    }

    /// poll(2) is to be asked for room at a reader, though nothing is held for it.
    pub fn is_waiting(&self, at: usize) -> bool {
        matches!(&self.way, Way::Share(share) if share.is_waiting(at))
    }

    /// How long to wait at most.
    pub fn look(&self) -> Option<std::time::Duration> {
        match &self.way {
            Way::Share(share) => share.look(),
            _ => None,
        }
    }

    /// poll(2) has said that there is room at a reader.
    pub fn has_room(&mut self, at: usize, sink: &Sink) {
        if let Way::Share(share) = &mut self.way
            && share.is_waiting(at)
            && sink.is_empty()
        {
            share.has_room(at, sink.unread(), Instant::now());
        }
    }

    /// Hands out as much as the readers take; returns how many bytes of it that was.
    pub fn deal(
        &mut self,
        hand: Hand<'_>,
        sinks: &mut [Sink],
        counters: &Counters,
    ) -> Result<usize, SinkError> {
        if sinks.iter().all(Sink::is_closed) {
            return Ok(hand.data.len());
        }
        let begin = self.deal_header(hand, sinks, counters)?;
        let rest = Hand {
            data: &hand.data[begin..],
            ..hand
        };
        let dealt = match &mut self.way {
            _ if rest.data.is_empty() => 0,
            Way::Share(share) => deal_shared(share, rest, sinks, counters)?,
            Way::RoundRobin(turn) => deal_each(Whose::Turn(turn), rest, sinks, counters)?,
            Way::ByField(key) => deal_each(Whose::Key(key), rest, sinks, counters)?,
        };
        Ok(begin + dealt)
    }

    /// Gives the records that belong to the header to all; returns how many bytes these are.
    fn deal_header(
        &mut self,
        hand: Hand<'_>,
        sinks: &mut [Sink],
        counters: &Counters,
    ) -> Result<usize, SinkError> {
        let mut end = 0;
        let mut records = 0;
        while self.header > 0 && end < hand.data.len() {
            end += hand.framer.first(&hand.data[end..]);
            self.header -= 1;
            records += 1;
        }
        if end == 0 {
            return Ok(0);
        }
        for (sink, counter) in sinks.iter_mut().zip(&counters.outputs) {
            if sink.is_closed() {
                continue;
            }
            let left = sink.give(&hand.data[..end])?;
            counter.add(left, records);
            if end == hand.data.len() {
                sink.lacks(hand.lacks);
            }
        }
        Ok(end)
    }
}

fn deal_shared(
    share: &mut Share,
    hand: Hand<'_>,
    sinks: &mut [Sink],
    counters: &Counters,
) -> Result<usize, SinkError> {
    let mut dealt = 0;
    while dealt < hand.data.len() {
        let rest = &hand.data[dealt..];
        let now = Instant::now();
        let unread = |at: usize| sinks[at].is_free().then(|| sinks[at].unread());
        let Some(choice) = share.choose(now, unread) else {
            break;
        };
        let sink = &mut sinks[choice.at];
        if let Some(size) = share.resize(choice.at) {
            share.has_size(choice.at, sink.resize(size.0));
        }
        let end = hand.framer.portion(rest, choice.most);
        let (taken, left) = sink.hand(&rest[..end], hand.framer)?;
        let records = hand.framer.count(&rest[..taken]);
        counters.outputs[choice.at].add(left, records);
        dealt += taken;
        if taken > 0 && dealt == hand.data.len() {
            sink.lacks(hand.lacks);
        }
        share.has_given(&choice, taken, now);
    }
    Ok(dealt)
}

/// How the reader of a record is found.
enum Whose<'a> {
    /// Whose turn it is.
    Turn(&'a mut usize),
    Key(&'a Key),
}

/// Record by record, gathered for each reader into blocks. Ends at a record whose reader has no room.
fn deal_each(
    mut whose: Whose<'_>,
    hand: Hand<'_>,
    sinks: &mut [Sink],
    counters: &Counters,
) -> Result<usize, SinkError> {
    let mut dealt = 0;
    let mut records = vec![0; sinks.len()];
    while dealt < hand.data.len() {
        let rest = &hand.data[dealt..];
        let record = &rest[..hand.framer.first(rest)];
        let at = match &mut whose {
            Whose::Key(key) => key.reader(hand.framer.body(record), sinks.len()),
            Whose::Turn(turn) => {
                let mut in_turn = (**turn..sinks.len()).chain(0..**turn);
                match in_turn.find(|at| !sinks[*at].is_closed()) {
                    Some(at) => at,
                    // All have gone meanwhile.
                    None => return Ok(hand.data.len()),
                }
            }
        };
        let sink = &mut sinks[at];
        if sink.is_closed() {
            counters.lost.add(record.len(), 1);
        } else {
            if sink.is_full() {
                flush(sink, at, counters)?;
                if sink.is_closed() {
                    continue;
                }
                if sink.is_full() && !sink.is_boundless() {
                    break;
                }
            }
            sink.hold(record)?;
            records[at] += 1;
        }
        dealt += record.len();
        if let Whose::Turn(turn) = &mut whose {
            **turn = (at + 1) % sinks.len();
        }
        if dealt == hand.data.len() {
            sinks[at].lacks(hand.lacks);
        }
    }
    for (at, sink) in sinks.iter_mut().enumerate() {
        counters.outputs[at].add(0, records[at]);
        flush(sink, at, counters)?;
    }
    Ok(dealt)
}

/// Writes what is held for a reader, as far as it goes.
pub(crate) fn flush(sink: &mut Sink, at: usize, counters: &Counters) -> Result<(), SinkError> {
    let left = sink.flush()?;
    counters.outputs[at].add(left, 0);
    counters.lost.add(sink.take_lost(), 0);
    Ok(())
}
