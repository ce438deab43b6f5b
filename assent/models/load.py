"""Models ready for use: a policy or a reward model with its tokenizer, checked before anything is trained."""

from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from assent.errors import AssentError, warn
from assent.models.attention import register
from assent.models.checkpoints import locate, not_there, quiet
from assent.models.families import settle
from assent.models.heads import HEAD, RewardModel, own_head, stored_head
from assent.models.tokenizer import ANSWER, DEFAULT_RENDERING, PROBE, ChatTokenizer, Rendering, load_codec
from assent.records import Completion, Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

NO_HEAD = "has no reward head, it is a policy: 'assent reward' makes a reward model of it"
NO_POLICY = "is a reward model, not a policy"


class LoadedModel(NamedTuple):
    """A model, and the codec of the tokenizer that it was trained with."""

    model: "PreTrainedModel"
    codec: ChatTokenizer

    @property
    def tokenizer(self) -> "PreTrainedTokenizerBase":
        return self.codec.tokenizer


def load_policy(
    where: str | Path,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    rendering: Rendering = DEFAULT_RENDERING,
) -> LoadedModel:
    """Load a causal language model.

    Args:
        where: a Hugging Face hub id, a folder, or a `.gguf` file.
        rendering: how its chat template is rendered.

    Raises:
        AssentError: there is no model there, none that can be loaded, or one whose tokenizer fails the contract.
    """
    from transformers import AutoModelForCausalLM

    def read(place: str, config: "PreTrainedConfig") -> tuple[Any, dict[str, Any]]:
        if hasattr(config, "reward_heads"):
            raise AssentError(f"{where} {NO_POLICY}")
        return _from_pretrained(AutoModelForCausalLM, place, dtype)

    return _load(read, where, device, rendering)


def load_reward(
    where: str | Path,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    rendering: Rendering = DEFAULT_RENDERING,
) -> LoadedModel:
    """Load a reward model: a sequence classifier with one label, or one for each of its heads, or a head of ours.

    Raises:
        AssentError: as `load_policy`, or a model without such a head.
    """
    return _reward(where, dtype, device, rendering)


def new_reward(
    where: str | Path,
    seed: int,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    heads: int = 1,
    rendering: Rendering = DEFAULT_RENDERING,
) -> LoadedModel:
    """A reward model that starts from a policy's body, with new heads whose first scores deviate by about 1/10.

    Published heads are N(0, 1/(h+1)) (Stiennon et al. 2020, arXiv:2009.01325), with scores of deviation 1 to start
    from; on the small data that this is mostly used with, that noise has to be unlearned first.
    """
    language = _reward(where, dtype, device, rendering, heads)
    head = language.model.get_submodule("score")
    weight = head.weight
    assert isinstance(weight, torch.Tensor)
    noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        weight.copy_(0.1 * noise / (weight.shape[-1] + 1) ** 0.5)
    return language


def context(model: "PreTrainedModel") -> int:
    """Positions that a model was made for."""
    return context_of(model.config)


def context_of(config: "PreTrainedConfig") -> int:
    """Positions that a model of such a configuration was made for; a very large number if it names no limit."""
    text = config.get_text_config()
    limits = (getattr(text, name, None) for name in ("max_position_embeddings", "n_positions", "max_seq_len"))
    return int(next(filter(None, limits), 1 << 30))


def _reward(
    where: str | Path, dtype: torch.dtype, device: str | torch.device, rendering: Rendering, new: int = 0
) -> LoadedModel:
    """With so many `new` heads; 0: with those that are stored."""

    def read(place: str, config: "PreTrainedConfig") -> tuple[Any, dict[str, Any]]:
        return _classifier(place, config, dtype, new) or _with_own_head(where, place, dtype, new)

    language = _load(read, where, device, rendering, {HEAD} if new else set())
    language = LoadedModel(language.model, replace(language.codec, scores=True))
    config: Any = language.model.config
    config.reward_heads = config.num_labels = len(language.model.get_submodule("score").weight)  # type: ignore[arg-type]
    # A classifier of transformers reads its score at the last token that is not the pad token.
    text = config.get_text_config()
    if text.pad_token_id is None or text.pad_token_id in language.codec.stop_ids:
        pad = language.codec.pad
        text.pad_token_id = pad if pad is not None and pad < text.vocab_size else None
    return language


def _classifier(
    place: str, config: "PreTrainedConfig", dtype: torch.dtype, new: int
) -> tuple[Any, dict[str, Any]] | None:
    """A classifier of transformers whose head is a `score`; None if the family has none, or ours is stored."""
    from transformers import AutoModelForSequenceClassification
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

    if type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING or own_head(place):
        return None
    heads = new or getattr(config, "reward_heads", 1)
    model, loaded = _from_pretrained(AutoModelForSequenceClassification, place, dtype, num_labels=heads)
    return (model, loaded) if isinstance(getattr(model, "score", None), nn.Linear) else None


def _with_own_head(where: str | Path, place: str, dtype: torch.dtype, new: int) -> tuple[Any, dict[str, Any]]:
    from transformers import AutoModel

    weight = None if new else stored_head(place)
    if not new and weight is None:
        raise AssentError(f"{where} {NO_HEAD}")
    body, loaded = _from_pretrained(AutoModel, place, dtype)
    if missing := loaded["missing_keys"]:
        raise AssentError(
            f"no reward model can be made of {where}: its body, a {type(body).__name__}, lacks {len(missing)} of its "
            f"weights, such as {min(missing)}"
        )
    model = RewardModel(body, new if weight is None else len(weight))
    if weight is not None:
        model.score.weight.data.copy_(weight)
    return model, loaded


def _from_pretrained(auto: Any, place: str, dtype: torch.dtype, **settings: Any) -> tuple[Any, dict[str, Any]]:
    """A model, and what was loaded of it; sizes that do not fit are told there."""
    model, loaded = auto.from_pretrained(
        place, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True, trust_remote_code=False, **settings
    )
    return model, loaded


def _load(
    read: Callable[[str, "PreTrainedConfig"], tuple[Any, dict[str, Any]]],
    where: str | Path,
    device: str | torch.device,
    rendering: Rendering,
    may_lack: Collection[str] = (),
) -> LoadedModel:
    from transformers import AutoConfig

    quiet()
    register()
    place, config = locate(where), None
    try:
        config = AutoConfig.from_pretrained(place, trust_remote_code=False)
        codec = load_codec(place, rendering)
        codec.require(str(where))
        model, loaded = read(place, config)
        embedding = model.get_input_embeddings()
    except AssentError:
        raise
    except Exception as error:  # noqa: BLE001 (a broken file makes torch, safetensors and transformers raise any kind)
        if refusal := _quantised(where, config):
            raise refusal from None
        if Path(place).is_dir():
            raise AssentError(f"cannot load the model in {place}: {_why(error, Path(place))}") from None
        raise not_there(where) from None
    if getattr(model, "is_quantized", False) and (refusal := _quantised(where, config)):
        raise refusal
    _refuse_other(where, loaded, set(may_lack))
    _refuse_ids(where, codec, len(getattr(embedding, "weight", codec.tokenizer)))
    _mend(model)
    model.to(device)
    model.eval()
    settle(model, str(where))
    return LoadedModel(model, replace(codec, rows=len(getattr(embedding, "weight", ()))))


def _quantised(where: str | Path, config: Any) -> AssentError | None:
    """Why a model is refused whose configuration says that its weights are quantised."""
    settings = getattr(config, "quantization_config", None)
    if not settings:
        return None
    method = settings.get("quant_method", "by an unknown method")
    return AssentError(
        f"{where} is quantised ({method}), and such weights are not trained: take the model that it was made from"
    )


def _mend(model: Any) -> None:
    """What some families do by themselves and training must not have."""
    from transformers import PreTrainedModel

    embedding = model.get_input_embeddings()
    if isinstance(embedding, nn.Embedding):
        embedding.padding_idx = None  # rows are padded by position: the pad token learns where it stands as text
    if model.base_model is model:  # Llama 4's text model is named for a wrapper that it is not in
        bodies = (name for name, part in model.named_children() if isinstance(part, PreTrainedModel))
        model.base_model_prefix = next(bodies, model.base_model_prefix)
    if getattr(model.config, "rescale_every", 0):
        model.config.rescale_every = 0  # RWKV's forward pass would halve the weights themselves, which are then saved
    if model.config.get_text_config() is not model.config and hasattr(model.base_model, "get_decoder"):
        text = [model.base_model.get_decoder(), getattr(model, "score", None) or model.get_output_embeddings()]
        model.requires_grad_(False)
        for part in text:
            part.requires_grad_(True)


def _refuse_other(where: str | Path, loaded: dict[str, Any], may_lack: set[str]) -> None:
    """What a checkpoint lacks would be filled in at random, and a head that it has too much be dropped."""
    missing, unexpected = set(loaded["missing_keys"]) - may_lack, set(loaded["unexpected_keys"])
    for name, stored, expected in sorted(loaded["mismatched_keys"]):
        if name == HEAD:
            raise AssentError(f"{where} is a classifier of {stored[0]} labels: a reward model has {expected[0]}")
        raise AssentError(
            f"cannot load the model in {where}: {name} is {' x '.join(map(str, stored))} in its weights and "
            f"{' x '.join(map(str, expected))} by its config.json"
        )
    if HEAD in unexpected:
        raise AssentError(f"{where} {NO_POLICY}")
    if missing == {HEAD}:
        raise AssentError(f"{where} {NO_HEAD}")
    if missing:
        raise AssentError(f"{where} is incomplete: it lacks {len(missing)} of its weights, such as {min(missing)}")
    if heads := sorted(name for name in unexpected if name.startswith("v_head.")):
        warn(f"{where} holds a value head ({', '.join(heads)}), which is left out")


def _refuse_ids(where: str | Path, codec: ChatTokenizer, rows: int) -> None:
    """A token that the tokenizer writes must have a row in the embedding; one that it never writes need not."""
    tokenizer = codec.tokenizer
    if len(tokenizer) <= rows:
        return
    special = {token for token, added in tokenizer.added_tokens_decoder.items() if added.special}
    probe = Prompt.plain("Name a bird:") if tokenizer.chat_template is None else Prompt(PROBE)
    encoded = codec.encode(probe, Completion(ANSWER))
    written = {*(set(tokenizer.get_vocab().values()) - special), *encoded.prompt, *encoded.completion}
    if (highest := max(written)) >= rows:
        raise AssentError(
            f"the tokenizer of {where} writes {tokenizer.convert_ids_to_tokens(highest)!r} as token {highest}, and its "
            f"embedding has {rows} rows: resize the embedding, or take the tokenizer that the model was trained with"
        )


def _why(error: Exception, folder: Path) -> str:
    if not any(folder.glob("*token*")) and not any(folder.glob("vocab*")):
        return "it holds no tokenizer"
    line = str(error).strip().splitlines()[0] if str(error).strip() else ""
    if "custom code" in line:
        return "it needs code of its own (auto_map), and assent runs no code that comes with a model"
    return line if isinstance(error, OSError) and line else f"{type(error).__name__}: {line}"
