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
    #[error("cannot read {name}: {}", crate::diagnostic::reason(error))]
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

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        reason = "a test fails by panicking"
    )]

    use std::io::{self, Read, Write};
    use std::path::Path;

    use crate::spec::source::{MAX_FILE, Source};

    fn refused(path: impl AsRef<Path>) -> String {
        Source::read(path.as_ref(), io::empty())
            .expect_err("it is refused")
            .to_string()
    }

    #[test]
    fn a_file_and_standard_input_are_read() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"name = \"x\"").unwrap();
        let source = Source::read(file.path(), io::empty()).unwrap();
        assert_eq!(
            (source.text.as_str(), source.path.as_deref()),
            ("name = \"x\"", Some(file.path()))
        );
        let source = Source::read(Path::new("-"), "a = 1".as_bytes()).unwrap();
        assert_eq!(
            (source.text.as_str(), source.name.as_str(), source.path),
            ("a = 1", "<stdin>", None)
        );
    }

    #[test]
    fn what_is_no_file_is_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let name = |path: &Path| path.display().to_string();
        assert_eq!(
            refused(dir.path()),
            format!("cannot read {}: it is a directory", name(dir.path()))
        );
        assert_eq!(
            refused("/dev/zero"),
            "cannot read /dev/zero: it is a device"
        );
        assert_eq!(
            refused("/dev/null"),
            "cannot read /dev/null: it is a device"
        );
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(
            refused(&fifo),
            format!(
                "cannot read {}: it is a FIFO that nobody writes to",
                name(&fifo)
            )
        );
        let none = dir.path().join("none");
        assert_eq!(
            refused(&none),
            format!("cannot read {}: no such file or directory", name(&none))
        );
    }

    #[test]
    fn a_pipe_with_a_writer_is_read_to_its_end() {
        let (reader, mut writer) = io::pipe().unwrap();
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&reader));
        let thread = std::thread::spawn(move || {
            // More than a pipe holds, so that both sides have to wait.
            for _ in 0..100_000 {
                writer.write_all(b"# comment\n").unwrap();
            }
        });
        let source = Source::read(Path::new(&path), io::empty()).unwrap();
        thread.join().unwrap();
        assert_eq!(source.text.len(), 1_000_000);
    }

    #[test]
    fn endless_input_and_sparse_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let sparse = dir.path().join("sparse");
        std::fs::File::create(&sparse)
            .unwrap()
            .set_len(10 << 30)
            .unwrap();
        assert_eq!(
            refused(&sparse),
            format!("cannot read {}: it is larger than 64 MiB", sparse.display())
        );
        let error = Source::read(Path::new("-"), io::repeat(b' ')).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot read <stdin>: it is larger than 64 MiB"
        );
        let most = Source::read(Path::new("-"), io::repeat(b' ').take(MAX_FILE)).unwrap();
        assert_eq!(most.text.len() as u64, MAX_FILE);
    }

    #[test]
    fn what_is_not_utf8_is_refused_with_its_place() {
        let refused = |bytes: &[u8]| Source::read(Path::new("-"), bytes).unwrap_err().to_string();
        assert_eq!(
            refused(b"a = 1\nb = \xff"),
            "<stdin> is not UTF-8: byte 10 (line 2) is 0xff"
        );
        assert_eq!(
            refused(b"\xff\xfea\0"),
            "<stdin> is not UTF-8: byte 0 (line 1) is 0xff; it looks like UTF-16"
        );
        assert_eq!(
            refused(b"\x7fELF\x80"),
            "<stdin> is not UTF-8: byte 4 (line 1) is 0x80; it looks like a program"
        );
    }
}
