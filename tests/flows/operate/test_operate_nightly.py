"""The nightly pipeline on a real worker, and the alarm when refined got worse."""

from datetime import UTC, datetime
from typing import Any

import pytest

from tasks.policies import REFINED_GOT_WORSE

pytestmark = pytest.mark.drill


def test_refined_that_got_worse_pauses_the_nights_until_a_person_has_looked(
    team: Any, nights: Any
) -> None:
    assert not team.deployment("nightly-pipeline")["paused"]
    event = {
        "event": REFINED_GOT_WORSE,
        "resource": {"prefect.resource.id": "simgan.comparison.test"},
        "occurred": datetime.now(UTC).isoformat(),
        "id": "00000000-0000-4000-8000-000000000000",
    }
    team.ask("POST", "events", [event])
    team.until(lambda: team.deployment("nightly-pipeline")["paused"], 60, "the automation")
