"""Processes as /proc shows them. What has gone meanwhile has no pids, descriptors or words."""

import contextlib
import ctypes
import os
import pathlib
import re
import signal


def end_with_parent():
    """In a child before exec: it goes when this process goes, however it goes."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def read_proc(pid, name):
    try:
        return pathlib.Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def parent_of(pid):
    """The parent's pid; None when the process is gone or a zombie."""
    stat = read_proc(pid, "stat").decode(errors="replace")
    state, parent = stat.rpartition(")")[2].split()[:2] if stat else ("Z", "0")
    return None if state == "Z" else int(parent)


def is_running(pid):
    """False for a zombie."""
    return parent_of(pid) is not None


def command_line(pid):
    return read_proc(pid, "cmdline").split(b"\0")[:-1]


def pids():
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def descriptors(pid):
    """{number: what /proc/PID/fd says}."""
    found = {}
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                found[int(name)] = os.readlink(f"/proc/{pid}/fd/{name}")
    return found


def thread_count(pid):
    match = re.search(rb"Threads:\s*(\d+)", read_proc(pid, "status"))
    return int(match[1]) if match else 0


def osd_pids(conf):
    """{OSD: pid} of the live OSDs that were started with this ceph.conf."""
    found = {}
    for pid in pids():
        words = command_line(pid)
        if (words and os.path.basename(words[0]) == b"ceph-osd" and words[1:2] == [b"-i"]
                and words[3:5] == [b"-c", str(conf).encode()] and is_running(pid)):
            found[int(words[2])] = pid
    return found


def companion_of(osd_pid):
    """The pid of the live siphond that this OSD has started, or None."""
    for pid in pids() if osd_pid else ():
        if b"--companion" in command_line(pid) and parent_of(pid) == osd_pid:
            return pid
    return None


def region_of(osd_pid):
    """The path of the region that this OSD shares with its companion, to be opened."""
    for number, what in descriptors(osd_pid).items():
        if what.startswith("/memfd:siphon-region"):
            return f"/proc/{osd_pid}/fd/{number}"
    raise AssertionError(f"process {osd_pid} holds no region")
