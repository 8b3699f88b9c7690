"""Statistics of the gates: values in, values out; no clock, no randomness, no I/O. See README.md beside this
file.
"""
