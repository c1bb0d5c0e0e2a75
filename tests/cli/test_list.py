"""`mu list` and `mu show` read sources; what they say is checked against the imported classes."""

from __future__ import annotations

import inspect
import sys
import textwrap
from pathlib import Path

import pytest

import mu.methods
from mu.cli.catalogue import BASE_CLASSES, Component, Sources
from mu.cli.citations import Paper, paper_of
from mu.cli.list import domains, needs
from mu.cli.show import arguments
from mu.core.module import UnlearningModule
from tests.cli.conftest import CONFIGS, Mu

SOURCES = Sources()
METHODS = {component.name: component for component in SOURCES.components("methods")}


def imported(component: Component) -> type:
    module, _, name = component.path.rpartition(".")
    __import__(module)
    return getattr(sys.modules[module], name)


def test_every_exported_method_is_listed_and_nothing_else() -> None:
    """Mutation: taking a base (Edit) for a method, or missing a class whose base is another
    method.
    """
    classes = {name: getattr(mu.methods, name) for name in mu.methods.__all__}
    assert {
        name
        for name, cls in classes.items()
        if inspect.isclass(cls) and issubclass(cls, UnlearningModule)
    } <= set(METHODS)
    for component in METHODS.values():
        assert issubclass(imported(component), UnlearningModule)
    assert not {"UnlearningModule", "Edit"} & set(METHODS)


def test_every_exported_backbone_is_listed() -> None:
    """Mutation: taking a base's refusal (a form of export, sharding) for something that is still
    missing.
    """
    import mu.backbones

    classes = [getattr(mu.backbones, name) for name in mu.backbones.__all__]
    backbones = {
        cls.__name__
        for cls in classes
        if inspect.isclass(cls) and issubclass(cls, mu.backbones.Backbone)
    }
    concrete = {name for name in backbones if not inspect.isabstract(getattr(mu.backbones, name))}
    assert concrete <= {component.name for component in SOURCES.components("backbones")}


@pytest.mark.parametrize(
    "category", [category for category in BASE_CLASSES if category != "methods"]
)
def test_other_categories_are_real_classes(category: str) -> None:
    parts = SOURCES.components(category)
    assert parts
    for component in parts:
        cls = imported(component)
        assert BASE_CLASSES[category] in [base.__name__ for base in cls.__mro__]
        assert not inspect.isabstract(cls)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_needs_are_those_of_the_class(name: str) -> None:
    component = METHODS[name]
    listed_needs = needs(component).split(", ")
    for need in ("forget", "retain", "labels", "reference", "substitute"):
        value = inspect.getattr_static(imported(component), f"needs_{need}")
        if f"{need}?" not in listed_needs:
            assert value is (need in listed_needs)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_domain_is_that_of_the_constructor(name: str) -> None:
    import typing

    component = METHODS[name]
    cls = next(base for base in imported(component).__mro__ if "__init__" in vars(base))
    hint = typing.get_type_hints(cls.__init__)["backbone"]
    expected = "any" if hint.__name__ == "Backbone" else hint.__name__
    assert domains(component) == expected


@pytest.mark.parametrize("name", sorted(METHODS))
def test_arguments_are_those_that_the_parser_takes(name: str) -> None:
    """Mutation: not following `**kwargs` to the base, or listing what a constructor sets itself."""
    from jsonargparse import ArgumentParser

    component = METHODS[name]
    parser = ArgumentParser(exit_on_error=False)
    added = parser.add_class_arguments(imported(component), "it", fail_untyped=False)
    parser_names = {key.removeprefix("it.").split(".")[0] for key in added}
    assert {argument.name for argument in arguments(component)} == parser_names


@pytest.mark.parametrize(
    ("name", "paper"),
    [
        (
            "SalUn",
            Paper(
                "Fan, Liu, Zhang, Wong, Wei and Liu",
                "SalUn: Empowering Machine Unlearning via Gradient-based Weight Saliency in Both "
                "Image Classification and Generation",
                "ICLR",
                "2024",
            ),
        ),
        (
            "SSD",
            Paper(
                "Foster, Schoepf and Brintrup",
                "Fast Machine Unlearning Without Retraining Through Selective Synaptic Dampening",
                "AAAI",
                "2024",
            ),
        ),
        ("Train", Paper()),
        (
            "Influence",
            Paper(
                "Izzo, Smart, Chaudhuri and Zou",
                "Approximate Data Deletion from Machine Learning Models",
                "AISTATS",
                "2021",
            ),
        ),
    ],
)
def test_papers(name: str, paper: Paper) -> None:
    assert paper_of(METHODS[name]) == paper


def test_every_paper_that_is_named_has_a_year() -> None:
    for component in METHODS.values():
        paper = paper_of(component)
        assert bool(paper.title) == bool(paper.year), component.name


def test_a_variant_has_the_paper_of_the_method_that_it_derives_from() -> None:
    """Mutation: looking into the class and its own file only."""
    for name, of in {
        "BoundaryShrinkReference": "BoundaryShrink",
        "FisherForgettingReference": "FisherForgetting",
        "InfluenceReference": "Influence",
        "BoundaryExpandReference": "BoundaryExpand",
    }.items():
        assert paper_of(METHODS[name]) == paper_of(METHODS[of]) != Paper()
    assert paper_of(METHODS["SCRUBWorstCase"]).authors.startswith("Fan")
    assert {name for name, component in METHODS.items() if not paper_of(component).title} == {
        "Train",
        "Retrain",
    }


def test_list_without_a_word_counts(mu: Mu) -> None:
    answer = mu("list")
    assert answer.code == 0
    assert f"methods    {len(METHODS):>3}" in answer.out


def test_list_takes_singular_and_corrects(mu: Mu) -> None:
    assert mu("list", "method").out == mu("list", "methods").out
    assert mu("list", "methds").sentence == "mu list has no 'methds'; did you mean methods?"
    assert mu("list", "methods", "tasks").code == 2


def test_a_plugin_of_a_third_party_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its method derives from one of ours through a base of its own, in another file; it is never
    imported.
    """
    from mu.config import plugins

    package = tmp_path / "thirdparty"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from thirdparty.methods import Theirs\nraise RuntimeError('imported')\n"
    )
    (package / "base.py").write_text(
        "from mu.methods import SSD\nclass Base(SSD):\n    needs_retain = False\n"
    )
    head = '"""Theirs.\n\nDoe and Roe, "A Study of Something", NeurIPS 2031.\n"""\n'
    (package / "methods.py").write_text(
        head + 'from .base import Base\nclass Theirs(Base):\n    """Its own."""\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(plugins, "packages", lambda: ["callbacks", "tasks", "thirdparty"])
    component = next(
        component for component in Sources().components("methods") if component.name == "Theirs"
    )
    assert component.path == "thirdparty.Theirs"
    assert (paper_of(component).short, paper_of(component).year) == ("Doe and Roe, NeurIPS", "2031")
    assert (needs(component), domains(component)) == ("forget, labels", "any")
    assert "thirdparty" not in sys.modules


OWN = {
    "my_method.py": """
        import mu
        from mu.core.module import UnlearningModule as Base

        class MyMethod(Base):
            '''What it does: \\d.'''
            needs_labels = False
            def objective(self, forget, retain):
                return {}

        class MyEdit(mu.Edit):
            def observe(self, forget, retain): ...
            def edited(self): ...

        class Unfinished(Base): ...
        class _Hidden(MyMethod): ...
        raise RuntimeError("imported")
    """,
    "another.py": """
        import mu.methods as ours

        class Damped(ours.SSD):
            '''Doe and Roe, "A Study of Something", NeurIPS 2031.'''
    """,
    "further.py": "import os, my_method\nclass Further(my_method.MyMethod):\n    '''Further.'''",
    "unrelated.py": "class SSD: ...\nclass Mine(SSD): ...",
    "nothing_of_ours.py": "def f(:",
    "json.py": "from mu.methods import SSD\nclass Shadowed(SSD): ...",
    "tasks.py": "from mu.methods import SSD\nclass Hijack(SSD): ...",
    "not-a-module.py": "from mu.methods import SSD\nclass Unimportable(SSD): ...",
}


def own_files(folder: Path, **more: str) -> None:
    for name, text in {**OWN, **more}.items():
        (folder / name).write_text(textwrap.dedent(text), encoding="utf-8")


def test_methods_of_ones_own_are_listed_by_their_paths(mu: Mu, tmp_path: Path) -> None:
    """They are read, not imported. Mutations: no aliases and dotted bases; no file that imports
    only another of the user's; a file that an import would not find; the paper of a base of ours
    given to the user's own work.
    """
    own_files(tmp_path)
    (tmp_path / "nowhere.py").symlink_to("gone.py")
    answer = mu("list", "methods")
    assert (answer.code, answer.err) == (0, "")
    rows = [line for line in answer.out.splitlines() if "." in line.split()[0]]
    assert [row.split()[0] for row in rows] == [
        "another.Damped",
        "further.Further",
        "my_method.MyEdit",
        "my_method.MyMethod",
    ]
    assert answer.out.splitlines()[-4:] == rows
    assert "2031" in rows[0] and rows[0].endswith("Doe and Roe, NeurIPS: A Study of Something")
    assert rows[3].endswith(r" What it does: \d.") and " forget, retain  " in rows[3]
    assert "my_method" not in sys.modules and "another" not in sys.modules
    assert "my_method.MyMethod" in mu("list").out


def test_a_method_of_ones_own_has_no_paper_of_ours(mu: Mu, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "\ufefffrom mu.methods import SSD\n\nclass Mine(SSD):\n    '''Mine.'''\n", encoding="utf-8"
    )
    assert mu("list", "methods").out.splitlines()[-1].split() == [
        "mine.Mine",
        "any",
        "forget,",
        "retain,",
        "labels",
        "Mine.",
    ]


def test_a_file_that_is_not_valid_is_named_and_left_out(mu: Mu, tmp_path: Path) -> None:
    """Mutation: a traceback, or silence; or a word about every script in the folder."""
    own_files(
        tmp_path,
        **{"broken.py": "from mu.methods import SSD\nclass X(SSD:\n", "zero.py": "import mu\n\0\n"},
    )
    for words in (["list"], ["list", "methods"], ["show", "SSD"]):
        answer = mu(*words)
        assert answer.code == 0
        first, second = answer.err.splitlines()
        assert first.startswith("mu: broken.py is left out: ") and first.endswith(" in line 2.")
        assert second.startswith("mu: zero.py is left out: ")
    assert "my_method.MyMethod" in mu("list", "methods").out


def test_other_parts_of_ones_own(mu: Mu, tmp_path: Path) -> None:
    (tmp_path / "my_task.py").write_text(
        "from tasks import Digits\n\nclass Sevens(Digits):\n    '''Sevens only.'''\n"
    )
    assert mu("list", "tasks").out.splitlines()[-1].split() == [
        "my_task.Sevens",
        "my_task.Sevens",
        "Sevens",
        "only.",
    ]


def test_show_a_method_of_ones_own(mu: Mu, tmp_path: Path) -> None:
    own_files(
        tmp_path,
        **{
            "mine.py": "from mu.methods import SSD as Base\nclass SSD(Base):\n    '''My own "
            "SSD.'''\n"
        },
    )
    for name in ("my_method.MyMethod", "MyMethod"):
        assert mu("show", name).out.startswith("MyMethod  (my_method.MyMethod, my_method.py)")
    assert mu("show", "SSD").out.startswith("SSD  (mu.methods.SSD, ssd.py)")
    assert "My own SSD." in mu("show", "mine.SSD").out
    assert (
        mu("show", "my_method.MyMethd").sentence
        == "there is nothing named 'my_method.MyMethd'; did you mean MyMethod?"
    )
    assert (
        mu("show", "elsewhere.SSD").sentence
        == "there is nothing named 'elsewhere.SSD'; did you mean SSD?"
    )
    assert (
        mu("show", "mu.methods.SSD").out
        == mu("show", "mu.methods.SSD").out
        == mu("show", "SSD").out
    )


def test_show_a_method(mu: Mu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CONFIGS.parent)
    answer = mu("show", "SalUn")
    assert answer.code == 0
    for words in (
        "mu.methods.SalUn",
        "arXiv 2310.12508",
        "Defaults: ρ = 0.5",
        "SGD(lr=0.013",
        "norm: Norm = 'train'",
        "method/salun: SalUn: random labels",
        "needs: forget, retain, labels, substitute",
    ):
        assert words in answer.out, words


def test_show_corrects(mu: Mu) -> None:
    assert mu("show", "salum").sentence == "there is nothing named 'salum'; did you mean SalUn?"
    assert mu("show").code == 0
    assert "must be given" in mu("show", "Digits").out
