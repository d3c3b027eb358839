#!/usr/bin/env bash
# What `coop run APPLIANCE -- true` takes, and how much of it is the kernel's own boot.
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export COOP_CACHE=${COOP_CACHE:-$work/cache}
target/release/coop build recipes/debian.yaml -o "$work/debian" --progress none
hyperfine --warmup 2 --runs "${RUNS:-15}" "target/release/coop run $work/debian -- true"
for _ in $(seq 5); do
    target/release/coop run --json "$work/debian" -- true
done | python3 -c '
import json, statistics, sys
decoder, text, reports = json.JSONDecoder(), sys.stdin.read(), []
while text.strip():
    report, end = decoder.raw_decode(text.lstrip())
    text = text.lstrip()[end:]
    reports.append(report)
phases = [{p["phase"]: p["at_us"] / 1000 for p in r["phases"]} for r in reports]
median = lambda values: statistics.median(values)
print("median of", len(reports), "runs, milliseconds from the start of the machine")
for name in ("process", "kernel", "agent", "modules", "root", "ready", "command", "exited", "unmounted", "ended"):
    print(f"  {name:10} {median([p[name] for p in phases if name in p]):8.1f}")
wall = median([r["wall_us"] / 1000 for r in reports])
print(f"  {str():10} {wall:8.1f} in all, from the command line")
'
