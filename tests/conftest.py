"""What all tests share: steady hypothesis, how many processes they take and in which order, and the services' logs in
the report of a failed test."""

from __future__ import annotations

import os
import random
from collections.abc import Generator, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import settings
from support import databases
from support.databases import PostgreSQL
from support.services import new_logs

# No deadline: this is no place to measure time. Derandomized: a failure is the same one tomorrow.
settings.register_profile("suite", deadline=None, derandomize=True, database=None)
settings.load_profile("suite")
# Half of their time tests wait, most of all for the services that they start.
_PROCESSES_PER_CPU: Final = 2
_MOST_PROCESSES: Final = 8


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--shuffle", type=int, metavar="SEED", help="run files, and the tests of each, in a random order")


@pytest.hookimpl(tryfirst=True)  # pytest then brings those together again that share a costly fixture
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    seed: int | None = config.getoption("--shuffle")
    if seed is None:
        return
    chance = random.Random(seed)
    files = [list(each) for _, each in groupby(items, lambda item: item.path)]
    chance.shuffle(files)
    for tests in files:
        chance.shuffle(tests)
    items[:] = [item for tests in files for item in tests]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Processes for `-n auto`. None beside this one where a few tests are meant: each reads all that are asked for."""
    few = any("::" in each or Path(each).is_file() for each in config.args)
    if few or config.option.keyword or config.option.markexpr or config.option.lf:
        return 0
    return min(_MOST_PROCESSES, _PROCESSES_PER_CPU * len(os.sched_getaffinity(0)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Generator[None, Any, Any]:
    report = yield
    logs = new_logs()
    if report.failed:
        report.sections.extend((f"log of {name}", text) for name, text in logs.items())
    return report


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A server for all tests; each makes databases of its own."""
    try:
        with databases.postgresql() as server:
            yield server
    except databases.Missing as missing:
        pytest.skip(str(missing))


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A new, empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/trestle.db"
    server: PostgreSQL = request.getfixturevalue("postgresql")
    return server.create()
