#!/usr/bin/env bash
# Ten builds of each of three recipes, each with something else around it; all must give the same bytes
# in every file of the appliance. Prints a table of the digests over all files. Needs root, to be
# others; with faketime (Debian's package) the clock is a year ahead too.
set -euo pipefail
cd "$(dirname "$0")/.."

coop=${COOP:-target/release/coop}
recipes=${RECIPES:-debian web server}
work=$(mktemp -d)
memory=$(mktemp -d -p /dev/shm)
trap 'rm -rf "$work" "$memory"' EXIT
chmod 755 "$work" "$memory"
cp "$coop" "$work/coop"
cp -r recipes "$work/"
mkdir "$work/warm" "$work/home"
chmod 777 "$work/warm" "$work/recipes" "$work/home" "$memory"
printf 'umask 077\nexec "$@"\n' >"$work/umask"
printf 'hostname elsewhere\nexec "$@"\n' >"$work/renamed"
key='ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA somebody'

# One digest over the names and digests of all files.
digest() { (cd "$1" && find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum | cut -c1-16); }

failed=0
for recipe in $recipes; do
    sets=()
    if [ "$recipe" = server ]; then sets=(--set "ssh_key=$key"); fi
    (cd "$work" && COOP_CACHE=$work/warm ./coop lock "recipes/$recipe.yaml" "${sets[@]}" >"$work/log" 2>&1) ||
        { cat "$work/log" >&2; exit 1; }
    chmod a+r "$work/recipes/$recipe.yaml.lock"
    chmod -R a+rwX "$work/warm"
    reference=
    # name | cache | folder of the output | working folder | what it runs under
    while IFS='|' read -r name cache output cwd under; do
        folder=$output/$recipe-${name// /-}
        case $cache in
        empty) cache=$(mktemp -d -p "$work") && chmod 777 "$cache" ;;
        # Steps are done again, downloads are kept.
        kept) cache=$work/warm ;;
        warm) cache=$work/warm && COOP_CACHE=$cache "$work/coop" cache gc --steps >/dev/null ;;
        esac
        # shellcheck disable=SC2086 # a list of words
        if ! (cd "$cwd" && COOP_CACHE=$cache $under "$work/coop" build "$work/recipes/$recipe.yaml" --locked \
            -o "$folder" --progress none "${sets[@]}" >"$work/log" 2>&1); then
            printf '%-10s %-14s failed\n' "$recipe" "$name"
            cat "$work/log" >&2
            failed=1
            continue
        fi
        found=$(digest "$folder")
        reference=${reference:-$found}
        mark=same
        if [ "$found" != "$reference" ]; then mark=DIFFERS && failed=1; fi
        printf '%-10s %-14s %s %s\n' "$recipe" "$name" "$found" "$mark"
        rm -rf "$folder"
        chmod -R a+rwX "$work/warm"
    done <<CASES
plain|warm|$work/home|$work|
empty cache|empty|$work/home|$work|
steps kept|kept|$work/home|$work|
another user|warm|$work/home|$work|setpriv --reuid 65534 --regid 65534 --clear-groups --no-new-privs
umask|warm|$work/home|$work|sh $work/umask
time zone|warm|$work/home|$work|env TZ=Pacific/Chatham LC_ALL=tr_TR.UTF-8 LANG=tr_TR.UTF-8
home, folder|warm|$work/home|/|env HOME=/nonexistent TMPDIR=$work/home
host name|warm|$work/home|$work|unshare -u sh $work/renamed
a year ahead|warm|$work/home|$work|$(command -v faketime >/dev/null && echo 'faketime -f +370d')
one CPU, tmpfs|warm|$memory|$work|taskset -c 0
CASES
done
exit $failed
