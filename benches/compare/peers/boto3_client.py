"""boto3 with its transfer manager."""

import io

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config

from common import SHARD_THREADS, job_of_arguments, lead_job


def main():
    job = job_of_arguments()
    client = boto3.client(
        "s3", endpoint_url=job.endpoint, region_name="us-east-1", aws_access_key_id="key",
        aws_secret_access_key="secret",
        # Without TLS it would hash each payload once more, which the others do not.
        config=Config(s3={"addressing_style": "path", "payload_signing_enabled": False},
                      max_pool_connections=max(SHARD_THREADS, 4 * job.threads)))
    transfer = TransferConfig(multipart_threshold=job.part_bytes, multipart_chunksize=job.part_bytes,
                              max_concurrency=job.threads)

    def write(name, data):
        if job.small:
            client.put_object(Bucket="bucket", Key=name, Body=data)
        else:
            client.upload_fileobj(io.BytesIO(data), "bucket", name, Config=transfer)

    def read(name):
        if job.small:
            return client.get_object(Bucket="bucket", Key=name)["Body"].read()
        memory = io.BytesIO()
        client.download_fileobj("bucket", name, memory, Config=transfer)
        return memory.getbuffer()

    lead_job(job, write, read, boto3.__version__, "crc32 of parts, when writing")


if __name__ == "__main__":
    main()
