"""How likely a teacher finds the answers that another model wrote, for rollout filter ``teacher``."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from transformers import PreTrainedTokenizerBase

from t3d.decoding.completion import Completion
from t3d.decoding.likelihood import token_logprobs
from t3d.decoding.params import DecodeParams
from t3d.decoding.precedence import resolve_params
from t3d.decoding.rollout_filter import TeacherScore
from t3d.errors import InputError
from t3d.models.loading import LoadedModel, load_model
from t3d.models.token_ids import token_of_another_id


@dataclass(frozen=True)
class TeacherScorer:
    """A teacher that scores answers, each alone, in its own blocks; it is loaded when it is first needed."""

    source: str
    """As :func:`~t3d.models.loading.load_model` takes it; so are the others."""
    device: str = "auto"
    dtype: str = "float32"

    @cached_property
    def teacher(self) -> LoadedModel:
        """The model; it stays loaded."""
        return load_model(self.source, device=self.device, dtype=self.dtype)

    def check(self, tokenizer: PreTrainedTokenizerBase, longest: int) -> None:
        """Raise InputError for a teacher without the tokens of the model that writes the answers, or that
        cannot read the ``longest`` of them with its prompt, in tokens."""
        other = token_of_another_id(self.teacher.tokenizer, tokenizer)
        if other is not None:
            problem = f"its tokenizer is another one: the model's has no token {other!r} of that id"
            raise InputError("scores_from", self.source, problem, "use a model of the same tokens")
        positions = self.teacher.model.config.max_position_embeddings
        if longest > positions:
            problem = f"reads {positions} tokens, but an answer and its prompt may have {longest}"
            fix = "use a model that reads more, shorter prompts or a lower max_new_tokens"
            raise InputError("scores_from", self.source, problem, fix)

    def settings(self) -> dict[str, Any]:
        """What the scores depend on besides the answers, JSON-ready."""
        return {"teacher": self.teacher.identity(), "decode": self._params.record()}

    @cached_property
    def _params(self) -> DecodeParams:
        return resolve_params(self.teacher.own_settings, {"remasking": "left_to_right"})

    def scores(self, completions: Sequence[Completion]) -> list[TeacherScore | None]:
        """One for each; None for an answer without an end. Equal answers to a prompt are scored once."""
        known = dict[tuple[tuple[int, ...], tuple[int, ...]], TeacherScore]()
        found = list[TeacherScore | None]()
        for completion in completions:
            if completion.finish_reason != "stop":
                found.append(None)
                continue
            answer = completion.prompt_ids, completion.visible_ids
            if answer not in known:
                known[answer] = self._score(*answer)
            found.append(known[answer])
        return found

    def _score(self, prompt_ids: Sequence[int], answer_ids: Sequence[int]) -> TeacherScore:
        largest, rows = max(*prompt_ids, *answer_ids), self.teacher.model.config.vocab_size
        if largest >= rows:
            problem = f"has {rows} tokens, and not token {largest}, which the model wrote or read"
            raise InputError("scores_from", self.source, problem, "use a model of the same tokens")
        each = token_logprobs(self.teacher, [*prompt_ids, *answer_ids], self._params)
        logprobs = [one.logprob for one in each[-len(answer_ids) :]]
        return TeacherScore(logprob=sum(logprobs), least_logprob=min(logprobs))
