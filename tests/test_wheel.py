"""The built wheel works from a folder that has nothing of the project, and a `tasks.py` of its
own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", str(folder), str(ROOT)], check=True)
    wheel = next(folder.glob("*.whl"))
    subprocess.run(
        [*pip, "install", "--no-deps", "--target", str(folder / "site"), str(wheel)], check=True
    )
    return folder / "site"


def called(site: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "mu.cli.main", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_it_holds_every_package_and_nothing_else(installed: Path) -> None:
    """Fails when a package is missing from pyproject's list."""
    ours = {
        path.relative_to(ROOT)
        for top in ("mu", "tasks", "callbacks")
        for path in (ROOT / top).rglob("*.py")
    }
    assert {path for path in ours if not (installed / path).exists()} == set()
    assert not (installed / "tests").exists()
    assert (installed / "mu" / "py.typed").exists()
    with zipfile.ZipFile(next(installed.parent.glob("*.whl"))) as wheel:
        assert {name.split("/")[0] for name in wheel.namelist() if "dist-info" not in name} == {
            "mu",
            "tasks",
            "callbacks",
        }


@pytest.mark.slow
def test_it_lists_and_fits_from_a_folder_with_a_tasks_module_of_its_own(
    installed: Path, tmp_path: Path
) -> None:
    """Fails when the working directory comes before the installed packages on the path."""
    (tmp_path / "tasks.py").write_text("raise RuntimeError('the wrong tasks')\n")
    (tmp_path / "mine.py").write_text(
        "from mu.core.module import UnlearningModule\n\n\n"
        "class Mine(UnlearningModule):\n    def objective(self, forget, retain):\n"
        "        return {'retain': self.reduce(self.backbone.loss(retain), retain)}\n"
    )
    listed = called(installed, tmp_path, "list", "methods")
    assert listed.returncode == 0, listed.stderr
    assert "SalUn" in listed.stdout
    fitted = called(
        installed,
        tmp_path,
        "fit",
        "--model",
        "mine.Mine",
        "--model.backbone",
        "Classifier",
        "--model.backbone.name",
        "resnet8_cifar",
        "--model.backbone.in_channels",
        "1",
        "--data",
        "Digits",
        "--data.selector",
        "RandomFraction",
        "--data.selector.fraction",
        "0.1",
        "--trainer.max_epochs",
        "1",
        "--trainer.accelerator",
        "cpu",
        "--run",
        "out",
    )
    assert fitted.returncode == 0, fitted.stderr
    assert (tmp_path / "out" / "checkpoints" / "last.ckpt").is_file()
