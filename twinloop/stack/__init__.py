"""One installation on this machine: its folders, its backend, its processes."""
