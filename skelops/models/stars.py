"""STARS: contrastive tuning of MAMP (Mehraban et al., 2024, https://arxiv.org/abs/2407.10935)."""

from __future__ import annotations

import re

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skelops import _check, ops
from skelops.graph import Layout
from skelops.models._pretext import Pretext, register_pretext
from skelops.models.mamp import MAMPEncoder
from skelops.nn import Packed, Part

MOMENTUM = 0.1  # of the normalisations, per view


class NeighbourQueue(Packed):
    """Features of the last samples and whose they are; full from the start, of noise of nobody.

    Published as (D, K); here one entry is one row.
    """

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.register_buffer("queue", F.normalize(torch.randn(size, width)))
        self.register_buffer("queue_id", torch.full((size,), -1))
        self.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.int64))

    def published(self) -> dict[str, Part]:
        return {"queue": Part("queue", (), tuple(self.queue.T.shape), transposed=True)}

    @torch.no_grad()
    def nearest(self, z: Tensor, ids: Tensor, among: int = 1, pick: Tensor | None = None) -> Tensor:
        """Rows (N,) nearest to z (N, D) that are not of the samples ``ids`` themselves.

        Of the ``among`` nearest of each the one of rank ``pick`` (N,), or a random one.
        """
        if among == 1:
            return ops.nn_lookup(z, self.queue, self.queue_id, ids)
        similarity = z @ self.queue.T
        similarity[self.queue_id == ids[:, None]] = -1
        if pick is None:
            pick = torch.randint(among, ids.shape, device=z.device)
        return similarity.topk(among).indices.gather(1, pick[:, None])[:, 0]

    @torch.no_grad()
    def push(self, z: Tensor, ids: Tensor) -> None:
        """Write samples over the oldest entries."""
        size, count = len(self.queue), len(z)
        rows = (self.queue_ptr + torch.arange(count, device=z.device)) % size
        last = slice(max(count - size, 0), None)
        self.queue.index_copy_(0, rows[last], z[last].to(self.queue.dtype))
        self.queue_id.index_copy_(0, rows[last], ids[last])
        self.queue_ptr.add_(count).remainder_(size)


class STARS(Pretext):
    r"""Draw the prediction of every clip to the nearest neighbour of it in a queue.

    .. math:: f = \text{encoder}(x), \quad z = \text{BN}(f), \quad p = \text{predictor}(z), \qquad
        loss = \text{nn\_contrastive\_loss}(\hat p, Q, \text{nn\_lookup}(\hat z, Q))

    Begin with the weights of a MAMP encoder. The loss is the mean over two views, of which the
    second passes no gradient. The published views of a clip are the same, so one pass gives both at
    half the work; running statistics move as far as by both. The published code also computes
    gradients that no optimiser uses; here the encoder below the tuned blocks has none, and updates
    are the same.

    Args:
        layout, num_frames, in_channels: see :class:`MAMPEncoder`.
        num_persons: any.
        tuned: blocks from the top that are trained, with the last normalisation: half of them in
            the third stage (default), 0 in the second, which trains the head alone. All of them
            include the embeddings.
        queue_size: K.
        among: draw to a random one of so many nearest neighbours.
        hidden: width of the predictor.
        temperature: of the loss.
        gamma: factor on the learning rate per block from the top: 0.45 for NTU RGB+D 60, 0.40 for
            NTU RGB+D 120, 0.35 for PKU-MMD II.
        views: 2 to give (N, 2, C, T, V, M) to ``loss``.
        encoder: further arguments of :class:`MAMPEncoder`.

    Published, linear probe: NTU RGB+D 60 X-Sub 87.1, X-View 90.9; nearest neighbour 79.9, 88.6 %.
    """

    published_keys = (
        (r"^encoder\.", "encoder_student."),
        (r"^(projector|predictor)\.", r"encoder_student.head.\1."),
        (r"^queue\.", ""),
    )

    def __init__(
        self,
        layout: str | Layout = "ntu25",
        num_frames: int = 120,
        *,
        in_channels: int = 3,
        num_persons: int | None = None,
        tuned: int | None = None,
        queue_size: int = 32768,
        among: int = 1,
        hidden: int = 4096,
        temperature: float = 0.07,
        gamma: float = 0.45,
        views: int = 1,
        **encoder,
    ) -> None:
        super().__init__()
        self.encoder = MAMPEncoder(layout, num_frames, in_channels=in_channels, **encoder)
        depth, width = len(self.encoder.blocks), self.encoder.num_features
        tuned = depth // 2 if tuned is None else tuned
        if not 0 <= tuned <= depth:
            raise _check.fail("STARS", f"tuned blocks in 0..{depth}", tuned)
        if views not in (1, 2):
            raise _check.fail("STARS", "1 or 2 views", views)
        if not 1 <= among <= queue_size:
            raise _check.fail("STARS", f"among in 1..{queue_size}", among)
        self.views, self.among, self.temperature, self.gamma = views, among, temperature, gamma
        # Two updates by the same statistics are one of this momentum.
        momentum = MOMENTUM if views == 2 else 1 - (1 - MOMENTUM) ** 2
        self.projector = nn.Sequential(nn.BatchNorm1d(width, momentum=momentum))
        self.predictor = nn.Sequential(
            nn.Linear(width, hidden, bias=False),
            nn.BatchNorm1d(hidden, momentum=momentum),
            nn.ReLU(),
            nn.Linear(hidden, width),
        )
        self.queue = NeighbourQueue(queue_size, width)
        for part in (*self.projector, *self.predictor):
            if isinstance(part, nn.Linear):
                nn.init.normal_(part.weight, std=0.02)
            elif isinstance(part, nn.BatchNorm1d):
                nn.init.normal_(part.weight, 1, 0.02)
        nn.init.zeros_(self.predictor[3].bias)
        self.encoder.requires_grad_(tuned == depth)
        if tuned > 0:
            for part in (*self.encoder.blocks[depth - tuned :], self.encoder.norm):
                part.requires_grad_()

    def lr_scale(self, name: str) -> float:
        """Factor on the learning rate of a parameter."""
        block = re.match(r"encoder\.blocks\.(\d+)\.", name)
        return self.gamma ** (len(self.encoder.blocks) - int(block[1])) if block else 1.0

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Clips (N, C, T, V, M) -> prediction and projection, (N, D) of unit norm."""
        z = self.projector(self.encoder(x))
        p, dtype = self.predictor(z), self.queue.queue.dtype
        return F.normalize(p.to(dtype)), F.normalize(z.detach().to(dtype))

    def loss(self, x: Tensor, clip: Tensor) -> Tensor:
        """x (N, C, T, V, M), or (N, 2, C, T, V, M); in training the first view enters the queue."""
        first, second = x.unbind(1) if self.views == 2 else (x, None)
        p, z = self(first)
        if second is None:
            loss = self._contrast(p, z, clip)
            loss = (loss + loss.detach()) / 2
        else:
            with torch.no_grad():
                p1, z1 = self(second)
            loss = (self._contrast(p, z1, clip) + self._contrast(p1, z, clip)) / 2
        if self.training:
            self.queue.push(z, clip)
        return loss

    def _contrast(self, p: Tensor, z: Tensor, clip: Tensor) -> Tensor:
        Q = self.queue.queue
        rows = self.queue.nearest(z, clip, self.among)
        return ops.nn_contrastive_loss(p, Q, rows, self.temperature)


register_pretext("stars")(STARS)
