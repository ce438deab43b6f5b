"""A reward model of a family for which transformers has no sequence classifier: the family's body with a linear head.

Its folder is that of the body, as `AutoModel` reads it, with the head beside it. Plain transformers scores a
conversation so:

    import torch
    from safetensors.torch import load_file
    from transformers import AutoModel, AutoTokenizer

    body, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    head = load_file(f"{folder}/reward_head.safetensors")["score.weight"]
    ids = tokenizer.apply_chat_template(conversation, return_tensors="pt", return_dict=True)["input_ids"]
    ends = [i for i, token in enumerate(ids[0].tolist()) if token in tokenizer.all_special_ids]
    states = body(input_ids=ids[:, : ends[-1] + 1], use_cache=False).last_hidden_state  # up to the answer's end token
    score = (states[0, -1] @ head.T)[0].item()
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

HEAD = "score.weight"
"""What makes a model a reward model, in the files of transformers' classifiers and in ours."""
FILE = "reward_head.safetensors"


class RewardModel(nn.Module):
    """A body and its head, as the rest of assent knows a model of transformers."""

    def __init__(self, body: Any, heads: int) -> None:
        super().__init__()
        self.config, self.name_or_path = body.config, body.name_or_path
        self.base_model_prefix = body.base_model_prefix or "model"  # as in a policy: so an adapter's names fit both
        self.add_module(self.base_model_prefix, body)
        self.score = nn.Linear(body.config.get_text_config().hidden_size, heads, bias=False)
        self.score.to(body.device, body.dtype)

    @property
    def base_model(self) -> Any:
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
        """It has none."""

    def set_attn_implementation(self, name: Any) -> None:
        self.base_model.set_attn_implementation(name)

    def save_pretrained(self, folder: str | Path, **settings: Any) -> None:
        """Write the body as transformers does, and the head beside it."""
        from safetensors.torch import save_file

        self.base_model.save_pretrained(folder, **settings)
        save_file({HEAD: self.score.weight.detach().cpu().contiguous()}, Path(folder) / FILE, {"format": "pt"})


def stored_head(where: str | Path) -> Tensor | None:
    """The heads of a reward model, (heads, H), of either kind; None if a folder or hub id holds none."""
    from safetensors import safe_open

    own = own_head(where)
    for path in [own] if own else [*sorted(Path(where).glob("*.safetensors")), *_cached(where, "model.safetensors")]:
        with safe_open(path, "pt") as file:
            if HEAD in file.keys():  # noqa: SIM118 (it is no mapping)
                weight: Tensor = file.get_tensor(HEAD)
                return weight
    return None


def own_head(where: str | Path) -> Path | None:
    """The file of a head of ours, if a folder or hub id holds one."""
    return next(_cached(where, FILE), None)


def _cached(where: str | Path, name: str) -> Iterator[Path]:
    """A file of a folder or hub id, if it is there."""
    from transformers.utils.hub import cached_file

    path = cached_file(
        str(where), name, _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_connection_errors=False
    )
    if path is not None:
        yield Path(path)
