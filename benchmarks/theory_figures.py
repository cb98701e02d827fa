"""The figures of docs/theory.md, drawn from exact instances (``theory.py`` is the command)."""

from collections.abc import Sequence
from pathlib import Path
from statistics import mean

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from t3d.decoding.params import DecodeParams, StaticRemasking
from t3d.theory.correlation import nearest_markov, tilted, total_correlation_of
from t3d.theory.discrimination import bound_loss, extrapolated, printed_loss, printed_minimiser
from t3d.theory.exact.chain import chain_of
from t3d.theory.exact.measures import divergence, total_correlation
from t3d.theory.exact.tables import TableModel, model_of, product_of_marginals, random_model
from t3d.theory.fixed_points import FAKES, descend, least
from t3d.theory.instances import (
    ROUNDS_REFERENCE,
    ROUNDS_TEACHER,
    SURE,
    TWO_MODES,
    UNSURE,
    distribution,
)
from t3d.theory.mode_seeking import objective_of, product_students
from t3d.theory.searches import ORDERS, correlated
from t3d.work.files import atomic_file
from t3d.work.own import SOFTWARE

STRONG, GREYS = "#c8102e", ("#222222", "#666666", "#999999", "#bbbbbb")
LENGTH, NUM_TEACHERS = 4, 20
TEMPERATURES = (1.0, 0.5, 0.2, 0.0)
TOKENS, NUM_ROUNDS = (1, 2, 4), 4
NUM_VALUES = 199


def save(figure: Figure, path: Path) -> None:
    """As PNG, small."""
    with atomic_file(path) as partial:
        figure.savefig(partial, format="png", dpi=80, metadata={"Software": SOFTWARE})


def titled(axes: Axes, title: str, xlabel: str, ylabel: str) -> None:
    """Texts, a light grid and a legend where there is something to name."""
    axes.set_title(title, fontsize=9)
    axes.set_xlabel(xlabel, fontsize=8)
    axes.set_ylabel(ylabel, fontsize=8)
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=7)


def panels(number: int, width: float = 3.6) -> tuple[Figure, Sequence[Axes]]:
    """A row of axes."""
    figure = Figure(figsize=(width * number, 3.2), layout="constrained")
    return figure, figure.subplots(1, number, squeeze=False)[0]


def teachers() -> list[TableModel]:
    """Random tables of four binary tokens."""
    generator = torch.Generator().manual_seed(0)
    return [
        random_model(2, LENGTH, block_size=LENGTH, scale=1.5, generator=generator)
        for _ in range(NUM_TEACHERS)
    ]


def few_steps(path: Path) -> None:
    """Total correlation of rollouts by temperature, what the best student loses, and what rounds do to
    entropy."""
    figure, (left, middle, right) = panels(3)
    for temperature, colour in zip(TEMPERATURES, (*GREYS[:3], STRONG), strict=True):
        correlations, losses = [], []
        for model in teachers():
            teacher = chain_of(model, params_of("low_confidence_static", 1, temperature))
            correlations.append([total_correlation(teacher, s=0, t=t) for t in range(1, LENGTH + 1)])
            losses.append(losses_of(model, temperature))
        draw_means(left, range(1, LENGTH + 1), correlations, colour, f"temperature {temperature:g}")
        draw_means(middle, TOKENS, losses, colour, f"temperature {temperature:g}")
    for order, colour in zip(ORDERS, (*GREYS[:2], STRONG), strict=True):
        entropies = [entropies_of(model, order) for model in teachers()]
        draw_means(right, range(NUM_ROUNDS + 1), entropies, colour, order)
    titled(left, "TC(x_0 | x_t) of rollouts, confidence order", "t: masks left", "nats")
    titled(middle, "best student, left to right", "tokens per step", "KL(teacher || student), nats")
    right.set_ylim(bottom=0)
    titled(right, "rounds of the best student, all steps", "rounds", "entropy of what is decoded, nats")
    figure.suptitle(f"mean of {NUM_TEACHERS} random teachers of {LENGTH} binary tokens", fontsize=9)
    save(figure, path)


def draw_means(
    axes: Axes, places: Sequence[int], rows: Sequence[Sequence[float]], colour: str, label: str
) -> None:
    """The mean over teachers at each place."""
    axes.plot(places, [mean(column) for column in zip(*rows, strict=True)], "o-", color=colour, label=label)
    axes.set_xticks(list(places))


def params_of(order: StaticRemasking, tokens_per_step: int, temperature: float) -> DecodeParams:
    """One block of all tokens."""
    return DecodeParams(
        block_size=LENGTH,
        steps_per_block=LENGTH // tokens_per_step,
        remasking=order,
        temperature=temperature,
    )


def losses_of(model: TableModel, temperature: float) -> list[float]:
    """KL from a left-to-right teacher's x_0 to its factorised optimum's, by tokens per step."""
    teacher = chain_of(model, params_of("sequential", 1, temperature))
    best, clean = model_of(teacher.posteriors(), otherwise=model), teacher.clean()
    students = [chain_of(best, params_of("sequential", count, 1.0)).clean() for count in TOKENS]
    return [float(divergence(clean, student, teacher.all_masked)) for student in students]


def entropies_of(model: TableModel, order: StaticRemasking) -> list[float]:
    """Entropy of x_0 of a teacher, of its factorised optimum, of that one's, and so on: one token per
    step."""
    found = []
    for _ in range(NUM_ROUNDS + 1):
        teacher = chain_of(model, params_of(order, 1, 1.0))
        found.append(float(torch.special.entr(teacher.clean()).sum()))
        model = model_of(teacher.posteriors(), otherwise=model)
    return found


def families(path: Path) -> None:
    """Total correlation of the best student against the teacher's."""
    figure, (left, right) = panels(2)
    generator, masked = torch.Generator().manual_seed(0), frozenset(range(3))
    inside, outside = [], []
    for _ in range(300):
        teacher = correlated(3, generator)
        own = float(total_correlation_of(teacher, masked))
        power = 3 * float(torch.rand((), generator=generator))
        for student in (nearest_markov(teacher, masked, 1), tilted(teacher, masked, min(1.0, power))):
            inside.append((own, float(total_correlation_of(student, masked))))
        pair = (product_of_marginals(teacher, masked), tilted(teacher, masked, power))
        best = min(pair, key=lambda student: float(divergence(teacher, student, masked)))
        outside.append((own, float(total_correlation_of(best, masked))))
    for axes, points, title in (
        (left, inside, "log-convex families with the product"),
        (right, outside, "families of two: not log-convex"),
    ):
        is_above = [student > own + 1e-12 for own, student in points]
        for above, colour, name in ((False, GREYS[1], "holds"), (True, STRONG, "violated")):
            chosen = [point for point, flag in zip(points, is_above, strict=True) if flag == above]
            if chosen:
                axes.scatter(*zip(*chosen, strict=True), s=6, color=colour, label=f"{name}: {len(chosen)}")
        axes.axline((0, 0), slope=1, color="black", linewidth=0.8)
        titled(axes, title, "TC of the teacher (nats)", "TC of the best student")
    figure.suptitle("Theorem 4.5", fontsize=9)
    save(figure, path)


def rounds(path: Path) -> None:
    """Eq. 7 and Eq. 23 on the line through reference and teacher, and what rounds to the minimum do."""
    figure, (left, right) = panels(2)
    teacher, reference = ROUNDS_TEACHER, distribution(0.4, 0.3, 0.3)
    factors = torch.linspace(-1, 1.8, 200, dtype=torch.float64)
    line = torch.stack([extrapolated(teacher, reference, float(factor)) for factor in factors])
    for name, loss, colour in (("Eq. 7", printed_loss, STRONG), ("Eq. 23", bound_loss, GREYS[0])):
        values = loss(teacher, reference, line)
        left.plot(factors, values, color=colour, label=name)
        left.plot(factors[values.argmin()], values.min(), "o", color=colour)
    left.axvline(0, color="black", linewidth=0.8, linestyle=":")
    titled(
        left,
        "loss on the line: reference at -1, teacher at 0",
        "s: teacher + s (teacher - reference)",
        "nats",
    )
    walks = {"Eq. 7": [ROUNDS_REFERENCE], "preset paper": [ROUNDS_REFERENCE], "Eq. 23": [ROUNDS_REFERENCE]}
    for _ in range(12):
        walks["Eq. 7"].append(printed_minimiser(teacher, walks["Eq. 7"][-1])[0])
        for name, fakes in (("preset paper", "expectation"), ("Eq. 23", "sample")):
            walks[name].append(least(walks[name][-1], teacher, fakes, alpha=1, beta=1))
    for (name, students), colour in zip(walks.items(), (STRONG, GREYS[1], GREYS[0]), strict=True):
        away = [float((student - teacher).abs().sum()) / 2 for student in students]
        right.plot([max(1e-7, value) for value in away], "o-", markersize=3, color=colour, label=name)
    right.set_yscale("log")
    titled(right, "after rounds that end at the minimum", "rounds", "total variation from the teacher")
    save(figure, path)


def fixed_points(path: Path) -> None:
    """Probabilities of one token's outcomes under DDO with each kind of fakes, reference refreshed each
    step."""
    figure, axes_of = panels(2)
    for axes, teacher, name in zip(axes_of, (SURE, UNSURE), (".9, .07, .03", ".55, .3, .15"), strict=True):
        for fakes, style in zip(FAKES, ("-", "--", ":"), strict=True):
            colour = STRONG if fakes == "argmax" else GREYS[0]
            walk = descend(teacher, teacher, fakes, alpha=0.5, beta=0.1, num_steps=240, step_size=0.7)
            for outcome in range(3):
                label = f"{fakes} fakes" if outcome == 0 else None
                axes.plot(walk[:, outcome], style, color=colour, label=label, linewidth=1)
        titled(axes, f"teacher {name}", "steps", "probability of each outcome")
    figure.suptitle("DDO from the teacher itself, alpha = 0.5, beta = 0.1", fontsize=9)
    save(figure, path)


def modes(path: Path) -> None:
    """Each objective over all factorised students of two binary tokens, and where it is least."""
    objectives = ("forward KL", "reverse KL", "Eq. 7", "Eq. 23")
    figure, axes_of = panels(4, width=2.6)
    students = product_students(NUM_VALUES)
    ones = torch.arange(1, NUM_VALUES + 1) / (NUM_VALUES + 1)
    for axes, objective in zip(axes_of, objectives, strict=True):
        values = objective_of(objective, TWO_MODES, distribution(0.25, 0.25, 0.25, 0.25), students)
        shown = values.clamp(max=float(values.quantile(0.9)))[::4, ::4]
        axes.contour(ones[::4], ones[::4], shown, levels=9, colors=GREYS[2], linewidths=0.6)
        row, column = divmod(int(values.argmin()), NUM_VALUES)
        wrong = float(students[row, column, 1:3].sum())
        axes.plot(ones[column], ones[row], "o", color=STRONG)
        titled(axes, f"{objective}: {100 * wrong:.0f} % wrong", "p(second token = 1)", "p(first token = 1)")
        axes.set_aspect("equal")
    figure.suptitle(
        "00 with .69, 11 with .29; reference: fair coins; the dot is the best student", fontsize=9
    )
    save(figure, path)


def draw_all(folder: Path) -> None:
    """Every picture of docs/theory.md."""
    for name, draw in (
        ("few_steps", few_steps),
        ("families", families),
        ("rounds", rounds),
        ("fixed_points", fixed_points),
        ("modes", modes),
    ):
        draw(folder / f"{name}.png")
        print(name, flush=True)
