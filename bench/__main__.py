"""`python -m bench`: runs the scenarios in turn, several rounds, and prints what they cost beside the budget."""

from __future__ import annotations

import argparse
import itertools
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

import msgspec

from bench import report
from bench.load import Job, Measured
from bench.scenarios import FULL, QUICK, SCENARIOS, Length, Scenario
from bench.services import ROOT, StartError, Way, ways

_LIBRARIES: Final = ("grpcio", "protobuf", "aiohttp", "msgspec", "uvloop")
_RUN_SECONDS: Final = 60.0


class LostError(Exception):
    """A run that is not worth its figures: an answer was lost or wrong."""


def run(job: Job) -> Measured:
    """One run of the load client. Raises `LostError`."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "bench.load", msgspec.json.encode(job).decode()],
            capture_output=True,
            timeout=_RUN_SECONDS,
            cwd=ROOT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise LostError(f"no end after {_RUN_SECONDS:g} s") from None
    if done.returncode:
        raise LostError(done.stderr.decode(errors="replace").strip()[-2000:])
    return msgspec.json.decode(done.stdout, type=Measured)


def about() -> dict[str, str]:
    """What the figures depend on."""
    facts = {
        "python": f"{platform.python_version()} ({platform.python_compiler()}), {sys.executable}",
        "machine": f"{os.cpu_count()} CPUs, {platform.system()} {platform.release()}",
    }
    for name in _LIBRARIES:
        try:
            facts[name] = version(name)
        except PackageNotFoundError:
            facts[name] = "unknown"
    return facts


def main() -> int:
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round: under half a minute, and rough")
    parser.add_argument("--rounds", type=int, metavar="N", help="how often each run is made")
    parser.add_argument(
        "--only", action="append", choices=SCENARIOS, metavar="SCENARIO", help=f"of {', '.join(SCENARIOS)}; repeatable"
    )
    parser.add_argument(
        "--recorded", action="store_true", help="with metrics in both services and the ledger, in SQLite"
    )
    parser.add_argument(
        "--litellm", type=Path, metavar="COMMAND", help="also through LiteLLM's proxy: the `litellm` of its environment"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every figure and run there")
    options = parser.parse_args()
    length = QUICK if options.quick else FULL
    rounds = options.rounds or length.rounds
    chosen = {name: SCENARIOS[name] for name in report.needed(options.only or SCENARIOS)}
    facts = about()
    print("\n".join(f"{name}: {fact}" for name, fact in facts.items()))
    try:
        runs = measure_all(chosen, length, rounds, recorded=options.recorded, litellm=options.litellm)
    except (LostError, StartError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    for table in (report.cost_table(runs), report.quality_table(runs)):
        if table:
            print(f"\n{table}")
    others = max(run.others / run.seconds for rounds_of in runs.values() for run in rounds_of)
    print(f"\nmedians of {rounds} rounds (least-most); other programs took up to {others:.2f} of a CPU during a run")
    if options.json:
        options.json.write_bytes(msgspec.json.encode({"about": facts, **report.as_json(runs)}) + b"\n")
    return 0


def measure_all(
    chosen: Mapping[str, Scenario],
    length: Length,
    rounds: int,
    *,
    recorded: bool = False,
    litellm: Path | None = None,
) -> dict[tuple[str, str], list[Measured]]:
    """Every scenario through every way in turn, so that a slow minute of the machine does not fall on one of them; as
    often as there are rounds. recorded, litellm: as in `services.ways`; what LiteLLM loses is told, and has no figure.
    Raises `LostError`, `StartError`."""
    runs: dict[tuple[str, str], list[Measured]] = {}
    lost: set[tuple[str, str]] = set()
    models = list(dict.fromkeys(scenario.model(length) for scenario in chosen.values()))
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as scratch,
        ways(Path(scratch), models, recorded=recorded, litellm=litellm) as open_ways,
    ):
        for number, (name, scenario), way in itertools.product(range(rounds), chosen.items(), open_ways):
            if (scenario.ways and way.name not in scenario.ways) or (name, way.name) in lost:
                continue
            try:
                measured = _run_one(number, name, way, scenario.job(way, _fitting(length, way, scenario)))
            except LostError as error:
                if way.name != "litellm":
                    raise
                print(f"bench: {error}", file=sys.stderr)
                lost.add((name, way.name))
                runs.pop((name, way.name), None)
                continue
            runs.setdefault((name, way.name), []).append(measured)
    return runs


def _fitting(length: Length, way: Way, scenario: Scenario) -> Length:
    """Longer for who answers so much slower that a window would hold next to nothing."""
    if way.name != "litellm" or scenario.load(length)["shape"] != "closed":
        return length
    return replace(length, seconds=4 * length.seconds)


def _run_one(number: int, name: str, way: Way, job: Job) -> Measured:
    if sys.stderr.isatty():
        print(f"\rround {number + 1}: {name} through {way.name:20}", end="", file=sys.stderr, flush=True)
    try:
        measured = run(job)
        if job.shape == "closed" and not measured.answers:
            raise LostError("no answer was whole within the window")
        return measured
    except LostError as error:
        raise LostError(f"{name} through {way.name}: {error}") from None


if __name__ == "__main__":
    sys.exit(main())
