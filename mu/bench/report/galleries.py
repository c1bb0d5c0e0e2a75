"""What a run made: grids of images and examples of text, from `media/media.json` in its folder, put
side by side.

The file is a list; each entry describes one file beside it. `group` says what it shows, the others
are optional:

* an image: `{"file": "erased.png", "title": "...", "group": "erased", "rows": [labels], "columns":
  [labels]}`;
* text: `{"file": "examples.json", "kind": "text", "title": "...", "group": "forget"}`, and that
  file is a list of
  `{"prompt": "...", "answer": "...", "truth": "..."}`, of which `truth` is optional.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mu.bench.report.runs import RunEntry
from mu.bench.report.summary import Summary
from mu.utils.errors import InputError
from mu.utils.files import read_json

GROUPS = {"erased": "What was erased", "kept": "What was to be kept", "attack": "Under attack"}
"""Headings of the groups that come first, in this order; others follow by their own name."""

_PNG = b"\x89PNG\r\n\x1a\n"
# pixels of the page for one tile of a grid, and for a letter of a label, at least
_TILE = 44
_LETTER = 6
_SMOOTH = 640  # width in pixels from which an image is shrunk rather than enlarged


@dataclass(frozen=True)
class Picture:
    """One image: whose it is, as a data URI, its size in pixels, and what its rows and columns
    are.
    """

    method: str
    title: str
    source: str
    width: int
    height: int
    rows: list[str]
    columns: list[str]

    @property
    def pixelated(self) -> bool:
        """Whether it is so small that it is shown enlarged."""
        return self.width < _SMOOTH


@dataclass(frozen=True)
class Gallery:
    """One group's image of every model; `width` is what one needs on the page, in pixels."""

    heading: str
    title: str
    seed: str
    pictures: list[Picture]

    @property
    def width(self) -> int:
        """From the tiles side by side, with the labels above and before them; between a fifth of
        the page and half of it.
        """
        above, before = (
            [len(label) * _LETTER for picture in self.pictures for label in labels(picture)]
            for labels in (lambda picture: picture.columns, lambda picture: picture.rows)
        )
        tiles = max(len(picture.columns) or 3 for picture in self.pictures)
        return min(
            520,
            max(
                200,
                tiles * max(_TILE, min(90, max(above, default=0)))
                + min(120, max(before, default=0)),
            ),
        )

    def share(self, picture: Picture) -> float:
        """Its width as a share of the widest, so that all are enlarged alike."""
        return round(picture.width / max(other.width for other in self.pictures), 4)


@dataclass(frozen=True)
class Examples:
    """One group's texts: for each prompt, the truth and every model's answer (None where it was not
    asked).
    """

    heading: str
    title: str
    seed: str
    methods: list[str]
    rows: list[tuple[str, str, list[str | None]]]
    truth: bool


def media(summary: Summary) -> tuple[list[Gallery], list[Examples]]:
    """All images and texts of one seed: the first run's that has some; a method without that seed
    shows its first run.

    Raises:
        InputError: when a media.json, or what it names, is missing or not what it should be.
    """
    lead = next(
        (run.label for row in summary.rows for run in row.runs if _index(run).is_file()), None
    )
    if lead is None:
        return [], []
    shown = {
        row.method: next((run for run in row.runs if run.label == lead), row.runs[0])
        for row in summary.rows
    }
    seed = lead if all(run.label == lead for run in shown.values()) else ""
    found = {method: _entries(run) for method, run in shown.items()}
    keys = sorted(
        dict.fromkeys(key for entries in found.values() for key in entries), key=_place(found)
    )
    galleries = []
    examples = []
    for key in keys:
        mine = {method: entries[key] for method, entries in found.items() if key in entries}
        heading = GROUPS.get(key[1], key[1].capitalize())
        title = _common(entry["title"] for _, entry in mine.values())
        if key[0] == "text":
            examples.append(_examples(heading, title, seed, mine))
        else:
            galleries.append(
                Gallery(
                    heading, title, seed, [_picture(method, *pair) for method, pair in mine.items()]
                )
            )
    return galleries, examples


Key = tuple[str, str, int]
"""Kind, group, and which of the run's entries of that group."""


def _index(run: RunEntry) -> Path:
    return run.folder / "media" / "media.json"


def _entries(run: RunEntry) -> dict[Key, tuple[Path, dict[str, Any]]]:
    """The file and description of each entry."""
    if not _index(run).is_file():
        return {}
    raw = read_json(_index(run))
    found = {}
    if not isinstance(raw, list) or not all(
        isinstance(entry, Mapping) and isinstance(entry.get("file"), str) for entry in raw
    ):
        raise InputError(f"{_index(run)} is not a list of entries with a file.")
    for entry in raw:
        file = _index(run).parent / entry["file"]
        if file.parent != _index(run).parent or not file.is_file():
            raise InputError(f"{_index(run)} names {entry['file']!r}, which is no file beside it.")
        told = {
            "title": str(entry.get("title") or ""),
            **{name: [str(v) for v in entry.get(name) or []] for name in ("rows", "columns")},
        }
        kind = str(entry.get("kind") or "image")
        group = str(entry.get("group") or "examples")
        if kind not in ("image", "text"):
            raise InputError(f"{_index(run)} has an entry of kind {kind!r}; it is image or text.")
        number = sum(key[:2] == (kind, group) for key in found)
        found[kind, group, number] = (file, told)
    return found


def _place(found: Mapping[str, Mapping[Key, Any]]) -> Any:
    """Known groups first, then by first appearance."""
    known = list(
        dict.fromkeys([*GROUPS, *(key[1] for entries in found.values() for key in entries)])
    )
    return lambda key: (known.index(key[1]), key[2])


def _common(titles: Any) -> str:
    """The title that all have; nothing where they differ, because then each stands at its own
    image.
    """
    found = list(dict.fromkeys(titles))
    return found[0][:1].upper() + found[0][1:] if len(found) == 1 else ""


def _picture(method: str, file: Path, entry: Mapping[str, Any]) -> Picture:
    content = file.read_bytes()
    if not content.startswith(_PNG) or len(content) < 24:
        raise InputError(f"{file} is not a PNG image, which is what a report can show.")
    width, height = (int.from_bytes(content[start : start + 4], "big") for start in (16, 20))
    source = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    return Picture(method, entry["title"], source, width, height, entry["rows"], entry["columns"])


def _examples(
    heading: str, title: str, seed: str, mine: Mapping[str, tuple[Path, Any]]
) -> Examples:
    """Prompts in the order in which they appear first; the same prompt twice stays two rows."""
    answers: dict[str, dict[tuple[str, int], str]] = {}
    truths: dict[tuple[str, int], str] = {}
    for method, (file, _) in mine.items():
        answers[method] = {}
        for row in _text_rows(file):
            place = (row["prompt"], sum(key[0] == row["prompt"] for key in answers[method]))
            answers[method][place] = row["answer"]
            truths[place] = truths.get(place) or str(row.get("truth") or "")
    rows = [
        (place[0], truth, [known.get(place) for known in answers.values()])
        for place, truth in truths.items()
    ]
    return Examples(heading, title, seed, list(mine), rows, any(truths.values()))


def _text_rows(file: Path) -> list[dict[str, Any]]:
    rows = read_json(file)
    sound = isinstance(rows, list) and all(
        isinstance(row, Mapping)
        and all(isinstance(row.get(name), str) for name in ("prompt", "answer"))
        for row in rows
    )
    if not sound:
        raise InputError(f"{file} is not a list of examples, each with a prompt and an answer.")
    return rows
