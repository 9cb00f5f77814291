"""NRRN in a PyImageJ notebook: every cell (# %%) is one thing you can do with an open Fiji.

    python examples/pyimagej_notebook.py [FIJI_FOLDER]

Editors such as VS Code, Spyder and JupyterLab (with jupytext) open this file as a notebook.
"""

# %% Start Fiji without a screen. Have you a gateway already? Then only: fiji.register(ij)
import sys
from pathlib import Path

import jpype
import tifffile
import xarray

from nrrn_fiji import fiji

app = fiji.start(sys.argv[1] if len(sys.argv) > 1 else None)
ij = app.gateway
fiji.register(ij)
print(app)

# %% An image of ImageJ in, an image of ImageJ out: calibration, labels and display range are kept
example = Path(__file__).parent / "fibsem_medulla_noisy.tif"
imp = jpype.JClass("ij.IJ").openImage(str(example))
clean = fiji.denoise(ij, imp, "fibsem-medulla")
print(clean, clean.getCalibration())

# %% The same as an op, which scripts in Groovy and Jython can call as well
dataset = ij.convert().convert(imp, jpype.JClass("net.imagej.Dataset"))
denoised = ij.op().run("nrrn.denoise", dataset, "fibsem-medulla")
removed = ij.op().run("nrrn.noiseMap", dataset, "fibsem-medulla")
print(denoised, removed.getTypeLabelShort())

# %% The same as a macro, as Fiji's Recorder writes it
macro = """
open(getArgument());
run("Denoise Stack...", "model=fibsem-medulla");
return getTitle();
"""
print(fiji.run_macro(app, macro, str(example)))

# %% An xarray, as ij.py.from_java gives it, stays one; its names, coordinates and attributes stay
stack = xarray.DataArray(tifffile.imread(example), dims=("pln", "row", "col"), name="medulla")
print(fiji.denoise(ij, stack, "fibsem-medulla").sizes)
