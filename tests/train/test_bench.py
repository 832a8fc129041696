import json

import pytest
import torch

from skelops.data import synthetic
from skelops.train import SkeletonDataModule, bench


def test_the_feeder_follows_the_laws_of_the_loader():
    data = SkeletonDataModule(num_clips=48, train_groups=[1, 2], window=16, batch_size=16)
    x, y = next(iter(data.val_dataloader()))[:2]
    feeder = bench.ClipFeeder(data.clips.select(data.index[1]), 16, train=False)
    for i in range(len(x)):
        alone, label = feeder[i]
        torch.testing.assert_close(torch.from_numpy(alone), x[i], atol=1e-5, rtol=1e-5)
        assert label == y[i]


def test_the_feeder_crops_and_turns():
    clips = synthetic.generate(16)
    a, b = (bench.ClipFeeder(clips, 16, seed=s)[0][0] for s in (0, 1))
    assert a.shape == (3, 16, 25, 2) and abs(a - b).max() > 0.01
    turned = bench.ClipFeeder(clips, 16)._rotation()
    torch.testing.assert_close(torch.from_numpy(turned @ turned.T), torch.eye(3))


@pytest.mark.slow
def test_command(tmp_path, capsys):
    from skelops.__main__ import main

    path = tmp_path / "new" / "bench.json"
    options = ["--batch", "2", "--precision", "bf16", "--steps", "2", "--window", "8"]
    options += ["--model-kwargs", '{"base_channels": 8}', "--json", str(path)]
    assert main(["bench-train", *options]) == 0
    found = json.loads(path.read_text())["records"]
    assert [r["peer"] for r in found] == ["skelops", "reference"]
    assert found[0]["ratio"] == 1
    assert found[1]["ratio"] == pytest.approx(found[0]["clips_per_s"] / found[1]["clips_per_s"])
    for record in found:
        assert record["clips_per_s"] > 0 and 0 < record["data_share"] < 1
        assert 100 < record["peak_mib"] < 10_000
    assert capsys.readouterr().out.count("ctr_gcn") == 2
    with pytest.raises(SystemExit):
        main(["bench-train", "--model", "ctrgcn"])
