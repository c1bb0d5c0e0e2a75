"""`mu init`: a starter folder with a study, a task, a method and a suite to change."""

from __future__ import annotations

import shutil
from pathlib import Path

from mu.cli.parser import Parser
from mu.utils.errors import InputError
from mu.utils.shipped_files import shipped_folder

PATTERN = "my_*"
"""Files of the examples that make the starter; the documentation's page on extending shows them."""


def main(argv: list[str]) -> int:
    """Run `mu init`; returns the exit code.

    Raises:
        InputError: for a folder that cannot be written or that holds a file of the same name.
    """
    parser = Parser(
        prog="mu init",
        description="Copy a starter into a folder: a study with a task, a backbone, methods, a "
        "mask, an attack and a suite of its own, which mu bench my_study.yaml runs in seconds.",
    )
    parser.add_argument("folder", help="folder to write into; made where it is missing")
    folder = Path(parser.parse_args(argv).folder)
    examples = shipped_folder("examples", checkout="docs/examples")
    files = sorted(examples.glob(PATTERN))
    if not files:
        raise InputError(f"{examples} has no examples; install mu again, or clone its repository.")
    existing = [file.name for file in files if (folder / file.name).exists()]
    if existing:
        raise InputError(f"{folder} already has {existing[0]}; give a folder without it.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file in files:
            shutil.copyfile(file, folder / file.name)
    except OSError as error:
        raise InputError(f"{folder} cannot be written ({error.strerror}).") from error
    print(f"{folder}: {', '.join(file.name for file in files)}")
    print(f"Run the study: cd {folder} && mu bench my_study.yaml")
    return 0
