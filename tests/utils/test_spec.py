"""Specifications: plain data that a checkpoint can hold, and from which an equal object is built
again.
"""

from __future__ import annotations

import io
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import tasks
from mu.backbones import Classifier, Ensemble, Regressor
from mu.core.lr import OneCycle, Steps
from mu.data.plan import Forget, Paired, Phases, Retain, Union
from mu.methods import FineTune, RandomLabel, SalUn
from mu.methods.components.masks import ByName, Saliency
from mu.methods.components.substitutes import UniformLabel
from mu.utils.errors import InputError
from mu.utils.fingerprint import digest
from mu.utils.spec import (
    LIVE,
    Reconstructible,
    class_path,
    from_spec,
    init_args_of,
    is_live,
    to_spec,
)
from tests.support.helpers import classifier


class Several(Reconstructible):
    """Takes a leading argument, any number more, and names."""

    def __init__(self, first: int, *others: Any, last: str = "z", **extra: Any) -> None:
        self.all = (first, others, last, extra)


def plain(value: Any) -> bool:
    """Whether a value loads with `weights_only=True` and comes back the same."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True) == value


@pytest.mark.parametrize(
    "value",
    [
        Forget(),
        Retain(batch_size=3, limit=9),
        Paired(length="max"),
        Union(retain_fraction=0.3),
        Phases(Forget(epochs=2), Retain()),
        Phases(Phases(Forget()), Union()),
        OneCycle(warmup=0.1),
        Steps(at=(0.5, 0.75)),
    ],
    ids=repr,
)
def test_values_come_back_equal(value: Any) -> None:
    """Fails when a schedule given by the user cannot be built again: its checkpoints could never be
    loaded.
    """
    assert plain(to_spec(value))
    again = from_spec(to_spec(value))
    assert again == value
    assert hash(again) == hash(value)


@pytest.mark.parametrize(
    "value",
    [
        UniformLabel(exclude_true=True),
        Saliency(keep=0.3, enforce="gradient"),
        ByName(["layer3"]),
        Several(1, 2, 3, last="y", other=[4]),
        Several(1),
        Regressor(in_features=3, hidden=[4]),
        tasks.HorizontalFlip(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_objects_come_back_with_their_arguments(value: Any) -> None:
    """Fails when an argument is lost on the way: by its position, its name, or among `*args` and
    `**kwargs`.
    """
    assert plain(to_spec(value))
    again = from_spec(to_spec(value), allow=[type(value)])
    assert type(again) is type(value)
    assert to_spec(again) == to_spec(value)
    if isinstance(value, Several):
        assert again.all == value.all


def test_numbers_of_numpy_become_plain() -> None:
    """Fails when a numpy scalar in an argument makes the checkpoint unreadable with
    `weights_only=True`.
    """
    given = {
        "a": np.float64(0.5),
        "b": np.int64(3),
        "c": np.bool_(True),
        "d": [np.float32(0.25)],
        "e": Path("x/y"),
    }
    assert plain(to_spec(given))
    assert to_spec(given) == {"a": 0.5, "b": 3, "c": True, "d": [0.25], "e": "x/y"}


def test_an_optimizer_factory_is_known_by_what_it_makes() -> None:
    """Fails when two factories with other settings have one specification, or the rebuilt one has
    other settings.
    """
    spec = to_spec(
        lambda params: torch.optim.SGD(
            params, lr=0.3, momentum=0.9, nesterov=True, weight_decay=5e-4
        )
    )
    assert plain(spec)
    made = from_spec(spec)([nn.Parameter(torch.zeros(2))])
    assert isinstance(made, torch.optim.SGD)
    assert {
        name: made.defaults[name] for name in ("lr", "momentum", "nesterov", "weight_decay")
    } == {"lr": 0.3, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}
    assert spec != to_spec(
        partial(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    )
    adam = from_spec(to_spec(lambda params: torch.optim.AdamW(params, lr=1e-5, betas=(0.8, 0.9))))(
        [nn.Parameter(torch.zeros(2))]
    )
    assert tuple(adam.defaults["betas"]) == (0.8, 0.9)


@pytest.mark.parametrize(
    "factory",
    [
        lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 3),
        lambda optimizer: optimizer.param_groups[0],
        lambda: None,
        lambda *_: 1 / 0,
    ],
    ids=["scheduler", "attribute", "nothing", "raises"],
)
def test_what_makes_no_optimizer_is_live(factory: Any) -> None:
    """Fails when asking a function what it makes stops the run that writes its checkpoint."""
    spec = to_spec(factory)
    assert is_live(spec)
    assert plain(spec)
    with pytest.raises(InputError, match="live object"):
        from_spec({"class_path": class_path(Several), "init_args": {"first": spec}})


def test_schedulers_with_other_settings_are_told_apart() -> None:
    """Fails when runs with other learning-rate schedules pass for the same recipe."""

    def recipe(step: int) -> str:
        from mu.core.run_state import recipe_hash

        module = FineTune(
            classifier(),
            scheduler=lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, step),
        )
        return recipe_hash(module)

    assert recipe(3) == recipe(3) != recipe(4)


def test_methods_are_specified_with_all_they_contain() -> None:
    """Fails when a nested object (mask, substitute, schedule, backbone) comes back with its
    defaults.
    """
    module = SalUn(
        classifier(),
        mask=Saliency(keep=0.2),
        substitute=UniformLabel(redraw=False),
        plan=Union(),
        seed=7,
    )
    again = from_spec(to_spec(module))
    assert again.seed == 7
    assert again.mask.keep == 0.2
    assert again.substitute.redraw is False
    assert again.plan == Union()
    assert to_spec(again) == to_spec(module)


def test_a_live_network_is_refused_by_name() -> None:
    """Fails when a specification with a live network builds something else in its place."""
    for backbone in (
        Classifier(network=nn.Linear(2, 2)),
        Ensemble([Classifier(network=nn.Linear(2, 2))]),
    ):
        with pytest.raises(InputError, match="network"):
            from_spec(to_spec(backbone))
    assert to_spec([nn.Linear(2, 2)]) == [LIVE]
    with pytest.raises(InputError, match="live object"):
        from_spec({"class_path": class_path(Several), "init_args": {"first": [LIVE]}})


@pytest.mark.parametrize(
    "path", ["subprocess.Popen", "os.system", "pathlib.Path", "torch.nn.Linear", "builtins.eval"]
)
def test_a_file_cannot_name_what_is_instantiated(path: str) -> None:
    """Fails when a checkpoint from a stranger runs a class of his choice."""
    with pytest.raises(InputError, match="may instantiate"):
        from_spec({"class_path": path, "init_args": {}})


def test_an_unknown_class_is_one_sentence() -> None:
    """Fails when a class that has moved ends in an ImportError."""
    for path in ("mu.methods.NoSuch", "no_such_module.Thing", "nodots"):
        with pytest.raises(InputError, match="there is no class"):
            from_spec({"class_path": path, "init_args": {}})


def test_a_class_is_named_by_the_package_that_exports_it() -> None:
    """Fails when checkpoints name the file a class stands in, so that moving it breaks them."""
    assert class_path(FineTune) == "mu.methods.FineTune"
    assert class_path(Classifier) == "mu.backbones.Classifier"
    assert class_path(torch.optim.SGD) == "torch.optim.SGD"


def test_a_deep_copy_shares_the_record_but_no_weight() -> None:
    """Fails when a copy lacks its arguments, or changes with the original."""
    one = Regressor(in_features=2, hidden=[3], init_seed=1)
    two = deepcopy(one)
    assert (
        init_args_of(two) == init_args_of(one) == {"in_features": 2, "hidden": [3], "init_seed": 1}
    )
    with torch.no_grad():
        next(one.parameters()).add_(1)
    assert not torch.equal(next(one.parameters()), next(two.parameters()))
    tied = Regressor(network=nn.Sequential(*[nn.Linear(2, 2)] * 2, nn.Linear(2, 1)))
    assert len(list(deepcopy(tied).parameters())) == len(list(tied.parameters()))


def test_a_pickle_keeps_the_record() -> None:
    """Fails when loader workers that are spawned, and ranks, see an object without its
    arguments.
    """
    import pickle

    again = pickle.loads(pickle.dumps(Several(1, 2, last="y")))
    assert to_spec(again) == to_spec(Several(1, 2, last="y"))


def test_digests_tell_settings_apart() -> None:
    """Fails when a changed number does not change the digest, or the order of keys does."""
    one = digest({"a": 1, "b": [1.0, 2.0]})
    assert one == digest({"b": [1.0, 2.0], "a": 1}) != digest({"a": 1, "b": [1.0, 2.5]})
    assert digest(to_spec(RandomLabel(classifier()))) == digest(to_spec(RandomLabel(classifier())))
