"""How much the worker has to do, told to callers who choose among its replicas by it: ORCA, as gRPC's own
weighted_round_robin asks for it (`xds.service.orca.v3.OpenRcaService`). Nobody asks, nothing is done."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from typing import Final

from trestle.rpc.call import Call
from trestle.rpc.method import Method
from worker.calls import Calls

SERVICE: Final = "xds.service.orca.v3.OpenRcaService"
_INTERVAL: Final = 1.0
# A call that failed weighs like one that is open for so many seconds: who fails at once has little to do, and must not
# be asked the more for it.
_FAILURE_SECONDS: Final = 10.0
# `application_utilization` and `rps_fractional` of xds.data.orca.v3.OrcaLoadReport, as protobuf writes two doubles: a
# package for that one message would be larger than the worker.
_REPORT: Final = struct.Struct("<BdBd")
_UTILIZATION, _RATE = 9 << 3 | 1, 6 << 3 | 1


class LoadReports:
    """Of these calls."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def methods(self) -> dict[str, Method]:
        """For the server, by path; open to anybody, for it is gRPC itself that asks, without a token."""
        stream = Method(self._reports, bytes, bytes, guarded=False)
        return {f"/{SERVICE}/StreamCoreMetrics": stream}

    async def _reports(self, request: bytes, context: Call) -> AsyncIterator[bytes]:
        failing = 0.0
        known = self._calls.failed
        while True:
            failed = self._calls.failed
            failing += (failed - known) / _INTERVAL - failing / _FAILURE_SECONDS
            known = failed
            yield report(self._calls.open, failing)
            await asyncio.sleep(_INTERVAL)


def report(calls: int, failing: float) -> bytes:
    """One report. calls: that are open. failing: those that failed lately, the less of each the longer it is ago.

    A replica is asked in proportion to rate / utilization. The rate is always said to be 1: a true one would fall with
    what is asked of a replica that is busy for others, and take away the rest of it.
    """
    return _REPORT.pack(_UTILIZATION, 1.0 + calls + failing, _RATE, 1.0)
