"""time and memory of 1 to 10,000 extents, and of 1 MiB to 4 GiB each"""

import itertools
import json

import testbed
from testbed import MIB

SMALL = 64 << 10
LEAST_BYTES = 64 * MIB  # from here on the cost per byte has to stay flat


def primary(bed, pool, extent):
    return json.loads(bed.ceph("osd", "map", pool, extent, "-f", "json"))["acting_primary"]


def pool_elsewhere(bed, extent, than):
    """A new pool of one placement group whose primary is another OSD: all sizes go the same way."""
    for number in itertools.count():
        name = f"target-{number}"
        bed.make_pools(name, groups=1)
        if primary(bed, name, extent) != than:
            return name


def one_copy(bed, result, row, source, target, total, count):
    pipeline = bed.siphon("copy", source, target, "-f", "json", "--progress", "none")
    metrics, output = bed.measure([pipeline], total, count)
    summary = json.loads(output)["summary"]
    if summary["bytes"] != total:
        raise testbed.Failed(f"{row}: {summary['bytes']} of {total} bytes")
    # The copy itself, from the first call to the last receipt; `seconds` has the command's start.
    copying = summary["seconds"]
    result.add(row, total_mib=total / MIB, extents=count, copy_seconds=copying,
               ns_per_byte=copying * 1e9 / total, ms_per_extent=metrics["seconds"] * 1e3 / count,
               **metrics)
    bed.empty_pool(target)


def run(arguments, result):
    result.columns = [("seconds", "s", ".2f"), ("mb_per_s", "MB/s", ".0f"),
                      ("ns_per_byte", "ns/byte", ".2f"), ("ms_per_extent", "ms/extent", ".2f"),
                      ("cpu_s_per_gib", "CPU s/GiB", ".2f"),
                      ("companion_private_mib", "companion MiB", ".0f"),
                      ("osd_rss_mib", "OSD MiB", ".0f")]
    result.notes.append("One extent at a time from one OSD to another; batches of 64 KiB extents "
                        "over all three OSDs. s, MB/s and ms/extent: the whole command; ns/byte: "
                        "the copy, without the command's start and its connection to the cluster.")
    sizes = [1, 4, 16, 64] if arguments.quick else [1, 4, 16, 64, 256, 1024, 4096]
    counts = [1, 10, 100] if arguments.quick else [1, 10, 100, 1000, 10000]
    with testbed.Testbed(arguments, osd_gib=16) as bed:
        bed.make_pools("sizes", groups=1)
        for size in sizes:
            bed.fill("sizes", "extents", 1, size * MIB, "--prefix", f"m{size}-")
        target = pool_elsewhere(bed, "m1-00000", primary(bed, "sizes", "m1-00000"))
        for _ in range(arguments.runs):
            for size in sizes:
                one_copy(bed, result, f"1 x {size} MiB", f"sizes/m{size}-00000", target,
                         size * MIB, 1)
        bed.make_pools("target", *(f"batch-{count}" for count in counts))
        for count in counts:
            bed.fill(f"batch-{count}", "extents", count, SMALL, "--depth", "16")
        for _ in range(arguments.runs):
            for count in counts:
                one_copy(bed, result, f"{count} x 64 KiB", f"batch-{count}", "target",
                         count * SMALL, count)
    large = [f"1 x {size} MiB" for size in sizes if size * MIB >= LEAST_BYTES]
    rates = [result.median(row, "mb_per_s") for row in large]
    result.ratio("scale_bytes", max(rates) / min(rates))  # of the whole command, start included
    copying = [result.median(row, "ns_per_byte") for row in large]
    result.ratio("scale_bytes_copy_alone", max(copying) / min(copying))
    result.ratio("scale_extent_ms", result.median(f"{counts[-1]} x 64 KiB", "ms_per_extent"))
