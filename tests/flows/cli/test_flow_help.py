"""Options of commands have the descriptions of the flows' parameters."""

import inspect

import pytest

from flows.cli.flow_help import described_by, parameter_help
from flows.cli.main import app


@pytest.mark.parametrize(
    ("module", "flow"),
    [
        ("train", "train"),
        ("label_prior", "label_prior"),
        ("landmarks", "train_landmarks"),
        ("refine", "refine"),
        ("evaluate", "evaluate"),
        ("evaluate", "compare"),
        ("pipeline", "pipeline"),
        ("ablate", "ablate"),
    ],
)
def test_every_parameter_of_a_flow_is_described_once(module: str, flow: str) -> None:
    found = getattr(__import__(f"flows.{module}", fromlist=[flow]), flow)
    assert set(parameter_help(module, flow)) == set(inspect.signature(found.fn).parameters)


def test_a_commands_own_description_stays_and_parameters_become_options() -> None:
    @described_by("evaluate", "compare")
    def command(*, test: str, unlabelled: str, other: int) -> None:
        """Compare.

        Parameters
        ----------
        test
            Of its own.
        """

    doc = inspect.getdoc(command) or ""
    assert doc.startswith("Compare.\n\nParameters\n----------\ntest\n    Of its own.\nunlabelled\n")
    assert "By default --real, else" in doc
    assert "other" not in doc


def test_no_option_of_a_command_that_runs_a_flow_is_without_a_description() -> None:
    for name in ("train", "label-prior", "refine", "evaluate", "compare", "pipeline", "ablate"):
        arguments = app[name].assemble_argument_collection(parse_docstring=True)
        assert [each.name for each in arguments if each.show and not each.parameter.help] == []
