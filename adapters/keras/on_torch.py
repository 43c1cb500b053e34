"""Keras on PyTorch."""

import torch

from levelfield.adapters import on_torch
from levelfield.adapters.keras.common import KerasAdapter


class OnTorch(KerasAdapter):
    """``keras:torch`` and its fit mode."""

    native = torch
    backend = on_torch.OnTorch

    def has_gpu(self):
        """Whether torch finds a GPU."""
        return torch.cuda.is_available()

    def decoder(self):
        """Run prompt and loop without recording gradients."""

        def decode(prompt, count):
            with torch.no_grad():
                return self.module.generate(self.model, torch.from_numpy(prompt), count)

        return decode

    def loss_and_gradients(self, name, x, y, variables):
        """Compute loss and gradients by ``backward``."""
        self.model.zero_grad()
        loss = self.loss_of(name, x, y)
        loss.backward()
        gradients = [variable.value.grad for variable in variables]
        return loss, [
            torch.zeros_like(variable.value) if gradient is None else gradient
            for variable, gradient in zip(variables, gradients, strict=True)
        ]

    def wait(self, handle):
        """Do nothing: a step's handle holds NumPy values; operations return when they are done."""
        if self.device == "cuda":
            torch.cuda.synchronize()
