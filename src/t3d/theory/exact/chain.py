"""The reverse process of a model under a transfer strategy, as an exact Markov chain over states.

x_t has t steps left where every block takes its planned steps; an adaptive strategy that is done earlier
stays at x_0. V vocabulary, L length, T steps; tables as in :mod:`t3d.theory.exact.tables`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from t3d.decoding.params import DecodeParams
from t3d.errors import InputError
from t3d.theory.exact.commits import check_strategy, commits
from t3d.theory.exact.tables import MaskSet, TableModel, Tables

MAX_PATH_ENTRIES = 2**20
NOTHING: MaskSet = frozenset()


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Chain:
    """p(x_{t-1} | x_t) of every state that can be reached, as commits by mask set."""

    length: int
    vocab_size: int
    num_steps: int
    """T: steps planned from all masks to none."""
    steps: dict[MaskSet, Tables]
    """By mask set, then by set of positions committed."""

    @property
    def all_masked(self) -> MaskSet:
        """The mask set of x_T."""
        return frozenset(range(self.length))

    def after(self, start: MaskSet, num_steps: int) -> Tables:
        """p(x_s | x_t) for all states of one mask set, by the mask set of x_s.

        Axes: V long where x_t shows a token (the condition) or x_s does.
        """
        visible = [1 if i in start else self.vocab_size for i in range(self.length)]
        reached: Tables = {start: torch.ones(visible, dtype=torch.float64)}
        for _ in range(num_steps):
            following: Tables = {}
            for masked, reach in reached.items():
                for committed, probs in self.steps[masked].items() if masked else ((NOTHING, None),):
                    after = masked - committed
                    more = reach if probs is None else reach * probs
                    following[after] = following[after] + more if after in following else more
            reached = following
        return reached

    def marginal(self, t: int) -> Tables:
        """p(x_t) (Eq. 12), by mask set; T is all masks, 0 is clean."""
        return self.after(self.all_masked, self.num_steps - t)

    def posteriors(self) -> Tables:
        """p(x_0 | x_t) by mask set, of all that can be reached: V long on all axes, visible tokens given.

        The chain forgets how it came to a state, so t does not matter. States that are not reached from x_T
        have posteriors too, those of decoding on from there.
        """
        found: Tables = {NOTHING: torch.ones([self.vocab_size] * self.length, dtype=torch.float64)}
        for masked in sorted(self.steps, key=len):
            found[masked] = torch.zeros((), dtype=torch.float64)
            for committed, probs in self.steps[masked].items():
                found[masked] = found[masked] + probs * found[masked - committed]
        return found

    def clean(self) -> Float[Tensor, "..."]:
        """p(x_0): V long on all axes."""
        return self.posteriors()[self.all_masked]

    def joint(self, t: int) -> Tables:
        """J_Tra(x_0, x_t) = p(x_t) p(x_0 | x_t) (Def. 4.1, Eq. 17), by the mask set of x_t."""
        posteriors = self.posteriors()
        return {masked: reach * posteriors[masked] for masked, reach in self.marginal(t).items()}

    def paths(self) -> dict[tuple[MaskSet, ...], Float[Tensor, "..."]]:
        """p(x_0:T) (Eq. 11): by the mask sets of x_T, ..., x_0, a table over x_0, which fixes all tokens.

        Paths of an adaptive strategy that end early are shorter.
        """
        found = {}
        for path, probs in self._walks((self.all_masked,), torch.ones((), dtype=torch.float64)):
            found[path] = probs.expand([self.vocab_size] * self.length)
            if len(found) * self.vocab_size**self.length > MAX_PATH_ENTRIES:
                fix = "use fewer positions, tokens or orders; marginals and posteriors need no paths"
                raise InputError("paths", f"over {len(found)}", "too many to write out", fix)
        return found

    def _walks(
        self, path: tuple[MaskSet, ...], probs: Float[Tensor, "..."]
    ) -> Iterator[tuple[tuple[MaskSet, ...], Tensor]]:
        """All ways from the end of a path to x_0, each with its probability."""
        if not path[-1]:
            yield path, probs
            return
        for committed, step in self.steps[path[-1]].items():
            yield from self._walks((*path, path[-1] - committed), probs * step)


def chain_of(model: TableModel, params: DecodeParams) -> Chain:
    """Decode the model from all masks in every way that the strategy may take."""
    check_strategy(params, model.length)
    steps: dict[MaskSet, Tables] = {}
    waiting = {frozenset(range(model.length))}
    while waiting:
        masked = waiting.pop()
        steps[masked] = commits(model, masked, params)
        waiting |= {masked - committed for committed in steps[masked]} - steps.keys() - {NOTHING}
    num_steps = model.length // params.block_size * params.steps_per_block
    return Chain(length=model.length, vocab_size=model.vocab_size, num_steps=num_steps, steps=steps)
