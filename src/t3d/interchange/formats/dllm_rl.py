"""The format of dLLM-RL's training data: prompt, response, reward and one flat step map per record."""

from collections.abc import Iterator

from transformers import PreTrainedTokenizerBase

from t3d.interchange.formats.assemble import Drop, DropReason, ImportSettings, from_text
from t3d.problems.fields import Record, ints, record_id, text_field
from t3d.problems.prompts import token_text
from t3d.trajectory import Trajectory


def trajectories_of_record(
    record: Record, fallback_id: str, where: str, settings: ImportSettings
) -> Iterator[Trajectory | Drop]:
    """The record's trajectory or drop; no ``step_map``, or null: the tokens were set from left to right.

    ``reward`` is not kept. Raises InputError for a record that is not of this format.
    """
    prompt, response = text_field(record, "prompt", where), text_field(record, "response", where)
    identity = record_id(record, fallback_id, where)
    if not response:
        yield Drop(id=identity, reason=DropReason.EMPTY_RESPONSE)
        return
    step_map = record.get("step_map")
    if step_map is not None:
        step_map = ints(step_map, "step_map", where)
    yield from_text(identity, prompt, response, step_map, settings)


def record_of_trajectory(trajectory: Trajectory, _index: int, tokenizer: PreTrainedTokenizerBase) -> Record:
    """The visible answer as text with its step map; no ``reward``, since nothing was graded."""
    length = trajectory.visible_length
    return {
        "id": trajectory.id,
        "prompt": token_text(tokenizer, trajectory.prompt_ids, skip_special_tokens=False),
        "response": token_text(tokenizer, trajectory.response_ids[:length], skip_special_tokens=False),
        "step_map": list(trajectory.step_map[:length]),
    }
