"""The command lines."""

import json
import sys
import time
from dataclasses import replace

import pytest
import torch

from benchmarks import case, gpu_check, run


@pytest.fixture
def plain_allocator(monkeypatch):
    for name in run.ALLOCATOR["tuned"]:
        monkeypatch.delenv(name, raising=False)


def test_allocator_is_read_from_the_environment(plain_allocator, monkeypatch):
    assert run.allocator() == "default"
    for name, value in run.ALLOCATOR["tuned"].items():
        monkeypatch.setenv(name, value)
    assert run.allocator() == "tuned"
    monkeypatch.setenv(name, "1")
    assert run.allocator() == "custom"


def _run(monkeypatch, *arguments, ours=None):
    first, *_ = case.op_cases()["temporal_mean"]
    one = replace(first.small(), ours=ours or first.ours, quick={})
    monkeypatch.setattr(run, "op_cases", lambda: {"temporal_mean": [one]})
    monkeypatch.setattr(run, "roofs", lambda *_: {"gb_s": 10.0, "gflop_s": 100.0})
    command = ["--op", "temporal_mean", "--allocator", "default", "--seconds", "0", *arguments]
    return run.main(command)


def test_a_run_prints_and_stores(plain_allocator, monkeypatch, tmp_path, capsys):
    path = tmp_path / "out.json"
    assert _run(monkeypatch, "--json", str(path)) == 0
    assert "eager >= 1x" in capsys.readouterr().out
    stored = json.loads(path.read_text())["records"]
    assert [r["direction"] for r in stored] == ["forward", "forward+backward"]
    for found in stored:
        assert found["speedup"]["eager"] > 0 and found["environment"]["torch"]
        assert found["variants"]["ours"]["ms"]["n"] == 5


def test_missing_skips_what_is_stored(plain_allocator, monkeypatch, tmp_path, capsys):
    path = tmp_path / "out.json"
    store = ["--json", str(path), "--missing"]
    assert _run(monkeypatch, *store, "--direction", "forward") == 0
    capsys.readouterr()
    assert _run(monkeypatch, *store) == 0
    out = capsys.readouterr().out
    assert "forward+backward" in out and "forward  " not in out


def test_a_wrong_op_prints_no_speed(plain_allocator, monkeypatch, tmp_path, capsys):
    path = tmp_path / "out.json"
    wrong = {"ours": lambda x: x.mean(2) * 1.01}
    assert _run(monkeypatch, "--json", str(path), **wrong) == 1
    out = capsys.readouterr().out
    assert "FAILED temporal_mean" in out and "x)" not in out
    assert not path.exists()


def test_a_compiled_peer_that_is_wrong_is_left_out(plain_allocator, monkeypatch, tmp_path):
    def compiled(function, options=None):
        return (lambda x: function(x) * 1.01) if options else function

    monkeypatch.setattr(torch, "compile", compiled)
    path = tmp_path / "out.json"
    assert _run(monkeypatch, "--json", str(path), "--against", "eager", "compile") == 0
    stored = json.loads(path.read_text())["records"]
    for found in stored:
        assert set(found["variants"]) == {"ours", "eager", "compile"}
        assert "output is" in found["skipped"]["compile, layout kept"]


def test_gpu_check_cuts_a_section_off(tmp_path):
    log = tmp_path / "log"
    slow = gpu_check.Section("slow", 1, [[sys.executable, "-c", "import time; time.sleep(60)"]])
    begin = time.monotonic()
    assert gpu_check.run(slow, 0.5, log).startswith("1 of 1 cut off")
    assert time.monotonic() - begin < 20
    quick = gpu_check.Section("quick", 9, [[sys.executable, "-c", "print('hello')"]])
    assert gpu_check.run(quick, 30, log) == "passed"
    assert gpu_check.last_lines(log, "quick") == "hello"


def test_gpu_check_sections_are_valid_commands():
    ours = (gpu_check.ROOT / "tests" / "conftest.py").read_text()
    for section in gpu_check.sections(["--json"]):
        for command in section.commands:
            if "benchmarks.run" in command:
                options = run._parser().parse_args(command[command.index("benchmarks.run") + 1 :])
                assert options.device == "cuda"
                assert options.warm or options.budget < section.seconds
            elif "pytest" in command:
                pytests_own = ("--tb", "--ignore")
                long = [
                    w for w in command if w.startswith("--") and w.split("=")[0] not in pytests_own
                ]
                assert all(f'"{word}"' in ours for word in long)
