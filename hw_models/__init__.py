"""Hardware side: target profiles, repairs for Lava, and Lava processes."""
