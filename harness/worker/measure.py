"""Measures inside a worker: slices between fences, warm-up, fence test, peak memory.

Runs inside every framework's interpreter (Python 3.6 and later): standard library only.
"""

import gc
import os
import time
from contextlib import contextmanager

MINI_SLICES = 5  # in a window; two windows that agree are the steady state
ALIKE = 0.01  # relative difference up to which the medians of two windows agree
STUDENT = 2.306  # 97.5 % quantile of t with 8 degrees of freedom: two windows of five
FENCE_COSTS = 200  # a slice takes at least as long as so many fences
LONGEST_SLICE_SECONDS = 1.0  # a slice of long steps does not grow beyond this
# In a slice of long steps: verdicts need rounds, and of short ones there are more in the same time.
# With ten steps, the slices of a block took 1.8 times as long (families, six arms).
LEAST_STEPS = 4
REWARM_STEPS = 2
HANDLES = 4  # steps, the first of which must be computed when the last is fenced


def throughput_slice(adapter, step, count):
    """Return the seconds of ``count`` steps back to back with one fence at the end.

    The caller has fenced before, so nothing is in flight at the start.
    """
    start = time.perf_counter()
    adapter.wait(adapter.repeat(step, count))
    return time.perf_counter() - start


def latency_slice(adapter, step, count):
    """Return a list of the seconds of ``count`` steps, each with a fence of its own."""
    seconds = [0.0] * count
    for number in range(count):
        start = time.perf_counter()
        adapter.wait(step())
        seconds[number] = time.perf_counter() - start
    return seconds


def median(values):
    """Return the middle value, or the mean of the two middle values."""
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def warm_up(adapter, step, *, seconds, steps, slice_seconds, cap_seconds):
    """Run until steady; return how long that took and the seconds of a step after it.

    First, slices double from one step until they take a fifth of ``slice_seconds``. Then windows of
    five such slices follow each other. They end after at least ``steps`` steps and ``seconds``
    seconds, if the last window agrees (``alike``) with the one half way back. Comparing with that
    window also reveals slow changes. A compilation or trace starts the wait again, and ten steps
    must follow it. "capped" says that ``cap_seconds`` ended the warm-up instead. "step_seconds" is
    the 25th percentile of the two windows.
    """
    start = time.perf_counter()
    count, done = 1, 0
    while True:
        elapsed = throughput_slice(adapter, step, count)
        done += count
        if elapsed >= slice_seconds / MINI_SLICES or time.perf_counter() - start > cap_seconds:
            break
        count *= 2
    compiled, windows, since = adapter.compilations(), [], time.perf_counter()
    while True:
        window = [throughput_slice(adapter, step, count) / count for _ in range(MINI_SLICES)]
        now = time.perf_counter()
        done += MINI_SLICES * count
        windows.append((now, window))
        if adapter.compilations() != compiled:
            compiled, windows, since = adapter.compilations(), [], now
        earlier = [window for at, window in windows if at - since <= (now - since) / 2]
        before = earlier[-1] if earlier else []
        enough = done >= steps and MINI_SLICES * count * len(windows) >= 10
        steady = bool(before) and enough and now - start >= seconds and alike(before, window)
        if steady or now - start >= cap_seconds:
            break
    gc.collect()
    recent = sorted(before + window)
    return {
        "warm_up_steps": done,
        "warm_up_seconds": now - start,
        "capped": not steady,
        "step_seconds": recent[len(recent) // 4],
    }


def alike(before, window):
    """Return whether two windows show the same speed.

    They do if their medians are within 1 %, or if no difference is proven: Welch's interval of the
    difference of the means includes 0.
    """
    if abs(median(before) - median(window)) <= ALIKE * median(window):
        return True
    squares = _square_error(before) + _square_error(window)
    return abs(_mean(before) - _mean(window)) <= STUDENT * squares**0.5


def _mean(values):
    return sum(values) / len(values)


def _square_error(values):
    """The square of the standard error of the mean."""
    mean = _mean(values)
    return sum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values)


def slice_steps(step_seconds, fence_seconds, slice_seconds):
    """Return how many steps make a slice; the count is frozen for the whole run.

    A slice is long enough for ``slice_seconds``, for four steps and for 200 fences. If that exceeds
    a second, it has as many steps as fit into one second.
    """
    wanted = max(
        slice_seconds / step_seconds, LEAST_STEPS, FENCE_COSTS * fence_seconds / step_seconds
    )
    if wanted * step_seconds > LONGEST_SLICE_SECONDS:
        wanted = max(LONGEST_SLICE_SECONDS / step_seconds, slice_seconds / step_seconds)
        return max(1, int(wanted + 1e-9))
    return round(wanted)


def fence_seconds(adapter, step):
    """Return the seconds of a fence with nothing to wait for."""
    handle = step()
    adapter.wait(handle)
    costs = []
    for _ in range(20):
        start = time.perf_counter()
        adapter.wait(handle)
        costs.append(time.perf_counter() - start)
    return median(costs)


def read(adapter, handle, parameters, waited):
    """Read the results of a step, and with ``parameters`` every parameter -> seconds.

    ``waited``: see ``thread_waits``. The seconds in which this thread waited for a core are left
    out, unless this process itself computed in them. On a busy machine, a thread waits that has
    just computed, and none that has slept.
    """
    waits, cpu, start = waited(), time.process_time(), time.perf_counter()
    adapter.read(handle)
    if parameters:
        adapter.read(adapter.parameters())
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    return max(seconds - (waited() - waits), min(cpu, seconds))


@contextmanager
def thread_waits():
    """Yield a function: the seconds that this thread has waited for a core, quickly read.

    From /proc/thread-self/schedstat (kernel documentation, sched-stats); always 0 if the kernel has
    no such file.
    """
    try:
        stat = os.open("/proc/thread-self/schedstat", os.O_RDONLY)
    except OSError:
        yield lambda: 0.0
        return
    try:
        yield lambda: int(os.pread(stat, 64, 0).split()[1]) / 1e9
    finally:
        os.close(stat)


def read_seconds(adapter, step, parameters):
    """Return the seconds of reading what a step makes: see ``read``."""
    costs = []
    with thread_waits() as waited:
        for _ in range(5):
            handle = step()
            adapter.wait(handle)
            costs.append(read(adapter, handle, parameters, waited))
    return median(costs)


def check_fence(adapter, step, steps, *, parameters, repeats, budget_seconds):
    """Return seconds that show whether the fence waits for everything, over ``repeats`` repeats.

    "fenced": the least seconds of ``steps`` steps with one fence. "after" and "later": seconds of
    reading the last step's results, and with ``parameters`` every parameter. "after" reads
    immediately after the fence, "later" after a pause in which any remaining work must have ended.
    Their difference is work that the fence let pass. Each comes first every other time, and a step
    with a fence comes before both, so that nothing else differs. They are lower quartiles, because
    a busy machine adds to either. The least values would miss work that ended while this process
    waited for its core just once.
    """
    fenced, whole = [], 0.0
    seconds = {"after": [], "later": []}
    begin = time.perf_counter()
    with thread_waits() as waited:
        for number in range(repeats):
            for moment in ("later", "after") if number % 2 else ("after", "later"):
                adapter.wait(step())
                start = time.perf_counter()
                handle = adapter.repeat(step, steps)
                adapter.wait(handle)
                fenced.append(time.perf_counter() - start)
                if moment == "later":
                    # Twice as long as steps and reading took, when reading had to wait for work.
                    time.sleep(2 * max(fenced[-1], whole))
                seconds[moment].append(read(adapter, handle, parameters, waited))
                if moment == "after":
                    whole = time.perf_counter() - start
            if number >= 4 and time.perf_counter() - begin > budget_seconds:
                break
    quartile = len(seconds["after"]) // 4
    return {
        "fenced": min(fenced),
        "after": sorted(seconds["after"])[quartile],
        "later": sorted(seconds["later"])[quartile],
    }


def check_handles(adapter, step, repeats, budget_seconds):
    """Return the least seconds of reading the first and the last of four steps.

    The fence is on the last step. A framework that postpones work until it is needed computes the
    first step when its handle is read. Both readings are the first of their handle and of arrays of
    the same size. Each comes first every other time, so that nothing else differs. "fenced": the
    least seconds of one step with its fence.
    """
    earlier, last, fenced = [], [], []

    def read(handle):
        start = time.perf_counter()
        adapter.read(handle)
        return time.perf_counter() - start

    begin = time.perf_counter()
    while len(fenced) < repeats:
        start = time.perf_counter()
        adapter.wait(step())
        fenced.append(time.perf_counter() - start)
        handles = [step() for _ in range(HANDLES)]
        adapter.wait(handles[-1])
        if len(fenced) % 2:
            earlier.append(read(handles[0]))
            last.append(read(handles[-1]))
        else:
            last.append(read(handles[-1]))
            earlier.append(read(handles[0]))
        if len(fenced) >= 4 and time.perf_counter() - begin > budget_seconds:
            break
    return {"earlier": min(earlier), "last": min(last), "fenced": min(fenced)}


def own_use():
    """Return (scheduler wait in seconds, involuntary switches, major faults) so far.

    The wait is summed over the present threads, from /proc/self/task/*/schedstat (kernel
    documentation, sched-stats). It is None if the kernel does not report it.
    """
    import resource

    usage = resource.getrusage(resource.RUSAGE_SELF)
    waited = []
    try:
        for task in os.listdir("/proc/self/task"):
            try:
                with open("/proc/self/task/" + task + "/schedstat") as stat:
                    waited.append(int(stat.read().split()[1]))
            except (FileNotFoundError, ProcessLookupError):
                continue  # the thread has ended, or this kernel has no such files
        wait = sum(waited) / 1e9 if waited else None
    except (OSError, IndexError):
        wait = None
    return wait, usage.ru_nivcsw, usage.ru_majflt


def shares_of_use():
    """Begin to observe this process; return a function that ends it.

    That returns (share, share): the seconds in which threads waited for a core, and the CPU
    seconds, both over the seconds between. The former is 0 if the kernel does not report it.
    """
    (waited, _, _), cpu, begin = own_use(), time.process_time(), time.perf_counter()

    def ended():
        seconds = max(time.perf_counter() - begin, 1e-9)
        used, now = time.process_time() - cpu, own_use()[0]
        waits = 0.0 if waited is None or now is None else max(now - waited, 0.0)
        return waits / seconds, used / seconds

    return ended


def measured_slice(adapter, step, kind, steps, extra):
    """Time one slice and this process's use during it; return the fields of a slice record.

    ``extra`` steps are run but not counted: a slowdown planted on purpose, with which the harness
    tests itself. Noise is read outside of the timed region. "window_seconds", the seconds of the
    slice with the loop around it, is no field of the record: the host compares the two.
    """
    fenced = kind in ("latency", "first_token")
    before = own_use()
    window, cpu = time.perf_counter(), time.process_time()
    if fenced:
        part = latency_slice(adapter, step, steps)
    else:
        whole = throughput_slice(adapter, step, steps + extra)
    cpu, window = time.process_time() - cpu, time.perf_counter() - window
    after = own_use()
    result = {"seconds": sum(part) if fenced else whole, "window_seconds": window}
    if fenced:
        # The clock's resolution is a nanosecond.
        result["step_seconds"] = [round(value, 9) for value in part]
    # Scaled to the slice: a hypervisor that takes the core away between two clock readings adds CPU
    # seconds that the slice did not use. A short slice would seem to use more than its cores.
    result["cpu_seconds"] = cpu * min(result["seconds"] / window, 1.0)
    if before[0] is not None and after[0] is not None:
        result["wait_seconds"] = max(after[0] - before[0], 0.0)
    result["switches"] = after[1] - before[1]
    result["major_faults"] = after[2] - before[2]
    return result


def rewarm(adapter, step, seconds):
    """Run at least two steps and ``seconds`` seconds after parking, with fences."""
    start, done = time.perf_counter(), 0
    while done < REWARM_STEPS or time.perf_counter() - start < seconds:
        throughput_slice(adapter, step, 1)
        done += 1


def peak_memory_bytes():
    """Peak resident memory of this process since the last reset, or None if it is unreadable.

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
    """Make the present resident memory the peak: write 5 to /proc/self/clear_refs (proc(5))."""
    try:
        with open("/proc/self/clear_refs", "w") as clear:
            clear.write("5")
    except OSError:
        return False
    return True
