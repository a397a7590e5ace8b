//! The run directory on a real file system.
#![expect(clippy::unwrap_used, reason = "a test that fails may panic")]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::event::{Printer, Stream};
use crate::plan::UnitId;
use crate::store::{Error, RunDir};

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
        (below("/logs/x[a=.._..]~2.err"), 0o600),
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
    let cut = "x".repeat(200);
    let expected = [
        ("count.0.err".to_owned(), "ac"),
        ("count.2.err".to_owned(), "b"),
        ("count.err".to_owned(), "d"),
        (format!("{cut}~2.0.err"), "ac"),
        (format!("{cut}~2.2.err"), "b"),
        (format!("{cut}~2.err"), "d"),
    ]
    .map(|(name, text)| (name, text.to_owned()));
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
