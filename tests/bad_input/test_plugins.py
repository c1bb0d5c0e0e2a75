"""Files and packages of the user's own that cannot be used."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.bad_input.conftest import Refuse, table
from tests.cli.conftest import FIT

HEAD = "from mu.core.module import UnlearningModule\n"
METHOD = (
    HEAD + "from mu.data import Forget\n"
    "class Mine(UnlearningModule):\n    trains_from_scratch = True\n    plan = Forget()\n"
)
STEP = "    def objective(self, *arguments):\n        "

FILES = [
    ("syntax", "def f(:", "mine.py cannot be imported: invalid syntax in line 1"),
    ("null byte", "\0", "mine.py cannot be imported"),
    ("indentation", "class Mine:\npass", "mine.py cannot be imported"),
    ("empty", "", "there is no method 'mine.Mine'"),
    ("missing module", "import nothing_of_that_name", "no module 'nothing_of_that_name'"),
    ("missing name", "from mu.methods import Nothing\n" + METHOD + "    pass", "Nothing"),
    ("error", METHOD + "    pass\nraise RuntimeError('broken')", "broken"),
    ("exit", METHOD + "    pass\nimport sys\nsys.exit(3)", "mine"),
    ("division", METHOD + "    pass\n1 / 0", "division by zero"),
    ("no base", "class Mine: pass", "mine.Mine is no method"),
    ("other base", "import torch\nclass Mine(torch.nn.Linear): pass", "mine.Mine is no method"),
    ("function", "def Mine(): pass", "mine.Mine is no method"),
    ("number", "Mine = 3", "there is no method 'mine.Mine'"),
    ("circle", "class Mine(Mine): pass", "mine.Mine is no method"),
    ("unknown base", "class Mine(Other): pass", "mine.Mine is no method"),
    ("base of a missing file", "from absent import Base\nclass Mine(Base): pass", "'absent'"),
    ("other name", METHOD.replace("Mine", "Mime") + "    pass", "mine.Mime"),
    ("no objective", METHOD + "    pass", "Mine"),
    ("required argument", METHOD + "    def __init__(self, backbone, x: int): ...", "needs x"),
    (
        "error of the constructor",
        METHOD
        + STEP
        + "pass\n    def __init__(self, backbone):\n        raise ValueError('broken')",
        "broken",
    ),
    ("no super", METHOD + "    def __init__(self, backbone):\n        self.x = 1", "Mine"),
    ("returns nothing", METHOD + STEP + "return None", "objective"),
    ("returns a number", METHOD + STEP + "return 1.0", "objective"),
    ("returns text", METHOD + STEP + "return 'loss'", "objective"),
    ("returns a list", METHOD + STEP + "return [1]", "objective"),
    ("returns an empty mapping", METHOD + STEP + "return {}", "objective"),
    ("returns numbers", METHOD + STEP + "return {'loss': 1.0}", "objective"),
]


@pytest.mark.parametrize(("text", "words"), table(FILES, fast=9))
def test_file_of_a_method_is_refused(
    refuse: Refuse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, words: str
) -> None:
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    (tmp_path / "mine.py").write_text(text)
    refuse([*FIT, "--model", "mine.Mine"], words)


PATHS = [
    ("package", "--model json", "'json'"),
    ("module", "--model json.decoder", "json.decoder is no method"),
    ("class of another package", "--model json.JSONDecoder", "is no method"),
    ("private module", "--model os._exit", "os._exit"),
    ("side effect", "--model antigravity.Mine", "antigravity.Mine"),
    ("dots", "--model mu..methods", "mu..methods"),
    ("end", "--model mu.methods.", "mu.methods."),
    ("keyword", "--model mu.class.X", "mu.class.X"),
    ("path", "--model ./mine.py", "mine.py"),
    ("selector", "--data.selector json.JSONDecoder", "is no selector"),
    ("backbone", "--model.backbone json.JSONDecoder", "backbone"),
    ("callback", "--trainer.callbacks+=json.JSONDecoder", "is no callback"),
    ("logger", "--trainer.logger json.JSONDecoder", "Logger"),
    ("strategy", "--trainer.strategy json.JSONDecoder", "Strategy"),
    ("plugin", "--trainer.plugins+=json.JSONDecoder", "plugins"),
    ("profiler", "--trainer.profiler json.JSONDecoder", "profiler"),
    ("scheduler", "--model.scheduler json.JSONDecoder", "scheduler"),
    ("mask", "--model.mask json.JSONDecoder", "mask"),
]


@pytest.mark.parametrize(("text", "words"), table(PATHS, fast=6))
def test_class_path_is_refused(refuse: Refuse, text: str, words: str) -> None:
    for module in ("antigravity",):
        sys.modules.pop(module, None)
    refuse([*FIT, *text.split()], words)
    assert "antigravity" not in sys.modules
