"""The words of a plan that several parts of the harness use."""

PHASES = ("inference", "training", "generation")
STATISTICS = ("throughput", "latency")
PROFILES = ("default", "tuned")
NUMERICS = ("float32", "int8")  # each with its tolerances in harness.proof.gate
DEVICES = ("cpu", "cuda")
PRESETS = ("tiny", "small", "paper")
RESIDENCIES = ("resident", "sequential")
TWIN = "#2"  # the suffix of an arm's A/A twin
