#!/usr/bin/env python3
"""Makes the inputs of benches/image.sh: the same bytes each time, nothing is fetched.

inputs.py DIR [--debian TAR] NAME...

NAME: debian small flat sparse compressed growth-10k growth-100k growth-1m large. What is there
already stays. Each input gets NAME.json with what peers want to know beforehand.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

BLOCK = 4096
TIME = 1_700_000_000
MEBI = 1 << 20


def pool():
    """One MiB of text that no compressor and no zero detection finds easy."""
    return random.Random(1).randbytes(MEBI)


class Writer:
    """A ustar archive, header by header: ten times as fast as tarfile."""

    def __init__(self, path):
        self.path = path
        self.file = open(f"{path}.part", "wb", buffering=MEBI)
        self.inodes = 0
        self.blocks = 0

    def header(self, name, mode, size, kind):
        name = name.encode()
        prefix = b""
        if len(name) > 100:
            cut = name.rindex(b"/", 0, 156)
            prefix, name = name[:cut], name[cut + 1 :]
        text = b"%s%07o\0%07o\0%07o\0%011o\0%011o\0        %c%sustar\00000%s%s%s%s" % (
            name.ljust(100, b"\0"),
            mode,
            0,
            0,
            size,
            TIME + self.inodes,
            kind,
            bytes(100),
            b"root".ljust(32, b"\0"),
            b"root".ljust(32, b"\0"),
            b"0000000\0" * 2,
            prefix.ljust(155, b"\0"),
        )
        total = sum(text)
        self.file.write(b"%s%06o\0 %s%s" % (text[:148], total, text[156:], bytes(12)))
        self.inodes += 1

    def folder(self, name):
        self.header(name + "/", 0o755, 0, ord("5"))
        self.blocks += 1

    def regular(self, name, content):
        size = len(content)
        self.header(name, 0o644, size, ord("0"))
        self.file.write(content)
        self.file.write(bytes(-size % 512))
        self.blocks += -(-size // BLOCK)

    def finish(self):
        self.file.write(bytes(1024))
        self.file.write(bytes(-self.file.tell() % 10240))
        self.file.close()
        os.rename(f"{self.path}.part", self.path)
        return {"inodes": self.inodes, "blocks": self.blocks}


def small_files(path, count):
    """Like node_modules: 100 files to a folder, 200 to 2,200 bytes, every hundredth up to 48 KiB."""
    archive, text = Writer(path), pool()
    archive.folder(".")
    archive.folder("./node_modules")
    for number in range(count):
        if number % 300 == 0:
            package = f"./node_modules/package-{number // 300:05}"
            archive.folder(package)
        if number % 100 == 0:
            folder = f"{package}/{('lib', 'src', 'dist')[number // 100 % 3]}"
            archive.folder(folder)
        mixed = number * 2_654_435_761 % (1 << 32)
        size = 200 + mixed % 2000
        if number % 100 == 99:
            size += mixed % (46 << 10)
        start = mixed % (MEBI - (64 << 10))
        archive.regular(f"{folder}/module_{number % 100:03}.js", text[start : start + size])
    return archive.finish()


def one_folder(path, count):
    """Like a package store: all files in one folder, 100 to 2,100 bytes."""
    archive, text = Writer(path), pool()
    archive.folder(".")
    archive.folder("./store")
    for number in range(count):
        mixed = number * 2_654_435_761 % (1 << 32)
        start = mixed % (MEBI - (64 << 10))
        archive.regular(f"./store/entry_{number:06}_{mixed:08x}", text[start : start + 100 + mixed % 2000])
    return archive.finish()


def large(path):
    """A bit more than 4 GiB: 1,100 files of 1 to 8 MiB."""
    archive, text = Writer(path), pool() * 9
    archive.folder(".")
    number = written = 0
    while written < 4 << 30:
        mixed = number * 2_654_435_761 % (1 << 32)
        size, start = MEBI + mixed % (7 * MEBI), mixed % MEBI
        archive.regular(f"./part-{number:04}", text[start : start + size])
        number, written = number + 1, written + size
    return archive.finish()


def sparse(folder):
    """A file of 8 GiB with 1,024 runs of data, 64 KiB to 1 MiB each, half a GiB in all."""
    folder.mkdir(exist_ok=True)
    text, total = pool(), 0
    with open(folder / "disk", "wb") as file:
        for number in range(1024):
            mixed = number * 2_654_435_761 % (1 << 32)
            size = (16 + mixed % 240) * BLOCK
            start = (mixed >> 8) % 1536 * BLOCK
            file.seek(number * 8 * MEBI + start)
            file.write(text[:size])
            total += size
        file.truncate(8 << 30)
    return {"inodes": 2, "blocks": total // BLOCK}


def extract(archive, folder):
    """Devices and owners need root, so the folder does without them."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    run("tar", "-xf", archive, "-C", folder, "--no-same-owner", "--exclude=./dev/*")
    run("chmod", "-R", "u+rwX", folder)


def describe_archive(path):
    """Inodes and blocks of content by tarfile."""
    inodes = blocks = 0
    with tarfile.open(path) as archive:
        for member in archive:
            inodes += not member.islnk()
            blocks += -(-member.size // BLOCK) + member.isdir()
    return {"inodes": inodes, "blocks": blocks}


def run(*command, **options):
    subprocess.run([str(part) for part in command], check=True, **options)


def make_debian(here, given):
    archive = here / "debian.tar"
    if given:
        if not given.is_file():
            sys.exit(f"{given} does not exist")
        shutil.copyfile(given, archive)
    else:
        print("no --debian TAR given: mmdebstrap makes one", file=sys.stderr)
        run("mmdebstrap", "--variant=minbase", "--format=tar", "stable", archive)
    extract(archive, here / "debian")
    return describe_archive(archive)


def make_compressed(here):
    """As distributors make them: bzip2 and gzip are one stream, xz has blocks with -T, zstd is one frame."""
    source = here / "debian.tar"
    recipes = {
        "debian.tar.gz": ["pigz", "-6", "-n"],
        "debian.tar.bz2": ["lbzip2", "-9"],
        "debian.tar.xz": ["xz", "-6", "-T2"],
        "debian-one-block.tar.xz": ["xz", "-6", "-T1"],
        "debian.tar.zst": ["zstd", "-q", "-9", "-T1"],
        "debian-frames.tar.zst": ["pzstd", "-q", "-9", "-p2"],
    }
    for name, command in recipes.items():
        part = here / f"{name}.part"
        with open(source, "rb") as plain, open(part, "wb") as packed:
            run(*command, "-c", stdin=plain, stdout=packed)
        part.rename(here / name)
    return describe_archive(source)


def make(here, name, debian):
    archive = here / f"{name}.tar"
    if name == "debian":
        return make_debian(here, debian)
    if name == "compressed":
        return make_compressed(here)
    if name == "large":
        return large(archive)
    if name == "sparse":
        facts = sparse(here / "sparse")
        run("tar", "--format=gnu", "-S", "--sort=name", "-cf", archive, "-C", here / "sparse", ".")
        return facts
    counts = {"small": 110_000, "growth-10k": 10_000, "growth-100k": 100_000, "growth-1m": 1_000_000}
    facts = one_folder(archive, 120_000) if name == "flat" else small_files(archive, counts[name])
    if name in ("small", "flat"):
        extract(archive, here / name)
    return facts


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--debian", type=Path)
    parser.add_argument("names", nargs="+")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name in arguments.names:
        done = arguments.folder / f"{name}.json"
        if done.exists():
            continue
        print(f"making input {name}", file=sys.stderr)
        facts = make(arguments.folder, name, arguments.debian)
        done.write_text(json.dumps(facts) + "\n")


if __name__ == "__main__":
    main()
