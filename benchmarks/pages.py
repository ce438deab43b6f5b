"""Seconds that the progress and management pages take with a hundred thousand judgements.

    python benchmarks/pages.py [--judgements 100000] [--labellers 12]

Fills a run, serves it in a process of its own, and requests each page over HTTP: `cold` is the first request to a new
server, `warm` the median of five more, `new` the median of three, each right after one more judgement. Before `warm`
and `new` it waits until Progress has computed everything; `ready` is how long that takes after a cold start. Prints a
table and, last, one line of JSON.
"""

import argparse
import json
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx

from assent.feedback.comparison import Comparison
from assent.feedback.rating import Rating
from assent.labelling.accounts import Accounts
from assent.labelling.queue import TaskQueue, TaskRequest
from assent.records import Feedback, Judgement, Prompt, Response, Task
from assent.run import Setup, open_run
from assent.store.database import Store

PAGES = (
    "r/run/progress", "r/run/admin", "r/run/review", "r/run/disagreements", "r/run/prompts",
    "r/run/prompts?text=thing+96", "", "r/run/judgements", "r/run/judgements?text=zebra",
    "r/run/judgements?state=superseded", "r/run/api/tasks/next", "r/run/api/events?count=1000",
    "r/run/api/events?count=1000&after={}",
)  # fmt: skip
POLICIES = ("sft", "dpo", "ppo")


def make_tasks(num_judgements: int) -> Iterator[tuple[Prompt, list[Response], Task]]:
    """Yield a task for each two judgements: of ten, eight are comparisons, one is a rating, one is of the arena."""
    for n in range(num_judgements // 2):
        prompt = Prompt.ask(f"Question {n} about thing {n % 97}, which somebody wants to know more about?")
        texts = [f"The {word} answer to question {n} is of some forty words. " * 4 for word in ("first", "second")]
        policies = [f"evaluate:{POLICIES[(n + i) % 3]}" if n % 10 == 9 else "sft" for i in range(2)]
        pair = [Response(prompt.id, text, policy) for text, policy in zip(texts, policies, strict=True)]
        kind = "rating" if n % 10 == 8 else "comparison"
        items = tuple(response.id for response in pair)[: 1 if kind == "rating" else 2]
        purpose = "evaluate" if n % 10 == 9 else "gold" if n % 20 == 0 else "train"
        yield prompt, pair, Task(kind, prompt.id, items, purpose, "Which?")


def judge(task: Task, rng: random.Random) -> Judgement:
    """Return a random judgement that prefers the first item more often."""
    if task.kind == "rating":
        return Rating((("helpful", rng.randint(2, 6)), ("true", rng.randint(3, 7))))
    uniform = rng.random()
    return Comparison(task.items[uniform > 0.65], rng.randint(1, 3)) if uniform < 0.9 else Comparison(verdict="tie")


def fill(folder: Path, num_judgements: int, num_labellers: int) -> tuple[str, str]:
    """Create a run with judgements up to today; return the owner's session and the id of an event near the end."""
    rng = random.Random(0)
    now = datetime.now(UTC)
    with open_run(Setup(run=folder)) as run:
        accounts = Accounts(run.store)
        owner = accounts.join(accounts.issue_setup(), "owner", "correct horse")
        secrets = accounts.invite(owner, "labeller", [f"w{n}" for n in range(num_labellers)])
        ids = [accounts.join(secret, f"labeller {n}", "correct horse").id for n, secret in enumerate(secrets)]
        rows = list(make_tasks(num_judgements))
        run.store.add_prompts(prompt for prompt, _, _ in rows)
        run.store.add_responses(response for _, pair, _ in rows for response in pair)
        run.store.add_tasks(task for _, _, task in rows)
        votes = ((task, labeller) for _, _, task in rows for labeller in rng.sample(ids, 2))
        run.store.add_feedback(
            Feedback(
                task.id, labeller, judge(task, rng), (now - timedelta(days=20 * (1 - n / num_judgements))).isoformat(),
                rng.uniform(3, 40), tuple(rng.sample(task.items, len(task.items))), id=f"event-{n}",
            )
            for n, (task, labeller) in enumerate(votes)
        )  # fmt: skip
        queue = TaskQueue(run.store, accounts=accounts)
        tasks = [task for _, _, task in rows]
        queue.enqueue((TaskRequest(task, 2 + n % 2) for n, task in enumerate(tasks) if task.purpose != "gold"), "label")
        for task in tasks[:2000:20]:
            queue.gold.add(task, Comparison(task.items[0]))
        return accounts.credentials.open_session(owner), f"event-{max(0, num_judgements - 1001)}"


@contextmanager
def serving(folder: Path, session: str) -> Iterator[httpx.Client]:
    """Serve in another process, and yield a client with the owner's session."""
    command = [sys.executable, "-u", "-m", "assent", "serve", str(folder), "--port", "0"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr is not None
        address = re.search(r"http\S+", server.stderr.readline())
        assert address
        headers = {"cookie": f"assent_session={session}", "accept": "text/html, */*"}
        transport = httpx.HTTPTransport(retries=6)  # the server prints its address before it listens
        with httpx.Client(base_url=address[0], headers=headers, timeout=120, transport=transport) as client:
            client.get("/login").raise_for_status()
            yield client
    finally:
        server.terminate()
        server.wait()


def seconds(client: httpx.Client, path: str) -> float:
    """Return the seconds of one request; NaN if the page does not exist."""
    start = time.perf_counter()
    reply = client.get(f"/{path}")
    took = time.perf_counter() - start
    if reply.status_code == 404:
        return float("nan")
    reply.raise_for_status()
    return took


def wait_until_ready(client: httpx.Client) -> float:
    """Return the seconds until the progress page has computed everything."""
    start = time.perf_counter()
    while "being computed" in (text := client.get("/r/run/progress").text) or "came since" in text:
        time.sleep(0.1)
    return time.perf_counter() - start


def add_judgement(store: Store, template: Feedback, number: int) -> None:
    """Store one more judgement, of another annotator."""
    created_at = datetime.now(UTC).isoformat()
    store.add_feedback(
        [Feedback(template.task, f"late {number}", template.judgement, created_at, 5.0, template.display_order)]
    )


def main() -> None:
    """Fill, serve, request, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--judgements", type=int, default=100_000)
    parser.add_argument("--labellers", type=int, default=12)
    options = parser.parse_args()
    table: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as top:
        folder = Path(top) / "run"
        session, late = fill(folder, options.judgements, options.labellers)
        paths = {path: path.format(late) for path in PAGES}
        for name, path in paths.items():
            with serving(folder, session) as client:
                table[name] = {"cold": seconds(client, path)}
        with serving(folder, session) as client, Store.open(folder / "feedback.db") as store:
            table["r/run/progress"]["ready"] = wait_until_ready(client)
            template = next(iter(store.feedback(ids=[late])))
            for number, (name, path) in enumerate(paths.items()):
                wait_until_ready(client)
                seconds(client, path)
                table[name]["warm"] = statistics.median(seconds(client, path) for _ in range(5))
                news = []
                for repeat in range(3):
                    add_judgement(store, template, 10 * number + repeat)
                    news.append(seconds(client, path))
                table[name]["new"] = statistics.median(news)
    print(f"{options.judgements} judgements of {options.labellers} labellers (seconds)")
    print(f"{'page':44}{'cold':>8}{'warm':>8}{'new':>8}{'ready':>8}")
    for name, times in table.items():
        cells = (f"{times[kind]:8.2f}" if kind in times else "" for kind in ("cold", "warm", "new", "ready"))
        print(f"/{name:43}" + "".join(cells))
    command = "python benchmarks/pages.py"
    print(json.dumps({"what": "pages", "judgements": options.judgements, "seconds": table, "command": command}))


if __name__ == "__main__":
    main()
