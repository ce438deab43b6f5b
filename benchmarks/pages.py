"""How long do the pages take that tell how a project does, at a hundred thousand answers?

    python benchmarks/pages.py [--answers 100000] [--profiles 12]

Fills a run, serves it in a process of its own, and asks for each page over HTTP: `cold` is the first request to a new
server, `warm` the median of five more, `new` the median of three, each right after one more answer came. Before `warm`
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
from assent.labelling.accounts import People
from assent.labelling.queue import Ask, TaskQueue
from assent.records import Feedback, Judgement, Prompt, Response, Task
from assent.run import Setup, open_run
from assent.store.database import Store

PAGES = (
    "r/run/progress", "r/run/admin", "r/run/review", "r/run/disagreements", "r/run/prompts",
    "r/run/prompts?words=thing+96", "", "r/run/answers", "r/run/answers?words=zebra", "r/run/answers?state=superseded",
    "r/run/api/next", "r/run/api/events?count=1000",
    "r/run/api/events?count=1000&after={}",
)  # fmt: skip
POLICIES = ("sft", "dpo", "ppo")


def questions(answers: int) -> Iterator[tuple[Prompt, list[Response], Task]]:
    """A question for each two answers: of ten, eight are comparisons, one is a rating, one is of the arena."""
    for n in range(answers // 2):
        prompt = Prompt.ask(f"Question {n} about thing {n % 97}, which somebody wants to know more about?")
        texts = [f"The {word} answer to question {n} is of some forty words. " * 4 for word in ("first", "second")]
        policies = [f"evaluate:{POLICIES[(n + i) % 3]}" if n % 10 == 9 else "sft" for i in range(2)]
        pair = [Response(prompt.id, text, policy) for text, policy in zip(texts, policies, strict=True)]
        kind = "rating" if n % 10 == 8 else "comparison"
        items = tuple(response.id for response in pair)[: 1 if kind == "rating" else 2]
        purpose = "evaluate" if n % 10 == 9 else "gold" if n % 20 == 0 else "train"
        yield prompt, pair, Task(kind, prompt.id, items, purpose, "Which?")


def answer(query: Task, luck: random.Random) -> Judgement:
    """What somebody says who likes the first item rather."""
    if query.kind == "rating":
        return Rating((("helpful", luck.randint(2, 6)), ("true", luck.randint(3, 7))))
    lot = luck.random()
    return Comparison(query.items[lot > 0.65], luck.randint(1, 3)) if lot < 0.9 else Comparison(verdict="tie")


def fill(folder: Path, answers: int, people: int) -> tuple[str, str]:
    """A run with so many answers up to today; the owner's session, and the id of an event a page from the end."""
    luck, now = random.Random(0), datetime.now(UTC)
    with open_run(Setup(run=folder)) as run:
        here = People(run.store)
        owner = here.join(here.setup(), "owner", "correct horse")
        keys = here.invite(owner, "labeller", [f"w{n}" for n in range(people)])
        ids = [here.join(key, f"person {n}", "correct horse").id for n, key in enumerate(keys)]
        asked = list(questions(answers))
        run.store.add_prompts(prompt for prompt, _, _ in asked)
        run.store.add_responses(response for _, pair, _ in asked for response in pair)
        run.store.add_tasks(query for _, _, query in asked)
        said = ((query, who) for _, _, query in asked for who in luck.sample(ids, 2))
        run.store.add_feedback(
            Feedback(
                query.id, who, answer(query, luck), (now - timedelta(days=20 * (1 - n / answers))).isoformat(),
                luck.uniform(3, 40), tuple(luck.sample(query.items, len(query.items))), id=f"event-{n}",
            )
            for n, (query, who) in enumerate(said)
        )  # fmt: skip
        desk = TaskQueue(run.store, people=here)
        desk.post((Ask(query, 2 + n % 2) for n, (_, _, query) in enumerate(asked) if query.purpose != "gold"), "label")
        for _, _, query in asked[:2000:20]:
            desk.add_gold(query, Comparison(query.items[0]))
        return here.open_session(owner), f"event-{max(0, answers - 1001)}"


@contextmanager
def serving(folder: Path, session: str) -> Iterator[httpx.Client]:
    """A server of its own, and the owner's browser."""
    command = [sys.executable, "-u", "-m", "assent", "serve", str(folder), "--port", "0"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr is not None
        address = re.search(r"http\S+", server.stderr.readline())
        assert address
        headers = {"cookie": f"assent_session={session}", "accept": "text/html, */*"}
        patient = httpx.HTTPTransport(retries=6)  # it tells its address a moment before it listens
        with httpx.Client(base_url=address[0], headers=headers, timeout=120, transport=patient) as client:
            client.get("/login").raise_for_status()
            yield client
    finally:
        server.terminate()
        server.wait()


def seconds(client: httpx.Client, path: str) -> float:
    """How long one request takes; NaN if there is no such page."""
    start = time.perf_counter()
    reply = client.get(f"/{path}")
    took = time.perf_counter() - start
    if reply.status_code == 404:
        return float("nan")
    reply.raise_for_status()
    return took


def ready(client: httpx.Client) -> float:
    """Seconds until Progress has computed everything."""
    start = time.perf_counter()
    while "being computed" in (text := client.get("/r/run/progress").text) or "came since" in text:
        time.sleep(0.1)
    return time.perf_counter() - start


def one_more(store: Store, template: Feedback, number: int) -> None:
    """One more person answers."""
    at = datetime.now(UTC).isoformat()
    store.add_feedback([Feedback(template.task, f"late {number}", template.judgement, at, 5.0, template.display_order)])


def main() -> None:
    """Fill, serve, ask, tell."""
    options = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    options.add_argument("--answers", type=int, default=100_000)
    options.add_argument("--profiles", type=int, default=12)
    told = options.parse_args()
    table: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as top:
        folder = Path(top) / "run"
        session, late = fill(folder, told.answers, told.people)
        paths = {path: path.format(late) for path in PAGES}
        for name, path in paths.items():
            with serving(folder, session) as client:
                table[name] = {"cold": seconds(client, path)}
        with serving(folder, session) as client, Store.open(folder / "feedback.db") as store:
            table["r/run/progress"]["ready"] = ready(client)
            template = next(iter(store.feedback(ids=[late])))
            for number, (name, path) in enumerate(paths.items()):
                ready(client)
                seconds(client, path)
                table[name]["warm"] = statistics.median(seconds(client, path) for _ in range(5))
                news = []
                for again in range(3):
                    one_more(store, template, 10 * number + again)
                    news.append(seconds(client, path))
                table[name]["new"] = statistics.median(news)
    print(f"{told.answers} answers of {told.people} people (seconds)")
    print(f"{'page':44}{'cold':>8}{'warm':>8}{'new':>8}{'ready':>8}")
    for name, times in table.items():
        cells = (f"{times[kind]:8.2f}" if kind in times else "" for kind in ("cold", "warm", "new", "ready"))
        print(f"/{name:43}" + "".join(cells))
    command = "python benchmarks/pages.py"
    print(json.dumps({"what": "pages", "answers": told.answers, "seconds": table, "command": command}))


if __name__ == "__main__":
    main()
