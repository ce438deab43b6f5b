"""The alignment tax: how much worse a policy predicts held-out text than the model that it was trained from.

Askell et al. 2021 (arXiv:2112.00861) name the tax. The text is read without a chat template.
"""

from collections.abc import Sequence

from torch import Tensor

from assent.errors import AssentError
from assent.functional.compression import bits_per_byte, word_perplexity
from assent.models.forward import logprobs
from assent.models.load import LoadedModel, context_length
from assent.models.packing import SharedPrefix, pack
from assent.models.tokenizer import ChatTokenizer
from assent.records import Prompt
from assent.training.batching import INFERENCE_TOKENS
from assent.training.logging import ProgressBar
from assent.training.microbatch import map_batches


def measure_text_likelihood(
    model: LoadedModel, documents: Sequence[str], max_tokens: int = INFERENCE_TOKENS, progress: str = "likelihood"
) -> dict[str, float]:
    """Return the likelihood of documents: `bits_per_byte`, `word_perplexity`, `nats`, `bytes`, `documents`.

    Each token of the documents counts once; an end token does not count. Models whose tokenizers differ can be compared
    in bits per byte, if no tokenizer loses text. A model with a longer context sees more of a long document.

    Args:
        documents: texts, such as those of `texts.read_documents`.
        max_tokens: tokens in a batch; a window that is longer is a batch of its own.
        progress: the name in the progress bar.

    Raises:
        AssentError: the documents have no word.
    """
    words = sum(len(document.split()) for document in documents)
    if not words:
        raise AssentError("the documents have no word to predict: give a file with text")
    windows = [
        window
        for document in documents
        for window in _windows(document, model.chat_tokenizer, context_length(model.model))
    ]

    def sums(part: list[SharedPrefix]) -> Tensor:
        batch = pack(part).to(model.model.device)
        return batch.sum_completions(logprobs(model.model, batch).logprobs.double())

    with ProgressBar(progress, len(windows)) as bar:
        nats = -sum(float(total) for total in map_batches(windows, max_tokens, sums, bar.advance))
    num_bytes = sum(len(document.encode()) for document in documents)
    return {
        "bits_per_byte": bits_per_byte(nats, num_bytes),
        "word_perplexity": word_perplexity(nats, words),
        "nats": nats,
        "bytes": num_bytes,
        "documents": len(documents),
    }


def _windows(document: str, tokenizer: ChatTokenizer, context: int) -> list[SharedPrefix]:
    """Cut a document into windows that fill the context, as pretraining does: BOS or the end token begins each.

    A control token that the document spells is text.
    """
    prompt = Prompt.plain(tokenizer.control_tokens.escape(document))
    first, *ids = tokenizer.encode_prompt(prompt)
    size = context - 1
    return [SharedPrefix((first,), (tuple(ids[begin : begin + size]),)) for begin in range(0, len(ids), size)]
