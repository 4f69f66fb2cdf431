"""One package a target: netx HDF5 files, and Lava processes on the CPU simulator."""
