"""What a worker finds when it looks at itself: its listeners, certificates and upstreams."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlsplit

from trestle import findings
from trestle.errors import CallError
from trestle.findings import Finding
from worker.credentials import tokens_for
from worker.family import Upstream
from worker.settings import WorkerSettings, upstreams_of
from worker.upstream import UpstreamClient


async def look(settings: WorkerSettings, family: Any, *, ask: bool) -> list[Finding]:
    """settings: that are right so far. ask: whether upstreams are asked for their models, with our credentials. Raises
    `ConfigError` where the settings turn out not to be right."""
    found = [findings.port("worker.listen", settings.listen)]
    found += [
        findings.port(f"worker.{name}", address)
        for name, address in (("health", settings.health), ("metrics", settings.metrics))
        if address
    ]
    if settings.tls is not None:
        found.append(findings.certificate("worker.tls.certificate", settings.tls.certificate, settings.tls.key))
    if not hasattr(family, "upstream_type"):
        return found
    upstreams = upstreams_of(settings, family)
    found += await asyncio.gather(*(_reach(family.name, upstream) for upstream in upstreams))
    if ask:
        found += await asyncio.gather(*(_ask(family, upstream) for upstream in upstreams))
    return found


async def _reach(family: str, upstream: Upstream[Any]) -> Finding:
    parts = urlsplit(upstream.settings.base_url)
    tls = parts.scheme == "https"
    what = f"worker.{family}.upstreams.{upstream.name}.base_url"
    return await findings.reached(what, parts.hostname or "", parts.port or (443 if tls else 80), tls=tls)


async def _ask(family: Any, upstream: Upstream[Any]) -> Finding:
    what = f"worker.{family.name}.upstreams.{upstream.name}"
    client = UpstreamClient(upstream, tokens_for(family, upstream))
    try:
        answer = await client.open(family.encode_list_models(upstream), {})
        try:
            if not 200 <= answer.status < 300:
                raise family.decode_error(answer.status, answer.headers, await answer.read_error(), upstream)
            body = await answer.read_all(upstream.settings.max_answer_bytes)
        finally:
            answer.close()
        models = list(family.decode_list_models(body))
    except CallError as error:
        variable = upstream.settings.credential_env
        todo = f"look at what {variable} holds" if variable else "look at base_url"
        said = error.message.replace(upstream.credential, "[hidden]") if upstream.credential else error.message
        return Finding("fail", what, f"{said} ({error.reason.value})", todo)
    finally:
        await client.close()
    return Finding("ok", what, f"lists {findings.count(models)}")
