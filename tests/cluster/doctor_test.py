#!/usr/bin/python3
"""siphon doctor: what is broken is found, with the command that mends it, and the rest of its
findings come all the same; it changes nothing; what is well is nobody's worry.
"""

import contextlib
import json
import os
import pathlib
import re
import shlex
import signal
import subprocess

import harness
from cls_other_build_test import OTHER_BUILD
from cli import NOT_FIT, NOT_FOUND, OK, SIPHOND, TEMPORARY
from formats import MIB
from waiting import wait_until

BAD = ("warning", "error")


class DoctorTest(harness.ClusterTest):

    def doctor(self, *arguments, key=None, code=None):
        """The findings; by default the exit code must be what their severities say."""
        ran = self.cluster.siphon("doctor", *arguments, key=key, check=False)
        self.assertIsNotNone(ran.document, str(ran))
        self.assertIn("findings", ran.document, str(ran))
        findings = ran.document["findings"]
        bad = any(f["severity"] in BAD for f in findings)
        self.assertEqual(ran.code, NOT_FIT if bad else OK, str(ran))
        if code is not None:
            self.assertEqual(ran.code, code, str(ran))
        for f in findings:
            self.assertIn(f["severity"], ("ok", "note", *BAD))
            self.assertTrue(f["severity"] == "ok" or f["why"] or not f["seen"], f)
        return findings

    def bad(self, findings):
        """{(check, about)} of what is not well."""
        return {(f["check"], f["about"]) for f in findings if f["severity"] in BAD}

    def finding(self, findings, check, about):
        found = [f for f in findings if (f["check"], f["about"]) == (check, about)]
        self.assertEqual(len(found), 1, findings)
        return found[0]

    def mend(self, finding):
        """Runs those of its commands that a test can: ceph's and rados'."""
        for text in re.split(r" && |; ", finding["mend"].split("  # ")[0]):
            words = shlex.split(text)
            if words[0] == "ceph":
                self.cluster.ceph(*words[1:])
            elif words[0] == "rados":
                self.cluster.rados_tool(*words[1:])


class Doctor(DoctorTest):

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        for pool in ("a", "b"):
            cls.cluster.create_pool(pool)
        cls.cluster.put("a/e", 3 * MIB, 1)

    def osd_names(self):
        return [f"osd.{i}" for i in range(self.cluster.osds)]

    def all_objects(self):
        return {pool: harness.fingerprint(self.cluster, pool) for pool in ("a", "b")}

    # ---- nothing is broken

    def test_a_healthy_cluster_is_fit_and_stays_as_it_is(self):
        c = self.cluster
        objects, dump = self.all_objects(), c.ceph("osd", "dump", as_json=True)
        config, keys = c.ceph("config", "dump", as_json=True), c.ceph("auth", "ls")
        findings = self.doctor(code=OK)
        self.assertEqual(self.bad(findings), set())
        for check in ("osd-up", "plugin", "class-load-list", "class-default-list", "companion",
                      "reach", "reach-devices", "ports", "tls", "clock", "memory", "oom-policy",
                      "journal"):
            for osd in self.osd_names():
                self.assertEqual(self.finding(findings, check, osd)["severity"], "ok",
                                 (check, osd))
        version = c.ceph("osd", "metadata", "0", as_json=True)["ceph_version"].split()[2:4]
        self.assertIn(f"{version[0]} {version[1]}", self.finding(findings, "plugin",
                                                                 "osd.0")["what"])
        self.assertEqual([f for f in findings if not f["seen"]], [])
        self.assertEqual(self.all_objects(), objects)
        self.assertEqual(c.ceph("osd", "dump", as_json=True)["epoch"], dump["epoch"])
        self.assertEqual(c.ceph("config", "dump", as_json=True), config)
        self.assertEqual(c.ceph("auth", "ls"), keys)

    def test_people_are_told_the_same(self):
        ran = self.cluster.siphon("doctor", as_json=False)
        self.assertRegex(ran.stdout, r"(?m)^0 errors, 0 warnings, \d+ notes?, 0 not seen from "
                                     r"here, \d+ ok$")
        self.assertRegex(ran.stdout, r"(?m)^class-default-list +3 +osd\.0")

    def test_a_pool_that_is_not_there_is_not_found(self):
        ran = self.cluster.siphon("doctor", "nowhere", check=False)
        self.assert_fails(ran, NOT_FOUND, "nowhere")

    # ---- the plugin and its lists

    def running_list(self, osd, option):
        """What a running OSD has: both lists are read at its start, and cannot be changed later."""
        return json.loads(self.cluster.ceph("tell", osd, "config", "get", option))[option]

    def restart(self, *osds, companions=(0, 1, 2)):
        c = self.cluster
        for osd in osds:
            c.tool("stop", osd)
            c.tool("start", osd)
        for pool in ("a", "b"):
            wait_until(lambda pool=pool: c.pool_is_clean(pool), what="clean pools")

        def answer():
            findings = self.doctor()
            return all(self.finding(findings, "companion", f"osd.{osd}")["severity"] == "ok"
                       for osd in companions)
        wait_until(answer, what="the companions", poll_s=0.5)

    def test_lists_of_classes_that_are_wrong_are_found(self):
        c = self.cluster
        plain, default_list = c.conf.read_text(), "osd_class_default_list"
        without = self.running_list("osd.1", "osd_class_load_list").split()
        without.remove("siphon")
        without = " ".join(without)
        try:
            c.ceph("config", "set", "osd", default_list,
                   self.running_list("osd.2", default_list) + " siphon")
            c.conf.write_text(plain.replace("[osd.1]\n",
                                            f"[osd.1]\nosd_class_load_list = {without}\n"))
            self.restart("osd.1", "osd.2", companions=(0, 2))
            findings = self.doctor(code=NOT_FIT)
            # The one that was not started again has the list that it had.
            self.assertEqual({about for check, about in self.bad(findings)
                              if check == "class-default-list"}, {"osd.1", "osd.2"})
            self.assertEqual({about for check, about in self.bad(findings)
                              if check in ("class-load-list", "plugin")}, {"osd.1"})
            self.assertIn(f'"{without} siphon" && systemctl restart ceph-osd@1',
                          self.finding(findings, "class-load-list", "osd.1")["mend"])
            self.mend(self.finding(findings, "class-default-list", "osd.2"))
            c.conf.write_text(plain)
            self.restart("osd.1", "osd.2")
            self.assertEqual(self.bad(self.doctor(code=OK)), set())
        finally:
            c.conf.write_text(plain)
            c.ceph("config", "rm", "osd", default_list)

    def found(self, what):
        findings = self.doctor()
        return findings if what in self.bad(findings) else None

    # ---- the companions

    def set_companions(self, settings="", program=None, ready=None):
        """Starts all companions anew, with these settings or as another program, and waits until
        `ready`: by default until they answer."""
        c = self.cluster
        config, link = c.dir / "siphond.toml", c.dir / "classes" / "siphond"
        if not hasattr(type(self), "plain_config"):
            type(self).plain_config = config.read_text()
        config.write_text(settings or self.plain_config)
        new = link.with_name("new")
        new.symlink_to(program or SIPHOND)
        os.replace(new, link)
        pids = {osd: c.companion_pid(osd) for osd in range(c.osds)}
        for pid in filter(None, pids.values()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if program is None:
            wait_until(lambda: all(c.companion_pid(osd) not in (None, pids[osd])
                                   for osd in pids), what="new companions")
            wait_until(ready or self.all_answer, what="them to be heard of", poll_s=0.5)

    def all_answer(self, *options):
        findings = self.doctor(*options)
        return all(self.finding(findings, "companion", osd)["severity"] == "ok"
                   for osd in self.osd_names())

    def test_dead_companions_are_found(self):
        self.addCleanup(self.set_companions)
        # Seen now and then: the OSD tries again and again, and each try lives for a moment.
        self.set_companions(program=pathlib.Path("/bin/false"))
        dead = {("companion", osd) for osd in self.osd_names()}
        wait_until(lambda: self.bad(self.doctor()) == dead, what="the findings")

    def test_a_companion_that_hangs_is_found_and_holds_up_nothing(self):
        pid = self.cluster.companion_pid(1)
        os.kill(pid, signal.SIGSTOP)
        try:
            findings = self.doctor(code=NOT_FIT)
        finally:
            os.kill(pid, signal.SIGCONT)
        self.assertEqual(self.bad(findings), {("companion", "osd.1")})
        self.assertEqual(self.finding(findings, "companion", "osd.2")["severity"], "ok")
        self.assertFalse(self.finding(findings, "journal", "osd.1")["seen"])

    def test_ports_and_a_journal_that_does_not_last_are_found(self):
        memory = pathlib.Path("/dev/shm")
        self.assertEqual(subprocess.run(["stat", "-f", "-c", "%T", memory], capture_output=True,
                                        text=True, check=True).stdout.strip(), "tmpfs")
        first = self.cluster.data_ports[0]
        files = [memory / f"siphon-test-{os.getpid()}.{osd}" for osd in range(self.cluster.osds)]
        self.addCleanup(lambda: [path.unlink() for file in files
                                 for path in memory.glob(file.name + "*")])
        self.addCleanup(self.set_companions)
        config = (self.cluster.dir / "siphond.toml").read_text()
        config = re.sub(r'(?m)^ports = .*$', f'ports = "{first}-{first + 1}"', config)
        journal = f'"{memory}/siphon-test-{os.getpid()}.$id"'
        self.set_companions(f"{config}[journal]\nfile = {journal}\n")
        findings = self.doctor(code=NOT_FIT)
        self.assertEqual(self.bad(findings), {(check, osd) for osd in self.osd_names()
                                              for check in ("ports", "journal")})
        self.assertIn("2 ports", self.finding(findings, "ports", "osd.0")["what"])

    def test_certificates_are_looked_at(self):
        folder = self.cluster.scratch / "tls"
        folder.mkdir()
        ca, cert, key = (folder / name for name in ("ca.pem", "cert.pem", "key.pem"))
        new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")

        def openssl(*words):
            subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)
        openssl("req", "-x509", *new_key, "-days", "90", "-subj", "/CN=ca", "-keyout",
                folder / "ca.key", "-out", ca)
        openssl("req", *new_key, "-subj", "/CN=device", "-keyout", key, "-out", folder / "request")

        def sign(days, address):
            (folder / "names").write_text(f"subjectAltName=IP:{address}\n")
            openssl("x509", "-req", "-in", folder / "request", "-CA", ca, "-CAkey",
                    folder / "ca.key", "-CAcreateserial", "-days", days, "-extfile",
                    folder / "names", "-out", cert)
        self.addCleanup(self.set_companions)
        tls = f'[tls]\nca = "{ca}"\ncert = "{cert}"\nkey = "{key}"\n'
        with_ours = ("--tls-ca", ca, "--tls-cert", cert, "--tls-key", key)
        config = (self.cluster.dir / "siphond.toml").read_text()

        sign(90, "127.0.0.1")
        self.set_companions(config + tls, ready=lambda: self.all_answer(*with_ours))
        self.assertEqual(self.bad(self.doctor(*with_ours, code=OK)), set())
        self.assertIn(("tls", "this command"), self.bad(self.doctor(code=NOT_FIT)))

        sign(7, "127.0.0.1")
        self.set_companions(config + tls, ready=lambda: self.all_answer(*with_ours))
        findings = self.doctor(*with_ours, code=NOT_FIT)
        self.assertEqual(self.bad(findings), {("tls", osd) for osd in self.osd_names()}
                         | {("tls", str(cert))})

        sign(90, "192.0.2.1")

        def seen_by_all():
            seen = {f["about"] for f in self.doctor(*with_ours) if f["check"] == "tls" and
                    "does not name the address 127.0.0.1" in f["what"]}
            return seen >= set(self.osd_names())
        self.set_companions(config + tls, ready=seen_by_all)

    # ---- pools and rights

    def test_a_pool_without_the_tag_is_found(self):
        self.cluster.create_pool("plain", tag=False)
        try:
            findings = self.doctor(code=OK)
            self.assertEqual(self.finding(findings, "pool-tag", "pool plain")["severity"], "note")
            findings = self.doctor("plain", code=NOT_FIT)
            self.assertEqual(self.bad(findings), {("pool-tag", "pool plain")})
            self.mend(self.finding(findings, "pool-tag", "pool plain"))
            self.assertEqual(self.bad(self.doctor("plain", code=OK)), set())
        finally:
            self.cluster.ceph("osd", "pool", "rm", "plain", "plain",
                              "--yes-i-really-really-mean-it")

    def test_caps_that_are_too_small_are_found_by_who_reads_them_and_by_trying(self):
        c = self.cluster
        key = c.create_key("small", "allow class siphon hello, "
                                    "allow class siphon grant_read pool=a, allow r pool=a")
        objects = self.all_objects()
        lacks = "for copy it lacks allow class siphon grant_write pool=b"
        findings = self.doctor("--as", key, "--for", "copy,get", "a", "b", code=NOT_FIT)
        self.assertEqual(self.bad(findings), {("rights", key)})
        bad = [f for f in findings if f["check"] == "rights" and f["severity"] == "error"]
        self.assertEqual([f["what"] for f in bad], [lacks, "for get it lacks allow r pool=b"])

        tried = self.doctor("--for", "copy", "a", "b", key=key, code=NOT_FIT)
        self.assertEqual([f["what"] for f in tried
                          if f["check"] == "rights" and f["severity"] == "error"], [lacks])

        self.mend(bad[0])
        for findings in (self.doctor("--as", key, "--for", "copy", "a", "b", code=OK),
                         self.doctor("--for", "copy", "a", "b", key=key, code=OK)):
            self.assertIn("it may copy", [f["what"] for f in findings if f["check"] == "rights"])
        c.siphon("copy", "a/e", "b/told", key=key)  # so it is
        c.siphon("rm", "--purge", "b/told", "--yes-i-really-mean-it")
        self.assertEqual(self.all_objects(), objects)
        # What a small key cannot see is not called well.
        findings = self.doctor(key=key)
        self.assertFalse(self.finding(findings, "class-load-list", "osd.0")["seen"])
        self.assertEqual(self.finding(findings, "plugin", "osd.0")["severity"], "ok")

    def test_writing_is_tried_without_a_trace(self):
        key = self.cluster.create_key("writer", "allow rw pool=a, allow r pool=b")
        objects = self.all_objects()
        findings = self.doctor("--for", "put,get", "a", key=key)
        self.assertNotIn(("rights", key), self.bad(findings))
        findings = self.doctor("--for", "put", "b", key=key, code=NOT_FIT)
        self.assertIn(("rights", key), self.bad(findings))
        self.assertEqual(self.all_objects(), objects)

    def test_a_key_that_is_not_there_is_not_found(self):
        ran = self.cluster.siphon("doctor", "--as", "client.nobody", check=False)
        self.assert_fails(ran, NOT_FOUND, "client.nobody")

    def test_a_cache_tier_is_found(self):
        c = self.cluster
        for pool in ("cold", "hot"):
            c.create_pool(pool, tag=pool == "cold")
        for words in (("add", "cold", "hot"), ("cache-mode", "hot", "writeback"),
                      ("set-overlay", "cold", "hot")):
            c.ceph("osd", "tier", *words)
        try:
            findings = self.doctor("cold", code=NOT_FIT)
            self.assertIn(("cache-tier", "pool cold"), self.bad(findings))
            self.mend(self.finding(findings, "cache-tier", "pool cold"))
            self.assertEqual(self.bad(self.doctor("cold", code=OK)), set())
        finally:
            for words in (("remove-overlay", "cold"), ("remove", "cold", "hot")):
                c.ceph("osd", "tier", *words, check=False)
            for pool in ("cold", "hot"):
                c.ceph("osd", "pool", "rm", pool, pool, "--yes-i-really-really-mean-it")

    # ---- the cluster

    def test_insecure_global_ids_are_found(self):
        c = self.cluster
        option = "auth_allow_insecure_global_id_reclaim"
        c.ceph("tell", "mon.a", "config", "set", option, "true")
        try:
            findings = wait_until(lambda: self.found(("cephx", "mons")), what="the finding")
            self.assertIn(f"config set mon {option} false",
                          self.finding(findings, "cephx", "mons")["mend"])
        finally:
            c.ceph("tell", "mon.a", "config", "set", option, "false")
        wait_until(lambda: not self.bad(self.doctor()), what="it to be over")

    def test_an_osd_that_hangs_or_is_down_is_found_and_holds_up_nothing(self):
        c = self.cluster
        pid = c.osd_pid(2)
        c.ceph("osd", "set", "nodown")
        os.kill(pid, signal.SIGSTOP)
        try:
            findings = self.doctor("--timeout", "3", code=NOT_FIT)
            self.assertEqual(self.finding(findings, "osd-up", "osd.2")["severity"], "error")
            for check in ("plugin", "class-load-list", "companion"):
                self.assertEqual(self.finding(findings, check, "osd.0")["severity"], "ok")
            self.assertFalse(self.finding(findings, "plugin", "osd.2")["seen"])
        finally:
            os.kill(pid, signal.SIGCONT)
            c.ceph("osd", "unset", "nodown")
        c.tool("stop", "osd.2")
        try:
            wait_until(lambda: not c.osd_is_up(2), what="the mons to notice")
            findings = self.doctor(code=NOT_FIT)
            self.assertIn(("osd-up", "osd.2"), self.bad(findings))
            self.assertEqual(self.finding(findings, "companion", "osd.0")["severity"], "ok")
        finally:
            c.tool("start", "osd.2")
            c.wait_companions()
        for pool in ("a", "b"):
            wait_until(lambda pool=pool: c.pool_is_clean(pool), what="the pools to be clean")

    def test_without_a_mon_it_ends_in_time(self):
        mon = int((self.cluster.dir / "run" / "mon.a.pid").read_text())
        os.kill(mon, signal.SIGSTOP)
        try:
            ran = self.cluster.siphon("doctor", "--timeout", "3", check=False, timeout=60)
        finally:
            os.kill(mon, signal.SIGCONT)
        self.assert_fails(ran, TEMPORARY, "no answer")


class AnotherBuild(DoctorTest):

    cluster_options = {"osds": 1, "size": 1, "store": "memstore", "plugin": OTHER_BUILD}

    def test_a_plugin_of_another_build_is_found(self):
        self.cluster.create_pool("a", size=1)
        findings = self.doctor(code=NOT_FIT)
        self.assertEqual(self.bad(findings), {("plugin", "osd.0")})
        self.assertIn("not compiled for what runs",
                      self.finding(findings, "plugin", "osd.0")["what"])


class NoPlugin(DoctorTest):

    cluster_options = {"osds": 1, "size": 1, "store": "memstore", "plugin": ""}

    def test_an_osd_without_the_plugin_is_found_before_any_pool_has_the_tag(self):
        self.cluster.create_pool("a", size=1, tag=False)
        findings = self.doctor(code=NOT_FIT)
        self.assertLessEqual({("plugin", "osd.0"), ("class-load-list", "osd.0"),
                              ("pool-tag", "cluster")}, self.bad(findings))
        self.assertFalse(self.finding(findings, "companion", "osd.0")["seen"])


if __name__ == "__main__":
    harness.main()
