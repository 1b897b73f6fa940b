import subprocess
import sys
import time

import pytest

from suites.catalog import load_suite, schema, shipped_suites
from suites.errors import SuiteError

SUITE = """\
name: mine
protocol: dmc-1000
tasks: {family: dm_control, names: [cartpole-swingup, reacher-easy]}
mode: per_task
budget: {env_steps: 1000, num_envs: 2}
evaluation: {every: 500}
agents:
  ppo: {preset: small}
"""


@pytest.fixture
def file(tmp_path):
    def write(text, name="x.yaml"):
        (tmp_path / name).write_bytes(text.encode())
        return str(tmp_path / name)

    return write


@pytest.fixture
def faults(file, tmp_path):
    def of(text, overrides=()):
        with pytest.raises(SuiteError) as caught:
            load_suite(file(text), overrides)
        return [message.replace(f"{tmp_path}/", "") for message in caught.value.messages]

    return of


@pytest.mark.parametrize(
    ("name", "mode", "tasks", "decisions", "env_steps", "seeds"),
    [
        ("mt10", "joint", 10, 500, 20_000_000, 5),
        ("mt25", "joint", 25, 500, 50_000_000, 5),
        ("mt50", "joint", 50, 500, 100_000_000, 5),
        ("dmc28", "per_task", 28, 500, 1_000_000, 3),
        ("lite", "per_task", 2, 500, 50_000, 3),
        ("quick", "per_task", 4, 500, 4_000, 2),
        ("dmc39", "per_task", 39, 500, 1_000_000, 3),
        ("mt30", "joint", 30, 500, 60_000_000, 5),
        ("mw50", "per_task", 50, 500, 2_000_000, 3),
        ("ml10", "joint", 10, 500, 20_000_000, 5),
        ("ml45", "joint", 45, 500, 90_000_000, 5),
        ("vectorization", "per_task", 4, 500, 1_000_000, 5),
    ],
)
def test_shipped_suites_load_by_name_from_any_folder(
    name, mode, tasks, decisions, env_steps, seeds, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    loaded = load_suite(name)
    suite = loaded.suite
    assert (suite.name, suite.mode, len(loaded.tasks)) == (name, mode, tasks)
    assert (suite.budget.env_steps, suite.seeds) == (env_steps, seeds)
    assert {task.protocol.decisions for task in loaded.tasks} == {decisions}
    further = [] if name in ("quick", "lite") else ["tdmpc2", "sac"]
    assert list(suite.agents) == ["m3po", "ppo", "dreamerv3", *further]
    assert suite.description
    assert loaded.path == shipped_suites()[name]


@pytest.mark.parametrize("name", sorted(name for name in shipped_suites() if name.endswith("-lite")))
def test_a_lite_form_is_a_smaller_study_of_its_suite(name):
    lite, full = load_suite(name), load_suite(name.removesuffix("-lite"))
    assert {task.name for task in lite.tasks} <= {task.name for task in full.tasks}
    assert lite.suite.mode == full.suite.mode
    assert {task.protocol for task in lite.tasks} == {task.protocol for task in full.tasks}
    assert lite.suite.budget.env_steps < full.suite.budget.env_steps
    assert "two CPU cores" in lite.suite.description


def test_the_generalisation_suites_hold_out_what_their_agents_never_meet():
    for name, trained in (("ml10", 10), ("ml45", 45)):
        loaded = load_suite(name)
        assert (len(loaded.tasks), len(loaded.held_out)) == (trained, 5)


def test_quick_mixes_two_families_each_under_its_protocol():
    found = [
        (task.name, task.family, task.protocol.name, task.protocol.action_repeat) for task in load_suite("quick").tasks
    ]
    assert found == [
        ("cartpole-swingup", "dm_control", "dmc-1000", 2),
        ("reacher-easy", "dm_control", "dmc-1000", 2),
        ("reach-v3", "metaworld", "metaworld-v3", 1),
        ("drawer-open-v3", "metaworld", "metaworld-v3", 1),
    ]


def test_loading_imports_neither_simulator_nor_learning_library():
    code = (
        "import sys; from suites.catalog import load_suite; load_suite('mt50');"
        "print({'torch', 'metaworld', 'dm_control', 'mujoco', 'gymnasium', 'm3po'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"


def test_places_lead_back_to_the_file(file):
    path = file(SUITE)
    loaded = load_suite(path, ["agents.ppo.gamma=0.9"])
    assert loaded.where(("budget", "num_envs")) == f"{path}:5:27"
    assert loaded.where(("agents", "ppo", "preset")) == f"{path}:8:9"
    assert loaded.where(("agents", "ppo", "gamma")) == "--set agents.ppo.gamma=0.9"


def test_a_byte_order_mark_and_windows_line_ends_are_accepted(file):
    assert load_suite(file("\ufeff" + SUITE.replace("\n", "\r\n"))).suite == load_suite(file(SUITE, "y.yaml")).suite


def test_all_faults_come_in_one_pass_with_place_and_nearest_name(faults):
    text = (
        SUITE.replace("budget:", "budgte:")
        .replace("reacher-easy", "reacher-eazy")
        .replace("per_task", "per_taks")
        .replace("every: 500", "every: '500'")
    )
    found = faults(text)
    assert len(found) == 5
    assert "x.yaml:4:1: mode: found \"per_taks\"; expected 'joint' or 'per_task'; nearest: 'per_task'" in found
    assert 'x.yaml:6:14: evaluation.every: found "500"; expected a whole number' in found
    assert "x.yaml:3:55: unknown dm_control task 'reacher-eazy'; nearest: 'reacher-easy'; 59 are known" in found
    assert "x.yaml:1:1: the key 'budget' is missing" in found
    assert any(message.startswith("x.yaml:5:1: unknown key 'budgte'; nearest: 'budget'; known:") for message in found)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("dm_control", "dmcontrol", "x.yaml:3:9: unknown family 'dmcontrol'; nearest: 'dm_control'"),
        ("dmc-1000", "dmc-100", "x.yaml:2:1: unknown protocol 'dmc-100'; nearest: 'dmc-1000'"),
        (
            "dmc-1000",
            "metaworld-v3",
            "x.yaml:2:1: protocol 'metaworld-v3' scores success, which the family 'dm_control'",
        ),
        ("dmc-1000", "dmc-1000\naction_repeat: 3", "x.yaml:3:1: action_repeat 3 does not divide the 1000"),
        (
            "names: [cartpole-swingup, reacher-easy]",
            "set: dmc82",
            "x.yaml:3:29: unknown set of dm_control tasks 'dmc82'; nearest: 'dmc28'",
        ),
        ("names: [cartpole-swingup, reacher-easy]", "names: []", "x.yaml:3:29: found no names; expected at least one"),
        (
            "names: [",
            "set: dmc28, names: [",
            "x.yaml:3:1: tasks: found a mapping with the keys 'family', 'set', 'names'; expected either 'names' or",
        ),
        (
            "reacher-easy",
            "cartpole-swingup",
            "x.yaml:3:55: the task 'cartpole-swingup' is listed twice; first at x.yaml:3:37",
        ),
        ("reacher-easy", "5", "x.yaml:3:55: tasks.names.1: found 5; expected a text"),
        ("{preset: small}", "small", 'x.yaml:8:3: agents.ppo: found "small"; expected a mapping'),
        ("ppo:", "p p:", 'x.yaml:8:3: agents.p p: found "p p"; expected a name of at most 80 letters'),
        (
            "  ppo: {preset: small}",
            "  {}",
            "x.yaml:7:1: agents: found a mapping with the keys (none); expected at least one",
        ),
        (
            "env_steps: 1000",
            "env_steps: 0",
            "x.yaml:5:10: budget.env_steps: found 0; expected greater than or equal to 1",
        ),
        ("env_steps: 1000", "env_steps: true", "x.yaml:5:10: budget.env_steps: found true; expected a whole number"),
        (
            "mode: per_task",
            "mode: per_task\nseeds: [0, -1]",
            "x.yaml:5:12: seeds.1: found -1; expected greater than or equal to 0",
        ),
        ("num_envs: 2", "num_envs: 1", None),
    ],
)
def test_one_fault(faults, file, old, new, message):
    text = SUITE.replace(old, new)
    if message is None:
        load_suite(file(text))
        return
    (found,) = faults(text)
    assert found.startswith(message)


def test_a_joint_suite_needs_an_environment_for_each_task(faults):
    (found,) = faults(SUITE.replace("per_task", "joint").replace("num_envs: 2", "num_envs: 1"))
    assert found == "x.yaml:5:27: budget.num_envs: found 1; expected at least 2, one for each task of a joint suite"


def test_tuning_has_tasks_of_its_own(file):
    loaded = load_suite(file(SUITE + "tuning: {trials: 5, tasks: {family: dm_control, names: [walker-walk]}}\n"))
    assert [task.name for task in loaded.tuning] == ["walker-walk"]
    assert [task.name for task in loaded.tasks] == ["cartpole-swingup", "reacher-easy"]
    assert load_suite(file(SUITE)).tuning == ()


@pytest.mark.parametrize(
    ("tuning", "message"),
    [
        (
            "tasks: {family: dm_control, names: [walker-walk, reacher-easy]}",
            "tuning task 'reacher-easy': the suite evaluates it (x.yaml:3:55); expected tasks that it does not",
        ),
        ("tasks: {family: toy, names: [toy-raech]}", "unknown toy task 'toy-raech'; nearest: 'toy-reach'; known: "),
        ("tasks: {famliy: toy, names: [toy-reach]}", "unknown key 'famliy'; nearest: 'family'"),
        ("trails: 5", "unknown key 'trails'; nearest: 'trials'"),
        ("evaluation: {evry: 5}", "unknown key 'evry'; nearest: 'every'"),
        ("sampler: tpp", 'tuning.sampler: found "tpp"; expected '),
        ("objectives: [seconds]", "expected objectives that begin with 'score', such as [score] or [score, seconds]"),
        ("objectives: [score, seconds], pruner: wilcoxon", "expected 'pruner: none' where there are two objectives"),
        ("objectives: [score, seconds], sampler: cmaes", "expected another sampler than 'cmaes' where there are two"),
    ],
)
def test_faults_of_tuning(faults, tuning, message):
    found = faults(SUITE + f"tuning: {{{tuning}}}\n")
    assert any(message in one for one in found), found


def test_extending_merges_over_the_base(file):
    file(SUITE, "base.yaml")
    loaded = load_suite(file("extends: base.yaml\nname: own\nbudget: {env_steps: 7}\nagents: {ppo: null, sac: {}}\n"))
    assert (loaded.suite.name, loaded.suite.budget.env_steps, loaded.suite.budget.num_envs) == ("own", 7, 2)
    assert list(loaded.suite.agents) == ["sac"]
    assert loaded.where(("budget", "num_envs")).endswith("base.yaml:5:27")
    assert loaded.where(("budget", "env_steps")).endswith("x.yaml:3:10")


def test_a_shipped_suite_can_be_extended(file):
    assert len(load_suite(file("extends: mt10\nname: own\n")).tasks) == 10


def test_files_that_extend_in_a_circle_are_refused(file, faults):
    file("extends: x.yaml\n", "y.yaml")
    (found,) = faults("extends: y.yaml\n")
    assert found.endswith("in a circle: x.yaml -> y.yaml -> x.yaml")


def test_a_missing_base_is_told_at_its_place(faults):
    (found,) = faults("name: own\nextends: mt11\n")
    assert found.startswith("x.yaml:2:1: extends: mt11: no such file")
    assert found.endswith("nearest: 'mt10'")


def test_a_missing_file_lists_the_shipped_suites():
    with pytest.raises(SuiteError, match=r"mt51: no such file; .*\(.*dmc28, .*mt10, .*quick.*\); nearest: 'mt50'"):
        load_suite("mt51")


def test_a_file_that_is_not_utf8_is_told(tmp_path):
    (tmp_path / "x.yaml").write_bytes(b"name: \xff\n")
    with pytest.raises(SuiteError, match="not a text in UTF-8"):
        load_suite(str(tmp_path / "x.yaml"))


def test_overrides_set_values(file):
    suite = load_suite(
        file(SUITE),
        ["budget.env_steps=1e4", "agents.ppo.gamma=0.9", "agents.sac={}", "tasks.names.1=walker-run", "seeds=[3, 4]"],
    ).suite
    assert suite.budget.env_steps == 10_000
    assert suite.agents == {"ppo": {"preset": "small", "gamma": 0.9}, "sac": {}}
    assert suite.tasks.names == ("cartpole-swingup", "walker-run")
    assert suite.seeds == (3, 4)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("agents.pop.gamma=1", "unknown agent 'pop'; nearest: 'ppo'"),
        ("budget.env_step=1", "unknown key 'env_step'; nearest: 'env_steps'"),
        ("budgte.env_steps=1", "unknown key 'budgte'; nearest: 'budget'"),
        ("tasks.names.2=walker-run", "found '2'; expected a position from 0 to 1"),
        ("name.x=1", "name is the value 'mine' and has no key 'x'"),
        ("seeds", "expected key.path=value"),
        ("budget.num_envs=many", 'budget.num_envs: found "many"; expected a whole number'),
        ("seeds=[1", "this is not YAML"),
        ("tasks.names.1=walker-runs", "unknown dm_control task 'walker-runs'; nearest: 'walker-run'"),
    ],
)
def test_a_wrong_override_is_told(faults, override, sentence):
    (found,) = faults(SUITE, [override])
    assert found.startswith(f"--set {override}")
    assert sentence in found


def test_a_hostile_file_is_refused_quickly(faults):
    lines = ["k0: &k0 [0]", *(f"k{i}: &k{i} [{', '.join([f'*k{i - 1}'] * 10)}]" for i in range(1, 9))]
    started = time.process_time()
    (found,) = faults("\n".join(lines))
    assert "use fewer aliases" in found
    assert time.process_time() - started < 1


def test_a_file_too_large_to_be_a_suite_is_not_parsed(faults):
    started = time.process_time()
    (found,) = faults("a: [" + "1, " * 1_000_000)
    assert found == "x.yaml: found 3000004 bytes; a suite file has at most 200000"
    assert time.process_time() - started < 1


def test_the_schema_knows_every_key_and_extends():
    found = schema()
    assert {"name", "tasks", "budget", "agents", "extends"} <= set(found["properties"])
    assert found["additionalProperties"] is False
    assert {"required": ["extends"]} in found["anyOf"]


OWN = "{name: half-time, action_repeat: 1, decisions: 500, score: return, low: 0, high: 500}"


def test_a_protocol_may_be_written_out(file):
    (first, second) = load_suite(file(SUITE.replace("dmc-1000", OWN).replace("mode:", "action_repeat: 2\nmode:"))).tasks
    rules = first.protocol
    assert (rules.name, rules.action_repeat, rules.decisions, rules.high) == ("half-time", 2, 250, 500)
    assert second.protocol == rules


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (OWN.replace("half-time", "dmc-1000"), "x.yaml:2:1: protocol 'dmc-1000' is known with other rules"),
        (OWN.replace("low: 0, ", ""), "x.yaml:2:1: the key 'protocol.low' is missing"),
        (OWN.replace("decisions", "decisons"), "x.yaml:2:47: unknown key 'decisons'; nearest: 'decisions'"),
        (OWN.replace("high: 500", "high: 0"), "x.yaml:2:1: protocol: found a mapping"),
    ],
)
def test_a_faulty_protocol_is_told_at_its_place(faults, own, message):
    found = faults(SUITE.replace("dmc-1000", own))
    assert found[-1].startswith(message)


def test_held_out_tasks(file, faults):
    text = SUITE.replace("per_task", "joint") + "held_out: {family: dm_control, names: [walker-walk]}\n"
    loaded = load_suite(file(text))
    assert [task.name for task in loaded.tasks] == ["cartpole-swingup", "reacher-easy"]
    assert [task.name for task in loaded.held_out] == ["walker-walk"]
    (found,) = faults(text.replace("joint", "per_task"))
    assert found.startswith("x.yaml:9:1: held_out: an agent of one task cannot be evaluated on others")
    (found,) = faults(text.replace("walker-walk", "reacher-easy"))
    assert found == "x.yaml:9:40: the task 'reacher-easy' is listed twice; first at x.yaml:3:55"


def test_tasks_that_are_not_trained_alike_are_told(file):
    joint = SUITE.replace("per_task", "joint")
    said = "5 environments for 2 tasks: 1 of the tasks train in one more than the others; take a multiple of 2"
    assert load_suite(file(joint), ["budget.num_envs=5"]).notes == (said,)
    assert load_suite(file(joint), ["sweep={budget.num_envs: [2, 5, 6]}"]).notes == (said,)
    assert load_suite(file(joint), ["budget.num_envs=6"]).notes == ()
    assert load_suite(file(SUITE), ["budget.num_envs=5"]).notes == ()


def test_every_task_has_an_engine(file, monkeypatch):
    monkeypatch.setattr("suites.resolve.certified", lambda task: (task.name == "reacher-easy", "its rewards differ"))
    loaded = load_suite(file(SUITE + "engine: auto\n"))
    assert [task.engine for task in loaded.tasks] == ["native", "envpool"]
    assert loaded.notes == ("EnvPool simulates 1 of 2 tasks; native: cartpole-swingup",)
    asked = load_suite(file(SUITE + "engine: envpool\n"))
    assert [task.engine for task in asked.tasks] == ["envpool", "envpool"]
    assert asked.notes == ("EnvPool simulates 2 of 2 tasks", "not certified: its rewards differ")
    assert [task.engine for task in load_suite(file(SUITE)).tasks] == ["native", "native"], "native unless asked"


def test_a_missing_engine_is_told_once_at_its_place(file, faults, monkeypatch):
    monkeypatch.setattr("suites.resolve.unavailable", lambda task: "EnvPool is not installed")
    assert faults(SUITE + "engine: envpool\n") == ["x.yaml:9:1: EnvPool is not installed"]
    assert load_suite(file(SUITE + "engine: auto\n")).notes == (
        "EnvPool simulates 0 of 2 tasks; native: cartpole-swingup, reacher-easy",
        "EnvPool is not installed",
    )
