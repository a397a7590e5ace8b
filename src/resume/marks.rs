//! Files: which a node reads and writes, and what they are like.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::store::journal::Mark;

/// Files up to this size are hashed as a whole.
const WHOLE: u64 = 16 << 20;

/// Of a larger one, so many blocks, spread evenly: reading all of what a run has written again would cost more than resuming saves.
const BLOCKS: u64 = 256;

/// Of so many bytes.
const BLOCK: usize = 64 << 10;

/// Makes hashes that say nothing of what was hashed to who hasn't the key.
#[derive(Debug, Clone, Default)]
pub struct Hasher {
    key: Vec<u8>,
}

/// What a file was like before somebody read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    /// As the pipeline names it.
    pub path: String,
    size: u64,
    time: i64,
    inode: u64,
}

impl Hasher {
    /// With a key, where what is hashed may be secret.
    pub fn new(key: Vec<u8>) -> Self {
        Hasher { key }
    }

    /// The hash of a text.
    pub(super) fn text(&self, text: &str) -> String {
        let mut hash = self.begin();
        hash.update(text);
        short(hash)
    }

    /// The hash of the first `size` bytes of a file.
    fn file(&self, path: &Path, size: u64) -> io::Result<String> {
        let mut file = File::open(path)?;
        let mut hash = self.begin();
        let mut block = vec![0; BLOCK];
        if size <= WHOLE {
            let mut left = file.by_ref().take(size);
            loop {
                match left.read(&mut block)? {
                    0 => return Ok(short(hash)),
                    count => hash.update(&block[..count]),
                }
            }
        }
        for index in 0..BLOCKS {
            // The first is at the beginning, the last at the end.
            let at = (size - BLOCK as u64) / (BLOCKS - 1) * index;
            file.read_exact_at(&mut block, at)?;
            hash.update(&block);
        }
        file.read_exact_at(&mut block, size - BLOCK as u64)?;
        hash.update(&block);
        Ok(short(hash))
    }

    fn begin(&self) -> Sha256 {
        let mut hash = Sha256::new();
        hash.update(&self.key);
        hash
    }
}

/// 128 bits are enough for nobody to find two of.
fn short(hash: Sha256) -> String {
    let bytes = hash.finalize();
    bytes[..16]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn time(meta: &Metadata) -> i64 {
    meta.mtime()
        .saturating_mul(1_000_000_000)
        .saturating_add(meta.mtime_nsec())
}

/// Why a file cannot be told from another of its name.
fn not_a_file(path: &str) -> String {
    format!("`{path}` is no regular file")
}

fn is_null(path: &Path) -> bool {
    path == Path::new("/dev/null")
}

/// Looks at files that are about to be read.
pub(super) fn look(dir: &Path, paths: Vec<String>) -> Result<Vec<Seen>, String> {
    let mut seen = Vec::new();
    for path in paths {
        let whole = dir.join(&path);
        if is_null(&whole) {
            continue;
        }
        let meta = fs::metadata(&whole)
            .map_err(|e| format!("`{path}`: {}", crate::diagnostic::reason(&e)))?;
        if !meta.is_file() {
            return Err(not_a_file(&path));
        }
        seen.push(Seen {
            path,
            size: meta.size(),
            time: time(&meta),
            inode: meta.ino(),
        });
    }
    Ok(seen)
}

/// Marks of files that were read, if they are still what they were before.
pub(super) fn read(dir: &Path, seen: Vec<Seen>, hasher: &Hasher) -> Result<Vec<Mark>, String> {
    let mut marks = Vec::new();
    for before in seen {
        let changed = || format!("`{}` changed while it was read", before.path);
        let whole = dir.join(&before.path);
        let mark = mark(&whole, before.path.clone(), hasher).map_err(|_| changed())?;
        let meta = fs::metadata(&whole).map_err(|_| changed())?;
        let now = (meta.size(), time(&meta), meta.ino());
        if now != (before.size, before.time, before.inode) {
            return Err(changed());
        }
        marks.push(mark);
    }
    Ok(marks)
}

/// Marks of files that were written. `grows`: others may append to it afterwards.
pub(super) fn written(
    dir: &Path,
    paths: impl IntoIterator<Item = (String, bool)>,
    hasher: &Hasher,
) -> Result<Vec<Mark>, String> {
    let mut marks = Vec::new();
    for (path, grows) in paths {
        let whole = dir.join(&path);
        if is_null(&whole) {
            continue;
        }
        let mut mark = mark(&whole, path, hasher)?;
        if grows {
            mark.grows = true;
            mark.time = None;
        }
        marks.push(mark);
    }
    Ok(marks)
}

/// What a file is like now.
fn mark(whole: &Path, path: String, hasher: &Hasher) -> Result<Mark, String> {
    let cannot = |e: io::Error| format!("`{path}`: {}", crate::diagnostic::reason(&e));
    let meta = fs::metadata(whole).map_err(cannot)?;
    if !meta.is_file() {
        return Err(not_a_file(&path));
    }
    let hash = hasher.file(whole, meta.size()).map_err(cannot)?;
    Ok(Mark {
        size: meta.size(),
        time: Some(time(&meta)),
        hash,
        grows: false,
        path,
    })
}

/// What has become of a file: the end of a sentence, or nothing where it is as it was. What costs least is asked first.
pub(super) fn change(
    dir: &Path,
    was: &Mark,
    hasher: &Hasher,
    time_counts: bool,
) -> Option<&'static str> {
    let whole = dir.join(&was.path);
    let Ok(meta) = fs::metadata(&whole) else {
        return Some("is gone");
    };
    let same_size = match was.grows {
        true => meta.size() >= was.size,
        false => meta.size() == was.size,
    };
    // Of a large file the hash knows only a part.
    let time_counts = time_counts || was.size > WHOLE;
    let same_time = !time_counts || was.time.is_none_or(|was| was == time(&meta));
    let is_same = meta.is_file()
        && same_size
        && same_time
        && hasher
            .file(&whole, was.size)
            .is_ok_and(|hash| hash == was.hash);
    (!is_same).then_some("has changed")
}

/// The files that match a pattern, sorted, as the pattern names them (relative ones relative to `dir`). What matches as a
/// directory stands for all files below it. The directories of our own runs are never meant.
pub(super) fn matching(dir: &Path, pattern: &str) -> Result<Vec<String>, String> {
    let whole = dir.join(pattern);
    if !pattern.bytes().any(|byte| b"*?[{".contains(&byte)) && !whole.is_dir() {
        return Ok(match fs::symlink_metadata(&whole) {
            Ok(_) => vec![pattern.to_owned()],
            Err(_) => Vec::new(),
        });
    }
    let glob = globset::GlobBuilder::new(&whole.to_string_lossy())
        .literal_separator(true)
        .build()
        .map_err(|e| format!("\"{pattern}\" is not a pattern: {}", e.kind()))?
        .compile_matcher();
    let plain = |step: &std::path::Component<'_>| {
        !step
            .as_os_str()
            .as_encoded_bytes()
            .iter()
            .any(|byte| b"*?[{".contains(byte))
    };
    let root: PathBuf = whole.components().take_while(plain).collect();
    let mut found = Vec::new();
    let walk = walkdir::WalkDir::new(&root)
        .into_iter()
        .filter_entry(|entry| entry.file_name() != ".procflow");
    for entry in walk {
        match entry {
            Ok(entry) if entry.file_type().is_dir() => {}
            Ok(entry) => {
                let path = entry.path();
                let below = path.ancestors().take_while(|up| up.starts_with(&root));
                if !below.into_iter().any(|up| glob.is_match(up)) {
                    continue;
                }
                let name = path.strip_prefix(dir).unwrap_or(path);
                match name.to_str() {
                    Some(name) => found.push(name.to_owned()),
                    None => return Err(format!("the name of {path:?} is not UTF-8")),
                }
            }
            Err(e)
                if e.io_error()
                    .is_some_and(|e| e.kind() == io::ErrorKind::NotFound) => {}
            Err(e) => return Err(format!("cannot look for \"{pattern}\": {e}")),
        }
    }
    found.sort_unstable();
    Ok(found)
}
