"""Programs on stock Lava synapses: limits of the synapses, and expansion into processes."""
