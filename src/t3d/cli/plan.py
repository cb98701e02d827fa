"""The command ``t3d plan``: what a recipe takes in memory and hours, before anything runs."""

import dataclasses
import re
from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from t3d.cli.arguments import parsed
from t3d.cli.config_file import flags_of_section, flat_fields, stages_of
from t3d.cli.recipe import Recipe, read_recipe
from t3d.decoding.params import DecodeParams
from t3d.errors import InputError, require_above_zero, require_positive
from t3d.planning.choices import Parallel

_GPUS = re.compile(r"(\d+)x(\d+(?:\.\d+)?)GB")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Memory per GPU by part, the largest batches that fit, and hours of rollout and training of a recipe.

    Nothing is loaded or downloaded but, of a model that is not one of SDAR's published chats, its config.
    What is not given is as the recipe's section plan says, else an assumption, which is printed as one.
    """

    recipe: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RECIPE")]
    """YAML file with a section for each of rollout, train, and maybe data prompts, eval and plan."""
    gpus: str | None = None
    """How many, and the memory of each: 8x80GB."""
    parallel: Parallel | None = None
    """How training is spread over them: ddp, a whole copy on each, or fsdp2, sharded. Default: ddp."""
    num_prompts: int | None = None
    """Of the rollout. Default: the limit of the recipe's rollout, else of its data prompts."""
    measured: str | None = None
    """YAML or JSON file with measured values for any of the next eight."""
    prompt_tokens: float | None = None
    """Mean length of a prompt."""
    response_tokens: float | None = None
    """Mean length of a response."""
    longest_prompt: float | None = None
    """Tokens of the longest prompt, which decide on memory."""
    peak_tflops: float | None = None
    """Peak of one GPU in dense bfloat16."""
    memory_bandwidth: float | None = None
    """Peak memory traffic of one GPU, in GB/s."""
    training_utilisation: float | None = None
    """Share of peak_tflops that a training step reaches."""
    rollout_utilisation: float | None = None
    """Share of the roofline that a decoding step reaches."""
    reserve_gb: float | None = None
    """GiB of each GPU that are left alone: CUDA's context, communication, fragments."""

    def run(self) -> None:
        """Run the command."""
        plan = self._with_recipe()
        recipe = read_recipe(self.recipe)
        from t3d.cli.plan_inputs import planned
        from t3d.report.plan import plan_lines, refusal

        num_gpus, gigabytes = plan.parsed_gpus()
        made = planned(plan, recipe, num_gpus, gigabytes)
        print("\n".join(plan_lines(made)))
        reason = refusal(made)
        if reason is not None:
            raise InputError("gpus", plan.gpus, *reason)

    def _with_recipe(self) -> "Plan":
        """This with the recipe's own section, over which what is given here wins."""
        own, sections = Plan(recipe=self.recipe), stages_of(self.recipe)
        if "plan" in sections:
            flags = [*flags_of_section(self.recipe, sections, Plan), self.recipe]
            own = parsed(Plan, "t3d plan", flags, flat_fields(Plan))
        given = {name: value for name, value in dataclasses.asdict(self).items() if value is not None}
        plan = dataclasses.replace(own, **given)
        require_positive(plan, "num_prompts")
        numbers = [name for name in _NUMBERS if getattr(plan, name) is not None]
        require_above_zero(plan, *numbers)
        return plan

    def parsed_gpus(self) -> tuple[int, float]:
        """How many, and GiB of each."""
        match = _GPUS.fullmatch(self.gpus or "")
        if match is None or int(match[1]) < 1 or float(match[2]) <= 0:
            problem = "not given" if self.gpus is None else "not of the form NUMBERxMEMORYGB"
            raise InputError("gpus", self.gpus, problem, "write for example --gpus 8x80GB")
        return int(match[1]), float(match[2])

    def given_numbers(self) -> dict[str, float]:
        """Assumptions that are given."""
        found: dict[str, Any] = {name: getattr(self, name) for name in _NUMBERS}
        return {name: value for name, value in found.items() if value is not None}

    def prompts_of(self, recipe: Recipe) -> int:
        """How many prompts the rollout has. Raises InputError where nothing says it."""
        limits = recipe.prompts.limit if recipe.prompts is not None else None
        found = self.num_prompts or recipe.rollout.limit or (sum(limits) if limits else None)
        if found is None:
            fix = "give --num-prompts, or a limit in section rollout"
            raise InputError("num_prompts", None, "nothing says how many prompts the rollout has", fix)
        return found


_NUMBERS = ("prompt_tokens", "response_tokens", "longest_prompt", "peak_tflops", "memory_bandwidth")
_NUMBERS += ("training_utilisation", "rollout_utilisation", "reserve_gb")


def decode_params(recipe: Recipe) -> DecodeParams:
    """Of the rollout; what the recipe leaves to the checkpoint is the default."""
    return DecodeParams(**recipe.rollout.decode.given())
