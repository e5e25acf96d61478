"""Options, and the order of things."""

import argparse

from bench_common import data
from bench_common.mounts import fuse_for_users, own_mounts
from bench_common.options import add_common, checked, listed, own_copy, positive, run_folder, vykar_binary
from bench_common.outcome import conclude
from bench_common.processes import say
from bench_mount import operations, programs, report
from bench_mount.ready import MANY, Ready
from bench_mount.rounds import Bench

TMPFS_GIGABYTES = {"full": 16, "small": 2}
EXTRA = ("ready", "many", "memory")
"""What --only can name besides the operations."""

DESCRIPTION = """\
Times `vykar mount` beside other read-only file systems, each command cold and again, and prints the tables of
docs/benchmarks.md. Sets everything up by itself on Debian 12: packages, data, repositories, mounts. Must be
run as root, with /dev/fuse; a full run needs about 16 GB of RAM and half an hour for the first round. It drops
the kernel's caches again and again: let nothing else run on the machine.
"""


def arguments():
    """The command line."""
    known = [*dict.fromkeys(each.name.split("-")[0] for each in operations.OPERATIONS), *EXTRA]
    parser = argparse.ArgumentParser(prog="bench-mount", description=DESCRIPTION)
    add_common(parser, runs=3)
    parser.add_argument("--slow-runs", type=positive, default=1, metavar="N",
                        help="rounds of squashfuse, borg and restic (default: 1)")
    parser.add_argument("--only", type=listed(known), default=known, metavar="NAME,...", help=", ".join(known))
    parser.add_argument("--programs", type=listed(programs.NAMES), default=programs.NAMES, metavar="NAME,...",
                        help=", ".join(programs.NAMES))
    parser.add_argument("--keep", action="store_true", help="leave the data in the folder of --work, for the next run")
    return parser.parse_args()


def main():
    """Runs the script; returns its exit code."""
    options = arguments()
    if options.keep and options.work is None:
        say("bench-mount: --keep needs --work DIR: the tmpfs that is made otherwise ends with the run")
        return 2
    return checked(options, compare)


def compare(options):
    """Everything, once the options are known to be good."""
    sizes = data.SMALL if options.small else data.FULL
    built, from_commit = vykar_binary(options)
    own_mounts()
    with run_folder(options.work, sizes.name, TMPFS_GIGABYTES[sizes.name], options.keep) as folder:
        chosen = programs.choose(options.programs, folder, own_copy(built, folder))
        with fuse_for_users(folder):
            bench, ready = measure(options, sizes, folder, chosen)
        return finish(options, sizes, bench, ready, from_commit)


def measure(options, sizes, folder, chosen):
    """Installs, makes the data and repositories, and runs all rounds. Returns (Bench, Ready or None)."""
    pretended = programs.Zero.packages if "many" in options.only else ()
    data.install_for(chosen, [data.SOURCE_PACKAGE, *pretended], not options.no_install)
    selected = operations.choose(options.only)
    bench = Bench(folder, chosen, make_data(folder, sizes, selected, chosen))
    ready = make_ready(options, sizes, chosen)
    for number in range(options.runs):
        bench.run_round(number, selected, options.slow_runs)
        if ready is not None and "ready" in options.only:
            ready.run_round()
        if ready is not None and "many" in options.only:
            ready.enter_round()
    if "memory" in options.only:
        bench.measure_memory(selected)
    return bench, ready


def make_data(folder, sizes, selected, chosen):
    """Makes the data that the operations read, and every program's repository or image of them."""
    found = {}
    if selected:
        found["tree"] = data.source_tree(folder, sizes)
        if any(operation.data == "large" for operation in selected):
            found["large"] = data.large_files(folder, sizes, found["tree"])
    for name in dict.fromkeys(operation.data for operation in selected):
        for program in chosen:
            program.prepare(found[name])
    return found


def make_ready(options, sizes, chosen):
    """The repositories for vykar's own rows, if they are wanted."""
    vykar = next((program for program in chosen if program.name == "vykar"), None)
    if vykar is None or not {"ready", "many"} & set(options.only):
        return None
    ready = Ready(vykar, MANY[sizes.name])
    if "ready" in options.only:
        ready.prepare()
    if "many" in options.only:
        ready.prepare_many_files()
    return ready


def finish(options, sizes, bench, ready, from_commit):
    """Prints the document, writes it if asked to, and says what was not as it should be."""
    versions = [[program.title, program.version() + (from_commit if program.name == "vykar" else "")]
                for program in bench.programs if not program.prefix]
    made = report.Report(bench, ready, operations.choose(options.only), sizes)
    text = made.text([*versions, report.tool_versions()], (options.runs, options.slow_runs))
    remarks = [f"target missed: {line}" for line in made.failed_targets]
    if bench.disturbed:
        remarks.append(f"*** something else dropped the kernel's caches: {'; '.join(bench.disturbed)}")
    spoiled = "vykar failed, or the machine was disturbed" if bench.disturbed or bench.problems.of_vykar() else ""
    conclude(options, "mount", text, remarks, bench.problems, spoiled)
    return 1 if bench.problems or bench.disturbed else 0
