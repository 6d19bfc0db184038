"""The limits of `implausible`."""

from __future__ import annotations

import pytest

from degla.negatives.checks import LARGEST_DROP, USUAL_DROP, check_drop, largest_drop
from degla.shelf import RULES


def test_every_rule_has_a_limit() -> None:
    assert set(LARGEST_DROP) == set(RULES.names())
    assert all(0 < limit < 2 for limit in LARGEST_DROP.values())


def test_the_limit_itself_passes() -> None:
    limit = largest_drop("swap_nouns")
    assert check_drop("swap_nouns", limit).accepted
    assert check_drop("swap_nouns", -1.0).accepted
    verdict = check_drop("swap_nouns", limit + 1e-6)
    assert (verdict.accepted, verdict.reason) == (False, "implausible")


@pytest.mark.parametrize("drop, accepted", [(USUAL_DROP, True), (USUAL_DROP + 0.01, False)])
def test_a_rule_of_the_users_own(drop: float, accepted: bool) -> None:
    assert check_drop("my_rule", drop).accepted is accepted


def test_a_drop_that_is_no_number_is_refused() -> None:
    assert not check_drop("swap_nouns", float("nan")).accepted
