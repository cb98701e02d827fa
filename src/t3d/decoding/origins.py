"""How each token of a response came to be committed, told from its steps by the rules of drafting."""

from itertools import groupby
from typing import Literal

from t3d.decoding.completion import Completion
from t3d.decoding.self_speculation import num_drafted_behind

Origin = Literal["accepted", "correction", "bonus", "undrafted", "drawn"]
"""A draft that was right, or else drawn: where the draft was wrong, behind one that was right to its end, or
with no draft to check. With ``draft_groups="auto"``, whose drafts depend on what was decoded beside, these
three cannot be told apart: ``drawn``."""


def origins(completion: Completion) -> tuple[Origin, ...]:
    """One for each token of a response of ``self_speculative`` or ``left_to_right``.

    A forward's last token is drawn, all before it are accepted; a draft cannot reach the length limit. Only a
    stop token may be the last of a forward and accepted: the count of accepted tokens tells. Those that were
    accepted behind it are none of the response's, so fewer may be found here than are counted. Behind a
    forward that committed nothing, for its numbers were none, nothing is drafted.
    """
    committed, num_draft = len(completion.prompt_ids), 0
    end, params = committed + completion.params.max_new_tokens, completion.params
    steps = [(step, len(list(tokens))) for step, tokens in groupby(completion.step_map)]
    counts = [count for _, count in steps]
    all_accepted = [count - 1 for count in counts]
    if counts:
        all_accepted[-1] = min(counts[-1], completion.num_accepted - sum(all_accepted[:-1]))
    found = list[Origin]()
    for number, ((step, count), accepted) in enumerate(zip(steps, all_accepted, strict=True), start=1):
        if step != number:
            num_draft = 0
        found += ["accepted"] * accepted
        if accepted < count:
            found.append("drawn" if params.draft_groups == "auto" else _of_draw(accepted, num_draft))
        num_draft = num_drafted_behind(accepted, committed, num_draft, end, params)
        committed += count
    return tuple(found)


def _of_draw(accepted: int, num_draft: int) -> Origin:
    if num_draft == 0:
        return "undrafted"
    return "bonus" if accepted == num_draft else "correction"
