//! File ends: written beside their target, put in its place when the unit has succeeded, so that a reader of the old file
//! never sees half of the new one, and a failure leaves the old one as it was (spec 2.5).

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::diagnostic::reason;
use crate::plan::UnitId;

/// An output file whose unit has not succeeded yet. Dropped without [`PendingFile::commit`], it leaves nothing behind.
#[derive(Debug)]
pub struct PendingFile {
    /// What the pipeline calls it, for messages.
    shown: String,
    /// Where it is written, and where it shall stand; `None` where it is written in place.
    place: Option<Place>,
}

#[derive(Debug)]
struct Place {
    beside: PathBuf,
    target: PathBuf,
}

/// How long files were before a unit began to append to them, so that what a failed try has appended can be taken back.
#[derive(Debug, Default)]
pub struct Appended(HashMap<PathBuf, Appender>);

#[derive(Debug)]
enum Appender {
    /// This unit alone; the file was so long before its first try.
    One(UnitId, u64),
    /// Several: nobody can tell whose bytes are whose.
    Several,
}

impl Appended {
    /// `unit` is about to append to this file; what an earlier try of it has appended is taken back, unless another unit
    /// appends to the file as well.
    fn begin(&mut self, unit: UnitId, path: &Path, file: &File) -> io::Result<()> {
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Ok(());
        }
        match self.0.get(path) {
            None => {
                let appender = Appender::One(unit, meta.len());
                self.0.insert(path.to_owned(), appender);
                Ok(())
            }
            Some(Appender::One(owner, before)) if *owner == unit && *before <= meta.len() => {
                file.set_len(*before)
            }
            Some(_) => {
                self.0.insert(path.to_owned(), Appender::Several);
                Ok(())
            }
        }
    }
}

/// Opens `path` for the output of a unit. `tag` tells the temporary files of different runs and units apart.
///
/// With `append` (by whom), and where the target is no regular file (a device, a FIFO), it is written in place. A symbolic link stays
/// a link: what it points to is replaced. A target's permissions are kept.
///
/// # Errors
/// A text that names the file and says what is wrong.
pub fn open_output(
    path: &Path,
    append: Option<(UnitId, &mut Appended)>,
    tag: &str,
) -> Result<(OwnedFd, PendingFile), String> {
    let shown = path.display().to_string();
    let cannot =
        |e: &io::Error| format!("file \"{}\": {}", shown.escape_debug(), describe(e, path));
    if let Some((unit, appended)) = append {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .and_then(|file| appended.begin(unit, path, &file).map(|()| file))
            .map_err(|e| cannot(&e))?;
        return Ok((file.into(), PendingFile { shown, place: None }));
    }
    let old = match fs::metadata(path) {
        Ok(meta) if meta.is_file() => Some(meta),
        Ok(meta) if meta.is_dir() => {
            return Err(cannot(&io::Error::from_raw_os_error(libc::EISDIR)));
        }
        Ok(_) => {
            let file = OpenOptions::new()
                .write(true)
                .open(path)
                .map_err(|e| cannot(&e))?;
            return Ok((file.into(), PendingFile { shown, place: None }));
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) => return Err(cannot(&e)),
    };
    // Renaming needs no right to write the old file; refusing here keeps a read-only file what its owner meant it to be.
    if old
        .as_ref()
        .is_some_and(|meta| meta.permissions().readonly())
        && !is_root()
    {
        return Err(cannot(&io::Error::from_raw_os_error(libc::EACCES)));
    }
    let target = match fs::canonicalize(path) {
        Ok(target) => target,
        Err(e) if e.kind() == io::ErrorKind::NotFound => path.to_owned(),
        Err(e) => return Err(cannot(&e)),
    };
    let beside = beside(&target, tag);
    let file = create_new(&beside).map_err(|e| cannot(&e))?;
    if let Some(meta) = old {
        // Best effort, as install(1) and editors do: on a file system without permissions there is nothing to keep.
        let _ = file.set_permissions(fs::Permissions::from_mode(
            meta.permissions().mode() & 0o7777,
        ));
    }
    Ok((
        file.into(),
        PendingFile {
            shown,
            place: Some(Place { beside, target }),
        },
    ))
}

fn create_new(beside: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .custom_flags(libc::O_NOFOLLOW)
        .open(beside)
}

/// Same directory, so that rename(2) is atomic; hidden, so that a glob doesn't find it.
fn beside(target: &Path, tag: &str) -> PathBuf {
    let mut name = OsString::from(".");
    // NAME_MAX is 255 bytes: a name that is nearly so long is replaced, not extended.
    match target.file_name() {
        Some(file) if file.len() + tag.len() < 240 => name.push(file),
        _ => name.push("procflow"),
    }
    name.push(".");
    name.push(tag);
    target.with_file_name(name)
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// The error in words; where the directory is what is missing, that is said.
fn describe(e: &io::Error, path: &Path) -> String {
    if e.kind() == io::ErrorKind::NotFound
        && let Some(dir) = path.parent()
        && !dir.exists()
    {
        return format!(
            "there is no directory \"{}\"",
            dir.display().to_string().escape_debug()
        );
    }
    reason(e)
}

impl PendingFile {
    /// Puts the file in place.
    ///
    /// # Errors
    /// A text that names the file and says what is wrong; the old file is then as it was, and the new one is gone.
    pub fn commit(mut self) -> Result<(), String> {
        let Some(place) = self.place.take() else {
            return Ok(());
        };
        fs::rename(&place.beside, &place.target).map_err(|e| {
            let _ = fs::remove_file(&place.beside);
            format!(
                "cannot put \"{}\" in place: {}",
                self.shown.escape_debug(),
                describe(&e, &place.target)
            )
        })
    }
}

impl Drop for PendingFile {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            let _ = fs::remove_file(place.beside);
        }
    }
}

#[cfg(test)]
#[expect(
    clippy::unwrap_used,
    reason = "a failed step of a test is a failed test"
)]
mod tests {
    use super::*;
    use std::io::Write;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn write(fd: OwnedFd, text: &str) {
        File::from(fd).write_all(text.as_bytes()).unwrap();
    }

    #[test]
    fn the_old_file_stands_until_the_commit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let (fd, file) = open_output(&path, None, "t").unwrap();
        write(fd, "new");
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        file.commit().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o7777,
            0o640
        );
        assert_eq!(names(dir.path()), ["out"]);
    }

    #[test]
    fn without_a_commit_nothing_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let (fd, file) = open_output(&path, None, "t").unwrap();
        write(fd, "half");
        assert_eq!(names(dir.path()), [".out.t"]);
        drop(file);
        assert_eq!(names(dir.path()), [] as [&str; 0]);
    }

    #[test]
    fn a_link_stays_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        fs::write(&real, "old").unwrap();
        std::os::unix::fs::symlink("real", &link).unwrap();
        let (fd, file) = open_output(&link, None, "t").unwrap();
        write(fd, "new");
        file.commit().unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&real).unwrap(), "new");
    }

    #[test]
    fn append_goes_in_place_and_a_new_try_takes_back_what_the_last_one_did() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        fs::write(&path, "old ").unwrap();
        let mut appended = Appended::default();
        let mut append = |unit, text| {
            let by = Some((UnitId(unit), &mut appended));
            let (fd, file) = open_output(&path, by, "t").unwrap();
            write(fd, text);
            drop(file);
            fs::read_to_string(&path).unwrap()
        };
        assert_eq!(append(0, "half"), "old half");
        assert_eq!(append(0, "whole "), "old whole ");
        assert_eq!(append(1, "other "), "old whole other ");
        assert_eq!(append(0, "again"), "old whole other again");
    }

    #[test]
    fn a_device_is_written_in_place() {
        let (fd, file) = open_output(Path::new("/dev/null"), None, "t").unwrap();
        write(fd, "x");
        file.commit().unwrap();
    }

    #[test]
    fn a_missing_directory_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("no");
        let error = open_output(&missing.join("out"), None, "t").unwrap_err();
        let (out, no) = (missing.join("out"), missing);
        assert_eq!(
            error,
            format!(
                "file \"{}\": there is no directory \"{}\"",
                out.display(),
                no.display()
            )
        );
    }
}
