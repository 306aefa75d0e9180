"""Plots of the results (gnuplot, SVG; flame graphs by flame.py), and docs/benchmarks.md: the words
in benchmarks.md.in around the figures of the last real runs."""

import json
import pathlib
import re
import shutil
import statistics
import subprocess

import flame
import results

DOCS = results.REPO / "docs"
# The ratios of the runs that the page compares releases by; a run adds itself at --publish.
COMPARED = DOCS / "benchmarks_runs.json"
TEMPLATE = pathlib.Path(__file__).resolve().parent / "benchmarks.md.in"
NAMES = ("wire", "cluster", "memory", "citizen", "scale", "micro", "profile")

RELEASES = ("pacific", "reef", "tentacle")
# Suites that are compared, release by release; of each the last runs of the last run's code.
RELEASE_SUITES = ("cluster", "memory", "citizen")
RUNS_COMPARED = 3

# name -> (bound, as it reads); what the issue of this part of the project demands.
BOUNDS = {
    "wire_vs_tcp": ("ge", 0.95), "wire_vs_grpc": ("ge", 2.0), "wire_cpu_vs_grpc": ("le", 0.6),
    "cluster_vs_copy_from8": ("ge", 1.05), "cluster_vs_cppool": ("ge", 1.8),
    "cluster_vs_export_import": ("ge", 2.5), "cluster_cpu_vs_copy_from8": ("le", 0.95),
    "small_vs_cppool": ("ge", 3), "small_vs_copy_from": ("ge", 1.3),
    "companion_rss_over_region_mib": ("le", 64), "osd_growth_mib": ("le", 64),
    "memory_vs_copy_from8": ("ge", 1.25), "memory_cpu_vs_copy_from8": ("le", 0.95),
    "citizen_p99": ("le", 1.5), "citizen_unthrottled_vs_copy_from": ("le", 0.5),
    "citizen_large_pool_vs_copy_from": ("le", 0.5), "citizen_small_pool_vs_copy_from": ("le", 0.5),
    "scale_bytes": ("le", 1.25), "scale_extent_ms": ("le", 2),
}
# Where the store leaves more room.
RELEASE_BOUNDS = {"tentacle": {"cluster_vs_copy_from8": ("ge", 1.2)}}


def gnuplot(path, script):
    head = (f"set terminal svg size 860,%HEIGHT% font 'sans,12' background 'white'\n"
            f"set output '{path}'\nset style line 1 lc rgb '#2b6cb0'\n")
    height = script.pop("height", 420)
    text = head.replace("%HEIGHT%", str(height)) + script["text"]
    done = subprocess.run(["gnuplot"], input=text, text=True, capture_output=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"gnuplot: {done.stderr}\n{text}")


def bars(path, title, rows):
    """Horizontal bars with the range of the runs; rows: label, median, least, most."""
    rows = rows[::-1]
    labels = ", ".join(f"'{label}' {i}" for i, (label, *_) in enumerate(rows))
    data = "\n".join(f"{i} {median} {least} {most} {1 if label.startswith('siphon') else 0}"
                     for i, (label, median, least, most) in enumerate(rows))
    gnuplot(path, {"height": 110 + 26 * len(rows), "text": f"""\
set title '{title}'
unset key
set ytics ({labels})
set yrange [-0.7:{len(rows) - 0.3}]
set xrange [0:*]
set grid x
color(c) = c == 1 ? 0x2b6cb0 : 0xa0aec0
$d << EOD
{data}
EOD
plot $d using 2:1:(0):2:($1-0.36):($1+0.36):(color($5)) with boxxyerror fs solid 1 noborder lc rgb variable, \\
     $d using 2:1:3:4 with xerrorbars pt 0 lc rgb '#2d3748'
"""})


def lines(path, title, panels):
    """Panels side by side; panel: x label, y label, points of (x, median, least, most)."""
    text = f"set multiplot layout 1,{len(panels)} title '{title}'\nunset key\nset grid\n"
    for i, (x_label, y_label, points) in enumerate(panels):
        data = "\n".join(" ".join(map(str, point)) for point in points)
        text += (f"set xlabel '{x_label}'\nset ylabel '{y_label}'\nset logscale xy\n"
                 f"$p{i} << EOD\n{data}\nEOD\n"
                 f"plot $p{i} using 1:2 with lines lw 2 lc rgb '#2b6cb0', "
                 f"$p{i} using 1:2:3:4 with yerrorbars pt 7 ps 0.6 lc rgb '#2b6cb0'\n")
    gnuplot(path, {"text": text + "unset multiplot\n"})


def points_of(result, metric, rows):
    for name in rows:
        summary = result["rows"][name]["summary"].get(metric)
        if summary:
            yield name, summary["median"], summary["min"], summary["max"]


def plots_of(result, folder):
    """file name -> function that draws it, from the result and what its suite left in `folder`."""
    rows = list(result["rows"])
    if result["suite"] == "wire":
        yield "bench_wire.svg", lambda p: bars(p, "memory to memory, MB/s",
                                               list(points_of(result, "mb_per_s", rows)))
        yield "bench_wire_cpu.svg", lambda p: bars(
            p, "memory to memory, CPU seconds per GiB, both processes",
            list(points_of(result, "cpu_s_per_gib", rows)))
    if result["suite"] == "memory":
        yield "bench_memory.svg", lambda p: bars(
            p, "1 GiB in 8 MiB objects, pool to pool, devices in memory, MB/s",
            [(n.removeprefix("8 MiB: "), *v) for n, *v in points_of(result, "mb_per_s", rows)])
    if result["suite"] == "cluster":
        for section, metric, title, file in (
                ("8 MiB: ", "mb_per_s", "1 GiB in 8 MiB objects, pool to pool, MB/s", "cluster"),
                ("8 MiB: ", "cpu_s_per_gib", "the same, CPU seconds per GiB, every process",
                 "cluster_cpu"),
                ("64 KiB: ", "items_per_s", "objects of 64 KiB, pool to pool, objects/s", "small")):
            found = [(n.removeprefix(section), *v) for n, *v in points_of(
                result, metric, [r for r in rows if r.startswith(section)])]
            if found:
                yield f"bench_{file}.svg", lambda p, t=title, f=found: bars(p, t, f)
    if result["suite"] == "citizen":
        yield "bench_citizen.svg", lambda p: bars(
            p, "99th percentile of 4 KiB client writes, ms",
            list(points_of(result, "p99_ms", rows)))
    if result["suite"] == "scale":
        def of(metric, prefix, x):
            return [(result["rows"][n]["summary"][x]["median"], *v) for n, *v in points_of(
                result, metric, [r for r in rows if (r.endswith("x 64 KiB")) == prefix])]
        yield "bench_scale.svg", lambda p: lines(p, "cost per byte, cost per extent", [
            ("MiB, one extent", "ns per byte", of("ns_per_byte", False, "total_mib")),
            ("extents of 64 KiB in one batch", "ms per extent",
             of("ms_per_extent", True, "extents"))])
    if result["suite"] == "micro":
        yield "bench_micro.svg", lambda p: bars(p, "GB/s of one core",
                                                list(points_of(result, "gb_per_s", rows)))
    if result["suite"] == "profile":
        for name, title in (("siphon", "siphon copy"), ("copy_from", "copy_from, 8 in flight")):
            yield f"bench_profile_{name}.svg", lambda p, n=name, t=title: flame.draw(
                folder / f"profile_{n}.folded", p, f"{t}: the cluster, the client, the kernel")


def load(name, folder):
    path = folder / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def plot(name, folder, into):
    """Draws what the result of suite `name` in `folder` has. Needs gnuplot, but for flame
    graphs; says so without."""
    if shutil.which("gnuplot") is None and name != "profile":
        print("   no gnuplot here: no plots")
        return []
    drawn = []
    into.mkdir(parents=True, exist_ok=True)
    for file, draw in plots_of(load(name, folder), folder):
        draw(into / file)
        drawn.append(file)
    return drawn


def verdict(name, value, bounds=None):
    bounds = bounds or BOUNDS
    if name not in bounds:
        return "", ""
    way, bound = bounds[name]
    met = value >= bound if way == "ge" else value <= bound
    return ("at least " if way == "ge" else "at most ") + f"{bound:g}", "yes" if met else "**no**"


def ratio_table(found):
    lines_ = ["| ratio | bound | measured | met |", "|---|---:|---:|---|"]
    for result in found:
        for name, value in result["ratios"].items():
            bound, met = verdict(name, value)
            lines_.append(f"| `{name}` | {bound} | {value:.3g} | {met} |")
    return "\n".join(lines_)


def runs_of(folder):
    """Published and new runs of the suites that are compared: the ratios, and what they are of."""
    known = {}
    if COMPARED.exists():
        known = {(run["release"], run["suite"], run["date"]): run
                 for run in json.loads(COMPARED.read_text())["runs"]}
    build = results.REPO / "build"
    for path in [*folder.glob("history/*.json"), *build.glob("*/bench/history/*.json")]:
        run = json.loads(path.read_text())
        if run["suite"] in RELEASE_SUITES and not run["quick"] and "+" not in run["commit"]:
            known[(run["release"], run["suite"], run["date"])] = {
                key: run[key] for key in ("release", "suite", "date", "commit", "code", "ratios")}
    kept = []
    for release in RELEASES:
        for suite in RELEASE_SUITES:
            ran = sorted((run for key, run in known.items() if key[:2] == (release, suite)),
                         key=lambda run: run["date"])
            kept += [run for run in ran if run["code"] == ran[-1]["code"]][-RUNS_COMPARED:]
    return kept


def release_table(runs):
    """Release by release: the median of the runs' ratios, the least and the most of them."""
    releases = [name for name in RELEASES if any(run["release"] == name for run in runs)]
    names = list(dict.fromkeys(name for run in runs for name in run["ratios"]))
    text = ["| ratio | bound | " + " | ".join(releases) + " |",
            "|---|---:|" + "---:|" * len(releases)]
    for name in names:
        bound, cells = "", []
        for release in releases:
            values = [run["ratios"][name] for run in runs
                      if run["release"] == release and name in run["ratios"]]
            if not values:
                cells.append("-")
                continue
            median = statistics.median(values)
            bounds = BOUNDS | RELEASE_BOUNDS.get(release, {})
            here, met = verdict(name, median, bounds)
            bound = bound or verdict(name, median)[0]
            if here != bound:
                here = f", {here}" if here else ""
            else:
                here = ""
            spread = f" ({min(values):.3g}-{max(values):.3g})" if len(values) > 1 else " (one run)"
            cells.append(f"{median:.3g}{spread}{here}{': **not met**' if met == '**no**' else ''}")
        text.append(f"| `{name}` | {bound} | " + " | ".join(cells) + " |")
    text += ["", "The runs:", ""]
    text += [f"- {run['release']}, `{run['suite']}`: {run['date'][:16].replace('T', ' ')} UTC, commit "
             f"`{run['commit']}`" for run in runs]
    return "\n".join(text)


def section(result, drawn):
    machine = result["machine"]
    command = re.sub(r" --(bin|dir|out|port) \S+", "", result["command"])  # where, not what
    text = [f"`{command}`, {result['date']}, commit `{result['commit']}`; "
            f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, Linux "
            f"{machine['kernel']}; load average before it {machine['load_before']:.1f}; took "
            f"{result['elapsed_s']:.0f} s.", ""]
    text += [note + "\n" for note in result["notes"]]
    text += [results.table(result, markdown=True), ""]
    text += [f"![{file}](img/{file})" for file in drawn]
    return "\n".join(text)


def publish(folder):
    """docs/benchmarks.md and its pictures, from the results of real runs in `folder`."""
    found = {name: load(name, folder) for name in NAMES}
    quick = [name for name, result in found.items() if result and result["quick"]]
    if quick:
        raise SystemExit(f"not published: quick runs are no figures ({', '.join(quick)})")
    text = TEMPLATE.read_text()
    present = [result for result in found.values() if result]
    text = text.replace("{{ratios}}", ratio_table(present))
    for name, result in found.items():
        body = section(result, plot(name, folder, DOCS / "img")) if result else "Not yet run."
        text = text.replace("{{" + name + "}}", body)
    runs = runs_of(folder)
    if runs:
        COMPARED.write_text(json.dumps({"schema_version": 1, "runs": runs}, indent=1) + "\n")
    text = text.replace("{{releases}}", release_table(runs) if runs else "Not yet run.")
    (DOCS / "benchmarks.md").write_text(text)
    print(f"wrote {DOCS / 'benchmarks.md'}")


if __name__ == "__main__":
    publish(results.REPO / "build" / "bench")
