#!/usr/bin/env bash
# Archives and folders to ext4 images: coop beside mke2fs, mkext4, genext2fs, cp and decompressors.
# Prints Markdown; see benches/README.md. `benches/image.sh --help` lists the options.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

if [ -z "${COOP:-}" ]; then
    (cd "$here/.." && cargo build --release --locked -p coop >&2)
    COOP="$(printf %q "$here/../target/release/coop") image build {src} -o {out} --no-sync --progress none"
fi
if [ -z "${MKEXT4:-}" ]; then
    (cd "$here/mkext4" && cargo build --release --locked >&2)
    MKEXT4=$here/mkext4/target/release/mkext4-peer
fi
exec python3 "$here/image/compare.py" --coop "$COOP" --mkext4 "$MKEXT4" "$@"
