"""`teleflm plan` as a user has it."""

import json
from pathlib import Path
from typing import Any

import pytest

from teleflm.planning import calibrate
from teleflm.planning.calibrate import Seconds
from tests.conftest import Command
from tests.prediction.folders import TOKENS, loss_of, write_runs

KEYS = {
    "parameters",
    "ranks",
    "layout",
    "memory_bytes_per_rank",
    "fits",
    "step_seconds",
    "mfu",
    "days",
    "gpu_hours",
    "bubble_fraction",
}
ON = ("--cluster", "a800-112x8")
SERIES = str(Path(__file__).parents[2] / "examples" / "nano-series.yaml")
PUBLISHED = ("parallel.tp=4", "parallel.pp=2")


def planned(teleflm: Command, *arguments: str) -> dict[str, Any]:
    done = teleflm("plan", *arguments, "--json")
    assert done.code == 0, done.err
    found: dict[str, Any] = json.loads(done.out)
    return found


def test_a_model_is_planned_by_the_recipe(teleflm: Command) -> None:
    found = planned(teleflm, "tele-flm-52b", *ON, *PUBLISHED)
    assert found.keys() >= KEYS
    assert found["parameters"] == 52_817_829_888
    assert (found["ranks"], found["layout"]) == (896, {"tp": 4, "pp": 2, "dp": 112})
    memory = found["memory_bytes_per_rank"]
    kinds = ["parameters", "gradients", "optimizer", "activations"]
    assert list(memory) == [*kinds, "total"]
    assert memory["total"] == sum(memory[kind] for kind in kinds)
    assert found["fits"] is True and found["breaks"] is None
    assert found["tokens"] == pytest.approx(20 * found["parameters"], rel=1e-5)
    assert found["days"] == pytest.approx(found["steps"] * found["step_seconds"] / 86_400)
    assert found["gpu_hours"] == pytest.approx(found["days"] * 24 * 896)
    assert found["step_seconds"] == pytest.approx(sum(found["step_seconds_by_part"].values()))
    assert 0.3 < found["mfu"] < 0.608
    # 1/(12 + 1).
    assert found["bubble_fraction"] == pytest.approx(1 / 13)


def test_a_run_is_planned_as_it_would_train(teleflm: Command) -> None:
    run = str(Path(__file__).parents[2] / "examples" / "tele-flm-52b.yaml")
    found = planned(teleflm, run, *ON)
    assert found["steps"] == 363_305 and found["layout"] == {"tp": 4, "pp": 2, "dp": 112}
    assert found["activation_checkpointing"] == "full" and found["fits"] is True


def test_what_does_not_fit_is_no_error(teleflm: Command) -> None:
    layout = ("parallel.tp=8", "parallel.pp=8", "parallel.dp=1")
    found = planned(teleflm, "tele-flm-1t", *ON, *layout)
    assert found["ranks"] == 64 and found["fits"] is False
    assert found["breaks"].startswith("optimizer 13") and found["breaks"].endswith("of 80 GB")
    done = teleflm("plan", "tele-flm-1t", *ON, *layout)
    assert done.code == 0 and "does not fit: optimizer 13" in done.out


def test_a_price(teleflm: Command, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "{devices_per_server: 1, device: H100, memory_gb: 80, matmul_efficiency: 0.5, "
        "price_per_hour: 2.5}",
        encoding="utf-8",
    )
    found = planned(teleflm, "nano-52b", "--cluster", str(file))
    assert found["cost"] == pytest.approx(2.5 * found["gpu_hours"])


def test_this_machine(teleflm: Command) -> None:
    found = planned(teleflm, "nano-52b", "--cluster", "local", "training.global_batch=2")
    assert found["ranks"] >= 1 and 0 < found["mfu"] <= 1


def test_the_search(teleflm: Command) -> None:
    asked = ("tele-flm-52b", *ON, "--search", "training.global_batch=448", *PUBLISHED)
    found = planned(teleflm, *asked)
    places = found["candidates"]
    best = places[0]
    assert found["layout"] == best["layout"] and best["reason"] == "the fastest that fits"
    assert found["step_seconds"] == best["step_seconds"]
    assert {"place", "asked", "reason", "layout", "fits"} <= set.intersection(*map(set, places))
    assert any(each["asked"] and each["layout"]["tp"] == 4 for each in places)
    lines = teleflm("plan", *asked).out.splitlines()
    assert max(map(len, lines)) <= 80
    assert sum("*" in line[:5] for line in lines) == 1


def test_it_is_told_within_the_width_of_a_terminal(teleflm: Command) -> None:
    lines = teleflm("plan", "tele-flm-1t", *ON, "parallel.tp=32", "parallel.pp=28").out.splitlines()
    assert lines[0] == "tele-flm-1t on a800-112x8: 896 ranks, tp 32 · pp 28 · dp 1"
    assert max(map(len, lines)) <= 80


EXAMPLES = Path(__file__).parents[2] / "examples"
PUBLISHED_SERIES = str(EXAMPLES / "tele-flm-series.yaml")
OWN_SERIES = str(EXAMPLES / "7b-series.yaml")


def test_a_series(teleflm: Command) -> None:
    found = planned(teleflm, PUBLISHED_SERIES, *ON)
    names = [stage["name"] for stage in found["stages"]]
    assert names == ["52b", "102b", "1t"] and found["fits"] is True
    for stage in found["stages"]:
        alone = planned(teleflm, str(EXAMPLES / f"tele-flm-{stage['name']}.yaml"), *ON)
        assert {key: stage[key] for key in alone} == alone
    for key in ("tokens", "flops", "days", "gpu_hours"):
        assert found[key] == pytest.approx(sum(stage[key] for stage in found["stages"]))
    assert found["scratch"].keys() == {"tokens", "flops", "days", "gpu_hours", "cost"}
    for key, ratio in found["ratio"].items():
        assert ratio == found[key] / found["scratch"][key] < 0.1
    assert found["break_even"].keys() == {"tokens", "earlier_tokens", "earlier_token_worth"}
    assert found["cost"] is None and len(found["warnings"]) == 4
    assert all(each.keys() == {"what", "saving", "source"} for each in found["evidence"])


def test_a_series_is_told_within_the_width_of_a_terminal(teleflm: Command, tmp_path: Path) -> None:
    done = teleflm("plan", PUBLISHED_SERIES, *ON)
    lines = done.out.splitlines()
    assert done.code == 0 and max(map(len, lines[1:])) <= 80
    assert sum(line.startswith("warning: ") for line in lines) == 4
    assert "cost" not in done.out and "does not fit" not in done.out
    # A dear machine of little memory.
    file = tmp_path / "mine.yaml"
    file.write_text(
        "{devices_per_server: 8, device: H100, memory_gb: 20, matmul_efficiency: 0.5, "
        "server_gb_s: 450, price_per_hour: 2.5}"
    )
    done = teleflm("plan", OWN_SERIES, "--cluster", str(file))
    lines = done.out.splitlines()
    assert done.code == 0 and max(map(len, lines[1:])) <= 80
    assert any(line.endswith(" cost") for line in lines)
    assert sum("does not fit: activations" in line for line in lines) == 2
    assert "warning: " not in done.out
    assert planned(teleflm, OWN_SERIES, "--cluster", str(file))["fits"] is False


def test_a_series_of_one_stage(teleflm: Command, tmp_path: Path) -> None:
    file = tmp_path / "series.yaml"
    run = EXAMPLES / "tele-flm-52b.yaml"
    file.write_text(f"{{series_dir: s, stages: [{{name: only, run: {run}}}]}}")
    found = planned(teleflm, str(file), *ON)
    assert found["break_even"] is None and found["ratio"] == {"flops": 1, "gpu_hours": 1}
    assert "It does not grow." in teleflm("plan", str(file), *ON).out


def test_the_search_for_a_series(teleflm: Command) -> None:
    given = (OWN_SERIES, "--cluster", "h100-8", "parallel.tp=8")
    asked, best = planned(teleflm, *given), planned(teleflm, *given, "--search")
    assert [stage["layout"]["tp"] for stage in asked["stages"]] == [8, 8]
    assert [stage["layout"]["tp"] for stage in best["stages"]] == [1, 1]
    told = teleflm("plan", *given, "--search").out
    assert told.splitlines()[0].endswith("on h100-8, each stage on its best layout")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("tele-flm-52b",), "Give --cluster, or --calibrate"),
        (("tele-flm-52c", *ON), "did you mean 'tele-flm-52b'?"),
        (("tele-flm-52b", "--cluster", "a800"), "cluster 'a800'"),
        (("tele-flm-52b", *ON, "parallel.tp=5"), "does not divide 896 ranks"),
        (("tele-flm-52b", *ON, "parallel.dp=1000"), "1000 ranks, but the cluster has 896"),
        (("tele-flm-52b", *ON, "training=3"), "training"),
        ((PUBLISHED_SERIES, *ON, "parallel.tp=5"), "stage 52b: "),
        ((PUBLISHED_SERIES, *ON, "parallel.pt=5"), "did you mean 'parallel.tp'?"),
        (("tele-flm-52b", *ON, "parallel.pt=5"), "did you mean 'parallel.tp'?"),
    ],
)
def test_what_cannot_be_is_named(teleflm: Command, arguments: tuple[str, ...], words: str) -> None:
    done = teleflm("plan", *arguments)
    assert done.code == 2 and words in done.err


def test_out_writes_the_record_and_its_page(teleflm: Command, tmp_path: Path) -> None:
    out, asked = tmp_path / "new" / "plan", ("tele-flm-52b", *ON, *PUBLISHED)
    done = teleflm("plan", *asked, "--out", str(out))
    assert done.code == 0 and f"the report: {out / 'report.html'}" in done.out
    record = json.loads((out / "plan.json").read_text(encoding="utf-8"))
    printed = planned(teleflm, *asked, "--out", str(out))
    assert printed.items() <= record.items()
    ranks = record["pipeline_ranks"]
    assert [rank["rank"] for rank in ranks] == [0, 448]
    assert [layer for rank in ranks for layer in rank["stage_layers"]] == list(range(64))
    most = max(sum(rank["memory_bytes"].values()) for rank in ranks)
    assert most == record["memory_bytes_per_rank"]["total"]
    assert record["timeline"]["micro_batches"] == 4 and record["micro_batches"] == 12
    assert sorted(path.name for path in out.iterdir()) == ["plan.json", "report.html"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("report.html", "holds report.html"),
        ("plan.json", "holds plan.json"),
        ("config.yaml", "holds config.yaml"),
    ],
)
def test_what_another_wrote_stays(teleflm: Command, tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / name).write_text("{}", encoding="utf-8")
    done = teleflm("plan", "nano-52b", "--cluster", "h100-8", "--out", str(tmp_path))
    assert done.code == 2 and words in done.err and "choose another folder" in done.err
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_file_is_no_folder(teleflm: Command, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("", encoding="utf-8")
    done = teleflm("plan", "nano-52b", "--cluster", "h100-8", "--out", str(tmp_path / "out"))
    assert done.code == 2 and "is a file" in done.err


def test_this_machine_is_measured_once(
    teleflm: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibrate, "_seconds", lambda steps: [Seconds(0.2, 0), Seconds(0.3, 0)])
    file, small = (
        tmp_path / "here.yaml",
        ("nano-52b", "model.vocab_size=512", "data.sequence_length=64"),
    )
    done = teleflm("plan", *small, "--calibrate", str(file))
    assert done.code == 0, done.err
    assert f"nano-52b on {file}: 1 rank, " in done.out
    assert f"next time: --cluster {file}" in done.err
    again = teleflm("plan", *small, "--cluster", str(file))
    assert again.out == done.out
    # What was measured is not lost to a second measurement.
    refused = teleflm("plan", *small, "--calibrate", str(file))
    assert refused.code == 2 and f"plan with --cluster {file}" in refused.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nano-52b", *ON, "--calibrate", "here.yaml"), "leave out --cluster"),
        ((SERIES, "--calibrate", "here.yaml"), "is a series"),
        ((SERIES, *ON, "--out", "here"), "is a series"),
    ],
)
def test_what_it_is_planned_on_is_said_once(
    teleflm: Command, arguments: tuple[str, ...], words: str
) -> None:
    done = teleflm("plan", *arguments)
    assert done.code == 2 and words in done.err


def test_a_series_by_a_law(teleflm: Command, tmp_path: Path) -> None:
    runs, model, law = write_runs(tmp_path / "runs"), tmp_path / "m.yaml", tmp_path / "law.json"
    shape = "hidden_size: 96, intermediate_size: 192, num_attention_heads: 12"
    model.write_text(f"{{{shape}, num_hidden_layers: 2}}")
    done = teleflm("predict", *runs, "--at", model, "--json")
    assert done.code == 0, done.err
    law.write_text(done.out)
    file = tmp_path / "series.yaml"
    file.write_text(
        f"{{series_dir: {tmp_path}/s, run: {{data: {{path: x, sequence_length: 16}}, training: "
        f"{{steps: 320, global_batch: 4}}}}, stages: [{{name: small, model: {model}}}, "
        "{name: large, growth: {to: {num_hidden_layers: 4}, ramp: 5}}]}"
    )
    given = (str(file), "--cluster", "h100-8", "--law", str(law), "parallel.dp=1")
    found = planned(teleflm, *given)["by_law"]
    first, second = found["stages"]
    assert first["loss_after"] == second["loss_before"] > second["loss_after"]
    assert first["loss_after"] == pytest.approx(loss_of(first["parameters"] / 1e6, TOKENS / 1e6))
    assert found["pays"] == (second["loss_after"] < found["same_gpu_hours_loss"])
    done = teleflm("plan", *given)
    lines = done.out.splitlines()
    assert f"{second['loss_after']:7.3f}" in done.out and "break-even is" in done.out
    assert max(len(line) for line in lines if str(tmp_path) not in line) <= 80


def test_a_law_is_for_a_series(teleflm: Command) -> None:
    done = teleflm("plan", "nano-52b", *ON, "--law", "law.json")
    assert (done.code, done.out) == (2, "")
    assert "--law is for a SERIES.yaml, and nano-52b is none" in done.err
    done = teleflm("plan", PUBLISHED_SERIES, *ON, "--law", "none.json")
    assert done.code == 2 and "none.json: no such file; teleflm predict with --json" in done.err
