"""Paths of a run folder: relative ones from any directory, base models that have moved."""

from __future__ import annotations

from pathlib import Path

import pytest

from mu.core.run_paths import base_folder, located, save_bases
from mu.utils.run_config import DIRECTORY
from mu.utils.run_layout import BASE


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run folder that was fitted in `home` beside `model` and `rows.json`, seen from elsewhere."""
    home = tmp_path / "home"
    (home / "model" / "part").mkdir(parents=True)
    for name in ("config.json", "part/tokenizer.json", "model.safetensors", "part/x.bin"):
        (home / "model" / name).write_text("{}")
    (home / "rows.json").write_text("[]")
    (home / "run").mkdir()
    (home / "run" / "config.yaml").write_text(f"{DIRECTORY}{home}\nmodel: {{}}\n")
    monkeypatch.chdir(home)
    save_bases(home / "run", {"backbone": [{"model": "model"}]})
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return home / "run"


def test_relative_paths_are_found_from_elsewhere(run: Path) -> None:
    """Fails when a run is usable only from the directory in which it was fitted."""
    config = {"model": "model", "path": "rows.json", "part": "model", "by": "full", "n": 3}
    assert located(config, run) == {
        **config,
        "model": str(run.parent / "model"),
        "path": str(run.parent / "rows.json"),
    }
    Path("rows.json").write_text("[1]")
    assert located(config, run)["path"] == "rows.json"


def test_base_that_has_moved_is_built_from_the_run_folder(run: Path) -> None:
    """Fails when weights are copied, or when a run needs a folder that it could do without."""
    (run.parent / "model").rename(run.parent / "moved")
    spec = located({"class_path": "C", "init_args": {"model": "model"}}, run)
    assert spec["init_args"] == {"model": str(base_folder(run, "model")), "init_seed": 0}
    files = [file.name for file in (run / BASE).rglob("*") if file.is_file()]
    assert sorted(files) == ["config.json", "tokenizer.json"]
