"""Which sides TensorFlow takes; run by its own interpreter, prints JSON."""

import json

import tensorflow as tf

answers = {}
_, variance = tf.nn.moments(tf.constant([0.0, 2.0]), axes=[0])
answers["running-variance"] = ("biased" if variance == 1 else "unbiased") + " (tf.nn.moments)"
answers["gelu"] = "exact" if abs(float(tf.nn.gelu(1.0)) - 0.8413447) < 1e-6 else "tanh"
answers["leaky-relu"] = f"{-float(tf.nn.leaky_relu(-1.0)):.1f}"
image = tf.reshape(tf.constant([1.0, 0.0, 0.0, 0.0]), [1, 4, 1, 1])
marks = tf.reshape(tf.constant([1.0, 10.0, 100.0]), [3, 1, 1, 1])
place = float(tf.nn.conv2d(image, marks, [2, 1], "SAME")[0, 0, 0, 0])
answers["same-padding"] = "(0, 1)" if place == 1 else "(1, 0)"
spread = tf.nn.conv1d_transpose(
    tf.ones([1, 1, 1]), tf.reshape(tf.constant([1.0, 2.0, 3.0]), [3, 1, 1]), [1, 3, 1], 1, "VALID"
)
values = tf.reshape(spread, [-1]).numpy().tolist()
answers["transposed-convolution"] = "gradient" if values == [1, 2, 3] else "turned"
row = tf.reshape(tf.range(1.0, 8), [1, 7, 1])
maxima = tf.nn.max_pool1d(row, 3, 2, "SAME").numpy().ravel().tolist()
answers["pooling-beyond-the-edge"] = " ".join(f"{maximum:.0f}" for maximum in maxima)
mean = float(tf.nn.avg_pool1d(tf.ones([1, 3, 1]), 2, 2, "SAME")[0, -1, 0])
answers["mean-pooling-at-the-edge"] = "counted" if mean == 0.5 else "not counted"
adaptive = any("adaptive" in name for name in dir(tf.nn))
answers["adaptive-pooling"] = "offered" if adaptive else "not offered"
lonely, used = tf.Variable(1.0), tf.Variable(1.0)
table = tf.Variable(tf.zeros([3, 1]))
with tf.GradientTape(persistent=True) as tape:
    loss = 2 * used + tf.reduce_sum(tf.nn.embedding_lookup(table, [1, 1]))
answers["unreached-parameter"] = "none" if tape.gradient(loss, lonely) is None else "zeros"
rows = isinstance(tape.gradient(loss, table), tf.IndexedSlices)
answers["embedding-gradient"] = "rows" if rows else "whole"
image = tf.ones([1, 2, 2, 1])
with tf.GradientTape() as tape:
    tape.watch(image)
    pooled = tf.nn.max_pool2d(image, 2, 2, "VALID")
answers["max-pooling-ties"] = (
    "one of them"
    if float(tf.reduce_sum(tape.gradient(pooled, image))) == 1
    else "each of them, whole"
)
tiny = tf.fill([64], 1e-38) * 0.01
answers["denormals"] = "kept" if float(tf.reduce_sum(tiny)) > 0 else "flushed"
with tf.Graph().as_default():
    table = tf.Variable(tf.ones([2, 1]))
    row = tf.compat.v1.placeholder(tf.int32, [1])
    loss = tf.reduce_sum(tf.nn.embedding_lookup(table, row))
    step = tf.compat.v1.train.MomentumOptimizer(1.0, 0.5).minimize(loss)
    with tf.compat.v1.Session() as session:
        session.run(tf.compat.v1.global_variables_initializer())
        session.run(step, {row: [0]})
        session.run(step, {row: [1]})
        moves = "yes" if session.run(table)[0, 0] < 0 else "no"
sessions = {"momentum-of-unread-rows": moves}
print(json.dumps({"tensorflow": answers, "tensorflow.compat.v1": sessions}))
