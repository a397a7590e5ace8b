//! The table of exit codes of `procflow run`.

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitCode {
    /// 0: every node succeeded, or may fail.
    Success,
    /// 1: a node failed.
    NodeFailed,
    /// 2: the command line or the pipeline is wrong; nothing was started.
    Usage,
    /// 3: procflow itself could not go on, or could not write a report that was asked for.
    Broken,
    /// 124: the run's own timeout, as timeout(1) says it.
    TimedOut,
    /// A node's own code, passed on by `--exit-code-from`.
    Node(u8),
    /// procflow was asked to end by this signal, and ends by it.
    Signal(i32),
}

impl ExitCode {
    /// The number that the shell sees. For [`ExitCode::Signal`], 128 + the signal, as a shell shows it.
    pub fn code(self) -> u8 {
        match self {
            ExitCode::Success => 0,
            ExitCode::NodeFailed => 1,
            ExitCode::Usage => 2,
            ExitCode::Broken => 3,
            ExitCode::TimedOut => 124,
            ExitCode::Node(code) => code,
            ExitCode::Signal(signal) => u8::try_from(128 + signal).unwrap_or(u8::MAX),
        }
    }
}
