"""How often each program makes the kernel write to the disk, counted by strace in a run of its own."""

from bench_common.processes import Command, Failure, pipeline, remove, say

CALLS = ("fsync", "fdatasync", "syncfs", "sync_file_range")


def count_syncs(programs, source, operations):
    """Counts the calls of each program. Returns {(operation, program): {call: times}}, and the problems."""
    found, problems = {}, []
    for program in programs:
        if program.name == "floor":
            continue
        try:
            program.fresh()
            for operation in operations:
                counts = traced(program, operation, source)
                found[operation, program.name] = counts
                say(f"syncs    {operation:10} {program.name:10} {shown(counts)}")
        except Failure as failure:
            problems.append((program.name, str(failure)))
        finally:
            program.clear()
    return found, problems


def traced(program, operation, source):
    """Runs one operation under strace. Returns {call: times}."""
    summary = program.folder / "strace"
    remove(summary)
    strace = ["strace", "-f", "-c", "-o", summary, "-e", f"trace={','.join(CALLS)}", "--"]
    command, = program.commands(operation, source, None)
    pipeline([Command([*strace, *command.argv], command.env, command.cwd)])
    return parse(summary.read_text(encoding="ascii"))


def parse(summary):
    """The counts in a summary of strace: `% time, seconds, usecs/call, calls, errors if any, name` in a line."""
    counts = dict.fromkeys(CALLS, 0)
    for line in summary.splitlines():
        fields = line.split()
        if len(fields) >= 5 and fields[-1] in counts:
            counts[fields[-1]] += int(fields[3])
    return counts


def shown(counts):
    """The calls that there were."""
    return ", ".join(f"{times} {call}" for call, times in counts.items() if times) or "none"
