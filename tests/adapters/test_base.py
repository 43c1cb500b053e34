"""Layout conversion by axis name, and the contract's own defaults."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest

from adapters.base import Adapter, Layout

CHANNELS_FIRST = Layout(
    {
        ("in", "out"): ("out", "in"),
        ("height", "width", "in", "out"): ("out", "in", "height", "width"),
        ("batch", "height", "width", "channel"): ("batch", "channel", "height", "width"),
        ("height", "width", "channel"): ("channel", "height", "width"),
    }
)


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
    "name", ["harness/worker/worker.py", "harness/worker/measure.py", "adapters/base.py"]
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
