"""The command line: `twinloop`."""
