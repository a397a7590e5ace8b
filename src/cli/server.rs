//! [`Server`]: what the environment says of the CI server that runs us, beside who it is.

use std::path::{Path, PathBuf};

use crate::spec::Source;

/// Of GitHub Actions. Elsewhere the file is called as it was given, and there is no summary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// The pipeline file as it stands in the repository; empty where it came from standard input.
    pub file: String,
    /// Where the summary of the job is added to.
    pub summary: Option<PathBuf>,
}

impl Server {
    /// From this process's environment and current directory.
    pub fn of_process(source: &Source) -> Self {
        let path = source.path.as_deref().map(|path| {
            let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
            // A path through `..` is not one that GitHub knows.
            path.canonicalize().unwrap_or(path)
        });
        let var = |name: &str| std::env::var(name).ok();
        Server::new(path.as_deref(), &source.name, var)
    }

    /// For a file of this absolute path and name, with environment variables by this look-up.
    fn new(path: Option<&Path>, name: &str, var: impl Fn(&str) -> Option<String>) -> Self {
        let is_github = var("GITHUB_ACTIONS").is_some_and(|value| value == "true");
        let set = |name| var(name).filter(|value| is_github && !value.is_empty());
        let root = set("GITHUB_WORKSPACE").map(PathBuf::from);
        let within = root.and_then(|root| {
            let root = root.canonicalize().unwrap_or(root);
            Some(path?.strip_prefix(root).ok()?.display().to_string())
        });
        Server {
            file: match path {
                None => String::new(),
                Some(_) => within.unwrap_or_else(|| name.to_owned()),
            },
            summary: set("GITHUB_STEP_SUMMARY").map(|path| {
                let path = PathBuf::from(path);
                // The run goes to another directory.
                std::path::absolute(&path).unwrap_or(path)
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_github_has_a_workspace_and_a_summary() {
        let server = |github: &str, path: Option<&str>| {
            Server::new(path.map(Path::new), "../ci/p.toml", |name| {
                Some(match name {
                    "GITHUB_ACTIONS" => github.to_owned(),
                    "GITHUB_WORKSPACE" => "/no/such/work".to_owned(),
                    "GITHUB_STEP_SUMMARY" => "/tmp/summary".to_owned(),
                    _ => return None,
                })
            })
        };
        let expected = |file: &str, summary: bool| Server {
            file: file.to_owned(),
            summary: summary.then(|| PathBuf::from("/tmp/summary")),
        };
        let path = Some("/no/such/work/ci/p.toml");
        assert_eq!(server("true", path), expected("ci/p.toml", true));
        assert_eq!(server("", path), expected("../ci/p.toml", false));
        assert_eq!(
            server("true", Some("/p.toml")),
            expected("../ci/p.toml", true)
        );
        assert_eq!(server("true", None), expected("", true));
    }
}
