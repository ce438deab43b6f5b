"""Where `assent` begins: Ctrl-C counts from the first moment, while the command itself is still being imported."""

import os
import signal
import sys
from typing import NoReturn

from assent.errors import STOPPED, report_crash


def main() -> int:
    """Run a command, as `assent.cli.main` does; 1 after what nobody foresaw. SIGTERM is as good as Ctrl-C."""
    try:
        signal.signal(signal.SIGTERM, _interrupt)
        # assent reports in its own words: transformers' logs and progress bars stay off in this program
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "critical")
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        from assent.cli import main as command

        return command()
    except KeyboardInterrupt:
        print(STOPPED, file=sys.stderr)
        return 130
    except Exception as error:  # noqa: BLE001 (no traceback reaches a person who did not ask for it)
        return report_crash(error, sys.argv[1:])


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    status = main()
    if "TORCHELASTIC_RUN_ID" in os.environ:  # at torch's own end a process of many aborts now and then (gloo's threads)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)
