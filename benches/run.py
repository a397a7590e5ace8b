#!/usr/bin/env python3
"""Runs procflow and its peers side by side, and prints how they compare.

In one run and interleaved: each round runs every contender once, in an order that rotates, so that what else the machine
does falls on all of them. The middle (median) of each is taken. Ratios are what counts; seconds are this machine's.

Nothing is installed. A peer that is not on PATH is named and left out. See README.md beside this file.
"""

import argparse
import json
import os
import pathlib
import platform
import random
import shutil
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent

# What may be missing, and where it comes from.
PEERS = {
    "make": "apt-get install make",
    "xargs": "apt-get install findutils",
    "ninja": "apt-get install ninja-build",
    "n2": "cargo install --git https://github.com/evmar/n2",
    "just": "cargo install just",
    "parallel": "apt-get install parallel",
    "dgsh-tee": "built from https://github.com/dspinellis/dgsh; it is in no package",
}


class Contender:
    """A command line to be timed; `floor` is what the others are compared with.

    `amount`: how much of the work it does, for what would take too long otherwise. What it takes is told for the whole.
    """

    def __init__(self, name, argv, stdin=None, amount=1):
        self.name = name
        self.argv = [str(argument) for argument in argv]
        self.stdin = stdin
        self.amount = amount
        self.seconds = []
        self.cpu = []
        self.peak = 0

    def run(self):
        """Starts it by posix_spawn, which costs the same for all, and waits. A failure is an error of the benchmark."""
        null = os.open(os.devnull, os.O_RDWR)
        stdin = os.open(self.stdin, os.O_RDONLY) if self.stdin else null
        actions = [
            (os.POSIX_SPAWN_DUP2, stdin, 0),
            (os.POSIX_SPAWN_DUP2, null, 1),
            (os.POSIX_SPAWN_DUP2, null, 2),
        ]
        program = shutil.which(self.argv[0])
        start = time.perf_counter()
        child = os.posix_spawn(program, self.argv, os.environ, file_actions=actions)
        _, status, usage = os.wait4(child, 0)
        self.seconds.append((time.perf_counter() - start) / self.amount)
        self.cpu.append((usage.ru_utime + usage.ru_stime) / self.amount)
        self.peak = max(self.peak, usage.ru_maxrss * 1024)
        os.close(null)
        if stdin != null:
            os.close(stdin)
        if status != 0:
            sys.exit(f"{self.name}: {' '.join(self.argv)}: wait status {status}")

    def median(self):
        return statistics.median(self.seconds)


def built():
    """The program that was built last: with a target named, as .cargo/config.toml does, or without."""
    found = [*ROOT.glob("target/release/procflow"), *ROOT.glob("target/*/release/procflow")]
    return max(found, key=lambda path: path.stat().st_mtime, default=ROOT / "target/release/procflow")


def have(peer):
    if shutil.which(peer):
        return True
    print(f"  {peer} is not there ({PEERS[peer]})")
    return False


def compete(contenders, rounds):
    """Each round runs all of them; the first round warms up and doesn't count."""
    for number in range(rounds + 1):
        turn = number % len(contenders)
        for contender in contenders[turn:] + contenders[:turn]:
            contender.run()
    for contender in contenders:
        contender.seconds = contender.seconds[1:]
        contender.cpu = contender.cpu[1:]


def table(contenders, floor, memory=False):
    """Seconds, the ratio to the floor, how many times procflow's time each takes, and the processors' time of all its processes."""
    procflow = next(contender for contender in contenders if contender.name.startswith("procflow"))
    head = f"  {'':34} {'ms':>9} {'/ floor' if floor else '':>9} {'/ procflow':>11} {'cpu ms':>9}"
    print(head + (f" {'peak MiB':>9}" if memory else ""))
    for contender in contenders:
        median = contender.median()
        line = f"  {contender.name:34} {median * 1000:9.2f} "
        line += f"{median / floor.median():9.2f} " if floor else " " * 10
        line += f"{median / procflow.median():11.2f} {statistics.median(contender.cpu) * 1000:9.2f}"
        print(line + (f" {contender.peak / 2**20:9.0f}" if memory else ""))


def procflow_run(program, file, *more):
    """As the issue wants it measured: journal and report are written, progress is off."""
    return [program, "run", file, "--json", "report.json", "--progress", "none", "--output", "none", *more]


def write(name, lines):
    pathlib.Path(name).write_text("\n".join(lines) + "\n")


def range_words(count):
    """What xargs makes a process of: a word for each."""
    return (str(number) for number in range(count))


def no_ops(options):
    """2,000 times a static no-op, 8 at a time."""
    count = 2000
    write("flat.toml", (f'[process.n{i}]\ncommand = ["./noop"]' for i in range(count)))
    targets = [f"n{i}" for i in range(count)]
    write("flat.mk", [f"all: {' '.join(targets)}", f"{' '.join(targets)}:", "\t@./noop", f".PHONY: all {' '.join(targets)}"])
    write("flat.ninja", ["rule noop", "  command = ./noop", *(f"build {target}: noop" for target in targets)])
    write("numbers", range_words(count))
    contenders = [
        Contender("clone(VM|VFORK) + wait", ["./floor", "loop", count, 8, "./noop"]),
        Contender("procflow", procflow_run(options.procflow, "flat.toml", "-j", "8")),
    ]
    if have("make"):
        contenders.append(Contender("make -j8", ["make", "-s", "-f", "flat.mk", "-j8"]))
    if have("xargs"):
        contenders.append(Contender("xargs -P8 -n1", ["xargs", "-P8", "-n1", "./noop"], stdin="numbers"))
    if have("ninja"):
        contenders.append(Contender("ninja -j8", ["ninja", "-f", "flat.ninja", "-j8", "--quiet"]))
    compete(contenders, options.rounds)
    table(contenders, contenders[0])


def chain(options):
    """A chain of 2,000 static no-ops, each after the one before."""
    count = 2000
    write("numbers", range_words(count))
    first = '[process.n0]\ncommand = ["./noop"]'
    write("chain.toml", [first, *(f'[process.n{i}]\ncommand = ["./noop"]\nafter = ["n{i - 1}"]' for i in range(1, count))])
    make = [f"n{i}: {f'n{i - 1}' if i else ''}\n\t@./noop" for i in reversed(range(count))]
    write("chain.mk", [*make, f".PHONY: {' '.join(f'n{i}' for i in range(count))}"])
    ninja = [f"build n{i}: noop{f' | n{i - 1}' if i else ''}" for i in range(count)]
    write("chain.ninja", ["rule noop", "  command = ./noop", *ninja])
    contenders = [
        Contender("clone(VM|VFORK) + wait", ["./floor", "loop", count, 1, "./noop"]),
        Contender("procflow", procflow_run(options.procflow, "chain.toml", "-j", "8")),
    ]
    if have("make"):
        contenders.append(Contender("make -j8", ["make", "-s", "-f", "chain.mk", "-j8"]))
    if have("xargs"):
        contenders.append(Contender("xargs -n1", ["xargs", "-n1", "./noop"], stdin="numbers"))
    if have("ninja"):
        contenders.append(Contender("ninja -j8", ["ninja", "-f", "chain.ninja", "-j8", "--quiet"]))
    compete(contenders, options.rounds)
    table(contenders, contenders[0])


def once(options):
    """One /bin/true, from the start of the program to its end."""
    write("once.toml", ['[process.a]\ncommand = ["/bin/true"]'])
    write("once.mk", ["a:", "\t@/bin/true"])
    write("once.ninja", ["rule true", "  command = /bin/true", "build a: true"])
    write("once.just", ["a:", "    @/bin/true"])
    contenders = [
        Contender("posix_spawn + wait", ["./floor", "once", "/bin/true"]),
        Contender("procflow", procflow_run(options.procflow, "once.toml")),
    ]
    if have("ninja"):
        contenders.append(Contender("ninja", ["ninja", "-f", "once.ninja", "--quiet"]))
    if have("just"):
        contenders.append(Contender("just", ["just", "--justfile", "once.just", "a"]))
    if have("make"):
        contenders.append(Contender("make", ["make", "-s", "-f", "once.mk"]))
    compete(contenders, options.rounds * 10)
    table(contenders, contenders[0])


def large_graph(count):
    """A graph in which each node waits for three earlier ones, in both languages."""
    numbers = random.Random(count)
    toml, ninja = [], ["rule noop", "  command = ./noop"]
    for i in range(count):
        near = range(max(0, i - 1000), i)
        before = sorted(numbers.sample(near, min(3, len(near))))
        names = ", ".join(f'"n{j}"' for j in before)
        toml.append(f'[process.n{i}]\ncommand = ["./noop"]\nafter = [{names}]')
        ninja.append(f"build n{i}: noop {' '.join(f'n{j}' for j in before)}")
    write(f"graph-{count}.toml", toml)
    write(f"graph-{count}.ninja", ninja)


def graph(options):
    """A file of 100,000 nodes with three dependencies each: read, checked, planned."""
    # In a process of its own: what this one had in memory would be the least that wait4(2) says of any child's peak.
    child = os.fork()
    if child == 0:
        large_graph(20_000)
        large_graph(100_000)
        os._exit(0)
    os.waitpid(child, 0)
    contenders = [
        Contender("procflow check", [options.procflow, "check", "graph-100000.toml"]),
        Contender("procflow plan", [options.procflow, "plan", "graph-100000.toml"]),
    ]
    if have("ninja"):
        contenders.append(Contender("ninja -n", ["ninja", "-f", "graph-100000.ninja", "-n", "--quiet"]))
    if have("n2"):
        # n2 has no dry run that needs no build; a target without any work reads the file all the same.
        contenders.append(Contender("n2 (reads, builds n0)", ["n2", "-f", "graph-100000.ninja", "n0"]))
    small = Contender("procflow check, 20,000 nodes", [options.procflow, "check", "graph-20000.toml"])
    compete([*contenders, small], options.rounds)
    table([*contenders, small], None, memory=True)
    ratio = (contenders[0].median() / 100_000) / (small.median() / 20_000)
    print(f"  per node, 100,000 against 20,000: {ratio:.2f}")


def stream(options):
    """8 GiB through one queue between two processes, against the shell's pipe. Both ends are the same dd."""
    blocks = int(options.gib * 2**30 // 65536)
    writer = ["dd", "if=/dev/zero", "bs=64K", f"count={blocks}", "status=none"]
    reader = ["dd", "of=/dev/null", "bs=64K", "status=none"]
    for name, queue in [("stream", []), ("stream-64k", ["[queue.q]", 'capacity = "64KiB"'])]:
        quoted = [", ".join(f'"{argument}"' for argument in argv) for argv in (writer, reader)]
        write(
            f"{name}.toml",
            ["[process.write]", f"command = [{quoted[0]}]", 'stdout = "q"']
            + ["[process.read]", f"command = [{quoted[1]}]", 'stdin = "q"', *queue],
        )
    contenders = [
        Contender("sh: a | b (its pipe has 64 KiB)", ["sh", "-c", f"{' '.join(writer)} | {' '.join(reader)}"]),
        Contender("procflow, a queue of 256 KiB", procflow_run(options.procflow, "stream.toml")),
        Contender("procflow, a queue of 64 KiB", procflow_run(options.procflow, "stream-64k.toml")),
    ]
    compete(contenders, options.rounds)
    table(contenders, contenders[0])
    for contender in contenders:
        print(f"  {contender.name:34} {options.gib / contender.median():9.2f} GiB/s")


def relay_program():
    """The bare loops, and procflow's relay without the rest: benches/relay_bare.rs."""
    built = subprocess.run(
        ["cargo", "build", "--release", "--bench", "relay_bare", "--message-format", "json"],
        check=True,
        cwd=ROOT,
        stdout=subprocess.PIPE,
    )
    artifacts = [json.loads(line) for line in built.stdout.splitlines()]
    return next(artifact["executable"] for artifact in artifacts if artifact.get("target", {}).get("kind") == ["bench"])


def command(*argv):
    """A line of a pipeline file."""
    return f"command = [{', '.join(json.dumps(str(argument)) for argument in argv)}]"


def sh(line):
    """A failure anywhere in the line is one of the line: a contender that carries nothing would be the quickest."""
    return ["bash", "-o", "pipefail", "-c", line]


def share(options):
    """Lines of 16, 100 and 1,000 bytes shared by four workers that read and forget."""
    relay = relay_program()
    mib = max(int(options.gib * 128), 16)
    for length in (16, 100, 1000):
        name = f"share-{length}"
        write(
            f"{name}.toml",
            ["[process.write]", command("./lines", length, mib), 'stdout = "q"']
            + ["[pool.work]", "workers = 4", command("./sink"), 'stdin = "q"'],
        )
        lines = f"./lines {length} {mib}"
        few = f"./lines {length} {mib // 8}"
        contenders = [
            Contender("bare splice and last page", sh(f"{lines} | {relay} bare_share 4 ./sink")),
            Contender("procflow", procflow_run(options.procflow, f"{name}.toml")),
            Contender("its relay alone", sh(f"{lines} | {relay} share 4 ./sink")),
            Contender("its relay alone, round_robin", sh(f"{lines} | {relay} round_robin 4 ./sink")),
            Contender("split -n r/4 --filter", sh(f"{few} | split -n r/4 --filter ./sink"), amount=1 / 8),
        ]
        if have("parallel"):
            line = f"{few} | parallel --pipe --round-robin -j4 ./sink"
            contenders.append(Contender("parallel --pipe --round-robin", sh(line), amount=1 / 8))
        if have("dgsh-tee"):
            # Alone it negotiates with nobody. The shell waits for what stands in `>(..)` only with `wait`.
            line = f"{few} | dgsh-tee -s{' -o >(./sink)' * 4}; wait"
            contenders.append(Contender("dgsh-tee -s", sh(line), amount=1 / 8))
        compete(contenders, options.rounds)
        print(f"  {mib} MiB of lines of {length} bytes")
        table(contenders, contenders[0])


def by_field(options):
    """Lines of 100 bytes to four workers by their first word."""
    relay = relay_program()
    mib = max(int(options.gib * 128), 32)
    write(
        "by-field.toml",
        ["[process.write]", command("./lines", 100, mib), 'stdout = "q"', "[queue.q]", "deliver = { by_field = 1 }"]
        + ["[pool.work]", "workers = 4", command("./sink"), 'stdin = "q"'],
    )
    contenders = [
        Contender("procflow", procflow_run(options.procflow, "by-field.toml")),
        Contender("its relay alone", sh(f"./lines 100 {mib} | {relay} by_field 4 ./sink")),
    ]
    if have("parallel"):
        line = f"./lines 100 {mib // 32} | parallel --pipe --colsep ' ' --shard 1 -j4 ./sink"
        contenders.append(Contender("parallel --shard", sh(line), amount=1 / 32))
    compete(contenders, options.rounds)
    print(f"  {mib} MiB")
    table(contenders, None)


def copies(options):
    """Lines of 100 bytes copied to three processes that read and forget."""
    relay = relay_program()
    mib = max(int(options.gib * 256), 16)
    readers = [line for name in "abc" for line in (f"[process.{name}]", command("./sink"), 'stdin = "q"')]
    write(
        "copies.toml",
        ["[process.write]", command("./lines", 100, mib), 'stdout = "q"', "[queue.q]", 'deliver = "copy"', *readers],
    )
    lines = f"./lines 100 {mib}"
    contenders = [
        Contender("bare tee and splice", sh(f"{lines} | {relay} bare_copy 3 ./sink")),
        Contender("procflow", procflow_run(options.procflow, "copies.toml")),
        Contender("its relay alone", sh(f"{lines} | {relay} copy 3 ./sink")),
        Contender("tee >(..) >(..) | ..", sh(f"{lines} | tee >(./sink) >(./sink) | ./sink")),
    ]
    if have("dgsh-tee"):
        contenders.append(Contender("dgsh-tee", sh(f"{lines} | dgsh-tee{' -o >(./sink)' * 3}; wait")))
    compete(contenders, options.rounds)
    print(f"  {mib} MiB")
    table(contenders, contenders[0])


def fan_in(options):
    """Whole lines of 100 bytes of four writers to one process."""
    relay = relay_program()
    mib = max(int(options.gib * 128), 16)
    writers = [line for name in "abcd" for line in (f"[process.{name}]", command("./lines", 100, mib // 4), 'stdout = "q"')]
    write("fan-in.toml", [*writers, "[process.read]", command("./sink"), 'stdin = "q"'])
    lines = f"./lines 100 {mib // 4}"
    contenders = [
        Contender("bare loop of whole lines", sh(f"{relay} bare_merge 4 {lines} | ./sink")),
        Contender("procflow", procflow_run(options.procflow, "fan-in.toml")),
        Contender("cat <(..) <(..) <(..) <(..) | ..", sh(f"cat {f'<({lines}) ' * 4} | ./sink")),
    ]
    compete(contenders, options.rounds)
    print(f"  {mib} MiB")
    table(contenders, contenders[0])


def request(options):
    """Lines of 16 bytes answered by four workers that live on, the answers in order."""
    mib = max(int(options.gib * 8), 16)
    for worker in ("./echo", "cat"):
        name = f"request-{pathlib.Path(worker).name}"
        write(
            f"{name}.toml",
            ["[process.write]", command("./lines", 16, mib), 'stdout = "tasks"', "[process.read]", command("./sink")]
            + ['stdin = "results"', "[pool.work]", "workers = 4", 'feed = "request"', 'order = "input"', command(worker)]
            + ['stdin = "tasks"', 'stdout = "results"'],
        )
        python = [sys.executable, HERE / "floor/imap.py"]
        contenders = [
            Contender("bare epoll loop, 1,024 in flight", sh(f"./lines 16 {mib} | ./feed 4 1024 {worker} | ./sink")),
            Contender("procflow", procflow_run(options.procflow, f"{name}.toml")),
        ]
        if worker == "./echo":
            # The first 65,536 and 524,288 of the same lines. What Python takes to start is a small part of that.
            for chunk, few in ((1, 1), (100, 8)):
                line = f"./lines 16 {few} | {python[0]} {python[1]} {chunk} | ./sink"
                contenders.append(Contender(f"Pool.imap(chunksize={chunk})", sh(line), amount=few / mib))
        compete(contenders, options.rounds)
        print(f"  {mib * 2**16:,} lines, answered by {worker}")
        table(contenders, contenders[0])


def task(options):
    """2,000 times a static no-op, 8 at a time: a pool that makes a process for each task, and as many nodes."""
    count = 2000
    write("nodes.toml", (f'[process.n{i}]\ncommand = ["./noop"]' for i in range(count)))
    write(
        "task.toml",
        ["[pool.work]", "workers = 8", 'feed = "task"', f"tasks = {{ range = [0, {count}] }}", command("./noop")],
    )
    write("numbers", range_words(count))
    contenders = [
        Contender("procflow: a node for each", procflow_run(options.procflow, "nodes.toml", "-j", "8")),
        Contender("procflow: a task for each", procflow_run(options.procflow, "task.toml", "-j", "8")),
    ]
    if have("xargs"):
        contenders.append(Contender("xargs -P8 -n1", ["xargs", "-P8", "-n1", "./noop"], stdin="numbers"))
    if have("parallel"):
        write("few", range_words(count // 8))
        contenders.append(Contender("parallel -j8", ["parallel", "-j8", "./noop"], stdin="few", amount=1 / 8))
    compete(contenders, options.rounds)
    # The ratio to procflow is that to the tasks.
    table([*contenders[1:], contenders[0]], contenders[0])


BENCHMARKS = {"no-ops": no_ops, "chain": chain, "once": once, "graph": graph, "stream": stream}
BENCHMARKS |= {"share": share, "by-field": by_field, "copies": copies, "fan-in": fan_in, "request": request, "task": task}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benchmark", nargs="*", help=f"which: {', '.join(BENCHMARKS)}; all of them by default")
    parser.add_argument("--rounds", type=int, default=11, help="rounds that count, one more warms up (11)")
    parser.add_argument("--gib", type=float, default=8, help="length of the byte stream in GiB (8)")
    parser.add_argument("--procflow", default=built(), help="the program to measure")
    options = parser.parse_args()
    unknown = [name for name in options.benchmark if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no such benchmark: {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    options.procflow = pathlib.Path(options.procflow).resolve()
    if not options.procflow.exists():
        sys.exit(f"{options.procflow} is not there; make it with `cargo build --release`")

    work = ROOT / "target/bench"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    os.chdir(work)
    # What is measured must not find a jobserver or a terminal's habits of whoever started this.
    for name in ("MAKEFLAGS", "MAKELEVEL", "CI", "GITHUB_ACTIONS"):
        os.environ.pop(name, None)
    floor = HERE / "floor"
    subprocess.run(["cc", "-Os", "-static", "-nostdlib", "-o", "noop", floor / "noop.c"], check=True)
    for name in ("floor", "lines", "sink", "echo", "feed"):
        subprocess.run(["cc", "-O2", "-o", name, floor / f"{name}.c"], check=True)

    print(f"{platform.platform()}, {len(os.sched_getaffinity(0))} processors, load {os.getloadavg()[0]:.1f}")
    for name in options.benchmark or BENCHMARKS:
        benchmark = BENCHMARKS[name]
        print(f"\n{name}: {benchmark.__doc__}")
        benchmark(options)


if __name__ == "__main__":
    main()
