"""Channel-wise topology refinement, against the per-subset loop of the paper."""

from __future__ import annotations

from torch import Tensor

import skelops
from benchmarks import peers
from benchmarks.case import FORWARD, TRAINING, Arguments, Case, Draw
from skelops.nn.ctr_graph_conv import joint_embeddings

K, V = 3, 25


def _relations(C: int) -> int:
    return C // 8


def _unbound(args: Arguments) -> Arguments:
    """Separate tensors per subset, as a module per subset has them."""
    shared = ("A", "alpha")
    subsets = {name: list(t.unbind(0)) for name, t in args.items() if name not in (*shared, "x")}
    return {"x": args["x"], **{name: args[name] for name in shared}, **subsets}


def _draw_core(draw: Draw, B: int, C: int, T: int) -> Arguments:
    R = _relations(C)
    return {
        "x": draw.normal(B, K * C, T, V),
        "A": draw.normal(K, V, V, scale=0.2),
        "p": draw.normal(B, K, R, V),
        "q": draw.normal(B, K, R, V),
        "alpha": draw.normal(1, scale=0.1, shift=0.5),
        "weight4": draw.weight(K, C, R, fan=R),
        "bias4": draw.weight(K, C, fan=R),
    }


def _split_core(args: Arguments) -> Arguments:
    per_sample = {name: [t.contiguous() for t in args[name].unbind(1)] for name in ("p", "q")}
    x = [t.contiguous() for t in args["x"].chunk(K, 1)]
    return _unbound({k: v for k, v in args.items() if k not in per_sample}) | per_sample | {"x": x}


def _flops_core(B: int, C: int, T: int) -> dict[str, float]:
    aggregate = 2 * B * K * C * T * V * V
    topology = 2 * B * K * C * _relations(C) * V * V
    return {FORWARD: aggregate + topology, TRAINING: 3 * aggregate + 4 * topology}


def _draw_unit(draw: Draw, B: int, C: int, T: int) -> Arguments:
    R = _relations(C)
    return {
        "x": draw.normal(B, C, T, V),
        "A": draw.normal(K, V, V, scale=0.2),
        "alpha": draw.normal(1, scale=0.1, shift=0.5),
        "weight12": draw.weight(2, K, R, C, fan=C),
        "bias12": draw.weight(2, K, R, fan=C),
        "weight3": draw.weight(K, C, C, fan=C),
        "bias3": draw.weight(K, C, fan=C),
        "weight4": draw.weight(K, C, R, fan=R),
        "bias4": draw.weight(K, C, fan=R),
    }


def _unit(x: Tensor, A: Tensor, alpha: Tensor, weight12: Tensor, bias12: Tensor, **rest: Tensor):
    p, q = joint_embeddings(x, weight12, bias12)
    weights = (rest[name] for name in ("weight4", "bias4", "weight3", "bias3"))
    return skelops.ctr_graph_conv(x, A, p, q, alpha, *weights)


def _split_unit(args: Arguments) -> Arguments:
    split = {f"{name}{i + 1}": args[f"{name}12"][i] for name in ("weight", "bias") for i in (0, 1)}
    return _unbound({k: v for k, v in args.items() if not k.endswith("12")} | split)


def _flops_unit(B: int, C: int, T: int) -> dict[str, float]:
    core = _flops_core(B, C, T)
    transforms = 2 * B * K * C * C * T * V + 2 * B * 2 * K * _relations(C) * C * V
    return {FORWARD: core[FORWARD] + transforms, TRAINING: core[TRAINING] + 3 * transforms}


def _core(C: int, T: int, forward: float, training: float) -> Case:
    return Case(
        f"core C={C} T={T}",
        {"B": 32, "C": C, "T": T},
        _draw_core,
        skelops.ctr_graph_conv,
        peers.ctr_aggregate,
        _flops_core,
        _split_core,
        {FORWARD: {"eager": forward}, TRAINING: {"eager": training}},
        activations=("x", "p", "q"),
    )


def _whole(C: int, T: int) -> Case:
    return Case(
        f"unit C={C} T={T}",
        {"B": 32, "C": C, "T": T},
        _draw_unit,
        _unit,
        peers.ctr_unit,
        _flops_unit,
        _split_unit,
        {TRAINING: {"eager": 2.5, "compile": 2.3}},
        headline=f"CTR-GC unit, C={C}, T={T}",
    )


CASES = [
    _core(64, 64, forward=4, training=3),
    _core(256, 16, forward=6, training=5.5),
    _whole(64, 64),
    _whole(128, 32),
    _whole(256, 16),
]
