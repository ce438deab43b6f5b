"""Fuzzed requests to every route of the API, in every role: none causes a server error."""

from pathlib import Path
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance

from assent.labelling.accounts import Accounts
from assent.labelling.queue import TaskQueue, TaskRequest
from assent.records import Prompt, Response, Task
from assent.run import Setup, open_run
from assent.web.app import make_app
from assent.web.workspace import Workspace

ROLES = ("owner", "admin", "reviewer", "labeller", "viewer", "nobody")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> tuple[FastAPI, dict[str, str]]:
    """Return a run with tasks, and a token for each role."""
    folder = tmp_path_factory.mktemp("openapi") / "run"
    prompt = Prompt.ask("Why is the sea salty?")
    responses = [Response(prompt.id, f"Rivers carry {n} minerals.", "generate:base#1") for n in range(4)]
    with open_run(Setup(run=folder)) as run:
        run.store.add_prompts([prompt])
        run.store.add_responses(responses)
        pairs = [(a.id, b.id) for a in responses for b in responses if a.id < b.id]
        TaskQueue(run.store).enqueue(
            [TaskRequest(Task("comparison", prompt.id, pair, "train", "Which?")) for pair in pairs], "label"
        )
    workspace = Workspace(folder)
    accounts = Accounts(workspace.project(folder.name).store)
    owner = accounts.join(accounts.issue_setup(), "owner", "correct horse")
    tokens = {"owner": accounts.credentials.issue_token(owner, "test"), "nobody": ""}
    for role in ROLES[1:-1]:
        user = accounts.join(accounts.invite(owner, role)[0], role, "correct horse")
        tokens[role] = accounts.credentials.issue_token(user, "test")
    return make_app(workspace), tokens


@pytest.fixture(scope="module")
def described(served: tuple[FastAPI, dict[str, str]]) -> Any:
    schema: Any = schemathesis.openapi.from_asgi("/openapi.json", served[0])
    return schema.exclude(path_regex="/chat$")  # each request would load a model


@pytest.mark.parametrize("role", ROLES)
def test_fuzzed_api_requests_cause_no_server_error(
    described: Any, served: tuple[FastAPI, dict[str, str]], role: str
) -> None:
    token = served[1][role]
    headers = {"authorization": f"Bearer {token}"} if token else {}
    statuses = set()
    for operation in (result.ok() for result in described.get_all_operations()):

        @given(case=operation.as_strategy())
        @settings(max_examples=12, suppress_health_check=list(HealthCheck), database=None)
        def check_response(case: Any) -> None:
            if "{run}" in case.path:
                case.path_parameters["run"] = "run"
            response = case.call(headers=headers)
            case.validate_response(response, checks=[not_a_server_error, response_schema_conformance])
            if not token:
                assert response.status_code in (401, 404, 405, 413, 422), response.status_code
            statuses.add((case.path, response.status_code))

        check_response()
    assert len({path for path, _ in statuses}) >= 9


def test_openapi_lists_the_main_routes(served: tuple[FastAPI, dict[str, str]]) -> None:
    paths = served[0].openapi()["paths"]
    assert {"/r/{run}/api/tasks/next", "/r/{run}/api/judgements", "/r/{run}/api/tasks", "/r/{run}/api/events"} <= set(
        paths
    )
    assert all(Path(path).parts[1] in ("r", "api") for path in paths)
