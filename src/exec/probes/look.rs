//! Looks from outside whether a service is ready: an address, a URL, a file. Each in a thread of its own, since a connect, an
//! answer and a file system may take their time. It knows no unit.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::diagnostic::reason;
use crate::plan::Interval;
use crate::plan::probe::Url;
use crate::queue::Events;

/// A look takes no longer.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// So much of an answer is read at most: its first line is what counts.
const ANSWER: usize = 1024;

/// What is looked at.
#[derive(Debug)]
pub(super) enum Sight {
    /// The first of these that takes a connection.
    Address(Vec<SocketAddr>),
    /// An answer.
    Url(Url),
    /// A file, and what was there before the service was started.
    File(PathBuf, Option<Stamp>),
}

/// What tells a file from the one that was there before: a server that was killed leaves its socket or pid file behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Stamp {
    /// Of what is at `path`. None where nothing is.
    pub(super) fn of(path: &Path) -> io::Result<Option<Self>> {
        match path.metadata() {
            Ok(meta) => Ok(Some(Stamp {
                device: meta.dev(),
                inode: meta.ino(),
                size: meta.size(),
                modified: (meta.mtime(), meta.mtime_nsec()),
            })),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }
}

/// A thread that looks, again and again, until it has seen what it looks for or is dropped.
#[derive(Debug)]
pub(super) struct Watch {
    /// Dropped, it ends the thread's pause.
    _stop: Sender<()>,
    seen: Arc<Mutex<String>>,
}

impl Watch {
    /// Begins. It says so by `events` when it has seen it, once.
    ///
    /// # Errors
    /// No thread can be started.
    pub(super) fn begin(sight: Sight, interval: Interval, events: Events<()>) -> io::Result<Self> {
        let (stop, stopped) = channel();
        let seen = Arc::new(Mutex::new("nothing was seen yet".to_owned()));
        let thread_seen = Arc::clone(&seen);
        // Not joined: it may be in the middle of a look, and nobody is to wait for that.
        thread::Builder::new()
            .name("probe".to_owned())
            .spawn(move || watch(&sight, interval, &events, &stopped, &thread_seen))?;
        Ok(Watch { _stop: stop, seen })
    }

    /// What it has seen last, in words.
    pub(super) fn seen(&self) -> String {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.clone()
    }
}

fn watch(
    sight: &Sight,
    interval: Interval,
    events: &Events<()>,
    stopped: &Receiver<()>,
    seen: &Mutex<String>,
) {
    let mut pause = interval.first;
    loop {
        match look(sight) {
            Ok(()) => return events.send(()),
            Err(why) => *seen.lock().unwrap_or_else(PoisonError::into_inner) = why,
        }
        match stopped.recv_timeout(pause) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
        }
        pause = longer(pause, interval);
    }
}

/// The pause after this one.
pub(super) fn longer(pause: Duration, interval: Interval) -> Duration {
    (pause * 3 / 2).min(interval.last)
}

/// Looks once; says what it saw instead.
fn look(sight: &Sight) -> Result<(), String> {
    match sight {
        Sight::Address(addresses) => connect(addresses).map(drop).map_err(|e| reason(&e)),
        Sight::Url(url) => answer(url),
        Sight::File(path, before) => match Stamp::of(path) {
            Ok(None) => Err("no such file".to_owned()),
            Ok(now) if now == *before => {
                Err("it was there before, and is still the same".to_owned())
            }
            Ok(Some(_)) => Ok(()),
            Err(e) => Err(reason(&e)),
        },
    }
}

fn connect(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut first = None;
    for address in addresses {
        match TcpStream::connect_timeout(address, PATIENCE) {
            // Nobody listened, but the kernel had given this very port to our end, and joined us to ourselves: see
            // docs/gotchas.md. It happens where a port is probed that the kernel hands out.
            Ok(stream) if stream.local_addr().is_ok_and(|own| own == *address) => {
                first.get_or_insert(io::ErrorKind::ConnectionRefused.into());
            }
            Ok(stream) => return Ok(stream),
            Err(e) => {
                first.get_or_insert(e);
            }
        }
    }
    Err(first.unwrap_or(io::ErrorKind::AddrNotAvailable.into()))
}

/// Asks, and reads the first line of what comes.
fn answer(url: &Url) -> Result<(), String> {
    let until = Instant::now() + PATIENCE;
    let mut stream = connect(&url.addresses).map_err(|e| reason(&e))?;
    let request = format!(
        "GET {} HTTP/1.0\r\nHost: {}\r\nUser-Agent: procflow\r\nAccept: */*\r\nConnection: close\r\n\r\n",
        url.path, url.host
    );
    let asked = stream
        .set_write_timeout(Some(PATIENCE))
        .and_then(|()| stream.write_all(request.as_bytes()));
    asked.map_err(|e| reason(&e))?;
    let mut text = Vec::new();
    while !text.contains(&b'\n') && text.len() < ANSWER {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err("no answer in 10s".to_owned());
        }
        let mut part = [0; ANSWER];
        let read = stream
            .set_read_timeout(Some(left))
            .and_then(|()| stream.read(&mut part));
        match read {
            Ok(0) => break,
            Ok(count) => text.extend(part.iter().take(count)),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                return Err("no answer in 10s".to_owned());
            }
            Err(e) => return Err(reason(&e)),
        }
    }
    status(&text)
}

/// The status that the first line of an answer tells.
fn status(text: &[u8]) -> Result<(), String> {
    let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let line = line.trim_end();
    let mut words = line.split_whitespace();
    let code = match (words.next(), words.next()) {
        (Some(version), Some(code)) if version.starts_with("HTTP/") => code.parse::<u16>().ok(),
        _ => None,
    };
    match code {
        Some(200..=399) => Ok(()),
        Some(code) => {
            let said: Vec<&str> = words.collect();
            let said = said.join(" ");
            Err(format!("answered {code} {said}").trim_end().to_owned())
        }
        None if line.is_empty() => Err("closed the connection without an answer".to_owned()),
        None => Err("answered by something else than HTTP".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::net::TcpListener;

    use super::*;

    #[test]
    fn statuses() {
        for good in ["HTTP/1.1 200 OK\r\n", "HTTP/1.0 302\r\n", "HTTP/1.1 399 x"] {
            assert_eq!(status(good.as_bytes()), Ok(()), "{good:?}");
        }
        for (bad, why) in [
            (
                "HTTP/1.1 503 Service Unavailable\r\nX: y",
                "answered 503 Service Unavailable",
            ),
            ("HTTP/1.1 404\n", "answered 404"),
            ("HTTP/1.1 199 x\n", "answered 199 x"),
            ("", "closed the connection without an answer"),
            (
                "SSH-2.0-OpenSSH\r\n",
                "answered by something else than HTTP",
            ),
            ("HTTP/1.1 abc\r\n", "answered by something else than HTTP"),
        ] {
            assert_eq!(status(bad.as_bytes()), Err(why.to_owned()), "{bad:?}");
        }
    }

    #[test]
    fn an_address_that_nobody_listens_on_refuses() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(look(&Sight::Address(vec![address])), Ok(()));
        drop(listener);
        assert_eq!(
            look(&Sight::Address(vec![address])),
            Err("connection refused".to_owned())
        );
    }

    /// Without a look at who has answered, one of some ten thousand connects is to itself.
    #[test]
    fn to_be_joined_to_oneself_is_no_answer() {
        // Of the ports that the kernel gives by itself connect(2) takes the even ones first.
        let port = (0..)
            .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
            .map(|listener| listener.local_addr().unwrap().port() & !1)
            .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
            .unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        for _ in 0..40_000 {
            let refused = connect(&[address]).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        }
    }

    #[test]
    fn a_file_that_was_there_before_is_not_the_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ready");
        let none = Sight::File(path.clone(), Stamp::of(&path).unwrap());
        assert_eq!(look(&none), Err("no such file".to_owned()));
        std::fs::write(&path, "1").unwrap();
        assert_eq!(look(&none), Ok(()));
        let before = Sight::File(path.clone(), Stamp::of(&path).unwrap());
        let same = "it was there before, and is still the same".to_owned();
        assert_eq!(look(&before), Err(same));
        std::fs::write(&path, "longer").unwrap();
        assert_eq!(look(&before), Ok(()));
    }
}
