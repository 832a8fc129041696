"""``skelops export``: a trained network for other runtimes, checked against the original.

Example:
    skelops export runs/ctr_gcn-ntu60/checkpoints/last.ckpt --to onnx --clips ntu60.clips
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from skelops._library import OPS

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


def export(
    model: nn.Module,
    example: Tensor,
    path: str | Path,
    *,
    to: str = "onnx",
    clips: Iterable[Tensor] = (),
) -> Export:
    """Write a network in evaluation mode to a file and compare what it then computes.

    The ops are decomposed into those of PyTorch: what is written runs without skelops. The batch
    size stays free, frames are those of ``example``.

    Args:
        model: (N, C, T, V, M) -> (N, num_classes).
        example: (N, C, T, V, M) float32, N >= 2.
        path: of the file to write.
        to: "onnx" (opset 18; needs the extra ``export``), "pt2", a ``torch.export`` program, or
            "aoti", an AOTInductor package of machine code for this kind of processor.
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
    if example.dim() != 5 or len(example) < 2:
        raise ValueError(f"export: expected an example (N >= 2, C, T, V, M), got "
                         f"{tuple(example.shape)}")  # fmt: skip
    path = Path(path)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            shapes = ({0: Dim("N", min=1)},)
            program = torch.export.export(model, (example,), dynamic_shapes=shapes, strict=True)
            run = _WRITERS[to](decomposed(program), path)
            batches = [torch.randn_like(example), *clips]
            difference, scale = 0.0, 1.0
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
    return Export(path, difference, sum(len(x) for x in batches))


def decomposed(program: ExportedProgram) -> ExportedProgram:
    """A program whose skelops ops are replaced by their references, down to those of PyTorch."""
    table = torch.export.default_decompositions()
    table.update({op.forward_op: op.reference for op in OPS.values()})
    return program.run_decompositions(table)


def _onnx(program: ExportedProgram, path: Path) -> Callable[[Tensor], Tensor]:
    import onnxruntime

    torch.onnx.export(
        program, input_names=["clips"], output_names=["scores"], external_data=False,
        dynamo=True, verbose=False,
    ).save(path)  # fmt: skip
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(None, {"clips": x.numpy()})[0])


def _pt2(program: ExportedProgram, path: Path) -> Callable[[Tensor], Tensor]:
    torch.export.save(program, path)
    return torch.export.load(path).module()


def _aoti(program: ExportedProgram, path: Path) -> Callable[[Tensor], Tensor]:
    from torch._inductor import aoti_compile_and_package, aoti_load_package

    return aoti_load_package(aoti_compile_and_package(program, package_path=str(path)))


_WRITERS: dict[str, Callable[[ExportedProgram, Path], Callable[[Tensor], Tensor]]] = {
    "onnx": _onnx,
    "pt2": _pt2,
    "aoti": _aoti,
}


def main(argv: Sequence[str]) -> None:
    """Entry point of ``skelops export``."""
    parser = argparse.ArgumentParser(prog="skelops export", description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint", help="of skelops fit")
    parser.add_argument("--to", choices=FORMATS, default="onnx")
    parser.add_argument("--output", help="by default beside the checkpoint")
    parser.add_argument("--frames", type=int, default=64, help="T of a clip (default: 64)")
    parser.add_argument("--clips", help="recordings to compare on, besides random numbers")
    args = parser.parse_args(argv)

    from skelops.train import Recognizer

    recognizer = Recognizer.load_from_checkpoint(args.checkpoint, map_location="cpu")
    facts = recognizer.hparams
    V = recognizer.model.layout.num_joints
    example = torch.randn(2, facts.in_channels, args.frames, V, facts.num_persons)
    suffix = "onnx" if args.to == "onnx" else "pt2"
    path = args.output or Path(args.checkpoint).with_suffix(f".{suffix}")
    clips = _recorded(args.clips, example) if args.clips else ()
    try:
        written = export(recognizer.model, example, path, to=args.to, clips=clips)
    except (ValueError, RuntimeError) as error:
        raise SystemExit(f"skelops: {error}") from None
    size = written.path.stat().st_size / 2**20
    print(f"{written.path}: {size:.1f} MiB; scores of {written.clips} clips differ by at most "
          f"{written.difference:.1e}")  # fmt: skip


def _recorded(source: str, example: Tensor) -> list[Tensor]:
    """Eight recorded clips in the shape of the example, joints as its channels allow."""
    from skelops.data import ClipDataset, ClipLoader, read

    streams = ["joint", "bone", "joint_motion", "bone_motion"][: example.shape[1] // 3]
    dataset: Any = ClipDataset(read(source), "ctr_gcn", streams, train=False)
    x = next(iter(ClipLoader(dataset, batch_size=8)))[0]
    if x.shape[1:] != example.shape[1:]:
        wanted, got = tuple(example.shape[1:]), tuple(x.shape[1:])
        raise SystemExit(f"skelops: export: expected clips of (C, T, V, M) {wanted}, got {got}")
    return [x]
