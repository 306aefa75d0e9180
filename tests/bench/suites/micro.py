"""crc32 implementations, frame codec, buffer pool, with Google Benchmark"""

import json
import subprocess


def run(arguments, result):
    result.columns = [("gb_per_s", "GB/s", ".2f"), ("ns", "ns", ".1f")]
    command = [str(arguments.bin / "bench_micro"), "--benchmark_format=json",
               f"--benchmark_repetitions={arguments.runs}",
               f"--benchmark_min_time={0.02 if arguments.quick else 0.2}",
               "--benchmark_enable_random_interleaving=true"]
    out = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True).stdout
    for one in json.loads(out)["benchmarks"]:
        if one["run_type"] != "iteration":
            continue
        metrics = {"ns": one["cpu_time"]}
        if "bytes_per_second" in one:
            metrics["gb_per_s"] = one["bytes_per_second"] / 1e9
        result.add(one["name"], **metrics)
