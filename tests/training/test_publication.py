"""Names and numbers of new versions, as the commands take them."""

from __future__ import annotations

import pytest

from training.__main__ import main

NO_VERSION = ("--version", "3", "'3' is no version: three numbers, as 1.0.0")
NO_NAME = ("--name", "Tiny", "'Tiny' is no name: small letters, digits and hyphens, as swift")


@pytest.mark.parametrize(
    ("command", "option", "value", "problem"),
    [
        *((command, *NO_VERSION) for command in ("publish", "calibrate", "reread", "derive")),
        *((command, *NO_NAME) for command in ("publish", "calibrate", "derive")),
    ],
)
def test_what_no_card_can_have_is_refused_first(
    command: str, option: str, value: str, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is read."""
    with pytest.raises(SystemExit):
        main([command, "nowhere", option, value])
    assert problem in capsys.readouterr().err
