"""Examples of generated answers, for the report."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer

from callbacks.base import module_of
from callbacks.results_writer import recorded_folder
from mu.evaluation.media import add_examples
from mu.evaluation.text.graph import Graph
from mu.evaluation.text.leaves import GeneratedText
from mu.evaluation.text.session import CACHE, shared_graph
from mu.utils.errors import InputError
from mu.utils.spec import Reconstructible


class TextExamples(Callback, Reconstructible):
    """Examples of generated answers in `media/examples_SET.json`, written after a test.

    The questions are spread evenly over a set; answers of the model and true answers are written.
    The report has those of original, oracle and methods side by side. Where another suite has
    generated the whole set with the same settings, its answers are used.

    Args:
        sets: names of question sets.
        count: largest number of examples of each set.
        max_new_tokens: most tokens of an answer.
        stop_strings: strings at which an answer ends.
        tokens_per_batch: as in the other suites, to share their graph.
        prompts_per_batch: as in the other suites.
        store: as in the other suites.
    """

    def __init__(
        self,
        sets: list[str] | None = None,
        count: int = 5,
        max_new_tokens: int = 200,
        stop_strings: list[str] | None = None,
        tokens_per_batch: int | None = None,
        prompts_per_batch: int = 32,
        store: str | None = None,
    ) -> None:
        if count < 1:
            raise InputError(f"count is {count}; a set shows at least one example.")
        self.sets = tuple(["forget", "retain"] if sets is None else sets)
        self.count = count
        self.max_new_tokens = max_new_tokens
        self.stop_strings = tuple(stop_strings or ())
        self.tokens_per_batch = tokens_per_batch
        self.prompts_per_batch = prompts_per_batch
        self.store = store

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Generate the answers and write the examples."""
        from pathlib import Path

        module = module_of(pl_module)
        folder = recorded_folder(module)
        if folder is None:
            return
        with module.stopwatch("evaluation"):
            graph = shared_graph(
                module,
                Path(self.store) if self.store else folder / CACHE,
                tokens_per_batch=self.tokens_per_batch,
                prompts_per_batch=self.prompts_per_batch,
            )
            for name in self.sets:
                rows = self.rows(graph, name)
                if module.global_rank == 0:
                    add_examples(
                        folder,
                        f"examples_{name}",
                        rows,
                        title=f"{len(rows)} questions of {name}, answered greedily",
                        group=name,
                    )

    def rows(self, graph: Graph, name: str) -> list[dict[str, str]]:
        """Rows of prompt, answer and truth."""
        questions = graph.questions(name)
        count = min(self.count, len(questions))
        # by the golden ratio, because even steps would take the same type of question of every
        # subject
        positions = (
            list(range(count))
            if count == len(questions)
            else sorted(
                {
                    int((index + 0.5) * 0.6180339887498949 % 1 * len(questions))
                    for index in range(count)
                }
            )
        )
        generated = GeneratedText(
            name, max_new_tokens=self.max_new_tokens, stop_strings=self.stop_strings
        )
        if graph.is_computed(generated):
            answers = [graph.value(generated).texts[position] for position in positions]
        else:
            some = GeneratedText(
                name,
                max_new_tokens=self.max_new_tokens,
                stop_strings=self.stop_strings,
                rows=tuple(positions),
            )
            answers = list(graph.value(some).texts)
        asked = questions.column("question")
        truth = questions.column("answer")
        return [
            {"prompt": str(asked[position]), "answer": text, "truth": str(truth[position])}
            for position, text in zip(positions, answers, strict=True)
        ]
