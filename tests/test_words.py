"""Words of local names: at most 1 % of all bindings may be words that fit any value."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("mu", "tasks", "callbacks", "tests")
ALLOWED = 0.01
WORDS = """
found place places number numbers kind kinds known own kept given said told wanted made mine theirs
here there one each every whole held shown left taken others
"""
VAGUE = frozenset(WORDS.split())
"""Names that tell neither what a value is nor what it is for: `results`, `mask`, `position` do."""


def bindings(source: str) -> Iterator[tuple[str, int]]:
    """Names that a source binds, with their lines: by assignment, loop, with or comprehension.

    Parameters and attributes do not count.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno


def test_local_names_say_what_they_hold() -> None:
    """Fails when more than 1 % of the local names are vague; the message lists the worst files."""
    total = 0
    lines: dict[str, list[str]] = {}
    for path in sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        for name, line in bindings(path.read_text(encoding="utf-8")):
            total += 1
            if name in VAGUE:
                file = str(path.relative_to(ROOT))
                lines.setdefault(file, []).append(f"{name} (line {line})")
    vague = sum(map(len, lines.values()))
    worst = Counter({file: len(names) for file, names in lines.items()}).most_common(10)
    listing = "\n".join(f"{file}: {', '.join(lines[file])}" for file, _ in worst)
    assert total > 10_000
    assert vague <= ALLOWED * total, (
        f"{vague} of {total} local names are vague ({vague / total:.1%}); rename them to what they "
        f"hold:\n{listing}"
    )


def test_every_way_to_bind_a_name_is_counted() -> None:
    """Fails when loops, comprehensions, with statements, unpacking or walruses are left out."""
    source = (
        "found = 1\n"
        "for place in (): pass\n"
        "with open('x') as kept: pass\n"
        "one, (two, *others) = 1, (2, 3)\n"
        "[number for number in ()]\n"
        "(said := 1)\n"
        "own: int = 1\n"
        "def f(given): return given.kind\n"
    )
    names = Counter(name for name, _ in bindings(source))
    expected = ["found", "place", "kept", "one", "two", "others", "number", "said", "own"]
    assert names == Counter(expected)
