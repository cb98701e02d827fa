"""The ``chain`` task: short arithmetic stories, solved step by step in freely chosen words.

Every step has five equally likely phrasings of different length and word order, so the posterior
inside a block is multimodal: a model that commits several tokens at once mixes phrasings.
"""

import itertools
import random
import re
from dataclasses import dataclass

from t3d.errors import InputError
from t3d.grading.boxed import last_opened_box
from t3d.problems.problem import Problem
from t3d.tasks.mini.mini_task import OUT_OF_DISTRIBUTION, MiniTask, split_of

NAMES = ("Gus", "Ada", "Ben", "Eve", "Ivy", "Max", "Zoe", "Leo")
ITEMS = ("nuts", "pens", "cups", "keys", "figs", "eggs")
GAIN_VERBS = ("gets", "finds", "buys")
LOSS_VERBS = ("drops", "loses", "sells")
ORDINALS = ("first", "then", "next", "last")
QUESTIONS = ("How many now?", "How many?", "How many {item} now?", "How many are left now?")
GAIN_PHRASES = (
    "{before} + {change} = {after}.",
    "add {change} to {before}, so {after}.",
    "{name} now has {after}, {change} more.",
    "with {change} added, {after} {item} held.",
    "from {before} up {change} to {after}.",
)
LOSS_PHRASES = (
    "{before} - {change} = {after}.",
    "take {change} from {before}, so {after}.",
    "{name} now has {after}, {change} less.",
    "with {change} gone, {after} {item} left.",
    "from {before} down {change} to {after}.",
)
ENDINGS = ("So \\boxed{{{after}}}.", "Answer: \\boxed{{{after}}}.", "{name} has \\boxed{{{after}}}.")
MAX_TOTAL = 9
STARTS, OTHER_STARTS = range(1, MAX_TOTAL + 1), (0,)
"""First amounts of stories; that of the split ``ood`` is a later total of the others, but never the first."""


@dataclass(frozen=True, slots=True)
class ChainSpec:
    """A story's arithmetic: the first amount and the signed changes. Totals stay in 0..9."""

    start: int
    changes: tuple[int, ...]

    @classmethod
    def of_question(cls, question: str) -> "ChainSpec":
        """The arithmetic of a question that the task wrote."""
        start = re.search(r" has (\d+) ", question)
        steps = re.findall(rf", (?:{'|'.join(ORDINALS)}) (\w+) (\d+)", question)
        if start is None or not steps:
            raise InputError("question", question, "not a chain story", "use a problem of the task")
        changes = tuple(int(count) if verb in GAIN_VERBS else -int(count) for verb, count in steps)
        return cls(int(start.group(1)), changes)

    @property
    def totals(self) -> tuple[int, ...]:
        """Running totals, the start included."""
        totals = [self.start]
        for change in self.changes:
            totals.append(totals[-1] + change)
        return tuple(totals)

    @property
    def split(self) -> str:
        """A fixed function of the arithmetic alone: ``ood`` by the first amount, else of all numbers.

        Names, items and verbs do not enter, so held-out arithmetic is never seen in training.
        """
        if self.start in OTHER_STARTS:
            return OUT_OF_DISTRIBUTION
        return split_of(f"chain/{self.start}/{self.changes}")


class ChainTask(MiniTask):
    """Generator, reference solutions and verifier of ``chain``."""

    name = "chain"
    spec_of = staticmethod(ChainSpec.of_question)

    def draw(self, rng: random.Random, split: str) -> tuple[Problem, str]:
        """One random problem of a split and one random correct solution of it."""
        spec = self.draw_spec(rng, split)
        name, item = rng.choice(NAMES), rng.choice(ITEMS)
        story = f"{name} has {spec.start} {item}"
        for ordinal, change in zip(ORDINALS, spec.changes, strict=False):
            verb = rng.choice(GAIN_VERBS if change > 0 else LOSS_VERBS)
            story += f", {ordinal} {verb} {abs(change)}"
        question = f"{story}. {rng.choice(QUESTIONS).format(item=item)}"
        problem = Problem(id="", question=question, task=self.name, answer=str(spec.totals[-1]))
        return problem, self._draw_solution(rng, spec, name, item)

    def grade(self, problem: Problem, response: str) -> bool:
        """True if every step is worked out and the box holds the last total.

        The response must have one sentence per change, each with that step's running total among its
        numbers, and one more with the total in the box. The working is graded because the total
        alone can be found from the question without it. Wording and names are not graded.
        """
        totals = ChainSpec.of_question(problem.question).totals[1:]
        sentences = re.findall(r"[^.]*\.", response)
        if len(sentences) != len(totals) + 1 or last_opened_box(response) != str(totals[-1]):
            return False
        numbers = [re.findall(r"\d+", sentence) for sentence in sentences]
        return all(str(total) in stated for total, stated in zip(totals, numbers, strict=False))

    def corpus_words(self) -> list[str]:
        """Every text piece of the task, for the tokenizer's word list."""
        pieces = [*NAMES, *GAIN_VERBS, *LOSS_VERBS, *ITEMS, *ORDINALS, "has"]
        pieces += [ordinal.capitalize() for ordinal in ORDINALS]
        return [*pieces, *QUESTIONS, *GAIN_PHRASES, *LOSS_PHRASES, *ENDINGS]

    @staticmethod
    def draw_spec(rng: random.Random, split: str) -> ChainSpec:
        """Random arithmetic of a split."""
        starts = OTHER_STARTS if split == OUT_OF_DISTRIBUTION else STARTS
        while True:
            totals = [rng.choice(starts)]
            for _ in range(rng.choice((3, 4))):
                totals.append(rng.choice([t for t in range(MAX_TOTAL + 1) if t != totals[-1]]))
            changes = tuple(after - before for before, after in itertools.pairwise(totals))
            spec = ChainSpec(totals[0], changes)
            if spec.split == split:
                return spec

    def solutions(self, question: str) -> list[str]:
        """All wordings of the one working: five phrasings per step, three endings."""
        spec = ChainSpec.of_question(question)
        name, _, _, item = re.split(r"[ ,]", question)[:4]
        return [" ".join(sentences) for sentences in itertools.product(*_sentences(spec, name, item))]

    @staticmethod
    def _draw_solution(rng: random.Random, spec: ChainSpec, name: str, item: str) -> str:
        return " ".join(rng.choice(choices) for choices in _sentences(spec, name, item))


def _sentences(spec: ChainSpec, name: str, item: str) -> list[list[str]]:
    """The equally good wordings of each sentence of a solution."""
    words = {"name": name, "item": item}
    sentences = []
    for ordinal, before, change in zip(ORDINALS, spec.totals, spec.changes, strict=False):
        numbers = {"before": before, "change": abs(change), "after": before + change}
        phrases = GAIN_PHRASES if change > 0 else LOSS_PHRASES
        sentences.append([f"{ordinal.capitalize()} {p.format(**words, **numbers)}" for p in phrases])
    sentences.append([ending.format(after=spec.totals[-1], **words) for ending in ENDINGS])
    return sentences
