//! Hands whole records to one reader each (to whoever is free, in turn, or by a key), or to all where records must be counted or
//! may be dropped.
//!
//! What has been handed to a reader is never handed out again, also where that reader has gone: nobody can know how much
//! of it was done. Whoever watches the readers judges that (a worker that ends before its input has ended has failed). What
//! happens to the rest:
//! - shared, or in turn: the others get it. What is held for a reader is at most the end of a record that it has begun to get,
//!   where shared; in turn, also whole records that were its turn, which count as [lost](crate::queue::Counts::lost);
//! - by a key: the others must not get it, since equal keys would no longer be together. Records of a key whose reader has gone
//!   go nowhere, and count as lost, so that it can be told.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::plan::{Deliver, Overflow};
use crate::queue::backlog::Backlog;
use crate::queue::by_field::Key;
use crate::queue::counts::Counters;
use crate::queue::framer::Framer;
use crate::queue::share::{Choice, Share};
use crate::queue::sink::{Sink, SinkError};
use crate::queue::stock::Stock;

/// What limits what is held.
#[derive(Debug, Clone)]
pub(crate) struct Bounds {
    /// When that is reached.
    pub overflow: Overflow,
    /// Records.
    pub records: Option<u64>,
    /// Bytes of what is held for all together.
    pub bytes: usize,
    /// Where that spills.
    pub spill: Option<PathBuf>,
}

impl Bounds {
    /// Each record is to be counted.
    pub fn is_counted(&self) -> bool {
        match self.overflow {
            Overflow::Block => self.records.is_some(),
            Overflow::DropNewest | Overflow::DropOldest => true,
            Overflow::Spill => false,
        }
    }

    fn most(&self) -> u64 {
        self.records.unwrap_or(u64::MAX).max(1)
    }
}

/// Who gets a record.
#[derive(Debug)]
pub(crate) struct Deal {
    way: Way,
    bounds: Bounds,
    /// So many records of the header have not come yet.
    header: u64,
}

#[derive(Debug)]
enum Way {
    Share(Shared),
    /// All.
    Copy,
    /// The one whose turn it is.
    RoundRobin(usize),
    ByField(Key),
}

#[derive(Debug)]
struct Shared {
    share: Share,
    stock: Option<Stock>,
    /// Exactly so many records at once.
    batch: Option<usize>,
    /// Nothing more will come: what is left may be less than a batch.
    is_ending: bool,
}

/// Whole records to be handed out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hand<'a> {
    pub data: &'a [u8],
    /// What the last of them lacks to be terminated, should another follow it.
    pub lacks: &'a [u8],
    pub framer: &'a Framer,
}

impl Hand<'_> {
    /// Without the first bytes.
    fn after(&self, count: usize) -> Self {
        Hand {
            data: &self.data[count..],
            ..*self
        }
    }
}

impl Deal {
    /// `None` where all get a copy of bytes that nobody needs to cut into records. `Err` says what makes no sense.
    pub fn new(
        deliver: &Deliver,
        header: u32,
        batch: Option<u32>,
        bounds: Bounds,
        sinks: &mut [Sink],
    ) -> Result<Option<Deal>, &'static str> {
        let is_copy = *deliver == Deliver::Copy || sinks.len() < 2;
        if is_copy && !bounds.is_counted() {
            return Ok(None);
        }
        if bounds.is_counted() && bounds.records.is_some() {
            sinks.iter_mut().for_each(Sink::count_pipe);
        }
        let way = match deliver {
            _ if is_copy => Way::Copy,
            Deliver::Copy => Way::Copy,
            Deliver::Share => Way::Share(Shared::new(batch, &bounds, sinks)),
            Deliver::RoundRobin => Way::RoundRobin(0),
            Deliver::ByField { field, separator } => {
                Way::ByField(Key::new(*field, separator.as_deref())?)
            }
        };
        Ok(Some(Deal {
            way,
            bounds,
            header: u64::from(header),
        }))
    }

    /// Nothing is held that has no reader yet.
    pub fn is_empty(&self) -> bool {
        self.held() == 0
    }

    /// Bytes held that have no reader yet.
    pub fn held(&self) -> u64 {
        match &self.way {
            Way::Share(shared) => shared.stock.as_ref().map_or(0, Stock::len),
            _ => 0,
        }
    }

    /// Nothing more will come.
    pub fn end(&mut self) {
        if let Way::Share(shared) = &mut self.way {
            shared.is_ending = true;
        }
    }

    /// poll(2) is to be asked for room at a reader, though nothing is held for it.
    pub fn is_waiting(&self, at: usize) -> bool {
        matches!(&self.way, Way::Share(shared) if shared.share.is_waiting(at))
    }

    /// How long to wait at most while there is something to hand out.
    pub fn look(&self) -> Option<Duration> {
        match &self.way {
            Way::Share(shared) => shared.share.look(),
            _ => None,
        }
    }

    /// What is shared without being counted, batched or kept from its readers: any bytes of it may go to whoever is free.
    pub fn plain_share(&mut self) -> Option<&mut Share> {
        match &mut self.way {
            Way::Share(shared) if shared.stock.is_none() && self.header == 0 => {
                Some(&mut shared.share)
            }
            _ => None,
        }
    }

    /// poll(2) has said that there is room at a reader.
    pub fn has_room(&mut self, at: usize, sink: &Sink) {
        if let Way::Share(shared) = &mut self.way
            && shared.share.is_waiting(at)
            && sink.is_empty()
        {
            shared.share.has_room(at, sink.unread(), Instant::now());
        }
    }

    /// Hands out as much as the readers take, or is held for them; returns how many bytes of it that was.
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
        let rest = hand.after(begin);
        let bounds = &self.bounds;
        let dealt = match &mut self.way {
            Way::Share(shared) => shared.deal(rest, bounds, sinks, counters)?,
            Way::Copy => deal_each(Whose::All, rest, bounds, sinks, counters)?,
            Way::RoundRobin(turn) => deal_each(Whose::Turn(turn), rest, bounds, sinks, counters)?,
            Way::ByField(key) => deal_each(Whose::Key(key), rest, bounds, sinks, counters)?,
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
        while self.header > 0 && end < hand.data.len() {
            let begin = end;
            end += hand.framer.first(&hand.data[end..]);
            self.header -= 1;
            for (sink, counter) in sinks.iter_mut().zip(&counters.outputs) {
                if !sink.is_closed() {
                    sink.hold_record(&hand.data[begin..end], true)?;
                    counter.add(0, 1);
                }
                if end == hand.data.len() {
                    sink.lacks(hand.lacks);
                }
            }
        }
        if end > 0 {
            flush_all(sinks, counters)?;
        }
        Ok(end)
    }
}

impl Shared {
    fn new(batch: Option<u32>, bounds: &Bounds, sinks: &[Sink]) -> Shared {
        let sizes: Vec<usize> = sinks.iter().map(Sink::pipe_size).collect();
        let stock = if let Some(dir) = &bounds.spill {
            Some(Backlog::new(bounds.bytes, Some(dir.clone())))
        } else if bounds.is_counted() || batch.is_some() {
            Some(Backlog::counted(bounds.bytes))
        } else {
            None
        };
        Shared {
            share: Share::new(&sizes, Instant::now()),
            stock: stock.map(Stock::new),
            batch: batch.map(|batch| batch.max(1) as usize),
            is_ending: false,
        }
    }

    fn deal(
        &mut self,
        hand: Hand<'_>,
        bounds: &Bounds,
        sinks: &mut [Sink],
        counters: &Counters,
    ) -> Result<usize, SinkError> {
        let mut dealt = 0;
        loop {
            self.deal_stock(hand.framer, sinks, counters)?;
            // What counts before it is in a pipe goes through the stock.
            let is_direct = self.batch.is_none() && bounds.records.is_none();
            if is_direct && self.stock.as_ref().is_none_or(Stock::is_empty) {
                dealt += deal_shared(&mut self.share, hand.after(dealt), sinks, counters)?;
            }
            let Some(stock) = &mut self.stock else {
                return Ok(dealt);
            };
            let rest = hand.after(dealt);
            let least = self.batch.unwrap_or(0) as u64;
            let in_pipes: u64 = sinks.iter().map(Sink::records).sum();
            let kept = keep(stock, rest, least, in_pipes, bounds, counters)?;
            dealt += kept;
            if kept == 0 || is_direct {
                return Ok(dealt);
            }
        }
    }

    /// Hands out what is held.
    fn deal_stock(
        &mut self,
        framer: &Framer,
        sinks: &mut [Sink],
        counters: &Counters,
    ) -> Result<(), SinkError> {
        let Some(stock) = &mut self.stock else {
            return Ok(());
        };
        while !stock.is_empty() {
            let data = stock.front(framer, self.batch.unwrap_or(1))?;
            let hand = Hand {
                data,
                lacks: &[],
                framer,
            };
            let dealt = match self.batch {
                None => deal_shared(&mut self.share, hand, sinks, counters)?,
                Some(batch) => {
                    let mut end = 0;
                    let mut count = 0;
                    while count < batch && end < data.len() {
                        end += framer.first(&data[end..]);
                        count += 1;
                    }
                    if count < batch && !self.is_ending {
                        return Ok(());
                    }
                    hand_one(&mut self.share, hand, Some(end), sinks, counters)?
                        .map_or(0, |(_, taken)| taken)
                }
            };
            if dealt == 0 {
                return Ok(());
            }
            let lacks = stock.taken(dealt)?;
            if !lacks.is_empty() {
                // Whoever has got the last record.
                sinks[self.share.last()].lacks(&lacks);
            }
        }
        Ok(())
    }
}

/// Puts records that nobody takes now into the stock, as far as they may be held; returns how many bytes were dealt with so.
fn keep(
    stock: &mut Stock,
    hand: Hand<'_>,
    least: u64,
    in_pipes: u64,
    bounds: &Bounds,
    counters: &Counters,
) -> Result<usize, SinkError> {
    let mut kept = 0;
    if stock.is_boundless() {
        if !hand.data.is_empty() {
            stock.push(hand.data)?;
            stock.lacks(hand.lacks);
        }
        return Ok(hand.data.len());
    }
    while kept < hand.data.len() {
        let rest = &hand.data[kept..];
        let record = &rest[..hand.framer.first(rest)];
        let has_room = stock.has_room(record.len()) && stock.records() + in_pipes < bounds.most();
        if !has_room && stock.records() >= least {
            match bounds.overflow {
                Overflow::Block | Overflow::Spill => break,
                Overflow::DropNewest => {
                    counters.dropped.add(record.len(), 1);
                    kept += record.len();
                    continue;
                }
                Overflow::DropOldest => {
                    let most = bounds.most().saturating_sub(in_pipes);
                    let dropped = stock.drop_oldest(record.len(), most);
                    counters.dropped.add(dropped.bytes, dropped.records);
                }
            }
        }
        stock.push(record)?;
        kept += record.len();
        if kept == hand.data.len() {
            stock.lacks(hand.lacks);
        }
    }
    Ok(kept)
}

fn deal_shared(
    share: &mut Share,
    hand: Hand<'_>,
    sinks: &mut [Sink],
    counters: &Counters,
) -> Result<usize, SinkError> {
    let mut dealt = 0;
    while dealt < hand.data.len() {
        let Some((at, taken)) = hand_one(share, hand.after(dealt), None, sinks, counters)? else {
            break;
        };
        dealt += taken;
        if taken > 0 && dealt == hand.data.len() {
            sinks[at].lacks(hand.lacks);
        }
    }
    Ok(dealt)
}

/// Hands the first records to a free reader: as many as it may have, or up to `end`. Returns which, and how many bytes it
/// has taken; `None` where none is free.
fn hand_one(
    share: &mut Share,
    hand: Hand<'_>,
    end: Option<usize>,
    sinks: &mut [Sink],
    counters: &Counters,
) -> Result<Option<(usize, usize)>, SinkError> {
    let now = Instant::now();
    let Some(choice) = choose(share, sinks, now) else {
        return Ok(None);
    };
    let sink = &mut sinks[choice.at];
    let (taken, left) = match end {
        None => {
            let end = hand.framer.portion(hand.data, choice.most);
            sink.hand(&hand.data[..end], hand.framer)?
        }
        // What does not fit its pipe is its all the same.
        Some(end) => (end, sink.give(&hand.data[..end])?),
    };
    counters.outputs[choice.at].add(left, hand.framer.count(&hand.data[..taken]));
    share.has_given(&choice, taken, now);
    Ok(Some((choice.at, taken)))
}

/// Who is to be handed something now; its pipe has the size for that.
pub(crate) fn choose(share: &mut Share, sinks: &[Sink], now: Instant) -> Option<Choice> {
    let unread = |at: usize| sinks[at].is_free().then(|| sinks[at].unread());
    let choice = share.choose(now, unread)?;
    if let Some(size) = share.resize(choice.at) {
        share.has_size(choice.at, sinks[choice.at].resize(size.0));
    }
    Some(choice)
}

/// How the reader of a record is found.
enum Whose<'a> {
    All,
    /// Whose turn it is.
    Turn(&'a mut usize),
    Key(&'a Key),
}

/// Record by record, gathered for each reader into blocks. Ends at a record that a reader of it has no room for.
fn deal_each(
    mut whose: Whose<'_>,
    hand: Hand<'_>,
    bounds: &Bounds,
    sinks: &mut [Sink],
    counters: &Counters,
) -> Result<usize, SinkError> {
    let mut dealt = 0;
    let mut records = vec![0; sinks.len()];
    while dealt < hand.data.len() {
        let rest = &hand.data[dealt..];
        let record = &rest[..hand.framer.first(rest)];
        let is_last = record.len() == rest.len();
        let readers = match &mut whose {
            Whose::All => 0..sinks.len(),
            Whose::Key(key) => {
                let at = key.reader(hand.framer.body(record), sinks.len());
                at..at + 1
            }
            Whose::Turn(turn) => {
                let mut in_turn = (**turn..sinks.len()).chain(0..**turn);
                match in_turn.find(|at| !sinks[*at].is_closed()) {
                    Some(at) => at..at + 1,
                    // All have gone meanwhile.
                    None => return Ok(hand.data.len()),
                }
            }
        };
        if !make_room(record, readers.clone(), bounds, sinks, counters)? {
            break;
        }
        if let Whose::Turn(turn) = &mut whose {
            // Gone just now: it is another's turn.
            if sinks[readers.start].is_closed() {
                continue;
            }
            **turn = (readers.start + 1) % sinks.len();
        }
        for at in readers {
            let sink = &mut sinks[at];
            if sink.is_closed() {
                if !matches!(whose, Whose::All) {
                    counters.lose(at, record.len());
                }
                continue;
            }
            if bounds.is_counted() && !sink.has_room(record.len(), bounds.most()) {
                match bounds.overflow {
                    Overflow::DropNewest => {
                        counters.dropped.add(record.len(), 1);
                        continue;
                    }
                    _ => {
                        let dropped = sink.drop_oldest(record.len(), bounds.most());
                        counters.dropped.add(dropped.bytes, dropped.records);
                        // Counted when it was held.
                        records[at] -= dropped.records.cast_signed();
                    }
                }
            }
            sink.hold(record)?;
            records[at] += 1;
            if is_last {
                sink.lacks(hand.lacks);
            }
        }
        dealt += record.len();
    }
    for (counter, records) in counters.outputs.iter().zip(records) {
        counter.add_signed(records);
    }
    flush_all(sinks, counters)?;
    Ok(dealt)
}

/// Whether each of `readers` has room for a record, or makes it when that comes, once what can be written is.
fn make_room(
    record: &[u8],
    readers: std::ops::Range<usize>,
    bounds: &Bounds,
    sinks: &mut [Sink],
    counters: &Counters,
) -> Result<bool, SinkError> {
    let is_full = |sink: &Sink| {
        if bounds.is_counted() {
            !sink.has_room(record.len(), bounds.most())
        } else {
            sink.is_full()
        }
    };
    let mut has_room = true;
    for at in readers {
        let sink = &mut sinks[at];
        if !sink.is_closed() && is_full(sink) {
            flush(sink, at, counters)?;
            has_room &= sink.is_closed() || !is_full(sink) || sink.is_boundless();
        }
    }
    Ok(has_room || matches!(bounds.overflow, Overflow::DropNewest | Overflow::DropOldest))
}

fn flush_all(sinks: &mut [Sink], counters: &Counters) -> Result<(), SinkError> {
    for (at, sink) in sinks.iter_mut().enumerate() {
        flush(sink, at, counters)?;
    }
    Ok(())
}

/// Writes what is held for a reader, as far as it goes.
pub(crate) fn flush(sink: &mut Sink, at: usize, counters: &Counters) -> Result<(), SinkError> {
    let left = sink.flush()?;
    counters.outputs[at].add(left, 0);
    counters.lost.add(sink.take_lost(), 0);
    Ok(())
}
