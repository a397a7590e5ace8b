//! [`Runs`]: the runs of a state directory, as whoever comes later finds them: which there are, which of them live, and what
//! their first event says of them.
//!
//! A run lives as long as somebody holds the lock of its directory: that is true however its procflow ends. All that is read
//! here may be damaged, or come from someone else: what is no run is named and skipped.

use std::fs::{File, TryLockError};
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;
use serde::Deserialize;

use crate::diagnostic::did_you_mean;
use crate::store::Error;
use crate::store::run_dir::{RunId, dir_flags, names_in, remove_run};

/// The first line of `events.jsonl` is shorter. What is longer is none of ours.
const LONGEST_HEAD: u64 = 1 << 20;

/// The runs of a state directory.
#[derive(Debug)]
pub struct Runs {
    path: PathBuf,
    /// None where there is no such directory: nothing has run there yet.
    dir: Option<OwnedFd>,
}

/// A run that has left a directory, and may still live.
#[derive(Debug)]
pub struct Run {
    id: RunId,
    path: PathBuf,
    dir: OwnedFd,
}

/// What a run's first event says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The pipeline file, absolute; none of a pipeline that came from standard input.
    pub file: Option<PathBuf>,
    /// The pipeline's name.
    pub pipeline: String,
    /// When it began, since 1970.
    pub started: Duration,
    /// The process that runs its loop, the parent of its nodes.
    pub pid: i32,
}

/// What is in a state directory.
#[derive(Debug, Default)]
pub struct Listing {
    /// The runs, the newest first.
    pub runs: Vec<(Run, Head)>,
    /// What is no run, or one that nothing can be told of: its path, and why.
    pub strange: Vec<(PathBuf, String)>,
}

/// Why there is no run to be found by a word.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// The state directory cannot be read.
    #[error("{0}")]
    Store(#[from] Error),
    /// Nothing has run there.
    #[error("no run in {}", dir.display())]
    NoRuns {
        /// The directory of the runs.
        dir: PathBuf,
    },
    /// No run is called so.
    #[error("no run `{word}` in {}{}", dir.display(), hint(near.as_deref()))]
    Unknown {
        /// What was asked for.
        word: String,
        /// The directory of the runs.
        dir: PathBuf,
        /// One that is called nearly so.
        near: Option<String>,
    },
    /// Several begin so.
    #[error("`{word}` begins the names of {} runs, {}; say more of it", found.len(), found.join(", "))]
    Several {
        /// What was asked for.
        word: String,
        /// They.
        found: Vec<String>,
    },
    /// Nothing has run of this pipeline file.
    #[error("no run of {} in {}", file.display(), dir.display())]
    NoneOf {
        /// The pipeline file.
        file: PathBuf,
        /// The directory of the runs.
        dir: PathBuf,
    },
}

fn hint(near: Option<&str>) -> String {
    near.map_or_else(
        || "; `procflow runs` lists them".to_owned(),
        |near| format!("; did you mean `{near}`?"),
    )
}

/// The first event, as far as it matters here. Fields of later versions are skipped, those that earlier ones lacked are none.
#[derive(Debug, Deserialize)]
struct FirstEvent {
    event: String,
    run: String,
    pipeline: String,
    #[serde(default)]
    file: Option<PathBuf>,
    time: String,
    pid: i32,
}

impl Runs {
    /// Those of this state directory; none where there is no such directory.
    ///
    /// # Errors
    /// Where it cannot be opened.
    pub fn of(state_dir: &Path) -> Result<Runs, Error> {
        let path = state_dir.join("runs");
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let dir = match open(&path, flags, Mode::empty()) {
            Ok(dir) => Some(dir),
            Err(Errno::ENOENT) => None,
            Err(e) => return Err(Error::io("open", &path, e)),
        };
        Ok(Runs { path, dir })
    }

    /// The directory that the runs are in.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All runs, the newest first.
    ///
    /// # Errors
    /// Where the directory cannot be read.
    pub fn list(&self) -> Result<Listing, Error> {
        let mut listing = Listing::default();
        let Some(dir) = &self.dir else {
            return Ok(listing);
        };
        let names = names_in(dir).map_err(|e| Error::io("read", &self.path, e))?;
        for name in names.into_iter().rev() {
            let path = self.path.join(&name);
            match self.run(&name) {
                Some(Ok(run)) => match run.head() {
                    Ok(head) => listing.runs.push((run, head)),
                    // One that began at this moment has said nothing yet, and one that was pruned meanwhile is no loss.
                    Err(_) if run.is_live() || !run.path.exists() => {}
                    Err(why) => listing.strange.push((path, why)),
                },
                Some(Err(Errno::ENOENT)) => {}
                Some(Err(e)) => {
                    listing
                        .strange
                        .push((path, format!("cannot be opened: {}", e.desc())));
                }
                None => listing.strange.push((path, "is no run".to_owned())),
            }
        }
        Ok(listing)
    }

    /// The names of the runs, the newest first.
    ///
    /// # Errors
    /// Where the directory cannot be read.
    pub fn ids(&self) -> Result<Vec<String>, Error> {
        let Some(dir) = &self.dir else {
            return Ok(Vec::new());
        };
        let mut names = names_in(dir).map_err(|e| Error::io("read", &self.path, e))?;
        names.retain(|name| RunId::of(name).is_some());
        names.reverse();
        Ok(names)
    }

    /// The run that is called so: by its id, the beginning of it that no other has, or the word `last`.
    ///
    /// # Errors
    /// See [`FindError`].
    pub fn find(&self, word: &str) -> Result<Run, FindError> {
        let ids = self.ids()?;
        let dir = || self.path.clone();
        let id = if word == "last" {
            ids.first()
                .ok_or_else(|| FindError::NoRuns { dir: dir() })?
        } else {
            let found: Vec<&String> = ids
                .iter()
                .filter(|id| !word.is_empty() && id.starts_with(word))
                .collect();
            match *found {
                [id] => id,
                [] if ids.is_empty() => return Err(FindError::NoRuns { dir: dir() }),
                [] => {
                    return Err(FindError::Unknown {
                        word: word.to_owned(),
                        dir: dir(),
                        near: did_you_mean(word, ids.iter().map(String::as_str)).map(str::to_owned),
                    });
                }
                _ => {
                    return Err(FindError::Several {
                        word: word.to_owned(),
                        found: found.into_iter().cloned().collect(),
                    });
                }
            }
        };
        match self.run(id) {
            Some(Ok(run)) => Ok(run),
            Some(Err(e)) => Err(Error::io("open", self.path.join(id), e).into()),
            None => Err(FindError::NoRuns { dir: dir() }),
        }
    }

    /// The last run of this pipeline file. Links on the way to it don't matter.
    ///
    /// # Errors
    /// See [`FindError`].
    pub fn last_of(&self, file: &Path) -> Result<Run, FindError> {
        self.list()?
            .runs
            .into_iter()
            .find_map(|(run, head)| head.is_of(file).then_some(run))
            .ok_or_else(|| FindError::NoneOf {
                file: file.to_owned(),
                dir: self.path.clone(),
            })
    }

    /// Removes all but the newest `keep` runs, never one that lives; gives the names of those that have gone, the newest first.
    ///
    /// # Errors
    /// Where the directory cannot be read, or one cannot be removed; others are removed all the same.
    pub fn prune(&self, keep: usize) -> Result<Vec<String>, Error> {
        let Some(dir) = &self.dir else {
            return Ok(Vec::new());
        };
        let mut gone = Vec::new();
        let mut failure = None;
        for id in self.ids()?.into_iter().skip(keep) {
            match remove_run(dir, &id) {
                Ok(true) => gone.push(id),
                // It lives, or another procflow prunes at the same time.
                Ok(false) | Err(Errno::ENOENT) => {}
                Err(e) => {
                    failure.get_or_insert(Error::io("remove", self.path.join(id), e));
                }
            }
        }
        failure.map_or(Ok(gone), Err)
    }

    /// None where it is not named as runs are.
    fn run(&self, name: &str) -> Option<nix::Result<Run>> {
        let id = RunId::of(name)?;
        let dir = self.dir.as_ref()?;
        let path = self.path.join(name);
        let opened = openat(dir, name, dir_flags(), Mode::empty());
        Some(opened.map(|dir| Run { id, path, dir }))
    }
}

impl Run {
    /// The run whose directory this is; none where that is named as no run is, or cannot be opened.
    pub fn at(path: &Path) -> Option<Run> {
        let id = RunId::of(path.file_name()?.to_str()?)?;
        let dir = open(path, dir_flags(), Mode::empty()).ok()?;
        Some(Run {
            id,
            path: path.to_owned(),
            dir,
        })
    }

    /// Its name.
    pub fn id(&self) -> &RunId {
        &self.id
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its directory, open.
    pub fn dir(&self) -> &OwnedFd {
        &self.dir
    }

    /// Its procflow has not ended. To find out, the lock is taken for a moment, in the way of nobody but who wants to remove the
    /// run, and who leaves it for the next time then.
    pub fn is_live(&self) -> bool {
        let Ok(dir) = self.dir.try_clone() else {
            return false;
        };
        matches!(
            File::from(dir).try_lock_shared(),
            Err(TryLockError::WouldBlock)
        )
    }

    /// A file of its directory (`report.json`, `logs/sort.out`), for reading. No link is followed, and no fifo waited for.
    ///
    /// # Errors
    /// As open(2); and where it is no regular file.
    pub fn open(&self, name: &str) -> io::Result<File> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let file = File::from(openat(&self.dir, name, flags, Mode::empty())?);
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is no regular file"));
        }
        Ok(file)
    }

    /// The names of its log files.
    ///
    /// # Errors
    /// As open(2) and readdir(3); it has none before something was printed.
    pub fn logs(&self) -> io::Result<Vec<String>> {
        names_in(&openat(&self.dir, "logs", dir_flags(), Mode::empty())?)
    }

    /// What its first event says.
    ///
    /// # Errors
    /// What is wrong with it, as a predicate: it has none, or one that this program can't read.
    pub fn head(&self) -> Result<Head, String> {
        let events = self.open("events.jsonl").map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => "has no events.jsonl".to_owned(),
            _ => format!(
                "has an events.jsonl that cannot be read: {}",
                crate::diagnostic::reason(&e)
            ),
        })?;
        let mut line = Vec::new();
        let read = BufReader::new(events.take(LONGEST_HEAD)).read_until(b'\n', &mut line);
        let damaged = || "has an events.jsonl that does not begin as it should".to_owned();
        read.map_err(|_| damaged())?;
        let first: FirstEvent = serde_json::from_slice(&line).map_err(|_| damaged())?;
        let time = humantime::parse_rfc3339(&first.time).map_err(|_| damaged())?;
        if first.event != "run_started" || first.run != self.id.as_str() {
            return Err(damaged());
        }
        Ok(Head {
            file: first.file,
            pipeline: first.pipeline,
            started: time
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap_or_default(),
            pid: first.pid,
        })
    }
}

impl Head {
    /// It is a run of this pipeline file.
    pub fn is_of(&self, file: &Path) -> bool {
        let real = |path: &Path| std::fs::canonicalize(path).ok();
        let Some(own) = &self.file else {
            return false;
        };
        own == file || real(own).is_some_and(|own| Some(own) == real(file))
    }
}
