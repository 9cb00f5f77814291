"""What the study compares the network with: methods that others use for the same job.

Every competitor sees exactly the images that the network sees, and its settings are tuned on
slices it is not scored on.
"""
