"""Rendering, from one stored record."""

import json
from xml.etree import ElementTree

import pytest

from benchmarks import plots, records, report


def record(**changes):
    variant = {"ms": {"median": 10.0, "min": 9.0, "p25": 9.5, "p75": 11.0, "n": 5}, "error": 1e-7}
    variant |= {"peak_bytes": 2**20, "saved_bytes": 4 * 2**20}
    found = {
        "work": "ctr_graph_conv",
        "case": "unit C=64 T=64",
        "direction": "forward+backward",
        "device": "cpu",
        "dtype": "float32",
        "threads": 1,
        "allocator": "tuned",
        "sizes": {"B": 32, "C": 64, "T": 64},
        "variants": {
            "ours": variant,
            "eager": variant | {"ms": {"median": 40.0}, "saved_bytes": 16 * 2**20},
            "compile, layout kept": variant | {"ms": {"median": 20.0}},
        },
        "skipped": {"compile": "did not compile in 60 s"},
        "ratios": {"eager": 4.0, "compile, layout kept": 2.0},
        "speedup": {"eager": 4.0, "compile": 2.0},
        "targets": {"eager": 2.5, "compile": 2.3, "saved": 0.4},
        "flops": 1e9,
        "bytes": 1e8,
        "roofs": {"gb_s": 20.0, "gflop_s": 200.0, "matmul_gflop_s": 100.0},
        "floor_ms": 5.0,
        "environment": {
            "device_name": "Example CPU @ 2.50GHz",
            "torch": "2.13.0",
            "triton": None,
            "python": "3.12.1",
            "commit": "0123456789abcdef",
            "dirty": False,
            "date": "2026-01-01 00:00 UTC",
            "load": 0.1,
        },
    }
    return found | changes


@pytest.fixture
def results(tmp_path):
    folder = tmp_path / "results"
    records.merge(records.default_path(record(), folder), record())
    return folder


def test_merge_replaces_the_same_work_only(results):
    path = results / "example-2.50ghz" / "ctr_graph_conv.json"
    records.merge(path, record(floor_ms=6.0))
    records.merge(path, record(threads=2))
    found = json.loads(path.read_text())["records"]
    assert [(r["threads"], r["floor_ms"]) for r in found] == [(1, 6.0), (2, 5.0)]


def test_slug():
    assert records.slug("Intel(R) Xeon(R) Processor @ 2.50GHz") == "intel-xeon-2.50ghz"
    assert records.slug("NVIDIA H200") == "nvidia-h200"


def test_reading_a_record():
    found = record()
    assert records.peer_ms(found, "compile") == 20.0 and records.peer_ms(found, "eager") == 40.0
    assert records.bandwidth(found) == pytest.approx(10.0)
    assert records.of_floor(found) == pytest.approx(0.5)
    assert records.saved_share(found) == 0.25
    assert [met for _, met in records.verdicts(found).values()] == [True, False, True]
    alone = record(speedup={}, variants={"ours": found["variants"]["ours"]})
    assert [met for _, met in records.verdicts(alone).values()] == [None, None, None]


def test_page(results):
    (text,) = (report.page(n, g, True) for n, g in report.load_all(results).items())
    line = next(x for x in text.splitlines() if "unit C=64" in x)
    for cell in ("10.0", "40.0 (4.0x)", "did not compile in 60 s", "20.0 (2.0x)", "50", "4 / 16"):
        assert f"| {cell} |" in line
    assert "eager >= 2.5x: met; compile >= 2.3x: **missed**; saved <= 0.4x: met" in line
    assert "## float32, 1 thread, tuned allocator" in text and "busy" not in text


def test_page_says_when_the_machine_was_busy():
    busy = record(environment=record()["environment"] | {"load": 3.5})
    assert "busy" in report.page("x", [busy], False)


LABELS = ["CTR-GC unit, C=64, T=64", "CTR-GCN, training step"]


def test_summary_says_what_was_not_measured(results):
    lines = report.summary(report.load_all(results), LABELS).splitlines()
    assert lines[-2] == f"| {LABELS[0]} | 4.0x / 2.0x | not measured | not measured |"
    assert lines[-1] == f"| {LABELS[1]} | not measured | not measured | not measured |"


def test_summary_takes_the_gpu(results):
    gpu = record(device="cuda", dtype="bfloat16", threads=None, allocator=None)
    gpu["environment"]["device_name"] = "NVIDIA X"
    single = gpu | {"dtype": "float32", "speedup": {"eager": 9.0}}
    found = report.load_all(results) | {"NVIDIA X": [single, gpu]}
    lines = report.summary(found, LABELS).splitlines()
    assert lines[2] == "|  | Example CPU @ 2.50GHz | NVIDIA X | NVIDIA X, CUDA graph |"
    line = f"| {LABELS[0]} | 4.0x / 2.0x | 4.0x / 2.0x | not measured |"
    assert lines[-2] == line
    for name, ms in (("ours", 1.0), ("eager", 3.0)):
        gpu["variants"][name]["graph_ms"] = {"median": ms}
    lines = report.summary(found, LABELS).splitlines()
    assert lines[-2] == line.removesuffix("not measured |") + "3.0x / - |"
    found["NVIDIA X"] = [single]
    assert report.summary(found, LABELS).splitlines()[-2].split(" | ")[2] == "9.0x / -"


def test_rows_of_the_readme_exist():
    labels = [label for label, *_ in report._headlines()]
    assert [label for label in report.FRONT if label not in labels] == []


def test_capacity():
    step = record(work="ctr_gcn", case="training step", direction="training step", sizes={"N": 8})
    (row,) = report.capacity({"X": [step, record()]}).splitlines()[2:]
    assert row == "| `ctr_gcn`, training step | X, float32 | 8 | 10 | 800 | 0 | 50 s | 79 s |"


MARKED = {
    "README.md": "benchmarks",
    "docs/benchmarks.md": "summary",
    "docs/performance.md": "backends",
    "docs/scale.md": "capacity",
}


def write_marked(root):
    (root / "docs").mkdir()
    for name, mark in MARKED.items():
        (root / name).write_text(f"before\n<!-- {mark}:begin -->old<!-- {mark}:end -->\nafter\n")


def test_markers(results, tmp_path):
    readme, docs = tmp_path / "README.md", tmp_path / "docs"
    _, missing = report.render(results, readme, docs)
    assert len(missing) == len(MARKED)
    write_marked(tmp_path)
    files, missing = report.render(results, readme, docs)
    assert not missing
    for name in MARKED:
        text = files[tmp_path / name]
        assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text
    assert "| `graph_conv` | yes |" in files[docs / "performance.md"]
    for path, text in files.items():
        path.write_text(text)
    assert report.render(results, readme, docs)[0] == files


def test_check_notices_stale_files(results, tmp_path, monkeypatch, capsys):
    write_marked(tmp_path)
    monkeypatch.setattr(records, "RESULTS", results)
    monkeypatch.setattr(report, "ROOT", tmp_path)
    monkeypatch.setattr(report, "backends", lambda: "\n")
    assert report.main(["--check"]) == 1
    assert report.main([]) == 0
    assert report.main(["--check"]) == 0
    page = tmp_path / "docs" / "benchmarks_example-2.50ghz.md"
    page.write_text(page.read_text().replace("40.0", "30.0"))
    capsys.readouterr()
    assert report.main(["--check"]) == 1
    assert "out of date" in capsys.readouterr().err


def test_pictures():
    bars, roof = report.pictures("Example", [record()]).values()
    eager, compiled = (bar.get_width() for bar in bars.axes[0].patches)
    assert (eager, compiled) == (4.0, 2.0)
    shown = {e.text for e in ElementTree.fromstring(plots.svg(bars)).iter()}
    assert {"4.0x", "2.0x", LABELS[0]} <= shown
    open_circle, filled = (line.get_ydata()[0] for line in circles(roof))
    assert open_circle < filled
    assert f"1 {LABELS[0]}" in {text.get_text() for text in roof.legends[0].get_texts()}
    assert not report.pictures("Example", [record(case="no headline")])


def circles(figure):
    return [line for line in figure.axes[0].lines if line.get_marker() == "o"]


def test_pictures_are_the_same_again():
    first, second = (report.pictures("Example", [record()])["roofline"] for _ in range(2))
    assert plots.svg(first) == plots.svg(second)


def test_picture_of_what_was_not_compared():
    alone = record(speedup={}, variants={"ours": record()["variants"]["ours"]})
    bars, roof = report.pictures("Example & Co", [alone]).values()
    texts = [e.text or "" for e in ElementTree.fromstring(plots.svg(bars)).iter()]
    assert texts.count("-") == 2
    assert any(text.startswith("Example & Co: float32") for text in texts)
    assert len(circles(roof)) == 1


@pytest.mark.parametrize("threads, met", [(1, True), (2, False)])
def test_rates_count_per_thread(threads, met):
    found = record(threads=threads, targets={"rate": 3000})
    assert records.rate(found) == 3200
    assert records.verdicts(found) == {"rate": ("samples/s >= 3000 per thread", met)}


def test_numpy_has_a_column():
    slow = {"ms": {"median": 200.0}, "error": 1e-7}
    found = record()
    found["variants"]["numpy"], found["ratios"]["numpy"] = slow, 20.0
    at = report.HEADER.index("NumPy ms")
    assert report._row(found)[at] == "200 (20.0x)"
    assert report._row(record())[at] == "-"
