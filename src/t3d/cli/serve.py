"""The command ``t3d serve``: a model behind HTTP, as OpenAI's clients ask for it."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from t3d.cli.options import DraftedModelChoice
from t3d.decoding.params import DecodeParams
from t3d.errors import InputError, naming, require_positive
from t3d.model_choice import check_model

if TYPE_CHECKING:
    from t3d.models.loading import LoadedModel

_KEY = "T3D_API_KEY"
_PACKAGES = ("starlette", "uvicorn", "prometheus_client", "anyio")


@dataclass(frozen=True, kw_only=True)
class Serve(DraftedModelChoice):
    """Serve a model to OpenAI's clients (/v1/chat/completions, /v1/completions, /v1/models), with /health and
    /metrics."""

    model_name: str | None = None
    """What clients call the model. Default: the last part of --model."""
    teacher: str | None = None
    """A second model to serve beside it, such as the teacher of a student: requests choose by name, and the
    page at / asks both. It takes as much memory for its answers again, and their forwards take turns."""
    teacher_name: str | None = None
    """What clients call it. Default: the last part of --teacher."""
    host: str = "127.0.0.1"
    """Address to listen at; 0.0.0.0 is reached from other machines."""
    port: int = 8000
    """0: any that is free."""
    api_key: str | None = None
    """What clients have to send. Default: the environment's T3D_API_KEY, which no list of processes shows;
    else none is needed."""
    max_batch_size: int = 32
    """Answers decoded together."""
    max_model_len: int = 4096
    """Most tokens of prompt and answer; so much memory is reserved for every answer of a batch."""
    max_new_tokens: int = DecodeParams.max_new_tokens
    """Most tokens of an answer for which the request names no number."""
    max_body_bytes: int = 2**20
    """Of a request."""
    max_requests: int = 256
    """Requests at the same time; more are refused with status 429."""
    max_choices: int = 128
    """Answers of one request: its prompts times its n."""
    time_limit_s: float = 600.0
    """Seconds of a request, until its last byte is sent."""
    grace_s: float = 5.0
    """Seconds that open answers have when the server is told to stop."""

    def run(self) -> None:
        """Run the command."""
        require_positive(self, "max_batch_size", "max_model_len")
        names = self._names()
        self.check_model()
        if self.teacher is not None:
            check_model(self.teacher, "teacher")
        try:
            from t3d.serving.server import run_server
            from t3d.serving.settings import ServeConfig
        except ModuleNotFoundError as error:
            if error.name is None or error.name.partition(".")[0] not in _PACKAGES:
                raise
            raise InputError("serve", None, "not installed", "run pip install t3d[serve]") from error
        from t3d.decoding.llm import LLM
        from t3d.report.playground.page import playground_page

        config = ServeConfig(
            host=self.host,
            port=self.port,
            api_key=os.environ.get(_KEY) if self.api_key is None else self.api_key,
            max_new_tokens=self.max_new_tokens,
            max_body_bytes=self.max_body_bytes,
            max_requests=self.max_requests,
            max_choices=self.max_choices,
            time_limit_s=self.time_limit_s,
            grace_s=self.grace_s,
        )
        llms = {
            name: LLM(loaded, max_batch_size=self.max_batch_size, max_model_len=self.max_model_len)
            for name, loaded in zip(names, self._loaded(), strict=True)
        }
        try:
            run_server(llms, config, playground_page(names))
        except OSError as error:
            problem = f"cannot listen there with port={self.port} ({error.strerror})"
            raise InputError("host", self.host, problem, "give another --host or --port") from error

    def _names(self) -> list[str]:
        """Of the models. Raises InputError where they would be the same."""
        name = self.model_name or Path(self.model).resolve().name
        if self.teacher is None:
            if self.teacher_name is not None:
                problem = "without --teacher"
                raise InputError(
                    "teacher_name", self.teacher_name, problem, "give --teacher, or leave it out"
                )
            return [name]
        other = self.teacher_name or Path(self.teacher).resolve().name
        if other == name:
            problem = "also the name of the model"
            raise InputError("teacher_name", other, problem, "give another --teacher-name or --model-name")
        return [name, other]

    def _loaded(self) -> "list[LoadedModel]":
        """The models; one forward of theirs runs at a time."""
        from t3d.decoding.turns import share_turns

        model = self.load()
        if self.teacher is None:
            return [model]
        with naming(model="teacher"):
            teacher = replace(self, model=self.teacher, drafter=None).load()
        share_turns(model.model, teacher.model)
        return [model, teacher]
