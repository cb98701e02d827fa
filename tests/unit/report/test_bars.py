"""Bars and lines show the values, intervals and baseline that they are given."""

import pytest
from matplotlib.figure import Figure

from t3d.report.plots import Bar, plot_bars, plot_lines

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


def test_every_method_has_a_bar_per_group_and_a_line_at_the_baseline(tmp_path, drawn):
    groups = {
        "full": {"original": HALF, "student": Bar(value=40.0, low=30.0, high=50.0)},
        "few": {"original": Bar(value=10.0, low=8.0, high=12.0), "student": HALF},
    }
    plot_bars(groups, tmp_path / "bars.png", "title", baseline="original")
    (axes,) = drawn[0].axes
    assert sorted(patch.get_width() for patch in axes.patches) == [10.0, 40.0, 50.0, 50.0]
    dashed = [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == "--"]
    assert dashed == [50.0, 10.0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["original", "student"]
    assert (tmp_path / "bars.png").stat().st_size > 1000


def test_lines_go_through_their_points_with_intervals(tmp_path, drawn):
    points = {"high": (0.5, HALF), "low": (0.05, HALF)}
    lines = {"B8-T8": points}
    plot_lines(lines, tmp_path / "lines.png", "title", xlabel="lambda", annotated=["B8-T8"])
    (axes,) = drawn[0].axes
    assert [(text.get_text(), text.xy) for text in axes.texts] == [
        ("low", (0.05, 50.0)),
        ("high", (0.5, 50.0)),
    ]
    (container,) = axes.containers
    assert container.lines[0].get_xydata().tolist() == [[0.05, 50.0], [0.5, 50.0]]
    (segments,) = container.lines[2]
    assert segments.get_segments()[0].tolist() == [[0.05, 45.0], [0.05, 56.0]]


def test_an_end_that_rounding_put_inside_its_value_has_no_length():
    assert Bar(value=100.0, low=99.0, high=99.9999).errors == (1.0, 0.0)
