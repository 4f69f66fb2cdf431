"""The command line, one module a command; the only place that ties all packages together."""
