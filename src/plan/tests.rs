//! The rules of the file, each with its whole message; what a plan comes out as.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that can't go on fails"
)]

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use crate::diagnostic::{Diagnostic, Mark};
use crate::plan::template::Template;
use crate::plan::{
    Arg, Feed, Order, Origin, Overrides, Plan, QueueId, QueueKind, Role, Sink, Source, Tasks,
    UnitId, build,
};

/// A pipeline in `/p`, with `HOME=/root` and `CI_TOKEN=tok3n` inherited.
fn plan_with(
    text: &str,
    set: &[(&str, &str)],
    only: &[&str],
    skip: &[&str],
) -> (Option<Plan>, Vec<Diagnostic>) {
    let spec = crate::spec::read(text).unwrap_or_else(|wrong| panic!("{:#?}", wrong.problems));
    let origin = Origin {
        dir: "/p".into(),
        name: "test".to_owned(),
    };
    let env = |name: &str| match name {
        "HOME" => Some("/root".to_owned()),
        "CI_TOKEN" => Some("tok3n".to_owned()),
        _ => None,
    };
    let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let overrides = Overrides {
        set: set
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        only: owned(only),
        skip: owned(skip),
        jobs: 4,
        env: &env,
        memory: &|| Some(4 << 30),
        ..Overrides::none()
    };
    build(spec, &origin, &overrides)
}

/// Problems as text: severity, message, places with their words, help.
fn text(problems: &[Diagnostic]) -> String {
    let mut text = String::new();
    for problem in problems {
        let _ = writeln!(text, "{}: {}", problem.severity, problem.message);
        for label in &problem.labels {
            let place = match &label.place {
                Mark::Key(place) => format!("key {place}"),
                Mark::Value(place) => place.to_string(),
                Mark::Within(place, words) => format!("{place} at {words}"),
                Mark::Bytes(range) => format!("{range:?}"),
            };
            let _ = writeln!(
                text,
                "  {place}{}{}",
                if label.text.is_empty() { "" } else { ": " },
                label.text
            );
        }
        if let Some(help) = &problem.help {
            let _ = writeln!(text, "  = {help}");
        }
    }
    text
}

/// `rules.txt` holds cases: a title with arguments, a pipeline, `---`, all that is said of it. With `UPDATE_EXPECT=1` in
/// the environment it is written anew, to be read before it is committed.
#[test]
fn every_rule_says_what_is_wrong_where_and_what_to_do() {
    let expected = include_str!("rules.txt");
    let mut actual = String::new();
    for case in expected.split("\n## ") {
        let case = case.trim_start_matches("## ");
        let (title, rest) = case.split_once('\n').unwrap();
        let (toml, _) = rest.split_once("---\n").unwrap();
        let words: Vec<&str> = title.split_whitespace().collect();
        let after = |flag: &str| {
            words
                .windows(2)
                .filter(|pair| pair[0] == flag)
                .map(|pair| pair[1])
                .collect::<Vec<_>>()
        };
        let set: Vec<(&str, &str)> = after("--set")
            .iter()
            .map(|word| word.split_once('=').unwrap())
            .collect();
        let (plan, problems) = plan_with(toml, &set, &after("--only"), &after("--skip"));
        let _ = write!(
            actual,
            "## {title}\n{toml}---\n{}{}\n",
            text(&problems),
            if plan.is_some() { "ok\n" } else { "" }
        );
    }
    let actual = actual.trim_end().to_owned() + "\n";
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(
            concat!(env!("CARGO_MANIFEST_DIR"), "/src/plan/rules.txt"),
            &actual,
        )
        .unwrap();
    } else {
        assert_eq!(actual, expected);
    }
}

/// Nodes with three waits each, as a spec.
fn wide(nodes: u32) -> crate::spec::Spec {
    let mut spec = crate::spec::Spec::default();
    for i in 0..nodes {
        let before = (1..=3)
            .filter_map(|k| i.checked_sub(k * 7))
            .map(|node| crate::spec::After {
                node: format!("n{node}"),
                state: Some(crate::spec::AfterState::Succeeded),
            });
        let process = crate::spec::Process {
            command: Some(vec!["true".to_owned(), i.to_string()]),
            after: before.collect(),
            ..Default::default()
        };
        spec.process.insert(format!("n{i}"), process);
    }
    spec
}

/// Run with `cargo test --release --lib plan::tests::speed -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn speed() {
    let resident = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = |key: &str| {
            status
                .lines()
                .find(|line| line.starts_with(key))
                .unwrap_or_default()
                .split_whitespace()
                .nth(1)
                .unwrap_or("0")
                .parse::<u64>()
                .unwrap()
        };
        (line("VmRSS:") / 1024, line("VmHWM:") / 1024)
    };
    for round in 0..3 {
        for nodes in [20_000, 100_000] {
            let spec = wide(nodes);
            let before = resident();
            let start = std::time::Instant::now();
            let (plan, problems) = build(
                spec,
                &Origin {
                    dir: "/p".into(),
                    name: "wide".to_owned(),
                },
                &Overrides::none(),
            );
            let took = start.elapsed();
            assert!(
                problems.is_empty()
                    && plan
                        .as_ref()
                        .is_some_and(|plan| plan.nodes.len() == nodes as usize)
            );
            let after = resident();
            let _ = writeln!(
                std::io::stderr(),
                "round {round}: {nodes} nodes in {took:?}, {:.0} ns each; resident {} MiB before, {} after, peak {}",
                took.as_nanos() as f64 / f64::from(nodes),
                before.0,
                after.0,
                after.1
            );
        }
    }
}

fn plan(toml: &str) -> Plan {
    let (plan, problems) = plan_with(toml, &[], &[], &[]);
    plan.unwrap_or_else(|| panic!("{}", text(&problems)))
}

/// Groups as "slots memory: units | queues(kind)".
fn groups(plan: &Plan) -> Vec<String> {
    let name = |unit: &UnitId| &*plan.nodes[plan.units[unit.index()].node.index()].name;
    plan.groups
        .iter()
        .map(|group| {
            let units: Vec<&str> = group.units.iter().map(name).collect();
            let queues = group.queues.iter().map(|queue| {
                let queue = &plan.queues[queue.index()];
                let kind = match queue.kind {
                    QueueKind::Direct => "direct",
                    QueueKind::Relayed => "relayed",
                    QueueKind::Stored => "stored",
                };
                format!(
                    " | {} {kind}{}",
                    queue.name,
                    if queue.spills() { " spills" } else { "" }
                )
            });
            format!(
                "{} {}: {}{}",
                group.slots,
                group.memory,
                units.join(" "),
                queues.collect::<String>()
            )
        })
        .collect()
}

/// What a unit gets as arguments, with what is left for the run as the file says it.
fn argv(plan: &Plan, node: &str) -> Vec<String> {
    let index = plan
        .nodes
        .iter()
        .position(|known| &*known.name == node)
        .unwrap();
    let show = |template: &Template| {
        template
            .display(&|node| &plan.nodes[node.index()].name)
            .to_string()
    };
    plan.units[plan.nodes[index].units.start as usize]
        .argv
        .iter()
        .map(|argument| match argument {
            Arg::One(template) => show(template),
            Arg::EachInput(name) => format!("each {name}"),
            Arg::EachTask => "each task".to_owned(),
        })
        .collect()
}

#[test]
fn kinds_of_queues_and_slots_of_groups() {
    let plan = plan(
        r#"
        [queue.looked]
        max_record = 100
        [queue.all]
        deliver = "copy"
        [process.late]
        command = ["x"]
        after = ["end"]
        cpus = 0
        [process.sink]
        command = ["x"]
        stdin = "plain"
        cpus = 3
        memory = 5
        [process.source]
        command = ["x"]
        stdout = ["plain", "log"]
        memory = 6
        [process.end]
        command = ["x"]
        stdin = "looked"
        [process.begin]
        command = ["x"]
        stdout = "looked"
        [process.w1]
        command = ["x"]
        stdout = "all"
        [process.w2]
        command = ["x"]
        stdout = "all"
        [process.r1]
        command = ["x"]
        stdin = "all"
        [process.r2]
        command = ["x"]
        stdin = "all"
        [process.alone]
        command = ["x"]
        cpus = 4
        "#,
    );
    assert_eq!(
        groups(&plan),
        [
            "4 11: source sink | plain direct",
            "1 0: begin end | looked relayed",
            "0 0: late",
            "1 0: w1 w2 r1 r2 | all relayed",
            "4 0: alone",
        ]
    );
}

#[test]
fn what_splits_and_meets_again_spills_and_nothing_else() {
    let plan = plan(
        r#"
        [process.a]
        command = ["x"]
        stdout = "in"
        [process.split]
        command = ["x"]
        stdin = "in"
        stdout = ["l", "r", "side"]
        [process.left]
        command = ["x"]
        stdin = "l"
        stdout = "joined"
        [process.right]
        command = ["x"]
        stdin = "r"
        stdout = "joined"
        [process.side]
        command = ["x"]
        stdin = "side"
        [process.end]
        command = ["x"]
        stdin = "joined"
        "#,
    );
    assert_eq!(
        groups(&plan),
        [
            "1 0: a split left right side end | in direct | l relayed spills | r relayed spills | side direct | joined relayed spills"
        ]
    );
}

#[test]
fn the_later_environment_wins_and_secrets_are_known() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(
        dir.path().join("a.env"),
        "# first\nA=file\nB=\"file two\"\n",
    )
    .unwrap();
    std::fs::write(dir.path().join("n.env"), "C=node-file\nD=node-file\n").unwrap();
    let spec = crate::spec::read(
        r#"
        env_file = "a.env"
        [params]
        my-key = { default = "hush hush", secret = true }
        plain = "p"
        [env]
        B = "${{ env.A }} and ${{ env.HOME }}"
        AUTH = "Bearer ${{ params.my-key }}"
        COPY = "<${{ env.AUTH }}>"
        [process.x]
        command = ["${{ env.D }}", "${{ env.B }}", "$${{ ${{ params.plain }}${{ run.id }}!", "${{ env.PARAM_PLAIN }}"]
        env_file = ["n.env"]
        env = { D = "own", TOKEN = "${{ env.AUTH }}", WHERE = "${{ in.stdin }}" }
        "#,
    )
    .unwrap();
    let overrides = Overrides {
        env: &|name| (name == "HOME").then(|| "/root".to_owned()),
        ..Overrides::none()
    };
    let (plan, problems) = build(
        spec,
        &Origin {
            dir: dir.path().to_owned(),
            name: "e".to_owned(),
        },
        &overrides,
    );
    assert_eq!(text(&problems), "");
    let plan = plan.unwrap();
    let here = dir.path().to_str().unwrap();
    let env: Vec<(&str, &str)> = plan
        .env
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    assert_eq!(
        env,
        [
            ("A", "file"),
            ("B", "file and /root"),
            ("AUTH", "Bearer hush hush"),
            ("COPY", "<Bearer hush hush>"),
            ("PARAM_MY_KEY", "hush hush"),
            ("PARAM_PLAIN", "p"),
            ("PIPELINE_DIR", here),
        ]
    );
    assert_eq!(
        plan.secrets,
        ["<Bearer hush hush>", "Bearer hush hush", "hush hush"]
    );
    assert_eq!(
        argv(&plan, "x"),
        ["own", "file and /root", "${{ p${{ run.id }}!", "p"]
    );
    let own: Vec<String> = plan.units[0]
        .env
        .iter()
        .map(|(name, value)| format!("{name}={}", value.display(&|_| "")))
        .collect();
    assert_eq!(
        own,
        [
            "C=node-file",
            "D=node-file",
            "D=own",
            "TOKEN=Bearer hush hush",
            "WHERE=${{ in.stdin }}"
        ]
    );
}

#[test]
fn problems_show_no_secret() {
    let said = [
        "stdout = { file = 'f-${{ params.token }}' }\n[process.y]\ncommand = ['y']\nstdout = { file = 'f-${{ params.token }}' }",
        "stdout = 'q-${{ params.token }}'\n[process.y]\ncommand = ['y']\nstdin = 'q-${{ params.token }}'",
        "stdout = '/${{ params.token }}'",
        "env_file = '${{ params.token }}'",
        "inputs = { in = '${{ params.token }}*' }",
        "reads = '${{ params.token }}['",
    ];
    for ends in said {
        let file = format!(
            "[params]\ntoken = {{ secret = true }}\n[process.x]\ncommand = ['x']\n{ends}\n"
        );
        let (plan, problems) = plan_with(&file, &[("token", "hush-hush")], &[], &[]);
        assert!(plan.is_none(), "{file}");
        let text = text(&problems);
        assert!(!text.contains("hush"), "{text}");
    }
}

#[test]
fn a_line_that_is_no_dotenv_is_named_without_its_value() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.env"), "A=1\n\nTOKEN=two words\n").unwrap();
    let spec = crate::spec::read("env_file = 'a.env'\n[process.x]\ncommand = ['x']").unwrap();
    let (_, problems) = build(
        spec,
        &Origin {
            dir: dir.path().to_owned(),
            name: "e".to_owned(),
        },
        &Overrides::none(),
    );
    let expected = format!(
        "error: {}/a.env:3: not a line of a dotenv file: `TOKEN...`\n  env_file\n  = lines are `NAME=value`; a value with spaces is quoted: `NAME=\"two words\"`\n",
        dir.path().display()
    );
    assert_eq!(text(&problems), expected);
}

#[test]
fn what_is_put_in_is_not_read_again() {
    let (plan, problems) = plan_with(
        "[params]\na = '${{ params.b }}'\nb = '$'\n[process.x]\ncommand = ['${{ params.a }}', '${{params.b}}{{ params.a }}', '$$${{ params.b }}']",
        &[],
        &[],
        &[],
    );
    assert_eq!(text(&problems), "");
    assert_eq!(
        argv(&plan.unwrap(), "x"),
        ["${{ params.b }}", "${{ params.a }}", "$${{ params.b }}"]
    );
}

#[test]
fn descriptors_and_arguments_of_several_inputs() {
    let plan = plan(
        r#"
        [process.join]
        command = ["paste", "${{ in.parts }}", "${{ in.4 }}", "--to=${{ out.rest }}"]
        inputs = { parts = "sorted-*", 4 = { file = "four" } }
        outputs = { rest = "rest", 3 = "null" }
        [process.a]
        command = ["x"]
        stdout = "sorted-b"
        [process.b]
        command = ["x"]
        stdout = "sorted-a"
        [process.c]
        command = ["x"]
        stdin = "rest"
        "#,
    );
    assert_eq!(
        argv(&plan, "join"),
        ["paste", "each parts", "${{ in.4 }}", "--to=${{ out.rest }}"]
    );
    let inputs: Vec<(&str, Vec<u32>)> = plan.units[0]
        .ends
        .inputs
        .iter()
        .map(|input| (&*input.name, input.from.iter().map(|(fd, _)| *fd).collect()))
        .collect();
    assert_eq!(
        inputs,
        [("stdin", vec![0]), ("parts", vec![5, 6]), ("4", vec![4])]
    );
    let outputs: Vec<(&str, u32)> = plan.units[0]
        .ends
        .outputs
        .iter()
        .map(|output| (&*output.name, output.fd))
        .collect();
    assert_eq!(
        outputs,
        [("stdout", 1), ("stderr", 2), ("rest", 7), ("3", 3)]
    );
    // In the file's order of their writers.
    assert_eq!(
        plan.queues
            .iter()
            .map(|queue| &*queue.name)
            .collect::<Vec<_>>(),
        ["sorted-b", "sorted-a", "rest"]
    );
}

const SELECT: &str = r#"
    [process.unneeded]
    command = ["x"]
    [process.first]
    command = ["x"]
    stdout = "value"
    [process.writer]
    command = ["x", "${{ value.first }}"]
    after = ["first"]
    stdout = "q"
    [process.reader]
    command = ["x"]
    stdin = "q"
    [process.last]
    command = ["x"]
    after = ["reader"]
    tags = ["end"]
    [process.other]
    command = ["x"]
    stdout = "p"
    [process.other-reader]
    command = ["x"]
    stdin = "p"
"#;

#[test]
fn only_keeps_what_is_needed_and_numbers_it_anew() {
    let (plan, _) = plan_with(SELECT, &[], &["@end"], &[]);
    let plan = plan.unwrap();
    assert_eq!(
        groups(&plan),
        ["1 0: first", "1 0: writer reader | q direct", "1 0: last"]
    );
    assert_eq!(argv(&plan, "writer"), ["x", "${{ value.first }}"]);
    for (index, node) in plan.nodes.iter().enumerate() {
        assert_eq!(node.units, index as u32..index as u32 + 1);
        assert_eq!(plan.units[index].node.index(), index);
        assert!(
            plan.groups[plan.units[index].group.index()]
                .units
                .contains(&UnitId(index as u32))
        );
    }
    // A writer needs its readers, too: its group starts as a whole.
    let (plan, _) = plan_with(SELECT, &[], &["writer"], &[]);
    assert_eq!(
        groups(&plan.unwrap()),
        ["1 0: first", "1 0: writer reader | q direct"]
    );
    let (plan, _) = plan_with(SELECT, &[], &["other-reader", "unneeded"], &[]);
    assert_eq!(
        groups(&plan.unwrap()),
        ["1 0: unneeded", "1 0: other other-reader | p direct"]
    );
}

/// Nothing about a wrong file of any size may take long: not one big cycle, not many small ones, not many typos.
#[test]
fn large_wrong_files_are_answered_too() {
    let wait = |node: String| {
        vec![crate::spec::After {
            node,
            state: Some(crate::spec::AfterState::Succeeded),
        }]
    };
    let problems = |wait_of: &dyn Fn(u32) -> String| {
        let mut spec = wide(5000);
        for (index, process) in (0..).zip(spec.process.values_mut()) {
            process.after = wait(wait_of(index));
        }
        build(
            spec,
            &Origin {
                dir: "/p".into(),
                name: "x".to_owned(),
            },
            &Overrides::none(),
        )
        .1
    };
    let circle = problems(&|index| format!("n{}", (index + 1) % 5000));
    assert_eq!(circle.len(), 1);
    assert_eq!(
        circle[0].message,
        "cycle: n0 → n4999 → n4998 → n4997 → n4996 → n4995 → n4994 → ... (4991 more) → n2 → n1 → n0"
    );
    assert_eq!(problems(&|index| format!("n{}", index ^ 1)).len(), 100);
    assert_eq!(problems(&|index| format!("m{index}")).len(), 5000);
}

#[test]
fn a_skipped_node_stays_and_holds_nothing() {
    let (plan, _) = plan_with(SELECT, &[], &[], &["first", "reader"]);
    let plan = plan.unwrap();
    assert_eq!(
        groups(&plan),
        [
            "1 0: unneeded",
            "0 0: first",
            "1 0: writer reader | q direct",
            "1 0: last",
            "1 0: other other-reader | p direct"
        ]
    );
    let skipped: Vec<&str> = plan
        .nodes
        .iter()
        .filter(|node| node.is_left_out())
        .map(|node| &*node.name)
        .collect();
    assert_eq!(skipped, ["first", "reader"]);
}

#[test]
fn settings_come_from_the_node_then_the_defaults_then_procflow() {
    let plan = plan(
        r#"
        [defaults]
        timeout = "1m"
        shell = ["bash", "-c"]
        limits = { memory = 100, open_files = 10 }
        retries = 2
        nice = 3
        [process.a]
        script = "true"
        [process.b]
        command = ["x"]
        timeout = "2s"
        limits = { memory = 7, cpu_time = "1500ms" }
        retries = { max = 1, delay = "2m" }
        nice = 0
        [process.c]
        command = ["x"]
        timeout = "1m"
        "#,
    );
    assert_eq!(argv(&plan, "a"), ["bash", "-c", "true"]);
    let settings: Vec<_> = plan.units.iter().map(|unit| &unit.settings).collect();
    assert_eq!(settings[0].timeout, Some(Duration::from_secs(60)));
    assert_eq!(
        (
            settings[0].retry.max,
            settings[0].retry.delay,
            settings[0].retry.max_delay
        ),
        (2, Duration::from_secs(1), Duration::from_secs(60))
    );
    assert_eq!(settings[1].timeout, Some(Duration::from_secs(2)));
    assert_eq!(
        (
            settings[1].retry.max,
            settings[1].retry.delay,
            settings[1].retry.max_delay
        ),
        (1, Duration::from_secs(120), Duration::from_secs(120))
    );
    assert_eq!(
        settings[1].limits,
        [
            (libc::RLIMIT_AS, 7),
            (libc::RLIMIT_CPU, 2),
            (libc::RLIMIT_NOFILE, 10)
        ]
    );
    assert_eq!((settings[0].nice, settings[1].nice), (3, 0));
    assert_eq!(settings[2], settings[0]);
    assert!(
        Arc::ptr_eq(&plan.units[0].ends, &plan.units[2].ends),
        "default ends are shared"
    );
}

/// Units as "role: inputs → outputs", queues as "name kind: writers → readers".
fn drawn(plan: &Plan) -> String {
    let mut text = String::new();
    let unit = |id: &UnitId| {
        let unit = plan.unit(*id);
        let name = &plan.node(unit.node).name;
        match unit.role {
            Role::Process => name.to_string(),
            Role::Worker(worker) => format!("{name}/{worker}"),
            Role::Pool => format!("{name}/pool"),
            Role::Gather => format!("{name}/gather"),
        }
    };
    let show = |template: &Template| template.display(&|_| "").to_string();
    let queue = |id: &QueueId| plan.queue(*id).name.to_string();
    for (index, said) in plan.units.iter().enumerate() {
        let mut ends = Vec::new();
        for (fd, source) in said.ends.inputs.iter().flat_map(|input| &input.from) {
            match source {
                Source::Queue(id) => ends.push(format!("{fd}<{}", queue(id))),
                Source::File(path) => ends.push(format!("{fd}<{{{}}}", show(path))),
                Source::Null | Source::Inherit | Source::Text(_) => {}
            }
        }
        for output in &said.ends.outputs {
            for sink in &output.to {
                match sink {
                    Sink::Queue(id) => ends.push(format!("{}>{}", output.fd, queue(id))),
                    Sink::File { path, .. } => {
                        ends.push(format!("{}>{{{}}}", output.fd, show(path)))
                    }
                    Sink::Log | Sink::Null | Sink::Inherit | Sink::Value | Sink::Stdout => {}
                }
            }
        }
        let _ = writeln!(
            text,
            "{} [{}]: {}",
            unit(&UnitId::from(index)),
            said.group.0,
            ends.join(" ")
        );
    }
    for queue in &plan.queues {
        let units = |units: &[UnitId]| units.iter().map(unit).collect::<Vec<_>>().join(" ");
        let file = queue
            .file
            .as_ref()
            .map(|file| format!("{{{}}} ", show(file)));
        let _ = writeln!(
            text,
            "{} {:?} {:?} {:?}: {}{} → {}",
            queue.name,
            queue.kind,
            queue.deliver,
            queue.overflow,
            file.unwrap_or_default(),
            units(&queue.writers),
            units(&queue.readers)
        );
    }
    text
}

#[test]
fn workers_of_a_stream_pool_share_their_queue_and_their_files() {
    let plan = plan(
        r#"
        [process.read]
        command = ["cat"]
        stdout = "lines"
        [pool.count]
        command = ["count", "${{ worker }}"]
        workers = 2
        stdin = "lines"
        stdout = ["counts", { file = "counts.txt" }]
        stderr = { file = "errors-${{ worker }}" }
        [process.total]
        command = ["total"]
        stdin = "counts"
        [pool.files]
        command = ["x"]
        workers = 2
        stdin = { file = "in.txt" }
        stdout = { file = "out.txt" }
        "#,
    );
    assert_eq!(
        drawn(&plan),
        "\
read [0]: 1>lines
count/0 [0]: 0<lines 1>counts 1>count.stdout 2>{errors-0}
count/1 [0]: 0<lines 1>counts 1>count.stdout 2>{errors-1}
count/gather [0]: 0<count.stdout 1>{counts.txt}
total [0]: 0<counts
files/0 [1]: 0<files.stdin 1>files.stdout
files/1 [1]: 0<files.stdin 1>files.stdout
files/gather [1]: 0<files.stdout 1>{out.txt}
lines Relayed Share Block: read → count/0 count/1
counts Relayed Share Block: count/0 count/1 → total
count.stdout Relayed Share Block: count/0 count/1 → count/gather
files.stdin Relayed Share Block: {in.txt}  → files/0 files/1
files.stdout Relayed Share Block: files/0 files/1 → files/gather
"
    );
}

#[test]
fn a_pool_that_procflow_feeds_is_one_unit() {
    let plan = plan(
        r#"
        [defaults]
        retries = 1
        [process.read]
        command = ["cat"]
        stdout = "lines"
        [pool.answer]
        command = ["answer", "${{ worker }}"]
        feed = "request"
        stdin = "lines"
        stdout = { file = "out.txt" }
        order = "input"
        recycle_after = 10
        dead_letter = "bad"
        [pool.mail]
        command = ["mail", "${{ task }}", "-s", "n${{ task.index }}"]
        feed = "task"
        stdin = "bad"
        batch = 5
        max_in_flight = 20
        task_timeout = "1s"
        retries = 3
        workers = 2
        [pool.convert]
        command = ["convert", "${{ task.0 }}", "--to=${{ task.1 }}"]
        tasks = [["a", "b"], ["c", "d"]]
        cwd = "${{ task.0 }}"
        [pool.plain]
        command = ["wc"]
        tasks = { range = [0, 10] }
        [pool.script]
        script = "echo $TASK"
        tasks = { glob = "*.txt" }
        "#,
    );
    assert_eq!(
        drawn(&plan),
        "\
read [0]: 1>lines
answer/pool [0]: 0<lines 1>{out.txt} 1024>bad
mail/pool [0]: 0<bad
convert/pool [1]: \n\
plain/pool [2]: \n\
script/pool [3]: \n\
lines Direct Share Block: read → answer/pool
bad Direct Share Block: answer/pool → mail/pool
"
    );
    assert_eq!(
        argv(&plan, "mail"),
        ["mail", "each task", "-s", "n${{ task.index }}"]
    );
    assert_eq!(
        argv(&plan, "convert"),
        ["convert", "${{ task.0 }}", "--to=${{ task.1 }}"]
    );
    assert_eq!(argv(&plan, "answer"), ["answer", "${{ worker }}"]);
    let pool = |name: &str| {
        let node = plan.nodes.iter().find(|node| &*node.name == name).unwrap();
        let unit = plan.unit(UnitId(node.units.start));
        assert_eq!(
            unit.settings.retry.max, 0,
            "the pool tries again, not its group"
        );
        node.pool.clone().unwrap()
    };
    let answer = pool("answer");
    assert_eq!(answer.workers, 4, "the job slots");
    assert_eq!((answer.feed, answer.order), (Feed::Request, Order::Input));
    assert_eq!((answer.recycle_after, answer.retry.max), (Some(10), 1));
    assert!(answer.dead_letter && !answer.record_on_stdin);
    let mail = pool("mail");
    assert_eq!(
        (mail.workers, mail.batch, mail.max_in_flight),
        (2, Some(5), Some(20))
    );
    assert_eq!(
        (mail.task_timeout, mail.retry.max),
        (Some(Duration::from_secs(1)), 3)
    );
    assert!(!mail.record_on_stdin, "it is in the command");
    assert!(!pool("convert").record_on_stdin && pool("plain").record_on_stdin);
    assert!(pool("script").record_on_stdin);
    assert_eq!(pool("plain").tasks, Some(Tasks::Range(0, 10)));
}

#[test]
fn of_a_copied_queue_a_pool_has_one_copy_that_its_workers_share() {
    let plan = plan(
        r#"
        [process.w]
        command = ["w"]
        stdout = ["log", "q"]
        [process.v]
        command = ["v"]
        stdout = "q"
        [process.all]
        command = ["all"]
        stdin = "q"
        [pool.a]
        command = ["a"]
        workers = 2
        stdin = "q"
        [pool.b]
        command = ["b"]
        workers = 2
        inputs = { q = "q" }
        [process.x]
        command = ["x"]
        stdout = "r"
        [pool.c]
        command = ["c"]
        workers = 2
        stdin = "r"
        [pool.d]
        command = ["d"]
        workers = 2
        stdin = "r"
        [queue.q]
        deliver = "copy"
        [queue.r]
        deliver = "copy"
        "#,
    );
    assert_eq!(
        drawn(&plan),
        "\
w [0]: 1>q 1>q.a
v [0]: 1>q 1>q.a
all [0]: 0<q
a/0 [0]: 0<q.a
a/1 [0]: 0<q.a
b/0 [0]: 3<q
b/1 [0]: 3<q
x [1]: 1>r 1>r.d
c/0 [1]: 0<r
c/1 [1]: 0<r
d/0 [1]: 0<r.d
d/1 [1]: 0<r.d
q Relayed Copy Block: w v → all b/0 b/1
r Relayed Share Block: x → c/0 c/1
q.a Relayed Share Block: w v → a/0 a/1
r.d Relayed Share Block: x → d/0 d/1
"
    );
}

#[test]
fn nodes_stand_in_the_order_of_the_file_whatever_their_table() {
    let plan = plan(
        r#"
        [pool.a]
        command = ["x"]
        workers = 2
        [process.b]
        command = ["x"]
        cpus = 3
        [pool.c]
        command = ["x"]
        workers = 3
        cpus = 2
        memory = 5
        stdout = { file = "c.txt" }
        [process.d]
        command = ["x"]
        after = ["c"]
        stdout = "q"
        [pool.e]
        command = ["x"]
        stdin = "q"
        feed = "request"
        "#,
    );
    assert_eq!(
        groups(&plan),
        [
            "2 0: a a",
            "3 0: b",
            "6 15: c c c c | c.stdout relayed",
            "5 0: d e | q direct"
        ]
    );
    for (index, node) in plan.nodes.iter().enumerate() {
        for unit in node.units.clone() {
            assert_eq!(plan.unit(UnitId(unit)).node.index(), index);
        }
    }
}

#[test]
fn a_group_claims_the_sum_of_its_members_and_a_pool_that_of_its_workers() {
    let plan = plan(
        r#"
        [run]
        resources = { gpu = 5, db = 1, none = 0 }
        [process.a]
        command = ["x"]
        stdout = "q"
        resources = { gpu = 2 }
        [pool.b]
        command = ["x"]
        workers = 3
        stdin = "q"
        resources = { gpu = 1, db = 0 }
        [process.c]
        command = ["x"]
        resources = { db = 1 }
        [process.d]
        command = ["x"]
        resources = { gpu = 0 }
        "#,
    );
    let there_is = plan.resources.iter().map(|one| (&*one.name, one.amount));
    assert_eq!(
        there_is.collect::<Vec<_>>(),
        [("gpu", 5), ("db", 1), ("none", 0)]
    );
    let claims: Vec<&[u32]> = plan.groups.iter().map(|group| &*group.resources).collect();
    assert_eq!(claims, [&[5, 0, 0][..], &[0, 1, 0], &[]]);
}

#[test]
fn stored_queues_join_their_writers_and_are_read_when_all_is_written() {
    let text = r#"
        [process.w]
        command = ["x"]
        stdout = "q"
        [pool.v]
        command = ["x"]
        workers = 2
        stdout = "q"
        [process.other]
        command = ["x"]
        [pool.r]
        command = ["x"]
        workers = 2
        stdin = "q"
        [process.late]
        command = ["x"]
        inputs = { q = "q" }
        after = ["w"]
        [queue.q]
        deliver = "copy"
        on_writer_failure = "close"
    "#;
    let whole = plan(text);
    assert_eq!(
        groups(&whole),
        [
            "3 0: w v v | q stored | q.r stored",
            "1 0: other",
            "2 0: r r",
            "1 0: late"
        ]
    );
    let after = |plan: &Plan, node: usize| -> Vec<String> {
        let waits = plan.nodes[node].after.iter();
        waits
            .map(|wait| format!("{} {:?}", plan.node(wait.node).name, wait.state))
            .collect()
    };
    assert_eq!(after(&whole, 3), ["w Finished", "v Finished"]);
    assert_eq!(
        after(&whole, 4),
        ["w Succeeded", "w Finished", "v Finished"]
    );
    let (part, _) = plan_with(text, &[], &["late"], &[]);
    let part = part.unwrap();
    assert_eq!(
        groups(&part),
        ["3 0: w v v | q stored | q.r stored", "1 0: late"]
    );
    assert_eq!(
        drawn(&part),
        "\
w [0]: 1>q 1>q.r
v/0 [0]: 1>q 1>q.r
v/1 [0]: 1>q 1>q.r
late [1]: 3<q
q Stored Copy Block: w v/0 v/1 → late
q.r Stored Share Block: w v/0 v/1 → \n\
"
    );
    let (part, _) = plan_with(text, &[], &["w"], &[]);
    assert_eq!(
        groups(&part.unwrap()),
        ["3 0: w v v | q stored | q.r stored"]
    );
}

#[test]
fn a_part_with_pools_is_numbered_anew() {
    let text = r#"
        [pool.unneeded]
        command = ["x"]
        workers = 3
        stdout = { file = "u" }
        [process.read]
        command = ["x"]
        stdout = "lines"
        [pool.count]
        command = ["x"]
        workers = 2
        stdin = "lines"
        stdout = { file = "out-${{ pipeline.dir }}" }
        [process.end]
        command = ["x"]
        after = ["count"]
        [process.name]
        command = ["x"]
        stdout = "value"
        [pool.named]
        command = ["x"]
        after = ["name"]
        tasks = { lines = "${{ value.name }}" }
    "#;
    let (part, _) = plan_with(text, &[], &["named"], &[]);
    let part = part.unwrap();
    let named = part.nodes[1].pool.clone().unwrap();
    let Some(Tasks::Lines { path, .. }) = &named.tasks else {
        panic!("{named:?}")
    };
    let name = |node: crate::plan::NodeId| &*part.node(node).name;
    assert_eq!(path.display(&name).to_string(), "${{ value.name }}");
    let (part, _) = plan_with(text, &[], &["end"], &[]);
    assert_eq!(
        drawn(&part.unwrap()),
        "\
read [0]: 1>lines
count/0 [0]: 0<lines 1>count.stdout
count/1 [0]: 0<lines 1>count.stdout
count/gather [0]: 0<count.stdout 1>{out-/p}
end [1]: \n\
lines Relayed Share Block: read → count/0 count/1
count.stdout Relayed Share Block: count/0 count/1 → count/gather
"
    );
}
