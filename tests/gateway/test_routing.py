"""Public names to targets: what is configured, what the workers list, and what is not known yet."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.routing import Router
from gateway.settings import ModelSettings, Target
from trestle.errors import CallError, Reason
from trestle.v1 import model_pb2

FAST = ModelSettings(
    name="fast", targets=[Target(worker="a", model="x", upstream="u"), Target(worker="b", model="fast-b")]
)


def listed(*names: str, **fields: Any) -> list[model_pb2.Model]:
    return [model_pb2.Model(id=name, **fields) for name in names]


def targets(router: Router, name: str) -> list[tuple[str, str, str]]:
    return [(each.worker, each.upstream, each.model) for each in router.resolve(name).targets]


def test_a_configured_name_has_its_targets_in_order() -> None:
    assert targets(Router([FAST], ["a", "b"]), "fast") == [("a", "u", "x"), ("b", "", "fast-b")]


def test_a_worker_that_no_model_names_is_listed_by_itself() -> None:
    router = Router([FAST], ["a", "b", "c"])
    assert router.catalogue_workers == ("c",)
    router.update("c", listed("fast", "v/m:t", upstream="w"))
    assert targets(router, "v/m:t") == [("c", "w", "v/m:t")]
    assert targets(router, "fast")[0] == ("a", "u", "x"), "what is configured comes first"
    assert [model.id for model in router.models()] == ["fast", "v/m:t"]


def test_a_worker_that_a_model_names_is_not() -> None:
    router = Router([FAST], ["a", "b"])
    router.update("a", listed("x", "y"))
    with pytest.raises(CallError) as caught:
        router.resolve("y")
    assert caught.value.reason is Reason.MODEL_NOT_FOUND


def test_of_two_that_list_a_name_the_first_in_the_configuration_wins() -> None:
    router = Router([], ["c", "d"])
    router.update("d", listed("m", "n"))
    assert targets(router, "m") == [("d", "", "m")]
    router.update("c", [*listed("m", upstream="one"), *listed("m", upstream="two")])
    assert targets(router, "m") == [("c", "one", "m")]
    assert [model.id for model in router.models()] == ["m", "n"]


def test_a_new_list_replaces_the_old_one() -> None:
    router = Router([], ["c"])
    router.update("c", listed("old"))
    router.update("c", listed("new"))
    assert [model.id for model in router.models()] == ["new"]


def test_a_name_is_unknown_only_once_all_have_been_heard() -> None:
    router = Router([], ["c", "d"])
    router.update("c", listed("m"))
    with pytest.raises(CallError) as early:
        router.resolve("nobody")
    assert (early.value.reason, early.value.retry_after) == (Reason.OVERLOADED, 1.0)
    assert early.value.code == "model_not_known_yet"
    with pytest.raises(CallError) as hasty:
        router.resolve("nobody", patient=False)
    assert hasty.value.reason is Reason.MODEL_NOT_FOUND
    assert router.wanted("nobody") == ("d",)
    router.update("d", [])
    with pytest.raises(CallError) as late:
        router.resolve("nobody")
    assert (late.value.reason, late.value.code) == (Reason.MODEL_NOT_FOUND, "model_not_found")


def test_options_after_a_name_are_for_those_that_take_them() -> None:
    router = Router([FAST], ["a", "b", "c"])
    router.update("c", [*listed("plain"), *listed("echo", takes_options=True)])
    assert targets(router, "echo?n=1&x=/") == [("c", "", "echo?n=1&x=/")]
    with pytest.raises(CallError):
        router.resolve("plain?n=1")
    with pytest.raises(CallError):
        router.resolve("fast?n=1")
    assert router.wanted("fast?n=1") == ("a", "b")
    router.update("b", listed("fast-b", takes_options=True))
    assert targets(router, "fast?n=1") == [("b", "", "fast-b?n=1")]


def test_what_is_known_of_a_public_model() -> None:
    router = Router([FAST], ["a", "b", "c"])
    assert (router.model("fast").created, router.model("fast").owned_by) == (0, "a")
    router.update("b", listed("fast-b", created=7, owned_by="us"))
    assert (router.model("fast").created, router.model("fast").owned_by) == (7, "us")


def test_a_route_has_the_limits_of_its_model_and_a_listed_one_none() -> None:
    names = ("timeout", "first_token_timeout", "idle_timeout", "hedge_after", "flush_interval")
    limits: dict[str, Any] = dict(zip(names, (1.0, 2.0, 3.0, 4.0, 5.0), strict=True))
    router = Router([ModelSettings(name="m", targets=FAST.targets, **limits)], ["c"])
    router.update("c", listed("free"))
    for name, expected in (("m", list(limits.values())), ("free", [0.0] * 5)):
        route = router.resolve(name)
        assert [getattr(route, limit) for limit in limits] == expected


def test_which_names_are_public_as_they_stand() -> None:
    router = Router([FAST], ["c"])
    router.update("c", listed("echo", takes_options=True))
    assert [router.offers(name) for name in ("fast", "echo", "echo?n=1", "nobody")] == [True, True, False, False]


def test_what_another_router_heard_is_taken_over() -> None:
    """Of the workers that are named, if it has heard of them; the order is the new configuration's own."""
    old, new = Router([], ["c", "d", "e"]), Router([], ["d", "c", "f"])
    for worker in "cde":
        old.update(worker, listed("m", worker))
    new.take_over(old, ["c", "d", "f"])
    assert [new.knows(worker) for worker in "cdef"] == [True, True, False, False]
    assert new.unlisted == ("f",)
    assert targets(new, "m") == [("d", "", "m")]
    assert [model.id for model in new.models()] == ["m", "d", "c"]


def test_a_model_that_another_one_hides_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    router = Router([], ["c", "d"])
    for _ in range(2):
        router.update("c", [*listed("m", upstream="one"), *listed("m", upstream="two")])
        router.update("d", listed("m"))
    assert [(record.name, record.getMessage()) for record in caplog.records] == [
        ("gateway", "the model m of c/two is hidden by that of c/one, which stands first"),
        ("gateway", "the model m of d is hidden by that of c, which stands first"),
    ]


def test_options_of_a_target_stay_where_more_are_asked_for() -> None:
    slow = ModelSettings(name="slow", targets=[Target(worker="c", model="echo?delay=1")])
    router = Router([slow], ["c"])
    router.update("c", listed("echo", takes_options=True, created=7, owned_by="us"))
    assert targets(router, "slow") == [("c", "", "echo?delay=1")]
    assert targets(router, "slow?n=2") == [("c", "", "echo?delay=1&n=2")]
    assert (router.model("slow").created, router.model("slow").owned_by) == (7, "us"), "with its options it is the same"


def test_who_owns_a_model_that_says_nothing_of_it() -> None:
    router = Router([], ["c"])
    router.update("c", listed("m", created=7))
    assert (router.model("m").created, router.model("m").owned_by) == (7, "c")
