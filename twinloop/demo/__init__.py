"""The whole loop in a few minutes, measured: `twinloop demo`."""
