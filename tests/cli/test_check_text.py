"""What only a terminal adds to a check: the start of the command is no part of the time that a mapping takes."""

from scgraft.cli.text import check_text
from scgraft.values.quality import Check, Finding


def test_the_start_of_the_command_is_said_beside_the_time_and_nowhere_else():
    found = Check((Finding("resources", "ok", "Expect about 2 seconds."), Finding("genes", "ok", "All genes found.")))
    lines = check_text(found).splitlines()
    assert lines[0].endswith("Expect about 2 seconds. The start of the command takes a few seconds more.")
    assert "start" not in lines[1] and "start" not in found.findings[0].sentence
