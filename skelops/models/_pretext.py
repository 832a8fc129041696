"""Networks that learn without labels, by name, and what is built on what they learnt."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn

from skelops import _check

_PRETEXTS: dict[str, Callable[..., Pretext]] = {}


class Pretext(nn.Module):
    """A network that learns from clips without their classes.

    A method provides ``loss`` and ``encoder``, a module (N, C, T, V, M) -> (N, ``num_features``).
    Its constructor takes what it needs of the data by keyword: ``layout``, ``num_frames``,
    ``num_persons`` and ``in_channels``. Linear probes, nearest neighbours and fine-tuning see the
    encoder alone.

    A method may have ``lr_scale(name)``, the factor on the learning rate of a parameter, and its
    encoder ``classifier(num_classes, **options)``, see :func:`build_classifier`. Parameters that
    require no gradient are not trained.
    """

    encoder: nn.Module

    def loss(self, x: Tensor, clip: Tensor) -> Tensor:
        """What training minimises, ().

        Args:
            x: (N, C, T, V, M), or (N, views, C, T, V, M) of a method that compares views.
            clip: (N,) int64, which clip each sample is of.
        """
        raise NotImplementedError

    def encoder_loaded(self) -> None:
        """Told after the encoder was filled from another run."""

    def start_epoch(self, epoch: int) -> None:
        """Told before the first batch of an epoch."""

    def end_step(self) -> None:
        """Told after the backward of a loss, which may have read what is now written."""


class Classifier(nn.Module):
    """An encoder and a linear layer, both trained: (N, C, T, V, M) -> (N, num_classes)."""

    def __init__(self, encoder: nn.Module, num_classes: int) -> None:
        super().__init__()
        self.encoder, self.fc = encoder, nn.Linear(encoder.num_features, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.encoder(x))


def build_classifier(encoder: nn.Module, num_classes: int, **options: Any) -> nn.Module:
    """The network to fine-tune: the encoder's own ``classifier(num_classes, **options)``, else the
    encoder and a linear layer, which takes no options."""
    build = getattr(encoder, "classifier", None)
    return (build or partial(Classifier, encoder))(num_classes, **options)


class LinearProbe(nn.Module):
    """Logits of features that stay as they are: a normalisation without parameters, a linear layer.

    The encoder is in evaluation mode and its parameters require no gradient, in training too.

    Args:
        encoder: (N, C, T, V, M) -> (N, ``num_features``).
        num_classes: of the logits.
        normalize: False leaves the normalisation out, as HiCLR, HaLP and MS-CLR do.

    Shapes: clips (N, C, T, V, M), or their features (N, ``num_features``), to (N, num_classes).

    Source: He et al., MAE, CVPR 2022; Mao et al., MAMP, ICCV 2023.
    """

    published_keys = ((r"^encoder\.", ""), (r"^head\.", "head.fc."))

    def __init__(self, encoder: nn.Module, num_classes: int, normalize: bool = True) -> None:
        super().__init__()
        self.encoder = encoder.requires_grad_(False).eval()
        width = encoder.num_features
        norm = nn.BatchNorm1d(width, affine=False, eps=1e-6) if normalize else nn.Identity()
        self.head = nn.Sequential(norm, nn.Linear(width, num_classes))
        nn.init.trunc_normal_(self.head[1].weight, std=0.01)
        nn.init.zeros_(self.head[1].bias)

    def train(self, mode: bool = True) -> LinearProbe:
        super().train(mode)
        self.encoder.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x if x.ndim == 2 else self.encoder(x))


def register_pretext(name: str) -> Callable:
    """Class or function decorator: make a method known to ``create_pretext``."""

    def add(method: Callable[..., Pretext]) -> Callable[..., Pretext]:
        _PRETEXTS[name] = method
        return method

    return add


def list_pretexts() -> list[str]:
    """Names for ``create_pretext``."""
    return sorted(_PRETEXTS)


def create_pretext(name: str, **kwargs) -> Pretext:
    """Build a network that learns without labels, with freshly initialised weights.

    Args:
        name: one of ``list_pretexts()``.
        kwargs: of the method, e.g. ``layout="ntu25", num_frames=120``.

    Raises:
        ValueError: an unknown name or layout.

    Example:
        >>> mamp = create_pretext("mamp", layout="ntu25", num_frames=120)
        >>> mamp.loss(x, clip).backward()
        >>> mamp.encoder(x).shape
        torch.Size([N, 256])
    """
    if name not in _PRETEXTS:
        raise _check.fail("create_pretext", f"one of {', '.join(list_pretexts())}", repr(name))
    return _PRETEXTS[name](**kwargs)
