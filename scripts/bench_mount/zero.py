"""The FUSE driver that answers zeros: compiling zero.c, and the listings that it serves."""

import os
import pathlib
import stat

from bench_common.data import compile_c
from bench_common.processes import Failure, run, spawn

SOURCE = pathlib.Path(__file__).with_name("zero.c")


def compile_driver(folder):
    """Compiles the driver into `folder`."""
    flags = run(["pkg-config", "--cflags", "--libs", "fuse3"]).split()
    compile_c(SOURCE, folder / "zero", flags)


def start(folder, listing, mountpoint, log):
    """Mounts a listing. Returns the process."""
    return spawn([folder / "zero", listing, mountpoint], log)


def write_listing(tree, listing):
    """Writes the listing of a real tree, as zero.c describes it."""
    with open(listing, "w", encoding="utf-8", errors="surrogateescape") as out:
        out.write(line(0, os.lstat(tree), "/"))
        level = [(str(tree), 0)]
        next_number = 1
        while level:
            below = []
            for path, number in level:
                for entry in sorted(os.scandir(path), key=lambda entry: os.fsencode(entry.name)):
                    found = entry.stat(follow_symlinks=False)
                    out.write(line(number, found, entry.name))
                    if stat.S_ISDIR(found.st_mode):
                        below.append((entry.path, next_number))
                    next_number += 1
            level = below


def write_many_files(files, listing):
    """Writes the listing of a tree of `files` files, a thousand in each directory, of many sizes."""
    folders = -(-files // 1000)
    with open(listing, "w", encoding="ascii") as out:
        out.write(f"0 40755 0 1700000000 {folders + 2} /\n")
        for folder in range(folders):
            out.write(f"0 40755 0 1700000000 2 folder-{folder:06}\n")
        for number in range(files):
            size = 1 + number * 37 % 8192
            out.write(f"{1 + number // 1000} 100644 {size} 1700000000 1 file-{number:09}.txt\n")


def line(parent, found, name):
    """One line of a listing."""
    if "\n" in name:
        raise Failure(f"a name with a line break cannot be in a listing: {name!r}")
    # A directory's own size is no part of what is compared.
    return f"{parent} {found.st_mode:o} {found.st_size} {int(found.st_mtime)} {found.st_nlink} {name}\n"
