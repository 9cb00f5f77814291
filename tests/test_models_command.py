"""``nrrn models``: models are imported, listed, shown and removed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from fake_commands import Run, model_with_a_card

from nrrn_fiji import models
from nrrn_fiji.jobs import models as catalogue


@pytest.fixture
def model(tmp_path: Path) -> models.Model:
    return model_with_a_card(tmp_path)


def test_models_are_imported_listed_shown_and_removed(run: Run, model: models.Model) -> None:
    code, out, _ = run(f"models import '{model.path}' --name own")
    assert code == 0
    assert out.startswith("Installed own (2 units × 4 maps) as ")

    code, out, _ = run("models list")
    assert code == 0
    assert "own\tinstalled\t2 × 4\tA test model.\n" in out
    assert out.splitlines()[-1].endswith("user-models (1 model).")

    code, out, _ = run("models show own")
    assert code == 0
    # W0 1→4, W1 and W2 4→4, and six 4→4 per unit, each 3×3 with a bias per map.
    parameters = (9 * 4 + 4) + (2 + 2 * 6) * (9 * 4 * 4 + 4)
    assert out.splitlines()[0] == f"own: 2 units × 4 maps, {parameters:,} parameters"
    assert f"  hash: {model.hash}\n" in out
    assert "  description: A test\n    model.\n" in out
    assert "  training:\n    steps: 5\n    losses: 20 entries\n    resumed: no\n" in out
    assert "    table2:\n             P1\n      input  5.98765\n      nrrn   17.33\n" in out
    assert "note" not in out

    code, out, _ = run("models remove own")
    assert code == 0
    assert out.startswith("Removed own (")
    code, _, err = run("models show own")
    assert code == 1
    assert err.startswith("Error: No model is named 'own'; known models: ")


def test_models_in_json(run: Run, model: models.Model) -> None:
    run(f"models import '{model.path}'")
    listed = json.loads(run("models list --json")[1])
    entry = next(entry for entry in listed["models"] if entry["name"] == "mine")
    assert entry["architecture"] == {"units": 2, "maps": 4, "edge": False}
    shown = json.loads(run("models show mine --json")[1])
    assert (shown["hash"], shown["card"]) == (model.hash, model.card)


def test_an_installed_model_is_only_overwritten_on_request(run: Run, model: models.Model) -> None:
    assert run(f"models import '{model.path}'")[0] == 0
    code, _, err = run(f"models import '{model.path}'")
    assert code == 1
    assert "installed already" in err
    assert run(f"models import '{model.path}' --overwrite")[0] == 0


def test_a_damaged_model_is_listed_with_its_problem(run: Run, user_models: Path) -> None:
    user_models.mkdir()
    (user_models / "bad.safetensors").write_bytes(b"bad")
    code, out, _ = run("models list")
    assert code == 0
    assert re.search(r"^bad\tinstalled\t\?\t.*not a model file", out, re.MULTILINE)


def test_a_card_of_any_form_can_be_shown() -> None:
    rows = [{"level": "P1", "psnr": 17.5}, {"level": "P30", "psnr": 27.123456789}]
    assert list(catalogue.outline({"a_b": [1, 2.5], "rows": rows, "empty": {}, "odd": [rows]})) == [
        "a b: 1, 2.5",
        "rows:",
        "  level  psnr",
        "  P1     17.5",
        "  P30    27.1235",
        "odd: 1 entries",
    ]


@pytest.mark.parametrize("odd", [{"psnr": []}, {"ssim": 0.5}, {"psnr": None}])
def test_scores_of_any_form_can_be_shown(odd: dict[str, Any]) -> None:
    rows = [{"noise": "P1", "method": "a", "psnr": [17.5]}, {"noise": "P8", "method": "a", **odd}]
    assert list(catalogue.outline({"rows": rows}))


def test_the_scores_of_a_study_are_shown_with_a_column_per_noise() -> None:
    rows = [
        {"noise": noise, "method": method, "psnr": [psnr, 0.1], "ssim": [0.5, 0.01]}
        for method, scores in {"input": (5.98, 28.1), "nrrn": (17.333, 28.57)}.items()
        for noise, psnr in zip(("P1", "G10"), scores, strict=True)
    ]
    assert list(catalogue.outline({"rows": rows})) == [
        "rows:",
        "  PSNR (dB)  P1     G10",
        "  input      5.98   28.10",
        "  nrrn       17.33  28.57",
    ]
