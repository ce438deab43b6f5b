"""Facts about a model for `assent inspect`: read from its files, and measured on a few tokens."""

import json
from collections import Counter
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from assent.errors import AssentError
from assent.models.attention import supports_packing
from assent.models.families import compare_with_transformers
from assent.models.forward import decoder_layers
from assent.models.heads import find_head_file, read_head
from assent.models.load import LoadedModel, max_positions
from assent.models.tokenizer import ChatTokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

DTYPE_BYTES = {"F64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I64": 8}
"""Bytes of the dtypes of safetensors; all others have one byte."""

POLICY = "a policy: every stage trains it, and 'assent reward' trains a reward model from it"
TOLERANCE = 1e-3
"""Accepted difference in float32."""


class Fact(NamedTuple):
    """One line about a model."""

    name: str
    text: str
    is_ok: bool = True


class StoredWeights(NamedTuple):
    """The weights in the files of a model."""

    num_weights: int
    num_bytes: int  # bytes
    dtypes: tuple[str, ...]  # the most frequent first


def describe_files(place: str, weights: StoredWeights | None, tokenizer: ChatTokenizer) -> list[Fact]:
    """Return the facts in the files of a model, without loading it.

    Args:
        place: its folder or hub id, as `locate` gives it.
        weights: the result of `count_weights` for it.

    Raises:
        AssentError: the configuration cannot be read.
    """
    config = _config(place)
    names = ", ".join(config.architectures or [type(config).__name__])
    size = "no weights on this machine" if weights is None else (
        f"{_format_count(weights.num_weights)} weights in {', '.join(weights.dtypes)}, {weights.num_bytes / 1e9:.2f} GB"
    )  # fmt: skip
    rows = int(config.get_text_config().vocab_size)
    tokens = len(tokenizer.tokenizer)
    limit = max_positions(config)
    return [
        Fact("model", f"{names} ({config.model_type}): {size}"),
        Fact("kind", _kind(place, config)),
        Fact("context", f"{limit:,} tokens" if limit < 1 << 30 else "no limit named"),
        Fact("vocabulary", f"{tokens:,} tokens, {rows:,} rows in the embedding"),
        Fact("template", _template(tokenizer)),
        Fact("thoughts", tokenizer.template.describe_thoughts()),
        Fact("ends", ", ".join(_token_names(tokenizer, sorted(tokenizer.stop_ids))) or "none"),
        Fact("reward head", _reward_head(place, config)),
    ]


def count_weights(place: str) -> StoredWeights | None:
    """Count the weights in the safetensors files of a folder by their headers; None: there are none."""
    count = size = 0
    dtypes = Counter[str]()
    for path in Path(place).glob("*.safetensors") if Path(place).is_dir() else ():
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        for name, tensor in header.items():
            if name != "__metadata__":
                elements = prod(tensor["shape"])
                count += elements
                size += elements * DTYPE_BYTES.get(tensor["dtype"], 1)
                dtypes[tensor["dtype"]] += elements
    return StoredWeights(count, size, tuple(name for name, _ in dtypes.most_common())) if count else None


def describe_loaded(loaded: LoadedModel) -> list[Fact]:
    """Return the facts that were found when the model was loaded."""
    layout = "padded rows: each completion is encoded with its prompt, more slowly"
    if supports_packing(loaded.model.base_model):
        layout = "packed batches: a prompt is encoded once for all its completions"
    try:
        layers = f"up to {len(decoder_layers(loaded.model))} (--trainable-value-layers)"
    except AssentError as error:
        layers = str(error)
    return [Fact("read as", layout), Fact("value layers", layers)]


def compare_loaded(loaded: LoadedModel, plain: Any) -> list[Fact]:
    """Return how far a policy in float32 differs from the same model in transformers' own forward pass."""
    difference = compare_with_transformers(loaded.model, plain)
    return [
        Fact(
            "log-probabilities",
            f"at most {difference.logprobs:.0e} nats from transformers' own forward pass",
            difference.logprobs < TOLERANCE,
        ),
        Fact(
            "gradients",
            f"at most {difference.gradients:.0e} of the largest from its own",
            difference.gradients < TOLERANCE,
        ),
    ]


def _config(place: str) -> "PreTrainedConfig":
    from transformers import AutoConfig

    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(place, trust_remote_code=False)
    except Exception as error:  # noqa: BLE001 (a broken file makes libraries raise any kind)
        line = (str(error) or type(error).__name__).strip().splitlines()[0]
        raise AssentError(f"cannot read the configuration of {place}: {line}") from None
    return config


def is_reward(place: str) -> bool:
    """Return whether a model is a reward model, or another classifier."""
    return _kind(place, _config(place)) != POLICY


def _kind(place: str, config: "PreTrainedConfig") -> str:
    head = read_head(place) if Path(place).is_dir() else None
    if head is not None:
        return f"a reward model with {len(head)} head{'' if len(head) == 1 else 's'}, for --rewards and --judge"
    if any("SequenceClassification" in name for name in config.architectures or ()):
        return f"a classifier of {config.num_labels} labels"
    return POLICY


def _reward_head(place: str, config: "PreTrainedConfig") -> str:
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING as CLASSIFIERS

    if find_head_file(place) or type(config) not in CLASSIFIERS:
        return "of assent, in a file beside the body"
    classifier: Any = CLASSIFIERS[type(config)]
    return f"of transformers ({classifier.__name__})"


def _template(tokenizer: ChatTokenizer) -> str:
    if tokenizer.tokenizer.chat_template is None:
        return "none: the model continues text and takes no conversations"
    try:
        dated = (
            ", writes the date (--date)" if tokenizer.template.text() != tokenizer.tokenizer.get_chat_template() else ""
        )
    except AssentError as error:
        return str(error)
    reads = (
        f"reads {', '.join(sorted(tokenizer.template.arguments))} (--template-args)"
        if tokenizer.template.arguments
        else "takes no arguments"
    )
    return f"{reads}{dated}"


def _token_names(tokenizer: ChatTokenizer, ids: list[int]) -> list[str]:
    return [str(tokenizer.tokenizer.convert_ids_to_tokens(token)) for token in ids]


def _format_count(count: int) -> str:
    return f"{count / 1e9:.2f} B" if count >= 1e9 else f"{count / 1e6:.1f} M" if count >= 1e5 else f"{count:,}"
