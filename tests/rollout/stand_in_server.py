"""A process that speaks the sampling server's HTTP, and misbehaves where a prompt tells it to.

``python stand_in_server.py PORT FOLDER``: FOLDER/version is the weight version it answers with,
FOLDER/behaviours.json maps the last token of a prompt to what to do ("hang", "die", "abort",
"slow SECONDS"), FOLDER/asked.log gets one line per request: the prompt's last token.
Once a prompt has made it hang, it does not say that it is healthy either, until FOLDER/behaviours
are written anew.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from aiohttp import web

FOLDER = Path(sys.argv[2]) if __name__ == "__main__" else Path()
HUNG_SINCE: set[int] = set()  # times of the behaviours under which it did
ANSWER = [3, 9, 9, 4, 5, 7, 6, 1]  # <think> w w </think> <answer> 7 </answer> <eos>


async def generate(request: web.Request) -> web.Response:
    asked = await request.json()
    last = str(asked["input_ids"][-1])
    with (FOLDER / "asked.log").open("a") as log:
        print(last, file=log)
    mood, *detail = json.loads((FOLDER / "behaviours.json").read_text()).get(last, "well").split()
    version = (FOLDER / "version").read_text()
    if mood == "hang":
        HUNG_SINCE.add(behaviours_time())
        await asyncio.sleep(3600)
    if mood == "die":
        os._exit(1)
    if mood == "slow":
        await asyncio.sleep(float(detail[0]))
    count = asked["sampling_params"]["n"]
    samples = [
        answer(index, version, "abort" if mood == "abort" else "stop") for index in range(count)
    ]
    return web.json_response(samples if count > 1 else samples[0])


def behaviours_time() -> int:
    return (FOLDER / "behaviours.json").stat().st_mtime_ns


def answer(index: int, version: str, finish_reason: str) -> dict[str, object]:
    tokens = ANSWER[:1] + [9] * index + ANSWER[1:]
    return {
        "output_ids": tokens,
        "meta_info": {
            "output_token_logprobs": [[-0.25 * token, token, None] for token in tokens],
            "finish_reason": {"type": finish_reason},
            "weight_versions": [{"version": version, "start": 0, "end": len(tokens)}],
        },
    }


async def health(request: web.Request) -> web.Response:
    if behaviours_time() in HUNG_SINCE:
        await asyncio.sleep(3600)
    return web.Response()


if __name__ == "__main__":
    app = web.Application()
    app.add_routes([web.post("/generate", generate), web.get("/health", health)])
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None)
