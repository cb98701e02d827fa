"""How likely a response is to an autoregressive model, the judge, which reads it behind its prompt.

Shape letters: R responses, Q tokens of the longest prompt with its response, M response tokens, V vocabulary.

The judge says how usual a text is, not how good. It prefers loops: the more often something was said, the
surer it is that it is said again, so that the most repetitive text can have the lowest number. Read it beside
the repetition measures of :mod:`t3d.evaluation.text_measures`.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from t3d.attention.forward import block_forward
from t3d.errors import InputError
from t3d.models.loading import LoadedModel
from t3d.models.token_ids import LoadedTokenizer


def check_judge(judge: LoadedModel, judged: LoadedTokenizer) -> None:
    """Raise InputError unless the judge predicts the next token, in the tokens of what it judges."""
    if judge.predicts != "next":
        problem = "a block-diffusion model, whose logits are not about the next token"
        fix = "give the autoregressive checkpoint that the model was converted from"
        raise InputError("judge", judge.source, problem, fix)
    ours, theirs = judge.tokenizer_hash, judged.tokenizer_hash
    if ours != theirs:
        problem = f"its tokenizer ({ours[:12]}) is not that of the texts ({theirs[:12]})"
        fix = "give the checkpoint that the model was converted from, or convert with a mask token it has"
        raise InputError("judge", judge.source, problem, fix)


def negative_log_likelihoods(
    judge: LoadedModel,
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    *,
    batch_size: int = 8,
    on_judged: Callable[[int], object] = lambda _: None,
) -> list[float]:
    """Of each response the mean of -log p(token | prompt, tokens before it), in nats per token.

    ``prompts`` and ``responses`` are token ids of the judge; a stop token in the response is judged too.
    ``on_judged`` is called with the number of responses of every finished batch. Raises InputError for a
    judge that does not predict the next token, and for an empty prompt or response.
    """
    check_judge(judge, judge)
    pairs = list(zip(prompts, responses, strict=True))
    for number, (prompt, response) in enumerate(pairs):
        if not prompt or not response:
            what = "responses" if prompt else "prompts"
            raise InputError(what, number, "empty, so that there is nothing to judge", "leave it out")
    # Of one length side by side, so that little is padded.
    order = sorted(range(len(pairs)), key=lambda index: sum(map(len, pairs[index])))
    found: dict[int, float] = {}
    for first in range(0, len(order), batch_size):
        indices = order[first : first + batch_size]
        found |= zip(indices, _of_batch(judge, [pairs[index] for index in indices]), strict=True)
        on_judged(len(indices))
    return [found[index] for index in range(len(pairs))]


@torch.inference_mode()
def _of_batch(judge: LoadedModel, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[float]:
    device = judge.model.device
    texts = [torch.tensor([*prompt, *response], device=device) for prompt, response in pairs]
    ids_RQ: Tensor = pad_sequence(texts, batch_first=True)  # behind the text, where no token of it looks
    size = ids_RQ.shape[1]
    causal = torch.ones(size, size, dtype=torch.bool, device=device).tril()
    places = torch.arange(size, device=device)
    # The token at a position is told by the logits of the one before.
    before_M = torch.cat(
        [
            places[len(prompt) - 1 : len(text) - 1] + row * size
            for row, ((prompt, _), text) in enumerate(zip(pairs, texts, strict=True))
        ]
    )
    logits_MV = block_forward(
        judge.model,
        ids_RQ,
        places.expand_as(ids_RQ),
        causal.expand(len(pairs), size, size),
        logit_positions=before_M,
    )
    logits_MV = logits_MV if logits_MV.dtype == torch.float64 else logits_MV.float()
    told_M = logits_MV.gather(1, ids_RQ.flatten()[before_M + 1, None])[:, 0]
    costs_M = logits_MV.logsumexp(1) - told_M
    return [part.mean().item() for part in costs_M.split([len(response) for _, response in pairs])]
