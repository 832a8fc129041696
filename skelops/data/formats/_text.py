"""Lines of numbers: what readers of text formats share, with one wording of errors."""

from __future__ import annotations

from collections.abc import Callable
from math import isinf
from pathlib import Path
from typing import TypeVar

import numpy as np

T = TypeVar("T")

FLOAT32_MAX = float(np.finfo(np.float32).max)


class Lines:
    """The lines of a text, one after the other, each as its tokens.

    Lines end with a line feed and may have a carriage return before it. ``number`` is the 1-based
    line that was read last; errors name it.
    """

    def __init__(self, data: bytes) -> None:
        self.lines = data.split(b"\n")
        if not self.lines[-1]:
            self.lines.pop()
        self.number = 0

    def next(self) -> list[bytes]:
        """Tokens of the next line, none at the end."""
        self.number += 1
        return [] if self.number > len(self.lines) else self.lines[self.number - 1].split()

    def count(self, expected: str) -> int:
        """The next line, a number of at most 18 digits."""
        tokens = self.next()
        if len(tokens) != 1 or not tokens[0].isdigit() or len(tokens[0]) > 18:
            raise self.error(expected)
        return int(tokens[0])

    def numbers(self, tokens: list[bytes], count: int, expected: str) -> list[float]:
        """Tokens of the line as numbers: what ``float`` reads, without digit separators and finite
        numbers beyond double."""
        if len(tokens) != count:
            raise self.error(expected)
        try:
            values = [float(token) for token in tokens]
        except ValueError:
            raise self.error(expected) from None
        for value, token in zip(values, tokens, strict=True):
            if b"_" in token or (isinf(value) and b"n" not in token.lower()):
                raise self.error(expected)
        return values

    def error(self, expected: str) -> ValueError:
        """Something else was expected in the line that was read last."""
        shown = "the end of the file"
        if 1 <= self.number <= len(self.lines):
            line = self.lines[self.number - 1].strip()[:40]
            shown = f"'{bytes(c if 32 <= c < 127 else 63 for c in line).decode()}'"
        return ValueError(f"expected {expected}, got {shown} at line {self.number}")


def named(path: str | Path, read: Callable[..., T], *args: object) -> T:
    """``read(*args)``, whose ValueErrors then name the file."""
    try:
        return read(*args)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
