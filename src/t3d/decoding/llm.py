"""``t3d.LLM``: load a model and generate, as in vLLM. Everything that decodes goes through it."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from t3d.decoding.completion import BlockUpdate, Completion, DecodeRequest, DecodingError, completions_of
from t3d.decoding.engine import Engine, EngineConfig
from t3d.decoding.followed import check_has_no_followers, followed
from t3d.decoding.jobs import Arrivals, Detail, Job
from t3d.decoding.params import BATCH_SIZE, DecodeParams
from t3d.decoding.precedence import check_drafts_are_used, resolve_params
from t3d.decoding.prompt_inputs import Chat, Prompt, conversations, ids_of_prompt, is_one_prompt
from t3d.decoding.stats import EngineStats
from t3d.decoding.streamers import Streamer, check_streamed, feed
from t3d.decoding.texts import StopTexts, told_updates, with_text
from t3d.errors import InputError
from t3d.models.drafter import with_drafter
from t3d.models.loading import LoadedModel, adopt_model, load_model, with_tokenizer
from t3d.work.progress import Progress


class LLM:
    """A model ready to generate.

    ``model`` is a local folder, a hub id, a bundled model's name, a LoadedModel, or a transformers
    model together with its ``tokenizer``. ``dtype`` and ``device`` concern models that are loaded here;
    dtype "auto" is the checkpoint's own, but float32 where the processor has no arithmetic for it; a name or
    a ``torch.dtype`` is another. ``revision`` and ``token`` are those of ``load_model``, for hub ids.
    ``tp_plan="auto"`` shares the model among the processes that ``torchrun`` started (``load_model``):
    each makes the same calls and gets all completions, the same as from a single process.
    Without ``params`` its methods decode by ``default_params``. ``drafter`` is the folder of a drafter that
    was trained for this model (``t3d train --preset drafter``) or of a student of it, or a bundled drafter's
    name: ``remasking="self_speculative"``, with it the default unless the checkpoint names a strategy, takes
    fewer forwards for the tokens of ``left_to_right``; others leave it unused. A LoadedModel may have one.
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
        dtype: str | torch.dtype = "auto",
        tp_plan: str | None = None,
        revision: str | None = None,
        token: str | None = None,
        stop_token_ids: Sequence[int] | None = None,
        max_prefill_tokens: int = EngineConfig.max_prefill_tokens,
        enforce_eager: bool = EngineConfig.enforce_eager,
        pack_weights: bool | None = EngineConfig.pack_weights,
        forward_cost: int = EngineConfig.forward_cost,
        drafter: str | Path | None = None,
    ) -> None:
        of_loading = {"tp_plan": tp_plan, "revision": revision, "token": token}
        for name, value in of_loading.items():
            if value is not None and isinstance(model, (LoadedModel, PreTrainedModel)):
                shown, fix = "..." if name == "token" else value, f"load_model(..., {name}=...)"
                problem = "the model is in memory already"
                raise InputError(name, shown, problem, f"give its folder or hub id, or use {fix}")
        if isinstance(model, LoadedModel):
            self.loaded = model
        elif isinstance(model, PreTrainedModel):
            self.loaded = adopt_model(model, tokenizer)
        else:
            self.loaded = load_model(model, device=device, dtype=dtype, **of_loading)
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

    def params(self, **given: Any) -> DecodeParams:
        """Settings of these fields; the others are the checkpoint's own, as those of every command."""
        return resolve_params(self.loaded.own_settings, given)

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
        streamer: Streamer | None = None,
    ) -> list[Completion]:
        """Decode prompts; completions in their order, under ``ids`` (default "0", "1", ...).

        An id also keys its request's sampling noise. With ``n`` of the settings above 1 the completions of a
        prompt lie side by side, under ``ID#0``, ``ID#1``, ... A request that can never be decoded (an empty
        prompt, or one that does not fit) does not stop the others: with ``on_error="raise"`` a
        DecodingError names it when they are finished and holds them, with "return" its completion has
        ``finish_reason`` "error". ``streamer`` is one of transformers', for a single response, in the place
        of the progress bar: ``TextStreamer``, or ``TextDiffusionStreamer``, which shows denoising steps too.
        Raises InputError for prompts of another kind, ids used twice, or a streamer of several responses.
        """
        requests, each = self._samples(self.requests(prompts, ids), params)
        if streamer is not None:
            check_streamed(len(requests))
            jobs = self._jobs(requests, each, "steps" if hasattr(streamer, "put_draft") else "blocks")
            updates = self._told(jobs)
            done = feed(streamer, requests[0].prompt_ids, updates, self.loaded.mask_token_id)
            return completions_of(requests, done, on_error=on_error)
        with Progress("generate", len(requests)) if progress else nullcontext() as bar:
            return self.decode(
                requests,
                each,
                on_finish=None if bar is None else lambda _: bar.advance(),
                on_error=on_error,
            )

    def chat(
        self,
        messages: Chat | Sequence[Chat] | Iterable[Mapping[str, Any]],
        params: DecodeParams | Sequence[DecodeParams] | None = None,
        **options: Any,
    ) -> list[Completion]:
        """:meth:`generate` for one conversation, several, or the column ``messages`` of a data set, by the
        tokenizer's chat template.

        ``options`` are those of :meth:`generate`. Raises InputError where the tokenizer has no template, and
        for messages without a role and a content.
        """
        return self.generate(conversations(self.tokenizer, messages), params, **options)

    def stream(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: DecodeParams | Sequence[DecodeParams] | None = None,
        *,
        ids: Sequence[str] | None = None,
        provisional: bool = False,
    ) -> Iterator[BlockUpdate]:
        """Yield each block of each request as soon as it is committed, the last with the completion.

        ``text`` of a committed block continues the texts before it. With ``provisional`` also drafts: what
        the other denoising steps leave, its ``text`` continuing the same texts, masks as "░".
        """
        requests, each = self._samples(self.requests(prompts, ids), params)
        jobs = self._jobs(requests, each, "steps" if provisional else "blocks")
        return self._told(jobs)

    @property
    def max_model_len(self) -> int:
        """Most positions of a request, prompt and response."""
        return self._engine.max_model_len

    def job(self, request: DecodeRequest, params: DecodeParams, detail: Detail = "blocks") -> Job:
        """A job for :meth:`serve`. Raises InputError for a request that can never be decoded."""
        (job,) = self._jobs([request], params, detail)
        self._engine.check_arrival(job)
        return job

    def serve(self, arrivals: Arrivals) -> Iterator[BlockUpdate]:
        """:meth:`stream` jobs that other threads let in while it decodes, until ``arrivals`` are closed."""
        return self._told(arrivals)

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
            with followed(self._engine, self._jobs(requests, params, "completions")) as updates:
                for update in updates:
                    assert update.completion is not None, "no other updates were asked for"
                    told[update.id] = with_text(update.completion, self.tokenizer)
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
        many: Any = [prompts] if is_one_prompt(prompts) else prompts
        names = [str(index) for index in range(len(many))] if ids is None else list(ids)
        if len(names) != len(many):
            raise InputError("ids", len(names), f"there are {len(many)} prompts", "give one id per prompt")
        size = self.loaded.model.config.vocab_size
        return [
            DecodeRequest(id=name, prompt_ids=tuple(ids_of_prompt(self.tokenizer, prompt, size)))
            for name, prompt in zip(names, many, strict=True)
        ]

    def _told(self, jobs: Sequence[Job] | Arrivals) -> Iterator[BlockUpdate]:
        check_has_no_followers(self.loaded.model)
        return told_updates(self._engine.stream(jobs), self.tokenizer)

    def _samples(
        self,
        requests: Sequence[DecodeRequest],
        params: DecodeParams | Sequence[DecodeParams] | None,
    ) -> tuple[list[DecodeRequest], list[DecodeParams]]:
        """Each request as often as its settings say, and the settings of each."""
        each = _one_each(requests, self.default_params if params is None else params)
        pairs = [
            (sample, dataclasses.replace(own, n=1))
            for request, own in zip(requests, each, strict=True)
            for sample in request.samples(own.n)
        ]
        return [sample for sample, _ in pairs], [own for _, own in pairs]

    def _jobs(
        self,
        requests: Sequence[DecodeRequest],
        params: DecodeParams | Sequence[DecodeParams],
        detail: Detail,
    ) -> list[Job]:
        each, predicts = _one_each(requests, params), self.loaded.predicts
        jobs = [
            Job(request, own, StopTexts(own.stop, self.tokenizer) if own.stop else None, detail)
            for request, own in zip(requests, each, strict=True)
        ]
        for job in jobs:
            if job.params.n != 1:
                fix = "use LLM.generate, or as many samples of each request"
                raise InputError("n", job.params.n, "each request has one response", fix)
            check_drafts_are_used(job.params)
            if job.params.predicts != predicts:
                kind = "an autoregressive" if predicts == "next" else "a block-diffusion"
                fix = "make them by LLM.params(max_new_tokens=..., ...), which asks the model for the rest"
                problem = f"{self.loaded.source} is {kind} model, which predicts={predicts!r}"
                raise InputError("predicts", job.params.predicts, problem, fix)
        return jobs


def _one_each(
    requests: Sequence[DecodeRequest], params: DecodeParams | Sequence[DecodeParams]
) -> list[DecodeParams]:
    """The settings of each request, which may share theirs."""
    each = [params] * len(requests) if isinstance(params, DecodeParams) else list(params)
    if len(each) != len(requests):
        problem = f"there are {len(requests)} requests"
        raise InputError("params", len(each), problem, "give one DecodeParams, or one per request")
    return each
