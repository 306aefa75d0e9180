#!/usr/bin/python3
"""Holds the documents to the tree: every link, file, name, flag, setting, default and test that they
give must exist. *.md and docs/*.md speak of the present; docs/adr/ of the day it was written, so
there only links are checked.

What counts as a name: text in `back quotes` or in a fenced block. Names of other people's programs
are in OTHERS below, each with whose it is.
"""

import functools
import os
import pathlib
import re
import subprocess
import sys
import unittest

REPO = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO / "tests" / "support"))
import results
BIN_DIR = pathlib.Path(os.environ.get("SIPHON_BIN_DIR", REPO / "build" / "release" / "bin"))

PRESENT = [*sorted(REPO.glob("*.md")), *sorted((REPO / "docs").glob("*.md"))]
ALL = [*PRESENT, *sorted((REPO / "docs" / "adr").glob("*.md"))]
SOURCES = (".cc", ".h", ".py", ".proto", ".txt", ".cmake", ".map", ".json", ".sh", ".in", ".toml")

# Identifiers that are not ours.
OTHERS = set("""
 SO_RCVBUF ms_inject_socket_failures OOMPolicy
""".split())

# Options of other programs, by the program that they are written behind, or alone in back quotes.
OTHERS_FLAGS = {"--object-locator", "--purge", "--format", "--show-config-value", "--osds"}


def read(path):
    return path.read_text(encoding="utf-8")


@functools.cache
def tracked():
    out = subprocess.run(["git", "-C", str(REPO), "ls-files"], capture_output=True, text=True)
    if out.returncode == 0 and out.stdout:
        return [REPO / line for line in out.stdout.splitlines()]
    return [path for path in REPO.rglob("*") if path.is_file() and "build" not in path.parts]


@functools.cache
def source_text():
    """All that is not a document."""
    texts = []
    for path in tracked():
        if path.suffix == ".md" or path == pathlib.Path(__file__).resolve():
            continue
        if path.suffix in SOURCES or (path.suffix == "" and path.parent.name in (
                "vstart-scripts", "tests", "bench", "fuzz", "lint", "support", ".ci")):
            texts.append(read(path))
    return "\n".join(texts)


@functools.cache
def source_words():
    return set(re.findall(r"[A-Za-z_][A-Za-z0-9_]*", source_text())) | {p.stem for p in tracked()}


@functools.cache
def test_names():
    names = set(re.findall(r"\bdef (test_\w+)", source_text()))
    names |= set(re.findall(r"\b(?:TEST|TEST_F|TEST_P|TYPED_TEST|TYPED_TEST_P)\(\s*\w+,\s*(\w+)\)",
                            source_text()))
    return names


def outside_fences(text):
    return re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)


def fences(text):
    return re.findall(r"^```(\w*)\n(.*?)^```", text, flags=re.M | re.S)


def code_spans(text):
    return re.findall(r"(?<!`)`([^`\n]+)`(?!`)", outside_fences(text))


def anchors(path):
    found = set()
    for title in re.findall(r"^#+ (.*)$", outside_fences(read(path)), flags=re.M):
        plain = re.sub(r"[`*]", "", title).strip().lower()
        found.add(re.sub(r"[^\w\- ]", "", plain).replace(" ", "-"))
    return found


@functools.cache
def help_of(*command):
    ran = subprocess.run([str(BIN_DIR / command[0]), *command[1:], "--help"], capture_output=True,
                         text=True, timeout=60)
    return ran.stdout + ran.stderr


@functools.cache
def verbs():
    text = help_of("siphon")
    found = set(re.findall(r"^  ([a-z]+) {2,}\S", text, flags=re.M))
    return found


@functools.cache
def our_flags():
    """Every long option that a program of ours has, and those of our scripts."""
    text = help_of("siphon") + help_of("siphond")
    for verb in verbs():
        text += help_of("siphon", verb)
        for sub in re.findall(r"^  ([a-z]+) {2,}\S", help_of("siphon", verb), flags=re.M):
            text += help_of("siphon", verb, sub)
    flags = set(re.findall(r"--[a-z][a-z0-9-]*", text))
    flags |= set(re.findall(r'"(--[a-z][a-z0-9-]*)"', source_text()))
    for script in ("vstart-scripts/cluster", "vstart-scripts/quickstart", "vstart-scripts/build",
                   "vstart-scripts/release", "tests/run", "tests/bench/run",
                   "tests/support/with_cluster", "tests/lint/run"):
        flags |= set(re.findall(r"--[a-z][a-z0-9-]*", read(REPO / script)))
    return flags


@functools.cache
def settings():
    """(key, default, environment variable) of each of siphond's settings, as it says itself."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SIPHON")}
    ran = subprocess.run([str(BIN_DIR / "siphond"), "--check-config"], capture_output=True,
                         text=True, timeout=60, env=environment, cwd="/", check=True)
    return re.findall(r'^(\S+) = "(.*)"  # default, (\w+)$', ran.stdout, flags=re.M)


class DocumentsTest(unittest.TestCase):
    """Each test collects all that is wrong, so that one run says it all."""

    def check(self, wrong):
        self.assertEqual([], sorted(set(wrong)), "\n" + "\n".join(sorted(set(wrong))))

    def test_links_lead_somewhere(self):
        wrong = []
        for path in ALL:
            for link in re.findall(r"\]\(([^)\s]+)\)", outside_fences(read(path))):
                if re.match(r"[a-z]+:", link):
                    continue
                file, _, anchor = link.partition("#")
                there = (path.parent / file).resolve() if file else path
                if not there.exists():
                    wrong.append(f"{path.relative_to(REPO)}: no file {link}")
                elif anchor and anchor not in anchors(there):
                    wrong.append(f"{path.relative_to(REPO)}: no heading {link}")
        self.check(wrong)

    def test_prose_is_wrapped(self):
        """A change to a line of 600 columns cannot be reviewed. Tables and code may be wider."""
        wrong = []
        for path in ALL:
            for line in outside_fences(read(path)).splitlines():
                if len(line) > 100 and not line.startswith("|") and " " in line.strip("- `"):
                    wrong.append(f"{path.relative_to(REPO)}: {line[:60]}...")
        self.check(wrong)

    def test_files_that_are_named_exist(self):
        wrong = []
        tops = "plugin|adapters|tests|docs|proto|vstart-scripts"
        for path in PRESENT:
            for name in re.findall(rf"(?<![\w/.<-])\.?/?((?:{tops})/[\w./*{{}},-]+)", read(path)):
                name = name.rstrip(".,")
                pattern = re.sub(r"\{[^}]*\}", "*", name)
                if "NAME" in pattern or "PRESET" in pattern:
                    continue
                if not any(REPO.glob(pattern)) and not any(REPO.glob(pattern + ".*")):
                    wrong.append(f"{path.relative_to(REPO)}: no {name}")
        self.check(wrong)

    def test_tests_that_are_named_exist(self):
        wrong = []
        for path in PRESENT:
            known = None  # what a `..._suffix` continues
            for span in code_spans(read(path)):
                if re.fullmatch(r"test_\w+(\.\.\.)?", span):
                    stem = span.removesuffix("...")
                    if not any(n == stem or (span != stem and n.startswith(stem))
                               for n in test_names()):
                        wrong.append(f"{path.relative_to(REPO)}: no test {span}")
                    known = stem
                elif span.startswith("...") and known:
                    if not any(n.endswith(span[3:]) for n in test_names()):
                        wrong.append(f"{path.relative_to(REPO)}: no test {known} {span}")
        # In the failure model, U says: a test of the unit or contract suite.
        model = REPO / "docs" / "failure_model.md"
        for cell in re.findall(r"\bU ((?:`\w+`(?:, )?)+)", read(model)):
            for name in re.findall(r"`(\w+)`", cell):
                if name not in test_names() and name not in source_words():
                    wrong.append(f"docs/failure_model.md: no test {name}")
        self.check(wrong)

    def test_names_of_code_exist(self):
        """snake_case, CamelCase and qualified names in back quotes. The benchmarks' page is made by
        a program, its ratios have names of their own."""
        wrong = []
        name = re.compile(r"[A-Za-z_]\w*(?:::[A-Za-z_]\w*)*(?:\(\))?")
        for path in PRESENT:
            if path.name == "benchmarks.md":
                continue
            for span in code_spans(read(path)):
                if not name.fullmatch(span) or re.match(r"test_|SIPHOND?_", span):
                    continue
                plain = span.removesuffix("()")
                camel = re.fullmatch(r"[A-Z][a-z0-9]+(?:[A-Z]\w*)+", plain)
                if not ("_" in plain or "::" in plain or camel or span != plain):
                    continue
                for word in plain.split("::"):
                    if word not in source_words() and word not in OTHERS:
                        wrong.append(f"{path.relative_to(REPO)}: no {span}")
        self.check(wrong)

    def test_flags_exist(self):
        wrong = []
        ours = re.compile(r"(?:^|[\s|(])(?:\S*/)?(siphond?|quickstart|tests/run|tests/lint/run|cluster|bench/run)\s(.*)")
        for path in PRESENT:
            text = read(path)
            lines = [line for language, body in fences(text) if language in ("sh", "")
                     for line in body.splitlines()]
            lines += code_spans(text)
            for line in lines:
                command = ours.search(line.split("  #")[0])
                flags = re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", command[2] if command else (
                    line if line.startswith("--") else ""))
                for flag in flags:
                    known = any(f.startswith(flag) for f in our_flags()) if flag.endswith(
                        "-") else flag in our_flags()
                    if not known and flag not in OTHERS_FLAGS:
                        wrong.append(f"{path.relative_to(REPO)}: no option {flag} ({line.strip()})")
        self.check(wrong)

    def test_suites_exist(self):
        """Those that `tests/run` is told to run, and those that it says it runs."""
        script = read(REPO / "tests" / "run")
        suites = set(re.search(r"^readonly suites=\((.*)\)$", script, flags=re.M)[1].split())
        wrong = [f"tests/run's help lacks {suite}" for suite in suites
                 if not re.search(rf"^  {suite} {{2,}}\S", script, flags=re.M)]
        for path in PRESENT:
            text = read(path)
            lines = [line for language, body in fences(text) if language == "sh"
                     for line in body.splitlines()] + code_spans(text)
            for line in lines:
                command = re.search(r"(?:^|/|\s)tests/run\s([^#]*)", line)
                words = command[1].split(" -- ")[0].split() if command else []
                for before, word in zip(["", *words], words):
                    value = before in ("--preset", "--release", "--seconds")
                    if not value and re.fullmatch(r"[a-z]+", word) and word not in suites:
                        wrong.append(f"{path.relative_to(REPO)}: no suite {word} ({line.strip()})")
        self.assertIn("fuzz", suites)
        self.check(wrong)

    def test_verbs_exist(self):
        wrong = []
        for path in PRESENT:
            text = read(path)
            lines = [line for language, body in fences(text) if language == "sh"
                     for line in body.splitlines()]
            for line in lines + code_spans(text):
                for verb in re.findall(r"(?:^|[|;&] ?|\$\()siphon ([a-z]+)", line):
                    if verb not in verbs():
                        wrong.append(f"{path.relative_to(REPO)}: no verb {verb} ({line.strip()})")
        self.assertIn("copy", verbs())
        self.check(wrong)

    def test_settings_and_their_defaults_are_those_of_siphond(self):
        """The table of operations.md against what siphond itself says."""
        real = {key: value for key, value, _ in settings()}
        self.assertIn("control.listen", real)
        told = {}
        for row in re.findall(r"^\| (`[a-z_.]+`(?:, `[a-z_.]+`)*) \| ([^|]*) \| ([^|]*) \|",
                              read(REPO / "docs" / "operations.md"), flags=re.M):
            for key in re.findall(r"`([a-z_.]+)`", row[0]):
                told[key] = (row[1].strip().strip("`"), row[2].strip())
        wrong = [f"operations.md lacks {key}" for key in real if key not in told]
        wrong += [f"there is no setting {key}" for key in told if key not in real]
        units = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
        for key, (default, variable) in told.items():
            if key not in real:
                continue
            as_number = re.fullmatch(r"(\d+) (KiB|MiB|GiB)", default)
            value = str(int(as_number[1]) * units[as_number[2]]) if as_number else default
            if value in ("none", "stderr", "see below", "the OSD's"):
                value = ""
            if value != real[key]:
                wrong.append(f"{key} is {real[key]!r}, operations.md says {default!r}")
            expected = next(name for k, _, name in settings() if k == key)
            if expected not in variable and "..." not in variable:
                wrong.append(f"{key}: {expected} is not {variable}")
        self.check(wrong)

    def test_releases_are_those_of_the_runs(self):
        """Nobody writes by hand what has passed where."""
        found = results.published()
        self.assertEqual(list(results.RELEASES), list(found))
        self.assertEqual(results.page(found), read(results.PAGE), "tests/run --publish")
        text = read(results.README)
        self.assertIn(results.table(found), text)
        self.assertEqual(results.readme(found, text), text, "tests/run --publish")

    def test_environment_variables_exist(self):
        wrong = []
        of_settings = {name for _, _, name in settings()}
        for path in PRESENT:
            for name in re.findall(r"\bSIPHOND?_[A-Z_]*[A-Z]\b", read(path)):
                if name not in source_words() and name not in of_settings:
                    wrong.append(f"{path.relative_to(REPO)}: nothing reads {name}")
        self.check(wrong)


if __name__ == "__main__":
    unittest.main(verbosity=2)
