"""The format of T3D's released code: one record per question, its outputs and step maps in lists.

Rollouts write ``full_output``; the released preprocessing renames it to ``answer``, a list or one text.
"""

from collections.abc import Iterator
from typing import Any

from transformers import PreTrainedTokenizerBase

from t3d.errors import InputError
from t3d.interchange.formats.assemble import (
    Drop,
    DropReason,
    ImportSettings,
    from_text,
    text_drop,
)
from t3d.problems.fields import Record, ints, is_text, record_id, required, text_field, wrong_kind
from t3d.problems.prompts import question_of_prompt, token_text
from t3d.trajectory import Trajectory


def trajectories_of_record(
    record: Record, fallback_id: str, where: str, settings: ImportSettings
) -> Iterator[Trajectory | Drop]:
    """One trajectory or drop per output; several outputs get the ids ``ID/0``, ``ID/1``, ...

    The prompt is the stored ``prompt``, which the teacher saw, not a re-rendered ``question``.
    Raises InputError for a record that is not of this format.
    """
    prompt, identity = text_field(record, "prompt", where), record_id(record, fallback_id, where)
    outputs, step_maps = _outputs(record, where)
    for index, (output, step_map) in enumerate(zip(outputs, step_maps, strict=True)):
        its_id = f"{identity}/{index}" if len(outputs) > 1 else identity
        if not is_text(output):
            raise wrong_kind("full_output", output, where, "a text or a list of texts")
        if not output:  # a failed generation, whose step map is an empty text
            yield Drop(id=its_id, reason=DropReason.EMPTY_RESPONSE)
            continue
        if step_map is None:
            yield Drop(id=its_id, reason=DropReason.NO_STEPS)
            continue
        yield from_text(its_id, prompt, output, ints(step_map, "step_map", where), settings)


def _outputs(record: Record, where: str) -> tuple[list[Any], list[Any]]:
    """Outputs and as many step maps. ``full_output`` wins: beside it, ``answer`` is the gold one."""
    name = "full_output" if "full_output" in record or "answer" not in record else "answer"
    outputs, step_maps = required(record, name, where), required(record, "step_map", where)
    if isinstance(outputs, str):
        is_flat = isinstance(step_maps, list) and not any(isinstance(item, list) for item in step_maps)
        outputs, step_maps = [outputs], [step_maps] if is_flat else step_maps
    if not isinstance(outputs, list):
        raise wrong_kind(name, outputs, where, "a text or a list of texts")
    if step_maps is None:
        step_maps = [None] * len(outputs)
    if not isinstance(step_maps, list):
        raise wrong_kind("step_map", step_maps, where, "a list with one list per output")
    if len(outputs) != len(step_maps):
        problem = f"{where}: {len(outputs)} outputs in {name}"
        raise InputError("step_map", len(step_maps), problem, "give one step map per output")
    return outputs, step_maps


def export_drop(trajectory: Trajectory, tokenizer: PreTrainedTokenizerBase) -> Drop | None:
    """Why the released code cannot train on a trajectory, or None.

    Its ids must be those of the text, and a question must give its prompt.
    """
    drop = text_drop(trajectory, tokenizer)
    if drop is None and question_of_prompt(tokenizer, trajectory.prompt_ids) is None:
        return Drop(id=trajectory.id, reason=DropReason.NO_QUESTION)
    return drop


def record_of_trajectory(trajectory: Trajectory, _index: int, tokenizer: PreTrainedTokenizerBase) -> Record:
    """One output per record, as the released rollout writes it; the text ends with the visible answer.

    ``question`` is the user's message: the released training puts it into the chat template itself and does
    not look at ``prompt``. The trajectory has passed :func:`export_drop`.
    """
    length = trajectory.visible_length
    question = question_of_prompt(tokenizer, trajectory.prompt_ids)
    assert question is not None, "export_drop has dropped it"
    prompt = token_text(tokenizer, trajectory.prompt_ids, skip_special_tokens=False)
    output = token_text(tokenizer, trajectory.response_ids[:length], skip_special_tokens=False)
    return {
        "id": trajectory.id,
        "question": question,
        "prompt": prompt,
        "full_output": [output],
        "step_map": [list(trajectory.step_map[:length])],
        "response_length": [length],
    }
