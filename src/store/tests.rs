//! The run directory on a real file system.
#![expect(clippy::unwrap_used, reason = "a test that fails may panic")]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::event::{Printer, Stream};
use crate::plan::UnitId;
use crate::store::{Error, FindError, RunDir, Runs};

const NOW: Duration = Duration::from_millis(1_795_531_989_290);

fn create(dir: &Path, at: Duration) -> Result<RunDir, Error> {
    RunDir::create(None, dir, b"[process.a]\n", at)
}

fn runs(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir.join(".procflow/runs")).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Every path below, with its mode.
fn tree(dir: &Path) -> Vec<(String, u32)> {
    let all = walkdir::WalkDir::new(dir).min_depth(1).sort_by_file_name();
    all.into_iter()
        .map(|entry| {
            let entry = entry.unwrap();
            let name = entry
                .path()
                .strip_prefix(dir)
                .unwrap()
                .display()
                .to_string();
            (name, entry.metadata().unwrap().mode() & 0o777)
        })
        .collect()
}

#[test]
fn a_run_leaves_what_the_manual_says_and_only_for_its_user() {
    let dir = tempfile::tempdir().unwrap();
    let run = create(dir.path(), NOW).unwrap();
    assert_eq!(run.id().as_str(), "20261124-145309-4a3d");
    run.create_events().unwrap();
    run.queues().unwrap();
    run.write_report(b"{}").unwrap();
    let mut logs = run.logs().unwrap();
    logs.append(UnitId(1).into(), || "sort".to_owned(), Stream::Out, b"a")
        .unwrap();
    logs.append(
        UnitId(1).into(),
        || panic!("asked twice"),
        Stream::Out,
        b"b",
    )
    .unwrap();
    logs.append(UnitId(2).into(), || "quiet".to_owned(), Stream::Out, b"")
        .unwrap();
    logs.append(
        UnitId(2).into(),
        || "x[a=../..]".to_owned(),
        Stream::Err,
        b"c",
    )
    .unwrap();
    logs.flush().unwrap();
    logs.close(UnitId(1)).unwrap();
    // A second try adds to the first.
    logs.append(
        UnitId(1).into(),
        || panic!("asked twice"),
        Stream::Out,
        b"c",
    )
    .unwrap();
    logs.flush().unwrap();
    let below = |name: &str| format!(".procflow/runs/20261124-145309-4a3d{name}");
    let expected = [
        (".procflow".to_owned(), 0o700),
        (".procflow/.gitignore".to_owned(), 0o600),
        (".procflow/runs".to_owned(), 0o700),
        (below(""), 0o700),
        (below("/events.jsonl"), 0o600),
        (below("/logs"), 0o700),
        (below("/logs/sort.out"), 0o600),
        (below("/logs/x[a=..%2F..].err"), 0o600),
        (below("/pipeline.toml"), 0o600),
        (below("/queues"), 0o700),
        (below("/report.json"), 0o600),
    ];
    assert_eq!(tree(dir.path()), expected);
    assert_eq!(
        fs::read_to_string(run.path().join("logs/sort.out")).unwrap(),
        "abc"
    );
    assert_eq!(
        fs::read_to_string(run.path().join("pipeline.toml")).unwrap(),
        "[process.a]\n"
    );
    assert_eq!(
        fs::read_to_string(dir.path().join(".procflow/.gitignore")).unwrap(),
        "*\n"
    );
}

/// Processes that have the same number one after the other share a log; other workers of the pool have others.
#[test]
fn workers_of_a_pool_have_logs_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let run = create(dir.path(), NOW).unwrap();
    let mut logs = run.logs().unwrap();
    let long = "x".repeat(220);
    let cut = |label: &str| crate::store::file_name(label).into_owned();
    for (unit, name) in [(1, "count"), (2, &long)] {
        for (worker, text) in [(Some(0), "a"), (Some(2), "b"), (Some(0), "c"), (None, "d")] {
            let unit = UnitId(unit);
            let label = || match worker {
                Some(worker) => format!("{name}.{worker}"),
                None => name.to_owned(),
            };
            let printer = Printer { unit, worker };
            logs.append(printer, label, Stream::Err, text.as_bytes())
                .unwrap();
            logs.flush().unwrap();
        }
        logs.close(UnitId(unit)).unwrap();
    }
    let mut found: Vec<_> = fs::read_dir(run.path().join("logs"))
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, fs::read_to_string(path).unwrap())
        })
        .collect();
    found.sort();
    let expected = [
        ("count.0.err".to_owned(), "ac"),
        ("count.2.err".to_owned(), "b"),
        ("count.err".to_owned(), "d"),
        (format!("{}.0.err", cut(&long)), "ac"),
        (format!("{}.2.err", cut(&long)), "b"),
        (format!("{}.err", cut(&long)), "d"),
    ]
    .map(|(name, text)| (name, text.to_owned()));
    let mut expected = expected.to_vec();
    expected.sort();
    assert_eq!(found, expected);
}

#[test]
fn more_logs_than_may_stay_open_are_all_whole() {
    let dir = tempfile::tempdir().unwrap();
    let run = create(dir.path(), NOW).unwrap();
    let mut logs = run.logs().unwrap();
    for round in 0..3 {
        for unit in 0..300 {
            let text = format!("{unit}.{round}\n");
            logs.append(
                UnitId(unit).into(),
                || format!("n{unit}"),
                Stream::Err,
                text.as_bytes(),
            )
            .unwrap();
        }
        logs.flush().unwrap();
    }
    for unit in 0..300 {
        let log = fs::read_to_string(run.path().join(format!("logs/n{unit}.err"))).unwrap();
        assert_eq!(log, format!("{unit}.0\n{unit}.1\n{unit}.2\n"));
    }
}

#[test]
fn runs_that_begin_at_once_have_names_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let made: Vec<_> = (0..5)
        .map(|_| create(dir.path(), NOW).unwrap().id().to_string())
        .collect();
    assert_eq!(made, runs(dir.path()));
    assert_eq!(made.len(), 5);
}

#[test]
fn the_last_twenty_are_kept_and_those_that_live() {
    let dir = tempfile::tempdir().unwrap();
    let live = create(dir.path(), NOW).unwrap();
    fs::create_dir(dir.path().join(".procflow/runs/mine")).unwrap();
    for i in 1..=30 {
        let run = create(dir.path(), NOW + Duration::from_secs(i)).unwrap();
        run.queues().unwrap();
        let mut logs = run.logs().unwrap();
        logs.append(UnitId(0).into(), || "a".to_owned(), Stream::Out, b"x")
            .unwrap();
        logs.close(UnitId(0)).unwrap();
        symlink(dir.path(), run.path().join("queues/out")).unwrap();
        run.prune();
    }
    let left = runs(dir.path());
    // 20, the one that lives, and what is no run.
    assert_eq!(left.len(), 22);
    assert_eq!(left.first().map(String::as_str), Some(live.id().as_str()));
    assert_eq!(left.last().map(String::as_str), Some("mine"));
    let id = live.id().to_string();
    drop(live);
    create(dir.path(), NOW + Duration::from_secs(31))
        .unwrap()
        .prune();
    assert!(!runs(dir.path()).contains(&id));
}

#[test]
fn a_run_prunes_when_there_is_enough_to_prune() {
    let dir = tempfile::tempdir().unwrap();
    let left = |i| {
        let run = create(dir.path(), NOW + Duration::from_secs(i)).unwrap();
        if let Some(pruning) = Arc::new(run).prune_meanwhile() {
            pruning.join().unwrap();
        }
        runs(dir.path()).len()
    };
    let left: Vec<_> = (1..=30).map(left).skip(20).collect();
    assert_eq!(left, [21, 22, 23, 24, 20, 21, 22, 23, 24, 20]);
}

#[test]
fn what_others_could_change_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join(".procflow");
    let message = || create(dir.path(), NOW).unwrap_err().to_string();

    fs::create_dir(dir.path().join("elsewhere")).unwrap();
    symlink("elsewhere", &state).unwrap();
    let way_out = "; name another directory with --state-dir";
    assert_eq!(
        message(),
        format!("{} is a symbolic link{way_out}", state.display())
    );
    // Who names it means it.
    RunDir::create(Some(&state), dir.path(), b"", NOW).unwrap();
    fs::remove_file(&state).unwrap();

    fs::create_dir(&state).unwrap();
    fs::set_permissions(&state, PermissionsExt::from_mode(0o775)).unwrap();
    assert_eq!(
        message(),
        format!(
            "{} can be written by others (mode 775){way_out}",
            state.display()
        )
    );

    fs::set_permissions(&state, PermissionsExt::from_mode(0o755)).unwrap();
    symlink(dir.path().join("elsewhere"), state.join("runs")).unwrap();
    assert!(
        message().starts_with(&format!(
            "cannot open {}/runs: not a directory",
            state.display()
        )),
        "{}",
        message()
    );
    fs::remove_file(state.join("runs")).unwrap();

    let run = create(dir.path(), NOW).unwrap();
    let victim = dir.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    fs::create_dir(run.path().join("logs")).unwrap();
    for name in ["logs/a.out", "events.jsonl", ".report.json"] {
        symlink(&victim, run.path().join(name)).unwrap();
    }
    fs::hard_link(&victim, run.path().join("logs/b.out")).unwrap();
    let mut logs = run.logs().unwrap();
    for (unit, name) in [(0, "a"), (1, "b")] {
        logs.append(UnitId(unit).into(), || name.to_owned(), Stream::Out, b"x")
            .unwrap();
        assert!(logs.flush().is_err());
    }
    assert!(run.create_events().is_err());
    assert!(run.write_report(b"{}").is_err());
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
}

#[test]
fn where_nothing_can_be_made_the_way_out_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let message = create(&file, NOW).unwrap_err().to_string();
    let expected = format!(
        "cannot open {}/.procflow: not a directory; name a directory for runs with --state-dir",
        file.display()
    );
    assert_eq!(message, expected);
}

#[test]
fn a_state_directory_of_ones_own_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("a/b");
    let run = RunDir::create(Some(&state), Path::new("/nonexistent"), b"", NOW).unwrap();
    assert_eq!(run.path(), state.join("runs/20261124-145309-4a3d"));
    assert_eq!(fs::metadata(&state).unwrap().mode() & 0o777, 0o700);
}

#[test]
fn a_full_disk_is_told() {
    // /dev/full takes the place of a disk; the log is made by hand, since the store makes its own.
    let dir = tempfile::tempdir().unwrap();
    let run = create(dir.path(), NOW).unwrap();
    let mut full = fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let error = std::io::Write::write_all(&mut full, b"x").unwrap_err();
    let message = Error::io("write", run.path().join("logs/a.out"), error).to_string();
    assert!(
        message.ends_with(
            "no space left on device; make room, or name another place with --state-dir"
        )
    );
}

/// The first line of a run's events.
fn begin(run: &RunDir, file: &str) {
    use std::io::Write;
    let line = format!(
        r#"{{"event":"run_started","t":0.0,"version":1,"run":"{}","pipeline":"words","file":"{file}","time":"2026-11-24T14:53:09.290Z","pid":100,"jobs":4,"of a later version":1}}"#,
        run.id()
    );
    let mut events = run.create_events().unwrap();
    events.write_all(line.as_bytes()).unwrap();
    events.write_all(b"\n").unwrap();
}

#[test]
fn runs_are_found_by_what_tells_them_apart() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join(".procflow");
    assert!(matches!(
        Runs::of(&state).unwrap().find("last"),
        Err(FindError::NoRuns { .. })
    ));
    let file = dir.path().join("p.toml");
    fs::write(&file, "").unwrap();
    symlink("p.toml", dir.path().join("q.toml")).unwrap();
    let first = create(dir.path(), NOW).unwrap();
    begin(&first, file.to_str().unwrap());
    let second = create(dir.path(), NOW + Duration::from_secs(60)).unwrap();
    begin(&second, "/other.toml");
    drop(first);

    let runs = Runs::of(&state).unwrap();
    let listing = runs.list().unwrap();
    let found: Vec<_> = listing
        .runs
        .iter()
        .map(|(run, head)| (run.id().as_str(), run.is_live(), head.pid))
        .collect();
    assert_eq!(
        found,
        [
            ("20261124-145409-4a3d", true, 100),
            ("20261124-145309-4a3d", false, 100)
        ]
    );
    assert_eq!(listing.runs[0].1.started, NOW);
    assert!(listing.strange.is_empty());

    let id = |word: &str| runs.find(word).map(|run| run.id().to_string());
    assert_eq!(id("last").unwrap(), "20261124-145409-4a3d");
    assert_eq!(id("20261124-1453").unwrap(), "20261124-145309-4a3d");
    let told = |word: &str| id(word).unwrap_err().to_string();
    let shown = state.join("runs").display().to_string();
    assert_eq!(
        told("2026"),
        "`2026` begins the names of 2 runs, 20261124-145409-4a3d, 20261124-145309-4a3d; say more of it"
    );
    assert_eq!(
        told("20261124-145309-4a3e"),
        format!("no run `20261124-145309-4a3e` in {shown}; did you mean `20261124-145309-4a3d`?")
    );
    assert_eq!(
        told(""),
        format!("no run `` in {shown}; `procflow runs` lists them")
    );
    for name in ["p.toml", "q.toml"] {
        let last = runs.last_of(&dir.path().join(name)).unwrap();
        assert_eq!(last.id().as_str(), "20261124-145309-4a3d", "{name}");
    }
    assert!(runs.last_of(&dir.path().join("r.toml")).is_err());
}

#[test]
fn what_is_no_run_is_named_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    for second in 0..3 {
        drop(create(dir.path(), NOW + Duration::from_secs(second)).unwrap());
    }
    let below = |name: &str| dir.path().join(".procflow/runs").join(name);
    fs::write(below("notes"), "").unwrap();
    fs::write(below("20261124-145309-4a3d/events.jsonl"), "{}\n").unwrap();
    symlink("/etc/passwd", below("20261124-145310-4a3d/events.jsonl")).unwrap();
    symlink("/etc", below("20261124-145312-4a3d")).unwrap();
    let runs = Runs::of(&dir.path().join(".procflow")).unwrap();
    let listing = runs.list().unwrap();
    assert!(listing.runs.is_empty());
    let strange: Vec<_> = listing
        .strange
        .iter()
        .map(|(path, why)| (path.file_name().unwrap().to_str().unwrap(), why.as_str()))
        .collect();
    assert_eq!(
        strange,
        [
            ("notes", "is no run"),
            ("20261124-145312-4a3d", "cannot be opened: Not a directory"),
            ("20261124-145311-4a3d", "has no events.jsonl"),
            (
                "20261124-145310-4a3d",
                "has an events.jsonl that cannot be read: too many levels of symbolic links"
            ),
            (
                "20261124-145309-4a3d",
                "has an events.jsonl that does not begin as it should"
            ),
        ]
    );
    assert!(runs.prune(0).is_err());
    assert!(below("20261124-145312-4a3d").is_symlink());
    assert!(below("notes").exists());
}

#[test]
fn pruning_spares_what_lives_and_says_what_went() {
    let dir = tempfile::tempdir().unwrap();
    let live = create(dir.path(), NOW).unwrap();
    for second in 1..4 {
        drop(create(dir.path(), NOW + Duration::from_secs(second)).unwrap());
    }
    let pruned = Runs::of(&dir.path().join(".procflow")).unwrap().prune(1);
    assert_eq!(
        pruned.unwrap(),
        ["20261124-145311-4a3d", "20261124-145310-4a3d"]
    );
    assert_eq!(
        runs(dir.path()),
        [live.id().as_str(), "20261124-145312-4a3d"]
    );
}

/// Who looks whether a run lives, and who removes all that don't, never make a new one fail.
#[test]
fn a_run_begins_whoever_looks_and_prunes_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    drop(create(dir.path(), NOW).unwrap());
    let state = dir.path().join(".procflow");
    let over = std::sync::atomic::AtomicBool::new(false);
    let ordering = std::sync::atomic::Ordering::Relaxed;
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(ordering) {
                    let runs = Runs::of(&state).unwrap();
                    for (run, _) in runs.list().unwrap().runs {
                        run.is_live();
                    }
                    let _ = runs.prune(0);
                }
            });
        }
        let made: Vec<_> = (0..500)
            .map(|_| create(dir.path(), NOW).map(|run| run.path().join("pipeline.toml").exists()))
            .collect();
        over.store(true, ordering);
        assert!(made.into_iter().all(|made| made.unwrap()));
    });
}
