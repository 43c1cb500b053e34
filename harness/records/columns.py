"""The columns of every frame: name, dtype, unit and description."""

from __future__ import annotations

from levelfield.harness.records.kinds import (
    COUNT,
    COUNT_OR_NA,
    NUMBER,
    TEXT,
    TRUTH,
    AccuracyRecord,
    BlockRecord,
    CalibrationRecord,
    CeilingRecord,
    ClosingRecord,
    EnergyRecord,
    EpochRecord,
    MemoryRecord,
    ProcessRecord,
    RoundRecord,
    SessionRecord,
    SliceRecord,
    StartupRecord,
    StatusRecord,
    columns_of,
)

_RUN = {"run": (TEXT, "name of the run; the end of its path where names repeat")}
CELL = {
    **_RUN,
    "cell": (TEXT, "id of the cell within its run"),
    "comparison": (TEXT, "id of the comparison: cells of a run that differ in the arm alone"),
    "arm": (
        TEXT,
        "framework[@version]:mode; the suffix #2 marks the A/A twin, #+5% a planted slowdown",
    ),
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
_STATUS = columns_of(StatusRecord, "status", "reason", "log")
_PROCESS = columns_of(SliceRecord, "process")
STARTUP = columns_of(StartupRecord, "build_seconds", "compile_seconds", "first_step_seconds")
_BLOCK = {
    **columns_of(SliceRecord, "block", "round"),
    "residency": (TEXT, "resident (all arms in memory, parked), sequential, or audit"),
    "disturbed": (TRUTH, "whether other programs disturbed the round, by its covariates"),
}
_LEARNED = columns_of(EpochRecord, "test_accuracy", "test_loss", "train_loss")
_CHECKED = {
    "name": (TEXT, "name of the compared array, such as outputs/logits or gradient/hidden1/kernel"),
    "error": (NUMBER, "relative error against the reference, no unit"),
    "tolerance": (NUMBER, "largest error that passes, no unit"),
    "passed": (TRUTH, "whether the error is within the tolerance"),
}

COLUMNS: dict[str, dict[str, tuple[str, str]]] = {
    "runs": {
        **_RUN,
        "id": (TEXT, "the run's identity, which copies of its folder share"),
        "created": (TEXT, "when the run was made, ISO 8601"),
        "code_version": (TEXT, "version of levelfield that made it"),
        "seed": (COUNT_OR_NA, "seed of every random draw"),
        "level": (TEXT, "smoke, quick, standard or thorough"),
        "margin": (NUMBER, "share below which a difference does not matter"),
        **columns_of(SessionRecord, "quiet", "waited_seconds", "foreign_share"),
        "quiet": (TEXT, columns_of(SessionRecord, "quiet")["quiet"][1]),
        "cells": (COUNT, "number of planned cells"),
        "suite": (TEXT, "the suite as run, as JSON"),
        "adapters": (TEXT, "framework -> package, version and hash of its adapter, as JSON"),
        "machine": (TEXT, "the machine, as JSON"),
        "locks": (TEXT, "label -> hash, packages and Python of each environment, as JSON"),
    },
    "cells": {**CELL, **_STATUS},
    "processes": {
        **_RUN,
        **_PROCESS,
        **columns_of(ProcessRecord, at_seconds="at"),
        **columns_of(
            ProcessRecord,
            *("arm", "purpose", "block", "interpreter", "how", "python", "lock_hash"),
            *("asked", "describe", "interpreter_seconds", "import_seconds", "device_seconds"),
            "cache_entries",
        ),
    },
    "startup": {
        **CELL,
        **_PROCESS,
        **STARTUP,
        **columns_of(
            StartupRecord, "second_step_seconds", "warm_up_seconds", "warm_up_steps", "capped"
        ),
        "cache": (TEXT, "compile caches as found: cold (filled here), warm, none (keeps none)"),
        "purpose": (TEXT, "purpose of the process"),
        "block": (COUNT_OR_NA, "number of the block that the process served"),
    },
    "gate": {**CELL, **_PROCESS, **_CHECKED},
    "checks": {**CELL, **_PROCESS, **_CHECKED},
    "closings": {
        **CELL,
        **_PROCESS,
        **columns_of(
            ClosingRecord, "passed", "reference_seconds", "worker_seconds", "note", "draws"
        ),
    },
    "calibrations": {
        **CELL,
        **_PROCESS,
        **columns_of(
            CalibrationRecord, "step_seconds", "slice_steps", "fence_seconds", "qualified_seconds"
        ),
    },
    "ceilings": {
        **_RUN,
        **columns_of(CeilingRecord, "threads", "what", "size_bytes", "per_second"),
    },
    "blocks": {
        **_RUN,
        **columns_of(BlockRecord, "block", "residency", "rounds", "seed", "arms"),
    },
    "rounds": {
        **_RUN,
        **columns_of(RoundRecord, "comparison"),
        **_BLOCK,
        "rule": (TEXT, "the rule by which it is disturbed"),
        "at_seconds": (NUMBER, "when it ended, seconds since 1970"),
        **columns_of(RoundRecord, "order"),
        "canary_seconds": (NUMBER, "median seconds of the canary loop"),
        "canary_spread": (NUMBER, "slowest over fastest canary of the round less 1"),
        **columns_of(RoundRecord, "wall_seconds"),
        "watched_cores": (
            COUNT,
            "number of cores that foreign and stolen shares refer to: those measured on and their"
            " hyper-thread siblings; in older runs all cores of the machine",
        ),
        "foreign_share": (NUMBER, "share of the watched cores that other programs used"),
        "steal_share": (NUMBER, "share of the watched cores that the hypervisor took"),
        "pressure_share": (NUMBER, "share of the time in which some task waited for a core"),
        **columns_of(RoundRecord, "throttled_seconds"),
        "major_faults": (COUNT, "page faults of the slices that went to disk"),
        **columns_of(RoundRecord, "load"),
    },
    "slices": {
        **CELL,
        **_PROCESS,
        **_BLOCK,
        **columns_of(SliceRecord, "statistic", at_seconds="at"),
        **columns_of(SliceRecord, "steps", "seconds"),
        "step_seconds": (NUMBER, "seconds per step (per token): the mean, with fences the median"),
        **columns_of(SliceRecord, "cpu_seconds", "wait_seconds", "switches"),
    },
    "steps": {
        **CELL,
        **_PROCESS,
        **columns_of(SliceRecord, "block", "round"),
        "step": (COUNT, "number of the step within its latency slice"),
        "step_seconds": (NUMBER, "seconds of this step, fenced"),
    },
    "memory": {
        **CELL,
        **_PROCESS,
        **columns_of(MemoryRecord, stage="phase"),
        **columns_of(
            MemoryRecord, "peak_bytes", "tree_bytes", "device_bytes", "framework_bytes", "reason"
        ),
    },
    "energy": {
        **CELL,
        **_PROCESS,
        **columns_of(EnergyRecord, "steps", "seconds", "joules_per_step", "idle_watts", "reason"),
    },
    "accuracy": {
        **CELL,
        **_PROCESS,
        **columns_of(
            AccuracyRecord,
            *("seed", "test_accuracy", "test_loss", "train_loss", "train_steps", "reason"),
        ),
    },
    "epochs": {
        **CELL,
        **_PROCESS,
        **columns_of(EpochRecord, "seed", "epoch"),
        **_LEARNED,
    },
    "summary": {
        **CELL,
        **_STATUS,
        "step_seconds": (NUMBER, "seconds per step: median over blocks of throughput's medians"),
        "step_seconds_low": (NUMBER, "lower end of the 95 % t interval over blocks"),
        "step_seconds_high": (NUMBER, "upper end of the 95 % t interval over blocks"),
        "latency_p50_seconds": (NUMBER, "median seconds of single fenced steps, pooled"),
        "latency_p95_seconds": (NUMBER, "95th percentile of the seconds of single fenced steps"),
        "latency_p99_seconds": (NUMBER, "99th percentile of the seconds of single fenced steps"),
        "first_token_seconds": (
            NUMBER,
            "generation: seconds from prompt to first token, median over blocks of medians",
        ),
        "further_token_seconds": (
            NUMBER,
            "generation: seconds for each token after the first, median over blocks of medians",
        ),
        "mean_over_median": (
            NUMBER,
            "step_seconds / latency_p50_seconds: rare slow steps raise it",
        ),
        "examples_per_second": (NUMBER, "batch / step_seconds"),
        "concurrency": (NUMBER, "CPU seconds over seconds, median over throughput slices"),
        "wait_share": (NUMBER, "seconds that its threads waited for a core over seconds, median"),
        "interpreter_seconds": (
            NUMBER,
            "seconds until the interpreter was up, median of processes",
        ),
        "import_seconds": (NUMBER, "seconds to import the framework, median of processes"),
        "device_seconds": (
            NUMBER,
            "seconds to configure it and open the device, median of processes",
        ),
        **{
            name: (kind, f"{words}, median of processes") for name, (kind, words) in STARTUP.items()
        },
        "startup_seconds": (NUMBER, "interpreter to first step, median of processes"),
        "warm_up_seconds": (NUMBER, "seconds from the second step to the steady state, median"),
        "capped_share": (NUMBER, "share of processes whose warm-up ended at its cap"),
        "cold_first_step_seconds": (NUMBER, "compile and first step; NaN if found in a cache"),
        "cache": (TEXT, "compile caches as that first process found them: cold, warm or none"),
        "first_step_extra_seconds": (NUMBER, "first_step_seconds - step_seconds"),
        "peak_bytes": (
            COUNT_OR_NA,
            "greatest peak resident bytes of all stages, each the median of processes",
        ),
        "peak_over_import_bytes": (COUNT_OR_NA, "greatest peak after import less import's own"),
        "output_error": (NUMBER, "largest relative error of outputs; inf for one that is NaN"),
        "gradient_error": (NUMBER, "largest relative error of gradients; inf for one that is NaN"),
        "worst_error_share": (NUMBER, "largest error / tolerance of all checks; 1 just passes"),
        "loose": (
            TEXT,
            "answers that either gate judged loosely, and up to which error; empty if none",
        ),
        "test_accuracy": (NUMBER, "share of test examples answered right, 0 to 1"),
        "test_loss": (NUMBER, "loss on the test examples"),
        "flops": (NUMBER, "floating-point operations that a step needs, by the model definition"),
        "roofline_share": (NUMBER, "time that the machine's ceilings allow over step_seconds"),
        "blocks": (COUNT, "blocks that count: fresh processes of this arm"),
        "slices": (COUNT, "throughput slices of these blocks"),
    },
    "verdicts": {
        **_RUN,
        "comparison": (TEXT, "id of the comparison"),
        "statistic": (TEXT, "throughput, latency, first_token or further_token"),
        "first": (TEXT, "an arm"),
        "second": (TEXT, "another arm of the comparison"),
        "verdict": (TEXT, "faster; faster, size uncertain; tie; inconclusive; void"),
        "faster": (TEXT, "the faster arm where there is one"),
        "ratio": (NUMBER, "seconds of first over seconds of second"),
        "low": (NUMBER, "lower end of the pair's interval at its own level"),
        "high": (NUMBER, "upper end of the pair's interval at its own level"),
        "confidence": (NUMBER, "level of the interval, corrected for looks and by Holm"),
        "p_value": (NUMBER, "p-value of a ratio of 1, corrected by Holm"),
        "blocks": (COUNT, "blocks in which both were measured"),
        "margin": (NUMBER, "share below which a difference does not matter, as used"),
        "provisional": (TRUTH, "whether the difference is below 5 % and from one session alone"),
        "disputed": (TRUTH, "whether bootstrap-t gives another interval"),
        "further_blocks": (COUNT_OR_NA, "more blocks that would settle an open verdict"),
        "reason": (TEXT, "why it is void or inconclusive"),
        "control_ratio": (NUMBER, "ratio of the A/A twin to its original in the same rounds"),
        "control_half_width": (NUMBER, "half of its 95 % interval, a fraction"),
    },
}
