"""What Prometheus reads of our own counters is what prometheus_client's own say."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from trestle.scrape import Counts, Now, Times

BUCKETS = (0.1, 1.0, 2.5)
SEEN = (0.05, 0.1, 0.100001, 1.0, 2.5, 2.6, 1000.0)


def told(metrics: CollectorRegistry) -> list[str]:
    """Without the times at which prometheus_client made its own."""
    return [line for line in generate_latest(metrics).decode().splitlines() if "_created" not in line]


def test_they_are_told_as_prometheus_client_tells_its_own() -> None:
    theirs, ours = CollectorRegistry(), CollectorRegistry()
    counter = Counter("asked", "How often.", ["who", "why"], registry=theirs)
    counts = Counts("asked", "How often.", ("who", "why"), ours)
    for labels, number in ((("a", "x"), 1), (("b", 'quo"ted'), 2.5), (("a", "x"), 3)):
        counter.labels(*labels).inc(number)
        counts.add(labels, number)
    histogram = Histogram("took", "How long.", ["who"], buckets=BUCKETS, registry=theirs)
    times = Times("took", "How long.", ("who",), ours, BUCKETS)
    bare_histogram = Histogram("waited", "How long.", buckets=BUCKETS, registry=theirs)
    bare = Times("waited", "How long.", (), ours, BUCKETS)
    for seconds in SEEN:
        histogram.labels("a").observe(seconds)
        times.observe(("a",), seconds)
        bare_histogram.observe(seconds)
        bare.observe((), seconds)
    Gauge("open", "Now.", registry=theirs).set(7)
    Now("open", "Now.", lambda: 7, ours)
    assert told(ours) == told(theirs)


def test_what_has_no_labels_is_there_before_it_is_seen() -> None:
    metrics = CollectorRegistry()
    Times("waited", "How long.", (), metrics, BUCKETS)
    assert "waited_count 0.0" in told(metrics)
