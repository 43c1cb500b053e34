"""Layout conversion by axis name, and the contract's own defaults."""

from __future__ import annotations

import ast
import json
import math
import re
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from levelfield import reference
from levelfield.adapters import layout as layouts
from levelfield.adapters.base import (
    Adapter,
    Mismatch,
    Unsupported,
    canonical_name,
    epsilon_hat,
    fitted,
    refines,
)
from levelfield.adapters.layout import Layout
from levelfield.adapters.on_functions import OnFunctions, make_updates
from levelfield.adapters.on_keras import BOTH_BIASES, OnKeras
from levelfield.adapters.questions import Questions
from levelfield.reference import optimizers
from levelfield.reference.case import draw_case
from levelfield.reference.layers_onnx import IMAGES

CHANNELS_FIRST = Layout({**layouts.CHANNELS_FIRST, ("in", "out"): ("out", "in")})


def dims(*names_and_sizes: tuple[str, int]) -> list[list[object]]:
    return [[name, [[name, size]]] for name, size in names_and_sizes]


IMAGE = dims(("batch", 2), ("height", 3), ("width", 4), ("channel", 5))
FLATTENED_KERNEL = [["in", [["height", 3], ["width", 4], ["channel", 5]]], ["out", [["out", 7]]]]


def test_images_and_kernels_are_transposed() -> None:
    image = np.arange(120.0).reshape(2, 3, 4, 5)
    native = CHANNELS_FIRST.to_native(image, IMAGE)
    np.testing.assert_array_equal(native, image.transpose(0, 3, 1, 2))
    assert native.flags.c_contiguous


def test_a_dense_kernel_behind_a_flattened_image_follows_the_image() -> None:
    """flatten(native image) @ native kernel must equal flatten(image) @ kernel."""
    stream = np.random.default_rng(0)
    image, kernel = stream.standard_normal((2, 3, 4, 5)), stream.standard_normal((60, 7))
    expected = image.reshape(2, -1) @ kernel
    native_image = CHANNELS_FIRST.to_native(image, IMAGE)
    native_kernel = CHANNELS_FIRST.to_native(kernel, FLATTENED_KERNEL)
    np.testing.assert_allclose(native_image.reshape(2, -1) @ native_kernel.T, expected)
    wrong = native_image.reshape(2, -1) @ kernel
    assert not np.allclose(wrong, expected)


@pytest.mark.parametrize("dimensions", [IMAGE, FLATTENED_KERNEL, dims(("out", 6))])
def test_the_way_back_is_the_inverse(dimensions: list[list[object]]) -> None:
    shape = [int(np.prod([size for _, size in factors])) for _, factors in dimensions]  # type: ignore[union-attr, misc]
    values = np.random.default_rng(1).standard_normal(shape)
    native = CHANNELS_FIRST.to_native(values, dimensions)
    np.testing.assert_array_equal(CHANNELS_FIRST.to_canonical(native, dimensions), values)


def test_an_empty_layout_changes_nothing() -> None:
    image = np.arange(120.0).reshape(2, 3, 4, 5)
    np.testing.assert_array_equal(Layout().to_native(image, IMAGE), image)


def test_the_contract_says_of_every_method_whether_it_is_timed() -> None:
    methods = [value for name, value in vars(Adapter).items() if callable(value)]
    unsaid = [
        m.__name__ for m in methods if "imed" not in (m.__doc__ or "") and m.__name__ != "wait"
    ]
    assert unsaid == []


@pytest.mark.parametrize(
    "name",
    [
        *("harness/worker/worker.py", "harness/worker/measure.py"),
        *("adapters/base.py", "adapters/layout.py", "adapters/questions.py"),
    ],
)
def test_what_runs_in_every_interpreter_is_python_3_6(name: str) -> None:
    source = (Path(__file__).parent.parent.parent / name).read_text(encoding="utf-8")
    ast.parse(source, feature_version=(3, 6))
    for word in ("perf_counter_ns", "dataclass", "capture_output", "nullcontext", "annotations"):
        assert word not in source


def test_gates_are_reordered_by_the_name_of_their_axis() -> None:
    layout = Layout(entries={"gru_gate": (1, 0, 2)})
    gates = [["in", [["in", 2]]], ["out", [["gru_gate", 3], ["unit", 2]]]]
    kernel = np.array([[0, 1, 10, 11, 20, 21], [2, 3, 12, 13, 22, 23]])  # r, z, n
    native = layout.to_native(kernel, gates)
    np.testing.assert_array_equal(native, [[10, 11, 0, 1, 20, 21], [12, 13, 2, 3, 22, 23]])
    np.testing.assert_array_equal(layout.to_canonical(native, gates), kernel)
    other = Layout(entries={"gru_gate": (2, 0, 1)})  # not its own inverse
    np.testing.assert_array_equal(other.to_canonical(other.to_native(kernel, gates), gates), kernel)


ADAPTERS = Path(__file__).parents[2] / "adapters"


# The constants from which layouts are written.
ORDERS = {"IMAGES": IMAGES, "CHANNELS_FIRST": layouts.CHANNELS_FIRST}


def orders_of(node: ast.expr) -> dict[Any, Any]:
    """The orders that a layout is given: a constant, or a dict that may unpack constants."""
    if isinstance(node, ast.Name):
        return ORDERS[node.id]
    assert isinstance(node, ast.Dict)
    caches: dict[Any, Any] = {}
    for key, value in zip(node.keys, node.values, strict=True):
        one = {ast.literal_eval(key): ast.literal_eval(value)} if key else orders_of(value)
        caches.update(one)
    return caches


def folder_or_file(path: Path) -> str:
    """The framework of a file, or the name of a file that several frameworks share."""
    return path.stem if path.parent == ADAPTERS else path.parent.name


def layouts() -> dict[str, Layout]:
    """The layout of every adapter, read from its sources: importing them needs the frameworks."""
    answers = {}
    for path in ADAPTERS.rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            named = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "LAYOUT"
            if named and isinstance(node.value, ast.Call):  # type: ignore[union-attr]
                call = node.value  # type: ignore[union-attr]
                assert ast.unparse(call.func) == "Layout"
                positional = [orders_of(argument) for argument in call.args]
                named_ones = {word.arg: ast.literal_eval(word.value) for word in call.keywords}
                answers[folder_or_file(path)] = Layout(*positional, **named_ones)
    return answers


LAYOUTS = layouts()


def test_every_layout_was_found() -> None:
    written = {
        folder_or_file(path)
        for path in ADAPTERS.rglob("*.py")
        if re.search(r"^LAYOUT = Layout\(", path.read_text(), re.MULTILINE)
    }
    assert set(LAYOUTS) == written
    assert len(written) >= 12


@pytest.mark.parametrize("name", LAYOUTS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_every_array_of_every_model_comes_back_through_every_layout(
    name: str, data: st.DataObject
) -> None:
    layout, model = LAYOUTS[name], data.draw(st.sampled_from(list(reference.definitions())))
    summary = reference.summarize(reference.get(model), "tiny", data.draw(st.integers(1, 5)))
    kind = data.draw(st.sampled_from(["parameters", "state", "inputs", "outputs"]))
    for spec in getattr(summary, kind):
        dimensions = [dimension.to_json() for dimension in spec.dimensions]
        values = np.arange(math.prod(spec.shape)).reshape(spec.shape)
        native = layout.to_native(values, dimensions)
        assert sorted(native.shape) == sorted(values.shape)
        np.testing.assert_array_equal(layout.to_canonical(native, dimensions), values)


class Held(Adapter):
    """An adapter of which only the common work runs."""


def begun(model: str = "mlp", **functions: Callable[..., Any]) -> Held:
    adapter = Held.__new__(Held)
    module = types.ModuleType("levelfield.adapters.some.file")
    vars(module).update({"build": lambda sizes: None, **functions})
    adapter.begin(module, case_of(model), {"softmax_cross_entropy": None})
    return adapter


def case_of(model: str) -> Any:
    case = draw_case(model, "tiny", seed=0, batch=2)
    meta = {**case.meta(), "optimizers": {"sgd": {}}}
    arrays = {"parameter": case.parameters, "state": case.state}
    return Questions(meta, arrays, list(case.inputs), "sgd")


def test_sets_come_in_turn_and_begin_again() -> None:
    adapter = begun()
    assert [adapter.next("abc") for _ in range(5)] == ["a", "b", "c", "a", "b"]
    adapter.begin(None, adapter.case)
    assert adapter.next("abc") == "a"
    assert set(adapter.used[0]) == {"features"} < set(adapter.sets[0])


class OnlyCpu(Adapter):
    """An adapter that keeps what it was configured with."""

    no_gpu = "its kernels are written for processors"

    def configure(self) -> None:
        self.asked = self.device, self.mode, self.threads, self.precision


def test_an_adapter_without_a_gpu_says_why_and_others_are_configured() -> None:
    assert OnlyCpu("cpu", "eager", 2, "int8").asked == ("cpu", "eager", 2, "int8")
    with pytest.raises(Unsupported, match=r"^its kernels are written for processors$"):
        OnlyCpu("cuda", "eager", 2, "float32")
    assert Held("cuda", "eager", 1, "float32").device == "cuda"


def test_the_only_objective_has_a_name_and_several_are_refused_in_one_line() -> None:
    adapter = begun()
    assert adapter.loss_name == "loss"
    assert adapter.objective is adapter.objectives["loss"]
    names = ("discriminator_loss", "generator_loss")
    adapter = begun("dcgan", **dict.fromkeys(names, lambda model, inputs: 0.0))
    with pytest.raises(Unsupported, match=r"^this adapter trains one objective, and dcgan has 2$"):
        adapter.objective(None, adapter.sets[0])
    trained = adapter.trained_by_each(adapter.case.parameters)
    assert set(trained) == set(names)
    first, second = (set(names) for names in trained.values())
    assert first.isdisjoint(second)
    assert first | second == set(adapter.case.parameters)


def test_prompts_are_placed_once_and_only_where_tokens_are_generated() -> None:
    assert begun().prompts == []
    adapter = begun("gpt2", generate=lambda model, prompt, count: None)
    assert len(adapter.prompts) == len(adapter.sets)
    pairs = zip(adapter.prompts, adapter.sets, strict=True)
    name = adapter.case.generation["prompt"]
    assert all(prompt is inputs[name] for prompt, inputs in pairs)


def arrays_of(adapter: Held) -> dict[str, np.ndarray[Any, Any]]:
    return {name: np.zeros_like(value) for name, value in adapter.case.parameters.items()}


def test_names_that_do_not_fit_are_told_apart_in_one_line() -> None:
    adapter = begun()
    held = arrays_of(adapter)
    held["hidden9/kernel"] = held.pop("hidden1/kernel")
    with pytest.raises(Mismatch) as raised:
        list(adapter.given(held))
    assert str(raised.value) == (
        "the built mlp lacks hidden1/kernel and has no use for hidden9/kernel"
    )
    del held["hidden9/kernel"]
    with pytest.raises(Mismatch, match=r"^the built mlp lacks hidden1/kernel$"):
        list(adapter.given(held))


def test_a_wrong_shape_or_dtype_is_named_with_its_array() -> None:
    adapter = begun()
    held = arrays_of(adapter)
    held["hidden1/kernel"] = held["hidden1/kernel"].T
    with pytest.raises(
        Mismatch, match=r"^hidden1/kernel has shape \(64, 32\) in the built model, "
    ):
        list(adapter.given(held))
    held = {name: value.astype("float64") for name, value in arrays_of(adapter).items()}
    with pytest.raises(Mismatch, match=r"is float64 in the built model, and float32 in its def"):
        list(adapter.given(held))


def test_heads_may_be_an_axis_of_their_own() -> None:
    value = np.arange(24, dtype="float32").reshape(4, 6)
    assert fitted("out/kernel", value, np.zeros((4, 2, 3), "float32")).shape == (4, 2, 3)
    assert fitted("bias", value[0], np.zeros((6, 1, 1), "float32")).shape == (6, 1, 1)
    assert refines((4, 2, 3), (4, 6))
    assert refines((4, 2, 3), (8, 3))
    assert not refines((6, 4), (4, 6))
    assert not refines((4, 6), (4, 2, 3))
    assert not refines((4,), (4, 6))


def test_what_is_read_has_canonical_axes_and_names() -> None:
    adapter = begun("lenet5")
    adapter.layout, adapter.unbiased_variance = CHANNELS_FIRST, True
    kernel = adapter.case.parameters["conv1/kernel"]
    handle = {
        "parameter/conv1/kernel": np.transpose(kernel, (3, 2, 0, 1)),
        "loss": np.ones((1,), "float32"),
    }
    arrays = adapter.read(handle)
    np.testing.assert_array_equal(arrays["parameter/conv1/kernel"], kernel)
    assert arrays["loss"].shape == ()
    adapter = begun("resnet18")
    adapter.unbiased_variance = True
    (name, *_) = [name for name in adapter.case.state if name.endswith("/variance")]
    held = adapter.by_kind({name: adapter.case.state[name]})
    assert list(adapter.read(held)) == ["state/" + name.replace("variance", "unbiased_variance")]


def test_the_file_of_a_model_is_checked_when_it_is_loaded() -> None:
    with pytest.raises(Mismatch) as raised:
        begun(build=None)  # type: ignore[arg-type]
    assert str(raised.value) == (
        "levelfield/adapters/some/file.py has no function build(sizes), which mlp needs"
    )
    with pytest.raises(Mismatch) as raised:
        begun(train_step=lambda net, optimizers, inputs: None)
    assert str(raised.value) == (
        "levelfield/adapters/some/file.py: train_step takes (net, optimizers, inputs), and the"
        " contract has train_step(model, optimizers, inputs)"
    )
    with pytest.raises(Mismatch, match=r"has no function generate\(model, prompt, count\)"):
        begun("gpt2")
    with pytest.raises(Mismatch, match=r"no function discriminator_loss\(model, inputs\), which"):
        begun("dcgan")
    assert begun("gpt2", generate=lambda model, prompt, count: None).case.generation


def test_a_fit_gets_the_next_batches_joined_from_any_cursor() -> None:
    """Two Keras share this code, whose loops take several batches at once."""
    keras = OnKeras.__new__(OnKeras)
    keras.case, keras.cursor, keras.tiles = types.SimpleNamespace(batch=2), 0, 0
    rows = np.arange(6).reshape(3, 2)
    keras.batches = [({"x": row, "z": row + 10}, row[:, None]) for row in rows]
    for first, count in ((0, 4), (1, 4), (2, 1), (0, 2), (2, 7), (0, 7)):
        assert keras.cursor == first
        x, y = keras.next_batches(count)
        expected = np.concatenate([rows[(first + number) % 3] for number in range(count)])
        np.testing.assert_array_equal(x["x"], expected)
        np.testing.assert_array_equal(x["z"], expected + 10)
        np.testing.assert_array_equal(y, expected[:, None])


def test_both_biases_of_a_gru_are_the_rows_of_one_variable() -> None:
    class Variables(OnKeras):
        held: dict[str, Any]

        def value_of(self, name: str) -> Any:
            return self.held[name]

        def set_value(self, name: str, value: Any) -> None:
            self.held[name][...] = value

    keras, both = Variables.__new__(Variables), np.zeros((2, 3))
    keras.case = types.SimpleNamespace(parameters=dict.fromkeys(BOTH_BIASES))
    keras.held = {**dict.fromkeys(BOTH_BIASES, both), "kernel": np.zeros(3)}
    for number, name in enumerate(["kernel", *reversed(BOTH_BIASES)], start=1):
        keras.assign(name, np.full(3, number))
        np.testing.assert_array_equal(keras.part(name, keras.held[name]), np.full(3, number))
    np.testing.assert_array_equal(both, [[3, 3, 3], [2, 2, 2]])
    keras.case.parameters = {BOTH_BIASES[0]: None}  # as in an LSTM
    assert keras.part(BOTH_BIASES[0], both) is both


class Shared(float):
    """A shared variable that is its own value: the updates are computed when they are written."""

    __hash__ = object.__hash__
    __eq__ = object.__eq__

    def get_value(self, borrow: bool) -> Any:
        return np.float32(self)


@pytest.mark.parametrize("name", optimizers.OPTIMIZERS)
def test_updates_of_shared_variables_follow_the_pinned_formulas(name: str) -> None:
    native = types.SimpleNamespace(shared=Shared, tensor=types.SimpleNamespace(sqrt=np.sqrt))
    constants = {**optimizers.OPTIMIZERS[name], "name": name}
    parameters, gradients = {"a": 0.5, "b": -2.0}, {"a": 0.25, "b": -1e-3}
    held = [Shared(value) for value in parameters.values()]
    updates = make_updates(native, constants, held, list(gradients.values()))
    state = optimizers.initial_state(name, parameters)
    expected, moved = optimizers.update(name, parameters, gradients, state=state, step=1)
    assert [updates[name] for name in held] == pytest.approx(list(expected.values()), rel=1e-6)
    slots = [value for slot in moved.values() for value in slot.values()]
    others = [value for key, value in updates.items() if key not in held]
    counts = [1.0] if name == "adam" else []
    assert sorted(others) == pytest.approx(sorted(slots + counts), rel=1e-5)


def test_a_function_is_made_once_for_each_kind_and_counted() -> None:
    class Graph(OnFunctions):
        def made(self, kind: str) -> Any:
            results = {"inference": (5,), "training": (7, None)}[kind]  # an update has no name
            return ["a"], ["out"], lambda a: tuple(result and result * a for result in results)

    graph = Graph.__new__(Graph)
    graph.functions, graph.cursor, graph.sets = {}, 0, [{"a": 1, "b": 9}, {"a": 2}]
    assert graph.compile("inference") and graph.compilations() == 1
    assert [graph.infer(), graph.infer(), graph.train_step()] == [
        {"out": 5},
        {"out": 10},
        {"out": 7},
    ]
    assert graph.compilations() == 2


def test_members_of_lists_count_from_one() -> None:
    assert canonical_name(["blocks", "0", "conv1", "kernel"]) == "blocks1/conv1/kernel"
    assert canonical_name(["hidden", 1, "bias"]) == "hidden2/bias"


def test_epsilon_hat_makes_the_first_step_the_same() -> None:
    constants = {"epsilon": 1e-8, "beta2": 0.999}
    gradient, hat = 1e-7, epsilon_hat(constants)
    moment = (1 - constants["beta2"]) * gradient**2
    pinned = gradient / (math.sqrt(moment / (1 - constants["beta2"])) + constants["epsilon"])
    correction = math.sqrt(1 - constants["beta2"])
    folded = correction * gradient / (math.sqrt(moment) + hat)
    assert folded == pytest.approx(pinned, rel=1e-12)


def test_an_import_of_a_package_by_its_former_name_hears_the_present_one() -> None:
    program = (
        "from levelfield.harness.worker import worker\n"
        "for name in ('adapters', 'reference.spec', 'adaptors'):\n"
        "    try:\n"
        "        raise ModuleNotFoundError('No module named ' + repr(name), name=name)\n"
        "    except ModuleNotFoundError as error:\n"
        "        print(worker.failure(error)['reason'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ADAPTERS.parent, capture_output=True, check=True
    )
    assert [line.partition(" (")[0] for line in done.stdout.decode().splitlines()] == [
        "ModuleNotFoundError: No module named 'adapters'; Levelfield's package is"
        " levelfield.adapters",
        "ModuleNotFoundError: No module named 'reference.spec'; Levelfield's package is"
        " levelfield.reference",
        "ModuleNotFoundError: No module named 'adaptors'",
    ]


def test_a_worker_adds_the_version_of_numpy_to_a_description() -> None:
    program = (
        "import json, sys, types\n"
        "import numpy\n"
        "from levelfield.adapters.base import Adapter\n"
        "from levelfield.harness.worker import worker\n"
        "for told in ({'version': '1', 'threads': None}, ['1']):\n"
        "    some = type('Some', (Adapter,), {'describe': lambda self: told})\n"
        "    sys.modules['some'] = types.SimpleNamespace(Adapter=some)\n"
        "    reply = worker.Server().do_start('some', 'cpu', 'eager', 1, 'float32')\n"
        "    print(json.dumps(reply['describe']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ADAPTERS.parent, capture_output=True, check=True
    )
    described = [json.loads(line) for line in done.stdout.splitlines()]
    assert described == [{"version": "1", "threads": None, "numpy": np.__version__}, ["1"]]


def test_a_worker_replies_with_the_line_of_a_mismatch_and_no_place_in_the_code() -> None:
    # In a process of its own: importing the worker changes sys.path.
    program = (
        "import json; from levelfield.adapters.base import Mismatch;"
        "from levelfield.harness.worker import worker;"
        "print(json.dumps(worker.failure(Mismatch('the built mlp lacks hidden1/kernel'))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ADAPTERS.parent, capture_output=True, check=True
    )
    reason = "the built mlp lacks hidden1/kernel"
    assert json.loads(done.stdout) == {"ok": False, "status": "failed", "reason": reason}
