//! Effective settings of a unit: the node's, else `[defaults]`, else procflow's. Nodes that say nothing share one.

use std::sync::Arc;
use std::time::Duration;

use crate::diagnostic::Diagnostic;
use crate::plan::problems::{Problems, Site};
use crate::plan::scope::{Found, Scope, When};
use crate::plan::template::{self, Template};
use crate::plan::{Retry, Settings};
use crate::spec::{Defaults, Limits, Process, Retries};

/// Bytes of the longest record of a queue that does not say.
pub const MAX_RECORD: u64 = 16 << 20;

/// How long a node has between its `stop_signal` and SIGKILL, where nothing says otherwise.
pub const STOP_GRACE: Duration = Duration::from_secs(5);
/// Exit codes that mean "my reader has gone", where nothing says otherwise: a shell's SIGPIPE (128 + 13), and 120, Python's
/// own when it can't flush its standard output at the end.
pub const EPIPE_CODES: [u8; 2] = [120, 141];
/// Before the first retry.
pub const RETRY_DELAY: Duration = Duration::from_secs(1);
/// Factor from one retry's delay to the next.
pub const RETRY_BACKOFF: f64 = 2.0;
/// Bound of a retry's delay.
pub const RETRY_MAX_DELAY: Duration = Duration::from_secs(60);
/// The shell of scripts: `-e` so that a failing command fails the script.
pub const SHELL: [&str; 3] = ["sh", "-e", "-c"];

/// Makes settings, node after node, and shares equal ones.
pub(super) struct Builder<'a> {
    defaults: &'a Defaults,
    common: Arc<Settings>,
    last: Arc<Settings>,
}

impl<'a> Builder<'a> {
    /// With what holds for a node that says nothing.
    pub(super) fn new(defaults: &'a Defaults, scope: &Scope<'_>, found: &mut Found<'_>) -> Self {
        let site = Site::top("defaults");
        check_defaults(defaults, &site, found.problems);
        let cwd = match &defaults.cwd {
            Some(cwd) => {
                template::parse(cwd.clone(), &scope.at(When::Cwd), &site.key("cwd"), found)
            }
            None => Template::from("."),
        };
        let retries = defaults.retries.as_ref();
        let common = Arc::new(Settings {
            cwd,
            clear_env: defaults.clear_env.unwrap_or(false),
            timeout: defaults.timeout.map(|d| d.0),
            stop_signal: defaults.stop_signal.map_or(libc::SIGTERM, |s| s.0),
            stop_grace: defaults.stop_grace.map_or(STOP_GRACE, |d| d.0),
            retry: retry(retries),
            success_codes: defaults.success_codes.clone().unwrap_or_else(|| vec![0]),
            epipe_codes: defaults
                .epipe_codes
                .clone()
                .unwrap_or_else(|| EPIPE_CODES.to_vec()),
            limits: defaults.limits.as_ref().map(limits).unwrap_or_default(),
            nice: defaults.nice.unwrap_or(0),
        });
        Builder {
            defaults,
            last: Arc::clone(&common),
            common,
        }
    }

    /// The settings of one node.
    pub(super) fn build(
        &mut self,
        process: &mut Process,
        node: &Site<'_>,
        scope: &Scope<'_>,
        found: &mut Found<'_>,
    ) -> Arc<Settings> {
        if says_nothing(process) {
            return Arc::clone(&self.common);
        }
        check_process(process, node, found.problems);
        let common = &*self.common;
        let cwd = match process.cwd.take() {
            Some(cwd) => template::parse(cwd, &scope.at(When::Cwd), &node.key("cwd"), found),
            None => common.cwd.clone(),
        };
        let of_node = process.limits.take();
        let settings = Settings {
            cwd,
            clear_env: process.clear_env.unwrap_or(common.clear_env),
            timeout: process.timeout.map(|d| d.0).or(common.timeout),
            stop_signal: process.stop_signal.map_or(common.stop_signal, |s| s.0),
            stop_grace: process.stop_grace.map_or(common.stop_grace, |d| d.0),
            retry: process
                .retries
                .take()
                .map_or_else(|| common.retry.clone(), |retries| retry(Some(&retries))),
            success_codes: process
                .success_codes
                .take()
                .unwrap_or_else(|| common.success_codes.clone()),
            epipe_codes: process
                .epipe_codes
                .take()
                .unwrap_or_else(|| common.epipe_codes.clone()),
            // One by one: a node that bounds its files still has the default bound of its memory.
            limits: of_node.map_or_else(
                || common.limits.clone(),
                |own| limits(&merged(&own, self.defaults.limits.as_ref())),
            ),
            nice: process.nice.unwrap_or(common.nice),
        };
        // Files with many nodes say the same again and again, one after the other.
        if settings == *self.last {
            return Arc::clone(&self.last);
        }
        self.last = Arc::new(settings);
        Arc::clone(&self.last)
    }
}

fn says_nothing(process: &Process) -> bool {
    process.cwd.is_none()
        && process.clear_env.is_none()
        && process.timeout.is_none()
        && process.stop_signal.is_none()
        && process.stop_grace.is_none()
        && process.retries.is_none()
        && process.success_codes.is_none()
        && process.epipe_codes.is_none()
        && process.limits.is_none()
        && process.nice.is_none()
}

fn check_defaults(defaults: &Defaults, site: &Site<'_>, problems: &mut Problems) {
    check_timeout(defaults.timeout.map(|d| d.0), site, problems);
    check_retries(defaults.retries.as_ref(), site, problems);
    check_codes(defaults.success_codes.as_deref(), site, problems);
}

fn check_process(process: &Process, site: &Site<'_>, problems: &mut Problems) {
    check_timeout(process.timeout.map(|d| d.0), site, problems);
    check_retries(process.retries.as_deref(), site, problems);
    check_codes(process.success_codes.as_deref(), site, problems);
}

/// A timeout of nothing ends everything before it began.
pub(super) fn check_timeout(timeout: Option<Duration>, table: &Site<'_>, problems: &mut Problems) {
    if timeout == Some(Duration::ZERO) {
        problems.push(
            Diagnostic::error(
                table.key("timeout").mark_value(),
                "a timeout of 0 would end it before it began",
            )
            .help("leave `timeout` out for none"),
        );
    }
}

fn check_codes(codes: Option<&[u8]>, table: &Site<'_>, problems: &mut Problems) {
    if codes.is_some_and(<[u8]>::is_empty) {
        problems.push(
            Diagnostic::error(
                table.key("success_codes").mark_value(),
                "without success codes no exit would be a success",
            )
            .help("for a node that may fail say `allow_failure = true`"),
        );
    }
}

fn check_retries(retries: Option<&Retries>, table: &Site<'_>, problems: &mut Problems) {
    let Some(retries) = retries else { return };
    let site = table.key("retries");
    if let (Some(delay), Some(max)) = (retries.delay, retries.max_delay)
        && delay > max
    {
        problems.push(
            Diagnostic::error(
                site.key("delay").mark_value(),
                "`delay` is longer than `max_delay`",
            )
            .and(site.key("max_delay").mark_value(), "")
            .help(
                "raise `max_delay`, which bounds what `backoff` makes of `delay`, or lower `delay`",
            ),
        );
    }
}

/// Retries with the defaults filled in; none where nothing is said.
pub(super) fn retry(retries: Option<&Retries>) -> Retry {
    let delay = retries.and_then(|r| r.delay).map_or(RETRY_DELAY, |d| d.0);
    Retry {
        max: retries.map_or(0, |r| r.max),
        delay,
        backoff: retries.and_then(|r| r.backoff).unwrap_or(RETRY_BACKOFF),
        // A first delay beyond the default bound moves the bound.
        max_delay: retries
            .and_then(|r| r.max_delay)
            .map_or(RETRY_MAX_DELAY.max(delay), |d| d.0),
        jitter: retries.and_then(|r| r.jitter).unwrap_or(true),
        on_codes: retries.map(|r| r.on_codes.clone()).unwrap_or_default(),
    }
}

fn merged(own: &Limits, defaults: Option<&Limits>) -> Limits {
    let Some(defaults) = defaults else {
        return own.clone();
    };
    Limits {
        memory: own.memory.or(defaults.memory),
        cpu_time: own.cpu_time.or(defaults.cpu_time),
        open_files: own.open_files.or(defaults.open_files),
        file_size: own.file_size.or(defaults.file_size),
        processes: own.processes.or(defaults.processes),
        core: own.core.or(defaults.core),
    }
}

fn limits(limits: &Limits) -> Vec<(u32, u64)> {
    let cpu_time = limits
        .cpu_time
        .map(|d| d.0.as_secs() + u64::from(d.0.subsec_nanos() > 0));
    [
        (libc::RLIMIT_AS, limits.memory.map(|size| size.0)),
        (libc::RLIMIT_CPU, cpu_time),
        (libc::RLIMIT_NOFILE, limits.open_files),
        (libc::RLIMIT_FSIZE, limits.file_size.map(|size| size.0)),
        (libc::RLIMIT_NPROC, limits.processes),
        (libc::RLIMIT_CORE, limits.core.map(|size| size.0)),
    ]
    .into_iter()
    .filter_map(|(limit, value)| value.map(|value| (limit, value)))
    .collect()
}
