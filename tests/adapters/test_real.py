"""Every built-in arm for real: its sealed environment, the tiny presets, one worker for all models.

An arm whose environment is not built is skipped, saying which command builds it.
"""

from __future__ import annotations

import functools
import json
import os
import queue
import random
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pandas
import pytest

from levelfield import reference
from levelfield.harness.analysis.comparisons import comparisons_of
from levelfield.harness.analysis.summary import summary
from levelfield.harness.engine import session
from levelfield.harness.engine.requests import Worker
from levelfield.harness.engine.workers import Workers
from levelfield.harness.environments import sealed
from levelfield.harness.machine.resources import available_cores, cache_entries
from levelfield.harness.plan.arms import arms, get_arm
from levelfield.harness.plan.cells import Cell, plan, with_twin
from levelfield.harness.plan.suite import Suite, load_suite, validated
from levelfield.harness.proof.cases import CaseFile, Cases
from levelfield.harness.records import frames, store
from levelfield.harness.report.tables import comparison_tables
from levelfield.reference.case import draw_case
from tests.support.engine import Silent
from tests.support.long import QUICK, long_unless
from tests.support.solved import remember_answers

OURS = "levelfield.adapters."
BUILT_IN = sorted(name for name, arm in arms().items() if arm.framework.package.startswith(OURS))
TINY = set(load_suite("tiny").arms)
# What no machine has to have is no part of the test command: it would be another one everywhere.
# The first arm of each framework: others share its model files, also those of other backends.
LEADING = {
    next(name for name, other in arms().items() if other.framework is arm.framework)
    for arm in arms().values()
}
# In `make test`: a net of each kind of these, in turn, and of any other arm a small one at least.
# `make test-long` has every file of every arm.
FIRST = (
    *("torch:eager", "keras:tensorflow", "tensorflow:function", "jax:jit"),
    *("onnxruntime:cpu", "reference:numpy"),
)
TIMED = ("torch:eager", "jax:jit", "keras:tensorflow", "onnxruntime:cpu")
PROPER = {"sealed", "found"}  # not what this interpreter happens to import


class SharedCases(Cases):
    """What the reference solved for one arm serves all others: it takes minutes for all models."""

    solved_cases: ClassVar[dict[Any, Any]] = {}
    locks: ClassVar[dict[Any, threading.Lock]] = {}
    folder: ClassVar[Path]

    def solved(self, cell: Cell) -> Any:
        optimizers = (proven_with(self.suite, cell.model),)

        def solve(cases: Cases) -> Any:
            return Cases(replace(cases.suite, optimizers=optimizers), cases.scratch).solved(cell)

        return self.once("solved", cell, solve)

    def closing(self, cell: Cell, draw: int = 0) -> Any:
        def close(cases: Cases) -> Any:
            cases._solved[cell.model, cell.preset, cell.batch] = self.solved(cell)
            return cases.closing(cell, draw)

        return self.once("closing", cell, close, cell.phase, cell.optimizer, draw)

    def learned(self, cell: Cell, seed: int) -> Any:
        epochs = self.suite.effort.accuracy_epochs
        return self.once(
            "learned", cell, lambda cases: cases.learned(cell, seed), cell.optimizer, seed, epochs
        )

    def once(self, what: str, cell: Cell, work: Callable[[Cases], Any], *more: Any) -> Any:
        suite = self.suite
        key = (what, cell.model, cell.preset, cell.batch, suite.seed, suite.optimizers, *more)
        with self.locks.setdefault(key, threading.Lock()):
            if key not in self.solved_cases:
                folder = self.folder / str(abs(hash(key)))
                folder.mkdir()
                self.solved_cases[key] = work(Cases(suite, folder))
            return self.solved_cases[key]


@pytest.fixture(scope="module", autouse=True)
def shared_cases(answers: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    SharedCases.folder = tmp_path_factory.mktemp("cases")
    with pytest.MonkeyPatch.context() as patch:
        remember_answers(patch, answers)
        patch.setattr("levelfield.harness.engine.engine.Cases", SharedCases)
        yield


def measured(
    suite: Suite,
    folder: Path,
    *,
    only_gate: bool = False,
    cells: Sequence[Cell] | None = None,
) -> frames.Frames:
    cells = plan(suite) if cells is None else list(cells)
    resolutions = session.resolve_arms(with_twin(suite), {})
    assert {resolution.how for resolution in resolutions.values()} <= PROPER
    with store.create(folder, "tiny", session.describe_run(suite, cells, resolutions)) as run:
        session.measure(
            run,
            suite,
            cells,
            resolutions=resolutions,
            progress=Silent(),
            only_gate=only_gate,
        )
    return frames.load(run.path)


def tiny_of(arm: str, **changes: Any) -> Suite:
    resolution = sealed.resolve(arms()[arm].mode.environment, {})
    if resolution.how not in PROPER:
        pytest.skip(f"neither sealed nor found: {resolution.reason}")
    return validated(replace(load_suite("tiny"), arms=(arm,), twin="none", **changes))


def offered(arm: str, loaded: frames.Frames) -> pandas.DataFrame:
    """The cells that the arm says it can do: all of them must be ok."""
    table = summary(loaded)
    table = table[table["phase"].isin(arms()[arm].mode.phases)]
    expected = [expected_status(row) for row in table.to_dict("records")]
    failed = table[table["status"] != expected]
    assert failed[["model", "phase", "optimizer", "status", "reason"]].to_dict("records") == []
    return table[table["status"] == "ok"]


# What compiles longest goes first, so that in the end no core waits for another.
SLOW = (
    *("torch:compile", "theano:c", "torch:tuned", "tensorflow:xla", "flax:jit", "flax:tuned"),
    *("keras:jax", "keras:jax-fit", "pytensor:numba"),
)
LOOPED = ("lenet5", "resnet18", "rnn", "lstm", "gru", "vae", "dcgan")
FOUND = ("mlp", "lenet5", "lstm")  # of what a machine may lack: one net of each kind
DEEP = ("resnet18", "resnet50", "dcgan")  # which the slow ones compile for a minute each
DEEPER = {"resnet50", "resnet101", "resnet152", "googlenet"}  # left to `make test-long` by all arms
# What jax:jit proves in `make test-long`.
LATER = {*DEEP, *DEEPER, "bert", "encoder", "transformer", "vae", "neumf", "twotower"}
KINDS = (
    *(("mlp",), ("resnet18", "lenet5", "alexnet", "vgg11", "vgg16"), ("rnn", "lstm", "gru")),
    ("bert", "gpt2", "encoder", "transformer"),
    ("dcgan", "vae", "neumf", "twotower"),
)
SMALL = QUICK[:2]  # which every arm compiles in seconds
EMBEDDED = (
    "rnn",
    "lstm",
    "gru",
    "neumf",
    "bert",
    "encoder",
)  # with tables that no tied head makes dense


def is_written(arm: str, model: str) -> bool:
    framework = arms()[arm].framework
    return framework.generic or framework.model_file(model).exists()


def expected_status(row: dict[str, Any]) -> str:
    """What is known to be wrong, or not to be had, is so exactly; docs/differences.md says why."""
    if not is_written(row["arm"], row["model"]):
        return "unwritten"
    if row["arm"].endswith(("-fit", ":session")) and row["model"] == "dcgan":
        return "unsupported"
    if row["arm"] in ("keras2:cntk", "keras2:cntk-fit") and row["model"] == "lstm":
        return "wrong"  # its backend gives the memory for the output
    pooled = row["model"] == "lenet5" and row["phase"] == "training"
    if row["arm"].startswith("keras2:theano") and pooled:
        return "wrong"  # its backend gives the gradient whole to each of several largest values
    on_tensorflow = row["arm"].startswith("keras:tensorflow")
    if on_tensorflow and row["optimizer"] == "adam" and row["model"] in EMBEDDED:
        return "wrong"
    return "ok"


def on_cntk(arm: str) -> bool:
    """With one thread the MKL of 2018 that CNTK brings may divide by zero in Keras' convolutions,
    which is a signal and the end of the process."""
    return arm.startswith("keras2:cntk")


def shown(arm: str, suite: Suite) -> Sequence[str]:
    """What fit adds to the other arms of its backend is the loop: one net of each kind shows it."""
    if arm == "pytensor:numba":
        return ["mlp"]  # lenet5's training compiles for minutes; once, to be timed, is enough
    if arm not in TINY:
        return [name for name in FOUND if not (on_cntk(arm) and name == "lenet5")]
    return LOOPED if arm.endswith("-fit") else suite.models


def proven_with(suite: Suite, model: str) -> str:
    """The optimiser of all trainings of a model: the reference has to solve them with no other.

    The models of an arm take turns, so between them they show it with more than one.
    """
    return suite.optimizers[sorted(reference.definitions()).index(model) % len(suite.optimizers)]


def every_file(arm: str, suite: Suite) -> list[str]:
    """A model of each file that the arm shows; of those that share one, the arm's turn."""
    files: dict[str, list[str]] = {}
    for name in shown(arm, suite):
        files.setdefault(reference.get(name).file, []).append(name)
    number = BUILT_IN.index(arm)
    return [members[number % len(members)] for members in files.values()]


def short_choice(arm: str, suite: Suite) -> list[str]:
    """The models of an arm in `make test`."""
    later = LATER if arm == "jax:jit" else DEEPER
    written = [name for name in shown(arm, suite) if is_written(arm, name) and name not in later]
    kinds = [[name for name in kind if name in written] for kind in KINDS]
    if arm in FIRST:
        return [kind[FIRST.index(arm) % len(kind)] for kind in kinds if kind]
    number = BUILT_IN.index(arm)
    small = [name for name in SMALL if name in written]
    others = [name for name in written if name not in SMALL]
    if arm in SLOW:
        return small[:1]
    if arm not in LEADING:
        others = []
    return [small[number % len(small)], *others[number % len(others or [""]) :][:1]]


def in_turn(arm: str, *, whole: bool) -> list[Cell]:
    """The tiny cells of an arm: of models that share a file one, with one optimiser, and others
    for the next arm.

    If not ``whole``, without what takes longest: of an arm of ``FIRST`` a net of each kind, of the
    first arm of any other framework a small net and one more, and of all others a small net. All
    models under all optimisers would take longer than tests may; ``levelfield check --all --preset
    tiny`` does that.
    """
    suite = tiny_of(arm)
    names = every_file(arm, suite) if whole else short_choice(arm, suite)
    chosen = {name: proven_with(suite, name) for name in names}
    cells = [c for c in plan(suite) if c.model in chosen]
    return [c for c in cells if c.optimizer in (None, chosen[c.model])]


Results = dict[tuple[Any, ...], Future[frames.Frames]]


class OnDemand(Results):
    """Does the work for a key where it is asked for."""

    def __init__(self, work: Callable[..., frames.Frames]) -> None:
        super().__init__()
        self.work = work

    def __missing__(self, key: tuple[Any, ...]) -> Future[frames.Frames]:
        future: Future[frames.Frames] = Future()
        future.set_result(self.work(*key))
        return future


def side_by_side(
    request: pytest.FixtureRequest,
    test: str,
    work: Callable[..., frames.Frames],
) -> Results:
    """Do the work of every chosen test of that name, by its parameters, one arm to a core at a
    time.

    A process of pytest-xdist has one core and does the work of a test when that test asks for it.
    """
    if "PYTEST_XDIST_WORKER" in os.environ:
        return OnDemand(work)
    wanted = [
        tuple(item.callspec.params.values())
        for item in request.session.items
        if isinstance(item, pytest.Function)
        and item.originalname == test
        and sealed.resolve(arms()[item.callspec.params["arm"]].mode.environment, {}).how in PROPER
    ]
    cores = available_cores()
    free: queue.SimpleQueue[int] = queue.SimpleQueue()
    for core in cores:
        free.put(core)

    def on_a_core(*parameters: Any) -> frames.Frames:
        core = free.get()
        os.sched_setaffinity(0, {core})  # of this thread; a worker takes the first that it may
        try:
            return work(*parameters)
        finally:
            free.put(core)

    wanted.sort(key=lambda parameters: parameters[0] not in SLOW)
    with ThreadPoolExecutor(len(cores)) as pool:
        return {key: pool.submit(on_a_core, *key) for key in wanted}


@pytest.fixture(scope="module")
def proved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """The gate of every arm."""

    def prove(arm: str, whole: bool) -> frames.Frames:
        folder, cells = tmp_path_factory.mktemp("proved"), in_turn(arm, whole=whole)
        return measured(tiny_of(arm), folder, only_gate=True, cells=cells)

    return side_by_side(request, "test_an_arm_proves_its_tiny_models", prove)


@pytest.fixture(scope="module")
def timed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Blocks of an arm of each kind, with what it learned in two epochs; of others later."""
    # Memory probes start a process per cell; they are tested with one arm below.
    effort = replace(load_suite("tiny").effort, memory=False, accuracy_epochs=2)

    def time(arm: str) -> frames.Frames:
        chosen = {"models": ("lenet5",), "optimizers": ("adam",), "threads": (threads_of(arm),)}
        if threads_of(arm) > 1:
            os.sched_setaffinity(0, available)
        return measured(tiny_of(arm, effort=effort, **chosen), tmp_path_factory.mktemp("timed"))

    available = set(available_cores())
    return side_by_side(request, "test_an_arm_is_timed_in_blocks", time)


def threads_of(arm: str) -> int:
    """With two, what divides by zero with one does not."""
    return 2 if on_cntk(arm) else 1


@pytest.mark.real
@pytest.mark.parametrize(
    ("arm", "whole"),
    [long_unless(not whole, arm, whole) for arm in BUILT_IN for whole in {arm not in TINY, True}],
)
def test_an_arm_proves_its_tiny_models(arm: str, whole: bool, proved: Results) -> None:
    tiny_of(arm)  # which skips where there is no environment
    loaded = proved[arm, whole].result()
    table = offered(arm, loaded)
    assert len(loaded.processes) == 1, "one worker serves all cells of an arm"
    assert (table["first_step_seconds"] > 0).all()
    inferred = table[table["phase"] != "generation"]
    assert (inferred["output_error"] < 1e-5).all()


@pytest.mark.real
@pytest.mark.alone
@pytest.mark.parametrize("arm", [long_unless(arm in TIMED, arm) for arm in BUILT_IN])
def test_an_arm_is_timed_in_blocks(arm: str, timed: Results) -> None:
    tiny_of(arm)  # which skips where there is no environment
    loaded = timed[arm,].result()
    table = offered(arm, loaded)
    assert sorted(loaded.processes["purpose"]) == ["qualification", "resident"]
    assert (table["step_seconds"] > 0).all()
    assert (table["concurrency"] < threads_of(arm) + 0.05).all()
    learned = table[table["phase"] == "training"]
    assert list(loaded.epochs["epoch"]) == [1, 2] * len(learned)
    last = loaded.epochs["test_accuracy"][1::2]
    assert list(learned["test_accuracy"]) == list(last)
    assert (last > 0).all()
    description = json.loads(loaded.processes["describe"].iloc[-1])
    assert description["version"]
    assert description.get("device", "cpu") == "cpu"


COMPILE = (
    *("torch:compile", "tensorflow:function", "tensorflow:xla", "keras:tensorflow", "keras:jax"),
    *("jax:jit", "flax:jit", "reference:jax"),
)


@pytest.mark.real
@pytest.mark.parametrize(
    "arm",
    # Another arm of the same adapter counts in the same way.
    [long_unless(arm not in ("tensorflow:xla", "keras:jax"), arm) for arm in COMPILE],
)
def test_what_compiles_counts_its_compilations(arm: str, tmp_path: Path) -> None:
    """A count that never moved would let a recompilation inside a slice pass unseen."""
    suite = tiny_of(arm, models=("mlp",), phases=("inference",))
    (cell,) = plan(suite)
    resolution = session.resolve_arms(suite.arms, {})
    with store.create(tmp_path, "count", session.describe_run(suite, [cell], resolution)) as run:
        workers = Workers(run, suite.limits, resolution, tmp_path, random.Random(0))
        case = Cases(suite, tmp_path).solved(cell)[0]
        with workers.start(get_arm(arm), cell, purpose="qualification") as worker:
            worker.load(cell, case)
            slots = [
                worker.slot(cell, 3, extra=0, kinds=["throughput"], rewarm_seconds=0)
                for _ in range(2)
            ]
            worker.load(cell, case)  # functions made anew, which the slice is the first to call
            cold = worker.slot(cell, 3, extra=0, kinds=["throughput"], rewarm_seconds=None)
    assert slots[1].reply.compiled == 0
    assert cold.reply.compiled > 0


# Arm -> whether it fills the cache of its run; docs/cold.md has what each of them would leave.
KEEPS = {
    "torch:compile": True,
    "tensorflow:function": False,
    "keras:jax": False,
    "onnxruntime:cpu": False,
    "openvino:cpu": False,
}
WATCHED = ("HOME", "TMPDIR")  # folders of the user that a process must leave as they are


@pytest.mark.real
@pytest.mark.parametrize(
    ("arm", "fills"), [long_unless(arm != "keras:jax", arm, fills) for arm, fills in KEEPS.items()]
)
def test_a_process_leaves_nothing_but_the_cache_of_its_run(
    arm: str, fills: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two runs of one arm: the second finds no file of the first, so its start is as cold."""
    suite = tiny_of(arm, models=("mlp",), phases=("inference",))
    (cell,) = plan(suite)
    resolutions = session.resolve_arms(suite.arms, {})
    interpreter = resolutions[arm].interpreter
    assert interpreter is not None
    environment = interpreter.parents[1]
    description = session.describe_run(suite, [cell], resolutions)
    case = Cases(suite, tmp_path).solved(cell)[0]
    for name in WATCHED:
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))
    for label in ("first", "second"):
        scratch = tmp_path / f"scratch-{label}"
        with store.create(tmp_path, label, description) as run:
            workers = Workers(run, suite.limits, resolutions, scratch, random.Random(0))
            with workers.start(get_arm(arm), cell, purpose="qualification") as worker:
                startup = worker.start_up(cell, case)
        assert (startup.new_cache_entries > 0) is fills
        # Where nothing is compiled, nothing else may pass for a filled cache.
        assert (cache_entries(worker.cache) > 0) is fills
        files = [path for path in scratch.rglob("*") if path.is_file()]
        assert all(worker.cache in path.parents for path in files)
        for name in WATCHED:
            assert list((tmp_path / name).iterdir()) == []
    built = (environment / sealed.MARKER).stat().st_mtime
    assert [p for p in environment.rglob("*") if p.lstat().st_mtime > built] == []


@pytest.mark.real
@pytest.mark.parametrize(
    "arm", [long_unless(arm == "theano:c", arm) for arm in SLOW if arm in LEADING and arm in TINY]
)
def test_the_deep_models_of_a_slow_arm_have_the_arrays_of_their_definitions(
    arm: str, tmp_path: Path
) -> None:
    """Their steps compile for a minute, which is a test for `make test-long`; a load is short."""
    suite = tiny_of(arm, phases=("training",), optimizers=("sgd",))
    written = [name for name in DEEP if is_written(arm, name)]
    cells = [cell for cell in plan(suite) if cell.model in written]
    assert cells
    resolutions = session.resolve_arms(suite.arms, {})
    description = session.describe_run(suite, cells, resolutions)
    with store.create(tmp_path, "deep", description) as run:
        workers = Workers(run, suite.limits, resolutions, tmp_path, random.Random(0))
        with workers.start(get_arm(arm), cells[0], purpose="qualification") as worker:
            for cell in cells:
                draw = functools.partial(draw_case, cell.model, "tiny", 1)
                worker.load(cell, CaseFile(tmp_path / cell.model / "case.npz", draw))


@pytest.mark.real
def test_theano_refuses_its_python_fallback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice: where interpreters are looked for, and in the adapter, whoever found it."""
    suite = tiny_of("theano:c", models=("mlp",), phases=("inference",))
    resolutions = session.resolve_arms(suite.arms, {})
    monkeypatch.setenv("PATH", str(tmp_path))
    missing = sealed.resolve(get_arm("theano:c").mode.environment, {})
    assert missing.interpreter is None and missing.reason.startswith("g++ is not on PATH")
    description = session.describe_run(suite, plan(suite), resolutions)
    with store.create(tmp_path, "refused", description) as run:
        session.measure(run, suite, plan(suite), resolutions=resolutions, progress=Silent())
    (row,) = summary(frames.load(run.path)).to_dict("records")
    assert row["status"] == "unsupported" and "without g++" in row["reason"]
    assert pandas.isna(row["step_seconds"])


@pytest.mark.real
@pytest.mark.alone
@pytest.mark.long  # tests/harness/test_engine.py has them of a small net that generates
def test_first_and_further_tokens_are_told_apart(tmp_path: Path) -> None:
    suite = tiny_of("torch:eager", models=("gpt2",), phases=("generation",), presets=("small",))
    loaded = measured(suite, tmp_path)
    (row,) = offered("torch:eager", loaded).to_dict("records")
    tokens = draw_case("gpt2", "small", 1, batch=1, sets=1).sizes["new_tokens"]
    assert row["first_token_seconds"] > row["further_token_seconds"] > 0
    whole = row["first_token_seconds"] + (tokens - 1) * row["further_token_seconds"]
    assert whole == pytest.approx(row["step_seconds"], rel=0.2)
    assert pandas.isna(row["latency_p50_seconds"])
    assert set(loaded.slices["statistic"]) == {"throughput", "first_token", "further_token"}
    (table,) = comparison_tables(loaded, comparisons_of(loaded))
    assert {"first token (ms)", "per further token (ms)"} < set(table.cells)


CACHED = (
    *("torch:eager", "jax:jit", "tensorflow:function", "keras:jax", "flax:jit"),
    *("reference:jax", "reference:numpy"),
)


@pytest.mark.real
@pytest.mark.alone
@pytest.mark.parametrize("arm", [long_unless(arm == CACHED[0], arm) for arm in CACHED])
def test_decoding_uses_its_cache(arm: str, tmp_path: Path) -> None:
    """A further token costs a fraction of the forward pass that computing it anew would take."""
    suite = tiny_of(arm, models=("gpt2",), presets=("small",), batches=(16,))
    inference, generation = (c for c in plan(suite) if c.phase in ("inference", "generation"))
    resolution = session.resolve_arms(suite.arms, {})
    cells = [inference, generation]
    with store.create(tmp_path, "cache", session.describe_run(suite, cells, resolution)) as run:
        workers = Workers(run, suite.limits, resolution, tmp_path, random.Random(0))
        path = tmp_path / "case" / "case.npz"
        case = CaseFile(path, lambda: draw_case("gpt2", "small", 1, batch=16))
        with workers.start(get_arm(arm), inference, purpose="qualification") as worker:
            forward, whole, first = [], [], []
            for _ in range(3):
                worker.load(inference, case)
                worker.warm_up(inference, suite.effort)
                forward.append(seconds_of(worker, inference, "throughput"))
                worker.load(generation, case)
                worker.warm_up(generation, suite.effort)
                whole.append(seconds_of(worker, generation, "throughput"))
                first.append(seconds_of(worker, generation, "first_token"))
    sizes = draw_case("gpt2", "small", 1, batch=16, sets=1).sizes
    further = (min(whole) - min(first)) / (sizes["new_tokens"] - 1)
    # The forward pass is over as many positions as the prompt has: later tokens would cost more.
    assert sizes["time"] <= sizes["prompt"]
    assert further < 0.5 * min(forward)


PACKED_OR_PADDED = """
import json

import torch
from torch.profiler import ProfilerActivity, profile

from levelfield.adapters.torch import recurrent

results = {}
for cell in ("rnn", "lstm", "gru"):
    sizes = {"cell": cell, "vocabulary": 20, "width": 5, "units": 7, "classes": 3}
    torch.manual_seed(0)
    packed, padded = recurrent.build(sizes), recurrent.build_tuned(sizes)
    padded.load_state_dict(packed.state_dict())
    length = torch.tensor([6, 1, 4, 3])
    tokens = torch.randint(1, 20, (4, 6)) * (torch.arange(6) < length[:, None])
    gradients, operators = [], []
    for model in (packed, padded):
        with profile(activities=[ProfilerActivity.CPU]) as profiled:
            model(tokens, length).square().sum().backward()
        named = [p.grad for p in model.parameters() if p.requires_grad]
        gradients.append(torch.cat([gradient.flatten() for gradient in named]))
        keys = [event.key for event in profiled.key_averages()]
        operators.append(any("mkldnn_rnn_layer_backward" in key for key in keys))
    difference = (gradients[0] - gradients[1]).norm() / gradients[0].norm()
    results[cell] = {"difference": float(difference), "onednn": operators}
print(json.dumps(results))
"""


@pytest.mark.real
def test_padded_sequences_have_the_gradients_of_packed_ones_and_reach_onednn() -> None:
    """The reason for two ways of writing one model: if packing uses oneDNN, one way is enough."""
    tiny_of("torch:eager")
    python = sealed.resolve(get_arm("torch:eager").mode.environment, {}).interpreter
    assert python is not None
    done = subprocess.run(
        [str(python), "-c", PACKED_OR_PADDED],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parent.parent.parent,
    )
    results = json.loads(done.stdout.splitlines()[-1])
    assert {cell: result["onednn"] for cell, result in results.items()} == {
        "rnn": [False, False],
        "lstm": [False, True],
        "gru": [False, False],
    }
    assert max(result["difference"] for result in results.values()) < 1e-5


@pytest.mark.real
@pytest.mark.long
def test_the_tuned_recurrent_models_of_torch_pass_the_gate(tmp_path: Path) -> None:
    models, optimizers = ("rnn", "lstm", "gru"), ("adam",)
    suite = tiny_of("torch:tuned", models=models, optimizers=optimizers)
    table = offered("torch:tuned", measured(suite, tmp_path, only_gate=True))
    assert sorted(table["model"]) == ["gru", "gru", "lstm", "lstm", "rnn", "rnn"]


def seconds_of(worker: Worker, cell: Cell, kind: str) -> float:
    # Every slot has a throughput slice; where another kind is asked for it comes first.
    kinds = list(dict.fromkeys([kind, "throughput"]))
    slot = worker.slot(cell, 4, extra=0, kinds=kinds, rewarm_seconds=0)
    return slot.reply.slices[kind].seconds / 4


@pytest.mark.real
@pytest.mark.long
def test_all_arms_learn_the_digits_alike(tmp_path: Path) -> None:
    """Same data, same order, same start: what differs at the end is arithmetic alone."""
    names = ("reference:jax", "torch:eager", "tensorflow:function", "jax:jit", "flax:jit")
    names = tuple(n for n in names if sealed.find(arms()[n].mode.environment) is not None)
    if len(names) < 2:
        pytest.skip("fewer than two sealed environments; type: levelfield env build")
    tiny = load_suite("tiny")
    suite = validated(
        replace(
            tiny,
            arms=names,
            models=("mlp",),
            presets=("small",),
            phases=("training",),
            optimizers=("adam",),
            batches=(64,),
            effort=replace(tiny.effort, accuracy_epochs=5),
        )
    )
    table = summary(measured(replace(suite, twin="none"), tmp_path))
    assert list(table["status"]) == ["ok"] * len(names)
    assert (table["test_accuracy"] > 0.9).all()
    # One test image is 1/360; rounding may tip a few that lie on the border.
    assert table["test_accuracy"].max() - table["test_accuracy"].min() <= 3 / 360
    assert (table["test_loss"] / table["test_loss"].mean() - 1).abs().max() < 0.02
    # A framework's import alone takes more than the bare interpreter: the memory phases are real.
    assert (table["peak_bytes"] > 30e6).all()
    assert (table["peak_over_import_bytes"] > 0).all()
