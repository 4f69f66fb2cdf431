"""Entry point of `spikeport` and `python -m toolchain.cli`: signals first, then the commands."""

import signal


def main() -> None:
    """Entry point of the command line."""
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
