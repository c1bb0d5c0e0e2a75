"""Data with prompts, and the task of prompts from CSV files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.utils.data import Dataset

from mu.data.concepts import find_mentions, folded, replace_concepts
from mu.data.datamodule import UnlearningDataModule
from mu.data.prompt_files import Prompt, read_prompts
from mu.data.split import Split
from mu.utils.errors import InputError
from mu.utils.rng import signed_seed
from tasks.tensor_data import TensorData

Anchors = Mapping[str, str]
"""Anchor of each concept to erase."""


class PromptData(Dataset):
    """Data set of tensors and texts; a batch has a list of strings for each text field.

    Args:
        fields: `[N, ...]` tensors by name, see TensorData (a uint8 `image` becomes float32 in [0,
            1]).
        texts: text fields by name (`prompt`, `substitute`, `concept`), N strings each.
        indices: `[N]` distinct int64, the stable indices of the samples.
    """

    weights = None

    def __init__(
        self, fields: Mapping[str, Tensor], texts: Mapping[str, Sequence[str]], indices: np.ndarray
    ) -> None:
        self._tensors = TensorData(fields, indices)
        self.indices = self._tensors.indices
        wrong = [name for name, values in texts.items() if len(values) != len(self.indices)]
        if wrong:
            raise InputError(
                f"the text field `{wrong[0]}` has {len(texts[wrong[0]])} entries for "
                f"{len(self.indices)} samples."
            )
        self.texts = {name: list(values) for name, values in texts.items()}

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> dict[str, Any]:
        """One sample, without a batch dimension; texts are strings."""
        sample: dict[str, Any] = dict(self._tensors[position])
        return sample | {name: values[position] for name, values in self.texts.items()}

    def __getitems__(self, positions: Sequence[int]) -> dict[str, Any]:
        """Batch of the samples at `positions`; texts are lists of strings."""
        batch: dict[str, Any] = dict(self._tensors.__getitems__(positions))
        return batch | {
            name: [values[int(position)] for position in positions]
            for name, values in self.texts.items()
        }

    def stored(self, name: str) -> Tensor:
        """Stored tensor field, in the order of the view."""
        return self._tensors.stored(name)


class PromptList(UnlearningDataModule):
    """Prompts from files, one to forget and one to retain, without images.

    The split has the parts `forget` and `retain`, and `test` where there is a file for it. Samples
    have `prompt`; `concept`, the words to erase as the prompt writes them; `substitute`, the prompt
    with the anchors in place of all concepts; `case`, the case number, as text; and, where the file
    has them, `seed` int64 (from 2^63 on in two's complement; the row's position for an empty entry)
    and `guidance_scale` float32 (NaN for an empty entry). A prompt that names several concepts
    gives a sample for each. Where it names none, the whole prompt is the concept: `concept` is
    empty, and `substitute` is the anchor alone; a warning counts these prompts.

    Args:
        path: file of the prompts to forget, see `mu.data.prompt_files`.
        retain: file of the prompts to retain (the retain sets of AdvUnlearn).
        test: file of prompts that show the concept, to measure and attack what is left of it; those
            to forget are often one prompt many times. None makes no such part.
        concept: the words to erase, or a list of several concepts; upper and lower case match. An
            empty text erases the whole prompts. None takes the concept of each row from the
            column `concept` of the file `path`, and its anchor from the column `anchor`, if there
            is one.
        anchor: replacement of the concept in `substitute`, or a list with one for each concept;
            empty removes the concept.
        limit: most prompts of each file; None reads all.
        texts: a second file with the texts of the prompts to forget, for tables published without
            them; joined on the case number.
        batch_size: global batch size in fit.
        eval_batch_size: batch size of one rank in test.
        **kwargs: see UnlearningDataModule.

    Raises:
        InputError: when a concept stands in no prompt to forget, or there are not as many anchors
            as concepts.

    Example: `PromptList("art.csv", "coco.csv", concept=["Van Gogh", "cat"], anchor=["art", ""])`.
    """

    provides = frozenset({"substitute"})

    def __init__(
        self,
        path: str,
        retain: str,
        concept: list[str] | str | None = None,
        anchor: list[str] | str = "",
        limit: int | None = None,
        texts: str | None = None,
        test: str | None = None,
        batch_size: int = 5,
        eval_batch_size: int = 50,
        **kwargs: Any,
    ) -> None:
        super().__init__(batch_size=batch_size, eval_batch_size=eval_batch_size, **kwargs)
        if limit is not None and limit < 1:
            raise InputError(f"limit is {limit}; give at least 1, or leave it out for all prompts.")
        self.path = path
        self.retain = retain
        self.concept = concept
        self.anchor = anchor
        self.limit = limit
        self.texts = texts
        self.test = test
        self._anchors = concept_anchors(concept, anchor)

    def make(self) -> None:
        """Read the files; the samples are numbered through all parts."""
        # prompts, and the concepts to erase in each
        forget = read_prompts(self.path, self.texts)[: self.limit]
        retain = read_prompts(self.retain)[: self.limit]
        row_anchors = self._row_anchors(forget)
        anchors = {name: words for row in reversed(row_anchors) for name, words in row.items()}
        _check_forget(self.path, forget, row_anchors)
        _check_retain(self.retain, retain, anchors)
        # samples, split and data
        parts = {
            "forget": _samples(forget, row_anchors),
            "retain": _samples(retain, [anchors] * len(retain), most=1),
        }
        if self.test is not None:
            test = read_prompts(self.test)[: self.limit]
            parts["test"] = _samples(test, [anchors] * len(test))
        indices = {}
        start = 0
        for name, samples in parts.items():
            indices[name] = start + np.arange(len(samples))
            start += len(samples)
        concepts = list(dict.fromkeys(name for row in row_anchors for name in row if name)) or [""]
        selector = {
            "concept": concepts[0] if len(concepts) == 1 else concepts,
            "prompts": len(forget),
        }
        names = "+".join(Path(path).stem for path in (self.path, self.retain))
        self.split = Split(f"prompts-{names}", indices, selector, 0)
        self.datasets = {name: _data(parts[name], indices[name]) for name in parts}

    def _row_anchors(self, prompts: Sequence[Prompt]) -> list[Anchors]:
        """Concepts to erase in each prompt, with their anchors."""
        if self._anchors is not None:
            return [self._anchors] * len(prompts)
        if "concept" not in prompts[0].fields:
            raise InputError(
                f"PromptList needs the words to erase; give concept, or a column `concept` in "
                f"{self.path}."
            )
        rows = [
            (row.fields["concept"].strip(), row.fields.get("anchor", str(self.anchor)).strip())
            for row in prompts
        ]
        return [concept_anchors(concept, anchor) or {} for concept, anchor in rows]


@dataclass(frozen=True)
class _Sample:
    """A prompt with one of its concepts, and its substitute."""

    prompt: Prompt
    concept: str
    substitute: str


def concept_anchors(concept: list[str] | str | None, anchor: list[str] | str) -> Anchors | None:
    """Anchors by concept of a configuration; None where the file names the concepts.

    Args:
        concept: one concept, or a list of several.
        anchor: one for all, or a list with one for each.

    Raises:
        InputError: a list is empty, has an empty concept or one twice, or there are not as many
            anchors as concepts; or an anchor is its concept.
    """
    if concept is None:
        if not isinstance(anchor, str):
            raise InputError(
                "a list of anchors needs a list of concepts; give concept, or a column `anchor` in "
                "the file of prompts."
            )
        return None
    concepts = [concept] if isinstance(concept, str) else list(concept)
    if not isinstance(concept, str) and (not concepts or not all(map(str.strip, concepts))):
        raise InputError(
            f"the concepts are {concepts}; give at least one, and no empty one in a list."
        )
    anchors = [anchor] * len(concepts) if isinstance(anchor, str) else list(anchor)
    if len(anchors) != len(concepts):
        raise InputError(
            f"there are {len(anchors)} anchors for {len(concepts)} concepts; give one for each, or "
            "one text for all."
        )
    twice = next((name for name in concepts if concepts.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"the concept {twice!r} is given twice; leave one out.")
    unchanged = [name for name, words in zip(concepts, anchors, strict=True) if _equal(name, words)]
    if unchanged:
        raise InputError(
            f"the anchor of the concept {unchanged[0]!r} is the concept itself, so that nothing "
            "would be erased; choose another anchor."
        )
    return dict(zip(concepts, anchors, strict=True))


def _equal(concept: str, anchor: str) -> bool:
    """Whether an anchor is the concept itself."""
    return bool(concept.strip()) and folded(concept) == folded(anchor)


def _check_forget(path: str, prompts: Sequence[Prompt], row_anchors: Sequence[Anchors]) -> None:
    """Check that every concept stands in a prompt, and count the prompts without one."""
    named: dict[str, int] = {}
    unnamed = []
    for prompt, anchors in zip(prompts, row_anchors, strict=True):
        mentioned = {mention.name for mention in find_mentions(prompt.text, tuple(anchors))}
        for name in anchors:
            named[name] = named.get(name, 0) + (name in mentioned)
        if any(anchors) and not mentioned:
            unnamed.append((prompt, anchors))
    missing = [name for name, count in named.items() if name and not count]
    if missing:
        raise InputError(
            f"the concept {missing[0]!r} stands in 0 of {len(prompts)} prompts of {path}; write it "
            "as the prompts do (several concepts are a list, [circle, star]), or give an empty "
            "concept to erase the whole prompts."
        )
    unclear = next((row for row, anchors in unnamed if len(set(anchors.values())) > 1), None)
    if unclear is not None:
        raise InputError(
            f"{len(unnamed)} of {len(prompts)} prompts of {path} name no concept ({unclear.text!r} "
            "is the first), so that their anchor is unknown; remove them, or give columns "
            "`concept` and `anchor` in the file."
        )
    if unnamed:
        rank_zero_warn(
            f"{len(unnamed)} of {len(prompts)} prompts of {path} do not name the concept "
            f"({unnamed[0][0].text!r} is the first); their whole text is erased."
        )


def _check_retain(path: str, prompts: Sequence[Prompt], anchors: Anchors) -> None:
    """Count the retain prompts that name a concept to erase."""
    naming = [prompt for prompt in prompts if find_mentions(prompt.text, tuple(anchors))]
    if naming:
        rank_zero_warn(
            f"{len(naming)} of {len(prompts)} prompts of {path} name what is to be erased "
            f"({naming[0].text!r} is the first), and are retained; remove them if that is not "
            "intended."
        )


def _samples(
    prompts: Sequence[Prompt], row_anchors: Sequence[Anchors], most: int | None = None
) -> list[_Sample]:
    """Samples of prompts: one for each concept that a prompt names, or one without a concept.

    Args:
        prompts: the prompts.
        row_anchors: concepts and anchors of each.
        most: largest number of samples of a prompt; None for no limit.
    """
    samples = []
    for prompt, anchors in zip(prompts, row_anchors, strict=True):
        mentions = find_mentions(prompt.text, tuple(anchors))
        words = list({mention.name: mention.words for mention in reversed(mentions)}.values())
        if not words:
            samples.append(_Sample(prompt, "", next(iter(anchors.values()))))
        substitute = replace_concepts(prompt.text, anchors)
        samples += [_Sample(prompt, concept, substitute) for concept in words[::-1][:most]]
    return samples


def _data(samples: Sequence[_Sample], indices: np.ndarray) -> PromptData:
    """Data set of samples."""
    fields = {}
    seeds = [sample.prompt.seed for sample in samples]
    if any(seed is not None for seed in seeds):
        fields["seed"] = torch.tensor(
            [signed_seed(row if seed is None else seed) for row, seed in enumerate(seeds)]
        )
    guidances = [sample.prompt.guidance_scale for sample in samples]
    if any(guidance_scale is not None for guidance_scale in guidances):
        fields["guidance_scale"] = torch.tensor(
            [
                float("nan") if guidance_scale is None else guidance_scale
                for guidance_scale in guidances
            ]
        )
    texts = {
        "prompt": [sample.prompt.text for sample in samples],
        "concept": [sample.concept for sample in samples],
        "substitute": [sample.substitute for sample in samples],
        "case": [sample.prompt.case for sample in samples],
    }
    return PromptData(fields, texts, indices)
