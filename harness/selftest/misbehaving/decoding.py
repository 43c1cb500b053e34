"""Decoding with the layers of the reference: one mode is correct, four are not."""

import numpy as np

from levelfield.harness.selftest.misbehaving.timing import Adapter as Timing

TIRED_FIRST_TOKENS = 20  # since the case was loaded: the closing gate asks for 16
START_UP = 2  # generations of a process before the gate; a timed process has made more


class Adapter(Timing):
    """Modes whose first token, when requested alone, is wrong or not computed."""

    def __init__(self, device, mode, threads, precision):
        Timing.__init__(self, device, mode, threads, precision)
        self.generations = 0

    def load(self, module, case):
        """Load a case and forget the tokens of every earlier case."""
        Timing.load(self, module, case)
        self.idle = self.mode == "idle-first-token" or (
            self.mode == "idle-first-token-when-timed" and self.generations > START_UP
        )
        self.firsts, self.first_tokens = {}, 0

    def generate(self, count):
        """Decode; mode idle-first-token knows first tokens only from longer generations."""
        self.generations += 1
        number = self._number()
        self.first_tokens += count == 1
        tired = self.first_tokens > TIRED_FIRST_TOKENS
        if count == 1 and self.mode == "idle-first-token-when-tired" and tired:
            return {"tokens": np.zeros((self.case.batch, 1), int)}
        if count == 1 and self.idle:
            return self.firsts.get(number, {"tokens": np.zeros((self.case.batch, 1), int)})
        if count == 1 and self.mode == "caches-first-token" and number in self.firsts:
            return self.firsts[number]
        tokens = self._decoded(self.case.sets[number], count)
        self.firsts[number] = {"tokens": tokens[:, :1]}
        return {"tokens": tokens}

    def _decoded(self, inputs, count):
        # Imported here because not every Python that runs the other modes can run the reference.
        from levelfield import reference
        from levelfield.reference.layers_numpy import NumpyLayers

        layers, sizes = NumpyLayers(self.values), self.case.sizes
        generation, position, chosen = reference.get(self.case.model).generation, 0, []
        tokens = inputs[generation.prompt]
        cache = generation.begin(layers, sizes, len(tokens))
        for _ in range(count):
            logits, cache = generation.advance(layers, sizes, tokens, position, cache)
            position += tokens.shape[1]
            tokens = layers.most_likely(logits)[:, None]
            chosen.append(tokens)
        return np.concatenate(chosen, 1)
