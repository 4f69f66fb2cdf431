"""Hardware side: target profiles, repairs that keep Lava running, and Lava processes."""
