"""The examples of README.md and docs/client.md, as they stand there but for where the worker listens."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio
from clients import install
from support import services
from support.services import ROOT
from support.upstream import PATIENCE

pytestmark = pytest.mark.asyncio(loop_scope="session")

ADDRESS: Final = "127.0.0.1:50054"
SAID: Final = "Hello, bridge"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def echo(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    async with services.worker("echo", tmp_path_factory.mktemp("examples")) as worker:
        yield worker.address


def example(file: str, language: str) -> str:
    """The first example of the file in this language that calls the worker."""
    blocks: list[str] = re.findall(rf"```{language}\n(.*?)```", (ROOT / file).read_text(encoding="utf-8"), re.DOTALL)
    return next(block for block in blocks if ADDRESS in block)


async def output(*command: str | Path, code: str, cwd: Path) -> str:
    pipe = asyncio.subprocess.PIPE
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, cwd=cwd, env=environment)
    async with asyncio.timeout(PATIENCE):
        said, _ = await process.communicate(code.encode())
    assert process.returncode == 0
    return said.decode()


@pytest.mark.parametrize("file", ["README.md", "docs/client.md"])
async def test_in_python(file: str, echo: str, tmp_path: Path) -> None:
    code = example(file, "python").replace(ADDRESS, echo)
    assert (await output(sys.executable, "-", code=code, cwd=tmp_path)).startswith(SAID)


async def test_in_node(echo: str, node_binary: Path) -> None:
    code = example("docs/client.md", "js").replace(ADDRESS, echo).replace('"proto"', f'"{ROOT / "proto"}"')
    command = (node_binary, "--input-type=module", "-")
    assert await output(*command, code=code, cwd=install.HERE / "node") == SAID
