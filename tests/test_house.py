"""The house: imports go downward, without a circle; functions fit in the eye; what is used of
Lightning beside its public names is there."""

import ast
import inspect
from pathlib import Path

import pytest
from lightning import Trainer
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

ROOT = Path(__file__).parents[1]

FLOORS = (
    ("utils", "objective"),
    ("optimization", "checkpoint", "data", "networks", "retrieval"),
    ("evaluation",),
    ("module",),
    ("inference",),
    ("compression",),
    ("callbacks",),
    ("config",),
    ("runs",),
    ("experiment",),
    ("commands", "training"),
    ("api",),
    ("cli",),
    ("__main__",),
)
"""Rooms of `acn_lightning/`, the lowest first. A room imports from itself and from lower ones."""

FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for folder in (ROOT / "acn_lightning", *(ROOT / "acn_lightning").glob("*/"))
    for path in folder.rglob("*.py")
}


def imports(module: str) -> set[str]:
    """Modules of this package that one imports, at its top, late or for types."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            full = [f"{node.module}.{name.name}" for name in node.names]
            found |= {one if one in MODULES else node.module for one in full}
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
    return {one for one in found if one in MODULES and one not in ("acn_lightning", module)}


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def upward(graph: dict[str, set[str]]) -> list[str]:
    """Arrows from a lower floor to a higher one."""
    return [
        f"{module} imports {other}"
        for module, others in graph.items()
        for other in others
        if room(module) and FLOOR[room(other)] > FLOOR[room(module)]
    ]


def between_rooms(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """The rooms that each room imports from."""
    rooms: dict[str, set[str]] = {room(module): set() for module in graph}
    for module, others in graph.items():
        rooms[room(module)] |= {room(other) for other in others} - {room(module)}
    return rooms


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Modules or rooms that import each other in a ring; nothing where there are none."""
    done: set[str] = set()

    def walk(module: str, path: list[str]) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in done:
            return []
        for other in sorted(graph[module]):
            if found := walk(other, [*path, module]):
                return found
        done.add(module)
        return []

    return next((found for module in graph if (found := walk(module, []))), [])


@pytest.fixture(scope="module")
def graph():
    return {module: imports(module) for module in MODULES}


def test_every_room_has_a_floor():
    assert {room(module) for module in MODULES} - {"", "conf"} == set(FLOOR)
    assert len(FLOOR) <= 20


def test_imports_go_downward(graph):
    assert len(graph) > 90
    assert upward(graph) == []


def test_no_imports_go_in_a_circle(graph):
    assert circle(graph) == []
    assert circle(between_rooms(graph)) == []


def test_an_arrow_upwards_and_a_circle_are_named(graph):
    wrong = graph | {"acn_lightning.utils.files": {"acn_lightning.checkpoint"}}
    assert upward(wrong) == ["acn_lightning.utils.files imports acn_lightning.checkpoint"]
    assert "acn_lightning.utils.files" in circle(wrong)
    back = {"acn_lightning.data.x": {"acn_lightning.networks.x"},
            "acn_lightning.networks.y": {"acn_lightning.data.y"}}  # fmt: skip
    assert circle(between_rooms(back)) == ["data", "networks", "data"]


def test_functions_fit_in_the_eye():
    def lines(node: ast.FunctionDef) -> int:
        body = node.body[1:] if ast.get_docstring(node) else node.body
        return body[-1].end_lineno - body[0].lineno + 1 if body else 0

    long = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {lines(node)} lines"
        for path in MODULES.values()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and lines(node) > 40
    ]
    assert long == []


def test_what_is_used_of_lightning_beside_its_public_names_is_there(tmp_path):
    """An update that takes one away is seen here, and not in a run that no signal stops."""
    trainer = Trainer(logger=False, enable_checkpointing=False, barebones=True)
    assert callable(trainer._signal_connector.register_signal_handlers)
    assert callable(trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor)
    assert callable(trainer.fit_loop._iteration_based_training)
    assert trainer.fit_loop.restarted_mid_epoch is False
    assert trainer.fit_loop.epoch_loop.batch_progress.current.ready == 0
    assert ExperimentWriter.NAME_METRICS_FILE == "metrics.csv"
    assert ExperimentWriter(str(tmp_path)).metrics_keys == []
    assert "self.procs" in inspect.getsource(_SubprocessScriptLauncher)
    with trainer.precision_plugin.forward_context():
        pass
