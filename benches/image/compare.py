#!/usr/bin/env python3
"""Runs coop and its peers in turn on the inputs of inputs.py; called by benches/image.sh.

Every round runs each command of a case once, so that what disturbs the machine disturbs all of
them: hyperfine runs one command's rounds after the other's. A first round warms the cache and is
not counted. The output is removed before each run and checked by e2fsck -fn after it, both outside
the time. Wall and processor time come from wait4, peak memory from /usr/bin/time, as a child of
this program would start with its memory.
"""

import argparse
import json
import os
import platform
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

BLOCK = 4096
MEBI = 1 << 20
COOP = "coop"
TIME = "/usr/bin/time"


@dataclass
class Command:
    """A program to run; `{out}` in its arguments is the output."""

    name: str
    arguments: list
    image: bool = True
    runs: list = field(default_factory=list)
    note: str = ""

    def median(self, what="wall"):
        return statistics.median(run[what] for run in self.runs) if self.runs else None


@dataclass
class Case:
    """Commands that do the same work; the first is what the others are compared with."""

    name: str
    title: str
    inputs: list
    rounds: int
    commands: list
    inodes: int = 0
    check_each: bool = True
    out: Path | None = None


class Tools:
    """Where the programs are; what is missing is left out with a word."""

    def __init__(self, arguments):
        self.coop = shlex.split(arguments.coop)
        self.sized = "image" in self.coop
        self.peer = arguments.mkext4
        self.missing = set()
        folder = arguments.e2fsprogs
        self.backports = Path(folder) if folder else None
        if not Path(TIME).exists():
            sys.exit(f"{TIME} is not installed; it is needed")
        self.e2fsck = [self.find("e2fsck", required=True)]
        self.mke2fs = [self.find("mke2fs", required=True)]
        self.dumpe2fs = [self.find("dumpe2fs", required=True)]
        if self.backports:
            libraries = sorted({str(p.parent) for p in self.backports.glob("lib/**/libext2fs.so*")})
            wrapper = ["env", "LD_LIBRARY_PATH=" + ":".join(libraries)]
            self.environment = wrapper if libraries else []
            binaries = self.backports / "sbin"
            self.mke2fs = [*self.environment, str(binaries / "mke2fs")]
            self.e2fsck = [*self.environment, str(binaries / "e2fsck")]
            self.dumpe2fs = [*self.environment, str(binaries / "dumpe2fs")]

    def find(self, name, required=False):
        path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
        found = shutil.which(name, path=path)
        if not found:
            if required:
                sys.exit(f"{name} is not installed; it is needed")
            self.missing.add(name)
        return found

    def versions(self):
        asked = {
            "coop": [self.coop[0], "--version"],
            "mke2fs": [*self.mke2fs, "-V"],
            "e2fsck": [*self.e2fsck, "-V"],
            "genext2fs": ["genext2fs", "-V"],
            "cp": ["cp", "--version"],
        }
        found = {}
        for name, command in asked.items():
            try:
                said = subprocess.run(command, capture_output=True, text=True, timeout=10)
                text = (said.stdout + said.stderr).strip()
                found[name] = text.splitlines()[0] if text else "?"
            except OSError:
                found[name] = "missing"
        return found


def measure(command, out, timeout):
    """One run: wall seconds, processor seconds, peak memory in KiB; None where it ran too long."""
    memory = out.with_suffix(".memory")
    arguments = [TIME, "-o", str(memory), "-f", "%M"]
    arguments += [part.replace("{out}", str(out)) for part in command.arguments]
    stdin = os.open(os.devnull, os.O_RDONLY)
    log = out.with_suffix(".log")
    said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    actions = [(os.POSIX_SPAWN_DUP2, stdin, 0), (os.POSIX_SPAWN_DUP2, said, 1), (os.POSIX_SPAWN_DUP2, said, 2)]
    begin = time.monotonic()
    child = os.posix_spawnp(arguments[0], arguments, os.environ, file_actions=actions, setpgroup=0)
    signal.signal(signal.SIGALRM, lambda *_: os.killpg(child, signal.SIGKILL))
    signal.setitimer(signal.ITIMER_REAL, timeout)
    _, status, usage = os.wait4(child, 0)
    wall = time.monotonic() - begin
    signal.setitimer(signal.ITIMER_REAL, 0)
    os.close(stdin)
    os.close(said)
    if os.WIFSIGNALED(status) and wall >= timeout:
        return None
    if status != 0:
        sys.exit(f"{shlex.join(arguments)} failed:\n{log.read_text(errors='replace')[-2000:]}")
    return {
        "wall": wall,
        "cpu": usage.ru_utime + usage.ru_stime,
        "user": usage.ru_utime,
        "system": usage.ru_stime,
        "memory": int(memory.read_text().split()[-1]),
    }


def check(tools, command, case, out):
    """e2fsck finds nothing, and as many inodes are in use as the input has (and lost+found)."""
    said = subprocess.run([*tools.e2fsck, "-fn", out], capture_output=True, text=True)
    if said.returncode != 0:
        sys.exit(f"{case.name}: e2fsck finds fault with the image of {command.name}:\n{said.stdout[-2000:]}")
    said = subprocess.run([*tools.dumpe2fs, "-h", out], capture_output=True, text=True, check=True)
    facts = dict(line.split(":", 1) for line in said.stdout.splitlines() if ":" in line)
    used = int(facts["Inode count"]) - int(facts["Free inodes"])
    # The root counts among the ten reserved inodes; lost+found and an orphan file come on top.
    if not 0 <= used - (case.inodes + 9) <= 2:
        sys.exit(f"{case.name}: {command.name} has {used} inodes, the input {case.inodes}")


def remove(out):
    out.unlink(missing_ok=True)
    shutil.rmtree(f"{out}.d", ignore_errors=True)


def run_case(tools, case, options):
    """All rounds of a case; commands that run into the time limit are not asked again."""
    out = (case.out or options.out) / f"{case.name}.img"
    rounds = max(1, round(case.rounds * options.rounds))
    os.sync()
    for number in range(rounds + 1):
        for command in case.commands:
            if command.note:
                continue
            remove(out)
            result = measure(command, out, options.timeout)
            if result is None:
                command.note = f"stopped after {options.timeout:.0f} s"
                remove(out)
                continue
            if command.image and (number == 0 or case.check_each):
                check(tools, command, case, out)
            remove(out)
            slow = number == 0 and result["wall"] > options.timeout / 4
            if number > 0 or slow or rounds == 1:
                command.runs.append(result)
            if slow:
                command.note = "one run"
    for rest in (".log", ".memory"):
        out.with_suffix(rest).unlink(missing_ok=True)


def seconds(value):
    return f"{value * 1000:.0f} ms" if value < 0.9995 else f"{value:.2f} s"


def mebibytes(kibibytes):
    return f"{kibibytes / 1024:.0f} MiB"


def table(case):
    """Rows: median and fastest wall time, processor time, memory, and how often coop fits in it."""
    yield f"\n### {case.title}\n"
    yield "| program | median | fastest | processor | peak memory | median ÷ coop's |"
    yield "|---|---|---|---|---|---|"
    base = case.commands[0].median()
    for command in case.commands:
        if not command.runs:
            yield f"| {command.name} | {command.note} | | | | |"
            continue
        ratio = f"{command.median() / base:.2f}" if base else ""
        note = f" ({command.note})" if command.note else ""
        yield (
            f"| {command.name}{note} | {seconds(command.median())} | "
            f"{seconds(min(run['wall'] for run in command.runs))} | {seconds(command.median('cpu'))} | "
            f"{mebibytes(command.median('memory'))} | {ratio} |"
        )


def ratio(cases, case, peer):
    """A peer's median over coop's in one case; None where one of them did not run."""
    found = {command.name: command.median() for command in cases[case].commands} if case in cases else {}
    ours, theirs = found.get(COOP), found.get(peer)
    return theirs / ours if ours and theirs else None


def aims(cases):
    """What issue and README promise, and what this run found: (aim, bound, value, met)."""
    rows = []

    def at_least(text, bound, value):
        if value is not None:
            rows.append((text, f"≥ {bound}", f"{value:.2f}", value >= bound))

    def at_most(text, bound, value, unit="", digits=2):
        if value is not None:
            rows.append((text, f"≤ {bound}{unit}", f"{value:.{digits}f}{unit}", value <= bound))

    def coop(case, what="wall"):
        found = [c for c in cases[case].commands if c.name == COOP] if case in cases else []
        return found[0].median(what) if found else None

    for case in ("debian", "debian-memory", "small", "flat", "sparse"):
        at_least(f"{case}: mke2fs from tar ÷ coop", 6, ratio(cases, case, "mke2fs -d"))
        at_least(f"{case}: mkext4 ÷ coop", 2, ratio(cases, case, "mkext4"))
        copied = ratio(cases, case, "cp of the tar")
        at_most(f"{case}: coop ÷ cp", 2, 1 / copied if copied else None)
    for name, case in cases.items():
        if name.startswith("unpack-"):
            peers = [c.median() for c in case.commands[1:] if c.runs]
            ours = case.commands[0].median()
            at_most(f"{name}: coop ÷ best decompression", 1.1, ours / min(peers) if ours and peers else None)
    ten, hundred, million = (coop(f"growth-{size}") for size in ("10k", "100k", "1m"))
    at_most("10 k to 100 k files", 11, hundred / ten if ten and hundred else None)
    at_most("100 k to 1 M files", 11, million / hundred if hundred and million else None)
    for case, bound in (("large", 128), ("growth-1m", 600)):
        memory = coop(case, "memory")
        at_most(f"{case}: peak memory", bound, memory / 1024 if memory else None, " MiB", 0)
    return rows


def image_size(facts):
    """Room for the content, the inodes and a journal, in whole MiB; the same for everyone."""
    content = facts["blocks"] * BLOCK + facts["inodes"] * 256
    return -(-(content + content // 8 + 80 * MEBI) // MEBI) * MEBI


def coop_command(tools, source, facts, name=COOP):
    words = [word.replace("{src}", str(source)) for word in tools.coop]
    if tools.sized:
        words += ["--size", f"{image_size(facts) >> 20}MiB", "--inodes", str(facts["inodes"] + 100)]
    return Command(name, words)


def piped_coop_command(tools, archive, facts):
    words = shlex.join(coop_command(tools, "-", facts).arguments).replace("'{out}'", "{out}")
    line = f"cat {shlex.quote(str(archive))} | {words}"
    return Command("coop, through a pipe", ["sh", "-c", line])


def image_commands(tools, source, facts, kind):
    """coop and peers on one archive or folder."""
    size, inodes = image_size(facts), facts["inodes"] + 100
    mke2fs = [*tools.mke2fs, "-q", "-F", "-t", "ext4", "-b", str(BLOCK), "-I", "256", "-m", "0"]
    commands = [
        coop_command(tools, source, facts),
        Command("mke2fs -d", [*mke2fs, "-N", str(inodes), "-d", str(source), "{out}", f"{size >> 20}M"]),
    ]
    if tools.peer:
        commands.append(Command("mkext4", [tools.peer, str(source), "{out}", str(size), str(inodes)]))
    if tools.find("genext2fs"):
        flag = "-a" if kind == "tar" else "-d"
        words = ["genext2fs", "-z", "-B", str(BLOCK), "-b", str(size // BLOCK), "-N", str(inodes), "-m", "0"]
        commands.append(Command("genext2fs (ext2)", [*words, flag, str(source), "{out}"]))
    return commands


def all_cases(tools, options):
    """Every case by name; inputs are made only for those that are run."""
    at = options.folder
    cases = {}

    def facts(name):
        path = at / f"{name}.json"
        return json.loads(path.read_text()) if path.exists() else {"inodes": 0, "blocks": 0}

    def add(name, title, inputs, rounds, commands, **more):
        cases[name] = Case(name, title, inputs, rounds, commands, **more)

    titles = {
        "debian": "Debian minimal",
        "small": "110 k small files",
        "flat": "120 k files in one folder",
        "sparse": "8 GiB file with holes",
    }
    rounds = {"debian": 15, "small": 5, "flat": 5, "sparse": 5}
    for name, title in titles.items():
        known = facts(name)
        archive = at / f"{name}.tar"
        copy = Command("cp of the tar", ["cp", str(archive), "{out}"], image=False)
        commands = [*image_commands(tools, archive, known, "tar"), copy]
        more = {"inodes": known["inodes"]}
        add(name, f"{title}, from tar", [name], rounds[name], commands, **more)
        if name == "debian":
            commands.append(piped_coop_command(tools, archive, known))
            if options.memory:
                again = [*image_commands(tools, archive, known, "tar"), Command(copy.name, copy.arguments, False)]
                add("debian-memory", f"{title}, from tar, output in a tmpfs", [name], 15, again, out=options.memory, **more)
        if name == "sparse":
            copied = Command("cp of the folder's file", ["cp", str(at / name / "disk"), "{out}"], image=False)
        else:
            copied = Command("cp -a of the folder", ["cp", "-a", str(at / name), "{out}.d"], image=False)
        commands = [*image_commands(tools, at / name, known, "folder"), copied]
        # A folder made without root has no devices, and what they were is known only by counting.
        counted = sum(len(d) + len(f) for _, d, f in os.walk(at / name)) + 1
        links = {(s.st_dev, s.st_ino) for s in hard_links(at / name)}
        names = sum(1 for _ in hard_links(at / name))
        add(f"{name}-folder", f"{title}, from a folder", [name], max(3, rounds[name] // 2), commands,
            inodes=counted - names + len(links))
    unpack = {
        "gz": ("debian.tar.gz", [["pigz", "-dc"], ["gzip", "-dc"]]),
        "bz2": ("debian.tar.bz2", [["lbzip2", "-dc"], ["pbzip2", "-dc"], ["bzip2", "-dc"]]),
        "xz": ("debian.tar.xz", [["xz", "-dc", "-T0"], ["pixz", "-d"]]),
        "xz-one-block": ("debian-one-block.tar.xz", [["xz", "-dc", "-T0"]]),
        "zst": ("debian.tar.zst", [["zstd", "-dc"]]),
        "zst-frames": ("debian-frames.tar.zst", [["zstd", "-dc"], ["pzstd", "-dc"]]),
    }
    known = facts("debian")
    for name, (file, peers) in unpack.items():
        path = at / file
        commands = [coop_command(tools, path, known)]
        for words in peers:
            if tools.find(words[0]):
                line = f"exec {shlex.join(words)} < {shlex.quote(str(path))} > /dev/null"
                commands.append(Command(f"{shlex.join(words)} to /dev/null", ["sh", "-c", line], image=False))
        add(f"unpack-{name}", f"Debian minimal, {file}", ["debian", "compressed"], 5, commands, inodes=known["inodes"])
    for size, runs in (("10k", 9), ("100k", 5), ("1m", 3)):
        name = f"growth-{size}"
        known = facts(name)
        archive = at / f"{name}.tar"
        commands = image_commands(tools, archive, known, "tar")
        commands = [c for c in commands if c.name in (COOP, "mkext4")]
        add(name, f"{size.replace('1m', '1 M').replace('k', ' k')} files, from tar, output in a tmpfs" if options.memory
            else f"{size} files, from tar", [name], runs, commands, inodes=known["inodes"],
            check_each=size != "1m", out=options.memory)
    known = facts("large")
    copy = Command("cp of the tar", ["cp", str(at / "large.tar"), "{out}"], image=False)
    add("large", "4 GiB tar, output in a tmpfs" if options.memory else "4 GiB tar", ["large"], 2,
        [coop_command(tools, at / "large.tar", known), piped_coop_command(tools, at / "large.tar", known), copy], inodes=known["inodes"],
        check_each=False, out=options.memory)
    return cases


def hard_links(folder):
    for here, _, files in os.walk(folder):
        for file in files:
            status = os.lstat(os.path.join(here, file))
            if status.st_nlink > 1:
                yield status


QUICK = ("debian", "debian-memory", "debian-folder", "unpack-xz", "growth-10k", "growth-100k")


def chosen(names, options):
    if options.only:
        unknown = [word for word in options.only if not any(word in name for name in names)]
        if unknown:
            sys.exit(f"no case has '{unknown[0]}' in its name; there are: {' '.join(names)}")
        return [name for name in names if any(word in name for word in options.only)]
    return [name for name in names if name in QUICK] if options.quick else names


def busy():
    """Share of the processors that someone else uses, over half a second."""

    def read():
        fields = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
        return sum(fields), fields[3] + fields[4]

    total, idle = read()
    time.sleep(0.5)
    total_then, idle_then = read()
    return 1 - (idle_then - idle) / max(1, total_then - total)


def room(folder, needed):
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize >= needed


def parse():
    parser = argparse.ArgumentParser(prog="benches/image.sh", description=__doc__)
    parser.add_argument("folder", type=Path, help="where inputs are kept between runs; 9 GB, 1 GB with --quick")
    parser.add_argument("--debian", type=Path, help="tar of a minimal Debian [default: mmdebstrap makes it]")
    parser.add_argument("--only", action="append", metavar="NAME", help="cases with this in their name; repeatable")
    parser.add_argument("--quick", action="store_true", help="a selection with small inputs")
    parser.add_argument("--rounds", type=float, default=1, help="factor on the number of rounds")
    parser.add_argument("--timeout", type=float, default=30, help="seconds that one run may take [default: 30]")
    parser.add_argument("--out", type=Path, help="folder of the outputs [default: FOLDER]")
    parser.add_argument("--memory", type=Path, default=Path("/dev/shm"), help="a tmpfs [default: /dev/shm]")
    parser.add_argument("--json", type=Path, help="write every run's figures to this file")
    parser.add_argument("--list", action="store_true", help="name the cases and stop")
    parser.add_argument("--coop", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--mkext4", help=argparse.SUPPRESS)
    parser.add_argument("--e2fsprogs", default=os.environ.get("COOP_TEST_E2FSPROGS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.folder = options.folder.resolve()
    options.out = (options.out or options.folder).resolve()
    return options


def main():
    options = parse()
    tools = Tools(options)
    if not options.memory.is_dir() or not room(options.memory, 7 << 30):
        print(f"{options.memory} is missing or has less than 7 GiB: no outputs in a tmpfs", file=sys.stderr)
        options.memory = None
    names = chosen(list(all_cases(tools, options)), options)
    if options.list:
        print("\n".join(names))
        return
    wanted = sorted({i for name in names for i in all_cases(tools, options)[name].inputs}, key="debian".__ne__)
    maker = [sys.executable, str(Path(__file__).with_name("inputs.py")), str(options.folder)]
    maker += ["--debian", str(options.debian)] if options.debian else []
    subprocess.run([*maker, *wanted], check=True)
    options.out.mkdir(parents=True, exist_ok=True)
    cases = all_cases(tools, options)
    load = busy()
    print("## Figures\n")
    print(f"{os.cpu_count()} processors, Linux {platform.release()}, {load:.0%} busy with something else at the start.\n")
    if load > 0.1:
        print("**The machine is not quiet: ratios are less certain, times mean little.**\n")
    for name, version in tools.versions().items():
        print(f"- {name}: {version}")
    begin = time.monotonic()
    done = {}
    for name in names:
        print(f"{time.monotonic() - begin:5.0f} s  {name}", file=sys.stderr)
        run_case(tools, cases[name], options)
        done[name] = cases[name]
        print("\n".join(table(cases[name])), flush=True)
    print("\n### Aims\n\n| aim | bound | found | |\n|---|---|---|---|")
    for text, bound, value, met in aims(done):
        print(f"| {text} | {bound} | {value} | {'met' if met else '**missed**'} |")
    for name in sorted(tools.missing):
        print(f"\n{name} is not installed; it was left out.")
    if options.json:
        report = {name: {c.name: c.runs for c in case.commands} for name, case in done.items()}
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    print(f"{time.monotonic() - begin:5.0f} s  done", file=sys.stderr)


if __name__ == "__main__":
    main()
