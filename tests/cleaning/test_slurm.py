"""Slurm's jobs, by a stand-in that does them one after the other, give the local result."""

import json
import os
import stat
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import zstandard

from teleflm.data.workers import GROUP_FILES
from tests.conftest import Command, Outcome

# As Slurm: only directives of one word each, ahead of the first command; the last word that is
# printed is the job; what a job depends on must have been done by then.
SBATCH = """
    #!{python}
    import json, os, pathlib, shlex, subprocess, sys

    queue = pathlib.Path({queue!r})
    *options, script = sys.argv[1:]
    given = dict(option.removeprefix("--").split("=", 1) for option in options)
    for line in pathlib.Path(script).read_text().splitlines():
        if line.startswith("#SBATCH "):
            words = shlex.split(line)[1:]
            if len(words) != 1 or not words[0].startswith("--"):
                sys.exit("sbatch: error: Invalid directive found in batch script: " + line)
            name, _, value = words[0].removeprefix("--").partition("=")
            given.setdefault(name, value)
    jobs = json.loads(queue.read_text()) if queue.exists() else dict()
    failed = False
    for wish in filter(None, given.get("dependency", "").split(",")):
        kind, job = wish.split(":")
        failed |= kind == "afterok" and jobs[job]
    number = str(len(jobs) + 1)
    first, last = map(int, given["array"].partition("%")[0].split("-"))
    for task in range(last, first - 1, -1) if not failed else ():  # in any order, so in this
        environment = dict(os.environ, SLURM_ARRAY_TASK_ID=str(task), SLURM_JOB_ID=number)
        environment["SLURM_NODELIST"] = "node[1]"
        environment.update(
            word.split("=") for word in given.get("export", "").split(",") if "=" in word
        )
        done = subprocess.run(["bash", script], env=environment, capture_output=True)
        pathlib.Path({queue!r} + ".log").open("ab").write(done.stdout + done.stderr)
        failed |= done.returncode != 0
    jobs[number] = bool(failed)
    queue.write_text(json.dumps(jobs))
    print("Submitted batch job", number)
"""
SRUN = """
    #!{python}
    import os, sys

    words = sys.argv[1:]
    assert words[:3] == ["-l", "-n", "1"], words
    os.execvp(words[3], words[3:])
"""
# Datatrove's own script, which the tests' process may not have on its path.
LAUNCH = """
    #!{python}
    from datatrove.tools.launch_pickled_pipeline import main

    if __name__ == "__main__":
        main()
"""
NODES = "#!/bin/sh\necho node1\n"
STATISTICS = "#!/bin/sh\n"


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of the stand-in's jobs, and whether each failed."""
    (programs := tmp_path / "bin").mkdir()
    queue = tmp_path / "queue"
    texts = {"sbatch": SBATCH, "srun": SRUN, "launch_pickled_pipeline": LAUNCH}
    for name, text in (texts | {"scontrol": NODES, "merge_stats": STATISTICS}).items():
        path = programs / name
        path.write_text(
            textwrap.dedent(text).lstrip().format(python=sys.executable, queue=str(queue))
        )
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    return queue


def write_recipe(folder: Path) -> Path:
    """Two sources of two shards, and steps with rounds of their own."""
    for name in "ab":
        (folder / name).mkdir()
        for file in range(2):
            texts = [
                f"{name} {i % 9} " + " ".join(f"word{i % 9}x{j}" for j in range(60))
                for i in range(20)
            ]
            records = (json.dumps({"text": text}) + "\n" for text in texts)
            (folder / name / f"{file}.jsonl").write_text("".join(records))
    path = folder / "recipe.yaml"
    sources = [{"name": name, "path": str(folder / name), "language": "en"} for name in "ab"]
    path.write_text(
        json.dumps(
            {"out": str(folder / "local"), "sources": sources, "shard_megabytes": 1}
            | {"steps": ["normalise", "minhash"]}
        )
    )
    return path


def result(out: Path) -> dict[str, Any]:
    summary = json.loads((out / "clean.json").read_text())
    for step in summary["steps"]:
        del step["seconds"]
    files = {}
    for path in sorted(out.rglob("*.jsonl.zst")):
        with zstandard.open(path, "rt", encoding="utf-8") as file:
            files[str(path.relative_to(out))] = file.read()
    return {"summary": summary, "files": files}


SLURM_EXECUTOR = {"kind": "slurm", "options": {"time": "1:00:00", "partition": "cpu"}}
SLURM = f"executor={json.dumps(SLURM_EXECUTOR)}"


@pytest.mark.slow
def test_slurm_goes_on_behind_a_failed_job_and_gives_the_local_result(
    tmp_path: Path, slurm: Path, teleflm: Command
) -> None:
    recipe = write_recipe(tmp_path)
    more = (SLURM, f"out={tmp_path / 'slurm'}")
    bad = tmp_path / "b" / "1.jsonl"
    status, good = bad.stat(), bad.read_bytes()
    bad.write_bytes(good[:-9] + 9 * b" ")
    os.utime(bad, ns=(status.st_atime_ns, status.st_mtime_ns))
    outcome = teleflm("data", "clean", recipe, *more)
    assert outcome.code == 0, outcome.err
    assert outcome.out.startswith("handed to Slurm, jobs 1, 3, ")  # 2 is datatrove's statistics
    assert all(json.loads(slurm.read_text()).values())
    assert not (tmp_path / "slurm" / "clean.json").exists()
    assert "1.jsonl, line 20: not valid JSON" in Path(f"{slurm}.log").read_text()

    bad.write_bytes(good)
    os.utime(bad, ns=(status.st_atime_ns, status.st_mtime_ns))
    slurm.unlink()
    assert teleflm("data", "clean", recipe, *more).code == 0
    jobs = json.loads(slurm.read_text())
    assert not any(jobs.values()), Path(f"{slurm}.log").read_text()
    again = teleflm("data", "clean", recipe, *more)
    assert again.code == 0
    assert "kept" in again.out, "it is done: the result is shown"
    assert json.loads(slurm.read_text()) == jobs, "and nothing is handed in again"
    work = tmp_path / "slurm" / ".work"
    assert not [path for path in work.iterdir() if path.is_dir()]
    assert teleflm("data", "clean", recipe, "executor.workers=1").code == 0
    assert result(tmp_path / "slurm") == result(tmp_path / "local")


@pytest.mark.slow
def test_slurm_prepares_the_store_of_one_process_and_goes_on_behind_a_bad_file(
    tmp_path: Path, slurm: Path, teleflm: Command, tokenizer_dir: Path
) -> None:
    recipe = write_recipe(tmp_path)
    recipe.write_text(json.dumps(json.loads(recipe.read_text()) | {"executor": SLURM_EXECUTOR}))
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for number in range(GROUP_FILES + 3):  # two groups
        text = f"text number {number}, " + "of the same words " * (1 + number % 7)
        (corpus / f"{number % 2}.{number:04d}.txt").write_text(text)
    bad = corpus / "1.1001.txt"
    good = bad.read_bytes()
    bad.write_bytes(b"\xff" + good)

    def prepare(out: str, *more: object) -> Outcome:
        places = ("--tokenizer", tokenizer_dir, "--out", tmp_path / out)
        return teleflm("data", "prepare", *places, corpus, *more)

    outcome = prepare("slurm", "--executor", recipe)
    assert outcome.code == 0, outcome.err
    assert outcome.out.startswith("handed to Slurm, jobs 1, 3; the last one writes ")
    assert [*json.loads(slurm.read_text()).values()][2], "the store's job failed"
    assert "1.1001.txt" in Path(f"{slurm}.log").read_text()
    assert not (tmp_path / "slurm").exists()
    tasks = tmp_path / "slurm.tasks"
    kept = {path: path.stat().st_mtime_ns for path in (tasks / "spills").iterdir()}
    assert len(kept) == 2

    bad.write_bytes(good)
    assert prepare("slurm", "--executor", recipe).code == 0
    assert not [*json.loads(slurm.read_text()).values()][-1], Path(f"{slurm}.log").read_text()
    completed = tasks / "logs-2" / "phase-1" / "completions"
    assert [path.name for path in completed.iterdir()] == ["00000"], "only the bad file's group"
    assert prepare("local").code == 0
    for path in (tmp_path / "local").iterdir():
        assert (tmp_path / "slurm" / path.name).read_bytes() == path.read_bytes()
    assert not (tasks / "spills").exists()
    assert "exists already" in prepare("slurm", "--executor", recipe).err
    (tmp_path / "other.tasks").mkdir()
    assert "something else does" in prepare("other", "--executor", recipe).err


def test_a_machine_without_slurm_is_named(
    tmp_path: Path, teleflm: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write_recipe(tmp_path)
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    outcome = teleflm("data", "clean", recipe, SLURM)
    assert outcome.code == 1
    assert outcome.err.startswith("error: sbatch: not found; run the command where Slurm")
    (tmp_path / "empty" / "sbatch").write_text("#!/bin/sh\nexit 3\n")
    (tmp_path / "empty" / "sbatch").chmod(0o755)
    outcome = teleflm("data", "clean", recipe, SLURM)
    assert outcome.code == 1
    assert "error: Slurm did not take the phase 'reading': sbatch left with code 3" in outcome.err
