"""``caffe:opencv``: OpenCV's dnn module reads Caffe's files and infers.

https://docs.opencv.org/4.x/d6/d0f/group__dnn.html
"""

import cv2
import numpy as np

from levelfield.adapters.base import Adapter
from levelfield.adapters.caffe import LAYOUT, WEIGHT, network, weights
from levelfield.adapters.caffe.layers import blob_of


class OpenCVAdapter(Adapter):
    """An adapter for inference only."""

    layout = LAYOUT
    no_gpu = "the packages of OpenCV have no GPU in them"

    def configure(self):
        """Set the threads."""
        cv2.setNumThreads(self.threads)

    def describe(self):
        """Describe the run as OpenCV reports it."""
        return {"version": cv2.__version__, "threads": cv2.getNumThreads()}

    def load(self, module, case):
        """Read both files from memory; read the blobs back before layers are fused."""
        self.begin(module, case)
        files = (network(module, case).encode(), weights(case))
        self.net = cv2.dnn.readNetFromCaffe(*(np.frombuffer(file, np.uint8) for file in files))
        self.net.setPreferableBackend(cv2.dnn.DNN_BACKEND_OPENCV)
        self.read_back = {name: self._blob(name) for name in [*case.parameters, *case.state]}

    def _blob(self, name):
        layer, number = blob_of(name, self.case.state)
        shape = self.place(name, dict(self.case.parameters, **self.case.state)[name]).shape
        # Double precision: the division by the weight must not round.
        values = np.array(self.net.getParam(layer, number), "float64").reshape(shape)
        return values / WEIGHT if name in self.case.state else values

    def infer(self):
        """Run one forward pass to the blobs of the outputs."""
        for name, value in self.next(self.used).items():
            self.net.setInput(value, name)
        return dict(zip(self.case.outputs, self.net.forward(self.case.outputs), strict=True))

    def parameters(self):
        """Return the parameters that OpenCV read."""
        return self.by_kind(self.read_back)

    def wait(self, handle):
        """Do nothing: a forward pass returns when it is done."""
