"""Ids follow from content alone."""

from tasks.runtime.content_ids import content_id


def test_the_order_of_keys_does_not_matter_and_values_do() -> None:
    name = content_id("estimate", {"a": 1, "b": [1, 2]})
    assert name == content_id("estimate", {"b": [1, 2], "a": 1})
    assert name != content_id("estimate", {"a": 1, "b": [2, 1]})
    assert name.startswith("estimate-")
    assert len(name) == len("estimate-") + 12
