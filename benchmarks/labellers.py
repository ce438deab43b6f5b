"""Two hundred labellers work at once on one server: lost judgements, and the time of each request.

    python benchmarks/labellers.py [--labellers 200] [--minutes 1] [--think 10] [--database postgresql+psycopg://...]

Each labeller takes the next tasks, thinks, and judges, as the label page does; the server is a process of its own. At
the end every judgement that the server acknowledged is looked up in the database. Prints a table and, last, one line of
JSON.
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
from typing import Any

import httpx

from assent.labelling.accounts import Accounts
from assent.labelling.queue import TaskQueue, TaskRequest, required_votes
from assent.records import Prompt, Response, Task
from assent.run import Setup, open_run


def prepare(folder: Path, num_labellers: int, num_tasks: int, database: str) -> list[str]:
    """Create a run with queued tasks, and return a session for each labeller."""
    with open_run(Setup(run=folder, database=database)) as run:
        prompts = [Prompt.ask(f"Why is {n} a number?") for n in range(num_tasks)]
        pairs = [[Response(p.id, f"Because {w}. " * 40, "sft") for w in ("it is", "I say so")] for p in prompts]
        run.store.add_prompts(prompts)
        run.store.add_responses(response for pair in pairs for response in pair)
        tasks = [
            Task("comparison", p.id, (a.id, b.id), "train", "Which?") for p, (a, b) in zip(prompts, pairs, strict=True)
        ]
        TaskQueue(run.store).enqueue((TaskRequest(task, required_votes(task)) for task in tasks), "label")
        accounts = Accounts(run.store)
        owner = accounts.join(accounts.issue_setup(), "owner", "correct horse")
        invites = accounts.invite(owner, "labeller", [f"w{n}" for n in range(num_labellers)])
        users = [accounts.join(secret, f"labeller {n}", "correct horse") for n, secret in enumerate(invites)]
        return [accounts.credentials.open_session(user) for user in users]


async def label(
    client: httpx.AsyncClient, session: str, rng: random.Random, until: float, think: float,
    times: dict[str, list[float]], acknowledged: list[str],
) -> None:  # fmt: skip
    """Label as one labeller: two tasks wait behind the one on the screen."""
    headers = {"cookie": f"assent_session={session}"}
    tasks: list[dict[str, Any]] = []
    await asyncio.sleep(rng.random() * think)

    async def timed(name: str, method: str, path: str, **options: Any) -> httpx.Response:
        start = time.perf_counter()
        response = await client.request(method, path, headers=headers, **options)
        times[name].append(time.perf_counter() - start)
        response.raise_for_status()
        return response

    while time.monotonic() < until:
        hold = ",".join(task["task"] for task in tasks)
        response = await timed("next", "GET", f"/r/run/api/tasks/next?count={3 - len(tasks)}&hold={hold}")
        tasks += response.json()["tasks"]
        if not tasks:
            return
        await asyncio.sleep(rng.expovariate(1 / think))
        task = tasks.pop(0)
        order = [item["id"] for item in task["items"]]
        judgement = {"verdict": "better", "preferred": rng.choice(order), "strength": rng.choice([1, 2, 3])}
        body = {
            "id": str(uuid.UUID(int=rng.getrandbits(128))), "task": task["task"], "display_order": order,
            "duration": think, "judgement": judgement,
        }  # fmt: skip
        response = await timed("judgement", "POST", "/r/run/api/judgements", json=body)
        acknowledged.append(response.json()["id"])


async def label_together(
    url: str, sessions: list[str], minutes: float, think: float
) -> tuple[dict[str, list[float]], list[str]]:
    """Label with all sessions at once; return the seconds of each request and the ids of acknowledged judgements."""
    times: dict[str, list[float]] = {"next": [], "judgement": []}
    acknowledged: list[str] = []
    limits = httpx.Limits(max_connections=len(sessions), max_keepalive_connections=len(sessions))
    until = time.monotonic() + 60 * minutes
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=60) as client:
        await asyncio.gather(
            *(label(client, s, random.Random(n), until, think, times, acknowledged) for n, s in enumerate(sessions))
        )
    return times, acknowledged


def main() -> None:
    """Prepare, serve, label, count."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--labellers", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--think", type=float, default=10.0, help="mean seconds between two judgements of a labeller")
    parser.add_argument("--database", default="")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as top:
        folder = Path(top) / "run"
        num_tasks = int(options.labellers * (60 * options.minutes / options.think + 10))
        sessions = prepare(folder, options.labellers, num_tasks, options.database)
        serve = [sys.executable, "-u", "-m", "assent", "serve", str(folder), "--port", "0"]
        server = subprocess.Popen(serve, stderr=subprocess.PIPE, text=True)
        try:
            assert server.stderr is not None
            address = re.search(r"http\S+", server.stderr.readline())
            assert address
            times, acknowledged = asyncio.run(label_together(address[0], sessions, options.minutes, options.think))
        finally:
            server.terminate()
            server.wait()
        with open_run(Setup(run=folder, database=options.database)) as run:
            stored = [event.id for event in run.store.feedback()]
            assert run.store.verify() == len(stored)
    lost = set(acknowledged) - set(stored)
    twice = len(stored) - len(set(stored))
    count = len(acknowledged)
    print(f"{options.labellers} labellers, {options.minutes:g} minutes, {count} judgements, {os.cpu_count()} cores")
    print(f"{'request':10}{'count':>8}{'median':>10}{'p95':>10}{'p99':>10}{'most':>10}  (milliseconds)")
    seconds = {}
    for name, values in times.items():
        cuts = statistics.quantiles(values, n=100)
        seconds[name] = {"median": cuts[49], "p95": cuts[94], "p99": cuts[98], "most": max(values)}
        print(f"{name:10}{len(values):8}" + "".join(f"{1000 * value:10.0f}" for value in seconds[name].values()))
    print(f"acknowledged and not stored: {len(lost)}; stored twice: {twice}; stored and not acknowledged: "
          f"{len(set(stored) - set(acknowledged))}")  # fmt: skip
    line = {"what": "labellers", "labellers": options.labellers, "judgements": count, "lost": len(lost), "twice": twice}
    line |= {"database": options.database.partition(":")[0] or "sqlite", "seconds": seconds}
    print(json.dumps(line | {"command": "python benchmarks/labellers.py"}))
    sys.exit(1 if lost or twice else 0)


if __name__ == "__main__":
    main()
