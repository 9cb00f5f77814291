"""Models in and out: addresses, packages and bioimage.io."""
