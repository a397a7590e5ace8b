//! Files that the user named for a report (`--json F`): looked at before the run, written beside and renamed after it.

use std::fs::Permissions;
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use nix::unistd::{AccessFlags, access};

use crate::diagnostic::reason;

/// Says before the run whether a report can be written there later: what can be known without touching the target.
///
/// # Errors
/// What is wrong with it, as `F: why`.
pub fn check_target(path: &Path) -> Result<(), String> {
    let fault = |why: &dyn std::fmt::Display| Err(format!("{}: {why}", path.display()));
    match path.metadata() {
        Ok(there) if there.is_dir() => return fault(&"is a directory, not a file to write"),
        Ok(there) if is_device(&there) => {
            return access(path, AccessFlags::W_OK)
                .or_else(|e| fault(&format_args!("cannot be written: {}", reason(&e.into()))));
        }
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return fault(&reason(&e)),
    }
    if path.file_name().is_none() {
        return fault(&"names no file");
    }
    let dir = directory(path);
    match access(dir, AccessFlags::W_OK | AccessFlags::X_OK) {
        Ok(()) => Ok(()),
        Err(nix::errno::Errno::ENOENT) => {
            fault(&format_args!("there is no directory {}", dir.display()))
        }
        Err(e) => fault(&format_args!(
            "cannot write in {}: {}",
            dir.display(),
            reason(&e.into())
        )),
    }
}

/// Writes a report: beside its place and renamed, with the mode that the umask leaves. A device or a pipe is written as it is.
///
/// # Errors
/// Where it cannot be written; the old file is as it was then.
pub fn write_target(path: &Path, contents: &[u8]) -> io::Result<()> {
    if path.metadata().is_ok_and(|there| is_device(&there)) {
        return std::fs::OpenOptions::new()
            .write(true)
            .open(path)?
            .write_all(contents);
    }
    let mut file = tempfile::Builder::new()
        .prefix(".procflow-")
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(directory(path))?;
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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that fails may panic")]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_cannot_be_written_is_told_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        let missing = path.join("no/out.json");
        for (target, fault) in [
            (path.join("out.json"), None),
            (
                path.to_owned(),
                Some("is a directory, not a file to write".to_owned()),
            ),
            (
                missing,
                Some(format!(
                    "there is no directory {}",
                    path.join("no").display()
                )),
            ),
            (Path::new("/dev/null").to_owned(), None),
        ] {
            let expected = fault.map_or(Ok(()), |fault| {
                Err(format!("{}: {fault}", target.display()))
            });
            assert_eq!(check_target(&target), expected);
        }
        // The sources may be somebody else's.
        if nix::unistd::access(".", nix::unistd::AccessFlags::W_OK).is_ok() {
            assert_eq!(check_target(Path::new("out.json")), Ok(()));
        }
        assert!(!path.join("out.json").exists());
    }

    #[test]
    fn a_link_is_replaced_and_not_what_it_leads_to() {
        let dir = tempfile::tempdir().unwrap();
        let (victim, link) = (dir.path().join("victim"), dir.path().join("out.json"));
        fs::write(&victim, "precious").unwrap();
        symlink(&victim, &link).unwrap();
        write_target(&link, b"{}").unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        assert_eq!(fs::read_to_string(&link).unwrap(), "{}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
        // As any program would have made it: readable for whom the umask leaves it.
        fs::write(dir.path().join("other"), "").unwrap();
        let mode = |name: &str| {
            fs::metadata(dir.path().join(name))
                .unwrap()
                .permissions()
                .mode()
        };
        assert_eq!(mode("out.json"), mode("other"));
        write_target(Path::new("/dev/null"), b"{}").unwrap();
    }
}
