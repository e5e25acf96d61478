"""What is timed on each mount, and the targets."""

import dataclasses
import pathlib
import typing

PATTERN = "zstd_decompress_stream"
"""What `grep -rl` looks for: it is in a handful of files, of the small tree too."""


@dataclasses.dataclass(frozen=True)
class Place:
    """The folders of one run of an operation."""

    root: pathlib.Path
    """The data, in the mount."""
    source: pathlib.Path
    """The same data in tmpfs: another copy than `root`."""
    copy: pathlib.Path
    """Where `cp -a` copies to; it is there and empty."""

    @property
    def inside(self):
        """`root` with a slash behind it, so that a symlink is followed."""
        return f"{self.root}/"


@dataclasses.dataclass(frozen=True)
class Operation:
    """A command, or a pipeline, that reads a mount."""

    name: str
    """For --only."""
    title: str
    """The heading of its row."""
    data: str
    """`tree` or `large`."""
    commands: typing.Callable
    """From a Place to the commands of the pipeline."""
    cold: float | None = None
    """How often the time of the kernel's squashfs vykar may take, cold, as the targets say."""
    aim: float | None = None
    """The same as it should be."""
    warm: float | None = None
    """How often the time of the tree itself vykar may take, the second time."""
    as_user: bool = False
    """Whether it is run by an unprivileged user as well."""


CAT = ["cat"]
"""Behind tar: GNU tar reads no contents when its output is /dev/null."""

OPERATIONS = (
    Operation("find", "`find`", "tree", lambda at: [["find", at.inside]],
              cold=5, aim=3, warm=1.5, as_user=True),
    Operation("ls", "`ls -lR`", "tree", lambda at: [["ls", "-lR", at.inside]],
              cold=4, aim=3, warm=4, as_user=True),
    Operation("tar", "`tar c`", "tree", lambda at: [["tar", "c", "-C", at.inside, "."], CAT],
              cold=1, warm=1.5, as_user=True),
    Operation("cp", "`cp -a`", "tree", lambda at: [["cp", "-a", f"{at.root}/.", at.copy]],
              cold=2.5, aim=2, warm=3, as_user=True),
    Operation("diff", "`diff -r` with the source", "tree",
              lambda at: [["diff", "-r", "--no-dereference", at.source, at.inside]], warm=1.5),
    Operation("grep", "`grep -rl`", "tree", lambda at: [["grep", "-rl", PATTERN, at.inside], CAT], warm=1.5),
    Operation("cat-compressible", "`cat`, compressible", "large",
              lambda at: [["cat", at.root / "compressible"]], cold=0.6, warm=1.5, as_user=True),
    Operation("cat-random", "`cat`, random", "large",
              lambda at: [["cat", at.root / "random"]], cold=0.6, warm=1.5, as_user=True),
)

USER_TARGET = 1.5
"""How often its time as root vykar may take as an unprivileged user."""
READY_TARGET = 0.3
"""Seconds from the start of `vykar mount` until it can be used, beyond the derivation of the key."""
ENTER_TARGET = 1.5
"""Seconds until the first listing of a snapshot of a million files, from a mount that is ready."""
MEMORY_TARGET = (256 + 150) << 20
"""Bytes that vykar may have with such a snapshot open: the default --cache-size and 150 MiB."""


def choose(names):
    """The operations of these names; `cat` is both files."""
    wanted = {name for name in names}
    return [each for each in OPERATIONS if each.name in wanted or each.name.split("-")[0] in wanted]
