"""A back-up of an installation as plain files, and its way back."""
