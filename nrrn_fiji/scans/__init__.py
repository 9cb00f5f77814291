"""Repeated scans of one slice: found, read, matched and averaged.

:mod:`nrrn_fiji.registration` puts matching and averaging together and is imported by none of them;
stacks of scans are placed slice by slice in :mod:`nrrn_fiji.jobs.register_places`.
"""
