"""MAMP: masked motion prediction (Mao et al., ICCV 2023, https://arxiv.org/abs/2308.07092)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skelops import _check, ops
from skelops.graph import Layout, get_layout
from skelops.models._pretext import Pretext, register_pretext
from skelops.nn import Linear, TransformerBlock
from skelops.nn.transformer import init_transformer

EMBED_STD = 0.02


def _table(*shape: int) -> nn.Parameter:
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(shape), std=EMBED_STD))


class MAMPEncoder(nn.Module):
    """A vision transformer on joint-segment tokens, (N, C, T, V, M) -> features (N, D).

    Args:
        layout: V joints.
        num_frames: T, a multiple of ``segment``.
        in_channels: C.
        segment: u, frames per token.
        patch: p, neighbouring joints per token; L = T / u * V / p tokens per skeleton.
        width: D.
        depth: blocks.
        heads: H.
        mlp_ratio: hidden width of an MLP over D.
        qkv_bias, scale: of the attention.
        drop_path: rate of the last block; it grows linearly from 0.

    Raises:
        ValueError: frames or joints that do not fill the tokens.
    """

    published_keys = ()

    def __init__(
        self,
        layout: str | Layout = "ntu25",
        num_frames: int = 120,
        *,
        in_channels: int = 3,
        segment: int = 4,
        patch: int = 1,
        width: int = 256,
        depth: int = 8,
        heads: int = 8,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        scale: float | None = None,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        if num_frames < segment or num_frames % segment:
            raise _check.fail("MAMP", f"frames that fill segments of {segment}", num_frames)
        self.layout, self.num_frames = get_layout(layout), num_frames
        V, segments = self.layout.num_joints, num_frames // segment
        if not 1 <= patch <= V or V % patch:
            raise _check.fail("MAMP", f"patches that {V} joints fill", patch)
        self.segment, self.patch, self.num_features = segment, patch, width
        self.places = V // patch  # tokens per segment
        size = (segment, patch)
        self.joints_embed = nn.ModuleDict({"proj": nn.Conv2d(in_channels, width, size, size)})
        self.temp_embed = _table(1, segments, 1, width)
        self.pos_embed = _table(1, 1, self.places, width)
        block = partial(TransformerBlock, width, heads, mlp_ratio, qkv_bias=qkv_bias, scale=scale)
        self.blocks = nn.ModuleList(block() for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.apply(init_transformer)
        self.set_drop_path(drop_path)

    def set_drop_path(self, rate: float) -> None:
        for i, block in enumerate(self.blocks):
            block.drop_path.rate = rate * i / max(len(self.blocks) - 1, 1)

    def tokens(self, x: Tensor, ids: Tensor | None = None) -> Tensor:
        """Encode folded skeletons, all tokens or those of ``ids`` (B, K): (B, K, D)."""
        _check.shape("MAMP", "x", x, "B T V C", T=self.num_frames, V=self.places)
        proj = self.joints_embed["proj"]
        places = self.pos_embed[0, 0], self.temp_embed[0, :, 0]
        weight = proj.weight.permute(0, 3, 1, 2).flatten(1, 2).unsqueeze(-1)
        z = ops.masked_patch_embed(x, weight, proj.bias, *places, ids)
        z = z.to(proj.weight.dtype)  # under autocast too, sums over blocks are in full precision
        for block in self.blocks:
            z = block(z)
        return self.norm(z)

    def fold(self, x: Tensor) -> Tensor:
        """Clips (N, C, T, V, M) -> skeletons (B, T, V / p, p C), B = N M, as ``tokens`` takes them:
        the joints of a token are further channels of one."""
        x = x.permute(0, 4, 2, 3, 1).flatten(0, 1).contiguous()
        _check.shape("MAMP", "x", x, "B T V C", V=self.layout.num_joints)
        return x.unflatten(2, (self.places, self.patch)).flatten(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.tokens(self.fold(x)).view(x.shape[0], -1, self.num_features).mean(1)

    def classifier(self, num_classes: int, **options) -> MAMPClassifier:
        """The network that fine-tuning starts from."""
        return MAMPClassifier(self, num_classes, **options)


class Prediction(NamedTuple):
    """Result of a masked prediction."""

    loss: Tensor  # ()
    pred: Tensor  # (B, L, u p C)
    mask: Tensor  # (B, L) bool, True = kept
    ids_restore: Tensor  # (B, L)
    ids_keep: Tensor  # (B, K)


class MAMP(Pretext):
    """Predict the motion of masked tokens from the others; or, as MAE, their coordinates.

    Published sizes by default: 8.79 M parameters, of which 6.34 M are the encoder's.

    Args:
        layout, num_frames, in_channels, segment, patch, width, depth, heads: see
            :class:`MAMPEncoder`.
        num_persons: any; the persons of a clip are rows of their own, absent ones too.
        decoder_width: D'.
        decoder_depth: 3 for NTU RGB+D 60, 5 for NTU RGB+D 120 and PKU-MMD.
        mask_ratio, tau: see :func:`skelops.motion_mask`; ``tau`` 0.8 for NTU RGB+D 60 and PKU-MMD,
            0.75 for NTU RGB+D 120, 0 for random masks.
        stride, normalise: see :func:`skelops.motion_target`; ``stride`` 0 for coordinates.
        encoder: further arguments of :class:`MAMPEncoder`; those of blocks hold for both sides.

    Published, linear probe: NTU RGB+D 60 X-Sub 84.9, X-View 89.1; NTU RGB+D 120 X-Sub 78.6, X-Set
    79.1 %.
    """

    published_keys = ((r"^encoder\.", ""),)

    def __init__(
        self,
        layout: str | Layout = "ntu25",
        num_frames: int = 120,
        *,
        in_channels: int = 3,
        num_persons: int | None = None,
        segment: int = 4,
        patch: int = 1,
        width: int = 256,
        depth: int = 8,
        heads: int = 8,
        decoder_width: int = 256,
        decoder_depth: int = 3,
        mask_ratio: float = 0.9,
        tau: float = 0.8,
        stride: int = 1,
        normalise: bool = True,
        **encoder,
    ) -> None:
        super().__init__()
        if not decoder_depth >= 1:
            raise _check.fail("MAMP", "decoder_depth >= 1", decoder_depth)
        sizes = {"in_channels": in_channels, "segment": segment, "patch": patch}
        sizes |= {"width": width, "depth": depth, "heads": heads}
        self.encoder = MAMPEncoder(layout, num_frames, **sizes, **encoder)
        self.mask_ratio, self.tau = mask_ratio, tau
        self.target = {"segment": segment, "stride": stride, "normalise": normalise}
        self.decoder_embed = Linear(width, decoder_width)
        self.mask_token = _table(1, 1, decoder_width)
        self.decoder_temp_embed = _table(1, num_frames // segment, 1, decoder_width)
        self.decoder_pos_embed = _table(1, 1, self.encoder.places, decoder_width)
        of_blocks = ("mlp_ratio", "qkv_bias", "scale")
        options = {key: encoder[key] for key in of_blocks if key in encoder}
        self.decoder_blocks = nn.ModuleList(
            TransformerBlock(decoder_width, heads, **options) for _ in range(decoder_depth)
        )
        self.decoder_norm = nn.LayerNorm(decoder_width)
        self.decoder_pred = Linear(decoder_width, segment * patch * in_channels)
        for part in (self.decoder_embed, self.decoder_blocks, self.decoder_pred):
            part.apply(init_transformer)

    def hide(self, x: Tensor, noise: Tensor, exact: bool = False) -> tuple[Tensor, ...]:
        """``ids_keep``, ``mask`` and ``ids_restore`` of folded skeletons."""
        return ops.motion_mask(
            x.detach(),
            noise,
            mask_ratio=self.mask_ratio,
            segment=self.encoder.segment,
            tau=self.tau,
            exact=exact,
        )

    def decode(self, z: Tensor, ids_keep: Tensor, ids_restore: Tensor) -> Tensor:
        """Predictions (B, L, u p C) from encoded tokens (B, K, D)."""
        return self._decode(z, ids_keep, ids_restore, None)

    def decode_masked(self, z: Tensor, ids_keep: Tensor, ids_restore: Tensor) -> Tensor:
        """The same with zeros at the kept tokens, whose rows end in front of the last block."""
        B, L = ids_restore.shape
        rows = masked_rows(ids_restore, ids_keep.shape[1])
        pred = self._decode(z, ids_keep, ids_restore, rows)
        full = pred.new_zeros(B * L, pred.shape[-1]).index_copy(0, rows, pred)
        return full.view(B, L, -1)

    def _decode(
        self, z: Tensor, ids_keep: Tensor, ids_restore: Tensor, rows: Tensor | None
    ) -> Tensor:
        z = self.decoder_embed(z)
        token, temp = self.mask_token[0, 0], self.decoder_temp_embed[0, :, 0]
        pos = self.decoder_pos_embed[0, 0]
        x = ops.token_restore(z, token, ids_restore, pos, temp).to(token.dtype)
        for i, block in enumerate(self.decoder_blocks):
            if i == 0:
                place = (temp[:, None] + pos).flatten(0, 1)
                shared = block.project(token + place)  # masked rows of every skeleton
                own = block.project(z + F.embedding(ids_keep, place))
                y = block.attend(spread(shared, own, ids_keep))
            else:
                y = block.attend(block.project(x))
            if rows is not None and i == len(self.decoder_blocks) - 1:
                x, y = (t.flatten(0, 1).index_select(0, rows) for t in (x, y))
            x = block.finish(x, y)
        return self.decoder_pred(self.decoder_norm(x))

    def forward(self, x: Tensor, noise: Tensor | None = None, *, exact: bool = False) -> Prediction:
        """Clips (N, C, T, V, M) and, for a mask that replays, noise (N M, L) uniform in [0, 1).

        ``exact`` keeps the kept tokens in the published order.
        """
        x = self.encoder.fold(x)
        ids_keep, mask, ids_restore = self.hide(x, self._noise(x, noise), exact)
        pred = self.decode(self.encoder.tokens(x, ids_keep), ids_keep, ids_restore)
        loss = ops.masked_motion_loss(x, pred, mask, **self.target)
        return Prediction(loss, pred, mask, ids_restore, ids_keep)

    def loss(self, x: Tensor, clip: Tensor, noise: Tensor | None = None) -> Tensor:
        """The loss of ``forward`` at less work: kept tokens are not predicted."""
        x = self.encoder.fold(x)
        ids_keep, mask, ids_restore = self.hide(x, self._noise(x, noise))
        pred = self.decode_masked(self.encoder.tokens(x, ids_keep), ids_keep, ids_restore)
        return ops.masked_motion_loss(x, pred, mask, **self.target)

    def _noise(self, x: Tensor, noise: Tensor | None) -> Tensor:
        L = x.shape[1] // self.encoder.segment * x.shape[2]
        return torch.rand(x.shape[0], L, device=x.device) if noise is None else noise


register_pretext("mamp")(MAMP)
register_pretext("mae")(partial(MAMP, tau=0.0, stride=0))


def masked_rows(ids_restore: Tensor, keep: int) -> Tensor:
    """Masked tokens as rows of all skeletons' tokens one after the other, ((L - K) B,)."""
    B, L = ids_restore.shape
    token = torch.arange(L, device=ids_restore.device).expand(B, L)
    order = torch.empty_like(ids_restore).scatter_(1, ids_restore, token)
    first = torch.arange(0, B * L, max(L, 1), device=ids_restore.device)
    return (order[:, keep:] + first[:, None]).flatten()


def spread(shared: Tensor, own: Tensor, ids: Tensor) -> Tensor:
    """Rows shared by all skeletons (L, C), but their own (B, K, C) at ``ids``: (B, L, C)."""
    B, L = ids.shape[0], shared.shape[0]
    first = torch.arange(0, B * L, max(L, 1), device=ids.device)
    rows = (ids + first[:, None]).flatten()
    full = shared.expand(B, -1, -1).reshape(B * L, -1)
    return full.index_copy(0, rows, own.flatten(0, 1)).view(B, L, -1)


class MAMPClassifier(nn.Module):
    """Fine-tuning: the encoder and an MLP on all joints, averaged over time and persons.

    Args:
        encoder: to fine-tune.
        num_classes: of the logits.
        hidden: width of the MLP.
        dropout: in front of it.
        drop_path: of the encoder.
        layer_decay: factor on the learning rate per layer below the head; the embeddings are layer
            0, block i layer i + 1. 1 to train from scratch.

    Published: NTU RGB+D 60 X-Sub 93.0, X-View 97.5; NTU RGB+D 120 X-Sub 89.8, X-Set 91.5 %.
    """

    published_keys = ((r"^encoder\.", ""),)

    def __init__(
        self,
        encoder: MAMPEncoder,
        num_classes: int = 60,
        *,
        hidden: int = 2048,
        dropout: float = 0.3,
        drop_path: float = 0.3,
        layer_decay: float = 0.8,
    ) -> None:
        super().__init__()
        self.encoder, self.layer_decay = encoder, layer_decay
        encoder.set_drop_path(drop_path)
        self.dropout = nn.Dropout(dropout)
        width = encoder.places * encoder.num_features
        self.head = nn.ModuleDict(
            {
                "fc1": nn.Linear(width, hidden),
                "bn": nn.BatchNorm1d(hidden),
                "fc2": nn.Linear(hidden, num_classes),
            }
        )
        self.head.apply(init_transformer)

    def lr_scale(self, name: str) -> float:
        """Factor on the learning rate of a parameter."""
        top = len(self.encoder.blocks) + 1
        block = re.match(r"encoder\.blocks\.(\d+)\.", name)
        embedding = re.match(r"encoder\.(joints_embed|temp_embed|pos_embed)\b", name)
        layer = int(block[1]) + 1 if block else 0 if embedding else top
        return self.layer_decay ** (top - layer)

    def forward(self, x: Tensor) -> Tensor:
        N, M = x.shape[0], x.shape[4]
        z = self.dropout(self.encoder.tokens(self.encoder.fold(x)))
        z = z.view(N, M, -1, self.encoder.places, z.shape[-1]).mean((1, 2)).flatten(1)
        return self.head["fc2"](F.relu(self.head["bn"](self.head["fc1"](z))))


def resize_segments(state: Mapping[str, Tensor], segments: int) -> dict[str, Tensor]:
    """A checkpoint of this method for another number of segments, as published: bicubic in time."""

    def resized(table: Tensor) -> Tensor:
        image = table.permute(0, 3, 1, 2)  # (1, D, T', 1)
        size = (segments, 1)
        image = F.interpolate(image, size=size, mode="bicubic", align_corners=False)
        return image.permute(0, 2, 3, 1).contiguous()

    return {
        key: resized(value) if key.endswith("temp_embed") and value.shape[1] != segments else value
        for key, value in state.items()
    }
