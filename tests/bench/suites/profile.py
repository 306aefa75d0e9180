"""where the CPU goes: siphon copy and copy_from under perf, as flame graphs (not in all)"""

import collections
import re
import shutil
import subprocess

import testbed
from suites import cluster
from testbed import GIB, MIB

HERTZ = 299  # no divisor of anything that happens once a millisecond
# An OSD's operations stand on 20 KiB and more. Some callers of the messenger's send are lost at any
# size: it keeps 16 KiB of iovecs on its stack, mostly untouched, and the kernel's dump of a stack
# ends at the first page that is not there.
STACK_BYTES = 32768
LEAST_SHARE = 0.003  # of all samples; smaller categories count as their process kind's "other"

KINDS = {"osd": "OSDs", "siphond": "companions", "client": "client"}
REST = "kernel threads, mon, mgr"

# A sample belongs to the first that is found in its stack, written root;...;leaf. What the CPU does
# comes before for whom: a malloc of BlueStore is memory allocation.
CATEGORIES = [(name, re.compile(pattern)) for name, pattern in (
    ("class copies, their page faults",
     r"siphon::osd[^;]*;[^;]*mem(move|cpy).*;asm_exc_page_fault"),
    ("class copies", r"siphon::osd[^;]*;[^;]*mem(move|cpy)"),
    ("other page faults", r";asm_exc_page_fault"),
    ("crc32 of the extent", r";crc32_gzip"),
    ("crc32c", r";crc32_iscsi"),
    ("socket copies", r";(tcp|sock|skb)_.*;_copy_(to|from)_iter[^;]*$"),
    ("memory allocation",
     r";(malloc|_int_|calloc|cfree|unlink_chunk|operator (new|delete)|__posix_memalign)"),
    ("scheduling and wake-ups", r";(_*schedule|\w*futex|try_to_wake_up|finish_task_switch)"),
    ("disk, in interrupts and workers", r";(blk_done_softirq|process_one_work)"),
    ("rest of the network stack", r";_*((tcp|ip|sock|skb|napi)_|sys_(send|recv)|net_rx)"),
    ("rocksdb and BlueFS", r";(rocksdb::|RocksDBStore::|BlueFS::)"),
    ("BlueStore, its copies", r";(BlueStore|KernelDevice)::.*mem(move|cpy)"),
    ("BlueStore, the rest", r";(BlueStore|KernelDevice)::"),
    ("messenger", r";(AsyncConnection|ProtocolV2|EventCenter|DispatchQueue|EpollDriver)"),
    ("operations of the OSD", r";(OSD|PrimaryLogPG|PGBackend|ReplicatedBackend)::"),
    ("other", ""),
)]

# Frames that say nothing: how a thread or a system call begins.
DULL = {"clone3", "start_thread", "ret_from_fork_asm", "ret_from_fork", "kthread", "do_syscall_64",
        "entry_SYSCALL_64_after_hwframe", "[unknown]"}


def perf_record(data, command):
    return ["perf", "record", "--quiet", "--no-buildid", "--all-cpus", "--event", "cpu-clock",
            "--freq", HERTZ, "--call-graph", f"dwarf,{STACK_BYTES}", "--mmap-pages", "16M",
            "--output", data, "--", *command]


def check_perf():
    if shutil.which("perf") is None:
        raise SystemExit("the suite profile needs perf: install linux-perf (Debian) or "
                         "linux-tools-generic (Ubuntu)")
    try:
        testbed.run(perf_record("/dev/null", ["true"]))
    except testbed.Failed as failed:
        raise SystemExit(f"perf may not look at every process: be root, or set kernel.perf_event_"
                         f"paranoid to -1 and kernel.kptr_restrict to 0\n{failed}") from failed


def short(symbol):
    """Without arguments, of function or of template, so that it can be read in a picture."""
    symbol = symbol.replace("(anonymous namespace)::", "").replace("operator()", "call")
    symbol = re.sub(r"::entry<&siphon::osd::(\w+)>", r"::\1", symbol)  # a class method's wrapper
    for brackets in (r"<[^<>]*>", r"\([^()]*\)"):
        while (less := re.sub(brackets, "", symbol)) != symbol:
            symbol = less
    return symbol.replace("ceph::buffer::v15_2_0", "buffer").replace(";", ",")


def samples(data):
    """(pid, thread's name without its number, frames from the root) of every sample."""
    script = subprocess.Popen(["perf", "script", "--no-inline", "--fields", "comm,pid,ip,sym,dso",
                               "--input", data], stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, text=True)
    head, frames = None, []
    for line in script.stdout:
        if not line.strip():
            if head:
                yield int(head[2]), re.sub(r"[-/.:]?u?\d.*", "", head[1]), frames[::-1]
            head, frames = None, []
        elif line[0].isspace() and head:
            _, symbol, library = re.match(r"\s*([0-9a-f]+) (.*) \((.*)\)$", line).groups()
            frames.append(short(symbol) + ("_[k]" if library.startswith("[kernel") else ""))
        else:
            head = re.match(r"\s*(.+?)\s+(-?\d+)\s*$", line)
    if script.wait() != 0:
        raise testbed.Failed(f"perf script: exit {script.returncode}")


def fold(data, pids):
    """Samples by stack, "process kind;thread;frames", of the test bed and the kernel's threads; and
    how many of other programs (perf is one) were left out. The idle task is nobody's."""
    stacks, others = collections.Counter(), 0
    for pid, thread, frames in samples(data):
        if pid in pids:
            kind = KINDS.get(pids[pid].split(".")[0], REST)
        elif frames and frames[0].startswith("ret_from_fork") and pid != 0:
            kind = REST
        else:
            others += pid != 0
            continue
        useful = [frame for frame in frames if frame.removesuffix("_[k]") not in DULL]
        stacks[";".join([kind, thread, *useful])] += 1
    return stacks, others


def categories(stacks):
    """Samples by (process kind, category)."""
    found = collections.Counter()
    for stack, count in stacks.items():
        category = next(name for name, pattern in CATEGORIES if pattern.search(stack))
        found[stack.partition(";")[0], category] += count
    return found


def profile(bed, command, total):
    """One run of `command` under perf: its samples by stack, those left out, and its metrics."""
    data, client = bed.dir / "perf.data", bed.dir / "client.pid"
    remember_pid = ["sh", "-c", 'echo $$ > "$0" && exec "$@"', client]
    metrics, output = bed.measure([perf_record(data, [*remember_pid, *command])], total)
    pids = {pid: name for name, pid in bed.pids.items()} | {int(client.read_text()): "client"}
    stacks, others = fold(data, pids)
    data.unlink()
    return stacks, others, metrics, output


def fill_table(result, runs, gib):
    """runs: command -> samples by (kind, category) of each run."""
    def add(row, belongs):
        values = result.rows[row] = {}
        for name, counts in runs.items():
            own = [sum(n for key, n in run.items() if belongs(key)) for run in counts]
            values[f"{name}_share"] = [100 * n / run.total() for n, run in zip(own, counts)]
            values[f"{name}_cpu_s_per_gib"] = [n / HERTZ / gib for n in own]

    def rare(key):
        merged = [sum(counts, collections.Counter()) for counts in runs.values()]
        return all(counts[key] < LEAST_SHARE * counts.total() for counts in merged)

    add("all", lambda key: True)
    for kind in (*KINDS.values(), REST):
        add(f"**{kind}**", lambda key, kind=kind: key[0] == kind)
        for category, _ in CATEGORIES:
            if category == "other":
                add(f"{kind}: other", lambda key, kind=kind: key[0] == kind and (
                    key[1] == "other" or rare(key)))
            elif not rare((kind, category)):
                add(f"{kind}: {category}", lambda key, wanted=(kind, category): key == wanted)


def run(arguments, result):
    check_perf()
    total = 128 * MIB if arguments.quick else GIB
    result.columns = [("siphon_share", "siphon %", ".1f"),
                      ("siphon_cpu_s_per_gib", "CPU s/GiB", ".3f"),
                      ("copy_from_share", "copy_from %", ".1f"),
                      ("copy_from_cpu_s_per_gib", "CPU s/GiB", ".3f")]
    runs = collections.defaultdict(list)
    merged = collections.defaultdict(collections.Counter)
    left_out, accounted = collections.Counter(), collections.defaultdict(list)
    with testbed.Testbed(arguments) as bed:
        bed.make_pools("target", "extents", "objects")
        bed.spread("target", "extents", "objects")
        bed.fill("extents", "extents", total // cluster.LARGE_EXTENT, cluster.LARGE_EXTENT,
                 *bed.EVEN)
        bed.fill("objects", "objects", total // cluster.PART, cluster.PART, *bed.EVEN)
        commands = {"siphon": bed.siphon("copy", "extents", "target", "-f", "json", "--progress",
                                         "none"),
                    "copy_from": bed.tool("copy_from", "--src", "objects", "--dst", "target",
                                          "--depth", "8")}
        for _ in range(arguments.runs):
            for name, command in commands.items():
                stacks, others, metrics, output = profile(bed, command, total)
                if name == "siphon":
                    cluster.check_copy(output, total // cluster.LARGE_EXTENT, cluster.LARGE_EXTENT)
                bed.empty_pool("target")
                print(f"   {name}: {metrics['seconds']:.2f} s, {stacks.total()} samples",
                      flush=True)
                runs[name].append(categories(stacks))
                merged[name] += stacks
                left_out[name] += others
                accounted[name].append(metrics["osd_cpu_s_per_gib"])
    fill_table(result, runs, total / GIB)
    for name, stacks in merged.items():
        folded = "".join(f"{stack} {count}\n" for stack, count in sorted(stacks.items()))
        (arguments.out / f"profile_{name}.folded").write_text(folded)
        result.notes.append(
            f"{name}: {stacks.total()} samples in {len(runs[name])} run(s), without "
            f"{left_out[name]} of perf and other programs. The kernel's own account of the OSDs: "
            f"{sum(accounted[name]) / len(accounted[name]):.2f} CPU s/GiB.")
