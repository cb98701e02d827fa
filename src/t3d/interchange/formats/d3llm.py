"""The format of d3LLM: every state as a full sequence of token ids, the mask id where nothing was set yet.

Its states follow the denoising steps: the first one shows what step 1 committed. Files of the released
generator do not hold the fully masked state before it; where one stands first it is read as such.

Shape letters: T states, L response tokens.
"""

from collections.abc import Iterator

import numpy as np
from transformers import PreTrainedTokenizerBase

from t3d.errors import InputError
from t3d.interchange.formats.assemble import Drop, DropReason, ImportSettings, assemble
from t3d.problems.fields import Record, ints, record_id, required, wrong_kind
from t3d.problems.prompts import token_text
from t3d.trajectory import Trajectory

States = list[tuple[int, ...]]


def trajectories_of_record(
    record: Record, fallback_id: str, where: str, settings: ImportSettings
) -> Iterator[Trajectory | Drop]:
    """The record's trajectory or drop, read from ``prompt_ids``, ``trajectory`` and ``final_output``.

    The generator for Dream leaves ``trajectory`` out, or gives two lists for it: the step of each token, and
    the tokens.

    Raises InputError for a record that is not of this format, and for a first step other than 1.
    """
    if settings.first_step != 1:
        problem = "d3llm holds states, whose steps have no numbers"
        raise InputError("first_step", settings.first_step, problem, "leave it out")
    prompt_ids = ints(required(record, "prompt_ids", where), "prompt_ids", where)
    final_ids = ints(required(record, "final_output", where), "final_output", where)
    states, identity = (
        record.get("trajectory"),
        record_id(record, _id_of_index(record, fallback_id, where), where),
    )
    if states is None:
        yield Drop(id=identity, reason=DropReason.NO_STEPS)
        return
    if not isinstance(states, list):
        raise wrong_kind("trajectory", states, where, "a list with one list of token ids per denoising step")
    states = [ints(state, "trajectory", where) for state in states]
    response = response_of_times(prompt_ids, states, final_ids)
    if response is None:
        response = response_of_states(prompt_ids, states, final_ids, settings.mask_token_id)
    if isinstance(response, DropReason):
        yield Drop(id=identity, reason=response)
    else:
        yield assemble(identity, prompt_ids, *response, settings)


def _id_of_index(record: Record, fallback_id: str, where: str) -> str:
    """``FILE/IDX``: ``idx`` numbers the questions, and files may hold a part of them."""
    if "idx" not in record:
        return fallback_id
    if type(record["idx"]) is not int:
        raise wrong_kind("idx", record["idx"], where, "a whole number")
    return f"{fallback_id.rpartition('/')[0]}/{record['idx']}"


def response_of_times(
    prompt_ids: tuple[int, ...], states: States, final_ids: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Response ids and 1-based steps of the short form, ``[steps, 0 in the prompt; tokens]``, or None."""
    if len(states) != 2 or states[1] != final_ids or len(states[0]) != len(final_ids):
        return None
    times, start = states[0], len(prompt_ids)
    is_short = times[:start] == (0,) * start != prompt_ids and min(times[start:], default=0) >= 1
    return (final_ids[start:], times[start:]) if is_short and final_ids[:start] == prompt_ids else None


def response_of_states(
    prompt_ids: tuple[int, ...], states: States, final_ids: tuple[int, ...], mask_token_id: int
) -> tuple[tuple[int, ...], tuple[int, ...]] | DropReason:
    """Response ids, and for each the number of the first state that shows it, counted from 1.

    A leading state that shows nothing is the one before the first step and is not counted.
    """
    start = len(prompt_ids)
    if any(len(state) != len(final_ids) for state in states):
        return DropReason.LENGTH_MISMATCH
    if any(state[:start] != prompt_ids for state in [*states, final_ids]):
        return DropReason.PROMPT_MISMATCH
    response_ids = final_ids[start:]
    if not response_ids:
        return DropReason.EMPTY_RESPONSE
    if not states or mask_token_id in (*states[-1][start:], *response_ids):
        return DropReason.NEVER_SET
    state_TL = np.array(states, dtype=np.int64)[:, start:]
    is_masked_TL = state_TL == mask_token_id
    changes = ((state_TL != np.array(response_ids)) & ~is_masked_TL).any()
    is_masked_again = (is_masked_TL[1:] & ~is_masked_TL[:-1]).any()
    if changes or is_masked_again:
        return DropReason.TOKEN_CHANGED
    num_leading = int(is_masked_TL[0].all())
    steps = is_masked_TL.sum(axis=0) - num_leading + 1
    return response_ids, tuple(steps.tolist())


def export_drop(trajectory: Trajectory, _tokenizer: PreTrainedTokenizerBase) -> Drop | None:
    """Why a trajectory cannot be written as states, or None: its response must not hold the mask token."""
    if trajectory.mask_token_id in trajectory.response_ids:
        return Drop(id=trajectory.id, reason=DropReason.NEVER_SET)
    return None


def record_of_trajectory(trajectory: Trajectory, index: int, tokenizer: PreTrainedTokenizerBase) -> Record:
    """The states after each denoising step. The answers are None: nothing was extracted or graded."""
    prompt_ids, steps = trajectory.prompt_ids, range(1, trajectory.num_denoising_steps + 1)
    sequence = [*prompt_ids, *trajectory.response_ids]
    return {
        "id": trajectory.id,
        "idx": index,
        "question": token_text(tokenizer, prompt_ids, skip_special_tokens=False),
        "prompt_ids": list(prompt_ids),
        "trajectory": [[*prompt_ids, *trajectory.state_at(step)] for step in steps],
        "final_output": sequence,
        "generated_text": token_text(tokenizer, sequence),
        "llm_answer": None,
        "gt_answer": None,
        "is_correct": None,
    }
