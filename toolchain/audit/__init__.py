"""The audit: why a conversion loses accuracy, and what hardware it needs.

- `source_network`: the network that the program came from, layer by layer. `activity`: results of
  the integer network on a batch.
- `budget`: the parts of each layer's error. `error_ablation`: the accuracy lost to each source of
  error. `agreement`: accuracies of all versions. `scorers`: scores of outputs.
- `certificate`: proved and reached ranges. `chip_fit`: cores of a chip. `energy`: operation counts
  and their costs.
- `gates`: conditions under which the audit fails. `audit`: all parts as one document.
  `html_report`, `svg_charts` and `rasters`: the document as one HTML file.
"""
