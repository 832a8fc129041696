"""Hyper-graph adjacency of Hyper-GCN's layers, against the paper's formula with its matrices.

A hyper-graph of W = 28 vertices is 3 KB in and 3 KB out, far below what its arithmetic takes: the
floor on a CPU is not its memory but, per sample and head, about 2 D W^2 operations for distances,
W^2 square roots and exponentials, 2 topk W^2 comparisons and exchanges, and the product of 2 U W^2;
the gradient rebuilds all but the product, adds two products and 4 D W^2. The topk smallest of every
vertex, kept in ascending order in registers, take a tenth of the forward: 0.3 us per sample and
head, where torch.topk takes 16 and torch.sort 24.
"""

from __future__ import annotations

import torch
from torch import Tensor

import skelops
from benchmarks.case import FORWARD, TRAINING, Arguments, Case, Draw

K, V, W, TOPK = 8, 25, 28, 9
EPS = 1e-8


def _draw(draw: Draw, B: int, C: int, T: int = 1) -> Arguments:
    """Of a layer with C input channels: a quarter of each head's channels is its embedding."""
    return {
        "embedding": draw.normal(B, K, C // K // 4 or 1, W),
        "edge_weight": draw.normal(B, K, W, scale=0.5),
        "adjacency": draw.normal(K, W, W, scale=0.2),
        "alpha": draw.normal(1, scale=0.1, shift=1.0),
    }


def _ours(**args: Tensor) -> Tensor:
    return skelops.hyper_adjacency(**args, topk=TOPK, rows=V)


def _peer(embedding: Tensor, edge_weight: Tensor, adjacency: Tensor, alpha: Tensor) -> Tensor:
    f = embedding.mT
    distance = torch.cdist(f, f, compute_mode="donot_use_mm_for_euclid_dist")
    nearest, index = distance.topk(TOPK, dim=-1, largest=False)
    H = torch.zeros_like(distance).scatter(-1, index, torch.softmax(-nearest, dim=-1))
    weight = torch.diag_embed(edge_weight)
    edge_degree = torch.diag_embed(1 / (H.sum(-2) + EPS))
    degree = torch.diag_embed(1 / ((H @ weight.abs()).sum(-1) + EPS))
    G = degree @ H @ weight @ weight @ edge_degree @ H.mT
    return (adjacency + torch.relu(alpha) * G)[:, :, :V].contiguous()


def _flops(B: int, C: int, T: int = 1) -> dict[str, float]:
    D, product = C // K // 4 or 1, 2 * V * W * W
    graph = W * W * (3 * D + 2 * TOPK)
    heads = B * K
    return {FORWARD: heads * (graph + product), TRAINING: heads * (2 * graph + 3 * product)}


CASES = [
    Case(
        f"C={C}", {"B": 128, "C": C}, _draw, _ours, _peer, _flops,
        targets={FORWARD: {"eager": 8, "compile": 5}, TRAINING: {"eager": 8, "compile": 5}},
        activations=("embedding", "edge_weight"),
        headline=f"hyper-graph adjacency, C={C}" if C == 128 else "",
    )
    for C in (128, 256, 512)
]  # fmt: skip
