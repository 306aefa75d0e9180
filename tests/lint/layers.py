#!/usr/bin/python3
"""Who may include whom. ROOMS is the one table: this checks every #include of the product against
it, and draws docs/architecture.md from it.

  tests/lint/layers.py          one line per include that breaks a rule; exits 1 if there is any
  tests/lint/layers.py --draw   writes the drawing and the table into docs/architecture.md
"""

import pathlib
import re
import sys
import typing

REPO = pathlib.Path(__file__).resolve().parents[2]
PAGE = REPO / "docs" / "architecture.md"


class Room(typing.NamedTuple):
    name: str
    files: str  # a file is of the room whose pattern for it is the longest
    rooms: str  # those whose headers it may include
    libraries: str  # those that it may use beside the standard library and the system's
    purpose: str  # what it is for, in one sentence


# From the bottom up: a room stands on rooms above its row.
ROOMS = [Room(*row) for row in [
    ("core", "plugin/core/*", "", "boost",
     "Little-endian records, the register of an extent with its transitions, locks that a compiler "
     "checks. Header only, compiled into the OSD."),
    ("exchange", "plugin/exchange/*", "core", "",
     "The memory that an OSD and its `siphond` share, and the inputs of the class methods: a "
     "layout, no behaviour."),
    ("osd", "plugin/osd/*", "core exchange", "objclass",
     "`libcls_siphon.so`, which runs inside `ceph-osd`: little, and nothing else of ours."),
    ("base", "plugin/base/*", "core", "fmt spdlog expected openssl zlib isa-l",
     "Errors, names, log, threads, buffers, limits, checksums: what is no decision of Siphon's."),
    ("format", "plugin/format/*", "core base", "",
     "The bytes of an extent: blocks, index, footer; encoder and decoder. No I/O."),
    ("store", "adapters/*.h", "core base", "",
     "`ExtentStore`, what the protocol asks of a backend. Knows none of them."),
    ("memory", "adapters/memory/*", "core base store", "",
     "The store that tests use and a reader learns the contract from."),
    ("posix", "adapters/posix/*", "core base format store", "",
     "Extents in a folder. The only one to touch a file system for them."),
    ("rados", "adapters/rados/*", "core exchange base store", "librados fmt json",
     "Extents on RADOS, and what else is asked of a cluster. The only user of librados."),
    ("objclass", "adapters/objclass/*", "core exchange base store rados", "",
     "Extents on RADOS for the companion of an OSD: bytes through the shared memory."),
    ("stream", "plugin/stream/*", "core base format store", "",
     "Frames over TCP: tickets, lanes, sender, receiver. No gRPC, no backend."),
    ("transfer", "plugin/transfer/*", "core base format store stream", "sqlite",
     "A transfer at its target and at its source, from grant to receipt, and the journal. No gRPC, "
     "no backend."),
    ("proto", "siphon/v1/*", "", "",
     "The messages, generated from `proto/siphon/v1/siphon.proto`."),
    ("rpc", "plugin/rpc/*", "core base stream transfer proto", "grpc protobuf",
     "The control calls, both ends. The only user of gRPC; its types stay here."),
    ("agent", "plugin/agent/*",
     "core base store posix rados objclass transfer rpc", "cli11 toml",
     "`siphond`: reads its settings and puts a daemon together. Names backends."),
    ("cli", "plugin/cli/* plugin/cli/doctor/*",
     "core base format store posix rados stream transfer rpc",
     "fmt cli11 json smartcols openssl",
     "`siphon`: plans, asks, shows. Names backends."),
]]

# What the table forbids and the tree still has: (file, what it includes): why.
EXCEPTIONS: dict[tuple[str, str], str] = {}

LIBRARIES = {"boost/": "boost", "fmt/": "fmt", "spdlog/": "spdlog", "tl/": "expected", "openssl/": "openssl",
             "zlib.h": "zlib", "isa-l/": "isa-l", "rados/objclass.h": "objclass",
             "rados/": "librados", "nlohmann/": "json", "sqlite3.h": "sqlite", "grpc": "grpc",
             "google/protobuf/": "protobuf", "CLI/": "cli11", "toml++/": "toml",
             "libsmartcols/": "smartcols"}
# C++'s headers have no dot; C's and the kernel's no folder, or one of these.
SYSTEM = re.compile(r"[a-z_0-9]+(\.h)?|(sys|net|netinet|arpa|linux)/[a-z_0-9]+\.h")


def room_of(path):
    patterns = [(len(pattern), room) for room in ROOMS for pattern in room.files.split()
                if pathlib.PurePath(path).match(pattern)]
    return max(patterns, default=(0, None), key=lambda found: found[0])[1]


def broken_rule(room, name):
    """What forbids `room` to include `name`, or None."""
    there = room_of(name)
    library = next((of for start, of in LIBRARIES.items() if name.startswith(start)), None)
    if there:
        allowed = there == room or there.name in room.rooms.split()
        return None if allowed else (f"{room.name} may not include {there.name}, only: "
                                     f"{room.rooms or 'itself'}")
    if library:
        return None if library in room.libraries.split() else (
            f"{room.name} may not use {library}, only: {room.libraries or 'no library'}")
    return None if SYSTEM.fullmatch(name) else "it is of no room and no library that is known"


def broken_rules():
    excepted = set()
    for at, room in enumerate(ROOMS):
        for name in set(room.rooms.split()) - {lower.name for lower in ROOMS[:at]}:
            yield f"{room.name} is to stand on {name}, which is not above it in the table"
    for path in sorted([*REPO.glob("plugin/**/*.*"), *REPO.glob("adapters/**/*.*")]):
        file = str(path.relative_to(REPO))
        if path.suffix not in (".h", ".cc"):
            continue
        room = room_of(file)
        if room is None:
            yield f"{file} is in no room: give it one"
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            include = re.match(r'\s*#\s*include\s*[<"]([^">]+)[">]', line)
            why = include and broken_rule(room, include[1])
            if why and (file, include[1]) in EXCEPTIONS:
                excepted.add((file, include[1]))
            elif why:
                yield f"{file}:{number} includes {include[1]}: {why}"
    for file, name in EXCEPTIONS.keys() - excepted:
        yield f"{file} no longer includes {name}: take that out of EXCEPTIONS"


def drawing():
    """The block of docs/architecture.md. An arrow that others imply is not drawn."""
    direct = {room.name: set(room.rooms.split()) for room in ROOMS}

    def below(name):
        return direct[name].union(*map(below, direct[name]))

    lines = ["```mermaid", "flowchart TD"]
    for name, lower in direct.items():
        implied = set().union(*map(below, lower))
        lines += [f"    {name} --> {other}" for other in direct if other in lower - implied]
    lines += ["```", "", "| room | what it is for | may include | libraries |", "|---|---|---|---|"]
    for room in reversed(ROOMS):
        files = "`, `".join(room.files.split())
        lines.append(f"| **{room.name}** `{files}` | {room.purpose} | "
                     f"{', '.join(room.rooms.split())} | {', '.join(room.libraries.split())} |")
    if EXCEPTIONS:
        lines += ["", "| exception, to go | includes | because |", "|---|---|---|"]
    lines += [f"| `{file}` | `{name}` | {why} |" for (file, name), why in EXCEPTIONS.items()]
    return "\n".join(lines)


def page():
    text = PAGE.read_text(encoding="utf-8")
    head, begin, rest = text.partition("<!-- made by tests/lint/layers.py --draw -->\n")
    _, end, tail = rest.partition("<!-- end -->")
    if not begin or not end:
        sys.exit(f"{PAGE}: the two comments between which the drawing stands are not there")
    return text, f"{head}{begin}\n{drawing()}\n\n{end}{tail}"


def main():
    text, wanted = page()
    if sys.argv[1:] == ["--draw"]:
        PAGE.write_text(wanted, encoding="utf-8")
        return
    wrong = list(broken_rules())
    if text != wanted:
        wrong.append("docs/architecture.md is not drawn from this table: run "
                     "tests/lint/layers.py --draw")
    print("\n".join(wrong), end="\n" if wrong else "")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
