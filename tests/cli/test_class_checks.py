"""A class path that names nothing is told from the sources, before anything is imported; what
sources cannot decide is left alone.
"""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mu.cli import class_checks as resolving
from mu.cli.class_checks import refuse_unknown
from mu.utils.errors import InputError

OWN = {
    "my_method.py": """
        import torch
        from typing import TYPE_CHECKING
        from mu.methods import SSD
        try:
            from nothing_of_that_name import Optional
        except ImportError:
            Optional = None
        if TYPE_CHECKING:
            from mu.data.batch import Batch
        class MyMethod(SSD):
            class Inner: ...
        Renamed, (Second, *Rest) = MyMethod, (1, 2)
        match 1:
            case 1:
                class Matched: ...
        raise RuntimeError("imported")
    """,
    "broken.py": "x = 1\ndef f(:",
    "starred.py": "from my_method import *",
    "lazy.py": "def __getattr__(name): ...",
    "promising.py": "__all__ = ['Made']\ndef __getattr__(name): ...",
    "odd.py": "__all__ = [*'ab']\ndef __getattr__(name): ...",
    "made.py": "globals()['Made'] = 1",
    "needs.py": "import nothing_of_that_name\nclass A: ...",
    "package/__init__.py": "class Here: ...",
    "package/inside.py": "class There: ...",
    "space/one.py": "class One: ...",
}
KNOWN = [
    "mu.methods.SalUn",
    "mu.methods.SalUn",
    "mu.methods.compat.InfluenceReference",
    "mu.Edit",
    "mu.core.UnlearningModule",
    "tasks.Digits",
    "tasks.Digits",
    "callbacks.Accuracy",
    "mu.core.OneCycle",
    "my_method.MyMethod",
    "my_method.SSD",
    "my_method.Optional",
    "my_method.Batch",
    "my_method.Renamed",
    "my_method.Second",
    "my_method.Rest",
    "my_method.Matched",
    "my_method.MyMethod.Inner",
    "promising.Made",
    "package.Here",
    "package.inside.There",
    "package.inside",
    "space.one.One",
]
UNDECIDED = [
    "torch.optim.Nope",
    "lightning.pytorch.callbacks.Nope",
    "timm.nope.Nope",
    "json.Nope",
    "__main__.Mine",
    "starred.Nope",
    "lazy.Nope",
    "odd.Nope",
    "made.Nope",
    "needs.Nope",
    "space.Nope",
    "not a path.X",
    "a..b",
    "",
]
REFUSED = {
    "mu.methods.Nope": "there is no method 'mu.methods.Nope'; mu list methods lists them.",
    "mu.methods.Salun": "there is no method 'mu.methods.Salun'; did you mean SalUn?",
    "mu.methods.general.salun.Salun": "there is no method 'mu.methods.general.salun.Salun'; did "
    "you mean SalUn?",
    "mu.Edits": "there is no method 'mu.Edits'; mu list methods lists them.",
    "mu.method.SalUn": "'mu.method.SalUn' cannot be imported: there is no module 'mu.method'; did "
    "you mean mu.methods?",
    "mu.xyz.deep.SalUn": "'mu.xyz.deep.SalUn' cannot be imported: there is no module 'mu.xyz'; "
    "check its name.",
    "tasks.Digitz": "there is no method 'tasks.Digitz'; ",
    "callbacks.Nope": "there is no method 'callbacks.Nope'; ",
    "nowhere.Mine": "there is no module 'nowhere' for 'nowhere.Mine'; a file nowhere.py is looked "
    "for in the working directory.",
    "my_method.MyMethd": "there is no method 'my_method.MyMethd'; did you mean my_method.MyMethod?",
    "my_method.Nope": "there is no method 'my_method.Nope'; my_method.py has MyMethod.",
    "my_method.deep.Nope": "'my_method.deep.Nope' cannot be imported: there is no module "
    "'my_method.deep'; check its name.",
    "broken.Mine": "broken.py cannot be imported: invalid syntax in line 2.",
    "promising.Nope": "there is no method 'promising.Nope'; promising.py has no class.",
    "package.Nope": "there is no method 'package.Nope'; __init__.py has Here.",
    "package.insid.There": "'package.insid.There' cannot be imported: there is no module "
    "'package.insid'; did you mean package.inside?",
    "package.inside.Nope": "there is no method 'package.inside.Nope'; inside.py has There.",
    "SalunX": "there is no method 'SalunX'; did you mean SalUn?",
    "Digits2": "there is no method 'Digits2'; mu list methods lists them.",
    "MyMethod": "there is no method 'MyMethod'; did you mean my_method.MyMethod?",
}


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with files of the user's."""
    for name, text in OWN.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(textwrap.dedent(text))
    monkeypatch.chdir(tmp_path)
    for name in ("broken", "package", "made", "needs"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def model(path: str) -> dict[str, Any]:
    return {"model": {"class_path": path}}


@pytest.mark.parametrize("path", [*KNOWN, *UNDECIDED, "SalUn", "Edit"])
def test_what_is_there_or_may_be_there_passes(path: str, own: Path) -> None:
    """Mutation: taking what no source tells for what is not there."""
    refuse_unknown(model(path))


@pytest.mark.parametrize("path", REFUSED)
def test_what_is_not_there_is_refused(path: str, own: Path) -> None:
    with pytest.raises(InputError) as error:
        refuse_unknown(model(path))
    assert str(error.value).startswith(REFUSED[path]) and "\n" not in str(error.value)
    assert not {"my_method", "package", "nowhere"} & set(sys.modules)


def test_every_class_of_a_configuration_is_looked_at(own: Path) -> None:
    """Also deep inside, in lists; each by what it stands for."""
    callbacks = ["EarlyStoping", {"class_path": "EarlyStopping"}]
    refuse_unknown(
        {"trainer": {"callbacks": callbacks, "logger": {"class_path": "CSVLogger"}}, "a": 1}
    )
    for config, words in (
        ({"data": {"class_path": "tasks.Digitz"}}, "no task 'tasks.Digitz'; did you mean Digits"),
        ({"data": {"class_path": "Digitz"}}, "no task 'Digitz'; did you mean Digits?"),
        (
            within("data", "selector", "tasks.ByClas"),
            "no selector 'tasks.ByClas'; did you mean ByClass?",
        ),
        (
            within("model", "backbone", "mu.backbones.Clasifier"),
            "no backbone 'mu.backbones.Clasifier'; did you mean Classifier",
        ),
        (
            {"model": {"init_args": {"parts": [[{"class_path": "mu.core.masks.Salency"}]]}}},
            "no class 'mu.core.masks.Salency'; did you mean Saliency",
        ),
        (
            {"trainer": {"callbacks": [{"class_path": "callbacks.Acuracy"}]}},
            "no callback 'callbacks.Acuracy'; did you mean Accuracy?",
        ),
    ):
        with pytest.raises(InputError) as error:
            refuse_unknown(config)
        assert words in str(error.value)


def within(part: str, argument: str, path: str) -> dict[str, Any]:
    return {part: {"init_args": {argument: {"class_path": path}}}}


def test_a_class_that_the_calling_program_has_made_passes(own: Path) -> None:
    from mu.methods import SSD

    class MadeInANotebook(SSD):
        pass

    refuse_unknown(model("MadeInANotebook"))
    with pytest.raises(InputError):
        refuse_unknown({"data": {"class_path": MadeInANotebook.__name__}})


def test_somebodys_plugin_may_bring_names_from_anywhere(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mutation: refusing a bare name that a plugin's own library has."""
    both = {"tasks": "mu-unlearning", "theirs": "theirs"}
    points = [
        SimpleNamespace(value=name, dist=SimpleNamespace(name=dist)) for name, dist in both.items()
    ]
    monkeypatch.setattr(resolving, "entry_points", lambda group: points)
    refuse_unknown(model("SalunX"))
    with pytest.raises(InputError):
        refuse_unknown(model("mu.methods.SalunX"))
