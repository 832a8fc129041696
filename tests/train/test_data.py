"""The data module: which clips it trains on, what its batches hold, and how Lightning sees them."""

from types import SimpleNamespace

import lightning
import numpy as np
import pytest
import torch

from skelops.data import Clips, save_split, split, synthetic
from skelops.train import SkeletonDataModule


def data(**changes):
    """By default 64 clips of four subjects to train on, 32 of two others to test."""
    given = {"window": 8, "batch_size": 16, "num_clips": 96, "train_groups": [1, 2, 3, 4]}
    return SkeletonDataModule(**(given | changes))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "synthetic.clips"
    clips = synthetic.generate(96, seed=1)
    clips = Clips(**{key: getattr(clips, key) for key in ("xyz", "length", "label", "classes",
                     "layout", "name", "subject", "view", "fps")},
                  extra={"hand": np.arange(96) % 2})  # fmt: skip
    clips.save(path)
    return path


def seen(source, train):
    loader = source.train_dataloader() if train else source.val_dataloader()
    return torch.cat([batch.clip for batch in loader])


def test_batches():
    source = data(streams=["joint", "bone"])
    x, y, clip = next(iter(source.train_dataloader()))
    assert x.shape == (16, 6, 8, 25, 2) and x.dtype == torch.float32
    assert y.tolist() == source.clips.label[clip].tolist()
    assert (source.in_channels, source.num_classes) == (6, 16)
    assert (source.layout, source.num_persons) == ("ntu25", 2)


def test_train_and_test_clips_are_apart():
    source = data()
    train, test = source.index
    assert set(source.clips.subject[train]) == {1, 2, 3, 4}
    assert set(source.clips.subject[test]) == {5, 6}
    assert sorted(seen(source, True).tolist()) == train.tolist()
    assert seen(source, False).tolist() == test.tolist()
    for loader in (source.test_dataloader, source.predict_dataloader):
        assert torch.cat([batch.clip for batch in loader()]).tolist() == test.tolist()


def test_protocols(store):
    source = data(protocol="cross_view", train_groups=None)
    train, test = (set(source.clips.view[index]) for index in source.index)
    assert train == {1, 2} and test == {3}
    chosen = data(source=str(store), train_groups=[1, 2, 3])
    assert set(chosen.clips.subject[chosen.index[0]]) == {1, 2, 3}
    odd = data(source=str(store), train_groups=None)
    assert set(odd.clips.subject[odd.index[0]]) == {1, 3, 5}
    made = data(num_clips=384, train_groups=None)
    assert set(made.clips.subject[made.index[0]]) == set(synthetic.TRAIN_SUBJECTS)


def test_a_store_and_a_split_file(store, tmp_path):
    clips = Clips.open(store)
    ids = split(clips, "random", seed=4)
    save_split(tmp_path / "split.npz", *ids, clips)
    source = data(source=str(store), split_file=str(tmp_path / "split.npz"))
    assert source.clips.path == store
    assert all(map(np.array_equal, source.index, ids))
    with pytest.raises(ValueError, match=r"split\.npz: expected a split of the clips"):
        _ = data(split_file=str(tmp_path / "split.npz")).index


def test_classes_divided_further(store):
    source = data(source=str(store), divide="hand")
    assert source.num_classes == 32
    _, y, clip = next(iter(source.train_dataloader()))
    assert (y % 2).tolist() == (clip % 2).tolist()


def test_a_long_tail_that_is_rebalanced():
    plain = data(long_tail=[4, 0.25], batch_size=1)
    assert plain.class_counts[0] == 4 and plain.class_counts[-1] == 1
    assert sorted(seen(plain, True).tolist()) == plain.index[0].tolist()
    assert np.array_equal(plain.index[1], data().index[1])
    balanced = data(long_tail=[4, 0.25], rebalance=True, repeat=2)
    assert balanced.class_counts == plain.class_counts
    sampler = balanced.train_dataloader().sampler
    assert sampler.class_draws()[-6:] == [8] * 6  # the tail, as often as the largest class
    assert seen(balanced, False).tolist() == balanced.index[1].tolist()


def test_a_class_without_training_clips(store, tmp_path):
    clips = Clips.open(store)
    train, test = split(clips, "random")
    save_split(tmp_path / "split.npz", train[clips.label[train] != 3], test, clips)
    given = {"source": str(store), "split_file": str(tmp_path / "split.npz")}
    assert data(**given).class_counts[3] == 0
    data(**given).train_dataloader()
    with pytest.raises(ValueError, match=r"training clips of every class, got none of class 3 \("):
        data(**given, rebalance=True).train_dataloader()


def test_settings_reach_the_transform():
    source = data(
        transform="hiclr_strong", window=20, transform_args={"noise": 0.5, "blur": [0.1, 1.0]},
        layout="coco17", streams=["bone"], repeat=3, seed=5,
    )  # fmt: skip
    train, test = source.dataset(train=True), source.dataset(train=False)
    assert train.transform == test.transform
    assert (train.transform.frames, train.transform.noise, train.transform.flip) == (20, 0.5, 0.5)
    assert (train.seed, train.streams.names, source.layout) == (5, ("bone",), "coco17")
    assert len(train) == 3 * len(source.index[0]) and len(test) == len(source.index[1])
    assert train[0].x.shape == (3, 20, 17, 2)
    assert data(window=None, transform="nw_ucla").dataset(False)[0].x.shape == (3, 52, 25, 2)


def test_workers_make_the_same_batches():
    batches = zip(data().train_dataloader(), data(num_workers=2).train_dataloader(), strict=True)
    for alone, many in batches:
        assert all(map(torch.equal, alone, many))


def test_processes_share_the_batches():
    def rank(r, world):
        source = data(batch_size=16 // world)
        source.trainer = SimpleNamespace(
            world_size=world, global_rank=r, strategy=SimpleNamespace(root_device="cpu")
        )
        return list(source.train_dataloader())

    for whole, even, odd in zip(rank(0, 1), rank(0, 2), rank(1, 2), strict=True):
        assert torch.equal(whole.x[0::2], even.x) and torch.equal(whole.x[1::2], odd.x)


class Watch(lightning.LightningModule):
    """Notes the clips and the sums of the training batches."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = []

    def training_step(self, batch, i):
        self.seen.append((self.current_epoch, batch.clip.tolist(), batch.x.sum().item()))
        return self.weight * batch.x.mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(tmp_path, **options):
    return lightning.Trainer(
        **{
            "accelerator": "cpu",
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "default_root_dir": tmp_path,
            "max_epochs": 3,
            **options,
        }
    )


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_epochs_go_on_counting(tmp_path):
    module = Watch()
    trainer(tmp_path).fit(module, data())
    assert [number for number, *_ in module.seen] == [0] * 4 + [1] * 4 + [2] * 4
    source = data()
    for number in range(3):
        loader = source.train_dataloader()
        loader.sampler.set_epoch(number)
        expected = [(batch.clip.tolist(), batch.x.sum().item()) for batch in loader]
        assert [rest for n, *rest in module.seen if n == number] == list(map(list, expected))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("limit", [2, None])
def test_a_resumed_run_sees_the_same_batches(tmp_path, limit):
    """Also where epochs are cut short: the next one begins with its first batch."""
    through = Watch()
    trainer(tmp_path, limit_train_batches=limit).fit(through, data())

    class Halt(lightning.Callback):
        def on_train_epoch_end(self, trainer, module):
            if trainer.current_epoch == 0:
                trainer.save_checkpoint(tmp_path / "one.ckpt")
                trainer.should_stop = True

    halted, resumed = Watch(), Watch()
    trainer(tmp_path, limit_train_batches=limit, callbacks=[Halt()]).fit(halted, data())
    run = trainer(tmp_path, limit_train_batches=limit)
    run.fit(resumed, data(), ckpt_path=tmp_path / "one.ckpt", weights_only=False)
    assert halted.seen + resumed.seen == through.seen
    assert {n for n, *_ in halted.seen} == {0} and {n for n, *_ in resumed.seen} == {1, 2}


@pytest.mark.parametrize(
    "settings, error, message",
    [
        ({"source": "/nowhere"}, FileNotFoundError, "/nowhere: expected a file or directory"),
        ({"protocol": "cross_town"}, ValueError, "split: expected protocol in .*'cross_town'"),
        ({"train_groups": [99]}, ValueError, "split: expected clips on both sides of cross_subj"),
        ({"transform": "ctr"}, ValueError, "get_transform: expected one of none, .*'ctr'"),
        ({"window": 0}, ValueError, "ClipTransform: expected frames >= 1, got 0"),
        ({"streams": ["up"]}, ValueError, "make_streams: expected streams of .*'up'"),
        ({"batch_size": 0}, ValueError, "ClipLoader: expected batch_size >= 1, got 0"),
        ({"long_tail": [4, 0.1]}, ValueError, "long_tail: expected at least one clip of class 15"),
        ({"divide": "hand"}, ValueError, r"Clips: expected key of extra, one of \[\], got 'hand'"),
    ],
)
def test_refusals(settings, error, message):
    with pytest.raises(error, match=message):
        data(**settings).train_dataloader()
