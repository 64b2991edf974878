"""A family outside the tree is served like those inside."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from support import services

from trestle.v1 import chat_pb2, worker_service_pb2_grpc
from worker import registry

PROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "tiny-family"
version = "1.0"

[project.entry-points."trestle.families"]
tiny = "tiny_family:FAMILY"

[tool.setuptools]
py-modules = ["tiny_family"]
"""

MODULE = '''
from trestle.v1 import chat_pb2, model_pb2


class TinyFamily:
    name = "tiny"
    params = {}

    def ignored_params(self, request):
        return []

    def answer(self, request):
        response = chat_pb2.ChatResponse()
        response.chunks.add(started=chat_pb2.Started(id="tiny-1", model=request.model, created=1))
        response.chunks.add(text="tiny")
        response.chunks.add(finish=chat_pb2.Finish(reason=chat_pb2.FINISH_REASON_STOP))
        yield response

    def list_models(self):
        return [model_pb2.Model(id="tiny")]


FAMILY = TinyFamily()
'''


def test_the_folders_are_the_families() -> None:
    assert {"anthropic", "echo", "gemini", "openai"} <= set(registry.names())
    assert registry.family("echo").name == "echo"


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(KeyError):
        registry.family("nobody")


async def test_an_installed_family_is_served(tmp_path: Path) -> None:
    package, installed = tmp_path / "tiny", tmp_path / "installed"
    package.mkdir()
    (package / "pyproject.toml").write_text(PROJECT)
    (package / "tiny_family.py").write_text(MODULE)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-index", "--no-deps"]
    command = [*pip, "--no-build-isolation", "--target", str(installed), str(package)]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    async with (
        services.worker("tiny", tmp_path, environment={"PYTHONPATH": str(installed)}, forks=False) as worker,
        grpc.aio.insecure_channel(worker.address) as channel,
    ):
        request = chat_pb2.ChatRequest(model="tiny", stream=True)
        request.messages.add(role=chat_pb2.ROLE_USER, text="Hello")
        stub = worker_service_pb2_grpc.WorkerServiceStub(channel)
        chunks = [chunk async for response in stub.Chat(request, timeout=30) for chunk in response.chunks]
    assert [chunk.WhichOneof("event") for chunk in chunks] == ["started", "text", "finish"]
