"""`mu list runs`: progress of run folders, and the results of the weights that they hold."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.cli.conftest import CONFIGS, FIT, Mu

SUITE = ("-c", str(CONFIGS / "suite" / "accuracy.yaml"))


def test_runs_with_their_state_and_the_results_of_their_weights(mu: Mu) -> None:
    assert mu(*FIT, "--run", "runs/a", "--trainer.max_epochs", "1").code == 0
    for name in ("b", "c", "d"):
        shutil.copytree("runs/a", f"runs/{name}")
    assert mu("test", "--run", "runs/a", *SUITE).code == 0
    assert mu("test", "--run", "runs/b", *SUITE).code == 0
    assert mu("fit", "--run", "runs/b", "--resume", "--trainer.max_epochs", "2").code == 0
    Path("runs/c/fit.json").unlink()
    Path("runs/d/config.yaml").write_text("model: {}\n")
    answer = mu("list", "runs")
    assert answer.code == 0, answer.err
    rows = {line.split()[0]: line for line in answer.out.splitlines()}
    assert "FineTune" in rows["a"] and "epoch 1, step 2" in rows["a"] and "UA " in rows["a"]
    assert "epoch 2, step 4" in rows["b"] and "UA " not in rows["b"]
    assert "cut off" in rows["c"] and "unusable" in rows["d"]
    assert "b: its results are left out, because its weights have changed" in answer.err
    assert "d: runs/d/config.yaml was changed after it was written" in answer.err
    # 2. measured again: the earlier numbers are named as stale
    assert mu("test", "--run", "runs/b", *SUITE).code == 0
    answer = mu("list", "runs", "runs/b")
    assert "UA " in answer.out
    assert "UA, RA, TA" in answer.err and "of other weights (epoch 1, step 2)" in answer.err
    assert "there is no folder nowhere" in mu("list", "runs", "nowhere").sentence
    Path("empty").mkdir()
    assert "empty holds no run" in mu("list", "runs", "empty").sentence
