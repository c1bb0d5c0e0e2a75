"""Two ranks draw, judge and attack what one does: the same images, the same numbers, the same
files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mu.utils.files import read_json
from tests.callbacks import two_ranks
from tests.support.ranks import run_ranks

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("two-ranks")]


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """What one process, rank 0 and rank 1 found."""
    folder = tmp_path_factory.mktemp("suites")
    run_ranks("tests.callbacks.two_ranks", str(folder))
    ranks = [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]
    return folder, [two_ranks.run_all(folder / "one"), *ranks]


def test_numbers_and_details_are_those_of_one_process(
    jobs: tuple[Path, list[dict[str, Any]]],
) -> None:
    """Fails when an image is judged twice or not at all, or KID's subsets depend on the order in
    which ranks drew.
    """
    _, (single, first, second) = jobs
    for rank_results in (first, second):
        assert [name for name, _ in rank_results["values"]] == [
            name for name, _ in single["values"]
        ]
        for (name, value), (_, expected) in zip(
            rank_results["values"], single["values"], strict=True
        ):
            # KID/floor is undefined for so few images
            assert (value is None) == (expected is None) == (name == "KID/floor"), name
            if expected is not None:
                assert value == pytest.approx(expected, rel=1e-6, abs=1e-9), name
    assert first["details"] == single["details"]
    assert {"UA", "IRA", "CRA", "FID", "KID", "pre_ASR", "ASR"} <= {
        name for name, _ in single["values"]
    }
    assert 0 < dict(single["values"])["pre_ASR"] < 100


def test_files_are_those_of_one_process_byte_for_byte(
    jobs: tuple[Path, list[dict[str, Any]]],
) -> None:
    """Fails when an image depends on the number of ranks, or two ranks write one file."""
    folder, _ = jobs
    for name in ("images", "painted/media", "attacked/media"):
        single, two = (sorted((folder / which / name).iterdir()) for which in ("one", "two"))
        assert [path.name for path in single] == [path.name for path in two]
        assert all(a.read_bytes() == b.read_bytes() for a, b in zip(single, two, strict=True)), name
    single, two = (
        read_json(folder / which / "attacked" / "attack.json") for which in ("one", "two")
    )
    assert single == two and len(single) == 3
