"""Repeated scans of one slice: found, read, matched and averaged.

:mod:`nrrn_fiji.registration` puts the parts together.
"""
