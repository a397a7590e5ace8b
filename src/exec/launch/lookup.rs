//! Which file a program's name means: with a slash, from the node's directory; else along the node's `PATH`.

use std::collections::HashMap;
use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::unistd::{AccessFlags, access};

use crate::exec::launch::{as_path, path_c_string};

/// Where there is no `PATH` at all (confstr(3) with _CS_PATH).
const NO_PATH: &[u8] = b"/bin:/usr/bin";

/// Looks programs up, and remembers what it found: a pipeline starts the same few again and again.
///
/// Like a shell's hash table it does not see a program that has since appeared earlier on the path. What it did not find it looks for
/// again each time, for a node before may have made it.
#[derive(Debug, Default)]
pub(super) struct Lookup {
    /// By `PATH`, then by name.
    found: HashMap<Box<[u8]>, Names>,
}

/// The files of programs, by name.
type Names = HashMap<Box<[u8]>, Arc<CString>>;

/// A program's file.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) file: Arc<CString>,
    /// From an earlier look-up, so it may be gone.
    pub(super) remembered: bool,
}

/// There is no such program.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotFound {
    /// What a shell would exit with.
    pub(super) code: u8,
    /// In words for people.
    pub(super) why: String,
}

impl Lookup {
    /// The file of program `name` for a node that runs in `cwd`, and seen from there. With a slash it is not looked at: exec will say.
    pub(super) fn find(
        &mut self,
        name: &[u8],
        cwd: &Path,
        path: Option<&[u8]>,
    ) -> Result<Program, NotFound> {
        let shown = as_path(name).display();
        if name.is_empty() {
            return Err(NotFound {
                code: 127,
                why: "no such file: \"\"".to_owned(),
            });
        }
        if name.contains(&b'/') {
            // As it stands: the child has gone to `cwd` by then, and a script sees the name that the user wrote.
            let file = path_c_string(as_path(name));
            let file = file.ok_or_else(|| NotFound {
                code: 127,
                why: format!("no such file: \"{shown}\""),
            })?;
            return Ok(Program {
                file: Arc::new(file),
                remembered: false,
            });
        }
        let path = path.unwrap_or(NO_PATH);
        if let Some(file) = self.found.get(path).and_then(|names| names.get(name)) {
            return Ok(Program {
                file: Arc::clone(file),
                remembered: true,
            });
        }
        let file = Arc::new(search(name, cwd, path)?);
        // What a relative directory holds depends on `cwd`.
        if directories(path).all(Path::is_absolute) {
            self.found
                .entry(path.into())
                .or_default()
                .insert(name.into(), Arc::clone(&file));
        }
        Ok(Program {
            file,
            remembered: false,
        })
    }

    /// Something that was found is there no more.
    pub(super) fn forget(&mut self) {
        self.found.clear();
    }
}

/// The directories of a `PATH`. An empty one is the current one (POSIX, XBD 8.3).
fn directories(path: &[u8]) -> impl Iterator<Item = &Path> {
    path.split(|&byte| byte == b':').map(|dir| {
        if dir.is_empty() {
            Path::new(".")
        } else {
            as_path(dir)
        }
    })
}

fn search(name: &[u8], cwd: &Path, path: &[u8]) -> Result<CString, NotFound> {
    let mut forbidden: Option<PathBuf> = None;
    for dir in directories(path) {
        let file = cwd.join(dir).join(as_path(name));
        if !fs::metadata(&file).is_ok_and(|meta| meta.is_file()) {
            continue;
        }
        match access(&file, AccessFlags::X_OK) {
            Ok(()) => {
                if let Some(file) = path_c_string(&file) {
                    return Ok(file);
                }
            }
            // As a shell does: somewhere further on there may be one that can be executed.
            Err(_) => forbidden = forbidden.or(Some(file)),
        }
    }
    let shown = as_path(name).display();
    if let Some(file) = forbidden {
        return Err(NotFound {
            code: 126,
            why: format!("not executable: \"{}\"", file.display()),
        });
    }
    let hint = match similar(name, cwd, path) {
        Some(other) => format!("; did you mean \"{other}\"?"),
        None => format!(" (PATH is {})", as_path(path).display()),
    };
    Err(NotFound {
        code: 127,
        why: format!("no such file: \"{shown}\"{hint}"),
    })
}

/// The program on this path whose name is nearest: one slip, or two in a longer name.
fn similar(name: &[u8], cwd: &Path, path: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(name).ok()?;
    let bound = match name.chars().count() {
        0..=2 => 0,
        3..=5 => 1,
        _ => 2,
    };
    let mut best: Option<(usize, String)> = None;
    for dir in directories(path) {
        for entry in fs::read_dir(cwd.join(dir)).into_iter().flatten().flatten() {
            let Ok(other) = std::str::from_utf8(entry.file_name().as_bytes()).map(str::to_owned)
            else {
                continue;
            };
            if other.len().abs_diff(name.len()) > bound {
                continue;
            }
            let distance = strsim::osa_distance(name, &other);
            // Equally near: by the alphabet, so that the answer does not depend on the directory's order.
            let nearer = best
                .as_ref()
                .is_none_or(|(least, first)| (distance, &other) < (*least, first));
            if distance <= bound && nearer && access(&entry.path(), AccessFlags::X_OK).is_ok() {
                best = Some((distance, other));
            }
        }
    }
    best.map(|(_, other)| other)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop")]

    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use crate::exec::launch::lookup::{Lookup, NotFound};

    fn program(dir: &Path, name: &str, mode: u32) {
        fs::create_dir_all(dir).unwrap();
        fs::write(dir.join(name), "").unwrap();
        fs::set_permissions(dir.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    fn found(
        lookup: &mut Lookup,
        name: &str,
        cwd: &Path,
        path: &str,
    ) -> Result<(String, bool), NotFound> {
        let program = lookup.find(name.as_bytes(), cwd, Some(path.as_bytes()))?;
        Ok((
            program.file.to_str().unwrap().to_owned(),
            program.remembered,
        ))
    }

    #[test]
    fn along_the_path() {
        let home = tempfile::tempdir().unwrap();
        let (a, b) = (home.path().join("a"), home.path().join("b"));
        program(&a, "tool", 0o644);
        program(&b, "tool", 0o755);
        program(&b, "sort", 0o755);
        fs::create_dir(a.join("sort")).unwrap();
        let path = format!("{}:{}", a.display(), b.display());
        let tool = b.join("tool").display().to_string();
        let mut lookup = Lookup::default();
        let mut find = |name: &str, cwd: &Path, path: &str| found(&mut lookup, name, cwd, path);

        assert_eq!(
            find("tool", home.path(), &path),
            Ok((tool.clone(), false)),
            "the first can't be executed"
        );
        assert_eq!(find("tool", home.path(), &path), Ok((tool.clone(), true)));
        assert_eq!(
            find("sort", home.path(), &path).unwrap().0,
            b.join("sort").display().to_string(),
            "a directory is none"
        );
        assert_eq!(find("./tool", &a, &path).unwrap().0, "./tool");
        assert_eq!(
            find("sotr", home.path(), &path),
            Err(NotFound {
                code: 127,
                why: "no such file: \"sotr\"; did you mean \"sort\"?".into()
            })
        );
        assert_eq!(
            find("nothing-like-it", home.path(), &path),
            Err(NotFound {
                code: 127,
                why: format!("no such file: \"nothing-like-it\" (PATH is {path})")
            })
        );
        assert_eq!(
            find("tool", home.path(), &a.display().to_string()),
            Err(NotFound {
                code: 126,
                why: format!("not executable: \"{}\"", a.join("tool").display())
            })
        );
        // What relative directories hold depends on where one is.
        assert!(find("tool", home.path(), "b").is_ok());
        assert!(find("tool", &a, "b").is_err());
        assert!(find("tool", &b, ":/no").is_ok());
        assert!(find("tool", home.path(), ":/no").is_err());
    }
}
