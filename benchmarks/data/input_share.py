"""Share of a training step of CTR-GCN that goes into its input.

python -m benchmarks.data.input_share [--threads 1 2]

CPU time with one thread, wall time with more; batches and steps take turns.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from benchmarks.clock import CpuClock
from benchmarks.run import allocator
from skelops.data import ClipDataset, ClipLoader, synthetic
from skelops.models import create_model
from skelops.testing.threads import threads

BATCH = 16


def share(steps: int) -> tuple[float, float]:
    """Median milliseconds of a batch and of the training step on it."""
    clips = synthetic.generate(8 * BATCH)
    loader = ClipLoader(ClipDataset(clips, "ctr_gcn", train=True), BATCH)
    model = create_model("ctr_gcn", num_classes=clips.num_classes)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, 0.9, nesterov=True, weight_decay=4e-4)
    batches = (batch for epoch in range(steps) for batch in _epoch(loader, epoch))
    clock, times = CpuClock(), []
    for _ in range(steps):
        found = []
        waited = clock(lambda found=found: found.append(next(batches)))

        def step(batch=found[0]) -> None:
            F.cross_entropy(model(batch.x), batch.y).backward()
            optimizer.step()
            optimizer.zero_grad()

        times.append((waited, clock(step)))
    data, trained = zip(*times[2:], strict=True)
    return 1e3 * statistics.median(data), 1e3 * statistics.median(trained)


def _epoch(loader: ClipLoader, epoch: int) -> ClipLoader:
    loader.sampler.set_epoch(epoch)
    return loader


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.data.input_share", description=__doc__)
    parser.add_argument("--threads", nargs="+", type=int, default=[1])
    parser.add_argument("--steps", type=int, default=20, help="the first two are not counted")
    options = parser.parse_args(argv)
    for count in options.threads:
        with threads(count):
            data, step = share(options.steps)
        print(
            f"threads {count}, batch {BATCH}, {allocator()} allocator: "
            f"input {data:.2f} ms, step {step:.1f} ms, share {100 * data / (data + step):.2f} %"
        )


if __name__ == "__main__":
    main()
