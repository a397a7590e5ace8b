//! [`RunDir`]: the directory of one run: made, locked, and in time pruned. It does not know what the files mean.
//!
//! Everything below the state directory is opened relative to a directory that is already open, with `O_NOFOLLOW`, and new
//! files with `O_EXCL`: a link planted by someone else is an error, not a way to another file.

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, mkdirat};
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat};

use crate::store::journal::{self, Header, Record};
use crate::store::names::file_name;
use crate::store::{Error, Logs};

/// How many runs are kept.
pub const KEEP: usize = 20;

/// So many more may be there for a while.
const SLACK: usize = 4;

/// Steps of the last part of a [`RunId`] in a second.
const STEPS: u64 = 1 << 16;

/// The name of a run: `20261124-145309-4f2a`, UTC, its last part the fraction of the second in 1/65536. Names sort as
/// the runs began; two that began within 15 us differ because mkdir(2) gives a name only once.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RunId(String);

impl RunId {
    /// The name for this step since 1970 (1/65536 s each).
    fn at_step(step: u64) -> Self {
        let (seconds, fraction) = (step / STEPS, step % STEPS);
        let (year, month, day) = civil(seconds / 86_400);
        let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        RunId(format!(
            "{year:04}{month:02}{day:02}-{hour:02}{minute:02}{second:02}-{fraction:04x}"
        ))
    }

    /// The run of this name; none where it is not named as runs are.
    pub fn of(name: &str) -> Option<Self> {
        RunId::is_like(name).then(|| RunId(name.to_owned()))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a directory entry is named as runs are. Others are left alone.
    fn is_like(name: &str) -> bool {
        name.len() == 20
            && name.bytes().enumerate().all(|(i, b)| match i {
                8 | 15 => b == b'-',
                16.. => b.is_ascii_hexdigit(),
                _ => b.is_ascii_digit(),
            })
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Year, month and day of a day counted from 1970-01-01 (Howard Hinnant's days-to-civil: years begin in March, so that the
/// leap day is the last of a year).
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (month_of_year, wraps) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    (
        era * 400 + year + wraps,
        month_of_year,
        day - (153 * month + 2) / 5 + 1,
    )
}

/// The directory of a run that lives. The run counts as live until this is dropped.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    id: RunId,
    runs: OwnedFd,
    dir: OwnedFd,
    /// Held for its lock only. A child that procflow forks without exec (the guard) keeps the run live as long as it is.
    _lock: File,
}

impl RunDir {
    /// Makes the directory for a run of the pipeline in `pipeline_dir` that begins at `now` (since 1970), and the state
    /// directory where there is none yet. `pipeline_text` is kept in it: replace secrets before.
    ///
    /// # Errors
    /// Where nothing can be written there, or where what is there belongs to someone else, is open to others, or (unless the
    /// user named it) is a symbolic link.
    pub fn create(
        state_dir: Option<&Path>,
        pipeline_dir: &Path,
        pipeline_text: &[u8],
        now: Duration,
    ) -> Result<RunDir, Error> {
        let (state_path, state) = match state_dir {
            Some(named) => (named.to_owned(), open_state(named, OFlag::empty())?),
            None => {
                let path = pipeline_dir.join(".procflow");
                let dir = open_state(&path, OFlag::O_NOFOLLOW)?;
                (path, dir)
            }
        };
        let runs_path = state_path.join("runs");
        let runs = open_or_make(&state, "runs", &runs_path)?;
        let (id, dir, lock) = make_run(&runs, &runs_path, now)?;
        let path = runs_path.join(id.as_str());
        let mut copy = create_file(&dir, "pipeline.toml", &path)?;
        copy.write_all(pipeline_text)
            .map_err(|e| Error::io("write", path.join("pipeline.toml"), e))?;
        Ok(RunDir {
            path,
            id,
            runs,
            dir,
            _lock: lock,
        })
    }

    /// Where it is, as a path that starts with what `create` was given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The run's name.
    pub fn id(&self) -> &RunId {
        &self.id
    }

    /// `events.jsonl`, made now.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub fn create_events(&self) -> Result<File, Error> {
        create_file(&self.dir, "events.jsonl", &self.path)
    }

    /// Begins the journal with these records. It has its name when they are in it, and not before: a run that is killed while it
    /// takes over what an earlier one had finished leaves no journal, so the next one takes up that earlier run again.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn begin_journal(
        &self,
        header: &Header,
        records: &[Record],
    ) -> Result<journal::Writer, Error> {
        const BESIDE: &str = ".journal";
        let path = self.path.join("journal");
        let cannot = |e: io::Error| Error::io("write", &path, e);
        let flags = create_flags() | OFlag::O_APPEND;
        let file = openat(&self.dir, BESIDE, flags, Mode::from_bits_truncate(0o600))
            .map_err(|e| Error::io("create", &path, e))?;
        let mut writer =
            journal::Writer::new(File::from(file), path.clone(), header).map_err(cannot)?;
        for record in records {
            writer.add(record).map_err(cannot)?;
        }
        writer.write().map_err(cannot)?;
        renameat(&self.dir, BESIDE, &self.dir, "journal")
            .map_err(|e| Error::io("put in place", &path, e))?;
        Ok(writer)
    }

    /// Opens the file in which the pool of this name notes what became of its tasks, at its end: a later try of the pool adds to
    /// what an earlier one has noted.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub fn create_tasks(&self, pool: &str) -> Result<File, Error> {
        let logs = self.path.join("logs");
        make_dir(&self.dir, "logs", &logs)?;
        let name = format!("logs/{}.tasks.jsonl", file_name(pool));
        let flags = OFlag::O_WRONLY
            | OFlag::O_CREAT
            | OFlag::O_APPEND
            | OFlag::O_NOFOLLOW
            | OFlag::O_CLOEXEC;
        openat(
            &self.dir,
            name.as_str(),
            flags,
            Mode::from_bits_truncate(0o600),
        )
        .map(File::from)
        .map_err(|e| Error::io("open", self.path.join(name), e))
    }

    /// The logs, none of which is made before there is something in it.
    ///
    /// # Errors
    /// Where there are no descriptors left.
    pub fn logs(&self) -> Result<Logs, Error> {
        let dir = self
            .dir
            .try_clone()
            .map_err(|e| Error::io("open", &self.path, e))?;
        Ok(Logs::new(dir, self.path.join("logs")))
    }

    /// The directory for what queues keep on disk, made at the first call.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub fn queues(&self) -> Result<PathBuf, Error> {
        let path = self.path.join("queues");
        make_dir(&self.dir, "queues", &path)?;
        Ok(path)
    }

    /// Where the standard input of this node is recorded.
    ///
    /// # Errors
    /// Where its directory cannot be made.
    pub fn record(&self, node: &str) -> Result<PathBuf, Error> {
        make_dir(&self.dir, "stdin", &self.path.join("stdin"))?;
        Ok(self.path.join(record_name(node)))
    }

    /// Writes `run.json`: what, beside the file, the plan was made of.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn write_settings(&self, json: &[u8]) -> Result<(), Error> {
        create_file(&self.dir, "run.json", &self.path)?
            .write_all(json)
            .map_err(|e| Error::io("write", self.path.join("run.json"), e))
    }

    /// Writes `report.json` beside its place and renames it, so that who looks sees a whole one or none.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn write_report(&self, json: &[u8]) -> Result<(), Error> {
        let path = self.path.join("report.json");
        let mut file = create_file(&self.dir, ".report.json", &self.path)?;
        file.write_all(json)
            .map_err(|e| Error::io("write", &path, e))?;
        renameat(&self.dir, ".report.json", &self.dir, "report.json")
            .map_err(|e| Error::io("put in place", &path, e))
    }

    /// [`RunDir::prune`] in a thread of its own: removing a run can take longer than a small one runs, since a disk may have a
    /// say in it. Not before there is enough to remove: for a single run, making the thread is most of the work.
    pub fn prune_meanwhile(self: &Arc<Self>) -> Option<JoinHandle<()>> {
        if !self.is_crowded() {
            return None;
        }
        let dir = Arc::clone(self);
        let thread = std::thread::Builder::new().name("prune".to_owned());
        // Without a thread the next run prunes.
        thread.spawn(move || dir.prune()).ok()
    }

    /// Whether there is enough to prune: to begin with it, and at the run's end to wait for it, rather than leave it to the
    /// next run.
    pub fn is_crowded(&self) -> bool {
        run_names(&self.runs).is_ok_and(|names| names.len() > KEEP + SLACK)
    }

    /// Removes all but the last 20 runs, never one that lives.
    ///
    /// Runs that cannot be removed are left for the next time: that is no reason to end this run.
    pub fn prune(&self) {
        let Ok(names) = run_names(&self.runs) else {
            return;
        };
        let Some(excess) = names.len().checked_sub(KEEP) else {
            return;
        };
        for name in names
            .iter()
            .take(excess)
            .filter(|name| name.as_str() != self.id.as_str())
        {
            // An error is another procflow that prunes at the same time, or a file system that has a life of its own.
            let _ = remove_run(&self.runs, name);
        }
    }
}

/// The file, below the run's directory, in which the standard input of this node is recorded.
pub fn record_name(node: &str) -> String {
    format!("stdin/{}", file_name(node))
}

/// The state directory, checked; made where it is missing.
fn open_state(path: &Path, follow: OFlag) -> Result<OwnedFd, Error> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | follow;
    let dir = match open(path, flags, Mode::empty()) {
        Ok(dir) => dir,
        Err(Errno::ENOENT) => return make_state(path, flags),
        // With O_NOFOLLOW and O_DIRECTORY a link is ENOTDIR, as a file is.
        Err(Errno::ELOOP | Errno::ENOTDIR) if path.is_symlink() => {
            return Err(Error::Unfit {
                path: path.to_owned(),
                why: "is a symbolic link".to_owned(),
            });
        }
        Err(e) => return Err(Error::io("open", path, e)),
    };
    let stat = fstat(&dir).map_err(|e| Error::io("look at", path, e))?;
    match unfit(&stat) {
        None => Ok(dir),
        Some(why) => Err(Error::Unfit {
            path: path.to_owned(),
            why,
        }),
    }
}

/// Why others could change what is in this directory.
fn unfit(stat: &FileStat) -> Option<String> {
    let me = geteuid().as_raw();
    if stat.st_uid != me {
        return Some(format!(
            "belongs to user {}, and you are user {me}",
            stat.st_uid
        ));
    }
    let mode = stat.st_mode & 0o777;
    (mode & 0o022 != 0).then(|| format!("can be written by others (mode {mode:o})"))
}

fn make_state(path: &Path, flags: OFlag) -> Result<OwnedFd, Error> {
    // Recursive takes a directory that someone has made in between as well; it is checked by none but the open below, so
    // two first runs at once both work.
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|e| Error::io("create", path, e))?;
    let dir = open(path, flags, Mode::empty()).map_err(|e| Error::io("open", path, e))?;
    match openat(
        &dir,
        ".gitignore",
        create_flags(),
        Mode::from_bits_truncate(0o600),
    ) {
        Ok(file) => File::from(file)
            .write_all(b"*\n")
            .map_err(|e| Error::io("write", path.join(".gitignore"), e))?,
        Err(Errno::EEXIST) => {}
        Err(e) => return Err(Error::io("create", path.join(".gitignore"), e)),
    }
    Ok(dir)
}

fn make_run(
    runs: &OwnedFd,
    runs_path: &Path,
    now: Duration,
) -> Result<(RunId, OwnedFd, File), Error> {
    let first = now.as_secs() * STEPS + u64::from(now.subsec_nanos()) * STEPS / 1_000_000_000;
    let mut step = first;
    loop {
        let id = RunId::at_step(step);
        match mkdirat(runs, id.as_str(), Mode::S_IRWXU) {
            Ok(()) => match lock_new(runs, &id, &runs_path.join(id.as_str()))? {
                Some((dir, lock)) => return Ok((id, dir, lock)),
                None => step += 1,
            },
            // Taken by a run that began at the same time (or a clock that was set back): the next free one.
            Err(Errno::EEXIST) if step - first < STEPS => step += 1,
            Err(e) => return Err(Error::io("create", runs_path.join(id.as_str()), e)),
        }
    }
}

/// Opens and locks a run that has just been made. None where somebody has removed it before it was locked: who prunes everything
/// that does not live.
fn lock_new(runs: &OwnedFd, id: &RunId, path: &Path) -> Result<Option<(OwnedFd, File)>, Error> {
    let dir = match openat(runs, id.as_str(), dir_flags(), Mode::empty()) {
        Ok(dir) => dir,
        Err(Errno::ENOENT) => return Ok(None),
        Err(e) => return Err(Error::io("open", path, e)),
    };
    // flock(2) takes a directory as well as a file; one file less for each run to make and to remove.
    let lock = File::from(dir.try_clone().map_err(|e| Error::io("open", path, e))?);
    // Somebody may hold it for a moment, to see whether it is held; so this waits.
    lock.lock().map_err(|e| Error::io("lock", path, e))?;
    let is_there = fstat(&dir)
        .map_err(|e| Error::io("look at", path, e))?
        .st_nlink
        > 0;
    Ok(is_there.then_some((dir, lock)))
}

fn open_or_make(parent: &OwnedFd, name: &str, path: &Path) -> Result<OwnedFd, Error> {
    match openat(parent, name, dir_flags(), Mode::empty()) {
        Ok(dir) => Ok(dir),
        Err(Errno::ENOENT) => {
            make_dir(parent, name, path)?;
            open_dir(parent, name, path)
        }
        Err(e) => Err(Error::io("open", path, e)),
    }
}

fn open_dir(parent: &OwnedFd, name: &str, path: &Path) -> Result<OwnedFd, Error> {
    openat(parent, name, dir_flags(), Mode::empty()).map_err(|e| Error::io("open", path, e))
}

/// Makes a directory that only its owner can look into; it may be there already.
pub(super) fn make_dir(parent: impl AsFd, name: &str, path: &Path) -> Result<(), Error> {
    match mkdirat(parent, name, Mode::S_IRWXU) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(e) => Err(Error::io("create", path, e)),
    }
}

fn create_file(dir: &OwnedFd, name: &str, path: &Path) -> Result<File, Error> {
    openat(dir, name, create_flags(), Mode::from_bits_truncate(0o600))
        .map(File::from)
        .map_err(|e| Error::io("create", path.join(name), e))
}

pub(super) fn dir_flags() -> OFlag {
    OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC
}

fn create_flags() -> OFlag {
    OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC
}

/// The names of all runs, the oldest first.
fn run_names(runs: &OwnedFd) -> io::Result<Vec<String>> {
    let mut names = names_in(runs)?;
    names.retain(|name| RunId::is_like(name));
    Ok(names)
}

/// All names in a directory, sorted. Bytes that are no UTF-8 are replaced: such a name is none of ours.
pub(super) fn names_in(dir: &OwnedFd) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in Dir::openat(dir, ".", dir_flags(), Mode::empty())?.iter() {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name != "." && name != ".." {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Removes a run that does not live, and says whether it has.
pub(super) fn remove_run(runs: &OwnedFd, name: &str) -> nix::Result<bool> {
    // One that is just being made may not be locked yet; its maker finds out ([`lock_new`]).
    let dir = File::from(openat(runs, name, dir_flags(), Mode::empty())?);
    if dir.try_lock().is_err() {
        return Ok(false);
    }
    remove_tree(&OwnedFd::from(dir.try_clone().map_err(|_| Errno::EMFILE)?))?;
    unlinkat(runs, name, UnlinkatFlags::RemoveDir)?;
    // Not before: who has just made it waits for the lock, to see whether it is still there.
    drop(dir);
    Ok(true)
}

/// Removes what is in a directory. It follows no link.
fn remove_tree(dir: &OwnedFd) -> nix::Result<()> {
    let names: Vec<_> = Dir::openat(dir, ".", dir_flags(), Mode::empty())?
        .iter()
        .filter_map(Result::ok)
        .map(|entry| entry.file_name().to_owned())
        .filter(|name| name.as_bytes() != b"." && name.as_bytes() != b"..")
        .collect();
    for name in names {
        let stat = nix::sys::stat::fstatat(dir, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW)?;
        if SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFDIR {
            remove_tree(&openat(dir, name.as_c_str(), dir_flags(), Mode::empty())?)?;
            unlinkat(dir, name.as_c_str(), UnlinkatFlags::RemoveDir)?;
        } else {
            unlinkat(dir, name.as_c_str(), UnlinkatFlags::NoRemoveDir)?;
        }
    }
    Ok(())
}
