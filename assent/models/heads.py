"""Reward models of families for which transformers has no sequence classifier: the family's body with a linear head.

The folder is that of the body, as `AutoModel` reads it, with the head in a file beside it. With plain transformers a
conversation is scored like this:

    import torch
    from safetensors.torch import load_file
    from transformers import AutoModel, AutoTokenizer

    body, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    head = load_file(f"{folder}/reward_head.safetensors")["score.weight"]
    ids = tokenizer.apply_chat_template(conversation, return_tensors="pt", return_dict=True)["input_ids"]
    ends = [i for i, token in enumerate(ids[0].tolist()) if token in tokenizer.all_special_ids]
    ids = ids[:, : ends[-1] + 1]  # up to the end token of the completion
    states = body(input_ids=ids, use_cache=False).last_hidden_state
    score = (states[0, -1] @ head.T)[0].item()
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

HEAD_KEY = "score.weight"
"""Name of the head's weight in the files of transformers' classifiers and in `HEAD_FILE`."""
HEAD_FILE = "reward_head.safetensors"


class RewardModel(nn.Module):
    """A body with a score head, with the attributes of a transformers model that assent uses."""

    def __init__(self, body: Any, heads: int) -> None:
        super().__init__()
        self.config, self.name_or_path = body.config, body.name_or_path
        self.base_model_prefix = (
            body.base_model_prefix or "model"
        )  # as in a policy, so that an adapter's names fit both
        self.add_module(self.base_model_prefix, body)
        self.score = nn.Linear(body.config.get_text_config().hidden_size, heads, bias=False)
        self.score.to(body.device, body.dtype)

    @property
    def base_model(self) -> Any:
        """Return the body."""
        return self.get_submodule(self.base_model_prefix)

    @property
    def device(self) -> torch.device:
        return self.score.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.score.weight.dtype

    def get_input_embeddings(self) -> nn.Module:
        table: nn.Module = self.base_model.get_input_embeddings()
        return table

    def get_output_embeddings(self) -> None:
        """Return None: there is no language-model head."""

    def set_attn_implementation(self, name: Any) -> None:
        self.base_model.set_attn_implementation(name)

    def save_pretrained(self, folder: str | Path, **settings: Any) -> None:
        """Write the body as transformers does, and the head into a file beside it."""
        from safetensors.torch import save_file

        self.base_model.save_pretrained(folder, **settings)
        save_file({HEAD_KEY: self.score.weight.detach().cpu().contiguous()}, Path(folder) / HEAD_FILE, {"format": "pt"})


class ValueHead(nn.Module):
    """A linear map from a policy's hidden states to values, which are 0 at first."""

    def __init__(self, policy: Any) -> None:
        super().__init__()
        self.score = nn.Linear(policy.config.get_text_config().hidden_size, 1, bias=False, device=policy.device)
        nn.init.zeros_(self.score.weight)


def has_score_head(model: nn.Module) -> bool:
    """Return whether a model is a reward or value model: of transformers, a `RewardModel` or an adapter's view."""
    return isinstance(getattr(model, "score", None), nn.Module)


def read_head(model_id: str | Path) -> Tensor | None:
    """Return the heads of a reward model of either kind, (heads, H); None if a folder or hub id holds none."""
    from safetensors import safe_open

    head_file = find_head_file(model_id)
    files = [*sorted(Path(model_id).glob("*.safetensors")), *_find_file(model_id, "model.safetensors")]
    for path in [head_file] if head_file else files:
        with safe_open(path, "pt") as file:
            if HEAD_KEY in file.keys():  # noqa: SIM118 (not a mapping)
                weight: Tensor = file.get_tensor(HEAD_KEY)
                return weight
    return None


def find_head_file(model_id: str | Path) -> Path | None:
    """Return the `HEAD_FILE` of a folder or hub id, if there is one."""
    return next(_find_file(model_id, HEAD_FILE), None)


def _find_file(model_id: str | Path, name: str) -> Iterator[Path]:
    """Yield the path of a file of a folder or hub id, if there is one."""
    from transformers.utils.hub import cached_file

    path = cached_file(
        str(model_id), name, _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_connection_errors=False
    )
    if path is not None:
        yield Path(path)
