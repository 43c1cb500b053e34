"""Which sides torch takes; run by torch's own interpreter, prints JSON."""

import json

import torch
from torch import nn
from torch.nn import functional as F

answers = {}
norm = nn.BatchNorm1d(1)
norm(torch.tensor([[0.0], [2.0]]))  # biased variance 1, unbiased 2; from 1 by a tenth
answers["running-variance"] = "unbiased" if abs(norm.running_var.item() - 1.1) < 1e-6 else "biased"
answers["batch-norm-momentum"] = f"the new, {norm.running_mean.item():.1f}"  # from 0 to 1 by it
answers["batch-norm-epsilon"] = str(norm.eps)
answers["layer-norm-epsilon"] = str(nn.LayerNorm(1).eps)
exact = F.gelu(torch.tensor(1.0)).item()
answers["gelu"] = "exact" if abs(exact - 0.8413447) < 1e-6 else "tanh"
answers["leaky-relu"] = f"{-F.leaky_relu(torch.tensor(-1.0)).item():.2f}"
try:
    nn.Conv2d(1, 1, 3, stride=2, padding="same")
    answers["same-padding"] = "offered"
except ValueError:
    answers["same-padding"] = "not offered"
kernel = torch.tensor([[[1.0, 2.0, 3.0]]])
spread = F.conv_transpose1d(torch.tensor([[[1.0]]]), kernel).flatten().tolist()
answers["transposed-convolution"] = "gradient" if spread == [1, 2, 3] else "turned"
lstm = nn.LSTM(2, 3)
answers["lstm-biases"] = str(sum(name.startswith("bias") for name, _ in lstm.named_parameters()))
answers["lstm-forget-bias"] = "random" if lstm.bias_ih_l0[3:6].std() > 0 else "constant"
gru = nn.GRU(1, 1)
with torch.no_grad():
    for parameter in gru.parameters():
        parameter.zero_()
    gru.weight_ih_l0[1] = 100.0  # if this is the update gate, the state stays
    gru.weight_ih_l0[2] = 100.0
    stays = gru(torch.ones(1, 1, 1), torch.zeros(1, 1, 1))[0].item() < 0.1
answers["gru-gates"] = "r z n" if stays else "z r n"
answers["gru-biases"] = "yes" if hasattr(gru, "bias_hh_l0") else "no"
adam = torch.optim.Adam([nn.Parameter(torch.zeros(1))])
answers["adam-epsilon"] = str(adam.defaults["eps"])
moved = nn.Parameter(torch.zeros(1))
adam = torch.optim.Adam([moved], lr=1.0, eps=1.0)
moved.grad = torch.ones(1)
adam.step()
answers["adam-bias-correction"] = "after" if abs(moved.item() + 0.5) < 1e-3 else "before"
lonely = nn.Parameter(torch.ones(1))
(nn.Parameter(torch.ones(1)) * 2).backward()
answers["unreached-parameter"] = "none" if lonely.grad is None else "zeros"
table = nn.Embedding(3, 1)
nn.init.zeros_(table.weight)
table(torch.tensor([1, 1])).sum().backward()
answers["embedding-gradient"] = "rows" if table.weight.grad.is_sparse else "whole"
adam = torch.optim.Adam([table.weight], lr=1.0, eps=1e-12)
adam.step()
second = adam.state[table.weight]["exp_avg_sq"][1].item() / 1e-3
answers["adam-on-repeated-rows"] = "square of the sum" if second > 3 else "sum of the squares"
rows = nn.Parameter(torch.ones(2))
descent = torch.optim.SGD([rows], lr=1.0, momentum=0.5)
for gradient in (torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])):
    rows.grad = gradient
    descent.step()
answers["momentum-of-unread-rows"] = "yes" if rows[0].item() < 0 else "no"
answers["dense-kernel"] = "(out, in)" if nn.Linear(2, 3).weight.shape == (3, 2) else "(in, out)"
shape = tuple(nn.Conv2d(5, 7, (2, 3)).weight.shape)
answers["convolution-kernel"] = "(out, in, h, w)" if shape == (7, 5, 2, 3) else str(shape)
image, marks = torch.tensor([[[1.0, 0.0, 0.0]]]), torch.tensor([[[1.0, 10.0, 100.0]]])
turned = nn.functional.conv1d(image, marks).item() == 100
answers["kernel-of-a-convolution"] = "turned by half a turn" if turned else "as it stands"
pooled = nn.MaxPool2d(3, stride=2, padding=1)(torch.zeros(1, 1, 8, 8))
answers["size-of-pooling"] = "rounded up" if pooled.shape[2] == 5 else "rounded down"
row = torch.arange(1.0, 8).reshape(1, 1, 7)
maxima = F.max_pool1d(row, 3, stride=2, ceil_mode=True).flatten().tolist()
answers["pooling-beyond-the-edge"] = " ".join(f"{maximum:.0f}" for maximum in maxima)
mean = F.avg_pool1d(torch.ones(1, 1, 2), 2, stride=2, padding=1)[0, 0, 0].item()
answers["mean-pooling-at-the-edge"] = "counted" if mean == 0.5 else "not counted"
parts = F.adaptive_avg_pool1d(torch.eye(3), 2).T.tolist()
answers["adaptive-pooling"] = " ".join(
    f"{part.index(max(part)) + 1}-{3 - part[::-1].index(max(part))}" for part in parts
)
image = torch.ones(1, 1, 2, 2, requires_grad=True)
F.max_pool2d(image, 2).sum().backward()
answers["max-pooling-ties"] = (
    "one of them" if image.grad.sum().item() == 1 else "each of them, whole"
)
tiny = torch.full((64,), 1e-38) * 0.01
answers["denormals"] = "kept" if tiny.sum().item() > 0 else "flushed"
hidden = torch.zeros(1, 1, 1, 2, dtype=torch.bool)
query, keys, values = (
    torch.ones(1, 1, 1, 1),
    torch.zeros(1, 1, 2, 1),
    torch.tensor([[[[1.0], [3.0]]]]),
)
out = F.scaled_dot_product_attention(query, keys, values, attn_mask=hidden).item()
answers["attention-without-keys"] = {0.0: "zeros", 2.0: "the mean of all values"}[out]
first = torch.tensor([[True, False]])
by_mask = F.scaled_dot_product_attention(query, keys, values, attn_mask=first).item()
layer = nn.MultiheadAttention(1, 1, batch_first=True)
_, weights = layer(query[0], keys[0], values[0], key_padding_mask=first)
sides = {1.0: "a key that counts", 0.0: "a key that is hidden"}
answers["attention-mask"] = (
    f"{sides[float(by_mask == 1)]} (F.scaled_dot_product_attention),"
    f" {sides[weights[0, 0, 0].item()]} (nn.MultiheadAttention)"
)
print(json.dumps({"torch": answers}))
