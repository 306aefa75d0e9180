"""Flame graphs as SVG, without scripts: from folded stacks ("root;...;leaf COUNT" per line, as the
usual tools write and read them; kernel frames end in _[k]) to a picture whose width is the share of
samples. Hovering over a frame shows its whole name."""

import html
import pathlib

WIDTH = 1200
ROW = 16
CHARACTER = 6.1  # of monospace at 10 px
LEAST_SHARE = 0.003  # narrower frames are left out, with what stands on them
HEAD = 46
STORE = ("BlueStore", "KernelDevice", "BlueFS", "rocksdb", "RocksDB")
COLOURS = ((lambda name: name.endswith("_[k]"), "#f6c28b"),
           (lambda name: name.startswith("siphon::"), "#7fb2e5"),
           (lambda name: name.startswith(STORE), "#a8d5a2"))
OTHERS = "#e2e2e2"


class Frame:
    def __init__(self):
        self.samples = 0
        self.above = {}

    def add(self, names, samples):
        self.samples += samples
        if names:
            self.above.setdefault(names[0], Frame()).add(names[1:], samples)


def boxes(frame, level=0, start=0):
    """(name, level, first sample, samples) of every frame above this one."""
    for name, child in sorted(frame.above.items()):
        yield name, level, start, child.samples
        yield from boxes(child, level + 1, start)
        start += child.samples


def label(name, width):
    """As much of the name as fits: without its namespaces, cut at the end, or nothing."""
    room = int((width - 4) / CHARACTER)
    name = name.removesuffix("_[k]")
    if len(name) > room:
        name = name.split("::")[-1]
    if len(name) > room:
        name = name[:room - 2] + ".." if room > 4 else ""
    return html.escape(name)


def box(name, x, y, width, about):
    colour = next((colour for is_it, colour in COLOURS if is_it(name)), OTHERS)
    return (f"<g><title>{html.escape(about)}</title>"
            f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{ROW - 1}" fill="{colour}"/>'
            f'<text x="{x + 2:.1f}" y="{y + 11}">{label(name, width)}</text></g>')


def draw(folded, path, title):
    root = Frame()
    for line in pathlib.Path(folded).read_text().splitlines():
        stack, _, samples = line.rpartition(" ")
        root.add(stack.split(";"), int(samples))
    shown = [b for b in boxes(root) if b[3] >= LEAST_SHARE * root.samples]
    levels = 1 + max(level for _, level, _, _ in shown)
    height = HEAD + levels * ROW + 8
    scale = WIDTH / root.samples
    text = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
            f'viewBox="0 0 {WIDTH} {height}" font-family="monospace" font-size="10">',
            '<rect width="100%" height="100%" fill="white"/>',
            f'<text x="6" y="18" font-size="14">{html.escape(title)}</text>',
            f'<text x="6" y="36">{root.samples} samples; the width is CPU time. Orange: '
            "kernel; blue: Siphon; green: BlueStore and RocksDB; grey: everything else.</text>"]
    for name, level, start, samples in shown:
        about = f"{name}: {samples} samples, {100 * samples / root.samples:.1f} %"
        y = height - 4 - (level + 1) * ROW
        text.append(box(name, start * scale, y, samples * scale, about))
    pathlib.Path(path).write_text("\n".join([*text, "</svg>", ""]))
