"""Learning: rows in, adapter bytes out; torch lives here, no bus and no store."""
