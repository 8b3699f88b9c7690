"""Reads published question-answer sets into documents with provenance and question-answer pairs."""
