"""Where `speed-ray` begins: a Ctrl-C while Python is still reading the program ends it without a traceback."""

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)

from speed_ray import cli  # noqa: E402


def main() -> None:
    """Run one command; from here on a Ctrl-C stops it with care."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    cli.main()


if __name__ == "__main__":
    main()
