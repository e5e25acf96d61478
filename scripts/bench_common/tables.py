"""Medians, and tables in Markdown."""

import datetime
import pathlib
import platform
import re
import statistics


def machine(rows):
    """The table of what everything ran on, with more rows behind."""
    return table(["", ""], [*facts(), *rows])


def facts():
    """[name, text] of each thing to know about the machine."""
    lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8")
    model = re.search(r"model name\s*: (.*)", lines)
    memory = re.search(r"MemTotal:\s*(\d+)", pathlib.Path("/proc/meminfo").read_text(encoding="ascii"))
    processors = lines.count("processor\t")
    return [["date", datetime.date.today().isoformat()],
            ["processor", f"{processors} × {model.group(1) if model else platform.machine()}"],
            ["memory", f"{int(memory.group(1)) / (1 << 20):.0f} GiB"],
            ["kernel", platform.release()]]


def ratios(ones, others):
    """The ratios of two programs' values, round by round; without the rounds in which one has none (None)."""
    return [one / other for one, other in zip(ones, others) if one is not None and other]


def spread(values):
    """`median (least to most)`, of the values that there are."""
    good = [value for value in values if value is not None]
    if not good:
        return "failed" if values else ""
    digits = 2 if statistics.median(good) >= 0.1 else 3
    middle = f"{statistics.median(good):.{digits}f}"
    if len(good) == 1:
        return middle
    return f"{middle} ({min(good):.{digits}f} to {max(good):.{digits}f})"


def megabytes(values):
    """Bytes as megabytes, `one / two`."""
    return " / ".join(f"{value / 1e6:.0f}" for value in values) if values else ""


def bytes_shown(size):
    """A size in words."""
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def table(head, rows):
    """A table in Markdown."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"
