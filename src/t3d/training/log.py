"""What training adds to each line of the log, summed since the line before."""

import sys
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any

import psutil
import torch
from torch import Tensor


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


def peak_memory_bytes(device: torch.device) -> int:
    """The most memory used so far: of the device's allocator, or of the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    import resource  # noqa: PLC0415 - not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux KiB
