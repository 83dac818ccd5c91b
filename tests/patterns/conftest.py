import pytest
from patterns.server import LocalServer
@pytest.fixture
def server():
    with LocalServer() as s:
        yield s
