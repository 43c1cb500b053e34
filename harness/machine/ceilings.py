"""The best rates that this machine reaches, measured in each session.

``python -m levelfield.harness.machine.ceilings THREADS`` prints them as JSON. The host runs it in a
process of its own, with the affinity and the thread variables of the workers.
``levelfield.harness.analysis.roofline`` compares the rate of a step with these rates.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from levelfield.harness.errors import RunFailed
from levelfield.harness.machine.resources import make_own_folders, worker_variables
from levelfield.harness.machine.scratch import scratch_folder
from levelfield.harness.machine.supervised import completed
from levelfield.reference.errors import without_number

PRODUCT, COPY = "matrix product", "copy"
PRODUCT_SIZES = (512, 1024, 1536)
COPY_BYTES = (1 << 16, 1 << 18, 1 << 20, 1 << 22, 1 << 24, 1 << 27, 1 << 29)
PRODUCT_SECONDS, COPY_SECONDS = 0.4, 0.15  # for each size and library


@dataclass(frozen=True)
class Ceiling:
    """A rate that the machine reaches at best; fields of a ``ceiling`` record.

    ``per_second``: operations of a product, or bytes that a copy reads and writes.
    """

    threads: int
    what: str
    size_bytes: int
    per_second: float


def measured(threads: int, cores: Sequence[int]) -> list[Ceiling]:
    """Return the ceilings, measured by a process on these cores. Raises RunFailed."""
    with scratch_folder() as folder:
        make_own_folders(folder)
        variables = worker_variables(threads=threads, cache=folder, own=folder, hash_seed=0)
        command = [sys.executable, "-P", "-m", "levelfield.harness.machine.ceilings", str(threads)]
        process = completed(command, variables=variables, cores=cores)
    if process.returncode:
        last = without_number((process.stderr.strip().splitlines() or ["no message"])[-1])
        raise RunFailed(f"could not measure what this machine can do: {last}")
    return [Ceiling(**fields) for fields in json.loads(process.stdout)]


def measure(threads: int) -> Iterator[Ceiling]:
    """Measure in this process the best rates of NumPy's and XLA's products and of threads' copies.

    Each rate is the best of several.
    """
    # Imported here because the host only asks for the rates, which another process measures.
    import numpy as np

    from levelfield.reference.layers_jax import timed_product

    multiply: tuple[Callable[[Any], Any], ...] = (lambda square: square @ square, timed_product)
    for size in PRODUCT_SIZES:
        square = np.ones((size, size), np.float32)
        seconds = min(_best(product, square, PRODUCT_SECONDS) for product in multiply)
        rate = 2 * size**3 / seconds
        yield Ceiling(threads, PRODUCT, square.nbytes, rate)
    with ThreadPoolExecutor(threads) as pool:
        for size_bytes in COPY_BYTES:
            source = np.ones(size_bytes // 4, np.float32)
            parts = list(
                zip(
                    *(np.array_split(a, threads) for a in (np.empty_like(source), source)),
                    strict=True,
                )
            )

            def copy(parts: list[Any]) -> None:
                # With one thread, use no pool: handing over would take longer than a small copy.
                if len(parts) == 1:
                    np.copyto(*parts[0])
                else:
                    list(pool.map(lambda pair: np.copyto(*pair), parts))

            seconds = _best(copy, parts, COPY_SECONDS)
            yield Ceiling(threads, COPY, size_bytes, 2 * size_bytes / seconds)


def _best(work_on: Callable[[Any], Any], argument: Any, budget_seconds: float) -> float:
    """Least seconds of at least three repeated calls after a first one that does not count."""
    work_on(argument)
    seconds: list[float] = []
    begin = time.perf_counter()
    while len(seconds) < 3 or time.perf_counter() - begin < budget_seconds:
        start = time.perf_counter()
        work_on(argument)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


if __name__ == "__main__":
    print(json.dumps([asdict(ceiling) for ceiling in measure(int(sys.argv[1]))]))
