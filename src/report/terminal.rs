//! [`Terminal`]: the one way by which procflow speaks: standard error, or what stands for it.
//!
//! A terminal that has gone, or a pipe that nobody reads, is no reason to fail a run: what cannot be said is dropped.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anstyle::Style;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::report::ci::{self, Host};

/// How long a non-blocking descriptor may refuse bytes before it counts as gone, in milliseconds. Someone else made it
/// non-blocking (it is shared with whoever started us), so waiting is all that can be done.
const PATIENCE: u16 = 1000;

/// Where procflow speaks. Clones speak to the same place.
#[derive(Debug, Clone)]
pub struct Terminal(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    out: Out,
    look: Look,
    host: Host,
    /// Not yet written: so that what belongs together goes out in one write(2).
    pending: Vec<u8>,
}

#[derive(Debug)]
enum Out {
    Fd(File),
    /// Nothing more can be said there.
    Gone,
    /// For tests.
    Text(Vec<u8>),
}

/// What the other side can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// It is a terminal whose cursor can be moved, with so many columns and rows.
    pub size: Option<(u16, u16)>,
    /// It breaks lines after so many columns: `size`'s, or a dumb terminal's.
    pub columns: Option<u16>,
    /// It shows colours, and the user wants them.
    pub colour: bool,
    /// It shows more than ASCII.
    pub unicode: bool,
}

/// The environment variables that say how to look (their values, where set and not empty).
#[derive(Debug, Clone, Default)]
pub struct Wishes {
    /// `NO_COLOR` is set.
    pub no_color: bool,
    /// `CLICOLOR_FORCE` is set, and not `0`.
    pub force_color: bool,
    /// `TERM` is `dumb`.
    pub dumb: bool,
    /// `CI` is set, and neither `0` nor `false`: what is a terminal there is kept as a log.
    pub ci: bool,
    /// Who shows the log; each of them is such a `ci`.
    pub host: Host,
    /// The first set one of `LC_ALL`, `LC_CTYPE` and `LANG` names UTF-8.
    pub utf8: bool,
}

impl Wishes {
    /// From this process's environment.
    pub fn of_process() -> Self {
        Wishes::from_env(|name| std::env::var(name).ok())
    }

    /// From environment variables, by this look-up.
    pub fn from_env(var: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name| var(name).filter(|value| !value.is_empty());
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
            .into_iter()
            .find_map(set)
            .unwrap_or_default()
            .to_lowercase();
        let host = Host::from_env(&var);
        Wishes {
            host,
            no_color: set("NO_COLOR").is_some(),
            force_color: set("CLICOLOR_FORCE").is_some_and(|value| value != "0"),
            dumb: set("TERM").is_some_and(|value| value == "dumb"),
            ci: host != Host::Other
                || set("CI").is_some_and(|value| !matches!(&*value, "0" | "false")),
            utf8: locale.contains("utf-8") || locale.contains("utf8"),
        }
    }
}

impl Terminal {
    /// Speaks to a duplicate of this descriptor, standard error as a rule.
    ///
    /// # Errors
    /// Where it is not open, or no descriptor is left; [`Terminal::gone`] is the way on.
    pub fn new(fd: impl AsFd, wishes: &Wishes) -> io::Result<Self> {
        let fd: OwnedFd = fd.as_fd().try_clone_to_owned()?;
        // terminal_size says nothing of a terminal that does not know its size (0 columns), as of a pipe: lines then.
        let known = terminal_size::terminal_size_of(&fd).map(|(width, height)| (width.0, height.0));
        let size = known.filter(|_| !wishes.dumb);
        let live = size.is_some() && !wishes.ci;
        let colour = !wishes.no_color && (wishes.force_color || live);
        let look = Look {
            size,
            columns: known.map(|(columns, _)| columns),
            colour,
            unicode: wishes.utf8,
        };
        Ok(Terminal::with(Out::Fd(File::from(fd)), look, wishes.host))
    }

    /// Speaks to standard error, as the environment wishes; to nobody where that is closed.
    pub fn of_stderr() -> Self {
        Terminal::new(io::stderr(), &Wishes::of_process()).unwrap_or_else(|_| Terminal::gone())
    }

    /// How standard output looks, for commands whose purpose is to print.
    pub fn stdout_look() -> Look {
        let wishes = Wishes::of_process();
        Terminal::new(io::stdout(), &wishes)
            .unwrap_or_else(|_| Terminal::gone())
            .look()
    }

    /// Speaks to nobody.
    pub fn gone() -> Self {
        Terminal::with(
            Out::Gone,
            Look {
                size: None,
                columns: None,
                colour: false,
                unicode: false,
            },
            Host::Other,
        )
    }

    /// Keeps what is said, for [`Terminal::said`].
    pub fn kept(look: Look) -> Self {
        Terminal::kept_for(Host::Other, look)
    }

    /// Keeps what is said to this host, for [`Terminal::said`].
    pub fn kept_for(host: Host, look: Look) -> Self {
        Terminal::with(Out::Text(Vec::new()), look, host)
    }

    fn with(out: Out, look: Look, host: Host) -> Self {
        Terminal(Arc::new(Mutex::new(Inner {
            out,
            look,
            host,
            pending: Vec::new(),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic elsewhere leaves bytes, not a broken invariant.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the other side can show; the size as it is now.
    pub fn look(&self) -> Look {
        let mut inner = self.lock();
        if let (Out::Fd(fd), Some(_)) = (&inner.out, inner.look.columns)
            && let Some((width, height)) = terminal_size::terminal_size_of(fd)
        {
            inner.look.columns = Some(width.0);
            inner.look.size = inner.look.size.map(|_| (width.0, height.0));
        }
        inner.look
    }

    /// Who shows it.
    pub fn host(&self) -> Host {
        self.lock().host
    }

    /// What was said to a terminal that keeps it.
    pub fn said(&self) -> String {
        match &self.lock().out {
            Out::Text(text) => String::from_utf8_lossy(text).into_owned(),
            Out::Fd(_) | Out::Gone => String::new(),
        }
    }

    /// Says this with the next [`Terminal::flush`]. Where a CI server obeys what it shows, it finds nothing to obey in it but
    /// lines that begin with [`OWN`](crate::report::ci::OWN).
    pub fn queue(&self, text: &str) {
        let mut inner = self.lock();
        match inner.host {
            Host::Other => inner.pending.extend_from_slice(text.as_bytes()),
            host => {
                let text = ci::harmless(host, text);
                inner.pending.extend_from_slice(text.as_bytes());
            }
        }
    }

    /// Says what is queued, in one write(2) where the other side takes it.
    pub fn flush(&self) {
        let mut inner = self.lock();
        let pending = std::mem::take(&mut inner.pending);
        match &mut inner.out {
            _ if pending.is_empty() => {}
            Out::Fd(file) => {
                if write_patiently(file, &pending).is_err() {
                    inner.out = Out::Gone;
                }
            }
            Out::Text(text) => text.extend_from_slice(&pending),
            Out::Gone => {}
        }
        // The buffer is used again unless one long burst made it large.
        if pending.capacity() <= 64 * 1024 {
            inner.pending = pending;
            inner.pending.clear();
        }
    }

    /// Says this now.
    pub fn say(&self, text: &str) {
        self.queue(text);
        self.flush();
    }
}

/// Writes all of it; where the descriptor is a non-blocking one that takes nothing, waits, but not for ever.
pub(super) fn write_patiently(file: &mut File, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => wait_writable(file.as_fd())?,
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn wait_writable(fd: BorrowedFd<'_>) -> io::Result<()> {
    let mut fds = [PollFd::new(fd, PollFlags::POLLOUT)];
    match poll(&mut fds, PollTimeout::from(PATIENCE)) {
        Ok(0) => Err(io::ErrorKind::TimedOut.into()),
        Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Puts text in a style where colours are shown, and leaves it as it is elsewhere.
#[derive(Debug, Clone, Copy)]
pub struct Paint(pub bool);

impl Paint {
    /// `text` in `style`.
    pub fn paint(self, style: Style, text: &str) -> String {
        if self.0 {
            format!("{style}{text}{style:#}")
        } else {
            text.to_owned()
        }
    }
}

/// Writing goes to the terminal at once, by way of its queue.
impl Write for Terminal {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.lock().pending.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Terminal::flush(self);
        Ok(())
    }
}
