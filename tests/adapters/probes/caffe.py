"""Which sides Caffe's networks take in OpenCV; run by its interpreter, prints JSON."""

import json

import cv2
import numpy as np

TEXT = b"""
layer { name: "image" type: "Input" top: "image"
        input_param { shape { dim: 1 dim: 1 dim: 8 dim: 8 } } }
layer { name: "pool" type: "Pooling" bottom: "image" top: "pool"
        pooling_param { pool: MAX kernel_size: 3 stride: 2 pad: 1 } }
"""
net = cv2.dnn.readNetFromCaffe(np.frombuffer(TEXT, np.uint8))
net.setInput(np.zeros((1, 1, 8, 8), np.float32))
answers = {"size-of-pooling": "rounded up" if net.forward().shape[2] == 5 else "rounded down"}
print(json.dumps({"caffe": answers}))
