"""`spikeport`, or `python -m toolchain.cli`: answers signals, and imports the rest then."""

import signal


def main() -> None:
    """Entry point of the command line."""
    # What arrives while `stops` is imported waits until it can be answered.
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
