"""Few-step text of students on real prompts, beside the full-step text of their teacher.

python benchmarks/real_text.py --teacher FOLDER --judge FOLDER --prompts FILE.jsonl
    --student NAME=FOLDER [--student NAME=FOLDER ...] --json results.json
python benchmarks/real_text_table.py results.json > results.md

The teacher and every student decode the same prompts, greedily, in blocks of 4: 1, 2 and 4 tokens per step,
dynamic, left to right, self-speculative. Each text is compared with what the teacher writes at full steps
(``t3d.evaluation.text_measures``), read by the judge, the autoregressive model that the teacher was converted
from (``t3d.evaluation.judge``), and searched for equations (``t3d.evaluation.equations``); where every prompt
has an answer, answers are graded.

A model under a setting is kept in the file as soon as it is measured, and not measured again by the same
command; more students may be added. The file of other prompts, lengths, teacher or judge is refused.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t3d.decoding.completion import Completion, DecodeRequest
from t3d.decoding.llm import LLM
from t3d.decoding.params import DecodeParams
from t3d.decoding.posed_requests import decode_requests
from t3d.decoding.settings import decoding_settings
from t3d.errors import InputError
from t3d.evaluation.cost import decoding_cost, response_row
from t3d.evaluation.equations import equations_right
from t3d.evaluation.intervals import pooled_interval, wilson_interval
from t3d.evaluation.judge import check_judge, negative_log_likelihoods
from t3d.evaluation.text_measures import pooled_share, text_measures
from t3d.models.loading import LoadedModel, load_model, load_tokenizer
from t3d.problems.problem import Problem
from t3d.tasks.prompt_file import PromptFileTask
from t3d.work.files import write_text
from t3d.work.plan import described, differences, file_sha256
from t3d.work.progress import Progress
from t3d.work.versions import versions

Row = dict[str, Any]
TEACHER = "teacher"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What every model is asked, and who reads the answers."""

    problems: list[Problem]
    requests: list[DecodeRequest]
    grader: PromptFileTask | None
    """None where a prompt has no answer."""
    judge: LoadedModel
    batch_size: int


def settings_of(block_size: int, max_new_tokens: int) -> dict[str, DecodeParams]:
    """What is compared, by label; the first is full steps."""
    counts = [count for count in (1, 2, 4) if block_size % count == 0]
    return decoding_settings(
        block_sizes=(block_size,),
        tokens_per_step=counts,
        dynamic=(0.9,),
        left_to_right=("left_to_right", "self_speculative"),
        shared=DecodeParams(temperature=0.0, max_new_tokens=max_new_tokens),
    )


def ask(args: argparse.Namespace, judge: LoadedModel, teacher: LoadedModel) -> Asked:
    """The prompts of the file, as the teacher's chat template puts them."""
    task = PromptFileTask(args.prompts)
    problems = task.problems("", args.limit, 0)
    has_answers = all(problem.answer is not None for problem in problems)
    if has_answers:
        task.check(problems[0])  # before anything is decoded
    return Asked(
        problems=problems,
        requests=decode_requests(teacher.tokenizer, problems),
        grader=task if has_answers else None,
        judge=judge,
        batch_size=args.batch_size,
    )


def measure(
    loaded: LoadedModel,
    params: DecodeParams,
    asked: Asked,
    targets: Sequence[Sequence[int]] | None,
    advance: Callable[[], object],
) -> Row:
    """One model under one setting; without ``targets`` its texts are those to compare with."""
    llm = LLM(loaded, max_batch_size=asked.batch_size)
    done = llm.decode(asked.requests, params, on_finish=lambda _: advance())
    texts = [completion.visible_ids for completion in done]
    nats = negative_log_likelihoods(asked.judge, [request.prompt_ids for request in asked.requests], texts)
    measures = text_measures(
        texts, texts if targets is None else targets, [one.finish_reason == "stop" for one in done]
    )
    measures["nats_per_token"] = pooled_interval(
        [(own * len(text), len(text)) for own, text in zip(nats, texts, strict=True)]
    )
    equations = [equations_right(completion.text) for completion in done]
    if any(count for _, count in equations):
        measures["equations_right"] = pooled_share(equations)
    responses = [
        {"id": one.id, "ids": one.visible_ids, "text": one.text, "nats_per_token": own, "equations": found}
        for one, own, found in zip(done, nats, equations, strict=True)
    ]
    if asked.grader is not None:
        right = grade(asked, done)
        measures["right"] = (sum(right) / len(right), *wilson_interval(sum(right), len(right)))
        responses = [row | {"right": own} for row, own in zip(responses, right, strict=True)]
    cost = decoding_cost([response_row(completion, 1.0) for completion in done])
    found = {name: cost[name] for name in ("tokens_per_forward", "mean_length")}
    return {"n": len(done), **found, "measures": measures, "responses": responses}


def grade(asked: Asked, done: Sequence[Completion]) -> list[bool]:
    """Which answers are right."""
    assert asked.grader is not None
    pairs = zip(asked.problems, done, strict=True)
    return [asked.grader.grade(problem, completion.text) for problem, completion in pairs]


def _key(row: Row) -> tuple[str, str, str]:
    return row["model"], row["setting"], row["weights"]


class Results:
    """The JSON file, written anew with every row."""

    def __init__(self, path: Path, arguments: Row) -> None:
        """Raises InputError for a file of other arguments."""
        self.path, self.record = path, {"arguments": arguments, "versions": versions(), "rows": []}
        if path.is_file():
            found = json.loads(path.read_text(encoding="utf-8"))
            unlike = differences(found["arguments"], arguments)
            if unlike:
                fix = "give the arguments of before, or another file"
                raise InputError("json", str(path), f"has other results: {described(unlike)}", fix)
            self.record["rows"] = found["rows"]

    def row(self, model: str, setting: str, weights: str) -> Row | None:
        """What is kept of a model with these weights."""
        key = (model, setting, weights)
        return next((row for row in self.record["rows"] if _key(row) == key), None)

    def texts(self, model: str, setting: str) -> list[list[int]] | None:
        """Token ids of the responses of a model under a setting, if it is kept."""
        for row in self.record["rows"]:
            if (row["model"], row["setting"]) == (model, setting):
                return [response["ids"] for response in row["responses"]]
        return None

    def keep(self, row: Row) -> None:
        """Keep a row, in the place of one of the same name."""
        others = [one for one in self.record["rows"] if _key(one)[:2] != _key(row)[:2]]
        self.record["rows"] = [*others, row]
        write_text(self.path, json.dumps(self.record, indent=1) + "\n")


def measure_model(
    name: str, loaded: LoadedModel, asked: Asked, settings: dict[str, DecodeParams], results: Results
) -> None:
    """Every setting of a model that is not kept; the teacher's first is what all are compared with."""
    with Progress(name, len(settings) * len(asked.requests)) as bar:
        for label, params in settings.items():
            if results.row(name, label, loaded.weights_hash) is not None:
                bar.skip(len(asked.requests))
                continue
            targets = results.texts(TEACHER, next(iter(settings)))
            row = measure(loaded, params, asked, targets, bar.advance)
            results.keep({"model": name, "setting": label, "weights": loaded.weights_hash, **row})


def run(args: argparse.Namespace) -> None:
    """Measure what is missing."""
    students = dict(item.split("=", 1) for item in args.student)
    if TEACHER in students or len(students) < len(args.student):
        problem, fix = "a name that is taken", "give every student a name of its own"
        raise InputError("student", args.student, problem, fix)
    judge = load_model(args.judge, device=args.device, dtype=args.dtype)
    for folder in (args.teacher, *students.values()):
        check_judge(judge, load_tokenizer(folder))
    teacher = load_model(args.teacher, device=args.device, dtype=args.dtype)
    names = ("limit", "max_new_tokens", "block_size", "dtype")
    arguments = {name: getattr(args, name) for name in names}
    arguments |= {"prompts": file_sha256(Path(args.prompts))}
    arguments |= {"teacher": teacher.weights_hash, "judge": judge.weights_hash}
    results = Results(args.json, arguments)
    asked = ask(args, judge, teacher)
    settings = settings_of(args.block_size, args.max_new_tokens)
    measure_model(TEACHER, teacher, asked, settings, results)
    for name, folder in students.items():
        student = load_model(folder, device=args.device, dtype=args.dtype)
        measure_model(name, student, asked, settings, results)
    if asked.grader is not None:
        asked.grader.close()


def arguments_of(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--teacher", required=True, metavar="FOLDER")
    parser.add_argument(
        "--judge", required=True, metavar="FOLDER", help="what the teacher was converted from"
    )
    parser.add_argument(
        "--prompts", required=True, metavar="FILE", help='"question" and "answer" in each line'
    )
    parser.add_argument("--student", action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--json", type=Path, required=True, help="where the results go")
    parser.add_argument("--limit", type=int, default=200, help="prompts, the first ones")
    parser.add_argument("--max-new-tokens", type=int, default=160)
    parser.add_argument("--block-size", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="float32")
    return parser.parse_args(words)


if __name__ == "__main__":
    try:
        run(arguments_of())
    except InputError as error:
        raise SystemExit(f"error: {error}") from error
