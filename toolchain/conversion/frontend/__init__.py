"""From a user's module to a float program: tracing, operators, adapters of activations."""
