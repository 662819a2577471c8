"""obstore: object_store for Python."""

import obstore
from obstore.store import AzureStore, LocalStore, S3Store

from common import job_of_arguments, lead_job


def store(job):
    plain = {"client_options": {"allow_http": True}}
    if job.storage == "s3":
        return S3Store(
            "bucket", endpoint=job.endpoint, region="us-east-1", access_key_id="key",
            secret_access_key="secret", virtual_hosted_style_request=False, unsigned_payload=True, **plain)
    if job.storage == "az":
        return AzureStore(
            "container", account_name="account", account_key="c2VjcmV0",
            endpoint=f"{job.endpoint}/account", **plain)
    return LocalStore(job.folder)


def main():
    job = job_of_arguments()
    opened = store(job)
    parts = {"use_multipart": True, "chunk_size": job.part_bytes, "max_concurrency": job.threads}
    options = {"use_multipart": False} if job.small else parts

    def read(name):
        return obstore.get(opened, name).bytes()

    lead_job(job, lambda name, data: obstore.put(opened, name, data, **options), read, obstore.__version__)


if __name__ == "__main__":
    main()
