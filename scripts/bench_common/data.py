"""The trees and files that are read, and what has to be installed to make and compare them."""

import dataclasses
import os
import pathlib
import shutil

from bench_common.processes import Failure, run, say
from bench_common.tables import bytes_shown

SOURCE_PACKAGE = "linux-source-6.1"
TARBALL = pathlib.Path(f"/usr/src/{SOURCE_PACKAGE}.tar.xz")
SMALL_PARTS = ("fs", "lib", "scripts", "crypto")
"""The folders of the source tree that make the small one."""

BLOCK = 1 << 20
ROTATED = bytes((value + 1) % 256 for value in range(256))
"""A table for bytes.translate: what it makes compresses as before, and has no chunk in common with it."""


@dataclasses.dataclass(frozen=True)
class Data:
    """Something to back up and read."""

    name: str
    """In file names: `tree` or `large`."""
    path: pathlib.Path
    """The folder."""


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    name: str
    compressible: int
    """Bytes of the compressible file."""
    random: int
    """Bytes of the random file."""
    parts: tuple
    """Folders of the source tree; none for all of it."""


    def words(self):
        """What the texts of the reports say of the data."""
        return {"parts": f" (only {', '.join(self.parts)})" if self.parts else "",
                "compressible": bytes_shown(self.compressible), "random": bytes_shown(self.random)}


FULL = Sizes("full", 1_570_000_000, 629_000_000, ())
SMALL = Sizes("small", 100_000_000, 40_000_000, SMALL_PARTS)


def install(packages, allowed):
    """Installs the Debian packages that are missing. A Failure if that is not `allowed` or not possible."""
    missing = [name for name in packages if not is_installed(name)]
    if not missing:
        return
    line = f"apt-get install {' '.join(missing)}"
    if not allowed or shutil.which("apt-get") is None:
        raise Failure(f"missing packages (named as in Debian 12); install them first: {line}")
    say(f"== {line}")
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "update", "-q"], env=quiet)
    run(["apt-get", "install", "-y", "-q", "--no-install-recommends", *missing], env=quiet)


def install_for(programs, packages, allowed):
    """Installs these packages and all that the programs need."""
    needed = {*packages, *(name for program in programs for name in program.packages)}
    install(sorted(needed), allowed)
    for program in programs:
        program.install(allowed)


def is_installed(package):
    """Whether dpkg knows a package as installed."""
    if shutil.which("dpkg-query") is None:
        return False
    said = run(["dpkg-query", "-W", "-f", "${Status}", package], good=(0, 1))
    return said == "install ok installed"


def compile_c(source, program, flags=()):
    """Compiles one file of C."""
    run(["cc", "-O2", "-Wall", "-Wextra", "-o", program, source, *flags])


def once(path, build):
    """Calls `build(path)` unless it was done before: whatever is there half made is removed first."""
    mark = path.with_name(path.name + ".done")
    if mark.exists():
        return
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    say(f"== making {path}")
    build(path)
    mark.touch()


def source_tree(folder, sizes):
    """The unpacked Linux source, or the parts of it that `sizes` names."""
    def build(path):
        path.mkdir()
        members = [f"{SOURCE_PACKAGE}/{part}" for part in sizes.parts]
        run(["tar", "xf", TARBALL, "-C", path, "--strip-components=1", *members])

    once(folder / "tree", build)
    return Data("tree", folder / "tree")


def large_files(folder, sizes, tree):
    """A folder with two files: `compressible`, made from `tree`, and `random`."""
    def build(path):
        path.mkdir()
        run(["tar", "cf", path / "compressible", "-C", tree.path, "."])
        fit(path / "compressible", sizes.compressible)
        with open(path / "random", "wb") as out:
            for begin in range(0, sizes.random, BLOCK):
                out.write(os.urandom(min(BLOCK, sizes.random - begin)))

    once(folder / "large", build)
    return Data("large", folder / "large")


def fit(path, size):
    """Cuts a file to `size`, or lengthens it by its beginning with every byte changed."""
    have = path.stat().st_size
    with open(path, "rb") as source, open(path, "ab") as out:
        while have < size:
            block = source.read(BLOCK).translate(ROTATED)[:size - have]
            out.write(block)
            have += len(block)
    os.truncate(path, size)
