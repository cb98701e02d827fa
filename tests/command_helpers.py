"""What tests of whole commands share."""

from collections.abc import Sequence

from t3d.cli import main


def run_failing(arguments: Sequence[str], capsys) -> str:
    """Error text of a command that must fail with status 2, on at most one screen, without a traceback."""
    capsys.readouterr()
    try:
        status = main(arguments)
    except SystemExit as stop:  # tyro's way to report what a constructor refuses
        status = stop.code
    text = capsys.readouterr().err
    assert status == 2
    assert "Traceback" not in text
    assert 0 < len(text.splitlines()) <= 24
    return " ".join(text.replace("│", " ").split())
