"""Find the files of a data set on the Hugging Face Hub: `hf://owner/name[@revision][/part][:split]`.

A part is a configuration of the data set, or a folder. Its splits are those that the card's `configs` name, or those of
its file names. Only their files are downloaded, into the hub's cache; without a network they are read from there.
Loading scripts are not run: `@refs/convert/parquet` has a copy of many data sets that need one.
"""

import fnmatch
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from assent.errors import AssentError
from assent.formats.files.splits import Location, group_by_split

SCHEME = "hf://"
NAME = re.compile(
    r"hf://(?:datasets/)?(?P<id>[\w.-]+/[\w.-]+)"
    r"(?:@(?P<revision>refs/[\w.-]+/[\w.-]+|[\w.-]+))?(?:/(?P<part>[^:]*?))?/?(?::(?P<split>[\w.-]+))?"
)
CARD = "README.md"
TIMEOUT = 10
"""Seconds until the hub counts as unreachable."""
Splits = Mapping[str, Sequence[str]]
"""The files of each split, as paths inside the data set."""


class HubName(NamedTuple):
    """The name of a data set on the hub."""

    id: str
    revision: str | None
    """A branch, tag or commit; None: the main branch."""
    part: str
    """A configuration or a folder; empty: the default."""
    split: str

    @classmethod
    def parse(cls, path: str) -> "HubName":
        """Parse `hf://owner/name[@revision][/part][:split]`.

        Raises:
            AssentError: the path has another form.
        """
        match = NAME.fullmatch(path)
        if match is None:
            raise AssentError(f"'{path}' names no data set: write hf://owner/name, or hf://owner/name:split")
        return cls(match["id"], match["revision"], match["part"] or "", match["split"] or "")

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        return f"{SCHEME}{self.id}{revision}{f'/{self.part}' if self.part else ''}"


def is_hub_name(path: str | Path) -> bool:
    """Return whether a path names a data set on the hub."""
    return str(path).startswith("hf:/")


def locate_on_hub(path: str | Path) -> Location:
    """Return the files of a split; they are downloaded if the cache does not have them.

    Raises:
        AssentError: no such data set, part or split; no access; or no network and no copy in the cache.
    """
    from huggingface_hub import snapshot_download

    name = HubName.parse(re.sub("^hf:/+", SCHEME, str(path)))  # `Path` makes one slash of two
    with _one_line_errors(name):
        is_online = _is_online(name)
        files, card = _list_files(name, is_online)
        splits = _find_splits(name, files, card)
        location = Location("/".join(filter(None, (name.id, name.part))), (), name.split).choose(splits, str(name), ":")
        chosen = splits[location.split]
        folder = snapshot_download(
            name.id,
            revision=name.revision,
            repo_type="dataset",
            allow_patterns=[re.sub(r"([\[*?])", r"[\1]", file) for file in chosen],
            local_files_only=not is_online,
        )
    paths = tuple(Path(folder) / file for file in chosen)
    if missing := [file for file, copy in zip(chosen, paths, strict=True) if not copy.exists()]:
        raise AssentError(f"{name}: the cache lacks {missing[0]}, and the hub cannot be reached")
    return location._replace(paths=paths, before_split=f"{name}:")


def _is_online(name: HubName) -> bool:
    """Return whether the hub can be reached; one request, which raises the hub's errors for the data set itself."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, OfflineModeIsEnabled

    try:
        get_hf_file_metadata(hf_hub_url(name.id, CARD, repo_type="dataset", revision=name.revision), timeout=TIMEOUT)
    except EntryNotFoundError:
        return True  # it has no card
    except HfHubHTTPError:
        raise
    except (_http_error(), OfflineModeIsEnabled):
        return False
    return True


def _http_error() -> type[Exception]:
    """Return the base class of errors of the HTTP library that huggingface_hub uses."""
    from huggingface_hub.errors import HfHubHTTPError

    base: type[Exception] = HfHubHTTPError.__mro__[1]
    return base


def _list_files(name: HubName, is_online: bool) -> tuple[list[str], dict[str, Any]]:
    """Return the data set's files, or those in the cache, and the front matter of its card."""
    from huggingface_hub import DatasetCard, HfApi, hf_hub_download, snapshot_download

    place: dict[str, Any] = {"revision": name.revision, "repo_type": "dataset"}
    if is_online:
        files = HfApi().list_repo_files(name.id, **place)
        card = hf_hub_download(name.id, CARD, **place) if CARD in files else ""
    else:
        folder = Path(snapshot_download(name.id, **place, local_files_only=True))
        files = [str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()]
        card = str(folder / CARD) if CARD in files else ""
    return sorted(files), DatasetCard.load(card, ignore_metadata_errors=True).data.to_dict() if card else {}


def _find_splits(name: HubName, files: Sequence[str], card: Mapping[str, Any]) -> Splits:
    """Return the splits of the named part: of a configuration of the card, of a folder, or of the whole data set.

    Raises:
        AssentError: there is no such part, or it has no file of data.
    """
    configurations = {str(entry.get("config_name", "default")): entry for entry in card.get("configs") or ()}
    if name.part in configurations:
        return _splits_of_configuration(configurations[name.part], files)
    if name.part:
        splits: Splits = group_by_split([file for file in files if file.startswith(f"{name.part}/")])
    elif configurations:
        flagged = [key for key, entry in configurations.items() if entry.get("default")]
        candidates = flagged or [key for key in configurations if key == "default"] or list(configurations)
        if len(candidates) > 1:
            raise AssentError(
                f"{name} has the configurations {', '.join(configurations)}: name one of them, such as "
                f"{name}/{candidates[0]}"
            )
        splits = _splits_of_configuration(configurations[candidates[0]], files)
    elif (name.revision or "").endswith("convert/parquet"):
        splits = group_by_split([file for file in files if file.startswith("default/")]) or group_by_split(files)
    else:
        splits = group_by_split([file for file in files if file.startswith("data/")]) or group_by_split(files)
    if splits:  # where a file names its split, one that names none is none of the data
        return {split: chosen for split, chosen in splits.items() if split or len(splits) == 1}
    if name.part:
        parts = [*configurations, *sorted({file.rpartition("/")[0] for file in files if "/" in file})]
        raise AssentError(f"{name}: no configuration or folder '{name.part}'; it has {', '.join(parts) or 'none'}")
    advice = "name another data set"
    if name.revision is None:
        advice = f"its loading script is not run; try {SCHEME}{name.id}@refs/convert/parquet"
    raise AssentError(f"{name} has no file of JSON lines, CSV, Parquet or Arrow: {advice}")


def _splits_of_configuration(entry: Mapping[str, Any], files: Sequence[str]) -> Splits:
    """Return the files of a configuration: `data_files` is a pattern, a list of them, or a list of splits."""
    folder = f"{entry['data_dir'].strip('/')}/" if entry.get("data_dir") else ""
    data_files = entry.get("data_files")
    if data_files is None:
        return group_by_split([file for file in files if file.startswith(folder)])
    listed = [data_files] if isinstance(data_files, str) else data_files
    splits: dict[str, list[str]] = {}
    for item in listed:
        patterns = item["path"] if isinstance(item, dict) else item
        split = str(item.get("split", "train")) if isinstance(item, dict) else "train"
        for pattern in [patterns] if isinstance(patterns, str) else patterns:
            splits.setdefault(split, []).extend(file for file in files if fnmatch.fnmatch(file, folder + pattern))
    return {split: matched for split, matched in splits.items() if matched}


@contextmanager
def _one_line_errors(name: HubName) -> Iterator[None]:
    """Raise the hub's errors as one line that says what to do.

    Raises:
        AssentError: no such data set or revision, no access, no network, a broken card.
    """
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
    except GatedRepoError:
        raise AssentError(f"{name} is gated: accept its terms on the hub, then log in with 'hf auth login'") from None
    except RepositoryNotFoundError:
        raise AssentError(f"no data set {name}: correct the name, or log in with 'hf auth login'") from None
    except RevisionNotFoundError:
        raise AssentError(f"{name}: no revision '{name.revision}'") from None
    except LocalEntryNotFoundError:
        raise AssentError(
            f"{name}: the hub cannot be reached, and its cache has no copy; run 'hf download {name.id} --repo-type "
            "dataset' where there is a network, or name a local file"
        ) from None
    except (_http_error(), HFValidationError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise AssentError(f"{name}: the hub cannot be read: {reason}") from None
