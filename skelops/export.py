"""``skelops export``: a trained network for other runtimes, checked against the original.

Example:
    skelops export runs/ctr_gcn-ntu60/checkpoints/last.ckpt --to onnx --clips ntu60.clips
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from skelops._library import OPS
from skelops.graph import get_layout
from skelops.models.m_mixer import CHANNELS

FORMATS = ("onnx", "pt2", "aoti")
LARGEST_DIFFERENCE = 1e-4


class Export(NamedTuple):
    """What ``export`` wrote.

    Args:
        path: of the file.
        difference: largest absolute one between the scores of the two, over all clips compared.
        clips: number of clips compared.
    """

    path: Path
    difference: float
    clips: int


Clips = Tensor | Mapping[str, Tensor]


def export(
    model: nn.Module,
    example: Clips,
    path: str | Path,
    *,
    to: str = "onnx",
    clips: Iterable[Clips] = (),
) -> Export:
    """Write a network in evaluation mode to a file and compare what it then computes.

    The ops are decomposed into those of PyTorch: what is written runs without skelops. The batch
    size stays free, everything else is that of ``example``. Of a network with several heads the
    scores are the sum of all, as in training.

    Args:
        model: (N, C, T, V, M) -> (N, num_classes), or a mapping of modalities, each (N, ...).
        example: what the network takes, float32, N >= 2.
        path: of the file to write.
        to: "onnx" (needs the extra ``export``), whose inputs are named "clips", or by modality, and
            whose output "scores"; "pt2", a ``torch.export`` program; or "aoti", an AOTInductor
            package of machine code for this kind of processor.
        clips: batches like ``example``, beside a random one, to compare on.

    Returns:
        Export.

    Raises:
        ValueError: an unknown format; an example of one clip, from which a free batch size cannot
            be seen.
        RuntimeError: the two differ by more than 1e-4 of the largest score; the file is removed.
    """
    if to not in FORMATS:
        raise ValueError(f"export: expected to one of {', '.join(FORMATS)}, got {to!r}")
    sizes = [len(x) if x.dim() == 5 else 0 for x in _tensors(example)]
    if len(set(sizes)) != 1 or sizes[0] < 2:
        shapes = [tuple(x.shape) for x in _tensors(example)]
        got = shapes[0] if isinstance(example, Tensor) else dict(zip(example, shapes, strict=True))
        raise ValueError(f"export: expected an example (N >= 2, C, T, V, M), got {got}")
    path = Path(path)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            if isinstance(model(example), tuple):
                model = _Summed(model)
            free = torch.export.Dim("N", min=1)
            shapes = pytree.tree_map(lambda _: {0: free}, example)
            program = torch.export.export(model, (example,), dynamic_shapes=(shapes,), strict=True)
            run = _WRITERS[to](decomposed(program), path)
            batches = [pytree.tree_map(torch.randn_like, example), *clips]
            difference, scale = 0.0, 0.0
            for x in batches:
                expected = model(x)
                difference = max(difference, float((run(x) - expected).abs().max()))
                scale = max(scale, float(expected.abs().max()))
    finally:
        model.train(was_training)
    if not difference <= LARGEST_DIFFERENCE * scale:
        path.unlink()
        raise RuntimeError(f"export: expected {path.name} to compute what the model does, got "
                           f"scores that differ by {difference:.1e}")  # fmt: skip
    return Export(path, difference, sum(len(_tensors(x)[0]) for x in batches))


class _Summed(nn.Module):
    """A network with several heads, whose prediction is the sum of their logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Clips) -> Tensor:
        return torch.stack(self.model(x)).sum(0)


def _tensors(x: Clips) -> list[Tensor]:
    return [x] if isinstance(x, Tensor) else list(x.values())


def decomposed(program: ExportedProgram) -> ExportedProgram:
    """A program whose skelops ops are replaced by their references, down to those of PyTorch."""
    table = torch.export.default_decompositions()
    table.update({op.forward_op: op.reference for op in OPS.values()})
    return program.run_decompositions(table)


def _stable_sort(x: Any, stable: bool = True, dim: int = -1, descending: bool = False) -> Any:
    """A stable sort in ONNX, whose TopK takes the lower index of equals first."""
    from onnxscript import opset18 as op

    size = op.Gather(op.Shape(x), op.Constant(value_ints=[dim]))
    return op.TopK(x, size, axis=dim, largest=int(descending))


def _onnx(program: ExportedProgram, path: Path) -> Callable[[Clips], Tensor]:
    import onnxruntime

    (example,), _ = program.example_inputs
    names = ["clips"] if isinstance(example, Tensor) else list(example)
    torch.onnx.export(
        program, input_names=names, output_names=["scores"], external_data=False,
        dynamo=True, verbose=False,
        custom_translation_table={torch.ops.aten.sort.stable: _stable_sort},
    ).save(path)  # fmt: skip
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(x: Clips) -> Tensor:
        feed = {name: part.numpy() for name, part in zip(names, _tensors(x), strict=True)}
        return torch.from_numpy(session.run(None, feed)[0])

    return run


def _pt2(program: ExportedProgram, path: Path) -> Callable[[Clips], Tensor]:
    torch.export.save(program, path)
    return torch.export.load(path).module()


def _aoti(program: ExportedProgram, path: Path) -> Callable[[Clips], Tensor]:
    from torch._inductor import aoti_compile_and_package, aoti_load_package

    return aoti_load_package(aoti_compile_and_package(program, package_path=str(path)))


_WRITERS: dict[str, Callable[[ExportedProgram, Path], Callable[[Clips], Tensor]]] = {
    "onnx": _onnx,
    "pt2": _pt2,
    "aoti": _aoti,
}


def main(argv: Sequence[str]) -> None:
    """Entry point of ``skelops export``."""
    parser = argparse.ArgumentParser(prog="skelops export", description=__doc__.split("\n")[0])
    parser.add_argument("run", help="folder or checkpoint of skelops fit or finetune")
    parser.add_argument("--to", choices=FORMATS, default="onnx")
    parser.add_argument("--output", help="by default beside the checkpoint")
    parser.add_argument("--frames", type=int, help="T of a clip (default: as in training)")
    parser.add_argument("--clips", help="recordings to compare on, besides random numbers")
    args = parser.parse_args(argv)

    from skelops.train import load_recognizer
    from skelops.train.pretrain import checkpoint_of

    try:
        path = checkpoint_of(args.run)
        model = load_recognizer(path)
        data = _data(path, model.hparams, args.clips, args.frames)
        example = _example(model.hparams, data)
        clips = [_recorded(data, example)] if args.clips else ()
        suffix = "onnx" if args.to == "onnx" else "pt2"
        output = args.output or path.with_suffix(f".{suffix}")
        written = export(model.model, example, output, to=args.to, clips=clips)
    except (ValueError, RuntimeError) as error:
        raise SystemExit(f"skelops: {error}") from None
    size = written.path.stat().st_size / 2**20
    print(f"{written.path}: {size:.1f} MiB; scores of {written.clips} clips differ by at most "
          f"{written.difference:.1e}")  # fmt: skip


def _data(run: Path, facts: Any, source: str | None, frames: int | None) -> Any:
    """The data module of a run, for clips of another source and another length."""
    from skelops.train import SkeletonDataModule
    from skelops.train.pretrain import data_settings

    streams = ["joint", "bone", "joint_motion", "bone_motion"][: facts.in_channels // 3]
    settings = data_settings(run) or {"streams": streams}
    part = settings.get("part")
    settings |= {"layout": facts.layout.removesuffix(f"_{part}"), "divide": None}
    settings |= {"source": source} if source else {}
    settings |= {"window": frames} if frames else {}
    return SkeletonDataModule(**settings)


def _example(facts: Any, data: Any) -> Clips:
    """Two random clips of the form that the network was trained on."""
    C, T, V, M = (
        facts.in_channels,
        data.frames,
        get_layout(facts.layout).num_joints,
        facts.num_persons,
    )
    modalities, S = data.hparams.modalities, data.hparams.image_size
    if modalities is None:
        return torch.randn(2, C, T, V, M)
    joints = ("keypoints", "skeleton")
    sizes = {name: (T, V, M) if name in joints else (T, S, S) for name in modalities}
    return {name: torch.rand(2, CHANNELS.get(name, 3), *size) for name, size in sizes.items()}


def _recorded(data: Any, example: Clips) -> Clips:
    """Eight clips of the source in the form of the example."""
    from skelops.data import ClipLoader

    first = np.arange(min(8, len(data.clips)))
    data.index = (first, first)
    clips = next(iter(ClipLoader(data.dataset(train=False, num_clips=1), batch_size=8))).x
    for x, wanted in zip(_tensors(clips), _tensors(example), strict=True):
        if x.shape[1:] != wanted.shape[1:]:
            raise ValueError(f"export: expected clips of {tuple(wanted.shape[1:])} as the network "
                             f"has it, got {tuple(x.shape[1:])}")  # fmt: skip
    return clips
