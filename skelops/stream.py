"""Recognition while the frames come in: a sliding window, or a network that sees each frame once.

Example:
    skelops stream runs/ctr_gcn_small-nw_ucla/checkpoints/last.ckpt --input poses.jsonl
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from skelops.data import ClipDataset, Clips, ClipTransform, get_transform
from skelops.graph import Layout, get_layout
from skelops.nn import (
    GraphConv,
    MultiScaleTemporalConv,
    SkeletonNet,
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
    ) -> None:
        for name, value in (("window", window), ("stride", stride)):
            if value < 1:
                raise ValueError(f"stream: expected {name} >= 1, got {value}")
        self.model, self.layout = model.eval(), get_layout(layout)
        self.window, self.stride = window, stride
        self.transform, self.streams = get_transform(transform), streams
        self.target = getattr(model, "layout", self.layout).name
        self.slots = getattr(model, "num_persons", 1)
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


class Continual(nn.Module):
    r"""A network of the ST-GCN family that computes every frame once.

    Each temporal convolution keeps the frames its kernel reaches, and gives its output for the
    frame in the middle of them as soon as the last has come; residuals wait as long. Away from the
    ends of a clip, where the network pads, features are those of the network on the whole clip;
    scores are made from their mean over the last ``window`` frames.

    Args:
        model: :func:`~skelops.models.st_gcn_pp` or ``STGCN``: graph convolutions that look at one
            frame, temporal ones of one or several scales. Parameters are shared with it.
        window: frames of the input to average over.

    Raises:
        ValueError: a network with other modules.

    Shape: ``forward`` takes one frame (C, V, M) and returns (num_classes,) or None as long as
    nothing has come through all layers.

    Source: Hedegaard et al., Continual spatio-temporal graph convolutional networks, 2023.
    """

    def __init__(self, model: SkeletonNet, window: int = 64) -> None:
        super().__init__()
        if not isinstance(model, SkeletonNet):
            raise ValueError(f"Continual: expected a SkeletonNet, got {type(model).__name__}")
        self.model = model.eval()
        self.steps = nn.ModuleList(_BlockStep(block) for block in model.blocks)
        stride = 1
        for block in model.blocks:
            stride *= block.tcn.temporal.stride
        self.pooled: deque[Tensor] = deque(maxlen=max(window // stride, 1))

    def reset(self) -> None:
        """Forget all frames."""
        self.pooled.clear()
        for step in self.steps:
            step.reset()

    @torch.inference_mode()
    def forward(self, frame: Tensor) -> Tensor | None:
        """A frame (C, V, M) -> logits (num_classes,), or None while layers still wait."""
        model = self.model
        x = model.embed(frame[None, :, None])  # (1, M, V, C, 1)
        x = model.data_bn(x.reshape(-1, model.data_bn.num_features, 1))
        M, V = frame.shape[-1], frame.shape[1]
        y: Tensor | None = x.view(M, V, -1, 1).permute(0, 2, 3, 1).contiguous()
        for step in self.steps:
            y = step(y)
            if y is None:
                return self.scores()
        self.pooled.append(y.mean((0, 2, 3)))
        return self.scores()

    @torch.inference_mode()
    def scores(self) -> Tensor | None:
        """Logits (num_classes,) of the frames that have come through all layers."""
        return self.model.fc(torch.stack(list(self.pooled)).mean(0)) if self.pooled else None


class _BlockStep(nn.Module):
    """An ``STBlock``, frame (M, C, 1, V) by frame."""

    def __init__(self, block: STBlock) -> None:
        super().__init__()
        graph, temporal = block.gcn.graph, block.tcn.temporal
        if not isinstance(graph, GraphConv) or block.gcn.gates is not None:
            name = type(graph).__name__ if not isinstance(graph, GraphConv) else "gates"
            raise ValueError(f"Continual: expected graph convolutions of one frame, got {name}")
        single = isinstance(temporal, TemporalConv)
        plain = isinstance(temporal, MultiScaleTemporalConv) and temporal.padding_mode == "zeros"
        if not single and (not plain or temporal.add_coeff is not None):
            name = type(temporal).__name__
            raise ValueError(f"Continual: expected a temporal convolution, got {name}")
        self.block = block
        self.temporal: Callable[[Tensor], Tensor] = self._single if single else self._scales
        if single:
            self.reach = temporal.conv.padding[0]
        else:
            convs = [d * (k // 2) for k, d in temporal.convs]
            self.reach = max([*convs, 1 if temporal.pool else 0])
        self.reset()

    def reset(self) -> None:
        # Every frame's input, for the residual, and what the temporal module reads of it.
        self.inputs: deque[Tensor] = deque(maxlen=self.reach + 1)
        self.hidden: deque[Tensor] = deque(maxlen=2 * self.reach + 1)
        self.count = 0

    def forward(self, x: Tensor) -> Tensor | None:
        block = self.block
        y = block.gcn(x)
        self.hidden.append(y if self.temporal == self._single else self._first(y))
        self.inputs.append(x)
        if len(self.hidden) <= self.reach:
            return None
        # Until the kernel is full, the frames before the first are the zeros of its padding.
        frame = self.count
        self.count += 1
        if frame % block.tcn.temporal.stride:
            return None
        missing = 2 * self.reach + 1 - len(self.hidden)
        window = torch.cat(list(self.hidden), dim=2)
        z = self.temporal(F.pad(window, (0, 0, missing, 0)) if missing else window)
        residual = None
        if block.residual.enabled:
            residual = self.inputs[0]
            if block.residual.conv is not None:
                residual = block.residual.bn(self._at_once(block.residual.conv, residual))
        y = block.tcn.temporal.bn(z)
        y = y.relu() if block.tcn.inner_relu else y
        return (y if residual is None else y + residual).relu()

    def _at_once(self, conv: nn.Conv2d, x: Tensor) -> Tensor:
        """A 1x1 convolution of one frame."""
        return F.conv2d(x, conv.weight, conv.bias)

    def _single(self, window: Tensor) -> Tensor:
        conv = self.block.tcn.temporal.conv
        return F.conv2d(window, conv.weight, conv.bias, dilation=conv.dilation)

    def _first(self, y: Tensor) -> Tensor:
        """The 1x1 transforms of all branches, normalised and rectified but for the plain one."""
        t = self.block.tcn.temporal
        h = F.conv2d(y, t.weight[..., None, None], t.bias)
        count = t.norm.num_features
        a = t.norm(h[:, :count]).relu()
        return torch.cat([a, h[:, count:]], dim=1) if t.plain else a

    def _scales(self, window: Tensor) -> Tensor:
        t = self.block.tcn.temporal
        parts, at, middle = [], 0, self.reach
        kernels = zip(t.convs, t.conv_weights, t.conv_biases, strict=True)
        for (k, d), weight, bias in kernels:
            taps = window[:, at : at + len(bias), middle - d * (k // 2) : middle + d * (k // 2) + 1]
            parts.append(F.conv2d(taps, weight[..., None], bias, dilation=(d, 1)))
            at += len(bias)
        if t.pool:
            width = t.widths[len(t.convs)]
            parts.append(window[:, at : at + width, middle - 1 : middle + 2].amax(2, keepdim=True))
            at += width
        if t.plain:
            parts.append(window[:, at:, middle : middle + 1])
        y = torch.cat(parts, dim=1)
        return y if t.transform is None else t.transform(y)


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
    parser.add_argument("checkpoint", help="of skelops fit")
    parser.add_argument("--input", default="-", help="JSON lines, - for standard input (default)")
    parser.add_argument("--layout", help="of the joints; default: the network's")
    parser.add_argument("--window", type=int, default=64)
    parser.add_argument("--stride", type=int, default=4)
    parser.add_argument("--transform", default="ctr_gcn")
    parser.add_argument("--streams", nargs="+", default=["joint"])
    parser.add_argument("--classes", nargs="+", help="names of the classes")
    args = parser.parse_args(argv)

    from skelops.train import Recognizer as Trained

    model = Trained.load_from_checkpoint(args.checkpoint, map_location="cpu").model
    try:
        recognizer = Recognizer(
            model, args.layout or model.layout, args.window, args.stride,
            transform=args.transform, streams=args.streams,
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
