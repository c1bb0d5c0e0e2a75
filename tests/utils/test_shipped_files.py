"""Names of configurations: the path, `./configs`, then what comes with `mu`."""

from __future__ import annotations

from pathlib import Path

import pytest

from mu.utils.shipped_files import config_folders, find_config


@pytest.mark.parametrize(
    "name",
    [
        "method/salun",
        "method/salun.yaml",
        "configs/method/salun",
        "configs/method/salun.yaml",
    ],
)
def test_shipped_configuration_is_found_from_any_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = find_config(name)
    assert file.samefile(config_folders()[-1] / "method" / "salun.yaml")
    assert find_config("configs/prompts/nudity.csv").is_file()


def test_configuration_of_the_working_directory_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mutation: the shipped folder before `./configs`, or before the path itself."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs" / "method").mkdir(parents=True)
    (tmp_path / "configs" / "method" / "salun.yaml").write_text("model: mine\n")
    assert find_config("method/salun").resolve().is_relative_to(tmp_path)
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "salun").write_text("model: here\n")
    assert find_config("method/salun") == Path("method/salun")


def test_missing_configuration_keeps_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("method/salum", "nothing", str(tmp_path / "method" / "salun"), "../method/salun"):
        assert find_config(name) == Path(name)
