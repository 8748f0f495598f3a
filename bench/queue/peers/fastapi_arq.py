"""Peer: FastAPI on uvicorn (uvloop, httptools), an arq job, and its count."""

from __future__ import annotations

import os
import socket
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import uvicorn
from arq import create_pool
from arq.connections import RedisSettings
from fastapi import FastAPI
from pydantic import BaseModel


class Body(BaseModel):
    form: dict[str, Any]
    state: dict[str, Any] = {}


@asynccontextmanager
async def lifespan(app: FastAPI):
    app.state.pool = await create_pool(RedisSettings(port=int(os.environ["STORE_PORT"])))
    print(f"ready http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
    yield


app = FastAPI(lifespan=lifespan)


@app.post("/enqueue", status_code=202)
async def enqueue(body: Body) -> dict[str, Any]:
    task_id = f"flowise-{uuid4()}"
    await app.state.pool.enqueue_job("call", body.form, body.state, _job_id=task_id)
    waiting = await app.state.pool.zcard("arq:queue")
    return {"accepted": True, "taskId": task_id, "pendingCount": waiting}


listening = socket.socket()
listening.bind(("127.0.0.1", 0))
uvicorn.Server(uvicorn.Config(app, loop="uvloop", http="httptools", log_level="error", access_log=False)).run(
    sockets=[listening]
)
