"""`trestle up`: the gateway and its workers on this machine, each a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import sys
from asyncio import StreamReader
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

from trestle import __version__
from trestle.cli.http import GatewayError, models
from trestle.cli.plan import Plan, client_key, is_encrypted, is_open, plan
from trestle.cli.status import Status
from trestle.config import ConfigError, read

T = TypeVar("T")
_LISTENING: Final = "listening on "
_STOP_SECONDS: Final = 60.0
_MODELS_SECONDS: Final = 15.0
_SHOWN_MODELS: Final = 12


def up(config: Path, listen: str | None) -> int:
    """Serves until Ctrl-C or SIGTERM (returns 0 when all ended well) or until one of the services ends (1). listen:
    instead of gateway.listen. Raises `ConfigError`."""
    document = read(config)
    workers = plan(document, os.environ)
    for name, variables in workers.left_out.items():
        print(f"worker {name} is left out: {' and '.join(variables)} {'is' if len(variables) == 1 else 'are'} not set")
    if not workers.here and not workers.elsewhere:
        todo = "set one of these variables, or" if workers.left_out else "name one:"
        raise ConfigError(
            f"{config}: gateway.workers names no worker that can be started; {todo} add the one that needs no account, "
            "`echo: 127.0.0.1:50054`"
        )
    return asyncio.run(_Supervisor().run(config, document, workers, listen))


class _Over(Exception):
    """Serving is over: by request (an empty reason), or for a reason."""

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason


class _Service:
    """One service's process. ended: its exit status, once it has one. others: where it listens for what else. setting:
    of the configuration, that says where it listens."""

    def __init__(self, name: str, setting: str, process: Process, status: Status) -> None:
        self.name = name
        self.setting = setting
        self.others: dict[str, str] = {}
        self._process = process
        self._status = status
        self._listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.ended: asyncio.Task[int] = asyncio.create_task(self._follow())

    @classmethod
    async def start(cls, status: Status, name: str, setting: str, *arguments: str) -> _Service:
        # A process group of its own: Ctrl-C reaches this process alone, which then stops the gateway before the
        # workers that it still needs.
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", *arguments),
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=PIPE if status.live else None,
            process_group=0,
        )
        return cls(name, setting, process, status)

    @property
    def listens(self) -> bool:
        """Whether it has come so far."""
        return self._listening.done()

    async def address(self) -> str:
        """Where it listens, once it does."""
        return await asyncio.shield(self._listening)

    async def _follow(self) -> int:
        assert self._process.stdout is not None
        logged = None if self._process.stderr is None else asyncio.create_task(self._pass_on(self._process.stderr))
        async for line in self._process.stdout:
            text = line.decode(errors="replace").rstrip("\n")
            what, _, address = text.rpartition(_LISTENING)
            if text.startswith(_LISTENING) and not self._listening.done():
                self._listening.set_result(address)
                continue
            self.others[what.rstrip()] = address
            self._status.say(text)
        if logged is not None:
            await logged
        return await self._process.wait()

    async def _pass_on(self, lines: StreamReader) -> None:
        async for line in lines:
            self._status.say(line.decode(errors="replace").rstrip("\n"))

    async def stop(self) -> None:
        """Asks it to end and waits until it has, after a minute without patience."""
        self.send(signal.SIGTERM)
        try:
            await asyncio.wait_for(asyncio.shield(self.ended), _STOP_SECONDS)
        except TimeoutError:
            print(f"{self.name} does not end by itself: killed", file=sys.stderr)
            self.send(signal.SIGKILL)
            await self.ended

    def send(self, number: signal.Signals) -> None:
        if self._process.returncode is None:
            self._process.send_signal(number)


class _Supervisor:
    """Starts the services, tells what they serve, waits, and stops them."""

    def __init__(self) -> None:
        self._gateway: list[_Service] = []
        self._workers: list[_Service] = []
        self._status = Status()
        self._told_to_stop: asyncio.Future[None]

    async def run(self, config: Path, document: Mapping[str, Any], workers: Plan, listen: str | None) -> int:
        loop = asyncio.get_running_loop()
        self._told_to_stop = loop.create_future()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._signalled)
        try:
            for name, address in workers.here.items():
                # One listener for probes would be asked for by each of them.
                arguments = ("worker", name, "--config", str(config), "--listen", address, "--health", "")
                setting = f"gateway.workers.{name}"
                self._workers.append(await _Service.start(self._status, f"worker {name}", setting, *arguments))
            for service in self._workers:
                await self._unless_over(service.address())
            names = ",".join([*workers.here, *workers.elsewhere])
            choices = ["--workers", names, *(("--listen", listen) if listen else ())]
            if self._status.live:
                choices += ["--metrics", "127.0.0.1:0"]  # for the last line
            arguments = ("gateway", "--config", str(config), *choices)
            gateway = await _Service.start(self._status, "gateway", "gateway.listen", *arguments)
            self._gateway.append(gateway)
            base = _url(await self._unless_over(gateway.address()), is_encrypted(document))
            await self._unless_over(_report(base, document, workers))
            drawn = asyncio.create_task(self._status.follow(base, gateway.others))
            try:
                await self._unless_over(loop.create_future())
            finally:
                drawn.cancel()
                self._status.end()
        except _Over as over:
            reason = over.reason
            print(reason or "stopping (open answers may finish; Ctrl-C again ends at once)", file=sys.stderr)
        finally:
            # The gateway first: what it still answers needs the workers.
            for services in (self._gateway, self._workers):
                await asyncio.gather(*(service.stop() for service in services))
        return 1 if reason or any(service.ended.result() for service in (*self._gateway, *self._workers)) else 0

    def _signalled(self) -> None:
        if not self._told_to_stop.done():
            self._told_to_stop.set_result(None)
            return
        for service in (*self._gateway, *self._workers):
            service.send(signal.SIGKILL)

    async def _unless_over(self, goal: Coroutine[Any, Any, T] | asyncio.Future[T]) -> T:
        """The goal's result. Raises `_Over` if we are told to stop, or a service ends, before there is one."""
        wanted = asyncio.ensure_future(goal)
        services = (*self._gateway, *self._workers)
        awaited: list[asyncio.Future[Any]] = [wanted, self._told_to_stop, *(service.ended for service in services)]
        await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
        if wanted.done():
            return wanted.result()
        wanted.cancel()
        if self._told_to_stop.done():
            raise _Over
        dead = next(service for service in services if service.ended.done())
        why = "" if dead.listens else f" (it listens where {dead.setting} says)"
        raise _Over(f"{dead.name} ended with status {dead.ended.result()}; stopping the rest{why}")


async def _report(base: str, document: Mapping[str, Any], workers: Plan) -> None:
    """Says what is served, and how to try it."""
    key, variable = client_key(document, os.environ)
    print(f"\nTrestle {__version__} serves {base}")
    for name, address in (*workers.here.items(), *workers.elsewhere.items()):
        print(f"  worker {name}: {address}")
    offered: list[str] = []
    try:
        if key or is_open(document):
            offered = await asyncio.to_thread(models, base, key, _MODELS_SECONDS)
    except GatewayError as error:
        print(f"  models: {error}")
    else:
        more = f" and {len(offered) - _SHOWN_MODELS} more" if len(offered) > _SHOWN_MODELS else ""
        none = "none yet" if key or is_open(document) else "for those who show a key"
        print(f"  models: {', '.join(offered[:_SHOWN_MODELS]) or none}{more}")
    model = "echo" if "echo" in (offered or workers.here) else (*offered, "MODEL")[0]
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Hello, bridge!"}]})
    bearer = "" if is_open(document) else f' -H "Authorization: Bearer ${variable or "TRESTLE_KEY"}"'
    print(f"\nTry it:\n  curl {base}/v1/chat/completions{bearer} -H 'Content-Type: application/json' \\")
    print(f"    -d {shlex.quote(body)}\n\nCtrl-C stops it.", flush=True)


def _url(address: str, encrypted: bool) -> str:
    """The URL at which this machine reaches a listener."""
    host, _, port = address.rpartition(":")
    return f"{'https' if encrypted else 'http'}://{'127.0.0.1' if host in ('0.0.0.0', '[::]', '') else host}:{port}"  # noqa: S104
