"""Lists a kernel tree's symbols as Debian's python3-kconfiglib reads them.

It stopped at Linux 5.10: three newer forms are written as it knows them.
"""

import io
import os
import re
import sys

tree, target = sys.argv[1:]
os.environ.update(
    srctree=tree,
    ARCH=target,
    SRCARCH={"um": "um", "x86_64": "x86"}[target],
    SUBARCH="x86",
    HEADER_ARCH="x86",
    CC="gcc",
    LD="ld",
    RUSTC="rustc",
    KERNELVERSION="0",
)
import kconfiglib


class Newer(kconfiglib.Kconfig):
    def _open(self, filename, mode):
        text = super()._open(filename, mode).read()
        text = re.sub(r"(?m)^(\s+)modules$", r"\1option modules", text)
        text = re.sub(r"(?m)^\s+transitional$", "", text)
        text = re.sub(
            r"(?m)^(\s+depends on) ([^#\n]+) if ([^#\n]+)$", r"\1 (\2) || (\3)", text
        )
        return io.StringIO(text)


for symbol in Newer("Kconfig", warn=False).unique_defined_syms:
    has_prompt = any(node.prompt for node in symbol.nodes)
    kind = kconfiglib.TYPE_TO_STR[symbol.orig_type]
    print(symbol.name, kind, len(symbol.nodes), "prompt" if has_prompt else "-")
