"""The file that newcomers read first."""

import flows.pipeline


def test_the_diagram_joins_its_lines() -> None:
    lines = str(flows.pipeline.__doc__).splitlines()
    middle = next(number for number, line in enumerate(lines) if "├" in line)
    above, at, below = lines[middle - 1 : middle + 2]
    joints = [column for column, character in enumerate(at) if character in "├┤"]
    assert len(joints) == 3
    for column in joints:
        assert above[column] in "┐┌"
        assert below[column] in "┘└"
