"""Bars and lines show the values, intervals and baseline that they are given, and names keep clear."""

from itertools import combinations

import matplotlib.colors
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from t3d.report.labels import Label, place_labels
from t3d.report.plots import STRONG, plot_gains, plot_lines
from t3d.report.points import Bar, Line

PLACES = {"B8-T1": 1.0, "B8-T2": 1.96, "B8-T8": 7.3}
HALF = Bar(value=50.0, low=45.0, high=56.0)


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved, as they were."""
    figures, save = [], Figure.savefig

    def keep(figure, *args, **kwargs):
        figures.append(figure)
        save(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


def test_bars_show_the_distance_from_the_baseline_and_numbers_stand_clear_of_lines(tmp_path, drawn):
    groups = {
        "full": {"original": HALF, "student": Bar(value=40.0, low=30.0, high=50.0)},
        "few": {"original": Bar(value=10.0, low=8.0, high=12.0), "student": HALF},
    }
    plot_gains(groups, tmp_path / "bars.png", "title", baseline="original", subject="student")
    full, few = drawn[0].axes
    assert [patch.get_width() for patch in full.patches] == [0.0, -10.0]
    assert [patch.get_width() for patch in few.patches] == [0.0, 40.0]
    assert [matplotlib.colors.to_hex(patch.get_facecolor()) for patch in few.patches][1] == STRONG
    assert [label.get_text() for label in full.get_yticklabels()] == ["original", "student"]
    for axes, numbers in ((full, ["50.0", "40.0"]), (few, ["10.0", "50.0"])):
        assert [text.get_text() for text in axes.texts] == numbers
        assert all(text.get_position()[0] > 1 for text in axes.texts)  # beside the panel
    assert (tmp_path / "bars.png").stat().st_size > 1000


def test_lines_go_through_their_points_with_intervals(tmp_path, drawn):
    lines = [Line(name="B8-T8", points={"high": (0.5, HALF), "low": (0.05, HALF)}, is_labelled=True)]
    plot_lines(lines, tmp_path / "lines.png", "title", xlabel="lambda")
    (axes,) = drawn[0].axes
    assert [(text.get_text(), text.xy) for text in axes.texts] == [
        ("low", (0.05, 50.0)),
        ("high", (0.5, 50.0)),
    ]
    (container,) = axes.containers
    assert container.lines[0].get_xydata().tolist() == [[0.05, 50.0], [0.5, 50.0]]
    (segments,) = container.lines[2]
    assert segments.get_segments()[0].tolist() == [[0.05, 45.0], [0.05, 56.0]]
    assert axes.get_xticks().tolist() == [0.05, 0.5]


def test_tokens_per_forward_double_from_tick_to_tick(tmp_path, drawn):
    lines = [Line(name="student", points={name: (place, HALF) for name, place in PLACES.items()})]
    plot_lines(lines, tmp_path / "lines.png", "title", xlabel="TPF", has_powers=True)
    (axes,) = drawn[0].axes
    assert axes.get_xticks().tolist() == [1.0, 2.0, 4.0, 8.0]
    assert axes.get_xscale() == "log"


def test_the_subject_alone_is_in_the_strong_colour_and_single_points_are_not_joined(tmp_path, drawn):
    points = {name: (place, HALF) for name, place in PLACES.items()}
    lines = [
        Line(name="teacher", points=points),
        Line(name="student", points=points, is_subject=True),
        Line(name="student, dynamic", points={"dynamic": (3.0, HALF)}, is_subject=True, is_joined=False),
    ]
    plot_lines(lines, tmp_path / "lines.png", "title", xlabel="TPF")
    drawn_lines = [container.lines[0] for container in drawn[0].axes[0].containers]
    assert [line.get_color() == STRONG for line in drawn_lines] == [False, True, True]
    assert [line.get_linestyle() for line in drawn_lines] == ["-", "-", "None"]


@pytest.mark.many_inputs
@settings(max_examples=8)
@given(
    st.lists(st.tuples(st.floats(1, 8), st.floats(5, 95)), min_size=1, max_size=12),
    st.lists(st.tuples(st.sampled_from([1.0, 2.0]), st.floats(90, 99)), max_size=4),
)
def test_every_point_is_named_once_and_no_name_covers_another(scattered, crowded):
    points = {
        f"B8-T{index}": (x, Bar(value=y, low=y - 1, high=y + 1))
        for index, (x, y) in enumerate(scattered + crowded)
    }
    figure = Figure(figsize=(7.5, 5.2), layout="constrained")
    axes = figure.add_subplot()
    places, bars = zip(*points.values(), strict=True)
    values = [bar.value for bar in bars]
    axes.errorbar(places, values, yerr=[bar.errors[0] for bar in bars], marker="o", linestyle="-")
    axes.margins(x=0.1, y=0.1)
    place_labels(figure, axes, [Label(name, x, bar.value, "black") for name, (x, bar) in points.items()])
    assert sorted(text.get_text() for text in axes.texts) == sorted(points)
    renderer = FigureCanvasAgg(figure).get_renderer()
    boxes = [Text.get_window_extent(text, renderer) for text in axes.texts]  # without the leader
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))


def test_an_end_that_rounding_put_inside_its_value_has_no_length():
    assert Bar(value=100.0, low=99.0, high=99.9999).errors == (1.0, 0.0)
