"""The documentation site: it builds strictly and offline, and everything public has its place."""

import importlib
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from skelops import models

ROOT = Path(__file__).parents[2]
LOADED = {("script", "src"), ("img", "src"), ("link", "href"), ("iframe", "src")}


class Html(HTMLParser):
    """Identifiers, links and what a browser would load."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.loaded = set(), [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name == "id":
                self.ids.add(value)
            elif (tag, name) == ("a", "href"):
                self.links.append(value)
            elif (tag, name) in LOADED:
                self.loaded.append(value)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Path -> page."""
    for package in ("material", "mkdocstrings_handlers.python", "latex2mathml"):
        pytest.importorskip(package, reason="needs the extra docs")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    pages = folder.rglob("*.html")
    return {path: Html(path.read_text(encoding="utf-8")) for path in pages if path.stem != "404"}


def target(path, link):
    """The file and the identifier that a link of a page leads to."""
    parts = urlsplit(link)
    file = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    return file / "index.html" if file.is_dir() else file, unquote(parts.fragment)


def test_links(site):
    broken = []
    for path, page in site.items():
        for link in page.links:
            if urlsplit(link).scheme:
                continue
            file, fragment = target(path, link)
            known = not fragment or file not in site or fragment in site[file].ids
            if not file.is_file() or not known:
                broken.append(f"{path.parent.name}: {link}")
    assert broken == []


def test_nothing_is_loaded_from_elsewhere(site):
    for path, page in site.items():
        for link in page.loaded:
            assert not urlsplit(link).netloc and target(path, link)[0].is_file(), (path, link)


PACKAGES = ["", ".nn", ".models", ".data", ".dynamics", ".train"]


@pytest.mark.parametrize("package", PACKAGES)
def test_everything_public_has_an_entry(site, package):
    module = importlib.import_module(f"skelops{package}")
    known = set().union(*(page.ids for page in site.values()))
    missing = []
    for name in module.__all__:
        member = getattr(module, name)
        home = getattr(member, "__module__", None)  # constants and packages have none
        if home and not {f"{module.__name__}.{name}", f"{home}.{name}"} & known:
            missing.append(name)
    assert missing == []


def test_every_model_is_in_the_tables():
    text = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    rows = "\n".join(re.findall(r"^\|.*", text, re.MULTILINE))
    names = [*models.list_models(), *models.list_pretexts()]
    assert [name for name in names if f"`{name}`" not in rows] == []


def test_every_recipe_is_in_the_table():
    page = (ROOT / "docs" / "training.md").read_text()
    table = page.partition("## Recipes")[2].partition("\n## ")[0]
    recipes = sorted(path.stem for path in (ROOT / "skelops" / "recipes").glob("*/*.yaml"))
    assert [name for name in recipes if f"`{name}`" not in table] == []


def test_equations_are_rendered(site):
    for path in site:
        text = path.read_text(encoding="utf-8")
        assert ".. math" not in text and ":math:" not in text and "\\begin" not in text, path
        assert not re.search(r"<mi>(?:\\\w+|&(?:amp;)?)</mi>", text), path
    assert sum(path.read_text(encoding="utf-8").count("<math") for path in site) > 100
