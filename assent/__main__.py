"""Entry point of `assent`: Ctrl-C is handled from the first moment, while the command is still being imported."""

import os
import signal
import sys
from typing import NoReturn

from assent.errors import STOPPED, report_crash


def main() -> int:
    """Run a command as `assent.cli.main` does, and return 1 after an unexpected error. SIGTERM acts like Ctrl-C."""
    try:
        signal.signal(signal.SIGTERM, _interrupt)
        # assent prints its own progress: transformers' logs and progress bars stay off
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "critical")
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        from assent.cli import main as command

        return command()
    except KeyboardInterrupt:
        print(STOPPED, file=sys.stderr)
        return 130
    except Exception as error:  # noqa: BLE001 (a traceback is shown only on request)
        return report_crash(error, sys.argv[1:])


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    status = main()
    if "TORCHELASTIC_RUN_ID" in os.environ:  # torch sometimes aborts when one of many processes exits (gloo's threads)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)
