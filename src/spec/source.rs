//! The text of a pipeline file: from a path, or from standard input.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// The size of a pipeline file at most, in bytes.
pub const MAX_FILE: u64 = 64 << 20;

/// A pipeline file's text, and what messages call it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The path as it was given; `<stdin>` for `-`.
    pub name: String,
    /// Where it stands, to be made absolute for relative paths; none for standard input.
    pub path: Option<PathBuf>,
    /// What it says.
    pub text: String,
}

/// Why there is no text.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// open(2), fstat(2) or read(2) failed.
    #[error("cannot read {name}: {error}")]
    Io {
        /// The file.
        name: String,
        /// What the system says.
        error: io::Error,
    },
    /// A directory or a device, which has no end or no text.
    #[error("cannot read {name}: it is {kind}")]
    Kind {
        /// The file.
        name: String,
        /// What it is, with its article.
        kind: &'static str,
    },
    /// More than [`MAX_FILE`] bytes.
    #[error("cannot read {name}: it is larger than 64 MiB")]
    TooLarge {
        /// The file.
        name: String,
    },
    /// Some bytes are no text.
    #[error("{name} is not UTF-8: byte {offset} (line {line}) is 0x{byte:02x}{hint}")]
    NotUtf8 {
        /// The file.
        name: String,
        /// Of the first such byte, from 0.
        offset: usize,
        /// Its line, from 1.
        line: usize,
        /// The byte.
        byte: u8,
        /// What it may be instead.
        hint: &'static str,
    },
}

impl Source {
    /// Reads the file at `path`, or `stdin` where the path is `-`.
    ///
    /// Never waits for a writer of a FIFO that nobody opens, and never reads without bound: a FIFO that has a writer
    /// (`procflow run <(generate)`) is read to its end, up to [`MAX_FILE`].
    ///
    /// # Errors
    /// See [`SourceError`].
    pub fn read(path: &Path, stdin: impl Read) -> Result<Self, SourceError> {
        if path.as_os_str() == "-" {
            return Source::of("<stdin>".to_owned(), None, stdin);
        }
        let name = path.display().to_string();
        let io = |error| SourceError::Io {
            name: name.clone(),
            error,
        };
        let kind = |kind| SourceError::Kind {
            name: name.clone(),
            kind,
        };
        // Without O_NONBLOCK, opening a FIFO waits for a writer, which may never come.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)
            .map_err(io)?;
        let meta = file.metadata().map_err(io)?;
        let file_type = meta.file_type();
        if file_type.is_dir() {
            return Err(kind("a directory"));
        }
        if file_type.is_char_device() || file_type.is_block_device() {
            return Err(kind("a device"));
        }
        if file_type.is_socket() {
            return Err(kind("a socket"));
        }
        if file_type.is_fifo() {
            let source = Source::of(name.clone(), Some(path.to_owned()), Fifo(file))?;
            if source.text.is_empty() {
                return Err(kind("a FIFO that nobody writes to"));
            }
            return Ok(source);
        }
        if meta.len() > MAX_FILE {
            return Err(SourceError::TooLarge { name });
        }
        Source::of(name, Some(path.to_owned()), file)
    }

    fn of(name: String, path: Option<PathBuf>, reader: impl Read) -> Result<Self, SourceError> {
        let mut bytes = Vec::new();
        if let Err(error) = reader.take(MAX_FILE + 1).read_to_end(&mut bytes) {
            return Err(SourceError::Io { name, error });
        }
        if bytes.len() as u64 > MAX_FILE {
            return Err(SourceError::TooLarge { name });
        }
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Source { name, path, text }),
            Err(error) => {
                let offset = error.utf8_error().valid_up_to();
                let bytes = error.as_bytes();
                Err(SourceError::NotUtf8 {
                    name,
                    offset,
                    line: memchr::memchr_iter(b'\n', bytes.get(..offset).unwrap_or_default())
                        .count()
                        + 1,
                    byte: bytes.get(offset).copied().unwrap_or(0),
                    hint: match bytes {
                        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "; it looks like UTF-16",
                        [0x7f, b'E', b'L', b'F', ..] => "; it looks like a program",
                        _ => "",
                    },
                })
            }
        }
    }
}

/// A FIFO opened with `O_NONBLOCK`: waits for data while it has a writer, ends where it has none.
struct Fifo(File);

impl Read for Fifo {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
                    poll(&mut fds, PollTimeout::NONE).map_err(io::Error::from)?;
                }
                other => return other,
            }
        }
    }
}
