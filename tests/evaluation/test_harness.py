"""Requests of lm-eval on our network, against the network asked by hand."""

import functools
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from teleflm.data.conversation import Conversations
from teleflm.data.sources import Reading
from teleflm.data.tokenizer import Tokenizer
from teleflm.errors import ConfigError, DataError
from teleflm.evaluation.measure import measure
from teleflm.evaluation.scorer import Scorer, open_scorer
from teleflm.evaluation.tasks import TaskSettings, load_tasks, run_tasks
from teleflm.evaluation.text import open_text
from teleflm.model.init import initial_state
from tests.evaluation.task_files import DOCUMENTS, write_tasks
from tests.growing import opened_of
from tests.tiny import MODEL

CONTEXT = 24


@pytest.fixture(scope="module")
def scorer(tokenizer: Tokenizer) -> Scorer:
    update = {"vocab_size": tokenizer.vocab_size, "max_position_embeddings": CONTEXT}
    model = MODEL.model_copy(update=update)
    # Larger than at the beginning of training, so that what is likely follows from the context.
    weights = {name: 4 * weight for name, weight in initial_state(model, 0).items()}
    return open_scorer(opened_of(model, weights), None, "fp32", torch.device("cpu"))


@pytest.fixture(scope="module")
def model(scorer: Scorer, tokenizer: Tokenizer) -> Any:
    from teleflm.evaluation.harness import HarnessModel

    return HarnessModel(scorer, tokenizer)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("tasks") / "tasks")


def requests(kind: Any, *arguments: Any) -> list[Any]:
    from lm_eval.api.instance import Instance

    return [
        Instance(kind, {}, each, 0, metadata=("toy", index, 1))
        for index, each in enumerate(arguments)
    ]


def by_hand(scorer: Scorer, context: list[int], after: list[int]) -> tuple[float, bool]:
    """A continuation's log-likelihood, one row at a time, the newest CONTEXT + 1 tokens of it."""
    row = torch.tensor([*context, *after][-CONTEXT - 1 :])
    with torch.no_grad():
        logs = scorer.network(row[None, :-1])[0].double().log_softmax(-1)[-len(after) :]
    targets = row[-len(after) :]
    greedy = bool((logs.argmax(-1) == targets).all())
    return logs.gather(1, targets[:, None]).sum().item(), greedy


def test_a_log_likelihood_is_the_continuation_s_alone(
    model: Any, scorer: Scorer, tokenizer: Tokenizer
) -> None:
    encode = tokenizer.encode
    pairs = [
        ("The ship", " sailed"),
        ("A", " harbour 那船 was seen no more"),
        ("那船过了旧港", "。"),
        ("The ship", " sailed"),  # once more
        ("", "那船"),
        ("", " ship"),
        ("the old harbour and " * 9, "seen"),  # more than the model reads: the oldest go
        ("the ship  ", "sailed"),  # blanks at the end are the continuation's
        ("the shi", "p sailed"),  # no token ends where the context does
    ]
    expected = []
    for before, after in pairs:
        # Blanks at the context's end go over to the continuation.
        bare = encode(before.rstrip())
        whole = encode(before + after)
        expected.append(
            (bare, whole[len(bare) :]) if before else (tokenizer.encode_prompt(""), whole)
        )
    greedy = encode("Where is the")
    for _ in range(3):
        with torch.no_grad():
            logits = scorer.network(torch.tensor([greedy]))[0, -1]
        greedy.append(int(logits.argmax()))
    found = model.loglikelihood(requests("loglikelihood", *pairs))
    assert len(found) == len(pairs)
    for (nats, is_greedy), (context, ids) in zip(found, expected, strict=True):
        hand, hand_greedy = by_hand(scorer, context, ids)
        assert nats == pytest.approx(hand, rel=1e-5) and is_greedy == hand_greedy
    own = model._loglikelihood_tokens([(("", ""), greedy[:-3], greedy[-3:])])
    other = model._loglikelihood_tokens([(("", ""), greedy[:-3], [*greedy[-3:-1], 7])])
    assert own[0][1] and not other[0][1]


def test_a_row_is_what_it_is_alone_whatever_stands_beside_it(model: Any) -> None:
    pairs = [("The ship " * (i * 7 % 5 + 1), f"number {i}" * (i % 3 + 1)) for i in range(12)]
    together = model.loglikelihood(requests("loglikelihood", *pairs))
    alone = [model.loglikelihood(requests("loglikelihood", pair))[0] for pair in pairs]
    assert [nats for nats, _ in together] == pytest.approx([nats for nats, _ in alone], rel=1e-5)
    assert len({round(nats, 4) for nats, _ in together}) == len(pairs)


def test_rolling_is_lm_eval_s_and_our_own_bits_per_byte(
    model: Any, scorer: Scorer, tokenizer: Tokenizer, folder: Path, tmp_path: Path
) -> None:
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

    texts = [document["text"] for document in DOCUMENTS]
    found = model.loglikelihood_rolling(requests("rolling", *((text,) for text in texts)))
    for text, total in zip(texts, found, strict=True):
        ids = tokenizer.encode(str(text))
        windows = get_rolling_token_windows(ids, tokenizer.encode_prompt("")[0], CONTEXT, 1)
        pairs = map(make_disjoint_window, windows)
        assert total == pytest.approx(sum(by_hand(scorer, *pair)[0] for pair in pairs), rel=1e-6)
    ours = measure(
        scorer,
        open_text(folder / "documents.jsonl", tokenizer, False, Reading("text")),
        "rolling",
        lambda _: None,
    )
    settings = TaskSettings(["tiny_rolling"], folder)
    theirs = run_tasks(scorer, tokenizer, load_tasks(settings), settings)
    bits = theirs["tiny_rolling"]["bits_per_byte,none"]
    assert bits == pytest.approx(ours.bpb["documents"], rel=1e-6)


def test_text_is_drawn_as_its_task_says(model: Any) -> None:
    def texts(**settings: Any) -> list[str]:
        asked = {"max_gen_toks": 8, "until": [], **settings}
        return list(model.generate_until(requests("generate_until", ("A ship", asked))))

    plain = texts()
    assert texts(repetition_penalty=1e6) != plain
    assert texts(do_sample=False, num_beams=1, top_p=0.1) == plain
    drawn = {"do_sample": True, "temperature": 5.0}
    assert texts(**drawn) != plain == texts(**drawn, min_p=1.0)


def test_text_is_the_greedy_one_up_to_a_stop(
    model: Any, scorer: Scorer, tokenizer: Tokenizer
) -> None:
    def greedy(prompt: str, most: int) -> str:
        ids, new = tokenizer.encode(prompt)[most - CONTEXT :], list[int]()
        while len(new) < most:
            with torch.no_grad():
                new.append(int(scorer.network(torch.tensor([[*ids, *new]]))[0, -1].argmax()))
            if new[-1] in tokenizer.end_ids:
                break
        return tokenizer.decode_after(ids, new)

    prompts = [
        "The ship",
        "In the year 1, the",
        "那船",
        "In the year 12, ship number 345 sailed past the old harbour, 那船",
    ]
    most = {"until": [], "max_gen_toks": 8}
    asked = [(prompt, most) for prompt in prompts]
    whole = [greedy(prompt, 8) for prompt in prompts]
    newest = tokenizer.encode(prompts[-1])[8 - CONTEXT :]
    assert len(newest) == CONTEXT - 8 and newest[:4] != tokenizer.encode(prompts[-1])[:4]
    assert model.generate_until(requests("generate_until", *asked)) == whole
    stop = whole[0][2]
    stopped = model.generate_until(
        requests("generate_until", (prompts[0], {"until": stop, "max_gen_toks": 8}), asked[1])
    )
    assert stopped == [whole[0][: whole[0].index(stop)], whole[1]]


def test_tasks_of_two_models_have_nothing_of_each_other(
    scorer: Scorer, tokenizer: Tokenizer, folder: Path
) -> None:
    other_model = scorer.model
    opened = opened_of(other_model, initial_state(other_model, 5))
    other = open_scorer(opened, None, "fp32", torch.device("cpu"))
    settings = TaskSettings(["tiny_choice", "tiny_rolling"], folder, few_shot=1)
    loaded = load_tasks(settings)
    first, second, again = (
        run_tasks(each, tokenizer, loaded, settings) for each in (scorer, other, scorer)
    )
    assert first == again and first != second
    assert first["tiny_choice"].keys() == {
        f"{metric}{error},none" for metric in ("acc", "acc_norm") for error in ("", "_stderr")
    }
    shown = loaded["tasks"]["tiny_choice"].instances[0].args[0]
    assert shown.count("sailed past the") == 2


def test_a_chat_is_asked_as_its_template_writes_it(
    scorer: Scorer, tokenizer: Tokenizer, tokenizer_dir: Path, folder: Path, tmp_path: Path
) -> None:
    from teleflm.evaluation.harness import HarnessModel

    copy = shutil.copytree(tokenizer_dir, tmp_path / "model")
    (copy / "chat_template.jinja").write_text(
        "{% for each in messages %}{{ each.role[0] }}: {{ each.content }}</s>{% endfor %}"
        "{% if add_generation_prompt %}a:{% endif %}"
    )
    talk = Conversations(copy, tokenizer)
    settings = TaskSettings(["tiny_choice"], folder, few_shot=1, limit=3)
    loaded = load_tasks(settings)
    found = run_tasks(scorer, tokenizer, loaded, settings, talk)
    assert 0 <= (found["tiny_choice"]["acc,none"] or 0) <= 1
    context, answer = loaded["tasks"]["tiny_choice"].instances[0].args
    assert context.startswith("u: The ship") and context.endswith("past the</s>a:")
    assert context.count("</s>a:") == 2 and answer == " old harbour"
    chatting = HarnessModel(scorer, tokenizer, talk)
    ids = chatting.tok_encode(context)
    assert tokenizer.eos_id is not None and ids.count(tokenizer.eos_id) == 3
    assert tokenizer.eos_id not in tokenizer.encode(context)
    (nats, _), *_ = chatting.loglikelihood(requests("loglikelihood", (context, answer)))
    whole = chatting.tok_encode(context + answer)
    assert nats == pytest.approx(by_hand(scorer, ids, whole[len(ids) :])[0], rel=1e-5)


def test_what_cannot_be_asked_is_named(
    model: Any,
    scorer: Scorer,
    tokenizer: Tokenizer,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from lm_eval.tasks import TaskManager

    with pytest.raises(DataError, match="task toy, document 1: an answer is empty"):
        model.loglikelihood(requests("loglikelihood", ("a", "b"), ("a", "")))
    with pytest.raises(DataError, match="more than the 24 that the model reads at once"):
        model.loglikelihood(requests("loglikelihood", ("a", " 船" * 30)))
    with pytest.raises(DataError, match="asks for up to 24 new tokens, and the model's context"):
        model.generate_until(requests("generate_until", ("a", {"max_gen_toks": 24})))
    for settings, what in (
        ({"max_gen_toks": 2, "no_repeat_ngram_size": 3}, "ask for no_repeat_ngram_size = 3"),
        ({"max_gen_toks": 2, "do_sample": True, "temperature": -1}, "temperature -1: it has"),
        ({"max_gen_toks": 2, "repetition_penalty": -1}, "repetition-penalty -1: it has"),
    ):
        with pytest.raises(
            DataError, match=f"task toy, document 0: its generation_kwargs .*{what}"
        ):
            model.generate_until(requests("generate_until", ("a", settings)))
    # lm-eval's own 14,000 names take seconds.
    own = functools.partial(TaskManager, include_defaults=False)
    monkeypatch.setattr("lm_eval.tasks.TaskManager", own)
    with pytest.raises(ConfigError, match=r"--tasks tiny_rollin: no task .*mean tiny_rolling"):
        load_tasks(TaskSettings(["tiny_rollin"], folder))
    with pytest.raises(ConfigError, match=r"--include .*nowhere: no such folder"):
        load_tasks(TaskSettings(["tiny_rolling"], folder / "nowhere"))
    text = (folder / "tiny_rolling.yaml").read_text()
    bad = text.replace("tiny_rolling", "tiny_bad").replace("'{{text}}'", "'{{text[0] | nothing}}'")
    (folder / "tiny_bad.yaml").write_text(bad)
    with pytest.raises(DataError, match=r"task tiny_bad: cannot be loaded .*nothing"):
        load_tasks(TaskSettings(["tiny_bad"], folder))
    code = text.replace("tiny_rolling", "tiny_code") + "unsafe_code: true\n"
    (folder / "tiny_code.yaml").write_text(code)
    with pytest.raises(ConfigError, match=r"task tiny_code: runs code .* --run-code"):
        load_tasks(TaskSettings(["tiny_code"], folder))
    (folder / "tiny_odd.yaml").write_text(
        text.replace("tiny_rolling", "tiny_odd") + "process_results: !function odd.of\n"
    )
    (folder / "odd.py").write_text("def of(document, results):\n    return [][0]\n")
    odd = TaskSettings(["tiny_odd"], folder, limit=1)
    with pytest.raises(DataError, match=r"--tasks tiny_odd: cannot be asked \(IndexError"):
        run_tasks(scorer, tokenizer, load_tasks(odd), odd)
    (folder / "tiny_cut.yaml").write_text("task: tiny_cut\nmetric_list: [1\n")
    with pytest.raises(DataError, match=r"tiny_cut\.yaml: not valid YAML .*line"):
        load_tasks(TaskSettings(["tiny_cut"], folder))
    (folder / "tiny_cut.yaml").unlink()
    (folder / "documents.jsonl").rename(folder / "gone")
    with pytest.raises(DataError, match=r"task tiny_rolling: cannot be loaded .*documents.jsonl"):
        load_tasks(TaskSettings(["tiny_rolling"], folder))
    (folder / "gone").rename(folder / "documents.jsonl")


def test_a_task_that_wants_a_network_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    import datasets
    from huggingface_hub import constants

    def alone(*_: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr(socket, "create_connection", alone)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    name = "tiny_far"
    (folder / f"{name}.yaml").write_text(
        f"task: {name}\ndataset_path: nobody/nothing\ntest_split: test\n"
        "output_type: loglikelihood_rolling\ndoc_to_text: ''\ndoc_to_target: text\n"
    )
    with pytest.raises(DataError, match=f"task {name}: its data is to be downloaded"):
        load_tasks(TaskSettings([name], folder))
