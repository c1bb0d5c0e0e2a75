"""Methods on tokens and hidden states of language models: a tiny model that knows its answers, and
the checks that every such method passes.
"""

from __future__ import annotations

import functools
from typing import Any

import torch

from mu.backbones import CausalLM, LoRA
from mu.data.plan import Paired
from mu.methods.general.train import Train
from tests.support.doubles_text import causal_lm, mixture, people
from tests.support.helpers import State, different, distance, fit, weights

PLAIN = functools.partial(torch.optim.SGD, lr=1.0)
ADAM = functools.partial(torch.optim.AdamW, lr=5e-3)
NO_DROPOUT = LoRA(r=8, lora_alpha=16)


@functools.cache
def trained_state() -> State:
    """The tiny Llama after it has learnt the people's answers."""
    return weights(
        fit(
            Train(causal_lm(init_seed=1), optimizer=functools.partial(torch.optim.AdamW, lr=0.02)),
            people(),
            40,
        ).backbone
    )


def trained_model() -> CausalLM:
    return causal_lm(trained_state())


def first_pair(task: Any, batch: int = 5) -> tuple[dict[str, Any], dict[str, Any]]:
    """The plan's first pair of batches, without totals."""
    task.setup()
    loader = task.plan_loader(Paired(length="forget"), 0, batch_size=batch)
    step = next(iter(loader))
    return tuple(
        {
            name: value
            for name, value in step[part].items()
            if name not in ("total", "count", "step")
        }  # type: ignore[return-value]
        for part in ("forget", "retain")
    )


def terms_of(module: Any, forget: Any, retain: Any) -> dict[str, float]:
    """Terms of the objective, of a module without a trainer."""
    module.configure_model()
    module.backbone.eval()
    return {name: float(value) for name, value in module.objective(forget, retain).items()}


class SingleRank:
    """A trainer's attributes outside a fit: one rank, no accumulation."""

    accumulate_grad_batches = 1
    world_size = 1
    current_epoch = 0


def check_accumulated_batches(make: Any, epochs: int = 1) -> tuple[Any, Any]:
    """Modules after batches of 6, and after two batches of 3 for each step; asserts equal weights.

    What is ignored, drawn or padded must be counted over the whole step: a normaliser of a
    micro-batch fails.

    Args:
        make: the method, given a backbone and an optimizer.
        epochs: length of the run.
    """

    def run(batch: int, accumulate: int) -> Any:
        module = make(
            trained_model().double(), optimizer=functools.partial(torch.optim.SGD, lr=0.01)
        )
        # the third batch is short, and has whole batches of retain beside it
        return fit(
            module,
            people(batch_size=batch),
            epochs,
            accumulate_grad_batches=accumulate,
            precision="64-true",
            limit_train_batches=2 * accumulate,
        )

    large = run(6, 1)
    small = run(3, 2)
    assert distance(weights(large.served()), weights(small.served())) < 1e-10
    return large, small


def check_forgets_first(make: Any, lr: float, epochs: int, **arguments: Any) -> None:
    """Assert that a model which knows the answers loses more on forget than on retain.

    The other answers have the same names in them.

    Args:
        make: the method, given a backbone and an optimizer.
        lr: learning rate of AdamW.
        epochs: length of the run.
        **arguments: further arguments of the method.
    """
    module = make(
        trained_model(), optimizer=functools.partial(torch.optim.AdamW, lr=lr), **arguments
    )
    fit(module, people(), epochs)
    served = module.served().eval()
    task = people()
    task.setup()
    increase = {}
    for part in ("forget", "retain"):
        data: Any = task.datasets[part]
        rows = data.__getitems__(list(range(len(data))))
        with torch.no_grad():
            after, before = (
                model.outputs(rows, ["mean_nll"])["mean_nll"].mean()
                for model in (served, trained_model().eval())
            )
        increase[part] = float(after - before)
    assert increase["forget"] > 0.1 and increase["forget"] > increase["retain"] + 0.02, increase


def check_unlearns_a_mixture_of_experts(make: Any) -> None:
    """Assert that weights of a mixture of experts move."""
    module = fit(make(mixture(), optimizer=ADAM), people(), 1)
    assert different(weights(mixture()), weights(module.backbone))
