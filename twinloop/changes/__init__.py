"""Changes of router rules and prompt as JSON Patches: what may change, how a patch is applied, what it would move."""
