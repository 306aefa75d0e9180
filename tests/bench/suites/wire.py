"""two processes, memory to memory: raw TCP, gRPC server streaming, Siphon's lanes"""

import json
import os
import subprocess

import testbed

MESSAGES = {"64 KiB": 64 << 10, "256 KiB": 256 << 10, "1 MiB": 1 << 20, "4 MiB": 4 << 20}
FRAME = 4 << 20  # what siphond sends
TCP_WRITE = 256 << 10
# gRPC 1.51's default way of polling loses a wake-up of a synchronous server with several channels
# on this kernel, and the run then stands still for 10 s. So its other way is used, which was not
# slower with one channel.
ENVIRONMENT = dict(os.environ, GRPC_POLL_STRATEGY="poll")


def programs(arguments):
    """row -> command. gRPC at every message size, one and two channels."""
    wire, grpc = arguments.bin / "bench_wire", arguments.bin / "bench_wire_grpc"
    rows = {}
    for lanes in (1, 2):
        rows[f"tcp, {lanes} connection{'s' * (lanes > 1)}, no checksum"] = [
            wire, "tcp", "--lanes", lanes, "--message", TCP_WRITE]
    rows["tcp, 1 connection, MSG_ZEROCOPY"] = [wire, "tcp_zerocopy", "--lanes", 1, "--message",
                                                TCP_WRITE]
    for mode, label in (("grpc", "gRPC"), ("grpc_premade", "gRPC, messages made beforehand")):
        for channels in (1, 2):
            for name, size in MESSAGES.items():
                rows[f"{label}, {channels} channel{'s' * (channels > 1)}, {name}"] = [
                    grpc, mode, "--lanes", channels, "--message", size]
    for lanes in (1, 2, 4):
        rows[f"siphon, {lanes} lane{'s' * (lanes > 1)}"] = [
            wire, "siphon", "--lanes", lanes, "--message", FRAME]
    return rows


def run(arguments, result):
    result.columns = [("mb_per_s", "MB/s", ".0f"), ("cpu_s_per_gib", "CPU s/GiB", ".3f"),
                      ("source_rss_mib", "source MiB", ".0f"),
                      ("target_rss_mib", "target MiB", ".0f")]
    result.notes.append("Both processes hold the same 64 MiB of payload. gRPC copies the store's "
                        "bytes into its message as a server must; 'made beforehand' spares it that "
                        "and is its ceiling.")
    size = 256 << 20 if arguments.quick else 2 << 30
    for _ in range(arguments.runs):
        for name, command in programs(arguments).items():
            done = subprocess.run([str(c) for c in command] + ["--bytes", str(size)],
                                  capture_output=True, text=True, timeout=300, check=False,
                                  env=ENVIRONMENT)
            if done.returncode != 0:
                raise testbed.Failed(f"{name}: {done.stderr.strip()}")
            out = json.loads(done.stdout)
            result.add(name, mb_per_s=out["mb_per_s"], cpu_s_per_gib=out["cpu_s_per_gib"],
                       source_rss_mib=out["source_rss_kib"] / 1024,
                       target_rss_mib=out["target_rss_kib"] / 1024)
    grpc = [row for row in result.rows if row.startswith("gRPC")]
    siphon = [row for row in result.rows if row.startswith("siphon")]
    rate = {row: result.median(row, "mb_per_s") for row in result.rows}
    cpu = {row: result.median(row, "cpu_s_per_gib") for row in result.rows}
    best = max(siphon, key=rate.get)
    result.ratio("wire_vs_tcp",
                 rate["siphon, 1 lane"] / rate["tcp, 1 connection, no checksum"])
    result.ratio("wire_vs_grpc", rate[best] / max(rate[row] for row in grpc))
    result.ratio("wire_cpu_vs_grpc", cpu[best] / min(cpu[row] for row in grpc))
    usual = [row for row in grpc if "beforehand" not in row]
    result.ratio("wire_vs_grpc_copying", rate[best] / max(rate[row] for row in usual))
    result.ratio("wire_cpu_vs_grpc_copying", cpu[best] / min(cpu[row] for row in usual))
