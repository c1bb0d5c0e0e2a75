"""Text encoder and prompts that attacks on prompts share."""

from __future__ import annotations

import pytest
from torch import Tensor

from mu.backbones import TextToImage
from tests.support.adversarial_tokens import PROMPTS
from tests.support.doubles import text_to_image


@pytest.fixture(scope="module")
def model() -> TextToImage:
    return text_to_image(part="text_encoder")


@pytest.fixture(scope="module")
def ids(model: TextToImage) -> Tensor:
    return model.tokenise(PROMPTS)[0]
