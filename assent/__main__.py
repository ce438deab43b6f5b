"""Where `assent` begins: Ctrl-C counts from the first moment, while the command itself is still being imported."""

import os
import signal
import sys
from typing import NoReturn

from assent.errors import STOPPED


def main() -> int:
    """Run a command, as `assent.cli.main` does; SIGTERM is as good as Ctrl-C."""
    try:
        signal.signal(signal.SIGTERM, _interrupt)
        from assent.cli import main as command

        return command()
    except KeyboardInterrupt:
        print(STOPPED, file=sys.stderr)
        return 130


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    status = main()
    if "TORCHELASTIC_RUN_ID" in os.environ:  # at torch's own end a process of many aborts now and then (gloo's threads)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)
