"""Programs on stock Lava synapses: what those can hold, and the processes they become."""
