"""Which files a path names: one file, a folder of shards, or one split of either."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from assent.errors import AssentError

NAMES = "train|test|validation|valid|val|dev|eval"
WORD = rf"(?:{NAMES})(?:[-_][a-z_]*[a-z])?(?![a-z])"
SPLIT = re.compile(WORD)
"""A split by its name, with which that of a shard begins."""
WITHIN = re.compile(rf"(?<=[-_. ])(?:{NAMES})(?![a-z])")
"""A split as a word further on in the name of a shard, of which the last counts: `prefs_train-00000`."""
OBJECT = re.compile(rb"\{\s*\"" + WORD.encode() + rb"\"\s*:\s*\[")
"""How a JSON object of splits begins."""


class Place(NamedTuple):
    """Where rows lie."""

    name: str
    """What they are known by."""
    paths: tuple[Path, ...]
    split: str = ""
    splits: tuple[str, ...] = ()
    """All that are there; empty: nothing is split."""

    def __str__(self) -> str:
        """Which split is read, where there are several."""
        if len(self.splits) < 2:
            return ""
        other = next(split for split in self.splits if split != self.split)
        return f"split {self.split} of {', '.join(self.splits)}: another is {self.name.removesuffix(self.split)}{other}"

    def choose(self, splits: Iterable[str], path: Path) -> "Place":
        """One split of a file or folder: the one that is named, the only one, or `train`.

        Raises:
            AssentError: none of these.
        """
        known = tuple(splits)
        split = self.split or (known[0] if len(known) == 1 else "train")
        if split not in known:
            raise AssentError(f"{path} has the splits {', '.join(known)}: name one of them, such as {path}/{known[0]}")
        name = f"{self.name}/{split}" if split else self.name
        return self._replace(name=name, split=split, splits=known)


def find(path: Path) -> Place:
    """The files of a path; it may end with the name of a split, as in `folder/test` and `splits.json/test`.

    Raises:
        AssentError: a folder without data, or with splits of which none is `train`.
    """
    above = path.parent
    if above.is_file():
        return Place(above.name, (above,), path.name)
    if path.is_dir() and not (above / "dataset_dict.json").is_file():
        return _place(path, _shards(path), "")
    if (path.is_dir() or not path.exists()) and above.is_dir() and path.name in (shards := _shards(above)):
        return _place(above, shards, path.name)
    return Place(path.name, (path,))


def is_split(content: Any) -> bool:
    """Whether the content of a JSON file is an object of splits, each a list of rows."""
    return isinstance(content, dict) and all(
        SPLIT.fullmatch(key) and isinstance(rows, list) for key, rows in content.items()
    )


def _place(folder: Path, shards: Mapping[str, tuple[Path, ...]], split: str) -> Place:
    if not shards:
        within = sorted(each.name for each in folder.iterdir() if each.is_file() or _shards(each))
        such = f"name what is to be read in it, such as {folder / within[0]}" if within else "name a file"
        raise AssentError(f"{folder} is a folder without Parquet or Arrow files: {such}")
    place = Place(folder.absolute().name, (), split).choose(shards, folder)
    return place._replace(paths=shards[place.split])


def _shards(folder: Path) -> dict[str, tuple[Path, ...]]:
    """The files of each split; those of a folder that is not split under an empty name."""
    if (saved := folder / "dataset_dict.json").is_file():
        return {split: _saved(folder / split) for split in _json(saved, "splits")}
    if (folder / "state.json").is_file():
        return {"": _saved(folder)}
    shards: dict[str, tuple[Path, ...]] = {}
    for each in sorted([*folder.glob("*.parquet"), *folder.glob("*.arrow")]):
        split = _split(each)
        shards[split] = (*shards.get(split, ()), each)
    if len(shards) > 1 and "" in shards:
        raise AssentError(f"{folder} holds {shards[''][0].name} beside its splits: name one of its files")
    return shards or (_shards(folder / "data") if (folder / "data").is_dir() else {})


def _split(shard: Path) -> str:
    begins = SPLIT.match(shard.name.lower())
    return begins[0] if begins else ["", *WITHIN.findall(shard.stem.lower())][-1]


def _saved(folder: Path) -> tuple[Path, ...]:
    """The files that `datasets` saved, in their order."""
    return tuple(folder / str(each["filename"]) for each in _json(folder / "state.json", "_data_files"))


def _json(path: Path, key: str) -> list[Any]:
    try:
        return list(json.loads(path.read_text(encoding="utf-8"))[key])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AssentError(f"cannot read {path}: it is not as `datasets` writes it ({type(error).__name__})") from error
