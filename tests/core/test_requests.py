"""Keywords become exact requests; anything wrong names the key, the value and what is allowed."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from pilotflow.errors import ConfigError
from pilotflow.requests import parse_request
from pilotflow.resources import DEFAULT_REQUEST, Request


def test_no_keywords_are_the_default_request() -> None:
    assert parse_request() is DEFAULT_REQUEST
    assert parse_request(num_cpus=None, memory=None, runtime=None) == DEFAULT_REQUEST


def test_every_keyword_becomes_its_exact_field() -> None:
    request = parse_request(
        num_cpus=0.5,
        memory="4g",
        num_gpus=0.25,
        num_nodes=2,
        ranks_per_node=8,
        runtime="PT30M",
        priority=-3,
        resources={"tape": 2, "licence": 1},
    )
    assert request == Request(500, 4 << 30, 250, 2, 8, 1800.0, -3, (("licence", 1), ("tape", 2)))
    assert hash(request)


@pytest.mark.parametrize(
    ("number", "milli"),
    [(1, 1000), (0.1, 100), (0.29, 290), (1 / 3, 334), (0.0001, 1), (Fraction(1, 2), 500), (1.001, 1001)],
)
def test_fractions_of_cores_are_exact_or_rounded_up(number: float, milli: int) -> None:
    assert parse_request(num_cpus=number).cpus_milli == milli


def test_numbers_of_numpy_are_numbers() -> None:
    request = parse_request(num_cpus=np.float32(0.5), num_nodes=np.int64(3), memory=np.int32(7))
    assert request == Request(cpus_milli=500, num_nodes=3, memory_bytes=7)
    assert type(request.num_nodes) is int
    assert type(request.memory_bytes) is int


def test_zero_gpus_are_none_and_whole_ones_are_counted() -> None:
    assert parse_request(num_gpus=0) == DEFAULT_REQUEST
    assert parse_request(num_gpus=2).gpus_milli == 2000


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"num_cpus": 0}, "num_cpus=0: expected a number of cores above 0"),
        ({"num_cpus": -1}, "num_cpus=-1: expected"),
        ({"num_cpus": "2"}, "num_cpus='2': is str, expected a number of cores"),
        ({"num_cpus": True}, "num_cpus=True: is bool, expected"),
        ({"num_cpus": math.nan}, "num_cpus=nan: expected"),
        ({"num_cpus": 10**400}, "expected a number of cores"),
        ({"num_gpus": 1.5}, "num_gpus=1.5: expected a whole number of GPUs, or a fraction of one"),
        ({"num_gpus": [0]}, "num_gpus=[0]: is list, expected"),
        ({"memory": 0}, "memory=0: expected more than 0 bytes"),
        ({"memory": "4x"}, "memory='4x': '4x': 'x' is not a unit of memory"),
        ({"memory": 1.5}, "memory=1.5: 1.5 is float, not a memory size"),
        ({"memory": True}, "memory=True: True is bool"),
        ({"num_nodes": 0}, "num_nodes=0: expected a whole number from 1"),
        ({"num_nodes": 1.0}, "num_nodes=1.0: is float, expected a whole number from 1"),
        ({"ranks_per_node": "8"}, "ranks_per_node='8': is str, expected"),
        ({"runtime": 0}, "runtime=0: expected more than 0 seconds"),
        ({"runtime": "soon"}, "runtime='soon': 'soon' is not a duration"),
        ({"priority": 2**40}, "priority=1099511627776: expected a whole number from -2147483648"),
        ({"priority": "high"}, "priority='high': is str"),
        ({"resources": ["licence"]}, "resources=['licence']: is list, expected names and amounts"),
        ({"resources": {"licence": 0}}, "the amount 0 of 'licence': expected a whole number from 1"),
        ({"resources": {1: 1}}, "the name 1 is int"),
        ({"num_cpu": 1}, "'num_cpu' is nothing a task can ask for (did you mean 'num_cpus'?). Valid: num_cpus, memory"),
        ({"walltime": 1}, "'walltime' is nothing a task can ask for. Valid: num_cpus"),
    ],
)
def test_what_is_wrong_is_named_with_what_is_allowed(keywords: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_request(**keywords)
    assert words in str(caught.value)
