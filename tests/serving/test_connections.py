"""Connections on which nothing, or too little, comes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from cascade.serving import workers

END = b"\r\n"
HEAD = b"GET / HTTP/1.1\r\nhost: x\r\n"


async def application(scope: Any, receive: Any, send: Any) -> None:
    await asyncio.sleep(0.1)  # longer than a head may take here
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.mark.parametrize(
    ("idle", "head", "sent", "answers"),
    [(0.03, 60, b"", 0), (60, 0.03, HEAD, 0), (60, 0.03, HEAD + END + HEAD, 1), (60, 0.03, 2 * (HEAD + END), 2)],
)
def test_a_connection_ends_where_no_whole_head_comes(
    monkeypatch: pytest.MonkeyPatch, idle: float, head: float, sent: bytes, answers: int
) -> None:
    monkeypatch.setattr(workers, "IDLE_SECONDS", idle)
    monkeypatch.setattr(workers, "HEAD_SECONDS", head)
    config = uvicorn.Config(application, log_config=None, timeout_keep_alive=1 if answers == 2 else 60)

    async def run() -> bytes:
        config.load()
        server = await asyncio.get_running_loop().create_server(
            lambda: workers._Protocol(config, ServerState(), {}), "127.0.0.1", 0
        )
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(sent)
        found = await asyncio.wait_for(reader.read(), 60)  # until the server closes it
        writer.close()
        server.close()
        return found

    assert asyncio.run(run()).count(b"200 OK") == answers
