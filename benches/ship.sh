#!/usr/bin/env bash
# An appliance on its way to others: `coop pack` and `unpack` beside tar with zstd, `coop push` and
# `pull` beside skopeo, both with Debian's docker-registry on the loopback. Prints Markdown.
#
#   benches/ship.sh APPLIANCE FOLDER [--rounds N]
#
# APPLIANCE is a folder that coop has built; what is made of it lies in FOLDER for as long as the
# script runs. COOP names a release build of coop, else target/release/coop. Wanted: GNU tar, zstd,
# skopeo, docker-registry, python3. Every round runs every program of a case once, so what disturbs
# the machine disturbs all; the first round does not count.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

usage="usage: benches/ship.sh APPLIANCE FOLDER [--rounds N]"
appliance=$(realpath "${1:?$usage}")
folder=${2:?$usage}
shift 2
rounds=5
while [ $# -gt 0 ]; do
    case $1 in
        --rounds) rounds=$2 ;;
        *) echo "unknown option $1" >&2; exit 2 ;;
    esac
    shift 2
done

COOP=$(realpath "${COOP:-$here/../target/release/coop}")
export COOP
mkdir -p "$folder"
work=$(mktemp -d -p "$folder")
registry=
finish() {
    [ -z "$registry" ] || kill "$registry"
    rm -rf "$work"
}
trap finish EXIT
cd "$work"

port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
cat > registry.yml << YAML
version: 0.1
log: {level: error}
storage: {filesystem: {rootdirectory: $work/registry}}
http: {addr: "127.0.0.1:$port", secret: x}
YAML
docker-registry serve registry.yml > /dev/null 2>&1 &
registry=$!
for _ in $(seq 100); do
    (: < "/dev/tcp/127.0.0.1/$port") 2> /dev/null && break
    sleep 0.1
done

APPLIANCE=$appliance PORT=$port ROUNDS=$rounds python3 - << 'PYTHON'
import os, shutil, statistics, subprocess, time

coop, appliance = os.environ["COOP"], os.environ["APPLIANCE"]
rounds, port = int(os.environ["ROUNDS"]), os.environ["PORT"]
# Nobody finds what an earlier run has left.
os.environ.update(COOP_CACHE="cache", HOME=os.path.abspath("home"))
os.environ.pop("XDG_CONFIG_HOME", None)
oci, docker = f"oci://127.0.0.1:{port}/bench:1", f"docker://127.0.0.1:{port}/bench:1"
trusting = "--insecure-allow-unsigned"
skopeo = ["skopeo", "--insecure-policy", "copy", "-q", "--src-tls-verify=false", "--dest-tls-verify=false"]


def remove(*paths):
    for path in paths:
        if os.path.isdir(path):
            shutil.rmtree(path)
        elif os.path.exists(path):
            os.remove(path)


def run(words):
    """Seconds, seconds of processor time, of the program alone, and KiB of its largest process."""
    start = time.monotonic()
    quiet = subprocess.DEVNULL
    child = subprocess.Popen(words, stdout=quiet, stderr=quiet)
    _, status, used = os.wait4(child.pid, 0)
    if status != 0:
        raise SystemExit(f"{words} failed: {status}")
    return time.monotonic() - start, used.ru_utime + used.ru_stime, used.ru_maxrss


def size(path):
    """MiB that a file has, or that the files of a folder take."""
    if os.path.isfile(path):
        return os.path.getsize(path) / 2**20
    entries = (os.stat(os.path.join(top, name)) for top, _, names in os.walk(path) for name in names)
    return sum(entry.st_blocks * 512 for entry in entries) / 2**20


def case(name, programs, forget, output_size):
    """Each program has a name, what it makes, and its words; `forget` is removed before each."""
    runs, sizes = [[] for _ in programs], []
    for number in range(rounds + 1):
        for found, (_, output, words) in zip(runs, programs):
            remove(output, *forget)
            result = run(words)
            if number > 0:
                found.append(result)
            else:
                sizes.append(size(output) if output_size else None)
    medians = [[statistics.median(one) for one in zip(*found)] for found in runs]
    for (who, _, _), (wall, processor, memory), made in zip(programs, medians, sizes):
        ratio = f"{wall / medians[0][0]:.2f}"
        made = "" if made is None else f"{made:.1f} MiB"
        print(
            f"| {name} | {who} | {wall * 1000:.0f} ms | {processor * 1000:.0f} ms | "
            f"{memory / 1024:.0f} MiB | {ratio} | {made} |",
            flush=True,
        )


def tar(level):
    words = ["tar", "-cS", "-C", appliance, "-I", f"zstd -T0 -{level}", "-f", f"{level}.tar.zst", "."]
    return f"tar -S, zstd -T0 -{level}", f"{level}.tar.zst", words


def untar(level):
    folder = f"untar{level}"
    script = f"mkdir {folder} && tar -xf {level}.tar.zst -C {folder}"
    return f"tar -x of -{level}", folder, ["sh", "-c", script]


print(f"{size(appliance):.0f} MiB of files without their holes\n")
print("| case | program | time | processor time | memory | ratio | made |")
print("|---|---|---|---|---|---|---|")
case("pack", [("coop pack", "a.coop", [coop, "pack", appliance, "-o", "a.coop"]), tar(9), tar(3)], [], True)
unpack = [coop, "unpack", trusting, "a.coop", "-o", "unpacked"]
case("unpack", [("coop unpack", "unpacked", unpack), untar(9), untar(3)], [], True)
subprocess.run(["diff", "-r", appliance, "unpacked"], check=True)
os.mkdir("layout")
subprocess.run(["tar", "-xf", "a.coop", "-C", "layout"], check=True)
push = [coop, "push", "a.coop", oci, "--progress", "none"]
there = skopeo + ["oci:layout", docker]
# skopeo remembers in its home where it has seen a blob.
forget = ["registry", "home"]
case("push", [("coop push", "cache", push), ("skopeo copy", "cache", there)], forget, False)
pull = [coop, "pull", trusting, oci, "--progress", "none", "-o"]
programs = [
    ("coop pull -o X.coop", "pulled.coop", pull + ["pulled.coop"]),
    ("skopeo copy to a layout", "pulled", skopeo + [docker, "oci:pulled:a"]),
    ("coop pull -o DIR", "folder", pull + ["folder"]),
]
case("pull", programs, ["cache", "home"], True)
subprocess.run(["cmp", "a.coop", "pulled.coop"], check=True)
PYTHON
