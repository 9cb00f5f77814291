"""The Python of an ordinary Fiji, by Appose's protocol alone: no Java here, this test plays it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from appose import SharedMemory
from appose.service import Service

SCRIPT = "from nrrn_fiji.fiji import worker\n"
RUN = SCRIPT + "worker.run(task, function, context, outermost, inputs)"


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A worker as Fiji starts it."""
    made = Service(
        tmp_path, None, sys.executable, "-c", "from nrrn_fiji.fiji.worker import main; main()"
    )
    made.start()
    yield made
    made.close()
    made.wait_for()
    for pipe in (made._process.stdin, made._process.stdout, made._process.stderr):
        pipe.close()  # which Appose leaves to the garbage collector


class Fiji:
    """What answers the wishes of a worker; ``java`` holds what it answers to each."""

    def __init__(self, service: Service, java: dict[str, Any]):
        self.service, self.java = service, java
        self.wishes: list[dict[str, Any]] = []

    def hear(self, event: Any) -> None:
        if "UPDATE" not in str(event.response_type):
            return
        wish = event.info
        self.wishes.append(wish)
        answer = self.java.get(wish.get("name") or wish["what"], {"value": None})
        reply = answer(wish) if callable(answer) else answer
        if reply is not None:
            self.service.task(
                SCRIPT + "worker.answer(number, reply)", {"number": wish["number"], "reply": reply}
            ).start()

    def run(self, function: str, **inputs: Any) -> dict[str, Any]:
        given = {"function": function, "context": "c", "outermost": True, "inputs": inputs}
        return outputs_of(self.service.task(RUN, given), self.hear)


def outputs_of(task: Any, hear: Callable[[Any], None]) -> dict[str, Any]:
    """Return what a task returns."""
    ended = threading.Event()

    def listen(event: Any) -> None:
        hear(event)
        if event.response_type.is_terminal():
            ended.set()

    task.listen(listen)
    task.start()
    assert ended.wait(100)
    assert task.error is None, task.error
    return dict(task.outputs)


def test_a_function_is_run_and_what_libraries_print_disturbs_nobody(
    service: Service, tmp_path: Path
) -> None:
    whole, cut = tmp_path / "a.tif", tmp_path / "b.tif"
    tifffile.imwrite(whole, np.zeros((2, 8, 8), np.uint8))
    cut.write_bytes(whole.read_bytes()[:100])
    noisy = service.task("import os, sys\nprint('a library says'); os.write(1, b'and C too')\n3")
    fiji = Fiji(service, {})
    assert outputs_of(noisy, fiji.hear) == {"result": 3}
    assert fiji.run("problem", given=[str(whole)]) == {"value": "", "drop": []}
    assert "b.tif" in fiji.run("problem", given=[str(cut)])["value"]
    assert service.invalid_lines() == []


def test_a_command_asks_fiji_for_what_it_needs(service: Service) -> None:
    """Help without a screen logs a line for each command."""
    java = {
        "isHeadless": {"value": True},
        "getClassLoader": {"value": {"o": 1, "c": "Loader"}},
        "loadClass": {"error": {"o": 2, "c": "java.lang.ClassNotFoundException", "message": "no"}},
        "fields": {"value": []},
        "log": {"value": None},
    }
    fiji = Fiji(service, java)
    outputs = fiji.run("command", key="help", options=None)
    assert outputs["value"] is None
    logged = [wish["given"][0] for wish in fiji.wishes if wish.get("name") == "log"]
    assert any(line.startswith("Denoise Stack...: ") for line in logged)
    dropped = {number for wish in fiji.wishes for number in wish["drop"]} | set(outputs["drop"])
    assert 2 in dropped  # nothing of a call is kept


def test_what_java_throws_goes_back_to_java(service: Service) -> None:
    """A macro that a command ends must end where Java waits for the command."""
    thrown = {"error": {"o": 7, "c": "java.lang.RuntimeException", "message": "Macro canceled"}}
    java = {
        "isHeadless": {"value": False},
        "getClassLoader": {"value": {"o": 1, "c": "Loader"}},
        "loadClass": thrown,
        "fields": {"value": []},
        "isBatchMode": {"value": False},
        "getCurrentImage": {"value": None},
        "error": thrown,
    }
    fiji = Fiji(service, java)
    outputs = fiji.run("command", key="denoise", options="units=1")
    assert outputs["error"] == {"o": 7}
    said = next(wish["given"] for wish in fiji.wishes if wish.get("name") == "error")
    assert said == ["Denoise Stack", "No image is open: open a stack first."]


@pytest.mark.skipif(sys.platform == "win32", reason="looks at shared memory as on POSIX")
def test_it_ends_with_fiji_and_leaves_no_memory_behind(service: Service) -> None:
    """A Fiji that is gone, in the middle of a command, while memory is shared."""
    shared: list[SharedMemory] = []

    def share(wish: dict[str, Any]) -> dict[str, Any]:
        shared.append(SharedMemory(create=True, rsize=wish["given"][0]["v"]))
        return {"value": shared[0].name}

    fiji = Fiji(service, {"share": share, "fields": {"value": []}, "read": None})
    reading = """
import numpy as np
from nrrn_fiji.fiji import remote
with remote.LINK.task(task, "c", True):
    remote.copy_from_java(np.zeros((3, 4), np.uint8), remote.JSequence(5, "[B"), 0)
"""
    task = service.task(reading)
    asked = threading.Event()

    def hear(event: Any) -> None:
        # The last wish is never answered.
        if "UPDATE" in str(event.response_type) and event.info["what"] == "read":
            asked.set()
        else:
            fiji.hear(event)

    task.listen(hear)
    task.start()
    assert asked.wait(900)
    file = Path("/dev/shm") / shared[0].name.lstrip("/")
    assert file.exists()
    service.close()  # as when Fiji ends: nobody writes to the worker any more
    service.wait_for()
    assert not file.exists()
    shared[0].unlink_on_dispose(False)
    shared[0].close()
