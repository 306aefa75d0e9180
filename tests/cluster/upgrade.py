#!/usr/bin/python3
"""Upgrades a cluster of three OSDs to later releases of Ceph, while `siphon copy` runs on and on.

By hand, as root, on a machine with pacific (Debian 12); reef and tentacle are entered through
vstart-scripts/release. A step, from one release to the next, is what an operator does: noout, the
mon, the mgr, OSD by OSD, require-osd-release. With each OSD's new Ceph comes the Siphon that was
built for it, as files in a folder of that OSD's own (osd_class_dir), as if each had a host. At one
OSD the new ceph-osd is first started with the old files: the mistake that there is to make. The
last step, on tentacle, gives every daemon and key a secret of the new type.

Meanwhile the command of the old release copies one extent after the other to new names, with a key
that may do that and no more. After each step everything is read back with the new release's own
librados and the decoders of harness.py.
"""

import argparse
import collections
import hashlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import harness
from cli import BIN_DIR, NOT_FIT, OK, REPO, RUN_DEADLINE_S, TEMPORARY
from formats import KIB, MIB, content_of, sha256_of
from ports import port_range
from waiting import DEADLINE_S, wait_until

RELEASE_TOOL = REPO / "vstart-scripts" / "release"
BUILD_TOOL = REPO / "vstart-scripts" / "build"
RELEASES = ("pacific", "reef", "tentacle")
VERSIONS = {"pacific": "16.2", "reef": "18.2", "tentacle": "20.2"}
OSDS = 3
SOURCE, PLAIN = "extents", "plain"
SIZES = (200 * KIB, 3 * MIB, 9 * MIB)  # one object; one part; two parts
EXTENTS = 12
GROUPS = 16  # placement groups of a pool: every OSD is the primary of some
PLAIN_OBJECTS = 24
MISTAKEN_OSD = 1
VERIFY_EVERY = 5  # copies
SETTLE_S = 180
CEPH_FILES = ("libcls_siphon.so", "siphond")

EXAMPLES = """\
examples:
  tests/cluster/upgrade.py                     16.2 to 18.2 to 20.2, then the keys
  tests/cluster/upgrade.py --to reef           the first step alone
  tests/cluster/upgrade.py --from reef         the second one, and the keys
  SIPHON_KEEP_CLUSTER=1 tests/cluster/upgrade.py   what fails stays up, to look at
"""

# A copy that fails for want of a plugin names the OSD and its build.
BUILD = re.compile(r"osd\.(\d+) runs Ceph (\S+) \(([0-9a-f]{40})\)")
# Any other failure says at least where.
PLACE = re.compile(r"osd\.\d+|device at \S+|pool \S+|placement group \S+")


def say(text):
    print(f"upgrade: {text}", flush=True)


def check(condition, what):
    if not condition:
        raise AssertionError(what)


# ------------------------------------------------------------------------------- what roles share


class Run:
    """What is under way, in one folder: the cluster, what was put into it, what the copies said."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.facts_file = self.folder / "facts.json"

    @property
    def facts(self):
        return json.loads(self.facts_file.read_text())

    def packages(self, release):
        """The files of Siphon as built for that release, as a package would bring them."""
        return self.folder / "packages" / release

    def classes(self, osd):
        return self.folder / f"classes.{osd}"

    def log(self, step):
        return self.folder / f"copies-{step}.json"

    def stop_file(self, step):
        return self.folder / f"stop-{step}"

    def copies(self, step):
        return [json.loads(line) for line in self.log(step).read_text().splitlines()]


class Attached(harness.Cluster):
    """The cluster as it is seen in a release: with its tools, its librados and its siphon."""

    def __init__(self, run):
        self.dir = pathlib.Path(run.facts["cluster"])
        self.conf = self.dir / "ceph.conf"
        self.osds = OSDS
        self._environment = dict(os.environ)
        self._connections = {}
        port = json.loads((self.dir / "cluster.json").read_text())["settings"]["port"]
        self.data_ports = (port + 300, port + 499)
        self.control_ports = (port + 200, port + 299)

    def ask(self, prefix, mgr=False, **arguments):
        """As `ceph PREFIX -f json`, over a connection that is there already."""
        command = json.dumps({"prefix": prefix, "format": "json", **arguments})
        connection = self.connect()
        call = connection.mgr_command if mgr else connection.mon_command
        code, output, message = call(command, b"", timeout=DEADLINE_S)
        check(code == 0, f"{prefix}: {message}")
        return json.loads(output)

    def place(self, pool, locator):
        answer = self.ask("osd map", pool=pool, object=locator)
        return answer["acting_primary"], answer["acting"]

    def health_checks(self):
        return sorted(self.ask("health")["checks"])

    def all_clean(self):
        summary = self.ask("pg stat", mgr=True)["pg_summary"]
        return all(state["name"].startswith("active+clean") for state in summary["num_pg_by_state"])

    def wait_settled(self, what):
        wait_until(self.all_clean, SETTLE_S, f"clean placement groups after {what}", poll_s=0.5)

    def wait_no_health_check(self, name):
        wait_until(lambda: name not in self.health_checks(), SETTLE_S, f"no {name}", poll_s=0.5)


def build_of_running_ceph():
    """(version, commit) of the ceph-osd installed here."""
    words = subprocess.run(["ceph-osd", "--version"], check=True, capture_output=True,
                           text=True).stdout.split()
    return words[2], words[3].strip("()")


def install(run, osd, ceph_release, siphon_release):
    """What the host's packages do: that release's stock classes, and Siphon's two files. Runs in
    the release of Ceph; the links lead to where its classes are."""
    folder = run.classes(osd)
    new = folder.with_name(folder.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    stock = subprocess.run(["ceph-osd", "-c", "/dev/null", "--show-config-value", "osd_class_dir"],
                           check=True, capture_output=True, text=True).stdout.strip()
    for library in pathlib.Path("/", stock).glob("*.so*"):  # from 18 on relative, to where OSDs run
        (new / library.name).symlink_to(library)
    for name in CEPH_FILES:
        (new / name).unlink(missing_ok=True)
        shutil.copy2(run.packages(siphon_release) / name, new / name)
    shutil.rmtree(folder, ignore_errors=True)
    new.rename(folder)
    say(f"  osd.{osd}: the classes of {ceph_release}, Siphon for {siphon_release}")


# ------------------------------------------------------------------------------- role: the copies


def copy_over_and_over(run, step):
    """In the old release, until the stop file is there. A line of JSON for each copy."""
    c, facts = Attached(run), run.facts
    number = 0
    with open(run.log(step), "a", buffering=1) as log:
        while not run.stop_file(step).exists():
            name = facts["names"][number % len(facts["names"])]
            target = f"{name}.{number:05}"
            began = time.time()
            try:
                ran = c.siphon("copy", f"{SOURCE}/{name}", f"{facts['target']}/{target}",
                               key="client.mover", check=False)
            except AssertionError as error:  # it did not end: that is what this is to find out
                log.write(json.dumps({"name": name, "target": target, "began": began,
                                      "code": None, "said": str(error)}) + "\n")
                raise
            problem = ran.problem or {}
            said = " ".join(filter(None, (problem.get("message"), problem.get("next_step"))))
            summary = (ran.document or {}).get("summary") or {}
            entry = {"name": name, "target": target, "began": began,
                     "seconds": time.time() - began, "code": ran.code,
                     "said": said or (ran.stderr.strip() if ran.code else ""),
                     "problem": problem, "stderr": ran.stderr if ran.code else "",
                     "fallback_parts": summary.get("fallback_parts")}
            number += 1
            if ran.code == OK and number % VERIFY_EVERY == 0:
                again = c.siphon("verify", f"{facts['target']}/{target}", key="client.mover",
                                 check=False)
                entry["verified"] = again.code
                entry["verify_said"] = (again.problem or {}).get("message", "")
            log.write(json.dumps(entry) + "\n")


# ------------------------------------------------------------------------ role: step of a release


class Step:
    """Everything of the upgrade to this release, in it."""

    def __init__(self, run, old, new):
        self.run, self.old, self.new = run, old, new
        self.c = Attached(run)
        self.version, self.commit = build_of_running_ceph()
        self.pids = {}

    def restart(self, daemon, prepare=lambda: None):
        self.c.tool("stop", daemon)
        prepare()
        self.c.tool("start", daemon)

    def versions(self, kind):
        return list(self.c.ask("versions")[kind])

    def all_of_this_version(self, kind):
        texts = self.versions(kind)
        return len(texts) == 1 and self.commit in texts[0]

    def do(self):
        c = self.c
        c.ceph("osd", "set", "noout")
        say(f"noout is set; mon.a to {self.version}")
        self.restart("mon.a")
        check(self.all_of_this_version("mon"), self.versions("mon"))
        say("the mon is; mgr.x")
        self.restart("mgr.x")
        wait_until(lambda: self.all_of_this_version("mgr"), what="the new mgr")
        self.class_list()
        for osd in range(OSDS):
            if osd == MISTAKEN_OSD:
                self.mistake(osd)
            say(f"osd.{osd} to {self.version}")
            self.restart(f"osd.{osd}", lambda osd=osd: install(self.run, osd, self.new, self.new))
            c.wait_settled(f"osd.{osd}")
            c.wait_companions()
        wait_until(lambda: self.all_of_this_version("osd"), what="one version of OSDs")
        c.ceph("osd", "require-osd-release", self.new)
        c.ceph("osd", "unset", "noout")
        c.wait_settled("the step")
        say(f"all of it is {self.version}; require-osd-release {self.new}, noout is unset")

    def class_list(self):
        """The list in force is the old release's own and siphon; now the new one's and siphon."""
        default = subprocess.run(
            ["ceph-osd", "-c", "/dev/null", "--show-config-value", "osd_class_load_list"],
            check=True, capture_output=True, text=True).stdout.strip()
        text = self.c.conf.read_text()
        new = re.sub(r"(?m)^osd_class_load_list = .*$", f"osd_class_load_list = {default} siphon",
                     text)
        added = set(new.split()) - set(text.split())
        self.c.conf.write_text(new)
        say(f"osd_class_load_list: new in this release: {' '.join(sorted(added)) or 'nothing'}")

    def mistake(self, osd):
        """The new ceph-osd with the old files of Siphon: nothing crashes, and all say so."""
        c = self.c
        say(f"osd.{osd} to {self.version}, by mistake with the Siphon of {self.old}")
        log = c.dir / "log" / f"osd.{osd}.log"
        before = log.stat().st_size
        self.restart(f"osd.{osd}", lambda: install(self.run, osd, self.new, self.old))
        c.wait_settled(f"osd.{osd}")
        pid = c.osd_pid(osd)
        with open(log, "rb") as file:
            file.seek(before)
            said = [line for line in file.read().decode(errors="replace").splitlines()
                    if "siphon: " in line]
        line = next((line for line in said if "siphon: compiled for Ceph" in line), "")
        check(f"running in {self.version} ({self.commit}): no methods here" in line, said)
        say("  its log: " + line.partition("siphon: ")[2])

        findings = c.siphon("doctor", SOURCE, check=False).document["findings"]
        about = [f for f in findings if f["about"] == f"osd.{osd}"
                 and f["severity"] in ("error", "warning")]
        for finding in about:
            say(f"  doctor: {finding['check']}: osd.{osd}: {finding['what']}")
        plugin = [f["what"] for f in about if f["check"] == "plugin"]
        check(len(plugin) == 1 and self.version in plugin[0] and self.commit in plugin[0], findings)
        others = [f for f in findings if f["check"] == "plugin" and f["about"] != f"osd.{osd}"]
        check([f["severity"] for f in others] == ["ok"] * (OSDS - 1), others)

        daemons = c.siphon("daemons", SOURCE, check=False)
        say(f"  daemons (exit {daemons.code}): {(daemons.problem or {}).get('message')}")
        check(self.build_named(daemons.stdout + daemons.stderr, osd), str(daemons))

        # With the new command; what the old one says is in the copies' log.
        names, target = self.run.facts["names"], self.run.facts["target"]
        at = next(name for name in names if c.place(SOURCE, name)[0] == osd)
        ran = c.siphon("copy", f"{SOURCE}/{at}", f"{target}/by-mistake", check=False)
        say(f"  copy (exit {ran.code}): {(ran.problem or {}).get('message')}")
        check(ran.code == NOT_FIT and self.build_named(ran.problem["message"], osd), str(ran))
        free = map("past-{}".format, range(99))
        elsewhere = next((name, there) for there in free for name in names
                         if osd not in (c.place(SOURCE, name)[0], c.place(target, there)[0]))
        c.siphon("copy", f"{SOURCE}/{elsewhere[0]}", f"{target}/{elsewhere[1]}")
        c.siphon("rm", "--purge", "--yes-i-really-mean-it", f"{target}/{elsewhere[1]}")

        with c.io(PLAIN) as io:  # what has nothing to do with Siphon, at this OSD
            name = next(name for name in map("probe-{}".format, range(99))
                        if c.place(PLAIN, name)[0] == osd)
            io.write_full(name, name.encode())
            check(io.read(name) == name.encode(), name)
            check(io.execute(name, "version", "read", b"")[0] > 0, "a stock class")
            io.remove_object(name)

        def told():
            return any((m := BUILD.search(copy["said"])) and int(m[1]) == osd
                       for copy in self.run.copies(self.new))
        wait_until(told, what="a copy of the old command that met it", poll_s=0.5)
        check(c.osd_pid(osd) == pid, f"osd.{osd} did not live")

    def build_named(self, text, osd):
        return any(m.groups() == (str(osd), self.version, self.commit)
                   for m in BUILD.finditer(text))


# ------------------------------------------------------------------------------------- role: keys


def renew_keys(run):
    """Every secret of the old type (aes) becomes one of the new (aes256k), as Ceph's own document
    has it: mon, mgr, OSD by OSD, then the tickets, then the clients; at last the old type is
    refused. A companion has its OSD's key, and starts with it."""
    c = Attached(run)

    def monmap(what):
        found = c.ask("mon dump")[what]
        return [f["name"] for f in found] if isinstance(found, list) else found["name"]

    def rotate(entity, keyring):
        new = c.ceph("auth", "rotate", entity)
        keyring.write_text(new)

    def checks():
        return [name for name in c.health_checks() if name.startswith("AUTH")]

    say(f"allowed: {monmap('auth_allowed_ciphers')}, new keys: {monmap('auth_preferred_cipher')},"
        f" tickets: {monmap('auth_service_cipher')}; health: {' '.join(checks())}")
    check(set(monmap("auth_allowed_ciphers")) == {"aes", "aes256k"}, "an upgraded mon allows both")
    c.ceph("mon", "set", "auth_preferred_cipher", "aes256k")
    c.ceph("osd", "set", "noout")
    c.ceph("auth", "rotate", "mon.")
    c.tool("stop", "mon.a")
    c.tool("start", "mon.a")
    for name in ["mgr.x", *(f"osd.{osd}" for osd in range(OSDS))]:
        c.tool("stop", name)
        if name.startswith("osd."):
            c.ceph("osd", "down", name.partition(".")[2])
        rotate(name, c.dir / name / "keyring")
        c.tool("start", name)
        c.wait_settled(name)
        c.wait_companions()
        say(f"{name} has a new key")
    c.ceph("osd", "unset", "noout")
    c.wait_no_health_check("AUTH_INSECURE_SERVICE_KEY_TYPE")
    c.ceph("mon", "set", "auth_service_cipher", "aes256k")
    # Without a wait of hours for the tickets that there are, as it is done here.
    c.ceph("auth", "wipe-rotating-service-keys")
    wait_until(lambda: "AUTH_INSECURE_ROTATING_SERVICE_KEY_TYPE" not in checks(), SETTLE_S,
               "new service keys")
    say("tickets are of the new type; now the clients")


def renew_client_keys(run):
    """While no copy runs: from here to the new file a client has the wrong key."""
    c = Attached(run)
    for entity, keyring in (("client.mover", c.dir / "client.mover.keyring"),
                            ("client.admin", c.dir / "keyring")):
        new = c.ceph("auth", "rotate", entity)
        keyring.write_text(new)
    c.wait_no_health_check("AUTH_INSECURE_CLIENT_KEY_TYPE")
    c.ceph("mon", "set", "auth_allowed_ciphers", "aes256k")
    c.wait_no_health_check("AUTH_INSECURE_KEYS_ALLOWED")
    left = [name for name in c.health_checks() if name.startswith("AUTH")]
    check(left == [], left)
    say("the old type is refused from now on; no AUTH_ health check is left")


# ----------------------------------------------------------------------------------- role: checks


def content_digest(c, pool, name):
    return hashlib.sha256(content_of(harness.Extent(c, pool, name).read())).hexdigest()


def look_at_everything(run, step, release):
    """After a step, in the new release: what was published, what was said, what is alive."""
    c, facts = Attached(run), run.facts
    copies, target = run.copies(step), facts["target"]
    check(len(copies) > 20, f"{len(copies)} copies only")

    # What was said.
    messages = collections.Counter()
    for copy in copies:
        if copy["code"] == OK:
            continue
        check(copy["code"] in (TEMPORARY, NOT_FIT), copy)
        check(BUILD.search(copy["said"]) if copy["code"] == NOT_FIT
              else PLACE.search(copy["said"]), copy)
        messages[copy["code"], re.sub(r"e\d+\.\d{5}", "E.N", re.sub(r"\be\d+\b", "E",
                 copy["problem"].get("message") or copy["said"]))] += 1
    bad = [copy for copy in copies if copy.get("verified", OK) not in (OK, TEMPORARY, NOT_FIT)]
    check(not bad, bad)

    # What was published: by the decoders of harness.py, against the files that it was made of.
    seen = {locator for _, locator, name in harness.list_objects(c, target)
            if name == f"siphon.{locator}"}
    published = 0
    for copy in copies:
        head = harness.read_head(c, target, copy["target"]) if copy["target"] in seen else None
        if head is None or not head.current:
            check(copy["code"] != OK, f"{copy}: it said so, and it is not there")
            continue
        check(content_digest(c, target, copy["target"]) == facts["digests"][copy["name"]],
              f"{copy}: it is not the source's content")
        published += 1
    for name, digest in facts["digests"].items():
        check(content_digest(c, SOURCE, name) == digest, f"{name}: the source has changed")
    with c.io(PLAIN) as io:
        for name, digest in facts["plain"].items():
            check(hashlib.sha256(io.read(name, 4 * MIB)).hexdigest() == digest, name)
    c.siphon("verify", target, timeout=600)

    # All paths of the class are back, with the new command.
    for name in facts["names"]:
        ran = c.siphon("copy", f"{SOURCE}/{name}", f"{target}/{name}.after", key="client.mover")
        check(ran.document["summary"]["fallback_parts"] == 0, str(ran))
    for osd in range(OSDS):
        check(c.osd_pid(osd) and c.companion_pid(osd), f"osd.{osd} or its companion is dead")
    check(not list((c.dir / "crash").iterdir()), "crash dumps")
    doctor = c.siphon("doctor", SOURCE, target, check=False).document["findings"]
    bad = [f for f in doctor if f["severity"] == "error" or f["severity"] == "warning"
           and f["check"] in ("plugin", "layout", "companion", "version", "reach")]
    check(not bad, bad)
    layouts = {d["device"]: d["layout"]
               for d in c.siphon("daemons", SOURCE).document["devices"]}
    check(layouts == {f"osd.{osd}": "fits" for osd in range(OSDS)}, layouts)
    check(VERSIONS[release] in c.ceph("versions"), "the versions")
    wait_until(lambda: not harness.leftovers(c, target), 60, "no leftovers", poll_s=1)

    well = [copy for copy in copies if copy["code"] == OK]
    result = {"step": step, "run": len(copies), "succeeded": len(well), "published": published,
              "longest_s": max(copy.get("seconds", 0) for copy in copies),
              "waited": sum(copy["seconds"] > 5 for copy in well),
              "with_fallback": sum(bool(copy["fallback_parts"]) for copy in well),
              "verified": sum(copy.get("verified") == OK for copy in copies),
              "messages": [[code, count, text] for (code, text), count in messages.most_common()]}
    (run.folder / f"result-{step}.json").write_text(json.dumps(result))


# --------------------------------------------------------------------------------------- the whole


class Upgrade:

    def __init__(self, first, last):
        self.releases = RELEASES[RELEASES.index(first):RELEASES.index(last) + 1]
        self.run = Run(tempfile.mkdtemp(prefix="siphon-upgrade-"))
        self.results = []
        self.port = None
        self.cluster_dir = self.run.folder / "c"

    def inside(self, release, *words):
        return [str(word) for word in (RELEASE_TOOL, "run", release, "--", *words)]

    def role(self, release, role, *words):
        return self.inside(release, "/usr/bin/python3", pathlib.Path(__file__).resolve(),
                           "--role", role, self.run.folder, *words)

    def do(self, release, role, *words):
        subprocess.run(self.role(release, role, *words), check=True)

    def packages(self):
        """Builds what a package of each release would bring, and lays it out."""
        for release in self.releases:
            subprocess.run(self.inside(release, BUILD_TOOL, "siphon", "siphond", "cls_siphon"),
                           check=True)
            folder = self.run.packages(release)
            folder.mkdir(parents=True)
            subprocess.run(self.inside(release, "cp", *(BIN_DIR / n for n in CEPH_FILES),
                                       folder), check=True)

    def all(self):
        self.packages()
        with port_range() as port:
            try:
                self.do(self.releases[0], "fill", port, self.releases[0])
                for old, new in zip(self.releases, self.releases[1:]):
                    self.step(new, old, new, [("step", old, new)])
                if self.releases[-1] == "tentacle":
                    self.step("keys", "tentacle", "tentacle", [("keys",)], [("client-keys",)])
            except BaseException:
                if os.environ.get("SIPHON_KEEP_CLUSTER") == "1":
                    say(f"left as it is: {self.run.folder}; end it: {harness.CLUSTER_TOOL} down"
                        f" --dir {self.cluster_dir} --purge")
                    raise
                self.down()
                raise
            self.down()
        self.table()

    def down(self):
        subprocess.run([harness.CLUSTER_TOOL, "down", "--dir", self.cluster_dir, "--purge"],
                       check=False)
        shutil.rmtree(self.run.folder, ignore_errors=True)

    def step(self, name, old, new, meanwhile, after=()):
        """Copies in the old release, and meanwhile these roles in the new one."""
        say(f"---- {name}: from {old} to {new}")
        self.do(old, "target", f"copies-{name}")
        copier = subprocess.Popen(self.role(old, "copy", name))
        try:
            for role in meanwhile:
                self.do(new, *role)
            check(copier.poll() is None, "the copies have ended by themselves")
        finally:
            self.run.stop_file(name).touch()
            ended = copier.wait(2 * RUN_DEADLINE_S)
        check(ended == 0, f"the copies ended with {ended}")
        for role in after:
            self.do(new, *role)
        self.do(new, "look", name, new)
        self.results.append(json.loads((self.run.folder / f"result-{name}.json").read_text()))

    def table(self):
        print()
        print(f"{'STEP':<10}{'COPIES':>7}{'WELL':>7}{'> 5 s':>7}{'LONGEST':>9}{'FALLBACK':>10}"
              f"{'VERIFIED':>10}{'FAILED':>8}")
        for r in self.results:
            print(f"{r['step']:<10}{r['run']:>7}{r['succeeded']:>7}{r['waited']:>7}"
                  f"{r['longest_s']:>7.1f} s{r['with_fallback']:>10}{r['verified']:>10}"
                  f"{r['run'] - r['succeeded']:>8}")
            for code, count, text in r["messages"]:
                print(f"{'':<10}{count} x exit {code}: {text}")
        print("\nRead back with each step's new release: all that was published is its source's"
              " content, the plain pool is as it was; fallback_parts is 0, nothing has crashed.")


def fill(run, port, release):
    """In the first release: the cluster, and what is in it."""
    folder = run.folder
    (folder / "files").mkdir()
    for osd in range(OSDS):
        install(run, osd, release, release)
    subprocess.run(
        [harness.CLUSTER_TOOL, "up", "--dir", folder / "c", "--port", str(port),
         "--osds", str(OSDS), "--size", "2", "--memory", "896MiB", "--plugin", harness.PLUGIN,
         "-o", f"osd_class_dir={folder}/classes.$id"], check=True)
    run.facts_file.write_text(json.dumps({"cluster": str(folder / "c")}))
    c = Attached(run)
    c.scratch = folder / "files"
    c.create_pool(SOURCE, pg_num=GROUPS)
    c.create_pool(PLAIN, pg_num=GROUPS, tag=False)
    c.wait_companions()
    names, digests, last = [], {}, OSDS - 1
    for name in map("e{}".format, range(200)):  # from one OSD after the other
        number, osd = len(names), c.place(SOURCE, name)[0]
        if number == EXTENTS or osd != (last + 1) % OSDS:
            continue
        last = osd
        path = c.put(f"{SOURCE}/{name}", SIZES[number // OSDS % len(SIZES)] + number, number)
        names.append(name)
        digests[name] = sha256_of(path)
    check(len(names) == EXTENTS, "every OSD is a source")
    plain = {}
    with c.io(PLAIN) as io:
        for number in range(PLAIN_OBJECTS):
            data = os.urandom(256 * KIB)
            io.write_full(f"o{number}", data)
            plain[f"o{number}"] = hashlib.sha256(data).hexdigest()
    run.facts_file.write_text(json.dumps({"cluster": str(folder / "c"), "names": names,
                                          "digests": digests, "plain": plain}))


def make_target(run, pool):
    c, facts = Attached(run), run.facts
    c.create_pool(pool, pg_num=GROUPS)
    caps = ("allow class siphon hello, allow class siphon hello_head, "
            f"allow class siphon grant_read pool={SOURCE}, "
            f"allow class siphon grant_write pool={pool}, "
            f"allow class siphon grant_read pool={pool}")
    if (c.dir / "client.mover.keyring").exists():
        c.ceph("auth", "caps", "client.mover", "mon", "allow r", "osd", caps)
    else:
        c.create_key("mover", caps)
    run.facts_file.write_text(json.dumps({**facts, "target": pool}))


ROLES = {"fill": fill, "target": make_target, "copy": copy_over_and_over,
         "step": lambda run, old, new: Step(run, old, new).do(), "keys": renew_keys,
         "client-keys": renew_client_keys, "look": look_at_everything}


def main():
    parser = argparse.ArgumentParser(
        prog="upgrade.py", formatter_class=argparse.RawDescriptionHelpFormatter,
        description=__doc__, epilog=EXAMPLES)
    parser.add_argument("--from", dest="first", choices=RELEASES[:-1], default=RELEASES[0],
                        help="the release to begin with (default: pacific)")
    parser.add_argument("--to", dest="last", choices=RELEASES[1:], default=RELEASES[-1],
                        help="the release to end with (default: tentacle)")
    parser.add_argument("--role", nargs="+", help=argparse.SUPPRESS)  # of ourselves, in a release
    arguments = parser.parse_args()
    if arguments.role:
        role, folder, *words = arguments.role
        ROLES[role](Run(folder), *words)
        return
    if RELEASES.index(arguments.first) >= RELEASES.index(arguments.last):
        parser.error(f"{arguments.last} is not later than {arguments.first}")
    if os.geteuid() != 0:
        sys.exit("upgrade: must be root: it enters chroots and starts the packaged daemons")

    def stop(number, _frame):
        raise KeyboardInterrupt(f"signal {number}")
    signal.signal(signal.SIGTERM, stop)
    began = time.monotonic()
    Upgrade(arguments.first, arguments.last).all()
    say(f"done in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
