"""What a suite found: every run of every peer, and the ratios of their medians; as a table and as
JSON."""

import datetime
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys

REPO = pathlib.Path(__file__).resolve().parent.parent.parent


def commit():
    def git(*arguments):
        return subprocess.run(["git", "-C", REPO, *arguments], capture_output=True, text=True,
                              check=False).stdout.strip()
    changed = git("status", "--porcelain", "--untracked-files=no", "--", "plugin", "adapters",
                  "proto")
    return git("rev-parse", "--short=12", "HEAD") + ("+changes" if changed else "")


def code():
    """Git's names of the folders whose content a figure depends on."""
    return [subprocess.run(["git", "-C", REPO, "rev-parse", f"HEAD:{path}"], capture_output=True,
                           text=True, check=False).stdout.strip()
            for path in ("plugin", "adapters", "proto", "tests/bench/suites")]


def cpu_model():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def machine():
    memory_kib = int(pathlib.Path("/proc/meminfo").read_text().split()[1])
    return {"cpu": cpu_model(), "cores": os.cpu_count(), "memory_gib": round(memory_kib / 2**20, 1),
            "kernel": platform.release(), "load_before": os.getloadavg()[0]}


def summary(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values),
            "runs": len(values)}


class Result:
    """rows: peer -> metric -> the values of all runs. Metrics of a row may come one by one."""

    def __init__(self, name, arguments):
        self.name = name
        self.path = arguments.out / f"{name}.json"
        self.quick = arguments.quick
        self.machine = machine()
        self.rows = {}
        self.ratios = {}
        self.notes = []
        self.columns = []  # (metric, heading, format)
        self.elapsed_s = 0

    def add(self, row, **metrics):
        values = self.rows.setdefault(row, {})
        for metric, value in metrics.items():
            values.setdefault(metric, []).append(value)
        shown = "  ".join(f"{m} {v:.5g}" for m, v in metrics.items()
                          if isinstance(v, (int, float)) and m in {c[0] for c in self.columns})
        print(f"   {row}: {shown}", flush=True)

    def median(self, row, metric):
        return statistics.median(self.rows[row][metric])

    def ratio(self, name, value):
        self.ratios[name] = round(value, 4)

    def best(self, rows, metric, choose=max):
        """The row of `rows` with the best median; None when none of them ran."""
        rows = [row for row in rows if row in self.rows]
        return choose(rows, key=lambda row: self.median(row, metric)) if rows else None

    def as_json(self):
        rows = {}
        for row, metrics in self.rows.items():
            rows[row] = {"runs": metrics, "summary": {
                metric: summary(values) for metric, values in metrics.items()
                if all(isinstance(v, (int, float)) for v in values)}}
        return {"schema_version": 1, "suite": self.name, "quick": self.quick, "commit": commit(),
                "code": code(), "release": os.environ.get("SIPHON_RELEASE", "pacific"),
                "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
                "command": " ".join(["tests/bench/run", *sys.argv[1:]]), "machine": self.machine,
                "elapsed_s": self.elapsed_s, "columns": self.columns, "rows": rows,
                "ratios": self.ratios, "notes": self.notes}

    def save(self):
        """As the suite's last result, and among all its results."""
        found = self.as_json()
        text = json.dumps(found, indent=1) + "\n"
        self.path.write_text(text)
        history = self.path.parent / "history"
        history.mkdir(exist_ok=True)
        (history / f"{found['date'].replace(':', '')}-{self.name}.json").write_text(text)

    def print(self):
        print(table(self.as_json()))
        for name, value in self.ratios.items():
            print(f"   {name:<32} {value:g}")


def cell(row, metric, form):
    values = row["summary"].get(metric)
    if values is None:
        return "-"
    text = format(values["median"], form)
    if values["runs"] > 1:
        text += f" ({format(values['min'], form)}-{format(values['max'], form)})"
    return text


def table(result, markdown=False):
    """Medians, with min and max in brackets."""
    head = [""] + [heading for _, heading, _ in result["columns"]]
    lines = [head] + [[name] + [cell(row, metric, form) for metric, _, form in result["columns"]]
                      for name, row in result["rows"].items()]
    if markdown:
        lines.insert(1, ["---"] + ["---:"] * (len(head) - 1))
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join("   " + "  ".join(text.ljust(width) if i == 0 else text.rjust(width)
                                       for i, (text, width) in enumerate(zip(line, widths)))
                     for line in lines)
