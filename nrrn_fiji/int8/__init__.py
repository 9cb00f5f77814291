"""The network in whole numbers of 8 bits, for CPUs that multiply them several times faster.

:mod:`.engine` is the whole network, :mod:`.gates` what lies between its convolutions,
:mod:`.activations` finds the ranges that numbers take.
"""
