"""Measurements: `make bench` prints one table and writes JSON. Ratios within one run are what counts; machines differ."""
