#!/usr/bin/python3
"""What ran on which release of Ceph, and how it ended: docs/releases.md, and README's table.

    results.py begin PRESET SUITE...   what is about to run; prints where ctest is to write its JUnit
    results.py publish                 writes docs/releases.json from what ran, and the pages from that

tests/run calls both. A run leaves NAME.json in build/results (what it runs on, and the tests that its
suites have) and, when it comes to its end, ctest's NAME.xml. Runs in a release's chroot leave them in
build/RELEASE/results.
"""

import datetime
import json
import os
import pathlib
import re
import subprocess
import sys
import xml.etree.ElementTree

REPO = pathlib.Path(__file__).resolve().parents[2]
PUBLISHED = REPO / "docs" / "releases.json"
PAGE = REPO / "docs" / "releases.md"
TEMPLATE = REPO / "tests" / "support" / "releases.md.in"
README = REPO / "README.md"
MARKED = re.compile(r"(<!-- releases, by tests/run --publish -->\n).*?(<!-- end of releases -->)",
                    flags=re.S)
RELEASES = ("pacific", "reef", "tentacle")
SUITES = ("unit", "contract", "process", "cluster")
CODE = ("CMakeLists.txt", "adapters", "plugin", "proto")  # a change elsewhere leaves a result valid
KEPT = 60  # runs


# --------------------------------------------------------------------------------------- recording


def output_of(*command):
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def git(*arguments):
    return output_of("git", "-c", f"safe.directory={REPO}", "-C", str(REPO), *arguments)


def tests_of(build, suites):
    """suite -> the names of all its tests, whatever a run selects of them."""
    found = {suite: [] for suite in suites}
    for test in json.loads(output_of("ctest", "--test-dir", build, "--show-only=json-v1"))["tests"]:
        labels = [p["value"] for p in test.get("properties", ()) if p["name"] == "LABELS"]
        for suite in found:
            if [suite] in labels:
                found[suite].append(test["name"])
    return found


def platform():
    """What the tests run on; the same on every day on which the packages are the same."""
    ceph = re.search(r"version (\S+) \(([0-9a-f]+)\)", output_of("ceph-osd", "--version"))
    codename = re.search(r"^VERSION_CODENAME=(\w+)$",
                         pathlib.Path("/etc/os-release").read_text(encoding="utf-8"), flags=re.M)
    return {"ceph": ceph[1], "ceph_commit": ceph[2], "debian": codename[1]}


def build_of(build):
    cache = dict(re.findall(r"^(\w+):\w+=(.*)$",
                            (build / "CMakeCache.txt").read_text(encoding="utf-8"), flags=re.M))
    version = output_of(cache["CMAKE_CXX_COMPILER"], "-dumpfullversion")
    archives = cache.get("SIPHON_GRPC_ARCHIVES_LINK") == "1"
    return {"compiler": f"gcc {version}", "grpc": "archives" if archives else "shared libraries"}


def begin(preset, suites):
    build = REPO / "build" / preset
    now = datetime.datetime.now(datetime.timezone.utc)
    record = {
        "release": os.environ.get("SIPHON_RELEASE", "pacific"),
        "preset": preset,
        "date": f"{now:%Y-%m-%d %H:%M}",
        "on": {**platform(), **build_of(build)},
        "commit": git("rev-parse", "--short=12", "HEAD"),
        "code": [git("rev-parse", f"HEAD:{path}") for path in CODE],
        "changed": git("status", "--porcelain", "--untracked-files=no").splitlines(),
        "tests": tests_of(build, suites),
    }
    folder = REPO / "build" / "results"
    folder.mkdir(exist_ok=True)
    for old in sorted(folder.glob("*.json"))[:-KEPT]:
        old.with_suffix(".xml").unlink(missing_ok=True)
        old.unlink()
    path = folder / f"{now:%Y%m%dT%H%M%S}.{os.getpid()}.json"
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(path.with_suffix(".xml"))


# -------------------------------------------------------------------------------------- publishing


def outcome_of(junit):
    """test -> (state, seconds, the last line that it printed)"""
    outcome = {}
    for case in xml.etree.ElementTree.parse(junit).getroot().iter("testcase"):
        skipped = case.find("skipped")
        by_itself = skipped is not None and skipped.get("message", "").startswith("SKIP_")
        state = "passed" if case.get("status") == "run" else "left out" if by_itself else "failed"
        lines = (case.findtext("system-out") or "").split("\n")
        said = [line.strip() for line in lines if line.strip()]
        outcome[case.get("name")] = state, float(case.get("time")), said[-1] if said else ""
    return outcome


def runs():
    """Record and outcome of the runs that count, the oldest first."""
    records = [*REPO.glob("build/results/*.json"), *REPO.glob("build/*/results/*.json")]
    for path in sorted(records, key=lambda path: path.name):
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["preset"] != "release" or not path.with_suffix(".xml").exists():
            continue
        if record["changed"]:
            print(f"{path.relative_to(REPO)}: left out, its tree had changes", file=sys.stderr)
            continue
        yield record, outcome_of(path.with_suffix(".xml"))


def result_of(suite, ran):
    """Each test's last result, from the runs of the last run's code on the last run's platform."""
    last = ran[-1][0]
    ran = [(record, outcome) for record, outcome in ran
           if (record["code"], record["on"]) == (last["code"], last["on"])]
    names = last["tests"][suite]
    final, failed_once = {}, set()
    for record, outcome in ran:
        here = {name: outcome[name] for name in names if name in outcome}
        failed_once |= {name for name, (state, *_) in here.items() if state == "failed"}
        final |= here

    def those(state):
        return sorted(name for name in names if final.get(name, ("not run",))[0] == state)

    return {
        "tests": len(names), "passed": len(those("passed")), "failed": those("failed"),
        "passed_at_last": sorted(failed_once & set(those("passed"))),
        "left_out": {name: final[name][2] for name in those("left out")},
        "not_run": those("not run"),
        "seconds": round(sum(seconds for _, seconds, _ in final.values())),
        "from": ran[0][0]["date"], "to": last["date"], "commit": last["commit"], "on": last["on"],
    }


def collect(published):
    """What was published, and in its place what has run here since."""
    by_suite = {}
    for record, outcome in runs():
        for suite, names in record["tests"].items():
            if not outcome.keys().isdisjoint(names):
                by_suite.setdefault((record["release"], suite), []).append((record, outcome))
    found = {name: dict(published.get(name, {})) for name in RELEASES}
    for (name, suite), ran in by_suite.items():
        if ran[-1][0]["date"] >= found[name].get(suite, {}).get("to", ""):
            found[name][suite] = result_of(suite, ran)
    return found


# ------------------------------------------------------------------------------------------- pages


def cell(result):
    if not result:
        return "not run"
    words = [f"{result['passed']} of {result['tests']}"]
    words += [f"{len(result[key])} {key.replace('_', ' ')}" for key in ("failed", "left_out", "not_run")
              if result[key]]
    return ", ".join(words)


def release_of(name, suites):
    versions = sorted({(result["on"]["ceph"], result["on"]["debian"]) for result in suites.values()})
    return (", ".join(ceph for ceph, _ in versions) or "-", name,
            ", ".join(debian for _, debian in versions) or "-")


def table(releases):
    lines = ["| Ceph | release | Debian | " + " | ".join(SUITES) + " |", "|---" * 7 + "|"]
    for name, suites in releases.items():
        cells = [cell(suites.get(suite)) for suite in SUITES]
        lines.append("| " + " | ".join([*release_of(name, suites), *cells]) + " |")
    return "\n".join(lines)


def details(suites):
    """A release's runs: a line for each suite, then what did not pass, by name."""
    if not suites:
        return "No suite has run here."
    lines = ["| suite | passed | when, UTC | minutes | Ceph's commit | compiler | gRPC | tree |",
             "|---" * 8 + "|"]
    notes = []
    for suite in SUITES:
        result = suites.get(suite)
        if not result:
            continue
        on = result["on"]
        when = result["from"] if result["from"] == result["to"] else f"{result['from']} to {result['to']}"
        lines.append(f"| {suite} | {cell(result)} | {when} | {result['seconds'] / 60:.1f} "
                     f"| `{on['ceph_commit'][:12]}` | {on['compiler']} | {on['grpc']} "
                     f"| `{result['commit']}` |")
        notes += [f"- `{name}` failed." for name in result["failed"]]
        notes += [f"- `{name}` failed once, and passed when it ran again." for name in
                  result["passed_at_last"]]
        notes += [f"- `{name}` is left out: {why}" for name, why in result["left_out"].items()]
        notes += [f"- `{name}` did not run." for name in result["not_run"]]
    return "\n".join(lines) + ("\n\n" + "\n".join(notes) if notes else "")


def page(releases):
    text = TEMPLATE.read_text(encoding="utf-8").replace("{{table}}", table(releases))
    for name, suites in releases.items():
        text = text.replace("{{" + name + "}}", details(suites))
    return text


def readme(releases, text):
    return MARKED.sub(lambda found: f"{found[1]}{table(releases)}\n{found[2]}", text)


def published():
    return json.loads(PUBLISHED.read_text(encoding="utf-8"))["releases"] if PUBLISHED.exists() else {}


def publish():
    releases = collect(published())
    PUBLISHED.write_text(json.dumps({"schema_version": 1, "releases": releases}, indent=1) + "\n",
                         encoding="utf-8")
    PAGE.write_text(page(releases), encoding="utf-8")
    README.write_text(readme(releases, README.read_text(encoding="utf-8")), encoding="utf-8")
    print(table(releases))


if __name__ == "__main__":
    if sys.argv[1:2] == ["begin"] and len(sys.argv) > 3:
        begin(sys.argv[2], sys.argv[3:])
    elif sys.argv[1:] == ["publish"]:
        publish()
    else:
        sys.exit(__doc__.strip())
