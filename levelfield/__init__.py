"""Levelfield compares deep-learning frameworks after proving that they compute the same thing.

The package in a program or a notebook::

    import levelfield

    runs = levelfield.load("results/example")  # tidy pandas frames, units in the column names
    runs.table()  # milliseconds per step, tasks x arms
    runs.speedup(over="torch:eager")  # with intervals and verdicts
    levelfield.figure(runs, "heat")  # a chart of the report, for a notebook too

``levelfield.reference`` has the models and what they compute. The names below are imported when
they are first used. The file runs under Python 3.6 and later, because every worker imports it.
"""

import importlib

__all__ = [
    "BadInput",
    "Frames",
    "Runs",
    "UnknownName",
    "figure",
    "judge",
    "load",
    "reference",
    "summary",
    "verdict_frame",
]

# Public name -> the module that defines it.
_DEFINED = {
    "BadInput": "levelfield.harness.errors",
    "Frames": "levelfield.harness.records.frames",
    "Runs": "levelfield.harness.analysis.questions",
    "UnknownName": "levelfield.reference.errors",
    "figure": "levelfield.harness.report.figures",
    "judge": "levelfield.harness.analysis.verdicts",
    "load": "levelfield.harness.analysis.questions",
    "summary": "levelfield.harness.analysis.summary",
    "verdict_frame": "levelfield.harness.analysis.verdicts",
}

TYPE_CHECKING = False  # typing.TYPE_CHECKING without the time that importing typing takes
if TYPE_CHECKING:
    from levelfield import reference
    from levelfield.harness.analysis.questions import Runs, load
    from levelfield.harness.analysis.summary import summary
    from levelfield.harness.analysis.verdicts import judge, verdict_frame
    from levelfield.harness.errors import BadInput
    from levelfield.harness.records.frames import Frames
    from levelfield.harness.report.figures import figure
    from levelfield.reference.errors import UnknownName


def __getattr__(name: str) -> object:
    if name == "reference":
        return importlib.import_module("levelfield.reference")
    if name in _DEFINED:
        return getattr(importlib.import_module(_DEFINED[name]), name)
    raise AttributeError("module 'levelfield' has no attribute %r" % name)


def __dir__() -> "list[str]":
    return sorted({*globals(), *__all__})
