#!/usr/bin/python3
"""clang's -Wthread-safety over the product: who touches what a mutex guards (plugin/core/mutex.h)
without holding it. Nothing is built; some seconds a file.

  tests/lint/threads.py            what could see what differs from origin/main, or from main
  tests/lint/threads.py --all      every file that could see what is guarded
  tests/lint/threads.py FILE...    these .cc files
"""

import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys

REPO = pathlib.Path(__file__).resolve().parents[2]
WORK = REPO / "build" / "threads"  # headers that are made
RADOS = pathlib.Path("/usr/include/rados")
CLANG = ["clang++", "-std=c++20", "-fsyntax-only", "-Wthread-safety", "-Werror=thread-safety",
         '-DSIPHON_VERSION=""', "-I.", "-isystem", str(WORK)]


def git(*arguments):
    return subprocess.run(["git", "-c", f"safe.directory={REPO}", *arguments], check=False,
                          cwd=REPO, stdout=subprocess.PIPE, text=True).stdout.split()


def sources():
    """The product's files, by path, with what each includes of the product."""
    found = {}
    for path in sorted([*REPO.glob("plugin/**/*.*"), *REPO.glob("adapters/**/*.*")]):
        if path.suffix in (".h", ".cc"):
            text = path.read_text(encoding="utf-8")
            found[str(path.relative_to(REPO))] = (
                text, re.findall(r'^\s*#include "((?:plugin|adapters)/[^"]+)"', text, flags=re.M))
    return found


def units_of(files):
    """The .cc files that could touch what is guarded in `files`: themselves, and those that include
    one, be it through a header beside it (target.h, target_impl.h)."""
    tree = sources()
    guarded = {file for file in files if file in tree and "SIPHON_" in tree[file][0]}
    while True:
        beside = {file for file, (_, includes) in tree.items() if file.endswith(".h")
                  for header in includes
                  if header in guarded and os.path.dirname(header) == os.path.dirname(file)}
        if beside <= guarded:
            break
        guarded |= beside
    return [file for file, (_, includes) in tree.items() if file.endswith(".cc")
            and (file in files or guarded.intersection(includes))]


def prepare():
    """What the build makes: the messages, and Ceph's headers as tests/fuzz/CMakeLists.txt mends
    them for clang."""
    (WORK / "rados").mkdir(parents=True, exist_ok=True)
    for header in RADOS.glob("*"):
        text = header.read_text(encoding="utf-8")
        (WORK / "rados" / header.name).write_text(
            text.replace("it == end() ?", "it == const_iterator(end()) ?"), encoding="utf-8")
    subprocess.run(["protoc", f"--proto_path={REPO / 'proto'}", f"--cpp_out={WORK}",
                    f"--grpc_out={WORK}", "--plugin=protoc-gen-grpc=/usr/bin/grpc_cpp_plugin",
                    "siphon/v1/siphon.proto"], check=True)


def check(unit):
    return subprocess.run([*CLANG, unit], cwd=REPO, check=False, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def main():
    files = sys.argv[1:]
    units = files
    if files == ["--all"]:
        units = units_of([file for file, (text, _) in sources().items()
                          if "SIPHON_GUARDED_BY" in text])
    elif not files:
        base = git("merge-base", "HEAD", "origin/main") or git("rev-parse", "main")
        units = units_of(git("diff", "--name-only", *base, "--", "*.cc", "*.h"))
    if any("plugin/osd" not in unit for unit in units):
        prepare()
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        ended = list(pool.map(check, units))
    print("".join(run.stdout for run in ended), end="")
    sys.exit(any(run.returncode for run in ended))


if __name__ == "__main__":
    main()
