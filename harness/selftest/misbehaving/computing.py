"""A multilayer perceptron in NumPy that is correct, or wrong in the one way of its mode."""

import ctypes
import os
import signal
import sys
import time

import numpy as np

from levelfield.adapters.base import Adapter as Base
from levelfield.adapters.base import Unsupported

LATE_CALLS = 60  # since the model was loaded
TIRED_CALLS = 260  # since the case was loaded: the closing gate makes some 230
# The check of fresh steps allows 20 us for reading clocks. On a fast machine the tiny model's step
# takes 38 us, and too little of it would be left out. A longer spin would leave too few steps in a
# slice for the arm to be tired in most of them.
LONG_STEP_SECONDS = 1e-4


def _tf32(x):
    """Keep 10 bits of mantissa, as TF32 does with the factors of a matrix product."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)


def _spin(seconds):
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


class Adapter(Base):
    """Hidden layers with ReLU and softmax cross-entropy, gradients by hand."""

    def __init__(self, device, mode, threads, precision):
        self.mode = mode
        self.random = np.random.RandomState(0)
        if mode == "raises-at-import":
            raise RuntimeError("this framework needs a moon phase\nthat is not now")
        if mode == "unsupported":
            raise Unsupported("only works on Sundays")

    def describe(self):
        return {"version": np.__version__, "threads": 1}

    def load(self, module, case):
        self.case, self.cursor, self.steps, self.calls = case, 0, 0, 0
        self.values = {name: value.copy() for name, value in case.parameters.items()}
        self.slots = {}
        self.layers = [name[: -len("/kernel")] for name in self.values if name.endswith("/kernel")]

    def _next(self):
        inputs = self.case.sets[self.cursor]
        self.cursor = (self.cursor + 1) % len(self.case.sets)
        self.calls += 1
        features, labels = inputs["features"], inputs["label"]
        if self.mode == "quarter-batch-later" and self._is_late():
            quarter = len(labels) // 4
            return features[:quarter], labels[:quarter]
        return features, labels

    def _is_late(self):
        """Whether the model made more steps than any gate makes."""
        return self.calls > LATE_CALLS

    def _is_tired(self):
        """Whether more steps were made since the case was loaded than the closing gate makes."""
        return self.calls > TIRED_CALLS

    def _product(self, a, b):
        if self.mode == "tf32":
            return _tf32(a) @ _tf32(b)
        if (
            self.mode == "half-precision"
            or (self.mode == "half-precision-later" and self._is_late())
            or (self.mode == "half-precision-when-tired" and self._is_tired())
        ):
            return (a.astype(np.float16) @ b.astype(np.float16)).astype(np.float32)
        return a @ b

    def _forward(self, x):
        inputs = []
        for number, layer in enumerate(self.layers):
            kernel = self.values[layer + "/kernel"]
            if self.mode == "transposed-kernel" and number == 0:
                kernel = kernel.T.reshape(kernel.shape)
            inputs.append(x)
            x = self._product(x, kernel)
            last = number == len(self.layers) - 1
            if not (last and self.mode == "missing-bias"):
                x = x + self.values[layer + "/bias"]
            if last:
                break
            x = np.maximum(x, 0.01 * x if self.mode == "wrong-activation" else 0)
            if self.mode == "dropout":
                x = x * (self.random.rand(*x.shape) < 0.9) / np.float32(0.9)
        return x, inputs

    def _loss_and_gradients(self):
        x, labels = self._next()
        if self.mode == "quarter-training-later" and self._is_late():
            quarter = len(labels) // 4
            x, labels = x[:quarter], labels[:quarter]
        logits, inputs = self._forward(x)
        shifted = logits - logits.max(axis=1, keepdims=True)
        probabilities = np.exp(shifted) / np.exp(shifted).sum(axis=1, keepdims=True)
        rows = np.arange(len(labels))
        losses = -np.log(probabilities[rows, labels])
        delta = probabilities.copy()
        delta[rows, labels] -= 1
        if self.mode == "sum-for-mean":
            loss = losses.sum()
        else:
            loss, delta = losses.mean(), delta / len(labels)
        gradients = {}
        for layer, x in reversed(list(zip(self.layers, inputs))):
            gradients[layer + "/kernel"] = x.T @ delta
            gradients[layer + "/bias"] = delta.sum(axis=0)
            delta = (delta @ self.values[layer + "/kernel"].T) * (x > 0)
        return loss, gradients

    def _misbehave(self):
        if self.mode == "raises-in-step":
            raise ValueError("shapes (3,4) and (5,6) | <b>not</b> aligned")
        if self.mode == "exits":
            os._exit(7)
        if self.mode == "segfaults":
            ctypes.string_at(0)
        if self.mode == "hangs":
            time.sleep(3600)
        if self.mode == "allocates":
            hoard = []
            while True:
                hoard.append(np.ones(1 << 24))
        if self.mode == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.mode == "floods":
            line = "x" * 1023 + "\n"
            for _ in range(4096):
                sys.stdout.write(line)
                sys.stderr.write(line)
        if self.mode == "forges":
            print('{"ok": true, "seconds": 0.0}', flush=True)

    def infer(self):
        self._misbehave()
        outputs, _ = self._forward(self._next()[0])
        if self.mode == "nan":
            outputs = outputs * np.float32("nan")
        if self.mode == "wrong-shape":
            outputs = outputs.T
        return {"scores" if self.mode == "wrong-name" else "logits": outputs}

    def train_step(self):
        self._misbehave()
        if self.mode == "fails-when-timed" and self.steps > 20:
            raise ValueError("no more steps today")
        if self.mode == "idle-when-tired":
            if self._is_tired():
                return {"loss": self.last_loss}
            _spin(LONG_STEP_SECONDS)
        repeats = 2 if self.mode == "extra-step" and self.steps == 0 else 1
        for _ in range(repeats):
            loss, gradients = self._loss_and_gradients()
            self.steps += 1
            self._update(gradients)
        self.last_loss = loss
        return {"loss": loss}

    def _update(self, gradients):
        if self.mode == "idle-later" and self._is_late():
            return
        constants = self.case.optimizer
        kind, rate = constants["name"], np.float32(constants["learning_rate"])
        if self.mode == "slower-rate-later" and self._is_late():
            rate = np.float32(0.7) * rate
        if self.mode == "diverges-later" and self._is_late():
            rate = np.float32("nan")
        if self.mode == "momentum-for-sgd" and kind == "sgd":
            constants, kind = {"momentum": 0.9}, "momentum"
        for name, gradient in gradients.items():
            if self.mode == "stale-parameter" and name == "logits/bias":
                continue
            if self.mode == "weight-decay":
                gradient = gradient + np.float32(0.01) * self.values[name]
            if kind == "momentum":
                gradient = self._slot(name, 0, constants["momentum"], 1, gradient)
            if kind == "adam":
                beta1, beta2 = constants["beta1"], constants["beta2"]
                mean = self._slot(name, 0, beta1, 1 - beta1, gradient)
                square = self._slot(name, 1, beta2, 1 - beta2, gradient**2)
                mean = mean / (1 - beta1**self.steps)
                square = square / (1 - beta2**self.steps)
                gradient = mean / (np.sqrt(square) + constants["epsilon"])
            self.values[name] = (self.values[name] - rate * gradient).astype(np.float32)

    def _slot(self, name, number, keep, take, value):
        old = self.slots.get((name, number), 0)
        self.slots[name, number] = keep * old + take * value
        return self.slots[name, number]

    def gradients(self):
        loss, gradients = self._loss_and_gradients()
        return dict({"gradient/" + name: g for name, g in gradients.items()}, loss=loss)

    def parameters(self):
        return {"parameter/" + name: value for name, value in self.values.items()}

    def wait(self, handle):
        """NumPy is synchronous."""

    def read(self, handle):
        return handle
