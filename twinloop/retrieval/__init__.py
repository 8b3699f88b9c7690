"""Per-domain retrieval: documents with provenance, embedders, exact FAISS indexes with provable bytes."""
