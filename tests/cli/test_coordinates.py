"""teleflm sweep SWEEP.yaml --check on the command line."""

import json
from pathlib import Path

from tests.conftest import Command
from tests.tuning.sweeping import sweep_fields, write_sweep
from tests.undrawn import undrawn

# Too small to be judged as strictly as a check is.
SMALL = (
    "check={widths: [32, 64, 128], depths: [], layers: 1, steps: 2, seeds: 1}",
    "check.tolerance=0.5",
)


def test_a_check_reads_no_data_and_ends_with_its_verdict(tmp_path: Path, teleflm: Command) -> None:
    fields = sweep_fields(tmp_path / "no store", tmp_path / "s")
    path = write_sweep(tmp_path / "sweep.yaml", fields)
    with undrawn():
        code, out, err = teleflm("sweep", path, "--check", *SMALL)
    assert code == 0, err
    assert max(map(len, out.splitlines())) <= 80
    assert out.splitlines()[-1] == "passed: 44 slopes within 0.5"
    page = tmp_path / "s" / "coordinates.html"
    assert page.is_file() and f"page: {page}" in err
    standard = "run.model.parametrization=standard"
    code, out, err = teleflm("sweep", path, "--check", "--json", *SMALL, standard)
    found = json.loads(out)
    assert code == 1
    assert "Traceback" not in err and "slopes are further than 0.5 from theory's" in err
    assert found["passed"] is False
    assert "width/init/logits" in found["wrong"]
    assert all(isinstance(slope, float) for slope in found["slopes"].values())


def test_bad_input_of_a_check_is_one_line(tmp_path: Path, teleflm: Command) -> None:
    path = write_sweep(tmp_path / "s.yaml", sweep_fields(tmp_path / "store", tmp_path / "s"))
    cases = [
        (("--json",), "--check"),
        (("--check", "check.widths=[64, 128]"), "check.widths"),
        (("--check", "check.widths=[64, 32, 128]"), "from the smallest on"),
        (("--check", "check.width=64"), "did you mean 'check.widths'"),
        (("--check", "run.model.hidden_size=33"), "does not divide by num_attention_heads"),
    ]
    for arguments, message in cases:
        code, out, err = teleflm("sweep", path, *arguments)
        assert code == 2, arguments
        assert message in err + out, err
        assert "Traceback" not in err
    assert not (tmp_path / "s").exists()
