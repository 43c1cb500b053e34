"""BERT on F.scaled_dot_product_attention, with one projection for query, key and value.

After "Accelerating PyTorch Transformers by replacing nn.Transformer with Nested Tensors and
torch.compile()" (its MultiHeadAttention), and "Implementing High-Performance Transformers with
Scaled Dot Product Attention":
https://docs.pytorch.org/tutorials/intermediate/transformer_building_blocks.html
https://docs.pytorch.org/tutorials/intermediate/scaled_dot_product_attention_tutorial.html
"""

import torch
from torch import nn
from torch.nn import functional as F

EPSILON = 1e-12


class SelfAttention(nn.Module):
    """Attention over the tokens that the mask counts."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x, mask):
        """(batch, time, width), (batch, 1, 1, time) -> (batch, time, width)."""
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.qkv(x).chunk(3, dim=-1)
        )
        x = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.out(x.transpose(1, 2).flatten(-2))


class Layer(nn.Module):
    """Attention and a hidden layer; a layer norm follows each residual sum."""

    def __init__(self, sizes):
        super().__init__()
        width, hidden = sizes["width"], sizes["hidden"]
        self.attention = SelfAttention(width, sizes["heads"])
        self.attention_norm = nn.LayerNorm(width, eps=EPSILON)
        self.hidden = nn.Linear(width, hidden)
        self.out = nn.Linear(hidden, width)
        self.norm = nn.LayerNorm(width, eps=EPSILON)

    def forward(self, x, mask):
        """(batch, time, width) -> (batch, time, width)."""
        x = self.attention_norm(x + self.attention(x, mask))
        return self.norm(x + self.out(F.gelu(self.hidden(x))))


class BERT(nn.Module):
    """Encoder, pooler and masked-language-model head."""

    def __init__(self, sizes):
        super().__init__()
        width = sizes["width"]
        self.token_embed = nn.Embedding(sizes["vocabulary"], width)
        self.segment_embed = nn.Embedding(2, width)
        self.position_embed = nn.Embedding(sizes["positions"], width)
        self.embeddings_norm = nn.LayerNorm(width, eps=EPSILON)
        self.layers = nn.ModuleList(Layer(sizes) for _ in range(sizes["layers"]))
        self.pooler = nn.Linear(width, width)
        self.transform = nn.Linear(width, width)
        self.transform_norm = nn.LayerNorm(width, eps=EPSILON)
        self.logits = nn.Linear(width, sizes["vocabulary"])
        self.logits.weight = self.token_embed.weight

    def forward(self, tokens, segments, mask, positions):
        """-> pooled (batch, width), logits (batch, count, vocabulary) at the positions."""
        places = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.token_embed(tokens) + self.segment_embed(segments) + self.position_embed(places)
        x = self.embeddings_norm(x)
        keys = mask.bool()[:, None, None]
        for layer in self.layers:
            x = layer(x, keys)
        pooled = torch.tanh(self.pooler(x[:, 0]))
        x = torch.take_along_dim(x, positions[:, :, None], dim=1)
        x = self.transform_norm(F.gelu(self.transform(x)))
        return {"pooled": pooled, "logits": self.logits(x)}


def build(sizes):
    """Build the model."""
    return BERT(sizes)
