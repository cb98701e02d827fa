"""The stages of a distillation, each kept and made once: rollouts, a student, an evaluation.

The demo and the tables are recipes of these stages.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from t3d.decoding.params import DecodeParams
from t3d.decoding.rollout import roll_out_to_file
from t3d.decoding.sample_choice import ONE_SAMPLE, SampleChoice
from t3d.evaluation.evaluate import EvalConfig, evaluate
from t3d.models.drafter import with_drafter
from t3d.models.loading import LoadedModel, load_model
from t3d.models.placement import DTYPES
from t3d.problems.problem import Problem
from t3d.problems.prompt_styles import PromptKind, PromptStyle
from t3d.tasks.task import PosedTask
from t3d.training.config import T3DConfig
from t3d.training.run import distil
from t3d.training.student_settings import student_settings
from t3d.trajectory import Trajectory
from t3d.work.kept import Product


@dataclass
class Pipeline:
    """Makes what is not made yet; where its models run, and in which precision they decode."""

    device: str
    dtype: str
    batch_size: int
    """Requests decoded together."""
    _loaded: tuple[tuple[str, str | None], LoadedModel] | None = field(default=None, init=False)

    def load(self, source: str | Path, drafter: str | None = None) -> LoadedModel:
        """A model for decoding, and the drafter in this folder on it. The last one stays loaded."""
        wanted = str(source), drafter
        if self._loaded is None or self._loaded[0] != wanted:
            self._loaded = None  # memory
            loaded = load_model(source, device=self.device, dtype=self.dtype)
            self._loaded = (wanted, loaded if drafter is None else with_drafter(loaded, drafter))
        return self._loaded[1]

    def roll_out(
        self,
        product: Product,
        source: str | Path,
        problems: Sequence[Problem],
        params: DecodeParams,
        *,
        style: PromptStyle = "plain",
        kind: PromptKind = "math",
        choice: SampleChoice = ONE_SAMPLE,
    ) -> None:
        """Trajectories of a model, as a Parquet file."""
        how: dict[str, Any] = {"style": style, "kind": kind, "choice": choice, "batch_size": self.batch_size}

        def work() -> int:
            loaded = self.load(source)
            return len(roll_out_to_file(loaded, problems, params, product.path, **how))

        product.make(work)

    def train(
        self,
        product: Product,
        source: str | Path,
        trajectories: Callable[[], Sequence[Trajectory]],
        config: T3DConfig,
        *,
        soft_targets_from: str | Path | None = None,
        own_temperature: float | None = None,
    ) -> None:
        """A student of a model, as a checkpoint folder in the precision of decoding.

        ``soft_targets_from``: the teacher that gives the soft targets, if the settings weigh a teacher's;
        ``own_temperature`` is that of the student's own settings, by default its rollouts'.
        """

        def work() -> None:
            self._loaded = None  # memory
            how: dict[str, Any] = {"export_dtype": DTYPES.get(self.dtype)}
            is_told = config.soft_target_weight > 0 and config.soft_target_source == "teacher"
            if is_told and soft_targets_from is not None:
                told = load_model(soft_targets_from, device=self.device, dtype="float32")
                how["soft_target_model"] = told
            teacher, learnt = load_model(source, device=self.device, dtype="float32"), trajectories()
            if own_temperature is not None:
                own = student_settings(learnt, config.block_size)
                how["own_settings"] = {**own, "temperature": own_temperature}
            distil(teacher, learnt, config, product.path, **how)

        product.make(work)

    def evaluate(
        self,
        product: Product,
        source: str | Path,
        tasks: Sequence[PosedTask],
        settings: Mapping[str, DecodeParams],
        *,
        samples_per_prompt: int = 1,
        drafter: str | None = None,
        label: str,
    ) -> list[dict[str, Any]]:
        """The entries of a model's evaluation, whose responses stay in the product's folder."""
        config = EvalConfig(samples_per_prompt=samples_per_prompt, batch_size=self.batch_size)
        return product.make(
            lambda: evaluate(self.load(source, drafter), tasks, settings, product.path, config, label=label)
        )
