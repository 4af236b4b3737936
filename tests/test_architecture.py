"""The layers of the package: what each folder may import (docs/design.md), read from the syntax tree."""

import ast
import importlib
import pkgutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

MAY_IMPORT = {
    "structures": set(),
    "ops": {"structures"},
    "backbones": {"structures", "ops"},
    "formats": {"structures"},
    "data": {"structures", "ops", "formats"},
    "evaluation": {"structures", "ops", "formats"},
    "necks": {"structures", "ops"},
    "heads": {"structures", "ops"},
    "models": {"structures", "ops", "backbones", "necks", "heads"},
    "inference": {"structures", "ops", "formats", "backbones", "necks", "heads", "models"},
    "engine": {
        *("structures", "ops", "formats", "backbones", "necks", "heads", "models", "inference", "data", "evaluation")
    },
}
MODULES = sorted(path for folder in MAY_IMPORT for path in (ROOT / folder).rglob("*.py"))


def imported_folders(path: Path) -> set[str]:
    """Return the folders of the package that a module imports from, without its own."""
    inside = path.relative_to(ROOT).parts[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or ""]
        elif isinstance(node, ast.ImportFrom):
            above = inside[: len(inside) - node.level + 1]
            target = ".".join([*above, node.module or ""]).strip(".")
            names = [f"vertebra.{target}" if node.module else f"vertebra.{target}.{a.name}" for a in node.names]
        else:
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("vertebra.") and name.count(".")}
    return found - {inside[0]}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_folder_imports_only_from_lower_layers(path):
    """Law: docs/design.md lists what each folder may import."""
    folder = path.relative_to(ROOT).parts[0]
    assert imported_folders(path) <= MAY_IMPORT[folder]


def test_imports_of_a_module_are_found(tmp_path):
    """Control: a module that is known to import from many layers."""
    assert imported_folders(ROOT / "engine" / "run.py") >= {"backbones", "data", "models", "structures"}
    assert imported_folders(ROOT / "data" / "shapes" / "dataset.py") <= {"structures"}


def test_every_folder_with_code_is_packaged():
    """Law: every folder is listed in pyproject.toml; otherwise it would be missing from the wheel alone."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {
        path.parent.relative_to(ROOT)
        for name in (*MAY_IMPORT, "configs", "tools")
        for path in (ROOT / name).rglob("*.py")
    }
    assert {"vertebra", *("vertebra." + ".".join(folder.parts) for folder in folders)} == set(listed)


def test_no_name_hides_a_folder():
    """Law: an attribute with the name of a folder must be the folder, since ``import a.b.c as d`` looks up
    attributes."""
    folders = sorted({path.parent.relative_to(ROOT) for path in MODULES})
    names = [".".join(folder.parts) for folder in folders]
    modules = {name: importlib.import_module(f"vertebra.{name}") for name in names}
    assert [name for name in names if pkgutil.resolve_name(f"vertebra:{name}") is not modules[name]] == []


def test_importing_the_package_imports_nothing_heavy():
    """Law: ``import vertebra`` imports neither torch nor any other large package."""
    code = "import sys, vertebra; print([m for m in ('torch', 'numpy', 'cv2', 'pydantic') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_every_public_name_can_be_imported():
    """Law: each of ``vertebra.__all__`` is the object of that name in its folder; another name is an AttributeError."""
    import vertebra

    for name in vertebra.__all__:
        assert getattr(vertebra, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = vertebra.no_such_name
