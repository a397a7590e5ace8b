//! What flows where: queues, copies, merges, files, the standard streams; and that no crash looks like the end of data.

use crate::support::Pipeline;

#[test]
fn a_reader_gets_what_the_writer_wrote() {
    Pipeline::new(
        r#"
        [process.write]
        command = ["seq", "3"]
        stdout = "q"
        [process.read]
        command = ["cat"]
        stdin = "q"
        stdout = "inherit"
        "#,
    )
    .run()
    .stdout("1\n2\n3\n");
}

/// The reader would put its result in place at the end of the data: it must never see one. It ignores SIGTERM, as otherwise
/// it would mostly be gone before it could act on an end that it should not have seen.
#[test]
fn a_broken_writer_gives_no_end_of_data_through_a_direct_queue() {
    for (death, reason) in [
        ("exit 3", "failed: exit 3"),
        ("kill -KILL $$", "failed: killed by SIGKILL"),
    ] {
        Pipeline::new(&format!(
            r#"
            [process.write]
            script = "echo one; {death}"
            stdout = "q"
            [process.read]
            script = "trap '' TERM; cat > partial; mv partial result"
            stop_grace = "300ms"
            stdin = "q"
            "#
        ))
        .run()
        .nodes([
            ("write", reason),
            ("read", "cancelled: writer write failed"),
        ])
        .no_file("result")
        .exit(1);
    }
}

#[test]
fn a_broken_writer_gives_no_end_of_data_through_a_merge() {
    Pipeline::new(
        r#"
        [process.good]
        script = "echo good; echo $$ > gate"
        stdout = "q"
        [process.bad]
        script = "echo bad; read good < gate; while kill -0 $good; do sleep 0.01; done; exit 1"
        stdout = "q"
        [process.read]
        script = "trap '' TERM; cat > partial; mv partial result"
            stop_grace = "300ms"
        stdin = "q"
        "#,
    )
    .with_fifo("gate")
    .run()
    .nodes([
        ("good", "succeeded"),
        ("bad", "failed: exit 1"),
        ("read", "cancelled: writer bad failed"),
    ])
    .no_file("result")
    .exit(1);
}

#[test]
fn a_broken_writer_gives_no_end_of_data_to_any_of_two_copies() {
    Pipeline::new(
        r#"
        [process.write]
        script = "echo one; exit 1"
        stdout = ["p", "q"]
        [process.left]
        script = "trap '' TERM; cat > left.tmp; mv left.tmp left"
        stop_grace = "300ms"
        stdin = "p"
        [process.right]
        script = "trap '' TERM; cat > right.tmp; mv right.tmp right"
        stop_grace = "300ms"
        stdin = "q"
        "#,
    )
    .run()
    .nodes([
        ("write", "failed: exit 1"),
        ("left", "cancelled: writer write failed"),
        ("right", "cancelled: writer write failed"),
    ])
    .no_file("left")
    .no_file("right")
    .exit(1);
}

#[test]
fn a_file_keeps_its_old_content_where_its_writer_fails() {
    Pipeline::new(
        r#"
        [process.write]
        script = "echo new; exit 1"
        stdout = { file = "total.txt" }
        "#,
    )
    .with_file("total.txt", "old\n")
    .run()
    .nodes([("write", "failed: exit 1")])
    .file("total.txt", "old\n")
    .only_files(["total.txt"])
    .exit(1);
}

#[test]
fn a_file_keeps_its_old_content_where_a_writer_upstream_fails() {
    Pipeline::new(
        r#"
        [process.read]
        script = "echo new; exit 1"
        stdout = "q"
        [process.sort]
        command = ["sort"]
        stdin = "q"
        stdout = { file = "total.txt" }
        "#,
    )
    .with_file("total.txt", "old\n")
    .run()
    .nodes([
        ("read", "failed: exit 1"),
        ("sort", "cancelled: writer read failed"),
    ])
    .file("total.txt", "old\n")
    .only_files(["total.txt"])
    .exit(1);
}

/// `first` has long ended well when its writer fails; its file must wait for that all the same.
#[test]
fn a_file_is_not_replaced_before_every_writer_upstream_has_succeeded() {
    Pipeline::new(
        r#"
        [process.write]
        script = "echo new; read first < gate; while kill -0 $first; do sleep 0.01; done; exit 1"
        stdout = "q"
        [process.first]
        script = "head -n 1; echo $$ > gate"
        stdin = "q"
        stdout = { file = "total.txt" }
        "#,
    )
    .with_file("total.txt", "old\n")
    .with_fifo("gate")
    .run()
    .nodes([
        ("write", "failed: exit 1"),
        ("first", "cancelled: writer write failed"),
    ])
    .file("total.txt", "old\n")
    .only_files(["gate", "total.txt"])
    .exit(1);
}

#[test]
fn a_closed_queue_ends_as_in_a_shell_when_its_writer_fails() {
    Pipeline::new(
        r#"
        [process.write]
        script = "echo one; exit 3"
        stdout = "q"
        [process.read]
        command = ["cat"]
        stdin = "q"
        stdout = { file = "result" }
        [queue.q]
        on_writer_failure = "close"
        "#,
    )
    .run()
    .nodes([("write", "failed: exit 3"), ("read", "succeeded")])
    .file("result", "one\n")
    .exit(1);
}

#[test]
fn a_reader_that_has_enough_is_no_failure_of_its_writer() {
    let ran = Pipeline::new(
        r#"
        [process.yes]
        command = ["yes"]
        stdout = "q"
        [process.first]
        command = ["head", "-n", "1"]
        stdin = "q"
        stdout = "inherit"
        "#,
    )
    .run()
    .stdout("y\n")
    .nodes([("yes", "succeeded"), ("first", "succeeded")]);
    assert_eq!(ran.field("yes", "early_close"), true);
    assert_eq!(ran.field("first", "early_close"), false);
}

/// Whether `seq` is ended by SIGPIPE or has written everything before `head` ends is a race; the verdict is none.
#[test]
fn an_early_close_gives_the_same_report_two_hundred_times() {
    for _ in 0..200 {
        Pipeline::new(
            r#"
            [process.seq]
            command = ["seq", "12000"]
            stdout = "q"
            [process.first]
            command = ["head", "-n", "1"]
            stdin = "q"
            stdout = "inherit"
            "#,
        )
        .run()
        .stdout("1\n")
        .nodes([("seq", "succeeded"), ("first", "succeeded")]);
    }
}

/// Programs that ignore SIGPIPE see the write fail, and say so by an exit code of their own, as Python does by 1.
#[test]
fn a_writer_may_say_by_its_exit_code_that_its_reader_has_gone() {
    let text = |codes: &str| {
        format!(
            r#"
            [process.write]
            script = "trap '' PIPE; while echo y; do :; done 2> complaints; exit 1"
            {codes}
            shell = ["sh", "-c"]
            stdout = "q"
            [process.first]
            command = ["head", "-n", "1"]
            stdin = "q"
            stdout = "inherit"
            "#
        )
    };
    let ran = Pipeline::new(&text("epipe_codes = [1]"))
        .run()
        .stdout("y\n");
    assert_eq!(ran.field("write", "early_close"), true);
    Pipeline::new(&text(""))
        .run()
        .stdout("y\n")
        .node("write", "failed: exit 1")
        .exit(1);
}

#[test]
fn a_writer_whose_reader_failed_is_cancelled_and_the_reader_is_to_blame() {
    Pipeline::new(
        r#"
        [process.write]
        command = ["yes"]
        stdout = "q"
        [process.read]
        script = "head -n 1 >&2; exit 2"
        stdin = "q"
        "#,
    )
    .run()
    .nodes([
        ("write", "cancelled: reader read failed"),
        ("read", "failed: exit 2"),
    ])
    .exit(1);
}

#[test]
fn an_array_of_ends_gives_each_a_copy() {
    let mut numbers = String::new();
    for number in 1..=100_000 {
        numbers.push_str(&format!("{number}\n"));
    }
    Pipeline::new(
        r#"
        [process.write]
        command = ["seq", "100000"]
        stdout = ["p", "q", { file = "three" }]
        [process.left]
        command = ["cat"]
        stdin = "p"
        stdout = { file = "one" }
        [process.right]
        command = ["cat"]
        stdin = "q"
        stdout = { file = "two" }
        "#,
    )
    .run()
    .file("one", &numbers)
    .file("two", &numbers)
    .file("three", &numbers);
}

#[test]
fn copies_go_on_for_the_readers_that_are_left() {
    Pipeline::new(
        r#"
        [process.write]
        command = ["seq", "300000"]
        stdout = "q"
        [queue.q]
        deliver = "copy"
        [process.first]
        command = ["head", "-n", "1"]
        stdin = "q"
        stdout = { file = "first" }
        [process.count]
        command = ["wc", "-l"]
        stdin = "q"
        stdout = { file = "count" }
        "#,
    )
    .run()
    .file("first", "1\n")
    .file("count", "300000\n");
}

/// Lines of 20,000 bytes are longer than what the kernel writes to a pipe in one piece.
#[test]
fn the_records_of_two_writers_are_never_torn() {
    let writer = |name: &str, letter: char| {
        format!(
            r#"
            [process.{name}]
            command = ["awk", "BEGIN {{ s = \"{letter}\"; while (length(s) < 20000) s = s s; s = substr(s, 1, 20000); for (i = 0; i < 500; i++) print s }}"]
            stdout = "q"
            "#
        )
    };
    Pipeline::new(&format!(
        r#"{}{}{}
        [process.check]
        command = ["awk", '/^a+$/ && length($0) == 20000 {{ a++; next }} /^b+$/ && length($0) == 20000 {{ b++; next }} /^c+$/ && length($0) == 20000 {{ c++; next }} {{ torn++ }} END {{ print a, b, c, torn + 0 }}']
        stdin = "q"
        stdout = "inherit"
        "#,
        writer("a", 'a'),
        writer("b", 'b'),
        writer("c", 'c'),
    ))
    .run()
    .stdout("500 500 500 0\n");
}

#[test]
fn a_last_line_without_its_end_does_not_grow_together_with_the_next() {
    Pipeline::new(
        r#"
        [process.a]
        command = ["printf", "1\n2"]
        stdout = "q"
        [process.b]
        command = ["printf", "3\n4"]
        stdout = "q"
        [process.c]
        command = ["printf", "5"]
        stdout = "q"
        [process.read]
        command = ["cat"]
        stdin = "q"
        stdout = "inherit"
        [queue.q]
        merge = "sequence"
        "#,
    )
    .run()
    .stdout("1\n2\n3\n4\n5");
}

#[test]
fn a_merge_in_sequence_keeps_the_order_of_the_file() {
    Pipeline::new(
        r#"
        [process.slow]
        script = "read go < gate; echo slow"
        stdout = "q"
        [process.fast]
        script = "echo fast; echo go > gate"
        stdout = "q"
        [process.read]
        command = ["cat"]
        stdin = "q"
        stdout = "inherit"
        [queue.q]
        merge = "sequence"
        "#,
    )
    .with_fifo("gate")
    .run()
    .stdout("slow\nfast\n");
}

#[test]
fn a_record_longer_than_the_queue_allows_fails_its_writer() {
    let ran = Pipeline::new(
        r#"
        [process.long]
        command = ["awk", "BEGIN { printf \"%5000s\\n\", \"\" }"]
        stdout = "q"
        [process.short]
        command = ["echo", "short"]
        stdout = "q"
        [process.read]
        command = ["cat"]
        stdin = "q"
        [queue.q]
        max_record = "1KiB"
        "#,
    )
    .run()
    .node("read", "cancelled: writer long failed")
    .exit(1);
    let (_, end) = &ran.ends()[0];
    assert!(
        end.starts_with("failed: ") && end.contains("max_record"),
        "{end}"
    );
}

/// A splits into B and C, and D reads all of B before it looks at C: with bounded pipes that stands still for ever.
#[test]
fn data_that_splits_and_meets_again_does_not_deadlock() {
    Pipeline::new(
        r#"
        [process.a]
        command = ["seq", "200000"]
        stdout = ["to-b", "to-c"]
        [process.b]
        command = ["cat"]
        stdin = "to-b"
        stdout = "from-b"
        [process.c]
        command = ["cat"]
        stdin = "to-c"
        stdout = "from-c"
        [process.d]
        command = ["cat", "${{ in.b }}", "${{ in.c }}"]
        inputs = { b = "from-b", c = "from-c" }
        stdout = "all"
        [process.count]
        command = ["wc", "-l"]
        stdin = "all"
        stdout = "inherit"
        "#,
    )
    .run()
    .stdout("400000\n");
}

#[test]
fn many_bytes_arrive_as_they_were() {
    let mut bytes = Vec::new();
    let mut seed = 1_u64;
    while bytes.len() < 32 << 20 {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        bytes.extend_from_slice(&seed.to_be_bytes());
    }
    Pipeline::new(
        r#"
        [process.a]
        command = ["cat"]
        stdin = { file = "random" }
        stdout = "direct"
        [process.b]
        command = ["cat"]
        stdin = "direct"
        stdout = ["copy", { file = "copied" }]
        [process.c]
        command = ["cat"]
        stdin = "copy"
        stdout = { file = "carried" }
        [queue.copy]
        records = "bytes"
        "#,
    )
    .with_file("random", &bytes)
    .run()
    .file("copied", &bytes)
    .file("carried", &bytes);
}

#[test]
fn standard_input_and_output_are_handed_on() {
    Pipeline::new(
        r#"
        [process.cat]
        command = ["cat"]
        stdin = "inherit"
        stdout = "inherit"
        "#,
    )
    .input("through\n")
    .run()
    .stdout("through\n");
}

#[test]
fn a_process_without_input_reads_nothing_of_procflows() {
    Pipeline::new(
        r#"
        [process.cat]
        command = ["cat"]
        stdout = "inherit"
        "#,
    )
    .input("not for it\n")
    .run();
}

#[test]
fn a_text_is_standard_input() {
    Pipeline::new(
        r#"
        [process.cat]
        command = ["cat"]
        stdin = { text = "two\nlines" }
        stdout = "inherit"
        "#,
    )
    .run()
    .stdout("two\nlines");
}

/// Longer than any pipe holds: nobody may wait for the other.
#[test]
fn a_long_text_is_standard_input() {
    let text = "0123456789abcdef".repeat(1 << 16);
    Pipeline::new(&format!(
        r#"
        [process.cat]
        command = ["cat"]
        stdin = {{ text = "{text}" }}
        stdout = "inherit"
        "#
    ))
    .run()
    .stdout(text);
}

#[test]
fn a_file_appears_whole_and_only_at_the_end() {
    Pipeline::new(
        r#"
        [process.write]
        script = "echo new; test \"$(cat out.txt)\" = old"
        stdout = { file = "out.txt" }
        "#,
    )
    .with_file("out.txt", "old\n")
    .run()
    .file("out.txt", "new\n")
    .only_files(["out.txt"]);
}

#[test]
fn a_file_may_be_appended_to() {
    Pipeline::new(
        r#"
        [process.write]
        command = ["echo", "two"]
        stdout = { file = "log.txt", append = true }
        [process.again]
        after = ["write"]
        command = ["echo", "three"]
        stdout = { file = "log.txt", append = true }
        "#,
    )
    .with_file("log.txt", "one\n")
    .run()
    .file("log.txt", "one\ntwo\nthree\n");
}

#[test]
fn a_symbolic_link_stays_one_when_its_file_is_written() {
    let ran = Pipeline::new(
        r#"
        [process.write]
        command = ["echo", "new"]
        stdout = { file = "link" }
        "#,
    )
    .with_file("target", "old\n");
    std::os::unix::fs::symlink("target", ran.path("link")).unwrap();
    ran.run().file("target", "new\n").file("link", "new\n");
}

#[test]
fn ends_can_be_had_by_number() {
    Pipeline::new(
        r#"
        [process.write]
        script = "echo one; echo three >&3; echo seven >&7"
        stdout = { file = "one" }
        outputs = { 3 = { file = "three" }, 7 = "q" }
        [process.read]
        script = "cat <&5"
        inputs = { 5 = "q" }
        stdout = "inherit"
        "#,
    )
    .run()
    .stdout("seven\n")
    .file("one", "one\n")
    .file("three", "three\n");
}

#[test]
fn ends_can_be_had_by_name() {
    Pipeline::new(
        r#"
        [process.numbers]
        command = ["seq", "3"]
        stdout = "numbers"
        [process.letters]
        command = ["printf", "a\nb\nc\n"]
        stdout = "letters"
        [process.paste]
        command = ["paste", "-d", " ", "${{ in.left }}", "${{ in.right }}"]
        inputs = { left = "numbers", right = "letters" }
        stdout = "inherit"
        "#,
    )
    .run()
    .stdout("1 a\n2 b\n3 c\n");
}

#[test]
fn a_pattern_gives_an_argument_for_each_queue() {
    Pipeline::new(
        r#"
        [process.odd]
        command = ["printf", "1\n3\n5\n"]
        stdout = "sorted-odd"
        [process.even]
        command = ["printf", "2\n4\n6\n"]
        stdout = "sorted-even"
        [process.merge]
        command = ["sort", "-m", "${{ in.parts }}"]
        inputs = { parts = "sorted-*" }
        stdout = "inherit"
        "#,
    )
    .run()
    .stdout("1\n2\n3\n4\n5\n6\n");
}

#[test]
fn a_script_finds_its_ends_in_its_environment() {
    Pipeline::new(
        r#"
        [process.write]
        script = 'echo more > "$OUT_MORE"'
        outputs = { more = "q" }
        [process.read]
        script = 'cat "$IN_LEFT"'
        inputs = { left = "q" }
        stdout = "inherit"
        "#,
    )
    .run()
    .stdout("more\n");
}

#[test]
fn standard_error_can_go_where_standard_output_goes() {
    Pipeline::new(
        r#"
        [process.write]
        script = "echo out; echo err >&2"
        stdout = "q"
        stderr = "stdout"
        [process.read]
        command = ["cat"]
        stdin = "q"
        stdout = "inherit"
        "#,
    )
    .run()
    .stdout("out\nerr\n");
}

#[test]
fn standard_error_can_be_a_queue() {
    Pipeline::new(
        r#"
        [process.write]
        script = "echo out; echo err >&2"
        stdout = "null"
        stderr = "q"
        [process.read]
        command = ["cat"]
        stdin = "q"
        stdout = "inherit"
        "#,
    )
    .run()
    .stdout("err\n");
}

#[test]
fn a_value_is_offered_to_the_nodes_that_come_after() {
    Pipeline::new(
        r#"
        [process.who]
        command = ["printf", "a b\n\n"]
        stdout = "value"
        [process.tell]
        after = ["who"]
        command = ["printf", "<%s>", "${{ value.who }}"]
        stdout = "inherit"
        "#,
    )
    .run()
    .stdout("<a b\n>");
}

/// What a node without output says, and one that was left out or may fail, is nothing: no reason for another to fail.
#[test]
fn a_value_of_nothing_is_an_empty_string() {
    Pipeline::new(
        r#"
        [process.silent]
        command = ["true"]
        stdout = "value"
        [process.left-out]
        command = ["echo", "not this"]
        stdout = "value"
        [process.fails]
        script = "exit 1"
        stdout = "value"
        allow_failure = true
        [process.tell]
        command = ["printf", "[%s]", "${{ value.silent }}", "${{ value.left-out }}", "${{ value.fails }}"]
        stdout = ["inherit", { file = "told-${{ value.silent }}" }]
        after = ["silent", "left-out", "fails"]
        "#,
    )
    .args(["--skip", "left-out"])
    .run()
    .stdout("[][][]")
    .file("told-", "[][][]")
    .nodes([
        ("silent", "succeeded"),
        ("left-out", "skipped: --skip"),
        ("fails", "failed: exit 1"),
        ("tell", "succeeded"),
    ]);
}

#[test]
fn a_record_that_is_too_long_fails_its_writer_with_one_reader_and_with_two() {
    for readers in ["", "[process.second]\ncommand = [\"cat\"]\nstdin = \"q\"\n"] {
        let deliver = if readers.is_empty() {
            ""
        } else {
            "deliver = \"copy\""
        };
        let ran = Pipeline::new(&format!(
            r#"
            [process.write]
            script = "printf '%5000s\\n' x"
            stdout = "q"
            [process.first]
            command = ["cat"]
            stdin = "q"
            {readers}
            [queue.q]
            max_record = "4KiB"
            {deliver}
            "#
        ))
        .run()
        .exit(1);
        let why = "failed: a record of queue `q` is longer than max_record (4 KiB), after 0 bytes";
        let ran = ran
            .node("write", why)
            .node("first", "cancelled: writer write failed");
        if !readers.is_empty() {
            drop(ran.node("second", "cancelled: writer write failed"));
        }
    }
}

#[test]
fn a_record_cut_off_at_its_writers_end_fails_it() {
    Pipeline::new(
        r#"
        [process.write]
        script = "printf '\\000\\000\\000\\004four\\000\\000\\000\\004two'"
        stdout = "q"
        [process.read]
        command = ["cat"]
        stdin = "q"
        stdout = { file = "read" }
        [queue.q]
        records = "length32"
        "#,
    )
    .run()
    .no_file("read")
    .nodes([
        (
            "write",
            "failed: the last record of queue `q` is cut off after 7 bytes of it, 8 bytes into the data",
        ),
        ("read", "cancelled: writer write failed"),
    ])
    .exit(1);
}

#[test]
fn what_a_failed_try_has_appended_is_taken_back() {
    Pipeline::new(
        r#"
        [process.a]
        script = "seq 3; test $PROCFLOW_ATTEMPT = 2"
        stdout = { file = "o", append = true }
        retries = { max = 3, delay = "1ms" }
        "#,
    )
    .with_file("o", "old\n")
    .run()
    .file("o", "old\n1\n2\n3\n");
}

#[test]
fn a_value_of_more_than_64_kib_fails_its_node() {
    Pipeline::new(
        r#"
        [process.fits]
        script = "yes | tr -d '\\n' | head -c 65536"
        stdout = "value"
        [process.long]
        script = "yes | tr -d '\\n' | head -c 65537"
        stdout = "value"
        [run]
        on_failure = "continue"
        "#,
    )
    .run()
    .nodes([
        ("fits", "succeeded"),
        (
            "long",
            "failed: its value is longer than 64 KiB; write it to a file instead",
        ),
    ])
    .exit(1);
}

/// What a node forgot holds its standard output open; the node has ended all the same.
#[test]
fn a_forgotten_grandchild_does_not_hold_its_node() {
    let ran = Pipeline::new(
        r#"
        [process.leak]
        script = "sleep 1000 & echo done"
        "#,
    )
    .run();
    assert_eq!(ran.field("leak", "leaked"), true);
}

#[test]
fn a_forgotten_grandchild_does_not_hold_a_queue() {
    Pipeline::new(
        r#"
        [process.leak]
        script = "sleep 1000 & seq 3"
        stdout = "q"
        [process.count]
        command = ["wc", "-l"]
        stdin = "q"
        stdout = "inherit"
        "#,
    )
    .run()
    .stdout("3\n");
}

/// Writing without end does not help it either.
#[test]
fn a_forgotten_grandchild_that_writes_does_not_hold_its_node() {
    Pipeline::new(
        r#"
        [process.leak]
        script = "(while :; do echo noise; done) & echo done"
        "#,
    )
    .run();
}

#[test]
fn a_daemon_does_not_outlive_the_run() {
    Pipeline::new(
        r#"
        [process.daemon]
        script = "setsid sh -c 'sleep 1000 & exec sleep 1000' < /dev/null > /dev/null 2>&1 & echo started"
        "#,
    )
    .run();
}

/// Each reader's end comes when its own writer ends, whatever else was started between the two.
#[test]
fn two_hundred_pairs_end_each_by_itself() {
    let mut text = String::from("[process.hold]\nscript = \"read go < gate\"\n");
    for pair in 0..200 {
        text.push_str(&format!(
            "[process.w{pair}]\ncommand = [\"true\"]\nstdout = \"q{pair}\"\n[process.r{pair}]\ncommand = [\"cat\"]\nstdin = \"q{pair}\"\n"
        ));
    }
    // Only when every pair has ended is the first node let go: were one of them held, nothing would end.
    text.push_str("[process.release]\nscript = \"echo go > gate\"\nafter = [");
    for pair in 0..200 {
        text.push_str(&format!("\"r{pair}\", "));
    }
    text.push_str("]\n");
    Pipeline::new(&text)
        .with_fifo("gate")
        .args(["--jobs", "1000"])
        .run();
}

#[test]
fn a_queue_can_lead_through_many_processes() {
    let mut text = String::from("[process.p0]\ncommand = [\"seq\", \"1000\"]\nstdout = \"q0\"\n");
    for step in 1..100 {
        text.push_str(&format!(
            "[process.p{step}]\ncommand = [\"cat\"]\nstdin = \"q{}\"\nstdout = \"q{step}\"\n",
            step - 1
        ));
    }
    text.push_str(
        "[process.last]\ncommand = [\"wc\", \"-l\"]\nstdin = \"q99\"\nstdout = \"inherit\"\n",
    );
    Pipeline::new(&text).run().stdout("1000\n");
}

#[test]
fn a_writer_that_ends_within_a_record_has_failed() {
    for (records, written) in [
        ("{ size = 4 }", "abcdef"),
        ("\"length32\"", "\\000\\000\\000\\005abc"),
    ] {
        let ran = Pipeline::new(&format!(
            r#"
            [process.torn]
            command = ["printf", '{written}']
            stdout = "q"
            [process.whole]
            command = ["printf", '']
            stdout = "q"
            [process.read]
            script = "trap '' TERM; cat > partial; mv partial result"
            stop_grace = "300ms"
            stdin = "q"
            [queue.q]
            records = {records}
            "#
        ))
        .run()
        .node("read", "cancelled: writer torn failed")
        .no_file("result")
        .exit(1);
        assert_eq!(ran.field("torn", "state"), "failed");
    }
}

#[test]
fn records_may_end_with_other_bytes_than_a_newline() {
    Pipeline::new(
        r#"
        [process.a]
        command = ["printf", 'one\000two']
        stdout = "q"
        [process.b]
        command = ["printf", 'three\nlines\000']
        stdout = "q"
        [process.read]
        command = ["tr", '\000', "|"]
        stdin = "q"
        stdout = "inherit"
        [queue.q]
        records = "nul"
        merge = "sequence"
        "#,
    )
    .run()
    .stdout("one|two|three\nlines|");
}

#[test]
fn a_record_cut_off_behind_a_slow_copy_is_a_failure_of_its_writer() {
    // The writer has ended long before its copies have brought its last bytes to `records`.
    Pipeline::new(
        r#"
        [process.write]
        script = "echo $$ > pid; head -c 40020 /dev/zero"
        stdout = ["slow", "records"]
        [process.slow]
        script = """
        until [ -s pid ]; do sleep 0.01; done
        while kill -0 "$(cat pid)"; do sleep 0.01; done
        cat
        """
        stdin = "slow"
        stdout = "null"
        stderr = "null"
        [process.left]
        command = ["cat"]
        stdin = "records"
        stdout = { file = "left.txt" }
        [process.right]
        command = ["cat"]
        stdin = "records"
        stdout = { file = "right.txt" }
        [queue.slow]
        capacity = "4KiB"
        [queue.records]
        records = { size = 16 }
        deliver = "copy"
        "#,
    )
    .run()
    .nodes([
        (
            "write",
            "failed: the last record of queue `records` is cut off after 4 bytes of it, 40016 bytes into the data",
        ),
        ("slow", "cancelled: writer write failed"),
        ("left", "cancelled: writer write failed"),
        ("right", "cancelled: writer write failed"),
    ])
    .only_files(["pid"])
    .exit(1);
}

#[test]
fn a_writer_stopped_for_a_fault_is_not_asked_for_it_again() {
    // It ends well when it is stopped; its queue has told its fault, and has nothing more to say. With that waited for, this
    // would take the whole grace, and time out.
    Pipeline::new(
        r#"
        [process.write]
        script = "trap 'exit 0' TERM; seq -s, 100; while :; do sleep 0.01; done"
        stdout = "q"
        stop_grace = "10m"
        [process.left]
        command = ["cat"]
        stdin = "q"
        stdout = "null"
        [process.right]
        command = ["cat"]
        stdin = "q"
        stdout = "null"
        [queue.q]
        max_record = "20B"
        deliver = "copy"
        "#,
    )
    .run()
    .nodes([
        (
            "write",
            "failed: a record of queue `q` is longer than max_record (20 B), after 0 bytes",
        ),
        ("left", "cancelled: writer write failed"),
        ("right", "cancelled: writer write failed"),
    ])
    .exit(1);
}

#[test]
fn a_log_whose_pipe_its_writer_has_enlarged_is_read_to_its_end() {
    // F_SETPIPE_SZ is 1031. Twice: the second finds the pipe that the first has left.
    let text = |name: &str| {
        format!(
            r#"
            [process.{name}]
            command = ["python3", "-c", """
import fcntl, os
fcntl.fcntl(1, 1031, 1 << 20)
os.write(1, b"x" * 499_999 + b"\\n")
"""]
            "#
        )
    };
    let ran = Pipeline::new(&format!("{}{}after = [\"one\"]", text("one"), text("two"))).run();
    let mut runs = std::fs::read_dir(ran.pipeline.path(".procflow/runs")).unwrap();
    let run = runs
        .next()
        .expect("the run has a directory")
        .unwrap()
        .path();
    for name in ["one", "two"] {
        let log = run.join(format!("logs/{name}.out"));
        assert_eq!(std::fs::metadata(log).unwrap().len(), 500_000, "{name}");
    }
}

#[test]
fn a_writer_whose_turn_has_not_come_may_end() {
    // `first` waits with its file for all upstream of it, `second` too; the data of `second` comes after its own.
    Pipeline::new(
        r#"
        [process.first]
        command = ["cat"]
        stdin = "words"
        stdout = ["q", { file = "words.txt" }]
        [process.second]
        script = "echo a >&5; echo b"
        stdout = "q"
        outputs = { 5 = "words" }
        [process.read]
        command = ["cat"]
        stdin = "q"
        stdout = "inherit"
        [queue.q]
        merge = "sequence"
        "#,
    )
    .run()
    .file("words.txt", "a\n")
    .stdout("a\nb\n");
}

#[test]
fn a_fault_is_told_before_the_writers_turn_has_come() {
    let pipeline = |records: &str, close: &str| {
        Pipeline::new(&format!(
            r#"
            [process.first]
            script = "head -c 8"
            stdin = "start"
            stdout = ["q", {{ file = "start.txt" }}]
            [process.second]
            script = "printf '1234567\\n' >&5; printf 'abcdefg\\nhijklmnop\\nq'"
            stdout = "q"
            outputs = {{ 5 = "start" }}
            [process.read]
            command = ["cat"]
            stdin = "q"
            stdout = "inherit"
            [queue.q]
            merge = "sequence"
            {records}
            {close}
            "#
        ))
    };
    let torn = "failed: the last record of queue `q` is cut off after 3 bytes of it, 16 bytes into the data";
    let long = "failed: a record of queue `q` is longer than max_record (8 B), after 8 bytes";
    for (records, why) in [
        ("records = { size = 8 }", torn),
        ("max_record = \"8B\"", long),
    ] {
        // What `first` has written before may have been read or not.
        pipeline(records, "")
            .run()
            .any_stdout()
            .nodes([
                ("first", "cancelled: writer second failed"),
                ("second", why),
                ("read", "cancelled: writer second failed"),
            ])
            .only_files([])
            .exit(1);
    }
    let close = r#"on_writer_failure = "close"
        [queue.start]
        on_writer_failure = "close""#;
    pipeline("records = { size = 8 }", close)
        .run()
        .stdout("1234567\nabcdefg\nhijklmno")
        .file("start.txt", "1234567\n")
        .nodes([
            ("first", "succeeded"),
            ("second", torn),
            ("read", "succeeded"),
        ])
        .exit(1);
}
