"""The store contract on an S3-compatible server, where one is given."""

from __future__ import annotations

import os
import uuid

import pytest

from tests.contract.registry.blob_store_contract import BlobStoreContract
from twinloop.registry.objects import Objects, open_objects
from twinloop.registry.store_settings import StoreSettings

ENDPOINT = os.environ.get("TWINLOOP_TEST_S3_ENDPOINT", "")
BUCKET = os.environ.get("TWINLOOP_TEST_S3_BUCKET", "twinloop-test")


@pytest.mark.skipif(
    not ENDPOINT,
    reason="set TWINLOOP_TEST_S3_ENDPOINT, TWINLOOP_TEST_S3_BUCKET and the AWS_* credentials of an existing bucket",
)
class TestS3Store(BlobStoreContract):
    @pytest.fixture
    def objects(self) -> Objects:
        url = f"s3://{BUCKET}/{uuid.uuid4().hex}"
        return open_objects(
            StoreSettings(url=url, endpoint=ENDPOINT, allow_http=ENDPOINT.startswith("http://"))
        )
