"""AltPO: alternate answers from a file, each in its turn."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from mu.data.batch import Batch
from mu.methods.components.answers import AnswersFromFile
from mu.methods.language.alt_po import AltPO
from mu.utils.files import write_text
from tests.support.doubles_text import people
from tests.support.helpers import fit
from tests.support.preference_methods import build


def test_alternate_answers_cycle_over_epochs(tmp_path: Path) -> None:
    """Five a question there; two here: ten epochs of one are the code's two epochs of five."""
    import json

    task = people()
    task.setup()
    asked = task.datasets["forget"].texts["question"]  # type: ignore[attr-defined]
    lines = [
        json.dumps({"question": question, "alternate": f"{name} lives in lima"})
        for question in asked
        for name in ("ada", "gus")
    ]
    write_text(tmp_path / "alternates.jsonl", "\n".join(lines))
    seen: list[tuple[int, int]] = []
    module = build(AltPO, substitute=AnswersFromFile(str(tmp_path / "alternates.jsonl")))
    objective = module.objective

    def look(forget: Batch | None, retain: Batch | None) -> dict[str, Tensor]:
        assert forget is not None
        seen.extend(
            zip(forget["index"].tolist(), forget["substitute"]["key"].tolist(), strict=True)
        )
        return objective(forget, retain)

    module.objective = look  # type: ignore[method-assign]
    fit(module, task, 2)
    assert len(seen) == 26 and {index for index, _ in seen} == set(range(13))
    assert all(len({key for index, key in seen if index == row}) == 2 for row in range(13))
