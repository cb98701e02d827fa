"""lm-evaluation-harness: the model ``t3d``, and the harness's command line that knows it (``t3d lm-eval``).

The harness has no discovery of models in other packages: importing this module registers the model, beside
the harness's own, and :func:`main` runs the harness's own command line after that.
"""

import logging
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import lm_eval.models  # noqa: F401 - its own, which it registers only where no other is registered yet
from lm_eval._cli import HarnessCLI
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model
from lm_eval.config.evaluate_config import EvaluatorConfig
from lm_eval.tasks import TaskManager
from lm_eval.utils import setup_logging, simple_parse_args_string
from transformers import PreTrainedTokenizerBase

from t3d.decoding.completion import DecodeRequest, check_request
from t3d.decoding.llm import LLM
from t3d.decoding.params import DecodeParams
from t3d.errors import InputError
from t3d.evaluation.cost import decoding_cost, keep_rows
from t3d.evaluation.lm_eval.settings import cut, read_model_args, request_params
from t3d.models.loading import LoadedModel, load_model, load_own_settings
from t3d.problems.prompts import token_ids
from t3d.work.kept import Row
from t3d.work.plan import fingerprint
from t3d.work.progress import Progress
from t3d.work.versions import versions

TASK_FOLDER = Path(__file__).parent / "tasks"
"""The tasks ``t3d_*``: the harness's ``--include_path``."""
SAMPLE_ID = "t3d_id"
"""Key of a document's own id, which keys its noise as in ``t3d eval``."""
PROMPT_STYLE = "prompt_style"
"""Key of the style in which a document's prompt is written; documents of other tasks have none."""

_NOT_FOUND = "Tasks not found: "
"""How the harness begins its message on names of tasks."""

_logger = logging.getLogger(f"lm_eval.{__name__}")  # below the harness's logger, which has the handler


@dataclass(frozen=True, kw_only=True)
class _Job:
    """One of the harness's requests, as a request of the engine."""

    index: int
    request: Instance
    prompt: DecodeRequest
    params: DecodeParams
    stops: list[str]

    def text(self, row: Row) -> str:
        """The answer up to its first stop text."""
        return cut(row["response"], self.stops)


@register_model("t3d")
class T3dLM(LM):
    """A block-diffusion model in the harness.

    ``pretrained`` is a local folder, a hub id, a bundled model's name or a loaded model. The other arguments
    are the fields of :class:`~t3d.evaluation.lm_eval.settings.LmEvalConfig` and of DecodeParams, or
    ``tokens_per_step`` in place of ``steps_per_block``; what they leave out is as the checkpoint says. A
    request's ``generation_kwargs`` win over them.
    Contexts are tokenised as they are: no special token is added and nothing is cut from them.
    """

    def __init__(self, pretrained: str | Path | LoadedModel | None = None, **arguments: Any) -> None:
        super().__init__()
        if pretrained is None:
            raise InputError("pretrained", None, "no model given", "use --model_args pretrained=PATH,...")
        loaded = pretrained
        own = loaded.own_settings if isinstance(loaded, LoadedModel) else load_own_settings(loaded)
        self.config = read_model_args(arguments, own)
        if not isinstance(loaded, LoadedModel):
            loaded = load_model(str(loaded), device=self.config.device, dtype=self.config.dtype)
        self._llm = LLM(loaded, max_batch_size=self.config.batch_size)
        self._device = loaded.model.device
        self._rows: list[Row] = []
        self._has_chat_template = False

    @classmethod
    def create_from_arg_string(
        cls, arg_string: str, additional_config: dict[str, Any] | None = None
    ) -> "T3dLM":
        """The model of ``key=value,...``; what the text says wins over the harness's own flags."""
        return cls.create_from_arg_obj(simple_parse_args_string(arg_string), additional_config)

    @classmethod
    def create_from_arg_obj(
        cls, arg_dict: dict[str, Any], additional_config: dict[str, Any] | None = None
    ) -> "T3dLM":
        """The model of these arguments; they win over the harness's own flags, which it always passes."""
        flags = {name: value for name, value in (additional_config or {}).items() if value is not None}
        return cls(**(flags | arg_dict))

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's tokenizer, of which the harness records the special tokens."""
        return self._llm.tokenizer

    @property
    def tokenizer_name(self) -> str:
        """Fingerprint of tokenizer and chat template: the harness's cache of requests is keyed by it."""
        return fingerprint([self._llm.loaded.tokenizer_hash, self.tokenizer.chat_template])

    def chat_template(self, chat_template: bool | str = False) -> str:
        """The tokenizer's template. Raises InputError if it has none, or for a template's name."""
        if isinstance(chat_template, str):
            problem = "t3d knows one template, the tokenizer's"
            raise InputError("apply_chat_template", chat_template, problem, "give the flag without a name")
        if not chat_template:
            return ""
        template = self.tokenizer.chat_template
        if not isinstance(template, str):
            problem = "the tokenizer has no chat template, or several"
            raise InputError("apply_chat_template", True, problem, "leave out --apply_chat_template")
        self._has_chat_template = True
        return template

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The chat as text: what :func:`t3d.problems.prompts.chat_ids` tokenises.

        Without ``add_generation_prompt`` the last message, the opening of an answer, stays open.
        """
        self._has_chat_template = True
        return str(
            self.tokenizer.apply_chat_template(
                chat_history,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=not add_generation_prompt,
            )
        )

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Raise InputError: there is none."""
        raise _no_likelihood(requests)

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """Raise InputError: there is none."""
        raise _no_likelihood(requests)

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Answers in the order of the requests, each cut at its first stop text.

        Each task is decoded by itself, as ``t3d eval`` does, so that the batches are the same too.
        Raises InputError, before anything is decoded, for settings that t3d does not have, for prompts of
        another style than the model's, and for those that do not fit.
        """
        self._check_prompts(requests)
        by_task: dict[str | None, list[_Job]] = defaultdict(list)
        for job in self._jobs(requests):
            by_task[job.request.task_name].append(job)
        texts: dict[int, str] = {}
        with Progress("lm-eval", len(requests)) as progress:
            for jobs in by_task.values():
                self._decode(jobs, texts, progress)
        return [texts[index] for index in range(len(requests))]

    def _jobs(self, requests: Sequence[Instance]) -> list["_Job"]:
        max_positions = self._llm.loaded.model.config.max_position_embeddings
        jobs = []
        for index, (name, request) in enumerate(zip(request_ids(requests), requests, strict=True)):
            context, generation_kwargs = request.args
            params, stops = request_params(self.config.decode, generation_kwargs)
            prompt = DecodeRequest(id=name, prompt_ids=tuple(token_ids(self.tokenizer, context)))
            check_request(prompt, params, max_positions)
            jobs.append(_Job(index=index, request=request, prompt=prompt, params=params, stops=stops))
        return jobs

    def _decode(self, jobs: Sequence["_Job"], texts: dict[int, str], progress: Progress) -> None:
        """Put the answer of each job under its index."""
        by_id = {job.prompt.id: job for job in jobs}

        def keep(row: Row) -> None:
            job = by_id[row["id"]]
            texts[job.index] = job.text(row)
            if job.request.repeats in (None, 1):  # the harness's cache cannot tell several draws apart
                self.cache_hook.add_partial("generate_until", job.request.args, texts[job.index])
            self._rows.append(row)
            progress.advance()

        prompts, params = [job.prompt for job in jobs], [job.params for job in jobs]
        self._llm.decode(prompts, params, on_finish=keep_rows(keep))

    def get_model_info(self) -> dict[str, Any]:
        """What the harness adds to the configuration in its results: settings, identity and cost."""
        settings = asdict(self.config) | {"decode": self.config.decode.record()}
        cost = decoding_cost(self._rows) if self._rows else None
        identity = self._llm.loaded.identity()
        return {"t3d": {"settings": settings, "identity": identity, "cost": cost, "versions": versions()}}

    def _check_prompts(self, requests: Sequence[Instance]) -> None:
        expected, is_bare = self.config.prompt_style, False
        for request in requests:
            style = request.doc[PROMPT_STYLE] if SAMPLE_ID in request.doc else "plain"
            if expected not in (None, style):
                problem = f"the prompts of {request.task_name!r} are written in style {style!r}"
                fix = "leave it out, or give the same prompt_style to the task manager as metadata"
                raise InputError("prompt_style", expected, problem, fix)
            if style == "released" and self._has_chat_template:
                problem = "these prompts hold their chat markup already"
                raise InputError("prompt_style", style, problem, "leave out --apply_chat_template")
            is_bare = is_bare or style != "released"
        if is_bare and self.tokenizer.chat_template and not self._has_chat_template:
            _logger.warning(
                "The checkpoint has a chat template, and prompts go without it: add --apply_chat_template."
            )


def request_ids(requests: Sequence[Instance]) -> list[str]:
    """The id of each request, which keys its sampling noise; draws of one request are told apart by ``#N``.

    It is the document's own in a task of t3d, else task, document number and request number.
    """
    drawn: Counter[str] = Counter()
    names = []
    for request in requests:
        own = request.doc.get(SAMPLE_ID)
        name = f"{request.task_name}/{request.doc_id}/{request.idx}" if own is None else str(own)
        names.append(name if request.repeats in (None, 1) else f"{name}#{drawn[name]}")
        drawn[name] += 1
    return names


def _no_likelihood(requests: Sequence[Instance]) -> InputError:
    problem = "it compares log-likelihoods, and a block-diffusion model has none in closed form"
    fix = "use tasks that generate text (output_type generate_until), such as gsm8k"
    return InputError("tasks", requests[0].task_name if requests else None, problem, fix)


def main(arguments: Sequence[str]) -> None:
    """Run the harness's command line; the model is ``t3d`` and the tasks ``t3d_*`` are known.

    Differs from the harness's own in the defaults that do not suit this model: ``--model`` is t3d and, for
    that model, ``--batch_size`` and ``--device`` are auto.
    """
    setup_logging()
    line = HarnessCLI()
    before = sys.argv
    sys.argv = ["lm-eval", *arguments]  # the only place from which the harness takes them
    try:
        flags = line.parse_args()
    finally:
        sys.argv = before
    file = {} if getattr(flags, "config", None) is None else EvaluatorConfig.load_yaml_config(flags.config)

    def given(name: str) -> Any:
        value = getattr(flags, name, None)
        return file.get(name) if value is None else value

    if flags.command is not None:
        others = given("include_path") or []
        flags.include_path = [str(TASK_FOLDER), *([others] if isinstance(others, str) else others)]
    if flags.command == "run":
        flags.model = given("model") or "t3d"
        for name in ("batch_size", "device") if flags.model == "t3d" else ():
            setattr(flags, name, given(name) or "auto")
    try:
        line.execute(flags)
    except ValueError as error:  # raised before the model is loaded
        if not str(error).startswith(_NOT_FOUND):
            raise
        raise _unknown_tasks(str(error).removeprefix(_NOT_FOUND), flags.include_path) from error


def _unknown_tasks(names: str, folders: list[str | Path]) -> InputError:
    """For names that the harness does not find, with the nearest to each that it has."""
    known = TaskManager(include_path=folders).all_tasks
    nearest = [get_close_matches(name, known, n=1) for name in names.split(", ")]
    close = [found[0] for found in nearest if found]
    fix = f"did you mean {', '.join(close)}" if close else "see t3d lm-eval ls tasks"
    return InputError("tasks", names, "not known to lm-evaluation-harness", fix)
