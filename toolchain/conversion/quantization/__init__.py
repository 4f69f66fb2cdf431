"""From the folded float program to integers: thresholds, exponents, rounding, calibration."""
