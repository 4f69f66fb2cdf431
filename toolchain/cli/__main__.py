"""Entry point of `spikeport` and `python -m toolchain.cli`: signals first, then the commands."""

import gc
import signal

COLLECT_AFTER = 5000
"""New objects between two searches for garbage: with Python's 700, a tenth of torch's import."""


def main() -> None:
    """Entry point of the command line."""
    gc.set_threshold(COLLECT_AFTER)
    # Signals that arrive while `stops` is imported wait until they can be handled.
    before = signal.pthread_sigmask(
        signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    )
    from toolchain.cli import stops

    stops.end_at_once(stops.KEPT_NOTHING)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    from toolchain.cli.app import main as begin

    begin()


if __name__ == "__main__":
    main()
