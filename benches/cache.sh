#!/usr/bin/env bash
# Eight builders on one cache, killed at random for some minutes, and a collector of garbage beside
# them: whatever they published must be whole, and nothing of theirs may be left in the end.
#
#   benches/cache.sh [SECONDS [FOLDER]]      default: 300 seconds, in a new temporary folder
#
# COOP_DEBIAN_MIRROR names a mirror; COOP_SEED_CACHE a cache whose downloads and kernels are taken.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-300}
work=${2:-$(mktemp -d)}
mkdir -p "$work"
cp target/release/coop "$work/coop"
export COOP_CACHE=$work/cache
mkdir -p "$COOP_CACHE/v1"
if [ -n "${COOP_SEED_CACHE:-}" ]; then
    for part in blob object result note derived; do
        [ ! -d "$COOP_SEED_CACHE/v1/$part" ] || { cp -al "$COOP_SEED_CACHE/v1/$part" "$COOP_CACHE/v1/" 2> /dev/null || cp -a "$COOP_SEED_CACHE/v1/$part" "$COOP_CACHE/v1/"; }
    done
    rm -rf "$COOP_CACHE/v1/result/tree-1"
fi

# Recipes that begin in the same way and end in different ones.
for number in 0 1 2 3; do
    cat > "$work/r$number.yaml" <<RECIPE
name: r$number
rootfs:
  source: {debian: {suite: trixie, variant: essential}}
  files: [{path: /etc/motd, content: "$number"}]
  run:
    - {run: "echo $number > /number", network: false}
RECIPE
done
"$work/coop" lock "$work/r0.yaml" --progress none > /dev/null
for number in 1 2 3; do cp "$work/r0.yaml.lock" "$work/r$number.yaml.lock"; done
"$work/coop" build "$work/r0.yaml" -o "$work/first" --progress none > /dev/null

builder() { # NUMBER: builds and is killed, again and again
    local started=0 killed=0 end=$((SECONDS + seconds)) pid recipe
    RANDOM=$1
    while [ $SECONDS -lt $end ]; do
        recipe=$((RANDOM % 4))
        # Two builders share each output.
        "$work/coop" build "$work/r$recipe.yaml" --offline -o "$work/out/$(($1 / 2))" --progress none \
            > /dev/null 2>> "$work/errors.$1" &
        pid=$!
        sleep "$((RANDOM % 12)).$((RANDOM % 10))"
        kill -KILL "$pid" 2> /dev/null || true
        started=$((started + 1))
        wait "$pid" 2> /dev/null || { [ $? -ne 137 ] || killed=$((killed + 1)); }
    done
    echo "$started $killed" > "$work/count.$1"
}

collector() { # forgets all steps now and then
    local end=$((SECONDS + seconds))
    while [ $SECONDS -lt $end ]; do
        sleep 15
        "$work/coop" cache gc --steps > /dev/null
    done
}

pids=()
for number in 0 1 2 3 4 5 6 7; do
    builder "$number" 2> /dev/null &
    pids+=($!)
done
collector &
pids+=($!)
wait "${pids[@]}"

cat "$work"/count.* | awk '{ started += $1; killed += $2 } END { print started " builds started, " killed " killed" }'
# A build that was not killed must not have failed.
if cat "$work"/errors.* | grep '^error'; then exit 1; fi
"$work/coop" cache verify
for number in 0 1 2 3; do
    out=$work/out/$number
    [ ! -e "$out" ] || "$work/coop" inspect "$out" --verify > /dev/null
    # A build of what is up to date would look at nothing beside it.
    rm -rf "$out"
    "$work/coop" build "$work/r0.yaml" --offline -o "$out" --progress none > /dev/null
    "$work/coop" inspect "$out" --verify > /dev/null
    cmp "$out/root.cobd" "$work/first/root.cobd"
done
left=$(find "$work/out" -mindepth 1 -maxdepth 1 -name '.*' | wc -l)
[ "$left" -eq 0 ] || { echo "$left folders of killed builds are left" >&2; exit 1; }
"$work/coop" cache ls
echo "every published object is whole"
[ -n "${2:-}" ] || rm -rf "$work"
