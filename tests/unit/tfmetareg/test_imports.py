"""Imports run one way (the source is read, not run)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
# A module imports from its own layer and from those before it.
LAYERS = (
    ("types", "errors", "files", "_compat", "config", "schema", "device", "alignment")
    + ("fields", "transforms", "images"),
    ("spatial",),
    ("data", "models", "losses", "metrics", "peers"),
    ("optim", "steps"),
    ("meta", "evaluation", "registration"),
    ("checkpoint", "events", "loop", "serving"),
    ("runs",),
    ("cli",),
)
LEVEL = {part: level for level, parts in enumerate(LAYERS) for part in parts}
ONLY_BY_COMPAT = {"voxelmorph", "neurite", "tensorflow_addons"}


def imported(path: Path, at_top: bool = False) -> set[str]:
    """Dotted names that a file imports, at its top or within a function too."""
    names = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body if at_top else ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def parts(names: set[str], package: str = "tfmetareg") -> set[str]:
    """First-level modules of a package among dotted names."""
    return {name.split(".")[1] for name in names if name.startswith(f"{package}.")}


def roots(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


IMPORTS = {
    path.relative_to(ROOT).as_posix(): imported(path)
    for package in ("tfmetareg", "tfrecords_builder")
    for path in sorted((ROOT / package).rglob("*.py"))
}


def of(*starts: str) -> list[str]:
    files = [file for file in IMPORTS if file.startswith(starts)]
    assert files
    return files


def part_of(file: str) -> str:
    return Path(file).parts[1].replace(".py", "")


@pytest.mark.parametrize(
    "file", [file for file in of("tfmetareg/") if part_of(file) not in ("report", "__init__")]
)
def test_a_module_imports_only_from_its_layer_or_below(file):
    allowed = {part for part in LEVEL if LEVEL[part] <= LEVEL[part_of(file)]}
    if part_of(file) == "runs":
        allowed.add("report")
    assert parts(IMPORTS[file]) <= allowed


def test_every_module_has_its_layer():
    assert {part_of(file) for file in of("tfmetareg/")} == {*LEVEL, "report", "__init__"}


@pytest.mark.parametrize("file", of("tfmetareg/report/"))
def test_the_report_stands_on_errors_files_and_types_alone(file):
    assert parts(IMPORTS[file]) <= {"report", "errors", "files", "types"}
    assert "tensorflow" not in roots(IMPORTS[file])


@pytest.mark.parametrize("name", ["errors", "files", "types", "config", "cli"])
def test_the_command_line_starts_without_tensorflow(name):
    names = imported(ROOT / "tfmetareg" / f"{name}.py", at_top=True)
    assert parts(names) <= {"errors", "files", "types", "config"}
    assert not roots(names) & {"tensorflow", "keras"}


@pytest.mark.parametrize("file", of("tfrecords_builder/"))
def test_the_builder_takes_from_the_library_only_what_both_share(file):
    assert parts(IMPORTS[file]) <= {"schema", "types", "config", "errors", "files", "alignment", "_compat"}


@pytest.mark.parametrize("file", of("tfmetareg/"))
def test_only_runs_and_serving_import_the_builder(file):
    assert "tfrecords_builder" not in roots(IMPORTS[file]) or part_of(file) in ("runs", "serving")


def test_only_compat_imports_voxelmorph_neurite_and_addons():
    importers = [file for file, names in IMPORTS.items() if roots(names) & ONLY_BY_COMPAT]
    assert importers == ["tfmetareg/_compat.py"]
    assert ONLY_BY_COMPAT <= roots(IMPORTS["tfmetareg/_compat.py"])


def test_only_runs_and_the_command_line_see_the_configuration():
    importers = {part_of(file) for file in of("tfmetareg/") if "config" in parts(IMPORTS[file])}
    assert importers == {"runs", "cli"}
