"""From a torch module to an integer program; `pipeline.convert` reads top to bottom."""
