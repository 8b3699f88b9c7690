"""Content-addressed artifacts: blobs, manifests of several blobs, releases that name them all."""
