"""Multi-scale temporal modules with the tail of their block, against branches and concatenation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import skelops
from benchmarks import peers
from benchmarks.case import FORWARD, TRAINING, Arguments, Case, Draw

V = 25


def _norm(args: Arguments, prefix: str) -> Arguments:
    return {k.removeprefix(prefix): v for k, v in args.items() if k.startswith(prefix)}


def _draw(draw: Draw, C: int, widths: list[int], normed: int, kernel: int) -> Arguments:
    """Shared by both modules: convolutions on ``widths`` channels."""
    return {
        "weight": draw.weight(C, C, fan=C),
        "bias": draw.weight(C, fan=C),
        "conv_weights": [draw.weight(w, w, kernel, fan=w * kernel) for w in widths],
        "conv_biases": [draw.weight(w, fan=w * kernel) for w in widths],
        **draw.norm(normed, "norm_"),
    }


def _branches(args: Arguments, dilations: tuple[int, ...]) -> Tensor:
    names = ("x", "weight", "bias", "conv_weights", "conv_biases", "norm_weight", "norm_bias")
    norm = {"running_mean": args["norm_running_mean"], "running_var": args["norm_running_var"]}
    picked = {name: args[name] for name in names}
    return skelops.ms_temporal_conv(**picked, **norm, dilations=dilations, training=True)


# MS-TCN of CTR-GCN: k=5 at dilations 1 and 2, max-pool, 1x1; a normalisation per branch.


def _draw_tcn4(draw: Draw, B: int, C: int, T: int) -> Arguments:
    data = {"x": draw.normal(B, C, T, V), "residual": draw.normal(B, C, T, V)}
    return data | _draw(draw, C, [C // 4] * 2, C // 4 * 3, 5) | draw.norm(C, "out_")


def _tcn4(**args: Any) -> Tensor:
    y = _branches(args, (1, 2))
    return skelops.bn_act_add(y, residual=args["residual"], **_norm(args, "out_"), training=True)


def _split_tcn4(args: Arguments) -> Arguments:
    """A convolution and a normalisation per branch."""
    branches = {"weight": 4, "bias": 4}
    branches |= {f"norm_{name}": 3 for name in _norm(args, "norm_")}
    branches |= {f"out_{name}": 4 for name in _norm(args, "out_")}
    return args | {name: list(args[name].chunk(count)) for name, count in branches.items()}


def _tcn4_peer(x: Tensor, residual: Tensor, **args: Any) -> Tensor:
    def hidden(branch: int) -> Tensor:
        h = peers.pointwise(x, args["weight"][branch], args["bias"][branch])
        return h if branch == 3 else _batch_norm(h, args, "norm_", branch).relu()

    branches = [
        peers.temporal(hidden(b), args["conv_weights"][b], args["conv_biases"][b], dilation=b + 1)
        for b in (0, 1)
    ]
    branches.append(torch.nn.functional.max_pool2d(hidden(2), (3, 1), (1, 1), (1, 0)))
    branches.append(hidden(3))
    y = torch.cat([_batch_norm(y, args, "out_", b) for b, y in enumerate(branches)], dim=1)
    return (y + residual).relu()


def _batch_norm(x: Tensor, args: Arguments, prefix: str, branch: int) -> Tensor:
    norm = {name: parts[branch] for name, parts in _norm(args, prefix).items()}
    return peers.batch_norm(x, **norm)


def _flops_tcn4(B: int, C: int, T: int) -> dict[str, float]:
    forward = 2 * B * T * V * (C * C + 2 * 5 * (C // 4) ** 2)
    return {FORWARD: forward, TRAINING: 3 * forward}


# mstcn of ST-GCN++: k=3 at dilations 1 to 4, max-pool, 1x1; normalised after concatenation.


def _widths(C: int) -> list[int]:
    return [C - C // 6 * 5] + [C // 6] * 5


def _draw_mstcn(draw: Draw, B: int, C: int, T: int) -> Arguments:
    *normed, _ = _widths(C)
    tail = {"out_weight": draw.weight(C, C, fan=C), "out_bias": draw.weight(C, fan=C)}
    tail |= draw.norm(C, "inner_") | draw.norm(C, "last_")
    return {"x": draw.normal(B, C, T, V), **_draw(draw, C, normed[:4], sum(normed), 3), **tail}


def _mstcn(**args: Any) -> Tensor:
    y = skelops.bn_act_add(_branches(args, (1, 2, 3, 4)), **_norm(args, "inner_"), training=True)
    y = peers.pointwise(y, args["out_weight"], args["out_bias"])
    return skelops.bn_act_add(y, **_norm(args, "last_"), training=True, relu=False)


def _split_mstcn(args: Arguments) -> Arguments:
    rows = _widths(args["weight"].shape[0])
    parts = {name: list(args[name].split(rows)) for name in ("weight", "bias")}
    parts |= {f"norm_{n}": list(t.split(rows[:5])) for n, t in _norm(args, "norm_").items()}
    return args | parts


def _mstcn_peer(x: Tensor, **args: Any) -> Tensor:
    branches = []
    for b in range(5):
        h = peers.pointwise(x, args["weight"][b], args["bias"][b])
        h = _batch_norm(h, args, "norm_", b).relu()
        if b < 4:
            h = peers.temporal(h, args["conv_weights"][b], args["conv_biases"][b], dilation=b + 1)
        else:
            h = torch.nn.functional.max_pool2d(h, (3, 1), (1, 1), (1, 0))
        branches.append(h)
    branches.append(peers.pointwise(x, args["weight"][5], args["bias"][5]))
    y = peers.batch_norm(torch.cat(branches, dim=1), **_norm(args, "inner_")).relu()
    y = peers.pointwise(y, args["out_weight"], args["out_bias"])
    return peers.batch_norm(y, **_norm(args, "last_"))


def _flops_mstcn(B: int, C: int, T: int) -> dict[str, float]:
    forward = 2 * B * T * V * (2 * C * C + 3 * sum(w * w for w in _widths(C)[:4]))
    return {FORWARD: forward, TRAINING: 3 * forward}


CASES = [
    *(
        Case(
            f"MS-TCN4 C={C} T={T}", {"B": 32, "C": C, "T": T},
            _draw_tcn4, _tcn4, _tcn4_peer, _flops_tcn4, _split_tcn4,
            targets={TRAINING: {"eager": 2, "compile": 1.7}},
            activations=("x", "residual"),
            zero_gradients=("bias", "conv_biases"), slack=30,
            headline=f"multi-scale temporal module, C={C}, T={T}",
        )
        for C, T in ((64, 64), (128, 32), (256, 16))
    ),
    *(
        Case(
            f"mstcn C={C} T={T}", {"B": 32, "C": C, "T": T},
            _draw_mstcn, _mstcn, _mstcn_peer, _flops_mstcn, _split_mstcn,
            zero_gradients=("bias", "conv_biases", "out_bias"), slack=30,
        )
        for C, T in ((64, 64), (256, 16))
    ),
]  # fmt: skip
