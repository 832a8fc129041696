"""Recognition while the frames come in: a sliding window, or a network that sees each frame once.

Example:
    skelops stream runs/ctr_gcn_small-nw_ucla/checkpoints/last.ckpt --input poses.jsonl
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skelops import _check
from skelops.data import ClipDataset, Clips, ClipTransform, get_transform
from skelops.graph import Layout, get_layout
from skelops.nn import (
    GraphConv,
    GraphUnit,
    MultiScaleTemporalConv,
    SkeletonNet,
    STAttention,
    STBlock,
    TemporalConv,
)


class Prediction(NamedTuple):
    """Scores after a frame.

    Args:
        frame: number of frames seen.
        time: of the last frame in seconds, None if not given.
        scores: (num_classes,) probabilities.
        persons: names of those in view, by slot.
    """

    frame: int
    time: float | None
    scores: Tensor
    persons: tuple[Any, ...]


class Recognizer:
    """Class scores of the last ``window`` frames, every ``stride`` frames.

    A joint that is NaN keeps the place where it was seen last; one that was never seen is in the
    middle of the person's other joints. A person who is not in a frame is zero in it, as absent
    people are in the training data; who is missing for a whole window gives the slot away, and
    people beyond the network's slots are ignored until one is free.

    Args:
        model: (N, C, T, V, M) -> (N, num_classes), in evaluation mode from here on.
        layout: of the joints that are fed; others than the network's are converted.
        window: frames a prediction is made from; fewer as long as fewer were seen.
        stride: frames between predictions.
        transform, streams: as in training, see :class:`skelops.data.ClipDataset`; its test form.
        target, persons: layout and number of people that the network takes. Default: its own
            ``layout`` and ``num_persons``, or the layout of the joints and one person.

    Raises:
        ValueError: window or stride below 1, or a layout that cannot be converted.

    Example:
        >>> recognizer = Recognizer(model, "ntu25", window=64, stride=4)
        >>> for joints in camera:  # (V, C), (M, V, C) or {person: (V, C)}
        ...     prediction = recognizer.update(joints)
        ...     if prediction is not None:
        ...         print(prediction.scores.argmax())
    """

    def __init__(
        self,
        model: nn.Module,
        layout: str | Layout,
        window: int = 64,
        stride: int = 4,
        *,
        transform: ClipTransform | str = "ctr_gcn",
        streams: Sequence[str] | str = "joint",
        target: str | Layout | None = None,
        persons: int | None = None,
    ) -> None:
        for name, value in (("window", window), ("stride", stride)):
            if value < 1:
                raise ValueError(f"stream: expected {name} >= 1, got {value}")
        self.model, self.layout = model.eval(), get_layout(layout)
        self.window, self.stride = window, stride
        self.transform, self.streams = get_transform(transform), streams
        self.target = get_layout(target or getattr(model, "layout", self.layout)).name
        self.slots = persons or getattr(model, "num_persons", 1)
        self.reset()

    def reset(self) -> None:
        """Forget all frames and people."""
        self.frames: deque[np.ndarray] = deque(maxlen=self.window)
        self.persons: list[Any] = [None] * self.slots
        self._last: list[np.ndarray | None] = [None] * self.slots
        self._absent = [0] * self.slots
        self.count, self.time = 0, None

    def update(
        self, joints: np.ndarray | Tensor | Mapping[Any, Any], time: float | None = None
    ) -> Prediction | None:
        """Take a frame.

        Args:
            joints: (V, C), (M, V, C), or these (V, C) by person, in any order and number.
            time: seconds; has to increase.

        Returns:
            Prediction after every ``stride`` frames in which somebody was seen, else None.

        Raises:
            ValueError: another number of joints or coordinates than before, infinite coordinates,
                or a frame that is not later than the one before; the frame is not taken.
        """
        people = self._people(joints)
        if time is not None and self.time is not None and not time > self.time:
            raise ValueError(f"stream: expected a frame after {self.time} s, got one of {time} s")
        self.frames.append(self._place(people))
        self.count += 1
        self.time = time if time is not None else self.time
        seen = any(frame.any() for frame in self.frames)
        return self._predict() if self.count % self.stride == 0 and seen else None

    def _people(self, joints: Any) -> dict[Any, np.ndarray]:
        if not isinstance(joints, Mapping):
            array = np.asarray(joints, dtype=np.float32)
            joints = dict(enumerate(array[None] if array.ndim == 2 else array))
        people = {who: np.asarray(p, dtype=np.float32) for who, p in joints.items()}
        C = self.frames[-1].shape[-1] if self.frames else None
        for who, p in people.items():
            wanted = f"({self.layout.num_joints}, {C or '2 or 3'})"
            fits = p.ndim == 2 and len(p) == self.layout.num_joints
            if not fits or p.shape[1] not in ((2, 3) if C is None else (C,)):
                raise ValueError(f"stream: expected joints of person {who!r} of shape {wanted} "
                                 f"({self.layout.name}), got {p.shape}")  # fmt: skip
            if np.isinf(p).any():
                raise ValueError(f"stream: expected finite or NaN joints, got infinite ones of "
                                 f"person {who!r}")  # fmt: skip
        return {who: p for who, p in people.items() if not np.isnan(p).all()}

    def _place(self, people: Mapping[Any, np.ndarray]) -> np.ndarray:
        """The frame (M, V, C), people in their slots."""
        C = next(iter(people.values())).shape[1] if people else None
        C = C or (self.frames[-1].shape[-1] if self.frames else 3)
        frame = np.zeros((self.slots, self.layout.num_joints, C), np.float32)
        for slot in range(self.slots):
            self._absent[slot] += 1
            if self._absent[slot] > self.window:
                self.persons[slot], self._last[slot] = None, None
        for who, p in people.items():
            if who in self.persons:
                slot = self.persons.index(who)
            elif None in self.persons:
                slot = self.persons.index(None)
                self.persons[slot] = who
            else:
                continue
            hidden = np.isnan(p).any(axis=1)
            known, last = ~hidden, self._last[slot]
            if hidden.any():
                middle = p[known].mean(axis=0) if known.any() else np.zeros(C, np.float32)
                p = np.where(hidden[:, None], middle if last is None else last, p)
            frame[slot] = self._last[slot] = p
            self._absent[slot] = 0
        return frame

    def _predict(self) -> Prediction:
        xyz = np.stack(self.frames)
        clip = Clips(
            xyz=xyz, length=np.array([len(xyz)]), label=np.zeros(1, np.int64), classes=("?",),
            layout=self.layout.name,
        )  # fmt: skip
        data = ClipDataset(clip, self.transform, self.streams, layout=self.target)
        x = data.__getitems__(range(len(data))).x
        with torch.inference_mode():
            scores = self.model(x).softmax(-1).mean(0)
        return Prediction(self.count, self.time, scores, tuple(self.persons))


class Continual:
    r"""A network of the ST-GCN family that computes every frame once.

    Each temporal convolution keeps the frames its kernel reaches, and gives its output for the
    frame in the middle of them as soon as the last has come; residuals wait as long. Away from the
    ends of a clip, where the network pads, features are those of the network on the whole clip;
    scores are made from their mean over the last ``window`` frames. A frame is a matrix, channels
    by persons and joints, and normalisations are part of the products: the weights are those the
    network has now.

    Args:
        model: :func:`~skelops.models.st_gcn_pp` or ``STGCN``: graph convolutions that look at one
            frame, temporal ones of one or several scales.
        window: frames of the input to average over.

    Raises:
        ValueError: a network with other modules.

    Shape: a call takes one frame (C, V, M) and returns (num_classes,) or None as long as nothing
    has come through all layers.

    Source: Hedegaard et al., Continual spatio-temporal graph convolutional networks, 2023.
    """

    def __init__(self, model: SkeletonNet, window: int = 64) -> None:
        if not isinstance(model, SkeletonNet):
            raise ValueError(f"Continual: expected a SkeletonNet, got {type(model).__name__}")
        self.model = model.eval()
        M, V = model.num_persons, model.layout.num_joints
        with torch.no_grad():
            self.steps = [_BlockStep(block, M, V) for block in model.blocks]
        stride = math.prod(step.stride for step in self.steps)
        self.pooled: deque[Tensor] = deque(maxlen=max(window // stride, 1))

    def reset(self) -> None:
        """Forget all frames."""
        self.pooled.clear()
        for step in self.steps:
            step.reset()

    @torch.inference_mode()
    def __call__(self, frame: Tensor) -> Tensor | None:
        """A frame (C, V, M) -> logits (num_classes,), or None while layers still wait."""
        x = self.model.normalised(frame[None, :, None])  # (M, C, 1, V)
        y: Tensor | None = x.transpose(0, 1).flatten(1)
        for step in self.steps:
            y = step(y)
            if y is None:
                return self.scores()
        self.pooled.append(y.mean(1))
        return self.scores()

    @torch.inference_mode()
    def scores(self) -> Tensor | None:
        """Logits (num_classes,) of the frames that have come through all layers."""
        return self.model.fc(torch.stack(list(self.pooled)).mean(0)) if self.pooled else None


def _affine(bn: nn.BatchNorm1d | nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Scale and shift of a normalisation, (C, 1) each."""
    scale = bn.weight * (bn.running_var + bn.eps).rsqrt()
    return scale[:, None], (bn.bias - bn.running_mean * scale)[:, None]


class _Past:
    """The last ``length`` frames, zeros before the first, side by side in memory."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.frames: Tensor | None = None

    def push(self, x: Tensor) -> Tensor:
        """Take a frame; (length, *frame.shape), the oldest first."""
        if self.frames is None:
            self.frames, self.at = x.new_zeros(2 * self.length, *x.shape), 0
        # Each frame is there twice, so that the last ones are in one piece wherever they begin.
        self.frames[self.at :: self.length] = x
        self.at = (self.at + 1) % self.length
        return self.frames[self.at : self.at + self.length]


class _GraphStep:
    """A ``GraphUnit`` on a frame (C, M V): joints, then channels, the residual among them."""

    def __init__(self, unit: GraphUnit, M: int, V: int) -> None:
        graph = unit.graph
        if not isinstance(graph, GraphConv) or unit.gates is not None:
            name = type(graph).__name__ if not isinstance(graph, GraphConv) else "gates"
            raise ValueError(f"Continual: expected graph convolutions of one frame, got {name}")
        A = graph.topology()
        A = A if graph.transposed else A.transpose(1, 2)  # (K, V, W), from V to W
        scale, shift = _affine(unit.bn)
        if graph.aggregate_first:
            weight, bias = graph.weight, graph.bias[:, None]
        else:
            weight = graph.weight.transpose(0, 1)
            bias = torch.einsum("kc,kvw->cw", graph.bias, A).repeat(1, M)
        weight, bias = weight * scale[..., None], bias * scale + shift
        self.plain = unit.down.enabled and unit.down.conv is None
        if unit.down.conv is not None:
            # The convolution of the residual, as a further subset on which every joint is alone.
            scale, shift = _affine(unit.down.bn)
            conv = unit.down.conv
            A = torch.cat([A, torch.eye(V, dtype=A.dtype, device=A.device)[None]])
            alone = conv.weight.view(-1, 1, conv.in_channels) * scale[..., None]
            weight = torch.cat([weight, alone], dim=1)
            bias = bias + conv.bias[:, None] * scale + shift
        self.sizes = (M, len(A), V)
        self.joints = A.permute(1, 0, 2).flatten(1).contiguous()  # (V, K W)
        self.weight, self.bias = weight.flatten(1).contiguous(), bias

    def __call__(self, x: Tensor) -> Tensor:
        M, K, V = self.sizes
        near = (x.view(-1, V) @ self.joints).view(-1, M, K, V)
        y = torch.addmm(self.bias, self.weight, near.permute(2, 0, 1, 3).reshape(-1, M * V))
        return (y.add_(x) if self.plain else y).relu_()


class _OneScale:
    """A ``TemporalConv`` and its normalisation."""

    def __init__(self, temporal: TemporalConv) -> None:
        conv, (scale, shift) = temporal.conv, _affine(temporal.bn)
        if conv.padding_mode != "zeros":
            mode = conv.padding_mode
            raise ValueError(f"Continual: expected frames padded with zeros, got {mode!r}")
        self.reach, self.dilation = conv.padding[0], conv.dilation[0]
        kernel = conv.weight[..., 0].transpose(1, 2) * scale[..., None]  # (C', k, C)
        self.weight = kernel.flatten(1).contiguous()
        self.bias = conv.bias[:, None] * scale + shift

    def first(self, y: Tensor) -> Tensor:
        return y

    def last(self, past: Tensor) -> Tensor:
        return torch.addmm(self.bias, self.weight, past[:: self.dilation].flatten(0, 1))


class _Scales:
    """A ``MultiScaleTemporalConv`` and its normalisation: ``first`` before the frames are kept,
    ``last`` on those kept. What follows the branches is part of their weights."""

    def __init__(self, temporal: MultiScaleTemporalConv) -> None:
        t = temporal
        if t.padding_mode != "zeros" or t.add_coeff is not None:
            name = type(t).__name__
            raise ValueError(f"Continual: expected a temporal convolution of frames, got {name}")
        self.reach = max([d * (k // 2) for k, d in t.convs] + [int(t.pool)])
        scale, shift = _affine(t.norm)
        self.rectified = len(scale)
        after, offset = _affine(t.bn if t.transform is None else t.transform[0])
        # The plain branch passes by the first normalisation.
        scale = torch.cat([scale, after[self.rectified :]])
        shift = torch.cat([shift, offset[self.rectified :]])
        self.weight, self.bias = t.weight * scale, t.bias[:, None] * scale + shift
        self.branches, at = [], 0
        for (k, d), weight, bias in zip(t.convs, t.conv_weights, t.conv_biases, strict=True):
            rows = slice(at, at + len(bias))
            frames = slice(self.reach - d * (k // 2), self.reach + d * (k // 2) + 1, d)
            kernel = weight.transpose(1, 2).flatten(1) * after[rows]
            self.branches.append((frames, rows, kernel, bias[:, None] * after[rows] + offset[rows]))
            at += len(bias)
        self.pool = slice(at, self.rectified)
        self.after, self.offset = after[self.pool], offset[self.pool]
        self.mix = None
        if t.transform is not None:
            conv, (scale, shift) = t.transform[2], _affine(t.bn)
            self.mix = (conv.bias[:, None] * scale + shift, conv.weight[:, :, 0, 0] * scale)

    def first(self, y: Tensor) -> Tensor:
        h = torch.addmm(self.bias, self.weight, y)
        h[: self.rectified].relu_()
        return h

    def last(self, past: Tensor) -> Tensor:
        middle = self.reach
        parts = [
            torch.addmm(bias, kernel, past[frames, rows].flatten(0, 1))
            for frames, rows, kernel, bias in self.branches
        ]
        if self.pool.start < self.pool.stop:
            highest = past[middle - 1 : middle + 2, self.pool].amax(0)
            parts.append(torch.addcmul(self.offset, highest, self.after))
        parts.append(past[middle, self.rectified :])
        z = torch.cat(parts)
        return z if self.mix is None else torch.addmm(self.mix[0], self.mix[1], z.relu_())


class _BlockStep:
    """An ``STBlock``, frame (C, M V) by frame."""

    def __init__(self, block: STBlock, M: int, V: int) -> None:
        temporal = block.tcn.temporal
        kinds = {TemporalConv: _OneScale, MultiScaleTemporalConv: _Scales}
        if type(temporal) not in kinds:
            name = type(temporal).__name__
            raise ValueError(f"Continual: expected a temporal convolution, got {name}")
        self.graph = _GraphStep(block.gcn, M, V)
        self.temporal = kinds[type(temporal)](temporal)
        self.stride, self.inner_relu = temporal.stride, block.tcn.inner_relu
        self.residual, self.conv = block.residual.enabled, None
        if block.residual.conv is not None:
            conv, (scale, shift) = block.residual.conv, _affine(block.residual.bn)
            self.conv = (conv.bias[:, None] * scale + shift, conv.weight[:, :, 0, 0] * scale)
        self.reset()

    def reset(self) -> None:
        reach = self.temporal.reach
        self.inputs: deque[Tensor] = deque(maxlen=reach + 1)
        self.past = _Past(2 * reach + 1)
        self.count = -reach  # of the frame in the middle of the past

    def __call__(self, x: Tensor) -> Tensor | None:
        past = self.past.push(self.temporal.first(self.graph(x)))
        self.inputs.append(x)
        self.count += 1
        if self.count < 1 or (self.count - 1) % self.stride:
            return None
        y = self.temporal.last(past)
        y = y.relu_() if self.inner_relu else y
        if self.residual:
            x = self.inputs[0]
            y = y.add_(x if self.conv is None else torch.addmm(self.conv[0], self.conv[1], x))
        return y.relu_()


class CausalAttention:
    r"""Attention of the newest frame to the last ones, keys and values of which are kept.

    Row v of the result is that of ``attention`` for joint v of the last of ``window`` frames: every
    frame is projected once, and attends to what has been seen.

    Args:
        attention: its structure (``within``, ``pairs``, ``window``) and biases hold here, too.
        window: frames to attend to, the newest included; by default one more than the attention's
            own ``window``.

    Raises:
        ValueError: neither the attention nor the call has a window, or it is below 1.

    Shape: a call takes one frame (N, V, C) and returns (N, V, C).

    Source: Hedegaard et al., Continual Transformers, ICLR 2023, section 3 (single output).
    """

    def __init__(self, attention: STAttention, window: int | None = None) -> None:
        structure = attention.structure
        reach = structure.get("window")
        window = window if window is not None or reach is None else reach + 1
        if window is None or window < 1:
            raise ValueError(f"CausalAttention: expected window >= 1, got {window}")
        self.attention, self.window = attention.eval(), window
        V = attention.joints
        lag = torch.arange(window - 1, -1, -1)[:, None]  # of the frames kept, the oldest first
        near = torch.ones(V, window, V, dtype=torch.bool)
        if structure.get("within") == "joint":
            near &= torch.eye(V, dtype=torch.bool)[:, None]
        if structure.get("within") == "frame":
            near &= lag == 0
        if structure.get("pairs") is not None:
            near &= structure["pairs"].cpu()[:, None]
        if reach is not None:
            near &= lag <= reach
        bias = torch.zeros(attention.heads, V, window, V).masked_fill_(~near, -math.inf)
        if attention.joint_bias is not None:
            bias += attention.joint_bias.detach().cpu()[:, :, None]
        if attention.lag_bias is not None:
            W = attention.lag_bias.shape[1] // 2
            bias += attention.lag_bias.detach().cpu()[:, None, W + lag.clamp(max=W)]
        self.bias = bias.to(attention.qkv.weight)
        self.reset()

    def reset(self) -> None:
        """Forget all frames."""
        self.past, self.count = _Past(self.window), 0

    @torch.inference_mode()
    def __call__(self, x: Tensor) -> Tensor:
        """A frame (N, V, C) -> (N, V, C)."""
        _check.shape("CausalAttention", "x", x, "N V C", V=self.attention.joints)
        qkv = self.attention.qkv(x).unflatten(-1, (3, self.attention.heads, -1))
        q, *kv = qkv.permute(2, 0, 3, 1, 4)  # each (N, H, V, D)
        self.count += 1
        seen = min(self.count, self.window)
        past = self.past.push(torch.stack(kv))[-seen:]
        k, v = past.permute(1, 2, 3, 0, 4, 5).flatten(3, 4)  # each (N, H, seen V, D)
        bias = self.bias[:, :, -seen:].flatten(2)
        y = F.scaled_dot_product_attention(
            q, k, v, bias, scale=self.attention.structure.get("scale")
        )
        return self.attention.proj(y.transpose(1, 2).flatten(2))


class TemporalShift:
    """:func:`skelops.temporal_shift` of a stream: a frame's result when the next one has come.

    Args:
        fold_div: one in how many channels moves each way, at least 2.

    Shape: a call takes one frame (N, C, ...) and returns the frame before it, shifted, or None at
    the first one.

    Source: Lin et al., TSM, ICCV 2019.
    """

    def __init__(self, fold_div: int = 8) -> None:
        if fold_div < 2:
            raise ValueError(f"TemporalShift: expected fold_div of at least 2, got {fold_div}")
        self.fold_div = fold_div
        self.reset()

    def reset(self) -> None:
        """Forget all frames."""
        self.past, self.count = _Past(3), 0

    def __call__(self, x: Tensor) -> Tensor | None:
        """A frame (N, C, ...) -> the one before it, shifted, or None."""
        before, middle, after = self.past.push(x)
        self.count += 1
        if self.count < 2:
            return None
        fold = x.shape[1] // self.fold_div
        return torch.cat([after[:, :fold], before[:, fold : 2 * fold], middle[:, 2 * fold :]], 1)


def read_frames(lines: Iterable[str]) -> Iterator[tuple[dict[str, np.ndarray], float | None]]:
    """Frames of JSON lines: {"time": 0.04, "people": {"7": [[x, y, z], ...]}}.

    ``people`` may also be a list of skeletons, ``time`` may be left out, null is a joint that was
    not seen.

    Raises:
        ValueError: a line that is not such an object; it names the line.
    """
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            frame = json.loads(line)
            people = frame["people"]
            people = people if isinstance(people, dict) else dict(enumerate(people))
            arrays = {}
            for who, joints in people.items():
                dims = max((len(j) for j in joints if j is not None), default=3)
                rows = [j if j is not None else [None] * dims for j in joints]
                arrays[who] = np.array(rows, dtype=np.float32)
            yield arrays, frame.get("time")
        except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f'stream: expected {{"people": {{name: joints}}}} in line {number}, '
                             f"got {line.strip()[:60]!r} ({error})") from None  # fmt: skip


def main(argv: Sequence[str]) -> None:
    """Entry point of ``skelops stream``."""
    parser = argparse.ArgumentParser(prog="skelops stream", description=__doc__.split("\n")[0])
    parser.add_argument("run", help="folder or checkpoint of skelops fit or finetune")
    parser.add_argument("--input", default="-", help="JSON lines, - for standard input (default)")
    parser.add_argument("--layout", help="of the joints; default: that of the training")
    parser.add_argument("--window", type=int, default=64, help="frames to look at (default: 64)")
    parser.add_argument("--stride", type=int, default=4, help="frames between (default: 4)")
    parser.add_argument("--transform", help="default: that of the training")
    parser.add_argument("--streams", nargs="+", help="default: those of the training")
    parser.add_argument("--classes", nargs="+", help="names of the classes")
    args = parser.parse_args(argv)

    from skelops.train import SkeletonDataModule, load_recognizer
    from skelops.train.pretrain import data_settings

    try:
        trained = load_recognizer(args.run)
        data = SkeletonDataModule(**data_settings(args.run))
        recognizer = Recognizer(
            trained.model, args.layout or trained.hparams["layout"], args.window, args.stride,
            transform=args.transform or replace(data.transform, num_clips=1),
            streams=args.streams or data.hparams["streams"],
            target=trained.hparams["layout"], persons=trained.hparams["num_persons"],
        )  # fmt: skip
        with nullcontext(sys.stdin) if args.input == "-" else open(args.input) as lines:
            for people, time in read_frames(lines):
                found = recognizer.update(people, time)
                if found is not None:
                    best = int(found.scores.argmax())
                    row = {"frame": found.frame, "time": found.time, "class": best}
                    if args.classes:
                        row["name"] = args.classes[best]
                    row["score"] = round(float(found.scores[best]), 4)
                    print(json.dumps(row), flush=True)
    except (ValueError, OSError) as error:
        raise SystemExit(f"skelops: {error}") from None
