"""What the documentation site needs beside its pages: files of the repository, and equations.

The same pages are read in the repository. Links that leave docs/ point at copies within the site,
and reStructuredText in docstrings becomes Markdown, with equations as MathML, which browsers show
without a script.
"""

import posixpath
import re
from pathlib import Path

import griffe
from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
PAGES = {
    "index.md": "README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
}
LINK = re.compile(r"\]\((?!\w+:|#)([^)\s#]+)(#[^)\s]*)?\)")
EXAMPLE = re.compile(r"^\[[\w.]+\]\((examples/\w+\.py)\)$", re.MULTILINE)


# Pages


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie at the top of the repository, and what pages link to outside docs/."""
    for name, source in PAGES.items():
        files.append(File.generated(config, name, content=_moved((ROOT / source).read_text(), "")))
    for page in [file for file in files if file.is_documentation_page()]:
        folder = posixpath.dirname(page.src_uri)
        for path, _ in LINK.findall(page.content_string):
            target = posixpath.normpath(posixpath.join("docs", folder, path))
            inside = _inside(target)
            if files.get_file_from_path(inside) is None and (ROOT / target).is_file():
                files.append(File.generated(config, inside, abs_src_path=str(ROOT / target)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links as they are within the site, and the text of examples below the links to them."""
    if page.file.src_uri not in PAGES:
        markdown = _moved(markdown, posixpath.join("docs", posixpath.dirname(page.file.src_uri)))
    return EXAMPLE.sub(_with_text, markdown)


def _inside(target: str) -> str:
    """Where a file of the repository is in the site."""
    back = {source: name for name, source in PAGES.items()}
    return back.get(target, target.removeprefix("docs/"))


def _moved(markdown: str, folder: str) -> str:
    """A page of that folder of the repository, its links to where the targets are in the site."""
    here = _inside(folder) if folder not in ("", "docs") else ""

    def link(match: re.Match) -> str:
        target = _inside(posixpath.normpath(posixpath.join(folder, match[1])))
        return f"]({posixpath.relpath(target, here or '.')}{match[2] or ''})"

    return LINK.sub(link, markdown)


def _with_text(match: re.Match) -> str:
    text = (ROOT / "docs" / match[1]).read_text(encoding="utf-8")
    return f"{match[0]}\n\n```python\n{text}```"


# Docstrings

DISPLAY = re.compile(r"^( *)\.\. math::(.*)\n((?:\s*\n|\1 +.*\n?)*)", re.MULTILINE)
INLINE = re.compile(r":math:`([^`]+)`")
ROLE = re.compile(r":(?:func|class|meth|data|mod|attr):`(~?)([^`]+)`")
TABLE = re.compile(r"^( *)(=+(?: +=+)+\n(?:.*\n)+? *=+(?: +=+)+)$", re.MULTILINE)


class Docstrings(griffe.Extension):
    """Docstrings of this library in Markdown."""

    def on_object(self, *, obj: griffe.Object, **_: object) -> None:
        if obj.docstring is not None and not obj.is_alias:
            obj.docstring.value = to_markdown(obj.docstring.value)


def to_markdown(text: str) -> str:
    """A docstring without reStructuredText.

    Args:
        text: with ``.. math::`` blocks, roles and simple tables.
    """
    text = DISPLAY.sub(lambda m: f"{m[1]}{_mathml(m[2] + m[3], 'block')}\n\n", text + "\n")
    text = INLINE.sub(lambda m: _mathml(m[1], "inline"), text)
    text = ROLE.sub(_reference, text)
    text = TABLE.sub(lambda m: f"{m[1]}```text\n{m[1]}{m[2]}\n{m[1]}```", text)
    return re.sub(r"^Example:$", "Examples:", text, flags=re.MULTILINE).rstrip()


def _mathml(latex: str, display: str) -> str:
    latex = " ".join(latex.split())
    if (r"\\" in latex or "&" in latex) and r"\begin" not in latex:
        latex = rf"\begin{{align*}} {latex} \end{{align*}}"
    for name, known in {"{aligned}": "{align*}", r"\arg": r"\operatorname{arg}"}.items():
        latex = latex.replace(name, known)  # what the converter has another name for
    found = convert(latex, display=display)
    return f'<div class="equation">{found}</div>' if display == "block" else f"<span>{found}</span>"


def _reference(match: re.Match) -> str:
    name = match[2].rpartition(".")[2] if match[1] else match[2]
    module, _, member = match[2].rpartition(".")
    if module == "skelops":  # the ops, which are documented where they are defined
        module = f"skelops.ops.{member}"
    return f'<autoref identifier="{module}.{member}" optional><code>{name}</code></autoref>'
