"""The pages of documentation: what they name exists."""

import ast
import re
from pathlib import Path

import pytest

from vertebra.backbones import ResNetConfig
from vertebra.data import CocoKeypointsConfig, CocoPanopticConfig, ResizeConfig, VocConfig
from vertebra.engine import ScheduleConfig, SGDConfig
from vertebra.heads import (
    ArcFaceConfig,
    BoxBranchConfig,
    DeepLabConfig,
    DenseSelectionConfig,
    FCNConfig,
    FCOSConfig,
    KeypointBranchConfig,
    MaskBranchConfig,
    PanopticFPNConfig,
    PointHeadConfig,
    PointRefinementConfig,
    PointRendBranchConfig,
    RCNNConfig,
    RetinaNetConfig,
    RPNConfig,
    UNetConfig,
    YOLOXConfig,
)
from vertebra.heads.semantic import AuxiliaryConfig, SemanticConfig, SemanticLossConfig
from vertebra.inference import TileConfig
from vertebra.necks import FPNConfig
from vertebra.ops import RoIAlignConfig
from vertebra.structures import InputConfig, PanopticMergeConfig

from .test_architecture import MAY_IMPORT

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
SOURCES = [
    path
    for path in sorted(ROOT.rglob("*"))
    if path.suffix in (".py", ".md", ".toml")
    and path.is_file()
    and not any(part == "site-packages" or part.startswith(".") for part in path.relative_to(ROOT).parts)
]
"""The files of the project, without those of a virtual environment in its folder."""

CONFIGS = {
    config.__name__: config
    for config in (
        ArcFaceConfig, AuxiliaryConfig, BoxBranchConfig, CocoKeypointsConfig, CocoPanopticConfig, DeepLabConfig,
        DenseSelectionConfig, FCNConfig, FCOSConfig, FPNConfig, InputConfig, KeypointBranchConfig, MaskBranchConfig,
        PanopticFPNConfig, PanopticMergeConfig, PointHeadConfig, PointRefinementConfig, PointRendBranchConfig,
        RCNNConfig, ResizeConfig, ResNetConfig, RetinaNetConfig, RoIAlignConfig, RPNConfig, ScheduleConfig,
        SemanticConfig, SemanticLossConfig, SGDConfig, TileConfig, UNetConfig, VocConfig, YOLOXConfig,
    )
}  # fmt: skip


def named_tests(page: Path) -> list[tuple[str, str]]:
    """Return the tests that a page names, as (path below tests/, function)."""
    return re.findall(r"`([\w/]+\.py)::(\w+)`", page.read_text(encoding="utf-8"))


def test_tests_named_in_the_page_of_faults_exist():
    """Oracle: the syntax trees of the test files."""
    tests = named_tests(ROOT / "docs" / "faults.md")
    functions = {}
    for file in {file for file, _ in tests}:
        path = ROOT / "tests" / file
        tree = ast.parse(path.read_text(encoding="utf-8")) if path.exists() else ast.Module([], [])
        functions[file] = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert len(tests) > 150
    assert [f"{file}::{name}" for file, name in tests if name not in functions[file]] == []


def test_rows_of_the_page_of_faults_are_numbered_without_gaps():
    """Law: a reference to a row number finds the row."""
    text = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
    numbers = [int(number) for number in re.findall(r"^\| (\d+) \|", text, flags=re.MULTILINE)]
    rows = numbers[numbers.index(1) :]
    assert rows == list(range(1, len(rows) + 1))


def test_rows_of_the_page_of_faults_that_tests_cite_exist():
    """Law: a row that a test cites is between the first and the last."""
    count = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8").count("\n| ")
    cited = {}
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for numbers in re.findall(r"docs/faults\.md rows? ([\d, -]+)", path.read_text(encoding="utf-8")):
            cited.setdefault(str(path.relative_to(ROOT)), []).extend(
                int(number) for number in re.findall(r"\d+", numbers)
            )
    assert len(cited) > 20
    assert {path: rows for path, rows in cited.items() if not all(1 <= row <= count for row in rows)} == {}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_of_a_page_lead_to_files(page):
    """Oracle: the file system."""
    links = re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_files_named_on_a_page_exist(page):
    """Oracle: the file system, for paths in code spans such as ``tools/train.py``."""
    folders = "backbones|configs|data|docs|engine|evaluation|formats|heads|models|necks|ops|structures|tests|tools"
    paths = re.findall(rf"\b(?:{folders})/[\w/]+\.(?:py|md|png)\b", page.read_text(encoding="utf-8"))
    paths = [path for path in paths if page.name != "faults.md" or path.startswith("tests/")]
    assert sorted({path for path in paths if not (ROOT / path).exists()}) == []


def test_page_of_design_lists_every_folder():
    """Oracle: the folders that test_architecture.py knows."""
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    assert [folder for folder in (*MAY_IMPORT, "configs", "tools") if f"`{folder}/`" not in text] == []


def test_pages_cited_in_files_exist():
    """Oracle: the file system, for names such as ``docs/design.md`` and ``CHANGELOG.md`` in code, tests and pages."""
    missing = {}
    for path in SOURCES:
        names = set(re.findall(r"\bdocs/[\w-]+\.md\b|\b[A-Z]+\.md\b", path.read_text(encoding="utf-8")))
        if gone := sorted(name for name in names if not (ROOT / name).exists()):
            missing[str(path.relative_to(ROOT))] = gone
    assert missing == {}


def field_rows() -> list[tuple[str, str]]:
    """Return the cells for field and default of every row of the page of conventions that names a field."""
    text = (ROOT / "docs" / "conventions.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    return [(cells[3], cells[4]) for cells in rows if len(cells) == 5 and "Config." in cells[3]]


@pytest.mark.parametrize(("fields", "defaults"), field_rows())
def test_fields_and_defaults_of_the_page_of_conventions_are_true(fields, defaults):
    """Oracle: the configs themselves."""
    names, values = re.findall(r"`(\w+)\.(\w+)`", fields), re.findall(r"`([^`]+)`", defaults)
    for index, (config, field) in enumerate(names):
        default = CONFIGS[config].model_fields[field].get_default(call_default_factory=True)
        if index < len(values):
            assert ast.literal_eval(values[index]) == default, f"{config}.{field}"
