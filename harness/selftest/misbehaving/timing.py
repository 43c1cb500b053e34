"""Faults of time and memory: fences, cores, compilations, hoards."""

import hashlib
import importlib
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from levelfield.harness.selftest.misbehaving.computing import Adapter as Computing

HOARD_BYTES = 256 << 20
CHILD_BYTES = 128 << 20
COMPILE_SECONDS, DEVICE_SECONDS = 2.0, 1.0
QUEUE_SECONDS = 0.002  # duration of the work of a queued step
QUEUE_LENGTH = 500  # a launch beyond this waits, as on a device
LATE_STEPS = 5  # training steps: more than a start-up has before the gate
DRIFT_SECONDS, DRIFT_EXTRA_SECONDS = 2.0, 0.002
CHILD = (
    "import sys; hoard = bytearray(b'x') * %d; print('ready', flush=True); sys.stdin.read()"
    % CHILD_BYTES
)


def put(pipe, array):
    """Send an array of float32 through a multiprocessing.Connection."""
    pipe.send_bytes(np.array(array.shape).tobytes())
    pipe.send_bytes(array.tobytes())


def get(pipe):
    """Receive an array that ``put`` sent."""
    shape = np.frombuffer(pipe.recv_bytes(), int)
    return np.frombuffer(pipe.recv_bytes(), np.float32).reshape(shape)


def start_child(spins):
    """Fork a child that may run on every core -> a connection to which it returns products."""
    here, there = multiprocessing.Pipe()
    if os.fork() == 0:
        try:
            here.close()
            os.sched_setaffinity(0, range(os.cpu_count()))
            while True:
                if there.poll(None if not spins else 0):
                    put(there, get(there) @ get(there))
        finally:
            os._exit(0)
    there.close()
    return here


def hoard():
    """Allocate memory, touch it, free it."""
    np.ones(HOARD_BYTES, np.uint8)


class Postponed:
    """An inference that is computed when its result is requested, as lazy frameworks do."""

    def __init__(self, adapter, inputs):
        self.adapter, self.inputs, self.outputs = adapter, inputs, None

    def result(self):
        """Outputs by name, computed once."""
        if self.outputs is None:
            logits, _ = self.adapter._forward(self.inputs["features"])
            self.outputs = {"logits": logits}
        return self.outputs


class Adapter(Computing):
    """Modes that compute correctly but falsify the measurement of time or memory."""

    def __init__(self, device, mode, threads, precision):
        Computing.__init__(self, device, mode, threads, precision)
        self.all_steps, self.begin, self.child = 0, time.perf_counter(), None
        self.loads = 0
        if mode == "slow-clock":
            true, start = time.perf_counter, time.perf_counter()
            time.perf_counter = lambda: start + (true() - start) / 2  # it never runs backwards
        if mode == "halves-slices":
            measure = importlib.import_module(
                "levelfield.harness.worker.measure"
            )  # no framework does this
            whole = measure.throughput_slice
            measure.throughput_slice = lambda *arguments: whole(*arguments) / 2
        self.queue = ThreadPoolExecutor(1) if mode in ("no-fence", "partial-fence") else None
        self.room = threading.Semaphore(QUEUE_LENGTH)
        if mode == "slow-device":
            time.sleep(DEVICE_SECONDS)
        if mode == "oversubscribes":
            os.sched_setaffinity(0, range(os.cpu_count()))
        self.judged, self.helper = False, None
        if mode in ("child-computes", "child-spins"):
            self.helper = start_child(spins=mode == "child-spins")

    def compilations(self):
        """Count compilations; in mode recompiles the count grows while steps are made."""
        return self.all_steps // 7 if self.mode == "recompiles" else None

    def load(self, module, case):
        """Load a case; mode hoards-build. Queued work ends first, as on a device's own stream."""
        if self.queue is not None:
            self.queue.submit(int).result()
        Computing.load(self, module, case)
        self.fresh, self.cache = True, {}
        self.loads += 1
        if self.mode == "hoards-build":
            hoard()

    def compile(self, phase):
        """Compile, for modes slow-compile, hoards-compile, forks."""
        if self.mode == "slow-compile":
            time.sleep(COMPILE_SECONDS)
            return True
        if self.mode == "hoards-compile":
            hoard()
        if self.mode == "forks" and self.child is None:
            self.child = subprocess.Popen(
                [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            self.child.stdout.readline()
        return False

    def _before_a_step(self):
        self.all_steps += 1
        if self.mode == "late-child" and not self.judged and self.steps > LATE_STEPS:
            self.helper = self.helper or start_child(spins=True)
        if self.mode == "hoards-first-step" and self.fresh:
            hoard()
        self.fresh = False
        since = time.perf_counter() - self.begin
        if self.mode == "drifts" and since < DRIFT_SECONDS:
            end = time.perf_counter() + DRIFT_EXTRA_SECONDS * (1 - since / DRIFT_SECONDS)
            while time.perf_counter() < end:
                pass
        if self.mode == "second-core-when-timed" and self.loads == 1 and self.all_steps > 10:
            os.sched_setaffinity(0, range(os.cpu_count()))
            self._two_cores()
        if self.mode == "oversubscribes":
            self._two_cores()

    def _two_cores(self):
        # Hashing releases the interpreter's lock, so both threads really run.
        data = b"x" * (1 << 21)
        helper = threading.Thread(target=hashlib.sha256, args=(data,))
        helper.start()
        hashlib.sha256(data)
        helper.join()

    def infer(self):
        """Infer: correctly, queued, postponed until the result is requested, or cached."""
        self._before_a_step()
        if self.mode == "lazy":
            return Postponed(self, self.case.sets[self._number()])
        if self.mode == "caches":
            number = self.cursor
            if number in self.cache:
                self._number()
                return self.cache[number]
            self.cache[number] = Computing.infer(self)
            return self.cache[number]
        if self.queue is None:
            return Computing.infer(self)
        return self._launch(self._later, Computing.infer)

    def _number(self):
        """Return the number of the next input set and advance the cursor."""
        number = self.cursor
        self.cursor = (number + 1) % len(self.case.sets)
        return number

    def repeat(self, step, count):
        """Repeat a step; mode half-working makes half of the steps."""
        return Computing.repeat(self, step, count // 2 if self.mode == "half-working" else count)

    def train_step(self):
        """Train: correctly or queued; partial-fence queues the update after its fenced work."""
        self._before_a_step()
        if self.queue is None:
            return Computing.train_step(self)
        if self.mode == "no-fence":
            return self._launch(self._later, Computing.train_step)
        before = self.queue.submit(self._loss_and_gradients)
        self._launch(self._late_update, before)
        return before

    def _launch(self, work, *arguments):
        self.room.acquire()
        queued = self.queue.submit(work, *arguments)
        queued.add_done_callback(lambda _: self.room.release())
        return queued

    def _later(self, step):
        time.sleep(QUEUE_SECONDS)
        return step(self)

    def _late_update(self, before):
        time.sleep(QUEUE_SECONDS)
        self.steps += 1
        self._update(before.result()[1])

    def parameters(self):
        """Return the parameters, after all queued work."""
        if self.queue is None:
            return Computing.parameters(self)
        return self.queue.submit(lambda: dict(Computing.parameters(self)))

    def _product(self, a, b):
        """Multiply; in mode child-computes the child computes the second half of the batch."""
        if self.mode != "child-computes":
            return Computing._product(self, a, b)
        half = len(a) // 2
        put(self.helper, a[half:])
        put(self.helper, b)
        return np.concatenate([a[:half] @ b, get(self.helper)])

    def gradients(self):
        """Return the gradients, after all queued work. Only the gate asks for them."""
        self.judged = True
        if self.queue is None:
            return Computing.gradients(self)
        return self.queue.submit(Computing.gradients, self)

    def wait(self, handle):
        """The fence; no-fence has none, and partial-fence has one for the loss alone."""
        if isinstance(handle, Postponed):
            handle.result()
        if self.mode == "partial-fence":
            handle.result()

    def read(self, handle):
        """Wait for the value of a handle and return it."""
        if isinstance(handle, Postponed):
            return handle.result()
        if self.queue is None:
            return handle
        outputs = handle.result()
        return {"loss": outputs[0]} if isinstance(outputs, tuple) else outputs
