"""First hour with a classifier: fit, forget, measure, compare, resume, export, a study."""

from __future__ import annotations

from pathlib import Path

import pytest

from mu.metrics.run_results import RunResults
from tests.first_hour.terminal import Terminal

pytestmark = pytest.mark.slow

METRICS = ("UA", "RA", "TA", "MIA")


def metrics(run: Path) -> set[str]:
    """Names of the metrics of the weights that a run holds."""
    return {result.metric for result in RunResults.load(run).results}


def test_an_original_forgets_a_tenth_of_its_samples(tmp_path: Path) -> None:
    """Fails when a step of the way from the README to an exported model stumbles or says noise."""
    user = Terminal(tmp_path)
    user.run("mu", says=["fit", "test", "bench"])
    user.run("mu --version", says=[r"\d+\.\d+"])
    user.run("mu list methods", says=["SalUn", "SSD"])
    user.run("mu show SalUn", says=["2310.12508"])
    # 1. an original; the same command again trains nothing, other settings are refused
    original = "mu fit -c task/digits_random -c method/train --run runs/original"
    user.run(f"{original} --trainer.max_epochs 6", says=["run folder: runs/original"])
    assert (tmp_path / "runs/original/split.json").is_file()
    user.run(f"{original} --trainer.max_epochs 6", says=["finished"], never=["Epoch"])
    user.run(
        f"{original} --trainer.max_epochs 6 --model.optimizer.lr 0.5",
        code=2,
        says=["runs/original", "optimizer", "--overwrite"],
    )
    # 2. a method; what is forgotten is a mistake away from something else
    salun = (
        "mu fit -c task/digits_random -c method/salun --model.backbone.weights runs/original "
        "--model.optimizer.lr 0.02 --trainer.max_epochs 2 --run runs/salun"
    )
    user.run(salun, says=["run folder: runs/salun"])
    user.run("mu fit -c task/digits_random -c method/saluun", code=2, says=["method/salun"])
    user.run("mu fit -c task/digits_random --model SalUnn", code=2, says=["SalUn"])
    # 3. numbers: a second suite adds to them, a test without a suite takes none away
    user.run("mu test --run runs/salun -c suite/classification", says=METRICS)
    before = metrics(tmp_path / "runs/salun")
    assert set(METRICS) <= before
    user.run("mu test --run runs/salun", says=["suite"])
    assert metrics(tmp_path / "runs/salun") == before
    # 4. the oracle, and the gap
    user.run(
        "mu fit -c task/digits_random -c method/retrain --trainer.max_epochs 6 --run runs/oracle"
    )
    user.run("mu test --run runs/oracle -c suite/classification", says=METRICS)
    gap = "mu test --run runs/salun -c suite/classification -c suite/retrain_gap"
    user.run(f"{gap} --trainer.callbacks.oracle runs/orcale", code=2, says=["runs/orcale"])
    user.run(f"{gap} --trainer.callbacks.oracle runs/oracle", says=["avg_gap"])
    assert before < metrics(tmp_path / "runs/salun")
    user.run("mu report runs/oracle runs/salun --output tables", says=["SalUn"])
    # 5. more epochs; a resumed run with another learning rate is refused, its numbers are stale
    resumed = "mu fit --run runs/salun --resume --trainer.max_epochs 3"
    user.run(f"{resumed} --model.optimizer.lr 0.5", code=2, says=["lr"])
    user.run(resumed, says=["run folder: runs/salun"])
    user.run("mu list runs", says=["salun", "(?i)stale|other weights|changed since"])
    user.run("mu export runs/salun exported", says=["exported"])
    assert "UA" not in (tmp_path / "exported/README.md").read_text()
    user.run("mu test --run runs/salun -c suite/classification", says=METRICS)
    # 6. an exported model is measured as any other
    user.run("mu export runs/salun exported", code=2, says=["exported"])
    user.run("mu export runs/salun measured", says=["measured"])
    assert "UA" in (tmp_path / "measured/README.md").read_text()
    user.run(
        "mu test measured -c task/digits_random -c suite/classification --run runs/theirs",
        says=METRICS,
    )


def test_a_study_of_classifiers(tmp_path: Path) -> None:
    """Fails when a study of one's own is not checked, run, reused and extended as documented."""
    user = Terminal(tmp_path)
    user.run("mu init starter", says=["my_study.yaml"])
    user.run("mu list configs", says=["method/salun"])
    (tmp_path / "digits.yaml").write_text(
        "seeds: [0]\n"
        "recipe: {model: {scheduler: {class_path: mu.core.OneCycle}}, trainer: {max_epochs: 4}}\n"
        "tasks: {random: task/digits_random}\n"
        "methods:\n"
        "  SalUn: method/salun\n"
        "  SalUn 0.05: {preset: method/salun, model: {init_args: {optimizer: "
        "{init_args: {lr: 0.05}}}}}\n"
        "suites: [suite/accuracy]\n"
        "trainer: {accelerator: cpu}\n"
    )
    user.run("mu bench digits.yaml --check", says=["5"])
    assert not (tmp_path / "runs").exists()
    user.run("mu bench digits.yaml --set tasks.random.init_args.selector.fractoin=2", code=2)
    user.run("mu bench digits.yaml", says=["5 runs: 5 ran", r"SalUn 0\.05"])
    page = (tmp_path / "runs/digits/report.html").read_text()
    assert "SalUn 0.05" in page
    user.run("mu bench digits.yaml", says=["5 runs: 5 reused"])
    # a further suite measures what is there, and trains nothing
    user.run(
        "mu bench digits.yaml --set suites='[suite/classification]'",
        says=["measured"],
        never=[r"\d ran\b"],
    )
    user.run("mu bench digits.yaml --workers 2 --seeds 0,1", says=["ran", "reused"])
