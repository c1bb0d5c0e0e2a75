"""First hour with a diffusion model: erase a concept, measure, look at images, export."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.first_hour.terminal import Terminal

pytestmark = pytest.mark.slow


def test_a_circle_is_erased(tmp_path: Path) -> None:
    """Fails when a step of the way from the README to an exported pipeline stumbles."""
    user = Terminal(tmp_path)
    fit = "mu fit -c task/shapes_concept -c method/esd_small --run runs/esd"
    user.run(f"{fit} --model.guidance 1", code=2, says=["guidance"])
    assert not (tmp_path / "runs").exists()
    user.run(f"{fit} --trainer.max_steps 60", says=["run folder: runs/esd"])
    user.run("mu test --run runs/esd -c suite/concepts", says=["UA"])
    user.run(
        'mu generate runs/esd --prompts "a red circle" "a blue star" --beside embedded:shapes '
        "--output side_by_side",
        says=["side_by_side"],
    )
    assert list((tmp_path / "side_by_side").glob("*.html"))
    assert list((tmp_path / "side_by_side").rglob("*.png"))
    user.run(
        'mu generate runs/esd --prompts "a red circle" --output side_by_side',
        code=2,
        says=["side_by_side"],
    )
    user.run("mu export runs/esd exported", says=["exported"])
    assert (tmp_path / "exported/model_index.json").is_file()
    user.run("mu export runs/esd edited --edited", says=["edited"])
    user.run("mu report runs/esd", says=["ESD"])
    user.run(
        "mu test exported -c task/shapes_concept -c suite/concepts --run runs/theirs", says=["UA"]
    )
