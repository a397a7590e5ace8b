//! The key of a state directory. With it hashes of secrets are made that say nothing to who has a run's files and not the key.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use crate::store::Error;

/// The bytes of a key.
const LENGTH: usize = 32;

/// The key of this state directory, made where there is none.
///
/// # Errors
/// It can't be read or made.
pub fn key(state_dir: &Path) -> Result<Vec<u8>, Error> {
    let path = state_dir.join("key");
    match read(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => make(state_dir, &path),
        Err(e) => Err(Error::io("read", &path, e)),
        Ok(key) => Ok(key),
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut key = Vec::new();
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)?
        .take(4096)
        .read_to_end(&mut key)?;
    Ok(key)
}

fn make(state_dir: &Path, path: &Path) -> Result<Vec<u8>, Error> {
    let cannot = |e: io::Error| Error::io("make", path, e);
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(state_dir)
        .map_err(cannot)?;
    let mut key = vec![0; LENGTH];
    File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut key))
        .map_err(cannot)?;
    // Whole or not there at all, and the first of two that make it at once makes it for both.
    let mut file = tempfile::Builder::new()
        .prefix(".key")
        .tempfile_in(state_dir)
        .map_err(cannot)?;
    file.write_all(&key).map_err(cannot)?;
    match file.persist_noclobber(path) {
        Ok(_) => Ok(key),
        Err(e) if e.error.kind() == io::ErrorKind::AlreadyExists => read(path).map_err(cannot),
        Err(e) => Err(cannot(e.error)),
    }
}
