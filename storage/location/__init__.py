"""Dataset locations: a folder on disk or a prefix in an S3 bucket, behind one interface.

    place = locate("data/eyes.zarr")        # or "s3://bucket/eyes.zarr"
    place.create("zarr.json", document)     # whole objects, atomically
    with place.claim("records/00003/claim") as claim:
        claim.store()                       # writes only while no other process is in here

S3 is set up by the variables that AWS and obstore define (AWS_ENDPOINT_URL, AWS_REGION,
AWS_ACCESS_KEY_ID, …). What the machine or the network does is an OSError on both.
"""

from storage.location.base import CLAIM_WAIT_S, ROOT_DOCUMENT, Claim, Location, Piece
from storage.location.local import LocalLocation
from storage.location.s3 import S3Location
from storage.location.s3_claim import LEASE_S
from storage.location.s3_objects import ENDPOINTS, RETRIES
from storage.location.urls import locate

__all__ = [
    "CLAIM_WAIT_S",
    "ENDPOINTS",
    "LEASE_S",
    "RETRIES",
    "ROOT_DOCUMENT",
    "Claim",
    "LocalLocation",
    "Location",
    "Piece",
    "S3Location",
    "locate",
]
