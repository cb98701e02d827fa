"""``t3d.LLM``: load a model and generate, as in vLLM. Everything that decodes goes through it."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from itertools import groupby
from numbers import Integral
from pathlib import Path
from typing import Any, Literal

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from t3d.decoding.completion import BlockUpdate, Completion, DecodeRequest, DecodingError, completions_of
from t3d.decoding.engine import Engine, EngineConfig
from t3d.decoding.jobs import Arrivals, Job
from t3d.decoding.params import BATCH_SIZE, DecodeParams
from t3d.decoding.precedence import resolve_params
from t3d.decoding.stats import EngineStats
from t3d.errors import InputError
from t3d.models.drafter import with_drafter
from t3d.models.loading import LoadedModel, adopt_model, load_model, with_tokenizer
from t3d.problems.problem import Problem
from t3d.problems.prompt_styles import PromptKind, PromptStyle
from t3d.problems.prompts import chat_ids, problem_ids, token_ids, token_text
from t3d.work.progress import Progress

Chat = Sequence[Mapping[str, str]]
"""Messages with a role and a content each."""
Prompt = str | Chat | Sequence[int]
"""A text as it is, a chat for the tokenizer's template, or token ids."""


class LLM:
    """A model ready to generate.

    ``model`` is a local folder, a hub id, a bundled model's name, a LoadedModel, or a transformers
    model together with its ``tokenizer``. ``dtype`` and ``device`` concern models that are loaded here;
    dtype "auto" is the checkpoint's own, but float32 where the processor has no arithmetic for it.
    ``tp_plan="auto"`` shares the model among the processes that ``torchrun`` started (``load_model``):
    each makes the same calls and gets all completions, the same as from a single process.
    Without ``params`` its methods decode by ``default_params``. ``drafter`` is the folder of a drafter that
    was trained for this model (``t3d train --preset drafter``) or of a student of it, or a bundled drafter's
    name: ``remasking="self_speculative"`` takes fewer forwards with it and gives the same tokens; other ways
    to decode leave it unused. A LoadedModel may have one already.
    ``stop_token_ids`` replaces the checkpoint's own (generation_config). The other settings are those of
    :class:`~t3d.decoding.engine.EngineConfig`.
    """

    def __init__(  # noqa: PLR0913 - flat, as in vLLM
        self,
        model: str | Path | LoadedModel | PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase | None = None,
        *,
        max_batch_size: int = BATCH_SIZE,
        max_model_len: int | None = EngineConfig.max_model_len,
        device: str = "auto",
        dtype: str = "auto",
        tp_plan: str | None = None,
        stop_token_ids: Sequence[int] | None = None,
        max_prefill_tokens: int = EngineConfig.max_prefill_tokens,
        enforce_eager: bool = EngineConfig.enforce_eager,
        pack_weights: bool | None = EngineConfig.pack_weights,
        forward_cost: int = EngineConfig.forward_cost,
        drafter: str | Path | None = None,
    ) -> None:
        if tp_plan is not None and isinstance(model, (LoadedModel, PreTrainedModel)):
            fix = "give its folder or hub id, or share it with load_model(..., tp_plan=...)"
            raise InputError("tp_plan", tp_plan, "the model is in memory already", fix)
        if isinstance(model, LoadedModel):
            self.loaded = model
        elif isinstance(model, PreTrainedModel):
            self.loaded = adopt_model(model, tokenizer)
        else:
            self.loaded = load_model(model, device=device, dtype=dtype, tp_plan=tp_plan)
        if tokenizer is not None:
            self.loaded = with_tokenizer(self.loaded, tokenizer)
        has_mask = self.loaded.predicts == "self"
        if has_mask and stop_token_ids is not None and self.loaded.mask_token_id in stop_token_ids:
            problem = f"holds the mask token, {self.loaded.mask_token_id}, which no response has"
            raise InputError("stop_token_ids", list(stop_token_ids), problem, "leave it out")
        config = EngineConfig(
            max_batch_size=max_batch_size,
            max_model_len=max_model_len,
            max_prefill_tokens=max_prefill_tokens,
            enforce_eager=enforce_eager,
            pack_weights=pack_weights,
            forward_cost=forward_cost,
        )
        if drafter is not None:
            self.loaded = with_drafter(self.loaded, drafter)
        try:
            self._engine = Engine(
                self.loaded.model,
                mask_token_id=self.loaded.mask_token_id,
                stop_token_ids=self.loaded.stop_token_ids if stop_token_ids is None else stop_token_ids,
                config=config,
                drafter=self.loaded.drafter,
            )
        except BaseException:
            if drafter is not None and self.loaded.drafter is not None:
                self.loaded.drafter.detach()  # or the next try would find it there
            raise

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's tokenizer."""
        return self.loaded.tokenizer

    @property
    def default_params(self) -> DecodeParams:
        """How it decodes without ``params``: as the checkpoint says, a student as it was trained."""
        return resolve_params(self.loaded.own_settings)

    @property
    def stats(self) -> EngineStats:
        """What the engine has done so far."""
        return self._engine.stats

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: DecodeParams | Sequence[DecodeParams] | None = None,
        *,
        ids: Sequence[str] | None = None,
        progress: bool = True,
        on_error: Literal["raise", "return"] = "raise",
    ) -> list[Completion]:
        """Decode prompts; completions in their order, under ``ids`` (default "0", "1", ...).

        An id also keys its request's sampling noise. A request that can never be decoded (an empty
        prompt, or one that does not fit) does not stop the others: with ``on_error="raise"`` a
        DecodingError names it when they are finished and holds them, with "return" its completion has
        ``finish_reason`` "error". Raises InputError for prompts of another kind or ids used twice.
        """
        requests = self.requests(prompts, ids)
        with Progress("generate", len(requests)) if progress else nullcontext() as bar:
            return self.decode(
                requests,
                self.default_params if params is None else params,
                on_finish=None if bar is None else lambda _: bar.advance(),
                on_error=on_error,
            )

    def stream(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: DecodeParams | Sequence[DecodeParams] | None = None,
        *,
        ids: Sequence[str] | None = None,
        provisional: bool = False,
    ) -> Iterator[BlockUpdate]:
        """Yield each block of each request as soon as it is committed, the last with the completion.

        ``text`` of a committed block continues the texts before it. With ``provisional`` also what the
        other denoising steps leave, masks as "░".
        """
        jobs = self._jobs(self.requests(prompts, ids), self.default_params if params is None else params)
        return self._told(self._engine.stream(jobs, detail="steps" if provisional else "blocks"))

    @property
    def max_model_len(self) -> int:
        """Most positions of a request, prompt and response."""
        return self._engine.max_model_len

    def job(self, request: DecodeRequest, params: DecodeParams) -> Job:
        """A job for :meth:`serve`. Raises InputError for a request that can never be decoded."""
        (job,) = self._jobs([request], params)
        self._engine.check_arrival(job)
        return job

    def serve(self, arrivals: Arrivals) -> Iterator[BlockUpdate]:
        """:meth:`stream` jobs that other threads let in while it decodes, until ``arrivals`` are closed."""
        return self._told(self._engine.stream(arrivals))

    def _told(self, updates: Iterator[BlockUpdate]) -> Iterator[BlockUpdate]:
        """The engine's updates with their texts."""
        visible: dict[str, list[int]] = {}
        told: dict[str, str] = {}
        for update in updates:
            if not update.is_committed:
                yield dataclasses.replace(update, text=self._provisional_text(update))
                continue
            so_far = visible.setdefault(update.id, [])
            so_far += [token for token in update.token_ids if token is not None]
            completion = update.completion
            if completion is not None:
                completion, so_far = self._with_text(completion), list(completion.visible_ids)
            text, before = token_text(self.tokenizer, so_far), told.get(update.id, "")
            if completion is None:
                text = text.rstrip("\ufffd")  # a character whose bytes are not all there yet
            told[update.id] = text
            if completion is not None:  # where jobs keep coming, nothing may stay of those that have ended
                del visible[update.id], told[update.id]
            yield dataclasses.replace(update, text=text[len(before) :], completion=completion)

    def decode(
        self,
        requests: Sequence[DecodeRequest],
        params: DecodeParams | Sequence[DecodeParams],
        *,
        on_finish: Callable[[Completion], None] | None = None,
        on_error: Literal["raise", "return"] = "raise",
    ) -> list[Completion]:
        """:meth:`generate` for requests that have ids and token ids already."""
        told: dict[str, Completion] = {}
        try:
            for update in self._engine.stream(self._jobs(requests, params), detail="completions"):
                assert update.completion is not None, "no other updates were asked for"
                told[update.id] = self._with_text(update.completion)
                if on_finish is not None:
                    on_finish(told[update.id])
            return completions_of(requests, told, on_error=on_error)
        except DecodingError as error:
            error.completions = {name: told[name] for name in error.completions}
            raise

    def requests(
        self, prompts: Prompt | Sequence[Prompt], ids: Sequence[str] | None = None
    ) -> list[DecodeRequest]:
        """Prompts as token ids, with their request ids."""
        many: Any = [prompts] if _is_one_prompt(prompts) else prompts
        names = [str(index) for index in range(len(many))] if ids is None else list(ids)
        if len(names) != len(many):
            raise InputError("ids", len(names), f"there are {len(many)} prompts", "give one id per prompt")
        return [
            DecodeRequest(id=name, prompt_ids=tuple(self._prompt_ids(prompt)))
            for name, prompt in zip(names, many, strict=True)
        ]

    def _prompt_ids(self, prompt: Any) -> Sequence[int]:
        if isinstance(prompt, str):
            return token_ids(self.tokenizer, prompt)
        if not isinstance(prompt, Sequence):
            fix = "give texts, chats (lists of messages) or lists of token ids"
            raise InputError("prompts", prompt, "not a prompt", fix)
        if len(prompt) and isinstance(prompt[0], Mapping):
            for message in prompt:
                if not isinstance(message, Mapping) or not {"role", "content"} <= set(message):
                    fix = 'give messages such as {"role": "user", "content": "..."}'
                    raise InputError("prompts", message, "not a chat message", fix)
            return chat_ids(self.tokenizer, prompt)
        size = self.loaded.model.config.vocab_size
        for token in prompt:
            if not isinstance(token, Integral) or not 0 <= token < size:
                raise InputError("prompts", token, "not a token id", f"use ids of 0 to {size - 1}")
        return [int(token) for token in prompt]

    def _jobs(
        self, requests: Sequence[DecodeRequest], params: DecodeParams | Sequence[DecodeParams]
    ) -> list[Job]:
        jobs, predicts = _jobs(requests, params), self.loaded.predicts
        for job in jobs:
            if job.params.predicts != predicts:
                kind = "an autoregressive" if predicts == "next" else "a block-diffusion"
                fix = "change what its default_params say: dataclasses.replace(llm.default_params, ...)"
                problem = f"{self.loaded.source} is {kind} model, which predicts={predicts!r}"
                raise InputError("predicts", job.params.predicts, problem, fix)
        return jobs

    def _with_text(self, completion: Completion) -> Completion:
        return dataclasses.replace(completion, text=token_text(self.tokenizer, completion.visible_ids))

    def _provisional_text(self, update: BlockUpdate) -> str:
        text = ""
        for is_masked, run in groupby(update.token_ids, key=lambda token: token is None):
            tokens: list[Any] = list(run)  # together: a character may take several tokens
            text += "░" * len(tokens) if is_masked else token_text(self.tokenizer, tokens)
        return text


def _is_one_prompt(prompts: Any) -> bool:
    """Whether this is a text, a chat or a list of token ids rather than several of them."""
    if isinstance(prompts, str) or not isinstance(prompts, Sequence):
        return True
    return len(prompts) > 0 and isinstance(prompts[0], (Mapping, Integral))


def _jobs(requests: Sequence[DecodeRequest], params: DecodeParams | Sequence[DecodeParams]) -> list[Job]:
    """Requests with their settings, shared or one each."""
    each = [params] * len(requests) if isinstance(params, DecodeParams) else list(params)
    if len(each) != len(requests):
        problem = f"there are {len(requests)} requests"
        raise InputError("params", len(each), problem, "give one DecodeParams, or one per request")
    return [Job(request, own) for request, own in zip(requests, each, strict=True)]


def decode_requests(
    tokenizer: PreTrainedTokenizerBase,
    problems: Sequence[Problem],
    *,
    style: PromptStyle = "plain",
    kind: PromptKind = "math",
) -> list[DecodeRequest]:
    """One request per problem, under the problem's id, with its :func:`problem_ids`."""
    return [
        DecodeRequest(
            id=problem.id, prompt_ids=tuple(problem_ids(tokenizer, problem, style=style, kind=kind))
        )
        for problem in problems
    ]
