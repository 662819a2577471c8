"""azure-storage-blob: Azure's own client."""

from azure.storage.blob import BlobServiceClient
from azure.storage.blob import __version__ as version

from common import job_of_arguments, lead_job


def main():
    job = job_of_arguments()
    service = BlobServiceClient(
        f"{job.endpoint}/account", credential={"account_name": "account", "account_key": "c2VjcmV0"},
        max_block_size=job.part_bytes, max_single_put_size=job.part_bytes, max_chunk_get_size=job.part_bytes,
        max_single_get_size=job.part_bytes)
    container = service.get_container_client("container")

    def write(name, data):
        container.upload_blob(name, data, overwrite=True, max_concurrency=job.threads)

    def read(name):
        return container.download_blob(name, max_concurrency=job.threads).readall()

    lead_job(job, write, read, version)


if __name__ == "__main__":
    main()
