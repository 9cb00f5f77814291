"""Denoise the example stack from Python and save it beside a picture of what was removed."""

from pathlib import Path

import tifffile

import nrrn_fiji as nrrn

here = Path(__file__).parent
noisy = tifffile.imread(here / "fibsem_medulla_noisy.tif")
clean = tifffile.imread(here / "fibsem_medulla.tif")

model = nrrn.load_model("fibsem-medulla")
result = nrrn.denoise(noisy, model, return_noise=True)

print(f"denoised {result.image.shape} {result.image.dtype}")
print(f"error before: {(noisy.astype(float) - clean).std():.1f} grey levels (standard deviation)")
print(f"error after:  {(result.image.astype(float) - clean).std():.1f}")
tifffile.imwrite("denoised.tif", result.image, imagej=True, metadata={"axes": "ZYX"})
tifffile.imwrite("removed.tif", result.noise, imagej=True, metadata={"axes": "ZYX"})
