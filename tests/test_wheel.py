"""The built wheel: complete, and usable from a folder that holds nothing of the project."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("mu", "tasks", "callbacks")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder into which the wheel is installed, the wheel beside it."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", str(folder), str(ROOT)], check=True)
    wheel = next(folder.glob("*.whl"))
    subprocess.run(
        [*pip, "install", "--no-deps", "--target", str(folder / "site"), str(wheel)], check=True
    )
    return folder / "site"


def run_mu(site: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`python -m mu ARGUMENTS` with the installed wheel first on the path."""
    environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "mu", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )


def tracked_files() -> set[Path]:
    """Files of the packages, without what a run leaves beside them."""
    return {
        path.relative_to(ROOT)
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_packages_and_nothing_else(site: Path) -> None:
    """Sources, stubs, templates, word lists and embedded weights; no tests.

    Mutation: a package that pyproject leaves out, a file that git ignores.
    """
    missing_files = {path for path in tracked_files() if not (site / path).exists()}
    assert missing_files == set()
    suffixes = {path.suffix for path in tracked_files()}
    assert {".pyi", ".jinja", ".safetensors", ".json"} <= suffixes
    assert (site / "mu" / "py.typed").exists()
    with zipfile.ZipFile(next(site.parent.glob("*.whl"))) as wheel:
        roots = {name.split("/")[0] for name in wheel.namelist() if "dist-info" not in name}
    assert roots == set(PACKAGES)


@pytest.mark.slow
def test_the_wheel_brings_configurations_and_a_starter(site: Path, tmp_path: Path) -> None:
    """Commands of the README and of docs/extending.md work from an empty folder."""
    names = run_mu(site, tmp_path, "list", "configs").stdout
    for file in sorted((ROOT / "configs").rglob("*.yaml")):
        assert file.relative_to(ROOT / "configs").with_suffix("").as_posix() in names
    fit = "fit -c task/digits_random -c configs/method/train.yaml --trainer.max_epochs 1 --run a"
    fitted = run_mu(site, tmp_path, *fit.split())
    assert fitted.returncode == 0, fitted.stderr
    started = run_mu(site, tmp_path, "init", "starter")
    assert started.returncode == 0, started.stderr
    examples = {file.name for file in (ROOT / "docs" / "examples").glob("my_*")}
    assert {file.name for file in (tmp_path / "starter").iterdir()} == examples
    again = run_mu(site, tmp_path, "init", "starter")
    assert again.returncode == 2
    assert "already has my_attack.py" in again.stderr


@pytest.mark.slow
def test_python_m_mu_names_the_version_and_an_error(site: Path, tmp_path: Path) -> None:
    version = run_mu(site, tmp_path, "--version")
    assert version.returncode == 0, version.stderr
    assert version.stdout.startswith("mu ")
    unknown = run_mu(site, tmp_path, "lst")
    assert unknown.returncode == 2
    assert "'lst'" in unknown.stderr and "'list'" in unknown.stderr


@pytest.mark.slow
def test_a_folder_with_a_tasks_module_can_list_and_fit(site: Path, tmp_path: Path) -> None:
    """Mutation: the working directory before the installed packages on the path."""
    (tmp_path / "tasks.py").write_text("raise RuntimeError('the wrong tasks')\n")
    (tmp_path / "my_method.py").write_text(
        "from mu.core.module import UnlearningModule\n\n\n"
        "class MyMethod(UnlearningModule):\n    def objective(self, forget, retain):\n"
        "        return {'retain': self.reduce(self.backbone.loss(retain), retain)}\n"
    )
    listed = run_mu(site, tmp_path, "list", "methods")
    assert listed.returncode == 0, listed.stderr
    assert "SalUn" in listed.stdout
    assert "my_method.MyMethod" in listed.stdout
    fit = "fit --model my_method.MyMethod --model.backbone Classifier"
    network = "--model.backbone.name resnet8_cifar --model.backbone.in_channels 1"
    data = "--data Digits --data.selector RandomFraction --data.selector.fraction 0.1"
    trainer = "--trainer.max_epochs 1 --trainer.accelerator cpu --run out"
    fitted = run_mu(site, tmp_path, *f"{fit} {network} {data} {trainer}".split())
    assert fitted.returncode == 0, fitted.stderr
    assert (tmp_path / "out" / "checkpoints" / "last.ckpt").is_file()
