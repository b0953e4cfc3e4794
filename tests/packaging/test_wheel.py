"""The built wheel in an environment of its own, far from the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml

import tfmetareg
from tfmetareg.config import Config

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("tfmetareg", "tfrecords_builder")
MADE_FROM = (*PACKAGES, "configs", "setup.cfg", "setup.py", "pyproject.toml", "README.md", "LICENSE")


def run(*command: object, cwd: Path, status: int = 0) -> str:
    """Output of a command that knows nothing of the checkout."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    finished = subprocess.run(
        [*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300
    )
    assert finished.returncode == status, finished.stdout + finished.stderr
    return finished.stdout + finished.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from a copy: building leaves files in the source folder."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in MADE_FROM:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    options = ("--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", folder)
    run(*pip, "wheel", *options, source, cwd=folder)
    (built,) = folder.glob(f"tfmetareg-{tfmetareg.__version__}-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """Programs of a new environment that holds the wheel and sees the locked packages."""
    environment = tmp_path_factory.mktemp("environment") / "venv"
    venv.create(environment)
    programs = environment / "bin"
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", programs / "python")
    run(*pip, "install", "--no-deps", "--no-index", wheel, cwd=environment)
    # The path in a .pth file is searched; further .pth files there (the editable install) are not read.
    (site_packages,) = environment.glob("lib/python*/site-packages")
    (site_packages / "locked.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    return programs


def test_the_wheel_holds_every_module_the_presets_the_start_weights_and_nothing_else(wheel):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    modules = {path.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    presets = {Path("tfmetareg", "configs", path.name) for path in (ROOT / "configs").glob("*.yaml")}
    weights = {path.relative_to(ROOT) for path in (ROOT / "tfmetareg" / "weights").glob("*.*")}
    pages = {path.relative_to(ROOT) for path in (ROOT / "tfmetareg" / "report").glob("*.j2")}
    others = {Path("tfmetareg/py.typed"), *pages}
    assert len(presets) > 5 and len(pages) == 3 and any(path.suffix == ".h5" for path in weights)
    assert names == {path.as_posix() for path in modules | presets | weights | others}


@pytest.mark.parametrize("package", PACKAGES)
def test_the_package_is_the_installed_one(package, installed, tmp_path):
    place = run(installed / "python", "-c", f"import {package}; print({package}.__file__)", cwd=tmp_path)
    assert place.startswith(str(installed.parent))


def test_programs_print_the_version(installed, tmp_path):
    assert run(installed / "tfmetareg", "--version", cwd=tmp_path) == f"tfmetareg {tfmetareg.__version__}\n"
    builder = run(installed / "python", "-m", "tfrecords_builder", "--version", cwd=tmp_path)
    assert builder == f"tfrecords_builder {tfmetareg.__version__}\n"


def test_without_a_file_the_defaults_hold(installed, tmp_path):
    printed = yaml.safe_load(run(installed / "tfmetareg", "--mode=reptile", "--print_config", cwd=tmp_path))
    assert {name: printed[name] for name in Config().to_dict()} == Config().to_dict()


@pytest.mark.parametrize(
    "name", ["reproduce_smoke", "reproduce_smoke.yaml", ROOT / "configs/reproduce_smoke.yaml"]
)
def test_a_preset_is_found_by_name_and_by_path(name, installed, tmp_path):
    command = (installed / "tfmetareg", "--mode=reptile", f"--config={name}", "--print_config")
    printed = yaml.safe_load(run(*command, cwd=tmp_path))
    assert printed["reptile"]["meta_steps"] == 2 and printed["model"]["features"] == [[4, 4], [4, 4, 4]]


def test_a_mode_builds_its_data_and_trains(installed, tmp_path):
    """The builder is another process, and knows the installed package."""
    run(installed / "tfmetareg", "--mode=reptile", "--config=reproduce_smoke", "--workdir=run", cwd=tmp_path)
    assert (tmp_path / "run" / "reptile" / "model.h5").is_file()
    assert list(tmp_path.glob("data/embedded*/manifest.json"))


def test_the_builder_validates_images(installed, tmp_path):
    images = np.random.default_rng(0).random((2, 32, 32))
    for name, image in zip("ab", images):
        np.save(tmp_path / f"{name}.npy", image)
    (tmp_path / "pairs.csv").write_text("moving,fixed\na.npy,b.npy\n")
    command = (installed / "python", "-m", "tfrecords_builder", "validate", "--source=pairs", "--input=.")
    assert "pairs" in run(*command, "--image-size", 32, 32, cwd=tmp_path)
    (tmp_path / "pairs.csv").write_text("moving,fixed\na.npy,c.npy\n")
    assert "c.npy" in run(*command, cwd=tmp_path, status=2)


def test_two_arrays_are_registered_with_the_weights_that_come_along(installed, tmp_path):
    script = (
        "import numpy as np, tfmetareg\n"
        "image = np.random.default_rng(0).random((64, 64)).astype('float32')\n"
        "found = tfmetareg.register(image, image)\n"
        "print(found.warped.shape, found.displacement.shape)\n"
    )
    assert "(64, 64) (64, 64, 2)" in run(installed / "python", "-c", script, cwd=tmp_path)
