"""What is measured inside a worker: slices between fences, and peak memory by phase.

Runs inside every framework's interpreter (Python 3.6 and later): standard library only.
"""

import gc
import time


def throughput_slice(adapter, step, count):
    """Seconds of ``count`` steps back to back with one fence at the end.

    The caller has fenced before: nothing is in flight at the start.
    """
    start = time.perf_counter()
    adapter.wait(adapter.repeat(step, count))
    return time.perf_counter() - start


def latency_slice(adapter, step, count):
    """A list of seconds: ``count`` steps, each with a fence of its own."""
    seconds = [0.0] * count
    for number in range(count):
        start = time.perf_counter()
        adapter.wait(step())
        seconds[number] = time.perf_counter() - start
    return seconds


def warm_up(adapter, step, seconds, steps, slice_seconds):
    """Run at least ``steps`` steps and ``seconds`` seconds; returns the steps that fill a slice.

    Slices double from one step until one takes a quarter of ``slice_seconds``, then repeat until
    both bounds are passed; the last one gives the speed. A slice has at least ten steps.
    """
    start = time.perf_counter()
    count, done = 1, 0
    while True:
        elapsed = throughput_slice(adapter, step, count)
        done += count
        if elapsed < slice_seconds / 4:
            count *= 2
        elif done >= steps and time.perf_counter() - start >= seconds:
            break
    gc.collect()
    return {"warm_up_steps": done, "slice_steps": max(10, round(slice_seconds * count / elapsed))}


def peak_memory_bytes():
    """Peak resident memory of this process since the last reset, or None where unreadable.

    VmHWM of /proc/self/status (proc(5)), and never ru_maxrss, which a child inherits from its
    parent through exec.
    """
    try:
        with open("/proc/self/status") as status:
            for line in status:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        return None
    return None


def reset_peak_memory():
    """Make the present resident memory the peak: 5 into /proc/self/clear_refs (proc(5))."""
    try:
        with open("/proc/self/clear_refs", "w") as clear:
            clear.write("5")
    except OSError:
        return False
    return True
