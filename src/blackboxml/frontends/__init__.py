"""Ways to record a run, one module for each; all of them go through `blackboxml.writer`."""
