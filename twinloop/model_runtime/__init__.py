"""The frozen foundation, its resident adapters and greedy generation: knows no bus, no store and no service.

Nothing is imported here, so that `prompt` can be used by processes that never load torch.
"""
