"""The command ``t3d theory``: what models lose by drawing tokens of recorded trajectories together."""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console

from t3d.cli.config_file import resolved_config
from t3d.errors import InputError, naming, require_once, require_positive
from t3d.model_choice import check_model
from t3d.trajectory import Trajectory, check_is_there, read_trajectories
from t3d.work.files import check_output_file, write_text
from t3d.work.own import is_picture, json_with
from t3d.work.progress import Progress
from t3d.work.versions import versions

if TYPE_CHECKING:
    from t3d.models.loading import LoadedModel


@dataclass(frozen=True, kw_only=True)
class Theory:
    """Measure models on trajectories: what drawing tokens together loses, entropy, agreement, with
    intervals."""

    trajectories: str
    """Parquet file of t3d rollout or t3d data convert: the tokens and orders that are scored."""
    models: tuple[str, ...] = ("mini",)
    """Teacher and students: 'mini', 'mini-small', folders or hub ids."""
    tokens_per_step: tuple[int, ...] = (2, 4)
    """Tokens that a step commits together, in the recorded order."""
    block_size: int | None = None
    """Blocks that the models see; the trajectories' own where left out."""
    limit: int = 64
    """Trajectories from the beginning of the file."""
    device: str = "auto"
    """Device of the models."""
    output: str | None = None
    """JSON file of all numbers, by masks left and by place in the block too; the posterior's, which are of a
    step and not of a token, by masks left."""
    plot: str | None = None
    """PNG file: errors by masks left, at the last of the tokens per step."""

    def run(self) -> None:
        """Run the command."""
        self._check()
        from t3d.report.factorisation import factorisation_table, plot_factorisation

        trajectories = read_trajectories(self.trajectories)[: self.limit]
        smallest = min(self.block_size or trajectory.block_size for trajectory in trajectories)
        if max(self.tokens_per_step) > smallest:
            fix = f"use at most {smallest}, or a larger block_size"
            raise InputError("tokens_per_step", max(self.tokens_per_step), "more than a block has", fix)
        reports = {name: self._measured(name, trajectories) for name in self.models}
        oracle = self._posterior(trajectories)
        if self.output is not None:
            report = {
                "models": reports,
                "oracle": oracle,
                "config": resolved_config(self),
                "versions": versions(),
            }
            write_text(self.output, json.dumps(report, indent=1) + "\n")
        if self.plot is not None:
            plot_factorisation(reports, self.tokens_per_step[-1], self.plot)
        Console().print(factorisation_table(reports, self.tokens_per_step, oracle))

    def _check(self) -> None:
        """Raise InputError for what could only fail after the work."""
        require_positive(self, "limit", "block_size")
        for field in ("models", "tokens_per_step"):
            require_once(field, getattr(self, field))
            if not getattr(self, field):
                raise InputError(field, (), "empty", "give at least one")
        for model in self.models:
            check_model(model, "models")
        if min(self.tokens_per_step) < 1:
            raise InputError("tokens_per_step", min(self.tokens_per_step), "not positive", "use 1 or more")
        for path, is_own in (
            (self.output, json_with("models", "config", "versions")),
            (self.plot, is_picture),
        ):
            if path is not None:
                check_output_file(path, self.trajectories, is_own=is_own)
        check_is_there(self.trajectories)

    def _measured(self, name: str, trajectories: list[Trajectory]) -> dict[str, Any]:
        """The means of one model, which is let go afterwards."""
        from t3d.models.loading import load_model
        from t3d.theory.measured import check_fit, score_trajectory, summary

        with naming(model="models"):
            loaded: LoadedModel = load_model(name, device=self.device)
        check_fit(loaded, trajectories)
        scores = []
        with Progress(f"theory {name}", len(trajectories)) as progress:
            for number, trajectory in enumerate(trajectories):
                scores += score_trajectory(
                    loaded.model,
                    trajectory,
                    number,
                    tokens_per_step=self.tokens_per_step,
                    block_size=self.block_size or trajectory.block_size,
                )
                progress.advance()
        return summary(scores, self.tokens_per_step)

    def _posterior(self, trajectories: list[Trajectory]) -> dict[str, Any] | None:
        """By tokens per step: the true posterior of the records whose task lists its solutions; None of
        none."""
        from t3d.tasks.mini.listed import listed_solutions, question_of
        from t3d.tasks.mini.suite import TASKS
        from t3d.tasks.mini.tokenizer import mini_tokenizer
        from t3d.theory.listed import score_steps, summary_of_steps

        tokenizer, scores = mini_tokenizer(), {count: [] for count in self.tokens_per_step}
        for number, trajectory in enumerate(trajectories):
            question = question_of(tokenizer, trajectory.prompt_ids) if trajectory.task in TASKS else None
            if question is None:
                continue
            length = len(trajectory.response_ids)
            solutions = listed_solutions(TASKS[trajectory.task], question, tokenizer, length)
            size = self.block_size or trajectory.block_size
            for count in self.tokens_per_step:
                scores[count] += score_steps(
                    solutions, trajectory, number, tokens_per_step=count, block_size=size
                )
        if not any(scores.values()):
            return None
        return {str(count): summary_of_steps(found) for count, found in scores.items()}
