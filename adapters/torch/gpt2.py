"""GPT-2 on F.scaled_dot_product_attention, decoding with a static key-value cache.

After "Implementing High-Performance Transformers with Scaled Dot Product Attention" (its
CausalSelfAttention) and "Accelerating Generative AI with PyTorch II: GPT, Fast" (its cache):
https://docs.pytorch.org/tutorials/intermediate/scaled_dot_product_attention_tutorial.html
https://pytorch.org/blog/accelerating-generative-ai-2/
"""

import torch
from torch import nn
from torch.nn import functional as F


class CausalSelfAttention(nn.Module):
    """Attention over the present and earlier positions."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def project(self, x):
        """Query, key and value, (batch, heads, time, width / heads) each."""
        return (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.qkv(x).chunk(3, dim=-1)
        )

    def forward(self, x):
        """(batch, time, width) -> (batch, time, width)."""
        x = F.scaled_dot_product_attention(*self.project(x), is_causal=True)
        return self.out(x.transpose(1, 2).flatten(-2))

    def advance(self, x, positions, mask, cache):
        """Process new positions and write their keys and values into the cache."""
        query, key, value = self.project(x)
        keys, values = cache
        keys[:, :, positions] = key
        values[:, :, positions] = value
        x = F.scaled_dot_product_attention(query, keys, values, attn_mask=mask)
        return self.out(x.transpose(1, 2).flatten(-2))


class Block(nn.Module):
    """Attention and a hidden layer, each after a layer norm."""

    def __init__(self, sizes):
        super().__init__()
        width, hidden = sizes["width"], sizes["hidden"]
        self.attention_norm = nn.LayerNorm(width)
        self.attention = CausalSelfAttention(width, sizes["heads"])
        self.norm = nn.LayerNorm(width)
        self.hidden = nn.Linear(width, hidden)
        self.out = nn.Linear(hidden, width)

    def feed_forward(self, x):
        """Apply the layer norm, then the hidden layer."""
        return self.out(F.gelu(self.hidden(self.norm(x)), approximate="tanh"))

    def forward(self, x):
        """(batch, time, width) -> (batch, time, width)."""
        x = x + self.attention(self.attention_norm(x))
        return x + self.feed_forward(x)

    def advance(self, x, positions, mask, cache):
        """Process new positions over the cache."""
        x = x + self.attention.advance(self.attention_norm(x), positions, mask, cache)
        return x + self.feed_forward(x)


class GPT2(nn.Module):
    """Decoder-only Transformer with tied head."""

    def __init__(self, sizes):
        super().__init__()
        width, self.heads, self.head_width = sizes["width"], sizes["heads"], sizes["head_width"]
        self.token_embed = nn.Embedding(sizes["vocabulary"], width)
        self.position_embed = nn.Embedding(sizes["positions"], width)
        self.layers = nn.ModuleList(Block(sizes) for _ in range(sizes["layers"]))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, sizes["vocabulary"], bias=False)
        self.head.weight = self.token_embed.weight

    def forward(self, tokens):
        """(batch, time) -> logits (batch, time, vocabulary)."""
        places = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.token_embed(tokens) + self.position_embed(places)
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x))

    def empty_cache(self, batch, time):
        """Keys and values per layer, (batch, heads, time, width / heads) each."""
        shape = (batch, self.heads, time, self.head_width)
        weight = self.token_embed.weight
        return [(weight.new_zeros(shape), weight.new_zeros(shape)) for _ in self.layers]

    def advance(self, tokens, positions, cache):
        """(batch, n) tokens at (n,) positions -> the token after the last, (batch, 1)."""
        x = self.token_embed(tokens) + self.position_embed(positions)
        seen = torch.arange(cache[0][0].shape[2], device=tokens.device) <= positions[:, None]
        for layer, kept in zip(self.layers, cache, strict=True):
            x = layer.advance(x, positions, seen, kept)
        return self.head(self.norm(x[:, -1:])).argmax(-1)


def build(sizes):
    """Build the model."""
    return GPT2(sizes)


def generate(model, prompt, count):
    """Decode greedily, one token after another: (batch, time) -> (batch, count)."""
    batch, length = prompt.shape
    cache = model.empty_cache(batch, length + count)
    positions = torch.arange(length + count, device=prompt.device)
    tokens = [model.advance(prompt, positions[:length], cache)]
    for place in range(length, length + count - 1):
        tokens.append(model.advance(tokens[-1], positions[place : place + 1], cache))
    return torch.cat(tokens, dim=1)
