"""What every command's test asks of a command line that is refused."""

from gated_bert.cli.main import main


def refusal(capsys, *words: str) -> str:
    """The one line that refuses `words`."""
    assert main(list(words)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), captured.err
    return lines[0]
