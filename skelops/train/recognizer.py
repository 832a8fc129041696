"""Supervised skeleton action recognition."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Literal

import lightning
import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from skelops import mixup_cross_entropy, random_uniform
from skelops.data import PartialMixUp, action_aware_weights
from skelops.models import create_model
from skelops.train.cuda_graph import CudaGraphed
from skelops.train.metrics import ClipScores, accuracies
from skelops.train.optimizing import Optimized
from skelops.train.pretrain import read_run


class Recognizer(Optimized):
    """A network (N, C, T, V, M) -> logits (N, num_classes), trained with cross-entropy.

    A network that has an ``auxiliary_loss() -> ()`` (Hyper-GCN) is trained with the sum of both.
    One that ``takes_labels`` (ACLNet) gives logits and a further loss for (x, y), and is told the
    epoch of every batch by ``start_epoch``; its non-persistent buffers, memories of recent batches,
    are kept in checkpoints all the same. One with several heads (EPAM-Net) gives a tuple of logits:
    each has a cross-entropy of its own, and their sum is the prediction.

    The defaults are the published NTU RGB+D recipe of CTR-GCN (ICCV 2021): Nesterov momentum 0.9,
    learning rate 0.1 divided by 10 at epochs 35 and 55, five warm-up epochs, weight decay 4e-4.

    A batch is x (N, C, T, V, M) float32, labels (N,) int64 and, optionally, the clip (N,) int64
    that each row is a view of; validation and test average the class probabilities of a clip's
    views and report top-1, top-5 and mean-class accuracy of clips; where training was long-tailed
    also that of head, medium and tail classes, see :func:`skelops.train.metrics.accuracies`.

    Args:
        model: name for :func:`skelops.models.create_model`, or a module.
        num_classes: number of classes.
        layout: joint layout of the data; used when ``model`` is a name.
        num_persons: persons M per clip; used when ``model`` is a name.
        model_kwargs: further arguments of the named model.
        in_channels: channels C of the input; used when ``model`` is a name.
        optimizer: "sgd" (Nesterov momentum) or "adamw".
        lr: peak learning rate.
        min_lr: where "cosine" ends.
        momentum: of SGD.
        nesterov: with Nesterov's correction.
        betas: of AdamW.
        weight_decay: on all parameters.
        decay_norms: False takes biases, normalisations and other parameters with one dimension out
            of the weight decay.
        reference_batch: clips per optimiser step that ``lr`` is given for; the rate follows the
            number of clips over all processes and accumulated batches linearly (Goyal et al.,
            2017). Default: ``lr`` is used as it is.
        batch_size: clips per batch and process, for ``reference_batch``.
        schedule: "multistep" (by epoch, as published), "cosine" (by step), "one_cycle"
            (by step: rise over a quarter, then cosine, momentum against it; for short trainings,
            Smith and Topin, 2018), "plateau" (halved when the validation loss has not fallen for
            more than five epochs, as PSUMNet) or "constant".
        milestones: epochs at which "multistep" divides by ten.
        warmup_epochs: linear warm-up: (e + 1) / warmup_epochs in epoch e of "multistep", by step
            with "cosine" and "constant".
        label_smoothing: of the cross-entropy.
        class_counts: training clips of each class.
        mix_up: mix training batches, by these arguments of :class:`skelops.data.PartialMixUp`.
            Default: no.
        action_aware: weigh the classes in training, by these arguments of
            :func:`skelops.data.action_aware_weights`. Default: no.
        start: runs (folders or checkpoints), or published checkpoints, from which parts of the
            network start, by the name of the part: the streams "rgb" and "keypoints" of
            :class:`skelops.models.EPAMNetVideo`.
        ema: decay of a moving average of weights and statistics, by which validation, checkpoints
            and the finished network then go. Default: none.
        compile: compile the network with ``torch.compile``.
        cuda_graph: replay forward and backward of the network as CUDA graphs, see ``CudaGraphed``;
            for one GPU.

    Raises:
        ValueError: unknown schedule, optimiser or model; a ``reference_batch`` without
            ``batch_size``; ``cuda_graph`` without a GPU or with several processes; ``mix_up`` or
            ``action_aware`` without ``class_counts`` or with a class that has none; ``mix_up`` or
            ``cuda_graph`` with a network that takes labels; a ``start`` that is no checkpoint of
            that part, or of a network without parts; on resuming, a checkpoint of other classes or
            another skeleton.
    """

    FACTS = ("num_classes", "layout", "num_persons", "in_channels", "class_counts")  # of the data

    def __init__(
        self,
        model: str | nn.Module = "ctr_gcn",
        num_classes: int = 60,
        layout: str = "ntu25",
        num_persons: int = 2,
        model_kwargs: dict[str, Any] | None = None,
        in_channels: int = 3,
        optimizer: Literal["sgd", "adamw"] = "sgd",
        lr: float = 0.1,
        min_lr: float = 0.0,
        momentum: float = 0.9,
        nesterov: bool = True,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 4e-4,
        decay_norms: bool = True,
        reference_batch: int | None = None,
        batch_size: int | None = None,
        schedule: Literal["multistep", "cosine", "one_cycle", "plateau", "constant"] = "multistep",
        milestones: Sequence[int] = (35, 55),
        warmup_epochs: float = 5,
        label_smoothing: float = 0.0,
        class_counts: Sequence[int] | None = None,
        mix_up: dict[str, Any] | None = None,
        action_aware: dict[str, Any] | None = None,
        start: dict[str, str] | None = None,
        ema: float | None = None,
        compile: bool = False,
        cuda_graph: bool = False,
    ) -> None:
        super().__init__()
        self._check_settings(schedule, optimizer, reference_batch, batch_size)
        if class_counts is None and (mix_up, action_aware) != (None, None):
            raise ValueError("Recognizer: expected class_counts with mix_up or action_aware, "
                             "got None")  # fmt: skip
        self.save_hyperparameters(ignore=() if isinstance(model, str) else "model")
        if isinstance(model, str):
            model = create_model(
                model,
                num_classes=num_classes,
                layout=layout,
                num_persons=num_persons,
                in_channels=in_channels,
                **(model_kwargs or {}),
            )
        self.model = model
        for part, source in (start or {}).items():
            self._start(part, source)
        self.takes_labels = getattr(model, "takes_labels", False)
        for option, value in (("mix_up", mix_up), ("cuda_graph", cuda_graph or None)):
            if self.takes_labels and value is not None:
                raise ValueError(f"Recognizer: expected no {option} with a network that takes "
                                 f"labels, got {value}")  # fmt: skip
        self.graphed: CudaGraphed | None = None
        if mix_up is not None:
            self.mix_up = PartialMixUp(class_counts or (), layout, **mix_up)
        if action_aware is not None:
            self.register_buffer("class_weight", self._weights(epoch=0), persistent=False)
        self.train_loss = MeanMetric()
        self.train_top1 = MulticlassAccuracy(num_classes, average="micro")
        for metric in (self.train_loss, self.train_top1):
            metric.persistent(True)  # an epoch that resumes reports all of itself
        self.scores = ClipScores()
        self._weights_of = 0  # the epoch that class_weight holds

    def _start(self, part: str, source: str) -> None:
        if not hasattr(self.model, "load_stream"):
            name = type(self.model).__name__
            raise ValueError(f"Recognizer: expected no start of {part}, {name} has no parts, got "
                             f"{source}")  # fmt: skip
        checkpoint = read_run(source)
        if "hyper_parameters" in checkpoint:
            weights = checkpoint["state_dict"].items()
            checkpoint = {key.removeprefix("model."): value for key, value in weights}
        try:
            self.model.load_stream(part, checkpoint)
        except ValueError as error:
            raise ValueError(
                f"Recognizer: expected a start of {part}, got {source} ({error})"
            ) from None

    def configure_callbacks(self) -> list[lightning.Callback]:
        decay = self.hparams["ema"]
        if decay is None:
            return []
        warnings.filterwarnings(
            "ignore", ".*WeightAveraging callback with a model that overrides.*"
        )
        device = self.trainer.strategy.root_device
        return [WeightAveraging(device, multi_avg_fn=get_ema_multi_avg_fn(decay))]

    def configure_model(self) -> None:
        mesh = self.device_mesh
        if mesh is None or isinstance(self.model, FSDPModule):
            return
        if self.hparams["ema"] is not None:
            raise ValueError("Recognizer: expected ema None with sharded weights, got "
                             f"{self.hparams['ema']}")  # fmt: skip
        for part in getattr(self.model, "shards", tuple)():
            fully_shard(part, mesh=mesh["data_parallel"])
        fully_shard(self.model, mesh=mesh["data_parallel"])

    def setup(self, stage: str) -> None:
        if self.hparams["compile"]:
            self.model.compile()  # in place: names of parameters stay as they are
        if stage == "fit" and self.hparams["cuda_graph"]:
            device, processes = self.trainer.strategy.root_device, self.trainer.world_size
            if device.type != "cuda" or processes > 1:
                raise ValueError(f"Recognizer: expected one CUDA device with cuda_graph, got "
                                 f"{processes} of type {device.type}")  # fmt: skip
            self.graphed = CudaGraphed(self.model)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)

    def _mixed(self, x: Tensor, y: Tensor, batch: int) -> tuple[Any, ...]:
        """The batch with its labels and their share; what is mixed depends on torch's seed, the
        epoch, the batch and the process."""
        if self.hparams["mix_up"] is None:
            return x, y, None, None
        process = torch.tensor([batch * self.trainer.world_size + self.global_rank])
        seed = torch.initial_seed() % 2**63
        noise = random_uniform(process, 2 * len(x), seed=seed, epoch=self.current_epoch)
        return self.mix_up(x, y, *self.mix_up.draw(noise[0]))

    def _weights(self, epoch: int) -> Tensor:
        h: Any = self.hparams
        return action_aware_weights(h.class_counts, epoch, **h.action_aware)

    def _class_weight(self) -> Tensor | None:
        if self.hparams["action_aware"] is None:
            return None
        if self._weights_of != self.current_epoch:
            self._weights_of = self.current_epoch
            self.class_weight.copy_(self._weights(self.current_epoch))
        return self.class_weight

    def training_step(self, batch: Sequence[Tensor], i: int) -> Tensor:
        x, y = batch[:2]
        x, a, b, mix = self._mixed(x, y, i)
        further = None
        if self.takes_labels:
            self.model.start_epoch(self.current_epoch)
            logits, further = self.model(x, y)
        else:
            logits = self(x) if self.graphed is None else self.graphed(x)
        heads = logits if isinstance(logits, tuple) else (logits,)
        losses = [
            mixup_cross_entropy(
                head, a, b, mix,
                weight=self._class_weight(), label_smoothing=self.hparams["label_smoothing"],
            )
            for head in heads
        ]  # fmt: skip
        loss, logits = sum(losses), sum(heads)
        if hasattr(self.model, "auxiliary_loss"):
            further = self.model.auxiliary_loss()
        if further is not None:
            loss = loss + further
        self.train_loss.update(loss.detach(), len(y))
        self.train_top1.update(logits, y)
        self.log("loss", loss.detach(), prog_bar=True)
        epoch: dict[str, Any] = {"prog_bar": True, "on_step": False, "on_epoch": True}
        self.log("train_loss", self.train_loss, **epoch)
        self.log("train_top1", self.train_top1, **epoch)
        return loss

    def _evaluate(self, batch: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        logits = self(batch[0])
        logits = sum(logits) if isinstance(logits, tuple) else logits
        self.scores.update(logits, *batch[1:])
        return logits, mixup_cross_entropy(logits, batch[1])

    def _report(self, stage: str) -> None:
        scores = self.scores.by_clip()
        found = accuracies(scores["softmax"], scores["label"], self.hparams["class_counts"])
        for name, value in found.items():
            self.log(f"{stage}_{name}", value, prog_bar=name == "top1", sync_dist=True)

    def on_validation_epoch_start(self) -> None:
        self.scores.reset()

    on_test_epoch_start = on_predict_epoch_start = on_validation_epoch_start

    def validation_step(self, batch: Sequence[Tensor], _: int) -> None:
        loss = self._evaluate(batch)[1]
        self.log("val_loss", loss, prog_bar=True, batch_size=len(batch[1]), sync_dist=True)

    def test_step(self, batch: Sequence[Tensor], _: int) -> None:
        loss = self._evaluate(batch)[1]
        self.log("test_loss", loss, batch_size=len(batch[1]), sync_dist=True)

    def predict_step(self, batch: Sequence[Tensor], _: int) -> Tensor:
        """Logits (N, num_classes) of a batch."""
        return self._evaluate(batch)[0]

    def on_validation_epoch_end(self) -> None:
        self._report("val")

    def on_test_epoch_end(self) -> None:
        self._report("test")

    def _memories(self) -> dict[str, Tensor]:
        """Buffers of a network that takes labels which its state_dict leaves out, as published."""
        if not self.takes_labels:
            return {}
        kept = self.model.state_dict()
        return {name: buffer for name, buffer in self.model.named_buffers() if name not in kept}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if memories := self._memories():
            checkpoint["memories"] = memories

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        if self.takes_labels and "memories" in checkpoint:
            for name, buffer in self._memories().items():
                buffer.copy_(checkpoint["memories"][name])
            self.model.start_epoch(checkpoint["epoch"], begun=True)
