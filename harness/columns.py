"""The schema of the frames and their documentation: every column, its dtype, its unit."""

from __future__ import annotations

NUMBER, TEXT, COUNT, COUNT_OR_NA = "float64", "str", "int64", "Int64"

_RUN = {"run": (TEXT, "name of the run; the end of its path where names repeat")}
CELL = {
    **_RUN,
    "cell": (TEXT, "id of the cell within its run"),
    "arm": (TEXT, "framework:mode"),
    "framework": (TEXT, "name of the framework's adapter"),
    "mode": (TEXT, "how the framework runs the model, such as eager or jit"),
    "model": (TEXT, "name of the model definition"),
    "preset": (TEXT, "size of the model: tiny, small or paper"),
    "phase": (TEXT, "inference, training or generation"),
    "batch": (COUNT, "examples per step"),
    "optimizer": (TEXT, "optimiser of a training step; empty where there is none"),
    "numeric": (TEXT, "numeric mode, such as float32"),
    "device": (TEXT, "device asked for, such as cpu or cuda"),
    "threads": (COUNT, "threads asked for"),
    "profile": (TEXT, "default (out of the box) or tuned (documented best options)"),
}
_STATUS = {
    "status": (TEXT, "how the cell ended; unfinished where it was interrupted or is still to run"),
    "reason": (TEXT, "why, in one line"),
}
_PROCESS = {"process": (COUNT, "number of the worker process within its run")}
STARTUP = {
    "build_seconds": (NUMBER, "seconds to build the model and copy parameters and inputs"),
    "compile_seconds": (NUMBER, "seconds of ahead-of-time compilation; NaN where there is none"),
    "first_step_seconds": (NUMBER, "seconds of the first step, fenced"),
}

COLUMNS: dict[str, dict[str, tuple[str, str]]] = {
    "runs": {
        **_RUN,
        "created": (TEXT, "when the run was made, ISO 8601"),
        "code_version": (TEXT, "version of levelfield that made it"),
        "seed": (COUNT_OR_NA, "seed of every random draw"),
        "cells": (COUNT, "number of planned cells"),
        "suite": (TEXT, "the suite as run, as JSON"),
        "machine": (TEXT, "the machine, as JSON"),
        "locks": (TEXT, "label -> hash, packages and Python of each environment, as JSON"),
    },
    "cells": {**CELL, **_STATUS},
    "processes": {
        **_RUN,
        **_PROCESS,
        "at_seconds": (NUMBER, "when it was recorded, seconds since 1970"),
        "arm": (TEXT, "framework:mode"),
        "purpose": (TEXT, "timing, memory or gate"),
        "interpreter": (TEXT, "the Python that ran"),
        "how": (TEXT, "how it was found: given, sealed or running"),
        "python": (TEXT, "its version"),
        "lock_hash": (TEXT, "hash of the packages installed"),
        "asked": (TEXT, "threads, device and numeric mode asked for, as JSON"),
        "describe": (TEXT, "what really ran, read back from the framework, as JSON"),
        "interpreter_seconds": (NUMBER, "seconds until the interpreter was up"),
        "import_seconds": (NUMBER, "seconds to import and configure the framework"),
        "cache_entries": (COUNT_OR_NA, "entries of compilation caches found at the start"),
    },
    "startup": {
        **CELL,
        **_PROCESS,
        **STARTUP,
        "second_step_seconds": (NUMBER, "seconds of the second step, fenced"),
    },
    "gate": {
        **CELL,
        **_PROCESS,
        "name": (TEXT, "what was compared, such as outputs/logits or gradient/hidden1/kernel"),
        "error": (NUMBER, "relative error against the reference, no unit"),
        "tolerance": (NUMBER, "largest error that passes, no unit"),
        "passed": ("bool", "whether the error is within the tolerance"),
    },
    "slices": {
        **CELL,
        **_PROCESS,
        "slice": (COUNT, "number of the slice within its cell and statistic"),
        "statistic": (TEXT, "throughput (one fence at the end) or latency (a fence per step)"),
        "at_seconds": (NUMBER, "when it was recorded, seconds since 1970"),
        "steps": (COUNT, "steps in the slice"),
        "seconds": (NUMBER, "seconds of the whole slice"),
        "step_seconds": (NUMBER, "seconds per step: throughput's mean, latency's median"),
    },
    "steps": {
        **CELL,
        **_PROCESS,
        "slice": (COUNT, "number of the slice within its cell and statistic"),
        "step": (COUNT, "number of the step within its latency slice"),
        "step_seconds": (NUMBER, "seconds of this step, fenced"),
    },
    "memory": {
        **CELL,
        **_PROCESS,
        "stage": (TEXT, "interpreter, import, build, first_step or steady"),
        "peak_bytes": (COUNT_OR_NA, "peak resident bytes of the process in this stage"),
        "reason": (TEXT, "why it could not be measured"),
    },
    "accuracy": {
        **CELL,
        **_PROCESS,
        "test_accuracy": (NUMBER, "share of test examples answered right, 0 to 1"),
        "test_loss": (NUMBER, "loss on the test examples"),
        "train_loss": (NUMBER, "loss of the last training step"),
        "train_steps": (COUNT_OR_NA, "training steps made"),
        "reason": (TEXT, "why it could not be measured"),
    },
    "summary": {
        **CELL,
        **_STATUS,
        "step_seconds": (NUMBER, "seconds per step: median over throughput slices"),
        "step_seconds_low": (NUMBER, "least over throughput slices: spread, not an interval"),
        "step_seconds_high": (NUMBER, "greatest over throughput slices: spread, not an interval"),
        "latency_p50_seconds": (NUMBER, "median seconds of single fenced steps, pooled"),
        "latency_p95_seconds": (NUMBER, "95th percentile of the same"),
        "latency_p99_seconds": (NUMBER, "99th percentile of the same"),
        "examples_per_second": (NUMBER, "batch / step_seconds"),
        "import_seconds": (NUMBER, "seconds to import the framework, in the startup's process"),
        **STARTUP,
        "first_step_extra_seconds": (NUMBER, "first_step_seconds - step_seconds"),
        "peak_bytes": (COUNT_OR_NA, "greatest peak resident bytes of all stages"),
        "peak_over_import_bytes": (COUNT_OR_NA, "greatest peak after import less import's own"),
        "output_error": (NUMBER, "largest relative error of outputs; inf for one that is NaN"),
        "gradient_error": (NUMBER, "largest relative error of gradients, likewise"),
        "worst_error_share": (NUMBER, "largest error / tolerance of all checks; 1 just passes"),
        "test_accuracy": (NUMBER, "share of test examples answered right, 0 to 1"),
        "test_loss": (NUMBER, "loss on the test examples"),
        "slices": (COUNT, "number of throughput slices"),
    },
}
