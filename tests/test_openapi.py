"""Every route of the API, with whatever a stranger might send, in every role: nothing makes the server fail."""

from pathlib import Path
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance

from assent.labelling.accounts import People
from assent.labelling.queue import Ask, TaskQueue
from assent.records import Prompt, Response, Task
from assent.run import Setup, open_run
from assent.web.app import make_app
from assent.web.workspace import Office

ROLES = ("owner", "admin", "reviewer", "labeller", "viewer", "nobody")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> tuple[FastAPI, dict[str, str]]:
    """A run with something to answer, and a token of each role."""
    folder = tmp_path_factory.mktemp("openapi") / "run"
    prompt = Prompt.ask("Why is the sea salty?")
    answers = [Response(prompt.id, f"Rivers carry {n} minerals.", "generate:start#1") for n in range(4)]
    with open_run(Setup(run=folder)) as run:
        run.store.add_prompts([prompt])
        run.store.add_responses(answers)
        pairs = [(a.id, b.id) for a in answers for b in answers if a.id < b.id]
        TaskQueue(run.store).post(
            [Ask(Task("comparison", prompt.id, pair, "train", "Which?")) for pair in pairs], "label"
        )
    office = Office(folder)
    people = People(office.project(folder.name).store)
    owner = people.join(people.setup(), "owner", "correct horse")
    tokens = {"owner": people.issue_token(owner, "test"), "nobody": ""}
    for role in ROLES[1:-1]:
        person = people.join(people.invite(owner, role)[0], role, "correct horse")
        tokens[role] = people.issue_token(person, "test")
    return make_app(office), tokens


@pytest.fixture(scope="module")
def described(served: tuple[FastAPI, dict[str, str]]) -> Any:
    schema: Any = schemathesis.openapi.from_asgi("/openapi.json", served[0])
    return schema.exclude(path_regex="/chat$")  # it would load a model for each of them


@pytest.mark.parametrize("role", ROLES)
def test_nothing_that_is_sent_makes_the_server_fail(
    described: Any, served: tuple[FastAPI, dict[str, str]], role: str
) -> None:
    token = served[1][role]
    headers = {"authorization": f"Bearer {token}"} if token else {}
    seen = set()
    for operation in (found.ok() for found in described.get_all_operations()):

        @given(case=operation.as_strategy())
        @settings(max_examples=12, suppress_health_check=list(HealthCheck), database=None)
        def told(case: Any) -> None:
            if "{run}" in case.path:
                case.path_parameters["run"] = "run"
            response = case.call(headers=headers)
            case.validate_response(response, checks=[not_a_server_error, response_schema_conformance])
            if not token:
                assert response.status_code in (401, 404, 405, 413, 422), response.status_code
            seen.add((case.path, response.status_code))

        told()
    assert len({path for path, _ in seen}) >= 9


def test_the_description_names_every_route_of_the_api(served: tuple[FastAPI, dict[str, str]]) -> None:
    paths = served[0].openapi()["paths"]
    assert {"/r/{run}/api/next", "/r/{run}/api/feedback", "/r/{run}/api/ask", "/r/{run}/api/events"} <= set(paths)
    assert all(Path(path).parts[1] in ("r", "api") for path in paths)
