"""`python -m toolchain.cli` is `spikeport`."""

from toolchain.cli.app import main

main()
