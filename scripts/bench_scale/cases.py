"""How many files and chunks, what is timed, and the limits."""

import dataclasses

PARTS = {
    "files": "Trees of small files",
    "chunks": "A small tree in repositories of many chunks",
    "both": "Many files in a repository of many chunks",
}
"""By the names for --only."""
OPERATIONS = {
    "first": "first backup",
    "unchanged": "nothing changed",
    "restore": "restore",
    "list": "`list`",
    "mount": "mount, and list the root",
}
"""In the order in which they are timed."""
ALL = tuple(OPERATIONS)

GROWTH_LIMIT = 2.0
"""How often the cost of a file or chunk of the next smaller case it may be in the largest."""
TIMES = 10
"""How often the next smaller case fits into one."""
MEMORY_LIMIT = 350_000_000
"""Bytes of private memory; with the stored index added from the moment at which the lock is there."""
STOP_LIMIT = 6_000_000_000
"""Bytes at which a command is ended, for the sake of the machine."""

BYTES_PER_FILE = 5500
"""What a small file takes in a tmpfs, entry and inode included, at most."""
STORED_PER_FILE = 1700
"""What it takes in a repository and in local caches, at most."""
BYTES_PER_CHUNK = 300
"""What a chunk takes in a stored index, a new one beside it, and two local copies, at most."""
SPARE_BYTES = 3 << 30
"""What is to be free beyond that, for the programs."""


@dataclasses.dataclass(frozen=True)
class Case:
    """A tree and a repository."""

    part: str
    files: int
    """In the tree."""
    chunks: int
    """In the index before the first backup; 0 for an ordinary new repository."""
    operations: tuple
    once: bool = False
    """Whether one round is enough: it is about memory."""

    @property
    def units(self):
        """What there is much of."""
        return self.chunks if self.part == "chunks" else self.files

    @property
    def title(self):
        """The beginning of its rows."""
        files, chunks = f"{self.files:,} files".replace(",", " "), f"{self.chunks:,} chunks".replace(",", " ")
        return {"files": files, "chunks": chunks}.get(self.part, f"{files}, {chunks}")

    @property
    def bytes(self):
        """What it takes in a tmpfs, at most."""
        trees = 2 if "restore" in self.operations else 1
        return self.files * (trees * BYTES_PER_FILE + STORED_PER_FILE) + self.chunks * BYTES_PER_CHUNK + (64 << 20)


def cases(files, chunks, few, both):
    """All cases: trees of so many `files`, `few` files beside so many `chunks`, and `both` files and chunks."""
    return [*(Case("files", number, 0, ALL) for number in files),
            *(Case("chunks", few, number, ALL) for number in chunks),
            Case("both", *both, ("first", "unchanged", "list", "mount"), once=True)]


FULL = cases((10_000, 100_000, 1_000_000), (10_000, 100_000, 1_000_000, 10_000_000), 1000, (2_000_000, 10_000_000))
SMALL = cases((100, 1000, 10_000), (1000, 10_000, 100_000), 100, (2000, 100_000))
