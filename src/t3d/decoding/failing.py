"""Requests that make the model raise, found and left out, so that the others have their responses."""

import traceback
from collections.abc import Callable, Sequence

from t3d.decoding.completion import Completion, DecodeRequest, DecodingError
from t3d.decoding.llm import LLM
from t3d.decoding.params import DecodeParams
from t3d.work.failures import Failure


def decode_without_failing(
    llm: LLM,
    requests: Sequence[DecodeRequest],
    params: DecodeParams,
    *,
    max_failed: int,
    prompt_of: Callable[[str], str],
    on_finish: Callable[[Completion], object] = lambda _: None,
) -> tuple[list[Completion], list[Failure]]:
    """The completions of the requests that have one, in their order, and the prompts that failed.

    A prompt fails with any of its requests; ``prompt_of`` names the prompt of a request's id. All others
    are decoded again without it: what is decoded beside a response may change its rounding, so theirs are
    those of a call without that prompt. ``on_finish`` is then told of them again. The search ends with the
    first one beyond ``max_failed``. Raises the DecodingError of requests that fail together, but none of them
    alone.
    """
    left, failed = list(requests), dict[str, Failure]()

    def tell(completion: Completion) -> None:
        if not completion.error:
            on_finish(completion)

    while left:
        try:
            completions = llm.decode(left, params, on_finish=tell, on_error="return")
            found = _refused(completions)
            if not found:
                return completions, list(failed.values())
        except DecodingError as error:
            found = _failing(llm, _unfinished(left, error), params, max_failed + 1 - len(failed))
            if not found:  # such as one that needs more memory than there is for a whole batch
                raise
        for each in found:
            name = prompt_of(each.id)
            failed.setdefault(name, Failure(name, each.error, each.message, each.traceback))
        if len(failed) > max_failed:
            return [], list(failed.values())
        left = [request for request in left if prompt_of(request.id) not in failed]
    return [], list(failed.values())


def _failing(llm: LLM, requests: Sequence[DecodeRequest], params: DecodeParams, limit: int) -> list[Failure]:
    """At least the first ``limit`` of those that fail alone, by halves; they have failed together."""
    if len(requests) == 1:
        return _alone(llm, requests, params, limit)
    middle = len(requests) // 2
    found = _alone(llm, requests[:middle], params, limit)
    return (
        found if len(found) >= limit else found + _alone(llm, requests[middle:], params, limit - len(found))
    )


def _alone(llm: LLM, requests: Sequence[DecodeRequest], params: DecodeParams, limit: int) -> list[Failure]:
    """The same of requests that have not been decoded by themselves yet."""
    try:
        return _refused(llm.decode(requests, params, on_error="return"))
    except DecodingError as error:
        if len(requests) > 1:
            return _failing(llm, _unfinished(requests, error), params, limit)
        cause = error.__cause__ or error
        text = "".join(traceback.format_exception(cause))
        return [Failure(requests[0].id, type(cause).__name__, str(cause), text)]


def _unfinished(requests: Sequence[DecodeRequest], error: DecodingError) -> list[DecodeRequest]:
    return [request for request in requests if request.id in error.problems]


def _refused(completions: Sequence[Completion]) -> list[Failure]:
    """Those that have no response, though no forward failed."""
    return [
        Failure(completion.id, DecodingError.__name__, completion.error)
        for completion in completions
        if completion.error
    ]
