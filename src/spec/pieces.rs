//! The fast way through a good file: piece by piece, and on several threads where it is large. It knows nothing of what is
//! wrong with any other, only that it is not sure of it.

use indexmap::IndexMap;
use serde::Deserialize;
use toml::de::{DeTable, Deserializer};

use crate::spec::{Spec, pools};

/// A large file is read in pieces of at least so many bytes.
pub(crate) const PIECE: usize = 64 << 10;

/// For so many bytes it is worth to start a thread, which costs as much as reading some 10 kB.
pub(crate) const THREAD: usize = 1 << 20;

/// Reads a good file piece by piece, cut before lines that begin with `[`; none where anything is wrong, or so unusual
/// that only reading the file as a whole can tell.
///
/// The parser holds tokens, events and tree of its whole input at once, thirty times the text. Piece by piece they stay
/// in the cache, which is twice as fast, and the memory of a file of 100,000 processes is that of its [`Spec`].
///
/// That each piece is a whole document shows that the cuts are right: one within a string or array leaves it open. Two
/// pieces can only differ from their sum where they both say something of the same table, so that is looked for.
pub(crate) fn in_pieces(text: &str, size: usize) -> Option<Spec> {
    let pieces = cut(text, size);
    if let [whole] = pieces.as_slice() {
        let table = DeTable::parse(whole).ok()?;
        let behind = pools::behind(table.get_ref());
        let mut spec = Spec::deserialize(Deserializer::from(table)).ok()?;
        pools::place(&mut spec.pool, &behind);
        return Some(spec);
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = threads.min(4).min(text.len() / THREAD).max(1);
    let (first, others) = pieces.split_at(pieces.len().div_ceil(threads));
    let part = std::thread::scope(|scope| {
        let others: Vec<_> = others
            .chunks(first.len())
            .map(|pieces| {
                (
                    pieces,
                    std::thread::Builder::new().spawn_scoped(scope, || Part::read(pieces)),
                )
            })
            .collect();
        let mut part = Part::read(first)?;
        for (pieces, thread) in others {
            let read = match thread {
                // A panic is one of ours: it goes on here.
                Ok(thread) => thread
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
                // No more threads may be started: then it takes a little longer.
                Err(_) => Part::read(pieces),
            };
            part.add(read?)?;
        }
        Some(part)
    })?;
    Some(part.spec)
}

/// Cuts a text into pieces that begin with a header (the first: with the text).
fn cut(text: &str, size: usize) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = text;
    loop {
        let next = rest
            .as_bytes()
            .get(size..)
            .and_then(|bytes| memchr::memmem::find(bytes, b"\n["));
        match next.and_then(|newline| rest.split_at_checked(size + newline + 1)) {
            Some((piece, after)) => {
                pieces.push(piece);
                rest = after;
            }
            None => {
                pieces.push(rest);
                return pieces;
            }
        }
    }
}

/// What one or more pieces of a file say.
#[derive(Default)]
struct Part {
    spec: Spec,
    /// The top-level keys that no other piece may have.
    keys: Vec<String>,
}

impl Part {
    /// Reads pieces that follow each other.
    fn read(pieces: &[&str]) -> Option<Self> {
        let mut all = Part::default();
        for piece in pieces {
            all.add(Part::of(piece)?)?;
        }
        Some(all)
    }

    fn of(piece: &str) -> Option<Self> {
        let table = DeTable::parse(piece).ok()?;
        let mut keys = Vec::new();
        for (key, value) in table.get_ref() {
            if !matches!(
                key.get_ref().as_ref(),
                "process" | "pool" | "queue" | "params"
            ) {
                keys.push(key.get_ref().to_string());
                continue;
            }
            // `[process.a]` in one piece and `[process.b]` in the next are both welcome; `process = {}` and `[process]`, which
            // may stand but once, are not. Only in the first does the name of the table stand behind a bracket.
            let before = value.span().start.checked_sub(1)?;
            if piece.as_bytes().get(before) != Some(&b'[') {
                return None;
            }
        }
        let behind = pools::behind(table.get_ref());
        let mut spec = Spec::deserialize(Deserializer::from(table)).ok()?;
        pools::place(&mut spec.pool, &behind);
        Some(Part { spec, keys })
    }

    /// Adds what the next piece says; none where both say the same.
    fn add(&mut self, next: Part) -> Option<()> {
        let Spec {
            name,
            description,
            run,
            params,
            env,
            env_file,
            defaults,
            process,
            mut pool,
            queue,
        } = next.spec;
        for key in next.keys {
            if self.keys.contains(&key) {
                return None;
            }
            match key.as_str() {
                "name" => self.spec.name.clone_from(&name),
                "description" => self.spec.description.clone_from(&description),
                "run" => self.spec.run.clone_from(&run),
                "env" => self.spec.env.clone_from(&env),
                "env_file" => self.spec.env_file.clone_from(&env_file),
                "defaults" => self.spec.defaults.clone_from(&defaults),
                _ => return None,
            }
            self.keys.push(key);
        }
        extend(&mut self.spec.params, params)?;
        pools::move_behind(&mut pool, self.spec.process.len());
        extend(&mut self.spec.process, process)?;
        extend(&mut self.spec.pool, pool)?;
        extend(&mut self.spec.queue, queue)
    }
}

/// Adds entries; none where one was there before.
fn extend<T>(all: &mut IndexMap<String, T>, more: IndexMap<String, T>) -> Option<()> {
    if all.is_empty() {
        *all = more;
        return Some(());
    }
    for (name, value) in more {
        if all.insert(name, value).is_some() {
            return None;
        }
    }
    Some(())
}
