"""Which sources a run's key depends on."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mu.utils.fingerprint import hash_user_sources

SUITE = "from callbacks import Cost\n\n\nclass Mine(Cost):\n    factor = {}\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in ("my_suites_a", "my_suites_b"):
        sys.modules.pop(name, None)


def test_the_users_own_classes_count_wherever_they_stand(here: Path) -> None:
    """Fails when a changed suite of the user's own is taken for the old one, or a class within
    another's arguments is overlooked.
    """
    for name, factor in (("my_suites_a", 1), ("my_suites_b", 2)):
        (here / f"{name}.py").write_text(SUITE.format(factor))
    one = hash_user_sources([{"class_path": "my_suites_a.Mine"}])
    nested = hash_user_sources(
        {"init_args": {"suite": [{"class_path": "my_suites_b.Mine"}]}},
        {"class_path": "my_suites_a.Mine"},
    )
    assert set(one) == {"my_suites_a.Mine"} and set(nested) == {
        "my_suites_a.Mine",
        "my_suites_b.Mine",
    }
    assert nested["my_suites_a.Mine"] == one["my_suites_a.Mine"] != nested["my_suites_b.Mine"]


def test_what_is_installed_or_of_mu_has_a_version(here: Path) -> None:
    """Fails when torch's sources are read for every key, or a class that is not there is told of
    here.
    """
    assert (
        hash_user_sources(
            {"class_path": "torch.optim.SGD"},
            {"class_path": "mu.methods.SSD"},
            {"class_path": "callbacks.Cost"},
            {"class_path": "nowhere.Nothing"},
            {"class_path": "torch.nn.functional.relu"},
        )
        == {}
    )
