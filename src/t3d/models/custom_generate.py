"""``generate`` of a block-diffusion student, for transformers: it needs torch and transformers, nothing else.

``t3d`` (few-step decoding of block-diffusion language models, Apache-2.0) writes it beside a student, as
``custom_generate/generate.py``, which is where transformers looks for it::

    model = AutoModelForCausalLM.from_pretrained(FOLDER, trust_remote_code=True)  # model.generate is this one
    model.generate(input_ids, max_new_tokens=256)
    model.generate(input_ids=input_ids, custom_generate=FOLDER, trust_remote_code=True)

It decodes as ``t3d.LLM`` does: the same tokens where it is greedy, up to rounding; draws come from torch's
generator. One row is decoded after another, with a cache; an engine decodes many at once. S block size, V
vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, TopKLogitsWarper, TopPLogitsWarper

STRATEGIES = ("low_confidence_static", "low_confidence_dynamic", "entropy_bounded", "sequential", "random")
_ATTENTION = ("sdpa", "t3d_by_argument")
"""Implementations that take a mask of booleans with four axes."""
_KINDS = {str(int): (int,), str(float): (float, int), str(str): (str,)}
"""By type of a field of Settings, what counts as one."""
_NEUTRAL = {"use_cache": True, "num_beams": 1, "repetition_penalty": 1}
"""Arguments of transformers that this has not, with what changes nothing besides None, False and no list."""
_OF_LOADING = ("custom_generate", "trust_remote_code")
_OF_CONFIG = ("max_new_tokens", "do_sample", "temperature", "top_k", "top_p", "eos_token_id", "pad_token_id")
_OF_CONFIG += ("max_length", "num_beams", "repetition_penalty", "min_new_tokens", "bad_words_ids")
_OF_CONFIG += ("stop_strings",)
"""What a generation config says that the caller made or changed."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a block is decoded: arguments of :func:`generate`, else what the student's generation_config.json
    has as ``block_diffusion``, else these."""

    block_size: int
    """Tokens of a block; the student's own is in its config.json."""
    steps_per_block: int
    """Forwards of a block; or ``tokens_per_step``. All, unless the student or the caller says less."""
    remasking: str = "low_confidence_static"
    """One of STRATEGIES: which of a block's masks a step fills."""
    confidence_threshold: float = 0.9
    entropy_bound: float = 0.1
    confidence: str = "model"
    temperature: float = 0.1
    """0, or do_sample=False: greedy."""
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        size = self.block_size
        for name, holds, fix in (
            ("remasking", self.remasking in STRATEGIES, f"use {', '.join(STRATEGIES)}, or decode by t3d.LLM"),
            ("block_size", size >= 1, "use 1 or more"),
            ("steps_per_block", 1 <= self.steps_per_block <= size, f"use 1 to {size}"),
            ("temperature", self.temperature >= 0, "use 0 (greedy) or more"),
            ("top_p", 0 < self.top_p <= 1, "use more than 0, at most 1"),
            ("confidence", self.confidence in ("model", "sampled"), "use model or sampled"),
        ):
            if not holds:
                raise _error(name, getattr(self, name), "cannot be used here", fix)

    @property
    def schedule(self) -> tuple[int, ...]:
        """Tokens that each step of a block fills."""
        quotient, remainder = divmod(self.block_size, self.steps_per_block)
        return tuple(quotient + (step < remainder) for step in range(self.steps_per_block))


@torch.no_grad()
def generate(
    inputs: Tensor | None = None,
    *,
    model: Any,
    input_ids: Tensor | None = None,
    attention_mask: Tensor | None = None,
    generation_config: Any = None,
    num_return_sequences: int | None = None,
    stopping_criteria: Sequence[Callable[..., Any]] | None = None,
    streamer: Any = None,
    **given: Any,
) -> Tensor:
    """Prompts of one length, or padded on the left, with their answers behind: int64 ``[rows, tokens]``.

    An answer ends with its stop token, or has ``max_new_tokens`` (else ``max_length`` less the prompt's, else
    256); shorter ones are padded. Other arguments: the fields of :class:`Settings`, ``tokens_per_step``,
    ``do_sample``, ``eos_token_id`` and ``pad_token_id``. ``stopping_criteria`` are asked behind each token of
    a single row, and a ``streamer`` is told its blocks. Raises ValueError for what it has not.
    """
    prompts = inputs if input_ids is None else input_ids
    if prompts is None or prompts.ndim != 2:
        shape = None if prompts is None else tuple(prompts.shape)
        raise _error("input_ids", shape, "not of rows and tokens", "give token ids [rows, tokens]")
    count, num_prompt = num_return_sequences or 1, prompts.shape[1]
    if len(prompts) * count > 1 and (stopping_criteria or streamer is not None):
        name = "streamer" if streamer is not None else "stopping_criteria"
        raise _error(name, "given", "there are several rows, and it is asked of one", "give one at a time")
    own = model.generation_config
    if generation_config is not None:  # the model's own values there are of autoregressive decoding
        said = {name: getattr(generation_config, name, None) for name in _OF_CONFIG}
        given = {name: value for name, value in said.items() if value != getattr(own, name, None)} | given
    # Of a model that was loaded with trust_remote_code model.generate is this one, and is told these two.
    given = {name: v for name, v in given.items() if v is not None and name not in _OF_LOADING}
    longest = given.pop("max_length", num_prompt + 256)
    limit = _typed("max_new_tokens", given.pop("max_new_tokens", longest - num_prompt), int)
    stops = _ids(given.pop("eos_token_id", own.eos_token_id))
    pad = given.pop("pad_token_id", min(stops, default=0) if own.pad_token_id is None else own.pad_token_id)
    settings = _settings(model, own, given)
    ends = _Ends(limit=limit, stops=stops, criteria=list(stopping_criteria or ()))
    rows = prompts.repeat_interleave(count, dim=0)
    seen = torch.ones_like(prompts) if attention_mask is None else attention_mask
    seen = seen.bool().repeat_interleave(count, dim=0)
    if (seen[:, :-1] & ~seen[:, 1:]).any() or not seen[:, -1:].all():
        raise _error("attention_mask", "given", "not of padding on the left alone", "pad prompts on the left")
    answers = [
        _decode(model, row[seen_T], settings, ends, streamer) for row, seen_T in zip(rows, seen, strict=True)
    ]
    answers = torch.nn.utils.rnn.pad_sequence(answers, batch_first=True, padding_value=pad)
    return torch.cat([rows, answers], dim=1)


def _settings(model: Any, own: Any, given: dict[str, Any]) -> Settings:
    """Those of a call, ``given`` what was given for it."""
    told = dict(getattr(own, "block_diffusion", None) or {})
    own_size = told.get("block_size", getattr(model.config, "block_size", None))
    size, steps = given.get("block_size", own_size), given.pop("tokens_per_step", None)
    if size is None:
        raise _error("block_size", None, "the student's config.json has none", "give one")
    if size != own_size:
        told.pop("steps_per_block", None)  # they belong to the student's own blocks
    if steps is not None:
        if _typed("block_size", size, int) % max(1, _typed("tokens_per_step", steps, int)) or steps < 1:
            problem = f"does not divide block_size={size}"
            raise _error("tokens_per_step", steps, problem, f"use divisors of {size}")
        given = {"steps_per_block": size // steps, "remasking": Settings.remasking} | given
    is_sampled = given.pop("do_sample", None)
    if is_sampled is False:
        given["temperature"] = 0.0
    elif is_sampled and not given.get("temperature", told.get("temperature", Settings.temperature)):
        given["temperature"] = 1.0
    names = [field.name for field in fields(Settings)]
    for name, value in list(given.items()):
        if name not in names:
            if not (value is False or value == [] or value == _NEUTRAL.get(name)):
                problem, fix = (
                    "block diffusion has no such argument",
                    f"use {', '.join(names)}, tokens_per_step",
                )
                raise _error(name, value, problem, fix)
            del given[name]
    told = {name: told[name] for name in names if name in told}
    values = {"steps_per_block": size} | told | {"block_size": size} | given
    for field in fields(Settings):
        if field.name in values:
            _typed(field.name, values[field.name], *_KINDS[str(field.type)])
    return Settings(**values)


@dataclass(frozen=True, kw_only=True)
class _Ends:
    """What ends an answer."""

    limit: int
    stops: frozenset[int]
    criteria: list[Callable[..., Any]]

    def length(self, ids: Tensor, start: int, num_prompt: int) -> int | None:
        """How many tokens behind a prompt the answer has; None if it goes on, as it does before ``start``."""
        for end in range(start, len(ids)):
            count = end + 1 - num_prompt
            is_stop = int(ids[end]) in self.stops or count == self.limit
            if is_stop or any(
                bool(torch.as_tensor(ask(ids[None, : end + 1], None)).all()) for ask in self.criteria
            ):
                return count
        return None


def _decode(model: Any, prompt: Tensor, settings: Settings, ends: _Ends, streamer: Any) -> Tensor:
    """The answer to one prompt."""
    size, mask_id, num_prompt = settings.block_size, model.config.mask_token_id, len(prompt)
    room = getattr(model.config, "max_position_embeddings", None)
    needed = -(-(num_prompt + ends.limit) // size) * size
    if ends.limit < 1 or (room is not None and needed > room):
        problem = f"with a prompt of {num_prompt} tokens it takes {needed} positions, the model has {room}"
        raise _error("max_new_tokens", ends.limit, problem, "use 1 or more that fit")
    if model.config._attn_implementation not in _ATTENTION:
        problem = "takes no mask of booleans with four axes"
        raise _error(
            "attn_implementation", model.config._attn_implementation, problem, "load the model with sdpa"
        )
    if streamer is not None:
        streamer.put(prompt[None].cpu())
    ids, cache, num_cached = prompt, DynamicCache(), 0
    while True:
        first, start = len(ids), len(ids) // size * size
        ids = torch.cat([ids, ids.new_full((start + size - first,), mask_id)])
        is_masked_S = torch.arange(start, start + size, device=ids.device) >= first
        for num_planned in settings.schedule:
            if not is_masked_S.any():
                break
            logits_SV = _logits(model, ids, cache, num_cached, size)
            num_cached = start
            logits_SV[:, mask_id] = -torch.inf
            token_S, chosen_S = _step(logits_SV, is_masked_S, num_planned, settings)
            ids[start:] = torch.where(chosen_S, token_S, ids[start:])
            is_masked_S &= ~chosen_S
            if streamer is not None and hasattr(streamer, "put_draft") and is_masked_S.any():
                streamer.put_draft(ids[None, first:].cpu())
        length = ends.length(ids, first, num_prompt)
        answer = ids[num_prompt : None if length is None else num_prompt + length]
        if streamer is not None:
            streamer.put(answer[None, first - num_prompt :].cpu())
        if length is not None:
            if streamer is not None:
                streamer.end()
            return answer


def _logits(model: Any, ids: Tensor, cache: DynamicCache, num_cached: int, size: int) -> Tensor:
    """Logits at the last block, ``[S, V]``: a token sees its block and those before it.

    Finished blocks that are not in the cache come into it; the last one does not, it is not finished.
    """
    position = torch.arange(num_cached, len(ids), device=ids.device)
    key = torch.arange(len(ids), device=ids.device)
    logits = model(
        input_ids=ids[None, num_cached:],
        attention_mask=(key // size <= position[:, None] // size)[None, None],
        position_ids=position[None],
        past_key_values=cache,
        use_cache=True,
        store_kv=True,  # what SDAR's own code asks for before it writes into a cache
        logits_to_keep=size,
    ).logits[0, -size:]
    cache.crop(-size)
    return logits if logits.dtype == torch.float64 else logits.float()


def _step(
    logits_SV: Tensor, is_masked_S: Tensor, num_planned: int, settings: Settings
) -> tuple[Tensor, Tensor]:
    """A token for each position, and which of the masked ones are filled now."""
    prob_SV = logits_SV.softmax(-1)
    if settings.temperature == 0:
        token_S, confidence_SV = logits_SV.argmax(-1), prob_SV
    else:
        tempered_SV: Any = logits_SV / settings.temperature
        if settings.top_k:
            tempered_SV = TopKLogitsWarper(settings.top_k)(None, tempered_SV)
        if settings.top_p < 1:
            tempered_SV = TopPLogitsWarper(settings.top_p)(None, tempered_SV)
        drawn_SV = tempered_SV.softmax(-1)
        token_S = torch.multinomial(drawn_SV, 1)[:, 0]
        confidence_SV = prob_SV if settings.confidence == "model" else drawn_SV
    confidence_S = confidence_SV.gather(-1, token_S[:, None])[:, 0]
    score_S = confidence_S
    if settings.remasking == "sequential":
        score_S = -torch.arange(len(token_S), device=token_S.device).to(confidence_S)
    elif settings.remasking == "random":
        score_S = torch.rand_like(confidence_S)
    elif settings.remasking == "entropy_bounded":
        entropy_S = torch.special.entr(prob_SV).sum(-1)
        score_S = -entropy_S
        rising_S = entropy_S.masked_fill(~is_masked_S, torch.inf).sort().values
        num_planned = max(num_planned, int((rising_S.cumsum(-1) < settings.entropy_bound).sum()))
    order_S = score_S.masked_fill(~is_masked_S, -torch.inf).argsort(descending=True, stable=True)
    chosen_S = torch.zeros_like(is_masked_S)
    chosen_S[order_S[:num_planned]] = True
    if settings.remasking == "low_confidence_dynamic":
        chosen_S |= confidence_S > settings.confidence_threshold
    return token_S, chosen_S & is_masked_S


def _ids(stops: Any) -> frozenset[int]:
    """Stop tokens as transformers writes them: one, several, or none."""
    if stops is None:
        return frozenset()
    return frozenset([stops] if isinstance(stops, int) else [int(stop) for stop in stops])


def _typed(name: str, value: Any, *kinds: type) -> Any:
    """The value, which is of one of these types."""
    if not isinstance(value, kinds) or isinstance(value, bool):
        raise _error(name, value, "not of its type", f"give {kinds[0].__name__}")
    return value


def _error(name: str, value: Any, problem: str, fix: str) -> ValueError:
    return ValueError(f"{name}={value!r}: {problem}. Fix: {fix}.")
