"""Is a denoised stack good?  Measured without a clean image, judged, and set as a page.

:mod:`.assessment` measures (with :mod:`.residuals`, :mod:`.matching`, :mod:`.artefacts`),
:mod:`.verdicts` judges, :mod:`.page` writes.  What measures must never judge.
"""
