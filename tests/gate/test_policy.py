from pathlib import Path

import pytest

from gemma3n_perf.errors import UsageError
from gemma3n_perf.gate.policy import read_policy
from tests.gate.evidence_files import BIG, NANO, POLICY, SMALL


def read(tmp_path: Path, text: str) -> object:
    """Read a policy of such text."""
    path = tmp_path / "policy.toml"
    path.write_text(text)
    return read_policy(path)


def test_a_policy_reads_as_it_is_written(tmp_path: Path) -> None:
    """Defaults stand for what is left out."""
    policy = read_policy(
        _write(tmp_path, f'[gate]\nrequired = ["{SMALL}"]\n[classes.{SMALL}]\nworkloads = ["{NANO}"]\n')
    )
    assert (policy.required, policy.classes[SMALL].workloads, policy.classes[SMALL].runner) == ((SMALL,), (NANO,), ())
    assert (policy.minimum_effect, policy.max_age_days, policy.sessions, policy.memory) == (0.005, 90, 2, 1.1)
    assert (policy.mlx, policy.mlx_vlm) == (None, None)


def _write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "policy.toml"
    path.write_text(text)
    return path


def test_versions_can_be_pinned(tmp_path: Path) -> None:
    """By mlx and mlx_vlm; whole numbers will do for factors."""
    policy = read_policy(_write(tmp_path, POLICY.replace("[gate]", '[gate]\nmlx = "0.32.4"\nmemory = 1\n')))
    assert (policy.mlx, policy.memory) == ("0.32.4", 1)


@pytest.mark.parametrize(
    ("old", "new", "said", "next_"),
    [
        ("required =", "require =", "[gate] 'require' is not known", "did you mean 'required'?"),
        ("max_age_days", "maxage_days", "[gate] 'maxage_days' is not known", "did you mean 'max_age_days'?"),
        (f"[classes.{BIG}]", "[classes.fake-cpu]", "class 'fake-gpu' is required", "did you mean"),
        ("runner =", "runners =", f"[classes.{BIG}] 'runners' is not known", "did you mean 'runner'?"),
        ("[gate]", "[gate]\nfoo = 1", "[gate] 'foo' is not known", ""),
        ("= 90", "= true", "[gate] max_age_days = True", ""),
        ("= 90", "= 90.5", "[gate] max_age_days = 90.5", ""),
        ("= 0.005", "= nan", "minimum_effect = nan", ""),
        (f'"{NANO}"', "3", f"[classes.{SMALL}] workloads = [3]", ""),
        (f'["{NANO}"]', f'"{NANO}"', f"[classes.{SMALL}] workloads = ", ""),
        (f'["{NANO}"]', "[]", f"[classes.{SMALL}]: workloads []", ""),
        ("[gate]", "gate = 3\n[other]", "'other' is not known", ""),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, old: str, new: str, said: str, next_: str) -> None:
    """The file, the key, and the nearest that is known."""
    assert old in POLICY
    with pytest.raises(UsageError) as caught:
        read(tmp_path, POLICY.replace(old, new))
    assert "policy.toml" in str(caught.value)
    assert said in str(caught.value)
    assert next_ in str(caught.value)


def test_how_far_sessions_lie_apart_is_policy(tmp_path: Path) -> None:
    """Half a minute, unless it says so many seconds."""
    assert read_policy(_write(tmp_path, POLICY)).apart == 30.0
    for seconds in (0, 90):
        assert read_policy(_write(tmp_path, POLICY.replace("[gate]", f"[gate]\napart = {seconds}"))).apart == seconds
    for value in ("-1", "inf", "nan", '"long"'):
        with pytest.raises(UsageError, match="apart = "):
            read(tmp_path, POLICY.replace("[gate]", f"[gate]\napart = {value}"))


def test_a_policy_shows_its_rules_alone(tmp_path: Path) -> None:
    """Not how far it has been edited."""
    assert "unfinished" not in repr(read_policy(_write(tmp_path, POLICY)))


def test_sessions_may_be_taken_to_lie_nowhere_apart(tmp_path: Path) -> None:
    """By a fraction from 0 on, less than all."""
    assert read_policy(_write(tmp_path, POLICY.replace("[gate]", "[gate]\nsession_sd = 0"))).session_sd == 0
    for value in ("-0.001", "1"):
        with pytest.raises(UsageError, match="session_sd = "):
            read(tmp_path, POLICY.replace("[gate]", f"[gate]\nsession_sd = {value}"))


@pytest.mark.parametrize("data", [b"\xff\xfe", b"[gate", b""])
def test_what_is_no_policy_is_named(tmp_path: Path, data: bytes) -> None:
    """Not text, not TOML, nothing at all."""
    path = tmp_path / "policy.toml"
    path.write_bytes(data)
    with pytest.raises(UsageError, match=r"policy\.toml"):
        read_policy(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """With the option that names another."""
    with pytest.raises(UsageError, match="--policy FILE"):
        read_policy(tmp_path / "nowhere.toml")


def test_the_rules_of_a_regression_are_the_gates_unless_it_has_its_own(tmp_path: Path) -> None:
    """Its classes are those required; a margin, a budget and what inconclusive does may be set."""
    policy = read_policy(_write(tmp_path, POLICY))
    assert policy.compared == policy.required == (BIG, SMALL)
    assert (policy.comparing.margin, policy.regression.budget, policy.regression.inconclusive) == (0.01, 70.0, "passes")
    own = f'[regression]\nrequired = ["{SMALL}"]\nmargin = 0.02\nbudget = 30\ninconclusive = "refuses"\n'
    policy = read_policy(_write(tmp_path, own + POLICY))
    assert policy.compared == (SMALL,)
    assert (policy.comparing.margin, policy.comparing.suspicious, policy.regression.budget) == (0.02, True, 30)
    assert read_policy(_write(tmp_path, "[regression]\nrequired = []\n" + POLICY)).compared == ()
    assert read_policy(_write(tmp_path, "[regression]\nbudget = 0.5\n" + POLICY)).regression.budget == 0.5


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ("margin = 0", "margin = 0"),
        ("margin = 1", "margin = 1"),
        ("margin = 2.0", "margin = 2.0"),
        ("budget = 0", "budget = 0"),
        ("budget = inf", "budget = inf"),
        ('inconclusive = "maybe"', "inconclusive = 'maybe'"),
        ('required = ["nowhere"]', "nowhere"),
        ("marign = 0.01", "marign"),
    ],
)
def test_a_wrong_rule_of_regression_is_named(tmp_path: Path, rules: str, said: str) -> None:
    """A rule that cannot be carried out, or is none."""
    with pytest.raises(UsageError, match=said):
        read_policy(_write(tmp_path, f"[regression]\n{rules}\n{POLICY}"))


def test_a_class_has_a_state(tmp_path: Path) -> None:
    """Required, measured, or awaiting a machine: then it is shown and nothing waits for it."""
    states = {"a": '"required"', "b": '"measured"', "c": '"awaiting"'}
    tables = "".join(f'[classes.{name}]\nstate = {one}\nworkloads = ["{NANO}"]\n' for name, one in states.items())
    policy = read_policy(_write(tmp_path, tables))
    assert (policy.required, policy.compared, policy.awaiting) == (("a",), ("a",), ("c",))
    assert read_policy(_write(tmp_path, f'[gate]\nrequired = ["b"]\n{tables}')).required == ("b", "a")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[classes.a]\nstate = "waiting"\nworkloads = ["nano/text/pp40-tg64"]\n', "state = 'waiting'"),
        ('[classes.a]\nworkloads = ["nano/text/pp40-tg64"]\n', r"required classes \[\]"),
        (
            '[gate]\nrequired = ["a"]\n[classes.a]\nstate = "awaiting"\nworkloads = ["nano/text/pp40-tg64"]\n',
            "'a' is required, and awaits a machine",
        ),
    ],
)
def test_a_state_that_cannot_be_is_named(tmp_path: Path, text: str, said: str) -> None:
    """A typo, nothing required at all, and a class that is required though no machine is there."""
    with pytest.raises(UsageError, match=said):
        read_policy(_write(tmp_path, text))


@pytest.mark.parametrize("value", ["1.0", "true", '"six"', "inf", "nan", f"1{'0' * 400}"])
def test_goals_are_factors_of_workloads(tmp_path: Path, value: str) -> None:
    """Above 1, of workloads that there are."""
    table = f"[classes.{BIG}]"
    good = POLICY.replace(table, f'{table}\ngoals = {{ "e4b-4bit/text/pp320-tg64" = 6 }}')
    assert read_policy(_write(tmp_path, good)).classes[BIG].goals == {"e4b-4bit/text/pp320-tg64": 6}
    with pytest.raises(UsageError, match="goals: e4b-4bit/text/pp320-tg64 = "):
        read(tmp_path, good.replace("= 6 }", f"= {value} }}"))
    with pytest.raises(UsageError, match="nonsense"):
        read(tmp_path, good.replace("e4b-4bit/text/pp320-tg64", "nonsense"))
    with pytest.raises(UsageError, match="a table of numbers"):
        read(tmp_path, POLICY.replace(table, f"{table}\ngoals = 6"))


@pytest.mark.parametrize("rule", ["apart = 1e11", "sessions = 1" + "0" * 310])
def test_a_rule_that_no_machine_could_keep_is_refused(tmp_path: Path, rule: str) -> None:
    """A sleep of three thousand years ends in an error of the system's."""
    name = rule.partition(" ")[0]
    rest = "".join(line for line in POLICY.splitlines(keepends=True) if not line.startswith(name))
    path = _write(tmp_path, rest.replace("[gate]", f"[gate]\n{rule}"))
    with pytest.raises(UsageError, match=name):
        read_policy(path)
