"""The peak of a process's private memory, which the kernel does not keep.

The kernel has a high-water mark of what is resident (ru_maxrss and VmHWM). That counts pages of mapped files as
well, which cost nobody anything: the kernel takes them back when it needs them. What is private is RssAnon, and
that has no mark, so it is read again and again. A peak between two readings is missed; the resident peak is
exact, so that the truth lies between the two.
"""

import contextlib
import os
import shutil
import signal
import threading

from bench_common.processes import Failure

SECONDS = 0.01
"""Between two readings. One takes about 50 microseconds."""


def touch_free_memory(folder, most):
    """Writes free memory once, by a file in RAM of up to `most` bytes that is removed again.

    The host of a virtual machine hands out memory when it is first written to, and may take it back when it is
    free. Whoever comes first would pay for that, which is several times what the kernel's own work costs.
    """
    free = min(available(), most, shutil.disk_usage(folder).free)
    path = folder / "touched"
    block = bytes(1 << 20)
    with open(path, "wb") as out:
        for _ in range(free >> 20):
            out.write(block)
    path.unlink()


def available():
    """Half of what is available, in bytes: the rest is left to the page cache."""
    with open("/proc/meminfo", encoding="ascii") as lines:
        found = dict(line.split(":") for line in lines)
    return int(found["MemAvailable"].split()[0]) * 1024 // 2


class MemoryWatch:
    """Reads a process's private memory until it is stopped."""

    def __init__(self, late=lambda: False, limit=None):
        self.late = late
        """Says whether what is read now is to be counted for `peak_late`; once it has, it is for good."""
        self.limit = limit
        """Bytes at which the process is killed; None for never."""
        self.peak = 0
        """Bytes, before `late`."""
        self.peak_late = 0
        """Bytes, from then on."""
        self.exceeded = False
        """Whether the process was killed."""
        self.ended = threading.Event()
        self.thread = None

    def start(self, pid):
        """Begins to watch a process."""
        self.thread = threading.Thread(target=self.run, args=(pid,), daemon=True)
        self.thread.start()

    def stop(self):
        """Ends the watch: when the process has ended, or before."""
        self.ended.set()
        if self.thread is not None:
            self.thread.join()

    def run(self, pid):
        """The thread."""
        late = False
        while True:
            late = late or self.late()
            value = anonymous(pid)
            if late:
                self.peak_late = max(self.peak_late, value)
            else:
                self.peak = max(self.peak, value)
            if self.limit is not None and value > self.limit:
                self.exceeded = True
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                return
            if self.ended.wait(SECONDS):
                return


def anonymous(pid):
    """The private memory of a process in bytes; 0 if it is gone."""
    return status(pid).get("RssAnon", 0)


def peak_and_private(pid):
    """(peak resident, private now) of a process, in bytes."""
    found = status(pid)
    if not found:
        raise Failure(f"process {pid} is gone")
    return found["VmHWM"], found["RssAnon"]


def available():
    """Bytes that programs can get without pushing others out."""
    return sizes_in("/proc/meminfo")["MemAvailable"]


def status(pid):
    """The sizes in /proc/PID/status, in bytes, by their names; none if the process is gone."""
    try:
        return sizes_in(f"/proc/{pid}/status")
    except (FileNotFoundError, ProcessLookupError):
        return {}


def sizes_in(path):
    """The lines `NAME: NUMBER kB` of a file, in bytes."""
    found = {}
    with open(path, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            name, _, value = line.partition(":")
            if value.endswith(" kB\n"):
                found[name] = int(value.split()[0]) * 1024
    return found
