#!/usr/bin/python3
"""What the suites have taken of the code: docs/coverage.md.

    coverage.py SUITE...   from the counters in build/coverage, which these suites have left

`tests/run --preset coverage` calls it. The words come from tests/support/coverage.md.in.
"""

import collections
import datetime
import json
import pathlib
import subprocess
import sys

REPO = pathlib.Path(__file__).resolve().parents[2]
BUILD = REPO / "build" / "coverage"
PAGE = REPO / "docs" / "coverage.md"
TEMPLATE = REPO / "tests" / "support" / "coverage.md.in"
TOPS = ("plugin", "adapters")


def output_of(*command):
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=REPO).stdout


def git(*arguments):
    return output_of("git", "-c", f"safe.directory={REPO}", *arguments).strip()


def counted():
    """Of each file: how many lines and branches, and how many of them were taken. Without the
    branches that only an exception takes: there is one behind nearly every call."""
    filters = [word for top in TOPS for word in ("--filter", f"{REPO / top}/")]
    return json.loads(output_of("gcovr", "--root", str(REPO), *filters, "--exclude-throw-branches",
                                "--exclude-unreachable-branches", "--json-summary", "-",
                                str(BUILD)))["files"]


def room_of(path):
    """plugin/cli/doctor is part of plugin/cli."""
    parts = pathlib.PurePath(path).parts
    return "/".join(parts[:2]) if len(parts) > 2 else parts[0]


def not_built(files, sources):
    """{room: {file: lines}} of those sources that nothing was counted of."""
    seen = {one["filename"] for one in files}
    found = collections.defaultdict(dict)
    for path in sources:
        if path not in seen:
            found[room_of(path)][path] = len((REPO / path).read_text(encoding="utf-8").splitlines())
    return found


def share(covered, total):
    return f"{100 * covered / total:.1f} %" if total else "-"


def table(files, missing):
    rooms = collections.defaultdict(collections.Counter)
    for one in files:
        for key in ("line_covered", "line_total", "branch_covered", "branch_total"):
            rooms[room_of(one["filename"])][key] += one[key]
    total = sum(rooms.values(), collections.Counter())
    lines = ["| room | lines | taken | branches | taken | lines of files that are not in this build |",
             "|---|---|---|---|---|---|"]
    for room in sorted({*rooms, *missing}) + ["all"]:
        of = total if room == "all" else rooms[room]
        left = missing.values() if room == "all" else [missing.get(room, {})]
        outside = sum(sum(one.values()) for one in left)
        lines.append(f"| {room} | {of['line_total']} | {share(of['line_covered'], of['line_total'])} "
                     f"| {of['branch_total']} | {share(of['branch_covered'], of['branch_total'])} "
                     f"| {outside or '-'} |")
    return "\n".join(lines)


def lowest(files, count=12):
    """Those files of which most lines were not taken."""
    files = sorted(files, key=lambda one: one["line_covered"] - one["line_total"])[:count]
    lines = ["| file | lines not taken | of |", "|---|---|---|"]
    lines += [f"| `{one['filename']}` | {one['line_total'] - one['line_covered']} "
              f"| {one['line_total']} |" for one in files]
    return "\n".join(lines)


def page(files, sources, facts):
    text = TEMPLATE.read_text(encoding="utf-8")
    facts = {**facts, "table": table(files, not_built(files, sources)), "lowest": lowest(files)}
    for name, value in facts.items():
        text = text.replace("{{" + name + "}}", value)
    return text


def main(suites):
    sources = git("ls-files", "--", *(f"{top}/*.cc" for top in TOPS)).splitlines()
    changed = " and changes that were not committed" if git(
        "status", "--porcelain", "--", "CMakeLists.txt", "proto", "tests", *TOPS) else ""
    facts = {"suites": " ".join(suites), "commit": git("rev-parse", "--short=12", "HEAD"),
             "changed": changed, "date": f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d}"}
    PAGE.write_text(page(counted(), sources, facts), encoding="utf-8")
    print(PAGE.relative_to(REPO))


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__.strip())
    main(sys.argv[1:])
