"""Measures inside a worker: slices between fences, warm-up, fence test, peak memory.

Runs inside every framework's interpreter (Python 3.6 and later): standard library only.
"""

import gc
import os
import time

MINI_SLICES = 5  # of a window; two windows that agree are the steady state
ALIKE = 0.01  # how far the medians of two windows may be apart
STUDENT = 2.306  # 97.5 % quantile of t with 8 degrees of freedom: two windows of five
FENCE_COSTS = 200  # a slice takes at least so many fences' time
LONGEST_SLICE_SECONDS = 1.0  # beyond which a slice of long steps does not grow
REWARM_STEPS = 2
HANDLES = 4  # of steps, the first of which must be computed when the last is fenced


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


def median(values):
    """The middle one, or the mean of the two."""
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def warm_up(adapter, step, seconds, steps, slice_seconds, cap_seconds):
    """Run until steady; returns how long that took and what a step takes then.

    First slices double from one step until they take a fifth of ``slice_seconds``; then windows of
    five such slices follow each other until at least ``steps`` steps and ``seconds`` seconds lie
    behind and the last window agrees (``alike``) with the one half way back, which also sees what
    changes slowly. A compilation or trace begins the wait anew, and ten steps must follow it.
    "capped" says that ``cap_seconds`` ended it instead. "step_seconds" is the 25th percentile of
    the two windows.
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
        earlier = [each for at, each in windows if at - since <= (now - since) / 2]
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
    """Whether two windows show the same speed: medians within 1 %, or no difference is proven.

    The latter is that Welch's interval of the difference of the means includes 0.
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
    """How many steps make a slice; the count is frozen for the whole run.

    Long enough for ``slice_seconds``, for ten steps and for 200 fences; where that exceeds a
    second, as many steps as fit into one.
    """
    wanted = max(slice_seconds / step_seconds, 10, FENCE_COSTS * fence_seconds / step_seconds)
    if wanted * step_seconds > LONGEST_SLICE_SECONDS:
        wanted = max(LONGEST_SLICE_SECONDS / step_seconds, slice_seconds / step_seconds)
        return max(1, int(wanted + 1e-9))
    return round(wanted)


def fence_seconds(adapter, step):
    """What a fence costs when there is nothing to wait for."""
    handle = step()
    adapter.wait(handle)
    costs = []
    for _ in range(20):
        start = time.perf_counter()
        adapter.wait(handle)
        costs.append(time.perf_counter() - start)
    return median(costs)


def check_fence(adapter, step, repeats, budget_seconds):
    """Seconds that show whether the fence waits for everything, over ``repeats`` repeats.

    "fenced": a step with its fence, the least. "after" and "later": reading the step's results and
    every parameter at once after the fence, and after a pause in which any work left must have
    ended. The difference of the last two is work that the fence let pass; both read cold caches, so
    that nothing else differs. They are the lower quartiles: a busy machine adds to either, and the
    least would miss work that ended while this process waited for its core just once.
    """
    fenced, after, later = [], [], []

    def read(handle):
        start = time.perf_counter()
        adapter.read(handle)
        adapter.read(adapter.parameters())
        return time.perf_counter() - start

    begin = time.perf_counter()
    while len(later) < repeats:
        adapter.wait(step())  # what was read before must not have left cold caches to one of them
        start = time.perf_counter()
        handle = step()
        adapter.wait(handle)
        fenced.append(time.perf_counter() - start)
        after.append(read(handle))
        dispatched = time.perf_counter()
        handle = step()
        adapter.wait(handle)
        time.sleep(2 * fenced[-1] + 2 * (time.perf_counter() - dispatched))
        later.append(read(handle))
        if len(later) >= 5 and time.perf_counter() - begin > budget_seconds:
            break
    quartile = len(later) // 4
    return {
        "fenced": min(fenced),
        "after": sorted(after)[quartile],
        "later": sorted(later)[quartile],
    }


def check_handles(adapter, step, repeats, budget_seconds):
    """Least seconds of reading the first and the last of four steps after a fence on the last.

    A framework that postpones work until somebody asks for it computes the first step when its
    handle is read. Both readings are the first of their handle and of arrays of the same size, and
    each comes first every other time, so that nothing else differs. "fenced": the least seconds of
    one step with its fence.
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
    """(scheduler wait in seconds, involuntary switches, major faults) so far.

    The wait is summed over the threads that there are, from /proc/self/task/*/schedstat (kernel
    documentation, sched-stats); None where the kernel does not tell.
    """
    import resource

    usage = resource.getrusage(resource.RUSAGE_SELF)
    waited = 0
    try:
        for task in os.listdir("/proc/self/task"):
            try:
                with open("/proc/self/task/" + task + "/schedstat") as stat:
                    waited += int(stat.read().split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue  # the thread ended meanwhile
        wait = waited / 1e9
    except (OSError, IndexError):
        wait = None
    return wait, usage.ru_nivcsw, usage.ru_majflt


def measured_slice(adapter, step, kind, steps, extra):
    """One slice with what this process used during it, as fields of a slice record.

    ``extra`` steps are made and not counted: a slowdown planted on purpose, by which the harness
    tests itself. Noise is read outside of the timed region. "window_seconds", what the slice took
    with the loop around it, is no field of the record: the host compares the two.
    """
    fenced = kind in ("latency", "first_token")
    before = own_use()
    window, cpu = time.perf_counter(), time.process_time()
    if fenced:
        each = latency_slice(adapter, step, steps)
    else:
        whole = throughput_slice(adapter, step, steps + extra)
    cpu, window = time.process_time() - cpu, time.perf_counter() - window
    after = own_use()
    result = {"seconds": sum(each) if fenced else whole, "window_seconds": window}
    if fenced:
        # Nanoseconds are all that the clock knows.
        result["step_seconds"] = [round(value, 9) for value in each]
    # Pro rata: a hypervisor that takes the core away between two readings of clocks leaves CPU
    # seconds that the slice never had, enough to make a short one look like more than its cores.
    result["cpu_seconds"] = cpu * min(result["seconds"] / window, 1.0)
    if before[0] is not None and after[0] is not None:
        result["wait_seconds"] = max(after[0] - before[0], 0.0)
    result["switches"] = after[1] - before[1]
    result["major_faults"] = after[2] - before[2]
    return result


def rewarm(adapter, step, seconds):
    """At least two steps and ``seconds`` seconds after having been parked, and the fence."""
    start, done = time.perf_counter(), 0
    while done < REWARM_STEPS or time.perf_counter() - start < seconds:
        throughput_slice(adapter, step, 1)
        done += 1


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
