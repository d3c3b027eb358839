"""Lists archives with Python's tarfile, GNU tar and bsdtar, each line in one form:
kind mode owner:group size seconds.nanoseconds path target xattrs"""
import codecs
import datetime
import os
import re
import subprocess
import sys
import tarfile


def text(name):
    return "".join(chr(b) if 32 < b < 127 and b != 92 else "\\x%02x" % b for b in name)


def time(value):
    seconds, _, fraction = str(value).partition(".")
    return seconds + "." + fraction.ljust(9, "0")[:9]


def show(kind, mode, owner, size, when, path, target=b"", xattrs=""):
    path = path.rstrip(b"/").removeprefix(b"./") or b"/"
    size = 0 if kind == "d" else size
    return f"{kind} {mode:o} {owner} {size} {when} {text(path)} {text(target)} {xattrs}".rstrip()


def python(archive):
    kinds = {b"0": "f", b"\0": "f", b"7": "f", b"S": "f", b"1": "h", b"2": "l", b"3": "c",
             b"4": "b", b"5": "d", b"6": "p", b"D": "d"}
    for m in tarfile.open(archive, "r:", errors="surrogateescape"):
        if m.type == b"V":
            continue
        kind = kinds[m.type]
        if m.type == b"0" and m.isdir():
            kind = "d"
        size = m.size if kind == "f" else f"{m.devmajor},{m.devminor}" if kind in "bc" else 0
        target = os.fsencode(m.linkname) if kind in "hl" else b""
        found = {}
        for key, value in m.pax_headers.items():
            if key.startswith("SCHILY.xattr."):
                name = key[13:].replace("%3D", "=").replace("%25", "%")
                found[name] = value.encode("utf-8", "surrogateescape").hex()
        xattrs = " ".join(f"{text(os.fsencode(name))}={found[name]}" for name in sorted(found))
        when = time(m.pax_headers.get("mtime", int(m.mtime)))
        mode = m.mode & 0o7777
        yield show(kind, mode, f"{m.uid}:{m.gid}", size, when, os.fsencode(m.name), target, xattrs)


def gnu(archive):
    command = ["tar", "--full-time", "--numeric-owner", "--quoting-style=escape", "-Ptvf", archive]
    listed = subprocess.run(command, stdout=subprocess.PIPE, env=dict(os.environ, TZ="UTC", LC_ALL="C"))
    for line in listed.stdout.split(b"\n")[:-1]:
        bits, owner, size, day, clock, path = line.split(None, 5)
        if bits[:1] == b"V":
            continue
        clock, _, fraction = clock.decode().partition(".")
        moment = datetime.datetime.fromisoformat(f"{day.decode()}T{clock}+00:00")
        kind = bits[:1].decode().replace("-", "f").replace("C", "f")
        target = b""
        if kind == "l":
            path, target = path.split(b" -> ")
        if kind == "h":
            path, target = path.split(b" link to ")
        mode = 0
        for place, bit in enumerate(bits[1:].decode()):
            special = {2: 0o4000, 5: 0o2000, 8: 0o1000}.get(place, 0)
            mode |= special if bit in "sStT" else 0
            mode |= 0 if bit in "-ST" else 0o400 >> place
        path, target = (codecs.escape_decode(name)[0] for name in (path, target))
        when = time(f"{int(moment.timestamp())}.{fraction}")
        yield show(kind, mode, owner.decode().replace("/", ":"), size.decode(), when, path, target)


def bsd(archive):
    fields = ",".join("mtree:" + name for name in "type mode uid gid time link size device".split())
    command = ["bsdtar", "-cf", "-", "--format=mtree", f"--options=mtree:!all,{fields}", "@" + archive]
    listed = subprocess.run(command, stdout=subprocess.PIPE, env=dict(os.environ, LC_ALL="C.UTF-8"))
    kinds = {"file": "f", "dir": "d", "link": "l", "char": "c", "block": "b", "fifo": "p"}
    for line in re.sub(rb"\\\n", b"", listed.stdout).split(b"\n")[1:-1]:
        path, *words = line.split()
        field = dict(word.split(b"=", 1) for word in words)
        get = lambda name: field.get(name, b"").decode()
        kind = kinds[get(b"type")]
        size = get(b"size") or 0
        if kind in "bc":
            size = get(b"device").partition(",")[2]
        seconds, _, fraction = get(b"time").partition(".")
        when = f"{seconds}.{int(fraction):09}"
        path, target = (codecs.escape_decode(name)[0] for name in (path, field.get(b"link", b"")))
        path = b"." if path == b"/." else path
        yield show(kind, int(get(b"mode"), 8), f"{get(b'uid')}:{get(b'gid')}", size, when, path, target)


for archive in sys.argv[2:]:
    for name, lister in (("python", python), ("gnu", gnu), ("bsd", bsd)):
        if name in sys.argv[1].split(","):
            with open(f"{archive}.{name}", "w") as out:
                out.writelines(line + "\n" for line in lister(archive))
