"""The network in whole numbers of 8 bits, for CPUs that multiply them several times faster.

:mod:`.engine` is the whole network, :mod:`.kernels` its convolutions, :mod:`.gates` what lies
between them; :mod:`.activations` finds the ranges that numbers take, :mod:`.strips` shares the work
out, :mod:`.room` keeps memory.
"""
