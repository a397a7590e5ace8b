//! No status is ever lost: every exit code and every signal comes out as it was.

use crate::support::Pipeline;

/// A process that stops itself is continued by a helper as soon as it really stands still.
const STOPS: &str = r#"me=$$; (until grep -q "^State:.T" /proc/$me/status; do :; done; kill -CONT $me) & kill -SIG $me; wait"#;

#[test]
fn every_exit_code_and_every_signal_comes_out_exact() {
    let mut text = String::from(
        "[run]\non_failure = \"continue\"\n[defaults]\nshell = [\"sh\", \"-c\"]\nlimits = { core = 0 }\n",
    );
    for code in 0..256 {
        text.push_str(&format!("[process.code{code}]\nscript = \"exit {code}\"\n"));
    }
    for signal in 1..32 {
        let script = match signal {
            nix::libc::SIGSTOP | nix::libc::SIGTSTP | nix::libc::SIGTTIN | nix::libc::SIGTTOU => {
                STOPS.replace("SIG", &signal.to_string())
            }
            _ => format!("kill -{signal} $$"),
        };
        text.push_str(&format!("[process.signal{signal}]\nscript = '{script}'\n"));
    }
    let ran = Pipeline::new(&text).run().exit(1);
    let ends = ran.ends();
    assert_eq!(ends.len(), 287);
    for code in 0..256 {
        let node = format!("code{code}");
        assert_eq!(
            ran.field(&node, "state"),
            if code == 0 { "succeeded" } else { "failed" },
            "{node}"
        );
        assert_eq!(ran.field(&node, "exit"), code, "{node}");
        assert_eq!(
            ran.field(&node, "signal"),
            serde_json::Value::Null,
            "{node}"
        );
    }
    for signal in 1..32 {
        let node = format!("signal{signal}");
        // These the kernel ignores, or they stop a process, which was then continued: it ended well.
        let harmless = [
            nix::libc::SIGCHLD,
            nix::libc::SIGCONT,
            nix::libc::SIGSTOP,
            nix::libc::SIGTSTP,
            nix::libc::SIGTTIN,
            nix::libc::SIGTTOU,
            nix::libc::SIGURG,
            nix::libc::SIGWINCH,
        ];
        if harmless.contains(&signal) {
            assert_eq!(ran.field(&node, "state"), "succeeded", "{node}");
            assert_eq!(ran.field(&node, "exit"), 0, "{node}");
            assert_eq!(
                ran.field(&node, "signal"),
                serde_json::Value::Null,
                "{node}"
            );
        } else {
            assert_eq!(ran.field(&node, "state"), "failed", "{node}");
            assert_eq!(ran.field(&node, "exit"), serde_json::Value::Null, "{node}");
            assert_eq!(ran.field(&node, "signal")["number"], signal, "{node}");
        }
    }
    drop(ran.node("code0", "succeeded"));
}

/// 137 is what a shell makes of SIGKILL; as an exit code it is an exit code.
#[test]
fn an_exit_code_is_not_taken_for_a_signal() {
    let ran = Pipeline::new("[process.a]\nscript = \"exit 137\"\n")
        .run()
        .exit(1);
    assert_eq!(ran.field("a", "exit"), 137);
    assert_eq!(ran.field("a", "signal"), serde_json::Value::Null);
    drop(ran.node(
        "a",
        "failed: exit 137 (as sh says it: SIGKILL ended a command)",
    ));
}

#[test]
fn a_nodes_own_code_is_passed_on_when_asked_for() {
    for code in [0, 1, 2, 3, 42, 124, 255] {
        let ran = Pipeline::new(&format!(
            "[process.a]\nscript = \"exit {code}\"\n[process.b]\ncommand = [\"true\"]\n"
        ))
        .args(["--exit-code-from", "a", "--keep-going"])
        .run()
        .exit(code);
        drop(ran.node("b", "succeeded"));
    }
    Pipeline::new("[process.a]\nscript = \"kill -TERM $$\"\n")
        .args(["--exit-code-from", "a"])
        .run()
        .node("a", "failed: killed by SIGTERM")
        .exit(128 + 15);
    // A process that could not be started has the code that a shell would give it.
    let ran = Pipeline::new("[process.a]\ncommand = [\"/no/such/program\"]\n")
        .args(["--exit-code-from", "a"])
        .run()
        .exit(127);
    let (_, end) = ran.ends()[0].clone();
    drop(ran.node("a", &end));
}

/// A thousand processes that end at once: the kernel puts their SIGCHLDs together into one.
#[test]
fn the_ends_of_a_thousand_processes_are_all_seen() {
    let mut text = String::new();
    for node in 0..1000 {
        text.push_str(&format!("[process.n{node}]\ncommand = [\"true\"]\n"));
    }
    let ran = Pipeline::new(&text).args(["--jobs", "64"]).run();
    assert_eq!(ran.ends().len(), 1000);
}
