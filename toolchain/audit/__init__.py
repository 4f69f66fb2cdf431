"""The audit: why a conversion loses accuracy, and what it costs.

`counts` (what the integer network did on a batch), `float_network` (the network it came from, layer
by layer), `budget` (what of a layer's error came from where), `chain` (what each source of error
costs in accuracy), `certificate` (how far ranges are used, and an input that reaches them),
`energy` (operations, and what a table says they cost), `gates` (when it fails), `audit` (all
together), `page` (as one HTML file).
"""
