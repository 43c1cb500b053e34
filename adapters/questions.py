"""The questions of a case, as an adapter gets them."""

import json

import numpy


class Questions:
    """The questions of a case file, as :func:`read_case` reads them.

    ``model``, ``preset``, ``batch``, ``sizes`` (the argument of ``build``), ``objectives`` (in the
    order of a training step: dicts of "name", "loss", its "outputs" and "targets", and "trains",
    the prefix of the names of its parameters), ``optimizer`` (dict of "name" and its constants),
    ``parameters`` and ``state`` (canonical name -> float32 array), ``sets`` (list of dicts: input
    name -> array, targets included), ``used`` (the inputs that inference reads), ``outputs``
    (names), ``generation`` (None, or dict of the input "prompt" and the "count" of tokens),
    ``dimensions`` (name of any array -> its dimensions, see ``Layout``).
    """

    def __init__(self, meta, arrays, sets, optimizer):
        self.model = meta["model"]
        self.preset = meta["preset"]
        self.batch = meta["batch"]
        self.sizes = meta["sizes"]
        self.objectives = meta["objectives"]
        self.optimizer = dict(meta["optimizers"][optimizer], name=optimizer)
        self.parameters = arrays["parameter"]
        self.state = arrays["state"]
        self.sets = sets
        self.used = meta["used"]
        self.outputs = list(meta["outputs"])
        self.generation = meta["generation"]
        self.dimensions = {}
        for kind in ("parameters", "state", "inputs", "outputs"):
            for name, dimensions in meta[kind].items():
                self.dimensions[name] = dimensions

    def named_outputs(self, result):
        """Turn a model's result into a dict by name: a single array is the only output."""
        return result if isinstance(result, dict) else {self.outputs[0]: result}

    def objective_functions(self, module, losses):
        """Map the name of each objective to a ``function(model, inputs) -> loss``.

        ``module`` is the model's file, ``losses`` the framework's functions by name. ``model`` is
        any callable that takes the inputs by name.
        """
        return {
            objective["name"]: getattr(module, objective["name"], None)
            or self._standard(objective, losses)
            for objective in self.objectives
        }

    def _standard(self, objective, losses):
        loss = losses[objective["loss"]]

        def compute(model, inputs):
            outputs = self.named_outputs(model(**{name: inputs[name] for name in self.used}))
            arguments = [outputs[name] for name in objective["outputs"]]
            return loss(*(arguments + [inputs[name] for name in objective["targets"]]))

        return compute


def read_case(path, optimizer):
    """Read a case file; ``optimizer`` is "sgd", "momentum" or "adam"."""
    with numpy.load(path, allow_pickle=False) as stored:
        meta = json.loads(stored["meta"].tobytes().decode())
        arrays = {
            "parameter": {name: stored["parameter/" + name] for name in meta["parameters"]},
            "state": {name: stored["state/" + name] for name in meta["state"]},
        }
        inputs = {name: stored["input/" + name] for name in meta["inputs"]}
        # Each set has memory of its own, as the batches of a program have.
        sets = [
            {name: values[number].copy() for name, values in inputs.items()}
            for number in range(meta["sets"])
        ]
    return Questions(meta, arrays, sets, optimizer)
