"""Time by operator from jax.profiler, on the CPU."""

import glob
import os

import jax

from levelfield.adapters.profiled_xla import Program, category_by_name
from levelfield.adapters.profiles import MARK, TRACE, chrome_events, operators

# Words in the names of events in which a thread only waits.
WAITS = ("block_until_ready", "wait for completion", "Await", "BlockUntilReady", "BlockHostUntil")


def profiled(run, folder):
    """Run the steps under jax.profiler, without the calls of Python -> what Adapter.profile does.

    https://docs.jax.dev/en/latest/profiling.html, read 2026-11-28
    """
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # a call of Python would take many times as long
    with (
        jax.profiler.trace(folder, create_perfetto_trace=True, profiler_options=options),
        jax.profiler.TraceAnnotation(MARK),
    ):
        run()
    (path,) = glob.glob(os.path.join(folder, "plugins", "profile", "*", "perfetto_trace.json.gz"))
    os.replace(path, os.path.join(folder, TRACE))
    rows = operators(events_of(os.path.join(folder, TRACE), programs()), category)
    return {"profiler": "jax.profiler", "trace": TRACE, "operators": rows}


def programs():
    """Return the compiled programs that are loaded, by the name of their module."""
    modules = [
        module
        for executable in jax.devices()[0].client.live_executables()
        for module in executable.hlo_modules()
    ]
    return {module.name: Program(module.to_string()) for module in modules}


def events_of(path, compiled):
    """Return the events of a trace; those of instructions say where they were compiled from.

    compiled: name of a module -> Program.
    """
    events = []
    for event in chrome_events(path):
        if event["name"].startswith(("end: ", "ThreadpoolListener")):
            continue  # moments without a duration
        place = event.get("args", {})
        program = compiled.get(place.get("hlo_module"))
        if program:
            event["category"] = program.category(place.get("hlo_op"))
            event["within"] = program.source(place.get("hlo_op")) or place["hlo_module"]
        events.append(event)
    return events


def category(name, callers):
    """Return what the time of an event that is no instruction goes to."""
    return None if any(word in name for word in WAITS) else category_by_name(name) or "dispatch"
