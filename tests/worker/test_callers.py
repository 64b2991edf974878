"""Who calls, by what is shown."""

from __future__ import annotations

import pytest

from trestle.config import ConfigError, convert
from worker.callers import Caller, Callers, CallerSettings, recognise
from worker.settings import WorkerSettings, check, check_exposed

ENVIRONMENT = {"NEW": "new-token", "OLD": "old-token", "OTHER": "others-token"}
GATEWAY = "spiffe://cluster.test/ns/trestle/sa/gateway"


def callers(*settings: CallerSettings) -> Callers:
    return Callers(settings, ENVIRONMENT)


def identify(known: Callers, shown: str = "", token: str = "") -> Caller | None:
    """shown: what stands in the certificate."""
    uris, names = ([shown], []) if "://" in shown else ([], [shown] if shown else [])
    return recognise(known.vouched(token), uris, names)


def test_a_certificate_says_who_calls() -> None:
    known = callers(
        CallerSettings(name="gateway", identities=[GATEWAY, "gateway.test"], gateway=True),
        CallerSettings(name="billing", identities=["Billing.test"]),
    )
    assert identify(known, GATEWAY) == Caller("gateway", gateway=True)
    assert identify(known, "gateway.test") == Caller("gateway", gateway=True)
    assert identify(known, "billing.test") == Caller("billing", gateway=False)
    assert identify(known, "spiffe://cluster.test/ns/trestle/sa/gateway2") is None
    assert identify(known, "a.gateway.test") is None
    assert identify(known) is None


def test_a_name_is_not_taken_for_a_uri() -> None:
    known = callers(CallerSettings(name="gateway", identities=["gateway.test"]))
    assert recognise(known.vouched(""), ["gateway.test"], []) is None


def test_any_certificate_calls_under_its_own_identity() -> None:
    known = callers(
        CallerSettings(name="gateway", identities=[GATEWAY], gateway=True),
        CallerSettings(name="rest", identities=["*"]),
    )
    assert identify(known, GATEWAY) == Caller("gateway", gateway=True)
    assert identify(known, "spiffe://cluster.test/else") == Caller("spiffe://cluster.test/else", gateway=False)
    assert identify(known, "billing.test") == Caller("billing.test", gateway=False)
    assert identify(known) is None, "no certificate is not any certificate"


def test_a_token_says_who_calls_and_two_are_good_while_they_change() -> None:
    known = callers(
        CallerSettings(name="gateway", token_envs=["NEW", "OLD"], gateway=True),
        CallerSettings(name="billing", token_envs=["OTHER"]),
    )
    assert identify(known, token="new-token") == identify(known, token="old-token") == Caller("gateway", gateway=True)
    assert identify(known, token="others-token") == Caller("billing", gateway=False)
    for wrong in ("", "new-toke", "new-token2", "NEW"):
        assert known.vouched(wrong) == []


def test_where_both_are_asked_for_one_is_not_enough() -> None:
    known = callers(CallerSettings(name="gateway", identities=["gateway.test"], token_envs=["NEW"]))
    assert identify(known, "gateway.test", "new-token") == Caller("gateway", gateway=False)
    assert identify(known, "gateway.test") is None
    assert identify(known, "billing.test", "new-token") is None
    assert identify(known, "", "new-token") is None


def test_a_token_that_is_not_set_is_said() -> None:
    with pytest.raises(ConfigError, match=r"worker\.callers\[1\]\.token_envs: .* GONE is not set"):
        callers(CallerSettings(name="a", token_envs=["NEW"]), CallerSettings(name="b", token_envs=["GONE"]))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"callers": [{"name": "a"}]}, r"worker\.callers\[0\]: needs identities, token_envs or both"),
        ({"callers": [{"name": "", "token_envs": ["NEW"]}]}, r"worker\.callers\[0\]\.name: is empty"),
        (
            {"callers": [{"name": "a", "identities": ["b"]}]},
            r"worker\.callers\[0\]\.identities: needs worker\.tls\.client_ca",
        ),
        (
            {"tls": {"certificate": "c", "key": "k"}, "callers": [{"name": "a", "identities": ["b"]}]},
            r"worker\.callers\[0\]\.identities: needs worker\.tls\.client_ca",
        ),
        (
            {"tls": {"certificate": "c", "key": "k", "client_ca": "a"}},
            r"worker\.tls\.client_ca: needs worker\.callers",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check(convert(settings, "worker", WorkerSettings))


@pytest.mark.parametrize(
    "protection",
    [
        {"listen": "127.0.0.1:50051"},
        {"insecure": True},
        {"tls": {"certificate": "c", "key": "k"}},
        {"callers": [{"name": "a", "token_envs": ["NEW"]}]},
    ],
)
def test_off_loopback_something_protects_a_worker(protection: dict[str, object]) -> None:
    check_exposed(convert({"listen": "0.0.0.0:50051", **protection}, "worker", WorkerSettings))
    with pytest.raises(ConfigError, match=r"worker\.listen: 0\.0\.0\.0:50051 is not loopback and nothing protects it"):
        check_exposed(WorkerSettings(listen="0.0.0.0:50051"))
