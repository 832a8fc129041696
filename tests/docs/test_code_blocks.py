"""Every code block of the documents: Python runs as it stands, a command on a few small clips.

Commands that need several processes, minutes or a toolchain are only given to their own parsers.
"""

import argparse
import json
import pickle
import re
import shutil
import subprocess
from glob import glob
from importlib import import_module
from pathlib import Path

import jsonargparse
import numpy as np
import pytest

from skelops.__main__ import COMMANDS
from skelops.data.convert import convert
from skelops.data.formats import open_source
from skelops.graph import get_layout
from skelops.train import cli, transfer
from skelops.train.completion import PretrainCompletion

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.DOTALL | re.MULTILINE)
DOCUMENTS = {
    str(path.relative_to(ROOT)): BLOCK.findall(path.read_text(encoding="utf-8"))
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md"))
}


def documents(language):
    return [name for name, blocks in DOCUMENTS.items() if any(b[0] == language for b in blocks)]


def blocks(document, language):
    return [text for kind, text in DOCUMENTS[document] if kind == language]


def test_every_block_is_of_a_language_that_is_tested():
    found = [(name, kind) for name, blocks in DOCUMENTS.items() for kind, _ in blocks]
    assert [pair for pair in found if pair[1] not in ("python", "sh")] == []


@pytest.mark.parametrize("document", documents("python"))
def test_python(document, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_recordings()
    names: dict[str, object] = {}
    for block in blocks(document, "python"):
        exec(compile(block, document, "exec"), names)


# Commands

SHELL = r"""
set -eu
record() { printf '%s\0' "$@"; printf '\n\0'; }
for name in skelops python torchrun make pip; do
  eval "$name() { record $name \"\$@\"; }"
done
PATH=
"""
FEW = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "1"]
FEW += ["--trainer.limit_val_batches", "1", "--trainer.num_sanity_val_steps", "0"]
FEW += ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]
FEW += ["--trainer.enable_model_summary", "false", "--data.batch_size", "4"]
SHALLOW = ["--data.window", "16", "--model.model_kwargs.stages", "[[8, 1], [8, 2]]"]
GRAPH_NETWORKS = {"ctr_gcn", "ctr_gcn_small", "st_gcn_pp", "psumnet", "brl"}
MADE = ["--data.num_clips", "48", "--data.train_groups", "[1, 2]"]
SLOW = ("demo", "bench-train")


class Parsed(Exception):
    """The arguments of a command are what its parser takes."""


def recorded(block):
    """The words of every command of a block, as a shell expands them."""
    done = subprocess.run(["/bin/bash", "-c", SHELL + block], capture_output=True, text=True)
    assert done.returncode == 0, f"{block}\n{done.stderr}"
    commands = [c.split("\0")[:-1] for c in done.stdout.split("\n\0")[:-1]]
    assert commands, f"no command in\n{block}"
    return commands


def parse(module, words, monkeypatch):
    """Give the words to the parser of a module's ``main``, and stop there."""
    with monkeypatch.context() as patch:
        for kind in (argparse.ArgumentParser, jsonargparse.ArgumentParser):

            def parse_args(parser, *args, _parse=kind.parse_args, **options):
                _parse(parser, *args, **options)
                raise Parsed

            patch.setattr(kind, "parse_args", parse_args)
        for where in (cli, transfer):  # a run that is not there has no settings
            patch.setattr(where, "data_settings", lambda run: {})
        with pytest.raises(Parsed):
            import_module(module).main(words)


def follow(words, run, monkeypatch):
    """Parse a command of skelops, and run it on little."""
    command, *rest = words
    module, takes_command, _ = COMMANDS[command]
    given = words if takes_command else rest
    if command != "info":
        parse(module, given, monkeypatch)
    if not run or command in SLOW or {"--trainer.devices", "--model.cuda_graph"} & set(words):
        return
    given = [part for w in given for part in (sorted(glob(w)) if "*" in w else [w])]
    if words[:2] == ["data", "convert"]:
        Path(words[3]).unlink(missing_ok=True)
    if command in ("fit", "test", "validate", "predict", "probe", "finetune"):
        made = "synthetic" in str(words) and "--data.source" not in words
        given += [*FEW, *MADE] if made else FEW
        given += SHALLOW if GRAPH_NETWORKS & set(words) else []
    import_module(module).main(given)


def check(words, run, monkeypatch):
    """Follow one command of a document."""
    program, *rest = words
    if program == "make":
        targets = {w for w in rest if "=" not in w}
        assert targets <= set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    elif program == "pip":
        extras = set(re.findall(r"\w+", "".join(re.findall(r"\[(.*?)\]", " ".join(rest)))))
        known = (ROOT / "pyproject.toml").read_text().split("[project.optional-dependencies]")[1]
        assert rest[0] == "install" and extras <= set(re.findall(r"^(\w+) = \[", known, re.M))
    elif program == "torchrun":
        follow(rest[rest.index("skelops") + 1 :], run, monkeypatch)
    elif program == "python" and rest[:2] != ["-m", "skelops"]:
        assert rest[0] == "-m"
        parse(rest[1], rest[2:], monkeypatch)
    else:
        follow(rest[2:] if program == "python" else rest, run, monkeypatch)


@pytest.mark.parametrize("document", documents("sh"))
def test_commands(document, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["skelops"])
    make_files()
    train = PretrainCompletion.train

    def few_steps(self, *given):
        self.steps = 20
        train(self, *given)

    monkeypatch.setattr(PretrainCompletion, "train", few_steps)
    for block in blocks(document, "sh"):
        run = "--data.source PATH" not in block  # else each is for data of the reader's
        for words in recorded(block):
            check(words, run, monkeypatch)


def test_commands_in_tables_parse(monkeypatch):
    monkeypatch.setattr("sys.argv", ["skelops"])
    text = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    commands = re.findall(r"\| `(skelops fit [^`]+)` \|", text)
    assert commands
    for command in commands:
        parse(COMMANDS["fit"][0], command.split()[1:], monkeypatch)


def make_files():
    """What the commands of the documents read, in the working directory."""
    rng = np.random.default_rng(0)

    def walk(clips, V):
        return rng.normal(size=(clips * 20, V, 3)).cumsum(0).astype(np.float32) / 50

    n = 60
    xyz = walk(n, 20)
    view = 1 + np.arange(n) // 10 % 3
    np.savez(
        "nw_ucla.npz", xyz=xyz, length=np.full(n, 20), label=np.arange(n) % 10,
        classes=np.array([f"action {c}" for c in range(10)]), name=np.arange(n).astype(str),
        subject=1 + np.arange(n) % 2, view=view, layout=np.array("nw_ucla20"),
    )  # fmt: skip
    sequences = Path("path/to/all_sqe")
    sequences.mkdir(parents=True)
    for i in range(n):
        name = f"a{1 + i % 10:02}_s01_e{i // 30:02}_v{view[i]:02}"
        clip = xyz[20 * i : 20 * (i + 1)].round(3).tolist()
        record = {"file_name": name, "skeletons": clip, "label": 1 + i % 10}
        (sequences / f"{name}.json").write_text(json.dumps(record))

    raw = Path("path/to/nturgb+d_skeletons")
    raw.mkdir()
    names = [f"S{s:03}C001P{p:03}R001A{a:03}" for s, p in ((1, 1), (2, 3)) for a in range(1, 61)]
    for name in ("S001C003P008R002A058", *names):
        (raw / f"{name}.skeleton").write_text(skeleton_file(walk(1, 25)))
    shutil.copy(raw / "S001C003P008R002A058.skeleton", ".")
    Path("data").mkdir()
    convert(open_source(raw), "data/ntu60.clips", workers=1)
    shutil.copy("data/ntu60.clips", ".")
    Path("NTU_RGBD_samples_with_missing_skeletons.txt").write_text("S001C002P005R002A008\n")
    joints = get_layout("ntu25").num_joints
    with open("poses.jsonl", "w") as lines:
        for t in range(12):
            people = {"7": rng.normal(size=(joints, 3)).tolist()}
            lines.write(json.dumps({"time": t / 30, "people": people}) + "\n")
    make_recordings()


def make_recordings(clips=12, frames=10):
    """Videos, depth maps and a PYSKL pickle of the key-points in them."""
    rng = np.random.default_rng(0)
    for folder in ("nturgb+d_rgb", "nturgb+d_depth_masked"):
        Path(folder).mkdir()
    names = [f"S001C001P001R001A{1 + i:03}" for i in range(clips)]
    annotations = []
    for label, name in enumerate(names):
        write_video(
            Path(f"nturgb+d_rgb/{name}.mkv"), np.full((frames, 48, 64, 3), 20 * label, np.uint8)
        )
        depth = np.full((frames, 48, 64), 1500, np.uint16)
        np.savez(f"nturgb+d_depth_masked/{name}.npz", depth=depth)
        annotations.append({
            "frame_dir": name, "label": 59 - label, "total_frames": frames,
            "img_shape": (48, 64), "original_shape": (48, 64),
            "keypoint": rng.uniform(8, 40, (1, frames, 17, 2)).astype(np.float32),
            "keypoint_score": np.ones((1, frames, 17), np.float32),
        })  # fmt: skip
    split = {"xsub_train": names[:8], "xsub_val": names[8:]}
    Path("ntu60_hrnet.pkl").write_bytes(pickle.dumps({"split": split, "annotations": annotations}))


def write_video(path, frames):
    """(F, H, W, 3) uint8."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "bgr0"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def skeleton_file(xyz):
    """One body (T, 25, 3) as a raw file of NTU RGB+D."""
    lines = [f"{len(xyz)}"]
    for pose in xyz:
        lines += ["1", "72057594037931101 0 1 1 1 1 0 0 0 2", "25"]
        lines += [f"{x:.6f} {y:.6f} {z:.6f} 0 0 0 0 0 0 0 1 2" for x, y, z in pose.tolist()]
    return "\n".join(lines) + "\n"
