"""Where `assent` begins: Ctrl-C counts from the first moment, while the command itself is still being imported."""

import sys

from assent.errors import STOPPED


def main() -> int:
    """Run a command, as `assent.cli.main` does."""
    try:
        from assent.cli import main as command

        return command()
    except KeyboardInterrupt:
        print(STOPPED, file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
