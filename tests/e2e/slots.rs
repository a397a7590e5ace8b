//! What nodes claim and hold: resources, memory; and job slots that are shared with make, cargo and ninja, and with the make around
//! procflow.

use std::process::{Command, Stdio};

use crate::support::{PROCFLOW, Pipeline, Ran};

/// Each node fails where another one that claims `db` runs: `mkdir` is not shared.
#[test]
fn nodes_that_claim_the_last_of_a_resource_take_turns() {
    let mut text = "[run]\njobs = 8\nresources = { db = 1 }\n".to_owned();
    for node in 0..8 {
        text.push_str(&format!(
            "[process.n{node}]\nscript = 'mkdir db; sleep 0.02; rmdir db'\nresources = {{ db = 1 }}\n"
        ));
    }
    Pipeline::new(&text).run();
}

/// `both` waits until nobody has any, though `one` and `other` come before and after it; each of these leaves a half.
#[test]
fn a_group_claims_the_sum_of_its_members() {
    Pipeline::new(
        r#"
        [run]
        jobs = 8
        resources = { half = 2 }
        [process.one]
        script = "mkdir one; sleep 0.02; rmdir one"
        resources = { half = 1 }
        [process.left]
        script = "mkdir one other; rmdir one other; seq 10"
        stdout = "q"
        resources = { half = 1 }
        [process.right]
        command = ["wc", "-l"]
        stdin = "q"
        stdout = "inherit"
        resources = { half = 1 }
        [process.other]
        script = "mkdir other; sleep 0.02; rmdir other"
        resources = { half = 1 }
        "#,
    )
    .run()
    .stdout("10\n");
}

#[test]
fn what_can_never_start_is_told_before_anything_starts() {
    Pipeline::new(
        r#"
[run]
resources = { gpu = 2 }
[process.first]
script = "echo started"
stdout = "inherit"
[process.train]
command = ["true"]
resources = { gpu = 4 }
"#,
    )
    .run()
    .exit(2)
    .no_nodes()
    .says(
        "\
error: `train` can never start: it claims 4 of `gpu`, and there are 2
 --> pipeline.toml:9:21
  |
3 | resources = { gpu = 2 }
  |                     - there are 2
...
9 | resources = { gpu = 4 }
  |                     ^
",
    );
}

#[test]
fn one_that_claims_more_memory_than_the_machine_has_runs_alone() {
    Pipeline::new(
        r#"
        [process.large]
        script = "mkdir alone; sleep 0.02; rmdir alone"
        memory = "4PiB"
        [process.small]
        script = "mkdir alone; sleep 0.02; rmdir alone"
        memory = "1KiB"
        "#,
    )
    .args(["--jobs", "4"])
    .run()
    .says("warning: `large` claims 4.0 PiB of memory, and this machine has ");
}

/// A compiler that fails where `$SLOTS` others run: each holds a lock as long as it lives. It counts how often it was called.
const COMPILER: &str = r#"#!/bin/sh
echo >> compiled
for slot in $(seq "$SLOTS"); do
    exec 9> "slot$slot"
    if flock -n 9; then
        sleep 0.02
        exec "$@"
    fi
done
echo "more than $SLOTS compilers" >&2
exit 1
"#;

/// Eight compilers that could run at once. No `-j`: how many do is in MAKEFLAGS.
const MAKEFILE: &str = "all: $(addprefix job,1 2 3 4 5 6 7 8)\njob%:\n\t@./compile true\n";

/// A compiler that ends when so many run at once: what waits in vain is found by the limit of the test.
fn rendezvous(count: usize) -> String {
    format!("#!/bin/sh\n: > met/$$\nuntil [ $(ls met | wc -l) -ge {count} ]; do sleep 0.01; done\n")
}

fn compiled(ran: Ran, times: usize) {
    ran.file("compiled", "\n".repeat(times));
}

#[test]
fn never_more_compilers_than_jobs_whoever_starts_them() {
    let ran = Pipeline::new(
        r#"
        [run]
        jobs = 3
        [env]
        SLOTS = "3"
        [process.left]
        command = ["make"]
        [process.right]
        script = "make"
        [pool.tasks]
        workers = 1
        tasks = { range = [0, 4] }
        command = ["./compile", "true"]
        [process.later]
        command = ["make"]
        after = ["left"]
        [process.alone]
        command = ["./compile", "true"]
        after = ["right"]
        "#,
    )
    .with_file("Makefile", MAKEFILE)
    .with_program("compile", COMPILER)
    .run();
    compiled(ran, 8 + 8 + 4 + 8 + 1);
}

/// One node holds one slot; make has the others, or these would wait for each other for ever.
#[test]
fn a_make_has_the_slots_that_nobody_uses() {
    Pipeline::new("[run]\njobs = 5\n[process.make]\ncommand = ['make']\n")
        .with_file(
            "Makefile",
            "all: $(addprefix job,1 2 3 4 5)\njob%:\n\t@./compile\n",
        )
        .with_program("compile", &rendezvous(5))
        .with_file("met/.keep", "")
        .run();
}

/// And gives them back: then as many nodes run.
#[test]
fn what_a_make_has_had_nodes_have_again() {
    let mut text = "[run]\njobs = 4\n[process.make]\ncommand = ['make']\n".to_owned();
    for node in 0..4 {
        text.push_str(&format!(
            "[process.n{node}]\ncommand = ['./meet']\nafter = ['make']\n"
        ));
    }
    let ran = Pipeline::new(&text)
        .env("SLOTS", "4")
        .with_file("Makefile", MAKEFILE)
        .with_program("compile", COMPILER)
        .with_program("meet", &rendezvous(4))
        .with_file("met/.keep", "")
        .run();
    compiled(ran, 8);
}

/// Tokens die with the program that holds them, and nobody can say how many those were while others run that may hold some, too.
#[test]
fn tokens_of_a_killed_program_are_made_again_when_nothing_runs() {
    let mut text = r#"
        [run]
        jobs = 4
        on_failure = "continue"
        [process.thief]
        script = "head -c 3 /dev/fd/10; kill -9 $$"
        "#
    .to_owned();
    for node in 0..4 {
        text.push_str(&format!(
            "[process.n{node}]\ncommand = ['./meet']\nafter = [{{ node = 'thief', state = 'finished' }}]\n"
        ));
    }
    Pipeline::new(&text)
        .with_program("meet", &rendezvous(4))
        .with_file("met/.keep", "")
        .run()
        .exit(1)
        .node("thief", "failed: killed by SIGKILL");
}

/// A service has no tokens, so it does not keep anybody from seeing that some are lost.
#[test]
fn a_service_has_no_slots_to_give_and_keeps_none_from_being_found() {
    let mut text = r#"
        [run]
        jobs = 4
        on_failure = "continue"
        [process.server]
        script = 'echo "[$MAKEFLAGS]"; ls /proc/self/fd; exec sleep 1000'
        stdout = "inherit"
        service = { ready = { command = ["sh", "-c", "test -z \"$MAKEFLAGS\""] } }
        [process.thief]
        script = "head -c 3 /dev/fd/10; kill -9 $$"
        after = [{ node = "server", state = "ready" }]
        "#
    .to_owned();
    for node in 0..4 {
        text.push_str(&format!(
            "[process.n{node}]\ncommand = ['./meet']\nafter = [{{ node = 'thief', state = 'finished' }}, {{ node = 'server', state = 'ready' }}]\n"
        ));
    }
    Pipeline::new(&text)
        .with_program("meet", &rendezvous(4))
        .with_file("met/.keep", "")
        .run()
        .stdout("[]\n0\n1\n2\n3\n")
        .exit(1)
        .node("thief", "failed: killed by SIGKILL");
}

/// A node can write into the pipe what it likes. The next one alone finds no more in it than there should be.
#[test]
fn tokens_that_somebody_has_added_are_taken_out() {
    Pipeline::new(
        r#"
        [run]
        jobs = 4
        [process.generous]
        script = "printf '+%.0s' $(seq 100) > /dev/fd/11; sleep 0.05"
        [process.count]
        command = ["python3", "-c", "import os; os.set_blocking(10, False); print(len(os.read(10, 1000)))"]
        stdout = "inherit"
        after = ["generous"]
        "#,
    )
    .run()
    .stdout("3\n");
}

/// A pipe that somebody has filled blocks nobody but who writes to it.
#[test]
fn a_pipe_that_is_full_does_not_stop_the_run() {
    Pipeline::new(
        r#"
        [run]
        jobs = 3
        [process.filler]
        command = ["python3", "-c", "import os; os.set_blocking(11, False); print(os.write(11, b'+' * (1 << 20)) > 0)"]
        stdout = "inherit"
        [process.a]
        script = "sleep 0.03"
        [process.b]
        script = "sleep 0.05"
        after = ["filler"]
        [process.c]
        command = ["true"]
        after = ["a", "b"]
        "#,
    )
    .run()
    .stdout("True\n");
}

#[test]
fn a_node_waits_for_a_slot_that_a_program_below_another_has() {
    Pipeline::new(
        r#"
        [run]
        jobs = 2
        [process.holder]
        script = "head -c 1 /dev/fd/10 > token; : > held; mkdir mine; sleep 0.05; rmdir mine; cat token > /dev/fd/11; sleep 0.05"
        [process.first]
        cpus = 0
        script = "until [ -e held ]; do sleep 0.01; done"
        [process.waiter]
        script = "mkdir mine; rmdir mine"
        after = ["first"]
        "#,
    )
    .run();
}

/// Of the run's slots cargo gets those that are free. Each call of the compiler is one that `RUSTC_WRAPPER` sees.
#[test]
fn never_more_compilers_of_cargo_than_jobs() {
    if !is_there("cargo") {
        return;
    }
    let mut crates = Pipeline::new(
        r#"
        [run]
        jobs = 2
        [env]
        SLOTS = "2"
        RUSTC_WRAPPER = "${{ pipeline.dir }}/compile"
        CARGO_NET_OFFLINE = "true"
        [process.left]
        command = ["cargo", "check", "--quiet", "--workspace", "--target-dir", "left"]
        [process.right]
        command = ["cargo", "check", "--quiet", "--workspace", "--target-dir", "right"]
        "#,
    )
    .with_file(
        "Cargo.toml",
        "[workspace]\nmembers = ['c*']\nresolver = '2'\n",
    )
    .with_program(
        "compile",
        &COMPILER
            .replace("slot$slot", "$PIPELINE_DIR/slot$slot")
            .replace(">> compiled", ">> $PIPELINE_DIR/compiled"),
    );
    for number in 0..6 {
        crates = crates
            .with_file(
                &format!("c{number}/Cargo.toml"),
                format!("[package]\nname = 'c{number}'\nversion = '0.1.0'\nedition = '2021'\n"),
            )
            .with_file(&format!("c{number}/src/lib.rs"), "pub fn f() {}\n");
    }
    crates.run();
}

/// From 1.13 on ninja knows a jobserver, if it is a fifo.
#[test]
fn never_more_compilers_of_ninja_than_jobs() {
    let version = Command::new("ninja").arg("--version").output();
    let version = version.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let mut parts = version.iter().flat_map(|text| text.split('.'));
    let mut part = || {
        parts
            .next()
            .and_then(|part| part.trim().parse::<u32>().ok())
    };
    if (part(), part()) < (Some(1), Some(13)) {
        return;
    }
    let mut build = "rule cc\n  command = ./compile true\n".to_owned();
    for job in 0..8 {
        build.push_str(&format!("build job{job}: cc\n"));
    }
    let ran = Pipeline::new(
        r#"
        [run]
        jobs = 2
        jobserver = "fifo"
        [env]
        SLOTS = "2"
        [process.left]
        command = ["ninja", "--quiet"]
        [process.right]
        script = "cd right; ninja --quiet -f ../build.ninja"
        "#,
    )
    .with_file("build.ninja", &build)
    .with_program("compile", COMPILER)
    .with_program("right/compile", "#!/bin/sh\ncd ..\nexec ./compile \"$@\"\n")
    .run();
    compiled(ran, 16);
}

fn is_there(program: &str) -> bool {
    let mut command = Command::new(program);
    command.arg("--version");
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Whoever opens the fifo has the tokens that nobody uses.
#[test]
fn a_fifo_for_those_who_know_no_pipe() {
    Pipeline::new(
        r#"
        [run]
        jobs = 4
        jobserver = "fifo"
        [process.a]
        script = "echo ${MAKEFLAGS%%/proc*}; ls /proc/self/fd"
        stdout = "inherit"
        [process.b]
        script = 'path=${MAKEFLAGS##*fifo:}; test -p $path; head -c 3 $path; printf +++ > $path'
        stdout = "inherit"
        after = ["a"]
        "#,
    )
    .run()
    .stdout("-j4 --jobserver-auth=fifo:\n0\n1\n2\n3\n+++");
}

/// What a node is told, by its own word, by the pipeline's and with nothing inherited; the ends only with the flags that name them.
#[test]
fn a_node_may_have_flags_of_its_own_and_no_jobserver() {
    let script = r#"echo "$PROCFLOW_NODE [$MAKEFLAGS]" $(ls /proc/self/fd | sort -n)"#;
    let text = format!(
        r#"
        [run]
        jobs = 2
        [process.given]
        script = '{script}'
        stdout = "inherit"
        [process.own]
        script = '{script}'
        env = {{ MAKEFLAGS = "-j1" }}
        stdout = "inherit"
        after = ["given"]
        [process.clear]
        script = '{script}'
        clear_env = true
        env = {{ PATH = "${{{{ env.PATH }}}}" }}
        stdout = "inherit"
        after = ["own"]
        [process.ends]
        script = '{script}'
        outputs = {{ 10 = "q", 12 = "r" }}
        stdout = "inherit"
        after = ["clear"]
        [process.q]
        command = ["cat"]
        stdin = "q"
        inputs = {{ r = "r" }}
        "#
    );
    Pipeline::new(&text)
        .env("MAKEFLAGS", "k -j7 -- A=b")
        .run()
        .stdout(
            "\
given [k -j2 --jobserver-auth=11,13 -- A=b] 0 1 2 3 11 13
own [-j1] 0 1 2 3
clear [] 0 1 2 3
ends [k -j2 --jobserver-auth=11,13 -- A=b] 0 1 2 3 10 11 12 13
",
        );
}

#[test]
fn without_a_jobserver_nodes_are_told_nothing() {
    Pipeline::new(
        r#"
        [run]
        jobserver = "none"
        [process.a]
        script = 'echo "[$MAKEFLAGS]"; ls /proc/self/fd'
        stdout = "inherit"
        "#,
    )
    .run()
    .stdout("[]\n0\n1\n2\n3\n");
}

/// A jobserver around procflow with the tokens `abc`, so with four slots; what is left in it afterwards is printed, sorted.
fn in_jobserver(pipeline: Pipeline) -> Pipeline {
    pipeline.under([
        "sh",
        "-c",
        r#"mkfifo tokens; exec 5<> tokens; printf abc >&5
        MAKEFLAGS="-j4 --jobserver-auth=fifo:$PWD/tokens" "$@"; code=$?
        python3 -c 'import os; os.set_blocking(5, False); print("".join(sorted(os.read(5, 99).decode())))'
        exit $code"#,
        "sh",
    ])
}

/// `meet`, four at a time: so at that moment procflow holds all tokens.
fn four_that_meet(then: &str) -> Pipeline {
    let mut text = String::new();
    for node in 0..4 {
        text.push_str(&format!("[process.n{node}]\nscript = './meet; {then}'\n"));
    }
    Pipeline::new(&text)
        .with_program("meet", &rendezvous(4))
        .with_file("met/.keep", "")
}

/// What a node says of procflow's two processes: `$PPID` is the runner.
const GUARD: &str = r#"$(cut -d" " -f4 /proc/$PPID/stat)"#;

#[test]
fn slots_are_taken_of_the_jobserver_around_and_given_back() {
    in_jobserver(four_that_meet("true")).run().stdout("abc\n");
}

#[test]
fn slots_are_given_back_by_a_run_that_fails() {
    in_jobserver(four_that_meet("test $PROCFLOW_NODE != n2"))
        .run()
        .stdout("abc\n")
        .exit(1)
        .node("n2", "failed: exit 1");
}

#[test]
fn slots_are_given_back_by_a_run_that_is_interrupted() {
    let kill = format!("test $PROCFLOW_NODE != n2 || kill -TERM {GUARD}; sleep 1000");
    in_jobserver(four_that_meet(&kill))
        .run()
        .stdout("abc\n")
        .exit(128 + 15)
        .nodes([
            ("n0", "cancelled: interrupted by SIGTERM"),
            ("n1", "cancelled: interrupted by SIGTERM"),
            ("n2", "cancelled: interrupted by SIGTERM"),
            ("n3", "cancelled: interrupted by SIGTERM"),
        ]);
}

#[test]
fn slots_are_given_back_when_a_half_of_procflow_is_killed() {
    for (victim, says, code) in [
        (
            "$PPID",
            "procflow: the runner was killed (SIGKILL)",
            128 + 9,
        ),
        (GUARD, "", 128 + 9),
    ] {
        let kill = format!(
            "test $PROCFLOW_NODE != n2 || {{ echo $PPID > runner; kill -KILL {victim}; }}; sleep 1000"
        );
        let four = four_that_meet(&kill).without_report();
        // Where the guard was killed, the runner is still there for a moment.
        let wait = "while grep -q '^State:.[^Z]' /proc/$(cat runner)/status; do sleep 0.01; done 2> /dev/null";
        let four = four.under([
            "sh",
            "-c",
            &format!(
                r#"mkfifo tokens; exec 5<> tokens; printf abc >&5
                MAKEFLAGS="-j4 --jobserver-auth=fifo:$PWD/tokens" "$@"; code=$?; {wait}
                python3 -c 'import os; os.set_blocking(5, False); print("".join(sorted(os.read(5, 99).decode())))'
                exit $code"#
            ),
            "sh",
        ]);
        four.run().stdout("abc\n").says(says).exit(code);
    }
}

/// Nodes get at the same tokens as procflow itself: one pool for all.
#[test]
fn nodes_share_the_jobserver_around() {
    in_jobserver(
        Pipeline::new(
            r#"
            [process.a]
            script = 'test "$MAKEFLAGS" = " -j4 --jobserver-auth=fifo:$PWD/tokens"; test $(head -c 3 tokens | wc -c) = 3; printf cab > tokens'
            "#,
        )
        .without_report(),
    )
    .run()
    .stdout("abc\n");
}

/// A `Makefile` whose recipe is procflow's command line, with the oracle that make itself is: it says so where tokens are missing in the end.
fn in_make(pipeline: Pipeline, jobs: u32, recipe: &str) -> Pipeline {
    let makefile =
        format!("all: run $(MORE)\nrun:\n\t{recipe}\njob%:\n\t@./compile true\n.PHONY: all run\n");
    let run = format!("COMMAND=\"$*\" make -s -j{jobs}");
    pipeline
        .with_file("Makefile", makefile)
        .under(["sh", "-c", &run, "sh"])
}

#[test]
fn never_more_compilers_than_the_make_around_has_jobs() {
    let mut text = String::new();
    for node in 0..6 {
        text.push_str(&format!(
            "[process.n{node}]\ncommand = ['./compile', 'true']\n"
        ));
    }
    text.push_str("[process.inner]\ncommand = ['make', '-f', 'inner']\n");
    let pipeline = Pipeline::new(&text)
        .env("SLOTS", "3")
        .env("MORE", "job1 job2 job3 job4")
        .with_file("inner", MAKEFILE)
        .with_program("compile", COMPILER);
    let ran = in_make(pipeline, 3, "+$$COMMAND").run();
    compiled(ran.never_says("INTERNAL"), 6 + 8 + 4);
}

#[test]
fn a_run_below_make_has_all_of_its_jobs() {
    in_make(four_that_meet("true"), 4, "+$$COMMAND")
        .run()
        .never_says("INTERNAL");
}

/// make closes its jobserver for recipes that it takes for no make, and leaves its flags as they are; from 4.4 on it says so in them.
#[test]
fn a_jobserver_that_is_closed_is_told_once_and_one_slot_is_left() {
    let mut text = String::new();
    for node in 0..4 {
        text.push_str(&format!(
            "[process.n{node}]\ncommand = ['./compile', 'make', '-f', 'inner']\n"
        ));
    }
    let way_out = "going on with 1 job slot; begin the recipe with `+` to share make's, or give procflow its own by -j\n";
    for (auth, why) in [
        ("3,4", "make has closed its jobserver for this recipe"),
        ("-2,-2", "make has closed its jobserver for this recipe"),
        ("fifo:/nowhere/x", "there is no jobserver at /nowhere/x"),
        ("gmake_1", "`gmake_1` is no jobserver that Linux has"),
    ] {
        let flags = format!(" -j4 --jobserver-auth={auth}");
        let ran = Pipeline::new(&text)
            .env("SLOTS", "1")
            .env("MAKEFLAGS", flags)
            .with_file("inner", "all:\n\t@true\n")
            .with_program("compile", COMPILER)
            .under(["sh", "-c", "exec 3<&- 4<&-; exec \"$@\"", "sh"])
            .run()
            .says(&format!("procflow: warning: {why}: {way_out}"));
        assert_eq!(ran.stderr.matches("warning").count(), 1, "{}", ran.stderr);
        compiled(ran, 4);
    }
}

#[test]
fn an_explicit_j_opts_out() {
    let recipe = "+$$COMMAND -j 4";
    in_make(four_that_meet("true"), 2, recipe)
        .run()
        .says("procflow: warning: -j4 is given, so the job slots of the make around procflow are not shared\n");
}

/// `jobs` in the file is the most that a run takes of what there is.
#[test]
fn jobs_of_the_file_are_an_upper_bound() {
    let mut text = "[run]\njobs = 2\n".to_owned();
    for node in 0..6 {
        text.push_str(&format!(
            "[process.n{node}]\ncommand = ['./compile', 'true']\n"
        ));
    }
    let pipeline = Pipeline::new(&text)
        .env("SLOTS", "2")
        .with_program("compile", COMPILER);
    compiled(in_jobserver(pipeline).run().stdout("abc\n"), 6);
}

/// A run within a run: the inner one takes the outer one's slots.
#[test]
fn a_run_below_a_run_shares_its_slots() {
    let mut inner = String::new();
    for node in 0..6 {
        inner.push_str(&format!(
            "[process.n{node}]\ncommand = ['./compile', 'true']\n"
        ));
    }
    let outer = format!(
        r#"
        [run]
        jobs = 3
        [env]
        SLOTS = "3"
        [process.left]
        command = ["{PROCFLOW}", "run", "inner.toml"]
        [process.right]
        command = ["{PROCFLOW}", "run", "inner.toml"]
        [process.make]
        command = ["make"]
        "#
    );
    let ran = Pipeline::new(&outer)
        .with_file("inner.toml", inner)
        .with_file("Makefile", MAKEFILE)
        .with_program("compile", COMPILER)
        .run();
    compiled(ran, 6 + 6 + 8);
}
