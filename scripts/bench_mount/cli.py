"""Options, and the order of things."""

import argparse
import os
import pathlib
import shutil
import sys

from bench_mount import data, operations, programs, report
from bench_mount.ready import Ready
from bench_mount.rounds import Bench
from bench_mount.system import Failure, end_on_signals, fuse_for_users, own_mounts, run, say, work_folder

PROJECT = pathlib.Path(__file__).resolve().parents[2]
DOCUMENT = PROJECT / "docs" / "benchmarks.md"
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
    parser.add_argument("--runs", type=positive, default=3, metavar="N", help="rounds (default: 3)")
    parser.add_argument("--slow-runs", type=positive, default=1, metavar="N",
                        help="rounds of squashfuse, borg and restic (default: 1)")
    parser.add_argument("--work", type=pathlib.Path, metavar="DIR",
                        help="folder for all data, best in tmpfs (default: a tmpfs of its own)")
    parser.add_argument("--only", type=listed(known), default=known, metavar="NAME,...", help=", ".join(known))
    parser.add_argument("--programs", type=listed(programs.NAMES), default=programs.NAMES, metavar="NAME,...",
                        help=", ".join(programs.NAMES))
    parser.add_argument("--small", action="store_true", help="little data, to try this script")
    parser.add_argument("--keep", action="store_true", help="leave the data in the folder of --work, for the next run")
    parser.add_argument("--no-install", action="store_true", help="install no packages; say which are missing")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks.md")
    parser.add_argument("--vykar", type=pathlib.Path, metavar="PATH", help="a built vykar (default: build it)")
    return parser.parse_args()


def positive(text):
    """A number of rounds."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def listed(known):
    """A type of argument: names from `known`, with commas between."""
    def parse(text):
        names = [name for name in text.split(",") if name]
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name}: must be one of {', '.join(known)}")
        return names

    return parse


def main():
    """Runs the script; returns its exit code."""
    options = arguments()
    if options.write and options.small:
        say("bench-mount: --write is for the full data, not for --small")
        return 2
    if options.keep and options.work is None:
        say("bench-mount: --keep needs --work DIR: the tmpfs that is made otherwise ends with the run")
        return 2
    if os.geteuid() != 0 or not os.path.exists("/dev/fuse"):
        say("bench-mount: must be run as root, with /dev/fuse: it mounts, and drops the kernel's caches")
        return 2
    end_on_signals()
    try:
        return compare(options)
    except Failure as failure:
        say(f"bench-mount: {failure}")
        return 1


def compare(options):
    """Everything, once the options are known to be good."""
    sizes = data.SMALL if options.small else data.FULL
    built, from_commit = vykar_binary(options)
    own_mounts()
    with work_folder(options.work, TMPFS_GIGABYTES[sizes.name]) as work:
        folder = work / sizes.name
        folder.mkdir(exist_ok=True)
        try:
            # A copy that nobody builds over, and that every user can run.
            binary = folder / "vykar"
            shutil.copyfile(built, binary)
            binary.chmod(0o755)
            chosen = programs.choose(options.programs, folder, binary)
            with fuse_for_users(folder):
                bench, ready = measure(options, sizes, folder, chosen)
            return finish(options, sizes, bench, ready, from_commit)
        finally:
            if not options.keep:
                run(["rm", "-rf", "--one-file-system", folder])


def vykar_binary(options):
    """(path of the binary, what it was built from); builds it unless it was given."""
    if options.vykar is not None:
        if not options.vykar.is_file():
            raise Failure(f"{options.vykar} is not there; --vykar is the path of a built vykar")
        return options.vykar, ""
    say("== building vykar")
    built = ["cargo", "build", "--release", "--locked", "--package", "vykar-cli"]
    run(built, cwd=PROJECT)
    commit = run(["git", "describe", "--always", "--dirty"], cwd=PROJECT, good=(0, 128)).strip()
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or PROJECT / "target")
    return target / "release" / "vykar", f", commit {commit}" if commit else ""


def measure(options, sizes, folder, chosen):
    """Installs, makes the data and repositories, and runs all rounds. Returns (Bench, Ready or None)."""
    packages = {data.SOURCE_PACKAGE, *(name for program in chosen for name in program.packages)}
    if "many" in options.only:
        packages |= set(programs.Zero.packages)
    data.install(sorted(packages), not options.no_install)
    for program in chosen:
        program.install(not options.no_install)
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
    ready = Ready(vykar, sizes)
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
    sys.stdout.write(text)
    for line in made.failed_targets:
        say(f"target missed: {line}")
    for name, line in dict.fromkeys(bench.problems):
        say(f"*** {name}: {line}")
    if bench.disturbed:
        say(f"*** something else dropped the kernel's caches: {'; '.join(bench.disturbed)}")
    if options.write and (bench.disturbed or any(name.startswith("vykar") for name, _ in bench.problems)):
        say(f"bench-mount: {DOCUMENT} is not written: vykar failed, or the machine was disturbed")
    elif options.write:
        DOCUMENT.write_text(text, encoding="utf-8")
        say(f"bench-mount: wrote {DOCUMENT}")
    return 1 if bench.problems or bench.disturbed else 0
