"""Three strategies for per-sample gradients agree with autograd on one sample at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mu.backbones import Classifier, Regressor
from mu.core.gradients.per_sample import PerSample
from mu.data.batch import Batch
from mu.utils.errors import InputError
from tests.support.helpers import classifier, regressor

WAYS = ("hooks", "vmap", "loop", "auto")


class Zoo(nn.Module):
    """Every kind of layer that hooks know, with strides, dilation, groups, an in-place
    nonlinearity, and layers that are used twice.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.grouped = nn.Conv2d(16, 16, 3, padding=2, dilation=2, groups=4)
        self.groups = nn.GroupNorm(4, 16)
        self.twice = nn.Conv2d(16, 16, (3, 1), padding=(1, 0), bias=False)
        self.layer = nn.LayerNorm(16)
        self.tokens = nn.Linear(16, 16)
        self.line = nn.Conv1d(16, 5, 2)
        self.flat = nn.BatchNorm1d(5)
        self.last = nn.Linear(5, 4)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.norm(self.first(x)))
        x = self.act(self.groups(self.grouped(x)))
        x = self.twice(self.twice(x))
        x = self.layer(x.flatten(2).transpose(1, 2))
        x = self.tokens(self.act(self.tokens(x)))
        x = self.flat(self.line(x.transpose(1, 2)).mean(2))
        return self.last(x)


class Volume(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cube = nn.Conv3d(1, 3, 2, stride=(1, 2, 1))
        self.norm = nn.BatchNorm3d(3)
        self.last = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.norm(self.cube(x[:, None])).tanh().mean((2, 3, 4)))


class Outside(nn.Module):
    """Uses a layer's weight outside of its forward, which no hook sees."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(12, 12)
        self.last = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x.flatten(1)).tanh()
        return self.last(F.linear(x, self.first.weight))


def ready(network: nn.Module) -> Classifier:
    """In float64 and eval mode, with statistics that are not 0 and 1."""
    generator = torch.Generator().manual_seed(3)
    backbone = Classifier(network=network, num_classes=4).double().eval()
    for layer in backbone.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            for buffer, values in (
                (layer.running_mean, torch.randn),
                (layer.running_var, torch.rand),
            ):
                if buffer is not None:
                    buffer.copy_(values(buffer.shape, generator=generator) + 0.5)
    return backbone


def images(size: int = 5, *shape: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    return {
        "image": torch.rand(size, *(shape or (3, 9, 9)), dtype=torch.float64, generator=generator),
        "index": torch.arange(size),
        "label": torch.randint(0, 4, (size,), generator=generator),
        "count": torch.tensor(float(size)),
        "joint": True,
    }


def one_at_a_time(
    backbone: Any, batch: Batch, values: Callable[[Batch], Tensor]
) -> list[list[list[Tensor]]]:
    """Gradient by sample, by value, by weight."""
    size = len(batch["index"])
    gradients = []
    for row in range(size):
        single = {
            k: v[row : row + 1] if isinstance(v, Tensor) and v.ndim else v for k, v in batch.items()
        }
        flat = values(single).flatten()
        gradients.append(
            [
                list(torch.autograd.grad(value, list(backbone.parameters()), retain_graph=True))
                for value in flat
            ]
        )
    return gradients


def close(found: list[Tensor], truth: list[Tensor], tolerance: float = 1e-10) -> None:
    assert len(found) == len(truth)
    for a, b in zip(found, truth, strict=True):
        assert a.shape == b.shape
        assert (a - b).abs().max() <= tolerance * (1 + b.abs().max())


CASES: dict[str, tuple[Callable[[], Any], Callable[[], dict[str, Any]]]] = {
    "resnet": (
        lambda: classifier(in_channels=3, mean="none", std=None, num_classes=4).double().eval(),
        images,
    ),
    "wide resnet": (
        lambda: (
            classifier(in_channels=3, mean="none", std=None, num_classes=4, options={"width": 16})
            .double()
            .eval()
        ),
        images,
    ),
    "every layer": (lambda: ready(Zoo()), images),
    "volume": (lambda: ready(Volume()), lambda: images(5, 3, 5, 4)),
    "perceptron": (
        lambda: regressor().double().eval(),
        lambda: {
            "input": torch.randn(
                6, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(2)
            ),
            "index": torch.arange(6),
            "target": torch.linspace(-1, 400, 6, dtype=torch.float64),
        },
    ),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", CASES)
def test_gradients_are_those_of_single_samples(case: str, way: Any) -> None:
    """Mutations that must fail: the mean of batch norm left out; a layer's second use overwrites
    its first; the tensor instead of the edge, so that an in-place ReLU is differentiated twice.
    """
    backbone = CASES[case][0]()
    batch = CASES[case][1]()
    values = lambda part: backbone.loss(part)[0]  # noqa: E731
    per_sample = PerSample(backbone, list(backbone.named_parameters()), values, way)
    truth = [
        torch.stack([sample[0][position] for sample in one_at_a_time(backbone, batch, values)])
        for position in range(len(list(backbone.parameters())))
    ]
    close(per_sample.gradients(batch), truth)
    close(per_sample.squares(batch), [rows.square().sum(0) for rows in truth])
    assert all(weight.grad is None for weight in backbone.parameters())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", ["resnet", "every layer"])
def test_squares_of_several_values_of_a_sample(case: str, way: Any) -> None:
    """Mutation that must fail: the values added up before they are squared."""
    backbone = CASES[case][0]()
    batch = CASES[case][1]()
    per_sample = PerSample(backbone, list(backbone.named_parameters()), backbone.predict, way)
    table = one_at_a_time(backbone, batch, backbone.predict)
    truth = [
        sum(value[position].square() for sample in table for value in sample)
        for position in range(len(table[0][0]))
    ]
    close(per_sample.squares(batch), truth)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="one value"):
        per_sample.gradients(batch)


@pytest.mark.parametrize("numbers", [1, 1000, 1 << 30])
def test_any_size_of_the_cache_gives_the_same(
    numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Samples are squared one by one, a few at a time, or all together."""
    import mu.core.gradients.layers

    backbone = ready(Zoo())
    batch = images(7)
    parameters = list(backbone.named_parameters())

    def values(part: Any) -> Tensor:
        return backbone.loss(part)[0]

    truth = PerSample(backbone, parameters, values, "loop").squares(batch)
    monkeypatch.setattr(mu.core.gradients.layers, "_CACHE", numbers)
    close(PerSample(backbone, parameters, values, "hooks").squares(batch), truth)


@pytest.mark.parametrize("way", WAYS)
def test_chosen_weights_and_masked_rows(way: Any) -> None:
    backbone = ready(Zoo())
    batch = images()
    batch["padded"] = torch.tensor([False, True, False, False, True])
    backbone.network.first.requires_grad_(False)
    some = [
        (name, weight)
        for name, weight in backbone.named_parameters()
        if weight.requires_grad and "layer" not in name
    ]
    per_sample = PerSample(backbone, some, lambda part: backbone.loss(part)[0], way)
    rows = per_sample.gradients(batch)
    assert [row.shape[1:] for row in rows] == [weight.shape for _, weight in some]
    assert all(not bool(row[1].any()) and not bool(row[4].any()) for row in rows)
    real = {k: v[[0, 2, 3]] if isinstance(v, Tensor) and v.ndim else v for k, v in batch.items()}
    close([row[[0, 2, 3]] for row in rows], per_sample.gradients(real))


@pytest.mark.parametrize("way", ["hooks", "vmap"])
def test_a_weight_that_the_value_does_not_use_has_a_zero_gradient(way: Any) -> None:
    backbone = ready(Zoo())
    batch = images()
    parameters = list(backbone.named_parameters())
    rows = PerSample(
        backbone, parameters, lambda part: backbone.network.first(part["image"]).sum((1, 2, 3)), way
    ).gradients(batch)
    moved = [name for (name, _), row in zip(parameters, rows, strict=True) if bool(row.any())]
    assert moved == ["network.first.weight", "network.first.bias"]


def test_hooks_that_miss_a_use_of_a_weight_are_not_believed() -> None:
    """Mutation that must fail: the check against the loop taken out."""
    backbone = ready(Outside())
    batch = images(5, 3, 2, 2)
    parameters = list(backbone.named_parameters())

    def values(part: Any) -> Tensor:
        return backbone.loss(part)[0]

    with pytest.raises(InputError, match="outside of its layer's forward"):
        PerSample(backbone, parameters, values, "hooks").squares(batch)
    auto = PerSample(backbone, parameters, values)
    close(auto.squares(batch), PerSample(backbone, parameters, values, "loop").squares(batch))
    assert auto.chosen("squares") in ("vmap", "loop")


class Gain(nn.Linear):
    """A layer with weights that has a layer with weights inside."""

    def __init__(self) -> None:
        super().__init__(768, 4)
        self.inner = nn.Linear(4, 4)

    def forward(self, input: Tensor) -> Tensor:
        return self.inner(super().forward(input))


@pytest.mark.parametrize(
    ("network", "sentence"),
    [
        (lambda: nn.Sequential(nn.Flatten(), Gain()), "Gain has weights of its own beside"),
        (lambda: nn.BatchNorm2d(3, track_running_stats=False), "has no running statistics"),
        (lambda: nn.Sequential(nn.Flatten(2), nn.LSTM(256, 4)), "LSTM is recurrent"),
    ],
)
def test_layers_that_hooks_cannot_follow_are_refused(network: Any, sentence: str) -> None:
    backbone = ready(network())
    with pytest.raises(InputError, match=sentence):
        PerSample(backbone, list(backbone.named_parameters()), backbone.predict, "hooks").squares(
            images()
        )


def test_an_unknown_strategy_is_refused() -> None:
    with pytest.raises(InputError, match="guess"):
        PerSample(Zoo(), [], lambda part: part["image"], "guess")  # type: ignore[arg-type]


def test_train_mode_is_refused() -> None:
    """One sample's gradient would depend on the others."""
    backbone = classifier(num_classes=4, in_channels=3, mean="none", std=None).double().train()
    with pytest.raises(InputError, match="eval mode"):
        PerSample(
            backbone, list(backbone.named_parameters()), lambda part: backbone.loss(part)[0]
        ).squares(images())


def test_the_choice_is_made_once_in_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two equal runs must take the same way, whatever the clock says in between."""
    import mu.core.gradients.per_sample as module

    monkeypatch.setattr(module, "_CHOSEN", {})
    backbone = CASES["resnet"][0]()
    batch = images()

    def make() -> PerSample:
        parameters = list(backbone.named_parameters())
        return PerSample(backbone, parameters, lambda part: backbone.loss(part)[0])

    first = make()
    first.squares(batch)
    monkeypatch.setattr(module, "_seconds", lambda action: pytest.fail("timed again"))
    second = make()
    second.squares(batch)
    assert first.chosen("squares") == second.chosen("squares")


def test_hooks_are_kept_unless_something_is_clearly_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    import mu.core.gradients.per_sample as module

    backbone = CASES["resnet"][0]()
    batch = images()
    for vmap, expected in ((0.9, "hooks"), (0.7, "vmap")):
        monkeypatch.setattr(module, "_CHOSEN", {})
        times = iter([1.0, vmap])  # hooks are timed first
        monkeypatch.setattr(module, "_seconds", lambda action, times=times: next(times))
        monkeypatch.setattr(module, "_now", iter([0.0, 5.0]).__next__)
        per_sample = PerSample(
            backbone, list(backbone.named_parameters()), lambda part: backbone.loss(part)[0]
        )
        per_sample.squares(batch)
        assert per_sample.chosen("squares") == expected


def test_per_sample_gradients_of_a_regressor_under_no_grad() -> None:
    """Edits are computed under no_grad."""
    backbone: Regressor = regressor().eval()
    batch = {"input": torch.randn(4, 10), "target": torch.randn(4), "index": torch.arange(4)}
    for way in ("hooks", "vmap", "loop"):
        per_sample = PerSample(
            backbone, list(backbone.named_parameters()), lambda part: backbone.loss(part)[0], way
        )  # type: ignore[arg-type]
        with torch.no_grad():
            assert all(bool(row.any()) for row in per_sample.gradients(batch))
