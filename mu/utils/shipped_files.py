"""Configurations and examples that come with `mu`, usable from any folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
SUFFIXES = ("", ".yaml", ".yml")


def shipped_folder(name: str, checkout: str | None = None) -> Path:
    """Folder of files that come with `mu`: inside the installed package, else in the checkout.

    Args:
        name: of the folder in the package, for example `configs`.
        checkout: its path in a checkout; `name` when None.
    """
    installed = PACKAGE / name
    return installed if installed.is_dir() else PACKAGE.parent / (checkout or name)


def config_folders() -> list[Path]:
    """Folders that are searched for a configuration: `./configs`, then the one of `mu`."""
    return [Path("configs"), shipped_folder("configs")]


def find_config(path: str | Path) -> Path:
    """The file that a command means by a configuration's name.

    The path itself, where it exists; else the file of that name in `./configs` or among those
    that come with `mu`. The suffix `.yaml` and a leading `configs/` may be left out.

    Args:
        path: for example `runs/a/config.yaml`, `configs/method/salun.yaml`, `method/salun`.

    Returns:
        The first file that exists; the path unchanged where there is none.

    Example:
        >>> find_config("method/salun").name
        'salun.yaml'
    """
    path = Path(path)
    if path.exists() or path.is_absolute() or ".." in path.parts:
        return path
    return next((file for file in _candidates(path) if file.is_file()), path)


def config_names() -> dict[str, Path]:
    """Names by which a command finds configurations, such as `method/salun`, with their files."""
    names: dict[str, Path] = {}
    for folder in config_folders():
        for file in sorted(folder.rglob("*.yaml")):
            names.setdefault(file.relative_to(folder).with_suffix("").as_posix(), file)
    return names


def _candidates(path: Path) -> Iterator[Path]:
    parts = path.parts[1:] if path.parts[:1] == ("configs",) else path.parts
    for folder in config_folders():
        for suffix in SUFFIXES:
            yield folder.joinpath(*parts[:-1], f"{parts[-1]}{suffix}") if parts else folder
