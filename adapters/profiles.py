"""Time by operator from the events of a framework's own profiler.

A profiler writes a trace in Chrome's format ("Trace Event Format", Google, 2016), in which the
events of a thread are nested. :func:`operators` divides the time between the ends of the profiled
steps among the operators. Every instant counts once: for the innermost events that run at it.

Uses the standard library alone, and the syntax of Python 3.6.
"""

import gzip
import json
import os
import shutil

# The categories of operators. The first three are kernels: matrix products, convolutions
# and all else that computes. "layout" and "copy" move data and compute nothing. "dispatch" is the
# framework's own work between kernels.
KERNELS = ("product", "convolution", "computation")
CATEGORIES = (*KERNELS, "layout", "copy", "dispatch", "compilation")
MARK = "levelfield steps"  # the name of the event that spans the profiled steps
MOST_OPERATORS = 200  # in a profile; the others are one operator of each category
NAME_CHARACTERS = 160  # of an operator's name
TRACE = "trace.json.gz"


def chrome_events(path):
    """Read the events with a duration of a trace: a list of Chrome's event objects.

    The file may be compressed by gzip, and it holds a list or an object with "traceEvents".
    """
    with (gzip.open if path.endswith(".gz") else open)(path, "rb") as file:
        content = json.loads(file.read().decode("utf-8", "replace"))
    events = content["traceEvents"] if isinstance(content, dict) else content
    return [event for event in events if event.get("ph") == "X"]


def compressed(path, folder):
    """Compress a trace by gzip into ``folder`` -> the name of the file, which Perfetto opens."""
    with open(path, "rb") as source, gzip.open(os.path.join(folder, TRACE), "wb") as target:
        shutil.copyfileobj(source, target)
    return TRACE


def operators(events, category, begin=None):
    """Divide the time of profiled steps among operators: a list of rows, the longest first.

    events: objects with "tid", "ts" and "dur" in microseconds and "name". An event may also have
    its "category", and "within": where it came from. Else ``category(name, callers)`` returns one
    of CATEGORIES, or None where a thread only waits. ``callers`` are the names of the enclosing
    events, the outermost first. The time counted begins and ends with the event MARK if there is
    one. Else it begins at ``begin``, in microseconds.

    A row has "name", "within" (its own, or the outermost caller, where most of its time was spent),
    "category", "calls" and "seconds". The seconds are of the wall clock. While kernels run, what
    other threads dispatch takes no time of its own. Two kernels that run at once share the time.
    """
    marks = [event for event in events if event["name"] == MARK]
    if marks:
        window = marks[0]["ts"], marks[0]["ts"] + marks[0]["dur"]
    else:
        window = begin or 0.0, float("inf")
    segments, calls = [], {}
    by_thread = {}
    for event in events:
        if event["name"] != MARK and event["dur"] > 0:
            by_thread.setdefault((event.get("pid"), event["tid"]), []).append(event)
    known = {}
    for thread in by_thread.values():
        _flatten(thread, window, category, known, segments, calls)
    return _rows(_shared(segments), calls)


def _flatten(events, window, category, known, segments, calls):
    """Append (begin, end, key) of the innermost events of one thread to ``segments``.

    ``key`` is (name, category, outermost caller). ``calls`` counts the events of each key.
    """
    first, last = window
    stack = []  # (end, name, key) of the events that run
    now = first

    def until(moment):
        """Append what runs until ``moment``, and end the events that end before it."""
        nonlocal now
        while stack and stack[-1][0] <= moment:
            end, _, key = stack.pop()
            if end > now:
                segments.append((now, end, key))
                now = end
        if stack and moment > now:
            segments.append((now, moment, stack[-1][2]))
        now = max(now, moment)

    for event in sorted(events, key=lambda event: (event["ts"], -event["dur"])):
        begin, name = event["ts"], event["name"]
        end = min(begin + event["dur"], last)
        if end <= first or begin >= last:
            continue
        until(max(begin, first))
        callers = tuple(entry[1] for entry in stack)
        kind = event.get("category") or known.get((name, callers))
        if kind is None:
            kind = known[name, callers] = category(name, callers) or "waiting"
        if stack:
            end = min(end, stack[0][0])  # rounded figures of a profiler may overlap
        within = event.get("within") or (callers[0] if callers else "")
        key = name, kind, within if within != name else ""
        calls[key] = calls.get(key, 0) + 1
        stack.append((end, name, key))
    until(last if last < float("inf") else max([entry[0] for entry in stack] or [now]))


def _shared(segments):
    """Divide the time among the segments that run at each instant: key -> microseconds."""
    times = {}
    changes = []
    for begin, end, key in segments:
        if key[1] != "waiting":
            changes.append((begin, 1, key))
            changes.append((end, -1, key))
    changes.sort(key=lambda change: change[0])
    running, now = {}, 0.0
    for moment, change, key in changes:
        if moment > now and running:
            work = {one: count for one, count in running.items() if one[1] != "dispatch"} or running
            share = (moment - now) / float(sum(work.values()))
            for one, count in work.items():
                times[one] = times.get(one, 0.0) + share * count
        now = moment
        running[key] = running.get(key, 0) + change
        if not running[key]:
            del running[key]
    return times


def _rows(times, calls):
    """Join the keys of one name and category; beyond MOST_OPERATORS only the categories differ."""
    by_name = {}
    for (name, kind, caller), time in times.items():
        by_name.setdefault((name[:NAME_CHARACTERS], kind), {})[name, kind, caller] = time
    rows = []
    for (name, kind), parts in by_name.items():
        _, _, caller = max(parts, key=parts.get)
        rows.append(
            {
                "name": name,
                "within": caller[:NAME_CHARACTERS],
                "category": kind,
                "calls": sum(calls[key] for key in parts),
                "seconds": sum(parts.values()) / 1e6,
            }
        )
    rows.sort(key=lambda row: -row["seconds"])
    kept, others = rows[:MOST_OPERATORS], {}
    for row in rows[MOST_OPERATORS:]:
        other = others.setdefault(row["category"], dict(row, name="others", within="", calls=0))
        if other["calls"]:
            other["seconds"] += row["seconds"]
        other["calls"] += row["calls"]
    return kept + list(others.values())
