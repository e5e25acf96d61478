"""The change that every program sees: one file in a hundred, for the length of a `with`."""

import contextlib
import os
import shutil

from bench_common.processes import remove

EVERY = 100
"""One file in so many is changed."""
LINE = b"a line that was not there\n"


@contextlib.contextmanager
def changed_files(tree, keep):
    """Changes files of `tree`: their middle, their end and their times. Afterwards all is as it was.

    The files as they were are in the folder `keep` meanwhile.
    """
    remove(keep)
    keep.mkdir()
    chosen = regular_files(tree)[EVERY // 2::EVERY]
    for number, path in enumerate(chosen):
        shutil.copy2(path, keep / str(number))
    try:
        for path in chosen:
            change(path)
        yield len(chosen)
    finally:
        for number, path in enumerate(chosen):
            # Into the same inode: a file that was replaced would be another one to every program.
            with open(keep / str(number), "rb") as source, open(path, "wb") as out:
                shutil.copyfileobj(source, out)
            shutil.copystat(keep / str(number), path)
        remove(keep)


def regular_files(tree):
    """The paths of all regular files, in the order of their bytes."""
    found = []
    for folder, _, names in os.walk(os.fsencode(tree)):
        paths = (os.path.join(folder, name) for name in names)
        found += [path for path in paths if not os.path.islink(path)]
    return sorted(found)


def change(path):
    """Changes one file."""
    with open(path, "r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.write(LINE)
        file.seek(size // 2)
        file.write(LINE[:size - size // 2])
