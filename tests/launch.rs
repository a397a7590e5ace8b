//! A unit of a plan becomes a process: its arguments, environment and directory, and what is said when it can't start.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may stop")]

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use procflow::event::Failure;
use procflow::exec::launch::{As, For, Launcher, StartError};
use procflow::plan::template::{Part, Template};
use procflow::plan::{
    After, Arg, Ends, Group, GroupId, Input, Node, NodeId, Output, Plan, Retry, Role, Settings,
    Sink, Source, Unit, UnitId,
};
use procflow::spec::{AfterState, OnFailure};
use procflow::sys::pipe::Pipe;
use procflow::sys::process::{Child, Origin};

fn origin() -> Origin {
    static ORIGIN: OnceLock<Origin> = OnceLock::new();
    ORIGIN.get_or_init(|| Origin::capture().unwrap()).clone()
}

fn literal(text: &str) -> Template {
    Template::Literal(text.into())
}

/// A plan of one node, `a-node`, which runs this command in this directory; 0 is `/dev/null`, 1 and 2 are logged.
fn plan(dir: &Path, command: &[&str]) -> Plan {
    let settings = Settings {
        cwd: literal("."),
        clear_env: false,
        timeout: None,
        stop_signal: 15,
        stop_grace: Duration::from_secs(5),
        retry: Retry {
            max: 0,
            delay: Duration::ZERO,
            backoff: 1.0,
            max_delay: Duration::ZERO,
            jitter: false,
            on_codes: vec![],
        },
        success_codes: vec![0],
        epipe_codes: vec![],
        limits: vec![],
        nice: 0,
    };
    let output = |name: &str, fd| Output {
        name: name.into(),
        fd,
        to: vec![Sink::Log],
    };
    let ends = Ends {
        inputs: vec![Input {
            name: "stdin".into(),
            from: vec![(0, Source::Null)],
        }],
        outputs: vec![output("stdout", 1), output("stderr", 2)],
    };
    Plan {
        name: "test".into(),
        description: None,
        dir: dir.to_owned(),
        jobs: None,
        on_failure: OnFailure::Stop,
        timeout: None,
        jobserver: Default::default(),
        resources: vec![],
        env: vec![],
        secrets: vec![],
        nodes: vec![node("a-node", 0, vec![])],
        units: vec![Unit {
            node: NodeId(0),
            group: GroupId(0),
            role: Role::Process,
            argv: command.iter().map(|arg| Arg::One(literal(arg))).collect(),
            env: vec![],
            settings: Arc::new(settings),
            ends: Arc::new(ends),
            reads: vec![],
            writes: vec![],
        }],
        queues: vec![],
        groups: vec![Group {
            units: vec![UnitId(0)],
            queues: vec![],
            slots: 1,
            memory: 0,
            resources: Arc::default(),
        }],
    }
}

fn node(name: &str, unit: u32, after: Vec<After>) -> Node {
    Node {
        name: name.into(),
        base: name.into(),
        matrix: vec![],
        units: unit..unit + 1,
        after,
        allow_failure: false,
        pool: None,
        service: None,
        skip: None,
        asks: None,
        description: None,
        tags: vec![],
    }
}

fn settings(plan: &mut Plan) -> &mut Settings {
    Arc::get_mut(&mut plan.units[0].settings).unwrap()
}

fn ends(plan: &mut Plan) -> &mut Ends {
    Arc::get_mut(&mut plan.units[0].ends).unwrap()
}

fn as_attempt(attempt: u32) -> As<'static> {
    As {
        attempt,
        worker: None,
        task: None,
        purpose: For::Itself,
    }
}

/// Starts the first unit as attempt 2 of run `r1`; gives what it printed, or why it could not start.
fn run(
    plan: &Plan,
    values: &dyn Fn(NodeId) -> Option<&'static str>,
) -> Result<String, (u8, String)> {
    let mut launcher = Launcher::new(plan, "r1", origin()).unwrap();
    let null = File::open("/dev/null").unwrap();
    let Pipe { read, write } = Pipe::new(65536).unwrap();
    let fds = [(null.as_raw_fd(), 0), (write.as_raw_fd(), 1), (2, 2)];
    let mut child = match launcher.start(UnitId(0), as_attempt(2), &fds, values) {
        Ok(child) => child,
        Err(StartError::Unit(Failure::CannotStart { code, why })) => return Err((code, why)),
        Err(other) => panic!("{other}"),
    };
    drop(write);
    let mut bytes = Vec::new();
    File::from(read).read_to_end(&mut bytes).unwrap();
    until_it_ends(&child);
    assert!(child.try_wait().unwrap().unwrap().0.success());
    Ok(String::from_utf8(bytes).unwrap())
}

fn until_it_ends(child: &Child) {
    let ended = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
    waitid(Id::Pid(Pid::from_raw(child.pid())), ended).unwrap();
}

fn no_values(_: NodeId) -> Option<&'static str> {
    None
}

fn error(plan: &Plan) -> (u8, String) {
    run(plan, &no_values).expect_err("it must not start")
}

fn environment(
    plan: &Plan,
    values: &dyn Fn(NodeId) -> Option<&'static str>,
) -> BTreeMap<String, String> {
    let out = run(plan, values).unwrap();
    out.split_terminator('\0')
        .map(|var| var.split_once('=').unwrap())
        .map(|(k, v)| (k.into(), v.into()))
        .collect()
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|&(k, v)| (k.to_owned(), v.to_owned()))
        .collect()
}

#[test]
fn the_environment_says_what_the_node_may_know() {
    let mut plan = plan(Path::new("/"), &["/usr/bin/env", "-0"]);
    plan.env = vec![
        ("A".into(), "pipeline".into()),
        ("B".into(), "pipeline".into()),
    ];
    plan.units[0].env = vec![
        ("B".into(), literal("node")),
        (
            "C".into(),
            Template::Parts([Part::Text("run ".into()), Part::RunId].into()),
        ),
        ("PROCFLOW_NODE".into(), literal("fake")),
    ];
    settings(&mut plan).clear_env = true;
    let ends = ends(&mut plan);
    ends.inputs.push(Input {
        name: "left-part".into(),
        from: vec![(5, Source::Null), (6, Source::Null)],
    });
    ends.outputs.push(Output {
        name: "3".into(),
        fd: 3,
        to: vec![Sink::Null],
    });
    let mut expected = map(&[
        ("A", "pipeline"),
        ("B", "node"),
        ("C", "run r1"),
        ("IN_LEFT_PART", "/dev/fd/5 /dev/fd/6"),
        ("OUT_3", "/dev/fd/3"),
        ("PROCFLOW_RUN_ID", "r1"),
        ("PROCFLOW_NODE", "a-node"),
        ("PROCFLOW_ATTEMPT", "2"),
    ]);
    assert_eq!(environment(&plan, &no_values), expected);

    settings(&mut plan).clear_env = false;
    let inherited = std::env::vars()
        .filter(|(name, _)| !expected.contains_key(name))
        .collect::<Vec<_>>();
    expected.extend(inherited);
    assert_eq!(environment(&plan, &no_values), expected);
}

/// `first` has a value, `second` comes after it, `a-node` after that.
fn after_a_value(command: &[&str]) -> Plan {
    let mut plan = plan(Path::new("/"), command);
    let after = |node| {
        vec![After {
            node: NodeId(node),
            state: AfterState::Succeeded,
        }]
    };
    plan.nodes = vec![
        node("a-node", 0, after(2)),
        node("first", 1, vec![]),
        node("second", 2, after(1)),
        node("other", 3, vec![]),
    ];
    for id in 1..4 {
        let unit = Unit {
            node: NodeId(id),
            group: GroupId(id),
            ..plan.units[0].clone()
        };
        plan.units.push(unit);
        plan.groups.insert(
            id as usize - 1,
            Group {
                units: vec![UnitId(id)],
                queues: vec![],
                slots: 1,
                memory: 0,
                resources: Arc::default(),
            },
        );
    }
    for id in [1, 3] {
        Arc::make_mut(&mut plan.units[id].ends).outputs[0].to = vec![Sink::Value];
    }
    plan
}

#[test]
fn values_of_the_nodes_before() {
    let mut plan = after_a_value(&["/usr/bin/env", "-0"]);
    Arc::make_mut(&mut plan.units[0].settings).clear_env = true;
    let expected = map(&[
        ("PROCFLOW_RUN_ID", "r1"),
        ("PROCFLOW_NODE", "a-node"),
        ("PROCFLOW_ATTEMPT", "2"),
        ("VALUE_FIRST", "seven\nand more"),
    ]);
    // `other` has a value, too, but `a-node` does not come after it.
    let values = |node| (node != NodeId(2)).then_some("seven\nand more");
    assert_eq!(environment(&plan, &values), expected);
    assert!(!environment(&plan, &no_values).contains_key("VALUE_FIRST"));
}

#[test]
fn what_only_the_run_knows_is_put_into_arguments() {
    let mut plan = after_a_value(&["printf", "%s\\n"]);
    let ends = Arc::make_mut(&mut plan.units[0].ends);
    ends.inputs.push(Input {
        name: "parts".into(),
        from: vec![(5, Source::Null), (6, Source::Null)],
    });
    ends.outputs.push(Output {
        name: "rest".into(),
        fd: 9,
        to: vec![Sink::Null],
    });
    plan.units[0].argv.extend([
        Arg::EachInput("parts".into()),
        Arg::One(Template::Parts(
            [Part::Text("--rest=".into()), Part::Out("rest".into())].into(),
        )),
        Arg::One(Template::Parts([Part::In("parts".into())].into())),
        Arg::One(Template::Parts(
            [Part::Value(NodeId(1)), Part::Text(" x".into())].into(),
        )),
    ]);
    let out = run(&plan, &|_| Some("$(a value) ${{ run.id }}")).unwrap();
    assert_eq!(
        out,
        "/dev/fd/5\n/dev/fd/6\n--rest=/dev/fd/9\n/dev/fd/5 /dev/fd/6\n$(a value) ${{ run.id }} x\n"
    );
    assert_eq!(
        error(&plan),
        (
            126,
            "there is no value of `first`: it has not succeeded".into()
        )
    );
    assert_eq!(
        run(&plan, &|_| Some("a\0b")),
        Err((126, "an argument holds a NUL byte".into()))
    );
}

#[test]
fn directories_and_programs() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path().canonicalize().unwrap();
    fs::create_dir_all(home.join("sub/bin")).unwrap();
    script(
        &home.join("sub/bin/tool"),
        "#!/bin/sh\necho tool of $PWD, $0\n",
        0o755,
    );
    let with = |command: &[&str], cwd: &str, path: &str| {
        let mut plan = plan(&home, command);
        settings(&mut plan).cwd = literal(cwd);
        plan.units[0].env = vec![("PATH".into(), literal(path))];
        plan
    };
    let shown = home.display();
    // With a slash: from the node's own directory.
    let out = run(&with(&["bin/tool"], "sub", "/no"), &no_values).unwrap();
    assert_eq!(out, format!("tool of {shown}/sub, bin/tool\n"));
    // Without: along the node's PATH, not ours.
    let out = run(
        &with(&["tool"], "/", &format!("/no:{shown}/sub/bin")),
        &no_values,
    )
    .unwrap();
    assert_eq!(out, format!("tool of /, {shown}/sub/bin/tool\n"));

    assert_eq!(
        error(&with(&["bin/tool"], "no", "")),
        (
            127,
            format!("no such directory: \"{shown}/no\" (its `cwd`)")
        )
    );
    assert_eq!(
        error(&with(&["tool"], "sub/bin/tool", "/no:")),
        (127, "no such file: \"tool\" (PATH is /no:)".into()),
    );
    assert_eq!(
        error(&with(&["/bin/true"], "sub/bin/tool", "")),
        (
            126,
            format!("not a directory: \"{shown}/sub/bin/tool\" (its `cwd`)")
        )
    );
}

fn script(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn why_it_could_not_start() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let shown = home.display();
    script(&home.join("bad"), "#!/no/such -x\n", 0o755);
    script(&home.join("windows"), "#!/bin/sh\r\nexit\r\n", 0o755);
    script(&home.join("chain"), "#!/etc/passwd\n", 0o755);
    script(&home.join("text"), "echo hello\n", 0o755);
    script(&home.join("empty"), "", 0o755);
    script(&home.join("plain"), "#!/bin/sh\n", 0o644);
    let why = |program: &str| error(&plan(home, &[program]));
    assert_eq!(why("/no/such"), (127, "no such file: \"/no/such\"".into()));
    assert_eq!(
        why("./such"),
        (127, format!("no such file: \"./such\" ({shown}/such)"))
    );
    assert_eq!(
        why("sotr"),
        (127, "no such file: \"sotr\"; did you mean \"sort\"?".into())
    );
    assert_eq!(why(""), (127, "no such file: \"\"".into()));
    let first_line = |name: &str| format!("which the first line of \"{shown}/{name}\" names");
    assert_eq!(
        why("./bad"),
        (
            127,
            format!(
                "bad interpreter: no such file: \"/no/such\", {}",
                first_line("bad")
            )
        )
    );
    assert_eq!(
        why("./windows"),
        (
            127,
            format!(
                "bad interpreter: \"/bin/sh\\r\": the lines of \"{shown}/windows\" end as on Windows (CR LF)"
            )
        )
    );
    assert_eq!(
        why("./chain"),
        (
            126,
            format!(
                "bad interpreter: not executable: \"/etc/passwd\", {}",
                first_line("chain")
            )
        )
    );
    assert_eq!(
        why("./text"),
        (
            126,
            format!(
                "not a program: \"{shown}/text\"; if it is a script, add a first line such as #!/bin/sh"
            )
        )
    );
    assert_eq!(
        why("./empty"),
        (126, format!("not a program: \"{shown}/empty\" is empty"))
    );
    assert_eq!(
        why("./plain"),
        (
            126,
            format!("not executable: \"{shown}/plain\" (chmod +x makes it so)")
        )
    );
    assert_eq!(why("/etc"), (126, "is a directory: \"/etc\"".into()));

    let mut plan = plan(home, &["/bin/true", &"x".repeat(131_072)]);
    assert_eq!(
        error(&plan),
        (
            126,
            "argument 1 is too long: 131,072 bytes; the kernel takes 131,071".into()
        )
    );
    plan.units[0].argv.truncate(1);
    plan.env = vec![("BIG".into(), "x".repeat(200_000))];
    assert_eq!(
        error(&plan),
        (
            126,
            "variable `BIG` is too long: 200,004 bytes; the kernel takes 131,071".into()
        )
    );
    plan.env = vec![];
    settings(&mut plan).limits = vec![(libc::RLIMIT_NOFILE, 1 << 40)];
    assert_eq!(
        error(&plan),
        (126, "limits.open_files = 1099511627776: operation not permitted (more than this user's hard limit?)".into())
    );
}

#[test]
fn a_program_that_is_still_being_written_is_waited_for() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("tool");
    fs::copy("/bin/echo", &file).unwrap();
    let plan = plan(home.path(), &["./tool", "here"]);
    let writer = OpenOptions::new()
        .append(true)
        .mode(0o755)
        .open(&file)
        .unwrap();
    let ended = thread::scope(|scope| {
        let run = scope.spawn(|| run(&plan, &no_values));
        // Not before it has been refused at least once; that it was is what the second half of this test shows.
        thread::sleep(Duration::from_millis(30));
        drop(writer);
        run.join().unwrap()
    });
    assert_eq!(ended, Ok("here\n".into()));

    let _writer = OpenOptions::new().append(true).open(&file).unwrap();
    let why = format!(
        "\"{}/tool\" is still open for writing somewhere",
        home.path().display()
    );
    assert_eq!(error(&plan), (126, why));
}

#[test]
fn a_program_that_has_moved_is_looked_up_again() {
    let home = tempfile::tempdir().unwrap();
    let (a, b) = (home.path().join("a"), home.path().join("b"));
    fs::create_dir(&a).unwrap();
    fs::create_dir(&b).unwrap();
    let mut plan = plan(home.path(), &["tool"]);
    plan.env = vec![(
        "PATH".into(),
        format!("{}:{}:/bin", a.display(), b.display()),
    )];
    let mut launcher = Launcher::new(&plan, "r1", origin()).unwrap();
    let mut start = || {
        let mut child = launcher
            .start(UnitId(0), as_attempt(1), &[], &no_values)
            .map_err(|error| error.to_string())?;
        until_it_ends(&child);
        Ok::<_, String>(child.try_wait().unwrap().unwrap().0.code())
    };
    assert!(start().is_err(), "what is not there is not remembered");
    script(&a.join("tool"), "#!/bin/sh\nexit 1\n", 0o755);
    assert_eq!(start(), Ok(Some(1)));
    script(&b.join("tool"), "#!/bin/sh\nexit 2\n", 0o755);
    fs::remove_file(a.join("tool")).unwrap();
    assert_eq!(start(), Ok(Some(2)));
}
