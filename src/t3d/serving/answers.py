"""Answers as OpenAI's clients read them: whole or in chunks, with log-probabilities, steps and usage."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from t3d.decoding.likelihood import TokenLogprob
from t3d.serving.choice import Choice, Draft, News
from t3d.serving.fields import Asked, Endpoint

IMPOSSIBLE = -9999.0
"""Told in the place of minus infinity, of which JSON has none: the log-probability of a mask token."""


@dataclass(frozen=True, kw_only=True)
class Echo:
    """What an answer repeats of its prompt."""

    text: str
    logprobs: dict[str, Any] | None
    """As OpenAI's clients read them."""

    @classmethod
    def of_prompt(
        cls,
        text: str,
        token_ids: Sequence[int],
        known: Sequence[TokenLogprob],
        asked: Asked,
        name: Callable[[int], str],
    ) -> "Echo":
        """With what is known of all tokens but the first, if it was asked for."""
        if asked.num_logprobs is None:
            return cls(text=text, logprobs=None)
        names = [name(token) for token in token_ids]
        top = [
            # The likeliest last: of tokens with one text the client sees that one.
            _own(own, one) | {name(token): max(value, IMPOSSIBLE) for token, value in reversed(one.top)}
            for own, one in zip(names[1:], known, strict=True)
        ]
        told = {
            "tokens": names,
            "token_logprobs": [None, *(max(one.logprob, IMPOSSIBLE) for one in known)],
            "top_logprobs": [None, *top] if asked.num_logprobs else None,
        }
        return cls(text=text, logprobs=told)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The choices of one request, and how its answer is written."""

    id: str
    created: int
    model: str
    endpoint: Endpoint
    asked: Asked
    name: Callable[[int], str]
    """What a token is called."""
    choices: Sequence[Choice]
    num_prompt_tokens: int
    echoes: Sequence[Echo] = ()
    """One per choice, or none."""

    def whole(self) -> bytes:
        """The answer when all choices have ended, as JSON."""
        kind = "text_completion" if self.endpoint == "completions" else "chat.completion"
        head = to_json(self._head(kind) | {"usage": self.usage()})
        # One at a time, so that other threads get their turns: the encoder itself lets none in.
        everything = ",".join(
            to_json(self._choice(index, News(choice.text, slice(None))))
            for index, choice in enumerate(self.choices)
        )
        return f'{head[:-1]},"choices":[{everything}]}}'.encode()

    def first_chunks(self) -> list[dict[str, Any]]:
        """What a stream begins with: the role, or the prompts that are to be repeated."""
        if self.endpoint == "completions":
            told = enumerate(self.echoes)
            return [self._chunk(self._text_choice(i, echo.text, echo.logprobs)) for i, echo in told]
        delta = {"role": "assistant", "content": ""}
        nothing = {"logprobs": None, "finish_reason": None}
        return [
            self._chunk({"index": index, "delta": delta} | nothing) for index, _ in enumerate(self.choices)
        ]

    def chunk(self, index: int, news: News) -> dict[str, Any]:
        """What is new of a choice."""
        told: dict[str, Any]
        choice = self.choices[index]
        if self.endpoint == "completions":
            told = self._text_choice(index, news.text, self._logprobs(choice, news.tokens))
            told["finish_reason"] = choice.finish_reason
        else:
            told = {"index": index, "delta": {"content": news.text} if news.text else {}}
            told |= {"logprobs": self._chat_logprobs(choice, news.tokens)}
            told |= {"finish_reason": choice.finish_reason}
        told |= self._steps(choice, news.tokens)
        if news.draft is not None:
            told["draft"] = self._draft(news.draft)
        return self._chunk(told)

    def usage_chunk(self) -> dict[str, Any]:
        """The last of a stream that was to tell its usage."""
        return self._head(self._chunk_kind) | {"choices": [], "usage": self.usage()}

    def usage(self) -> dict[str, int]:
        """Tokens, and the forwards that they took."""
        completed = sum(len(choice.token_ids) for choice in self.choices)
        return {
            "prompt_tokens": self.num_prompt_tokens,
            "completion_tokens": completed,
            "total_tokens": self.num_prompt_tokens + completed,
            "num_forwards": sum(choice.num_forwards for choice in self.choices),
        }

    @property
    def _chunk_kind(self) -> str:
        return "text_completion" if self.endpoint == "completions" else "chat.completion.chunk"

    def _head(self, kind: str) -> dict[str, Any]:
        head = {"id": self.id, "object": kind, "created": self.created, "model": self.model}
        return head | {"seed": self.asked.params.seed}

    def _chunk(self, choice: Mapping[str, Any]) -> dict[str, Any]:
        return self._head(self._chunk_kind) | {"choices": [choice]}

    def _choice(self, index: int, news: News) -> dict[str, Any]:
        choice = self.choices[index]
        told: dict[str, Any]
        if self.endpoint == "completions":
            logprobs = self._logprobs(choice, news.tokens)
            text = news.text
            if self.echoes:
                text = self.echoes[index].text + text
                logprobs = _joined(self.echoes[index].logprobs, logprobs)
            told = self._text_choice(index, text, _with_offsets(logprobs))
        else:
            message = {"role": "assistant", "content": news.text, "refusal": None}
            logprobs = self._chat_logprobs(choice, news.tokens)
            told = {"index": index, "message": message, "logprobs": logprobs}
        told["finish_reason"] = choice.finish_reason
        return told | self._steps(choice, news.tokens)

    def _text_choice(self, index: int, text: str, logprobs: dict[str, Any] | None) -> dict[str, Any]:
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": None}

    def _steps(self, choice: Choice, tokens: slice) -> dict[str, Any]:
        if not self.asked.returns_step_map:
            return {}
        return {"token_ids": choice.token_ids[tokens], "step_map": choice.step_map[tokens]}

    def _draft(self, draft: Draft) -> dict[str, Any]:
        told: dict[str, Any] = {"text": draft.text}
        if self.asked.returns_step_map:
            told |= {"start": draft.start, "token_ids": draft.token_ids, "step_map": draft.step_map}
        if self.asked.num_logprobs is not None:
            told["tokens"] = [None if token is None else self.name(token) for token in draft.token_ids]
        return told

    def _logprobs(self, choice: Choice, tokens: slice) -> dict[str, Any] | None:
        if self.asked.num_logprobs is None:
            return None
        names = [self.name(token) for token in choice.token_ids[tokens]]
        values = choice.logprobs[tokens]
        top = [{name: value} for name, value in zip(names, values, strict=True)]
        return {
            "tokens": names,
            "token_logprobs": list(values),
            "top_logprobs": top if self.asked.num_logprobs else None,
        }

    def _chat_logprobs(self, choice: Choice, tokens: slice) -> dict[str, Any] | None:
        if self.asked.num_logprobs is None:
            return None
        content = []
        for token, logprob in zip(choice.token_ids[tokens], choice.logprobs[tokens], strict=True):
            name = self.name(token)
            own = {"token": name, "logprob": logprob, "bytes": list(name.encode())}
            content.append(own | {"top_logprobs": [own] if self.asked.num_logprobs else []})
        return {"content": content, "refusal": None}


def to_json(value: Any) -> str:
    """As clients are sent it."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _own(name: str, known: TokenLogprob) -> dict[str, float]:
    """The token itself, unless it or one of its text is among the likeliest."""
    is_among = not known.top or known.logprob >= known.top[-1][1]
    return {} if is_among else {name: max(known.logprob, IMPOSSIBLE)}


def _joined(first: dict[str, Any] | None, second: dict[str, Any] | None) -> dict[str, Any] | None:
    if first is None or second is None:
        return second
    return {name: None if second[name] is None else first[name] + second[name] for name in second}


def _with_offsets(logprobs: dict[str, Any] | None) -> dict[str, Any] | None:
    """The same with the place of each token in the text of all of them."""
    if logprobs is None:
        return None
    offsets, end = [], 0
    for name in logprobs["tokens"]:
        offsets.append(end)
        end += len(name)
    return logprobs | {"text_offset": offsets}
