import os
import subprocess
import sys
from dataclasses import replace

import pytest

from trainables.process import Process


def test_this_process_is_alive_and_survives_json() -> None:
    me = Process.current()
    assert me.pid == os.getpid()
    assert not me.is_dead()
    assert Process.from_dict(me.to_dict()) == me
    assert str(me) == f"process {os.getpid()} on {me.host}"


def test_a_number_that_is_used_again_is_another_process() -> None:
    assert replace(Process.current(), born="1").is_dead()


def test_nothing_is_known_about_another_host() -> None:
    assert not replace(Process.current(), space="another kernel", pid=2**22 + 1).is_dead()
    assert not replace(Process.current(), space="").is_dead()


def test_a_process_that_ended_is_dead_even_before_it_is_reaped() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    stat = f"/proc/{child.pid}/stat"
    with open(stat) as file:
        born = file.read().rpartition(")")[2].split()[19]
    process = replace(Process.current(), pid=child.pid, born=born)
    assert not process.is_dead()
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert process.is_dead()
    child.communicate()
    assert process.is_dead()


def test_a_field_that_is_missing() -> None:
    with pytest.raises(KeyError):
        Process.from_dict({"host": "here", "space": "x", "pid": 1})
