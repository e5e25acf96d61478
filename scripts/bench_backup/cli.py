"""Options, and the order of things."""

import argparse
import contextlib
import json
import pathlib

from bench_backup import programs, report
from bench_backup.operations import DATA, DISK, ON_DISK, OPERATIONS, RAM
from bench_backup.rounds import Bench
from bench_backup.syncs import count_syncs
from bench_common import data
from bench_common.archivers import CACHE
from bench_common.memory import available
from bench_common.mounts import own_mounts
from bench_common.options import (
    add_common, checked, disk_folder, file_system, listed, own_copy, run_folder, vykar_binary)
from bench_common.outcome import conclude
from bench_common.processes import Failure, run

TMPFS_GIGABYTES = {"full": 14, "small": 2}
DISK_GIGABYTES = {"full": 5, "small": 1}
EXTRA = ("disk", "syncs")
"""What --only can name besides the operations."""

DESCRIPTION = """\
Times vykar's backup and restore beside restic, borg, and what costs least, and prints the tables of
docs/benchmarks.md. Sets everything up by itself on Debian 12: packages, data, repositories. Must be run as root;
a full run needs 14 GB of free RAM, 5 GB of disk and about five minutes a round. It drops the kernel's caches
again and again: let nothing else run on the machine.
"""


def arguments():
    """The command line."""
    known = [*OPERATIONS, *EXTRA]
    parser = argparse.ArgumentParser(prog="bench", description=DESCRIPTION)
    add_common(parser, runs=5)
    parser.add_argument("--only", type=listed(known), default=known, metavar="NAME,...",
                        help=f"{', '.join(known)}; the first backup is always made, but not always timed")
    parser.add_argument("--data", type=listed(DATA), default=list(DATA), metavar="NAME,...", help=", ".join(DATA))
    parser.add_argument("--programs", type=listed(programs.NAMES), default=programs.NAMES, metavar="NAME,...",
                        help=", ".join(programs.NAMES))
    parser.add_argument("--disk", type=pathlib.Path, default=CACHE, metavar="DIR",
                        help=f"folder on the disk, for what is timed there (default: {CACHE})")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write all numbers to a file")
    return parser.parse_args()


def main():
    """Runs the script; returns its exit code."""
    return checked(arguments(), compare)


def compare(options):
    """Everything, once the options are known to be good."""
    sizes = data.SMALL if options.small else data.FULL
    gigabytes = TMPFS_GIGABYTES[sizes.name]
    if options.work is None and available() < gigabytes << 30:
        raise Failure(f"needs {gigabytes} GiB of free memory; --work DIR takes a folder on a disk, or --data less")
    built, from_commit = vykar_binary(options)
    own_mounts()
    with run_folder(options.work, f"bench-{sizes.name}", gigabytes) as folder, on_disk(options, sizes) as disk:
        own_copy(built, folder)
        chosen = programs.choose(options.programs, folder / "programs", folder)
        if not chosen:
            raise Failure("no program is chosen")
        install(chosen, options)
        facts = report.Facts(sizes, options.runs, versions(chosen, from_commit), programs.THREADS,
                             file_system(options.disk) if disk else "")
        bench, syncs = measure(options, sizes, folder, disk)
        return finish(options, report.Report(bench, chosen, syncs, facts))


@contextlib.contextmanager
def on_disk(options, sizes):
    """A new folder on the disk, removed afterwards; None if nothing is timed there."""
    if not set(EXTRA) & set(options.only):
        yield None
        return
    options.disk.mkdir(parents=True, exist_ok=True)
    if file_system(options.disk) == "tmpfs":
        raise Failure(f"{options.disk} is in RAM; name a folder on a disk with --disk DIR")
    with disk_folder(options.disk, DISK_GIGABYTES[sizes.name] * 10**9) as folder:
        yield folder


def install(chosen, options):
    """Everything that the chosen programs need."""
    traced = ["strace"] if "syncs" in options.only else []
    data.install_for(chosen, [data.SOURCE_PACKAGE, "rsync", *traced], not options.no_install)


def measure(options, sizes, folder, disk):
    """Makes the data and runs all rounds. Returns (Bench, the counts of syncs)."""
    operations = [name for name in OPERATIONS if name in options.only]
    selected = {RAM: operations,
                DISK: [name for name in ON_DISK if name in operations] if "disk" in options.only else []}
    bench = Bench(folder, selected)
    tree = data.source_tree(folder, sizes)
    sources = [tree] if "tree" in options.data else []
    if "large" in options.data and operations:
        sources.append(data.large_files(folder, sizes, tree))
    in_ram = programs.choose(options.programs, folder / "programs", folder)
    there = []
    if disk is not None:
        run(["cp", "-a", tree.path, disk / "tree"])
        there = [each for each in programs.choose(options.programs, disk / "programs", folder) if each.on_disk]
    for number in range(options.runs):
        for source in sources:
            bench.run_round(number, RAM, source, in_ram)
        if there:
            bench.run_round(number, DISK, data.Data("tree", disk / "tree"), there)
    if "syncs" not in options.only:
        return bench, {}
    syncs, problems = count_syncs(there, disk / "tree", ON_DISK)
    bench.problems += problems
    return bench, syncs


def versions(chosen, from_commit):
    """[program, what it says of itself], once for each."""
    found = {}
    for program in chosen:
        version = program.version() + (from_commit if program.group == "vykar" else "")
        found.setdefault(program.group, version)
    return [[group, version] for group, version in found.items()]


def finish(options, made):
    """Prints the section, writes what is asked for, and says what was not as it should be."""
    bench = made.bench
    text = made.text()
    if options.json is not None:
        numbers = report.raw(bench, made.syncs, made.facts)
        options.json.write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    remarks = [f"target missed: {line}" for line in made.failed_targets]
    conclude(options, "backup", text, remarks, bench.problems, "vykar failed" if bench.problems.of_vykar() else "")
    return 1 if bench.problems else 0
