"""Regular expressions and loggers made on first use."""

from __future__ import annotations

import logging
import re
import subprocess
import sys

import pytest

from lamella.stack.kernel.late import late_logger, late_pattern


def test_it_does_what_the_compiled_one_does() -> None:
    """Methods and attributes are those of ``re.compile``, flags included."""
    pattern = late_pattern("(a+)b", re.IGNORECASE)
    found = pattern.fullmatch("AAB")
    assert found is not None
    assert found[1] == "AA"
    assert (pattern.sub("-", "xaby"), pattern.split("1ab2"), pattern.groups) == ("x-y", ["1", "a", "2"], 1)
    assert pattern.pattern == "(a+)b"


def test_it_compiles_once_and_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is compiled before it is used, and no method is looked for twice."""
    compiled: list[str] = []

    def compile_(pattern: str, flags: int = 0) -> re.Pattern[str]:
        compiled.append(pattern)
        return original(pattern, flags)

    original = re.compile
    monkeypatch.setattr(re, "compile", compile_)
    pattern = late_pattern("[0-9]+")
    assert compiled == []
    assert [pattern.fullmatch(text) is not None for text in ("1", "2", "x")] == [True, True, False]
    assert compiled == ["[0-9]+"]


def test_a_logger_is_the_one_of_that_name(caplog: pytest.LogCaptureFixture) -> None:
    """What is set up for it later counts too."""
    logger = late_logger("lamella.test_late")
    logger.info("nobody hears this")
    logging.getLogger("lamella.test_late").setLevel(logging.INFO)
    try:
        logger.info("%s hears this", "somebody")
        assert logger.level == logging.INFO
    finally:
        logging.getLogger("lamella.test_late").setLevel(logging.NOTSET)
    assert [record.message for record in caplog.records] == ["somebody hears this"]
    assert logger.level == logging.NOTSET


def test_logging_waits_for_the_first_line() -> None:
    """A process that logs nothing does not import it."""
    code = "import sys\nfrom lamella.stack.kernel.late import *\nlate_logger('x')\nprint('logging' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
