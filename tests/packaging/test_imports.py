"""What an import drags in, and which way imports point inside the package."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import skelops

PACKAGE = Path(skelops.__file__).parent
MAY_IMPORT = {
    "ops": {"ops"},
    "nn": {"nn", "ops"},
    "models": {"models", "nn", "ops"},
    "data": {"data", "ops"},
    "train": {"train", "models", "nn", "ops", "data"},
}


def imported_modules(path: Path) -> Iterator[str]:
    """Absolute names of what a file of the package imports, at any depth."""
    inside = ("skelops", *path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = inside[: len(inside) - node.level + 1] if node.level else ()
            module = ".".join((*base, *([node.module] if node.module else [])))
            yield from (f"{module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("layer", MAY_IMPORT)
def test_imports_point_one_way(layer):
    forbidden = {f"skelops.{other}" for other in MAY_IMPORT.keys() - MAY_IMPORT[layer]}
    wrong = [
        f"{path.relative_to(PACKAGE)}: {name}"
        for path in (PACKAGE / layer).rglob("*.py")
        for name in imported_modules(path)
        if ".".join(name.split(".")[:2]) in forbidden
    ]
    assert wrong == []


def test_import_is_light(run_python):
    program = """
import sys
import torch
before = set(sys.modules)
import skelops
added = {name.partition(".")[0] for name in set(sys.modules) - before}
print(*added & {"triton", "lightning", "pytorch_lightning", "matplotlib", "tensorboard"})
"""
    assert run_python(program).split() == []
