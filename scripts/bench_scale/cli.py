"""Options, and the order of things."""

import argparse
import contextlib
import pathlib

from bench_common import data
from bench_common.archivers import CACHE, Vykar
from bench_common.memory import available
from bench_common.mounts import own_mounts
from bench_common.options import (
    add_common, checked, disk_folder, file_system, listed, own_copy, run_folder, vykar_binary)
from bench_common.outcome import conclude
from bench_scale.cases import FULL, PARTS, SMALL, SPARE_BYTES
from bench_scale.generate import PACKAGES, Generator
from bench_scale.measure import Measure, Measured
from bench_scale.report import Report

DESCRIPTION = """\
Shows that the cost of vykar grows linearly: times backup, restore, list and mount with ten thousand to a million
files and with ten thousand to ten million chunks, watches the memory, and prints the section of
docs/benchmarks.md. Exits with 1 when a limit is broken. Must be run as root, with /dev/fuse. A part that does not
fit into the memory that is free (up to 18 GB) is done on the disk. A full run takes about half an hour.
"""


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(prog="scale", description=DESCRIPTION)
    add_common(parser, runs=3)
    parser.add_argument("--only", type=listed(PARTS), default=list(PARTS), metavar="NAME,...",
                        help=", ".join(PARTS))
    parser.add_argument("--disk", type=pathlib.Path, default=CACHE, metavar="DIR",
                        help=f"folder for what does not fit into RAM (default: {CACHE})")
    return parser.parse_args()


def main():
    """Runs the script; returns its exit code."""
    return checked(arguments(), grow)


def grow(options):
    """Everything, once the options are known to be good."""
    chosen = [case for case in (SMALL if options.small else FULL) if case.part in options.only]
    built, from_commit = vykar_binary(options)
    own_mounts()
    data.install(PACKAGES, not options.no_install)
    measured, places = Measured(), {}
    with run_folder(None, "scale", 1) as tools:
        binary, generator = own_copy(built, tools), Generator(tools)
        version = Vykar(tools, binary).version() + from_commit
        for part in dict.fromkeys(case.part for case in chosen):
            cases = [case for case in chosen if case.part == part]
            with folder_for(options, cases) as (folder, places[part]):
                measure = Measure(folder, binary, generator, measured)
                for case in cases:
                    measure.run_case(case, options.runs)
    return done(options, Report(measured, chosen, options.runs, [["vykar", version]]), places)


@contextlib.contextmanager
def folder_for(options, cases):
    """(a folder for one part, where that is): in RAM if it fits there and nothing else is asked for."""
    needed = max(case.bytes for case in cases)
    if options.work is None and available() < needed + SPARE_BYTES:
        with disk_folder(options.disk, needed) as folder:
            yield folder, f"on the disk ({file_system(folder)})"
        return
    with run_folder(options.work, "scale", -(-needed >> 30) + 1) as folder:
        yield folder, "in RAM" if file_system(folder) == "tmpfs" else f"on the disk ({file_system(folder)})"


def done(options, report, places):
    """Prints the section, writes it if asked to, and says what was over a limit."""
    text, problems = report.text(places), report.measured.problems
    remarks = [f"over the limit: {line}" for line in report.failures]
    conclude(options, "scale", text, remarks, problems, "something failed" if problems else "")
    return 1 if report.failures or problems else 0
