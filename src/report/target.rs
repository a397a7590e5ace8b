//! Files that the user named for a report (`--json F`): looked at before the run, written beside and renamed after it.

use std::fs::Permissions;
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use nix::unistd::{AccessFlags, access};

/// Says before the run whether a report can be written there later: what can be known without touching the target.
///
/// # Errors
/// What is wrong with it, as `F: why`.
pub fn check_target(path: &Path) -> Result<(), String> {
    let fault = |why: &dyn std::fmt::Display| Err(format!("{}: {why}", path.display()));
    match path.metadata() {
        Ok(there) if there.is_dir() => return fault(&"is a directory, not a file to write"),
        Ok(there) if is_device(&there) => {
            return access(path, AccessFlags::W_OK).or_else(|e| fault(&format_args!("cannot be written: {}", io::Error::from(e))));
        }
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return fault(&e),
    }
    if path.file_name().is_none() {
        return fault(&"names no file");
    }
    let dir = directory(path);
    match access(dir, AccessFlags::W_OK | AccessFlags::X_OK) {
        Ok(()) => Ok(()),
        Err(nix::errno::Errno::ENOENT) => fault(&format_args!("there is no directory {}", dir.display())),
        Err(e) => fault(&format_args!("cannot write in {}: {}", dir.display(), io::Error::from(e))),
    }
}

/// Writes a report: beside its place and renamed, with the mode that the umask leaves. A device or a pipe is written as it is.
///
/// # Errors
/// Where it cannot be written; the old file is as it was then.
pub fn write_target(path: &Path, contents: &[u8]) -> io::Result<()> {
    if path.metadata().is_ok_and(|there| is_device(&there)) {
        return std::fs::OpenOptions::new().write(true).open(path)?.write_all(contents);
    }
    let mut file =
        tempfile::Builder::new().prefix(".procflow-").permissions(Permissions::from_mode(0o666)).tempfile_in(directory(path))?;
    file.write_all(contents)?;
    file.persist(path)?;
    Ok(())
}

/// Neither a file nor a directory: a rename would replace it instead of writing to it.
fn is_device(there: &std::fs::Metadata) -> bool {
    let kind = there.file_type();
    kind.is_char_device() || kind.is_block_device() || kind.is_fifo() || kind.is_socket()
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}
