"""s3torchconnectorclient: the AWS common runtime (CRT), as PyTorch's connector uses it."""

import os
from importlib.metadata import version

from common import job_of_arguments, lead_job

CHUNK_BYTES = 1 << 20


def main():
    job = job_of_arguments()
    os.environ.update(AWS_ACCESS_KEY_ID="key", AWS_SECRET_ACCESS_KEY="secret", AWS_EC2_METADATA_DISABLED="true")
    from s3torchconnectorclient._mountpoint_s3_client import MountpointS3Client
    client = MountpointS3Client(
        "us-east-1", endpoint=job.endpoint, force_path_style=True, part_size=job.part_bytes,
        throughput_target_gbps=100.0)

    def write(name, data):
        stream = client.put_object("bucket", name)
        view = memoryview(data)
        for start in range(0, len(view), CHUNK_BYTES):
            stream.write(bytes(view[start:start + CHUNK_BYTES]))
        stream.close()

    def read(name):
        return b"".join(client.get_object("bucket", name))

    lead_job(job, write, read, version("s3torchconnectorclient"), "crc32c of parts, when writing")


if __name__ == "__main__":
    main()
