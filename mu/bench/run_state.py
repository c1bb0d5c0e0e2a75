"""State of a study's run, in `run.json` of its folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mu.bench.execution import PlannedRun, PlannedSuite
from mu.utils.files import read_json, write_json

FITTED = ("fitted", "finished")


@dataclass(frozen=True)
class RunState:
    """State of a planned run.

    Attributes:
        run: the run.
        name: `running`, `fitted` (not measured yet) or `finished`; empty where its folder holds
            nothing of this run.
        measured: keys of the measurements in its results.
    """

    run: PlannedRun
    name: str = ""
    measured: tuple[str, ...] = ()

    @classmethod
    def read(cls, run: PlannedRun) -> RunState:
        """State of a run in its folder."""
        content = _content(run.folder)
        if content.get("key") != run.key:
            return cls(run)
        has_results = (run.folder / "results.json").is_file()
        measured = tuple(content.get("measured", ())) if has_results else ()
        return cls(run, str(content.get("state", "")), measured)

    @property
    def fitted(self) -> bool:
        """Whether its training has ended."""
        return self.name in FITTED

    @property
    def finished(self) -> bool:
        """Whether it was measured; perhaps by other suites than those of the plan."""
        return self.name == "finished"

    @property
    def missing(self) -> list[PlannedSuite]:
        """Suites of the plan that have not measured it."""
        return [suite for suite in self.run.suites if suite.key not in self.measured]

    @property
    def complete(self) -> bool:
        """Whether nothing is left to do."""
        return self.finished and not self.missing

    def suites_to_measure(self) -> list[PlannedSuite]:
        """Missing suites, and those whose results a missing one compares with the oracle's."""
        missing = self.missing
        keys = {key for suite in missing for key in (suite.key, *suite.compared)}
        return [suite for suite in self.run.suites if suite.key in keys]

    def write(
        self, name: str, account: Mapping[str, Any], measured: Sequence[str] | None = None
    ) -> None:
        """Write `run.json` with another state.

        Args:
            name: the new state.
            account: job and settings, for a reader of the file.
            measured: keys of the measurements that are there now; none where None.
        """
        content = {"key": self.run.key, **account, "state": name, "measured": list(measured or ())}
        write_json(self.run.folder / "run.json", content)


def is_finished(folder: Path, key: str) -> bool:
    """Whether a run folder holds the finished run of a reuse key."""
    content = _content(folder)
    return content.get("key") == key and content.get("state") == "finished"


def _content(folder: Path) -> dict[str, Any]:
    file = folder / "run.json"
    return read_json(file) if file.is_file() else {}
