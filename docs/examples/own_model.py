"""A fused op in a network of your own: graph convolution, normalisation and ReLU in two calls.

The same network with the plain PyTorch formula gives the same scores and gradients, only later.
"""

from time import perf_counter

import torch
from torch import Tensor, nn

import skelops

LAYOUT = skelops.graph.get_layout("ntu25")


class Block(nn.Module):
    """Joints exchange features along the skeleton, then every joint looks at nearby frames."""

    def __init__(self, channels: int, out: int, fused: bool = True) -> None:
        super().__init__()
        graph = LAYOUT.adjacency("spatial")  # (3, V, V)
        self.graph = nn.Parameter(graph)
        self.weight = nn.Parameter(torch.randn(len(graph), out, channels) / channels**0.5)
        self.norm = nn.BatchNorm2d(out)
        self.temporal = nn.Conv2d(out, out, (9, 1), padding=(4, 0))
        self.fused = fused

    def forward(self, x: Tensor) -> Tensor:  # (N, C, T, V) -> (N, out, T, V)
        if self.fused:
            y = skelops.graph_conv(x, self.graph, self.weight)
        else:
            y = torch.einsum("kvw,koi,nitw->notv", self.graph, self.weight, x)
        return self.temporal(self.norm(y).relu())


def network(fused: bool) -> nn.Module:
    torch.manual_seed(0)
    blocks = [Block(3, 64, fused), Block(64, 64, fused), Block(64, 128, fused)]
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 60))


def seconds(model: nn.Module, clips: Tensor) -> float:
    """Of a training step, the least of three."""
    found = []
    for _ in range(3):
        begin = perf_counter()
        model(clips).logsumexp(1).sum().backward()
        found.append(perf_counter() - begin)
    return min(found)


def main() -> None:
    clips = torch.randn(16, 3, 64, LAYOUT.num_joints)
    ours, plain = network(fused=True), network(fused=False)
    difference = (ours(clips) - plain(clips)).abs().max().item()
    assert difference < 1e-4, difference
    print(f"largest difference of the scores: {difference:.1e}")
    print(f"training step: {1e3 * seconds(ours, clips):.0f} ms with skelops.graph_conv, "
          f"{1e3 * seconds(plain, clips):.0f} ms with torch.einsum")  # fmt: skip


if __name__ == "__main__":
    main()
