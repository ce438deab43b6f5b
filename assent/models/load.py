"""Loading a policy or a reward model with its tokenizer; both are checked before anything is trained."""

from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from assent.errors import AssentError, warn
from assent.models.attention import register_attention
from assent.models.chat_template import PROBE_COMPLETION
from assent.models.checkpoints import locate, model_not_found, silence_transformers
from assent.models.families import enable_packing
from assent.models.heads import HEAD_KEY, RewardModel, find_head_file, read_head
from assent.models.rendering import DEFAULT_RENDERING, Rendering
from assent.models.tokenizer import ChatTokenizer, read_chat_tokenizer
from assent.models.tokenizer_checks import probe_prompt, require_valid
from assent.records import Completion

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

NO_HEAD = "has no reward head, it is a policy; train a reward model from it with 'assent reward'"
NO_POLICY = "is a reward model, not a policy"


class LoadedModel(NamedTuple):
    """A model with the tokenizer that it was trained with."""

    model: "PreTrainedModel"
    chat_tokenizer: ChatTokenizer

    @property
    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """Return the tokenizer of transformers."""
        return self.chat_tokenizer.tokenizer


def load_policy(
    model_id: str | Path,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    rendering: Rendering = DEFAULT_RENDERING,
) -> LoadedModel:
    """Load a causal language model.

    Args:
        model_id: a Hugging Face hub id, a folder, or a `.gguf` file.
        rendering: settings of its chat template.

    Raises:
        AssentError: there is no model there, it cannot be loaded, or its tokenizer fails the contract.
    """
    from transformers import AutoModelForCausalLM

    def read(place: str, config: "PreTrainedConfig") -> tuple[Any, dict[str, Any]]:
        if hasattr(config, "reward_heads"):
            raise AssentError(f"{model_id} {NO_POLICY}")
        return _from_pretrained(AutoModelForCausalLM, place, dtype)

    return _load(read, model_id, device, rendering)


def load_reward(
    model_id: str | Path,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    rendering: Rendering = DEFAULT_RENDERING,
) -> LoadedModel:
    """Load a reward model: a sequence classifier with one label for each head, or a body with a `reward_head` file.

    Raises:
        AssentError: as `load_policy`, or a model without such a head.
    """
    return _load_reward(model_id, dtype, device, rendering)


def new_reward(
    model_id: str | Path,
    seed: int,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    heads: int = 1,
    rendering: Rendering = DEFAULT_RENDERING,
) -> LoadedModel:
    """Return a reward model on a policy's body, with new heads whose first scores have a standard deviation near 0.1.

    Published heads are N(0, 1/(h+1)) (Stiennon et al. 2020, arXiv:2009.01325), with a standard deviation of 1 at the
    start. On small data sets training has to unlearn that noise first.
    """
    loaded = _load_reward(model_id, dtype, device, rendering, heads)
    head = loaded.model.get_submodule("score")
    weight = head.weight
    assert isinstance(weight, torch.Tensor)
    noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        weight.copy_(0.1 * noise / (weight.shape[-1] + 1) ** 0.5)
    return loaded


def context_length(model: "PreTrainedModel") -> int:
    """Return the number of positions that a model supports."""
    return max_positions(model.config)


def max_positions(config: "PreTrainedConfig") -> int:
    """Return the number of positions that a configuration supports; a very large number if it names no limit."""
    text = config.get_text_config()
    limits = (getattr(text, name, None) for name in ("max_position_embeddings", "n_positions", "max_seq_len"))
    return int(next(filter(None, limits), 1 << 30))


def _load_reward(
    model_id: str | Path, dtype: torch.dtype, device: str | torch.device, rendering: Rendering, new_heads: int = 0
) -> LoadedModel:
    """Load a reward model with `new_heads` heads; 0: with the stored heads."""

    def read(place: str, config: "PreTrainedConfig") -> tuple[Any, dict[str, Any]]:
        return _load_classifier(place, config, dtype, new_heads) or _load_with_head_file(
            model_id, place, dtype, new_heads
        )

    loaded = _load(read, model_id, device, rendering, {HEAD_KEY} if new_heads else set())
    loaded = LoadedModel(loaded.model, replace(loaded.chat_tokenizer, is_reward_model=True))
    config: Any = loaded.model.config
    config.reward_heads = config.num_labels = len(loaded.model.get_submodule("score").weight)  # type: ignore[arg-type]
    # A classifier of transformers reads its score at the last token that is not the pad token.
    text = config.get_text_config()
    if text.pad_token_id is None or text.pad_token_id in loaded.chat_tokenizer.stop_ids:
        pad = loaded.chat_tokenizer.pad_id
        text.pad_token_id = pad if pad is not None and pad < text.vocab_size else None
    return loaded


def _load_classifier(
    place: str, config: "PreTrainedConfig", dtype: torch.dtype, new_heads: int
) -> tuple[Any, dict[str, Any]] | None:
    """Load a classifier of transformers with a linear `score`; None if the family has none or a head file exists."""
    from transformers import AutoModelForSequenceClassification
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

    if type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING or find_head_file(place):
        return None
    heads = new_heads or getattr(config, "reward_heads", 1)
    model, loading_info = _from_pretrained(AutoModelForSequenceClassification, place, dtype, num_labels=heads)
    return (model, loading_info) if isinstance(getattr(model, "score", None), nn.Linear) else None


def _load_with_head_file(
    model_id: str | Path, place: str, dtype: torch.dtype, new_heads: int
) -> tuple[Any, dict[str, Any]]:
    """Load a body with a linear head beside it, for families without a classifier."""
    from transformers import AutoModel

    weight = None if new_heads else read_head(place)
    if not new_heads and weight is None:
        raise AssentError(f"{model_id} {NO_HEAD}")
    body, loading_info = _from_pretrained(AutoModel, place, dtype)
    if missing := loading_info["missing_keys"]:
        raise AssentError(
            f"cannot make a reward model of {model_id}: its body, a {type(body).__name__}, lacks {len(missing)} "
            f"weights, such as {min(missing)}"
        )
    model = RewardModel(body, new_heads if weight is None else len(weight))
    if weight is not None:
        model.score.weight.data.copy_(weight)
    return model, loading_info


def _from_pretrained(auto: Any, place: str, dtype: torch.dtype, **settings: Any) -> tuple[Any, dict[str, Any]]:
    """Load a model and transformers' loading info, which lists weights that are missing or of another size."""
    model, loading_info = auto.from_pretrained(
        place, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True, trust_remote_code=False, **settings
    )
    return model, loading_info


def _load(
    read: Callable[[str, "PreTrainedConfig"], tuple[Any, dict[str, Any]]],
    model_id: str | Path,
    device: str | torch.device,
    rendering: Rendering,
    may_lack: Collection[str] = (),
) -> LoadedModel:
    """Load a model and its tokenizer, refuse what cannot be trained, and enable packing where the family supports it.

    Args:
        read: loads the model from a located place; returns it with transformers' loading info.
        may_lack: weights that may be missing because they are new.
    """
    register_attention()
    with silence_transformers():
        tokenizer, model, loading_info = _read(read, model_id, rendering)
        embedding = model.get_input_embeddings()
        _check_weights(model_id, loading_info, set(may_lack))
        _check_token_ids(model_id, tokenizer, len(getattr(embedding, "weight", tokenizer.tokenizer)))
        _adjust(model)
        model.to(device)
        model.eval()
        enable_packing(model, str(model_id))
    return LoadedModel(model, replace(tokenizer, num_embeddings=len(getattr(embedding, "weight", ()))))


def _read(
    read: Callable[[str, "PreTrainedConfig"], tuple[Any, dict[str, Any]]], model_id: str | Path, rendering: Rendering
) -> tuple[ChatTokenizer, Any, dict[str, Any]]:
    """Read a tokenizer, a model and its loading info; raise one line for whatever libraries raise at a broken file."""
    from transformers import AutoConfig

    place = locate(model_id)
    config = None
    try:
        config = AutoConfig.from_pretrained(place, trust_remote_code=False)
        tokenizer = read_chat_tokenizer(place, rendering)
        require_valid(tokenizer, str(model_id))
        model, loading_info = read(place, config)
        model.get_input_embeddings()  # a family without them raises here
    except AssentError:
        raise
    except Exception as error:  # noqa: BLE001 (a broken file makes torch, safetensors and transformers raise any kind)
        if refusal := _quantization_error(model_id, config):
            raise refusal from None
        if Path(place).is_dir():
            raise AssentError(f"cannot load the model in {place}: {_reason(error, Path(place))}") from None
        raise model_not_found(model_id) from None
    if getattr(model, "is_quantized", False) and (refusal := _quantization_error(model_id, config)):
        raise refusal
    return tokenizer, model, loading_info


def _quantization_error(model_id: str | Path, config: Any) -> AssentError | None:
    """Return the error for a model whose configuration says that its weights are quantised; None for others."""
    settings = getattr(config, "quantization_config", None)
    if not settings:
        return None
    method = settings.get("quant_method", "by an unknown method")
    return AssentError(
        f"{model_id} is quantised ({method}), and such weights cannot be trained; use the model that it was made from"
    )


def _adjust(model: Any) -> None:
    """Switch off what some families do by themselves and what would spoil training."""
    from transformers import PreTrainedModel

    embedding = model.get_input_embeddings()
    if isinstance(embedding, nn.Embedding):
        embedding.padding_idx = None  # rows are padded by position: a pad token in a text is learned
    if model.base_model is model:  # Llama 4's text model has the prefix of a wrapper that it is not in
        bodies = (name for name, part in model.named_children() if isinstance(part, PreTrainedModel))
        model.base_model_prefix = next(bodies, model.base_model_prefix)
    if getattr(model.config, "rescale_every", 0):
        model.config.rescale_every = (
            0  # RWKV's forward pass would halve the weights in place, and they would be saved so
        )
    if model.config.get_text_config() is not model.config and hasattr(model.base_model, "get_decoder"):
        text = [model.base_model.get_decoder(), getattr(model, "score", None) or model.get_output_embeddings()]
        model.requires_grad_(False)
        for part in text:
            part.requires_grad_(True)


def _check_weights(model_id: str | Path, loading_info: dict[str, Any], may_lack: set[str]) -> None:
    """Refuse a checkpoint with missing weights, which would be random, or with a head that would be dropped."""
    missing = set(loading_info["missing_keys"]) - may_lack
    unexpected = set(loading_info["unexpected_keys"])
    for name, stored, expected in sorted(loading_info["mismatched_keys"]):
        if name == HEAD_KEY:
            raise AssentError(f"{model_id} is a classifier of {stored[0]} labels; a reward model has {expected[0]}")
        raise AssentError(
            f"cannot load the model in {model_id}: {name} is {' x '.join(map(str, stored))} in its weights and "
            f"{' x '.join(map(str, expected))} by its config.json"
        )
    if HEAD_KEY in unexpected:
        raise AssentError(f"{model_id} {NO_POLICY}")
    if missing == {HEAD_KEY}:
        raise AssentError(f"{model_id} {NO_HEAD}")
    if missing:
        raise AssentError(f"{model_id} is incomplete: it lacks {len(missing)} of its weights, such as {min(missing)}")
    if heads := sorted(name for name in unexpected if name.startswith("v_head.")):
        warn(f"{model_id} holds a value head ({', '.join(heads)}), which is left out")


def _check_token_ids(model_id: str | Path, tokenizer: ChatTokenizer, rows: int) -> None:
    """Refuse a tokenizer that writes a token without a row in the embedding; unused tokens may lack one."""
    inner = tokenizer.tokenizer
    if len(inner) <= rows:
        return
    special = {token for token, added in inner.added_tokens_decoder.items() if added.special}
    encoded = tokenizer.encode(probe_prompt(tokenizer), Completion(PROBE_COMPLETION))
    written = {*(set(inner.get_vocab().values()) - special), *encoded.prompt_ids, *encoded.completion_ids}
    if (highest := max(written)) >= rows:
        raise AssentError(
            f"the tokenizer of {model_id} writes {inner.convert_ids_to_tokens(highest)!r} as token {highest}, and its "
            f"embedding has {rows} rows; resize the embedding, or use the tokenizer that the model was trained with"
        )


def _reason(error: Exception, folder: Path) -> str:
    if not any(folder.glob("*token*")) and not any(folder.glob("vocab*")):
        return "it holds no tokenizer"
    line = str(error).strip().splitlines()[0] if str(error).strip() else ""
    if "custom code" in line:
        return "it needs its own code (auto_map), and assent runs no code that comes with a model"
    return line if isinstance(error, OSError) and line else f"{type(error).__name__}: {line}"
