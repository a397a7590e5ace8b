//! A block of records from one writer to one reader, of which no more than the last page comes to user space.
//!
//! ```text
//! writer's pipe   …………………………………………………………┃……last page……┃  the next block
//!                 └──── splice(2) ────▶┃ read(2)
//! reader's pipe   [begun before] bulk   [to the last record's end]
//!                                       [behind it: begins the next block, in user space]
//! ```
//!
//! What is in the bulk is not known when it goes: if there is no record's end in the page behind it, the reader is *owed* the
//! rest of a record, and nobody else gets anything before. So this is only for a writer that is alone, whose failure ends its
//! readers, too, and for records that end with one byte.
//!
//! Of the records in the bulk nobody knows how many they are; see [`Census`](crate::queue::census::Census).
//!
//! *Tried before:* tee(2) to a pipe of our own to look before it goes. It costs more than it saves. Writing the last page
//! by vmsplice(2): a reader that splices on would see the page change.

use nix::errno::Errno;
use nix::fcntl::{SpliceFFlags, splice};

use crate::queue::framer::Framer;
use crate::queue::share::PAGE;
use crate::queue::sink::{Sink, SinkError};
use crate::queue::source::{Source, SourceError};

/// Less is read: calls cost more than copying so little.
pub(crate) const LEAST: usize = 32 * 1024;

/// What became of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Block {
    /// Bytes that came from the writer.
    pub came: usize,
    /// Bytes that went to the reader's pipe.
    pub left: usize,
    /// Bytes that were handed to the reader, those included that it holds back.
    pub handed: usize,
    /// Of these, bytes that nobody saw.
    pub unseen: usize,
    /// Records that end in the others.
    pub ends: u64,
    /// The reader is owed the rest of a record.
    pub is_owed: bool,
}

/// Why a block could not be moved.
#[derive(Debug)]
pub(crate) enum SpliceError {
    Source(SourceError),
    Sink(SinkError),
}

impl From<SourceError> for SpliceError {
    fn from(error: SourceError) -> Self {
        SpliceError::Source(error)
    }
}

impl From<SinkError> for SpliceError {
    fn from(error: SinkError) -> Self {
        SpliceError::Sink(error)
    }
}

/// Moves about `most` bytes of whole records; `most` is at least [`LEAST`], and so much is there. Nothing but the beginning of a
/// record, at most a page of it, must have been read of the source, and nothing be held for the sink.
pub(crate) fn block(
    source: &mut Source,
    sink: &mut Sink,
    framer: &Framer,
    most: usize,
) -> Result<Block, SpliceError> {
    let mut block = Block::default();
    let begun = source.held();
    block.left += sink.give(source.data(begun))?;
    block.handed += begun;
    source.consume(begun);
    if sink.is_empty() {
        let bulk = move_bulk(source, sink, most - PAGE)?;
        source.has_passed(bulk);
        block.came += bulk;
        block.left += bulk;
        block.handed += bulk;
        block.unseen = bulk;
    }
    let rest = pay(source, sink, framer, true)?;
    block.came += rest.came;
    block.left += rest.left;
    block.handed += rest.handed;
    block.ends = rest.ends;
    block.is_owed = rest.is_owed;
    Ok(block)
}

/// Reads some of what a reader is owed and gives it: to the first record's end, or, with `all`, to the last one's.
pub(crate) fn pay(
    source: &mut Source,
    sink: &mut Sink,
    framer: &Framer,
    all: bool,
) -> Result<Block, SpliceError> {
    let mut block = Block {
        came: source.fill_page()?,
        is_owed: true,
        ..Block::default()
    };
    let held = source.held();
    let data = source.data(held);
    let end = if all {
        framer.last_end(data)
    } else {
        framer.first_end(data)
    };
    block.is_owed = end.is_none();
    block.handed = end.unwrap_or(held);
    block.ends = framer.ends(&data[..block.handed]);
    block.left = sink.give(&data[..block.handed])?;
    source.consume(block.handed);
    source.is_midway(block.is_owed);
    Ok(block)
}

fn move_bulk(source: &Source, sink: &mut Sink, most: usize) -> Result<usize, SpliceError> {
    let (Some(from), Some(to)) = (source.readable(), sink.fd()) else {
        return Ok(0);
    };
    let flags = SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE;
    loop {
        return match splice(from, None, to, None, most, flags) {
            Ok(count) => Ok(count),
            Err(Errno::EINTR) => continue,
            Err(Errno::EAGAIN) => Ok(0),
            Err(Errno::EPIPE) => {
                sink.close();
                Ok(0)
            }
            Err(error) => Err(SpliceError::Source(SourceError::Read(error.into()))),
        };
    }
}
