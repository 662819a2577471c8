"""opendal: Apache OpenDAL for Python."""

from importlib.metadata import version

import opendal

from common import job_of_arguments, lead_job


def operator(job):
    if job.storage == "s3":
        return opendal.Operator(
            "s3", bucket="bucket", endpoint=job.endpoint, region="us-east-1", access_key_id="key",
            secret_access_key="secret", disable_config_load="true")
    if job.storage == "az":
        return opendal.Operator(
            "azblob", container="container", account_name="account", account_key="c2VjcmV0",
            endpoint=f"{job.endpoint}/account")
    # Without a folder for temporary files it writes in place.
    return opendal.Operator("fs", root=job.folder)


def main():
    job = job_of_arguments()
    opened = operator(job)
    parts = {} if job.small else {"chunk": job.part_bytes, "concurrent": job.threads}

    def write(name, data):
        opened.write(name, data, **parts)

    def read(name):
        return opened.read(name, **parts)

    lead_job(job, write, read, version("opendal"))


if __name__ == "__main__":
    main()
