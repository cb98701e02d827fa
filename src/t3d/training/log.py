"""What training adds to each line of the log, summed since the line before, and how a line is printed."""

import sys
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any

import psutil
import torch
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ProgressCallback

from t3d.work.progress import Progress, running_stage


class MetricLog:
    """Sums over micro-batches; :meth:`collect` turns them into numbers per optimizer step, and starts anew.

    Time spent inside :meth:`paused` (evaluation, checkpoints) does not count as training time.
    """

    def __init__(self, mask_ratios: tuple[float, ...]) -> None:
        self.mask_ratios = mask_ratios
        self._clear(None)

    def _clear(self, optimizer_step: int | None) -> None:
        self._since = optimizer_step
        self._sums: dict[str, Tensor] = defaultdict(lambda: torch.zeros(()))
        self._nll: Tensor | None = None
        self._num_tokens = self._num_trajectories = 0
        self._started, self._paused = time.perf_counter(), 0.0

    def add(
        self,
        optimizer_step: int,
        metrics: Mapping[str, Tensor],
        nll_by_ratio: Tensor,
        batch: Mapping[str, Any],
    ) -> None:
        """Count one micro-batch; its metrics are divided by counts of the accumulated batch already."""
        if self._since is None:
            self._since = optimizer_step
        for name, value in metrics.items():
            self._sums[name] = self._sums[name].to(value.device) + value.detach()
        self._nll = nll_by_ratio if self._nll is None else self._nll + nll_by_ratio
        self._num_tokens += batch["num_real_tokens"]
        self._num_trajectories += len(batch["sample_key"])

    def collect(self, optimizer_step: int, gather: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Averages over the optimizer steps since the last call, of all processes; empty without any."""
        if self._since is None or self._nll is None:
            return {}
        seconds = max(time.perf_counter() - self._started - self._paused, 1e-9)
        num_steps = optimizer_step - self._since
        names = list(self._sums)
        rates = [self._num_tokens / seconds, self._num_trajectories / seconds]
        sums = torch.stack([*self._sums.values()]).double()
        total = gather(torch.cat([sums, sums.new_tensor(rates), self._nll.flatten().to(sums)])[None]).sum(0)
        logs = {
            name: value / num_steps for name, value in zip(names, total[: len(names)].tolist(), strict=True)
        }
        tokens, trajectories = total[len(names) : len(names) + 2].tolist()
        logs |= {"speed/tokens_per_second": tokens, "speed/trajectories_per_second": trajectories}
        for ratio, (nll, count) in zip(
            self.mask_ratios, total[len(names) + 2 :].view(-1, 2).tolist(), strict=True
        ):
            if count:
                logs[f"nll/mask_ratio_{ratio:g}"] = nll / count
        logs["memory/peak_gib"] = peak_memory_bytes(self._nll.device) / 2**30
        self._clear(None)
        return logs

    @contextmanager
    def paused(self) -> Generator[None]:
        """Do not count the time inside."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._paused += time.perf_counter() - started


class LogLine(TrainerCallback):
    """Prints a log as one line that can be read; the state, and with it checkpoints, has all of it."""

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """In the first process; a numbered stage has a line of its own."""
        del args, control, kwargs
        if state.is_world_process_zero and logs and running_stage() is None:
            self.write(log_line(logs, state.global_step, state.max_steps))

    def write(self, line: str) -> None:
        """To standard output."""
        print(line, flush=True)


class LogLineAndStage(LogLine):
    """Where the Trainer has no bar: in a numbered stage, how far it is, as decoding says it."""

    _progress: Progress | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Count from the optimizer step that training goes on from."""
        del args, control, kwargs
        if state.is_world_process_zero and running_stage() is not None:
            self._progress = Progress("train", state.max_steps)
            self._progress.skip(state.global_step)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Count an optimizer step."""
        del args, state, control, kwargs
        if self._progress is not None:
            self._progress.advance()


class LogLineAndBar(LogLine, ProgressCallback):
    """The Trainer's bar, and the lines above it. The bar of a numbered stage goes with its end."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Name the bar."""
        super().on_train_begin(args, state, control, **kwargs)
        stage = running_stage()
        if self.training_bar is not None and stage is not None:
            self.training_bar.leave = False
            self.training_bar.set_description(stage)

    def write(self, line: str) -> None:
        """Above the bar while there is one."""
        if self.training_bar is None:
            super().write(line)
        else:
            self.training_bar.write(line)


def log_line(logs: Mapping[str, Any], optimizer_step: int, num_optimizer_steps: int) -> str:
    """``step 10 of 200: loss 0.412 (ddo_real 0.35, path 0.31), learning rate 0.0005, ...``.

    Parts of the loss are as the objective adds them up, before their weights. Of the last log, which sums
    up the run, the seconds; of an evaluation its scores.
    """
    begin = f"step {optimizer_step} of {num_optimizer_steps}: "
    if "train_runtime" in logs:
        return f"{begin}trained for {logs['train_runtime']:.0f} s, mean loss {logs['train_loss']:.4g}"
    scores = {name.removeprefix("eval_"): value for name, value in logs.items() if name.startswith("eval_")}
    if scores:
        return begin + ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in scores.items())
    losses = {name.removeprefix("loss/"): value for name, value in logs.items() if name.startswith("loss/")}
    losses.pop("total", None)
    parts = ", ".join(f"{name} {value:.3g}" for name, value in losses.items())
    total = f"loss {logs['loss']:.4g}" if "loss" in logs else "no loss"
    shown = [f"{total} ({parts})" if len(losses) > 1 else total]
    if "draft/accepted" in logs:
        shown.append("{draft/accepted:.2f} of {draft/acceptable:.2f} accepted per draft".format(**logs))
    for name, text in (
        ("learning_rate", "learning rate {:.3g}"),
        ("grad_norm", "gradient norm {:.3g}"),
        ("speed/tokens_per_second", "{:,.0f} tokens/s"),
        ("memory/peak_gib", "{:.1f} GiB"),
    ):
        if name in logs:
            shown.append(text.format(logs[name]))
    return begin + ", ".join(shown)


def peak_memory_bytes(device: torch.device) -> int:
    """The most memory used so far: of the device's allocator, or of the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    import resource  # noqa: PLC0415 - not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux KiB
