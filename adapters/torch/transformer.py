"""The Transformer on F.scaled_dot_product_attention, decoding with a static key-value cache.

After "Accelerating PyTorch Transformers by replacing nn.Transformer with Nested Tensors and
torch.compile()" (its MultiHeadAttention, with one projection where the inputs are one), "Language
Modeling with nn.Transformer and torchtext" (its PositionalEncoding), and "Accelerating Generative
AI with PyTorch II: GPT, Fast" (its cache) (2026-11). nn.Transformer itself has no cache, and
one norm more than the paper after the last layer of encoder and decoder:
https://docs.pytorch.org/tutorials/intermediate/transformer_building_blocks.html
https://docs.pytorch.org/tutorials/beginner/transformer_tutorial.html
https://pytorch.org/blog/accelerating-generative-ai-2/
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

EPSILON = 1e-6
PAD, START = 0, 1


class PositionalEncoding(nn.Module):
    """Scaled embeddings plus sines and cosines of their positions."""

    def __init__(self, width, scale, longest):
        super().__init__()
        places = torch.arange(longest, dtype=torch.float64)[:, None]
        rates = torch.exp(torch.arange(0, width, 2, dtype=torch.float64) * -math.log(1e4) / width)
        table = torch.stack([torch.sin(places * rates), torch.cos(places * rates)], -1).flatten(1)
        self.register_buffer("table", table.float(), persistent=False)
        self.scale = scale

    def forward(self, x, positions):
        """(batch, time, width), (time,) -> (batch, time, width)."""
        return x * self.scale + self.table[positions]


def split(x, heads):
    """(batch, time, width) -> (batch, heads, time, width / heads)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


class SelfAttention(nn.Module):
    """Attention within one sequence."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def project(self, x):
        """Query, key and value, (batch, heads, time, width / heads) each."""
        return (split(part, self.heads) for part in self.qkv(x).chunk(3, dim=-1))

    def forward(self, x, **mask):
        """(batch, time, width) -> (batch, time, width)."""
        x = F.scaled_dot_product_attention(*self.project(x), **mask)
        return self.out(x.transpose(1, 2).flatten(-2))

    def advance(self, x, positions, mask, cache):
        """Process new positions and write their keys and values into the cache."""
        query, key, value = self.project(x)
        keys, values = cache
        keys[:, :, positions] = key
        values[:, :, positions] = value
        x = F.scaled_dot_product_attention(query, keys, values, attn_mask=mask)
        return self.out(x.transpose(1, 2).flatten(-2))


class CrossAttention(nn.Module):
    """Attention from targets to the memory of the encoder."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)

    def remember(self, memory):
        """Keys and values of the memory, (batch, heads, source_time, width / heads) each."""
        return split(self.key(memory), self.heads), split(self.value(memory), self.heads)

    def forward(self, x, keys, values, mask):
        """(batch, time, width) -> (batch, time, width)."""
        query = split(self.query(x), self.heads)
        x = F.scaled_dot_product_attention(query, keys, values, attn_mask=mask)
        return self.out(x.transpose(1, 2).flatten(-2))


class EncoderLayer(nn.Module):
    """Attention and a hidden layer; a layer norm follows each residual sum."""

    def __init__(self, sizes):
        super().__init__()
        width, hidden = sizes["width"], sizes["hidden"]
        self.attention = SelfAttention(width, sizes["heads"])
        self.attention_norm = nn.LayerNorm(width, eps=EPSILON)
        self.hidden = nn.Linear(width, hidden)
        self.out = nn.Linear(hidden, width)
        self.norm = nn.LayerNorm(width, eps=EPSILON)

    def feed_forward(self, x):
        """Apply the hidden layer."""
        return self.norm(x + self.out(F.relu(self.hidden(x))))

    def forward(self, x, mask):
        """(batch, time, width) -> (batch, time, width)."""
        return self.feed_forward(self.attention_norm(x + self.attention(x, attn_mask=mask)))


class DecoderLayer(EncoderLayer):
    """Causal attention, attention to the memory, and a hidden layer."""

    def __init__(self, sizes):
        super().__init__(sizes)
        self.cross = CrossAttention(sizes["width"], sizes["heads"])
        self.cross_norm = nn.LayerNorm(sizes["width"], eps=EPSILON)

    def forward(self, x, memory, mask):
        """(batch, time, width), keys and values of the source -> (batch, time, width)."""
        x = self.attention_norm(x + self.attention(x, is_causal=True))
        return self.feed_forward(self.cross_norm(x + self.cross(x, *memory, mask)))

    def advance(self, x, positions, seen, cache, memory, mask):
        """Process new positions over the cache."""
        x = self.attention_norm(x + self.attention.advance(x, positions, seen, cache))
        return self.feed_forward(self.cross_norm(x + self.cross(x, *memory, mask)))


class Encoder(nn.Module):
    """Embeddings, positions and the layers of the encoder."""

    def __init__(self, sizes):
        super().__init__()
        self.embed = nn.Embedding(sizes["vocabulary"], sizes["width"])
        self.positions = PositionalEncoding(sizes["width"], sizes["embed_scale"], sizes["longest"])
        self.encoder = nn.ModuleList(EncoderLayer(sizes) for _ in range(sizes["layers"]))

    def embedded(self, tokens):
        """(batch, time) -> (batch, time, width)."""
        places = torch.arange(tokens.shape[1], device=tokens.device)
        return self.positions(self.embed(tokens), places)

    def encoded(self, tokens):
        """(batch, time) -> (batch, time, width), and the mask (batch, 1, 1, time) of its keys."""
        mask = (tokens != PAD)[:, None, None]
        x = self.embedded(tokens)
        for layer in self.encoder:
            x = layer(x, mask)
        return x, mask


class Classifier(Encoder):
    """The encoder, and a head on the first position."""

    def __init__(self, sizes):
        super().__init__(sizes)
        self.logits = nn.Linear(sizes["width"], sizes["classes"])

    def forward(self, tokens):
        """(batch, time) -> logits (batch, classes)."""
        x, _ = self.encoded(tokens)
        return self.logits(x[:, 0])


class Transformer(Encoder):
    """Encoder and decoder with one table for source, target and head."""

    def __init__(self, sizes):
        super().__init__(sizes)
        width, self.heads, self.head_width = sizes["width"], sizes["heads"], sizes["head_width"]
        self.decoder = nn.ModuleList(DecoderLayer(sizes) for _ in range(sizes["layers"]))
        self.head = nn.Linear(width, sizes["vocabulary"], bias=False)
        self.head.weight = self.embed.weight

    def forward(self, source, target):
        """(batch, source_time), (batch, time) -> logits (batch, time, vocabulary)."""
        memory, mask = self.encode(source)
        x = self.embedded(target)
        for layer, pair in zip(self.decoder, memory, strict=True):
            x = layer(x, pair, mask)
        return self.head(x)

    def encode(self, source):
        """(batch, source_time) -> keys and values for each layer of the decoder, and the mask."""
        x, mask = self.encoded(source)
        return [layer.cross.remember(x) for layer in self.decoder], mask

    def empty_cache(self, batch, time):
        """Keys and values per layer, (batch, heads, time, width / heads) each."""
        shape = (batch, self.heads, time, self.head_width)
        weight = self.embed.weight
        return [(weight.new_zeros(shape), weight.new_zeros(shape)) for _ in self.decoder]

    def advance(self, tokens, positions, cache, memory, mask):
        """(batch, n) tokens at (n,) positions -> the token after the last, (batch, 1)."""
        x = self.positions(self.embed(tokens), positions)
        seen = torch.arange(cache[0][0].shape[2], device=tokens.device) <= positions[:, None]
        for layer, kept, pair in zip(self.decoder, cache, memory, strict=True):
            x = layer.advance(x, positions, seen, kept, pair, mask)
        return self.head(x[:, -1:]).argmax(-1)


def build(sizes):
    """The encoder as a classifier where there are classes, else encoder and decoder."""
    return Classifier(sizes) if "classes" in sizes else Transformer(sizes)


def generate(model, prompt, count):
    """Decode greedily after the start token, with the source ``prompt``: -> (batch, count)."""
    memory, mask = model.encode(prompt)
    cache = model.empty_cache(len(prompt), count)
    positions = torch.arange(count, device=prompt.device)
    tokens = [torch.full_like(prompt[:, :1], START)]
    for place in range(count):
        tokens.append(model.advance(tokens[-1], positions[place : place + 1], cache, memory, mask))
    return torch.cat(tokens[1:], dim=1)
