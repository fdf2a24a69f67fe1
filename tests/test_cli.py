"""The command line from outside: exit codes, one-line errors, help, sweeps that lose a run."""

import os
import shutil
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from ablate import __version__, cli
from ablate.compose import compose
from ablate.config import run_folder, validate
from ablate.sweeps import jobs

ROOT = Path(__file__).parents[1]

# Stands in for the training, here and (as sitecustomize) in child processes.
RUN = """
import os
import time
from pathlib import Path

def run(config, quiet=False):
    from ablate.types import UserError
    assert Path.cwd() == Path(os.environ["HERE"])
    with open(os.environ["RUNS"], "a") as file:
        file.write(f"{config.task._target_.rpartition('.')[2]} {config.seed}\\n")
    if config.seed == 1:
        raise UserError("seed=1 is no good:\\nuse 0")
    if config.seed == 2:
        raise RuntimeError("the second seed\\nfell over")
    if config.seed == 3:
        raise KeyboardInterrupt
    at_work = lambda: len(list(Path(os.environ["ABLATE_CACHE"]).glob("sweeps/*/run-*")))
    if config.seed == 11:  # dies with a neighbour, if it has one
        deadline = time.monotonic() + 5
        while at_work() < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.3)
        os.kill(os.getpid(), 9)
    if config.seed == 12:
        deadline = time.monotonic() + 3
        while at_work() < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(1.5)
    if config.seed == 9:
        while len(list(Path(os.environ["ABLATE_CACHE"]).glob("sweeps/*/end-*.json"))) < 3:
            time.sleep(0.01)
        os.kill(os.getpid(), 9)
"""


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Work in an empty folder with a run that only notes what it was asked; returns what was noted."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    for name, path in (("HERE", here), ("RUNS", tmp_path / "runs"), ("ABLATE_CACHE", tmp_path / "cache")):
        monkeypatch.setenv(name, str(path))
    module = types.ModuleType("ablate.run")
    exec(RUN, module.__dict__)
    monkeypatch.setitem(sys.modules, "ablate.run", module)
    hook = "import sys, types\nsys.modules['ablate.run'] = module = types.ModuleType('ablate.run')\n"
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook/sitecustomize.py").write_text(f"{hook}exec({RUN!r}, module.__dict__)\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'hook'}{os.pathsep}{ROOT}")
    yield (
        lambda: (
            sorted((tmp_path / "runs").read_text().split("\n")[:-1]) if (tmp_path / "runs").exists() else []
        )
    )
    # no outputs/, multirun/, .hydra/ or log file; a sweep's plan alone
    assert {path.parent.name for path in here.rglob("*.*") if path.is_file()} <= {".sweeps"}
    assert not any((tmp_path / "cache").rglob("*.*"))


def shell(*arguments):
    command = [sys.executable, "-W", "error", "-m", "ablate", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=180)


def test_a_run_gets_the_checked_configuration(runs):
    before = list(sys.argv), os.environ.get("HYDRA_FULL_ERROR")
    assert cli.main(["task=chain", "seed=5"]) == 0
    assert runs() == ["Chain 5"]
    assert (list(sys.argv), os.environ.get("HYDRA_FULL_ERROR")) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["learner.lrr=1"], "unknown key learner.lrr; did you mean learner.lr?"),
        (["-m", "seed=0,x"], "seed=x is not a whole number"),
        (["--lr=1"], "unknown option --lr=1; keys are written without dashes: lr=1"),
        (["--hlep"], "unknown option --hlep; did you mean --help?"),
        (["-x"], "unknown option -x; choices:"),
        (["--cfg"], "--cfg needs a value"),
        (["--cfg", "jbo"], "--cfg jbo: did you mean job?"),
        (["-m", "learner.lr=interval(1,2)"], "BasicSweeper does not support sweep type"),
        (["seed=1"], "seed=1 is no good: use 0"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(runs, capsys, arguments, message):
    assert cli.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"ablate: {message}") and captured.err.count("\n") == 1
    assert captured.out == "" and runs() in ([], ["Countdown 1"])


def test_a_cache_that_cannot_be_written_is_named(runs, capsys, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("ABLATE_CACHE", str(tmp_path / "file"))
    assert cli.main(["-m", "seed=0,4"]) == 2
    assert (
        capsys.readouterr().err
        == f"ablate: paths.cache={tmp_path / 'file'} cannot be written: Not a directory\n"
    )


def test_other_exceptions_keep_their_traceback_and_an_interrupt_is_130(runs, capsys):
    with pytest.raises(RuntimeError, match="the second seed"):
        cli.main(["seed=2"])
    assert capsys.readouterr().err == ""  # nothing of Hydra's
    assert cli.main(["seed=3"]) == 130
    assert capsys.readouterr().err == "ablate: interrupted\n"
    assert cli.main(["-m", "seed=1,3,4"]) == 130
    assert runs() == ["Countdown 1", "Countdown 2", "Countdown 3", "Countdown 3"]


def test_a_failed_run_does_not_stop_a_sweep_and_is_listed_at_its_end(runs, capsys):
    assert cli.main(["-m", "seed=0,1,2,4", "learner.lr=1e-3", "budget.tokens=1e5"]) == 1
    assert runs() == [f"Countdown {seed}" for seed in (0, 1, 2, 4)]
    captured = capsys.readouterr()
    assert "Traceback" in captured.err and captured.err.endswith(
        "ablate: 2 runs failed:\n"
        "  seed=1: seed=1 is no good: use 0\n"
        "  seed=2: RuntimeError: the second seed fell over\n"
        "the same command with resume=true runs what is missing and goes on with what is unfinished\n"
    )
    lines = captured.out.splitlines()  # one for each run
    assert [line.split(" · ")[:2] for line in lines] == [
        [f"{i} of 4", f"seed={seed}"] for i, seed in enumerate((0, 1, 2, 4), 1)
    ]
    assert "FAILED · seed=1 is no good: use 0" in lines[1]
    assert cli.main(["-m", "seed=0,4"]) == 0


def test_the_same_with_joblib_in_processes_of_their_own(runs):
    done = shell("-m", "seed=0,1,2,4", "task=chain", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    assert done.returncode == 1 and runs() == [f"Chain {seed}" for seed in (0, 1, 2, 4)]
    assert (
        "ablate: 2 runs failed:\n"
        "  seed=1: seed=1 is no good: use 0\n"
        "  seed=2: RuntimeError: the second seed fell over\n"
    ) in done.stderr
    assert sorted(line.split(" · ")[0] for line in done.stdout.splitlines()) == [
        f"{i} of 4" for i in (1, 2, 3, 4)
    ]


def test_a_run_that_kills_its_worker_every_time_is_given_up_and_what_is_over_stays_so(runs):
    done = shell("-m", "seed=0,4,1,9", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "resume=true")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.endswith(
        "ablate: 2 runs failed:\n"
        "  seed=1: seed=1 is no good: use 0\n"
        "  seed=9: its process ended without a word: killed, or too little memory, 3 times\n"
        "the same command runs what is missing and goes on with what is unfinished\n"
    )
    assert runs() == [f"Countdown {seed}" for seed in (0, 1, 4, 9, 9, 9)]
    lines = [line.split(" · ") for line in done.stdout.splitlines()]
    assert [line[0] for line in lines] == [f"{i} of 4" for i in range(1, 5)]
    assert sorted(line[1] for line in lines) == [f"seed={seed}" for seed in (0, 1, 4, 9)]
    again = "ablate: a worker was killed, or had too little memory: new ones go on"
    assert done.stderr.count(f"{again}, seed=9 from the last checkpoint\n") == 2
    assert done.stderr.count(f"{again}\n") == 1


def test_a_run_is_not_given_up_for_what_its_neighbour_did(runs):
    """Both were at work whenever a worker died; each by itself tells which of them it was."""
    done = shell("-m", "seed=11,12,0", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "resume=true")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "ablate: 1 run failed:\n  seed=11: its process ended without a word" in done.stderr
    assert "from the last checkpoint, one of these at a time\n" in done.stderr
    ends = {line.split(" · ")[1] for line in done.stdout.splitlines()}
    assert ends == {"seed=0", "seed=11", "seed=12"} and done.stdout.count("FAILED") == 1


def test_a_run_that_is_to_be_made_anew_is_also_after_its_worker_was_lost(runs, monkeypatch):
    config = compose(["fresh=true"])
    OmegaConf.set_readonly(config, False)  # as Hydra hands it over
    folder = run_folder(config)
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("")
    (folder / "summary.json").write_text('{"finished": true}')
    monkeypatch.setattr(jobs, "validate_job", validate)
    begun = (folder / "config.yaml").stat().st_mtime
    assert jobs._run(config, begun + 1)[0] == "finished" and runs() == ["Countdown 0"]  # it was not begun yet
    assert jobs._run(config, begun - 1)[0] == "known" and runs() == ["Countdown 0"]  # it was, and is done
    shutil.rmtree("results")


def test_exit_codes_of_the_process(runs):
    assert shell("seed=0").returncode == 0
    failed = shell("seed=2")
    assert failed.returncode == 1 and failed.stderr.startswith("Traceback")
    assert failed.stderr.endswith("RuntimeError: the second seed\nfell over\n")


def test_help_is_quick_and_shows_the_choices_of_the_working_directory(runs, tmp_path, monkeypatch):
    own = tmp_path / "own" / "conf" / "task"
    own.mkdir(parents=True)
    (own / "sudoku.yaml").touch()
    monkeypatch.chdir(tmp_path / "own")
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        done = shell("--help")
        seconds.append(time.perf_counter() - start)
    assert done.returncode == 0 and done.stderr == ""
    assert "task                 chain, code, constraints, countdown*, " in done.stdout
    assert "reasoning_gym, sudoku" in done.stdout
    assert done.stdout.count("python -m ablate ") >= 3
    assert min(seconds) < 2, seconds  # about 0.3 s on an idle laptop


def test_checking_a_command_line_imports_nothing_heavy(runs):
    program = (
        "import sys; from ablate.compose import compose; compose(['seed=1']);"
        "print({'torch', 'transformers', 'trl', 'mlflow', 'pyarrow', 'scipy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr


def test_version_and_configuration_are_printed(runs, capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"ablate {__version__}\n"
    assert cli.main(["--cfg", "job", "learner.lr=1e-3"]) == 0
    assert "lr: 0.001" in capsys.readouterr().out
    assert cli.main(["-m", "experiment=suspects", "--cfg", "job"]) == 0
    assert capsys.readouterr().out.startswith("# the first of 21 runs\n")
    assert cli.main(["--cfg=hydra"]) == 0
    assert "output_subdir: null" in capsys.readouterr().out
    assert runs() == []


@pytest.mark.parametrize("option", ["--help", "--version"])  # more than a buffer holds, and less
def test_a_pipe_that_nobody_reads_is_no_traceback(option):
    """As in `python -m ablate --help | head -1`."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "ablate", option]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=180)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


def test_another_pipe_that_breaks_is_an_error():
    program = (
        "from ablate.command import exit_code\n"
        "def work(_): raise BrokenPipeError(32, 'a worker')\n"
        "exit_code(work, [])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=180)
    assert done.returncode == 1 and "BrokenPipeError: [Errno 32] a worker" in done.stderr
