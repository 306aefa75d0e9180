"""pool to pool on three OSDs, size 2: rados cppool, copy_from, export | import, Siphon"""

import json

import testbed
from testbed import GIB, MIB

# Every peer copies the same bytes: the same number of objects (Siphon: parts) of the same size.
LARGE_EXTENT = 64 * MIB
PART = 8 * MIB
SMALL = 64 << 10
# Peers that take one small object after another get so many of them, or a round would take minutes.
FEW = 2000
BARE_WRITES = "bare writes"
ONE_BY_ONE = ("rados cppool", "rados export | import", "copy_from, 1 in flight")


def check_copy(output, count, size_bytes):
    """The copy's own report: all there, all proven, nothing by another way than planned."""
    answer = json.loads(output)
    summary = answer["summary"]
    if summary["bytes"] != count * size_bytes or summary["fallback_parts"]:
        raise testbed.Failed(f"siphon copied {summary['bytes']} of {count * size_bytes} bytes, "
                             f"{summary['fallback_parts']} parts by another way")


def peers(bed, source, extents, target):
    """name -> pipeline. `source` holds plain objects, `extents` the same bytes as extents."""
    rados = ["rados", "-c", bed.conf]
    known = {
        "rados cppool": [[*rados, "cppool", source, target]],
        "rados export | import": [[*rados, "-p", source, "export", "-"],
                                  [*rados, "-p", target, "import", "-"]],
    }
    for depth in (1, 8, 16):
        known[f"copy_from, {depth} in flight"] = [
            bed.tool("copy_from", "--src", source, "--dst", target, "--depth", str(depth))]
    known["siphon"] = [bed.siphon("copy", extents, target, "-f", "json", "--progress", "none")]
    return known


def alternate(bed, result, runs, section, items, item_bytes, extent_count, extent_bytes,
              few=None):
    """Each peer once per round, into an empty pool every time. `few`: the pool of that name holds
    so many objects for those that take one by one."""
    total = items * item_bytes
    for _ in range(runs):
        # Nothing is read and nothing checked: what is left of a copy when all but the store's own
        # work is free.
        write = bed.tool("fill", "--pool", "target", "--kind", "objects", "--count", str(items),
                         "--bytes", str(item_bytes), "--depth", "8" if item_bytes > SMALL else "32",
                         *bed.EVEN)
        metrics, _ = bed.measure([write], total, items)
        result.add(f"{section}: {BARE_WRITES}", **metrics)
        bed.empty_pool("target")
        all_peers = peers(bed, f"objects-{item_bytes}", f"extents-{item_bytes}", "target")
        few_peers = peers(bed, "few", f"extents-{item_bytes}", "target")
        for name, pipeline in all_peers.items():
            if few and name in ONE_BY_ONE:
                metrics, output = bed.measure(few_peers[name], few * item_bytes, few)
            else:
                metrics, output = bed.measure(pipeline, total, items)
            if name == "siphon":
                check_copy(output, extent_count, extent_bytes)
            result.add(f"{section}: {name}", **metrics)
            bed.empty_pool("target")


def large_ratios(result, name="cluster"):
    rate = {name: result.median(f"8 MiB: {name}", "mb_per_s")
            for name in ("siphon", "rados cppool", "copy_from, 8 in flight",
                         "rados export | import")}
    result.ratio(f"{name}_vs_copy_from8", rate["siphon"] / rate["copy_from, 8 in flight"])
    result.ratio(f"{name}_vs_cppool", rate["siphon"] / rate["rados cppool"])
    result.ratio(f"{name}_vs_export_import", rate["siphon"] / rate["rados export | import"])
    result.ratio(f"{name}_cpu_vs_copy_from8",
                 result.median("8 MiB: siphon", "cpu_s_per_gib") /
                 result.median("8 MiB: copy_from, 8 in flight", "cpu_s_per_gib"))
    floor = result.median(f"8 MiB: {BARE_WRITES}", "mb_per_s")
    result.ratio(f"{name}_bare_writes_vs_copy_from8", floor / rate["copy_from, 8 in flight"])
    result.ratio(f"{name}_bare_writes_vs_cppool", floor / rate["rados cppool"])
    result.ratio(f"{name}_bare_writes_vs_export_import", floor / rate["rados export | import"])


def growth_ratio(result):
    result.ratio("osd_growth_mib", result.median("8 MiB: siphon", "osd_anonymous_mib") -
                 result.median(f"8 MiB: {BARE_WRITES}", "osd_anonymous_mib"))


def companion_ratio(result):
    """Over whichever parts ran: memory must not depend on what is copied."""
    rows = [row for row in result.rows if row.endswith(": siphon")]
    result.ratio("companion_rss_over_region_mib",
                 max(result.median(row, "companion_private_mib") for row in rows))


def small_ratios(result):
    rate = {name: result.median(name, "items_per_s") for name in result.rows
            if name.startswith("64 KiB: ")}
    best = max(value for name, value in rate.items() if "copy_from" in name)
    result.ratio("small_vs_cppool", rate["64 KiB: siphon"] / rate["64 KiB: rados cppool"])
    result.ratio("small_vs_copy_from", rate["64 KiB: siphon"] / best)
    result.ratio("small_bare_writes_vs_cppool",
                 rate[f"64 KiB: {BARE_WRITES}"] / rate["64 KiB: rados cppool"])
    result.ratio("small_bare_writes_vs_copy_from", rate[f"64 KiB: {BARE_WRITES}"] / best)


def describe(result):
    result.columns = [("mb_per_s", "MB/s", ".0f"), ("items_per_s", "objects/s", ".0f"),
                      ("cpu_s_per_gib", "CPU s/GiB", ".2f"),
                      ("osd_cpu_s_per_gib", "OSDs", ".2f"),
                      ("companion_cpu_s_per_gib", "companions", ".2f"),
                      ("client_cpu_s_per_gib", "clients", ".2f"),
                      ("osd_rss_mib", "OSD MiB", ".0f"),
                      ("companion_private_mib", "companion MiB", ".0f"),
                      ("op_in_mib", "op_in MiB", ".0f"), ("op_out_mib", "op_out MiB", ".0f")]
    result.notes.append("CPU: OSDs, companions, mon, mgr and clients together. companion MiB: the "
                        "largest companion's peak, anonymous and file pages, without the region.")


def run_large(bed, result, runs, total):
    extents = total // LARGE_EXTENT
    pools = ("target", f"objects-{PART}", f"extents-{PART}")
    bed.make_pools(*pools)
    bed.spread(*pools)
    bed.fill(f"objects-{PART}", "objects", total // PART, PART, *bed.EVEN)
    bed.fill(f"extents-{PART}", "extents", extents, LARGE_EXTENT, *bed.EVEN)
    alternate(bed, result, runs, "8 MiB", total // PART, PART, extents, LARGE_EXTENT)
    bed.drop_pools(*pools)


def run(arguments, result):
    describe(result)
    result.notes.append(f"64 KiB: 10,000 objects; {FEW:,} for those that take one at a time (cppool, "
                        "export | import, copy_from with 1 in flight), to stay under ten minutes.")
    total = 128 * MIB if arguments.quick else GIB
    small = 500 if arguments.quick else 10000
    with testbed.Testbed(arguments) as bed:
        if arguments.only in (None, "large"):
            run_large(bed, result, arguments.runs, total)
            large_ratios(result)
            growth_ratio(result)
        if arguments.only in (None, "small"):
            few = min(small, FEW)
            pools = ("target", "few", f"objects-{SMALL}", f"extents-{SMALL}")
            bed.make_pools(*pools)
            bed.spread(*pools)
            bed.fill("few", "objects", few, SMALL, "--depth", "16", *bed.EVEN)
            bed.fill(f"objects-{SMALL}", "objects", small, SMALL, "--depth", "16", *bed.EVEN)
            bed.fill(f"extents-{SMALL}", "extents", small, SMALL, "--depth", "16", *bed.EVEN)
            alternate(bed, result, arguments.runs, "64 KiB", small, SMALL, small, SMALL, few)
            small_ratios(result)
    companion_ratio(result)
