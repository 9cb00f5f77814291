"""Output files that are whole or absent, however a run ends.

:mod:`.partial` holds the folder ``OUT.partial`` and who may write to it, :mod:`.journal` the record
of what was asked for and is finished, :mod:`.checks` what is looked at before anything is written,
:mod:`.renaming` how outputs get their final names, :mod:`.locks` how a second training is kept out.
"""
