"""Class paths from files: no module is imported before its source shows a class that is needed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback

from mu.utils.class_source import imported_class, may_import
from mu.utils.errors import InputError
from mu.utils.spec import BUILDABLE, from_spec

PLANTED = """
from pathlib import Path
import torch
import torch.optim as optimizers
from helpers_of_planted import Middle

Path("imported").touch()

def make(parameters):
    Path("called").touch()

class Plain: pass
class Direct(torch.optim.Optimizer): pass
class Aliased(optimizers.SGD): pass
class Inherited(Direct): pass
class Elsewhere(Middle): pass
class Circular(Circular): pass
if True:
    class Conditional(torch.optim.SGD): pass
"""
HELPERS = "from torch.optim import Adam\nclass Middle(Adam): pass\n"
OPTIMIZER = (torch.optim.Optimizer,)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Working directory with a module that leaves a file when it is imported."""
    (tmp_path / "planted.py").write_text(PLANTED)
    (tmp_path / "helpers_of_planted.py").write_text(HELPERS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("planted", "helpers_of_planted"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


@pytest.mark.parametrize("name", ["Direct", "Aliased", "Inherited", "Elsewhere", "Conditional"])
def test_class_of_needed_base_is_admitted(folder: Path, name: str) -> None:
    """Fails when an optimizer of the user's own is refused, however its base is written."""
    assert may_import(f"planted.{name}", OPTIMIZER)
    assert may_import(f"planted.{name}", None)
    assert not (folder / "imported").exists()


@pytest.mark.parametrize("name", ["Plain", "make", "absent", "Circular", "Path", "sub.Direct"])
def test_other_names_are_refused_unread(folder: Path, name: str) -> None:
    """Fails when a planted file runs because a path names something in it."""
    assert not may_import(f"planted.{name}", OPTIMIZER)
    assert not may_import(f"planted.{name}", (Callback,))
    assert not may_import(f"planted.{name}", None)
    with pytest.raises(InputError, match=r"is not imported|there is no class"):
        imported_class(f"planted.{name}", OPTIMIZER)
    with pytest.raises(InputError, match=r"is not imported|there is no class"):
        from_spec({"class_path": f"planted.{name}", "init_args": {}})
    assert not (folder / "imported").exists()


def test_installed_packages_are_read_too() -> None:
    """Fails when an installed module is run for a name that it does not have."""
    sys.modules.pop("antigravity", None)
    assert not may_import("antigravity.Optimizer", BUILDABLE)
    assert not may_import("idlelib.idle.Optimizer", BUILDABLE)
    assert not may_import("no_such_module.Optimizer", BUILDABLE)
    assert may_import("torch.optim.AdamW", BUILDABLE)
    assert may_import("mu.methods.SalUn", BUILDABLE)
    assert "antigravity" not in sys.modules
