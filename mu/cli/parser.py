"""Argument parser whose errors are InputErrors of one sentence."""

from __future__ import annotations

import argparse
from typing import NoReturn

from mu.utils.errors import InputError


class Parser(argparse.ArgumentParser):
    """ArgumentParser that raises InputError instead of printing its usage and exiting."""

    def error(self, message: str) -> NoReturn:
        """Raise the message as one sentence.

        Raises:
            InputError: always.
        """
        raise InputError(f"{self.prog}: {message}; {self.prog} --help lists its arguments.")
