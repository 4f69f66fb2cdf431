"""The conversion of a torch module to an integer program; start reading at `pipeline.convert`."""
