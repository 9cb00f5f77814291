"""A study is a command: it writes all files, goes on where it was, and says what is missing."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import tifffile
from small_studies import TINY, tissue

from nrrn_fiji.cli import main
from nrrn_fiji.progress import Cancelled, NoProgress
from nrrn_fiji.scoring import CleanSlices
from nrrn_fiji.study import jobs
from nrrn_fiji.study.context import Study
from nrrn_fiji.study.iqr import iqr
from nrrn_fiji.study.jobs import EXPERIMENTS, all_files, study_files
from nrrn_fiji.study.opening import SliceRange, open_study


@pytest.fixture
def files(tmp_path):
    paths = tmp_path / "volume.tif", tmp_path / "tuning.tif"
    for path, seed in zip(paths, (0, 1), strict=True):
        tifffile.imwrite(path, tissue(seed=seed), imagej=True, metadata={"axes": "ZYX"})
    return paths


def test_the_whole_study_continues_where_it_was(files, model, tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "QUICK", TINY)
    out = tmp_path / "study"

    class Stops(NoProgress):
        """Stops in the second part."""

        cancelled = False

        def update(self, done, total, text=""):
            assert 0 <= done <= total == 2
            self.cancelled = text.startswith("edges: Gaussian")

    asked = {"model": [str(model.path)], "parts": "edges,inputs", "quick": True}
    with pytest.raises(Cancelled, match="part 2 of 2, edges: finished parts"):
        all_files(*files, out, **asked, progress=Stops())
    assert (out / "inputs.json").is_file() and not (out / "edges.json").exists()
    report = all_files(*files, out, **asked)
    assert report.data["parts"] == ["inputs", "edges"] and report.data["measured"] == 1
    assert "1 taken from an earlier run" in report.summary
    assert "One, two or three images" in (out / "index.html").read_text(encoding="utf-8")
    with pytest.raises(FileExistsError, match=r"(inputs|edges)\.json holds a result"):
        all_files(*files, out, **asked, seed=3)
    with pytest.raises(ValueError, match="exclude each other"):
        all_files(*files, out, **asked, full=True)
    with pytest.raises(ValueError, match=r"'tile' is no experiment: choose from table1"):
        all_files(*files, out, parts="tile")


def test_an_experiment_is_a_command(files, model, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(jobs, "QUICK", TINY)
    out = tmp_path / "results"
    words = ["study", "edges", str(files[0]), "--tuning", str(files[1]), "-m", str(model.path)]
    assert main([*words, "-o", str(out), "--quick", "--slices", "2,5", "-q"]) == 0
    assert json.loads((out / "edges.json").read_text())["slices"] == [2, 5]
    names = {path.name for path in out.iterdir()}
    assert {"edges.md", "edges.csv", "edges.html", "edges-pictures.png"} <= names
    assert main([*words, "-o", str(out), "--quick", "--slices", "2,6", "-q"]) == 1
    assert "--overwrite" in capsys.readouterr().err


def test_every_experiment_has_a_command_and_says_what_it_is(capsys):
    assert main(["study"]) == 2
    shown = capsys.readouterr().out
    for name in ("all", *EXPERIMENTS):
        assert re.search(rf"^  {name} ", shown, re.MULTILINE)
        assert main(["study", name, "--help"]) == 0
        assert callable(getattr(jobs, f"{name}_files"))
        assert "nrrn study" in capsys.readouterr().out


def test_without_a_volume_the_example_is_halved(model, tmp_path):
    messages = []

    class Listens(NoProgress):
        def message(self, text):
            messages.append(text)

    with open_study(None, None, tmp_path / "out", models=[model], progress=Listens()) as study:
        assert study.volume.shape == (12, 192, 192) and study.tuning.shape == (12, 192, 192)
        whole = study.volume.source
        np.testing.assert_array_equal(study.volume.read(1, 3), whole.read(13, 15))
        np.testing.assert_array_equal(study.tuning.read(0, 2), whole.read(0, 2))
        assert min(study.scored.indices) >= 2, "away from what was trained on"
        assert study.stacks[0].array.shape == (12, 192, 192)
    assert "give VOLUME" in messages[0] and "--tuning" in messages[0]
    assert not (tmp_path / "out").exists()


def test_what_is_missing_is_said(files, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="tuning is missing"):
        study_files("edges", files[0], None, out)
    with pytest.raises(ValueError, match="volume is missing"):
        study_files("edges", None, files[1], out)
    with pytest.raises(ValueError, match="also the volume that is scored"):
        study_files("edges", *files, out, train=[files[0]])
    with pytest.raises(ValueError, match="no flat area"):
        iqr(
            Study(
                np.where(tissue() > 120, np.uint8(255), np.uint8(0)),
                tissue(seed=1),
                budget=TINY,
                out=out,
                slices=(3,),
                tuning_slices=(4,),
            )
        )
    assert not out.exists(), "what is refused leaves nothing behind"


def test_a_part_of_a_source():
    part = SliceRange(CleanSlices(tissue(), (1,), 0, name="v").source, 2, 6)
    assert part.shape == (4, 56, 56)
    np.testing.assert_array_equal(part.read(1, 3), tissue()[3:5])


@pytest.mark.slow
def test_the_quick_study_runs_anywhere(tmp_path, capsys):
    out = tmp_path / "study"
    assert main(["study", "all", "-o", str(out), "--quick", "-q"]) == 0
    html = (out / "index.html").read_text(encoding="utf-8")
    for experiment in EXPERIMENTS.values():
        content = json.loads(next(out.glob(f"{experiment.name}*.json")).read_text())
        assert content["part"]["title"].split(":")[0] in html
    assert main(["study", "all", "-o", str(out), "--quick", "--json"]) == 0
    assert '"measured": 0' in capsys.readouterr().out
