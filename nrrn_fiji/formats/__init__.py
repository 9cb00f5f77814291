"""Files of volumes: TIFF, OME-Zarr, HDF5, MRC and folders of images, a module each.

The table of formats is :mod:`.table`; what an open image is, :mod:`.image`; what files say about
their images, :mod:`.metadata`.  The rest of the package opens and creates files through
:mod:`nrrn_fiji.volumes` alone, and a format's library is imported only when such a file is met.
"""
