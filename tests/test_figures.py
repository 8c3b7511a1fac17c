"""The committed SVGs show what figures/build.py draws, and stand where figures.toml says."""

import importlib.util
import re
import tomllib
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FIGURES = tomllib.loads((ROOT / "figures/figures.toml").read_text("utf-8"))


def drawn(svg: str) -> list[tuple]:
    """What an SVG draws: each element, its attributes and text, in order.

    matplotlib names clip paths and glyphs by hashes that differ between its versions and Python's.
    So each name is replaced by its number in order of appearance. The metadata, which name
    matplotlib's version, are left out. Numbers are rounded to a hundredth of a point.
    """
    numbers = {}

    def renamed(match):
        return f"#{numbers.setdefault(match[0].lstrip('#'), len(numbers))}"

    def plain(text):
        text = re.sub(r"#(?![0-9a-fA-F]{6}\b)[\w.-]+", renamed, (text or "").strip())
        return re.sub(r"-?\d+\.\d+", lambda number: f"{float(number[0]):.2f}", text)

    root = ElementTree.fromstring(svg)
    for metadata in root.findall("{*}metadata"):
        root.remove(metadata)
    elements = []
    for element in root.iter():
        attributes = {
            name.rpartition("}")[2]: re.sub(".+", renamed, text) if name == "id" else plain(text)
            for name, text in element.attrib.items()
        }
        elements.append((element.tag, attributes, plain(element.text)))
    return elements


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder with the figures drawn anew."""
    import matplotlib

    spec = importlib.util.spec_from_file_location("build", ROOT / "figures/build.py")
    build = importlib.util.module_from_spec(spec)
    backend = matplotlib.get_backend()
    spec.loader.exec_module(build)
    folder = tmp_path_factory.mktemp("figures")
    try:
        build.build(folder)
    finally:
        matplotlib.use(backend)
    return folder


def test_every_svg_has_an_entry_in_the_table():
    committed = {path.name for path in (ROOT / "figures").glob("*.svg")}
    assert committed == {entry["file"] for entry in FIGURES.values()}


@pytest.mark.parametrize("name", FIGURES)
def test_the_svg_shows_what_the_code_draws(name, built):
    file = FIGURES[name]["file"]
    committed = drawn((ROOT / "figures" / file).read_text("utf-8"))
    assert drawn((built / file).read_text("utf-8")) == committed, "run make figures"


SVG = """<svg xmlns="http://www.w3.org/2000/svg"><metadata>v3.11</metadata>
<defs><clipPath id="p12ab"><rect width="9.001"/></clipPath><clipPath id="q9"/></defs>
<path d="M 1 2" fill="#0072B2" clip-path="url(#p12ab)"/><text>page 1</text></svg>"""


@pytest.mark.parametrize(
    "old, new, same",
    [
        ("p12ab", "pffff", True),
        ("v3.11", "v3.12", True),
        ("9.001", "9.002", True),
        ("url(#p12ab)", "url(#q9)", False),
        ("9.001", "9.1", False),
        ("M 1 2", "M 1 3", False),
        ("#0072B2", "#0072B3", False),
        ("page 1", "page 2", False),
    ],
)
def test_what_is_drawn_is_compared_and_not_how_it_is_named(old, new, same):
    assert (drawn(SVG) == drawn(SVG.replace(old, new))) is same


@pytest.mark.parametrize("name", FIGURES)
def test_every_picture_is_used_where_the_table_says_with_its_alt_text(name):
    entry = FIGURES[name]
    assert len(entry["alt"]) > 60 and entry["caption"]
    for place in entry["used_in"]:
        source = (ROOT / place).read_text("utf-8")
        assert f"figures/{entry['file']}" in source, place
        assert entry["alt"] in source.replace('\\"', '"'), place
