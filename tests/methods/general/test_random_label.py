"""Random labels: its two terms, one forward pass for a union, and its presets."""

from __future__ import annotations

from typing import Any

import pytest

from mu.data.plan import Union
from mu.methods.components.substitutes import UniformLabel
from mu.methods.general.random_label import RandomLabel
from tests.support.equations import PLAIN, cross_entropy, moved_as
from tests.support.helpers import classifier
from tests.support.method_runs import check_preset_builds, parts_by_epoch


def labelled_loss(network: Any, part: dict[str, Any], substitute: Any) -> Any:
    """Mean cross-entropy to the substitutes that the module draws for a raw batch."""
    return cross_entropy(network, {"image": part["image"], "label": substitute.draw(part, 0)})


@pytest.mark.parametrize("exclude_true", [False, True])
def test_the_first_step_fits_the_forget_part_to_drawn_labels(exclude_true: bool) -> None:
    """Mutation: the true labels are fitted."""
    law = UniformLabel(exclude_true=exclude_true)
    law.setup(classifier(), None)
    moved_as(
        RandomLabel(
            classifier(),
            substitute=UniformLabel(exclude_true=exclude_true),
            optimizer=PLAIN,
            norm="eval",
        ),
        lambda net, batch: labelled_loss(net, batch["forget"], law),
    )


def test_a_union_is_fitted_by_the_sum_over_both_parts() -> None:
    """Mutations: each part averaged by itself; the retain part fitted to drawn labels."""
    law = UniformLabel()
    law.setup(classifier(), None)

    def equation(network: Any, batch: dict[str, Any]) -> Any:
        sizes = [len(batch[part]["label"]) for part in ("forget", "retain")]
        losses = sizes[0] * labelled_loss(network, batch["forget"], law) + sizes[1] * cross_entropy(
            network, batch["retain"]
        )
        return losses / sum(sizes)

    moved_as(RandomLabel(classifier(), plan=Union(), optimizer=PLAIN, norm="eval"), equation)


def test_an_epoch_is_the_forget_part_and_then_the_retain_part() -> None:
    assert parts_by_epoch(RandomLabel(classifier()), 2) == ["fffrrrr", "fffrrrr"]


@pytest.mark.parametrize("name", ["random_label", "random_label_reference_code"])
def test_preset_builds(name: str) -> None:
    check_preset_builds(name)
