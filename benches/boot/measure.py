"""The runs and the table of benches/boot.sh, which makes WORK/off.cpio first."""

import argparse
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import time

# A case that takes longer than this is hung; its whole process group is killed.
DEADLINE_S = 120


def arguments():
    parser = argparse.ArgumentParser(prog="boot.sh")
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--cpu", type=int, default=max(os.sched_getaffinity(0)))
    parser.add_argument("--trimmed", required=True, type=pathlib.Path)
    parser.add_argument("--prebuilt", type=pathlib.Path)
    parser.add_argument("--x86", action="append", default=[], type=pathlib.Path)
    return parser.parse_args()


class Case:
    def __init__(self, name, words, cpu=None, cwd=None, env=None, expect=None):
        self.name, self.cwd, self.env, self.expect = name, cwd, env, expect
        self.words, self.cpu = words, cpu
        self.walls, self.cpus = [], []

    def pin(self):
        if self.cpu is not None:
            os.sched_setaffinity(0, {self.cpu})

    def run(self, counts):
        before = os.times()
        start = time.monotonic()
        process = subprocess.Popen(
            self.words,
            cwd=self.cwd,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=self.pin,
        )
        try:
            output, _ = process.communicate(timeout=DEADLINE_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            sys.exit(f"{self.name}: no end within {DEADLINE_S} s\n{output.decode(errors='replace')}")
        wall = time.monotonic() - start
        after = os.times()
        sound = self.expect in output if self.expect else process.returncode == 0
        if not sound:
            sys.exit(f"{self.name}: code {process.returncode}\n{output.decode(errors='replace')}")
        if counts:
            self.walls.append(wall * 1000)
            used = after.children_user + after.children_system
            self.cpus.append((used - before.children_user - before.children_system) * 1000)


def user_engine(appliance, what, cpu, coop, work):
    """By hand as the kernel's manual says, by hand as coop does, and through coop."""
    appliance = appliance.resolve()
    words = [str(appliance / "vmlinux"), "mem=256M", "seccomp=on", "con=null", "con0=fd:0,fd:1"]
    words += ["noreboot", f"uml_dir={work}/uml/", f"initrd={work}/off.cpio"]
    env, cwd = dict(os.environ, HOME=str(work)), None
    if (appliance / "lib").is_dir():
        # A dynamic kernel of coop's finds its loader in the working folder.
        cwd = appliance / "lib"
        env["LD_LIBRARY_PATH"] = str(cwd)
    # Debian's prebuilt kernel aborts after its power-off, so its words count, not its code.
    by_hand = dict(cwd=cwd, env=env, expect=b"reboot: Power down")
    return [
        Case(f"{what} kernel by hand", words, cpu, **by_hand),
        Case(f"{what} kernel by hand, lpj= given", words + ["lpj=50000000"], cpu, **by_hand),
        Case(f"`coop run` with the {what} kernel, `-- true`", [coop, "run", str(appliance), "--", "true"]),
    ]


def qemu(kernel, cpu, work):
    words = ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max,-cx16", "-M", "q35", "-m", "256", "-nographic"]
    words += ["-nodefaults", "-serial", "stdio", "-no-reboot", "-kernel", str(kernel)]
    words += ["-initrd", f"{work}/off.cpio", "-append", "console=ttyS0 panic=-1 no_timer_check"]
    return Case(f"QEMU TCG, q35, {kernel.name}", words, cpu, expect=b"init")


def main():
    options = arguments()
    coop = str(pathlib.Path(os.environ["COOP"]).resolve())
    work = pathlib.Path(os.environ["WORK"])
    cases = user_engine(options.trimmed, "trimmed", options.cpu, coop, work)
    if options.prebuilt:
        cases += user_engine(options.prebuilt, "prebuilt", options.cpu, coop, work)
    cases += [qemu(kernel, options.cpu, work) for kernel in options.x86]
    for turn in range(options.runs + 1):
        for case in cases:
            case.run(counts=turn > 0)
    print(f"{options.runs} alternating runs, exec to power-off, milliseconds\n")
    print("| case | median | fastest | processor time, median |")
    print("|---|---|---|---|")
    for case in cases:
        median, fastest = statistics.median(case.walls), min(case.walls)
        print(f"| {case.name} | {median:.0f} | {fastest:.0f} | {statistics.median(case.cpus):.0f} |")


main()
