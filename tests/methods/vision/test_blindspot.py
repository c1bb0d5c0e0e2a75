"""Blindspot unlearning: attention to a proxy's activations, its two phases, and whole runs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mu.backbones import Regressor
from mu.data.plan import plan_steps
from mu.methods import Blindspot
from mu.methods.bases.activations import hidden_layers, layer_outputs
from mu.utils.errors import InputError
from tests.support.equations import PLAIN, total
from tests.support.helpers import Watch, diabetes, different, fit, regressor, weights
from tests.support.method_runs import adam, check_preset_runs, check_range_is_forgotten


def blindspot(state: Any = None, **changes: Any) -> Blindspot:
    return Blindspot(
        regressor(state), **{"proxy_epochs": 1, "proxy_lr": 1e-4, "optimizer": PLAIN, **changes}
    )


def attention(activation: Tensor) -> list[float]:
    """Squared activations of one sample, divided by their L2 norm."""
    squares = [a.item() ** 2 for a in activation]
    norm = sum(s**2 for s in squares) ** 0.5
    return [s / norm for s in squares]


def test_blindspot_follows_proxy_and_targets(originals: Any) -> None:
    """Tarun et al., ICML 2023, number by number. Mutations that must fail: attention on retain; the
    target on forget; r left out.
    """
    module = blindspot(originals["regressor"])
    task = diabetes()
    module.configure_model()
    module.set_mode()
    task.setup()
    assert module.proxy is not None
    steps = plan_steps(
        module.plan, 1, {"forget": 24, "retain": 37}, {"forget": 10, "retain": 10}, 0
    )
    step = next(step for step in steps if len(step.parts) == 2)
    parts = {
        name: task.datasets[name].__getitems__(list(rows.positions))
        for name, rows in step.parts.items()
    }  # type: ignore[attr-defined]
    sizes = {name: len(part["index"]) for name, part in parts.items()}
    size = sum(sizes.values())
    loaded: dict[str, Any] = {"phase": 1} | {
        name: {
            **part,
            "visit": torch.zeros(sizes[name]),
            "count": torch.tensor(float(size)),
            "total": torch.tensor(float(size)),
        }
        for name, part in parts.items()
    }
    terms = module.objective(*module.prepare_parts(loaded))

    def run(model: Any, x: Tensor) -> tuple[float, Tensor]:
        hidden = torch.relu(model.network[0](x))
        return (model.network[2](hidden) * 77.0 + 150.0).item(), hidden

    forget_losses = []
    retain_losses = []
    for x in parts["forget"]["input"]:
        (prediction, hidden), (goal, proxy_hidden) = run(module.backbone, x), run(module.proxy, x)
        a = attention(hidden)
        b = attention(proxy_hidden)
        forget_losses.append(
            abs(prediction - goal)
            + 50 * sum((p - q) ** 2 for p, q in zip(a, b, strict=True)) / len(a)
        )
    for x, y in zip(parts["retain"]["input"], parts["retain"]["target"], strict=True):
        retain_losses.append(abs(run(module.backbone, x)[0] - y.item()))
    r = sizes["forget"] / size
    expected = r * sum(forget_losses) / len(forget_losses) + (1 - r) * sum(retain_losses) / len(
        retain_losses
    )
    assert total(terms).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda params: torch.optim.SGD(params, lr=1e-4, momentum=0.9, weight_decay=0.1),
        lambda params: torch.optim.Adam(params, lr=1e-3, weight_decay=0.1),
    ],
    ids=["SGD", "Adam"],
)
def test_each_phase_moves_one_model_only(optimizer: Any, originals: Any) -> None:
    """Must fail if the idle model's gradient is zero instead of none: momentum and weight decay
    would move it.
    """
    seen: dict[int, list[tuple[bool, bool]]] = {0: [], 1: [], 2: []}
    last: dict[str, Any] = {}

    def see(module: Any, batch: Any, batch_idx: int) -> None:
        now = {"backbone": weights(module.backbone), "proxy": weights(module.proxy)}
        if last:
            seen[module.current_epoch].append(
                tuple(bool(different(last[name], now[name])) for name in now)
            )  # type: ignore[arg-type]
        last.update(now)

    module = Blindspot(
        regressor(originals["regressor"]), optimizer=optimizer, proxy_epochs=2, proxy_lr=1e-3
    )
    fit(module, diabetes(), 3, callbacks=[Watch(see)])
    assert set(seen[0] + seen[1]) == {(False, True)} and len(seen[0] + seen[1]) == 7
    assert set(seen[2]) == {(True, False)} and len(seen[2]) == 7
    assert [group["lr"] for group in module.optimizers().optimizer.param_groups] == [
        optimizer([torch.zeros(1)]).defaults["lr"],
        1e-3,
    ]  # type: ignore[union-attr]


def test_the_proxy_never_sees_the_forget_set(originals: Any) -> None:
    """Other forget samples leave it as it is, bit for bit."""
    proxies = []
    for noise in (False, True):
        task = diabetes()
        task.setup()
        if noise:
            data: Any = task.datasets["forget"]
            task.datasets["forget"] = data.replace(input=data.stored("input") * -2)
        module = fit(blindspot(originals["regressor"]), task)
        assert isinstance(module, Blindspot) and module.proxy is not None
        proxies.append(weights(module.proxy))
    assert different(*proxies) == []


def test_blindspot_needs_an_epoch_that_unlearns() -> None:
    with pytest.raises(InputError, match="at least 3"):
        fit(blindspot(proxy_epochs=2), diabetes(), 2)
    with pytest.raises(InputError, match="proxy_epochs"):
        blindspot(proxy_epochs=0)
    with pytest.raises(InputError, match=r"no layer 'network\.9'"):
        blindspot(layers=["network.9"])


def test_hidden_layers_and_their_activations() -> None:
    """Nonlinearities, or weight layers but the last; a layer that is used twice gives two."""

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(4, 4)
            self.last = nn.Linear(4, 1)
            self.act = nn.ReLU(inplace=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.act(self.first(self.act(self.first(x)))))

    assert hidden_layers(regressor(hidden=[8, 8]).network) == ["1", "3"]
    assert hidden_layers(Twice()) == ["act"]
    assert hidden_layers(nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 1))) == ["0"]
    network = Twice()
    with layer_outputs(network, ["act"]) as seen:
        network(torch.randn(5, 4))
    assert [value.shape for value in seen] == [(5, 4), (5, 4)]
    network(torch.randn(5, 4))
    assert len(seen) == 2, "the hooks are gone"
    assert Blindspot(Regressor(network=network)).layers == ["act"]


def test_preset_runs() -> None:
    check_preset_runs("blindspot", "Regressor")


def test_a_range_of_targets_is_forgotten_and_the_rest_stays() -> None:
    check_range_is_forgotten(
        lambda b: Blindspot(b, optimizer=adam(3e-3), proxy_lr=0.01, proxy_epochs=20), 40
    )
