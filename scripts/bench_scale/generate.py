"""Trees of small files, and repositories with many chunks that are not in their packs."""

import pathlib
import subprocess

from bench_common.data import compile_c
from bench_common.processes import Command, Failure, run, start

SOURCE = pathlib.Path(__file__).with_suffix(".c")
PACKAGES = ("build-essential", "zstd", "fuse3")
FILES_PER_FOLDER = 1000
"""As in generate.c."""
INDEX_TAG, ZSTD_CODEC = 4, 2
"""What a plain index object begins with (docs/format.md)."""
GENERATION = 0x0123_4567_89AB_CDEF
"""Of all made indexes: any number that no other index of the repository has."""


class Generator:
    """The compiled generate.c."""

    def __init__(self, folder):
        self.program = folder / "generate"
        compile_c(SOURCE, self.program)

    def tree(self, folder, files):
        """Makes a folder with so many small files, in folders of FILES_PER_FOLDER."""
        folder.mkdir()
        run([self.program, "tree", folder, files])

    def index(self, path, chunks):
        """Writes the object of an index with so many chunks, for a repository without encryption."""
        with open(path, "wb") as out:
            out.write(bytes((INDEX_TAG, ZSTD_CODEC)))
            out.flush()
            made = start(Command([self.program, "index", chunks, GENERATION]), stdout=subprocess.PIPE)
            packed = start(Command(["zstd", "-q", "-3", "-T0", "-c"]), stdin=made.stdout, stdout=out)
            made.stdout.close()
            if packed.wait() or made.wait():
                raise Failure(f"{path} could not be written")

    def packs(self, folder, chunks):
        """Makes the packs that such an index names: with all of them gone, no backup would begin."""
        folder.mkdir(exist_ok=True)
        run([self.program, "packs", folder, chunks])


def give_index(repo, index):
    """Makes an index object the one of a new repository."""
    place = repo / "index"
    place.unlink()
    # Whoever replaces it makes a new file.
    place.hardlink_to(index)
    (repo / "index.gen").write_bytes(GENERATION.to_bytes(8, "little"))


def folders_of(files):
    """How many folders there are in a tree of so many files."""
    return -(-files // FILES_PER_FOLDER)
