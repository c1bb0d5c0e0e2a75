"""An argument parser whose errors are one plain sentence."""

from __future__ import annotations

import argparse
from typing import NoReturn

from mu.utils.errors import InputError


class Parser(argparse.ArgumentParser):
    """Raises InputError where argparse would print its usage and leave the process."""

    def error(self, message: str) -> NoReturn:
        """One sentence."""
        raise InputError(f"{self.prog}: {message}; {self.prog} --help says what it takes.")
