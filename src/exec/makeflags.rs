//! What `MAKEFLAGS` says of a jobserver (GNU make manual, "POSIX Jobserver Interaction"), read and written. It opens nothing.

use std::path::PathBuf;

/// Where a jobserver's tokens are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Auth {
    /// In a pipe, by the descriptors of its two ends. make says so from 3.78 on, by `--jobserver-fds` up to 4.1.
    Pipe(i32, i32),
    /// In a fifo. make says so from 4.4 on, where nobody asks it for a pipe.
    Fifo(PathBuf),
}

/// What a jobserver is said to be, or that it can't be read.
pub(super) fn auth(flags: &str) -> Option<Result<Auth, String>> {
    let said = options(flags).0.filter_map(jobserver).next_back()?;
    if let Some(path) = said.strip_prefix("fifo:") {
        return Some(Ok(Auth::Fifo(path.into())));
    }
    let ends = said.split_once(',').and_then(|(read, write)| {
        let number = |text: &str| text.parse::<i32>().ok();
        Some(Auth::Pipe(number(read)?, number(write)?))
    });
    Some(ends.ok_or_else(|| said.to_owned()))
}

/// The number of `-jN`: how many jobs there may be in all.
pub(super) fn jobs(flags: &str) -> Option<u32> {
    let number = |word: &str| match word.strip_prefix("--jobs=") {
        Some(number) => number.parse().ok(),
        None => word.strip_prefix("-j")?.parse().ok(),
    };
    options(flags).0.filter_map(number).next_back()
}

/// These flags, with this jobserver in place of what they say of one; with none where that is `None`.
pub(super) fn with(flags: &str, jobserver: Option<(&str, u32)>) -> String {
    let (options, rest) = options(flags);
    let mut made = String::new();
    let mut before = "";
    for (at, word) in options.enumerate() {
        // `-j 8`, as people write it.
        let number_of_jobs =
            matches!(before, "-j" | "--jobs") && word.bytes().all(|byte| byte.is_ascii_digit());
        before = word;
        if is_of_jobs(word) || number_of_jobs {
            continue;
        }
        // Only the first word may lack its dash: `k` is `-k` there.
        if at > 0 || word.starts_with('-') {
            made.push(' ');
        }
        made.push_str(word);
    }
    if let Some((auth, jobs)) = jobserver {
        made.push_str(&format!(" -j{jobs} --jobserver-auth={auth}"));
    }
    if let Some(rest) = rest {
        made.push_str(" -- ");
        made.push_str(rest);
    }
    made
}

/// The options; and what stands behind `--`, which are variables.
fn options(flags: &str) -> (impl DoubleEndedIterator<Item = &str>, Option<&str>) {
    let (options, rest) = match flags.strip_prefix("-- ") {
        Some(rest) => ("", Some(rest)),
        None => match flags.split_once(" -- ") {
            Some((options, rest)) => (options, Some(rest)),
            None => (flags, None),
        },
    };
    (options.split_ascii_whitespace(), rest)
}

fn jobserver(word: &str) -> Option<&str> {
    word.strip_prefix("--jobserver-auth=")
        .or_else(|| word.strip_prefix("--jobserver-fds="))
}

/// It says how many jobs there may be, or where they come from.
fn is_of_jobs(word: &str) -> bool {
    let short = word.strip_prefix("-j");
    jobserver(word).is_some()
        || word == "--jobs"
        || word.starts_with("--jobs=")
        || word.starts_with("--jobserver-style=")
        || short.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use crate::exec::makeflags::{Auth, auth, jobs, with};

    #[test]
    fn every_style_is_understood() {
        let said = [
            ("", None),
            ("k", None),
            ("-j4", None),
            (" -j4 --jobserver-auth=3,4", Some(Ok(Auth::Pipe(3, 4)))),
            ("kw -j --jobserver-fds=5,6", Some(Ok(Auth::Pipe(5, 6)))),
            (
                "--jobserver-fds=5,6 -j --jobserver-auth=7,8",
                Some(Ok(Auth::Pipe(7, 8))),
            ),
            (
                " -j9 --jobserver-auth=fifo:/tmp/GMfifo12 -- A=b",
                Some(Ok(Auth::Fifo("/tmp/GMfifo12".into()))),
            ),
            (" -j2 --jobserver-auth=-2,-2", Some(Ok(Auth::Pipe(-2, -2)))),
            (
                "--jobserver-auth=gmake_semaphore_1",
                Some(Err("gmake_semaphore_1".to_owned())),
            ),
            ("-- X=--jobserver-auth=3,4", None),
        ];
        for (flags, expected) in said {
            assert_eq!(auth(flags), expected, "{flags:?}");
        }
    }

    #[test]
    fn how_many_jobs() {
        let said = [
            ("", None),
            ("kj", None),
            ("-j", None),
            ("w -j4", Some(4)),
            ("-j4 --jobs=5", Some(5)),
            ("-junk", None),
            ("-- -j4", None),
        ];
        for (flags, expected) in said {
            assert_eq!(jobs(flags), expected, "{flags:?}");
        }
    }

    #[test]
    fn other_flags_stay() {
        let ours = Some(("10,11", 4));
        let made = [
            ("", ours, " -j4 --jobserver-auth=10,11"),
            ("k", ours, "k -j4 --jobserver-auth=10,11"),
            (
                "kw -j8 --jobserver-auth=3,4 --no-print-directory -- CC=gcc -j2",
                ours,
                "kw --no-print-directory -j4 --jobserver-auth=10,11 -- CC=gcc -j2",
            ),
            (
                " --warn-undefined-variables -j --jobs=3",
                None,
                " --warn-undefined-variables",
            ),
            ("-- A=b", ours, " -j4 --jobserver-auth=10,11 -- A=b"),
            ("s -j2 --jobserver-fds=3,4", None, "s"),
            ("-j3", None, ""),
            ("-j 8 -k", ours, " -k -j4 --jobserver-auth=10,11"),
        ];
        for (flags, jobserver, expected) in made {
            assert_eq!(with(flags, jobserver), expected, "{flags:?}");
        }
    }
}
