//! What is held back and does not fit memory: one file without a name, shared by all that a pool holds.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use nix::fcntl::{FallocateFlags, fallocate};

use crate::queue::BLOCK;

/// The file, and how much of all that is held is in memory.
#[derive(Debug)]
pub(crate) struct Shelf {
    dir: PathBuf,
    /// Made when first needed.
    file: Option<File>,
    end: u64,
    /// Bytes in the file that are still wanted.
    wanted: u64,
    /// Bytes in memory.
    memory: usize,
    /// The most of these.
    capacity: usize,
}

/// Bytes held back, in the order they came.
#[derive(Debug, Default)]
pub(crate) struct Held {
    pieces: std::collections::VecDeque<Piece>,
}

#[derive(Debug)]
enum Piece {
    Memory(Vec<u8>),
    Disk { at: u64, length: usize },
}

impl Shelf {
    /// Nothing is held. At most `capacity` bytes are kept in memory, the others in a file in `dir`.
    pub fn new(dir: PathBuf, capacity: usize) -> Shelf {
        Shelf {
            dir,
            file: None,
            end: 0,
            wanted: 0,
            memory: 0,
            capacity,
        }
    }

    fn append(&mut self, data: &[u8]) -> io::Result<u64> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(tempfile::tempfile_in(&self.dir)?),
        };
        file.write_all_at(data, self.end)?;
        let at = self.end;
        self.end += data.len() as u64;
        self.wanted += data.len() as u64;
        Ok(at)
    }

    fn release(&mut self, at: u64, length: usize) -> io::Result<()> {
        let Some(file) = &self.file else {
            panic!("BUG: {length} bytes at {at} of no file")
        };
        self.wanted -= length as u64;
        if self.wanted == 0 {
            self.end = 0;
            return file.set_len(0);
        }
        // A file system without holes keeps the space until the file is empty: nothing to report.
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let _ = fallocate(file, flags, at.cast_signed(), length as i64);
        Ok(())
    }
}

impl Held {
    /// Takes more bytes.
    ///
    /// # Errors
    /// No file to be made, no space.
    pub fn push(&mut self, data: &[u8], shelf: &mut Shelf) -> io::Result<()> {
        if shelf.memory + data.len() > shelf.capacity {
            for data in data.chunks(BLOCK) {
                let at = shelf.append(data)?;
                let length = data.len();
                self.pieces.push_back(Piece::Disk { at, length });
            }
            return Ok(());
        }
        shelf.memory += data.len();
        match self.pieces.back_mut() {
            Some(Piece::Memory(last)) if last.len() < BLOCK => last.extend_from_slice(data),
            _ => self.pieces.push_back(Piece::Memory(data.to_vec())),
        }
        Ok(())
    }

    /// Nothing is held.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// The next bytes; none when all have been taken.
    ///
    /// # Errors
    /// They can't be read back.
    pub fn pop(&mut self, shelf: &mut Shelf) -> io::Result<Option<Vec<u8>>> {
        match self.pieces.pop_front() {
            None => Ok(None),
            Some(Piece::Memory(data)) => {
                shelf.memory -= data.len();
                Ok(Some(data))
            }
            Some(Piece::Disk { at, length }) => {
                let mut data = vec![0; length];
                if let Some(file) = &shelf.file {
                    file.read_exact_at(&mut data, at)?;
                }
                shelf.release(at, length)?;
                Ok(Some(data))
            }
        }
    }

    /// It is not wanted.
    ///
    /// # Errors
    /// As ftruncate(2).
    pub fn drop(mut self, shelf: &mut Shelf) -> io::Result<()> {
        for piece in self.pieces.drain(..) {
            match piece {
                Piece::Memory(data) => shelf.memory -= data.len(),
                Piece::Disk { at, length } => shelf.release(at, length)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

    use proptest::collection::vec;
    use proptest::prelude::*;

    use crate::pool::shelf::{Held, Shelf};

    proptest! {
        /// Each comes back as it went in, wherever it lay; the file is empty when nothing is wanted of it.
        #[test]
        fn what_is_held_comes_back(capacity in 0..400usize, pushes in vec((0..3usize, 0..200usize), 0..60)) {
            let dir = tempfile::tempdir().unwrap();
            let mut shelf = Shelf::new(dir.path().to_owned(), capacity);
            let mut held: [Held; 3] = Default::default();
            let mut model: [Vec<u8>; 3] = Default::default();
            for (number, (at, length)) in pushes.into_iter().enumerate() {
                let data = vec![number as u8; length];
                held[at].push(&data, &mut shelf).unwrap();
                model[at].extend(data);
                prop_assert!(shelf.memory <= capacity);
            }
            let [first, mut second, third] = held;
            first.drop(&mut shelf).unwrap();
            for (mut held, model) in [(third, &model[2]), (std::mem::take(&mut second), &model[1])] {
                let mut data = Vec::new();
                while let Some(piece) = held.pop(&mut shelf).unwrap() {
                    data.extend(piece);
                }
                prop_assert!(held.is_empty());
                prop_assert_eq!(&data, model);
            }
            prop_assert_eq!((shelf.memory, shelf.wanted, shelf.end), (0, 0, 0));
            if let Some(file) = &shelf.file {
                prop_assert_eq!(file.metadata().unwrap().len(), 0);
            }
        }
    }
}
