"""What these tests tell Ray about tokens must not reach the clusters of other tests."""

import os
from collections.abc import Iterator
from unittest import mock

import pytest


@pytest.fixture(autouse=True)
def _own_token() -> Iterator[None]:
    with mock.patch.dict(os.environ):
        yield
    from ray._raylet import AuthenticationTokenLoader

    # Ray's C++ side reads the token once per process and keeps it.
    AuthenticationTokenLoader.instance().reset_cache()
