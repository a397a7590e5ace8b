//! Why a program could not be started, in words for people. Looks at the file system only now that it has failed; so it may
//! find another state than the one that made it fail, and then says what the kernel said.

use std::ffi::CStr;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::{AccessFlags, SysconfVar, access, sysconf};

use crate::exec::launch::as_path;
use crate::sys::process::{Image, SpawnError, Stage};

/// The longest single argument or variable, in bytes without its NUL: MAX_ARG_STRLEN of the kernel, 32 pages of 4 KiB.
const LONGEST: usize = 32 * 4096 - 1;

/// Found, but it can't be executed.
const NOT_EXECUTABLE: u8 = 126;
/// Not found.
const NOT_FOUND: u8 = 127;

/// What a shell would exit with, and why.
pub(super) fn explain(
    error: SpawnError,
    image: &Image<'_>,
    cwd: &Path,
    open_files: u64,
) -> (u8, String) {
    let reason = lower(error.errno.desc());
    match error.stage {
        Stage::Exec => exec(error.errno, image, cwd),
        Stage::Chdir => directory(error.errno, cwd),
        Stage::Fd(target) if u64::from(target) >= open_files => (
            NOT_EXECUTABLE,
            format!(
                "descriptor {target} is beyond the limit of open files ({open_files}; see ulimit -n)"
            ),
        ),
        Stage::Fd(target) => (NOT_EXECUTABLE, format!("descriptor {target}: {reason}")),
        Stage::Limit(resource) => {
            let value = image
                .limits
                .iter()
                .find(|(r, _)| *r == resource)
                .map_or(0, |(_, value)| *value);
            let name = limit_name(resource);
            (
                NOT_EXECUTABLE,
                format!("limits.{name} = {value}: {reason} (more than this user's hard limit?)"),
            )
        }
        Stage::Nice => (NOT_EXECUTABLE, format!("nice = {}: {reason}", image.nice)),
        Stage::Group | Stage::Fork => (NOT_EXECUTABLE, format!("no process: {reason}")),
    }
}

fn directory(errno: Errno, cwd: &Path) -> (u8, String) {
    let shown = cwd.display();
    match errno {
        Errno::ENOENT => (
            NOT_FOUND,
            format!("no such directory: \"{shown}\" (its `cwd`)"),
        ),
        Errno::ENOTDIR => (
            NOT_EXECUTABLE,
            format!("not a directory: \"{shown}\" (its `cwd`)"),
        ),
        _ => (
            NOT_EXECUTABLE,
            format!(
                "cannot enter \"{shown}\" (its `cwd`): {}",
                lower(errno.desc())
            ),
        ),
    }
}

fn exec(errno: Errno, image: &Image<'_>, cwd: &Path) -> (u8, String) {
    // By its parts, which leaves out what says nothing (`/./`).
    let file: &Path = &cwd
        .join(as_path(image.program.to_bytes()))
        .components()
        .collect::<PathBuf>();
    let shown = file.display();
    match errno {
        Errno::ENOENT | Errno::ENOTDIR if !file.exists() => {
            // As the user wrote it; where that is relative to is worth saying.
            let name = as_path(
                image
                    .argv
                    .first()
                    .map_or(image.program, |name| name)
                    .to_bytes(),
            );
            let place = if name.is_absolute() {
                String::new()
            } else {
                format!(" ({shown})")
            };
            (
                NOT_FOUND,
                format!("no such file: \"{}\"{place}", name.display()),
            )
        }
        Errno::ENOENT => match interpreter(file) {
            Some(program) if program.ends_with('\r') => (
                NOT_FOUND,
                format!(
                    "bad interpreter: \"{}\\r\": the lines of \"{shown}\" end as on Windows (CR LF)",
                    program.trim_end()
                ),
            ),
            Some(program) => (
                NOT_FOUND,
                format!(
                    "bad interpreter: no such file: \"{program}\", which the first line of \"{shown}\" names"
                ),
            ),
            None => (
                NOT_FOUND,
                format!(
                    "the loader that \"{shown}\" asks for does not exist: it was built for another system"
                ),
            ),
        },
        Errno::EACCES | Errno::EPERM => (NOT_EXECUTABLE, forbidden(file, errno)),
        Errno::ENOEXEC => (NOT_EXECUTABLE, no_program(file)),
        Errno::E2BIG => (NOT_EXECUTABLE, too_long(image)),
        Errno::ETXTBSY => (
            NOT_EXECUTABLE,
            format!("\"{shown}\" is still open for writing somewhere"),
        ),
        _ => (
            NOT_EXECUTABLE,
            format!("\"{shown}\": {}", lower(errno.desc())),
        ),
    }
}

fn forbidden(file: &Path, errno: Errno) -> String {
    let shown = file.display();
    let Ok(meta) = fs::metadata(file) else {
        return format!(
            "\"{shown}\": {}: one of its directories may not be searched",
            lower(errno.desc())
        );
    };
    if meta.is_dir() {
        return format!("is a directory: \"{shown}\"");
    }
    if !meta.is_file() {
        return format!("not a regular file: \"{shown}\"");
    }
    if meta.permissions().mode() & 0o111 == 0 {
        return format!("not executable: \"{shown}\" (chmod +x makes it so)");
    }
    if statvfs(file).is_ok_and(|fs| fs.flags().contains(FsFlags::ST_NOEXEC)) {
        return format!("not executable: \"{shown}\" is on a file system that is mounted noexec");
    }
    match interpreter(file) {
        Some(program) if access(Path::new(&program), AccessFlags::X_OK).is_err() => {
            format!(
                "bad interpreter: not executable: \"{program}\", which the first line of \"{shown}\" names"
            )
        }
        _ => format!("\"{shown}\": {}", lower(errno.desc())),
    }
}

fn no_program(file: &Path) -> String {
    let shown = file.display();
    match head(file) {
        head if head.is_empty() => format!("not a program: \"{shown}\" is empty"),
        head if head.starts_with(b"\x7fELF") => {
            format!("not a program for this machine: \"{shown}\"")
        }
        head if head.starts_with(b"#!") => {
            format!("not a program: the first line of \"{shown}\" names no interpreter")
        }
        _ => format!(
            "not a program: \"{shown}\"; if it is a script, add a first line such as #!/bin/sh"
        ),
    }
}

fn too_long(image: &Image<'_>) -> String {
    let arguments = image
        .argv
        .iter()
        .enumerate()
        .map(|(i, arg)| (arg.count_bytes(), format!("argument {i}")));
    let variables = image.env.iter().map(|entry| {
        (
            entry.count_bytes(),
            format!("variable `{}`", variable_name(entry)),
        )
    });
    let (length, largest) = arguments
        .chain(variables)
        .max_by_key(|(length, _)| *length)
        .unwrap_or_default();
    if length > LONGEST {
        return format!(
            "{largest} is too long: {} bytes; the kernel takes {}",
            grouped(length),
            grouped(LONGEST)
        );
    }
    let all: usize = image
        .argv
        .iter()
        .chain(image.env)
        .map(|text| text.count_bytes() + 1)
        .sum();
    let limit = sysconf(SysconfVar::ARG_MAX)
        .ok()
        .flatten()
        .and_then(|limit| usize::try_from(limit).ok());
    let limit = limit.map_or_else(String::new, |limit| {
        format!("; the kernel takes {}", grouped(limit))
    });
    let all = grouped(all);
    format!(
        "arguments and environment are too long: {all} bytes{limit}; the largest is {largest}, {} bytes",
        grouped(length)
    )
}

fn variable_name(entry: &CStr) -> String {
    let name = entry
        .to_bytes()
        .split(|&byte| byte == b'=')
        .next()
        .unwrap_or_default();
    String::from_utf8_lossy(name).into_owned()
}

/// What the first line of a script names.
fn interpreter(file: &Path) -> Option<String> {
    let head = head(file);
    let line = head
        .strip_prefix(b"#!")?
        .split(|&byte| byte == b'\n')
        .next()?;
    // Not split at a carriage return: the kernel takes it as part of the name.
    let program = line
        .trim_ascii_start()
        .split(|&byte| byte == b' ' || byte == b'\t')
        .next()?;
    Some(String::from_utf8_lossy(program).into_owned())
}

/// As much of a file's beginning as the kernel looks at (BINPRM_BUF_SIZE).
fn head(file: &Path) -> Vec<u8> {
    let mut head = Vec::new();
    if let Ok(file) = File::open(file) {
        // Where it can't be read, what was read so far will do.
        let _ = file.take(256).read_to_end(&mut head);
    }
    head
}

/// The key of `limits` that sets a resource.
fn limit_name(resource: u32) -> &'static str {
    const NAMES: [(u32, &str); 6] = [
        (libc::RLIMIT_AS, "memory"),
        (libc::RLIMIT_CPU, "cpu_time"),
        (libc::RLIMIT_NOFILE, "open_files"),
        (libc::RLIMIT_FSIZE, "file_size"),
        (libc::RLIMIT_NPROC, "processes"),
        (libc::RLIMIT_CORE, "core"),
    ];
    NAMES
        .iter()
        .find(|(number, _)| *number == resource)
        .map_or("?", |(_, name)| name)
}

/// The kernel's words begin with a capital, ours don't.
fn lower(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| {
        first.to_lowercase().chain(chars).collect()
    })
}

/// `2097152` as `2,097,152`.
pub(in crate::exec) fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use crate::exec::launch::refusal::grouped;

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(
            [0, 999, 1000, 131_071, 2_097_152].map(grouped),
            ["0", "999", "1,000", "131,071", "2,097,152"]
        );
    }
}
