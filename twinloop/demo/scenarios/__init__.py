"""One defence at work a scenario: `twinloop demo --scenario poison`."""
