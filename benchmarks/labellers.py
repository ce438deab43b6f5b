"""Two hundred people label at once on one server: does every answer arrive, and how long does each request take?

    python benchmarks/labellers.py [--profiles 200] [--minutes 1] [--think 10] [--database postgresql+psycopg://...]

Each person signs in, takes the next items, thinks, and answers, as the label page does; the server is a process of its
own. At the end every answer that the server acknowledged is looked for in the database. Prints a table and, last, one
line of JSON.
"""

import argparse
import asyncio
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import httpx

from assent.labelling.accounts import People
from assent.labelling.queue import Ask, TaskQueue, overlap
from assent.records import Prompt, Response, Task
from assent.run import Setup, open_run


def prepared(folder: Path, people: int, queries: int, database: str) -> list[str]:
    """A run with so many queries on the desk; a session for each person."""
    with open_run(Setup(run=folder, database=database)) as run:
        prompts = [Prompt.ask(f"Why is {n} a number?") for n in range(queries)]
        answers = [[Response(p.id, f"Because {w}. " * 40, "sft") for w in ("it is", "I say so")] for p in prompts]
        run.store.add_prompts(prompts)
        run.store.add_responses(one for pair in answers for one in pair)
        asked = [
            Task("comparison", p.id, (a.id, b.id), "train", "Which?")
            for p, (a, b) in zip(prompts, answers, strict=True)
        ]
        TaskQueue(run.store).post((Ask(query, overlap(query)) for query in asked), "label")
        here = People(run.store)
        owner = here.join(here.setup(), "owner", "correct horse")
        invites = here.invite(owner, "labeller", [f"w{n}" for n in range(people)])
        return [here.open_session(here.join(key, f"person {n}", "correct horse")) for n, key in enumerate(invites)]


async def label(
    client: httpx.AsyncClient, session: str, luck: random.Random, until: float, think: float,
    times: dict[str, list[float]], kept: list[str],
) -> None:  # fmt: skip
    """One person: two items wait behind the one on the screen."""
    headers = {"cookie": f"assent_session={session}"}
    shelf: list[dict] = []
    await asyncio.sleep(luck.random() * think)

    async def timed(name: str, method: str, path: str, **told: object) -> httpx.Response:
        start = time.perf_counter()
        response = await client.request(method, path, headers=headers, **told)
        times[name].append(time.perf_counter() - start)
        response.raise_for_status()
        return response

    while time.monotonic() < until:
        hold = ",".join(item["query"] for item in shelf)
        more = await timed("next", "GET", f"/r/run/api/next?count={3 - len(shelf)}&hold={hold}")
        shelf += more.json()["items"]
        if not shelf:
            return
        await asyncio.sleep(luck.expovariate(1 / think))
        item = shelf.pop(0)
        shown = [one["id"] for one in item["items"]]
        told = {
            "id": str(uuid.UUID(int=luck.getrandbits(128))), "query": item["query"], "shown": shown, "seconds": think,
            "answer": {"verdict": "better", "preferred": luck.choice(shown), "strength": luck.choice([1, 2, 3])},
        }  # fmt: skip
        kept.append((await timed("answer", "POST", "/r/run/api/feedback", json=told)).json()["id"])


async def everybody(
    url: str, sessions: list[str], minutes: float, think: float
) -> tuple[dict[str, list[float]], list[str]]:
    """All of them at once: seconds of each request, and the ids of what was acknowledged."""
    times: dict[str, list[float]] = {"next": [], "answer": []}
    kept: list[str] = []
    limits = httpx.Limits(max_connections=len(sessions), max_keepalive_connections=len(sessions))
    until = time.monotonic() + 60 * minutes
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=60) as client:
        await asyncio.gather(
            *(label(client, s, random.Random(n), until, think, times, kept) for n, s in enumerate(sessions))
        )
    return times, kept


def main() -> None:
    """Prepare, serve, label, count."""
    options = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    options.add_argument("--profiles", type=int, default=200)
    options.add_argument("--minutes", type=float, default=1.0)
    options.add_argument("--think", type=float, default=10.0, help="mean seconds between two answers of a person")
    options.add_argument("--database", default="")
    told = options.parse_args()
    with tempfile.TemporaryDirectory() as top:
        folder = Path(top) / "run"
        queries = int(told.people * (60 * told.minutes / told.think + 10))
        sessions = prepared(folder, told.people, queries, told.database)
        serve = [sys.executable, "-u", "-m", "assent", "serve", str(folder), "--port", "0"]
        server = subprocess.Popen(serve, stderr=subprocess.PIPE, text=True)
        try:
            assert server.stderr is not None
            address = re.search(r"http\S+", server.stderr.readline())
            assert address
            times, kept = asyncio.run(everybody(address[0], sessions, told.minutes, told.think))
        finally:
            server.terminate()
            server.wait()
        with open_run(Setup(run=folder, database=told.database)) as run:
            stored = [event.id for event in run.store.feedback()]
            assert run.store.verify() == len(stored)
    lost, twice = set(kept) - set(stored), len(stored) - len(set(stored))
    print(f"{told.people} people, {told.minutes:g} minutes, {len(kept)} answers, {os.cpu_count()} cores")
    print(f"{'request':10}{'count':>8}{'median':>10}{'p95':>10}{'p99':>10}{'most':>10}  (milliseconds)")
    found = {}
    for name, some in times.items():
        cuts = statistics.quantiles(some, n=100)
        found[name] = {"median": cuts[49], "p95": cuts[94], "p99": cuts[98], "most": max(some)}
        print(f"{name:10}{len(some):8}" + "".join(f"{1000 * value:10.0f}" for value in found[name].values()))
    print(f"acknowledged and not stored: {len(lost)}; stored twice: {twice}; stored and not acknowledged: "
          f"{len(set(stored) - set(kept))}")  # fmt: skip
    line = {"what": "labellers", "people": told.people, "answers": len(kept), "lost": len(lost), "twice": twice}
    line |= {"database": told.database.partition(":")[0] or "sqlite", "seconds": found}
    print(json.dumps(line | {"command": "python benchmarks/labellers.py"}))
    sys.exit(1 if lost or twice else 0)


if __name__ == "__main__":
    main()
