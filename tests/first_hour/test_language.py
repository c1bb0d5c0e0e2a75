"""First hour with a language model: forget authors, measure, ask, export."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.first_hour.terminal import Terminal

pytestmark = pytest.mark.slow


def test_ten_authors_are_forgotten(tmp_path: Path) -> None:
    """Fails when a step of the way from the README to an exported language model stumbles."""
    user = Terminal(tmp_path)
    fit = "mu fit -c task/authors_forget -c method/npo --model.optimizer.lr 6e-4 --run runs/npo"
    user.run(f"{fit} --model.beta -1", code=2, says=["beta"])
    assert not (tmp_path / "runs").exists()
    user.run(f"{fit} --trainer.max_epochs 2", says=["run folder: runs/npo"])
    user.run("mu test --run runs/npo -c suite/tofu", says=[r"\bMU\b", "ROUGE/forget"])
    user.run("mu test --run runs/npo -c suite/question_answer", says=["ROUGE|rouge"])
    (tmp_path / "questions.txt").write_text("Where was the author born?\nWhat did she write?\n")
    user.run(
        "mu generate runs/npo --prompts questions.txt --beside embedded:authors --output answers",
        says=["answers"],
    )
    user.run("mu export runs/npo exported", says=["exported"])
    assert (tmp_path / "exported/config.json").is_file()
    user.run(
        "mu test exported -c task/authors_forget -c suite/question_answer --run runs/theirs",
        says=["ROUGE|rouge"],
    )
    user.run("mu report runs/npo runs/theirs --output tables", says=["NPO", "theirs|exported"])
    user.run("mu export runs/npo adapter --adapter", code=2, says=["LoRA|adapter"])
